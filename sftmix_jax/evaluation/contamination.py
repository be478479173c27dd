"""Which of a benchmark's questions stand in the data that a workdir's experiments train on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from sftmix_jax.data import overlap, sources
from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.sources import Source
from sftmix_jax.evaluation.config import EvaluationConfig, load_questions
from sftmix_jax.evaluation.task import Question, find_task, questions_hash
from sftmix_jax.machine import terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import exists, matching, write_json
from sftmix_jax.workdir import records


def measure(workdir: epath.Path, config: EvaluationConfig) -> dict[str, Any]:
    """Task → how many questions were asked, and by domain which of them share 13 words in a row with its rows.

    The domains are those of every experiment of the workdir. Kept in contamination.json there, and looked for again
    only where questions or rows have changed. Raises UserError for rows that are not here.
    """
    domains: dict[str, dict[str, Source]] = {}
    for file in matching(workdir / "experiments", "*.json"):
        for name, fields in records.experiment(file)["experiment"]["domains"].items():
            source = Source(**fields)
            domains.setdefault(name, {})[sources.fingerprint(source)] = source
    file = workdir / "contamination.json"
    known = _known(file)
    found: dict[str, Any] = {}
    for name in config.tasks:
        task, _ = find_task(name)
        questions = load_questions(task, config)
        key = f"{questions_hash(questions)} {sorted(print_ for own in domains.values() for print_ in own)}"
        if task.name not in known or known[task.name]["key"] != key:
            known[task.name] = {
                "key": key,
                "of": len(questions),
                "questions": {domain: _seen(questions, own.values()) for domain, own in domains.items()},
            }
        found[task.name] = known[task.name]
    write_json(file, known)
    return found


def _known(file: epath.Path) -> dict[str, Any]:
    """What was found before; what of it is damaged is left out, and so looked for again."""
    if not exists(file):
        return {}
    try:
        record = records.contamination(file)
    except UserError as error:
        terminal.err(f"looking for the questions again: {error}")
        return {}
    wanted = {"key": str, "of": int, "questions": dict}
    sound = {
        task: entry
        for task, entry in record.items()
        if isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in wanted.items())
    }
    if sound.keys() != record.keys():
        lost = ", ".join(record.keys() - sound.keys())
        terminal.err(f"{file}: damaged; looking for the questions of {lost} again")
    return sound


def _seen(questions: Sequence[Question], rows: Iterable[Source]) -> list[str]:
    every = itertools.chain.from_iterable(map(_conversations, rows))
    return overlap.questions_seen({question.id: asked(question) for question in questions}, every)


def asked(question: Question) -> str:
    """What a row would have to be about: the question, and in code benchmarks their prompt."""
    return str(question.reference.get("prompt") or question.turns[0])


def _conversations(source: Source) -> Iterator[Sequence[Message]]:
    for _, conversation in sources.read_conversations(source):
        if not isinstance(conversation, BadRow):
            yield conversation.messages
