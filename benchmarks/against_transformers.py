"""Training steps and greedy generation against transformers with torch, on this machine's CPU.

python benchmarks/against_transformers.py [MODEL_FOLDER]      (needs the extra 'parity')

Both sides run in one process, two threads each, float32, in alternating rounds; medians and their ratio are
printed. A ratio above 1 means that sftmix_jax is faster.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import torch
import transformers

from sftmix_jax import sharding
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.models import huggingface, llama
from sftmix_jax.models.llama import Compute, LlamaConfig
from sftmix_jax.sampling.sampler import Request, Sampler
from sftmix_jax.sharding import MeshConfig
from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer
from sftmix_jax.training.step import TrainState, make_trainer, put_params

ROUNDS = 7
COMPUTE = Compute("float32", "none")


def alternate(name: str, work: float, unit: str, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """Time both in turn; each once before, to compile and to warm up."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_ in range(ROUNDS + 1):
        for side, call in zip(times, (ours, theirs), strict=True):
            begin = time.perf_counter()
            call()
            if round_:
                side.append(time.perf_counter() - begin)
    ours_median, theirs_median = map(statistics.median, times)
    print(
        f"{name:34}  {work / ours_median:10,.0f}  {work / theirs_median:10,.0f} {unit}  "
        f"ratio {theirs_median / ours_median:5.2f}",
        flush=True,
    )


def training_step(rows: int = 8, length: int = 256) -> None:
    """A 5M LLaMA, AdamW, clipping, equal batches."""
    config = LlamaConfig(4096, 256, 688, 4, 8, 8, 32, 512)
    tokens = np.random.default_rng(0).integers(0, 4096, (rows, length + 1)).astype(np.int32)
    mesh = sharding.make_mesh(MeshConfig())
    optimizer = make_optimizer(OptimizerConfig(), 1000)
    trainer = make_trainer(config, COMPUTE, optimizer, mesh, domains=1, accumulation=1)
    params = put_params(jax.device_get(llama.init(config, COMPUTE, 0)), trainer.abstract.params)
    state = TrainState(params, trainer.init_optimizer(params))
    ones = np.ones((rows, length), np.int32)
    batch = {
        "tokens": tokens[:, :-1], "targets": tokens[:, 1:], "loss_mask": ones, "segment_ids": ones,
        "positions": np.broadcast_to(np.arange(length, dtype=np.int32), ones.shape), "domain_ids": 0 * ones,
    }  # fmt: skip

    def ours() -> None:
        nonlocal state
        state, measured = trainer.train_step(state, sharding.put_batch(mesh, batch, rows))
        jax.block_until_ready(measured)

    hf = transformers.LlamaConfig(**huggingface.config_to_hf(config, 1, 2, "float32"))
    model = transformers.LlamaForCausalLM(hf)
    adamw = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.0)
    inputs = torch.tensor(tokens[:, :-1], dtype=torch.long)

    def theirs() -> None:
        model(input_ids=inputs, labels=inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()

    alternate(f"training step, {rows} × {length}", rows * length, "tokens/s", ours, theirs)


def generation(folder: Path, new_tokens: int = 128) -> None:
    """Greedy, from prompts of one length."""
    tokenizer = Tokenizer(str(folder))
    config, params = huggingface.load(folder)
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = None
    prompt = tokenizer.encode(tokenizer.bos + "Once upon a time there was a little dog")
    for batch in (1, 8, 32):
        sampler = Sampler(
            config, COMPUTE, params, tokenizer, sharding.make_mesh(MeshConfig()), stop_ids=[], slots=batch
        )
        requests = [Request(tuple(prompt), new_tokens)] * batch
        inputs = torch.tensor([prompt] * batch)

        def theirs(inputs: torch.Tensor = inputs) -> object:
            return model.generate(inputs, max_new_tokens=new_tokens, do_sample=False, pad_token_id=0)

        def ours(sampler: Sampler = sampler, requests: list[Request] = requests) -> object:
            return sampler.generate(requests)

        alternate(f"greedy generation, batch {batch}", batch * new_tokens, "tokens/s", ours, theirs)


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(f"{'':34}  {'sftmix_jax':>10}  {'torch':>10}")
    training_step()
    generation(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/models/stories260k"))
