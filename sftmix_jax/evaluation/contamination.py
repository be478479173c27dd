"""Which of a benchmark's questions stand in the data that a workdir's experiments train on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from sftmix_jax.data import overlap, sources
from sftmix_jax.data.sources import Message, Source
from sftmix_jax.evaluation.runner import EvaluationConfig, load_questions
from sftmix_jax.evaluation.task import Question, find_task
from sftmix_jax.files import write_json


def measure(workdir: epath.Path, config: EvaluationConfig) -> dict[str, Any]:
    """Task → how many questions were asked, and by domain which of them share 13 words in a row with its rows.

    The domains are those of every experiment of the workdir. Written to contamination.json there.
    """
    known: dict[str, Source] = {}
    for file in sorted((workdir / "experiments").glob("*.json")):
        known |= {
            name: Source(**source) for name, source in json.loads(file.read_text())["experiment"]["domains"].items()
        }
    found: dict[str, Any] = {}
    for name in config.tasks:
        task, _ = find_task(name)
        questions = {question.id: asked(question) for question in load_questions(task, config)}
        seen = {domain: overlap.questions_seen(questions, _conversations(source)) for domain, source in known.items()}
        found[task.name] = {"of": len(questions), "questions": seen}
    file = workdir / "contamination.json"
    write_json(file, (json.loads(file.read_text()) if file.exists() else {}) | found)
    return found


def asked(question: Question) -> str:
    """What a row would have to be about: the question, and in code benchmarks their prompt."""
    return str(question.reference.get("prompt") or question.turns[0])


def _conversations(source: Source) -> Iterator[list[Message]]:
    for _, messages in sources.read_conversations(source):
        if isinstance(messages, list):
            yield messages
