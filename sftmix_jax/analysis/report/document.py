"""A report as data: sections of parts, which report.json holds as they are. docs/report.md describes the fields."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sftmix_jax.analysis.curves import StageCurves
from sftmix_jax.analysis.figures import Figure
from sftmix_jax.analysis.table import Table

FORMAT = 1
Part = dict[str, Any]


@dataclasses.dataclass
class Section:
    """Parts under a heading; `id` is the anchor of its link."""

    id: str
    title: str
    parts: list[Part]
    lead: str = ""


@dataclasses.dataclass
class Document:
    """A whole report."""

    kind: str  # study or run
    title: str
    lead: list[str]
    sections: list[Section]
    missing: list[str]  # each thing that was not measured
    not_measured: str  # the same in one line; empty where nothing is missing
    study: dict[str, Any]  # the study's record
    settings: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # set-ups with their final scores
    curves: dict[str, Any] = dataclasses.field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """What report.json holds: numbers that are not finite become null."""
        made: dict[str, Any] = _plain({"format": FORMAT, **dataclasses.asdict(self)})
        return made


def text(words: str) -> Part:
    """A paragraph."""
    return {"kind": "text", "text": words}


def heading(words: str) -> Part:
    return {"kind": "heading", "text": words}


def table(made: Table) -> Part:
    return {"kind": "table", **dataclasses.asdict(made), "file": f"tables/{made.stem}"}


def figure(drawn: Figure) -> Part:
    return {"kind": "figure", **dataclasses.asdict(drawn), "file": f"figures/{drawn.stem}"}


def answers(found: Sequence[Mapping[str, Any]]) -> Part:
    """The best set-up by each score: {outcome, setting, score, comparisons: [{verdict, words}]}."""
    return {"kind": "answers", "answers": list(found)}


def findings(found: Sequence[Mapping[str, str]], rule: str) -> Part:
    """The paper's findings: {question, of, claim, verdict, numbers, paper, paper_verdict, paper_numbers}."""
    return {"kind": "findings", "findings": list(found), "rule": rule}


def tree(nodes: Sequence[tuple[int, str]]) -> Part:
    """An outline of (depth, words)."""
    return {"kind": "tree", "nodes": [list(node) for node in nodes]}


def fold(title: str, parts: Sequence[Part]) -> Part:
    """Parts that are shown once they are asked for."""
    return {"kind": "fold", "title": title, "parts": list(parts)}


def code(words: str) -> Part:
    return {"kind": "code", "text": words}


def responses(question: str, texts: Sequence[tuple[str, str]]) -> Part:
    """A question, and (title, text) of what was answered, side by side."""
    return {"kind": "responses", "question": question, "texts": [list(each) for each in texts]}


def listed(lines: Sequence[str]) -> Part:
    return {"kind": "list", "lines": list(lines)}


def curves(files: str, caption: str) -> Part:
    """The document's curves, with the controls to choose runs, smoothing and axes."""
    return {"kind": "curves", "file": files, "caption": caption}


def curve_data(stages: Mapping[str, StageCurves], runs: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Each stage's curves once, and each run's stages by id."""
    return {
        "stages": {identity: dataclasses.asdict(stage) for identity, stage in stages.items()},
        "runs": {name: list(chain) for name, chain in runs.items()},
    }


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "item"):  # numpy's
        return _plain(value.item())
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
