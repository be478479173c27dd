"""The sections that a study's report and a run's share: training curves, data, experiments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sftmix_jax.analysis import accounts, figures
from sftmix_jax.analysis import curves as curves_
from sftmix_jax.analysis.figures import Figure
from sftmix_jax.analysis.report import document
from sftmix_jax.analysis.report import experiments as experiments_
from sftmix_jax.analysis.report.document import Section
from sftmix_jax.analysis.report.source import Source

DRAWN = 6  # experiments whose losses are drawn for a paper


def losses(source: Source, names: Sequence[str]) -> Figure | None:
    """Losses by domain of some experiments, as pictures."""
    return figures.losses({name: list(source.curves[name].values()) for name in names if name in source.curves})


def training(source: Source, names: Iterable[str]) -> Section:
    """Losses, learning rate, gradient norm and throughput over the steps, with runs to choose."""
    drawn = [name for name in names if name in source.curves]
    if not drawn:
        return Section("training", "Training", [])
    _, are_thinned = curves_.thinned(_stages(source))
    thin = " Curves are thinned to what a page can hold; metrics.jsonl has every point." if are_thinned else ""
    caption = (
        "A stage's last step is the next one's zero; dotted lines are borders of stages. Throughput is estimated from "
        f"the tokens of logged steps.{thin}"
    )
    file = "figures/losses" if losses(source, source.firsts[:DRAWN]) else ""
    return Section("training", "Training", [document.curves(file, caption)])


def curves(source: Source) -> dict[str, Any]:
    """The curves of report.json: each stage once, and each experiment's stages."""
    stages, _ = curves_.thinned(_stages(source))
    ordered = dict.fromkeys([*source.firsts, *source.curves])
    return document.curve_data(stages, {name: list(source.curves[name]) for name in ordered if name in source.curves})


def _stages(source: Source) -> dict[str, curves_.StageCurves]:
    return {identity: stage for chain in source.curves.values() for identity, stage in chain.items()}


def data(source: Source) -> Section:
    """What became of every row, contamination, and which stages were shared."""
    rows = accounts.rows(source.workdir, source.experiments, source.firsts)
    nodes, counted = accounts.graph(source.experiments, source.study, source.firsts)
    return Section(
        "data",
        "Data and stages",
        [
            *([document.table(rows)] if rows.rows else []),
            document.text(f"Contamination. {accounts.contamination(source.workdir)}"),
            document.fold(f"Stages: {counted}", [document.tree(nodes)]),
        ],
    )


def experiments(source: Source) -> Section:
    """One experiment of each set-up: its answers and its config."""
    folds = [
        document.fold(name, [*experiments_.answers(source, name), experiments_.config(source, name, source.firsts[0])])
        for name in source.firsts
    ]
    lead = "One of each set-up, the first seed: what it answered after every stage, and its config."
    return Section("experiments", "Experiments", folds, lead)


def incomplete(source: Source, missing: Sequence[str]) -> list[str]:
    """Experiments without all of their stages and scores, counted; and what else is not in the numbers."""
    names = [name for name in source.study["experiments"] if any(line.startswith(f"{name}: ") for line in missing)]
    others = len(missing) - sum(line.startswith(tuple(f"{name}: " for name in names)) for line in missing)
    told = [f"parts of {len(names)} of {len(source.study['experiments'])} experiments ({few(names)})"] if names else []
    return told + ([f"{others} scores, questions or jobs that are left out or failed"] if others else [])


def few(names: Sequence[str], between: str = ", ") -> str:
    """The first of some names."""
    return between.join([*names[:3], *(["…"] if len(names) > 3 else [])])
