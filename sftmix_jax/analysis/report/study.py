"""A study's report: what was asked, the best set-up, and everything that this rests on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from etils import epath

from sftmix_jax.analysis import (
    accounts,
    axes,
    axes_figure,
    best,
    cells,
    figures,
    findings,
    main_table,
    outcomes,
    rule,
    scores,
)
from sftmix_jax.analysis.axes import Axis
from sftmix_jax.analysis.best import Best
from sftmix_jax.analysis.cells import Cells
from sftmix_jax.analysis.figures import Figure
from sftmix_jax.analysis.outcomes import Outcome
from sftmix_jax.analysis.report import common, document, paper
from sftmix_jax.analysis.report.document import Document, Part, Section
from sftmix_jax.analysis.report.paper import View
from sftmix_jax.analysis.report.source import Source
from sftmix_jax.analysis.table import Table


class StudyReport(Source):
    """One study of one workdir, read once."""

    def __init__(self, workdir: epath.Path, study: dict[str, Any], ability_of: Callable[[str], str] = str):
        super().__init__(workdir, study, ability_of)
        self.views: list[View] = paper.views(self.study, self.results)

    @functools.cached_property
    def axes(self) -> list[Axis]:
        return axes.varied(self.study, self.setups)

    @functools.cached_property
    def cells(self) -> Cells:
        """Of all model sizes together: the size is an axis like any other."""
        return cells.measured(self.results)

    @functools.cached_property
    def outcomes(self) -> list[Outcome]:
        return outcomes.of_study(self.cells, self.setups)

    @functools.cached_property
    def default(self) -> int | None:
        return axes.default(self.axes, self.setups)

    @functools.cached_property
    def best(self) -> list[Best]:
        return best.find(self.outcomes, self.setup_in_words, self.default)

    def setup_in_words(self, number: int) -> str:
        """A set-up by its values on the axes; by all of its labels where nothing varies."""
        setup = self.setups[number]
        return axes.in_words(self.axes, setup) or ", ".join(f"{label} {value}" for label, value in setup.items())

    @functools.cached_property
    def main_table(self) -> Table:
        by = scores.by_benchmark(self.results)
        return main_table.make(self.axes, self.setups, self.outcomes, self.best, self.default, by)

    @functools.cached_property
    def own_figure(self) -> Figure | None:
        return axes_figure.draw(self.axes, self.setups, self.outcomes)

    @functools.cached_property
    def probe_figures(self) -> list[Figure]:
        makers = (figures.maps, figures.conflicts)
        return [drawn for name, probes in self.probes.items() for made in makers if (drawn := made(probes, name))]

    @functools.cached_property
    def figures(self) -> list[Figure]:
        """Every figure of the report, each with a name of its own."""
        own = [self.own_figure, *(view.groups() for view in self.views)]
        losses = common.losses(self, self.firsts[: common.DRAWN])
        drawn = [
            *own,
            *(figure for view in self.views for figure in view.figures),
            *paper.sizes(self.views),
            *self.probe_figures,
            losses,
        ]
        return [figure for figure in drawn if figure]

    @functools.cached_property
    def tables(self) -> list[Table]:
        """Every table of the report."""
        rows = accounts.rows(self.workdir, self.experiments, self.firsts)
        found = [self.main_table]
        for view in self.views:
            verdicts = [view.verdict_table()] if view.tests_the_paper else []
            found += [*verdicts, *view.score_tables, *view.comparison_tables]
        return [table for table in (*found, rows) if table.rows]

    def document(self) -> Document:
        """The whole report as data."""
        missing = accounts.missing(self.workdir, self.experiments, self.study, self.results) + self.set_aside
        missing += dict.fromkeys(told for view in self.views for told in view.ours.left_out)
        title = f"{self.study['name']}: {self.study['question']}" if self.study["question"] else self.study["name"]
        sections = [
            self._answer(),
            self._scores(),
            common.training(self, self.study["experiments"]),
            self._paper(),
            Section("inside", "Inside the models", [document.figure(figure) for figure in self.probe_figures]),
            common.data(self),
            common.experiments(self),
        ]
        return Document(
            "study",
            title,
            [self._how()],
            [section for section in sections if section.parts],
            [*missing, *self._untested()],
            self._not_measured(missing),
            self._record(),
            self._settings(),
            common.curves(self),
        )

    def _how(self) -> str:
        """How the study was made, in two sentences."""
        seeds = max((view.ours.seeds for view in self.views), default=0)
        sure = (
            f"over {seeds} seeds; intervals are over seeds and questions"
            if seeds > 1
            else "with one seed: intervals are over questions alone and say nothing about another seed"
        )
        setups = f"{len(self.setups)} set-up{'s' * (len(self.setups) != 1)}"
        held = self.study["hold"].replace("_", " ")
        kept = f" Comparisons keep {held} equal." if held != "epochs" else ""  # which is as the experiments have it
        return f"{len(self.study['experiments'])} experiments: {setups} {sure}.{kept}"

    def _answer(self) -> Section:
        """The best set-up by each score, the figure and the table over the study's own axes."""
        answers: list[dict[str, Any]] = []
        for found in self.best:
            compared = [finding for finding in (None if found.equal else found.finding, found.gain_finding) if finding]
            answers.append(
                {
                    "outcome": found.outcome.name,
                    "setting": self._leaders(found),
                    "score": _score(found),
                    "comparisons": [
                        {"verdict": finding.verdict, "words": finding.numbers.removeprefix("one run: ")}
                        for finding in compared
                    ],
                }
            )
        parts: list[Part] = [document.answers(answers)] if answers else []
        if answers:
            parts.append(
                document.text(
                    "Each card names the set-up with the best score, or those that share it. 'Holds' means that it is "
                    f"better than every other: each difference is at least {rule.SMALLEST:g} points (hundredths of the "
                    "best score) and its 95 % interval lies above 0, with Holm's correction over all comparisons of "
                    "the cards."
                )
            )
        parts += [document.figure(self.own_figure)] if self.own_figure else []
        parts += [document.table(self.main_table)] if self.main_table.rows else []
        return Section("answer", "Best set-up" if answers else "Scores after the last stage", parts)

    def _leaders(self, found: Best) -> str:
        """The set-up with the best score in words, or how many share it."""
        if not found.leaders:
            return f"none leads: all {found.of} set-ups have the same score"
        names = [self.setup_in_words(i) for i in found.leaders]
        return names[0] if len(names) == 1 else f"{len(names)} set-ups with the same score: {common.few(names, '; ')}"

    def _scores(self) -> Section:
        parts: list[Part] = []
        for view in self.views:
            parts += [document.heading(view.size)] if view.suffix else []
            parts += map(document.table, view.score_tables)
            parts += [] if view.tests_the_paper else map(document.table, view.comparison_tables)
            parts += [document.figure(groups)] if (groups := view.groups()) else []
        return Section("scores", "Scores in detail", parts)

    def _paper(self) -> Section:
        """The paper's findings, where the study compares what one of them compares."""
        tested = [view for view in self.views if view.tests_the_paper]
        parts: list[Part] = []
        for view in tested:
            parts += [document.heading(view.size)] if view.suffix else []
            file = f"tables/{view.verdict_table().stem}"
            parts.append({**document.findings(view.verdicts(), view.rule_in_words()), "file": file})
            parts += map(document.figure, view.figures)
            parts += map(document.table, view.comparison_tables)
        parts += map(document.figure, paper.sizes(tested) if tested else ())
        return Section("paper", "The paper's findings", parts, " ".join(view.summary() for view in tested))

    def _untested(self) -> list[str]:
        return [
            f"the paper's finding '{claim}'{f' on {view.size}' if view.suffix else ''}"
            for view in self.views
            if view.tests_the_paper
            for claim in view.untested
        ]

    def _not_measured(self, missing: list[str]) -> str:
        """What was not measured, in one line; empty where nothing is missing."""
        told = common.incomplete(self, missing)
        measured = {i for outcome in self.outcomes for i in outcome.scores}
        absent = [self.setup_in_words(i) for i in range(len(self.setups)) if i not in measured]
        if absent:
            told.insert(0, f"{len(absent)} of {len(self.setups)} set-ups ({common.few(absent)})")
        if untested := self._untested():
            told.append(f"{len(untested)} of the paper's findings")
        return f"Not measured: {'; '.join(told)}." if told else ""

    def _record(self) -> dict[str, Any]:
        """The study's record, with the axes as the report uses them."""
        used = [
            {
                "name": axis.name,
                "labels": axis.labels,
                "values": axis.values,
                "scale": axis.scale,
                "default": axis.default,
            }
            for axis in self.axes
        ]
        return {**self.study, "axes": used}

    def _settings(self) -> list[dict[str, Any]]:
        """Each set-up's labels and final scores."""
        return [
            {
                "labels": setup,
                "is_default": i == self.default,
                "scores": {
                    outcome.name: {
                        "value": cell.value,
                        "low": cell.low,
                        "high": cell.high,
                        "best_possible": outcome.best,
                        "seeds": cell.runs,
                    }
                    for outcome in self.outcomes
                    if (cell := outcome.scores.get(i))
                },
            }
            for i, setup in enumerate(self.setups)
        ]


def _score(found: Best) -> str:
    """`70.0 (60.1 to 78.0) %`"""
    best_possible = found.outcome.best
    words = findings.shown(found.outcome.scores[found.setup], best_possible)
    return f"{words} %" if best_possible == 1 else f"{words} of {best_possible:g}" if best_possible else words
