"""Errors that speak to the user: what, where, what to do. Exit code 2, no traceback."""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Input that cannot be used; the message names the place and the remedy."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(known) or 'none'}"


_DISK = {
    errno.ENOSPC: "the disk is full: free some space, then run the same command again to go on",
    errno.EROFS: "the file system is read-only: choose another --workdir",
    errno.EACCES: "no permission: choose a --workdir that you may write to",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another --workdir",
    errno.EEXIST: "a file stands where a folder is needed: choose another --workdir",
    errno.EDQUOT: "the disk quota is used up: free some space, then run the same command again",
}


def exit_on_user_error(command: Callable[[], int | None]) -> None:
    """Run a command; bad input ends it with one message on stderr and exit code 2."""
    try:
        code = command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        print(f"error: {error.filename or 'cannot write'}: {_DISK[error.errno]}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(code or 0)
