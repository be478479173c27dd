"""Two processes: the judge knows the tests, the prisoner runs the model's code; only plain values pass between.

The prisoner is forked and shut in before the judge reads the job, so its memory never held a test or the nonce.
What it answers is compared in the judge; the judge alone can write a verdict. An object that has no plain form stays
with the prisoner, and the judge holds a `Foreign` in its place (contained/foreign.py). A list or another mutable
object that both keep is one object for both (contained/shared.py).
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import json
import os
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Coroutine, Iterator
from types import FunctionType, GeneratorType, ModuleType
from typing import Any, BinaryIO

import foreign  # type: ignore[import-not-found]  # beside this file: nothing of the package is imported here
import operations  # type: ignore[import-not-found]
import packages  # type: ignore[import-not-found]
import selfpipe  # type: ignore[import-not-found]
import shared  # type: ignore[import-not-found]
import walls  # type: ignore[import-not-found]
import wire  # type: ignore[import-not-found]

ASK = struct.Struct("QQ")  # memory, seconds; with two pipes' ends: the job to read, the verdict to write
ANSWER = struct.Struct("q")  # a judge's process id once it runs; how it ended, once its group was killed
_AT_ONCE = 1024  # items of an iterator that cross together
_MOST_PRINTED = 1 << 20
_WALLED = (
    errno.EPERM,
    errno.EACCES,
    errno.ENOENT,
    errno.ENOSYS,
    errno.EAGAIN,
    errno.EMFILE,
    errno.EFBIG,
    errno.EROFS,
    None,
)
_LONGEST_REASON = 1000  # characters: a verdict fits into its pipe, and names of classes are the answer's choice


def main() -> None:
    """Fork a judge for each run that is asked for, until nobody asks any more.

    To start an interpreter and import all this takes longer than most runs. This process reads no job and runs no
    code, so each judge starts from the same memory.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    packages.load(json.loads(sys.argv[2]))
    standing = walls.separate(packages.folders())
    prepared = walls.prepare(packages.folders())
    walls.adopt_orphans()
    gc.collect()
    gc.freeze()  # a collection in a fork would write to, and so copy, every page that holds an object of this process
    while True:
        asked, fds, _, _ = socket.recv_fds(control, ASK.size, 2)
        if not asked:
            return
        memory, seconds = ASK.unpack(asked)
        pid = os.fork()
        if pid == 0:
            os.setsid()  # one signal reaches all of the run
            control.close()
            _run(fds[0], fds[1], memory, seconds, list(standing), prepared)
        for fd in fds:
            os.close(fd)
        control.sendall(ANSWER.pack(pid))
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        # It is not let go before its group has been killed: until then nobody else can have its number.
        if not control.recv(1):
            return
        control.sendall(ANSWER.pack(os.waitpid(pid, 0)[1]))
        _reap()


def _reap() -> None:
    """Wait for the prisoner whose judge is gone: a process that nobody waits for counts against the limit of them."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _run(job: int, verdict: int, memory: int, seconds: int, standing: list[str], prepared: walls.Prepared) -> None:
    signal.alarm(seconds + 2)  # should nobody be left who ends it
    ask_reader, ask_writer = os.pipe()
    answer_reader, answer_writer = os.pipe()
    if not walls.separate_children():
        standing = [wall for wall in standing if wall != "namespaces"]
    try:
        prisoner = os.fork()
    except OSError as error:
        os.write(verdict, json.dumps({"broken": f"a process cannot be started: {error}"}).encode())
        os._exit(0)
    if prisoner == 0:
        for fd in (job, verdict, ask_writer, answer_reader):  # the job must be gone before anything else
            os.close(fd)
        with os.fdopen(ask_reader, "rb") as asked, os.fdopen(answer_writer, "wb") as answers:
            _Prisoner(asked, answers).serve(walls.enclose(memory, seconds, prepared))
        os._exit(0)
    os.close(ask_reader)
    os.close(answer_writer)
    walls.limit(2 * memory, seconds)
    walls.drop_capabilities()
    with os.fdopen(job, "rb") as stream:
        asked_for = json.loads(stream.read())
    solution = foreign.Solution(os.fdopen(ask_writer, "wb"), os.fdopen(answer_reader, "rb"), prisoner)
    found = _judge(asked_for, solution, standing)
    found |= {key: value[:_LONGEST_REASON] for key, value in found.items() if isinstance(value, str)}
    os.write(verdict, json.dumps(found).encode())
    os._exit(0)


def _judge(job: dict[str, Any], solution: foreign.Solution, standing: list[str]) -> dict[str, Any]:
    """→ the nonce where every test passed, else the reason; or the module that the tests need and cannot have, or what
    is wrong with them."""
    solution.limit_call(job["each"])
    raised: BaseException | None = None
    try:
        told = solution.ask("run", job["program"], job["name"])
        standing += [wall for wall in walls.INSIDE if isinstance(told, list) and wall in told]
        space: dict[str, Any] = {"__name__": "tests", "limit_call": solution.limit_call}
        _execute(job["prelude"], "<prelude>", space)
        space |= {name: solution.named(name) for name in job["names"]}
        space["candidate"] = space[job["name"]] = solution.named(job["name"])
        _execute(job["tests"], "<tests>", space)
    except BaseException as error:
        raised = error
    if failure := solution.failure:  # whatever came of it: a bare `except` of a test, or the answer's own `__exit__`
        said = f"not a plain value: {failure}" if isinstance(failure, wire.NotPlain) else str(failure)
        return {"error": said, "walls": standing}
    found = {"passed": job["nonce"]} if raised is None else _reason(raised, solution, job["tests"])
    return {**found, "walls": standing}


def _reason(error: BaseException, solution: foreign.Solution, tests: str) -> dict[str, str]:
    if solution.is_of_the_answer(error):
        return {"error": _named(error, solution.reason(error))}
    if isinstance(error, ImportError):
        return {"missing": error.name or str(error)}
    if isinstance(error, MemoryError):
        return {"error": "memory: MemoryError in the tests"}
    if _is_of_the_tests(error):
        return {"damaged": _named(error, type(error).__name__, tests)}
    return {"error": _named(error, "wrong value", tests)}


def _is_of_the_tests(error: BaseException) -> bool:
    """Whether what the tests need is not there: a name, a file, a thread, a process, a socket."""
    if isinstance(error, AttributeError):
        return isinstance(error.obj, ModuleType)
    if isinstance(error, NameError):
        frames = traceback.extract_tb(error.__traceback__)
        return not frames or frames[-1].filename != "<string>"  # text that the tests evaluate may be the answer's
    if isinstance(error, OSError):
        return error.errno in _WALLED
    return isinstance(error, RuntimeError) and "thread" in str(error)


def _execute(text: str, name: str, space: dict[str, Any]) -> None:
    exec(compile(text, name, "exec", dont_inherit=True), space)  # this file's own `from __future__` is not the text's


def _named(error: BaseException, kind: str, tests: str = "") -> str:
    """`kind: detail` of a failure; where a test failed, its line stands in the detail."""
    said, name = _text(error)[:200], type(error).__name__
    detail = said if name == kind else f"{name}: {said}" if said else name
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<tests>"]
    if tests and lines:
        line = tests.splitlines()[(lines[-1] or 1) - 1].strip()
        detail = f"{detail}, at: {line[:200]}"
    return f"{kind}: {detail}" if detail else kind


def _text(error: BaseException) -> str:
    """What an exception says; its text may hold objects of the answer's, and integers that have no decimal text."""
    try:
        return str(error)
    except BaseException as other:
        return f"its text cannot be made ({type(other).__name__})"


class _Printed(io.StringIO):
    """What the program prints, up to `_MOST_PRINTED` characters per call: tests may read it."""

    def write(self, text: str) -> int:
        super().write(text[: max(_MOST_PRINTED - self.tell(), 0)])
        return len(text)

    def take(self) -> str:
        """What was printed since it was last taken."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


class _Prisoner:
    """Runs the program, then calls its functions and reads its objects as often as the judge asks."""

    def __init__(self, asked: BinaryIO, answers: BinaryIO):
        self._asked, self._answers = asked, answers
        self._space: dict[str, Any] = {}
        self._objects: list[Any] = []
        self._handles: dict[int, int] = {}
        self._shared = shared.Shared(self._outgoing)  # mutable objects that the tests hold, too
        self._printed = _Printed()

    def serve(self, standing: list[str]) -> None:
        socket.socketpair = selfpipe.pair  # type: ignore[assignment]
        sys.stdout = self._printed
        while line := self._asked.readline():
            text, followed = self._answer(line, standing)
            # By now only the program can refer to what was asked and answered, or a cycle that it has left behind:
            # nested functions that call themselves hold what they use.
            kept = self._shared.retained()
            if kept and kept[-1] >= followed:
                gc.collect(1)
                kept = self._shared.retained()
            self._shared.keep(kept)
            self._shared.agree()
            still = None if self._shared.is_spent else kept
            self._answers.write(f"{text}\n{json.dumps(still)}\n".encode())
            self._answers.flush()

    def _answer(self, line: bytes, standing: list[str]) -> tuple[str, int]:
        """→ the text, and how many of the objects that both sides know were known before."""
        (kept, verb, *parts), new, changed = wire.decode(line, self._incoming, self._shared.objects)
        self._shared.forget(changed)
        self._shared.keep(kept)
        followed = len(kept)
        self._shared.add(new)
        self._shared.agree()

        def reply(failed: bool, value: Any) -> tuple[str, int]:
            changed = self._shared.changed()
            answer = (failed, value, self._printed.take())
            text, more = wire.encode(answer, self._outgoing, self._shared.objects, changed, classes=True)
            self._shared.add(more)
            return text, followed

        try:
            try:
                value = getattr(self, f"_{verb}")(*parts, *([standing] if verb == "run" else []))
            finally:
                self._answers.write(b".")  # the time of a call ends here: a large value takes long to cross
                self._answers.flush()
            return reply(False, value)
        except BaseException as error:
            return reply(True, error)

    def _run(self, program: str, name: str, standing: list[str]) -> list[str]:
        # An empty namespace, as the reference harnesses have: `__name__` is not "__main__".
        _execute(program, "<program>", self._space)
        if name not in self._space:
            raise NameError(f"the answer does not define {name}")
        return standing

    def _call(self, function: Any, args: tuple[Any, ...], named: tuple[tuple[str, Any], ...]) -> Any:
        return function(*args, **dict(named))

    def _get(self, owner: Any, name: str) -> Any:
        return getattr(owner, name)

    def _set(self, owner: Any, name: str, value: Any) -> None:
        setattr(owner, name, value)

    def _iterate(self, owner: Any) -> Iterator[Any]:
        return iter(owner)

    def _operate(self, name: str, *operands: Any) -> Any:
        return operations.BY_NAME[name](*operands)

    def _next(self, stream: Iterator[Any], most: int) -> tuple[tuple[Any, ...], BaseException | None]:
        """The next items, and the exception that ended them. Nothing is read ahead of one that can still change."""
        items: list[Any] = []
        try:
            for _ in range(min(most, _AT_ONCE)):
                items.append(next(stream))
                if not wire.is_fixed(items[-1]):
                    break
        except BaseException as error:
            return tuple(items), error
        return tuple(items), None

    def _outgoing(self, value: Any) -> list[Any]:
        handle = self._handles.get(id(value))
        if handle is None:
            handle = self._handles[id(value)] = len(self._objects)
            self._objects.append(value)
        if isinstance(value, BaseException):
            value.__traceback__ = None  # whose frames would hold what the program no longer does
        iterates, own = isinstance(value, Iterator), type(value)
        has_methods = any(isinstance(each, FunctionType) for kind in own.__mro__ for each in vars(kind).values())
        kinds = {"generator": isinstance(value, GeneratorType), "stream": iterates and not has_methods}
        kinds["coroutine"] = isinstance(value, Coroutine)
        if kind := next((kind for kind, applies in kinds.items() if applies), ""):
            return [kind, handle]
        return ["object", handle, own.__name__, iterates, own.__eq__ is object.__eq__, None]  # at last its hash

    def _incoming(self, kind: str, *parts: Any) -> Any:
        match kind:
            case "handle":
                return self._objects[parts[0]]
            case "name":
                return self._space[parts[0]]
        found: Any = importlib.import_module(parts[0])  # "known": a function or class of Python's own
        for name in parts[1].split("."):
            found = getattr(found, name)
        return found
