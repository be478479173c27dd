"""The paper's strategies as chains of stages; pure rearrangement of shares (no jax).

Each takes a stage as the pattern for all of its stages (epochs, batch, optimiser) and returns stages by
name, in the order in which they are trained. A chain written by hand is as good.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sftmix_jax.data.mixture import Share, as_ratio, fewest_rows, rows_of
from sftmix_jax.machine.errors import UserError

if TYPE_CHECKING:
    from sftmix_jax.experiment.config import Stage

Shares = Mapping[str, Share]


def _stage(pattern: Stage, shares: Shares) -> Stage:
    return dataclasses.replace(copy.deepcopy(pattern), mixture=copy.deepcopy(dict(shares)))


def single(pattern: Stage, domain: str, share: Share) -> dict[str, Stage]:
    """One domain alone."""
    return {domain: _stage(pattern, {domain: share})}


def multitask(pattern: Stage, shares: Shares) -> dict[str, Stage]:
    """All domains at once, in one stage."""
    return {"multitask": _stage(pattern, shares)}


def sequential(pattern: Stage, shares: Shares) -> dict[str, Stage]:
    """One domain after the other, in the order of `shares` (the paper: code, math, general)."""
    return {domain: _stage(pattern, {domain: share}) for domain, share in shares.items()}


def mixed_sequential(pattern: Stage, specialised: Shares, general: Shares) -> dict[str, Stage]:
    """The specialised domains together, then the general ones."""
    return {"specialised": _stage(pattern, specialised), "general": _stage(pattern, general)}


def dmt(pattern: Stage, specialised: Shares, general: Shares, k: float = 1 / 256) -> dict[str, Stage]:
    """Dual-stage mixed fine-tuning: specialised first, then general with a replay of k of the specialised.

    Stage 1 is that of mixed_sequential, and k = 0 is mixed_sequential. Raises UserError for a k below 0.
    """
    if not k >= 0:
        raise UserError(f"k={float(k):g}: must be 0 or more; it is the part of the specialised data that is replayed")
    if k == 0:
        return mixed_sequential(pattern, specialised, general)
    replay = {name: replayed(name, share, k) for name, share in specialised.items()}
    return {
        "specialised": _stage(pattern, specialised),
        "general": _stage(pattern, {**general, **replay}),
    }


def replayed(domain: str, share: Share, k: float) -> Share:
    """k of a share: the head of the same seeded order, so a subset of the rows that the share took.

    Raises UserError where k of a count is no row.
    """
    if share.fraction is not None:
        return Share(fraction=share.fraction * k)
    if share.count is not None:
        count = rows_of(k, share.count)
        if not count:
            raise UserError(
                f"stage 'general': the replay of '{domain}', k={as_ratio(k)} of {share.count} rows, is no row at all; "
                f"the smallest k that works is 1/{share.count}, and {as_ratio(k)} needs at least {fewest_rows(k)} rows"
            )
        return Share(count=count)
    assert share.weight is not None
    return Share(weight=share.weight * k)
