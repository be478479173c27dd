"""Greedy generation against transformers with torch, on this machine's CPU: two threads each, float32.

python benchmarks/generation.py --model DIR [--gsm8k test.jsonl]

Needs the extra 'parity'. First rows of one length that all run to the end; then 200 questions of GSM8K, as the
task asks them, against `generate` on left-padded batches of 32, both until the model ends its answer or has
said 128 tokens.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sftmix_jax import host_memory

host_memory.keep_freed()

import timing  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from sftmix_jax import sharding  # noqa: E402
from sftmix_jax.data.chat import Chat  # noqa: E402
from sftmix_jax.data.sources import Message  # noqa: E402
from sftmix_jax.data.tokenizer import Tokenizer  # noqa: E402
from sftmix_jax.evaluation.task import find_task  # noqa: E402
from sftmix_jax.models import huggingface  # noqa: E402
from sftmix_jax.models.llama import Compute  # noqa: E402
from sftmix_jax.sampling.sampler import Request, Sampler  # noqa: E402
from sftmix_jax.sharding import MeshConfig  # noqa: E402

NEW_TOKENS = 128
SLOTS = 32


def _sampler(folder: Path, stop_ids: list[int] | None, slots: int) -> Sampler:
    config, params = huggingface.load(folder)
    mesh = sharding.make_mesh(MeshConfig())
    compute = Compute("float32", "none")
    return Sampler(config, compute, params, Tokenizer(str(folder)), mesh, stop_ids=stop_ids, slots=slots)


def equal_rows(folder: Path, batch: int) -> None:
    """One prompt, many times, to the last token."""
    tokenizer = Tokenizer(str(folder))
    prompt = tokenizer.encode(tokenizer.bos + "Once upon a time there was a little dog")
    sampler = _sampler(folder, [], batch)
    requests = [Request(tuple(prompt), NEW_TOKENS)] * batch
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = None
    inputs = torch.tensor([prompt] * batch)

    def ours() -> float:
        sampler.generate(requests)
        return batch * NEW_TOKENS

    def theirs() -> float:
        model.generate(inputs, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
        return batch * NEW_TOKENS

    timing.alternate(f"greedy, batch {batch}", "tokens/s", ours, theirs)


def gsm8k_questions(folder: Path, file: str, count: int = 200) -> None:
    """Prompts of mixed length, in the file's order; the work is questions answered."""
    tokenizer = Tokenizer(str(folder))
    chat = Chat("vicuna_v1.1", tokenizer)
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    room = model.config.max_position_embeddings - NEW_TOKENS
    questions = find_task("gsm8k")[0].load(file)[:count]
    prompts = [chat.prompt([Message("user", question.turns[0])])[-room:] for question in questions]
    sampler = _sampler(folder, [tokenizer.eos_id], SLOTS)

    def ours() -> float:
        sampler.generate([Request(tuple(prompt), NEW_TOKENS) for prompt in prompts])
        return count

    def theirs() -> float:
        for start in range(0, count, SLOTS):
            part = prompts[start : start + SLOTS]
            longest = max(map(len, part))
            inputs = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in part])
            attended = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in part])
            model.generate(inputs, attention_mask=attended, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
        return count

    timing.alternate(f"{count} questions of GSM8K", "questions/s", ours, theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gsm8k")
    options = parser.parse_args()
    torch.set_num_threads(2)
    timing.heading()
    for batch in (1, 8, 32):
        equal_rows(options.model, batch)
    if options.gsm8k:
        gsm8k_questions(options.model, options.gsm8k)


if __name__ == "__main__":
    main()
