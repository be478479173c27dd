"""Greedy generation against transformers with torch, on this machine's CPU: two threads each, float32.

python benchmarks/generation.py --model DIR [--gsm8k test.jsonl]

Needs the extra 'parity'. First rows of one length that all run to the end; then 200 questions of GSM8K, as the
task asks them, against `generate` on left-padded batches of 32, both until the model ends its answer or has
said 128 tokens.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import timing

from sftmix_jax.data.chat import Chat
from sftmix_jax.data.messages import Message
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.evaluation.task import find_task
from sftmix_jax.machine import compilation, host_memory
from sftmix_jax.sampling.decode import Setup
from sftmix_jax.sampling.sampler import Request, Sampler, abstract_params

NEW_TOKENS = 128
SLOTS = 32


def _sampler(folder: Path, stop_ids: list[int] | None, slots: int) -> Sampler:
    host_memory.keep_freed()
    compilation.set_up()
    from sftmix_jax.models import huggingface
    from sftmix_jax.models.compute import Compute
    from sftmix_jax.parallel import sharding
    from sftmix_jax.parallel.sharding import MeshConfig

    config, params = huggingface.load(folder)
    setup = Setup(config, Compute("float32", "none"), sharding.make_mesh(MeshConfig()))
    params = sharding.put_tree(params, abstract_params(setup))
    return Sampler(setup, params, Tokenizer(str(folder)), stop_ids=stop_ids, slots=slots)


def _prompt(folder: Path) -> list[int]:
    tokenizer = Tokenizer(str(folder))
    return tokenizer.encode(tokenizer.bos + "Once upon a time there was a little dog")


def equal_rows_ours(folder: Path, batch: int) -> timing.Round:
    """One prompt, many times, to the last token."""
    sampler = _sampler(folder, [], batch)
    requests = [Request(tuple(_prompt(folder)), NEW_TOKENS)] * batch

    def run() -> float:
        sampler.generate(requests)
        return batch * NEW_TOKENS

    return run


def equal_rows_theirs(folder: Path, batch: int) -> timing.Round:
    import torch
    import transformers

    torch.set_num_threads(2)
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = None
    inputs = torch.tensor([_prompt(folder)] * batch)

    def run() -> float:
        model.generate(inputs, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
        return batch * NEW_TOKENS

    return run


def _questions(folder: Path, file: str, count: int) -> list[list[int]]:
    """Prompts of mixed length, in the file's order, cut to leave room for an answer."""
    tokenizer = Tokenizer(str(folder))
    chat = Chat("vicuna_v1.1", tokenizer)
    room = 512 - NEW_TOKENS
    questions = find_task("gsm8k")[0].load(file)[:count]
    return [chat.prompt([Message("user", question.turns[0])])[-room:] for question in questions]


def questions_ours(folder: Path, file: str, count: int) -> timing.Round:
    """The work is questions answered."""
    prompts = _questions(folder, file, count)
    sampler = _sampler(folder, None, SLOTS)

    def run() -> float:
        sampler.generate([Request(tuple(prompt), NEW_TOKENS) for prompt in prompts])
        return count

    return run


def questions_theirs(folder: Path, file: str, count: int) -> timing.Round:
    import torch
    import transformers

    torch.set_num_threads(2)
    prompts = _questions(folder, file, count)
    model = transformers.LlamaForCausalLM.from_pretrained(folder)

    def run() -> float:
        for start in range(0, count, SLOTS):
            part = prompts[start : start + SLOTS]
            longest = max(map(len, part))
            inputs = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in part])
            attended = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in part])
            model.generate(inputs, attention_mask=attended, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
        return count

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gsm8k")
    options = parser.parse_args()
    timing.heading()
    for batch in (1, 8, 32):
        timing.alternate(
            f"greedy, batch {batch}",
            "tokens/s",
            partial(equal_rows_ours, options.model, batch),
            partial(equal_rows_theirs, options.model, batch),
        )
    if options.gsm8k:
        timing.alternate(
            "200 questions of GSM8K",
            "questions/s",
            partial(questions_ours, options.model, options.gsm8k, 200),
            partial(questions_theirs, options.model, options.gsm8k, 200),
        )


if __name__ == "__main__":
    main()
