"""Stored verdicts on pairs of answers: each is counted, or refused by its place; both orders become one."""

import itertools
import json
import math
import re

import pytest
from conftest import ROOT, SHARED, call
from etils import epath

from sftmix_jax.evaluation import pairs
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.evaluation.stored_judgments import score_judgments
from sftmix_jax.evaluation.task import find_task
from sftmix_jax.machine.errors import UserError

MT_BENCH = SHARED / "data" / "eval" / "mt_bench"
needs_files = pytest.mark.skipif(not MT_BENCH.is_dir(), reason="no ../shared beside the project")


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return epath.Path(file)


def score(tmp_path, *files, data=None, task="pairs", **config):
    return score_judgments(task, files, EvaluationConfig(data={task: str(data or files[0])}, **config))


def alpaca(question, preference, first="base", second="ours"):
    """As in annotations.json; the preference is of output 1 or 2."""
    return {
        "instruction": question,
        "output_1": f"by {first}",
        "output_2": f"by {second}",
        "generator_1": first,
        "generator_2": second,
        "annotator": "a judge",
        "preference": preference,
    }


def qlora(number, score, first="x", second="y", key="question_id", text=None):
    """As in ratings-gpt4/*-threeclass.jsonl; answer ids are of one question."""
    said = f"Both are good.\n\n{score}" if text is None else text
    return {
        "review_id": "r",
        key: number,
        "answer1_id": f"{first}{number}",
        "answer2_id": f"{second}{number}",
        "reviewer_id": 1,
        "metadata": {},
        "text": said,
        "score": score,
    }


def fastchat(number, first, second, turn=1, **more):
    """As in model_judgment/gpt-4_pair.jsonl."""
    return {
        "question_id": number,
        "model_1": "ours",
        "model_2": "base",
        "g1_winner": first,
        "g2_winner": second,
        "judge": ["gpt-4", "pair-v2"],
        "turn": turn,
        "tstamp": 1.0,
        **more,
    }


@pytest.mark.parametrize(
    ("ours_first", "other_first", "wins", "disagreement"),
    [
        (1, -1, 1, 0),
        (-1, 1, 0, 0),
        (0, 0, 0.5, 0),
        (1, 1, 0.5, 1),
        (-1, -1, 0.5, 1),
        (1, 0, 0.5, 1),
        (0, 1, 0.5, 1),
        (None, 1, None, None),
        (1, None, None, None),
        (None, None, None, None),
        (1, math.nan, 1, None),
        (math.nan, 1, 0, None),
        (0, math.nan, 0.5, None),
        (None, math.nan, None, None),
        (0.5, math.nan, 0.75, None),
        (math.nan, -0.4, 0.7, None),
    ],
)
def test_both_orders_become_one_verdict(ours_first, other_first, wins, disagreement):
    found = pairs.rate([ours_first, other_first])
    assert found == {"wins": pytest.approx(wins) if wins is not None else None, "disagreement": disagreement}


def test_turns_are_averaged_and_those_without_a_rating_left_out():
    assert pairs.rate([1, -1, -1, 1]) == {"wins": 0.5, "disagreement": 0}
    assert pairs.rate([1, -1, None, 1]) == pairs.rate([1, -1]) == pairs.rate([1, math.nan]) | {"disagreement": 0}
    assert pairs.rate([1, 1, 1, -1]) == {"wins": 0.75, "disagreement": 0.5}


def test_annotations_of_alpaca_eval_give_its_win_rate(tmp_path):
    """Its win rate is the mean of preference - 1 over what is no null, where 0 is 1.5."""
    preferences = [1, 2, 1.5, 2.0, 0, None, math.nan, 1.0]
    rows = [alpaca(f"Question {i}?", preference) for i, preference in enumerate(preferences)]
    file = epath.Path(tmp_path / "annotations.json")
    file.write_text(json.dumps(rows, indent=2))
    (record,) = score(tmp_path, file)
    assert record["metrics"]["wins"]["value"] == pytest.approx((0 + 1 + 0.5 + 1 + 0.5 + 0) / 6)
    assert record["metrics"]["wins"]["n"] == 6 and record["metrics"]["disagreement"]["value"] is None
    assert record["model"] == "ours against base" and record["fixed_by"]["judge"]["id"] == "a judge"
    assert record["stored_judgments"] == 8 and record["one_order"] == 8
    assert record["unparsed"] == [f"{file}[5]", f"{file}[6]"] and record["missing"] == []
    weighted = write(tmp_path / "w.jsonl", [alpaca("a?", 1.9), alpaca("b?", 1.25)])
    assert score(tmp_path, weighted)[0]["metrics"]["wins"]["value"] == pytest.approx(0.575)


def test_both_orders_of_alpaca_eval_and_several_models(tmp_path):
    rows = [
        alpaca("both agree?", 2),
        alpaca("both agree?", 1, "ours", "base"),
        alpaca("by place?", 2),
        alpaca("by place?", 2, "ours", "base"),
        alpaca("ties?", 1.5),
        alpaca("ties?", 1.5, "ours", "base"),
        alpaca("once?", 1),
        alpaca("once?", 2, second="third"),
    ]
    ours, third = score(tmp_path, write(tmp_path / "a.jsonl", rows))
    assert ours["metrics"]["wins"]["value"] == (1 + 0.5 + 0.5 + 0) / 4
    disagreement, wins = ours["metrics"]["disagreement"], third["metrics"]["wins"]
    assert (disagreement["value"], disagreement["n"]) == (pytest.approx(1 / 3), 3)
    assert ours["stored_judgments"] == 7 and ours["one_order"] == 1
    assert third["model"] == "third against base" and (wins["value"], wins["n"]) == (1, 1)
    assert third["missing"] == ["pairs/0", "pairs/1", "pairs/2"]


@pytest.mark.parametrize("key", ["question_id", "message_id"])
@pytest.mark.parametrize("apart", [True, False])
def test_verdicts_of_qlora_in_both_orders(tmp_path, key, apart):
    """1, 2 and 3 are of the answer that stands first, second, neither; the orders may lie in two files."""
    first = {1: 1, 2: 2, 3: 3, 4: 1, 5: -1, 6: 1}
    second = {1: 2, 2: 1, 3: 3, 4: 1, 5: 1}
    one = [qlora(n, given, key=key) for n, given in first.items()]
    other = [qlora(n, given, "y", "x", key=key) for n, given in second.items()]
    files = [write(tmp_path / "a.jsonl", one), write(tmp_path / "b.jsonl", other)]
    if not apart:
        files = [write(tmp_path / "a.jsonl", one + other)]
    (record,) = score(tmp_path, *files)
    assert record["model"] == "answer 1 against answer 2" and record["stored_judgments"] == 11
    assert record["metrics"]["wins"]["value"] == (1 + 0 + 0.5 + 0.5 + 1) / 5  # the fifth question has no verdict
    assert record["metrics"]["disagreement"]["value"] == 1 / 4 and record["one_order"] == 1
    assert record["unparsed"] == [f"{tmp_path}/a.jsonl:5"] and record["differing"] == []


def test_ratings_of_qlora_and_replies_that_say_another_verdict(tmp_path):
    rows = [
        qlora(1, [9.0, 6.0], text="9 6\nBetter."),
        qlora(2, [7, 7], text=""),
        qlora(3, [-1, -1], text="?"),
        qlora(6, [math.nan, 5], text="?"),
        qlora(4, 1, text="As I said.\n\n2"),
        qlora(5, 2, text="The best answer: 2"),
        qlora(7, [None, 9], text="?"),
        qlora(8, None, text="?"),
    ]
    (record,) = score(tmp_path, write(tmp_path / "a.jsonl", rows))
    assert record["metrics"]["wins"]["value"] == (1 + 0.5 + 1 + 0) / 4
    assert record["unparsed"] == [f"{tmp_path}/a.jsonl:{line}" for line in (3, 4, 7, 8)]
    assert record["differing"] == [f"{tmp_path}/a.jsonl:5"]


def test_two_models_that_wrote_the_same_answer(tmp_path):
    """It has one id then, so the second row about it is of the other order; whoever stands first is no better."""
    files = [
        write(tmp_path / name, [qlora(1, 1, "x", "x"), qlora(2, score, *names)])
        for name, score, names in (("a.jsonl", 1, ("x", "y")), ("b.jsonl", 2, ("y", "x")))
    ]
    (record,) = score(tmp_path, *files)
    assert record["metrics"]["wins"]["value"] == 0.75 and record["metrics"]["disagreement"]["value"] == 0.5


def test_an_order_that_was_judged_several_times_counts_by_its_mean(tmp_path):
    """As live judgings do: means of both orders agree only where they are equal."""
    file = write(tmp_path / "a.jsonl", [qlora(1, 1), qlora(1, 3), qlora(2, 1), qlora(2, 1), qlora(2, 2, "y", "x")])
    (record,) = score(tmp_path, file)
    assert record["metrics"]["wins"]["value"] == (0.75 + 1) / 2


@needs_files
def test_pairs_of_fastchat_on_mt_bench(tmp_path):
    """Every pair of winners, for 40 questions of two turns: who wins twice has won, else a tie, as in its tool."""
    winners = list(itertools.product(("model_1", "model_2", "tie"), repeat=2))
    rows = [fastchat(81 + i, *winners[(i + turn) % 9], turn=turn) for i in range(40) for turn in (1, 2)]
    worth = [{("model_1",) * 2: 1, ("model_2",) * 2: 0}.get((r["g1_winner"], r["g2_winner"]), 0.5) for r in rows]
    rows += [fastchat(121, "error", "model_1"), fastchat(121, "model_1", "model_1", turn=2)]
    rows[0] |= {"g1_judgment": "[[A]]", "g2_judgment": "No verdict."}
    rows[1] |= {"g1_judgment": "[[B]]"}
    file = write(tmp_path / "gpt-4_pair.jsonl", rows)
    (record,) = score(tmp_path, file, data=MT_BENCH, task="mt_bench_pairs")
    assert record["metrics"]["wins"]["value"] == pytest.approx((sum(worth) / 2 + 1) / 41)
    disagreed = sum(r["g1_winner"] != r["g2_winner"] for r in rows[:80])
    assert record["metrics"]["disagreement"]["value"] == pytest.approx(disagreed / 2 / 41)
    assert record["stored_judgments"] == 164 and len(record["missing"]) == 39 and record["one_order"] == 0
    assert record["unparsed"] == [f"{file}:81 g1"] and record["fixed_by"]["judge"]["id"] == "gpt-4"
    says = [
        where
        for i, where in ((0, f"{file}:1 g1"), (1, f"{file}:2 g1"))
        if rows[i]["g1_winner"] != ("model_1", "model_2")[i]
    ]
    assert record["differing"] == says
    (first,) = score(tmp_path, file, data=MT_BENCH, task="mt_bench_pairs", limit=1)
    assert first["questions"] == 1 and first["metrics"]["wins"]["value"] == sum(worth[:2]) / 2


@needs_files
def test_a_pairwise_task_reads_verdicts_of_all_systems_from_the_command_line(tmp_path):
    text = find_task("mt_bench_pairs")[0].load(str(MT_BENCH))[0].turns[0]
    for name, rows in (
        ("annotations.json", [alpaca(text, 2), alpaca(text, 1, "ours", "base")]),
        ("qlora.jsonl", [qlora(81, 1), qlora(81, 2, "y", "x")]),
        ("pair.jsonl", [fastchat(81, "model_1", "model_1")]),
    ):
        file = write(tmp_path / name, rows)
        if name.endswith(".json"):
            file.write_text(json.dumps(rows))
        ended = call(
            "evaluate",
            "--task",
            "mt_bench_pairs",
            "--data",
            str(MT_BENCH),
            "--json",
            "--judgments",
            str(file),
        )
        assert ended.returncode == 0, ended.stderr
        record = json.loads(ended.stdout)
        assert record["metrics"]["wins"]["value"] == 1 and record["metrics"]["disagreement"]["value"] == 0
        assert record["stored_judgments"] == 2
    (tmp_path / "bad.jsonl").write_text('{"question_id": 81, "score": 1}\n')
    ended = call(
        "evaluate",
        "--task",
        "mt_bench_pairs",
        "--data",
        str(MT_BENCH),
        "--judgments",
        str(tmp_path / "qlora.jsonl"),
        str(tmp_path / "bad.jsonl"),
    )
    assert ended.returncode == 2 and "Traceback" not in ended.stderr and len(ended.stderr.strip().split("\n")) == 1
    assert "bad.jsonl:1: must be a verdict in a known layout, but its fields are question_id, score" in ended.stderr


@needs_files
def test_a_pairwise_task_that_a_judge_rates_wants_the_stored_baseline(tmp_path):
    pytest.importorskip("openai")
    answers = write(tmp_path / "a.jsonl", [{"id": 81, "response": ["a", "b"]}])
    ended = call(
        "evaluate",
        "--task",
        "mt_bench_pairs",
        "--data",
        str(MT_BENCH),
        "--responses",
        str(answers),
        "--judge",
        "openai:x",
        env={"OPENAI_API_KEY": "x"},
    )
    assert ended.returncode == 2 and "name the stored baseline too" in ended.stderr


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (alpaca("q1?", 3), "preference must be a number from 1 to 2, or 0 for a tie, not 3"),
        (alpaca("q1?", "1"), 'preference must be a number from 1 to 2, or 0 for a tie, not "1"'),
        (alpaca("q1?", True), "preference must be"),
        (alpaca("q1?", 1, "a", "a"), "both answers are of 'a'"),
        (alpaca("q1?", 1, None), "its generator_1 must be a text"),
        (alpaca("other?", 1), r"no question in this benchmark reads 'other\?'; did you mean .*3 known"),
        (qlora(9, 1), "no question '9' in this benchmark; did you mean .*'pairs/1'"),
        (qlora(1, 4), "its score must be 1, 2, 3 or two ratings, all numbers, not 4"),
        (qlora(1, "1"), 'its score must be 1, 2, 3 or two ratings, all numbers, not "1"'),
        (qlora(1, ["8", 9]), r'two ratings, all numbers, not \["8", 9\]'),
        ({**fastchat(1, "tie", "tie"), **qlora(1, 1)}, r"is a verdict in several layouts \(QLoRA, FastChat\)"),
        (qlora(1, [1]), "its score must be"),
        (qlora(1, 1, "z"), "other answers to 'pairs/1' than before, z1 and y1; score one pair at a time"),
        (qlora(1, 1, "x", "x"), "other answers to 'pairs/1' than before, x1 and x1"),
        (qlora(1, 1) | {"message_id": "m"}, "must have a question_id or a message_id"),
        (fastchat(1, "model_3", "tie"), "its g1_winner must be one of model_1, model_2, tie, error, not model_3"),
        (fastchat(1, "tie", "tie", turn=2), "its turn must be 1 to 1, not 2"),
        (fastchat(1, "tie", "tie", turn="1"), 'its turn must be 1 to 1, not "1"'),
        (fastchat([], "tie", "tie"), "an id must be text"),
        (fastchat(1, ["tie"], "tie"), "its g1_winner must be one of"),
        (fastchat(1, "tie", "tie", turn=[1]), "its turn must be 1 to 1"),
        (alpaca("q", 1), "no question in this benchmark reads 'q'"),
        (alpaca("Please: q1?", 1), "no question in this benchmark reads 'Please: q1"),
        ({"question_id": 1, "g1_winner": "tie"}, r"its fields are question_id, g1_winner; known: AlpacaEval \{instr"),
        (["x"], "this is no object; known: AlpacaEval .*, QLoRA .*, FastChat"),
        ({}, "its fields are none"),
    ],
)
def test_a_verdict_that_cannot_be_counted_is_refused_by_its_line(tmp_path, row, message):
    data = write(tmp_path / "q.jsonl", [{"question_id": n, "text": f"q{n}?"} for n in (1, 2, 3)])
    with pytest.raises(UserError, match=rf"r\.jsonl:2: .*{message}"):
        score(tmp_path, write(tmp_path / "r.jsonl", [qlora(1, 1), row]), data=data)


def test_weighted_preferences_of_both_orders_are_refused(tmp_path):
    file = write(tmp_path / "r.jsonl", [alpaca("q?", 1.9), alpaca("q?", 1, "ours", "base")])
    with pytest.raises(UserError, match=r"r\.jsonl:2: both orders were judged and one is weighted"):
        score(tmp_path, file)
    with pytest.raises(UserError, match="no judgments in it"):
        score(tmp_path, write(tmp_path / "none.jsonl", []), data=file)


def test_the_questions_of_pairs_come_from_any_of_their_files(tmp_path):
    load = find_task("pairs")[0].load
    found = {
        "vicuna": [{"question_id": 1, "text": "How?", "category": "generic"}],
        "alpaca_eval": [{"instruction": "How?", "output": "So.", "dataset": "helpful_base"}],
        "annotations": [alpaca("How?", 1), alpaca("How?", 2)],
        "verdicts": [qlora("m-1", 1, key="message_id"), qlora("m-1", 1, "y", "x", key="message_id")],
    }
    said = {
        name: [(q.id, q.turns) for q in load(str(write(tmp_path / f"{name}.jsonl", rows)))]
        for name, rows in found.items()
    }
    assert said == {
        "vicuna": [("pairs/1", ("How?",))],
        "alpaca_eval": [("pairs/0", ("How?",))],
        "annotations": [("pairs/0", ("How?",))],
        "verdicts": [("pairs/m-1", ("m-1",))],
    }
    with pytest.raises(UserError, match=r"r\.jsonl:1: has none of the fields question_id, message_id, id, instruction"):
        load(str(write(tmp_path / "r.jsonl", [{"answer": "a"}])))


def test_the_documented_rows_can_be_read(tmp_path):
    """Each row of the table in docs/stored_outputs.md, as it stands there."""
    table = (ROOT / "docs" / "stored_outputs.md").read_text().partition("## Stored judgments")[2].partition("\n\n|")[2]
    shown = [json.loads(text) for text in re.findall(r"`({.*?})`", table)]
    data = write(tmp_path / "q.jsonl", [{"id": 1, "text": "?"}, {"id": 81, "text": "?"}, {"text": "…"}])
    assert len(shown) == 3
    for row in shown:
        (record,) = score(tmp_path, write(tmp_path / "r.jsonl", [row]), data=data)
        assert record["stored_judgments"] in (1, 2) and len(record["missing"]) == 2


def test_an_order_says_what_most_of_its_judgings_do(tmp_path):
    """Ours wins all three judgings as the second, and two of three as the first: a win in both orders."""
    rows = [alpaca("q", 2) for _ in range(3)] + [alpaca("q", each, first="ours", second="base") for each in (1, 1, 2)]
    (record,) = score(tmp_path, write(tmp_path / "v.jsonl", rows))
    assert record["metrics"]["wins"]["value"] == 1 and record["metrics"]["disagreement"]["value"] == 0


def test_a_question_under_two_ids_is_refused_and_so_are_two_under_one(tmp_path):
    verdicts = write(tmp_path / "v.jsonl", [alpaca("q", 2)])
    same = write(tmp_path / "same.jsonl", [{"id": 1, "text": "q"}, {"id": 2, "text": "q"}])
    with pytest.raises(UserError, match=r"v\.jsonl:1: its question stands in the benchmark under several ids"):
        score(tmp_path, verdicts, data=same)
    other = write(tmp_path / "other.jsonl", [{"id": 1, "text": "q"}, {"id": 1, "text": "r"}])
    with pytest.raises(UserError, match=r"other\.jsonl:2: another question has the id '1'"):
        score(tmp_path, verdicts, data=other)
    with pytest.raises(UserError, match=r"v\.jsonl is named twice"):
        score(tmp_path, verdicts, epath.Path(tmp_path / "." / "v.jsonl"))
