"""A study's report: what was asked, what was found, and everything that it rests on."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from etils import epath

from sftmix_jax.analysis import accounts, cells, drawing, figures, findings, laws, page, results, rule, scores
from sftmix_jax.analysis.cells import Cells, Scores
from sftmix_jax.analysis.figures import Curves, Figure
from sftmix_jax.analysis.page import Section, Table
from sftmix_jax.analysis.results import Result
from sftmix_jax.analysis.rule import Finding
from sftmix_jax.machine import escaping, terminal
from sftmix_jax.workdir import records

_PAPER_SIZES = ("7b", "13b", "33b")


@dataclasses.dataclass(frozen=True)
class Part:
    """The set-ups of one model size that have the same of the study's own axes: what the paper's findings compare."""

    name: str  # those axes in words; empty where the study has none
    results: list[Result]
    ours: Cells

    @functools.cached_property
    def findings(self) -> list[Finding]:
        return findings.find(self.ours)


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

    def verdicts(self) -> Table:
        paper_findings = findings.find(self.paper)
        theirs = {finding.claim: finding for finding in paper_findings}
        measured = {finding.claim for part in self.parts for finding in part.findings if finding.is_measured}

        def rows(part: Part) -> list[list[Any]]:
            """What was measured of no part stands there once."""
            mine = [f for f in part.findings if f.is_measured or (f.claim not in measured and part is self.parts[0])]
            return [[ours.question, ours.claim, ours.verdict, ours.numbers, paper.verdict, paper.numbers]
                    for ours in mine for paper in (theirs[ours.claim],)]  # fmt: skip

        columns = [
            "RQ", "the paper's finding", "here", "numbers here", f"paper, {self.paper_size}", "numbers of the paper"
        ]  # fmt: skip
        made = self._together(lambda part: Table(
            "verdicts", "The paper's findings", columns, rows(part),
            findings.rule_in_words(part.findings, paper_findings),
        ))  # fmt: skip
        place = made.columns.index("here")
        for row in made.rows if len(self.parts) > 1 else ():
            row[0] = "every" if row[place] == rule.MISSING and row[2] not in measured else row[0]
        return dataclasses.replace(made, rows=sorted(made.rows, key=lambda row: row[place] == rule.MISSING))

    def _together(self, make: Callable[[Part], Table]) -> Table:
        """One table of every part's, with a column that names the part where there are several."""
        made = {part.name: make(part) for part in self.parts}
        first = next(iter(made.values()))
        if len(made) == 1:
            return first
        captions = dict.fromkeys(table.caption for table in made.values() if table.rows)
        rows = [[name, *row] for name, table in made.items() for row in table.rows]
        return dataclasses.replace(first, columns=["own axes", *first.columns], rows=rows, caption=" ".join(captions))

    @functools.cached_property
    def tables(self) -> list[Table]:
        """Verdicts first, then every table of scores that has rows."""
        every = (
            self.verdicts(),
            scores.final(self.results, self.ours, self.paper, self.paper_size),
            scores.every(self.results, self.scores),
            scores.changes(self.results, self.ours),
            scores.retention(self.results, self.ours),
            self._together(lambda part: scores.conflict(part.ours, self.paper, self.paper_size)),
            self._together(lambda part: scores.conflict_in_losses(part.results)),
            self._together(lambda part: scores.transfer(part.ours)),
            self._together(lambda part: laws.table([*laws.scores(part.ours), *laws.losses(part.results, self.size)])),
            scores.others(self.results),
        )
        return [dataclasses.replace(table, name=table.name + self.suffix) for table in every if table.rows]

    def figures(self) -> list[Figure]:
        """Ours, each followed by the paper's own."""
        makers: list[Callable[[Cells, str], Figure | None]] = [
            figures.own_data, figures.ratio, figures.replay, figures.front,
        ]  # fmt: skip
        own = figures.own_axes(self.ours, cells.own_axes(self.results), f"{self.size}, {self.ours.source}")
        drawn: list[Figure] = [dataclasses.replace(own, name=own.name + self.suffix)] if own else []
        for made in makers:
            found = {part.name: made(part.ours, ", ".join(filter(None, (self.size, part.name, part.ours.source))))
                     for part in self.parts}  # fmt: skip
            theirs = made(self.paper, f"the paper, {self.paper_size}") if any(found.values()) else None
            for figure, kind in (*((ours, f"-{name}" if name else "") for name, ours in found.items()),
                                 (theirs, "_paper")):  # fmt: skip
                if figure:
                    drawn.append(dataclasses.replace(figure, name=figure.name + kind + self.suffix))
        groups = figures.groups(self.results)
        return [*drawn, *([dataclasses.replace(groups, name=groups.name + self.suffix)] if groups else [])]


class Report:
    """One study of one workdir, read once."""

    def __init__(self, workdir: epath.Path, study: dict[str, Any], ability_of: Callable[[str], str] = str):
        self.workdir, self.study = workdir, results.told_apart(study)
        self._read: dict[epath.Path, list[dict[str, Any]]] = {}  # metrics by file
        self.experiments = results.read_experiments(workdir)
        self.results, self.set_aside = results.comparable(results.read_results(workdir, study, ability_of))
        sizes = sorted({str(labels.get("size", "")) for labels in study["experiments"].values()}, key=_by_number)
        self.views = [self._view(size, f"-{size}" if len(sizes) > 1 else "", self.results) for size in sizes]
        self.views = [view for view in self.views if view.results]
        self.firsts = self._firsts()

    def _view(self, size: str, suffix: str, found: list[Result]) -> View:
        paper_size = size if size in _PAPER_SIZES else "7b"
        mine = [result for result in found if str(result.labels.get("size", size)) == size]
        numbers = Scores(mine)
        ours = cells.measured(mine, size, numbers)
        parts = [
            Part(name, found, cells.measured(found, size, numbers.of(found))) for name, found in _parts(mine).items()
        ]
        return View(size, mine, numbers, ours, parts, paper_size, cells.published(paper_size), suffix)

    def _firsts(self) -> list[str]:
        """One experiment of each set-up: the one with the lowest seed."""
        by_setup: dict[Any, tuple[int, str]] = {}
        for name, labels in self.study["experiments"].items():
            if name in self.experiments:
                setup = tuple(sorted((k, str(v)) for k, v in labels.items() if k != "seed"))
                by_setup[setup] = min(by_setup.get(setup, (1 << 30, "")), (int(labels.get("seed", 0)), name))
        return [name for _, name in by_setup.values()]

    @property
    def title(self) -> str:
        return f"{self.study['name']}: {self.study['question']}" if self.study["question"] else "Experiments"

    def lead(self) -> str:
        """The study in a few sentences."""
        seeds = max((view.ours.seeds for view in self.views), default=0)
        sure = (
            f"over {seeds} seeds; intervals are over seeds and questions" if seeds > 1
            else "with one seed: intervals are over questions alone and say nothing about another seed"
        )  # fmt: skip
        told = [
            f"{len(self.study['experiments'])} experiments, {sure}. Comparisons keep "
            f"{self.study['hold'].replace('_', ' ')} equal."
        ]
        for view in self.views:
            counts = Counter(finding.verdict for part in view.parts for finding in part.findings)
            where = f"On {view.size}, of" if view.suffix else "Of"
            each = f", once for each of {len(view.parts)} values of its own axes," if len(view.parts) > 1 else ""
            against = sum(counts[verdict] for verdict in (rule.OPPOSITE, rule.NO_EFFECT, rule.FAILS))
            single = f" {counts[rule.ONE_RUN]} rest on one run and get no verdict." if counts[rule.ONE_RUN] else ""
            told.append(
                f"{where} the paper's findings that this study can test{each} {counts[rule.HOLDS]} hold, {against} do "
                f"not, and of {counts[rule.UNCLEAR]} these numbers cannot tell.{single}"
            )
        return " ".join(told)

    def tables(self) -> list[Table]:
        every = [table for view in self.views for table in view.tables]
        rows = accounts.rows(self.workdir, self.experiments, self.firsts)
        return [*every, *([rows] if rows.rows else [])]

    @functools.cached_property
    def figures(self) -> list[Figure]:
        drawn = [figure for view in self.views for figure in view.figures()]
        by_size = {", ".join(filter(None, (v.size, part.name))): part.ours for v in self.views for part in v.parts}
        sizes = figures.sizes(by_size, "measured here") if len(self.views) > 1 else None
        theirs = figures.sizes({size: cells.published(size) for size in _PAPER_SIZES}, "the paper")
        if any(figure.name.startswith("own_data") for figure in drawn) and theirs:
            drawn += [*([sizes] if sizes else []), dataclasses.replace(theirs, name="sizes_paper")]
        for name, probes in self._probes().items():
            drawn += [figure for made in (figures.maps, figures.conflicts) if (figure := made(probes, name))]
        loss = figures.losses({name: curves for name in self.firsts[:6] if (curves := self._curves(name))})
        return [*drawn, *([loss] if loss else [])]

    def _probes(self) -> dict[str, dict[str, Any]]:
        """Experiment → stage → probe.json, of those whose every stage was probed."""
        found = {}
        for name in self.study["experiments"]:
            record = self.experiments.get(name, {"stages": {}})
            chain = {"base": record.get("base", ""), **record["stages"]}
            folders = {stage: accounts.stage_folder(self.workdir, identity) for stage, identity in chain.items()}
            if all(folder is not None and (folder / "probe.json").exists() for folder in folders.values()):
                found[name] = {stage: records.probe(f / "probe.json") for stage, f in folders.items() if f}
        return found

    def _metrics(self, file: epath.Path) -> list[dict[str, Any]]:
        """The sound lines of a finished or running stage's metrics.jsonl.

        Each file is read, and what is missing or damaged of it is reported, once.
        """
        if file not in self._read and not file.exists():
            self._read[file] = []
            terminal.err(f"{file}: is missing though the stage is finished; the curves have a gap there")
        if file not in self._read:
            self._read[file], damaged = records.metrics(file)
            if damaged:
                listed = ", ".join(map(str, damaged[:5])) + (" …" if len(damaged) > 5 else "")
                terminal.err(f"{file}: damaged lines are left out of the curves: {listed}")
        return self._read[file]

    def _curves(self, name: str) -> Curves:
        """Each stage's steps, and its training losses by domain."""
        stages = []
        for stage, identity in self.experiments[name]["stages"].items():
            folder = accounts.stage_folder(self.workdir, identity)
            if folder is None or not any((folder / name).exists() for name in ("metrics.jsonl", "done.json")):
                break
            rows = [row for row in self._metrics(folder / "metrics.jsonl") if "loss" in row]
            domains = dict.fromkeys(key for row in rows for key in row if key.startswith("loss/"))
            by_domain = {d[5:]: [row[d] for row in rows if d in row] for d in domains}
            stages.append((stage, [row["step"] for row in rows], by_domain))
        return stages

    def responses(self, name: str) -> str:
        """One question of each task, answered after every stage, side by side."""
        record, parts = self.experiments[name], []
        chain = {"base": record["base"], **record["stages"]}
        for task in dict.fromkeys(r.task for r in self.results):
            answers: list[tuple[str, str]] = []
            for stage, identity in chain.items():
                folder = accounts.stage_folder(self.workdir, identity)
                file = results.score_folder(folder, task) / "responses.jsonl" if folder else None
                if file is None or not file.exists():
                    continue
                row = records.responses(file)[0]
                said = row.get("response", row.get("samples", ""))
                if not answers:
                    answers.append((f"{task}: asked", "\n\n".join(row["turns"])))
                worth = ", ".join(f"{metric} {value:g}" for metric, value in row["scores"].items() if value is not None)
                answers.append(
                    (f"after {stage} ({worth})", said if isinstance(said, str) else "\n\n— ".join(map(str, said)))
                )
            parts.append(page.columns(answers) if answers else "")
        return "".join(parts)

    def _experiment(self, name: str) -> str:
        """Its answers, its losses, its config and identity."""
        loss = figures.losses({name: curves}) if (curves := self._curves(name)) else None
        record = page.details("config and identity", page.code(json.dumps(self.experiments[name], indent=1)))
        return page.details(name, self.responses(name) + (page.plots(loss) if loss else "") + record)

    def sections(self) -> list[Section]:
        nodes, counted = accounts.graph(self.experiments, self.study, self.firsts)
        verdicts, shown = [], []
        for view in self.views:
            heading = [page.heading(view.size)] if view.suffix else []
            first, *rest = map(page.table, view.tables)
            verdicts += [*heading, first]
            shown += [*heading, *rest]
        rows = accounts.rows(self.workdir, self.experiments, self.firsts)
        out = [
            Section("Verdicts", verdicts),
            Section("Scores", shown),
            Section("Figures", [page.figure(figure) for figure in self.figures]),
            Section("Stages", [page.tree(nodes)], counted),
            Section("Data", [
                page.table(rows) if rows.rows else "",
                page.text(f"Contamination. {accounts.contamination(self.workdir)}"),
            ]),
            Section(
                "Experiments", [self._experiment(name) for name in self.firsts],
                "One of each set-up, the first seed: what it answered after every stage, its losses, its config.",
            ),
        ]  # fmt: skip
        missing = accounts.missing(self.workdir, self.experiments, self.study, self.results) + self.set_aside
        missing += [told for view in self.views for told in view.ours.left_out]
        if missing:
            lines = "".join(f"<li>{escaping.html(line)}</li>" for line in missing)
            out.insert(1, Section("Not there yet", [f"<ul>{lines}</ul>"]))
        return out


def _parts(found: list[Result]) -> dict[str, list[Result]]:
    """The results by the values of the study's own axes, in words."""
    axes = cells.own_axes(found)
    parts: dict[str, list[Result]] = {}
    for result in found:
        name = ", ".join(f"{axis} {result.labels.get(axis, '–')}" for axis in axes)
        parts.setdefault(name, []).append(result)
    return parts or {"": []}


def _by_number(size: str) -> tuple[float, str]:
    """`7b` before `13b`; what has no number first."""
    digits = "".join(sign for sign in size if sign.isdigit())
    return float(digits or 0), size


def write(
    workdir: epath.Path, study: dict[str, Any], folder: epath.Path, ability_of: Callable[[str], str] = str
) -> epath.Path:  # fmt: skip
    """index.html, figures/ (SVG, PDF), tables/ (CSV, LaTeX), results.csv and results.parquet → the page."""
    report = Report(workdir, study, ability_of)
    for kind in ("figures", "tables"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for figure in report.figures:
        for suffix in ("svg", "pdf"):
            drawing.draw(figure, folder / "figures" / f"{figure.stem}.{suffix}")
    for made in report.tables():
        (folder / "tables" / f"{made.stem}.csv").write_text(page.to_csv(made), encoding="utf-8")
        (folder / "tables" / f"{made.stem}.tex").write_text(page.to_latex(made), encoding="utf-8")
    results.write_tables(report.results, folder)
    whole = page.page(report.title, report.lead(), report.sections())
    (folder / "index.html").write_text(whole, encoding="utf-8")
    return folder / "index.html"


def has_results(found: list[Result]) -> bool:
    """Whether there is anything to report."""
    return any(result.primary for result in found)
