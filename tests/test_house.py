"""The architecture, the configs and the toy keep their promises."""

import ast
import re
import subprocess
import sys

import import_graph
import pytest
from conftest import ROOT, call

import sftmix_jax.train as train
from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment import strategies
from sftmix_jax.experiment.config import Stage
from sftmix_jax.machine import options
from sftmix_jax.machine.errors import UserError
from sftmix_jax.studies import study
from sftmix_jax.tiny import domains

PACKAGE = ROOT / "sftmix_jax"
# Each room with the rooms that its modules may import, from the ground up. Nobody imports a verb.
MAY_IMPORT = {
    "machine": "",
    "workdir": "machine",
    "parallel": "machine",
    "tiny": "machine",
    "desk": "machine",
    "models": "machine parallel",
    "data": "machine tiny",
    "training": "machine parallel models data",
    "sampling": "machine parallel models data",
    "evaluation": "machine workdir desk data sampling",
    "probes": "machine parallel models training",
    "analysis": "machine workdir evaluation",
}
# They assemble an experiment, or are verbs.
VERBS = {
    "audit",
    "evaluate",
    "export",
    "init_data",
    "plan",
    "probe",
    "report",
    "resume_check",
    "sample",
    "study",
    "train",
}
ABOVE = {"api", "experiment", "planning", "resuming", "studies", "__main__"} | VERBS


def test_imports_run_one_way():
    graph = import_graph.rooms()
    assert graph.keys() == MAY_IMPORT.keys() | ABOVE
    for room, allowed in MAY_IMPORT.items():
        surplus = graph[room] - set(allowed.split())
        assert not surplus, f"{room} may not import {surplus}"
    assert not VERBS & set().union(*graph.values()), "nobody imports a verb"


def test_no_imports_form_a_circle():
    assert import_graph.circle(import_graph.imports()) == []
    assert import_graph.circle(import_graph.rooms()) == []
    assert len(import_graph.circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()})) > 1


def test_only_the_terminal_prints():
    """Whatever else would print could print a text with control codes as it is."""
    for file in PACKAGE.rglob("*.py"):
        if "contained" in file.parts or file.name == "terminal.py":
            continue
        used = {ast.unparse(node) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.expr)}
        assert not used & {"print", "sys.stderr.write", "sys.stdout.write", "Console"}, file


def test_torch_is_never_imported_and_analysis_knows_no_jax():
    for file in PACKAGE.rglob("*.py"):
        modules = re.findall(r"^\s*(?:import|from) (\w+)", file.read_text(), re.MULTILINE)
        assert "torch" not in modules, file
        if "analysis" in file.parts:
            assert not {"jax", "flax", "orbax"} & set(modules), file


def test_a_report_starts_without_jax():
    imported = "import sys, sftmix_jax.report; print([name for name in ('jax', 'flax') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", imported], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "[]", ended.stdout + ended.stderr


HEAVY = ("datasets", "matplotlib", "plotly", "sklearn", "tensorflow", "tensorflow_datasets", "torch")


def test_training_sampling_scoring_and_exporting_start_without_what_only_other_commands_need():
    verbs = "sftmix_jax.train, sftmix_jax.evaluate, sftmix_jax.sample, sftmix_jax.export"
    missing = f"import sys; sys.modules |= dict.fromkeys({HEAVY}); import {verbs}"
    ended = subprocess.run([sys.executable, "-c", missing], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(("spec", "package"), [("hf:a/b", "datasets"), ("tfds:a", "tensorflow-datasets")])
def test_a_package_that_a_command_lacks_is_named(spec, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)  # its import fails
    ended = call(
        "train", "--config=quickstart.py", f"--config.domains.math.path={spec}", f"--workdir={tmp_path / 'workdir'}"
    )
    assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr
    assert f"needs the package {package}, which is not installed: pip install {package}" in ended.stderr


CONFIGS = [
    "dmt.py",
    "dmt.py:13b",
    "dmt.py:size=33b,k=1/16",
    "dmt.py:tiny",
    "multitask.py:7b",
    "sequential.py",
    "mixed_sequential.py:65b",
    "single.py",
    "single.py:code,size=13b",
    "single.py:general,size=33b,k=1/64",
    "single.py:math,size=tiny,k=1/4",
    "quickstart.py",
    "quickstart.py:mixed_sequential",
    "own_files.py",
    "own_files.py:k=1/16",
    "pretrain_tiny.py",
]


def test_every_config_is_listed_here():
    assert {spec.partition(":")[0] for spec in CONFIGS} == {file.name for file in (ROOT / "configs").glob("*.py")}


@pytest.mark.parametrize("file", sorted(file.name for file in (ROOT / "configs" / "studies").glob("*.py")))
@pytest.mark.parametrize("size", ["tiny", "7b", "13b,seeds=3", "33b"])
def test_every_study_builds(file, size):
    found = study.read(f"studies/{file}:{size}")
    assert found.question and all(run.labels for run in found.runs)


@pytest.mark.parametrize("spec", CONFIGS)
def test_every_config_builds(spec):
    config = experiment.read(["--config", spec])
    assert config.stages and ast.get_docstring(ast.parse((ROOT / "configs" / spec.partition(":")[0]).read_text()))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config=dmt.py", "--config.seeed=1"], "no field 'seeed'; did you mean 'seed'"),
        (["--config=dmt.py", "--config.stages.generl.epochs=1"], "no field 'generl'; did you mean 'general'"),
        (["--config=dmt.py", "--config.stages.general.mixture.math.fraktion=1"], "did you mean 'fraction'"),
        (
            ["--config=dmt.py", "--config.stages.general.mixture.math.fraction=1.5"],
            r"math\.fraction: 1\.5; must be above 0",
        ),
        (["--config=dmt.py", "--config.stages.general.batch.packing=bestfit"], "did you mean 'best_fit'"),
        (["--config=dmt.py", "--config.seed=abc"], "abc"),
        (["--config=dmtt.py"], r"did you mean 'dmt\.py'"),
        (["--config=dmt.py:7bb"], "did you mean '7b'"),
        (["--config=dmt.py", "--workdri=x"], "workdir"),
        ([], "name an experiment"),
    ],
)
def test_bad_command_lines_are_explained(flags, said):
    with pytest.raises(UserError, match=said):
        experiment.read(options.parse(train.Options, flags).config)


def test_an_unknown_domain_names_the_nearest():
    config = experiment.read(["--config", "dmt.py"])
    config.stages["general"].mixture["maths"] = Share(fraction=1.0)
    with pytest.raises(UserError, match=r"no domain 'maths'.*did you mean 'math'"):
        config.check()


def shares_of(stages):
    return {name: {d: (s.fraction, s.count) for d, s in stage.mixture.items()} for name, stage in stages.items()}


ALL = Share(fraction=1.0)
MATH_CODE = {"code": ALL, "math": Share(count=512)}


def test_dmt_replays_k_of_what_the_first_stage_took():
    found = shares_of(strategies.dmt(Stage(), MATH_CODE, {"general": ALL}, 1 / 256))
    assert found == {
        "specialised": {"code": (1.0, None), "math": (None, 512)},
        "general": {"general": (1.0, None), "code": (1 / 256, None), "math": (None, 2)},
    }


@pytest.mark.parametrize("k", [-1, -1 / 16, float("nan")])
def test_a_replay_of_less_than_nothing_is_refused(k):
    with pytest.raises(UserError, match=r"k=.*: must be 0 or more"):
        strategies.dmt(Stage(), MATH_CODE, {"general": ALL}, k)


def test_dmt_without_replay_is_mixed_sequential():
    general = {"general": ALL}
    assert shares_of(strategies.dmt(Stage(), MATH_CODE, general, 0)) == shares_of(
        strategies.mixed_sequential(Stage(), MATH_CODE, general)
    )


def test_strategies_share_no_objects():
    stages = strategies.sequential(Stage(batch=BatchConfig(batch_size=4)), {"code": ALL, "math": ALL})
    stages["code"].batch.batch_size = 8
    stages["code"].mixture["code"].fraction = 0.5
    assert (stages["math"].batch.batch_size, stages["math"].mixture["math"].fraction, ALL.fraction) == (4, 1.0, 1.0)


@pytest.mark.parametrize("name", ["math", "code", "general"])
def test_toy_splits_cannot_overlap(name):
    generate = domains.DOMAINS[name][0]
    from random import Random

    rng, train, test = Random(0), set(), set()
    for _ in range(4000):
        key, _ = generate(rng)
        (test if domains._is_test(key) else train).add(key)
    assert train and test and not train & test
    rows = [repr(row) for row in domains.train_rows(name, 500)]
    assert rows == [repr(row) for row in domains.train_rows(name, 500)]
    assert not set(rows) & {repr(row) for row in domains.test_rows(name, 300)}
    hard = list(domains.train_rows(name, 200, hard=True))
    assert len(hard) == 200 and min(row["difficulty"] for row in hard) == domains.HARD[name]
    assert not {repr(row) for row in hard} & {repr(row) for row in domains.test_rows(name, 300)}


def test_toy_rows_are_asked_for_by_count_and_difficulty():
    assert len(domains.read_test("math", "tiny:")) == 512 and len(domains.read_test("math", "tiny:7")) == 7
    hard = domains.read_test("math", "tiny:rows=7,hard=true")
    assert hard == domains.test_rows("math", 7, hard=True)
    assert min(row["difficulty"] for row in hard) == domains.HARD["math"]
    assert list(domains.read_train("code,rows=3")) == list(domains.train_rows("code", 3))
    for wrong, said in {
        "seven": "rows: 'seven'; must be a whole number",
        "0": "rows: 0; must be at least 1",
        "7,hard": "'hard' has no name; write hard=hard",
        "7,hard=er": "hard: 'er'; must be True or False",
        "7,hrad=true": "no argument 'hrad'; did you mean 'hard'",
        "7,rows=8": "'rows' is given twice",
    }.items():
        with pytest.raises(UserError, match=said) as error:
            domains.read_test("math", f"tiny:{wrong}")
        assert str(error.value).startswith(f"tiny:{wrong}: ")
    for wrong in ("maths", "math:7", ""):
        with pytest.raises(UserError, match=f"no toy domain 'tiny:{wrong}'"):
            domains.read_train(wrong)
    with pytest.raises(UserError, match="tiny:corpus: has no hard part; those with one: math, code, general"):
        next(domains.read_train("corpus,rows=7,hard=true"))


def test_the_base_has_read_no_test_question_worked_out():
    def bodies(rows):
        """What is worked out, whatever the story, the wording or the function's name."""
        sums = {"; ".join(re.findall(r"\d+ [-+*] \d+ = \d+", row)) for row in rows}
        return sums | {row.partition("(xs):\n")[2] for row in rows} - {""}

    read = bodies([row["text"] for row in domains.train_rows("worked", 20_000)])
    assert len(read) > 5000
    for name, answer in (("math", "answer"), ("code", "completion")):
        asked = bodies([row[answer] for row in domains.test_rows(name)]) - {""}
        assert len(asked) > 400 and not asked & read
        trained = bodies([row[answer] for row in domains.train_rows(name, 4000)])
        assert trained & read  # the same check does find what may be there


def test_toy_reference_answers_score_full_marks():
    from sftmix_jax.evaluation.task import find_task

    for name, answers in (
        ("tiny_math", lambda r: [f"= {r['result']}\n#### {r['result']}"]),
        ("tiny_code", lambda r: [r["completion"]]),
        ("tiny_general", lambda r: r["answers"]),
    ):
        task, _ = find_task(name)
        questions = task.load("tiny:20")
        best = task.metrics[0].best
        assert all(task.score(q, answers(q.reference))[task.metrics[0].name] == best for q in questions)
        assert {q.reference["difficulty"] for q in task.load("tiny:200")} >= {1, 2, 3}
