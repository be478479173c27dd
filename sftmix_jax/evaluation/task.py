"""What a benchmark is: questions, and a score for each answer. One file of eval/ holds one `TASK`."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftmix_jax import desk
from sftmix_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Question:
    id: str
    turns: tuple[str, ...]  # what the user says; the second turn follows the first answer
    reference: Mapping[str, Any]  # all that the scoring needs


@dataclasses.dataclass(frozen=True)
class Metric:
    name: str
    is_rate: bool = True  # each question gives 0 or 1, or (False) a number up to `best`
    best: float = 1.0
    about: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """A benchmark. `score` is called once a question, from several threads."""

    name: str
    load: Callable[[str], list[Question]]  # from a path, or from `default_data`
    score: Callable[[Question, Sequence[str]], dict[str, float | None]]  # None: this metric is not about it
    metrics: tuple[Metric, ...]  # the first is the one that tables show
    default_data: str
    max_new_tokens: int = 512
    temperature: float = 0.0
    runs_code: bool = False


def find_task(name: str) -> tuple[Task, str]:
    """The task of a file (`gsm8k`, `eval/gsm8k.py`, …) and the hash of that file. Raises UserError."""
    file = desk.find("eval", name)
    spec = importlib.util.spec_from_file_location(f"sftmix_task_{file.stem}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        raise UserError(f"{file}: a task file sets TASK = Task(…)")
    return task, hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]


def questions_hash(questions: Sequence[Question]) -> str:
    """A hash of what is asked and of the references."""
    text = repr([(q.id, q.turns, sorted(q.reference.items())) for q in questions])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
