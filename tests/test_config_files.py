"""Config files and overrides: an error of the user's code is told by its line, and keys of dicts are set by name."""

import re

import pytest
from conftest import run
from test_ranges import whole_experiment

from sftmix_jax import experiment
from sftmix_jax.errors import UserError
from sftmix_jax.evaluation.task import find_task
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
    "import json\n\njson.loads('{')\n": ":3: JSONDecodeError: Expecting property name",
}
CALLED = {
    "def get_config(k='1'):\n    return 1 / int(k)\n": ":2: ZeroDivisionError: division by zero; correct the file or",
    "def get_config():\n    return 1\n": ": TypeError: get_config() takes 0 positional arguments but 1 was given",
    "import fractions\n\ndef get_config(k):\n    fractions.Fraction(1, int(k))\n": ":4: ZeroDivisionError: Fraction(1",
    "x = 1\n": ": has no function get_config",
}


@pytest.mark.parametrize("text", [*FAULTS, *CALLED])
def test_what_a_config_raises_is_told_by_its_line(tmp_path, monkeypatch, text):
    said = (FAULTS | CALLED)[text]
    (tmp_path / "own.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    for file in ("own.py", str(tmp_path / "own.py")):
        for use in (lambda: experiment.parse([f"--config={file}:0"]), lambda: study.read(f"{file}:0")):  # noqa: B023
            with pytest.raises(UserError, match=re.escape(file + said)) as error:
                use()
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", FAULTS)
def test_what_a_task_raises_is_told_by_its_line(tmp_path, text):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'own.py'}{FAULTS[text]}")):
        find_task(str(tmp_path / "own.py"))


def test_a_text_behind_the_colon_that_is_no_number_ends_in_one_line():
    ended = run("sftmix_jax.audit", "--config=own_files.py:1/0")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(r"own_files\.py:\d+: ZeroDivisionError: .*; correct the file or the '1/0' behind the colon$", line)


def test_a_config_s_own_user_error_stays_as_it_is(tmp_path):
    (tmp_path / "own.py").write_text(
        "from sftmix_jax.errors import UserError\n\n\ndef get_config():\n    raise UserError('mine')\n"
    )
    with pytest.raises(UserError, match=r"^mine$"):
        experiment.parse([f"--config={tmp_path / 'own.py'}"])


def test_a_config_with_dataclasses_of_its_own_is_read(tmp_path):
    """`dataclasses` looks for the module of a class whose annotations are texts."""
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\nimport dataclasses\nfrom sftmix_jax.experiment import Experiment\n\n\n"
        "@dataclasses.dataclass\nclass Mine:\n    kw: dataclasses.KW_ONLY\n    x: int = 3\n\n\n"
        "def get_config():\n    return Mine()\n"
    )
    with pytest.raises(UserError, match="must return an Experiment, this one returns a Mine"):
        experiment.parse([f"--config={tmp_path / 'own.py'}"])


def parsed(*overrides):
    return experiment.parse(["--config=quickstart.py", *(f"--config.{each}" for each in overrides)])[0]


def test_keys_of_dicts_are_set_from_the_command_line():
    config = parsed(
        "domains.math.columns.question=q=1", "domains.math.columns.answer=5", "domains.code.columns['query']=",
        "stages.general.optimizer.options.b2=0.5", "stages.general.optimizer.options.b1=0.25",
        "stages.general.optimizer.options.nesterov=True", "stages.general.optimizer.options.b2=0.75",
        "evaluation.data.tiny_math=tiny:3", "seed=7",
    )  # fmt: skip
    assert config.domains["math"].columns == {"question": "q=1", "answer": "5"}
    assert config.domains["code"].columns == {"query": ""} and config.domains["general"].columns == {}
    assert config.stages["general"].optimizer.options == {"b2": 0.75, "b1": 0.25, "nesterov": True}
    assert config.stages["specialised"].optimizer.options == {}, "no other stage's"
    assert config.evaluation.data == {"tiny_math": "tiny:3"} and config.seed == 7


def test_keys_that_a_config_has_are_set_too(tmp_path):
    (tmp_path / "own.py").write_text(
        "from sftmix_jax import desk\nfrom pathlib import Path\n\n\ndef get_config():\n"
        f"    config = desk.call(Path({str(experiment.desk.find('configs', 'quickstart.py'))!r}), 'config')\n"
        "    config.stages['general'].optimizer.options = {'eps_root': 1, 'nesterov': False}\n    return config\n"
    )
    flags = ["options.eps_root=0.5", "options.nesterov=true"]
    config, _ = experiment.parse(
        [f"--config={tmp_path / 'own.py'}", *(f"--config.stages.general.optimizer.{flag}" for flag in flags)]
    )
    assert config.stages["general"].optimizer.options == {"eps_root": 0.5, "nesterov": True}


@pytest.mark.parametrize(("override", "said"), [
    ("stages.general.optimizer.options.b2=x", "config.stages.general.optimizer.options.b2: 'x'; must be a finite"),
    ("stages.general.optimizer.options.b2=[1]", "config.stages.general.optimizer.options.b2: [1]; must be a finite"),
    ("stages.general.optimizer.options.b9=1", "adamw has no argument 'b9'; did you mean 'b2'"),
    ("domains.maths.columns.question=q", "--config.domains.maths: no field 'maths'; did you mean 'math'"),
    ("domains.math.column.question=q", "--config.domains.math.column: no field 'column'; did you mean 'columns'"),
    ("domains.none.path=x", "--config.domains.none: no field 'none'"),
    ("stages.general.mixture.maths.count=3", "no field 'maths'; did you mean 'math'"),
    ("domains.math.columns={'question':'q'}", "set one of them: --config.domains.math.columns.KEY=VALUE"),
    ("stages.general.batch=8", "set one of them: --config.stages.general.batch.KEY=VALUE"),
])  # fmt: skip
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
