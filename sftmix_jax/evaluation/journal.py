"""Work that is never lost and never done twice: rows by a key that says how they came about."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from etils import epath

from sftmix_jax import processes

_SECONDS = 5.0  # at most so much work is lost when the process is killed


class Journal:
    """Rows in a folder, by key; each file of it is written whole, so that it can be on gs:// as well.

    The key holds everything that the row depends on, so a row is good for every later run that has its key.
    Of many processes all remember, and the first writes.
    """

    def __init__(self, folder: epath.Path, *, every: int = 64):
        self._folder, self._every = folder, every
        self._lock = threading.Lock()
        self._waiting: list[dict[str, Any]] = []
        self._since = time.monotonic()
        self._rows: dict[str, Any] = {}
        files = sorted(folder.glob("*.jsonl")) if folder.exists() else []
        for file in files:
            for line in file.read_text().splitlines():
                entry = json.loads(line)
                self._rows[entry["key"]] = entry["row"]
        self._parts = files
        self._next = max((int(file.stem) for file in files), default=-1) + 1

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> Any | None:
        """The row of a key, if there is one."""
        return self._rows.get(key)

    def put(self, key: str, row: Any) -> None:
        """Remember a row; on disk after `every` rows or five seconds."""
        with self._lock:
            self._rows[key] = row
            self._waiting.append({"key": key, "row": row})
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
                self._waiting = [{"key": key, "row": row} for key, row in self._rows.items()]
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
