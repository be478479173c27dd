"""Extraction, scoring, intervals, stored responses and the sandbox."""

import dataclasses
import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, call
from etils import epath
from scipy import stats

import sftmix_jax.evaluate as evaluate
from sftmix_jax.analysis import tables
from sftmix_jax.data.chat import Chat
from sftmix_jax.data.messages import Conversation, Message
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.evaluation import fixed, runner, scoring
from sftmix_jax.evaluation.answers import Decoding, Model, ask
from sftmix_jax.evaluation.compare import _difference, compare
from sftmix_jax.evaluation.config import EvaluationConfig, load_questions, own_data
from sftmix_jax.evaluation.journal import Journal
from sftmix_jax.evaluation.judges import OwnModel
from sftmix_jax.evaluation.judging import JudgeConfig, Prompt
from sftmix_jax.evaluation.statistics import bootstrap_mean, mcnemar, newcombe, paired_t, wilson
from sftmix_jax.evaluation.summary import summarise
from sftmix_jax.evaluation.task import Metric, Question, Task, find_task
from sftmix_jax.experiment.opening import Opening, open_model
from sftmix_jax.experiment.stages import TINY as BASE
from sftmix_jax.machine import options
from sftmix_jax.machine.errors import UserError
from sftmix_jax.sampling.sampler import Response
from sftmix_jax.studies.jobs import Job
from sftmix_jax.tiny.instructions import rate
from sftmix_jax.workdir import records


@pytest.mark.parametrize(
    ("response", "strict", "flexible"),
    [
        ("2 + 3 = 5\n#### 5", 1, 1),
        ("#### 5\n#### 6", 1, 1),
        ("#### 6 no, 5", 0, 0),
        ("The answer is 5.", 0, 1),
        ("5 apples and 6 pears", 0, 0),
        ("#### $5.00", 1, 1),
        ("####5", 1, 1),
        ("", 0, 0),
        ("I cannot say.", 0, 0),
    ],
)
def test_gsm8k_by_both_rules(response, strict, flexible):
    task, _ = find_task("gsm8k")
    assert task.score(Question("gsm8k/0", ("q",), {"answer": 5.0}), [response]) == {
        "strict": strict,
        "flexible": flexible,
    }


def test_gsm8k_reads_every_gold_answer(shared):
    task, _ = find_task("gsm8k")
    questions = task.load(str(shared / "data" / "math" / "gsm8k_test.jsonl"))
    assert len(questions) == 1319 and questions[0].id == "gsm8k/0" and questions[0].reference["answer"] == 18
    assert all(q.reference["answer"] is not None for q in questions)
    thousands = Question("x", ("q",), {"answer": 1234.0})
    assert task.score(thousands, ["so $1,234"])["flexible"] == 1


def humaneval_verdict(response: str) -> bool:
    task, _ = find_task("humaneval")
    helper = "from typing import List\n\ndef helper(x):\n    return x + 1\n\n"
    prompt = helper + "def f(xs: List[int]) -> int:\n    '''Sum plus one.'''\n"
    tests = "def check(candidate):\n    assert candidate([1, 2]) == 4\n\ncheck(f)\n"
    reference = {"prompt": prompt, "entry_point": "f", "tests": tests}
    return task.score(Question("x", ("q",), reference), [response])["pass@1"] == 1.0


@pytest.mark.parametrize(
    ("response", "passes"),
    [
        ("    return helper(sum(xs))\n", True),
        ("Sure!\n```python\ndef f(xs: List[int]) -> int:\n    return helper(sum(xs))\n```\nDone.", True),
        ("```\ndef g(): pass\n```\nthen\n```python\ndef f(xs):\n    return sum(xs) + 1\n```", True),
        ("```python\ndef f(xs):\n    return sum(xs) + 1", True),
        ("def f(xs):\n    return sum(xs) + 1\n", True),
        ("```python\ndef f(xs):\n    return sum(xs)\n```", False),
        ("I would sum them.", False),
        ("", False),
    ],
)
def test_humaneval_finds_the_function(response, passes):
    assert humaneval_verdict(response) == passes


@pytest.mark.slow
def test_humaneval_canonical_solutions_pass_and_broken_ones_fail(shared):
    task, _ = find_task("humaneval")
    import gzip

    path = shared / "data" / "eval" / "HumanEval.jsonl.gz"
    with gzip.open(path) as stream:
        rows = {row["task_id"]: row for row in map(json.loads, stream)}
    questions = task.load(str(path))
    good = {q.id: [[rows[q.id]["canonical_solution"]]] for q in questions}
    broken = {q.id: [["    return 'broken'\n"]] for q in questions}
    assert summarise(task, questions, scoring.score(task, questions, good).verdicts)["pass@1"]["value"] == 1.0
    assert summarise(task, questions, scoring.score(task, questions, broken).verdicts)["pass@1"]["value"] == 0.0


def test_own_files_are_of_tasks_that_are_asked_for(tmp_path, monkeypatch):
    assert own_data("", ["gsm8k"]) == {}
    assert own_data("a.jsonl", ["gsm8k"]) == {"gsm8k": "a.jsonl"}
    both = {"gsm8k": "a=1.jsonl", "humaneval": "b.gz"}
    assert own_data("gsm8k=a=1.jsonl,humaneval=b.gz", ["gsm8k", "humaneval"]) == both
    alone = {f"{tmp_path}/a=1.jsonl": "", "hf:a=b": "", "gsm8k=x=1.jsonl": "x=1.jsonl"}
    assert [own_data(spec, ["gsm8k"]) for spec in alone] == [{"gsm8k": path or spec} for spec, path in alone.items()]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=2.jsonl").write_text("")
    assert own_data("lr=2.jsonl", ["gsm8k"]) == {"gsm8k": "lr=2.jsonl"}
    with pytest.raises(UserError, match="did you mean 'gsm8k'"):
        own_data("gsm8=a.jsonl", ["gsm8k"])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("a.jsonl", "is for one task"),
        ("gsm8k=a.jsonl,b.gz", "--data b.gz: of no task that is asked for"),
        ("gsm8=a.jsonl", "did you mean 'gsm8k'"),
        ("gsm8k=", "write task=PATH"),
    ],
)
def test_own_files_of_nothing_are_refused(spec, said):
    with pytest.raises(UserError, match=said):
        own_data(spec, ["gsm8k", "humaneval"])


def test_wilson_against_published_values():
    """Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29."""
    for successes, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        np.testing.assert_allclose(wilson(successes, n), (low, high), atol=6e-5)


def test_bootstrap_intervals_cover_the_mean():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = bootstrap_mean(rng.normal(5, 2, 80).tolist(), seed=seed)
        covered += low <= 5 <= high
    assert 180 <= covered <= 199


@pytest.mark.parametrize(
    ("given", "rating"),
    [("a, b, c", 10), ("a, b, c.", 10), ("", 1), ("x, y", 1), ("c, b, a", 3.67), ("a, b", 7.4)],
)
def test_ratings_worked_by_hand(given, rating):
    assert rate("a, b, c", given) == rating


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return epath.Path(path)


TINY = EvaluationConfig(data={"tiny_math": "tiny:4"})


def test_stored_responses_are_scored_without_a_model(tmp_path):
    task, _ = find_task("tiny_math")
    questions = task.load("tiny:4")
    rows = [{"id": q.id, "response": f"#### {q.reference['result'] + (i == 2)}"} for i, q in enumerate(questions[:3])]
    record = runner.score_responses("tiny_math", write(tmp_path / "r.jsonl", rows), TINY)
    assert record["metrics"]["strict"]["value"] == 0.5
    assert record["missing"] == ["tiny_math/3"] and record["questions"] == 4
    found = call(
        "evaluate",
        "--task",
        "tiny_math",
        "--responses",
        str(tmp_path / "r.jsonl"),
        "--json",
        "--data",
        "tiny:4",
    )
    assert json.loads(found.stdout)["metrics"] == record["metrics"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"id": "tiny_math/0", "response": "1"}\n{"id": "tiny_math/0", "response": "1"}\n', r":2: a second response"),
        ('{"id": "tiny_mat/0", "response": "1"}\n', r":1: no question 'tiny_mat/0'.*did you mean 'tiny_math/0'"),
        ('{"id": "tiny_math/0", "response": "1"}\n{"id": "tiny_ma', r":2: must be.*half-written"),
        ('{"id": "tiny_math/0", "response": 5}\n', r":1: response must be text"),
        ('{"id": "tiny_math/0"}\n', r":1: must be"),
    ],
)
def test_bad_response_files_are_named(tmp_path, lines, said):
    (tmp_path / "r.jsonl").write_text(lines)
    with pytest.raises(UserError, match=said):
        runner.score_responses("tiny_math", epath.Path(tmp_path / "r.jsonl"), TINY)


def test_benchmark_files_with_other_columns_are_refused(shared):
    config = EvaluationConfig(data={"gsm8k": str(shared / "data" / "code" / "codegen_instruct.json")})
    task, _ = find_task("gsm8k")
    with pytest.raises(UserError, match="has no column 'question'"):
        load_questions(task, config)


def test_every_task_file_is_a_task():
    for file in sorted((ROOT / "eval").glob("*.py")):
        task, version = find_task(file.stem)
        assert task.name == file.stem and len(version) == 12


def test_another_rule_is_another_version(tmp_path, monkeypatch):
    """The rule stands in a module beside the task's own file, as gsm8k's does."""
    monkeypatch.syspath_prepend(tmp_path)
    rule, task = tmp_path / "some_rule.py", tmp_path / "task.py"
    task.write_text(
        "import importlib, some_rule\nimportlib.reload(some_rule)\n"
        "from sftmix_jax.evaluation.task import Metric, Task\n"
        "TASK = Task('t', some_rule.load, (Metric('right'),), 'x', score=some_rule.score)\n"
    )
    versions = []
    for right in ("1.0", "1.0", "0.0"):
        rule.write_text(f"def load(path): return []\ndef score(question, answers): return {{'right': {right}}}\n")
        versions.append(find_task(str(task))[1])
    assert versions[0] == versions[1] != versions[2]


def test_mcnemar_counts_half_of_what_is_as_likely_as_the_data():
    """Mid-p by its definition; the second row is Fagerland, Lydersen and Laake 2013, table 3 (1 and 7: 0.039)."""
    assert mcnemar(0, 0) == mcnemar(10, 10) == 1.0
    assert mcnemar(1, 7) == pytest.approx(0.0391, abs=5e-5)
    for b, c in ((3, 9), (1, 0), (40, 15)):
        chances = [math.comb(b + c, k) / 2 ** (b + c) for k in range(b + c + 1)]
        wanted = 2 * (sum(chances[: min(b, c)]) + chances[min(b, c)] / 2)
        assert mcnemar(b, c) == mcnemar(c, b) == pytest.approx(min(wanted, 1.0), rel=1e-9)


def test_newcombe_of_his_example_and_over_all_outcomes():
    """Newcombe 1998 (paired), 36, 12, 2, 0: 0.0569 to 0.3404. And how often the truth is inside, of 15 questions."""
    np.testing.assert_allclose(newcombe(36, 2, 12, 0), (0.0569, 0.3404), atol=1e-4)
    np.testing.assert_allclose(newcombe(36, 12, 2, 0), (-0.3404, -0.0569), atol=1e-4)
    assert newcombe(0, 0, 0, 80)[1] > 0.03  # two models that fail everything: no certainty
    n = 15
    outcomes = [c for c in itertools.product(range(n + 1), repeat=4) if sum(c) == n]
    ways = [math.factorial(n) / math.prod(map(math.factorial, c)) for c in outcomes]
    intervals = [newcombe(*c) for c in outcomes]
    for chances in ((0.4, 0.1, 0.2, 0.3), (0.25, 0.25, 0.25, 0.25), (0.1, 0.02, 0.08, 0.8), (0.6, 0.05, 0.3, 0.05)):
        truth = chances[2] - chances[1]
        inside = sum(
            way * math.prod(p**k for p, k in zip(chances, counts, strict=True))
            for counts, way, (low, high) in zip(outcomes, ways, intervals, strict=True)
            if low <= truth <= high
        )
        assert 0.93 < inside < 0.999, chances


def test_an_interval_that_contradicts_its_p_is_said_to(capsys):
    """Of 164 questions both models pass 16 and the second alone 5: mid-p 1/32, and Newcombe's interval holds 0."""
    pairs = np.array([[1, 1]] * 16 + [[0, 1]] * 5 + [[0, 0]] * 143, float)
    found = _difference("pass@1", pairs, np.ones(164), {"best": 1})
    assert found.low < 0 and found.p == pytest.approx(1 / 32)
    for difference, said in ((found, True), (dataclasses.replace(found, low=0.001), False)):
        tables.print_differences("humaneval", "a", "b", [difference])
        printed = " ".join(capsys.readouterr().out.split())
        assert ("pass@1: the interval and p disagree about 0" in printed) == said


def test_few_ratings_are_compared_by_student_s_t(tmp_path):
    """Student's own data (sleep, 1908): mean 1.58, 95 % interval 0.70 to 2.46, p = 0.00283."""
    gains = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    low, high, p = paired_t(gains)
    assert (low, high, p) == pytest.approx((0.7001, 2.4599, 0.002833), abs=1e-4)
    for alike in ([0.0] * 9, [1.0, 1.0], [1.0], []):  # no spread is seen, so none is known
        assert np.isnan(paired_t(alike)).all()


def test_a_weighted_mean_difference_has_the_error_of_a_ratio():
    """By hand: 0, 1, 2 with weights 1, 2, 1: mean 1, variance 3/2 · (1 + 0 + 1)/16, two degrees of freedom."""
    low, high, p = paired_t([0.0, 1.0, 2.0], [1.0, 2.0, 1.0])
    reach = stats.t.ppf(0.975, 2) * (3 / 16) ** 0.5
    assert (low, high) == pytest.approx((1 - reach, 1 + reach))
    assert p == pytest.approx(2 * stats.t.sf(1 / (3 / 16) ** 0.5, 2))


def test_one_pair_has_no_interval_and_a_scale_is_the_metrics():
    one = _difference("ppl", np.array([[10.0, 9.0]]), np.ones(1), {"best": 0.0, "geometric": True})
    assert (one.first, one.second) == pytest.approx((10, 9)) and np.isnan([one.low, one.high, one.p]).all()
    pairs = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    rate, rating = (_difference("m", pairs, np.ones(5), {"best": best}) for best in (1.0, 10.0))
    assert (rate.low, rate.high) == newcombe(1, 1, 2, 1) and rate.p == mcnemar(1, 2)
    assert (rating.low, rating.high, rating.p) == pytest.approx(paired_t([1, 0, 1, -1, 0]))


def test_a_geometric_mean_is_compared_by_student_s_t_on_logarithms():
    pairs = np.array([[10.0, 9.0], [20.0, 15.0], [8.0, 8.0]])
    found = _difference("ppl", pairs, np.ones(3), {"best": 0.0, "geometric": True})
    wanted = stats.ttest_rel(np.log(pairs[:, 1]), np.log(pairs[:, 0]))
    interval = wanted.confidence_interval(0.95)
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.low, found.high) == pytest.approx(
        (found.first * (np.exp(interval.low) - 1), found.first * (np.exp(interval.high) - 1))
    )


def test_a_comparison_has_the_scores_of_the_two_records(tmp_path):
    """Weighted and geometric means, and groups: as `evaluate` made them."""
    rng = np.random.default_rng(0)
    questions = [Question(f"q{i}", ("?",), {}, group="ab"[i % 2]) for i in range(40)]
    metrics = (Metric("share", weight="parts"), Metric("perplexity", best=0, is_rate=False, geometric=True))
    task = Task("t", lambda path: questions, metrics, "")
    told = [
        {"share": float(rng.random()), "parts": float(rng.integers(1, 9)), "perplexity": float(rng.random() + 1)}
        for _ in questions
    ]
    other = [
        verdict | {"share": verdict["share"] / 2, "perplexity": verdict["perplexity"] * (2 + rng.random())}
        for verdict in told
    ]
    folders = []
    for name, verdicts in (("x", told), ("y", other)):
        folder = epath.Path(tmp_path / name)
        rows = [{"id": q.id, "group": q.group, "scores": v} for q, v in zip(questions, verdicts, strict=True)]
        record = {"task": "t", "metrics": summarise(task, questions, verdicts), "fixed_by": {"model": name}}
        (folder / "eval" / "t").mkdir(parents=True)
        records.write_scored(folder / "eval" / "t", rows, record)
        folders.append((folder, record["metrics"]))
    (first, ours), (second, theirs) = folders
    found = {d.metric: d for d in compare(first, second, "t")}
    assert found.keys() == ours.keys() == {f"{m}{g}" for m in ("share", "perplexity") for g in ("", ", a", ", b")}
    for metric, d in found.items():
        assert (d.first, d.second) == pytest.approx((ours[metric]["value"], theirs[metric]["value"]))
        assert d.low < d.second - d.first < d.high and d.p < 0.05


def scored(folder, verdicts, **fixed):
    """A stage folder with scores as a run leaves them."""
    (folder / "eval" / "t").mkdir(parents=True)
    (folder / "stage.json").write_text("{}")
    rows = [{"id": f"t/{i}", "scores": {"right": v, "rating": None if v else 3.0}} for i, v in enumerate(verdicts)]
    metrics = {"right": {"best": 1.0}, "rating": {"best": 10.0}}
    record = {"task": "t", "metrics": metrics, "fixed_by": {"data": "d", "slots": 32, "model": str(folder)} | fixed}
    records.write_scored(epath.Path(folder / "eval" / "t"), rows, record)
    return epath.Path(folder)


def test_a_score_that_was_changed_is_noticed(tmp_path):
    file = scored(tmp_path / "a", [0, 1]) / "eval" / "t" / "score.json"
    sound = json.loads(file.read_text())
    assert records.score(file) == {key: value for key, value in sound.items() if key != "digest"}
    best = {"right": {"best": 2.0}, "rating": {"best": 10.0}}
    for changed in ({"metrics": best}, {"task": "u"}, {"n": 3}, {"digest": "0" * 12}):
        file.write_text(json.dumps(sound | changed))
        with pytest.raises(UserError, match=r"score\.json: has changed since it was written; evaluate again"):
            records.score(file)
    for damaged in ("[]", "null", "", json.dumps(sound)[:40], json.dumps({**sound, "digest": None})):
        file.write_text(damaged)
        with pytest.raises(UserError, match=r"score\.json: .*; evaluate again, which writes it anew"):
            records.score(file)


def altered(text: str) -> str:
    """A score.json in which a value was raised by hand."""
    record = json.loads(text)
    record["metrics"]["strict"]["value"] = 0.9
    return json.dumps(record)


def test_what_a_score_left_damaged_is_noticed_and_scored_again(tmp_path, capsys):
    model = open_model("tiny", Opening(slots=4), epath.Path(tmp_path))
    folder = tmp_path / "eval" / "tiny_math"
    score, responses = folder / "score.json", folder / "responses.jsonl"
    sound = runner.run_task(model, "tiny_math", TINY)["metrics"]
    rows = responses.read_bytes()
    model.sampler.generate = lambda requests, _: pytest.fail("every answer is known by now") if requests else []
    harms = [
        (score, altered, "has changed since it was written"),
        (score, lambda text: text[: len(text) // 2], "not valid JSON"),
        (score, lambda text: "[]", "holds a list"),
        (score, lambda text: json.dumps({"task": "tiny_math", "metrics": {}, "fixed_by": {}}), "no field 'digest'"),
        (responses, lambda text: text[: len(text) // 2], "not valid JSON"),
        (responses, lambda text: text.replace('"working": 0.0', '"working": 1.0', 1), "has changed since it was"),
        (responses, None, "no such file"),
    ]
    scores = {"tiny_math": fixed.wanted("tiny_math", TINY)}
    job = Job("", "base", SimpleNamespace(base_folder=epath.Path), None, [], lambda: scores)
    (tmp_path / "stage.json").touch()
    for file, harm, said in harms:
        assert job.is_done(epath.Path(tmp_path))
        capsys.readouterr()
        if harm:
            file.write_text(harm(file.read_text()))
        else:
            file.unlink()
        assert not job.is_done(epath.Path(tmp_path))
        assert runner.run_task(model, "tiny_math", TINY)["metrics"] == sound
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "scored again" in line]
        assert line.startswith(f"scored again: {file}") and said in line and line.endswith("; it is written anew")
        assert records.score(epath.Path(score))["metrics"] == sound and responses.read_bytes() == rows
    runner.run_task(model, "tiny_math", TINY)
    assert "scored again" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "other",
    [
        {"limit": 4},
        {"samples": 8, "temperature": 0.7},
        {"temperature": 0.7},
        {"seed": 1},
        {"data": {"tiny_math": "tiny:14"}},
    ],
)
def test_a_score_of_another_config_is_not_the_one_that_a_study_wants(tmp_path, other):
    model = open_model("tiny", Opening(slots=4), epath.Path(tmp_path))
    runner.run_task(model, "tiny_math", TINY)
    folder = epath.Path(tmp_path / "eval" / "tiny_math")
    assert fixed.is_scored(folder, fixed.wanted("tiny_math", TINY))
    assert not fixed.is_scored(folder, fixed.wanted("tiny_math", dataclasses.replace(TINY, **other)))
    assert not fixed.is_scored(folder, fixed.wanted("tiny_code", TINY))


def test_two_stages_are_compared_question_by_question(tmp_path):
    first, second = scored(tmp_path / "a", [0, 0, 0, 0, 0, 0, 1, 1]), scored(tmp_path / "b", [1, 1, 1, 1, 1, 1, 1, 0])
    right = compare(first, second, "t")[0]
    assert (right.n, right.first, right.second) == (8, 0.25, 0.875)
    assert right.p == pytest.approx(2 * (1 + 7 / 2) / 2**7)  # 6 won, 1 lost
    assert right.low < 0.625 < right.high
    with pytest.raises(UserError, match=r"cannot stand side by side; they differ in data: d and e"):
        compare(first, scored(tmp_path / "c", [1] * 8, data="e"), "t")
    with pytest.raises(UserError, match="has no score on u"):
        compare(first, second, "u")


class Parrot:
    """A sampler that answers `fine`, and finds everything certain."""

    config = SimpleNamespace(max_length=512)

    def generate(self, requests, finished):
        for i, _ in enumerate(requests):
            finished(i, Response("fine", (5,), "stop"))

    def log_likelihood(self, pairs):
        return [(0.0, True) for _ in pairs]


def parrot(folder) -> Model:
    return Model("parrot", {"model": "parrot"}, Parrot(), Chat("chatml", Tokenizer(str(BASE))), epath.Path(folder))


def test_prompts_that_hold_marks_are_recorded_as_refused(tmp_path, capsys):
    marked = "type <|im_end|>"
    questions = [
        Question("free", (marked,), {}),
        Question("fine", ("hi",), {}),
        Question("second", ("hi", marked), {}),
        Question("choice", (marked,), {}, choices=("A", "B")),
        Question("measured", ("",), {}, measured=Conversation([Message("user", marked), Message("assistant", "a")])),
    ]
    asked = ask(parrot(tmp_path), "task", questions, Decoding(0.0, 4), Journal(epath.Path(tmp_path / "journal")))
    assert asked.answers == {
        "free": [[""]],
        "fine": [["fine"]],
        "second": [["fine", ""]],
        "choice": [[""]],
        "measured": [[""]],
    }
    assert asked.finish_reasons == {"prompt_refused": 4, "stop": 2}
    assert "3 prompts are not asked and count as unanswered: the text holds '<|im_end|>'" in capsys.readouterr().err


def test_a_judge_that_cannot_be_asked_has_failed(tmp_path):
    got, failed = {}, {}
    judge = OwnModel(parrot(tmp_path), JudgeConfig())
    prompts = [(Prompt("p", "Judge.", "<|im_start|>"), 0), (Prompt("p", "Judge.", "a fine answer"), 0)]
    judge.ask(prompts, got.__setitem__, failed.__setitem__, lambda: True)
    assert list(got) == [1] and "cannot be asked: the text holds '<|im_start|>'" in failed[0]


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("None", "its score of 'q0' is None; must be a dict of finite numbers"),
        ("{'m': 'x'}", "must be a dict of finite numbers"),
        ("{'m': float('nan'), 'w': 1}", "must be a dict of finite numbers"),
        ("{'m': 7, 'w': 1}", "has m=7; must be from 0 to 1"),
        ("{'n': 1.0}", "its score of 'q0' has no 'm', only n"),
        ("{'m': 1.0}", "has no 'w', only m"),
    ],
)
def test_a_task_of_one_s_own_whose_score_is_no_verdict_is_named(tmp_path, verdict, said):
    (tmp_path / "own.py").write_text(
        "from sftmix_jax.evaluation.task import Metric, Question, Task\n"
        "TASK = Task('own', lambda path: [Question('q0', ('?',), {})], (Metric('m', weight='w'),), 'x',"
        f" score=lambda question, turns: {verdict})\n"
    )
    (tmp_path / "r.jsonl").write_text('{"id": "q0", "response": "a"}\n')
    with pytest.raises(UserError, match=said):
        runner.score_responses(str(tmp_path / "own.py"), epath.Path(tmp_path / "r.jsonl"), EvaluationConfig())


def test_questions_of_one_s_own_must_be_told_apart_and_have_turns(tmp_path):
    for questions, said in (
        ("[Question('q', ('?',), {})] * 2", "2 questions have the id 'q'"),
        ("[Question('q', 'text', {})]", "must be a tuple of texts"),
    ):
        (tmp_path / "own.py").write_text(
            "from sftmix_jax.evaluation.task import Metric, Question, Task\n"
            f"TASK = Task('own', lambda path: {questions}, (Metric('m'),), 'x', score=lambda q, t: {{'m': 1}})\n"
        )
        (tmp_path / "r.jsonl").write_text('{"id": "q", "response": "a"}\n')
        with pytest.raises(UserError, match=said):
            runner.score_responses(str(tmp_path / "own.py"), epath.Path(tmp_path / "r.jsonl"), EvaluationConfig())
    (tmp_path / "own.py").write_text("from sftmix_jax.evaluation.task import Task\nTASK = Task('own', list, (), 'x')\n")
    with pytest.raises(UserError, match="has no metrics"):
        find_task(str(tmp_path / "own.py"))


def test_a_copy_beside_a_journal_s_files_is_read_and_leaves_their_numbers(tmp_path):
    journal = Journal(epath.Path(tmp_path))
    journal.put("k", "row")
    journal.close()
    (tmp_path / "000000.jsonl").rename(tmp_path / "backup.jsonl")
    assert Journal(epath.Path(tmp_path)).get("k") == "row"


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("gsm8k", {"question": 5, "answer": "#### 1"}),
        ("gsm8k", {"question": "q", "answer": 5}),
        ("mmlu", {"question": "q", "subject": None, "choices": ["a", "b"], "answer": 0}),
        ("mmlu", {"question": "q", "subject": "s", "choices": 5, "answer": 0}),
    ],
)
def test_a_benchmark_s_row_of_another_type_is_refused(tmp_path, task, row):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    config = EvaluationConfig(data={task: str(tmp_path / "rows.jsonl")})
    with pytest.raises(UserError, match=rf"rows\.jsonl: not a file of {task}: a row cannot be|turns of .* must be"):
        load_questions(find_task(task)[0], config)


def test_a_limit_leaves_the_samples_of_other_questions_out(tmp_path):
    rest = {"prompt": "def f():\n", "entry_point": "f", "test": "def check(c):\n    c()\n", "canonical_solution": ""}
    asked = [{"task_id": f"HumanEval/{i}", **rest} for i in range(2)]
    said = [{"id": "HumanEval/0", "samples": ["    return 1\n"] * 3}, {"id": "HumanEval/1", "samples": ["x"]}]
    for name, rows in (("asked", asked), ("said", said)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = EvaluationConfig(limit=1, data={"humaneval": str(tmp_path / "asked.jsonl")})
    record = runner.score_responses("humaneval", epath.Path(tmp_path / "said.jsonl"), config)
    assert {"pass@1", "pass@2", "pass@3"} <= record["metrics"].keys()


@pytest.mark.parametrize("source", ["--responses", "--model"])
@pytest.mark.parametrize("out", ["/proc/x", "file", "file/below"])
def test_an_out_that_cannot_be_written_is_refused_before_anything_is_read(out, source, tmp_path):
    (tmp_path / "file").write_text("")
    given = ["--task=tiny_math", f"{source}=nowhere", f"--out={tmp_path / out}"]
    with pytest.raises(UserError, match=rf"{out}.*: cannot be written \(.*\); choose another --out"):
        evaluate.main(options.parse(evaluate.Options, given))
    given = [*given[:2], f"--out={tmp_path / 'new' / 'folder'}"]
    with pytest.raises(UserError, match="nowhere"):
        evaluate.main(options.parse(evaluate.Options, given))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
