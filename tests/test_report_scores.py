"""What was measured stands in the report: each benchmark under its ability, in every table, with one interval."""

import csv
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from etils import epath
from scipy.stats import beta, binomtest, bootstrap

from sftmix_jax.analysis import cells, results, tables, uncertain
from sftmix_jax.analysis.report import files, paper
from sftmix_jax.analysis.results import Result
from sftmix_jax.analysis.uncertain import Uncertain
from sftmix_jax.evaluation import harness, runner
from sftmix_jax.evaluation.compare import compare
from sftmix_jax.evaluation.runner import EvaluationConfig
from sftmix_jax.evaluation.statistics import bootstrap_mean, wilson
from sftmix_jax.evaluation.task import Question, ability_of, find_task
from sftmix_jax.experiment.config import Experiment
from sftmix_jax.machine import terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.studies import reporting
from sftmix_jax.studies.study import Run, Study
from sftmix_jax.workdir import records

ROOT = Path(__file__).parents[1]
ABILITIES = {
    "math": {"asdiv", "gsm8k", "gsm_hard", "math", "mawps", "svamp", "tiny_math"},
    "code": {"humaneval", "humaneval_plus", "mbpp", "mbpp_plus", "tiny_code"},
    "general": {"ifeval", "mt_bench", "mt_bench_pairs", "pairs", "tiny_general"},
    "knowledge": {"mmlu"},
    "language modelling": {"perplexity"},
}
OWN = """
from sftmix_jax.evaluation.statistics import bootstrap_mean, wilson
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
    said = {
        "gsm8k_cot": "math",
        "hendrycks_math": "math",
        "mmlu_college_mathematics": "knowledge",
        "mmlu_pro_math": "knowledge",
        "mbpp_plus_instruct": "code",
        "leaderboard_ifeval": "general",
        "arc_challenge": "arc_challenge",
        "aftermath": "aftermath",
    }
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
    return results.read_results(epath.Path(workdir), results.every_experiment(epath.Path(workdir)), ability_of)


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
        verdicts = [{each.name: min(value, each.best or value) for each in task.metrics} | more for value in values]
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
    (page,) = reporting.write(epath.Path(tmp_path))
    html, out = page.read_text(), io.StringIO()
    head, row = csv.reader((page.parent / "tables" / "benchmarks.csv").read_text().splitlines())
    by_task = {name.split()[0]: cell for name, cell in zip(head, row, strict=True)}
    found = results.read_results(epath.Path(tmp_path), results.every_experiment(epath.Path(tmp_path)))
    tables.print_abilities(found, terminal.Console(file=out, width=80))
    printed = out.getvalue().partition("other metrics")[0]
    assert len(wanted) == len(list((ROOT / "eval").glob("*.py"))) + 2 and max(map(len, printed.splitlines())) <= 80
    assert by_task["lm_eval/arc_easy"] == "43.2"  # it came without an interval
    for task, value in wanted.items():
        (metric,) = (r.metric for r in found if r.primary and r.task == task)
        best = (
            1.0
            if task == "lm_eval/arc_easy"
            else find_task(str(tmp_path / "own.py") if task == "own" else task)[0].metrics[0].best
        )
        shown = f"{100 * value:.1f}" if best == 1 else f"{value:.2f}"
        assert by_task[task].split()[0] == shown, task
        name = task if task == metric else f"{task} {metric}"
        assert f">{name}</button>" in html and f">{by_task[task]}</td>" in html, task
        lines = printed.splitlines()
        place = next(i for i, line in enumerate(lines) if task in line.split())  # heads of two lines, a rule, the cells
        column = lines[place].split().index(task)
        assert re.findall(r"[\d.]+%?(?: \([^)]*\))?", lines[place + 3])[column].split()[0].rstrip("%") == shown, task


def test_the_paper_s_benchmark_stands_for_an_ability_where_as_often_measured():
    def of(task, ability, times):
        return [
            Result(
                "e", {}, "s", str(i), 1, True, task, ability, "m", True, 0.5, 0.4, 0.6, 9, 1.0, 0, 0, None, "", "{}", ""
            )
            for i in range(times)
        ]

    both = of("asdiv", "math", 2) + of("gsm8k", "math", 2) + of("b", "own", 1) + of("a", "own", 1)
    assert cells.benchmarks(both) == {"math": "gsm8k", "own": "a"}
    assert cells.benchmarks(both + of("asdiv", "math", 1))["math"] == "asdiv"


LR, ROWS = (1e-5, 2e-5), (2, 4)


def of_two_own_axes(workdir, **more) -> dict[tuple[float, int], float]:
    """DMT at two learning rates and two batch sizes over two seeds → the score of each on a benchmark of one's own."""
    worth = {(lr, rows): 0.1 + 0.2 * i for i, (lr, rows) in enumerate((lr, rows) for lr in LR for rows in ROWS)}
    labels = {}
    (workdir / "experiments").mkdir(parents=True)
    (workdir / "studies").mkdir()
    for seed in range(2):
        for (lr, rows), value in worth.items():
            name, id = f"dmt-{lr}-{rows}-s{seed}", f"{lr}{rows}{seed}".replace(".", "").replace("-", "")
            for stage, of in (("base-b", 0.05), (f"general-{id}", value)):
                folder = workdir / "stages" / stage / "eval" / "own"
                if not folder.exists():
                    folder.mkdir(parents=True)
                    values = [float((i + 0.5) / 40 < of) for i in range(40)]
                    common = {"turns": ["?"], "response": "!", "reference": {}}
                    lines = [{"id": f"own/{i}", **common, "scores": {"right": v}} for i, v in enumerate(values)]
                    low, high = wilson(int(sum(values)), 40)
                    metrics = {"right": {"value": sum(values) / 40, "n": 40, "low": low, "high": high, "best": 1.0}}
                    record = {"task": "own", "ability": "sums", "model": "m", "metrics": metrics, "fixed_by": {}}
                    records.write_scored(epath.Path(folder), lines, record)
            account = {"examples": 1, "tokens": 9, "trained_tokens": 9, "epochs": 1.0}
            done = {
                "id": id,
                "digest": "",
                "steps": 2,
                "params_sha256": "",
                "ledger": {"sums": account},
                "rows": {
                    "sums": {
                        "used": 10,
                        "stored": 12,
                        "of them truncated": 1,
                        "not taken": 2,
                        "held out": 0,
                        "skipped": {},
                        "without an answer within the length": 0,
                    }
                },
                "validation_loss": {"sums": 1 - value},
            }
            (workdir / "stages" / f"general-{id}" / "done.json").write_text(json.dumps(done))
            (workdir / "stages" / f"general-{id}" / "metrics.jsonl").write_text(
                '{"step": 1, "loss": 2, "loss/sums": 2}\n{"step": 2, "loss": 1, "loss/sums": 1}\n'
            )
            record = {"experiment": {"name": name}, "base": "b", "stages": {"general": id}}
            (workdir / "experiments" / f"{name}.json").write_text(json.dumps(record))
            labels[name] = {
                "strategy": "dmt",
                "k": "1/16",
                "size": "tiny",
                "seed": seed,
                "learning_rate": lr,
                "rows": rows,
                **more,
            }
    study = {"name": "two", "question": "Which rate?", "hold": "epochs", "experiments": labels}
    (workdir / "studies" / "two.json").write_text(json.dumps(study))
    return worth


def test_a_study_s_own_axes_are_axes(tmp_path):
    worth = of_two_own_axes(tmp_path)
    study = results.read_studies(epath.Path(tmp_path))["two"]
    ours = cells.measured(results.read_results(epath.Path(tmp_path), study), "tiny")
    for (lr, rows), value in worth.items():
        for labels in ({"strategy": "dmt", "k": "1/16"}, {"strategy": "dmt", "k": "1/16", "size": "tiny"}, {}):
            assert ours.at("sums", **labels, learning_rate=lr, rows=rows).value == pytest.approx(value)
    assert ours.at("sums", strategy="dmt", k="1/16", learning_rate=3e-5, rows=2) is None
    assert ours.at("sums", strategy="dmt", learning_rate=1e-5, rows=2) is None  # k is not named, so it is absent
    named = r"sums: strategy=dmt, k=1/16, learning_rate=2e-05 names 2 set-ups \(.*rows=2.*rows=4.*\); name one of them"
    with pytest.raises(UserError, match=named):
        ours.at("sums", strategy="dmt", k="1/16", learning_rate=2e-5)


def test_two_own_axes_of_two_values_make_four_rows_in_every_table(tmp_path):
    worth = of_two_own_axes(tmp_path)
    (page,) = reporting.write(epath.Path(tmp_path))
    _, *rows = csv.reader((page.parent / "tables" / "main.csv").read_text().splitlines())
    assert {(float(lr), int(n)): row.split()[0] for lr, n, row, *_ in rows} == {
        setup: f"{100 * value:.1f}" for setup, value in worth.items()
    }
    for name, column in (("benchmarks", "own right"), ("changes", "sums, change")):
        head, *rows = csv.reader((page.parent / "tables" / f"{name}.csv").read_text().splitlines())
        shown = {row[1]: row[head.index(column)].split()[0].lstrip("'") for row in rows if row[1]}
        add = -0.05 if name == "changes" else 0.0
        assert shown == {
            f"k 1/16, learning_rate {lr}, rows {n}": f"{100 * (value + add):{'+' if add else ''}.1f}"
            for (lr, n), value in worth.items()
        }, name
    with (page.parent / "results.csv").open() as stream:
        found = [row for row in csv.DictReader(stream) if row["is_last"] == "True"]
    assert {(float(row["learning_rate"]), int(row["rows"])): float(row["value"]) for row in found} == pytest.approx(
        worth
    )


def cell(value: float, **labels) -> tuple[tuple[str, tuple[tuple[str, object], ...]], Uncertain]:
    return ("math", tuple(sorted(labels.items()))), uncertain.published(value, 0.0, str(labels))


def test_findings_and_tables_compare_what_has_the_same_of_the_own_axes(tmp_path):
    """Alone and mixed at two learning rates: each is compared with its own, never with the other's."""
    alone = {1e-5: 0.5, 2e-5: 0.7}
    (tmp_path / "experiments").mkdir()
    (tmp_path / "stages").mkdir()
    found = []
    for lr, value in alone.items():
        for labels, score in (({"strategy": "single", "source": "math"}, value), ({"strategy": "mixed"}, value - 0.1)):
            name = f"{labels['strategy']}-{lr}"
            folder = epath.Path(tmp_path) / "stages" / name
            (folder / "eval" / "gsm8k").mkdir(parents=True)
            rows = [{"id": str(i), "scores": {"m": float(i < 40 * score - 0.5)}} for i in range(40)]
            records.write_scored(folder / "eval" / "gsm8k", rows, {"task": "gsm8k", "metrics": {}, "fixed_by": {}})
            found.append(
                Result(
                    name,
                    labels | {"k": "1", "learning_rate": lr, "seed": 0},
                    "s",
                    name,
                    1,
                    True,
                    "gsm8k",
                    "math",
                    "m",
                    True,
                    score,
                    0.0,
                    1.0,
                    40,
                    1.0,
                    0,
                    0,
                    2 - score,
                    "",
                    "{}",
                    str(folder),
                )
            )
    view = paper.view("", "", found)
    tables_ = {table.name: table for table in view.comparison_tables}
    assert [(row[0], row[2][0], row[3][1], row[4][1]) for row in tables_["conflict"].rows] == [
        ("learning_rate 1e-05", "1", 0.5, 0.4),
        ("learning_rate 2e-05", "1", 0.7, pytest.approx(0.6)),
    ]
    assert [(row[0], float(row[3][0])) for row in tables_["conflict_losses"].rows] == [
        ("learning_rate 1e-05", 1.5),
        ("learning_rate 2e-05", 1.3),
    ]


def test_a_verdict_that_is_no_number_is_refused_by_name(tmp_path):
    (tmp_path / "eval" / "gsm8k").mkdir(parents=True)
    rows = [{"id": "q7", "scores": {"m": float("nan")}}]
    records.write_scored(
        epath.Path(tmp_path) / "eval" / "gsm8k", rows, {"task": "gsm8k", "metrics": {}, "fixed_by": {}}
    )
    found = Result(
        "a",
        {"k": "1", "seed": 0},
        "s",
        "a",
        1,
        True,
        "gsm8k",
        "math",
        "m",
        True,
        0.5,
        0.0,
        1.0,
        1,
        1.0,
        0,
        0,
        None,
        "",
        "{}",
        str(tmp_path),
    )
    with pytest.raises(UserError, match=r"responses\.jsonl: the verdict on q7 by m is nan; evaluate"):
        results.verdicts(found)


def test_all_values_of_own_axes_and_all_sizes_are_one_family():
    """Forgetting of three seeds at two rates and two sizes: four findings are tested, not one four times."""
    found = [
        Result(
            f"{strategy}-{rate}-{size}-{seed}",
            {"strategy": strategy, "learning_rate": rate, "size": size, "seed": seed},
            "s",
            f"{strategy}{seed}",
            1,
            True,
            task,
            ability,
            "m",
            True,
            0.5 + 0.01 * seed + 0.1 * (strategy == "multitask"),
            None,
            None,
            100,
            1.0,
            0,
            0,
            None,
            "",
            "{}",
            "/nowhere",
        )
        for strategy in ("multitask", "sequential")
        for rate in (1e-5, 2e-5)
        for size in ("7b", "13b")
        for seed in range(3)
        for ability, task in (("math", "lm_eval/a"), ("code", "lm_eval/b"))
    ]
    views = paper.views({"experiments": {r.experiment: r.labels for r in found}}, found)
    assert len(views) == 2 and [len(view.parts) for view in views] == [2, 2]
    assert all("4 findings are tested here" in view.rule_in_words() for view in views)
    assert all(sum(f.is_tested for f in view.family) == 4 for view in views)


def test_experiments_with_the_same_labels_get_their_names_as_one_more():
    study = {"experiments": {"a": {"k": "1", "seed": 0}, "b": {"k": "1"}, "c": {"k": "1", "seed": 1}}}
    assert results.told_apart(study)["experiments"] == {
        "a": {"k": "1", "seed": 0, "experiment": "a"},
        "b": {"k": "1", "experiment": "b"},
        "c": {"k": "1", "seed": 1},
    }


def test_a_set_up_without_an_axis_of_the_paper_is_not_the_one_with_it():
    some = cells.Cells(dict([cell(0.1, strategy="mixed", k="1", setup="a", specialised_k=1.0)]), "by hand", 1)
    assert some.at("math", strategy="mixed", k="1") is None
    assert some.at("math", strategy="mixed", k="1", setup="a").value == 0.1  # no other set-up has these


def test_a_single_score_has_the_interval_of_its_score_json_and_of_scipy(tmp_path):
    of_every_task(tmp_path)
    found = results.read_results(epath.Path(tmp_path), results.every_experiment(epath.Path(tmp_path)))
    pooled = cells.Scores(found).by_task
    for result in (r for r in found if r.primary and r.task != "lm_eval/arc_easy"):
        number = pooled[result.task, cells.labelled(result)]
        assert number.value == pytest.approx(result.value, rel=1e-12), result.task
        assert (number.low, number.high) == (result.low, result.high), result.task
        told = records.responses(results.score_folder(epath.Path(result.folder), result.task) / "responses.jsonl")
        values = np.array([row["scores"][result.metric] for row in told])
        if set(values) == {0.0, 1.0} and result.task not in ("mt_bench_pairs", "pairs"):
            wanted = binomtest(int(values.sum()), 80).proportion_ci(method="wilson")
        else:
            worth, back = (np.log(values), np.exp) if result.geometric else (values, lambda end: end)
            rng = np.random.default_rng(0)
            drawn = bootstrap((worth,), np.mean, n_resamples=2000, method="percentile", rng=rng).confidence_interval
            wanted = tuple(back(np.array(drawn)))
        assert (result.low, result.high) == pytest.approx(tuple(wanted), rel=1e-12), result.task
    wide = next(r for r in found if r.task == "lm_eval/arc_easy")  # lm-eval gave no error: no interval is invented
    assert (wide.low, wide.high) == (None, None)


def test_seeds_are_resampled_with_the_questions_and_a_base_that_they_share_is_one_score(tmp_path):
    of_two_own_axes(tmp_path)
    study = results.read_studies(epath.Path(tmp_path))["two"]
    found = results.read_results(epath.Path(tmp_path), study)
    ours = cells.measured(found, "tiny")
    labels = {"strategy": "dmt", "k": "1/16", "learning_rate": 1e-5, "rows": 2}
    base, (score,) = ours.at("sums", **labels, stage="base"), {(r.low, r.high) for r in found if r.stage == "base"}
    assert (base.low, base.high) == score == wilson(2, 40)
    both = ours.at("sums", **labels)  # both seeds answer the same 4 of 40 questions: over questions alone
    assert (
        both.value == 0.1 and both.low == pytest.approx(0.025, abs=0.026) and both.high == pytest.approx(0.2, abs=0.03)
    )


def test_a_mean_of_seeds_is_the_mean_of_their_scores_weighted_and_geometric():
    rng = np.random.default_rng(0)
    values, weights = rng.uniform(1, 9, (3, 40)), rng.integers(1, 9, (3, 40)).astype(float)
    each = [float(np.average(v, weights=w)) for v, w in zip(values, weights, strict=True)]
    found = uncertain.from_verdicts(values, weights, best=0.0)
    assert found.value == pytest.approx(np.mean(each)) and found.low < found.value < found.high
    logs = [float(np.average(np.log(v), weights=w)) for v, w in zip(values, weights, strict=True)]
    found = uncertain.from_verdicts(values, weights, geometric=True)
    assert found.value == pytest.approx(np.exp(np.mean(logs))) and found.low < found.value < found.high


def test_rates_that_are_all_alike_have_jeffreys_interval_and_seeds_without_verdicts_student_s():
    nothing = uncertain.from_verdicts(np.zeros((3, 40)))
    assert (nothing.value, nothing.low, nothing.high) == pytest.approx((0.0, *beta(0.5, 40.5).interval(0.95)), abs=5e-3)
    rating = uncertain.from_verdicts(np.ones((3, 40)), best=10.0)  # the lowest of all ratings is no rate of 1
    assert rating.value == 1.0 and 0.9 < rating.low < 1.0 < rating.high < 2.0
    seeds = uncertain.from_seeds([1.0, 2.0, 3.0])
    assert (seeds.low, seeds.high) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=0.2)


def test_a_bootstrap_is_that_of_resampled_questions_with_their_weights():
    rng = np.random.default_rng(1)
    values, weights = rng.normal(size=50), rng.uniform(1, 9, 50)
    drawn = np.random.default_rng(0).integers(0, 50, (2000, 50))
    means = (values * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
    assert bootstrap_mean(values.tolist(), weights.tolist()) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    assert bootstrap_mean([0.5]) == (0.5, 0.5)  # one question cannot be resampled


def test_a_share_of_lm_eval_s_documents_has_the_interval_that_ours_have(tmp_path):
    samples = [{"doc_id": i, "filter": "none", "acc": int(i < 3), "word_perplexity": [1, 2]} for i in range(4)]
    told = {
        "alias": "x",
        "acc,none": 0.75,
        "acc_stderr,none": 0.25,
        "word_perplexity,none": 9.5,
        "word_perplexity_stderr,none": "N/A",
    }
    every = {
        "results": {"arc_easy": told},
        "samples": {"arc_easy": samples},
        "versions": {"arc_easy": 1},
        "n-samples": {"arc_easy": {"effective": 4}},
        "n-shot": {"arc_easy": 0},
        "lm_eval_version": "0",
        "higher_is_better": {"arc_easy": {"acc": True, "word_perplexity": False}},
    }
    folder = tmp_path / "stages" / "base-b"
    model = SimpleNamespace(name="base", folder=epath.Path(folder), identity="i")
    harness._record(model, "arc_easy", every, 0)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "e.json").write_text(json.dumps({"experiment": {}, "base": "b", "stages": {}}))
    found = results.read_results(epath.Path(tmp_path), results.every_experiment(epath.Path(tmp_path)))
    acc, perplexity = found
    assert (acc.ability, acc.low, acc.high) == ("arc_easy", *wilson(3, 4))
    assert (perplexity.value, perplexity.low, perplexity.high, perplexity.best) == (9.5, None, None, 0.0)
    number = cells.Scores(found).by_task["lm_eval/arc_easy", cells.labelled(acc)]
    assert (number.value, number.low, number.high) == (0.75, *wilson(3, 4))
    assert results.verdicts(acc) == {"0": (1.0, 1.0), "1": (1.0, 1.0), "2": (1.0, 1.0), "3": (0.0, 1.0)}


def test_two_stages_are_compared_on_a_task_of_lm_eval(tmp_path):
    """3 of 6 against 5 of 6, of which two are right for both; hand-worked."""
    right = {"a": (1, 1, 1, 0, 0, 0), "b": (1, 1, 0, 1, 1, 1)}
    for name, values in right.items():
        samples = [
            {"doc_id": i, "filter": f, "exact_match": value if f == "strict-match" else 0, "bleu": [1, 2]}
            for i, value in enumerate(values)
            for f in ("strict-match", "flexible-extract")
        ]
        told = {"exact_match,strict-match": sum(values) / 6, "exact_match,flexible-extract": 0.0, "bleu,none": 9.5}
        every = {
            "results": {"gsm8k": told},
            "samples": {"gsm8k": samples},
            "versions": {"gsm8k": 1},
            "n-samples": {"gsm8k": {"effective": 6}},
            "n-shot": {"gsm8k": 0},
            "lm_eval_version": "0",
        }
        model = SimpleNamespace(name=name, folder=epath.Path(tmp_path / name), identity=name)
        harness._record(model, "gsm8k", every, 0)
    first, second = epath.Path(tmp_path / "a"), epath.Path(tmp_path / "b")
    strict, flexible = compare(first, second, "lm_eval/gsm8k")
    assert (strict.metric, strict.n, strict.first, strict.second) == ("exact_match (strict-match)", 6, 0.5, 5 / 6)
    assert strict.p == pytest.approx(0.375)  # mid-p of 1 against 3: (2 * (1 + 4) - 4) / 16
    assert (flexible.first, flexible.second, flexible.p) == (0, 0, 1)
    with pytest.raises(UserError, match="has no score on lm_eval/arc_easy; run evaluate --lm_eval arc_easy on it"):
        compare(first, second, "lm_eval/arc_easy")


def test_a_base_that_experiments_share_counts_once():
    """Three experiments hold one base, scored by an old rule; two of their stages were scored by the new one."""

    def result(experiment, stage_id, rule):
        return Result(
            experiment,
            {},
            "general",
            stage_id,
            1,
            True,
            "t",
            "math",
            "m",
            True,
            0.5,
            0.4,
            0.6,
            9,
            1.0,
            0,
            0,
            None,
            "",
            json.dumps({"rule": rule}),
            "f",
        )

    base = [result(name, "base", "old") for name in "abc"]
    stages = [result("a", "s1", "new"), result("b", "s2", "new")]
    stands, told = results.comparable(base + stages)
    assert stands == stages and len(told) == 3


def test_flags_and_numbers_are_other_values_of_an_axis(tmp_path):
    def labels(**experiments):
        record = {"name": "s", "question": "", "hold": "epochs", "experiments": experiments}
        (tmp_path / "studies").mkdir(exist_ok=True)
        (tmp_path / "studies" / "s.json").write_text(json.dumps(record))
        return results.read_studies(epath.Path(tmp_path))["s"]["experiments"]

    found = labels(a={"x": True}, b={"x": 1}, c={"x": 1.0, "seed": "01"}, d={"x": 0.5})
    assert [found[name] for name in "abcd"] == [
        {"x": "True", "seed": 0},
        {"x": 1, "seed": 0},
        {"x": 1, "seed": 1},
        {"x": 0.5, "seed": 0},
    ]
    for wrong in ([0.9, 0.95], {"a": 1}):
        with pytest.raises(UserError, match=r"has the label x=.*; a label is text, a number or a flag"):
            labels(a={"x": wrong})


def test_an_axis_may_have_any_name_but_that_of_the_stages(tmp_path):
    of_two_own_axes(tmp_path, task="chat", ability="high", self="me")
    (page,) = reporting.write(epath.Path(tmp_path))
    with (page.parent / "results.csv").open() as stream:
        row = next(csv.DictReader(stream))
    assert (row["task"], row["label task"], row["ability"], row["label ability"]) == ("own", "chat", "sums", "high")
    file = tmp_path / "studies" / "two.json"
    file.write_text(file.read_text().replace('"task"', '"stage"'))
    with pytest.raises(UserError, match=r"two\.json: dmt-1e-05-2-s0 has the label 'stage', which stages have; name"):
        reporting.write(epath.Path(tmp_path))
    run = Run(Experiment("e"), {"stage": "x"})
    (said,) = Study("s", "?", [run]).relations("study")
    assert said == "study.runs: 'e' has the label 'stage', which stages have; name the axis otherwise"


def test_a_report_of_own_axes_has_them_as_a_figure_and_one_finding_for_each_value(tmp_path):
    worth = of_two_own_axes(tmp_path)
    made = files.read(epath.Path(tmp_path), results.read_studies(epath.Path(tmp_path))["two"])
    (figure,) = (figure for figure in made.figures if figure.name == "own_axes")
    (panel,) = figure.panels
    assert (panel.title, panel.x_title) == ("sums", "learning_rate")
    assert {(float(x), line.name): y for line in panel.lines for x, y in zip(line.x, line.y, strict=True)} == {
        (lr, f"rows {rows}"): pytest.approx(100 * value) for (lr, rows), value in worth.items()
    }
    assert [part.name for part in made.views[0].parts] == [f"learning_rate {lr}, rows {n}" for lr, n in worth]
    assert not made.views[0].tests_the_paper  # so nothing of the page speaks of the paper
    assert "paper" not in json.dumps(made.document().record()).lower()
