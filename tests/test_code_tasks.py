"""Code tasks: how answers are read, what crosses between an answer and its tests, and what is said of failures."""

import contextlib
import io
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, call
from etils import epath
from rich.console import Console

from sftmix_jax.analysis import responses
from sftmix_jax.evaluation import failures, programs, runner, sandbox
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.evaluation.task import Question, find_task
from sftmix_jax.machine.errors import UserError

HEAD = "from typing import List\n\n\ndef total(xs: List[int]) -> int:\n"
PROMPT = HEAD + '    """The sum.\n    >>> total([1])\n    1\n    """\n'
BODY = "    out = 0\n    for x in xs:\n        out += x\n    return out\n"
WHOLE = HEAD + BODY
TESTS = "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n\n\ncheck(total)\n"


def verdict(response, prompt=PROMPT, tests=TESTS):
    reference = {"prompt": prompt, "entry_point": "total", "tests": tests}
    return find_task("humaneval")[0].score(Question("x", ("q",), reference), [response])


RIGHT = {
    "a fence of tildes": f"~~~py\n{WHOLE}~~~\nDone.",
    "a closing fence alone": f"{WHOLE}```\nIt adds them up.",
    "a body and a closing fence": f"{BODY}```\n\nExplanation: it's a loop.",
    "a fence in a docstring": "```python\n"
    + WHOLE.replace("int:\n", 'int:\n    """\n```\ntotal([])\n```\n    """\n')
    + "```",
    "a fence within a list": "1. Write:\n\n   ```python\n"
    + "".join(f"   {line}\n" for line in WHOLE.split("\n"))
    + "   ```",
    "a closing fence behind the last line": f"```python\n{WHOLE.rstrip()}```\nDone.",
    "a closing fence behind the last line, and another block": f"```python\n{WHOLE.rstrip()}```\n```\ntotal([1])\n```",
    "a fence behind a line of a docstring": "```python\n"
    + WHOLE.replace("int:\n", 'int:\n    """As in x = 1```\n    """\n')
    + "```",
    "an end token behind the fence": f"```python\n{WHOLE}```<|im_end|>",
    "an end token behind a body": f"{BODY.rstrip()}</s><|endoftext|>\n",
    "an unclosed fence": f"```python\n{WHOLE}",
    "prose before and behind": f"Sure, here it is:\n\n{WHOLE}\nThis works because it's a sum.",
    "the future": f"```python\nfrom __future__ import annotations\n{WHOLE}```",
    "the future of a function that needs it": "```python\nfrom __future__ import annotations\n"
    "def total(xs: Unknown) -> int:\n    return sum(xs)\n```",
    "a lambda": "```python\ntotal = lambda xs: sum(xs)\n```",
    "an alias": "```python\ndef add(xs):\n    return sum(xs)\n\ntotal = add\n```",
    "a method": "```python\nclass Own:\n    def add(self, xs):\n        return sum(xs)\n\ntotal = Own().add\n```",
    "a table that is filled": "```python\nZERO = []\nZERO.append(0)\nfor i in range(3):\n    ZERO.append(i - i)\n"
    "def total(xs):\n    return sum(xs) + ZERO[3]\n```",
    "a decorated helper": "```python\nimport functools\n@functools.cache\ndef one(x):\n    return x\n"
    "def total(xs):\n    return sum(map(one, xs))\n```",
    "a main part": f"```python\n{WHOLE}\nif __name__ == '__main__':\n    total(int(input()))\n```",
    "a call that fails": f"```python\n{WHOLE}\nassert total([1]) == 2\nprint(total(input()))\n```",
    "a body that goes on": f"{BODY}\n\nprint(total([1, 2]))\n\ndef next_task(x):\n    if x == [1,",
    "a body, then the function once more": f"{BODY}\n\ndef total(xs):\n    return None\n",
    "Windows' lines": f"```python\n{WHOLE}```".replace("\n", "\r\n"),
    "a byte order mark": f"\ufeff```python\n{WHOLE}```",
}
WRONG = {
    "a method that nothing binds": (
        "```python\nclass Own:\n    def total(self, xs):\n        return sum(xs)\n```",
        "NameError",
    ),
    "a body without its indent": ("out = sum(xs)\nreturn out\n", "SyntaxError"),
    "a body with the first indent lost": ("for x in xs:\n        pass\n    return sum(xs)\n", "SyntaxError"),
    "prose alone": ("I would add them up.", "SyntaxError"),
    "nothing": ("  \n", "no answer"),
    "a wrong value": ("    return 4\n", "wrong value: AssertionError, at: assert candidate([1, 2]) == 3"),
    "a name of typing that it lacks": ("```python\ndef total(xs: Dict) -> int:\n    return sum(xs)\n```", "NameError"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_answers_are_read_as_the_reference_harnesses_read_them(name):
    found = verdict(RIGHT[name])
    assert found["pass@1"] == 1, found.reason


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_fail_with_their_reason(name):
    response, reason = WRONG[name]
    found = verdict(response)
    assert found["pass@1"] == 0 and found.reason.startswith(reason)


def test_a_prompt_may_have_no_docstring():
    assert verdict(BODY, HEAD)["pass@1"] == 1 and verdict(WHOLE, HEAD)["pass@1"] == 1
    assert verdict("    return 1\n", HEAD)["pass@1"] == 0


WANTED = "def incr(l):\n    return [e + 1 for e in l]\n"
ASKED = 'def incr(l):\n    """d"""\n'


def in_fence(code: str) -> str:
    return f"```python\n{code}```\n"


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        (ASKED, in_fence(WANTED) + "Use it:\n" + in_fence("from my_module import incr\n\nprint(incr([1]))\n")),
        (ASKED, in_fence(WANTED) + in_fence("import pytest\nfrom solution import incr\n\ndef test_a():\n    pass\n")),
        (ASKED, in_fence(WANTED) + "Its signature:\n" + in_fence("def incr(l: list) -> list: ...\n")),
        (ASKED, in_fence(WANTED) + in_fence("incr = incr\nresult = incr([1])\n")),
        (ASKED, in_fence(WANTED) + "Without a loop, which is wrong:\n" + in_fence("def incr(l): return l\n")),
        (ASKED, in_fence("def incr(l): return l\n") + "Better:\n" + in_fence(WANTED)),
        (ASKED, in_fence(WANTED) + "Or:\n" + in_fence("def incr(l):\n    return [e + 2 for e in l]\n")),
        (ASKED, "\x0c" + WANTED),
        (ASKED, '    """Return a list."""\n' + in_fence(WANTED)),
        (ASKED, "    pass\n\nHere is the implementation:\n" + in_fence(WANTED)),
        (ASKED, "    # Your code here\n\nHere:\n" + in_fence(WANTED)),
        (ASKED, "".join(f"    {line}\n" for line in WANTED.splitlines())),
        (ASKED, " " + WANTED),
        (ASKED, "\n\n " + WANTED),
        (ASKED.rstrip("\n"), WANTED),
        (ASKED.rstrip("\n"), " # Sure\n" + in_fence(WANTED)),
        ("Write incr which adds one to each.\n", in_fence(WANTED)),
        ("```python\n" + ASKED, in_fence(WANTED)),
        ("```python\n" + ASKED, "    return [e + 1 for e in l]\n```\n"),
    ],
)
def test_the_answer_is_the_code_that_defines_the_function(prompt, answer):
    """Not what imports it, shows its head or gives it its own value; nor a body without a statement."""
    space: dict = {}
    exec(programs.program(prompt, "incr", answer), space)
    assert space["incr"]([1, 2]) == [2, 3]


def test_answers_that_are_nested_deeply_or_hold_many_fences_are_read():
    """A sum of 1,000 terms, 1,000 branches of one `if`, and a block behind 400 fences without an end."""
    terms = "def f(l):\n    return " + " + ".join(["l"] * 1000)
    branches = "def f(l):\n    if l == 0:\n        return 0\n" + "".join(
        f"    elif l == {i}:\n        return {i}\n" for i in range(1000)
    )
    for code in (terms, branches):
        assert programs.program("def f(l):\n", "f", f"```python\n{code}\n```").strip() == code.strip()
    for endless in (" " * 50_000, "\n" * 50_000, "<|" * 20_000, "```x " * 5000, "    x" + " " * 50_000 + "```"):
        began = time.monotonic()
        programs.program("def f(l):\n", "f", f"```python\n{terms}\n```{endless}")
        assert time.monotonic() - began < 4
    assert programs.program("", "f", "```python\ndef f(:\n" + "say ```\n" * 25)
    fences = "```\n" * 400 + "```python\ndef f(l):\n    return l\n```"
    assert programs.program("def f(l):\n", "f", fences) == "def f(l):\n    return l\n"


def test_only_what_the_entry_point_reaches_is_run():
    code = "import math\nA = 1\nB = A + 1\nC = 3\ndef f(x):\n    return x + B\nprint(f(1))\ndef g():\n    return C\n"
    read = programs.program("", "f", f"```\n{code}```")
    assert read == "import math\nA = 1\nB = A + 1\ndef f(x):\n    return x + B\n"


CROSSING = {
    "an integer of many digits": ("return 7 ** 20000", "f() == 7 ** 20000"),
    "a range": ("return range(3)", "f() == range(3) and f()[-1] == 2"),
    "a map": ("return map(str, [1, 2])", "list(f()) == ['1', '2']"),
    "a map is no list": ("return map(str, [1, 2])", "f() != ['1', '2']"),
    "an endless generator": ("import itertools\nreturn itertools.count(3)", "[next(f()), next(f())] == [3, 3]"),
    "a generator is read once": (
        "return (x for x in 'abc')",
        "[(list(g), list(g)) for g in [f()]] == [([*'abc'], [])]",
    ),
    "views of a dict": (
        "return {1: 2}.keys(), {1: 2}.values(), {1: [2]}.items()",
        "f()[0] == {1} and list(f()[1]) == [2] and list(f()[2]) == [(1, [2])]",
    ),
    "a fraction and a decimal": (
        "import fractions, decimal\nreturn fractions.Fraction(1, 3), decimal.Decimal('1.10')",
        "f()[0] * 3 == 1 and str(f()[1]) == '1.10'",
    ),
    "a deque": ("import collections\nreturn collections.deque([1, 2], 2)", "f().maxlen == 2 and f()[1] == 2"),
    "a named tuple": (
        "import collections\nreturn collections.namedtuple('P', 'x y')(1, 2)",
        "f().y == 2 and f() == (1, 2)",
    ),
    "a default dict": (
        "import collections\nd = collections.defaultdict(list)\nd[1]\nreturn d",
        "f()[5] == [] and f() == {1: []}",
    ),
    "a counter": (
        "import collections\nreturn collections.Counter('aab')",
        "f().most_common(1) == [('a', 2)] and f()['z'] == 0",
    ),
    "dates": (
        "import datetime as d\nreturn d.date(2020, 2, 29), d.timedelta(1)",
        "(lambda d: f() == (d.date(2020, 2, 29), d.timedelta(days=1)))(__import__('datetime'))",
    ),
    "a numpy scalar": ("import numpy\nreturn numpy.float32(0.5), numpy.bool_(True)", "f() == (0.5, True)"),
    "a numpy array": (
        "import numpy\nreturn numpy.arange(6).reshape(2, 3)",
        "f().shape == (2, 3) and f()[1].tolist() == [3, 4, 5]",
    ),
    "a list within itself": ("a = [1]\na.append(a)\nreturn a", "f()[1][1][0] == 1"),
    "one list twice": ("a = []\nreturn [a, a]", "[x.append(1) or y for x, y in [f()]] == [[1]]"),
    "deep lists": ("a = []\nfor _ in range(3000): a = [a]\nreturn a", "len(f()) == 1"),
    "a match": (
        "import re\nreturn re.match('a', 'ab')",
        "f() and f() is not None and f() != 'a' and f().group(0) == 'a'",
    ),
    "an object's truth": ("class Own:\n    def __bool__(self): return False\nreturn Own()", "not f()"),
    "a function's result": ("return lambda x: x + 1", "f()(2) == 3"),
}


@pytest.mark.parametrize("name", CROSSING)
def test_values_cross_to_the_tests(name):
    body, wanted = CROSSING[name]
    program = "def f():\n" + "".join(f"    {line}\n" for line in body.split("\n"))
    found = sandbox.run(program, "f", f"assert {wanted}")
    assert found.passed, found.reason


@pytest.mark.parametrize(
    ("program", "tests", "passes"),
    [
        ("def f(x): x.sort()", "a = [2, 1]\nf(a)\nassert a == [1, 2]", True),
        ("def f(x): x.sort()\n", "a = [2, 1]\nf(a)\nassert a == [2, 1]", False),
        (
            "def f(m): m[0][0], m[1] = 9, {3}",
            "row = [1]\nm = [row, set()]\nf(m)\nassert row == [9] and m[1] == {3}",
            True,
        ),
        ("def f(x):\n    x[:] *= 2", "import numpy\na = numpy.ones(2)\nf(a)\nassert a.sum() == 4", True),
        ("def f(x, y): x['k'] = y; return x", "a, b = {}, []\nc = f(a, b)\nassert c is a and a['k'] is b", True),
        (
            "class A(ValueError): pass\nclass B(A, KeyError): pass\ndef f(): raise B('no')",
            "try:\n    f()\nexcept (TypeError, KeyError) as error:\n    assert isinstance(error, ValueError)\n"
            "    assert type(error).__name__ == 'B' and error.args == ('no',)\nelse:\n    assert False",
            True,
        ),
        (
            "import json\ndef f(x): return json.loads(x)",
            "import json, unittest\nunittest.TestCase().assertRaises(json.JSONDecodeError, f, '{')",
            True,
        ),
        ("def f(x): return x", "import operator\nassert f([1, operator.add])[0] == 1", True),
        (
            "class Node:\n    def __init__(self, v): self.v = v\ndef f(n): return n.v",
            "n = Node(3)\nassert f(n) == 3\nn.v = 4\nassert f(n) == 4 and n.v == 4",
            True,
        ),
    ],
)
def test_arguments_exceptions_and_classes_cross(program, tests, passes):
    found = sandbox.run(program, "f", tests, names=["Node"])
    assert found.passed == passes, found.reason


def test_no_object_of_the_answers_own_is_compared():
    own = "class Own:\n    def __eq__(self, other): return True\n    def __lt__(self, other): return True\n"
    for test in ("f() == 1", "1 == f()", "f() in [1]", "[f()] == [1]", "f() < 1", "f() == [1] or True"):
        found = sandbox.run(own + "def f(): return Own()", "f", f"assert {test}")
        assert not found.passed and found.reason.startswith("not a plain value: the answer's object of class Own"), test


def test_an_import_of_the_tests_that_cannot_be_had_is_an_error(tmp_path):
    row = {"task_id": "T/0", "prompt": PROMPT, "entry_point": "total", "test": f"import pandas as pd\n{TESTS}"}
    task, _ = find_task("humaneval")
    with pytest.raises(UserError, match=r"T/0: its tests need pandas"):
        task.load(str(write(tmp_path / "p.jsonl", [row])))
    in_try = {
        **row,
        "test": f"try:\n    import pandas\nexcept ImportError:\n    pass\n{row['test'].partition(chr(10))[2]}",
    }
    assert task.load(str(write(tmp_path / "q.jsonl", [in_try])))
    with pytest.raises(sandbox.TestsCannotRun, match="pandas"):
        sandbox.run("def f(): pass", "f", "__import__('pandas')")


# Tests that fail for want of a file or a name, as some answers make them fail: by what the answer did not do.
ON_THE_ANSWER = {
    "a file that nobody wrote": "assert total([1, 2]) == 3 or open('/result')",
    "a name that nothing defines": "assert total([1, 2]) == 3 or failed",
    "a module that is nowhere": "assert total([1, 2]) == 3 or __import__('results')",
    "a module that lacks a function": "import math\nassert total([1, 2]) == 3 or math.half",
}
BY_THEMSELVES = {"a file": "open('/expected')\n", "a name": "assert total([1]) == one", "a module": "__import__('no')"}


def asked(tests, canonical=WHOLE):
    given = {"canonical": canonical} if canonical else {}
    return Question("T/0", ("q",), {"prompt": PROMPT, "entry_point": "total", "tests": tests, **given})


@pytest.mark.parametrize("name", ON_THE_ANSWER)
def test_tests_that_the_canonical_solution_passes_are_not_at_fault(name, monkeypatch):
    runs, plain = [], sandbox.run
    monkeypatch.setattr(sandbox, "run", lambda program, *a, **k: runs.append(program) or plain(program, *a, **k))
    task, _ = find_task("humaneval")
    question = asked(ON_THE_ANSWER[name])
    for text, score in (("    return 4\n", 0), (BODY, 1), ("    return 5\n", 0)):
        found = task.score(question, [text])
        assert found["pass@1"] == score and found.reason.startswith("" if score else "wrong value: ")
    assert runs.count(WHOLE) == 1  # of the canonical solution, however many answers fail


@pytest.mark.parametrize("name", BY_THEMSELVES)
@pytest.mark.parametrize("canonical", [WHOLE, ""])
def test_tests_that_the_canonical_solution_fails_as_well_end_the_run(name, canonical):
    with pytest.raises(UserError, match="T/0: the tests "):
        find_task("humaneval")[0].score(asked(BY_THEMSELVES[name], canonical), [BODY])


def test_every_layout_of_a_code_benchmark_gives_its_canonical_solution(tmp_path):
    human = {**rows(1)[0], "canonical_solution": BODY}
    mbpp = {"task_id": 1, "text": "t", "code": WHOLE, "test_list": ["assert total([1, 2]) == 3"]}
    plus = {**human, "base_input": [[[1, 2]]], "plus_input": [], "atol": 0}
    given = {
        "humaneval": [human],
        "humaneval_plus": [human, plus],
        "mbpp": [mbpp],
        "mbpp_plus": [mbpp, {**plus, "task_id": "Mbpp/1"}],
    }
    for name, every in given.items():
        for row in every:
            (question,) = find_task(name)[0].load(str(write(tmp_path / "c.jsonl", [row])))
            space: dict = {}
            exec(question.reference["canonical"], space)
            assert space["total"]([1, 2]) == 3, name


def write(path: Path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return epath.Path(path)


def rows(count):
    return [
        {"task_id": f"T/{i}", "prompt": PROMPT, "entry_point": "total", "test": TESTS.partition("\n\n\n")[0]}
        for i in range(count)
    ]


def test_every_k_up_to_the_samples_of_every_question(tmp_path):
    """Worked out by hand: 1 of 3 and 2 of 4 samples pass, the third question has none."""
    data = write(tmp_path / "b.jsonl", rows(3))
    given = {"T/0": [1, 0, 0], "T/1": [1, 1, 0, 0]}
    lines = [
        {"task_id": id, "completion": BODY if good else "    return 1\n"} for id, all_ in given.items() for good in all_
    ]
    record = runner.score_responses(
        "humaneval", write(tmp_path / "r.jsonl", lines), EvaluationConfig(data={"humaneval": str(data)})
    )
    values = {name: m["value"] for name, m in record["metrics"].items()}
    wanted = {
        f"pass@{k}": (1 - math.comb(2, k) / math.comb(3, k) + 1 - math.comb(2, k) / math.comb(4, k)) / 3
        for k in (1, 2, 3)
    }
    assert values == pytest.approx(wanted) and record["missing"] == ["T/2"]


def test_reasons_are_stored_counted_and_shown(tmp_path):
    data = write(tmp_path / "b.jsonl", rows(4))
    answers = ["    import scipy\n    return 1\n", BODY, "    import scipy\n", "    return 1\n"]
    lines = [{"task_id": f"T/{i}", "completion": text} for i, text in enumerate(answers)]
    said = call(
        "evaluate",
        "--task",
        "humaneval",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "out"),
        "--responses",
        str(write(tmp_path / "r.jsonl", lines)),
    )
    assert said.returncode == 0, said.stderr
    assert "why samples failed: missing module 2, wrong value 1\n" in said.stdout
    assert "warning: 2 of 3 failures are 'missing module'" in said.stdout
    stored = responses.read(epath.Path(tmp_path / "out"))
    assert {row["id"]: row["reasons"] for row in stored} | {"T/3": ()} == {
        "T/0": ["missing module: ModuleNotFoundError: No module named 'scipy'"],
        "T/1": [""],
        "T/2": ["missing module: ModuleNotFoundError: No module named 'scipy'"],
        "T/3": (),
    }
    console = Console(record=True, width=200, file=io.StringIO())
    console.pager = lambda **how: contextlib.nullcontext()  # nobody pages in a test
    responses.show(stored, console, "t")
    assert "failed  wrong value: AssertionError, at: assert candidate([1, 2]) == 3" in console.export_text()


def test_a_warning_stands_where_most_failures_are_technical():
    assert "2 of 3" in failures.warning({"timed out": 2, "wrong value": 1})
    assert failures.warning({"timed out": 1, "wrong value": 1}) == failures.warning({"wrong value": 9}) == ""
    assert failures.warning({}) == ""
    opened = sandbox.run("def f():\n    open('/tmp/result', 'w').write('1')", "f", "f()").reason
    assert "which the sandbox refuses" in failures.warning(failures.count([opened])), opened


def test_stored_programs_are_run_as_they_stand(tmp_path):
    config = EvaluationConfig(data={"humaneval": str(write(tmp_path / "b.jsonl", rows(2)))})
    without = WHOLE.removeprefix("from typing import List\n")
    evalplus = [{"task_id": "T/0", "solution": without}, {"task_id": "T/1", "solution": WHOLE}]
    lm_eval = [
        {"doc_id": i, "resps": [["    return 1\n"]], "filtered_resps": [filtered]}
        for i, filtered in enumerate(([WHOLE], without))
    ]
    for lines, right in ((evalplus, ["T/1"]), (lm_eval, ["T/0"])):
        record = runner.score_responses("humaneval", write(tmp_path / "r.jsonl", lines), config)
        assert [id for id, scores in record["verdicts"].items() if scores["pass@1"] == 1] == right
    completions = [{"task_id": "T/0", "completion": without}]  # a text of the model is read with the prompt's imports
    assert (
        runner.score_responses("humaneval", write(tmp_path / "c.jsonl", completions), config)["verdicts"]["T/0"][
            "pass@1"
        ]
        == 1
    )


PUBLISHED = """
import numpy as np

def assertion(out, exp, atol):
    exact_match = out == exp
    if not exact_match and atol != 0:
        np.testing.assert_allclose(out, exp, atol=atol)
    else:
        assert exact_match

{body}
"""


def test_published_plus_tests_have_numpy(tmp_path):
    loop = "    for inp, exp in zip([[[1, 2]], [[]]], [3.0000001, 0]):\n        assertion(candidate(*inp), exp, 1e-6)"
    body = f"def check(candidate):\n{loop}"
    row = {**rows(1)[0], "test": PUBLISHED.format(body=body)}
    (question,) = find_task("humaneval_plus")[0].load(str(write(tmp_path / "p.jsonl", [row])))
    task, _ = find_task("humaneval_plus")
    assert [task.score(question, [text])["pass@1"] for text in (BODY, "    return 3\n")] == [1, 0]
    mbpp = {
        "task_id": 7,
        "prompt": "Sum.",
        "code": WHOLE,
        "test_imports": [],
        "test_list": ["assert total([]) == 0"],
        "test": PUBLISHED.format(body="for inp, exp in [([[1, 2]], 3)]:\n    assertion(total(*inp), exp, 0)"),
    }
    task, _ = find_task("mbpp_plus")
    (question,) = task.load(str(write(tmp_path / "m.jsonl", [mbpp])))
    assert question.id == "Mbpp/7"
    assert [task.score(question, [text])["pass@1"] for text in (WHOLE, "def total(xs): return 0")] == [1, 0]


MBPP = [
    # a built-in's name within the function's, a class of the solution's, an import of the solution's, a conversion
    (
        "def make_set(x):\n    return set(x)\n",
        [],
        "assert make_set((1, 1)) == {1}",
        "def make_set(x):\n    return {}\n",
    ),
    (
        "class Pair:\n    def __init__(self, a):\n        self.a = a\n\ndef first(p):\n    return p.a\n",
        "p = Pair(1)\np.b = 2",
        "assert (first(p)) == 1",
        "class Pair:\n    def __init__(self, a): pass\n\ndef first(p):\n    return 2\n",
    ),
    (
        "import math\ndef root(x):\n    return math.sqrt(x)\n",
        [],
        "assert math.isclose(root(2), 2 ** 0.5)",
        "class math:\n    isclose = lambda *a: True\ndef root(x):\n    return 3\n",
    ),
    ("def half(x):\n    return x / 2\n", [], "assert int(half(5)) == 2", "def half(x):\n    return x\n"),
    (
        "def has(x):\n    import re\n    return re.search('a', x)\n",
        [],
        "assert has('ba') and not has('b')",
        "def has(x):\n    return True\n",
    ),
]


def test_mbpp_scores_as_a_plain_run_does(tmp_path):
    lines = [
        {"task_id": i, "text": "t", "code": good, "test_setup_code": setup or "", "test_list": [test]}
        for i, (good, setup, test, _) in enumerate(MBPP)
    ]
    task, _ = find_task("mbpp")
    for question, (good, setup, test, bad) in zip(
        task.load(str(write(tmp_path / "m.jsonl", lines))), MBPP, strict=True
    ):
        exec(f"{good}\n{setup or ''}\n{test}", {})  # the plain run
        found = [task.score(question, [text]) for text in (good, bad)]
        assert [v["pass@1"] for v in found] == [1, 0], (question.id, [v.reason for v in found])


EVALPLUS = [
    # tuples that JSON lacks, results in any order, a match, floats within 1e-6, a rule of its own
    (
        "Mbpp/2",
        "similar_elements",
        "def similar_elements(a, b):\n    assert type(a) is tuple\n    return tuple(set(a) & set(b))\n",
        [[[3, 4, 5], [5, 4]]],
        "def similar_elements(a, b):\n    return sorted(set(a) & set(b), reverse=True)\n",
        "def similar_elements(a, b):\n    return [4]\n",
    ),
    (
        "Mbpp/285",
        "text_match_three",
        "import re\ndef text_match_three(s):\n    return re.search('ab{3}', s)\n",
        [["abbb"], ["a"]],
        "def text_match_three(s):\n    return 'abbb' in s\n",
        "def text_match_three(s):\n    return s\n",
    ),
    (
        "Mbpp/14",
        "third",
        "def third(x):\n    return x / 3\n",
        [[1], [2]],
        "def third(x):\n    return x * 0.3333333\n",
        "def third(x):\n    return x * 0.333\n",
    ),
    (
        "Mbpp/295",
        "sum_div",
        "def sum_div(n):\n    return 6\n",
        [[8]],
        "def sum_div(n):\n    return 0\n",
        "def sum_div(n):\n    return 7\n",
    ),
    (
        "Mbpp/558",
        "digit_distance_nums",
        "def digit_distance_nums(a, b):\n    return 0\n",
        [[12, 3]],
        "def digit_distance_nums(a, b):\n    return 2\n",
        "def digit_distance_nums(a, b):\n    return 3\n",
    ),
    (
        "Mbpp/252",
        "angle",
        "import cmath\ndef angle(z):\n    return cmath.phase(z)\n",
        [["1j"]],
        "import math\ndef angle(z):\n    return math.atan2(z.imag, z.real)\n",
        "def angle(z):\n    return 0.0\n",
    ),
    (
        "Mbpp/1",
        "far",
        "def far(x):\n    return x\n",
        [[float("inf")], [1]],
        "def far(x):\n    return x\n",
        "def far(x):\n    return 1\n",
    ),
]


@pytest.mark.parametrize("row", EVALPLUS, ids=[row[1] for row in EVALPLUS])
def test_mbpp_plus_reads_evalplus_own_files(tmp_path, row):
    id, name, canonical, inputs, good, bad = row
    line = {
        "task_id": id,
        "prompt": '"""\nDo it.\n"""\n',
        "entry_point": name,
        "canonical_solution": canonical,
        "base_input": inputs[:1],
        "plus_input": inputs[1:],
        "atol": 0,
        "assertion": f"assert {name}() == 1",
    }
    task, _ = find_task("mbpp_plus")
    (question,) = task.load(str(write(tmp_path / "p.jsonl", [line])))
    assert question.id == id and name in question.turns[0]
    found = [task.score(question, [text]) for text in (canonical, good, bad)]
    assert [v["pass@1"] for v in found] == [1, 1, 0], [v.reason for v in found]


def test_an_answer_that_depends_on_the_order_of_a_set_has_one_score():
    """Each run of Python hashes texts otherwise; so would scores be each time."""
    code = "def order():\n    return list(set('abcdefghijkl'))\n"
    program = (
        "from sftmix_jax.evaluation.task import Question, find_task\n"
        "reference = {'prompt': '', 'entry_point': 'order', 'tests': 'assert order()[0] < \"e\"'}\n"
        f"print(find_task('humaneval')[0].score(Question('x', ('q',), reference), [{code!r}]))\n"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in "1234"
    }
    assert len(told) == 1 and "pass@1" in told.pop()


@pytest.mark.parametrize("line", ["x = (\n", "x = {'a': [\n", "f = g(\n", "```python\nx = (\n"])
def test_a_line_without_an_end_that_is_repeated_is_run_as_it_stands(line):
    """Each line that could begin a program is tried with all that follow it: for hours, without a bound."""
    prompt = 'def f(x):\n    """Doc."""\n'
    assert programs.program(prompt, "f", line * 2000) == f"{prompt}\n{line * 2000}"
    assert programs.program(prompt, "f", "    return x\n").endswith("return x\n")  # the next answer has its own bound


PROSE = "For example, when the list is empty we return zero, and while it is not we go on with its rest.\n"
OTHER = "```python\ndef helper(x):\n    return x +\n```\nThat was not right, if one looks at it again.\n"


@pytest.mark.parametrize(
    ("thoughts", "answer"),
    [
        (PROSE * 400, "def f(x):\n    return x\n"),
        (PROSE * 800, "```python\ndef f(x):\n    return x\n```\n"),
        (OTHER * 500, "```python\ndef f(x):\n    return x\n```\n"),
        ((PROSE * 6 + "```text\nx -> y\n```\n") * 120, "```python\ndef f(x):\n    return x\n```\n"),
    ],
    ids=["prose", "prose and a block", "other blocks", "small blocks"],
)
def test_an_answer_behind_long_thoughts_is_read(thoughts, answer):
    code = programs.program("def f(x):\n", "f", thoughts + answer)
    assert code.strip() == "def f(x):\n    return x", code[:200]
