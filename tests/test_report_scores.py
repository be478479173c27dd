"""What was measured stands in the report: each benchmark under its ability, in every table, with one interval."""

import json
from pathlib import Path

import pytest
from etils import epath

from sftmix_jax import records
from sftmix_jax.analysis import results
from sftmix_jax.errors import UserError
from sftmix_jax.evaluation import runner
from sftmix_jax.evaluation.runner import EvaluationConfig
from sftmix_jax.evaluation.task import ability_of, find_task

ROOT = Path(__file__).parents[1]
ABILITIES = {
    "math": {"asdiv", "gsm8k", "gsm_hard", "math", "mawps", "svamp", "tiny_math"},
    "code": {"humaneval", "humaneval_plus", "mbpp", "mbpp_plus", "tiny_code"},
    "general": {"ifeval", "mt_bench", "mt_bench_pairs", "tiny_general"},
    "knowledge": {"mmlu"},
    "language modelling": {"perplexity"},
}
OWN = """
from sftmix_jax.evaluation.task import Metric, Question, Task


def load(path):
    return [Question(f"own/{i}", (f"What is {i} + 1?",), {"answer": str(i + 1)}) for i in range(40)]


def score(question, turns):
    return {"right": float(turns[0] == question.reference["answer"])}


TASK = Task(name="own", load=load, metrics=(Metric("right"),), default_data="x", score=score MORE)
"""


def test_every_task_says_which_ability_it_measures():
    said = {file.stem: find_task(str(file))[0].ability for file in sorted((ROOT / "eval").glob("*.py"))}
    assert said == {task: ability for ability, tasks in ABILITIES.items() for task in tasks}


@pytest.mark.parametrize("more, ability", [(', ability="sums of one"', "sums of one"), ("", "own")])
def test_a_score_says_the_ability_of_a_task_of_ones_own(tmp_path, more, ability):
    (tmp_path / "own.py").write_text(OWN.replace(" MORE", more))
    (tmp_path / "said.jsonl").write_text(json.dumps({"id": "own/1", "response": "2"}) + "\n")
    file, out = epath.Path(tmp_path / "said.jsonl"), epath.Path(tmp_path / "eval" / "own")
    runner.score_responses(str(tmp_path / "own.py"), file, EvaluationConfig(), out=out)
    assert records.score(out / "score.json")["ability"] == ability


def test_an_ability_is_text(tmp_path):
    (tmp_path / "own.py").write_text(OWN.replace(" MORE", ', ability="a\\x1bb"'))
    with pytest.raises(UserError, match=r"own\.py: its TASK has the ability 'a\\x1bb'; must have no control"):
        find_task(str(tmp_path / "own.py"))


def test_a_task_of_lm_eval_has_the_ability_of_the_benchmark_that_its_name_holds():
    said = {"gsm8k_cot": "math", "hendrycks_math": "math", "mmlu_college_mathematics": "knowledge",
            "mmlu_pro_math": "knowledge", "mbpp_plus_instruct": "code", "leaderboard_ifeval": "general",
            "arc_challenge": "arc_challenge", "aftermath": "aftermath"}  # fmt: skip
    assert {task: ability_of(task) for task in said} == said


def scored(workdir, task, ability=None, **fields):
    """A workdir of one experiment whose base has one score."""
    folder = workdir / "stages" / "base-b" / "eval" / task
    folder.mkdir(parents=True)
    metrics = {"right": {"value": 0.5, "n": 2, "low": 0.1, "high": 0.9, "best": 1.0}}
    record = {"task": task, "model": "base", "metrics": metrics, "fixed_by": {}, **fields}
    records.write_scored(epath.Path(folder), [], record | ({"ability": ability} if ability else {}))
    (workdir / "experiments").mkdir()
    (workdir / "experiments" / "e.json").write_text(json.dumps({"experiment": {}, "base": "b", "stages": {}}))
    return results.read_results(epath.Path(workdir), results.every_experiment(epath.Path(workdir)))


def test_the_ability_is_read_from_the_score_and_no_task_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("sftmix_jax.desk.load", lambda *_: pytest.fail("a task was loaded"))
    (found,) = scored(tmp_path, "gone", ability="medicine")
    assert found.ability == "medicine"


@pytest.mark.parametrize("task, ability", [("humaneval", "code"), ("gone", "gone")])
def test_scores_from_before_they_said_it_have_the_ability_of_the_task_by_their_name(tmp_path, task, ability):
    (found,) = scored(tmp_path, task)
    assert found.ability == ability
