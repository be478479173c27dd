"""One renderer of chat, for training and for sampling: messages → text → tokens and loss weights.

A template yields pieces of text, each with the weight of its loss (0: not trained on). The text is tokenised
as a whole, as transformers does. A token has the weight of the piece that it starts in: that of the assistant's
words and their end of turn, and 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.errors import UserError, did_you_mean


class Piece(NamedTuple):
    text: str
    weight: float = 0.0  # of the loss of its tokens; 0: not trained on


class Template(NamedTuple):
    render: Callable[[Sequence[Message], str, str], Iterable[Piece]]  # messages, bos, eos → pieces
    answer: Callable[[Sequence[Message], str, str], str]  # the same, up to where the answer starts
    stop: str = ""  # what ends a turn, where it is not the tokenizer's end of sequence
    roles: tuple[str, ...] = ("system", "user", "assistant")


def _turns_after_system(messages: Sequence[Message], default: str) -> tuple[str, Sequence[Message]]:
    if messages and messages[0].role == "system":
        return messages[0].content, messages[1:]
    return default, messages


# Vicuna 1.1 (FastChat's `vicuna_v1.1`): the template of the paper.
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def _vicuna(messages: Sequence[Message], bos: str, eos: str) -> Iterable[Piece]:
    system, turns = _turns_after_system(messages, _VICUNA)
    yield Piece(bos + system + " ")
    for message in turns:
        match message.role:
            case "assistant":
                yield Piece("ASSISTANT:")
                yield Piece(f" {message.content}{eos}", message.weight)
            case "user":
                yield Piece(f"USER: {message.content} ")
            case _:
                yield Piece(f"{message.content} ")


def _vicuna_prompt(messages: Sequence[Message], bos: str, eos: str) -> str:
    return _join(_vicuna(messages, bos, eos)) + "ASSISTANT:"


# Stanford Alpaca's, without input field, turn after turn as FastChat chains it.
_ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."


def _alpaca(messages: Sequence[Message], bos: str, eos: str) -> Iterable[Piece]:
    system, turns = _turns_after_system(messages, _ALPACA)
    yield Piece(f"{bos}{system}\n\n")
    for message in turns:
        match message.role:
            case "assistant":
                yield Piece("### Response:")
                yield Piece(f"\n{message.content}{eos}", message.weight)
            case "user":
                yield Piece(f"### Instruction:\n{message.content}\n\n")
            case _:
                yield Piece(f"{message.content}\n\n")


def _alpaca_prompt(messages: Sequence[Message], bos: str, eos: str) -> str:
    return _join(_alpaca(messages, bos, eos)) + "### Response:"


def _llama2(messages: Sequence[Message], bos: str, eos: str) -> Iterable[Piece]:
    system, turns = _turns_after_system(messages, "")
    prefix = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    for message in turns:
        if message.role == "assistant":
            yield Piece(f" {message.content.strip()} {eos}", message.weight)
        else:
            yield Piece(f"{bos}[INST] {(prefix + message.content).strip()} [/INST]")
            prefix = ""


def _llama2_prompt(messages: Sequence[Message], bos: str, eos: str) -> str:
    return _join(_llama2(messages, bos, eos))


def _headed(start: str, middle: str, end: str, tool: str) -> Callable[..., Iterable[Piece]]:
    """Templates whose every message has a header with its role: LLaMA 3 and ChatML."""

    def render(messages: Sequence[Message], bos: str, eos: str) -> Iterable[Piece]:
        close, _, gap = end.partition("\n")
        newline = "\n" if "\n" in end else ""
        for message in messages:
            yield Piece(f"{start}{tool if message.role == 'tool' else message.role}{middle}")
            yield Piece(message.content + close, message.weight if message.role == "assistant" else 0.0)
            yield Piece(newline + gap)

    return render


_llama3_body = _headed("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", "ipython")
_chatml_body = _headed("<|im_start|>", "\n", "<|im_end|>\n", "tool")


def _llama3(messages: Sequence[Message], bos: str, eos: str) -> Iterable[Piece]:
    yield Piece(bos)
    yield from _llama3_body([m._replace(content=m.content.strip()) for m in messages], bos, eos)


def _llama3_prompt(messages: Sequence[Message], bos: str, eos: str) -> str:
    return _join(_llama3(messages, bos, eos)) + "<|start_header_id|>assistant<|end_header_id|>\n\n"


def _chatml_prompt(messages: Sequence[Message], bos: str, eos: str) -> str:
    return _join(_chatml_body(messages, bos, eos)) + "<|im_start|>assistant\n"


TEMPLATES: dict[str, Template] = {
    "vicuna_v1.1": Template(_vicuna, _vicuna_prompt),
    "alpaca": Template(_alpaca, _alpaca_prompt),
    "llama-2": Template(_llama2, _llama2_prompt),
    "llama-3": Template(_llama3, _llama3_prompt, "<|eot_id|>", ("system", "user", "assistant", "tool")),
    "chatml": Template(_chatml_body, _chatml_prompt, "<|im_end|>", ("system", "user", "assistant", "tool")),
}


def _join(pieces: Iterable[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


class Chat:
    """A template with the tokenizer that reads it; `jinja` is the tokenizer's own template."""

    def __init__(self, template: str, tokenizer: Tokenizer):
        if template != "jinja" and template not in TEMPLATES:
            raise UserError(f"template '{template}': {did_you_mean(template, [*TEMPLATES, 'jinja'])}")
        if template == "jinja" and not tokenizer.chat_template:
            raise UserError(f"template 'jinja': {tokenizer.path} has no chat template; {did_you_mean('', TEMPLATES)}")
        self.name, self.tokenizer = template, tokenizer

    @property
    def fingerprint(self) -> str:
        return f"jinja:{self.tokenizer.chat_template}" if self.name == "jinja" else self.name

    def pieces(self, messages: Sequence[Message]) -> list[Piece]:
        """The conversation's text, piece by piece.

        Raises BadRow for a role that the template lacks, and for words that would be read as control tokens:
        a `</s>` that somebody wrote must not end a turn, or be trained on as an end.
        """
        bos, eos = self.tokenizer.bos, self.tokenizer.eos
        for message in messages:
            if control := self.tokenizer.control_token_in(message.content):
                raise BadRow(f"the text holds '{control}', which the tokenizer reads as a control token")
        if messages[0].role == "text":
            return [Piece(bos), Piece(messages[0].content + eos, messages[0].weight)]
        if self.name == "jinja":
            return self._jinja_pieces(messages)
        template = TEMPLATES[self.name]
        for message in messages:
            if message.role not in template.roles:
                raise BadRow(f"a '{message.role}' message, which the template {self.name} cannot hold")
        return list(template.render(messages, bos, eos))

    def _jinja_pieces(self, messages: Sequence[Message]) -> list[Piece]:
        whole = self.tokenizer.render_jinja(messages)
        pieces, done = [], 0
        for i, message in enumerate(messages):
            if message.role == "assistant":
                start = self.tokenizer.render_jinja(messages[:i], prompt=True)
                upto = self.tokenizer.render_jinja(messages[: i + 1]).rstrip()
                if not (whole.startswith(upto) and upto.startswith(start)):
                    raise BadRow("the tokenizer's template rewrites earlier turns, so its turns cannot be found")
                pieces += [Piece(whole[done : len(start)]), Piece(whole[len(start) : len(upto)], message.weight)]
                done = len(upto)
        return [*pieces, Piece(whole[done:])]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Tokens up to where the assistant's next answer starts."""
        if self.name == "jinja":
            text = self.tokenizer.render_jinja(messages, prompt=True)
        else:
            text = TEMPLATES[self.name].answer(messages, self.tokenizer.bos, self.tokenizer.eos)
        return self.tokenizer.encode(text)

    def answer(self, messages: Sequence[Message], text: str) -> list[int]:
        """The tokens that are trained on where `text` answers `messages`, its end of turn among them."""
        tokens, weights = self.encode([self.pieces([*messages, Message("assistant", text)])])[0]
        upto = len(self.prompt(messages))
        return [int(t) for t, weight in zip(tokens[upto:], weights[upto:], strict=True) if weight]

    def stops(self) -> tuple[list[int], list[str]]:
        """What ends an answer: token ids, and strings where the tokenizer has no such token."""
        ids, strings = [self.tokenizer.eos_id], []
        end = "" if self.name == "jinja" else TEMPLATES[self.name].stop
        if self.name == "jinja":
            probe = [Message("user", "u"), Message("assistant", "a")]
            end = self._jinja_pieces(probe)[-2].text.rpartition("a")[2].strip()
        if end:
            special = self.tokenizer.special_id(end)
            if special is None:
                strings.append(end)
            elif special not in ids:
                ids.append(special)
        return ids, strings

    def encode(self, conversations: Sequence[list[Piece]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pieces → tokens int32 [n] and the weights of their losses, float32 [n]; 0 where not trained on."""
        texts = [_join(pieces) for pieces in conversations]
        encoded = []
        for pieces, (ids, starts) in zip(conversations, self.tokenizer.encode_with_offsets(texts), strict=True):
            ends = np.cumsum([len(piece.text) for piece in pieces])
            weights = np.array([piece.weight for piece in pieces], np.float32)
            encoded.append((ids, weights[np.searchsorted(ends, starts, side="right").clip(max=len(pieces) - 1)]))
        return encoded
