"""Examples → fixed rows of T tokens: best fit within a window, planned from lengths alone."""

from __future__ import annotations

import bisect
import dataclasses

import numpy as np

PACKINGS = ("best_fit", "none")
WINDOW = 4096  # examples packed together: 99 % fill on real data, and the order stays nearly that of the mixture


@dataclasses.dataclass(frozen=True)
class Packed:
    """Which examples stand in which row."""

    members: np.ndarray  # int64 [E]: positions in the mixture's order, row after row
    starts: np.ndarray  # int64 [rows + 1]: row r holds members[starts[r]:starts[r + 1]]

    @property
    def num_rows(self) -> int:
        return len(self.starts) - 1


def pack(lengths: np.ndarray, capacity: int, packing: str, seed: int, max_rows: int | None = None) -> Packed:
    """Plan rows for examples of these lengths (each at most `capacity`), every one exactly once.

    With `max_rows`, only as many of the first examples are planned as fill that many rows.
    """
    if packing == "none":
        count = len(lengths) if max_rows is None else min(max_rows, len(lengths))
        return Packed(np.arange(count), np.arange(count + 1))
    rng = np.random.default_rng(seed)
    rows: list[list[int]] = []
    for start in range(0, len(lengths), WINDOW):
        own = lengths[start : start + WINDOW]
        window = best_fit(own, capacity)
        missing = None if max_rows is None else max_rows - len(rows)
        if missing is not None and len(window) > missing:
            window = _filling(own, capacity, missing)
        # Best fit leaves rows sorted by the size of their first example; training wants them mixed.
        rows += [[start + i for i in window[j]] for j in rng.permutation(len(window))]
        if len(rows) == max_rows:
            break
    starts = np.cumsum([0, *map(len, rows)])
    return Packed(np.fromiter((i for row in rows for i in row), np.int64, starts[-1]), starts)


def _filling(lengths: np.ndarray, capacity: int, rows: int) -> list[list[int]]:
    """`rows` rows of the first examples that need as many, so that no example is passed over."""
    enough = bisect.bisect_left(range(len(lengths)), rows, key=lambda count: len(best_fit(lengths[:count], capacity)))
    return best_fit(lengths[:enough], capacity)[:rows]


def best_fit(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Best-fit decreasing: each example, longest first, goes to the fullest row that still holds it."""
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, row), sorted
    sizes = lengths.tolist()  # Python's integers: numpy's take twice as long, one at a time
    for i in np.argsort(-lengths, kind="stable").tolist():
        size = sizes[i]
        at = bisect.bisect_left(free, (size, -1))
        if at == len(free):
            room, row = capacity, len(rows)
            rows.append([])
        else:
            room, row = free.pop(at)
        rows[row].append(i)
        if room > size:
            bisect.insort(free, (room - size, row))
    return rows
