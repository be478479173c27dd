"""lm-evaluation-harness' generation on our sampler against its own `hf` backend, on this machine's CPU.

python benchmarks/harness.py --model DIR --gsm8k test.jsonl

Needs the extras 'parity' and 'eval'. 200 questions of GSM8K, greedy, up to 128 new tokens; the `hf` backend with its
default batch of 1 and with one of 32. That the texts are the same is looked at first, on 32 questions.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import timing

from sftmix_jax.evaluation.task import find_task
from sftmix_jax.machine import compilation, host_memory

SETTINGS = {"until": ["Question:", "</s>"], "max_gen_toks": 128, "do_sample": False, "temperature": 0.0}


def _requests(file: str, count: int) -> list[Any]:
    from lm_eval.api.instance import Instance

    asked = [f"Question: {question.turns[0]}\nAnswer:" for question in find_task("gsm8k")[0].load(file)[:count]]
    return [Instance("generate_until", {}, (text, SETTINGS), i) for i, text in enumerate(asked)]


def _ours(folder: Path) -> Any:
    host_memory.keep_freed()
    compilation.set_up()
    from etils import epath

    from sftmix_jax.evaluation.harness import HarnessModel
    from sftmix_jax.experiment.opening import Opening, open_model

    return HarnessModel(open_model(str(folder), Opening(dtype="float32"), epath.Path("unused")))


def _theirs(folder: Path, batch: int) -> Any:
    import torch
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(2)
    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=batch, max_length=512)


def questions(model: Any, file: str, count: int) -> timing.Round:
    """The work is questions answered."""
    requests = _requests(file, count)

    def run() -> float:
        model.generate_until(requests, disable_tqdm=True)
        return count

    return run


def ours(folder: Path, file: str, count: int) -> timing.Round:
    return questions(_ours(folder), file, count)


def theirs(folder: Path, batch: int, file: str, count: int) -> timing.Round:
    return questions(_theirs(folder, batch), file, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gsm8k", required=True)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    requests = _requests(options.gsm8k, 32)
    texts = [model.generate_until(requests) for model in (_ours(options.model), _theirs(options.model, 1))]
    same = sum(mine == other for mine, other in zip(*texts, strict=True))
    print(f"{same} of {len(requests)} texts are the same")
    timing.heading("hf backend")
    for batch in (1, 32):
        timing.alternate(
            f"{options.count} questions of GSM8K, hf in batches of {batch}",
            "questions/s",
            partial(ours, options.model, options.gsm8k, options.count),
            partial(theirs, options.model, batch, options.gsm8k, options.count),
        )


if __name__ == "__main__":
    main()
