"""What the scaling laws say in numbers: which law, where it saturates, what twice the data would buy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from sftmix_jax.analysis import fits
from sftmix_jax.analysis.cells import BEST, Cells, is_part, number, of_paper, series
from sftmix_jax.analysis.page import Table
from sftmix_jax.analysis.results import Result

GAIN = 0.02  # of the best possible score, or nats a token: doubling that brings less is not worth its price
# The set-ups of RQ3 in which all of an ability's own data stands beside k of the others'.
_OTHERS = {"math": "a", "code": "a", "general": "b"}


@dataclasses.dataclass(frozen=True)
class Curve:
    """A score or a loss of an ability at several parts k of some data; a part's repeats are seeds."""

    of: str
    against: str
    parts: list[float]
    values: list[float]
    scale: float = 1.0  # of the values as they are shown
    worth: float = GAIN  # a gain by doubling that is still worth it


def scores(cells: Cells) -> list[Curve]:
    """Each ability's score against its own data alone, and against the others' beside all of its own."""
    out = []
    for ability in cells.rated:
        best = cells.best(ability)
        for against, setup in _setups(ability).items():
            points = series(cells, ability, **setup)
            parts, values = [number(k) for k, _ in points], [cell.value for _, cell in points]
            out.append(Curve(f"{ability}, score", against, parts, values, 100.0 if best == 1 else 1.0, GAIN * best))
    return out


def losses(found: Iterable[Result], size: str) -> list[Curve]:
    """The same of the loss on validation rows of an ability's own domain, a value a seed."""
    out, last = [], [r for r in found if r.is_last and r.primary and r.validation_loss is not None]
    for ability in dict.fromkeys([*BEST, *(r.ability for r in last)]):
        mine = [r for r in last if r.ability == ability and r.labels.get("size", size) == size]
        for against, setup in _setups(ability).items():
            points = {
                r.experiment: (number(r.labels["k"]), float(r.validation_loss or 0)) for r in mine
                if is_part(r.labels.get("k")) and of_paper(r.setup) == {**setup, "k": r.labels["k"]}
            }  # fmt: skip
            parts, values = ([point[i] for point in points.values()] for i in range(2))
            out.append(Curve(f"{ability}, validation loss", against, parts, values))
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
        fit = fits.fit(curve.parts, curve.values)
        least, most = min(curve.parts), max(curve.parts)
        change, low, high = (curve.scale * end for end in fit.change(most, 2 * most))
        digits = 1 if curve.scale == 100 else 2
        errors = ", ".join(f"{law.replace('_', '-')} {curve.scale * error:.2g}" for law, error in fit.errors.items())
        rows.append([
            curve.of, curve.against, fit.law.replace("_", "-"), errors,
            _where(fit, curve, least, most),
            (f"{change:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})", change),
        ])  # fmt: skip
    columns = ["of", "against", "law", "held-out error of each law", "saturated", "twice the most would bring"]
    caption = (
        f"Saturated: where doubling the data surely changes less than {GAIN:.0%} of the best possible score, or "
        f"{GAIN:g} nats per token. The last column is the law extrapolated beyond what was measured, with its 95 % "
        "interval over laws and noise; rates in %, general from 1 to 10, losses in nats per trained token."
    )
    return Table("laws", "Scaling laws", columns, rows, caption)


def _where(fit: fits.Fit, curve: Curve, least: float, most: float) -> str:
    """From where on doubling is not worth it, if the interval of the last doubling says so."""
    ends = fit.change(most, 2 * most)[1:]
    if all(abs(end) < curve.worth for end in ends):
        saturated = fit.saturation(curve.worth, most) or most
        return "wherever it was measured" if saturated <= least else f"from k = {saturated:.2g} on"
    surely = ends[0] * ends[1] > 0 and min(map(abs, ends)) >= curve.worth
    return f"not up to k = {most:g}" if surely else "cannot tell"
