"""A stand-in for `socket.socketpair`, which the walls refuse: what asyncio wakes its event loop with."""

from __future__ import annotations

import fcntl
import gc
import os
from typing import Any


class _End:
    """One end of a pipe, with the part of a socket's methods that event loops use."""

    def __init__(self, fd: int):
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def setblocking(self, flag: bool) -> None:
        # os.set_blocking needs ioctl, which the walls refuse
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_NONBLOCK if flag else flags | os.O_NONBLOCK)

    def recv(self, count: int) -> bytes:
        return os.read(self._fd, count)

    def send(self, data: bytes) -> int:
        return os.write(self._fd, data)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    __del__ = close  # as of a socket: event loops that nobody closes would use up the files that a process may open


def pair(*_: Any) -> tuple[_End, _End]:
    """The end that is read, and the end that is written."""
    gc.collect()  # a loop refers to itself: one that nobody has closed holds its files until it is found
    reader, writer = os.pipe()
    return _End(reader), _End(writer)
