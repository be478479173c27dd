"""How many findings a study's report judges together, known from its set-ups before anything is run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sftmix_jax.analysis import cells, findings, uncertain
from sftmix_jax.analysis.cells import BEST, Cells, Labels


def size(setups: Sequence[Mapping[str, Any]], abilities: Sequence[str]) -> int:
    """The paper's findings that set-ups with these labels compare, else the best set-up by each ability and the mean.

    Labels are without seeds. Findings count once for each model size and each value of the study's own axes.
    """
    groups: dict[tuple[str, ...], list[Labels]] = defaultdict(list)
    named = list(dict.fromkeys(tuple(sorted(cells.given(setup.items()).items())) for setup in setups))
    axes = ["size", *cells.own_axes(named)]
    for setup in named:
        groups[tuple(str(dict(setup).get(axis)) for axis in axes)].append(setup)
    tested = sum(bool(claim.verdicts) for group in groups.values() for claim in findings.claims(_any(group, abilities)))
    return tested or len(abilities) + (len(abilities) > 1)


def _any(group: Sequence[Labels], abilities: Sequence[str]) -> Cells:
    """Scores that are all alike: only which there are counts."""
    made = {
        (ability, setup): uncertain.published(BEST.get(ability, 1.0) / 2, 0.01, f"{ability} {setup}")
        for ability in abilities
        for setup in group
    }
    return Cells(made, "planned", 2)
