"""What the scaling laws say in numbers: which law, where it saturates, what twice the data would buy."""

from __future__ import annotations

from typing import Any

import numpy as np

from sftmix_jax.analysis import fits
from sftmix_jax.analysis.cells import BEST, Cells, series
from sftmix_jax.analysis.figures import number
from sftmix_jax.analysis.findings import PARTS
from sftmix_jax.analysis.page import Table

GAIN = 0.02  # of the best possible score: doubling that brings less is not worth its price


def table(cells: Cells) -> Table:
    """A row for each ability that was measured alone at four parts of its source or more."""
    rows: list[list[Any]] = []
    for ability in cells.abilities:
        alone = series(cells, ability, PARTS, strategy="single", source=ability)
        if len(alone) < 4:
            continue
        best, scale = BEST[ability], 100.0 if BEST[ability] == 1 else 1.0
        fit = fits.fit([number(k) for k, _ in alone], [cell.value for _, cell in alone])
        most = max(number(k) for k, _ in alone)
        saturated = fit.saturation(GAIN * best, most)
        now, twice = fit.at(np.array([most, 2 * most]))
        errors = ", ".join(f"{law.replace('_', '-')} {scale * error:.2g}" for law, error in fit.errors.items())
        rows.append([
            ability, fit.law.replace("_", "-"), errors,
            _where(saturated, min(number(k) for k, _ in alone), most),
            (f"{scale * (twice - now):+.1f}", float(twice - now)),
        ])  # fmt: skip
    columns = ["ability alone", "law", "held-out error of each law", "saturated", "twice the most would bring"]
    caption = (
        f"Saturated: where doubling the data brings less than {GAIN:.0%} of the best possible score. The last column "
        "is the law carried on beyond what was measured; scores in %, general from 1 to 10."
    )
    return Table("laws", columns, rows, caption)


def _where(saturated: float | None, least: float, most: float) -> str:
    if saturated is None:
        return f"not up to k = {most:g}"
    return "wherever it was measured" if saturated <= least else f"from k = {saturated:.2g} on"
