"""Every global batch of a stage by its number, and the workers that prepare them ahead."""

import bisect
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import grain
import numpy as np
from absl import flags

from sftmix_jax.data import mixture, packing
from sftmix_jax.data.cache import Examples
from sftmix_jax.data.mixture import Order, Pool, Share
from sftmix_jax.data.packing import PACKINGS, Packed
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Choice, Integer, setting

DEFAULT_MAX_SEQ_LEN = 2048  # the paper's length
Batch: TypeAlias = dict[str, np.ndarray]  # [B, T] each: the keys and dtypes of DTYPES
DTYPES = {
    "tokens": np.int32,
    "targets": np.int32,
    "loss_weights": np.float32,
    "segment_ids": np.int32,
    "positions": np.int32,
    "domain_ids": np.int32,
}


@dataclasses.dataclass
class BatchConfig:
    """The shape of a global batch."""

    batch_size: int = setting(16, Integer(at_least=1), "packed rows per step, over all devices")
    seq_len: int = setting(
        0,
        Integer(at_least=2, also=(0,)),
        f"tokens per row; 0: the model's own maximum length, at most {DEFAULT_MAX_SEQ_LEN}",
    )
    packing: str = setting("best_fit", Choice(PACKINGS), "how examples fill rows; none: one example per row")
    too_long: str = setting(
        "truncate", Choice(("truncate", "skip")), "what happens to examples longer than `seq_len`; both are counted"
    )
    grad_accum_steps: int = setting(
        1, Integer(at_least=1), "gradient accumulation: parts that a step's rows are split into, to save memory"
    )

    def relations(self, where: str) -> Iterator[str]:
        """Fields that do not fit together (sftmix_jax.machine.ranges)."""
        if self.batch_size % self.grad_accum_steps:
            yield f"{where}.grad_accum_steps: {self.grad_accum_steps}; must divide batch_size={self.batch_size}"

    def resolved(self, max_length: int) -> "BatchConfig":
        """This config with `seq_len` stated, for a model of this maximum length."""
        return dataclasses.replace(self, seq_len=self.seq_len or min(max_length, DEFAULT_MAX_SEQ_LEN))


def pool(examples: Examples, batch: BatchConfig, validation_rows: int) -> Pool:
    """A domain's sizes under this batch: examples that are not to be trained on count no trained tokens."""
    lengths, trained = examples.lengths(batch.seq_len)
    if batch.too_long == "skip":
        trained = np.where(np.diff(examples.offsets) > batch.seq_len, 0, trained)
    if validation_rows >= len(lengths):
        raise UserError(
            f"validation_rows={validation_rows} leaves nothing of {len(lengths)} rows to train on; "
            f"set it below {len(lengths)}"
        )
    return Pool(lengths, trained, validation_rows)


class Plan:
    """A stage's data: batch `step` is a pure function of (what made the plan, step).

    With `steps`, the plan is that long where the order holds enough, and takes no more of the order than it needs.
    """

    def __init__(
        self, examples: Mapping[str, Examples], order: Order, batch: BatchConfig, seed: int, steps: int | None = None
    ):
        self.names = list(examples)
        self.examples, self.order, self.batch_config = list(examples.values()), order, batch
        sizes = [e.lengths(batch.seq_len) for e in self.examples]
        lengths = np.concatenate([s[0] for s in sizes])
        trained = np.concatenate([s[1] for s in sizes])
        starts = np.cumsum([0, *map(len, self.examples)])
        ids = starts[order.domains] + order.examples
        self.lengths, self.trained = lengths[ids], trained[ids]
        # n tokens make n - 1 predictions, and fill as many places
        self.packed: Packed = packing.pack(
            self.lengths - 1, batch.seq_len, batch.packing, seed, steps * batch.batch_size if steps else None
        )

    @property
    def num_steps(self) -> int:
        return -(-self.packed.num_rows // self.batch_config.batch_size)

    @property
    def fill(self) -> float:
        """The part of all places that hold a token."""
        tokens = float((self.lengths[self.packed.members] - 1).sum())
        return tokens / (self.num_steps * self.batch_config.batch_size * self.batch_config.seq_len)

    def tokens(self, step: int) -> int:
        """How many places of a batch hold a token."""
        return int((self.lengths[self._members(step)] - 1).sum())

    def trained_tokens(self, step: int) -> int:
        """How many tokens of a batch are trained on."""
        return int(self.trained[self._members(step)].sum())

    def _members(self, step: int) -> np.ndarray:
        """Positions in the mixture's order of a batch's examples, int64 [n]."""
        first = step * self.batch_config.batch_size
        last = min(first + self.batch_config.batch_size, self.packed.num_rows)
        return self.packed.members[self.packed.starts[first] : self.packed.starts[last]]

    def batch(self, step: int, part: slice = slice(None)) -> Batch:
        """The global batch of a step, or the rows of it that `part` cuts out. The last one may have empty rows."""
        R, T = self.batch_config.batch_size, self.batch_config.seq_len
        rows = range(R)[part]
        out = {key: np.zeros((len(rows), T), dtype) for key, dtype in DTYPES.items()}
        for i, r in enumerate(rows):
            row = step * R + r
            if row >= self.packed.num_rows:
                break
            at = 0
            members = self.packed.members[self.packed.starts[row] : self.packed.starts[row + 1]]
            for segment, position in enumerate(members, 1):
                domain = self.order.domains[position]
                tokens, weights = self.examples[domain].example(self.order.examples[position], T)
                end = at + len(tokens) - 1
                out["tokens"][i, at:end] = tokens[:-1]
                out["targets"][i, at:end] = tokens[1:]
                out["loss_weights"][i, at:end] = weights[1:]
                out["segment_ids"][i, at:end] = segment
                out["positions"][i, at:end] = np.arange(end - at)
                out["domain_ids"][i, at:end] = domain
                at = end
        return out

    def ledger(self, step: int) -> dict[str, dict[str, float]]:
        """What the first `step` batches hold of each domain."""
        row = min(step * self.batch_config.batch_size, self.packed.num_rows)
        seen = self.packed.members[: self.packed.starts[row]]
        domains = self.order.domains[seen]
        account = {}
        for i, name in enumerate(self.names):
            mine = seen[domains == i]
            account[name] = {
                "examples": len(mine),
                "tokens": int(self.lengths[mine].sum()),
                "trained_tokens": int(self.trained[mine].sum()),
                "epochs": round(len(mine) / self.order.selected[name], 6),
            }
        return account

    def rows_account(self, pools: Mapping[str, Pool], seed: int) -> dict[str, dict[str, Any]]:
        """Where every stored row of each domain went; the parts but `of them truncated` add up to `stored`."""
        account: dict[str, dict[str, Any]] = {}
        members = self.packed.members
        for i, name in enumerate(self.names):
            examples, pool = self.examples[i], pools[name]
            used = np.unique(self.order.examples[members[self.order.domains[members] == i]])
            reserved = np.zeros(len(examples), bool)
            reserved[mixture.validation_examples(name, pool, seed)] = True
            unusable = int(((pool.trained == 0) & ~reserved).sum())
            account[name] = {
                "stored": examples.rows,
                "used": len(used),
                "of them truncated": int((np.diff(examples.offsets)[used] > self.batch_config.seq_len).sum()),
                "not taken": len(examples) - len(used) - pool.validation_rows - unusable,
                "held out": pool.validation_rows,
                "without an answer within the length": unusable,
                "skipped": dict(examples.skipped),
            }
        return account


def make_order(
    examples: Mapping[str, Examples],
    shares: Mapping[str, Share],
    batch: BatchConfig,
    validation_rows: Mapping[str, int],
    *,
    epochs: int,
    budget: int | None,
    unit: str,
    steps: int | None,
    seed: int,
) -> tuple[Order, dict[str, Pool]]:
    """The examples of a stage in order; with `steps`, enough to fill so many batches. Raises UserError."""
    pools = {name: pool(examples[name], batch, validation_rows.get(name, 0)) for name in shares}
    end = None
    if steps:
        # Examples that fill all places of all rows need at least as many rows, however they are packed.
        rows = steps * batch.batch_size
        end = ("examples", rows) if batch.packing == "none" else ("places", rows * batch.seq_len)
    return mixture.order(pools, shares, epochs=epochs, budget=budget, unit=unit, seed=seed, end=end), pools


def make_plan(
    examples: Mapping[str, Examples],
    shares: Mapping[str, Share],
    batch: BatchConfig,
    validation_rows: Mapping[str, int],
    *,
    steps: int | None,
    seed: int,
    **amount: Any,
) -> tuple[Plan, dict[str, Pool]]:
    """The plan of a stage, and its domains' sizes: `make_order`, packed. Raises UserError; packing never fails."""
    order, pools = make_order(examples, shares, batch, validation_rows, steps=steps, seed=seed, **amount)
    return Plan({name: examples[name] for name in shares}, order, batch, seed, steps), pools


def shortest_length(examples: Examples, batch: BatchConfig) -> int | None:
    """The smallest batch.seq_len at which some row has a trained token; None if no row ever has."""
    lengths = range(2, int(np.diff(examples.offsets).max()) + 1)

    def is_enough(length: int) -> bool:
        return bool(pool(examples, dataclasses.replace(batch, seq_len=length), 0).trained.any())

    found = bisect.bisect_left(lengths, True, key=is_enough)
    return lengths[found] if found < len(lengths) else None


@dataclasses.dataclass
class LoaderConfig:
    """How batches are prepared ahead; never what they hold."""

    threads: int = setting(2, Integer(at_least=0, at_most=1024), "that read batches")
    prefetch: int = setting(8, Integer(at_least=0), "batches that are prepared ahead")
    workers: int = setting(
        0, Integer(at_least=0, at_most=1024), "processes; 0: only threads, which is enough for packed tokens"
    )


class _Batches:
    """A stage's batches as a random-access source for grain."""

    def __init__(self, plan: Plan, part: slice):
        self.plan, self.part = plan, part

    def __len__(self) -> int:
        return self.plan.num_steps

    def __getitem__(self, step: int) -> Batch:
        return self.plan.batch(int(step), self.part)


def batches(plan: Plan, config: LoaderConfig, start: int, stop: int, part: slice = slice(None)) -> Iterator[Batch]:
    """Batches `start` to `stop` (exclusive), in order, prepared ahead."""
    dataset = grain.MapDataset.source(_Batches(plan, part))[start:stop]
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=config.prefetch)
    loader = dataset.to_iter_dataset(options)
    if config.workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain's workers read absl flags, which are not used here
        loader = loader.mp_prefetch(grain.MultiprocessingOptions(num_workers=config.workers))
    return iter(loader)


def process_part(rows: int, index: int, count: int) -> slice:
    """The rows of a global batch that process `index` of `count` reads."""
    if rows % count:
        raise UserError(f"a batch of {rows} rows cannot be divided among {count} processes; change batch.batch_size")
    return slice(index * rows // count, (index + 1) * rows // count)
