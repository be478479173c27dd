"""Training against transformers with torch, on this machine's CPU: two threads each, float32.

python benchmarks/training.py
python benchmarks/training.py --tokenizer DIR --math FILE --code FILE --general FILE     # the real mix too

Needs the extra 'parity'. Both sides train the same architecture with AdamW and clipping. The first lines give
both the same full batches. The real mix is three files as they are: sftmix_jax reads, packs and trains; the
other side shuffles the same tokenised examples and pads each batch to its longest, as Hugging Face's collator
does. What counts there is useful tokens: those of examples, not padding.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Iterator
from functools import partial

import numpy as np
import timing

from sftmix_jax.data import cache, loader
from sftmix_jax.data.chat import Chat
from sftmix_jax.data.loader import BatchConfig, LoaderConfig, Plan
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.machine import compilation, host_memory
from sftmix_jax.models import decoder, families
from sftmix_jax.models.architecture import Architecture

# Steps a round: enough that the other side's leavings in the caches do not count.
FULL_ROWS, REAL_MIX = 16, 4
TINY = families.preset("tiny")
FIVE_MILLION = Architecture(4096, 256, 688, 4, 8, 8, 32, 512)
Batches = Iterator[dict[str, np.ndarray]]


class Ours:
    """The trainer as the training loop uses it."""

    def __init__(self, config: Architecture, domains: int):
        host_memory.keep_freed()
        compilation.set_up()
        import jax

        from sftmix_jax.models.compute import Compute
        from sftmix_jax.parallel import sharding
        from sftmix_jax.parallel.sharding import MeshConfig
        from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer
        from sftmix_jax.training.step import TrainState, make_trainer

        compute, self.mesh = Compute("float32", "none"), sharding.make_mesh(MeshConfig())
        optimizer = make_optimizer(OptimizerConfig())
        self.trainer = make_trainer(config, compute, optimizer, self.mesh, domains=domains, grad_accum_steps=1)
        params = sharding.put_tree(jax.device_get(decoder.init(config, compute, 0)), self.trainer.abstract.params)
        self.state = TrainState(params, self.trainer.init_optimizer(params))
        self.put = sharding.put_batch

    def steps(self, batches: Batches, count: int) -> float:
        """Useful tokens of the next `count` steps."""
        import jax

        tokens = 0
        for batch in itertools.islice(batches, count):
            tokens += int((batch["segment_ids"] > 0).sum())
            on_device = self.put(self.mesh, batch, len(batch["tokens"]))
            self.state, measured = self.trainer.train_step(self.state, on_device, np.float32(2e-5))
        jax.block_until_ready(measured)
        return tokens


class Theirs:
    """A plain torch loop over transformers' model."""

    def __init__(self, config: Architecture):
        import torch
        import transformers

        from sftmix_jax.models import hf_config

        torch.set_num_threads(2)
        hf = transformers.LlamaConfig(**hf_config.fields(config, hf_config.Special(1, hf_config.Ends((2,))), "float32"))
        self.model = transformers.LlamaForCausalLM(hf)
        self.adamw = torch.optim.AdamW(self.model.parameters(), lr=2e-5, weight_decay=0.0)

    def steps(self, batches: Batches, count: int) -> float:
        """Useful tokens of the next `count` steps."""
        import torch

        tokens = 0
        for batch in itertools.islice(batches, count):
            tokens += int(batch["attention_mask"].sum())
            self.model(**{name: torch.from_numpy(values) for name, values in batch.items()}).loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.adamw.step()
            self.adamw.zero_grad()
        return tokens


def _random_tokens(config: Architecture, rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, config.vocab_size, (rows, length + 1))


def full_rows_ours(config: Architecture, rows: int, length: int) -> timing.Round:
    tokens = _random_tokens(config, rows, length).astype(np.int32)
    ones = np.ones((rows, length), np.int32)
    batch = {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segment_ids": ones,
        "loss_weights": ones.astype(np.float32),
        "positions": np.broadcast_to(np.arange(length, dtype=np.int32), ones.shape),
        "domain_ids": 0 * ones,
    }
    return partial(Ours(config, 1).steps, itertools.repeat(batch), FULL_ROWS)


def full_rows_theirs(config: Architecture, rows: int, length: int) -> timing.Round:
    tokens = _random_tokens(config, rows, length)[:, :-1]
    batch = {"input_ids": tokens, "labels": tokens, "attention_mask": np.ones_like(tokens)}
    return partial(Theirs(config).steps, itertools.repeat(batch), FULL_ROWS)


class Mix:
    """Three files in the paper's template, tokenised once."""

    def __init__(self, files: dict[str, str], tokenizer: str):
        chat = Chat("vicuna_v1.1", Tokenizer(tokenizer))
        self.examples = {
            name: cache.tokenized(name, Source(file, bad_rows="skip"), chat) for name, file in files.items()
        }
        self.config = Architecture(chat.tokenizer.size, 256, 688, 4, 8, 8, 32, 512)

    def plan(self, rows: int, length: int) -> Plan:
        """The whole mix, packed."""
        shares = {name: Share(fraction=1.0) for name in self.examples}
        return loader.make_plan(
            self.examples,
            shares,
            BatchConfig(rows, length),
            {},
            epochs=1,
            budget=None,
            unit="tokens",
            steps=None,
            seed=0,
        )[0]

    def padded(self, rows: int, length: int) -> Batches:
        """The examples shuffled, `rows` at a time, padded to the longest of them."""
        ids = [(name, index) for name, own in self.examples.items() for index in range(len(own))]
        random.Random(0).shuffle(ids)
        for start in range(0, len(ids), rows):
            part = [self.examples[name].example(index, length) for name, index in ids[start : start + rows]]
            T = max(len(tokens) for tokens, _ in part)
            inputs, labels, attended = (np.zeros((len(part), T), np.int64) for _ in range(3))
            labels -= 100
            for row, (tokens, mask) in enumerate(part):
                inputs[row, : len(tokens)], attended[row, : len(tokens)] = tokens, 1
                labels[row, : len(tokens)] = np.where(mask, tokens.astype(np.int64), -100)
            yield {"input_ids": inputs, "labels": labels, "attention_mask": attended}


def real_mix_ours(files: dict[str, str], tokenizer: str, rows: int, length: int) -> timing.Round:
    mix = Mix(files, tokenizer)
    plan = mix.plan(rows, length)
    batches = loader.batches(plan, LoaderConfig(), 0, plan.num_steps)
    return partial(Ours(mix.config, len(files)).steps, batches, REAL_MIX)


def real_mix_theirs(files: dict[str, str], tokenizer: str, rows: int, length: int) -> timing.Round:
    mix = Mix(files, tokenizer)
    return partial(Theirs(mix.config).steps, mix.padded(rows, length), REAL_MIX)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("math", "code", "general", "tokenizer"):
        parser.add_argument(f"--{name}")
    options = parser.parse_args()
    timing.heading()
    for name, config, rows, length in (("tiny (1M)", TINY, 16, 128), ("5M", FIVE_MILLION, 8, 256)):
        timing.alternate(
            f"training step, {name}, {rows} × {length}",
            "tokens/s",
            partial(full_rows_ours, config, rows, length),
            partial(full_rows_theirs, config, rows, length),
        )
    if options.tokenizer:
        files = {name: getattr(options, name) for name in ("math", "code", "general")}
        timing.alternate(
            "the real mix, useful tokens, 8 × 512",
            "tokens/s",
            partial(real_mix_ours, files, options.tokenizer, 8, 512),
            partial(real_mix_theirs, files, options.tokenizer, 8, 512),
        )


if __name__ == "__main__":
    main()
