"""Ask a stage or a model: prompts to responses, or a small chat in the terminal.

python -m sftmix_jax.sample --workdir DIR [--stage NAME] --prompt TEXT
python -m sftmix_jax.sample --model DIR_OR_HUB_ID --prompts FILE.jsonl --json
python -m sftmix_jax.sample --model DIR_OR_HUB_ID --score FILE.jsonl --json
python -m sftmix_jax.sample --workdir DIR                                       (chat)

Control characters of an answer are shown as escapes (\\x1b); --json holds the answer itself. An answer ends before the
stop token or string; its `tokens` are the fewest that hold all of its text.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath

from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation.answers import Model
from sftmix_jax.experiment.opening import Opening, one_stage, open_model, open_stage
from sftmix_jax.machine import command, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Integer, of
from sftmix_jax.sampling.methods import TEMPERATURE, TOP_P
from sftmix_jax.sampling.sampler import Request


def main() -> int:
    options = _parse()
    opening = Opening(options.template, options.dtype, options.slots)
    if options.model and options.workdir:
        raise UserError("--model and --workdir name two models to ask; leave one out")
    if options.model:
        model = open_model(options.model, opening)
    elif options.workdir:
        model = open_stage(one_stage(epath.Path(options.workdir), options.stage), opening)
    else:
        raise UserError("name what to ask: --workdir DIR [--stage NAME] or --model DIR_OR_HUB_ID")
    if not options.raw:
        terminal.err(model.chat.description)
    if options.score:
        _score(model, options)
    elif options.prompt is not None or options.prompts:
        _answer(model, options)
    else:
        with command.open_stdin():
            _chat(model, options)
    return 0


def _answer(model: Model, options: argparse.Namespace) -> None:
    prompts = [options.prompt] if options.prompt is not None else _read(options.prompts, "prompt")
    requests = [
        Request(
            tuple(_prompt_tokens(model, prompt, options.raw)), options.max_new_tokens, options.temperature,
            options.top_p, options.seed, sample,
        )
        for prompt in prompts for sample in range(options.num_samples)
    ]  # fmt: skip
    responses = model.sampler.generate(requests)
    for i, response in enumerate(responses):
        prompt = prompts[i // options.num_samples]
        if response.finish_reason == "prompt_too_long" and i % options.num_samples == 0:
            terminal.err(f"{prompt[:40]!r}: no answer: {len(requests[i].tokens)} tokens are as many as the model's "
                         f"{model.sampler.config.max_length} or more")  # fmt: skip
        if options.json:
            terminal.out_json({
                "prompt": prompt, "response": response.text, "tokens": list(response.tokens),
                "finish_reason": response.finish_reason,
            })  # fmt: skip
        else:
            terminal.out(response.text)


def _score(model: Model, options: argparse.Namespace) -> None:
    rows = _read_rows(options.score, ("prompt", "completion"))
    pairs = []
    for where, row in rows:
        pair = _pair_tokens(model, where, row["prompt"], row["completion"], options.raw)
        if sum(map(len, pair)) > model.sampler.config.max_length:
            raise UserError(f"{where}: {sum(map(len, pair))} tokens, the model holds {model.sampler.config.max_length}")
        pairs.append(pair)
    for (_, row), (_, completion), (found, _) in zip(rows, pairs, model.sampler.log_likelihood(pairs), strict=True):
        if options.json:
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


def _chat(model: Model, options: argparse.Namespace) -> None:
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
        request = Request(tokens, options.max_new_tokens, options.temperature, options.top_p, options.seed)
        response = model.sampler.generate([request])[0]
        if response.finish_reason == "prompt_too_long":
            raise UserError(f"the conversation has outgrown the model's {model.sampler.config.max_length} tokens")
        terminal.out(response.text)
        messages.append(Message("assistant", response.text))


# Fields of a row that would change its answer.
_MEANT = frozenset({
    "system", "developer", "history", "messages", "conversations", "tools", "functions", "tool_choice",
    "response_format", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "max_tokens", "max_new_tokens",
    "max_completion_tokens", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias",
})  # fmt: skip


def _read(file: str, column: str) -> list[str]:
    return [row[column] for _, row in _read_rows(file, (column,))]


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


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sftmix_jax.sample", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--workdir", default="")
    parser.add_argument("--stage", default="all", help="name or id, or base (default: the experiment's last)")
    parser.add_argument("--model", default="", help="a model folder, a hub id or a stage folder")
    parser.add_argument("--prompt", default=None)
    parser.add_argument("--prompts", default="", help='FILE.jsonl, {"prompt"} a line')
    parser.add_argument("--score", default="", help='FILE.jsonl, {"prompt", "completion"} a line: log-likelihoods')
    parser.add_argument("--raw", action="store_true", help="the prompt as it is, without a chat template")
    parser.add_argument("--max_new_tokens", type=Integer(at_least=1).parse, default=256)
    parser.add_argument("--temperature", type=TEMPERATURE.parse, default=0.0, help="0: greedy")
    parser.add_argument("--top_p", type=TOP_P.parse, default=1.0)
    parser.add_argument("--num_samples", type=Integer(at_least=1).parse, default=1)
    parser.add_argument("--seed", type=Integer(at_least=0).parse, default=0)
    parser.add_argument("--template", default="", help="chat template, instead of the stage's own")
    parser.add_argument("--dtype", type=of(Opening, "dtype").parse, default="auto", help="float32 or bfloat16")
    parser.add_argument("--slots", type=of(Opening, "slots").parse, default=32,
                        help="prompts that are answered at the same time")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a JSON line a sample")
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    command.run(main)
