"""Ask a model a benchmark's questions; what it has answered before is taken from the journal."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from sftmix_jax.data.chat import Chat
from sftmix_jax.data.messages import BadRow, Conversation, Message
from sftmix_jax.evaluation.journal import Journal
from sftmix_jax.evaluation.task import Question
from sftmix_jax.machine import identity, processes, terminal
from sftmix_jax.machine.leases import Leases, for_all_processes
from sftmix_jax.sampling.sampler import Request, Response, Sampler

Samples = list[list[str]]  # of one question: sample → turn → text
Answers = dict[str, Samples]  # by question id


@dataclasses.dataclass(frozen=True)
class Model:
    """Something that answers, and where its scores go."""

    name: str
    identity: dict[str, Any]  # what fixes its answers
    sampler: Sampler
    chat: Chat
    folder: epath.Path  # eval/<task>/ is made in here


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How answers are drawn."""

    temperature: float
    max_new_tokens: int
    samples: int = 1
    seed: int = 0


@dataclasses.dataclass
class Asked:
    answers: Answers
    finish_reasons: Counter[str]
    seconds: float
    known: int  # answers that were on disk already


def leased(model: Model, task: str) -> contextlib.AbstractContextManager[Callable[[], None]]:
    """Holds a task's scores in the model's folder, once no other process does. → raises Lost if one takes them over.

    Whatever command scores a task holds them, so that no two write the same answers and scores.
    """
    return for_all_processes(Leases(model.folder / "claims").wait(task, f"{task} on {model.name}"))


def ask(
    model: Model,
    name: str,
    questions: Sequence[Question],
    decoding: Decoding,
    journal: Journal,
    running: Callable[[Question, str], float | None] = lambda question, text: None,
) -> Asked:
    """Every turn of every sample of every question, turn after turn.

    The progress line shows `name`, and what finished answers are worth by `running`.
    """
    begin, known = time.monotonic(), 0
    answers: Answers = {q.id: [[] for _ in range(decoding.samples)] for q in questions}
    reasons: Counter[str] = Counter()
    for turn in range(max(len(q.turns) for q in questions)):
        asked = [(q, sample) for q in questions if len(q.turns) > turn for sample in range(decoding.samples)]
        keys = [_key(model, decoding, q, sample, answers[q.id][sample]) for q, sample in asked]
        new = [i for i, key in enumerate(keys) if journal.get(key) is None]
        known += len(asked) - len(new)
        label = f"{model.folder.name}: {name}"
        progress = _Progress(f"{label}, turn {turn + 1}" if turn else label, len(new))

        def finished(
            i: int,
            response: Response,
            new: list[int] = new,
            keys: list[str] = keys,
            asked: list[tuple[Question, int]] = asked,
            progress: _Progress = progress,
        ) -> None:
            journal.put(keys[new[i]], {"text": response.text, "finish_reason": response.finish_reason})
            progress.add(len(response.tokens), running(asked[new[i]][0], response.text))

        _answer(model, decoding, [(*asked[i], answers[asked[i][0].id][asked[i][1]]) for i in new], finished)
        progress.close()
        for (question, sample), key in zip(asked, keys, strict=True):
            row = journal.get(key)
            assert row is not None
            answers[question.id][sample].append(row["text"])
            reasons[row["finish_reason"]] += 1
    journal.close()
    return Asked(answers, reasons, time.monotonic() - begin, known)


def _answer(
    model: Model,
    decoding: Decoding,
    asked: Sequence[tuple[Question, int, Sequence[str]]],
    finished: Callable[[int, Response], None],
) -> None:
    """Answers; a prompt that the chat template cannot hold is answered with nothing and counted as refused."""
    free, requests = [], []
    refused: Counter[str] = Counter()
    for i, (question, sample, said) in enumerate(asked):
        if question.measured:
            continue
        try:
            if question.choices:
                finished(i, _likeliest(model, question))
                continue
            tokens = tuple(_prompt(model.chat, question, said))
        except BadRow as error:
            refused[str(error)] += 1
            finished(i, _REFUSED)
            continue
        temperature = _temperature(decoding, question)
        requests.append(Request(tokens, decoding.max_new_tokens, temperature, seed=decoding.seed, sample=sample))
        free.append(i)
    measured = [(i, question.measured) for i, (question, _, _) in enumerate(asked) if question.measured]
    refused += _measure(model, measured, finished)
    for reason, count in refused.items() if processes.is_first() else ():
        terminal.err(f"warning: {model.name}: {count} prompts are not asked and count as unanswered: {reason}")
    model.sampler.generate(requests, lambda i, response: finished(free[i], response))


_REFUSED = Response("", (), "prompt_refused")


def _temperature(decoding: Decoding, question: Question) -> float:
    return decoding.temperature if question.temperature is None else question.temperature


def _prompt(chat: Chat, question: Question, answers: Sequence[str]) -> list[int]:
    messages = []
    for said, answer in zip(question.turns, answers, strict=False):
        messages += [Message("user", said), Message("assistant", answer)]
    messages.append(Message("user", question.turns[len(answers)]))
    return chat.prompt(messages)


def _likeliest(model: Model, question: Question) -> Response:
    """The choice that the model finds likeliest behind the question."""
    asked = [Message("user", question.turns[0])]
    pairs = [model.chat.answer(asked, choice) for choice in question.choices]
    found = [value for value, _ in model.sampler.log_likelihood(pairs)]
    return Response(question.choices[found.index(max(found))], (), "likeliest")


_TOGETHER = 256  # conversations measured before they are told of


def _measure(
    model: Model, asked: Sequence[tuple[int, Conversation]], finished: Callable[[int, Response], None]
) -> Counter[str]:
    """The log-likelihood of a conversation's own answers, of what of them the model has room for.

    Their tokens are those that training would train on. Returns why conversations could not be rendered, and how many.
    """
    room = model.sampler.config.max_length + 1
    refused: Counter[str] = Counter()
    for start in range(0, len(asked), _TOGETHER):
        pairs, owners, held = [], [], []
        for i, conversation in asked[start : start + _TOGETHER]:
            try:
                runs = model.chat.trained(conversation.messages, conversation.tools)
            except BadRow as reason:
                refused[str(reason)] += 1
                finished(i, _REFUSED)
                continue
            held.append(i)
            for before, own in runs:
                if len(before) < room:
                    pairs.append((before, own[: room - len(before)]))
                    owners.append(i)
        found = model.sampler.log_likelihood(pairs)
        for i in held:
            mine = [p for p, owner in enumerate(owners) if owner == i]
            measured = {"log_likelihood": sum(found[p][0] for p in mine), "tokens": sum(len(pairs[p][1]) for p in mine)}
            finished(i, Response(json.dumps(measured), (), "measured"))
    return refused


def _key(model: Model, decoding: Decoding, question: Question, sample: int, said: Sequence[str]) -> str:
    """All that this answer depends on."""
    return identity.digest(
        {
            "model": model.identity,
            "template": model.chat.fingerprint,
            "turns": question.turns[: len(said) + 1],
            "said": said,
            "choices": question.choices,
            "measured": repr(question.measured) if question.measured else "",
            "temperature": _temperature(decoding, question),
            "max_new_tokens": decoding.max_new_tokens,
            "seed": decoding.seed,
            "sample": sample,
        }
    )


class _Progress:
    """One line in the terminal: answers, what they are worth so far, tokens per second, time left."""

    def __init__(self, name: str, total: int):
        self._name, self._total, self._begin = name, total, time.monotonic()
        self._done = self._tokens = 0
        self._worth: list[float] = []
        self._line = terminal.Line()

    def add(self, tokens: int, worth: float | None) -> None:
        self._done += 1
        self._tokens += tokens
        self._worth += [] if worth is None else [worth]
        if not self._line.is_live:
            return
        seconds = time.monotonic() - self._begin
        left = seconds / self._done * (self._total - self._done)
        score = f"  score {sum(self._worth) / len(self._worth):.3f}" if self._worth else ""
        self._line.show(
            f"{self._name}  {self._done}/{self._total} answers  {int(left) // 60}:{int(left) % 60:02} left{score}  "
            f"{self._tokens / max(seconds, 1e-9):,.0f} tokens/s"
        )

    def close(self) -> None:
        self._line.clear()
