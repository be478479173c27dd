"""What every command does around its work: the process is set up before, an exit code tells the end."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sftmix_jax.machine import compilation, host_memory, options, processes, terminal
from sftmix_jax.machine.errors import UserError

T = TypeVar("T")

_DISK = {
    errno.ENOSPC: "the disk is full: free some space, then run the same command again to go on",
    errno.EROFS: "the file system is read-only: choose another --workdir",
    errno.EACCES: "no permission: choose a --workdir that you may write to",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another --workdir",
    errno.EEXIST: "a file stands where a folder is needed: choose another --workdir",
    errno.EISDIR: "a folder stands where a file is needed: move it away, then run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space, then run the same command again",
}

# Imported where they are used, by package name: a machine may lack those that its commands do not need.
_PACKAGES = {
    "datasets": "datasets",
    "matplotlib": "matplotlib",
    "plotly": "plotly",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}


def run(command: Callable[[T], int | None], kind: type[T], *, together: bool = False) -> None:
    """Runs a command with its options of the command line; bad input ends it with one message and exit code 2.

    `--help` prints the docstring of the command's module, the options and the fields of a config that is named.
    `together`: with the other processes that the environment names, all doing the same.
    """
    _close_stdin()
    asks_for_help = bool({"--help", "-h"} & set(sys.argv[1:]))
    sys.excepthook = lambda *error: terminal.err("".join(traceback.format_exception(*error)).rstrip())
    if not asks_for_help:  # these import jax
        host_memory.keep_freed()
        compilation.set_up()
    try:
        if asks_for_help:
            doc = sys.modules[command.__module__].__doc__ or ""
            for line in options.help_lines(kind, doc, sys.argv[1:]):
                terminal.out(line)
            processes.leave(0)
        if together:
            processes.join()
        code = command(options.parse(kind, sys.argv[1:]))
    except UserError as error:
        processes.say(f"error: {error}")
        processes.leave(2)
    except BrokenPipeError:  # as of `… | head`
        processes.leave(141)
    except OSError as error:
        if error.errno not in _DISK:
            _fail()
            raise
        processes.say(f"error: {error.filename or 'cannot write'}: {_DISK[error.errno]}")
        os._exit(2)  # writes that are still under way would only fail and say so again
    except ImportError as error:
        if not (missing := _missing(error)):
            _fail()
            raise
        processes.say(f"error: {missing}")
        processes.leave(2)
    except SystemExit as error:
        if not (place := _foreign(error)):
            raise
        processes.say(f"error: {place}: ends the program (SystemExit); raise an exception instead")
        processes.leave(2)
    except RuntimeError as error:
        if not (no_gpu := compilation.no_gpu(error)):
            _fail()
            raise
        processes.say(f"error: {no_gpu}")
        processes.leave(2)
    except KeyboardInterrupt:
        processes.say("interrupted")
        processes.leave(130)
    except Exception:
        _fail()
        raise
    processes.leave(code or 0)


def _missing(error: ImportError) -> str:
    """What to install, or nothing if the error is not of a package that a machine may lack."""
    if "gcsfs" in str(error):
        return "paths at gs:// need gcsfs: pip install 'sftmix-jax[gcs]'"
    package = _PACKAGES.get((error.name or "").partition(".")[0])
    return f"this needs the package {package}, which is not installed: pip install {package}" if package else ""


def _foreign(error: SystemExit) -> str:
    """Where a user's file raised it, which must not look like a finished command; empty where a command did."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "_sitebuiltins" not in frame.filename]
    file = Path(frames[-1].filename)
    return "" if file.is_relative_to(Path(__file__).parent.parent) else f"{file}:{frames[-1].lineno}"


_stdin: int | None = None  # the standard input that the process was started with


def _close_stdin() -> None:
    """Points standard input to the null device, so that no library can ask the user, or a pipe, for consent."""
    global _stdin
    with contextlib.suppress(OSError):  # it may be closed already
        _stdin = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    if null != 0:
        os.dup2(null, 0)
        os.close(null)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (open to the end; a new one has nothing buffered)


@contextlib.contextmanager
def open_stdin() -> Iterator[None]:
    """Standard input as the process was started with it, for the commands that talk with the user."""
    if _stdin is not None:
        os.dup2(_stdin, 0)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (open to the end)
    try:
        yield
    finally:
        _close_stdin()


def _fail() -> None:
    """An error of ours: where there are other processes, show it and end, so that they end too.

    Unless it only says that another one is gone: then that is what is said.
    """
    if processes.are_many():
        processes.hear_of_deaths()
        terminal.err(traceback.format_exc().rstrip(), sys.__stderr__)
        processes.leave(1)
