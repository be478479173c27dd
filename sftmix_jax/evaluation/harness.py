"""Our models behind lm-evaluation-harness' interface, so that any of its tasks runs on any stage."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sftmix_jax.evaluation.answers import Model, leased
from sftmix_jax.evaluation.statistics import wilson
from sftmix_jax.evaluation.task import ability_of
from sftmix_jax.machine import processes
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.escaping import file_name
from sftmix_jax.machine.files import replace
from sftmix_jax.sampling.sampler import Request, Response
from sftmix_jax.workdir import records

try:
    from lm_eval import simple_evaluate
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
except ImportError:  # the extra is not installed; `run` says so
    TemplateLM = object

_MAX_NEW_TOKENS = 256  # lm-eval's own default where a task says nothing
# A request's settings: those that are read, and values that change nothing (the last three: of greedy answers)
_READ = frozenset({"until", "max_gen_toks", "do_sample", "temperature", "top_p"})
_NEUTRAL = {"num_beams": 1, "repetition_penalty": 1, "length_penalty": 1, "no_repeat_ngram_size": 0, "use_cache": True}
_OF_SAMPLING = frozenset({"top_k", "min_p", "typical_p"})


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
        """What a text without context is conditioned on: as in the `hf` backend, also if the tokenizer adds none."""
        if self._tokenizer.begin_ids:
            return self._tokenizer.begin_ids[-1]
        return self._tokenizer.eos_id if self._tokenizer.bos_id is None else self._tokenizer.bos_id

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
        """Until one of the request's strings, the end token, or its length; as the `hf` backend reads the settings.

        A request that stands there several times is drawn several times. Raises UserError for a setting that is not
        read here, and for lengths that leave no room for a prompt.
        """
        asked, terms = [], []
        copies: Counter[int] = Counter()
        for request in requests:
            text, given = request.args
            settings = normalize_gen_kwargs(given, _MAX_NEW_TOKENS)
            new, is_sampled = settings["max_gen_toks"], bool(settings.get("do_sample"))
            _check_settings(settings, is_sampled)
            if new >= self._room:
                raise UserError(
                    f"lm-eval asks for {new} new tokens (max_gen_toks), and the model holds {self._room} with the "
                    "prompt; set max_gen_toks of the task below that"
                )
            until = handle_stop_sequences(list(settings["until"]), self._tokenizer.decode_whole([self.eot_token_id]))
            terms.append([term for term in until if term])
            asked.append(
                Request(
                    tuple(self.tok_encode(text)[-(self._room - new) :]),
                    new,
                    float(settings.get("temperature") or 0.0) if is_sampled else 0.0,
                    float(settings.get("top_p") or 1.0),
                    sample=copies[id(request)],
                    stop_strings=tuple(terms[-1]),
                )
            )
            copies[id(request)] += 1
        responses = self._model.sampler.generate(asked)
        return [self._cut(response, until) for response, until in zip(responses, terms, strict=True)]

    def _cut(self, response: Response, until: Sequence[str]) -> str:
        """The answer before the first of the strings; those with special tokens are looked for among the tokens."""
        tokens = response.tokens
        if special := [term for term in until if any(name in term for name in self._tokenizer.special)]:
            ends = (
                n
                for n in range(1, len(tokens) + 1)
                if any(term in self._tokenizer.decode_whole(tokens[:n]) for term in special)
            )
            tokens = tokens[: next(ends, len(tokens))]
        text = self._tokenizer.decode(tokens)
        for term in until:
            text = text.partition(term)[0]
        return text

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        raise UserError("lm-eval's tasks are asked as they are; tasks in the chat template are those of eval/")

    @property
    def tokenizer_name(self) -> str:
        return self._tokenizer.path


def _check_settings(settings: Mapping[str, Any], is_sampled: bool) -> None:
    """Raise UserError for a setting that would change the answers and is not read."""
    for name, value in settings.items():
        is_neutral = value is None or (name in _NEUTRAL and value == _NEUTRAL[name])
        if name not in _READ and not is_neutral and (is_sampled or name not in _OF_SAMPLING):
            raise UserError(f"lm-eval's generation setting {name}={value} is not supported; leave it out of the task")


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
                HarnessModel(model),
                tasks=list(tasks),
                limit=limit or None,
                task_manager=manager,
                bootstrap_iters=1000,
            )
        except (ValueError, KeyError, ConnectionError, FileNotFoundError) as error:
            raise UserError(f"lm-eval cannot run {', '.join(tasks)}: {error}") from None
        check_lease()
        return [_record(model, name, results, limit) for name in results["results"]]


def _record(model: Model, name: str, results: dict[str, Any], limit: int) -> dict[str, Any]:
    """lm-eval's figures in the form of score.json.

    Shares of documents have Wilson's interval, as our own; of others lm-eval's standard errors give the intervals.
    """
    found = results["results"][name]
    count = results.get("n-samples", {}).get(name, {}).get("effective", 0)
    samples, better = results.get("samples", {}).get(name, []), results.get("higher_is_better", {}).get(name, {})
    metrics = {}
    for key, value in found.items():
        metric, _, which = key.partition(",")
        if not isinstance(value, int | float) or metric.endswith("_stderr") or not which:
            continue
        low, high = _interval(
            value,
            found.get(f"{metric}_stderr,{which}"),
            [sample.get(metric) for sample in samples if sample.get("filter", "none") == which],
        )
        metrics[metric if which == "none" else f"{metric} ({which})"] = {
            "value": value,
            "n": count,
            "best": _best(metric, value, better.get(metric)),
            "low": low,
            "high": high,
        }
    record = {
        "task": f"lm_eval/{name}",
        "ability": ability_of(name),
        "model": model.name,
        "metrics": metrics,
        "questions": count,
        "fixed_by": {
            "task": name,
            "task_version": results["versions"].get(name),
            "limit": limit,
            "lm_eval": results["lm_eval_version"] if "lm_eval_version" in results else _version(),
            "few_shot": results.get("n-shot", {}).get(name),
            "model": model.identity,
        },
    }
    folder = model.folder / "eval" / file_name(f"lm_eval_{name}")
    if processes.is_first():
        lines = "".join(json.dumps(sample, default=str) + "\n" for sample in samples)
        replace(folder / "samples.jsonl", lines.encode())
    records.write_score(folder / "score.json", record)
    return record


def _best(metric: str, value: float, is_more_better: bool | None) -> float:
    """1 of shares, 100 of BLEU, chrF, ROUGE and whatever exceeds 1; 0 where smaller is better.

    lm-eval says nothing of scales, and of the direction not for every metric.
    """
    if is_more_better is False or metric.endswith("perplexity") or metric in ("bits_per_byte", "ter", "brier_score"):
        return 0.0
    on_hundred = re.match("bleu(?!rt)|chrf|rouge", metric.lower()) and not metric.endswith("_acc")
    return 100.0 if on_hundred or abs(value) > 1 else 1.0


def _interval(value: float, error: Any, values: Sequence[Any]) -> tuple[float | None, float | None]:
    """95 %, of a metric with a standard error (or none: "N/A") and a value per document (none of a group)."""
    if values and all(each in (0, 1) for each in values) and math.isclose(sum(values) / len(values), value):
        return wilson(round(sum(values)), len(values))
    return (value - 1.96 * error, value + 1.96 * error) if isinstance(error, int | float) else (None, None)


def _version() -> str:
    from importlib.metadata import version

    return version("lm_eval")
