"""Our models behind lm-evaluation-harness' interface, so that any of its tasks runs on any stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sftmix_jax import records
from sftmix_jax.errors import UserError
from sftmix_jax.evaluation.answers import Model, leased
from sftmix_jax.files import replace
from sftmix_jax.sampling.sampler import Request

try:
    from lm_eval import simple_evaluate
    from lm_eval.api.model import TemplateLM
except ImportError:  # the extra is not installed; `run` says so
    TemplateLM = object

_MAX_NEW_TOKENS = 256  # lm-eval's own default where a task says nothing


class HarnessModel(TemplateLM):
    """lm-eval's `loglikelihood`, `loglikelihood_rolling` and `generate_until` on our sampler.

    Texts are taken as they are, behind what the tokenizer itself puts before a text.
    """

    def __init__(self, model: Model):
        super().__init__()
        self._model, self._tokenizer = model, model.chat.tokenizer
        self._room = model.sampler.config.max_length

    @property
    def eot_token_id(self) -> int:
        return self._tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What a text without context is conditioned on."""
        return self._tokenizer.begin_ids[-1] if self._tokenizer.begin_ids else self._tokenizer.eos_id

    def tok_encode(self, string: str, add_special_tokens: bool = True, **_: Any) -> list[int]:
        return self._tokenizer.encode_plain(string) if add_special_tokens else self._tokenizer.encode(string)

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Contexts that are too long lose their head, as in the `hf` backend."""
        pairs = []
        for _text, context, continuation in requests:
            if len(continuation) > self._room:
                raise UserError(f"lm-eval asks for {len(continuation)} tokens, the model holds {self._room}")
            pairs.append((context[-(self._room + 1 - len(continuation)) :], continuation))
        return self._model.sampler.log_likelihood(pairs)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """log p of whole texts, in windows of the model's length that each predict their tokens once."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        windows: list[tuple[list[int], list[int]]] = []
        owners: list[int] = []
        for owner, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            made = get_rolling_token_windows(tokens, self.prefix_token_id, self._room, context_len=1)
            for window in map(make_disjoint_window, made):
                windows.append(window)
                owners.append(owner)
        found = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._model.sampler.log_likelihood(windows), strict=True):
            found[owner] += value
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Until one of the request's strings, the end token, or its length."""
        asked = []
        for request in requests:
            text, settings = request.args
            until = settings.get("until") or []
            new = int(settings.get("max_gen_toks", _MAX_NEW_TOKENS))
            tokens = self.tok_encode(text)[-(self._room - new) :]
            temperature = float(settings.get("temperature", 0.0)) if settings.get("do_sample") else 0.0
            asked.append(
                Request(
                    tuple(tokens), new, temperature, float(settings.get("top_p", 1.0)),
                    stop_strings=(until,) if isinstance(until, str) else tuple(until),
                )
            )  # fmt: skip
        return [response.text for response in self._model.sampler.generate(asked)]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        raise UserError("lm-eval's tasks are asked as they are; tasks in the chat template are those of eval/")

    @property
    def tokenizer_name(self) -> str:
        return self._tokenizer.path


def run(model: Model, tasks: Sequence[str], limit: int, data: str = "") -> list[dict[str, Any]]:
    """Any of lm-eval's tasks on one model → a score.json each, beside ours. Raises UserError.

    `data` is a folder of further task files (lm-eval's include_path).
    """
    if TemplateLM is object:
        raise UserError("lm-evaluation-harness is not installed: pip install 'sftmix-jax[eval]'")
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=data or None)
    with leased(model, "lm_eval") as check_lease:
        try:
            results = simple_evaluate(
                HarnessModel(model), tasks=list(tasks), limit=limit or None, task_manager=manager,
                bootstrap_iters=1000,
            )  # fmt: skip
        except (ValueError, KeyError, ConnectionError, FileNotFoundError) as error:
            raise UserError(f"lm-eval cannot run {', '.join(tasks)}: {error}") from None
        check_lease()
        return [_record(model, name, results, limit) for name in results["results"]]


def _record(model: Model, name: str, results: dict[str, Any], limit: int) -> dict[str, Any]:
    """lm-eval's figures in the form of score.json; its standard errors give the intervals."""
    found = results["results"][name]
    count = results.get("n-samples", {}).get(name, {}).get("effective", 0)
    metrics = {}
    for key, value in found.items():
        metric, _, which = key.partition(",")
        if not isinstance(value, int | float) or metric.endswith("_stderr") or not which:
            continue
        error = found.get(f"{metric}_stderr,{which}")
        half = 1.96 * error if isinstance(error, int | float) else None
        metrics[metric if which == "none" else f"{metric} ({which})"] = {
            "value": value, "n": count, "best": 1.0,
            "low": value - half if half is not None else None, "high": value + half if half is not None else None,
        }  # fmt: skip
    record = {
        "task": f"lm_eval/{name}", "model": model.name, "metrics": metrics, "questions": count,
        "fixed_by": {
            "task": name, "task_version": results["versions"].get(name), "limit": limit,
            "lm_eval": results["lm_eval_version"] if "lm_eval_version" in results else _version(),
            "few_shot": results.get("n-shot", {}).get(name), "model": model.identity,
        },
    }  # fmt: skip
    folder = model.folder / "eval" / f"lm_eval_{name}"
    samples = results.get("samples", {}).get(name, [])
    replace(folder / "samples.jsonl", "".join(json.dumps(sample, default=str) + "\n" for sample in samples).encode())
    records.write_score(folder / "score.json", record)
    return record


def _version() -> str:
    from importlib.metadata import version

    return version("lm_eval")
