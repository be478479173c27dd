"""Scaling laws: a score or a loss as a function of the amount of data.

Each law is linear in two numbers once its shape is chosen, y = a + b·g(x; shape), so it is fitted by trying shapes on
a grid and solving for a and b exactly: no starting values, no local minima, and thousands of bootstrap fits at once.

  power       g = x^-shape                        a floor (or ceiling) that more data approaches
  saturating  g = exp(-x / shape)                 the same, sooner
  log_linear  g = log x                           no end in sight
  logistic    g = 1 / (1 + (x / middle)^-slope)   a rate that rises from one level to another; its shape is both
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
    shape: tuple[float, float]  # the second is 1 where a law has one
    errors: dict[str, float]  # root mean square held-out error of each law, amounts left out in turn
    laws: np.ndarray  # of each resampled fit: index into LAWS [R]
    coefficients: np.ndarray  # float64 [R, 4]: a, b, and the shape's two numbers
    scale: float  # amounts are divided by this before g
    ends: tuple[float, float]  # no value lies beyond them

    def at(self, amounts: np.ndarray) -> np.ndarray:
        """The curve, float64 [n]."""
        return np.asarray(np.clip(self.a + self.b * _g(self.law, amounts / self.scale, *self.shape), *self.ends))

    def curves(self, amounts: np.ndarray) -> np.ndarray:
        """The curve of each resampled fit, float64 [R, n]; the choice of the law is resampled with the rest."""
        curves = np.empty((len(self.laws), len(amounts)))
        for index, law in enumerate(LAWS):
            chosen = self.laws == index
            a, b, *shape = (column[:, None] for column in self.coefficients[chosen].T)
            curves[chosen] = a + b * _g(law, (amounts / self.scale)[None, :], *shape)
        return curves.clip(*self.ends)

    def band(self, amounts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """95 % band of the curve, float64 [n] each."""
        low, high = np.percentile(self.curves(amounts), [2.5, 97.5], axis=0)
        return low, high

    def change(self, less: float, more: float) -> tuple[float, float, float]:
        """What `more` data brings beyond `less`, with its 95 % interval."""
        ends = np.array([less, more])
        low, high = np.percentile(np.diff(self.curves(ends))[:, 0], [2.5, 97.5])
        return float(np.diff(self.at(ends))[0]), float(low), float(high)

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


LAWS = ("power", "saturating", "log_linear", "logistic")
_PARAMETERS = {"power": 3, "saturating": 3, "log_linear": 2, "logistic": 4}
_SLOPES = (0.5, 1.0, 2.0, 4.0)


def _g(law: str, x: np.ndarray, shape: np.ndarray | float, slope: np.ndarray | float = 1.0) -> np.ndarray:
    if law == "power":
        return x ** -np.asarray(shape)
    if law == "saturating":
        return np.exp(-x / shape)
    if law == "logistic":
        return 1 / (1 + (x / shape) ** -np.asarray(slope))
    return np.log(x) + 0 * np.asarray(shape)


def _shapes(law: str, x: np.ndarray) -> list[tuple[float, float]]:
    if law == "power":
        return [(shape, 1.0) for shape in np.linspace(0.05, 2.0, _SHAPES).tolist()]
    if law == "saturating":
        return [(shape, 1.0) for shape in np.geomspace(x.min(), 2 * x.max(), _SHAPES).tolist()]
    if law == "logistic":
        middles = np.geomspace(x.min(), 4 * x.max(), _SHAPES // 2).tolist()
        return [(middle, slope) for slope in _SLOPES for middle in middles]
    return [(1.0, 1.0)]


def fit(
    amounts: Sequence[float],
    values: Sequence[float],
    seed: int = 0,
    drawn: np.ndarray | None = None,
    ends: tuple[float, float] = (-np.inf, np.inf),
) -> Fit:
    """The best law through (amount, value), which stays between two ends.

    `drawn`, float64 [n, RESAMPLES]: the values with their own uncertainty. Without it repeats of an amount (seeds) tell
    the noise, and where there are no repeats the residuals do. Raises ValueError for fewer than four different amounts.
    """
    x, y = np.asarray(amounts, np.float64), np.asarray(values, np.float64)
    levels = np.unique(x)
    if len(levels) < 4:
        raise ValueError(f"a scaling law needs at least four different amounts, there are {len(levels)}")
    scale = float(np.exp(np.log(levels).mean()))
    x, levels = x / scale, levels / scale
    errors = {law: float(_held_out(law, x, y[:, None], levels)[0]) for law in LAWS}
    law = min(errors, key=errors.__getitem__)
    a, b, *shape = (float(row[0]) for row in _solve(law, x, y[:, None]))
    if drawn is None:
        sigma = _noise(x, y, a + b * _g(law, x, *shape), levels, _PARAMETERS[law])
        middles = np.array([y[x == each].mean() for each in x])
        noise = np.random.default_rng(seed).standard_t(_degrees(x, levels), (len(x), RESAMPLES))
        drawn = middles[:, None] + sigma * noise
    held = np.stack([_held_out(each, x, drawn, levels) for each in LAWS])
    chosen = held.argmin(axis=0)
    coefficients = np.empty((RESAMPLES, 4))
    for index, each in enumerate(LAWS):
        coefficients[chosen == index] = _solve(each, x, drawn).T[chosen == index]
    return Fit(law, a, b, (shape[0], shape[1]), errors, chosen, coefficients, scale, ends)


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


def _solve(law: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares for y float64 [n, R] → float64 [4, R]: a, b and the shape's two numbers, the best of a grid."""
    shapes = np.array(_shapes(law, x))  # [K, 2]
    curves = _g(law, x[None, :], shapes[:, :1], shapes[:, 1:])  # [K, n]
    centres = curves.mean(axis=1, keepdims=True)
    lengths = np.sqrt(((curves - centres) ** 2).sum(axis=1, keepdims=True))
    along = ((curves - centres) / np.maximum(lengths, 1e-30)) @ y  # [K, R]; what each shape explains is its square
    best = (along**2).argmax(axis=0)
    b = np.take_along_axis(along, best[None], axis=0)[0] / np.maximum(lengths[best, 0], 1e-30)
    return np.stack([y.mean(axis=0) - b * centres[best, 0], b, *shapes[best].T])


def _held_out(law: str, x: np.ndarray, y: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Root mean square error at amounts that the fit did not see, each left out in turn, float64 [R]."""
    squares = np.zeros(y.shape[1])
    for level in levels:
        out = x == level
        a, b, *shape = _solve(law, x[~out], y[~out])
        predicted = a + b * _g(law, np.full(y.shape[1], level), *shape)
        squares += ((y[out] - predicted) ** 2).mean(axis=0)
    return np.sqrt(squares / len(levels))
