"""What every command does around its work: the process is set up before, an exit code tells the end."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from sftmix_jax import compilation, host_memory
from sftmix_jax.errors import UserError

_DISK = {
    errno.ENOSPC: "the disk is full: free some space, then run the same command again to go on",
    errno.EROFS: "the file system is read-only: choose another --workdir",
    errno.EACCES: "no permission: choose a --workdir that you may write to",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another --workdir",
    errno.EEXIST: "a file stands where a folder is needed: choose another --workdir",
    errno.EDQUOT: "the disk quota is used up: free some space, then run the same command again",
}


def run(command: Callable[[], int | None]) -> None:
    """Run a command; bad input ends it with one message on stderr and exit code 2."""
    host_memory.keep_freed()
    compilation.set_up()
    try:
        code = command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        print(f"error: {error.filename or 'cannot write'}: {_DISK[error.errno]}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(2)  # writes that are still under way would only fail and say so again
    except ImportError as error:
        if "gcsfs" not in str(error):
            raise
        print("error: paths at gs:// need gcsfs: pip install 'sftmix-jax[gcs]'", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(code or 0)
