"""What is measured: the tasks of a config, on which files, and the questions in them."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from etils import epath

from sftmix_jax.evaluation.judging import JudgeConfig
from sftmix_jax.evaluation.task import Question, Task, find_task
from sftmix_jax.machine import ranges
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.ranges import Flag, Integer, Items, Table, Text, setting, within
from sftmix_jax.sampling.settings import TEMPERATURE


@dataclasses.dataclass
class EvaluationConfig:
    """Benchmarks to evaluate, and how their answers are sampled and judged."""

    tasks: tuple[str, ...] = setting(
        (),
        Items(Text(r"(?s).+", "must be the name of a task")),
        "benchmarks (files of eval/), evaluated on the base and after each stage",
    )
    limit: int = setting(0, Integer(at_least=0), "only the first questions of each task, this many; 0: all")
    data: dict[str, str] = dataclasses.field(
        default_factory=dict, metadata=within(Table(Text()), "task → its file, in place of the task's default")
    )
    samples: int = setting(1, Integer(at_least=1), "answers per question, for pass@k and majority votes")
    temperature: float = setting(0.0, TEMPERATURE, "of sampling; 0: the task's own")
    seed: int = setting(0, Integer(at_least=0), "of sampling")
    judge: JudgeConfig = dataclasses.field(default_factory=JudgeConfig)
    allow_unsandboxed_code: bool = setting(
        False, Flag(), "run model-written code even where the sandbox is not available"
    )


def own_data(spec: str, tasks: Sequence[str]) -> dict[str, str]:
    """`PATH` for the one task (which may hold a `=`), or `task=PATH,task=PATH` → task → its file. Raises UserError."""
    if not spec:
        return {}
    names = [find_task(name)[0].name for name in tasks]
    is_path = "=" not in spec or (len(names) == 1 and spec.partition("=")[0] not in names and _is_place(spec))
    if is_path:
        if len(names) != 1:
            raise UserError("--data PATH is for one task; for several write --data gsm8k=PATH,humaneval=PATH")
        return {names[0]: spec}
    found = {}
    for part in spec.split(","):
        name, _, path = part.partition("=")
        if name not in names:
            raise UserError(f"--data {part}: of no task that is asked for; {did_you_mean(name, names)}")
        if not path:
            raise UserError(f"--data {part}: write task=PATH")
        found[name] = path
    return found


def _is_place(spec: str) -> bool:
    """Whether this is a path that is there, or one that begins with a folder or a source (hf:…), and no task's name."""
    return epath.Path(spec).exists() or any(mark in spec.partition("=")[0] for mark in "/:")


def load_questions(task: Task, config: EvaluationConfig) -> list[Question]:
    """The task's questions, at most `limit`. Raises UserError, also for a config that is out of its range."""
    ranges.check(config, "evaluation")
    data = config.data.get(task.name, task.default_data)
    if not data:
        raise UserError(f"{task.name} comes with no data of its own: --data {task.name}=PATH")
    try:
        questions = task.load(data)
    except KeyError as error:
        raise UserError(f"{data}: not a file of {task.name}: a row has no column {error}") from None
    except (TypeError, AttributeError, IndexError, ValueError) as error:  # a column of another type
        said = f"{type(error).__name__}: {error}"
        raise UserError(f"{data}: not a file of {task.name}: a row cannot be read ({said})") from None
    if not questions:
        raise UserError(f"{data}: holds no questions")
    ids = Counter(question.id for question in questions)
    if twice := [id for id, count in ids.items() if count > 1]:
        raise UserError(f"{data}: {ids[twice[0]]} questions have the id '{twice[0]}'; one answer would count for all")
    for question in questions:
        if isinstance(question.turns, str) or not all(isinstance(turn, str) for turn in question.turns):
            raise UserError(f"{task.name}: the turns of '{question.id}' must be a tuple of texts")
    given = {f"{question.id}: temperature": question.temperature for question in questions}
    for where, temperature in ({f"{task.name}: temperature": task.temperature} | given).items():
        if temperature is not None and (rule := TEMPERATURE.broken(temperature)):
            raise UserError(f"{where}: {temperature}; {rule}")
    return questions[: config.limit or None]
