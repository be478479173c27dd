"""Files of one domain that hold the same rows, as a file and its compressed copy do."""

from __future__ import annotations

import hashlib
import itertools
import re

_PLACE = re.compile(r":\d+$|\[\d+\]$")  # of a row, behind the name of its file


class Copies:
    """Hashes each file's examples, in their order, to find files with equal ones."""

    def __init__(self) -> None:
        self._contents: dict[str, hashlib._Hash] = {}
        self._rows: dict[str, int] = {}

    def add(self, where: str, example: bytes) -> None:
        """The example of the row at this place, as it is stored."""
        file = _PLACE.sub("", where)
        self._contents.setdefault(file, hashlib.sha256()).update(example)
        self._rows[file] = self._rows.get(file, 0) + 1

    def notices(self) -> list[str]:
        """A line per set of files with equal examples."""
        ordered = sorted(self._contents, key=lambda file: (self._contents[file].digest(), file))
        found = []
        for _, group in itertools.groupby(ordered, lambda file: self._contents[file].digest()):
            first, *others = group
            if others:
                rows = f"{self._rows[first]:,} rows" if self._rows[first] > 1 else "row"
                found.append(
                    f"{', '.join(others)} and {first} hold the same {rows}, which therefore count {len(others) + 1} "
                    "times; leave all but one of these files out"
                )
        return sorted(found)
