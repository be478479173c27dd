"""Figures as data: what is drawn, once; drawing.py makes SVG, PDF and PNG of it, report/plot.py a plot on the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sftmix_jax.analysis import fits
from sftmix_jax.analysis.cells import Cells, given, number, series, worst
from sftmix_jax.analysis.curves import StageCurves
from sftmix_jax.analysis.findings import REPLAYS
from sftmix_jax.analysis.results import Result
from sftmix_jax.analysis.uncertain import Uncertain
from sftmix_jax.machine import escaping


@dataclasses.dataclass
class Line:
    """Points, with intervals or a band where there are any."""

    name: str
    x: list[float] | list[str]
    y: list[float]
    low: list[float] = dataclasses.field(default_factory=list)
    high: list[float] = dataclasses.field(default_factory=list)
    band: bool = False  # low and high as an area, the points without marks
    joined: bool = True
    style: int = 0  # colour, mark and dash; lines of one style belong together
    labels: list[str] = dataclasses.field(default_factory=list)  # of points, where x does not say it
    bare: bool = False  # without marks


@dataclasses.dataclass
class Panel:
    title: str
    lines: list[Line]
    x_title: str = ""
    y_title: str = ""
    log_x: bool = False
    ticks: list[str] = dataclasses.field(default_factory=list)  # names along x, in order, where x is no number


@dataclasses.dataclass
class Figure:
    name: str  # of its files
    title: str
    caption: str  # what to see, in a sentence
    panels: list[Panel]

    @property
    def stem(self) -> str:
        """Its files' name without the suffix."""
        return escaping.file_name(self.name)

    def with_text(self, escape: Callable[[str], str]) -> Figure:
        """The same figure with all that it shows, its caption aside, escaped for where it is drawn."""
        return dataclasses.replace(
            self,
            title=escape(self.title),
            panels=[
                dataclasses.replace(
                    panel,
                    title=escape(panel.title),
                    x_title=escape(panel.x_title),
                    y_title=escape(panel.y_title),
                    ticks=list(map(escape, panel.ticks)),
                    lines=[
                        dataclasses.replace(
                            line,
                            name=escape(line.name),
                            labels=list(map(escape, line.labels)),
                            x=[escape(x) if isinstance(x, str) else x for x in line.x],  # type: ignore[arg-type]
                        )
                        for line in panel.lines
                    ],
                )
                for panel in self.panels
            ],
        )


def in_words(setup: Sequence[tuple[str, Any]]) -> str:
    """A set-up's labels for a legend: the strategy and the source by their names alone."""
    return ", ".join(
        str(v) if key in ("strategy", "source", "size") else f"{key} {v}"
        for key, v in sorted(given(setup).items(), key=lambda label: (label[0] != "strategy", label[0]))
    )


_FEW = 40  # points of a curve, up to which each has a mark
_LINES = 6  # that a panel can tell apart
_STYLE = {"math": 0, "code": 1, "general": 2}


def abilities_over_stages(scores: Sequence[Result]) -> Figure:
    """Each task's first metric over the stages, a panel an experiment."""
    panels = []
    for experiment in dict.fromkeys(score.experiment for score in scores):
        lines = []
        for style, task in enumerate(dict.fromkeys(score.task for score in scores)):
            points = sorted(
                (s for s in scores if s.experiment == experiment and s.task == task and s.primary),
                key=lambda s: s.position,
            )
            if points and points[0].best:  # a perplexity is no part of a best
                scale = 100 / points[0].best
                lines.append(
                    Line(
                        f"{task}, {points[0].metric}",
                        [s.stage for s in points],
                        [scale * s.value for s in points],
                        *_ends(points, scale),
                        style=style,
                    )
                )
        panels.append(Panel(experiment, lines, "after", "score, % of the best possible"))
    return Figure("abilities", "Abilities after each stage", "With 95 % intervals over the questions.", panels)


def _ends(points: Sequence[Result], scale: float) -> tuple[list[float], list[float]]:
    """Lower and upper ends; a point without an interval is its own."""
    low = [scale * (s.value if s.low is None else s.low) for s in points]
    return low, [scale * (s.value if s.high is None else s.high) for s in points]


def _line(
    name: str, best: float, points: Sequence[tuple[str, Uncertain]], numeric: bool = True, style: int = 0
) -> Line:
    scale = 100 / best
    x = [number(k) for k, _ in points] if numeric else [k for k, _ in points]
    return Line(
        name,
        x,
        [scale * u.value for _, u in points],  # type: ignore[arg-type]
        [scale * u.low for _, u in points],
        [scale * u.high for _, u in points],
        style=style,
        labels=[k for k, _ in points],
    )


_PART = "part k of the source"
_SCORE = "score, % of the best possible"


def own_data(cells: Cells, of: str) -> Figure | None:
    """RQ1 and RQ2: each ability with its own data alone, and with everything at the same part; fits as bands."""
    panels = []
    for ability in cells.rated:
        alone = series(cells, ability, strategy="single", source=ability)
        mixed = series(cells, ability, strategy="mixed")
        if len(alone) < 3:
            continue
        lines = [_line("alone", cells.best(ability), alone, style=0)]
        if len(alone) >= 4:
            lines.insert(0, fitted(lines[0], [cell for _, cell in alone], cells.best(ability)))
        if mixed:
            lines.append(_line("mixed with the others", cells.best(ability), mixed, style=1))
        panels.append(Panel(ability, lines, _PART, _SCORE, log_x=True))
    if not panels:
        return None
    caption = "Points with 95 % intervals; the band is the scaling law with the smallest held-out error."
    return Figure("own_data", f"RQ1, RQ2: alone and mixed ({of})", caption, panels)


def fitted(points: Line, scores: Sequence[Uncertain], best_possible: float) -> Line:
    """The best scaling law through a line's points, which are scores in % of the best possible, with its band."""
    amounts, scale = np.asarray(points.x, np.float64), 100.0 / best_possible
    drawn = scale * np.stack([score.draws[: fits.RESAMPLES] for score in scores])
    best = fits.fit(amounts.tolist(), points.y, drawn=drawn, ends=(scale * worst(best_possible), 100.0))
    grid = np.geomspace(amounts.min(), amounts.max(), 40)
    low, high = best.band(grid)
    return Line(
        f"{best.law.replace('_', '-')} law",
        grid.tolist(),
        best.at(grid).tolist(),
        low.tolist(),
        high.tolist(),
        band=True,
    )


def ratio(cells: Cells, of: str) -> Figure | None:
    """RQ3: own amount and others' amount varied apart."""
    names = {"a": "specialised all, general k", "b": "specialised k, general all", "c": "specialised k, general 1/64"}
    panels = []
    for ability in cells.rated:
        found = {s: series(cells, ability, strategy="mixed", setup=s) for s in names}
        lines = [
            _line(names[s], cells.best(ability), points, style=i)
            for i, (s, points) in enumerate(found.items())
            if points
        ]
        if lines:
            panels.append(Panel(ability, lines, "k", _SCORE, log_x=True))
    caption = "Where the amount of own data is fixed the line should be flat, if the ratio does not matter."
    return Figure("ratio", f"RQ3: amount or ratio ({of})", caption, panels) if panels else None


def replay(cells: Cells, of: str) -> Figure | None:
    """RQ4: DMT over k, with the other strategies as levels."""
    panels = []
    for ability in cells.rated:
        points = series(cells, ability, REPLAYS[1:], strategy="dmt")
        without = cells.at(ability, strategy="mixed_sequential", k="0")
        if without:
            points.insert(0, ("0", without))
        if len(points) < 2:
            continue
        ticks = [k for k, _ in points]
        lines: list[Line] = []
        for style, name in enumerate(("multitask", "sequential"), 1):
            level = cells.at(ability, strategy=name)
            if level:
                drawn = _line(name, cells.best(ability), [(k, level) for k in ticks], numeric=False, style=style)
                lines.append(dataclasses.replace(drawn, band=True))
        lines.append(_line("DMT", cells.best(ability), points, numeric=False, style=0))
        panels.append(Panel(ability, lines, "replayed part k (0: mixed sequential)", _SCORE))
    caption = "How much of the specialised data the general stage replays, and what each ability makes of it."
    return Figure("replay", f"RQ4: DMT's replay ({of})", caption, panels) if panels else None


def front(cells: Cells, of: str) -> Figure | None:
    """RQ4: what the replay trades, specialised against general."""
    line = Line("DMT by k", [], [], style=0)
    for k in REPLAYS:
        labels = {"strategy": "mixed_sequential" if k == "0" else "dmt", "k": k}
        found = {ability: cells.at(ability, **labels) for ability in ("math", "code", "general")}
        if all(found.values()):
            math, code, general = (100 / cells.best(a) * cell.value for a, cell in found.items() if cell)
            line.x.append((math + code) / 2)  # type: ignore[arg-type]
            line.y.append(general)
            line.labels.append(f"k = {k}")
    if len(line.y) < 2:
        return None
    others = Line("other strategies", [], [], style=1, joined=False)
    for name in ("multitask", "sequential"):
        found = {ability: cells.at(ability, strategy=name) for ability in ("math", "code", "general")}
        if all(found.values()):
            math, code, general = (100 / cells.best(a) * cell.value for a, cell in found.items() if cell)
            others.x.append((math + code) / 2)  # type: ignore[arg-type]
            others.y.append(general)
            others.labels.append(name)
    x, y = "mathematics and code, mean, %", "general, % of the best possible"
    panel = Panel("", [line, *([others] if others.y else [])], x, y)
    return Figure("front", f"RQ4: the trade-off ({of})", "Up and to the right is better in both.", [panel])


def sizes(by_size: dict[str, Cells], of: str) -> Figure | None:
    """RQ1: each ability with its own data alone, a line a model size."""
    if len(by_size) < 2:
        return None
    panels = []
    for ability in dict.fromkeys(ability for cells in by_size.values() for ability in cells.rated):
        found = {size: series(cells, ability, strategy="single", source=ability) for size, cells in by_size.items()}
        lines = [
            _line(size, by_size[size].best(ability), points, style=i)
            for i, (size, points) in enumerate(found.items())
            if points
        ]
        if len(lines) > 1:
            panels.append(Panel(ability, lines, _PART, _SCORE, log_x=True))
    caption = "Each ability trained alone on a part of its own data."
    return Figure("sizes", f"RQ1: model sizes ({of})", caption, panels) if panels else None


def groups(scores: Sequence[Result]) -> Figure | None:
    """Main metrics by group of questions (MT-Bench: by category) after the last stage, a line a set-up."""
    panels = []
    for task, metric in dict.fromkeys((s.task, s.metric) for s in scores if s.primary):
        found: dict[tuple[tuple[str, Any], ...], dict[str, list[float]]] = {}
        for score in scores:
            name, _, group = score.metric.partition(", ")
            if score.is_last and score.task == task and name == metric and group and score.best:
                found.setdefault(score.setup, {}).setdefault(group, []).append(100 / score.best * score.value)
        lines = [
            Line(in_words(setup), list(by_group), [float(np.mean(values)) for values in by_group.values()], style=style)
            for style, (setup, by_group) in enumerate(found.items())
        ]
        if lines:
            panels.append(Panel(f"{task}, {metric}", lines[:_LINES], "", _SCORE))
    caption = f"Means over seeds after the last stage; of more than {_LINES} set-ups the first."
    return Figure("groups", "By group of questions", caption, panels) if panels else None


def maps(probes: dict[str, dict[str, Any]], experiment: str) -> Figure | None:
    """Where each domain's queries lie, stage by stage."""
    panels = []
    for stage, probe in probes.items():
        lines: list[Line] = []
        for domain in dict.fromkeys(probe["domains"]):
            chosen = [i for i, each in enumerate(probe["domains"]) if each == domain]
            name = f"{domain}, silhouette {probe['silhouette'][domain]:.2f}"
            x, y = ([probe[axis][i] for i in chosen] for axis in "xy")
            lines.append(Line(name, x, y, joined=False, style=_STYLE.get(domain, len(lines))))
        panels.append(Panel(f"{stage}, layer {probe['layer']}", lines))
    caption = "t-SNE of hidden states at the last token of a query; a silhouette near 1 lies apart, near 0 overlaps."
    return Figure(f"maps-{experiment}", f"Where queries lie: {experiment}", caption, panels) if panels else None


def conflicts(probes: dict[str, dict[str, Any]], experiment: str) -> Figure | None:
    """Cosines between the domains' gradients by group of parameters."""
    panels = []
    for stage, probe in probes.items():
        lines = []
        for style, (pair, groups) in enumerate(probe["cosines"].items()):
            lines.append(Line(pair.replace(" again", ", other rows"), list(groups), list(groups.values()), style=style))
        panels.append(Panel(stage, lines, "", "cosine of gradients"))
    caption = "Below 0 two domains pull apart; a domain with itself on other rows is the most that can be reached."
    return Figure(f"conflicts-{experiment}", f"Gradient conflict: {experiment}", caption, panels) if panels else None


def losses(runs: Mapping[str, Sequence[StageCurves]]) -> Figure | None:
    """Training loss by domain across stage borders, a panel per run."""
    panels = []
    for run, stages in runs.items():
        points: dict[str, list[tuple[int, float]]] = {}
        offset = 0
        for stage in stages:
            for name, values in stage.training.values.items():
                if name.startswith("loss/"):
                    each = zip(stage.training.step, values, strict=True)
                    points.setdefault(name[5:], []).extend((offset + step, v) for step, v in each if v is not None)
            offset += stage.steps
        lines = [
            Line(
                domain,
                [float(x) for x, _ in found],
                [y for _, y in found],
                style=_STYLE.get(domain, style),
                bare=len(found) > _FEW,
            )
            for style, (domain, found) in enumerate(points.items())
            if found
        ]
        if lines:
            borders = " → ".join(stage.name for stage in stages)
            panels.append(Panel(f"{run}: {borders}", lines, "step", "loss, nats per trained token"))
    caption = "Of the training batches; a stage's last step is the next one's zero."
    return Figure("losses", "Loss by domain", caption, panels) if panels else None
