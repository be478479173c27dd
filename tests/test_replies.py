"""How replies are read: the letter of a choice, the number of a word problem, the answer behind reasoning.

Expected values are what a reader takes each reply to say.
"""

import json
import time

import pytest
from etils import epath

from sftmix_jax.evaluation import choices, replies, runner
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.evaluation.task import Program, Question, find_task

TEXTS = ("trout", "eel", "whale", "shark")


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B is correct because A is wrong", "B"),
        ("A is incorrect. B is correct.", "B"),
        ("So B.", "B"),
        ("Option (b)", "B"),
        ("答案是B", "B"),
        ("答案：B", "B"),
        ("答案为 (B)。", "B"),
        ("The answer is A dog", None),
        ("The answer is A trout", "A"),
        ("The answer is A whale", "C"),
        ("The answer is A. A trout has gills.", "A"),
        ("B\n\nQuestion: Which is a fish?\nA. x\nB. y\nAnswer: C", "B"),
        (" B\nQuestion: 2\nAnswer: A", "B"),
        ("The answer is B.\n\nQ: And now?\nA: The answer is D.", "B"),
        ("B\n\nA multiple-choice question about x. Answer with one letter.\n\nWhat?\nA. 1\nB. 2", "B"),
        ("Option B is correct.", "B"),
        ("(B) is the right answer, not (A).", "B"),
        ("I choose B", "B"),
        ("Therefore, the correct option is (D) shark.", "D"),
        ("The correct answer is:\n\n**B. eel**", "B"),
        ("The correct answer is not A but D.", "D"),
        ("A is wrong, C is wrong, D is wrong.", None),
        ("A is wrong. C is wrong. D is wrong. That leaves B.", "B"),
        ("La respuesta correcta es (B)", "B"),
        ("Die Antwort ist B", "B"),
        ("La réponse est B.", "B"),
        ("정답은 B", "B"),
        ("选B", "B"),
        ("Let's think step by step. Statement A is true of fish. The answer is (C).", "C"),
        ("Answer: C\nExplanation: A is a fish, B is a fish.", "C"),
        ("C\nExplanation: the answer is C because A is not", "C"),
        ("Vitamin C's role is not clear.", None),
        ("I think the answer is B", "B"),
        ("I believe it is D.", "D"),
        ("The answer is either A or C.", None),
        ("Both A and B are correct.", None),
        ("It's B, not A.", "B"),
        ("B, because A is a fish", "B"),
        ("A dog is an animal. The answer is D.", "D"),
        ("**Answer: (D)** shark", "D"),
        ("The final answer is: $\\boxed{B}$", "B"),
        ("\\boxed{B. eel}", "B"),
        ("\\boxed{eel}", "B"),
        ("The whale is a mammal, so the whale.", "C"),
        ("All but the trout, the eel, and the shark", None),
        ("I. think", None),
        ("The answer is shark. ", "D"),
        ("Answer: d", "D"),
        ("answer is d.", "D"),
        ("<B>", "B"),
        ("[B]", "B"),
        ('"B"', "B"),
        ("B - eel", "B"),
        ("B: eel", "B"),
        ('{"answer": "B"}', "B"),
        ("The answer is b", "B"),
        ("Answer: b\nBecause it swims", "B"),
        ("Correct answer: Option C: whale", "C"),
        ("The answer to this question is D", "D"),
        ("The answer to the question about A is D.", "D"),
        ("A: no. B: no. C: yes. D: no.", "C"),
        ("The answer is 'B'.", "B"),
        ("'B'", "B"),
        ("It's D", "D"),
        ("Answer: I'd say C", "C"),
        ("C, obviously", "C"),
        ("Of the given options, option C, whale, is the mammal.", "C"),
        ("Answer is (C) since (A), (B) and (D) are fish", "C"),
        ("My answer would be C", "C"),
        ("the correct choice here would be C.", "C"),
        ("Hence, (C).", "C"),
        ("C is true", "C"),
        ("## Answer\nC", "C"),
        ("A) trout is wrong. B) eel is correct.", "B"),
        ('B. "eel" is right, and C. whale is not', "B"),
        ("The answer is A, B", None),
        ("Answer: A, C.", None),
        ("The answer is A/B", None),
        ("The answer is B, I think", "B"),
        ("The answer isn't B. It's C.", "C"),
        ("A is correct. Wait, no. C is correct.", "C"),
    ],
)
def test_a_reply_gives_a_letter(reply, letter):
    assert choices.letter(reply, "ABCD", TEXTS) == letter


def test_texts_of_choices_decide_where_letters_do_not():
    for reply in ("whale", "A whale", "The answer is a whale", "The answer is A whale", "It is the Whale."):
        assert choices.letter(reply, "ABCD") is None
        assert choices.letter(reply, "ABCD", TEXTS) == "C"
    assert choices.letter("A dog", "AB", ("dog", "cat")) == "A"
    assert choices.letter("The answer is 40", "ABCD", ("4", "40", "400", "-40")) == "B"
    assert choices.letter("4 or 40", "ABCD", ("4", "40", "400", "-40")) is None
    assert choices.letter("It is not a whale.", "ABCD", TEXTS) is None
    assert choices.letter("blue whales", "AB", ("whales", "blue whales")) == "B"


@pytest.mark.parametrize("piece", ["the answer ", "not A but ", "A is ", "(a) or ", "答案 ", "A. x\n", "is the "])
def test_long_replies_are_read_in_time(piece):
    began = time.monotonic()
    choices.letter(piece * 5000, "ABCD", TEXTS)
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("response", "gold", "strict", "flexible"),
    [
        ("**Final Answer:** 18\n\n---\n\nNote: 16 - 3 - 4 = 9.", 18, 0, 1),
        ("The final answer is 9 * 2 = $18. 7", 7, 0, 1),
        ("### Final Answer\n\n18 eggs\n\nSee 5", 18, 0, 1),
        ("The final answer has 2 parts: 18", 18, 0, 1),
        ("The answer is - 5", -5, 0, 1),
        ("\\boxed{- 5}", -5, 0, 1),
        ("#### - 5", -5, 1, 1),
        ("x = - 5", -5, 0, 1),
        ("$- 5$", -5, 0, 1),
        ("Answer: - 5", -5, 0, 1),
        ("**Answer:** - 5", -5, 0, 1),
        ("The answer is **- 5**", -5, 0, 1),
        ("- 5 apples\n- 6 pens", 6, 0, 1),
        ("10 - 5", 5, 0, 1),
        ("from 10 to $15 - $5", 5, 0, 1),
        ("He made $70k.", 70000, 0, 1),
        ("70K", 70000, 0, 1),
        ("$70k profit", 70, 0, 1),
        ("#### $70k", 70000, 1, 1),
        ("$1.5M", 1500000, 0, 1),
        ("5m of rope", 5, 0, 1),
        ("$70k\n", 70000, 0, 1),
        ("The answer is 18\n\n1. Note that eggs are sold\n2. And that is all", 18, 0, 1),
        ("1. 3 eggs\n2. 18 eggs", 18, 0, 1),
        ("18\n\n1. Note …", 18, 0, 1),
        ("1. apples", 1, 0, 1),
        ("1. Add 3 and 4: 7\n2. Double: 14", 14, 0, 1),
        ("It takes 120 minutes (2 hours).", 120, 0, 1),
        ("It takes 120 minutes (2 hours).", 2, 0, 1),
        ("It takes 2 hours (120 minutes)", 120, 0, 1),
        ("150 minutes (2 hours and 30 minutes)", 150, 0, 1),
        ("3 boxes (18 eggs)", 18, 0, 1),
        ("18 (16 + 2)", 18, 0, 1),
        ("\\boxed{120 \\text{ minutes (2 hours)}}", 120, 0, 1),
        ("so f(2)", 2, 0, 1),
        ("18 eggs. Then he went to sleep early today (7 pm)", 18, 0, 0),
        ("The answer is 18.\n\nQuestion: Tom has 5 apples and 3 pears?\nAnswer: 5+3=8 #### 8", 18, 0, 1),
        ("Question: restated 5?\nAnswer: 18", 18, 0, 1),
        ("Question 1: How many? 5\nQuestion 2: How many then? 18", 18, 0, 1),
        ("It is 18.\nQuestion 2: Tom has 5", 18, 0, 1),
        ("Let's see.\nQuestion 1: a? 5\nQuestion 2: b? 18", 18, 0, 1),
    ],
)
def test_the_number_of_a_response(response, gold, strict, flexible):
    verdict = find_task("gsm8k")[0].score(Question("gsm8k/0", ("q",), {"answer": float(gold)}), [response])
    assert (verdict["strict"], verdict["flexible"]) == (strict, flexible)


def test_reasoning_is_no_part_of_an_answer():
    assert replies.without_reasoning("<think>\n#### 7\n</think>\n\n#### 18") == "#### 18"
    assert replies.without_reasoning("8 or 9 </think>18") == "18"  # the prompt has opened it
    assert replies.without_reasoning("<think>18") == "<think>18"
    program = Program("a = '</think>'")
    assert replies.without_reasoning(program) is program


def test_stored_answers_with_reasoning_are_scored_by_what_follows_it(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "q", "answer": "#### 18"}\n')
    said = "<think>First #### 7. Then \\boxed{8}.</think>It is 18."
    (tmp_path / "r.jsonl").write_text(json.dumps({"id": 0, "response": said}))
    config = EvaluationConfig(data={"gsm8k": str(tmp_path / "q.jsonl")})
    record = runner.score_responses("gsm8k", epath.Path(tmp_path / "r.jsonl"), config, out=epath.Path(tmp_path / "out"))
    assert record["verdicts"]["gsm8k/0"] == {"strict": 0, "flexible": 1, "majority": 1}
    (row,) = map(json.loads, (tmp_path / "out" / "responses.jsonl").read_text().splitlines())
    assert row["response"] == said and row["extracted"] == [18]
