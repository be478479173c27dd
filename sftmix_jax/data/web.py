"""Files at https://, copied to this machine before they are read."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from etils import epath

from sftmix_jax.machine.errors import UserError

SCHEMES = ("https://", "http://")


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Removed as the process ends."""
    return tempfile.TemporaryDirectory(prefix="sftmix_jax-")


@functools.cache  # once per process: a run does not read two states of a file
def fetched(url: str) -> epath.Path:
    """A copy of a web file, with its name. Raises UserError."""
    import fsspec

    name = Path(unquote(urlsplit(url).path)).name  # in this order: an escaped slash must not lead out of the folder
    if name in ("", ".."):
        raise UserError(f"{url}: names no file; an address must end with one, as in https://HOST/rows.jsonl")
    copy = Path(tempfile.mkdtemp(dir=_folder().name)) / name
    try:
        fsspec.filesystem(urlsplit(url).scheme).get_file(url, str(copy))
    except ImportError:
        raise
    except Exception as error:  # aiohttp has many
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{url}: cannot be fetched ({reason}); check the address and the network") from None
    return epath.Path(copy)
