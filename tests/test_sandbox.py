"""Model-written code: what is right passes, and nothing gets out, whoever runs it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import attacks
import pytest

from sftmix_jax.evaluation import sandbox
from sftmix_jax.machine.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="walls are Linux'")


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """Something to steal and somebody to talk to."""
    os.environ["SFTMIX_SECRET"] = "secret-of-the-caller"
    folder = tmp_path_factory.mktemp("user")
    (folder / "file").write_text("private")
    (folder / "link").symlink_to(folder / "file")
    listening, unix = socket.socket(), socket.socket(socket.AF_UNIX)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    unix.bind(str(folder / "socket"))
    unix.listen()
    yield {
        "secret": "secret-of-the-caller",
        "file": str(folder / "file"),
        "folder": str(folder),
        "pid": os.getpid(),
        "left": str(attacks.LEFT_BEHIND),
        "port": listening.getsockname()[1],
        "unix": str(folder / "socket"),
        "link": str(folder / "link"),
        "packages": str(Path(pytest.__file__).parents[1]),
    }
    listening.close()
    unix.close()


def contained(verdicts, surroundings, stay=frozenset(), **checkout):
    """Nothing passed, nothing was left behind, and no process but those of `stay`."""
    assert [name for name, (passed, _) in verdicts.items() if passed] == []
    assert not attacks.LEFT_BEHIND.exists() and Path(surroundings["file"]).read_text() == "private"
    deadline = time.monotonic() + 5  # killed, some may still be on their way out
    while attacks.processes(**checkout) - stay and time.monotonic() < deadline:
        time.sleep(0.01)
    assert attacks.processes(**checkout) - stay == set()


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_no_attack_works(name, surroundings):
    if not sandbox.is_safe():
        pytest.skip(f"this kernel gives only {sandbox.walls()}")
    waiting = attacks.processes()  # the servers that wait for the next run
    verdict = attacks.attempt(name, **surroundings)
    assert verdict.reason
    contained({name: (verdict.passed, verdict.reason)}, surroundings, waiting)


TAKES = (
    "reads the",
    "reads a file",
    "reads /proc",
    "lists",
    "connects by T",
    "connects to",
    "sends",
    "asks",
    "starts",
    "forks once",
    "opens",
    "makes",
    "changes",
    "gives",
    "sets",
    "marks a file",
    "watches a",
    "goes",
    "cuts",
    "locks",
    "holds",
    "moves",
    "lets",
    "becomes",
)
# What only newer kernels or some file systems can do.
MAYBE = {
    "marks a file by the newest call",
    "changes a mode by the newest call",
    "sets a file's attributes",
    "watches all files",
}


@pytest.mark.parametrize("name", [name for name in attacks.ATTACKS if name.startswith(TAKES) and name not in MAYBE])
def test_attacks_work_without_the_walls(name, surroundings):
    """Those that take something do take it from an ordinary process: the table does not pass for want of trying."""
    code = attacks.program(name, **surroundings) + "assert f() == 'in'\n"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    attacks.LEFT_BEHIND.unlink(missing_ok=True)
    assert ended.returncode == 0, ended.stderr


def test_no_attack_works_for_an_ordinary_user(surroundings):
    """The same table, run by `nobody`: walls must not need root."""
    if os.getuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("only root can become another user")
    # The interpreter and the checkout, where nobody may not look otherwise, seen under another path.
    script = """
        set -e
        mount -t tmpfs none /mnt
        mkdir /mnt/python /mnt/code
        mount --bind "$1" /mnt/python
        mount --bind "$2" /mnt/code
        exec setpriv --reuid 65534 --regid 65534 --clear-groups /mnt/python/bin/python3 /mnt/code/tests/attacks.py "$3"
    """
    root = Path(__file__).parents[1]
    command = ["unshare", "-m", "sh", "-c", script, "sh", sys.base_prefix, str(root), json.dumps(surroundings)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if "mount" in ended.stderr or "shared libraries" in ended.stderr:
        pytest.skip(f"the interpreter cannot be shown to another user here: {ended.stderr}")
    assert ended.returncode == 0, ended.stderr
    verdicts = json.loads(ended.stdout)
    assert verdicts.keys() == attacks.ATTACKS.keys()
    contained(verdicts, surroundings, checkout="/mnt/code")


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(*x): return sum(x)", "assert f(1, 2) == 3 and candidate(4) == 4"),
        ("def f(x): return {1: (x, [x]), 'a': {x}}", "assert f(2) == {1: (2, [2]), 'a': {2}}"),
        (
            "def f(x): return [x, None, True, 1.5, b'a', 2j, frozenset([1])]",
            "assert f('é\\n') == ['é\\n', None, True, 1.5, b'a', 2j, frozenset([1])]",
        ),
        ("def f(): print('\\ud800', 'é'); return 1", "assert f() == 1"),
        ("def f(): return float('inf'), 10**1000", "assert f() == (float('inf'), 10**1000)"),
        ("from collections import Counter\ndef f(x): return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}"),
        (
            "import re, math, hashlib, itertools, functools, heapq, datetime, decimal\ndef f(): return 1",
            "assert f() == 1",
        ),
        (
            "def f(x):\n    if x < 0: raise ValueError('no')\n    return x",
            "try:\n    f(-1)\nexcept ValueError as e:\n    assert str(e) == 'no'\nelse:\n    assert False",
        ),
        (
            "import threading\ndef f():\n    got = []\n    t = threading.Thread(target=lambda: got.append(1))\n"
            "    t.start(); t.join()\n    return got",
            "assert f() == [1]",
        ),
    ],
)
def test_good_code_passes(program, tests):
    verdict = sandbox.run(program, "f", tests)
    assert verdict.passed, verdict.reason


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def f(:", "SyntaxError: invalid syntax (line 1)"),
        ("  def f(): pass", "SyntaxError: IndentationError: "),
        ("def g(): pass", "NameError: the answer does not define f"),
        ("def f(): return 2", "wrong value: AssertionError, at: assert f() == 1"),
        ("def f(): return '1' + f.x", "AttributeError: "),
        ("def f(): return 1 / 0", "ZeroDivisionError: division by zero"),
        ("class Own(LookupError): pass\ndef f(): raise Own('no')", "Own: no"),
        ("class Own:\n    def __eq__(self, other): return True\ndef f(): return Own()", "not a plain value: "),
        ("import scipy\ndef f(): return 1", "missing module: ModuleNotFoundError: No module named 'scipy'"),
        ("def f(): return bytearray(1 << 40)", "memory: MemoryError"),
        ("import os\ndef f(): os._exit(3)", "exited: with code 3"),
        ("import ctypes\ndef f(): return ctypes.string_at(1)", "killed: by SIGSEGV"),
    ],
)
def test_wrong_code_is_told_why(program, reason):
    verdict = sandbox.run(program, "f", "assert f() == 1")
    assert not verdict.passed and verdict.reason.startswith(reason)


HUGE = "'A' * 100_000"


@pytest.mark.parametrize(
    "program",
    [
        f"def f(): return type({HUGE}, (), {{'__eq__': lambda self, other: True}})()",
        f"def f(): raise type({HUGE}, (ValueError,), {{'__module__': ''}})({HUGE})",
        f"def f(): raise ImportError(name={HUGE})",
        f"import sys\nsys._getframe(2).f_locals['standing'].append({HUGE})\ndef f(): return 2",
    ],
)
def test_a_verdict_is_short_whatever_the_answer_calls_its_own(program):
    verdict = sandbox.run(program, "f", "assert f() == 1")
    assert not verdict.passed and len(verdict.reason) <= 1000
    assert verdict.walls == sandbox.walls()


def test_a_verdict_that_cannot_be_read_is_a_failure_of_its_answer(monkeypatch):
    class Cut:
        def run(self, job, memory, seconds):
            return b'{"error": "a reason that was cu', 0

    monkeypatch.setattr(sandbox, "_take", Cut)
    monkeypatch.setattr(sandbox, "_idle", [])
    assert sandbox.run("", "f", "") == sandbox.Verdict(False, "exited: with a verdict that cannot be read")


ENDS = "class M:\n    def __enter__(self): return self\n    def x(self): os._exit(0)\n"


@pytest.mark.parametrize(
    ("program", "tests", "reason"),
    [
        (
            f"import os\n{ENDS}    def __exit__(self, *a): return True\nf = M",
            "with f() as m: m.x()",
            "exited: with code 0, before it answered",
        ),
        (
            "class M:\n    def __enter__(self): return self\n    def __exit__(self, *a): return True\n"
            "    def __eq__(self, other): return False\nf = M",
            "with f() as m:\n    assert m == 5",
            "not a plain value: the answer's object of class M is compared",
        ),
        (
            "class M:\n    def __eq__(self, other): return False\nf = M",
            "try:\n    assert f() == 5\nexcept:\n    pass",
            "not a plain value: the answer's object of class M is compared",
        ),
        (
            f"import os\n{ENDS}f = M",
            "m = f()\nfor _ in range(3):\n    try:\n        m.x()\n    except:\n        pass\nopen('/none')",
            "exited: with code 0, before it answered",
        ),
    ],
)
def test_what_ends_a_run_is_its_reason_whatever_catches_it(program, tests, reason):
    assert sandbox.run(program, "f", tests) == sandbox.Verdict(False, reason, sandbox.walls())


def test_time_runs_out():
    verdict = sandbox.run("import time\ndef f(): time.sleep(60)", "f", "f()", seconds=1)
    assert not verdict.passed and verdict.reason == "timed out"
    verdict = sandbox.run("import time\ndef f(): time.sleep(60)", "f", "f()", seconds=30, each=0.2)
    assert not verdict.passed and verdict.reason == "timed out: a call took more than 0.2 s"


def test_the_time_of_a_call_is_that_of_the_answer_alone():
    """Half a million tuples take longer to cross than to make, and than the call may take."""
    program = "def f():\n    return [(i, i + 1) for i in range(500_000)]"
    verdict = sandbox.run(program, "f", "assert len(f()) == 500_000", seconds=60, each=2)
    assert verdict.passed, verdict.reason


def test_a_server_ends_with_the_process_that_asked_it():
    script = (
        "from sftmix_jax.evaluation import sandbox; sandbox.walls(); "
        "print(sandbox._idle[0]._process.pid, flush=True); import os; os._exit(1)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    folder, deadline = Path("/proc") / ran.stdout.strip(), time.monotonic() + 5
    assert ran.stdout.strip().isdigit(), ran.stderr
    while folder.exists() and "zombie" not in (folder / "status").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not folder.exists() or "zombie" in (folder / "status").read_text()


def test_a_server_that_has_ended_is_replaced():
    assert sandbox.run("def f(): return 1", "f", "assert f() == 1").passed
    for server in sandbox._idle:
        server._process.kill()
        server._process.wait()
    assert sandbox.run("def f(): return 1", "f", "assert f() == 1").passed


def test_a_run_leaves_nothing_for_the_next():
    marked = "import builtins\nbuiltins.left = 1\nimport json\njson.left = 1\ndef f():\n    return 1"
    assert sandbox.run(marked, "f", "assert f() == 1").passed
    looks = "import builtins, json\ndef f():\n    return hasattr(builtins, 'left') or hasattr(json, 'left')"
    assert sandbox.run(looks, "f", "assert f() is False").passed


def test_many_runs_in_a_row_reach_no_limit_of_processes():
    """What a run leaves behind counts against the 64 processes of its user until somebody waits for it."""
    verdicts = [sandbox.run("def f(): return 1", "f", "assert f() == 1") for _ in range(150)]
    assert [verdict.reason for verdict in verdicts if not verdict.passed] == []


def test_a_sandbox_that_cannot_start_a_process_gives_no_verdict(monkeypatch):
    class Full:
        def run(self, job, memory, seconds):
            return b'{"broken": "a process cannot be started: [Errno 11] Resource temporarily unavailable"}', 0

    monkeypatch.setattr(sandbox, "_take", Full)
    monkeypatch.setattr(sandbox, "_idle", [])
    with pytest.raises(UserError, match=r"nothing was scored: a process cannot be started: \[Errno 11\]"):
        sandbox.run("def f(): return 1", "f", "assert f() == 1")
