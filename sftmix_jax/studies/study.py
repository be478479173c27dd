"""What a study is, and how it is read from its file."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

from sftmix_jax import desk
from sftmix_jax.experiment.config import Experiment, separated
from sftmix_jax.machine import ranges
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.ranges import NAME, AnyOf, Choice, Flag, Items, Number, Table, Text, setting, within

HOLDS = ("epochs", "steps", "trained_tokens")
SCALES = ("linear", "log")
_LABEL = AnyOf((Text(), Number(), Flag()), "must be text, a finite number, True or False")


@dataclasses.dataclass
class Run:
    """An experiment and where it stands on the study's axes."""

    experiment: Experiment
    labels: dict[str, Any] = dataclasses.field(
        metadata=within(Table(_LABEL), "strategy, source, k, size, seed, …: what tables and figures group by")
    )


@dataclasses.dataclass
class Axis:
    """How a report orders and draws a label: figures and tables of a study go over its axes."""

    name: str = dataclasses.field(metadata=within(Text(), "the label's name"))
    order: tuple[Any, ...] = dataclasses.field(
        default=(),
        metadata=within(Items(_LABEL), "its values in order; by default numbers by size, others as the runs name them"),
    )
    scale: str = setting("linear", Choice(SCALES), "of the figure's axis, where all values are numbers")
    default: str | float | bool | None = setting(None, _LABEL, "the value that others are compared with")

    def relations(self, where: str) -> Iterator[str]:
        """Fields that do not fit together (sftmix_jax.machine.ranges)."""
        if len({repr(value) for value in self.order}) < len(self.order):
            yield f"{where}.order: {self.order}; must name each value once"
        if self.order and self.default is not None and self.default not in self.order:
            yield f"{where}.default: {self.default!r}; must be a value of the order, {self.order}"


@dataclasses.dataclass
class Study:
    """Experiments that answer a question together."""

    name: str = dataclasses.field(metadata=within(NAME, "of the study"))
    question: str = dataclasses.field(metadata=within(Text(), "what the study asks; the report begins with it"))
    runs: list[Run] = dataclasses.field(metadata=within(Items(Run), "the experiments"))
    hold: str = setting(
        "epochs", Choice(HOLDS), "what comparisons keep equal: epochs (as in the paper), steps, or trained_tokens"
    )
    axes: tuple[Axis, ...] = dataclasses.field(
        default=(),
        metadata=within(Items(Axis), "labels that the question is about, the one that varies along a figure first"),
    )

    def check(self) -> None:
        """Checks the study and every experiment of it. Raises UserError."""
        ranges.check(self, "study")

    def relations(self, where: str) -> Iterator[str]:
        """Fields that do not fit together (sftmix_jax.machine.ranges)."""
        if not self.runs:
            yield f"{where}.runs: study '{self.name}' has no experiments"
        seen: dict[str, Run] = {}
        for run in self.runs:
            name = run.experiment.name
            if name in seen:
                yield (
                    f"{where}.runs: two experiments are named '{name}' ({seen[name].labels} and {run.labels}); "
                    "put what tells them apart into the name"
                )
            seen[name] = run
            if "stage" in run.labels:
                yield f"{where}.runs: '{name}' has the label 'stage', which stages have; name the axis otherwise"
            if not str(seed := run.labels.get("seed", 0)).isdecimal():
                yield f"{where}.runs: '{name}' has the label seed={seed!r}; must be a whole number, at least 0"
        for i, axis in enumerate(self.axes):
            yield from self._of_axis(axis, f"{where}.axes[{i}]", [each.name for each in self.axes[:i]])

    def _of_axis(self, axis: Axis, where: str, before: Sequence[str]) -> Iterator[str]:
        values = [value for run in self.runs if (value := run.labels.get(axis.name)) not in (None, "")]
        labels = dict.fromkeys(label for run in self.runs for label in run.labels)
        if not values:
            yield f"{where}.name: no run has the label '{axis.name}'; {did_you_mean(axis.name, labels)}"
        if axis.name in before or axis.name == "seed":
            yield f"{where}.name: '{axis.name}'; must be no axis twice, and not the seed, which repeats a set-up"
        if values and axis.default is not None and axis.default not in values:
            yield f"{where}.default: {axis.default!r}; no run has it as its {axis.name}"
        if missing := [value for value in values if axis.order and value not in axis.order]:
            yield f"{where}.order: {axis.order}; must name every value of the runs, {missing[0]!r} too"
        if axis.scale == "log" and not all(_is_positive(value) for value in values):
            yield f"{where}.scale: 'log'; must be linear, as not every value of '{axis.name}' is a number above 0"


def grid(**axes: Sequence[Any]) -> list[dict[str, Any]]:
    """Every combination, the first axis slowest: `grid(seed=(0, 1), k=("1", "1/4"))` → four points."""
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def zipped(**axes: Sequence[Any]) -> list[dict[str, Any]]:
    """The axes side by side. Raises UserError if their lengths differ."""
    lengths = {name: len(values) for name, values in axes.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"axes of different lengths: {', '.join(f'{name} {n}' for name, n in lengths.items())}")
    return [dict(zip(axes, point, strict=True)) for point in zip(*axes.values(), strict=True)]


def fraction(k: str) -> float:
    """`1/16` → 0.0625"""
    return float(Fraction(k))


def _is_positive(value: Any) -> bool:
    """True for a number above 0, or such a fraction as text."""
    try:
        return not isinstance(value, bool) and Fraction(value) > 0
    except (ValueError, TypeError, ArithmeticError):
        return False


def seed_numbers(size: str, count: int, toy: int) -> range:
    """The seeds of a study: `count` of them; for a count of 0 `toy` on the toy, and one on other models."""
    if count < 0:
        raise UserError(f"seeds={count}: must be at least 1, or 0 for the study's own number")
    return range(count or (toy if size == "tiny" else 1))


def joined(name: str, question: str, studies: Iterable[Study], axes: tuple[Axis, ...] = ()) -> Study:
    """Several studies as one; experiments that stand in more than one are kept once, with all their labels."""
    runs: dict[str, Run] = {}
    for study in studies:
        for run in study.runs:
            known = runs.setdefault(run.experiment.name, Run(run.experiment, {}))
            known.labels = {**run.labels, **known.labels}
    return Study(name, question, list(runs.values()), axes=axes)


def read(spec: str) -> Study:
    """`FILE[:ARGUMENTS]`, looked for as it is, then in the desk's configs. Raises UserError."""
    study = separated(desk.configured(spec, "study"))
    if not isinstance(study, Study):
        kind = type(study).__name__
        raise UserError(
            f"{spec.partition(':')[0]}: get_config must return a Study, this one returns a {kind}; one "
            "experiment alone is trained by python -m sftmix_jax.train"
        )
    study.check()
    return study
