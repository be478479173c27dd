"""What the scaling laws say in numbers: which law, where it saturates, what twice the data would buy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from sftmix_jax.analysis import fits, rule
from sftmix_jax.analysis.cells import BEST, Cells, is_part, number, of_paper, series, worst
from sftmix_jax.analysis.results import Result
from sftmix_jax.analysis.table import Table

GAIN = 0.02  # of the best possible score, or nats a token: doubling that brings less is not worth its price
# The set-ups of RQ3 in which all of an ability's own data stands beside k of the others'.
_OTHERS = {"math": "a", "code": "a", "general": "b"}


@dataclasses.dataclass(frozen=True)
class Curve:
    """An ability at several parts k of some data: its scores with their own draws, or its losses, one per seed."""

    of: str
    against: str
    parts: list[float]
    values: list[float]
    scale: float = 1.0  # of the values as they are shown
    worth: float = GAIN  # a gain by doubling that is still worth it
    drawn: np.ndarray | None = None  # float64 [n, fits.RESAMPLES]
    ends: tuple[float, float] = (-np.inf, np.inf)  # the worst and best possible value
    runs: int | None = None  # seeds, the least over the values


def scores(cells: Cells) -> list[Curve]:
    """Each ability's score against its own data alone, and against the others' beside all of its own."""
    out = []
    for ability in cells.rated:
        best = cells.best(ability)
        for against, setup in _setups(ability).items():
            points = series(cells, ability, **setup)
            if not points or not all(cell.has_spread for _, cell in points):
                continue
            parts, values = [number(k) for k, _ in points], [cell.value for _, cell in points]
            drawn = np.stack([cell.draws[: fits.RESAMPLES] for _, cell in points])
            out.append(
                Curve(
                    f"{ability}, score",
                    against,
                    parts,
                    values,
                    100.0 if best == 1 else 1.0,
                    GAIN * best,
                    drawn,
                    (worst(best), best),
                    rule.least_runs(*(cell for _, cell in points)),
                )
            )
    return out


def losses(found: Iterable[Result], size: str) -> list[Curve]:
    """The same of the loss on validation rows of an ability's own domain, a value a seed."""
    out, last = [], [r for r in found if r.is_last and r.primary and r.validation_loss is not None]
    for ability in dict.fromkeys([*BEST, *(r.ability for r in last)]):
        mine = [r for r in last if r.ability == ability and r.labels.get("size", size) == size]
        for against, setup in _setups(ability).items():
            points = {
                r.experiment: (number(r.labels["k"]), float(r.validation_loss or 0))
                for r in mine
                if is_part(r.labels.get("k")) and of_paper(r.setup) == {**setup, "k": r.labels["k"]}
            }
            parts, values = ([point[i] for point in points.values()] for i in range(2))
            runs = min((parts.count(part) for part in parts), default=0)
            out.append(Curve(f"{ability}, validation loss", against, parts, values, ends=(0.0, np.inf), runs=runs))
    return out


def _setups(ability: str) -> dict[str, dict[str, str]]:
    setups = {"its own data alone": {"strategy": "single", "source": ability}}
    if ability in _OTHERS:
        setups["the others' data, beside all of its own"] = {"strategy": "mixed", "setup": _OTHERS[ability]}
    return setups


def table(curves: Iterable[Curve]) -> Table:
    """A row for each curve of four parts or more."""
    rows: list[list[Any]] = []
    for curve in curves:
        if len(set(curve.parts)) < 4:
            continue
        fit = fits.fit(curve.parts, curve.values, drawn=curve.drawn, ends=curve.ends)
        least, most = min(curve.parts), max(curve.parts)
        change, low, high = (curve.scale * end for end in fit.change(most, 2 * most))
        digits = 1 if curve.scale == 100 else 2
        errors = ", ".join(f"{law.replace('_', '-')} {curve.scale * error:.2g}" for law, error in fit.errors.items())
        told = f"{change:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
        if curve.runs == 1:  # an interval over questions alone says nothing of another run
            told = f"{rule.ONE_RUN}: {change:+.{digits}f}"
        rows.append(
            [
                curve.of,
                curve.against,
                fit.law.replace("_", "-"),
                errors,
                _where(fit, curve, least, most),
                (told, change),
            ]
        )
    columns = ["of", "against", "law", "held-out error of each law", "saturated", "twice the most would bring"]
    caption = (
        f"Saturated: where the 95 % interval of what doubling the data changes lies within {GAIN:.0%} of the best "
        f"possible score, or {GAIN:g} nats per token. The last column is the law extrapolated beyond what was "
        "measured, with its 95 % interval over laws and the values' own uncertainty, and never beyond the best "
        "possible score; rates in %, general from 1 to 10, losses in nats per trained token."
    )
    return Table("laws", "Scaling laws", columns, rows, caption)


def _where(fit: fits.Fit, curve: Curve, least: float, most: float) -> str:
    """From where on doubling is not worth it, if the interval of the last doubling says so."""
    if curve.runs == 1:
        return rule.ONE_RUN
    ends = fit.change(most, 2 * most)[1:]
    if all(abs(end) < curve.worth for end in ends):
        saturated = fit.saturation(curve.worth, most) or most
        return "wherever it was measured" if saturated <= least else f"from k = {saturated:.2g} on"
    is_worth_it = ends[0] * ends[1] > 0 and min(map(abs, ends)) >= curve.worth
    return f"not up to k = {most:g}" if is_worth_it else rule.UNCLEAR
