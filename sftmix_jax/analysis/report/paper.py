"""The paper's findings beside a study that tests some of them: verdicts, tables and figures of one model size."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sftmix_jax.analysis import cells, figures, findings, laws, rule, scores
from sftmix_jax.analysis.cells import Cells, Scores
from sftmix_jax.analysis.figures import Figure
from sftmix_jax.analysis.results import Result
from sftmix_jax.analysis.rule import Claim, Finding
from sftmix_jax.analysis.table import Table

SIZES = ("7b", "13b", "33b")


@dataclasses.dataclass(frozen=True)
class Part:
    """The set-ups of one model size that have the same of the study's own axes: what the paper's findings compare."""

    name: str  # those axes in words; empty where the study has none
    results: list[Result]
    ours: Cells
    claims: list[Claim]
    findings: list[Finding] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class View:
    """The part of a study that was run on one model size, beside the paper's model that is nearest to it."""

    size: str
    results: list[Result]
    scores: Scores
    ours: Cells
    parts: list[Part]
    paper_size: str
    paper: Cells
    suffix: str  # of the names of its tables and figures, where there are several sizes
    family: list[Finding] = dataclasses.field(default_factory=list)  # of the whole study, which are judged together

    @functools.cached_property
    def theirs(self) -> list[Finding]:
        """The paper's findings by the same rule, on its own numbers."""
        return findings.find(self.paper)

    @property
    def tests_the_paper(self) -> bool:
        """Whether the study has what at least one of the paper's findings compares."""
        return any(finding.is_measured for part in self.parts for finding in part.findings)

    @property
    def untested(self) -> list[str]:
        """The paper's findings that no part of the study compares."""
        measured = {finding.claim for part in self.parts for finding in part.findings if finding.is_measured}
        return [finding.claim for finding in self.theirs if finding.claim not in measured]

    def verdicts(self) -> list[dict[str, str]]:
        """Each finding that was tested, beside the paper's."""
        theirs = {finding.claim: finding for finding in self.theirs}
        return [
            {
                "question": ours.question,
                "of": part.name,
                "claim": ours.claim,
                "verdict": ours.verdict,
                "numbers": ours.numbers,
                "paper": self.paper_size,
                "paper_verdict": theirs[ours.claim].verdict,
                "paper_numbers": theirs[ours.claim].numbers,
            }
            for part in self.parts
            for ours in part.findings
            if ours.is_measured
        ]

    def rule_in_words(self) -> str:
        """The rule of the verdicts, with the number of findings that it was used on."""
        return findings.rule_in_words(self.family, self.theirs)

    def verdict_table(self) -> Table:
        """The same as a table, for a paper."""
        columns = {
            "question": "RQ",
            "of": "own axes",
            "claim": "the paper's finding",
            "verdict": "here",
            "numbers": "numbers here",
            "paper_verdict": f"paper, {self.paper_size}",
            "paper_numbers": "numbers of the paper",
        }
        rows: list[list[Any]] = [[found[key] for key in columns] for found in self.verdicts()]
        name = f"verdicts{self.suffix}"
        return Table(name, "The paper's findings", list(columns.values()), rows, self.rule_in_words()).without_empty()

    def summary(self) -> str:
        """How many findings hold, in a sentence."""
        counts = Counter(finding.verdict for part in self.parts for finding in part.findings)
        where = f"On {self.size}, of" if self.suffix else "Of"
        each = f", once for each of {len(self.parts)} values of its own axes," if len(self.parts) > 1 else ""
        against = sum(counts[verdict] for verdict in (rule.OPPOSITE, rule.NO_EFFECT, rule.FAILS))
        single = f" {counts[rule.ONE_RUN]} rest on one run and get no verdict." if counts[rule.ONE_RUN] else ""
        return (
            f"{where} the paper's findings that this study can test{each} {counts[rule.HOLDS]} hold, {against} do "
            f"not, and of {counts[rule.UNCLEAR]} these numbers cannot tell.{single}"
        )

    def _together(self, make: Callable[[Part], Table]) -> Table:
        """One table of every part's, with a column that names the part where there are several."""
        made = {part.name: make(part) for part in self.parts}
        first = next(iter(made.values()))
        if len(made) == 1:
            return first
        captions = dict.fromkeys(table.caption for table in made.values() if table.rows)
        rows = [[name, *row] for name, table in made.items() for row in table.rows]
        return dataclasses.replace(first, columns=["own axes", *first.columns], rows=rows, caption=" ".join(captions))

    def _named(self, tables: Sequence[Table]) -> list[Table]:
        """Those that have rows, under the names of their files."""
        return [
            dataclasses.replace(table.without_empty(), name=table.name + self.suffix) for table in tables if table.rows
        ]

    @functools.cached_property
    def score_tables(self) -> list[Table]:
        """Every benchmark, what stages changed and kept, and every other metric."""
        return self._named(
            [
                scores.every(self.results, self.scores),
                scores.changes(self.results, self.ours),
                scores.retention(self.results, self.ours),
                scores.others(self.results),
            ]
        )

    @functools.cached_property
    def comparison_tables(self) -> list[Table]:
        """What the paper's designs compare: alone and mixed, one source and the others, amounts; its own scores."""
        beside = [scores.final(self.results, self.ours, self.paper, self.paper_size)] if self.tests_the_paper else []
        return self._named(
            [
                *beside,
                self._together(lambda part: scores.conflict(part.ours, self.paper, self.paper_size)),
                self._together(lambda part: scores.conflict_in_losses(part.results)),
                self._together(lambda part: scores.transfer(part.ours)),
                self._together(
                    lambda part: laws.table([*laws.scores(part.ours), *laws.losses(part.results, self.size)])
                ),
            ]
        )

    @functools.cached_property
    def figures(self) -> list[Figure]:
        """Ours, each followed by the paper's own."""
        makers: list[Callable[[Cells, str], Figure | None]] = [
            figures.own_data,
            figures.ratio,
            figures.replay,
            figures.front,
        ]
        drawn: list[Figure] = []
        for made in makers if self.tests_the_paper else ():
            found = {
                part.name: made(part.ours, ", ".join(filter(None, (self.size, part.name, part.ours.source))))
                for part in self.parts
            }
            theirs = made(self.paper, f"the paper, {self.paper_size}") if any(found.values()) else None
            for figure, kind in (
                *((ours, f"-{name}" if name else "") for name, ours in found.items()),
                (theirs, "_paper"),
            ):
                if figure:
                    drawn.append(dataclasses.replace(figure, name=figure.name + kind + self.suffix))
        return drawn

    def groups(self) -> Figure | None:
        """Main metrics by group of questions."""
        drawn = figures.groups(self.results)
        return dataclasses.replace(drawn, name=drawn.name + self.suffix) if drawn else None


def views(study: dict[str, Any], found: list[Result]) -> list[View]:
    """One per model size of the study that has results, the smallest first."""
    sizes = sorted({str(labels.get("size", "")) for labels in study["experiments"].values()}, key=_by_number)
    made = [_view(size, f"-{size}" if len(sizes) > 1 else "", found) for size in sizes]
    return _judged([each for each in made if each.results])


def view(size: str, suffix: str, found: list[Result]) -> View:
    """The results of one model size, judged alone."""
    return _judged([_view(size, suffix, found)])[0]


def _judged(made: Sequence[View]) -> list[View]:
    """The same with findings: those of all sizes and values of own axes are one family."""
    family = rule.judge([claim for view in made for part in view.parts for claim in part.claims])
    each = iter(family)
    return [
        dataclasses.replace(
            view,
            family=family,
            parts=[dataclasses.replace(part, findings=[next(each) for _ in part.claims]) for part in view.parts],
        )
        for view in made
    ]


def _view(size: str, suffix: str, found: list[Result]) -> View:
    """The results of one model size, not yet judged."""
    paper_size = size if size in SIZES else "7b"
    mine = [result for result in found if str(result.labels.get("size", size)) == size]
    numbers = Scores(mine)
    ours = cells.measured(mine, size, numbers)
    parts = [
        Part(name, found, ours_, findings.claims(ours_))
        for name, found in _parts(mine).items()
        for ours_ in (cells.measured(found, size, numbers.of(found)),)
    ]
    return View(size, mine, numbers, ours, parts, paper_size, cells.published(paper_size), suffix)


def sizes(made: Sequence[View]) -> list[Figure]:
    """Each ability with its own data alone, by model size: ours where there are several, and the paper's."""
    if not any(figure.name.startswith("own_data") for view in made for figure in view.figures):
        return []
    by_size = {", ".join(filter(None, (v.size, part.name))): part.ours for v in made for part in v.parts}
    ours = figures.sizes(by_size, "measured here") if len(made) > 1 else None
    theirs = figures.sizes({size: cells.published(size) for size in SIZES}, "the paper")
    return [*([ours] if ours else []), *([dataclasses.replace(theirs, name="sizes_paper")] if theirs else [])]


def _parts(found: list[Result]) -> dict[str, list[Result]]:
    """The results by the values of the study's own axes, in words."""
    axes = cells.own_axes(result.setup for result in found)
    parts: dict[str, list[Result]] = {}
    for result in found:
        name = ", ".join(f"{axis} {result.labels.get(axis, '–')}" for axis in axes)
        parts.setdefault(name, []).append(result)
    return parts or {"": []}


def _by_number(size: str) -> tuple[float, str]:
    """`7b` before `13b`; what has no number first."""
    digits = "".join(sign for sign in size if sign.isdigit())
    return float(digits or 0), size
