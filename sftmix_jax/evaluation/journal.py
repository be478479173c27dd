"""Work that is never lost and never done twice: rows by a key that says how they came about."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from etils import epath

from sftmix_jax.machine import processes, terminal
from sftmix_jax.machine.files import digest, matching, read_sound_lines

_SECONDS = 5.0  # at most so much work is lost when the process is killed


class Journal:
    """Rows in a folder, by key; each file of it is written whole, so that it can be on gs:// as well.

    The key holds everything that the row depends on, so a row is good for every later run that has its key. Each line
    has a hash of itself; a damaged or changed one is reported, and what it held is asked again.
    Of many processes all remember, and the first writes.
    """

    def __init__(self, folder: epath.Path, *, every: int = 64):
        self._folder, self._every = folder, every
        self._lock = threading.Lock()
        self._waiting: list[dict[str, Any]] = []
        self._since = time.monotonic()
        self._rows: dict[str, Any] = {}
        files = matching(folder, "*.jsonl")
        damaged = []
        for file in files:
            for number, entry in enumerate(read_sound_lines(file, key=str, row=dict | str, digest=str), 1):
                if entry is None or entry != _signed(entry["key"], entry["row"]):
                    damaged.append(f"{file}:{number}")
                else:
                    self._rows[entry["key"]] = entry["row"]
        if damaged and processes.is_first():
            more = f", and {len(damaged) - 1} more lines" if len(damaged) > 1 else ""
            terminal.err(f"{damaged[0]}: truncated or changed{more}; what stood there is asked again")
        self._parts = files
        # A copy that somebody left there has another name; its rows are as good.
        self._next = max((int(file.stem) for file in files if file.stem.isdecimal()), default=-1) + 1

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> Any | None:
        """The row of a key, if there is one."""
        return self._rows.get(key)

    def put(self, key: str, row: Any) -> None:
        """Remember a row; on disk after `every` rows or five seconds."""
        with self._lock:
            self._rows[key] = row
            self._waiting.append(_signed(key, row))
            if len(self._waiting) >= self._every or time.monotonic() - self._since > _SECONDS:
                self._write()

    def close(self) -> None:
        """Everything to disk, in one file."""
        if not processes.is_first():
            return
        with self._lock:
            self._write()
            if len(self._parts) > 1:
                parts = self._parts
                self._waiting = [_signed(key, row) for key, row in self._rows.items()]
                self._write()
                for part in parts:
                    part.unlink()
                self._parts = self._parts[len(parts) :]

    def _write(self) -> None:
        if not self._waiting or not processes.is_first():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{self._next:06}.jsonl"
        partial = self._folder / f"{self._next:06}.partial"
        partial.write_text("".join(json.dumps(entry) + "\n" for entry in self._waiting))
        partial.replace(file)
        self._parts = [*self._parts, file]
        self._next += 1
        self._waiting = []
        self._since = time.monotonic()


def _signed(key: str, row: Any) -> dict[str, Any]:
    """A line of a journal, as it will be read."""
    plain = json.loads(json.dumps({"key": key, "row": row}))
    return {**plain, "digest": digest(plain)}
