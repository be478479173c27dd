"""Stored outputs of other systems: every response in a file is scored, or refused by its place."""

import gzip
import json
import re

import pytest
from conftest import ROOT, call, run
from etils import epath

import sftmix_jax.evaluate as evaluate
from sftmix_jax.data.readers import json_values
from sftmix_jax.evaluation import judging, layouts, runner
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.evaluation.lookup import Lookup, Unusable
from sftmix_jax.evaluation.task import Question, find_task
from sftmix_jax.machine import options
from sftmix_jax.machine.errors import UserError

LIMIT = 4
TINY = EvaluationConfig(data={"tiny_math": f"tiny:{LIMIT}"})
HALF = "\ud83d"  # of a pair of surrogates, as text cut in the middle of a character holds it


def write(file, text):
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return epath.Path(file)


def said(path, task="tiny_math", config=TINY, **options):
    """What is stored of each question once the file is scored."""
    out = path.parent / "out"
    runner.score_responses(task, epath.Path(path), config, None, epath.Path(out), **options)
    rows = [json.loads(line) for line in (out / "responses.jsonl").read_bytes().split(b"\n") if line]
    return {row["id"]: row.get("samples", row.get("response")) for row in rows}


ROWS = [{"id": f"tiny_math/{i}", "response": text} for i, text in enumerate(("a\u2028b\u2029\x85c", "#### 7", "λ"))]
WANTED = {row["id"]: row["response"] for row in ROWS} | {"tiny_math/3": []}
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("plain.jsonl", LINES.encode()),
        ("mark.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        ("windows.jsonl", b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode()),
        ("utf16.jsonl", LINES.encode("utf-16")),
        ("big_endian.jsonl", b"\xfe\xff" + LINES.encode("utf-16-be")),
        ("utf32.jsonl", LINES.encode("utf-32")),
        ("packed.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("packed_utf16.jsonl.gz", gzip.compress(LINES.encode("utf-16"), mtime=0)),
        ("list.json", json.dumps(ROWS, ensure_ascii=False).encode()),
        ("indented.json", json.dumps(ROWS, ensure_ascii=False, indent=1).encode("utf-16")),
        ("blank_lines.jsonl", b"\n" + LINES.replace("\n", "\n \n").encode()),
    ],
)
def test_one_set_of_responses_in_every_encoding(tmp_path, name, data):
    assert said(write(tmp_path / name, data)) == WANTED


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("latin.jsonl", b'{"id": 0, "response": "caf\xe9"}\n', r"latin\.jsonl:1: not UTF-8 \(byte 0xe9\)"),
        ("odd.jsonl", b"\xff\xfea", r"odd\.jsonl: its mark says utf-16, but it is not"),
        ("cut.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-12], r"gz:\d+: the file cannot be read from here on"),
        ("twice.jsonl", '{"id": "tiny_math/0", "response": "1", "response": "2"}', "the key 'response' stands twice"),
        ("deep.jsonl", "[" * 100_000, r"deep\.jsonl:1: must be JSON that is not nested so deeply"),
        ("open.json", '[\n{"id": "tiny_math/0", "response": "1"},\n{"id"', r"open\.json: must be JSON \(.*line 3"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, data, message):
    with pytest.raises(UserError, match=message):
        said(write(tmp_path / name, data))
    with pytest.raises(UserError, match="no file"):
        list(json_values(epath.Path(tmp_path / "missing.jsonl"), ""))
    with pytest.raises(UserError, match="is a folder"):
        list(json_values(epath.Path(tmp_path), ""))


def test_half_a_surrogate_pair_is_kept_and_printed(tmp_path):
    """It is read, scored, stored, shown and put to a judge; no encoding can write it as it is."""
    file = write(tmp_path / "r.jsonl", f'{{"id": "tiny_math/0", "response": "{ascii(HALF)[1:-1]} #### 7"}}\n')
    assert said(file)["tiny_math/0"] == f"{HALF} #### 7"
    write(tmp_path / "u.jsonl", f'{{"id": "{ascii(HALF)[1:-1]}", "response": "7"}}\n')
    ended = run("sftmix_jax.evaluate", "--task", "tiny_math", "--data", "tiny:4", "--responses", f"{tmp_path}/u.jsonl")
    assert ended.returncode == 2 and "u.jsonl:1: no question '\\ud83d'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert judging.delimited("[The Start of A]", [HALF]) != judging.delimited("[The Start of A]", [""])


@pytest.mark.parametrize("id", ["tiny_math/0", "0", 0, 0.0, ["tiny_math", 0], ["tiny_math/0"], ["tiny_math", "0"], [0]])
def test_an_id_is_a_number_a_text_or_a_list(tmp_path, id):
    for row in (
        {"id": id, "response": "a"},
        {"question_id": id, "choices": [{"turns": ["a"]}]},
        {"task_id": id, "completion": "a"},
    ):
        assert said(write(tmp_path / "r.jsonl", json.dumps(row)))["tiny_math/0"] == "a"


@pytest.mark.parametrize("id", [None, True, False, 0.5, {"n": 0}, [], [[0]], [None]])
def test_what_is_no_id_is_refused_by_its_line(tmp_path, id):
    for row in ({"id": id, "response": "a"}, {"task_id": id, "completion": "a"}, {"doc_id": id, "resps": [["a"]]}):
        with pytest.raises(UserError, match=r"r\.jsonl:1: (an id must be)"):
            said(write(tmp_path / "r.jsonl", json.dumps(row)))


def test_an_unknown_id_prints_the_three_nearest_and_the_count(tmp_path):
    rows = [{"question": f"q{i}", "answer": "#### 1"} for i in range(1319)]
    config = EvaluationConfig(data={"gsm8k": str(write(tmp_path / "g.jsonl", "\n".join(map(json.dumps, rows))))})
    for id in ("gsm8k/1319", 1319, "gsm8k-5", "nothing like it", ""):
        with pytest.raises(UserError, match=r"r\.jsonl:1: no question '.*did you mean .*1,319 known") as refused:
            said(write(tmp_path / "r.jsonl", json.dumps({"id": id, "response": "a"})), "gsm8k", config)
        assert str(refused.value).count("'gsm8k/") == 3 + (id == "gsm8k/1319")
    with pytest.raises(UserError, match=r"r\.jsonl:1: no question 'doc_id 1319' in this .* 0 to 1318"):
        said(write(tmp_path / "r.jsonl", json.dumps({"doc_id": 1319, "resps": [["a"]]})), "gsm8k", config)


def test_the_end_of_an_id_that_several_questions_have_is_refused():
    asked = Lookup([Question(f"perplexity/{domain}/0", ("q",), {}) for domain in ("math", "code")])
    with pytest.raises(Unusable, match="'0' names 2 questions, as 'perplexity/math/0' and 'perplexity/code/0'"):
        asked.by_id(0)
    assert asked.by_id(["perplexity", "code", 0]) == "perplexity/code/0"


@pytest.mark.parametrize(
    "row",
    [
        {"id": 0, "samples": []},
        {"id": 0, "response": []},
        {"id": 0, "response": None},
        {"id": 0, "samples": [[]]},
        {"question_id": 0, "choices": []},
        {"question_id": 0, "choices": [{"turns": []}]},
        {"doc_id": 0, "resps": [[]]},
        {"id": 0, "samples": ["a", 1]},
        {"id": 0, "response": ["a", "b"]},
        {"task_id": 0, "completion": None},
    ],
)
def test_a_row_without_a_response_is_refused(tmp_path, row):
    with pytest.raises(UserError, match=r"r\.jsonl:1: (response must be text|holds no response to 'tiny_math/0')"):
        said(write(tmp_path / "r.jsonl", json.dumps(row)))


def test_answers_to_rows_that_a_benchmark_leaves_out_are_named(tmp_path, capsys):
    rows = [{"Question": "q", "Body": "b", "Answer": a, "question": "b q", "answer": a} for a in ("5", "green", "7")]
    task, _ = find_task("asdiv")
    data = write(tmp_path / "a.jsonl", "\n".join(json.dumps({"body": "b", "question": "q", **row}) for row in rows))
    assert [question.id for question in task.load(str(data))] == ["asdiv/0", "asdiv/2"]
    lines = [json.dumps({"doc_id": i, "resps": [["#### 7"]]}) for i in (0, 1, 1, 2)]
    found = said(write(tmp_path / "r.jsonl", "\n".join(lines)), "asdiv", EvaluationConfig(data={"asdiv": str(data)}))
    assert found == {"asdiv/0": "#### 7", "asdiv/2": "#### 7"}
    assert "r.jsonl: 1 answers are to rows that the benchmark leaves out: 1\n" in capsys.readouterr().err


PROMPT = 'def double(n):\n    """Twice n."""\n'
BODY = "    return 2 * n\n"
WRONG = "    return n\n"


def humaneval(tmp_path, count=3):
    rows = [
        {
            "task_id": f"T/{i}",
            "prompt": PROMPT,
            "entry_point": "double",
            "test": "def check(candidate):\n    assert candidate(2) == 4\n",
        }
        for i in range(count)
    ]
    return EvaluationConfig(data={"humaneval": str(write(tmp_path / "b.jsonl", "\n".join(map(json.dumps, rows))))})


def result(text, **more):
    return {"task_id": "other", "solution": text, "base_status": "pass", "plus_status": "fail"} | more


@pytest.mark.parametrize(
    "content",
    [
        # as EvalPlus, bigcode's harness and lm-eval write them
        {
            "date": "d",
            "hash": "h",
            "pass_at_k": {},
            "eval": {
                "T/0": [result(PROMPT + BODY, task_id="T/0"), result(PROMPT + WRONG, task_id="T/0")],
                "T/1": [
                    result(PROMPT + WRONG, task_id="T/1"),
                    result("def double(n):\n    return n + n", task_id="T/1"),
                ],
            },
        },
        [[PROMPT + BODY, PROMPT + WRONG], [PROMPT + WRONG, "def double(n):\n    return n + n"]],
        [
            {"doc_id": i, "doc": {}, "resps": [["x", "y"]], "filter": "create_test", "filtered_resps": [texts]}
            for i, texts in enumerate(([PROMPT + BODY, PROMPT + WRONG], [PROMPT + WRONG, PROMPT + BODY]))
        ],
        [
            {"task_id": id, "completion": text}
            for id, text in (("T/0", BODY), ("T/1", WRONG), ("T/0", WRONG), ("T/1", BODY))
        ],
        [{"id": 0, "samples": [PROMPT + BODY, WRONG]}, {"id": 1, "samples": [WRONG, BODY]}],
        [
            {"question_id": i, "choices": [{"index": 0, "turns": [a]}, {"index": 1, "turns": [b]}]}
            for i, (a, b) in enumerate(((BODY, WRONG), (WRONG, BODY)))
        ],
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_every_layout_gives_the_same_score(tmp_path, content, indent):
    """Half of the samples of two questions pass; the third question has none."""
    file = write(tmp_path / "r.json", json.dumps(content, indent=indent))
    record = runner.score_responses("humaneval", file, humaneval(tmp_path))
    scores = {id: verdict["pass@1"] for id, verdict in record["verdicts"].items()}
    assert scores == {"T/0": 0.5, "T/1": 0.5, "T/2": 0.0} and record["missing"] == ["T/2"]


def test_whole_programs_of_other_harnesses_run_as_they_stand(tmp_path):
    """A text of a model would be cut behind the function, so that its last line would not run."""
    text = PROMPT + BODY + "\nraise RuntimeError('run')\n"
    for content in ([[text]], {"eval": {"T/0": [result(text, task_id="T/0")]}}, {"task_id": 0, "solution": text}):
        record = runner.score_responses(
            "humaneval", write(tmp_path / "r.json", json.dumps(content)), humaneval(tmp_path, 1)
        )
        assert record["failures"] == {"RuntimeError": 1}
    record = runner.score_responses(
        "humaneval", write(tmp_path / "r.json", json.dumps({"id": 0, "response": text})), humaneval(tmp_path, 1)
    )
    assert record["verdicts"]["T/0"]["pass@1"] == 1


LAYOUTS = (
    "ours {id, response or samples}",
    "FastChat {question_id, choices}",
    "EvalPlus {task_id, solution or completion}",
    "lm-eval {doc_id, resps}",
    "EvalPlus' results {eval: {task_id: [{solution}]}}",
    "bigcode's generations [[text, …], …]",
)


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        ({"idx": 0, "code": ["a"]}, ":1", "its fields are idx, code"),
        ({"id": 0}, ":1", "its fields are id"),
        ({}, ":1", "its fields are none"),
        (5, ":1", "this is no object"),
        (["a", "b"], r"\[0\]", "this is no object"),
        ([{"id": 0, "response": "a"}, None], r"\[1\]", "this is no object"),
        ({"eval": {"T/0": {"nfiles": 1, "base": [["success", []]]}}}, r":1: T/0\[0\]", "its fields are task_id, nf"),
        ({"eval": {"T/0": [{"solution": "a"}, {"base": "pass"}]}}, r":1: T/0\[1\]", "its fields are task_id, ba"),
    ],
)
def test_a_row_in_no_layout_names_those_that_can_be_read(tmp_path, content, place, reason):
    with pytest.raises(UserError, match=rf"r\.json{place}: must be a row in a known layout, but {reason}") as refused:
        runner.score_responses("humaneval", write(tmp_path / "r.json", json.dumps(content)), humaneval(tmp_path))
    assert all(layout in str(refused.value) for layout in LAYOUTS) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([["a"], ["a"], ["a"], ["a"]], r"\[0\]: the file holds generations for 4 questions, and this benchmark has 3"),
        ({"eval": {"T/0": []}}, "T/0: holds no results; leave T/0 out, it then counts as missing"),
        ([["a"], []], r"\[1\]: holds no response to 'T/1'"),
        ([["a", 5]], r"\[0\]: response must be text"),
        ([[["a", "b"]]], r"\[0\]: response must be text"),
        ({"eval": {"U/9": [{"solution": "a"}]}}, r":1: U/9\[0\]: no question 'U/9' .*3 known"),
        ({"eval": {"T/0": [{"solution": None}]}}, r":1: T/0\[0\]: response must be text"),
        ({"id": 0, "response": "a", "samples": ["a"]}, "has a 'response' and 'samples'"),
        ({"id": 0, "response": "a", "task_id": "T/0", "completion": "b"}, r"several layouts \(ours, EvalPlus\)"),
        ({"id": 0, "samples": "a"}, "its 'samples' must be a list"),
        ({"question_id": 0, "choices": [{"index": 0}]}, "each of its 'choices' must be"),
        ({"doc_id": 0, "resps": [[["-1.5", "False"]], [["-2.5", "False"]]]}, "its 'resps' hold 2 requests"),
        ([[{"code": "a"}]], r"\[0\]: its generations must be texts; --columns names the fields of objects"),
        ({"doc_id": 0, "resps": ["a"]}, r"its 'resps' must be a list of lists, \[\[text\]\]"),
        ({"eval": {"T/0": ["a"]}}, r"T/0\[0\]: must be a row in a known layout, but this is no object"),
        ({"doc_id": 0, "resps": "a"}, "its 'resps' must be a list"),
        ({"doc_id": 0, "resps": [["a"]], "filtered_resps": [None]}, "response must be text"),
        ([{"doc_id": 0, "resps": [["a"]]}, {"doc_id": 0, "resps": [["b"]]}], r"\[1\]: a second response to 'T/0'"),
    ],
)
def test_no_response_is_dropped(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        runner.score_responses("humaneval", write(tmp_path / "r.json", json.dumps(content)), humaneval(tmp_path))


def test_the_documented_rows_can_be_read(tmp_path):
    """Each row of the table in docs/stored_outputs.md, as it stands there."""
    table = (ROOT / "docs" / "stored_outputs.md").read_text().partition("## Layouts")[2].partition("\n\n|")[2]
    rows = [line.split("|") for line in table.partition("\n\n")[0].splitlines()[2:]]
    texts = [text for *_, cell, _ in rows for text in re.findall(r"`([{\[].*?[}\]])`", cell)]
    shown = [json.loads(text.replace(", …", "")) for text in texts]
    asked = Lookup([Question(id, ("q", "q"), {}) for id in ("gsm8k/0", "HumanEval/0", "mt_bench/81")])
    assert len(rows) == 6 and len(shown) == 7
    for number, value in enumerate(shown):
        file = write(tmp_path / f"{number}.json", json.dumps(value))
        assert [layouts.read(row, asked, True).samples for _, row in layouts.rows(file, "")]


ABEL = [
    {
        "id": i,
        "prompt": f"Question:\n{question}\nAnswer:\nLet's think step by step.\n",
        "response": f"#### {answer}",
        "pred": str(answer),
        "gold": "0",
        "result": False,
    }
    for i, (question, answer) in enumerate((("How many  eggs\nare there?", 5), ("How many eggs are there? Two?", 7)))
]
TORA = [
    {
        "idx": i,
        "question": row["prompt"][10:].partition("\nAnswer")[0],
        "gt": row["pred"],
        "report": [None, None],
        "code": [f"```output\n3\n```\n$\\boxed{{{row['pred']}}}$", "none"],
        "pred": [row["pred"], ""],
    }
    for i, row in enumerate(ABEL)
]


def gsm8k(tmp_path):
    rows = [{"question": row["question"].replace("\n", " "), "answer": f"#### {row['gt']}"} for row in TORA]
    rows += [{"question": "Asked twice?", "answer": f"#### {i}"} for i in (1, 2)]
    return EvaluationConfig(data={"gsm8k": str(write(tmp_path / "g.jsonl", "\n".join(map(json.dumps, rows))))})


@pytest.mark.parametrize(
    ("rows", "named", "right"),
    [
        (ABEL, "", 1.0),
        (ABEL, "id=id,response=response", 1.0),
        (ABEL, "question=prompt,answer=response", 1.0),
        (ABEL[::-1], "question=prompt,answer=pred", 1.0),
        (ABEL, "id=id,question=prompt,samples=response", 1.0),
        (TORA, "id=idx,samples=code", 0.5),
        (TORA[::-1], "question=question,samples=code", 0.5),
        (TORA, "id=idx,question=question,samples=pred", 0.5),
    ],
)
def test_fields_of_other_layouts_are_named(tmp_path, rows, named, right):
    file = write(tmp_path / "r.jsonl", "\n".join(map(json.dumps, rows)))
    ended = call(
        "evaluate",
        "--task",
        "gsm8k",
        "--data",
        gsm8k(tmp_path).data["gsm8k"],
        "--responses",
        str(file),
        "--json",
        *(["--columns", named] if named else []),
    )
    assert ended.returncode == 0, ended.stderr
    record = json.loads(ended.stdout)
    assert {id: scores["flexible"] for id, scores in record["verdicts"].items()} == {
        "gsm8k/0": right,
        "gsm8k/1": right,
        "gsm8k/2": 0,
        "gsm8k/3": 0,
    }
    assert record["missing"] == ["gsm8k/2", "gsm8k/3"]


def test_rows_with_samples_are_further_samples(tmp_path):
    rows = [{"n": n, "a": text} for n, text in ((0, "a"), (1, "b"), (0, ["c", "d"]))]
    named = layouts.columns("id=n,samples=a")
    found = said(write(tmp_path / "r.jsonl", json.dumps(rows)), "gsm8k", gsm8k(tmp_path), columns=named)
    assert found["gsm8k/0"] == ["a", "c", "d"] and found["gsm8k/1"] == "b"
    with pytest.raises(UserError, match=r"r\.jsonl\[2\]: a second response to 'gsm8k/0'"):
        said(
            write(tmp_path / "r.jsonl", json.dumps([*rows[:2], rows[0]])),
            "gsm8k",
            gsm8k(tmp_path),
            columns=layouts.columns("id=n,response=a"),
        )


def test_a_question_that_is_asked_twice_is_answered_in_turn(tmp_path):
    rows = [{"q": "Asked twice?", "a": text} for text in ("first", "second", "third")]
    named = layouts.columns("question=q,answer=a")
    found = said(write(tmp_path / "r.jsonl", json.dumps(rows[:2])), "gsm8k", gsm8k(tmp_path), columns=named)
    assert (found["gsm8k/2"], found["gsm8k/3"]) == ("first", "second")
    with pytest.raises(UserError, match=r"r\.jsonl\[2\]: a second response to 'gsm8k/3'"):
        said(write(tmp_path / "r.jsonl", json.dumps(rows)), "gsm8k", gsm8k(tmp_path), columns=named)


@pytest.mark.parametrize(
    ("row", "named", "message"),
    [
        ({"q": "How much?", "a": "1"}, "question=q,answer=a", r"no question .* reads 'How much\?'; .*'gsm8k/.*3 known"),
        ({"q": "How many eggs", "a": "1"}, "question=q,answer=a", "is of 2 questions, as 'gsm8k/0' and 'gsm8k/1'"),
        ({"q": TORA[1]["question"] + TORA[0]["question"], "a": "1"}, "question=q,answer=a", None),
        ({"q": TORA[1]["question"] + " Asked twice?", "a": "1"}, "question=q,answer=a", "is of 2 questions"),
        ({"q": " ", "a": "1"}, "question=q,answer=a", "a question must be text, not ' '"),
        ({"q": None, "a": "1"}, "question=q,answer=a", "a question must be text, not 'None'"),
        ({"n": 1, "q": TORA[0]["question"], "a": "1"}, "id=n,question=q,answer=a", "its id is that of 'gsm8k/1', and"),
        ({"n": 1, "b": "1"}, "id=n,answer=a", "has no field 'a', which --columns names; its fields are n, b"),
        (["1"], "id=n,answer=a", "must be an object with the fields that --columns names"),
        ({"n": 0, "a": ["1", "2"]}, "id=n,answer=a", "response must be text"),
        ({"n": 0, "a": None}, "id=n,samples=a", "response must be text"),
    ],
)
def test_a_row_that_named_fields_do_not_fit_is_refused(tmp_path, row, named, message):
    file = write(tmp_path / "r.jsonl", json.dumps([row]))
    if message is None:  # one question holds the other: the longer one was asked
        assert said(file, "gsm8k", gsm8k(tmp_path), columns=layouts.columns(named))["gsm8k/1"] == "1"
        return
    with pytest.raises(UserError, match=rf"r\.jsonl\[0\]: .*{message}"):
        said(file, "gsm8k", gsm8k(tmp_path), columns=layouts.columns(named))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("idd=n,answer=a", "no column 'idd'; did you mean 'id'"),
        ("id=n", "name the fields of id or question"),
        ("answer=a", "name the fields of id or question"),
        ("id=n,answer=a,samples=b", "of response or samples"),
        ("id=,answer=a", "write id=FIELD, once"),
        ("id=n,answer=a,response=b", "write response=FIELD, once"),
        ("id", "write id=FIELD"),
    ],
)
def test_wrong_columns_are_explained(named, message):
    with pytest.raises(UserError, match=message):
        layouts.columns(named)


def test_columns_belong_to_responses(tmp_path):
    ended = call("evaluate", "--task", "gsm8k", "--model", "m", "--columns", "id=n,answer=a")
    assert ended.returncode == 2 and "--columns name the fields of --responses" in ended.stderr


def test_a_field_named_eval_is_no_result_file(tmp_path):
    row = {"id": 0, "response": "a", "eval": {"bleu": 1}}
    assert said(write(tmp_path / "r.jsonl", json.dumps(row)))["tiny_math/0"] == "a"
    row = {"n": 0, "a": "b", "eval": {"bleu": 1}}
    named = layouts.columns("id=n,answer=a")
    assert said(write(tmp_path / "r.jsonl", json.dumps(row)), columns=named)["tiny_math/0"] == "b"


def test_results_and_generations_with_other_fields_are_read_by_their_names(tmp_path):
    results = {"eval": {"T/0": [{"text": "a"}, {"text": "b"}], "T/1": [{"text": "c"}]}}
    lists = [[{"n": 0, "text": "a"}, {"n": 0, "text": "b"}], [{"n": 1, "text": "c"}]]
    for content, named in ((results, "id=task_id,samples=text"), (lists, "id=n,samples=text")):
        file = write(tmp_path / "r.json", json.dumps(content))
        found = said(file, "humaneval", humaneval(tmp_path), columns=layouts.columns(named))
        assert found["T/0"] == ["a", "b"] and found["T/1"] == "c"


@pytest.mark.parametrize("row", [{"id": "a\nb" * 999, "response": ""}, {"a\nb": 0}, {"doc_id": "\n", "resps": [["a"]]}])
def test_an_error_is_one_short_line_whatever_the_row_holds(tmp_path, row):
    with pytest.raises(UserError, match=r"r\.jsonl:1: ") as refused:
        said(write(tmp_path / "r.jsonl", json.dumps(row)))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500 + len(str(tmp_path))


def test_a_file_without_a_response_is_refused(tmp_path):
    for text in ("", "\n \n", "[]"):
        (tmp_path / "empty.jsonl").write_text(text)
        with pytest.raises(UserError, match=r"empty\.jsonl: holds no response"):
            runner.score_responses("tiny_math", epath.Path(tmp_path / "empty.jsonl"), EvaluationConfig())


def test_samples_of_a_question_that_stands_there_twice_need_its_id():
    asked = Lookup([Question("t/0", ("q",), {}), Question("t/1", ("q",), {})])
    columns = layouts.columns("question=asked,samples=said")
    with pytest.raises(Unusable, match=r"under several ids \(t/0, t/1\)"):
        layouts.read({"asked": "q", "said": ["a"]}, asked, False, columns)
    columns = layouts.columns("question=asked,response=said")
    assert [layouts.read({"asked": "q", "said": "a"}, asked, False, columns).id for _ in range(2)] == ["t/0", "t/1"]


def test_options_that_nothing_would_read_are_refused(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"id": "tiny_math/0", "response": "1"}\n')
    file = str(tmp_path / "r.jsonl")
    for stored, other in (("--responses", "--workdir"), ("--responses", "--model"), ("--judgments", "--out")):
        ended = call("evaluate", "--task", "tiny_math", stored, file, other, str(tmp_path))
        assert ended.returncode == 2 and f"leave {other} out" in ended.stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.csv", b"id,response\n0,#### 18\n", "is no JSON, such as CSV or plain text (it begins with 'id,response')"),
        ("r.txt", b"The answer is 18.\n", "(it begins with 'The answer is 18.')"),
        ("r.jsonl", '{"id": 0}\n'.encode("utf-16-le"), "UTF-16LE without a byte order mark: iconv -f UTF-16LE"),
        ("r.jsonl", '{"id": 0}\n'.encode("utf-16-be"), "UTF-16BE without a byte order mark"),
        ("r.jsonl", '{"id": 0}\n'.encode("utf-32-le"), "UTF-32LE without a byte order mark"),
        ("r.jsonl", gzip.compress(b'{"id": 0}\n', mtime=0), "is packed by gzip: rename it to r.jsonl.gz"),
        ("r.zip", b"PK\x03\x04\0\0", "is a zip archive"),
    ],
)
def test_a_file_of_another_kind_is_named_with_the_layouts(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        list(layouts.rows(epath.Path(tmp_path / name), "x"))
    assert said in str(refused.value) and "known: ours {id, response or samples}" in str(refused.value)
    assert "docs/stored_outputs.md" in str(refused.value)


def test_numbers_in_named_columns_are_responses(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "q", "answer": "#### 18"}\n')
    config = EvaluationConfig(data={"gsm8k": str(tmp_path / "q.jsonl")})
    for value in (18, 18.0, [18], "18"):
        (tmp_path / "r.jsonl").write_text(json.dumps({"n": 0, "pred": value}))
        for ours in ("response", "samples"):
            file = epath.Path(tmp_path / "r.jsonl")
            found = runner.score_responses("gsm8k", file, config, columns={"id": "n", ours: "pred"})
            assert found["verdicts"]["gsm8k/0"]["flexible"] == 1
    for value in (None, True, {"a": 1}):
        (tmp_path / "r.jsonl").write_text(json.dumps({"n": 0, "pred": value}))
        with pytest.raises(UserError, match="response must be text"):
            file = epath.Path(tmp_path / "r.jsonl")
            runner.score_responses("gsm8k", file, config, columns={"id": "n", "response": "pred"})


@pytest.mark.parametrize("option", [("--samples", "4"), ("--temperature", "0.7"), ("--seed", "3"), ("--lm_eval", "x")])
def test_stored_responses_are_not_drawn_again(option):
    given = options.parse(evaluate.Options, ["--task", "tiny_math", "--responses", "r.jsonl", *option])
    with pytest.raises(UserError, match=rf"--responses asks no model; leave {option[0]} out"):
        evaluate.main(given)
