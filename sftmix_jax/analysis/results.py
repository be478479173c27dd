"""A workdir's studies as one tidy table: a row a metric, task, stage and experiment."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from sftmix_jax.machine import escaping
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import matching
from sftmix_jax.workdir import records


@dataclasses.dataclass(frozen=True)
class Result:
    """One metric of one task after one stage of one experiment."""

    experiment: str
    labels: dict[str, Any]  # the study's axes
    stage: str
    stage_id: str
    position: int  # 0 is the base
    is_last: bool
    task: str
    ability: str
    metric: str
    primary: bool
    value: float
    low: float | None  # none where lm-eval gives no error
    high: float | None
    n: int
    best: float
    own_tokens: int  # trained tokens of the ability's own domain so far,
    other_tokens: int  # and of the others'
    validation_loss: float | None  # of the ability's own domain
    code_version: str
    fixed_by: str  # all that fixed the score but for the model, as JSON
    folder: str
    weight: str = ""  # the verdict's entry that weights a question in the mean
    geometric: bool = False

    @property
    def seed(self) -> int:
        return int(self.labels.get("seed", 0))

    @property
    def setup(self) -> tuple[tuple[str, Any], ...]:
        """The labels without the seed and empty ones: what repeats share."""
        return tuple(sorted(each for each in self.labels.items() if each[0] != "seed" and each[1] not in ("", None)))


def read_experiments(workdir: epath.Path) -> dict[str, dict[str, Any]]:
    """Each experiment's resolved config and its stages' ids, by name."""
    files = matching(workdir / "experiments", "*.json")
    return {file.name.removesuffix(".json"): records.experiment(file) for file in files}


def read_studies(workdir: epath.Path) -> dict[str, dict[str, Any]]:
    """Each study's record by name; a workdir without one has one study of all its experiments."""
    files = matching(workdir / "studies", "*.json")
    return {file.stem: _study(file) for file in files} or {"experiments": every_experiment(workdir)}


def _study(file: epath.Path) -> dict[str, Any]:
    """A study's record, whose seeds are numbers. Raises UserError."""
    record = records.study(file)
    for name, labels in record["experiments"].items():
        if not isinstance(labels, dict):
            raise UserError(f"{file}: {name} has no labels; run its study command again, which writes it anew")
        if not str(labels.get("seed", 0)).isdecimal():
            raise UserError(f"{file}: {name} has the seed {labels['seed']!r}, which must be a whole number")
        if "stage" in labels:
            raise UserError(f"{file}: {name} has the label 'stage', which stages have; name the axis otherwise")
        for axis, value in labels.items():
            if not isinstance(value, str | int | float | None):
                raise UserError(f"{file}: {name} has the label {axis}={value!r}; a label is text, a number or a flag")
    labelled = {
        name: {**{axis: _label(value) for axis, value in labels.items()}, "seed": int(labels.get("seed") or 0)}
        for name, labels in record["experiments"].items()
    }
    axes = [_axis(file, axis) for axis in record.get("axes", [])]
    return {**record, "experiments": labelled, "axes": axes}


def _axis(file: epath.Path, axis: Any) -> dict[str, Any]:
    """A declared axis, its values written as labels are. Raises UserError."""
    if not isinstance(axis, dict) or not isinstance(axis.get("name"), str):
        raise UserError(f"{file}: has the axis {axis!r} without a name; run its study command again, which writes it")
    order, default = axis.get("order") or [], axis.get("default")
    return {
        "name": axis["name"],
        "order": [_label(value) for value in order],
        "scale": axis.get("scale", "linear"),
        "default": None if default is None else _label(default),
    }


def _label(value: Any) -> Any:
    """A flag as text, as True and 1 are other values of an axis though Python holds them for the same; 1.0 as 1."""
    if isinstance(value, bool):
        return str(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def told_apart(study: dict[str, Any]) -> dict[str, Any]:
    """The study; those of its experiments whose labels are all the same get their names as a further one."""
    experiments = study["experiments"]
    same = Counter(map(_known_by, experiments.values()))
    apart = {
        name: labels if same[_known_by(labels)] == 1 else {**labels, "experiment": name}
        for name, labels in experiments.items()
    }
    return study | {"experiments": apart}


def _known_by(labels: dict[str, Any]) -> str:
    return json.dumps(
        {"seed": 0} | {key: value for key, value in labels.items() if value not in ("", None)}, sort_keys=True
    )


def every_experiment(workdir: epath.Path) -> dict[str, Any]:
    """All of a workdir's experiments as a study, for those that were trained one by one."""
    found = {name: {"strategy": name, "seed": 0} for name in read_experiments(workdir)}
    return {"name": "", "question": "", "hold": "epochs", "axes": [], "experiments": found}


def labelled(workdir: epath.Path) -> dict[str, Any]:
    """All of a workdir's experiments as a study, each with the labels that the workdir's studies give it."""
    every, given = every_experiment(workdir), dict[str, dict[str, Any]]()
    for study in read_studies(workdir).values():
        for name, labels in study["experiments"].items():
            given[name] = given.get(name, {}) | labels
    return every | {"experiments": every["experiments"] | given}


def is_declared(study: dict[str, Any]) -> bool:
    """Whether it is a study with a record, and not all experiments of a workdir that has none."""
    return bool(study["name"])


def read_results(workdir: epath.Path, study: dict[str, Any], ability_of: Callable[[str], str] = str) -> list[Result]:
    """All results of a study's experiments that are there by now.

    `ability_of` a task's name is asked where a score was written before scores said which ability they measure.
    """
    known, out = read_experiments(workdir), []
    unsaid = functools.cache(ability_of)
    ids = (id for record in known.values() for id in (record["base"], *record["stages"].values()))
    folders = records.stage_folders(workdir, ids)
    scored: dict[str, list[dict[str, Any]]] = {}
    for name, labels in told_apart(study)["experiments"].items():
        if name not in known:
            continue
        chain = {"base": known[name]["base"], **known[name]["stages"]}
        tokens: dict[str, int] = {}
        for position, (stage, identity) in enumerate(chain.items()):
            folder = folders.get(identity)
            if folder is None:
                break
            done = read_done(folder)
            for domain, account in done.get("ledger", {}).items():
                tokens[domain] = tokens.get(domain, 0) + account["trained_tokens"]
            if identity not in scored:
                files = [task / "score.json" for task in matching(folder / "eval", "*")]
                scored[identity] = [_score(file) for file in files if file.exists()]
            for record in scored[identity]:
                ability = record.get("ability") or unsaid(record["task"].removeprefix("lm_eval/"))
                own = tokens.get(ability, 0)
                for i, (metric, m) in enumerate(record["metrics"].items()):
                    if m["n"]:
                        out.append(
                            Result(
                                name,
                                labels,
                                stage,
                                identity,
                                position,
                                position == len(chain) - 1,
                                record["task"],
                                ability,
                                metric,
                                i == 0,
                                m["value"],
                                m["low"],
                                m["high"],
                                m["n"],
                                m["best"],
                                own,
                                sum(tokens.values()) - own,
                                done.get("validation_loss", {}).get(ability),
                                record["fixed_by"].get("code_version", ""),
                                _fixing(record["fixed_by"]),
                                str(folder),
                                m.get("weight", ""),
                                m.get("geometric", False),
                            )
                        )
    return out


def _folder_name(task: str) -> str:
    return escaping.file_name(task.replace("lm_eval/", "lm_eval_", 1))


def score_folder(stage: epath.Path, task: str) -> epath.Path:
    """Where a stage's score of a task lies, of lm-eval's tasks too."""
    plain = stage / "eval" / task
    return plain if (plain / "score.json").exists() else stage / "eval" / _folder_name(task)


def _score(file: epath.Path) -> dict[str, Any]:
    """A score.json in its task's own folder: the task's name becomes a part of paths. Raises UserError."""
    record = records.score(file)
    if file.parent.name not in (_folder_name(record["task"]), record["task"]):
        raise UserError(f"{file}: is of the task {record['task']}: it was copied here; evaluate again")
    return record


def _fixing(fixed_by: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in fixed_by.items() if key != "model"}, sort_keys=True)


def comparable(found: Sequence[Result]) -> tuple[list[Result], list[str]]:
    """The results that may stand side by side; and, in words, those that may not.

    A task's scores may if all that fixed them, but for the model, is the same. Of several fixings the one that most
    stages have stands; one that experiments share counts once.
    """
    fixings: dict[str, Counter[str]] = {}
    for task, fixed_by, _ in dict.fromkeys((each.task, each.fixed_by, each.stage_id) for each in found):
        fixings.setdefault(task, Counter())[fixed_by] += 1
    stands = {task: counted.most_common(1)[0][0] for task, counted in fixings.items()}
    told: dict[str, None] = {}
    for result in found:
        if result.fixed_by != stands[result.task]:
            own, usual = json.loads(result.fixed_by), json.loads(stands[result.task])
            differing = "; ".join(
                f"{key}: {own.get(key)}, not {usual.get(key)}"
                for key in sorted(own.keys() | usual.keys())
                if own.get(key) != usual.get(key)
            )
            told[
                f"{result.experiment}, after {result.stage}: {result.task} was scored in another way than the others "
                f"({differing}) and is left out; score it again like them"
            ] = None
    return [result for result in found if result.fixed_by == stands[result.task]], list(told)


def read_done(folder: epath.Path) -> dict[str, Any]:
    """A stage's done.json; empty if it is not finished. Raises UserError if it is damaged, or another stage's."""
    file = folder / "done.json"
    if not file.exists():
        return {}
    done = records.done(file)
    if (wanted := records.id_of(folder)) not in ("", done["id"]):
        raise records.of_another(file, done["id"], wanted)
    return done


def verdicts(result: Result) -> dict[str, tuple[float, float]]:
    """A primary metric by question, with the question's weight in the mean, of those that have one.

    From responses.jsonl, or from lm-eval's samples.jsonl. Empty where a score was not made of single verdicts.
    """
    folder = score_folder(epath.Path(result.folder), result.task)
    if result.task.startswith("lm_eval/"):
        return _of_lm_eval(folder / "samples.jsonl", result)
    file = folder / "responses.jsonl"
    return {
        row["id"]: (
            _finite(value, file, row["id"], result.metric),
            float(row["scores"][result.weight]) if result.weight else 1.0,
        )
        for row in records.responses(file)
        if (value := row["scores"].get(result.metric)) is not None
    }


def _finite(value: Any, file: epath.Path, question: str, metric: str) -> float:
    """A verdict. Raises UserError for one that is no finite number."""
    if not math.isfinite(number := float(value)):
        raise UserError(f"{file}: the verdict on {question} by {metric} is {number}; evaluate that task again")
    return number


def _of_lm_eval(file: epath.Path, result: Result) -> dict[str, tuple[float, float]]:
    """A metric by document; empty where lm-eval's number is another than their mean, as of a corpus or a group."""
    metric, _, which = result.metric.removesuffix(")").partition(" (")
    rows = records.samples(file) if file.exists() else []
    found = {
        str(row["doc_id"]): (_finite(row[metric], file, str(row["doc_id"]), metric), 1.0)
        for row in rows
        if row.get("filter", "none") == (which or "none") and isinstance(row.get(metric), int | float)
    }
    mean = sum(value for value, _ in found.values()) / max(len(found), 1)
    return found if math.isclose(mean, result.value, abs_tol=1e-9) else {}


def flat(result: Result) -> dict[str, Any]:
    """A row of the table: the labels become columns."""
    row = {field.name: getattr(result, field.name) for field in dataclasses.fields(result) if field.name != "labels"}
    labels = {f"label {key}" if key in row else key: value for key, value in result.labels.items()}
    return {"experiment": row.pop("experiment"), **labels, **row}


def write_tables(results: Sequence[Result], folder: epath.Path) -> None:
    """results.csv and results.parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [flat(result) for result in results]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "results.csv").open("w", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        for cells in (columns, *([row.get(column, "") for column in columns] for row in rows)):
            writer.writerow([escaping.csv(cell) for cell in cells])
    table = pa.table({column: _of_one_kind([row.get(column) for row in rows]) for column in columns})
    with (folder / "results.parquet").open("wb") as stream:
        parquet.write_table(table, stream)


def _of_one_kind(column: list[Any]) -> list[Any]:
    """A column that Parquet can hold: as text where experiments differ in the type of a label."""
    kinds = {type(value) for value in column if value is not None}
    if (len(kinds) < 2 and kinds != {str}) or kinds == {int, float}:
        return column
    return [None if value is None else str(value).encode(errors="backslashreplace").decode() for value in column]
