"""Files that are read through a decompressor: gzip and Zstandard, told by the end of their name."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from etils import epath

from sftmix_jax.machine.errors import UserError

_PART = 8192  # bytes that are decompressed at once; of blocks of one repeated byte they become 256 MiB
_WINDOW_LOG = 31  # what `zstd --long=31` asks for; the library refuses more than 27 unless it is told


def suffix(file: epath.Path) -> str:
    """The suffix that tells the format of a file, behind which that of a compression may stand; '' without one."""
    suffixes = [each.lower() for each in file.suffixes]
    return "".join((suffixes[:-1] if suffixes[-1:] and suffixes[-1] in _COMPRESSIONS else suffixes)[-1:])


@contextlib.contextmanager
def opened(file: epath.Path) -> Iterator[BinaryIO]:
    """A stream of the decompressed bytes. Reading raises OSError, EOFError or zlib.error where they are damaged.

    Raises UserError if no package for the compression is installed.
    """
    with file.open("rb") as raw:
        decompressed = _COMPRESSIONS.get(file.suffix.lower())
        if decompressed is None:
            yield raw
            return
        with decompressed(raw, file) as stream:
            yield stream


def _gzip(raw: BinaryIO, file: epath.Path) -> Any:
    return gzip.open(raw)


def _zstandard(raw: BinaryIO, file: epath.Path) -> Any:
    return io.BufferedReader(_Frames(raw, *_find_zstandard(file)), 1 << 16)


_COMPRESSIONS: dict[str, Callable[[BinaryIO, epath.Path], Any]] = {".gz": _gzip, ".zst": _zstandard}


def _find_zstandard(file: epath.Path) -> tuple[Callable[[], Any], type[Exception]]:
    """What makes a decompressor of one frame, and its error; from Python 3.14 itself, or the package zstandard."""
    try:
        from compression import zstd

        options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
        return lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError:
        raise UserError(f"{file}: Zstandard needs the package zstandard: pip install zstandard") from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
    return decompressor.decompressobj, zstandard.ZstdError


class _Frames(io.RawIOBase):
    """All frames of a Zstandard file, one after the other.

    The readers of zstandard end in silence after the first frame, and where the last one was cut.
    """

    def __init__(self, raw: BinaryIO, make: Callable[[], Any], error: type[Exception]):
        self._raw, self._make, self._error = raw, make, error
        self._frame: Any = None  # the decompressor of the frame that was begun
        self._packed, self._plain = b"", memoryview(b"")  # what was read, and what of it was decompressed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain:
            self._packed = self._packed or self._raw.read(_PART)
            if not self._packed:
                if self._frame is None:
                    return 0
                raise EOFError("the file ends within a Zstandard frame")
            self._frame = self._frame or self._make()
            try:
                self._plain = memoryview(self._frame.decompress(self._packed))
            except self._error as error:
                raise OSError(str(error)) from None
            self._packed = b""
            if self._frame.eof:
                self._packed, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._plain))
        buffer[:size] = self._plain[:size]
        self._plain = self._plain[size:]
        return size
