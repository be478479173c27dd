"""The report of experiments that belong to no study, as of a single run: what happened while it was trained."""

from __future__ import annotations

import dataclasses
import functools

from sftmix_jax.analysis import accounts, figures, results, scores
from sftmix_jax.analysis.cells import Scores
from sftmix_jax.analysis.figures import Figure
from sftmix_jax.analysis.report import common, document
from sftmix_jax.analysis.report import experiments as experiments_
from sftmix_jax.analysis.report.document import Document, Part, Section
from sftmix_jax.analysis.report.source import Source
from sftmix_jax.analysis.table import Table


class RunReport(Source):
    """The experiments of one workdir, read once."""

    @functools.cached_property
    def figures(self) -> list[Figure]:
        """Every figure of the report."""
        drawn = [self._over_stages, figures.groups(self.results), common.losses(self, self.firsts[: common.DRAWN])]
        return [figure for figure in drawn if figure]

    @functools.cached_property
    def tables(self) -> list[Table]:
        """Every table of the report."""
        found = [*self._score_tables, accounts.rows(self.workdir, self.experiments, self.firsts)]
        return [table for table in found if table.rows]

    @functools.cached_property
    def _over_stages(self) -> Figure | None:
        return figures.abilities_over_stages(self.results) if self.results else None

    @functools.cached_property
    def _score_tables(self) -> list[Table]:
        made = (scores.every(self.results, Scores(self.results)), scores.others(self.results))
        return [_of_runs(table.without_empty()) for table in made if table.rows]

    def document(self) -> Document:
        """The whole report as data."""
        missing = accounts.missing(self.workdir, self.experiments, self.study, self.results) + self.set_aside
        names = list(self.study["experiments"])
        told = common.incomplete(self, missing) + ([] if self.results else ["any score: evaluate has not been run"])
        sections = [
            self._scores(),
            common.training(self, names),
            common.data(self),
            self._answers(),
            self._configs(),
        ]
        return Document(
            "run",
            f"{'Run' if len(names) == 1 else 'Runs'}: {', '.join(names)}",
            [*map(self._how, names)],
            [section for section in sections if section.parts],
            missing,
            f"Not measured: {'; '.join(told)}." if told else "",
            self.study,
            [],
            common.curves(self),
        )

    def _how(self, name: str) -> str:
        """What was trained, stage by stage, in a sentence."""
        record = self.experiments[name]
        told = []
        for stage, identity in record["stages"].items():
            folder = self.folder(identity)
            done = results.read_done(folder) if folder else {}
            if not done:
                told.append(f"{stage} is not finished")
                continue
            tokens = sum(account["trained_tokens"] for account in done["ledger"].values())
            took = f" in {_duration(done['seconds'])}" if "seconds" in done else ""
            rate = f", {done['tokens_per_second']:,.0f} tokens per second" if "tokens_per_second" in done else ""
            device = f" on {done['devices']}" if "devices" in done else ""
            told.append(f"{stage}: {done['steps']:,} steps, {tokens:,} trained tokens{took}{rate}{device}")
        init = record["experiment"].get("model", {}).get("init", "")
        return f"{name}{f', from {init}' if init else ''}. {'; '.join(told)}."

    def _scores(self) -> Section:
        parts: list[Part] = [document.figure(self._over_stages)] if self._over_stages else []
        groups = figures.groups(self.results)
        return Section(
            "scores",
            "Scores over stages",
            [
                *parts,
                *map(document.table, self._score_tables),
                *([document.figure(groups)] if groups else []),
            ],
        )

    def _answers(self) -> Section:
        """Questions that training gained, lost and left as they were."""
        found = {name: experiments_.answers(self, name, several=True) for name in self.firsts}
        parts = [part for each in found.values() for part in each]
        if len([each for each in found.values() if each]) > 1:
            parts = [document.fold(name, each) for name, each in found.items() if each]
        lead = "Of each benchmark the first question that training gained, that it lost, and that it left as it was."
        return Section("answers", "Answers before and after", parts, lead)

    def _configs(self) -> Section:
        first = self.firsts[0] if self.firsts else ""
        several = len(self.firsts) > 1
        folds = [
            document.fold(name, [experiments_.config(self, name, first)])
            if several
            else experiments_.config(self, name, first)
            for name in self.firsts
        ]
        return Section("config", "Config", folds)


def _of_runs(table: Table) -> Table:
    """Experiments that belong to no study stand under the name of their run."""
    columns = ["run" if column == "strategy" else column for column in table.columns]
    return dataclasses.replace(table, columns=columns)


def _duration(seconds: float) -> str:
    """`2 min 5 s`"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
