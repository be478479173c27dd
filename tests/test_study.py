"""Studies: axes, sharing, several workers, deaths and failures."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, call, run
from etils import epath

from sftmix_jax.data.messages import Message
from sftmix_jax.data.sources import Source, read_conversations
from sftmix_jax.data.tagger import tags
from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment.config import Experiment
from sftmix_jax.machine.errors import UserError
from sftmix_jax.planning import costs
from sftmix_jax.studies import hold, jobs, study
from sftmix_jax.studies.study import Axis, Run, Study
from sftmix_jax.workdir import records

# Two strategies and a replay on a handful of rows; three of five stages are shared.
SMALL = """
from sftmix_jax.experiment import paper, strategies
from sftmix_jax.studies.study import Run, Study

paper.TOY_ROWS.update(code=48, math=48, general=64)

def get_config(argument="2"):
    runs = []
    for seed in range(int(argument)):
        pattern, special = paper.pattern("tiny"), paper.shares("tiny", paper.SPECIALISED)
        general = paper.shares("tiny", ("general",))
        for k in (0.0, 0.25):
            experiment = paper.experiment(f"k{k:g}-s{seed}", "tiny", strategies.dmt(pattern, special, general, k), seed)
            experiment.evaluation.data = {"tiny_math": "tiny:6", "tiny_code": "tiny:6", "tiny_general": "tiny:6"}
            strategy, part = ("dmt", "1/4") if k else ("mixed_sequential", "0")
            labels = {"strategy": strategy, "k": part, "size": "tiny", "seed": seed}
            runs.append(Run(experiment, labels))
    return Study("small", "Does it run?", runs)
"""


@pytest.fixture
def small(tmp_path):
    (tmp_path / "small.py").write_text(SMALL)
    return str(tmp_path / "small.py")


def hashes(workdir) -> dict[str, str]:
    return {
        file.parent.name: json.loads(file.read_text())["params_sha256"]
        for file in (workdir / "stages").glob("*/done.json")
    }


def test_axes():
    assert study.grid(a=(1, 2), b=("x",)) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    assert study.zipped(a=(1, 2), b=(3, 4)) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    with pytest.raises(UserError, match="different lengths: a 2, b 1"):
        study.zipped(a=(1, 2), b=(3,))
    with pytest.raises(UserError, match="seeds=-1: must be at least 1, or 0"):
        study.seed_numbers("tiny", -1, toy=3)
    assert [len(study.seed_numbers(*each, toy=3)) for each in (("tiny", 0), ("7b", 0), ("7b", 2))] == [3, 1, 2]


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        (Axis("rows"), r"study\.axes\[1\]\.name: no run has the label 'rows'; "),
        (Axis("lr"), r"axes\[1\]\.name: 'lr'; must be no axis twice"),
        (Axis("seed"), r"axes\[1\]\.name: 'seed'; must be .* not the seed"),
        (Axis("k", order=("1", "1/4", "1")), r"axes\[1\]\.order: .*; must name each value once"),
        (Axis("k", order=("1",)), r"axes\[1\]\.order: .*; must name every value of the runs, '1/4' too"),
        (Axis("k", default="1/2"), r"axes\[1\]\.default: '1/2'; no run has it as its k"),
        (Axis("k", order=("1", "1/4"), default="1/2"), r"default: '1/2'; must be a value of the order"),
        (
            Axis("kind", scale="log"),
            r"axes\[1\]\.scale: 'log'; must be linear, as not every value of 'kind' is a number",
        ),
        (Axis("k", scale="square"), r"axes\[1\]\.scale: 'square'; must be linear or log"),
    ],
)
def test_an_axis_that_the_runs_do_not_have_is_refused(axis, said):
    labels = [{"lr": 1e-5, "k": "1", "kind": "a", "seed": 0}, {"lr": 2e-5, "k": "1/4", "kind": "b", "seed": 0}]
    config = experiment.read(["--config=quickstart.py"])
    runs = [Run(dataclasses.replace(config, name=f"e{i}"), each) for i, each in enumerate(labels)]
    sound = Study("s", "?", runs, axes=(Axis("lr", scale="log", default=1e-5), Axis("k", order=("1/4", "1"))))
    sound.check()
    with pytest.raises(UserError, match=said):
        dataclasses.replace(sound, axes=(Axis("lr"), axis)).check()


def test_a_record_of_a_study_carries_its_axes(tmp_path):
    """Also where it is held to equal steps, and its record already exists without them."""
    config = experiment.read(["--config=quickstart.py"])
    axes = (Axis("k", order=("1/16",), default="1/16"),)
    made = Study("s", "?", [Run(config, {"k": "1/16", "seed": 0})], hold="steps", axes=axes)
    for each in (dataclasses.replace(made, axes=()), made):
        jobs.make_jobs(hold.held(each), epath.Path(tmp_path))
    record = records.study(epath.Path(tmp_path) / "studies" / "s.json")
    assert record["axes"] == [{"name": "k", "order": ["1/16"], "scale": "linear", "default": "1/16"}]


def test_studies_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(UserError, match="has no experiments"):
        Study("empty", "", []).check()
    run_ = study.read("studies/rq4.py:size=tiny,seeds=1").runs[0]
    with pytest.raises(UserError, match="two experiments are named 'multitask-tiny-s0'"):
        Study("twice", "", [run_, Run(run_.experiment, {"seed": 1})]).check()
    with pytest.raises(UserError, match=r"study\.hold: 'step'; must be .*; did you mean 'steps'"):
        Study("held", "", [run_], hold="step").check()
    with pytest.raises(UserError, match=r"must return a Study.*sftmix_jax\.train"):
        study.read("dmt.py:7b")
    assert isinstance(run_.experiment, Experiment)


def test_the_papers_study_shares_what_it_can():
    """rq4 at 7b: 16 stages, of which DMT's six replays share the first."""
    chains = [costs.stage_costs(run.experiment) for run in study.read("studies/rq4.py:7b").runs]
    assert sum(map(len, chains)) == 16 and len(costs.distinct(chains)) == 11
    multitask = chains[0][0]
    assert multitask.expected and multitask.tokens == 3 * (110_142 * 250 + 20_022 * 150 + 86_060 * 1000)


def test_the_tagger_by_hand():
    def said(*texts):
        return [Message("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(texts)]

    assert tags(said("Sort a list in Python", "```python\nxs.sort()\n```")) >= {"code"}
    assert tags(said("Solve for x: x = 3 + 4 * 2 and calculate the sum of both", "x = 11")) == {"math"}
    assert tags(said("Tell me about the history of Rome.", "Rome was founded on seven hills.")) == set()


def test_rows_with_a_tag_are_left_out_and_counted(tmp_path):
    rows = [{"question": "q", "answer": "a", "tags": t} for t in (["code"], [], ["math", "x"], ["x"])]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source(str(tmp_path / "r.jsonl"), without="code,math", tagger="column:tags")
    found = [str(row) if isinstance(row, Exception) else "kept" for _, row in read_conversations(source)]
    assert found == ["tagged code", "kept", "tagged math", "kept"]


@pytest.mark.slow
def test_a_study_that_is_killed_twice_trains_nothing_twice(small, tmp_path):
    """One worker is killed on the way, then the other; the same command ends as an undisturbed run does."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run("sftmix_jax.study", "--config", small, "--workdir", str(whole), timeout=900).returncode == 0
    arguments = [
        sys.executable,
        "-m",
        "sftmix_jax.study",
        "--config",
        small,
        "--workdir",
        str(killed),
        "--workers",
        "2",
    ]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    running = subprocess.Popen(arguments, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    done = 0
    for _ in range(2):
        deadline = time.monotonic() + 300
        while len(hashes(killed)) <= done and time.monotonic() < deadline:
            time.sleep(0.1)
        done = len(hashes(killed))
        worker = children(running.pid)[0]
        os.kill(worker, signal.SIGKILL)
        while worker in children(running.pid):  # it may take a while to end, and must not be killed twice
            time.sleep(0.1)
    assert running.wait(timeout=600) == 1  # no worker is left, and not everything is done
    assert 0 < len(hashes(killed)) < len(hashes(whole))
    last = run("sftmix_jax.study", "--config", small, "--workdir", str(killed), "--probe", "k0.25-s0", timeout=900)
    assert last.returncode == 0, last.stderr
    assert hashes(killed) == hashes(whole) and len(hashes(whole)) == 6
    logs = "".join(file.read_text() for file in (killed / "logs").glob("*.log"))
    for name in hashes(whole):
        identity = name.rpartition("-")[2]
        assert logs.count(f"({identity}): ") >= 1  # each was begun, and none was trained to its end twice:
        assert sum(f"({identity}) in " in line for line in logs.splitlines()) <= 2
    tables = [(folder / "report" / "tables" / "main.csv").read_text() for folder in (whole, killed)]
    assert tables[0] == tables[1]
    probed = [json.loads(file.read_text()) for file in (killed / "stages").glob("*/probe.json")]
    assert len(probed) == 3 and all(set(probe["silhouette"]) == {"code", "math", "general"} for probe in probed)
    assert (killed / "report" / "figures" / "maps-k0.25-s0.svg").exists()


@pytest.mark.slow
def test_comparisons_hold_what_is_asked_for(small):
    """With as many steps for each, the shorter experiment goes through its last stage's data again."""

    def steps(*more: str) -> list[int]:
        listed = run("sftmix_jax.study", "--config", f"{small}:1", "--list", *more)
        assert listed.returncode == 0, listed.stderr
        assert "tiny_math: 1 seed with" in listed.stdout and "says nothing about another seed" in listed.stdout
        rows = [line.split() for line in listed.stdout.splitlines() if "→" in line]
        return [int(row[-3]) for row in rows]

    usual, held = steps(), steps("--hold", "steps")
    assert usual[0] < usual[1] and held == [usual[1], usual[1]]
    refused = run("sftmix_jax.study", "--config", f"{small}:1", "--list", "--hold", "step")
    assert refused.returncode == 2 and "did you mean 'steps'" in refused.stderr
    refused = run("sftmix_jax.study", "--config", f"{small}:1", "--list", "--probe", "k0.5*")
    assert refused.returncode == 2 and "--probe 'k0.5*' matches none of 2" in refused.stderr


def children(pid: int) -> list[int]:
    """Worker processes of a study that live."""
    found = subprocess.run(["ps", "-o", "pid=,stat=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    rows = [line.split() for line in found.stdout.splitlines()]
    return [int(number) for number, state in rows if not state.startswith("Z")]


def emit(small, workdir, kind: str) -> str:
    printed = run("sftmix_jax.study", "--config", f"{small}:1", f"--workdir={workdir}", "--emit", kind)
    assert printed.returncode == 0, printed.stderr
    assert subprocess.run(["bash", "-n"], input=printed.stdout, text=True, check=False).returncode == 0
    return printed.stdout


@pytest.mark.slow
def test_jobs_for_a_cluster_come_after_those_they_start_from(small, tmp_path):
    lines = emit(small, tmp_path / "w", "slurm").splitlines()
    submitted = [line.partition("=")[0] for line in lines if line.startswith("job_")]
    assert len(set(submitted)) == 4  # the base, the shared stage, two general ones
    known: list[str] = []
    needed = []
    for line in lines:
        if line.startswith("job_"):
            needed += re.findall(r"afterok:\$(job_\w+)", line)
            assert set(re.findall(r"\$(job_\w+)", line)) <= set(known)
            known.append(line.partition("=")[0])
    assert len(needed) == 3 and needed.count(submitted[1]) == 2
    assert "afterany:" in lines[-1] and "report --workdir" in lines[-1]
    for kind, launcher in (("xpk", "launch/gke.sh run"), ("sky", "launch/sky.sh")):
        assert emit(small, tmp_path / "w", kind).count(launcher) == 4
    refused = run("sftmix_jax.study", "--config", f"{small}:1", f"--workdir={tmp_path}", "--emit", "slrum")
    assert refused.returncode == 2 and "did you mean 'slurm'" in refused.stderr


@pytest.mark.slow
def test_a_failing_experiment_does_not_stop_the_others(small, tmp_path):
    append = "            runs.append"
    # weights grow by five orders of magnitude per step
    diverging = "OptimizerConfig(learning_rate=100.0, schedule='constant', warmup=0, weight_decay=1000.0)"
    wrong = f"            if k:\n                experiment.stages['general'].optimizer = {diverging}\n{append}"
    broken = (tmp_path / "small.py").read_text().replace(append, wrong)
    (tmp_path / "broken.py").write_text("from sftmix_jax.training.optimizer import OptimizerConfig\n" + broken)
    found = run(
        "sftmix_jax.study", "--config", f"{tmp_path}/broken.py:1", "--workdir", str(tmp_path / "w"), timeout=900
    )
    assert found.returncode == 1
    assert "failed: general" in found.stderr and "k0.25-s0" in found.stderr and "Traceback" not in found.stderr
    done = [json.loads(f.read_text())["steps"] for f in (tmp_path / "w" / "stages").glob("*/done.json")]
    assert len(done) == 2  # the shared first stage, and the other experiment's second
    page = (tmp_path / "w" / "report" / "index.html").read_text()
    assert "Not measured: 1 of 2 set-ups (dmt, k 1/4); parts of 1 of 2 experiments (k0.25-s0)." in page
    assert "k0.25-s0: general failed: " in page and "norm of step 4 is nan" in page


@pytest.mark.slow
def test_a_study_is_priced_by_the_planner():
    found = run(
        "sftmix_jax.study",
        "--config",
        "studies/rq4.py:size=tiny,seeds=1",
        "--list",
        "--only",
        "multitask*",
        "--topology",
        "h200:1",
    )
    assert found.returncode == 0, found.stderr
    assert "h200:1, shared stages once: 0.0 chip-hours" in found.stdout and "does NOT fit" not in found.stdout


def test_a_study_that_has_not_begun_is_not_watched(tmp_path):
    ended = call("study", "--config=studies/rq4.py:tiny", f"--workdir={tmp_path / 'none'}", "--watch")
    assert ended.returncode == 2 and "the study rq4 has not begun there" in ended.stderr
    assert not (tmp_path / "none").exists()
