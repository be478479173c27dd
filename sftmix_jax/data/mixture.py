"""Which examples a stage sees, in which order: index arithmetic, known before step 0."""

import dataclasses
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import ClassVar, NoReturn

import numpy as np

from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.ranges import Integer, Number, setting

UNITS = ("examples", "tokens", "trained_tokens")
_LEAVE_OUT = "to leave a domain out, delete it"
_ROUNDING = 2.0**-48  # relative: what a float, or a product of a few, may miss the number that was written by
_MISSED = 0.01  # of a share by weight: more than this is reported
MOST_EXAMPLES = 200_000_000  # of a stage; their order is held in memory
MOST_BUDGET = 2**53  # units of a stage: integers that float64 holds exactly
_BLOCK = 1 << 16  # examples that are shuffled at a time


@dataclasses.dataclass
class Share:
    """What a stage takes of a domain: exactly one of these; one that the command line sets replaces the config's."""

    EXCLUSIVE: ClassVar = ("fraction", "count", "weight")

    fraction: float | None = setting(
        None,
        Number(above=0, at_most=1, hint=_LEAVE_OUT),
        "floor(fraction · rows) of the rows that are not held out, each `epochs` times",
    )
    count: int | None = setting(None, Integer(at_least=1), "exactly this many rows, each `epochs` times")
    weight: float | None = setting(
        None,
        Number(at_least=1e-15, at_most=1e15, hint=_LEAVE_OUT),
        "part of the stage's budget, relative to the other weights; rows are repeated as needed",
    )

    def relations(self, where: str) -> Iterator[str]:
        """Fields that do not fit together (sftmix_jax.machine.ranges)."""
        given = [name for name in self.EXCLUSIVE if getattr(self, name) is not None]
        if len(given) != 1:
            yield f"{where}: set one of fraction, count and weight; set are: {', '.join(given) or 'none'}"


@dataclasses.dataclass(frozen=True)
class Pool:
    """What the mixture has to know of a domain: sizes, never tokens."""

    lengths: np.ndarray  # int64 [n], tokens of each example
    trained: np.ndarray  # int64 [n], of them trained on
    validation_rows: int = 0

    def amounts(self, unit: str) -> np.ndarray:
        """Each example's size in a unit of UNITS, or in the places of a packed row that it fills."""
        return {
            "examples": np.ones_like(self.lengths),
            "tokens": self.lengths,
            "trained_tokens": self.trained,
            "places": self.lengths - 1,
        }[unit]


def rows_of(fraction: float, rows: int) -> int:
    """floor(fraction · rows) for the number that was written: 0.29 of 100 rows is 29, 1/49 of 49 is 1.

    A float differs from the decimal or ratio that it stands for, and 0.29 · 100 is 28.999999999999996. A product within
    a relative 2⁻⁴⁸ below an integer counts as that integer. This is exact for ratios p/q while q · rows < 2⁴⁷.
    """
    return math.floor(fraction * rows * (1 + _ROUNDING))


def fewest_rows(fraction: float) -> int:
    """The smallest number of rows of which `fraction` is at least one row."""
    return math.ceil(1 / fraction * (1 - _ROUNDING))


def as_ratio(value: float) -> str:
    """A number as people write it: `1/256`, or `0.29` where no small ratio equals it."""
    ratio = Fraction(value).limit_denominator(10_000)
    exact = math.isclose(ratio, value, rel_tol=_ROUNDING)
    return f"{ratio}" if exact and (ratio.numerator == 1 or ratio.denominator == 1) else f"{value:.6g}"


def shuffled(domain: str, size: int, seed: int) -> np.ndarray:
    """The domain's rows in its one seeded order: a share takes the head, the validation rows are the tail.

    So subsets are nested: the rows of a small share are among those of a larger one.
    """
    return np.random.default_rng([seed, zlib.crc32(domain.encode())]).permutation(size)


def selected(domain: str, pool: Pool, share: Share, seed: int) -> np.ndarray:
    """The examples that a share by fraction or count takes, or that a share by weight draws from; at least one.

    Raises UserError, with the nearest share and the number of rows that would work.
    """
    size = len(pool.lengths)
    order = shuffled(domain, size, seed)[: size - pool.validation_rows]
    # An example whose answer was cut off whole teaches nothing: shares take of the others, the ledger counts it.
    usable = order[pool.trained[order] > 0]
    if not len(usable):
        raise UserError(
            f"domain '{domain}': no row has a trained token within the length, of {size} rows of which "
            f"{pool.validation_rows} are held out; raise batch.seq_len, or hold out fewer rows"
        )
    if share.count is not None:
        wanted = share.count
        if wanted > len(usable):
            raise UserError(
                f"the share of '{domain}' asks for {wanted} rows, there are {len(usable)} (of {size}, "
                f"{pool.validation_rows} are held out and {len(order) - len(usable)} have no answer within "
                f"batch.seq_len); set count to at most {len(usable)}"
            )
    elif share.fraction is not None:
        wanted = min(rows_of(share.fraction, size), len(usable))
        if not wanted:
            raise UserError(
                f"the share of '{domain}': {as_ratio(share.fraction)} of {size} rows is no row at all; the smallest "
                f"fraction that takes a row is 1/{size} ({_decimal(size)}), and {as_ratio(share.fraction)} needs at "
                f"least {fewest_rows(share.fraction)} rows"
            )
    else:
        wanted = len(usable)
    return usable[:wanted]


def _decimal(rows: int) -> str:
    """1/rows in as few digits as still take a row."""
    digits = next(digits for digits in range(1, 18) if rows_of(float(f"{1 / rows:.{digits}g}"), rows))
    return f"{1 / rows:.{digits}g}"


def validation_examples(domain: str, pool: Pool, seed: int) -> np.ndarray:
    """The examples that no share takes."""
    return shuffled(domain, len(pool.lengths), seed)[len(pool.lengths) - pool.validation_rows :]


@dataclasses.dataclass(frozen=True)
class Order:
    """A stage's examples in the order in which they are packed."""

    domains: np.ndarray  # int32 [E], index into the stage's domain names
    examples: np.ndarray  # int64 [E], index into that domain's examples
    selected: dict[str, int]  # examples taken of each domain


def order(
    pools: Mapping[str, Pool],
    shares: Mapping[str, Share],
    *,
    epochs: int,
    budget: int | None,
    unit: str,
    seed: int,
    end: tuple[str, int] | None = None,
) -> Order:
    """The examples of a stage: `epochs` passes of shares by fraction or count, or `budget` units of shares by weight.

    `end` (a unit, or places, and how many) ends the order there instead, after as many passes as that takes. The order
    is the head of one endless order, so a longer one begins with a shorter one.

    Shares by weight: each row stands where its domain's due reaches the middle of the row. The due grows with the
    weights, so the next row is that of the domain with the smallest (had + row / 2) / weight. At every point a domain
    has had its share of all that was taken to within half a row of its own, plus its share of half a row of every
    domain. Shares are therefore exact for budgets of many rows, whatever the lengths. Raises UserError for a share that
    gets no row of the budget, as one that is due less than half a row.
    """
    names = list(shares)
    chosen = [selected(name, pools[name], shares[name], seed) for name in names]
    # Ids count through all domains, so that one integer names an example.
    starts = np.cumsum([0, *[len(pools[name].lengths) for name in names]])
    ids = [start + rows for start, rows in zip(starts, chosen, strict=False)]
    sizes = {u: np.concatenate([pools[name].amounts(u) for name in names]) for u in (*UNITS, "places")}
    weights = [share.weight for share in shares.values() if share.weight is not None]
    if not weights:
        measure, amount = end or ("examples", epochs * sum(map(len, chosen)))
        every = np.concatenate(ids)
        if measure == "examples" and amount > MOST_EXAMPLES:
            raise UserError(
                f"a stage of {amount:,} examples ({epochs:,} epochs); at most {MOST_EXAMPLES:,} fit, lower epochs"
            )
        taken = _passes(every, -(-amount // int(sizes[measure][every].sum())), [seed])
    else:
        _check_weights(shares, unit, budget, end)
        measure, amount = end or (unit, budget or 0)
        taken = _interleaved(ids, np.array(weights), sizes[unit], sizes[measure], amount, _seeds(names, seed))
    taken = taken[: np.searchsorted(np.cumsum(sizes[measure][taken]), amount) + 1]
    domains = (np.searchsorted(starts, taken, side="right") - 1).astype(np.int32)
    if weights and not (end and budget):  # a run that `end` cuts short of its budget may miss a domain
        for i in set(range(len(names))) - set(domains.tolist()):
            _refuse_empty(names[i], weights[i] / sum(weights), sizes[unit][ids[i]].mean(), f"{amount} {measure}", unit)
    return Order(domains, taken - starts[domains], {n: len(rows) for n, rows in zip(names, chosen, strict=True)})


def _refuse_empty(domain: str, part: float, row: float, amount: str, unit: str) -> NoReturn:
    enough = math.ceil(row / part)
    remedy = f"it is about one row in a budget of {enough} {unit}: raise budget, steps or the share's weight"
    remedy = "it is in no budget: raise the share's weight, or delete the share" if enough > MOST_BUDGET else remedy
    raise UserError(f"the share of '{domain}' by weight, {as_ratio(part)} of {amount}, is no row at all; {remedy}")


def missed(order: Order, pools: Mapping[str, Pool], shares: Mapping[str, Share], unit: str) -> list[str]:
    """Shares by weight that an order gives otherwise than asked for, by more than `_MISSED` of the share; a line each.

    Rows are whole: a domain of which few are due gets one more or less than its share.
    """
    if any(share.weight is None for share in shares.values()):
        return []
    whole = sum(share.weight or 0.0 for share in shares.values())
    rows = {name: order.examples[order.domains == i] for i, name in enumerate(shares)}
    had = {name: int(pools[name].amounts(unit)[own].sum()) for name, own in rows.items()}
    found = []
    for name, share in shares.items():
        asked, got = (share.weight or 0.0) / whole, had[name] / max(sum(had.values()), 1)
        if abs(got / asked - 1) > _MISSED:
            found.append(
                f"the share of '{name}' was asked to be {asked:.3%} of the {unit} and comes out as {got:.3%}: rows are "
                f"whole, and only {len(rows[name]):,} of its rows stand in the stage; raise budget or steps"
            )
    return found


def _check_weights(shares: Mapping[str, Share], unit: str, budget: int | None, end: tuple[str, int] | None) -> None:
    if others := [name for name, share in shares.items() if share.weight is None]:
        raise UserError(
            "a stage's shares are all by weight or none is: a budget and exact rows do not mix; give "
            f"{', '.join(others)} a weight too"
        )
    if unit not in UNITS:
        raise UserError(f"mixture unit '{unit}': {did_you_mean(unit, UNITS)}")
    if not (budget or end):
        raise UserError("shares by weight need a budget: set the stage's budget (in its unit) or its steps")


def _seeds(names: Sequence[str], seed: int) -> list[list[int]]:
    """A seed for each domain's passes; it depends on the domain's name, not on what stands beside it."""
    return [[seed, zlib.crc32(name.encode())] for name in names]


def _passes(ids: np.ndarray, count: int, seed: Sequence[int]) -> np.ndarray:
    """`count` passes over `ids`, each in an order of its own; more passes begin with the same ones."""
    block = max(1, _BLOCK // len(ids))
    drawn = [
        np.random.default_rng([*seed, number, len(ids)]).permuted(np.tile(ids, (block, 1)), axis=1)
        for number in range(-(-count // block))
    ]
    return np.concatenate(drawn)[:count].reshape(-1)


def _interleaved(
    ids: Sequence[np.ndarray],
    weights: np.ndarray,
    sizes: np.ndarray,
    measured: np.ndarray,
    amount: int,
    seeds: Sequence[Sequence[int]],
) -> np.ndarray:
    """Passes over each domain, merged by the point at which its due reaches the middle of a row.

    `sizes` and `measured`: each example's size in the shares' unit and in that of `amount`. The result measures
    at least `amount`.
    """
    per_pass = np.array([sizes[own].sum() for own in ids])
    gained = np.array([measured[own].sum() for own in ids])
    # Up to `due` a domain completes more than weight · due / per_pass − 1.5 passes (a row is at most one pass).
    due = (amount + 1.5 * gained.sum()) / (weights * gained / per_pass).sum()
    rows, middles = [], []
    for own, weight, total, seed in zip(ids, weights, per_pass, seeds, strict=True):
        mine = _passes(own, int(weight * due / total) + 2, seed)
        ends = np.cumsum(sizes[mine])
        rows.append(mine)
        middles.append((ends - sizes[mine] / 2) / weight)
    merged = np.concatenate(middles)
    at = np.argsort(merged, kind="stable")
    return np.concatenate(rows)[at[: np.searchsorted(merged, due, side="right", sorter=at)]]
