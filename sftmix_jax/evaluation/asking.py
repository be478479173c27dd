"""Asks a model: prompts to responses, log-likelihoods of completions, or a small chat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation.answers import Model
from sftmix_jax.machine import terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.sampling.sampler import Request
from sftmix_jax.sampling.settings import SamplingConfig


def answer(model: Model, prompts: Sequence[str], sampling: SamplingConfig, *, raw: bool, as_json: bool) -> None:
    """Prints a response per prompt and sample; as JSON, a line each. Raises UserError."""
    requests = [
        Request(
            tuple(_prompt_tokens(model, prompt, raw)),
            sampling.max_new_tokens,
            sampling.temperature,
            sampling.top_p,
            sampling.seed,
            sample,
        )
        for prompt in prompts
        for sample in range(sampling.num_samples)
    ]
    responses = model.sampler.generate(requests)
    for i, response in enumerate(responses):
        prompt = prompts[i // sampling.num_samples]
        if response.finish_reason == "prompt_too_long" and i % sampling.num_samples == 0:
            terminal.err(
                f"{prompt[:40]!r}: no answer: {len(requests[i].tokens)} tokens are as many as the model's "
                f"{model.sampler.config.max_length} or more"
            )
        if as_json:
            terminal.out_json(
                {
                    "prompt": prompt,
                    "response": response.text,
                    "tokens": list(response.tokens),
                    "finish_reason": response.finish_reason,
                }
            )
        else:
            terminal.out(response.text)


def score(model: Model, file: str, *, raw: bool, as_json: bool) -> None:
    """Prints the log-likelihood of each row's completion behind its prompt. Raises UserError."""
    rows = _read_rows(file, ("prompt", "completion"))
    pairs = []
    for where, row in rows:
        pair = _pair_tokens(model, where, row["prompt"], row["completion"], raw)
        if sum(map(len, pair)) > model.sampler.config.max_length:
            raise UserError(f"{where}: {sum(map(len, pair))} tokens, the model holds {model.sampler.config.max_length}")
        pairs.append(pair)
    for (_, row), (_, completion), (found, _) in zip(rows, pairs, model.sampler.log_likelihood(pairs), strict=True):
        if as_json:
            scored = {**row, "log_likelihood": found, "num_tokens": len(completion)}
            terminal.out_json(scored)
        else:
            terminal.out(f"{found:.4f}  {len(completion)} tokens  {row['completion']!r}")


def _prompt_tokens(model: Model, prompt: str, raw: bool) -> list[int]:
    """Raises UserError for words that the chat template cannot hold."""
    if raw:
        return model.chat.tokenizer.encode_plain(prompt)
    return _chat_tokens(model, [Message("user", prompt)])


def _chat_tokens(model: Model, messages: Sequence[Message]) -> list[int]:
    try:
        return model.chat.prompt(messages)
    except BadRow as reason:
        raise UserError(f"{messages[-1].content[:40]!r}: {reason}; --raw takes a prompt as it is") from None


def _pair_tokens(model: Model, where: str, prompt: str, completion: str, raw: bool) -> tuple[list[int], list[int]]:
    """A prompt's tokens, and those of the completion as they stand behind it, where the two share no token."""
    if not raw:
        try:
            return model.chat.answer([Message("user", prompt)], completion)
        except BadRow as reason:
            raise UserError(f"{where}: {reason}; --raw takes a prompt as it is") from None
    before, whole = _prompt_tokens(model, prompt, raw=True), _prompt_tokens(model, prompt + completion, raw=True)
    if whole[: len(before)] == before:
        return before, whole[len(before) :]
    return before, model.chat.tokenizer.encode(completion)


def chat(model: Model, sampling: SamplingConfig) -> None:
    """Talks with the user of standard input until an empty line or its end. Raises UserError."""
    terminal.err(f"{model.name}; an empty line or Ctrl-D ends the chat")
    messages: list[Message] = []
    while True:
        try:
            said = input("> ")
        except EOFError:
            return
        if not said.strip():
            return
        messages.append(Message("user", said))
        try:
            tokens = tuple(_chat_tokens(model, messages))
        except UserError as error:
            terminal.err(error)
            messages.pop()
            continue
        request = Request(tokens, sampling.max_new_tokens, sampling.temperature, sampling.top_p, sampling.seed)
        response = model.sampler.generate([request])[0]
        if response.finish_reason == "prompt_too_long":
            raise UserError(f"the conversation has outgrown the model's {model.sampler.config.max_length} tokens")
        terminal.out(response.text)
        messages.append(Message("assistant", response.text))


# Fields of a row that would change its answer.
_MEANT = frozenset(
    {
        "system",
        "developer",
        "history",
        "messages",
        "conversations",
        "tools",
        "functions",
        "tool_choice",
        "response_format",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop",
        "max_tokens",
        "max_new_tokens",
        "max_completion_tokens",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
    }
)


def read_prompts(file: str) -> list[str]:
    """The prompts of a file of {"prompt": …} rows. Raises UserError."""
    return [row["prompt"] for _, row in _read_rows(file, ("prompt",))]


def _read_rows(file: str, columns: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    if not Path(file).is_file():
        raise UserError(f"no file {file}")
    rows = [(row.where, row.value) for row in read_rows(Source(file))]
    for where, row in rows:
        for column in columns:
            if not isinstance(row.get(column), str):
                raise UserError(
                    f"{where}: no text in '{column}'; a line is {{{', '.join(f'{c!r}: …' for c in columns)}}}"
                )
        if meant := next((field for field in row if field in _MEANT and row[field]), ""):
            raise UserError(
                f"{where}: its '{meant}' would not be used, as a prompt is one question and the settings are the "
                "command's; leave it out, or write the whole conversation as text with --raw"
            )
    left = Counter(field for _, row in rows for field in row if field not in columns)
    if left and "completion" not in columns:  # --score repeats the whole row
        told = ", ".join(f"{field} ({count} of {len(rows)} rows)" for field, count in left.items())
        terminal.err(f"{file}: fields that are not used: {told}")
    return rows
