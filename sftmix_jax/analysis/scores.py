"""A study's scores as tables: at the end, by stage, alone against mixed, and from one source to the other abilities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from sftmix_jax.analysis import findings, rule, uncertain
from sftmix_jax.analysis.cells import BEST, Cells, Scores, benchmarks, is_part, labelled, number, of_paper, worst
from sftmix_jax.analysis.results import Result
from sftmix_jax.analysis.table import ABSENT, Table
from sftmix_jax.analysis.uncertain import Uncertain
from sftmix_jax.evaluation.statistics import paired_t

Setup = tuple[tuple[str, Any], ...]


def final(results: Sequence[Result], ours: Cells, paper: Cells, size: str) -> Table:
    """Every set-up's final scores, with the paper's beside them where it has the same."""
    rows = []
    for setup in dict.fromkeys(r.setup for r in results if r.is_last):
        row: list[Any] = _named(setup)
        for ability in ours.abilities:
            row.append(cell(ours.at(ability, **dict(setup)), ours.best(ability)))
            if ability in BEST:
                row.append(cell(paper.at(ability, **of_paper(setup)), paper.best(ability), interval=False))
        rows.append(row)
    columns = ["strategy", "set-up"]
    for ability in ours.abilities:
        columns += [ability, *([f"{ability}, paper {size}"] if ability in BEST else [])]
    caption = f"Final scores with 95 % intervals, {ours.source}; rates in %, {by_benchmark(results)}.{_one_run(ours)}"
    return Table("beside_the_paper", "Final scores beside the paper's", columns, rows, caption)


def by_benchmark(results: Sequence[Result]) -> str:
    """Which benchmark stands for each ability, and the range of those that are no rates."""
    best = {r.task: r.best for r in results if r.primary}
    ranges = {
        task: "" if best[task] == 1 else f" (up to {best[task]:g})" if best[task] else " (less is better)"
        for task in benchmarks(results).values()
    }
    named = {
        ability: ability if ability == task else f"{ability} by {task}" for ability, task in benchmarks(results).items()
    }
    return ", ".join(f"{named[ability]}{ranges[task]}" for ability, task in benchmarks(results).items())


def every(results: Sequence[Result], scores: Scores) -> Table:
    """Every benchmark's main metric after every stage, of every set-up; a base that set-ups share once."""
    main = sorted(
        {(r.ability, r.task, r.metric) for r in results if r.primary},
        key=lambda each: ([*BEST, each[0]].index(each[0]), each),
    )
    best = {r.task: r.best for r in results if r.primary}
    rows, bases = [], set()
    for setup in dict.fromkeys(r.setup for r in results):
        for position, stage, labels in sorted(
            {(r.position, r.stage, labelled(r)) for r in results if r.setup == setup}, key=lambda each: each[:2]
        ):
            ids = frozenset(r.stage_id for r in results if r.setup == setup and r.position == position)
            if position == 0 and ids in bases:
                continue
            bases |= {ids} if position == 0 else set()
            named = ["", ""] if position == 0 else _named(setup)
            cells = [cell(scores.by_task.get((task, labels)), best[task]) for _, task, _ in main]
            rows.append([*named, stage, *cells])
    columns = ["strategy", "set-up", "after", *(_of(task, metric) for _, task, metric in main)]
    return Table(
        "benchmarks",
        "Every benchmark",
        columns,
        rows,
        "Main metrics with 95 % intervals. A single score has the interval of its score.json; several seeds are "
        "resampled together with the questions.",
    )


def changes(results: Sequence[Result], ours: Cells) -> Table:
    """What each stage did to each ability: forgetting is what is lost."""
    rows = []
    for setup in dict.fromkeys(r.setup for r in results):
        stages = sorted({(r.position, r.stage, r.is_last) for r in results if r.setup == setup and r.primary})
        before: dict[str, Uncertain | None] = {}
        for position, stage, is_last in stages:
            row: list[Any] = [*_named(setup), stage]
            for ability in ours.abilities:
                now = ours.at(ability, **dict(setup), stage=None if is_last else stage)
                row.append(_change(now, before.get(ability), ours.best(ability)))
                before[ability] = now
            if position:
                rows.append(row)
    columns = ["strategy", "set-up", "stage", *(f"{ability}, change" for ability in ours.abilities)]
    return Table(
        "changes",
        "What each stage changed",
        columns,
        rows,
        f"After the stage minus before it; a loss is forgetting.{_one_run(ours)}",
    )


def _of(task: str, metric: str) -> str:
    """A metric's name; that of perplexity is its task's."""
    return task if task == metric else f"{task} {metric}"


def retention(results: Sequence[Result], ours: Cells) -> Table:
    """What is left at the end of the best that an ability was after an earlier stage."""
    rows = []
    for setup in dict.fromkeys(r.setup for r in results if r.is_last and r.position > 1):
        earlier = dict.fromkeys(r.stage for r in results if r.setup == setup and not r.is_last)
        row: list[Any] = _named(setup)
        for ability in ours.rated:
            now = ours.at(ability, **dict(setup))
            before = [cell for stage in earlier if (cell := ours.at(ability, **dict(setup), stage=stage))]
            best = max(before, key=lambda cell: cell.value, default=None)
            floor = worst(ours.best(ability))
            if now is None or best is None or best.low <= floor + 0.05 * ours.best(ability):
                row.append(ABSENT)  # there was nothing to keep
                continue
            kept = uncertain.combined(lambda n, b: np.maximum(n, 0) / np.maximum(b, 1e-9), now, best)
            row.append((f"{100 * kept.value:.0f} % ({100 * kept.low:.0f} to {100 * kept.high:.0f})", kept.value))
        if any(cell != ABSENT for cell in row[len(_named(setup)) :]):
            rows.append(row)
    columns = ["strategy", "set-up", *(f"{ability} kept" for ability in ours.rated)]
    return Table(
        "retention",
        "What was kept",
        columns,
        rows,
        f"The final score as a part of the best after an earlier stage.{_one_run(ours)}",
    )


def conflict(ours: Cells, paper: Cells, size: str) -> Table:
    """Single against mixed at the same part of every source, ability by ability."""
    rows, changes, crossings = [], [], {}
    for ability in ours.rated:
        for k in ours.parts(strategy="single", source=ability):
            both = findings.alone_and_mixed(ours, ability, k)
            if both is None:
                continue
            alone, mixed = both
            theirs = findings.alone_and_mixed(paper, ability, k)
            changes.append(mixed - alone)
            rows.append(
                [
                    ability,
                    (k, number(k)),
                    *((findings.shown(c, ours.best(ability)), c.value) for c in both),
                    _change(mixed, alone, ours.best(ability)),
                    _change(theirs[1], theirs[0], paper.best(ability)) if theirs else ABSENT,
                ]
            )
        where = findings.crossover_part(ours, (ability,))
        if where and where.runs != 1:
            crossings[ability] = findings.crossing(where)
    p = [
        min(1.0, 2 * min(change.below(), 1 - change.below())) if change.runs != 1 and change.has_spread else None
        for change in changes
    ]
    rows = [[*row[:5], cell, row[5]] for row, cell in zip(rows, _adjusted(p), strict=True)]
    columns = ["ability", "k", "alone", "mixed", "mixed minus alone", "p", f"paper {size}: mixed minus alone"]
    crossed = [
        f"{ability} at {findings.part(middle)} ({findings.part(low)} to {findings.part(high)})"
        for ability, (sure, middle, low, high) in crossings.items()
        if 1 - sure <= rule.LEVEL / len(crossings)
    ]
    turns = (
        f"Gain turns to loss: {', '.join(crossed)}."
        if crossed
        else ("Where gain turns to loss, or whether it does, is not clear.")
    )
    return Table(
        "conflict",
        "Alone and mixed",
        columns,
        rows,
        f"The same own data in both; below 0 mixing hurts. {_ADJUSTED} {turns}{_one_run(ours)}",
    )


_ADJUSTED = "p is of no difference, over all rows by Benjamini and Hochberg."


def _adjusted(p: Sequence[float | None]) -> list[Any]:
    """Cells of two-sided p, adjusted for the false discovery rate; none of single runs."""
    told = [each for each in p if each is not None]
    adjusted = iter(stats.false_discovery_control(told) if told else ())
    return [ABSENT if each is None else (f"{(value := float(next(adjusted))):.3f}", value) for each in p]


def conflict_in_losses(results: Sequence[Result]) -> Table:
    """The same on validation rows of an ability's own domain: a loss moves before a score does, and has no ceiling."""
    axes = {"strategy", "source", "k"}  # a set-up with others of the paper's is another comparison's
    last = [
        r
        for r in results
        if r.is_last
        and r.primary
        and r.validation_loss is not None
        and is_part(r.labels.get("k"))
        and axes >= of_paper(r.setup).keys()
    ]
    rows: list[list[Any]] = []
    tested: list[float | None] = []
    for ability in dict.fromkeys([*BEST, *(r.ability for r in last)]):
        mine = [r for r in last if r.ability == ability]
        alone = _by_k_and_seed(r for r in mine if r.labels.get("strategy") == "single")
        mixed = _by_k_and_seed(r for r in mine if r.labels.get("strategy") == "mixed")
        for k in sorted(alone.keys() & mixed.keys(), key=number):
            seeds = sorted(alone[k].keys() & mixed[k].keys())
            if not seeds:
                continue
            before, after = (np.array([losses[k][seed] for seed in seeds]) for losses in (alone, mixed))
            change, p = float((after - before).mean()), None
            low, high, tested_p = paired_t((after - before).tolist())
            if np.isfinite(tested_p):
                spread, p = f" ({low:+.4f} to {high:+.4f})", tested_p
            else:
                spread = ", one seed" if len(seeds) == 1 else ", the same for every seed: its spread is not known"
            tested.append(p)
            rows.append(
                [
                    ability,
                    (k, number(k)),
                    *((f"{losses.mean():.4f}", losses.mean()) for losses in (before, after)),
                    (f"{change:+.4f}{spread}", change),
                ]
            )
    rows = [[*row, cell] for row, cell in zip(rows, _adjusted(tested), strict=True)]
    columns = ["ability", "k", "alone", "mixed", "mixed minus alone", "p"]
    return Table(
        "conflict_losses",
        "Alone and mixed: validation loss",
        columns,
        rows,
        f"Nats per trained token on validation rows of the ability's own domain, paired by seed; above 0 mixing hurts. "
        f"{_ADJUSTED}",
    )


def _by_k_and_seed(found: Iterable[Result]) -> dict[str, dict[Any, float]]:
    out: dict[str, dict[Any, float]] = {}
    for result in found:
        out.setdefault(str(result.labels["k"]), {})[result.labels.get("seed")] = float(result.validation_loss or 0)
    return out


def transfer(ours: Cells) -> Table:
    """What one source alone does to every ability, its own and the others'."""
    rows = []
    for source in dict.fromkeys([*BEST, *ours.values("source")]):
        for k in ours.parts(strategy="single", source=source):
            row: list[Any] = [source, (k, number(k))]
            for ability in ours.abilities:
                setup = {"strategy": "single", "source": source, "k": k}
                now, then = ours.at(ability, **setup), ours.at(ability, **setup, stage="base")
                row.append(_change(now, then, ours.best(ability)))
            rows.append(row)
    columns = ["trained on", "k", *(f"{ability}, change" for ability in ours.abilities)]
    return Table(
        "transfer",
        "What one source gives to the others",
        columns,
        rows,
        f"One source alone minus the base: what it gives to abilities not its own.{_one_run(ours)}",
    )


def others(results: Sequence[Result]) -> Table:
    """Every metric beside the main ones after the last stage, mean over seeds: MT-Bench by category stands here."""
    last = [r for r in results if r.is_last and not r.primary]
    metrics = sorted({(r.task, r.metric) for r in last})
    rows = []
    for setup in dict.fromkeys(r.setup for r in last):
        row: list[Any] = _named(setup)
        for task, metric in metrics:
            found = [r for r in last if r.setup == setup and (r.task, r.metric) == (task, metric)]
            mean = sum(r.value for r in found) / len(found) if found else None
            row.append(ABSENT if mean is None else (f"{mean:.2f}" if found[0].best != 1 else f"{mean:.1%}", mean))
        rows.append(row)
    columns = ["strategy", "set-up", *(_of(task, metric) for task, metric in metrics)]
    return Table(
        "metrics",
        "Other metrics",
        columns,
        rows,
        "Means over seeds; what each metric counts stands in its file of eval/.",
    )


def _one_run(ours: Cells) -> str:
    """What the intervals of a study with one seed leave out."""
    return " Intervals are over questions alone and say nothing of another run." if ours.seeds == 1 else ""


def _named(setup: Setup) -> list[Any]:
    """The strategy, and the rest of a set-up's labels in words."""
    labels = {key: value for key, value in setup if value not in ("", None) and key != "size"}
    return [labels.pop("strategy", ""), ", ".join(f"{key} {value}" for key, value in labels.items())]


def _change(now: Uncertain | None, then: Uncertain | None, best: float) -> Any:
    if now is None or then is None:
        return ABSENT
    change = now - then
    return findings.shown(change, best, signed=True), change.value


def cell(score: Uncertain | None, best: float, interval: bool = True) -> Any:
    """A score with its interval, if asked for and there is one."""
    if score is None:
        return ABSENT
    known = score.interval is not None or (score.has_spread and bool(np.ptp(score.draws)))
    if interval and known:
        return findings.shown(score, best), score.value
    return (f"{100 * score.value:.1f}" if best == 1 else f"{score.value:.2f}"), score.value
