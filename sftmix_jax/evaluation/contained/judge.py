"""Two processes: the judge knows the tests, the prisoner runs the model's code; only plain values pass between.

The prisoner is forked and shut in before the judge reads the job, so its memory never held a test or the nonce.
What it answers is compared in the judge; the judge alone can write a verdict.
"""

from __future__ import annotations

import builtins
import json
import os
import signal
import socket
import struct
import sys
from typing import Any, BinaryIO

import walls  # type: ignore[import-not-found]  # beside this file: nothing of the package is imported here
import wire  # type: ignore[import-not-found]

ASK = struct.Struct("QQ")  # memory, seconds; with two pipes' ends: the job to read, the verdict to write
ANSWER = struct.Struct("q")  # a judge's process id once it runs; how it ended, once its group was killed
_LONGEST = 1 << 24  # bytes of one answer


class Silent(Exception):
    """The prisoner is gone."""


def main() -> None:
    """Fork a judge for each run that is asked for, until nobody asks any more.

    To start an interpreter and import all this takes longer than most runs. This process reads no job and runs no
    code, so each judge starts from the same memory.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    while True:
        asked, fds, _, _ = socket.recv_fds(control, ASK.size, 2)
        if not asked:
            return
        memory, seconds = ASK.unpack(asked)
        pid = os.fork()
        if pid == 0:
            os.setsid()  # one signal reaches all of the run
            control.close()
            _run(fds[0], fds[1], memory, seconds)
        for fd in fds:
            os.close(fd)
        control.sendall(ANSWER.pack(pid))
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        # It is not let go before its group has been killed: until then nobody else can have its number.
        if not control.recv(1):
            return
        control.sendall(ANSWER.pack(os.waitpid(pid, 0)[1]))


def _run(job: int, verdict: int, memory: int, seconds: int) -> None:
    signal.alarm(seconds + 2)  # should nobody be left who ends it
    ask_reader, ask_writer = os.pipe()
    answer_reader, answer_writer = os.pipe()
    standing = walls.separate()
    if os.fork() == 0:
        for fd in (job, verdict, ask_writer, answer_reader):  # the job must be gone before anything else
            os.close(fd)
        with os.fdopen(ask_reader, "rb") as asked, os.fdopen(answer_writer, "wb") as answers:
            _answer(asked, answers, walls.enclose(memory, seconds))
        os._exit(0)
    os.close(ask_reader)
    os.close(answer_writer)
    walls.limit(2 * memory, seconds)
    with os.fdopen(job, "rb") as stream:
        asked_for = json.loads(stream.read())
    found = _judge(asked_for, os.fdopen(ask_writer, "wb"), os.fdopen(answer_reader, "rb"), standing)
    os.write(verdict, json.dumps(found).encode())
    os._exit(0)


def _judge(job: dict[str, Any], to: BinaryIO, back: BinaryIO, standing: list[str]) -> dict[str, Any]:
    def ask(message: str) -> Any:
        try:
            to.write(message.encode() + b"\n")
            to.flush()
        except BrokenPipeError:
            raise Silent("ended before it answered") from None
        line = back.readline(_LONGEST)
        if not line.endswith(b"\n"):
            raise Silent("ended before it answered" if len(line) < _LONGEST else "answered too much")
        kind, value = wire.decode(line)
        if kind == "error":
            name, text = value
            known = getattr(builtins, str(name), None)
            if isinstance(known, type) and issubclass(known, Exception):
                raise known(text)
            raise RuntimeError(f"{name}: {text}")
        return value

    def candidate(*args: Any, **named: Any) -> Any:
        return ask(wire.encode((args, named)))

    try:
        standing += ask(wire.encode((job["program"], job["name"])))
        space: dict[str, Any] = {"__name__": "tests"}
        exec(compile(job["prelude"], "<prelude>", "exec"), space)
        space["candidate"] = space[job["name"]] = candidate
        exec(compile(job["tests"], "<tests>", "exec"), space)
    except BaseException as error:
        said = str(error)[:200]
        return {"error": f"{type(error).__name__}: {said}" if said else type(error).__name__, "walls": standing}
    return {"passed": job["nonce"], "walls": standing}


def _answer(asked: BinaryIO, answers: BinaryIO, standing: list[str]) -> None:
    """First the program is run, then its function is called as often as the judge asks."""

    def reply(kind: str, value: Any) -> None:
        answers.write(wire.encode((kind, value)).encode() + b"\n")
        answers.flush()

    def fail(error: BaseException) -> None:
        reply("error", (type(error).__name__, str(error)[:200]))

    program, name = wire.decode(asked.readline())
    space: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(program, "<program>", "exec"), space)
        function = space[name]
    except BaseException as error:
        return fail(error)
    reply("walls", standing)
    while line := asked.readline():
        args, named = wire.decode(line)
        try:
            answer = function(*args, **named)
            reply("value", answer)
        except BaseException as error:
            fail(error)
