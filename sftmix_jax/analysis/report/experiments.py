"""What single experiments answered and how they were set up, as parts of a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sftmix_jax.analysis import responses, results
from sftmix_jax.analysis.report import document
from sftmix_jax.analysis.report.document import Part
from sftmix_jax.analysis.report.source import Source
from sftmix_jax.workdir import records

_LONGEST = 1500  # characters of a question or answer on the page


def answers(source: Source, name: str, several: bool = False) -> list[Part]:
    """A question of each task (or several), answered after every stage, side by side."""
    parts = []
    for task in dict.fromkeys(result.task for result in source.results):
        after = {}
        for stage, identity in source.chain(name).items():
            folder = source.folder(identity)
            file = results.score_folder(folder, task) / "responses.jsonl" if folder else None
            if file is not None and file.exists() and (rows := records.responses(file)):
                after[stage] = {str(row["id"]): row for row in rows}
        for question in _chosen(after, several):
            shown = {stage: rows[question] for stage, rows in after.items() if question in rows}
            asked = "\n\n".join(next(iter(shown.values()))["turns"])
            texts = [("asked", _cut(asked)), *((_after(stage, row), _said(row)) for stage, row in shown.items())]
            title = question if question.startswith(task) else f"{task}, {question}"
            parts.append(document.responses(title, texts))
    return parts


def config(source: Source, name: str, first: str) -> Part:
    """The config of an experiment: whole for the first one, else what differs from that one's."""
    whole = source.experiments[name]
    if name == first:
        return document.fold("config and identity", [document.code(json.dumps(whole, indent=1))])
    own, other = _flat(whole), _flat(source.experiments[first])
    lines = [
        f"{key}: {own.get(key, 'not set')} (there {other.get(key, 'not set')})"
        for key in dict.fromkeys([*own, *other])
        if own.get(key) != other.get(key)
    ]
    return document.fold(f"what differs from {first}", [document.code("\n".join(lines))])


def _chosen(after: Mapping[str, Mapping[str, dict[str, Any]]], several: bool) -> list[str]:
    """The first question; or the first that training gained, that it lost, and that it left as it was."""
    if not after:
        return []
    first, last = next(iter(after.values())), list(after.values())[-1]
    if not several:
        return list(first)[:1]
    kinds: dict[int, str] = {}
    for question, row in first.items():
        if question in last:
            change = responses.worth(last[question]) - responses.worth(row)
            kinds.setdefault((change > 0) - (change < 0), question)
    return [kinds[kind] for kind in (1, -1, 0) if kind in kinds]


def _after(stage: str, row: Mapping[str, Any]) -> str:
    worth = ", ".join(f"{metric} {value:g}" for metric, value in row["scores"].items() if value is not None)
    return f"after {stage} ({worth})"


def _said(row: Mapping[str, Any]) -> str:
    said = row.get("response", row.get("samples", ""))
    return _cut(said if isinstance(said, str) else "\n\n— ".join(map(str, said)))


def _cut(text: str) -> str:
    """Cut a text to so many characters, and append the number of those that are left out."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text) - _LONGEST:,} more characters)"


def _flat(value: Any, at: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` → `{"a.b": 1}`"""
    if isinstance(value, dict) and value:
        found: dict[str, Any] = {}
        for key, item in value.items():
            found |= _flat(item, f"{at}.{key}" if at else str(key))
        return found
    return {at: value}
