"""What findings are read from: an ability of a set-up, over its seeds; measured here, or published by the paper."""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from importlib import resources
from typing import Any

import numpy as np

from sftmix_jax.analysis import results, uncertain
from sftmix_jax.analysis.results import Result
from sftmix_jax.analysis.uncertain import Published, Uncertain, Verdicts
from sftmix_jax.machine.errors import UserError

Labels = tuple[tuple[str, Any], ...]

_AXES = ("strategy", "source", "k", "setup", "without", "stage")  # the paper's: one that is not named is not there
_PAPER = ("gsm8k", "humaneval", "mt_bench")
BEST = {"math": 1.0, "code": 1.0, "general": 10.0}


class Cells:
    """Scores by (ability, labels); `at` gives none where a set-up was not run or is not finished."""

    def __init__(
        self,
        cells: Mapping[tuple[str, Labels], Uncertain],
        source: str,
        seeds: int,
        left_out: Sequence[str] = (),
        best: Mapping[str, float] = BEST,
    ):
        self._cells, self.source, self.seeds, self._best = cells, source, seeds, best
        self.left_out = left_out  # what could not be counted, in words

    def at(self, ability: str, /, **labels: Any) -> Uncertain | None:
        """The score of the set-up with these labels. Raises UserError where several match.

        Labels of value None or "" stand for an axis that the set-up does not have. All of a set-up's labels name it;
        so do fewer, if no other set-up has them. Of the paper's axes (_AXES) those that are not named must be absent,
        because its set-ups differ in which they have; unless the study's own axes alone are named.
        """
        wanted = given(labels.items())
        own = {setup: given(setup) for name, setup in self._cells if name == ability}
        found = [setup for setup, has in own.items() if has == wanted]
        if not found and not self._is_setup(wanted):  # one that has no such score is no other
            found = [setup for setup, has in own.items() if _fits(has, wanted)]
        if len(found) > 1:
            listed = "; ".join(_in_words(own[setup]) for setup in found[:4]) + ("; …" if len(found) > 4 else "")
            raise UserError(f"{ability}: {_in_words(wanted)} names {len(found)} set-ups ({listed}); name one of them")
        return self._cells[ability, found[0]] if found else None

    def exactly(self, ability: str, setup: Mapping[str, Any]) -> Uncertain | None:
        """The score of the set-up that has just these labels."""
        wanted = given(setup.items())
        return next(
            (cell for (name, labels), cell in self._cells.items() if name == ability and given(labels) == wanted), None
        )

    def _is_setup(self, labels: dict[str, Any]) -> bool:
        """Whether these are all labels of a set-up that has some score."""
        without_stage = {key: value for key, value in labels.items() if key != "stage"}
        return any(
            {key: value for key, value in given(setup).items() if key != "stage"} == without_stage
            for _, setup in self._cells
        )

    def parts(self, /, **labels: Any) -> list[str]:
        """The k at which the set-up with just these axes was run, the smallest first."""
        wanted = given(labels.items())
        found = {
            has["k"]
            for _, setup in self._cells
            for has in (given(setup),)
            if "k" in has and _fits({key: value for key, value in has.items() if key != "k"}, wanted)
        }
        return sorted(filter(is_part, found), key=number)

    def values(self, axis: str) -> list[Any]:
        """An axis' values, in the order of the set-ups."""
        return list(dict.fromkeys(has[axis] for _, setup in self._cells for has in (given(setup),) if axis in has))

    @property
    def setups(self) -> list[dict[str, Any]]:
        """The labels of those that have a score after their last stage."""
        every = {setup: given(setup) for _, setup in self._cells}
        return [has for has in every.values() if "stage" not in has]

    def best(self, ability: str) -> float:
        """The best possible score; 0 where there is none, and smaller is better."""
        return self._best.get(ability, 1.0)

    @property
    def abilities(self) -> list[str]:
        """The paper's first."""
        return sorted({ability for ability, _ in self._cells}, key=lambda each: ([*BEST, each].index(each), each))

    @property
    def rated(self) -> list[str]:
        """The abilities of which more is better, up to a best."""
        return [ability for ability in self.abilities if self.best(ability)]


def worst(best: float) -> float:
    """The worst possible score beside a best one: ratings go from 1 to 10, others begin at 0."""
    return 1.0 if best == 10 else 0.0


def number(k: str) -> float:
    """`1/16` → 0.0625"""
    return float(Fraction(k))


def is_part(k: Any) -> bool:
    """Whether a label is such a part: a study of one's own may call another axis k."""
    try:
        return number(k) >= 0
    except (ValueError, TypeError, ArithmeticError):
        return False


def given(labels: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The labels that a set-up has."""
    return {key: value for key, value in labels if value not in ("", None)}


def of_paper(labels: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Those of the paper's axes."""
    return {key: value for key, value in given(labels).items() if key in _AXES}


def own_axes(found: Iterable[Labels]) -> list[str]:
    """The axes of a study's own that tell set-ups apart which have the same of the paper's, their size aside."""
    setups = [given(setup) for setup in dict.fromkeys(found)]
    axes = dict.fromkeys(key for labels in setups for key in labels if key not in (*_AXES, "size"))
    alike: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for labels in setups:
        alike[repr(sorted(of_paper(labels.items()).items()))].append(labels)
    return [axis for axis in axes if any(len({labels.get(axis) for labels in group}) > 1 for group in alike.values())]


def _fits(has: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a set-up is one that a query means, as `Cells.at` says."""
    named = of_paper(wanted.items())
    exact = (
        of_paper(has.items()) == named
        if named.keys() - {"stage"} or not wanted
        else (has.get("stage") == wanted.get("stage"))
    )
    return exact and wanted.items() <= has.items()


def _in_words(labels: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items()) or "no label"


# --- measured here ------------------------------------------------------------------------------


def benchmarks(found: Iterable[Result]) -> dict[str, str]:
    """Ability → the one of its tasks that stands for it.

    The one with most scores; of several the paper's own, else the first by name.
    """
    counts = Counter((result.ability, result.task) for result in found if result.primary)
    chosen: dict[str, str] = {}
    for ability, task in sorted(counts, key=lambda each: (-counts[each], each[1] not in _PAPER, each[1])):
        chosen.setdefault(ability, task)
    return chosen


def labelled(result: Result) -> Labels:
    """A set-up's labels; the score after the last stage stands without a `stage`, those before it with theirs."""
    return result.setup + (() if result.is_last else (("stage", result.stage),))


class Scores:
    """Every primary metric by (task, labels), over its seeds."""

    def __init__(self, found: Iterable[Result]):
        groups: dict[tuple[str, Labels], dict[int, Result]] = defaultdict(dict)
        for result in found:
            if result.primary:
                groups[result.task, labelled(result)][result.seed] = result
        self.left_out: list[str] = []  # what could not be counted, in words
        self._verdicts: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}  # many set-ups share a base
        self.seeds = max(map(len, groups.values()), default=0)
        self.by_task = {
            key: self._over([by_seed[seed] for seed in sorted(by_seed)], key[1]) for key, by_seed in groups.items()
        }

    def of(self, found: Iterable[Result]) -> Scores:
        """Those of some of the results."""
        mine = Scores(())
        keys = dict.fromkeys((result.task, labelled(result)) for result in found if result.primary)
        mine.by_task, mine.seeds = {key: self.by_task[key] for key in keys}, self.seeds
        return mine

    def _over(self, repeats: list[Result], labels: Labels) -> Uncertain:
        """One number of some seeds; a base that they share has none, and a single score has score.json's interval."""
        first = repeats[0]
        shared_base = first.position == 0 and len({result.stage_id for result in repeats}) == 1
        repeats = repeats[:1] if shared_base else repeats
        single = len(repeats) == 1
        interval = (first.low, first.high) if single and first.low is not None and first.high is not None else None
        seeds = None if shared_base else tuple(result.seed for result in repeats)
        name = f"{first.task} {labels}"
        for result in repeats:
            if (result.folder, result.task) not in self._verdicts:
                self._verdicts[result.folder, result.task] = results.verdicts(result)
        rows = [self._verdicts[result.folder, result.task] for result in repeats]
        asked = dict.fromkeys(question for row in rows for question in row)
        shared = tuple(question for question in asked if all(question in row for row in rows))
        if shared and len(shared) < len(asked):
            self.left_out.append(
                f"{first.experiment} and its other seeds, after {first.stage}: {len(asked) - len(shared)} of "
                f"{len(asked)} questions of {first.task} have no verdict for some seed and are left out"
            )
        if shared:
            table = np.array([[row[question] for question in shared] for row in rows])  # [seeds, questions, 2]
            score = Verdicts(
                name,
                first.task,
                seeds,
                shared,
                table[..., 0],
                table[..., 1],
                first.best,
                first.geometric,
                worst(first.best),
            )
            return uncertain.of(score, interval, 0.0 if first.geometric else first.best, worst(first.best))
        if single:  # no verdicts on questions: what score.json says of its own doubt
            error = (interval[1] - interval[0]) / (2 * 1.96) if interval else 0.0
            return uncertain.of(Published(first.value, error, name, first.task, seeds), interval)
        return uncertain.from_seeds([result.value for result in repeats], seeds, first.task, first.best)


def measured(found: Sequence[Result], size: str | None = None, scores: Scores | None = None) -> Cells:
    """The primary metric of the task that stands for each ability, at every stage of every set-up.

    Of one model size, or of all where none is named.
    """
    found = [result for result in found if size is None or str(result.labels.get("size", size)) == size]
    scores = scores or Scores(found)
    stands_for = {task: ability for ability, task in benchmarks(found).items()}
    best = {stands_for[result.task]: result.best for result in found if result.primary and result.task in stands_for}
    cells = {(stands_for[task], setup): cell for (task, setup), cell in scores.by_task.items() if task in stands_for}
    seeds = f"{scores.seeds} seed{'s' if scores.seeds != 1 else ''}"
    return Cells(cells, f"measured here, {seeds}", scores.seeds, scores.left_out, best)


# --- the paper's own ----------------------------------------------------------------------------

_QUESTIONS = {"math": 1319, "code": 164}  # of GSM8K and HumanEval, in percent; general is MT-Bench's rating
_REPEATED = 0.15  # by so much the MT-Bench ratings differ of the set-ups that the paper reports twice


def paper_table() -> list[dict[str, str]]:
    """The numbers that the paper prints (arXiv 2310.05492), a row a set-up, the cells that it leaves out empty.

    Where its tables disagree (13B, all of the code data alone: 17.1 and 18.4) the one of the scaling curve stands.
    """
    text = resources.files("sftmix_jax.analysis").joinpath("paper.csv").read_text()
    return list(csv.DictReader(text.splitlines()))


def published(size: str) -> Cells:
    """The paper's table for one model size, as if it were ours.

    It has one run each. Rates get the standard error of their questions, MT-Bench that of one run of two.
    """
    cells = {}
    for row in paper_table():
        if row["size"] != size:
            continue
        setup = tuple(sorted((axis, row[axis]) for axis in _AXES if row.get(axis)))
        for ability in BEST:
            if not row[ability]:
                continue
            value, error = float(row[ability]), _REPEATED / math.sqrt(2)
            if ability in _QUESTIONS:
                value /= 100
                error = math.sqrt(value * (1 - value) / _QUESTIONS[ability])
            cells[ability, setup] = uncertain.published(value, error, f"{size} {ability} {setup}")
    return Cells(cells, "published by the paper, one run each", 1)


def series(
    cells: Cells, ability: str, parts: Sequence[str] | None = None, **labels: Any
) -> list[tuple[str, Uncertain]]:
    """(k, score) for those of the parts (by default of all) that are there."""
    found = [(k, cells.at(ability, k=k, **labels)) for k in (cells.parts(**labels) if parts is None else parts)]
    return [(k, cell) for k, cell in found if cell is not None]
