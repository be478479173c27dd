"""Scaling laws: a score or a loss as a function of the amount of data.

Each law is linear in two numbers once its shape is chosen, y = a + b·g(x; shape), so it is fitted by trying shapes on
a grid and solving for a and b exactly: no starting values, no local minima, and thousands of bootstrap fits at once.

  power       g = x^-shape                 a floor (or ceiling) that more data approaches
  saturating  g = exp(-x / shape)          the same, sooner
  log_linear  g = log x                    no end in sight
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
_SHAPES = 25


@dataclasses.dataclass(frozen=True)
class Fit:
    """The law with the smallest held-out error, and what it is over resampled noise."""

    law: str
    a: float
    b: float
    shape: float
    errors: dict[str, float]  # root mean square held-out error of each law, amounts left out in turn
    laws: np.ndarray  # of each resampled fit: index into LAWS [R]
    coefficients: np.ndarray  # float64 [R, 3]: a, b, shape
    scale: float  # amounts are divided by this before g

    def at(self, amounts: np.ndarray) -> np.ndarray:
        """The curve, float64 [n]."""
        return self.a + self.b * _g(self.law, amounts / self.scale, self.shape)

    def band(self, amounts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """95 % band of the curve, float64 [n] each; the choice of the law is resampled with the rest."""
        curves = np.empty((len(self.laws), len(amounts)))
        x = amounts / self.scale
        for index, law in enumerate(LAWS):
            chosen = self.laws == index
            a, b, shape = (column[:, None] for column in self.coefficients[chosen].T)
            curves[chosen] = a + b * _g(law, x[None, :], shape)
        low, high = np.percentile(curves, [2.5, 97.5], axis=0)
        return low, high

    def saturation(self, gain: float, most: float) -> float | None:
        """The smallest amount from which doubling brings less than `gain` (in y, whichever way is better).

        None if that is beyond `most`: the data does not say.
        """
        amounts = np.geomspace(self.scale * 1e-3, most, 400)
        gains = np.abs(self.at(2 * amounts) - self.at(amounts))
        enough = np.flatnonzero(gains >= gain)
        if len(enough) == 0:
            return float(amounts[0])
        return None if enough[-1] == len(amounts) - 1 else float(amounts[enough[-1] + 1])


LAWS = ("power", "saturating", "log_linear")


def _g(law: str, x: np.ndarray, shape: np.ndarray | float) -> np.ndarray:
    if law == "power":
        return x ** -np.asarray(shape)
    if law == "saturating":
        return np.exp(-x / shape)
    return np.log(x) + 0 * np.asarray(shape)


def _shapes(law: str, x: np.ndarray) -> np.ndarray:
    if law == "power":
        return np.linspace(0.05, 2.0, _SHAPES)
    if law == "saturating":
        return np.geomspace(x.min(), 2 * x.max(), _SHAPES)
    return np.ones(1)


def fit(amounts: Sequence[float], values: Sequence[float], seed: int = 0) -> Fit:
    """The best law through (amount, value); repeats of an amount (seeds) tell the noise.

    Raises ValueError for fewer than four different amounts. Without repeats the noise is taken from the residuals.
    """
    x, y = np.asarray(amounts, np.float64), np.asarray(values, np.float64)
    levels = np.unique(x)
    if len(levels) < 4:
        raise ValueError(f"a scaling law needs at least four different amounts, there are {len(levels)}")
    scale = float(np.exp(np.log(levels).mean()))
    x, levels = x / scale, levels / scale
    errors = {law: float(_held_out(law, x, y[:, None], levels)[0]) for law in LAWS}
    law = min(errors, key=errors.__getitem__)
    a, b, shape = (float(column[0]) for column in _solve(law, x, y[:, None]))
    fitted = a + b * _g(law, x, shape)
    sigma = _noise(x, y, fitted, levels, parameters=2 if law == "log_linear" else 3)
    rng = np.random.default_rng(seed)
    drawn = fitted[:, None] + sigma * rng.standard_t(_degrees(x, levels), (len(x), RESAMPLES))
    held = np.stack([_held_out(each, x, drawn, levels) for each in LAWS])
    chosen = held.argmin(axis=0)
    coefficients = np.empty((RESAMPLES, 3))
    for index, each in enumerate(LAWS):
        solved = np.stack(_solve(each, x, drawn), axis=1)
        coefficients[chosen == index] = solved[chosen == index]
    return Fit(law, a, b, shape, errors, chosen, coefficients, scale)


def _degrees(x: np.ndarray, levels: np.ndarray) -> int:
    """Degrees of freedom of the noise: from the repeats, or few where there are none."""
    return max(len(x) - len(levels), len(levels) - 3, 2) + 1


def _noise(x: np.ndarray, y: np.ndarray, fitted: np.ndarray, levels: np.ndarray, parameters: int) -> float:
    """Standard deviation of one value: from the repeats if there are enough, else from the residuals, the larger."""
    residual = float(np.sqrt(((y - fitted) ** 2).sum() / max(len(y) - parameters, 1)))
    repeats = len(x) - len(levels)
    if repeats < 3:
        return residual
    within = sum(((y[x == level] - y[x == level].mean()) ** 2).sum() for level in levels)
    return max(residual, float(np.sqrt(within / repeats)))


def _solve(law: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares for y float64 [n, R] → a, b, shape float64 [R] each, over the grid of shapes."""
    best = np.full(y.shape[1], np.inf)
    a, b, chosen = (np.zeros(y.shape[1]) for _ in range(3))
    for shape in _shapes(law, x):
        X = np.column_stack([np.ones(len(x)), _g(law, x, float(shape))])
        solution, *_ = np.linalg.lstsq(X, y, rcond=None)
        error = ((y - X @ solution) ** 2).sum(axis=0)
        better = error < best
        best = np.where(better, error, best)
        a, b = np.where(better, solution[0], a), np.where(better, solution[1], b)
        chosen = np.where(better, shape, chosen)
    return a, b, chosen


def _held_out(law: str, x: np.ndarray, y: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Root mean square error at amounts that the fit did not see, each left out in turn, float64 [R]."""
    squares = np.zeros(y.shape[1])
    for level in levels:
        out = x == level
        a, b, shape = _solve(law, x[~out], y[~out])
        predicted = a + b * _g(law, np.full(1, level)[:, None], shape[None, :])[0]
        squares += ((y[out] - predicted) ** 2).mean(axis=0)
    return np.sqrt(squares / len(levels))
