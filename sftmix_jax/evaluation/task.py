"""What a benchmark is: questions, and a score for each answer. One file of eval/ holds one `TASK`."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from sftmix_jax import desk
from sftmix_jax.data.messages import Conversation
from sftmix_jax.evaluation.judging import Rubric
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import NAME, Text

Turns = Sequence[str]  # an answer a turn
Verdict = dict[str, float | None]  # by metric; None: this metric is not about this question


class Program(str):
    """An answer that is a whole program already: it is run as it stands."""


class Explained(dict[str, float | None]):
    """A verdict on one sample, with the reason why it failed: `kind: detail`, "" where it passed."""

    def __init__(self, scores: Verdict, reason: str):
        super().__init__(scores)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Question:
    id: str
    turns: tuple[str, ...]  # what the user says; the second turn follows the first answer
    reference: Mapping[str, Any]  # all that the scoring needs
    temperature: float | None = None  # where it is not the task's
    choices: tuple[str, ...] = ()  # the answer is the likeliest of these, nothing is generated
    measured: Conversation | None = None  # nothing is generated: the likelihood of what it would train on is asked for
    group: str = ""  # metrics are also told for each group of questions
    row: int | None = None  # of the file, from 0, where the task leaves rows out


@dataclasses.dataclass(frozen=True)
class Metric:
    name: str
    is_rate: bool = True  # each question gives 0 or 1, or (False) a number up to `best`
    best: float = 1.0  # 0: without a best, smaller is better
    about: str = ""
    samples: int = 1  # how many samples a question it takes, at least
    weight: str = ""  # the verdict's entry that weights the question in the mean; by default all weigh the same
    geometric: bool = False  # the mean is taken over logarithms, as of perplexities


def mean_over_samples(question: Question, samples: Sequence[Turns], verdicts: Sequence[Verdict]) -> Verdict:
    """Each metric's mean over the samples that it is about."""
    out: Verdict = {}
    for metric in verdicts[0]:
        values = [v for verdict in verdicts if (v := verdict[metric]) is not None]
        out[metric] = sum(values) / len(values) if values else None
    return out


@dataclasses.dataclass(frozen=True)
class Task:
    """A benchmark: its questions, and either a score or a judge's rubric.

    `score` says what one sample is worth, and is called from several threads; `pool` makes one verdict of a
    question's samples.
    """

    name: str
    load: Callable[[str], list[Question]]  # from a path, or from `default_data`
    metrics: tuple[Metric, ...]  # the first is the one that tables show
    default_data: str
    score: Callable[[Question, Turns], Verdict] | None = None
    pool: Callable[[Question, Sequence[Turns], Sequence[Verdict]], Verdict] = mean_over_samples
    of_samples: Callable[[int], list[Metric]] | None = None  # further metrics, of so many samples of each question
    extract: Callable[[Question, Turns], Any] | None = None  # what of a sample was compared, for people who look
    rubric: Rubric | None = None
    max_new_tokens: int = 512
    temperature: float = 0.0
    runs_code: bool = False
    packages: tuple[str, ...] = ()  # further packages whose rules decide the verdict, by their distributions' names
    # math, code, general (the paper's), or any other; the domain of that name is its own data. "": the task's name
    ability: str = ""


def find_task(name: str) -> tuple[Task, str]:
    """The task of a file (`gsm8k`, `eval/gsm8k.py`, …) and its version. Raises UserError.

    The version is a hash of the files in which the rules of its verdict stand and of its packages' versions, so that
    another rule to read answers by is another version.
    """
    file = desk.find("eval", name)
    task = getattr(desk.load(file, "task"), "TASK", None)
    if not isinstance(task, Task):
        raise UserError(f"{file}: a task file sets TASK = Task(…)")
    if rule := NAME.broken(task.name):
        raise UserError(f"{file}: its TASK is named {task.name!r}; {rule}")
    if not task.metrics:
        raise UserError(f"{file}: its TASK has no metrics, so that nothing would be shown")
    if rule := Text().broken(task.ability):
        raise UserError(f"{file}: its TASK has the ability {task.ability!r}; {rule}")
    version = hashlib.sha256()
    for each in rule_files(file, task.runs_code):
        version.update(each.read_bytes())
    for package in task.packages:
        version.update(f"\0{package}=={_installed(package)}".encode())
    return dataclasses.replace(task, ability=task.ability or task.name), version.hexdigest()[:12]


def ability_of(name: str) -> str:
    """The ability that a task by another's name measures, such as lm-eval's `gsm8k_cot`, `mmlu_anatomy`, `arc_easy`.

    That of the first file of eval/ whose name stands in it, whole words alone (of `mbpp` and `mbpp_plus` the longer
    one); its own name where there is none.
    """
    found = {each: f"_{name}_".find(f"_{each}_") for file in desk.listed("eval") for each in (Path(file).stem,)}
    names = sorted((place, -len(each), each) for each, place in found.items() if place >= 0)
    if not names:
        return name
    return find_task(f"{names[0][-1]}.py")[0].ability


def rule_files(file: Path, runs_code: bool) -> list[Path]:
    """A task's file, the files beside it that it imports, and those of the package's rules, to any depth."""
    found: set[Path] = set()
    new = {file.resolve(), _PACKAGE / "evaluation" / "replies.py"}  # what of a response is scored, of every task
    if runs_code:
        new |= set((_PACKAGE / "evaluation" / "contained").glob("*.py"))
    while new:
        found |= new
        new = {each for importing in new for each in _imported(importing)} - found
    return [file, *sorted(found - {file.resolve()})]


_PACKAGE = Path(__file__).resolve().parents[1]
_RULES = ("evaluation", "tiny")  # the package's folders of rules; the others read data and answer


def _imported(file: Path) -> set[Path]:
    """The files that a file imports anywhere, of the package's rules and of its own folder; but for this one."""
    names = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module), level=0):
                names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    files = set()
    for name in names:
        first, *rest = name.split(".")
        if first != _PACKAGE.name:
            files.add(file.parent.joinpath(first, *rest).with_suffix(".py"))
        elif rest and rest[0] in _RULES:
            files.add(_PACKAGE.joinpath(*rest).with_suffix(".py"))
    return {each.resolve() for each in files if each.is_file()} - {Path(__file__).resolve()}


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def questions_hash(questions: Sequence[Question]) -> str:
    """A hash of what is asked and of the references."""
    text = repr([(q.id, q.turns, sorted(q.reference.items()), q.temperature, q.choices, q.measured) for q in questions])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
