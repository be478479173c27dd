"""How numbers in answers are read; expected values are worked by hand."""

import json
import random

import pytest
from etils import epath

from sftmix_jax.evaluation import runner
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.evaluation.task import Question, find_task
from sftmix_jax.machine.errors import UserError

GSM8K, _ = find_task("gsm8k")


def scores(response: str, gold: float | str) -> tuple[float | None, float | None]:
    """Strict and flexible."""
    verdict = GSM8K.score(Question("gsm8k/0", ("q",), {"answer": gold}), [response])
    return verdict["strict"], verdict["flexible"]


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("\u221212", -12),
        ("\u201312", -12),
        ("+12", 12),
        ("$-12", -12),
        ("-$12", -12),
        ("\\$12", 12),
        ("€12", 12),
        ("£ 12.50", 12.5),
        ("32,500", 32500),
        ("32{,}500", 32500),
        ("32\u2009500", 32500),
        ("32\u202f500", 32500),
        ("32\u00a0500", 32500),
        ("32 500", 32500),
        ("32\\,500", 32500),
        ("32,\\!500", 32500),
        ("32’500", 32500),
        ("3,25,000", 325000),
        ("4e6", 4e6),
        ("2.5E+3", 2500),
        ("6.25e-03", 0.00625),
        ("4 × 10^6", 4e6),
        ("4 \\times 10^{6}", 4e6),
        ("4\\cdot10^{-2}", 0.04),
        ("4 × 10⁻²", 0.04),
        ("10^3", 1000),
        ("3/8", 0.375),
        ("4 x 10^(-2)", 0.04),
        ("4*10**5", 4e5),
        ("-3/8", -0.375),
        ("-(3/8)", -0.375),
        ("5 3/4", 5.75),
        ("5¾", 5.75),
        ("¾", 0.75),
        ("\\frac{3}{8}", 0.375),
        ("-\\dfrac38", -0.375),
        ("5\\frac{3}{4}", 5.75),
        ("３２", 32),
        (".5", 0.5),
        ("60 cm^2", 60),
        ("60 m²", 60),
        ("15%", 15),
        ("12.", 12),
        ("32\\text{,}500", 32500),
    ],
)
def test_a_number_is_read_in_any_spelling(written, number):
    assert scores(f"#### {written}", float(number)) == (1, 1)
    assert scores(f"So there were 7, and ${written}$ is it." if "$" not in written else written, float(number))[1] == 1
    assert scores(f"#### {written}", number + 1.0) == (0, 0)


@pytest.mark.parametrize(
    ("response", "number"),
    [
        ("9-4=5", 5),
        ("from 4-6", 6),
        ("21,22,23", 23),
        ("a 10%-15 chance", 15),
        ("version 1.2.3", 3),
        ("x=-4", -4),
        ("(-4)", -4),
        ("3 for $5", 5),
        ("8/2=4", 4),
        ("6 + 7 = 13", 13),
        ("2,500,750", 2500750),
        ("so …12", 12),
        ("x = - 4", -4),
        ("9 - 4", 4),
        ("- 4 pens", 4),
    ],
)
def test_the_last_number_of_a_text(response, number):
    assert scores(response, float(number)) == (0, 1)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("1.5 million", 1_500_000),
        ("$2.5 Million", 2_500_000),
        ("2 thousand", 2000),
        ("3 billion", 3e9),
        ("2 hundred thousand", 200_000),
        ("2.3 trillion", 2_300_000_000_000),
        ("1,200 million", 1.2e9),
        ("$1.5$ million", 1_500_000),
        ("1.5\\text{ million}", 1_500_000),
        ("2 1/2 million", 2_500_000),
        ("1/2 million", 500_000),
        ("-4 thousand", -4000),
        ("5 thousandths", 5),
        ("5 thousandaires", 5),
        ("1_234_567", 1_234_567),
        ("1_234", 1234),
        ("1.234.567", 1_234_567),
        ("1.234.567,89", 1_234_567.89),
        ("1.000,00", 1000),
        ("€ 2.500,75", 2500.75),
        ("1.234, 56", 56),
        ("1.234", 1.234),
        ("minus 3", -3),
        ("Negative $3", -3),
        ("4 quadrillion", 4e15),
        ("negative 2 thousand", -2000),
        ("minus 1/2", -0.5),
        ("negative **3**", -3),
        ("**minus 3**", -3),
    ],
)
def test_a_number_is_read_in_words_and_other_groups(written, number):
    assert scores(f"So out of 7 the answer is {written}.", float(number))[1] == 1
    assert scores(f"So out of 7 the answer is {written}.", number + 1.0)[1] == 0


@pytest.mark.parametrize(
    ("response", "number"),
    [
        ("Take 10 minus 3", 3),
        ("ten minus 3", 3),
        ("Of 10 pens\nminus 3", 3),
        ("a non-negative 3", 3),
        ("version 1.234.5678", 5678),
        ("4 million", 4),
        ("#### $4 million to manage", 4),
        ("4 million", 4_000_000),
    ],
)
def test_a_number_that_may_be_read_in_two_ways_is_read_as_it_stands(response, number):
    """And a word such as million is the unit where the gold is counted in it."""
    assert scores(response, float(number))[1] == 1


@pytest.mark.parametrize(
    ("response", "strict", "flexible"),
    [
        ("#### 1. Add: 9 + 3 = 12\n#### 2. Double it: 24\nSo it is 24.", 0, 1),
        ("#### 1) Add them\n#### 2) Double it\n#### 24", 0, 1),
        ("#### 1. Add\n\n#### 2. Double\n\n\\boxed{24} of 30", 0, 1),
        ("#### 1\\. Add\n#### 24", 0, 1),
        ("#### 1: Add\nIt comes to 24 pens", 0, 1),
        ("#### 24. That is all of 3 lines.", 1, 1),  # no heading: headings are counted from 1
        ("#### 24\n#### 1. Check: 12 * 2", 1, 1),
        ("#### 1. Add\nIt is 25.", 0, 0),
        ("#### 1.", 0, 0),
        ("#### 12 * 2 = 24 pens", 0, 1),
        ("#### $10 + $14 = 6 \\times 4 = $24", 0, 1),
        ("#### 24 = 12 * 2", 1, 1),
        ("#### 24 pens, as 12 + 13 = 25 is wrong", 1, 1),
        ("We get \\boxed{24}, as 12 * 2 shows for 2 of 3.", 0, 1),
        ("\\boxed{7} was wrong. Now \\boxed{\\text{so } 12 \\cdot 2 = {24}} pens in 3 boxes.", 0, 1),
        ("\\boxed{24} and then it broke off at \\boxed{7", 0, 1),
        ("\\boxed{\\$24}", 0, 1),
        ("\\boxed{many}, 24", 0, 1),
        ("so $\\boxed 24$ of 30", 0, 1),
        ("\\boxed{24}, then \\boxed{25}", 0, 0),
        ("#### \\boxed{24} for 2", 0, 1),
    ],
)
def test_headings_and_boxes(response, strict, flexible):
    assert scores(response, 24.0) == (strict, flexible)


@pytest.mark.parametrize(
    "response",
    [
        "#### 5/0",
        "9" * 5000,
        "1 111" * 5000,
        "1.111" * 5000,
        "1,11" * 5000,
        "1_111" * 5000 + " million",
        "1e999999999",
        "####",
        "#### -",
        "$",
        "7/",
        "\\frac{}{}",
    ],
)
def test_what_is_no_number_is_wrong(response):
    assert scores(response, 5.0) == (0, 0)


def test_numbers_survive_formatting():
    draw = random.Random(0)
    for _ in range(300):
        value = draw.randint(-(10**9), 10**9) / draw.choice((1, 10, 100))
        for written in (
            f"{value}",
            f"{value:,}",
            f"{value:,}".replace(",", " "),
            f"{value:.12e}",
            f"**{value:_}**".replace("_", "{,}"),
            f"${value:,}".replace("-", "\u2212"),
        ):
            assert scores(f"The result is {written}.", value)[1] == 1, written


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        (4.25e-5, ("0.0000425", "4.25e-05", "4.25 × 10⁻⁵"), ("0", "0.00004", "4.25", "-0.0000425")),
        (8.125e-7, ("0.0000008125", "8.125e-7"), ("0", "0.000001", "8.125")),
        (3.125e16, ("31250000000000000", "31,250,000,000,000,000", "3.125e+16"), ("3.125", "3.125e15")),
        (0.0, ("0", "0.00", "-0"), ("0.01", "1")),
        (1 / 6, ("1/6", "0.1667", "0.16667"), ("0.166", "0.17", "6")),
        (18.0, ("18", "18.00005"), ("18.001", "17.9")),
    ],
)
def test_small_and_large_golds(gold, right, wrong):
    assert [scores(f"#### {text}", gold) for text in right] == [(1, 1)] * len(right)
    assert [scores(f"#### {text}", gold) for text in wrong] == [(0, 0)] * len(wrong)


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("C", "C"),
        (" c\n", "C"),
        ("C.", "C"),
        ("(C)", "C"),
        ("**C**", "C"),
        ("C) a whale", "C"),
        ("C. A whale", "C"),
        ("The answer is C", "C"),
        ("The correct answer is (C).", "C"),
        ("Answer: **C**", "C"),
        ("answer: c", "C"),
        ("the answer is c) a whale", "C"),
        ("The best option is C, since A and B are fish.", "C"),
        ("\\boxed{C}, for A is a fish", "C"),
        ("$\\boxed{\\text{(C)}}$", "C"),
        ("I would say C.", "C"),
        ("A whale is no fish: C", "C"),
        ("A is the one.", "A"),
        ("A. trout\nB. eel\nC. whale\nAnswer: C", "C"),
        ("Think of gills.\nC. whale", "C"),
        ("The answer was A at first. No, the answer is C.", "C"),
        ("", None),
        ("whale", None),
        ("A whale", None),
        ("A or C", None),
        ("The answer is A or C.", None),
        ("A. trout\nB. eel", None),
        ("The answer is not C.", None),
        ("A, C", None),
        ("The answer is a whale", None),
        ("F", None),
        ("(c) 4", "C"),
        ("Not C.", None),
        ("\uff23", "C"),
        ("It is (C).", "C"),
        ("(a) or (b)", None),
    ],
)
def test_a_reply_to_a_choice(reply, letter):
    task, _ = find_task("mmlu")
    for answer in "ABCD":
        question = Question("mmlu/0", ("q",), {"answer": answer}, choices=tuple("ABCD"))
        assert task.score(question, [reply]) == {"accuracy": float(answer == letter)}
        assert task.extract(question, [reply]) == letter


def test_questions_have_any_number_of_choices(tmp_path):
    task, _ = find_task("mmlu")

    def load(choices, answer):
        row = {"question": "Which?", "subject": "sea_life", "choices": choices, "answer": answer}
        (tmp_path / "rows.jsonl").write_text(json.dumps(row))
        return task.load(str(tmp_path / "rows.jsonl"))[0]

    two, ten = load(["eel", "whale"], 1), load([f"fish {i}" for i in range(10)], "H")
    assert two.choices == ("A", "B") and two.turns[0].endswith("Which?\nA. eel\nB. whale")
    assert ten.choices[-1] == "J" and ten.turns[0].endswith("\nJ. fish 9")
    assert ten.reference == {"answer": "H", "choices": [f"fish {i}" for i in range(10)]}
    assert task.score(ten, ["I think that it is H."]) == {"accuracy": 1}
    assert task.score(two, ["The answer is B."]) == {"accuracy": 1} and task.extract(two, ["H."]) is None
    pair = ["eel", "whale"]
    refused = [(pair, 2, "'2' is none"), (pair, "C", "'C' is none"), (pair, -1, "'-1' is none"), (["eel"], 0, "1 ch")]
    for choices, answer, said in refused:
        with pytest.raises(UserError, match=rf"rows\.jsonl:1: .*{said}"):
            load(choices, answer)


@pytest.mark.parametrize(
    ("solution", "response", "boxed"),
    [
        ("It is $\\boxed{12}$.", "First \\boxed{7}, then \\boxed{12}.", 1),
        ("It is $\\boxed{12}$.", "\\boxed{7} or \\boxed{12}", 1),
        ("It is $\\boxed{12}$.", "\\boxed{12}, then \\boxed{7}", 0),
        ("It is $\\boxed{12}$.", "\\boxed{12}, and \\boxed{1", 1),
        ("First $\\boxed{7}$, but then $\\boxed{\\frac{12}{5}}$.", "$\\boxed{2.4}$", 1),
        ("First $\\boxed{7}$, but then $\\boxed{\\frac{12}{5}}$.", "\\boxed{7}", 0),
        ("It is $\\boxed 8$.", "It is $\\boxed 8$.", 1),
        ("$\\boxed{3, 4}$", "\\boxed{5}, \\boxed{3, 4}", 1),
        ("$\\boxed{\\{3, 4\\}}$", "\\boxed{\\{4, 3\\}}", 1),
    ],
)
def test_the_last_box_of_a_proof_counts(solution, response, boxed):
    pytest.importorskip("math_verify")
    question = Question("math/0", ("q",), {"solution": solution})
    assert find_task("math")[0].score(question, [response])["boxed"] == boxed


def word_problem(folder, answer):
    """The question that ASDiv's loader makes of a row with this answer."""
    row = {"body": "b", "question": "q", "answer": answer}
    (folder / "rows.jsonl").write_text(json.dumps(row))
    (question,) = find_task("asdiv")[0].load(str(folder / "rows.jsonl"))
    return question


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("5/8", ("#### 5/8", "It is 0.625.", "\\boxed{\\frac{5}{8}}", "10/16"), ("#### 5", "8", "5:8")),
        ("-(2/3)", ("#### -2/3", "\u22122/3", "$-\\frac{2}{3}$"), ("2/3", "#### -2")),
        (
            "11:4",
            ("#### 11:4", "It is 11 : 4.", "11∶4", "The ratio is 11 to 4", "11/4", "$\\frac{11}{4}$"),
            ("#### 11", "#### 4:11", "4", "11:40", "2.75", "1:4"),
        ),
        ("4:45", ("#### 4:45", "at 4:45 p.m.", "04:45"), ("#### 4", "4:54", "45", "4:45:10")),
        (
            "4:45 p.m.",
            ("#### 4:45 PM", "at 4:45pm.", "4:45", "#### 16:45"),
            ("#### 4:45 a.m.", "#### 15:45", "5:45 p.m.", "#### 4"),
        ),
        ("8:02:30 a.m.", ("#### 8:02:30", "8:02:30 am"), ("8:02", "8:02:31", "8:02:30 pm")),
        (
            "3 (hours); 20 (minutes)",
            ("3 hours and 20 minutes", "#### 3 hours 20 min", "#### 3; 20", "3:20"),
            ("#### 3", "20 minutes", "20 hours and 3 minutes", "#### 3\n#### 20 of 7"),
        ),
        (
            "21; 22; 23",
            ("#### 21,22,23", "They are 21, 22 and 23.", "x = 21, y = 22, z = 23"),
            ("21 and 22", "#### 22", "21, 22 and 24", "23"),
        ),
        ("1,250 (dollars); 2.5 (dollars)", ("$1,250 and $2.50", "#### 1250, 2.5"), ("#### 1250", "1250 and 2")),
        ("9 (apples)", ("#### 9", "9 apples"), ("9:2", "90")),
    ],
)
def test_ratios_times_and_pairs(tmp_path, gold, right, wrong):
    question = word_problem(tmp_path, gold)
    score = find_task("asdiv")[0].score
    assert {text: score(question, [text])["flexible"] for text in right} == dict.fromkeys(right, 1)
    assert {text: score(question, [text])["flexible"] for text in wrong} == dict.fromkeys(wrong, 0)
    assert all(score(question, [text])["strict"] == text.startswith("####") for text in right)


def test_pairs_are_voted_on_whole(tmp_path):
    question = word_problem(tmp_path, "3 (hours); 20 (minutes)")
    task = find_task("asdiv")[0]
    samples = [["#### 4 h 20"], ["#### 4 h 20"], ["3 hours 20"], ["3:20"], ["#### 3 h 20 min"]]
    pooled = task.pool(question, samples, [task.score(question, turns) for turns in samples])
    assert pooled == {"strict": 0.2, "flexible": 0.6, "majority": 1}
    assert [task.extract(question, turns) for turns in samples[1:3]] == [(4, 20), (3, 20)]


def test_answers_of_lm_eval_find_their_rows_where_some_are_left_out(tmp_path, capsys):
    answers = ("Ann", "4 (pens)", "Yes", "6 (pens)", "Bob")
    rows = [{"body": "b", "question": "q", "answer": answer} for answer in answers]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stored = [{"doc_id": i, "resps": [[answer]], "filter": f} for f in "ab" for i, answer in enumerate(answers)]
    (tmp_path / "stored.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stored))
    config = EvaluationConfig(data={"asdiv": str(tmp_path / "rows.jsonl")})
    record = runner.score_responses("asdiv", epath.Path(tmp_path / "stored.jsonl"), config)
    assert {id: verdict["flexible"] for id, verdict in record["verdicts"].items()} == {"asdiv/1": 1, "asdiv/3": 1}
    assert record["missing"] == [] and "3 answers are to rows that the benchmark leaves out" in capsys.readouterr().err
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "#### 4"}')
    config = EvaluationConfig(data={"gsm8k": str(tmp_path / "rows.jsonl")})
    with pytest.raises(UserError, match="no question 'doc_id 1'"):  # nothing is left out of this one
        runner.score_responses("gsm8k", epath.Path(tmp_path / "stored.jsonl"), config)


def test_a_gsm8k_row_without_a_number_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "2 + 3 is 5, or 6\\n#### none"}')
    with pytest.raises(UserError, match=r"rows\.jsonl:1: the answer ends in no `#### number`"):
        find_task("gsm8k")[0].load(str(tmp_path / "rows.jsonl"))
