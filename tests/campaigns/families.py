"""The table of docs/models.md: every family against transformers in float32, with the largest differences.

python -m tests.campaigns.families [CASE …]    needs torch; minutes
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
sys.path.insert(0, os.fspath(Path(__file__).parents[1]))

import jax
import numpy as np
import pytest
import test_families
from conftest import random_model, save_model
from etils import epath
from families import CASES, TOKENS, transformers_logits, transformers_model
from test_families import architecture, sampler, total
from test_llama import logits

from sftmix_jax.models import huggingface
from sftmix_jax.sampling.sampler import Request


def measured(case: str, folder: Path) -> list[str]:
    """The cells of a case: logits, greedy tokens, gradients, import and export."""
    import torch

    config = architecture(case)
    params = random_model(config)
    model = transformers_model(save_model(folder / "ours", config, params))
    apart = np.abs(logits(config, params, TOKENS) - transformers_logits(model, TOKENS)).max()

    prompts, same = [TOKENS[0, :5], TOKENS[1, :30], TOKENS[0, 40:59]], 0
    answers = sampler(config).generate([Request(tuple(prompt.tolist()), 24) for prompt in prompts])
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor(prompt[None])
        options = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt) :]
        same += sum(mine == other for mine, other in zip(answer.tokens, whole.tolist(), strict=True))

    tokens = torch.tensor(TOKENS)
    found = model(tokens, use_cache=False).logits[:, :-1].reshape(-1, config.vocab_size)
    torch.nn.functional.cross_entropy(found, tokens[:, 1:].reshape(-1), reduction="sum").backward()
    grads = jax.device_get(jax.jit(jax.grad(lambda params: total(config, params)))(params))
    named, wanted = dict(huggingface._their_tensors(config, grads)), dict(model.named_parameters())
    assert named.keys() == wanted.keys()
    errors = [
        np.abs(mine - wanted[name].grad.numpy()).max() / np.abs(wanted[name].grad.numpy()).max()
        for name, mine in named.items()
    ]

    model.save_pretrained(folder / "theirs")
    read, again = huggingface.load(epath.Path(folder / "theirs"))
    equal = read == config and all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(params)))
    bits = "same bits" if equal else "DIFFERENT"
    return [f"{apart:.0e}", f"{same} of 72", f"{max(errors):.0e} ({len(errors)})", bits]


def passes(check: Callable[[str], None], case: str) -> str:
    """The cell of a test."""
    try:
        check(case)
    except pytest.skip.Exception:
        return "not run"
    except AssertionError:
        return "FAILS"
    return "passes"


SPREAD = (
    test_families.test_a_step_over_fsdp_and_tensor_is_the_step_of_one_device,
    test_families.test_sampling_over_fsdp_and_tensor_gives_the_texts_of_one_device,
    test_families.test_a_step_compiles_for_a_tpu,
)


def main() -> None:
    print(
        "| case | logits | greedy tokens | gradients (parameters) | import and export | step over 8 devices "
        "| sampling over 8 devices | TPU compiler |\n|---|---|---|---|---|---|---|---|"
    )
    for case in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as folder:
            cells = [case, *measured(case, Path(folder)), *(passes(check, case) for check in SPREAD)]
            print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
