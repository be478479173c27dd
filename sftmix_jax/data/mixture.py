"""Which examples a stage sees, in which order: index arithmetic, known before step 0."""

import dataclasses
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence

import grain
import numpy as np

from sftmix_jax.errors import UserError, did_you_mean
from sftmix_jax.ranges import Integer, Number, setting

UNITS = ("examples", "tokens", "trained_tokens")
_LEAVE_OUT = "to leave a domain out, delete it"


@dataclasses.dataclass
class Share:
    """What a stage takes of a domain: exactly one of these."""

    # floor(fraction · rows) of its rows, each `epochs` times
    fraction: float | None = setting(None, Number(above=0, at_most=1, hint=_LEAVE_OUT))
    # exactly so many rows, each `epochs` times
    count: int | None = setting(None, Integer(at_least=1))
    # this part of the stage's budget, rows drawn again as needed
    weight: float | None = setting(None, Number(above=0, hint=_LEAVE_OUT))

    def relations(self, where: str) -> Iterator[str]:
        """Fields that do not fit together (sftmix_jax.ranges)."""
        given = [name for name in ("fraction", "count", "weight") if getattr(self, name) is not None]
        if len(given) != 1:
            yield f"{where}: set one of fraction, count and weight; set are: {', '.join(given) or 'none'}"


@dataclasses.dataclass(frozen=True)
class Pool:
    """What the mixture has to know of a domain: sizes, never tokens."""

    lengths: np.ndarray  # int64 [n], tokens of each example
    trained: np.ndarray  # int64 [n], of them trained on
    held_out: int = 0

    def amounts(self, unit: str) -> np.ndarray:
        """Each example's size in a unit of UNITS."""
        return {"examples": np.ones_like(self.lengths), "tokens": self.lengths, "trained_tokens": self.trained}[unit]


def shuffled(domain: str, size: int, seed: int) -> np.ndarray:
    """The domain's rows in its one seeded order: a share takes the head, the held-out rows are the tail.

    So subsets are nested: the rows of a small share are among those of a larger one.
    """
    return np.random.default_rng([seed, zlib.crc32(domain.encode())]).permutation(size)


def selected(domain: str, pool: Pool, share: Share, seed: int) -> np.ndarray:
    """The examples that a share by fraction or count takes, or that a share by weight draws from."""
    size = len(pool.lengths)
    order = shuffled(domain, size, seed)[: size - pool.held_out]
    # An example whose answer was cut off whole teaches nothing: shares take of the others, the ledger counts it.
    usable = order[pool.trained[order] > 0]
    if share.count is not None:
        wanted = share.count
        if wanted > len(usable):
            raise UserError(
                f"the share of '{domain}' asks for {wanted} rows, there are {len(usable)} (of {size}, {pool.held_out} "
                f"are held out and {len(order) - len(usable)} have no answer within batch.length)"
            )
    elif share.fraction is not None:
        wanted = min(math.floor(share.fraction * size), len(usable))
        if math.floor(share.fraction * size) == 0:
            raise UserError(f"the share of '{domain}': {share.fraction} of {size} rows is no row at all")
    else:
        wanted = len(usable)
    return usable[:wanted]


def held_out(domain: str, pool: Pool, seed: int) -> np.ndarray:
    """The examples that no share takes."""
    return shuffled(domain, len(pool.lengths), seed)[len(pool.lengths) - pool.held_out :]


@dataclasses.dataclass(frozen=True)
class Order:
    """A stage's examples in the order in which they are packed."""

    domains: np.ndarray  # int32 [E], index into the stage's domain names
    examples: np.ndarray  # int64 [E], index into that domain's examples
    selected: dict[str, int]  # examples taken of each domain


def order(
    pools: Mapping[str, Pool], shares: Mapping[str, Share], *, epochs: int, budget: int | None, unit: str, seed: int
) -> Order:
    """The examples of a stage: shares by fraction or count for `epochs`, or by weight for `budget` units."""
    names = list(shares)
    chosen = [selected(name, pools[name], shares[name], seed) for name in names]
    for name, rows in zip(names, chosen, strict=True):
        if not len(rows):
            raise UserError(f"domain '{name}': no row has a trained token within the length; raise batch.length")
    weighted = [shares[name].weight is not None for name in names]
    if any(weighted) and not all(weighted):
        raise UserError("a stage's shares are all by weight or none is: a budget and exact rows do not mix")
    # Ids count through all domains, so that one integer names an example.
    starts = np.cumsum([0, *[len(pools[name].lengths) for name in names]])
    parts = [
        grain.MapDataset.source(start + rows).seed(seed + i).shuffle()
        for i, (start, rows) in enumerate(zip(starts, chosen, strict=False))
    ]
    if not any(weighted):
        mixed = grain.MapDataset.concatenate(parts).seed(seed).shuffle().repeat(epochs)
        ids = _take(mixed, len(mixed))
    else:
        if unit not in UNITS:
            raise UserError(f"mixture unit '{unit}': {did_you_mean(unit, UNITS)}")
        if not budget:
            raise UserError("shares by weight need a budget: set the stage's budget (in its unit) or its steps")
        amounts = [pools[name].amounts(unit)[rows] for name, rows in zip(names, chosen, strict=True)]
        weights = np.array([shares[name].weight for name in names]) / [a.mean() for a in amounts]
        mixed = grain.MapDataset.mix([part.repeat() for part in parts], list(weights / weights.sum()))
        sizes = np.concatenate([pools[name].amounts(unit) for name in names])
        ids = _take_budget(mixed, sizes, budget)
    domains = (np.searchsorted(starts, ids, side="right") - 1).astype(np.int32)
    return Order(domains, ids - starts[domains], {n: len(rows) for n, rows in zip(names, chosen, strict=True)})


def _take(ids: Sequence[int], count: int) -> np.ndarray:
    return np.fromiter((ids[i] for i in range(count)), np.int64, count)


def _take_budget(ids: Sequence[int], sizes: np.ndarray, budget: int) -> np.ndarray:
    """The shortest head of `ids` whose sizes reach the budget."""
    taken = np.empty(0, np.int64)
    while sizes[taken].sum() < budget:
        grown = max(1024, 2 * len(taken))
        taken = np.fromiter((ids[i] for i in range(grown)), np.int64, grown)
    return taken[: np.searchsorted(np.cumsum(sizes[taken]), budget) + 1]
