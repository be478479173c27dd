"""Training against transformers with torch, on this machine's CPU: two threads each, float32.

python benchmarks/training.py
python benchmarks/training.py --tokenizer DIR --math FILE --code FILE --general FILE     # the real mix too

Needs the extra 'parity'. Both sides train the same architecture with AdamW and clipping. The first line gives
both the same full batches. The real mix is three files as they are: sftmix_jax reads, packs and trains; the
other side shuffles the same tokenised examples and pads each batch to its longest, as Hugging Face's collator
does. What counts there is useful tokens: those of examples, not padding.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Iterator

from sftmix_jax import host_memory

host_memory.keep_freed()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import timing  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from sftmix_jax import sharding  # noqa: E402
from sftmix_jax.data import cache, loader  # noqa: E402
from sftmix_jax.data.cache import Examples  # noqa: E402
from sftmix_jax.data.chat import Chat  # noqa: E402
from sftmix_jax.data.loader import BatchConfig, LoaderConfig  # noqa: E402
from sftmix_jax.data.mixture import Share  # noqa: E402
from sftmix_jax.data.sources import Source  # noqa: E402
from sftmix_jax.data.tokenizer import Tokenizer  # noqa: E402
from sftmix_jax.models import huggingface, llama  # noqa: E402
from sftmix_jax.models.llama import Compute, LlamaConfig  # noqa: E402
from sftmix_jax.sharding import MeshConfig  # noqa: E402
from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer  # noqa: E402
from sftmix_jax.training.step import Batch, TrainState, make_trainer, put_params  # noqa: E402

COMPUTE = Compute("float32", "none")
STEPS = 4  # a round


class Ours:
    def __init__(self, config: LlamaConfig, domains: int):
        self.mesh = sharding.make_mesh(MeshConfig())
        optimizer = make_optimizer(OptimizerConfig(), 1000)
        self.trainer = make_trainer(config, COMPUTE, optimizer, self.mesh, domains=domains, accumulation=1)
        params = put_params(jax.device_get(llama.init(config, COMPUTE, 0)), self.trainer.abstract.params)
        self.state = TrainState(params, self.trainer.init_optimizer(params))

    def step(self, batch: Batch) -> object:
        rows = len(batch["tokens"])
        self.state, measured = self.trainer.train_step(self.state, sharding.put_batch(self.mesh, batch, rows))
        return measured


class Theirs:
    def __init__(self, config: LlamaConfig):
        hf = transformers.LlamaConfig(**huggingface.config_to_hf(config, 1, 2, "float32"))
        self.model = transformers.LlamaForCausalLM(hf)
        self.adamw = torch.optim.AdamW(self.model.parameters(), lr=2e-5, weight_decay=0.0)

    def step(self, tokens: torch.Tensor, labels: torch.Tensor, attended: torch.Tensor | None = None) -> None:
        self.model(input_ids=tokens, labels=labels, attention_mask=attended).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.adamw.step()
        self.adamw.zero_grad()


def equal_batches(name: str, config: LlamaConfig, rows: int, length: int) -> None:
    """Full rows of random tokens."""
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (rows, length + 1)).astype(np.int32)
    ones = np.ones((rows, length), np.int32)
    batch = {
        "tokens": tokens[:, :-1], "targets": tokens[:, 1:], "loss_mask": ones, "segment_ids": ones,
        "positions": np.broadcast_to(np.arange(length, dtype=np.int32), ones.shape), "domain_ids": 0 * ones,
    }  # fmt: skip
    inputs = torch.tensor(tokens[:, :-1], dtype=torch.long)
    ours, theirs = Ours(config, 1), Theirs(config)

    def one() -> float:
        for _ in range(STEPS):
            measured = ours.step(batch)
        jax.block_until_ready(measured)
        return STEPS * rows * length

    def other() -> float:
        for _ in range(STEPS):
            theirs.step(inputs, inputs)
        return STEPS * rows * length

    timing.alternate(f"{name}, {rows} × {length}", "tokens/s", one, other)


def real_mix(files: dict[str, str], tokenizer: Tokenizer, rows: int, length: int) -> None:
    """Three files in the paper's template, each batch another part of them."""
    chat = Chat("vicuna_v1.1", tokenizer)
    examples = {name: cache.tokenized(name, Source(file, bad_rows="skip"), chat) for name, file in files.items()}
    shares = {name: Share(fraction=1.0) for name in files}
    plan, _ = loader.make_plan(
        examples, shares, BatchConfig(rows, length), {}, epochs=1, budget=None, unit="tokens", steps=None, seed=0
    )
    config = LlamaConfig(tokenizer.size, 256, 688, 4, 8, 8, 32, length)
    ours, theirs = Ours(config, len(files)), Theirs(config)
    packed = loader.batches(plan, LoaderConfig(), 0, plan.num_steps)
    padded = _padded(list(examples.values()), rows, length)

    def one() -> float:
        tokens = 0
        for batch in itertools.islice(packed, STEPS):
            tokens += int((batch["segment_ids"] > 0).sum())
            measured = ours.step(batch)
        jax.block_until_ready(measured)
        return tokens

    def other() -> float:
        tokens = 0
        for inputs, labels, attended in itertools.islice(padded, STEPS):
            tokens += int(attended.sum())
            theirs.step(inputs, labels, attended)
        return tokens

    timing.alternate(f"the real mix, useful tokens, {rows} × {length}", "tokens/s", one, other)


def _padded(examples: list[Examples], rows: int, length: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """The examples shuffled, `rows` at a time, padded to the longest: tokens, labels and attended [rows, T]."""
    ids = [(domain, index) for domain, own in enumerate(examples) for index in range(len(own))]
    random.Random(0).shuffle(ids)
    for start in range(0, len(ids), rows):
        part = [examples[domain].example(index, length) for domain, index in ids[start : start + rows]]
        T = max(len(tokens) for tokens, _ in part)
        inputs, labels, attended = (np.zeros((len(part), T), np.int64) for _ in range(3))
        labels -= 100
        for row, (tokens, mask) in enumerate(part):
            inputs[row, : len(tokens)], attended[row, : len(tokens)] = tokens, 1
            labels[row, : len(tokens)] = np.where(mask, tokens.astype(np.int64), -100)
        yield tuple(map(torch.from_numpy, (inputs, labels, attended)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("math", "code", "general", "tokenizer"):
        parser.add_argument(f"--{name}")
    options = parser.parse_args()
    torch.set_num_threads(2)
    timing.heading()
    equal_batches("training step, tiny (1M)", llama.preset("tiny"), 16, 128)
    equal_batches("training step, 5M", LlamaConfig(4096, 256, 688, 4, 8, 8, 32, 512), 8, 256)
    if options.tokenizer:
        files = {name: getattr(options, name) for name in ("math", "code", "general")}
        real_mix(files, Tokenizer(options.tokenizer), 8, 512)


if __name__ == "__main__":
    main()
