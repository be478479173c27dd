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


def pack(lengths: np.ndarray, capacity: int, packing: str, seed: int) -> Packed:
    """Plan rows for examples of these lengths (each at most `capacity`), every one exactly once."""
    if packing == "none":
        return Packed(np.arange(len(lengths)), np.arange(len(lengths) + 1))
    rng = np.random.default_rng(seed)
    rows: list[list[int]] = []
    for start in range(0, len(lengths), WINDOW):
        window = best_fit(lengths[start : start + WINDOW], capacity)
        # Best fit leaves rows sorted by the size of their first example; training wants them mixed.
        rows += [[start + i for i in window[j]] for j in rng.permutation(len(window))]
    starts = np.cumsum([0, *map(len, rows)])
    return Packed(np.fromiter((i for row in rows for i in row), np.int64, len(lengths)), starts)


def best_fit(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Best-fit decreasing: each example, longest first, goes to the fullest row that still holds it."""
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, row), sorted
    for i in np.argsort(-lengths, kind="stable"):
        size = int(lengths[i])
        at = bisect.bisect_left(free, (size, -1))
        if at == len(free):
            room, row = capacity, len(rows)
            rows.append([])
        else:
            room, row = free.pop(at)
        rows[row].append(int(i))
        if room > size:
            bisect.insort(free, (room - size, row))
    return rows
