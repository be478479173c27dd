"""Config files and overrides: an error of the user's code is told by its line, and keys of dicts are set by name."""

import re

import pytest
from conftest import call, run
from test_ranges import whole_experiment

from sftmix_jax.data import sources
from sftmix_jax.data.messages import BadRow
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.evaluation.task import find_task
from sftmix_jax.experiment import config as experiment
from sftmix_jax.machine.errors import UserError
from sftmix_jax.studies import study

# text of the file → what is said of it behind its name
FAULTS = {
    "x = 1\ny = 1 / 0\n": ":2: ZeroDivisionError: division by zero; correct the file",
    "import os\n\nx = {}['nix']\n": ":3: KeyError: 'nix'; correct the file",
    "def get_config(:\n    pass\n": ":1: SyntaxError: invalid syntax; correct the file",
    "x = 1\n  y = 2\n": ":2: IndentationError: unexpected indent; correct the file",
    "import none_such\n": ":1: ModuleNotFoundError: No module named 'none_such'; correct the file",
    "from math import none_such\n": ":1: ImportError: cannot import name 'none_such' from 'math'",
    "raise OSError(28, 'full')\n": ":1: OSError: [Errno 28] full; correct the file",
    "raise TypeError('two\\nlines')\n": ":1: TypeError: two lines; correct the file",
    "raise AssertionError\n": ":1: AssertionError; correct the file",
    "import sys\nsys.exit(0)\n": ":2: SystemExit: 0; correct the file",
    "class Own(BaseException):\n    def __str__(self): return 1\n\nraise Own\n": ":4: Own; correct the file",
    "import json\n\njson.loads('{')\n": ":3: JSONDecodeError: Expecting property name",
}
CALLED = {
    "def get_config(k='1'):\n    return 1 / int(k)\n": ":2: ZeroDivisionError: division by zero; correct the file or",
    "def get_config():\n    return 1\n": ":0: takes no arguments; leave ':0' out",
    "import fractions\n\ndef get_config(k):\n    fractions.Fraction(1, int(k))\n": ":4: ZeroDivisionError: Fraction(1",
    "x = 1\n": ": has no function get_config",
}


@pytest.mark.parametrize("text", [*FAULTS, *CALLED])
def test_what_a_config_raises_is_told_by_its_line(tmp_path, monkeypatch, text):
    said = (FAULTS | CALLED)[text]
    (tmp_path / "own.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    for file in ("own.py", str(tmp_path / "own.py")):
        for use in (lambda: experiment.read([f"--config={file}:0"]), lambda: study.read(f"{file}:0")):  # noqa: B023
            with pytest.raises(UserError, match=re.escape(file + said)) as error:
                use()
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", FAULTS)
def test_what_a_task_raises_is_told_by_its_line(tmp_path, text):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'own.py'}{FAULTS[text]}")):
        find_task(str(tmp_path / "own.py"))


def test_a_text_behind_the_colon_that_is_no_number_ends_in_one_line():
    ended = call("audit", "--config=own_files.py:1/0")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert line.endswith("own_files.py:1/0: k: '1/0'; must be a number or a fraction such as 1/16")


def test_a_config_s_own_user_error_stays_as_it_is(tmp_path):
    (tmp_path / "own.py").write_text(
        "from sftmix_jax.machine.errors import UserError\n\n\ndef get_config():\n    raise UserError('mine')\n"
    )
    with pytest.raises(UserError, match=r"^mine$"):
        experiment.read([f"--config={tmp_path / 'own.py'}"])


def test_a_config_with_dataclasses_of_its_own_is_read(tmp_path):
    """`dataclasses` looks for the module of a class whose annotations are texts."""
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\nimport dataclasses\n"
        "from sftmix_jax.experiment.config import Experiment\n\n\n"
        "@dataclasses.dataclass\nclass Mine:\n    kw: dataclasses.KW_ONLY\n    x: int = 3\n\n\n"
        "def get_config():\n    return Mine()\n"
    )
    with pytest.raises(UserError, match="must return an Experiment, this one returns a Mine"):
        experiment.read([f"--config={tmp_path / 'own.py'}"])


def parsed(*overrides):
    return experiment.read(["--config=quickstart.py", *(f"--config.{each}" for each in overrides)])


def test_keys_of_dicts_are_set_from_the_command_line():
    config = parsed(
        "domains.math.columns.question=q=1",
        "domains.math.columns.answer=5",
        "domains.code.columns['query']=",
        "stages.general.optimizer.options.b2=0.5",
        "stages.general.optimizer.options.b1=0.25",
        "stages.general.optimizer.options.nesterov=True",
        "stages.general.optimizer.options.b2=0.75",
        "evaluation.data.tiny_math=tiny:3",
        "seed=7",
    )
    assert config.domains["math"].columns == {"question": "q=1", "answer": "5"}
    assert config.domains["code"].columns == {"query": ""} and config.domains["general"].columns == {}
    assert config.stages["general"].optimizer.options == {"b2": 0.75, "b1": 0.25, "nesterov": True}
    assert config.stages["specialised"].optimizer.options == {}, "no other stage's"
    assert config.evaluation.data == {"tiny_math": "tiny:3"} and config.seed == 7


def test_the_kind_of_a_share_is_changed_from_the_command_line():
    def share(*flags: str) -> Share:
        overrides = [f"--config.stages.general.mixture.math.{flag}" for flag in flags]
        return experiment.read(["--config=quickstart.py", *overrides]).stages["general"].mixture["math"]

    assert share().count
    assert share("fraction=0.25") == Share(fraction=0.25)
    assert share("count=7") == Share(count=7)
    for flags in (("count=7", "fraction=0.5"), ("weight=1.0",)):  # two kinds; and other shares are no weights
        with pytest.raises(UserError, match=r"set one of|by weight and others not"):
            share(*flags)
    both = [f"--config.stages.specialised.mixture.{name}.weight=2" for name in ("math", "code")]
    config = experiment.read(["--config=quickstart.py", *both, "--config.stages.specialised.budget=9000"])
    assert config.stages["specialised"].mixture["math"] == Share(weight=2)


def test_keys_that_a_config_has_are_set_too(tmp_path):
    (tmp_path / "own.py").write_text(
        "from sftmix_jax import desk\n\n\ndef get_config():\n"
        "    config = desk.configured('quickstart.py', 'config')\n"
        "    config.stages['general'].optimizer.options = {'eps_root': 1, 'nesterov': False}\n    return config\n"
    )
    flags = ["options.eps_root=0.5", "options.nesterov=true"]
    config = experiment.read(
        [f"--config={tmp_path / 'own.py'}", *(f"--config.stages.general.optimizer.{flag}" for flag in flags)]
    )
    assert config.stages["general"].optimizer.options == {"eps_root": 0.5, "nesterov": True}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stages.general.optimizer.options.b2=x", "config.stages.general.optimizer.options.b2: 'x'; must be a finite"),
        (
            "stages.general.optimizer.options.b2=[1]",
            "config.stages.general.optimizer.options.b2: [1]; must be a finite",
        ),
        ("stages.general.optimizer.options.b9=1", "adamw has no argument 'b9'; did you mean 'b2'"),
        ("domains.maths.columns.question=q", "--config.domains.maths: no field 'maths'; did you mean 'math'"),
        ("domains.math.column.question=q", "--config.domains.math.column: no field 'column'; did you mean 'columns'"),
        ("domains.none.path=x", "--config.domains.none: no field 'none'"),
        ("stages.general.mixture.maths.count=3", "no field 'maths'; did you mean 'math'"),
        ("domains.math.columns={'question':'q'}", "set one of them: --config.domains.math.columns.KEY=VALUE"),
        ("stages.general.batch=8", "set one of them: --config.stages.general.batch.KEY=VALUE"),
    ],
)
def test_a_key_that_cannot_be_set_is_named(override, said):
    with pytest.raises(UserError, match=re.escape(said)) as error:
        parsed(override)
    assert "\n" not in str(error.value)


def test_the_first_stage_has_no_moments_to_go_on_with():
    config = whole_experiment()
    config.stages["second"].carry_optimizer = True
    config.check()
    config.stages["first"].carry_optimizer = True
    with pytest.raises(
        UserError, match=r"^config\.stages\.first\.carry_optimizer: True; must be False in the first stage"
    ):
        config.check()
    config.stages = {"second": config.stages["second"], "first": config.stages["first"]}
    with pytest.raises(UserError, match=r"^config\.stages\.second\.carry_optimizer: True"):
        config.check()


OWN = """
import pathlib
from fractions import Fraction
import numpy as np
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment.config import Experiment, Stage

def get_config():
    stage = Stage(mixture={"d": Share(fraction=Fraction(1, 4))}, epochs=np.int64(2))
    stage.optimizer.learning_rate = np.float32(0.5)
    return Experiment("own", {"d": Source(pathlib.Path("rows.jsonl"))}, {"one": stage, "two": stage})
"""


def test_stages_that_share_an_object_are_set_one_by_one(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    config = experiment.read(
        [
            f"--config={tmp_path / 'own.py'}",
            "--config.stages.two.epochs=5",
            "--config.stages.one.batch.batch_size=4",
        ]
    )
    one, two = config.stages["one"], config.stages["two"]
    assert (one.epochs, two.epochs) == (2, 5) and one.batch.batch_size == 4 != two.batch.batch_size
    assert one.optimizer.learning_rate == 0.5 and one.mixture["d"].fraction == 0.25
    assert config.domains["d"].path == "rows.jsonl" and type(one.epochs) is int


@pytest.mark.parametrize("file", ["convert", "tagger"])
@pytest.mark.parametrize("code", ["sys.exit(0)", "raise Own", "raise KeyError(3)"])
def test_a_user_s_function_that_ends_the_program_makes_a_bad_row(tmp_path, file, code):
    head = "import sys\n\nclass Own(BaseException):\n    pass\n\n"
    (tmp_path / "mine.py").write_text(f"{head}def turns(row):\n    {code}\n")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "p", "response": "r"}\n')
    function = f"{tmp_path / 'mine.py'}:turns"
    source = Source(str(rows), **{file: function}, without="" if file == "convert" else "code")
    (found,) = [row for _, row in sources.read_conversations(source)]
    assert isinstance(found, BadRow) and f"{file} raised" in str(found)
    (tmp_path / "mine.py").write_text(f"{head}{code}\n")
    with pytest.raises(UserError, match="the file fails: "):
        list(sources.read_conversations(source))


def test_a_task_that_ends_the_program_is_no_finished_command(tmp_path):
    (tmp_path / "own.py").write_text(
        "import sys\nfrom sftmix_jax.evaluation.task import Metric, Task\n\n"
        "def load(path):\n    sys.exit()\n\nTASK = Task('own', load, (Metric('m'),), '', score=lambda q, t: {})\n"
    )
    ended = run("sftmix_jax.evaluate", "--task", str(tmp_path / "own.py"), "--workdir", str(tmp_path))
    assert ended.returncode == 2 and "Traceback" not in ended.stderr


def test_a_misspelt_strategy_is_named():
    with pytest.raises(UserError, match="did you mean 'mixed_sequential'"):
        experiment.read(["--config=quickstart.py:mixed_sequental"])


def test_names_that_are_no_identifiers_are_set_too_and_flags_stand_in_any_order(tmp_path):
    (tmp_path / "own.py").write_text(OWN.replace('"d"', '"my-d"'))
    file = str(tmp_path / "own.py")
    for argv in (
        [f"--config={file}", "--config.domains.my-d.path=other.jsonl", "--config.seed=3"],
        ["--config.domains.my-d.path=other.jsonl", "--config.seed=3", "--config", file],
        ["--config.domains['my-d'].path=other.jsonl", "--config", file, "--config.seed=3"],
    ):
        config = experiment.read(argv)
        assert (config.domains["my-d"].path, config.seed) == ("other.jsonl", 3)
    with pytest.raises(UserError, match=r"no field 'my-e'; did you mean 'my-d'"):
        experiment.read([f"--config={file}", "--config.domains.my-e.path=x"])
    for argv in (["--config.seed=1"], ["--config"], []):
        with pytest.raises(UserError, match=r"^name an experiment: --config FILE\.py"):
            experiment.read(argv)
    (tmp_path / "own.py").write_text("def get_config():\n    pass\n")
    with pytest.raises(UserError, match="must return an Experiment, this one returns a NoneType"):
        experiment.read([f"--config={file}"])
