"""What was measured stands in the report: each benchmark under its ability, in every table, with one interval."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from sftmix_jax import records, report, terminal
from sftmix_jax.analysis import cells, results, tables
from sftmix_jax.analysis.results import Result
from sftmix_jax.errors import UserError
from sftmix_jax.evaluation import runner
from sftmix_jax.evaluation.runner import EvaluationConfig
from sftmix_jax.evaluation.task import Question, ability_of, find_task

ROOT = Path(__file__).parents[1]
ABILITIES = {
    "math": {"asdiv", "gsm8k", "gsm_hard", "math", "mawps", "svamp", "tiny_math"},
    "code": {"humaneval", "humaneval_plus", "mbpp", "mbpp_plus", "tiny_code"},
    "general": {"ifeval", "mt_bench", "mt_bench_pairs", "pairs", "tiny_general"},
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


def of_every_task(workdir) -> dict[str, float]:
    """A base with a score of every task of eval/, one of a task of one's own and one of lm-eval → the main values."""
    (workdir / "own.py").write_text(OWN.replace(" MORE", ', ability="sums of one"'))
    tasks = [find_task(str(file))[0] for file in sorted((ROOT / "eval").glob("*.py"))]
    tasks.append(find_task(str(workdir / "own.py"))[0])
    wanted = {}
    for number, task in enumerate(tasks, 1):
        metric = task.metrics[0]
        values = [1.0 if metric.best == 1 else 3.17 + 0.1 * number] * number + [float(metric.best == 0)] * (80 - number)
        if metric.geometric:
            wanted[task.name] = float(np.prod(np.array(values)) ** (1 / 80))
        else:
            wanted[task.name] = sum(values) / 80
        questions = [Question(f"{task.name}/{i}", ("?",), {}) for i in range(80)]
        more = {each.weight: 1.0 for each in task.metrics if each.weight}
        verdicts = [{each.name: value for each in task.metrics} | more for value in values]
        folder = epath.Path(workdir) / "stages" / "base-b" / "eval" / task.name
        metrics = runner.summarise(task, questions, verdicts)
        rows = [{"id": q.id, "turns": ["?"], "scores": verdict} for q, verdict in zip(questions, verdicts, strict=True)]
        record = {"task": task.name, "ability": task.ability, "model": "base", "metrics": metrics, "fixed_by": {}}
        folder.mkdir(parents=True)
        records.write_scored(folder, rows, record)
    folder = epath.Path(workdir) / "stages" / "base-b" / "eval" / "lm_eval_arc_easy"
    folder.mkdir()
    metrics = {"acc": {"value": 0.4321, "n": 1000, "low": None, "high": None, "best": 1.0}}
    record = {"task": "lm_eval/arc_easy", "ability": "arc_easy", "model": "b", "metrics": metrics, "fixed_by": {}}
    records.write_score(folder / "score.json", record)
    (workdir / "experiments").mkdir()
    (workdir / "experiments" / "e.json").write_text(json.dumps({"experiment": {}, "base": "b", "stages": {}}))
    return wanted | {"lm_eval/arc_easy": 0.4321}


def test_every_main_metric_stands_in_the_page_the_csv_and_the_terminal(tmp_path):
    wanted = of_every_task(tmp_path)
    (page,) = report.write(epath.Path(tmp_path))
    html, out = page.read_text(), io.StringIO()
    head, row = csv.reader((page.parent / "tables" / "benchmarks.csv").read_text().splitlines())
    by_task = {name.split()[0]: cell for name, cell in zip(head, row, strict=True)}
    found = results.read_results(epath.Path(tmp_path), results.every_experiment(epath.Path(tmp_path)))
    tables.print_abilities(found, terminal.Console(file=out, width=80))
    printed = out.getvalue().partition("other metrics")[0]
    assert len(wanted) == 20 and max(map(len, printed.splitlines())) <= 80
    for task, value in wanted.items():
        (metric,) = (r.metric for r in found if r.primary and r.task == task)
        best = 1.0 if task == "lm_eval/arc_easy" else find_task(
            str(tmp_path / "own.py") if task == "own" else task)[0].metrics[0].best  # fmt: skip
        shown = f"{100 * value:.1f}" if best == 1 else f"{value:.2f}"
        assert by_task[task].split()[0] == shown, task
        assert f">{task} {metric}</button>" in html and f">{by_task[task]}</td>" in html, task
        lines = printed.splitlines()
        place = next(i for i, line in enumerate(lines) if task in line.split())  # heads of two lines, a rule, the cells
        column = lines[place].split().index(task)
        assert re.findall(r"[\d.]+%?(?: \([^)]*\))?", lines[place + 3])[column].split()[0].rstrip("%") == shown, task


def test_the_paper_s_benchmark_stands_for_an_ability_where_as_often_measured():
    def of(task, ability, times):
        return [Result("e", {}, "s", str(i), 1, True, task, ability, "m", True, 0.5, 0.4, 0.6, 9, 1.0, 0, 0, None, "",
                       "{}", "") for i in range(times)]  # fmt: skip

    both = of("asdiv", "math", 2) + of("gsm8k", "math", 2) + of("b", "own", 1) + of("a", "own", 1)
    assert cells.benchmarks(both) == {"math": "gsm8k", "own": "a"}
    assert cells.benchmarks(both + of("asdiv", "math", 1))["math"] == "asdiv"
