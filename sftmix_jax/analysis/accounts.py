"""What a study rests on: which stages were shared, what became of every row, and what is missing."""

from __future__ import annotations

from typing import Any

from etils import epath

from sftmix_jax.analysis.results import Result, read_done, score_folder
from sftmix_jax.analysis.table import Table
from sftmix_jax.machine.files import matching
from sftmix_jax.workdir import records

Experiments = dict[str, dict[str, Any]]  # name → its config, its base's id, its stages' ids


def graph(experiments: Experiments, study: dict[str, Any], firsts: list[str]) -> tuple[list[tuple[int, str]], str]:
    """The first seed's stages, each once under its parent, with the number of experiments that hold it."""
    children: dict[str, dict[str, str]] = {}
    holders: dict[str, int] = {}
    naive = 0
    for name in study["experiments"]:
        record = experiments.get(name)
        if record is None:
            continue
        parent = record["base"]
        for stage, identity in record["stages"].items():
            if name in firsts:
                children.setdefault(parent, {})[identity] = stage
            holders[identity] = holders.get(identity, 0) + 1
            naive += 1
            parent = identity
    nodes: list[tuple[int, str]] = []

    def visit(identity: str, name: str, depth: int) -> None:
        of = f", in {holders[identity]} experiments" if holders.get(identity, 0) > 1 else ""
        nodes.append((depth, f"{name} ({identity}){of}"))
        for child, stage in children.get(identity, {}).items():
            visit(child, stage, depth + 1)

    for base in sorted({experiments[name]["base"] for name in firsts}):
        visit(base, "base", 0)
    more = "; shown is the first seed" if len(firsts) < len(study["experiments"]) else ""
    return nodes, f"{len(holders)} stages, where each experiment alone would train {naive}{more}."


def rows(workdir: epath.Path, experiments: Experiments, firsts: list[str]) -> Table:
    """What became of every row, in each distinct stage of the first seed."""
    out: list[list[Any]] = []
    seen = set()
    for name in firsts:
        for stage, identity in experiments[name]["stages"].items():
            folder = records.stage_folder(workdir, identity)
            if identity in seen or folder is None or not (folder / "done.json").exists():
                continue
            seen.add(identity)
            done = read_done(folder)
            fill, losses = done.get("packing_fill"), done.get("validation_loss", {})
            for domain, account in done["ledger"].items():
                own = done["rows"][domain]
                out.append(
                    [
                        f"{stage} ({identity})",
                        domain,
                        own["used"],
                        own["stored"],
                        own["of them truncated"],
                        own["without an answer within the length"],
                        sum(own["skipped"].values()),
                        own["held out"],
                        account["epochs"],
                        account["trained_tokens"],
                        (f"{fill:.1%}", fill) if fill else "–",
                        (f"{losses[domain]:.3f}", losses[domain]) if domain in losses else "–",
                    ]
                )
    columns = [
        "stage",
        "domain",
        "rows used",
        "of",
        "cut short",
        "cut whole",
        "skipped",
        "held out",
        "epochs",
        "trained tokens",
        "packed rows filled",
        "validation loss",
    ]
    caption = (
        "Every stored row is used, not taken, held out, cut whole (its answer begins behind the length), or "
        "skipped with a reason."
    )
    return Table("accounts", "Rows", columns, out, caption)


def contamination(workdir: epath.Path) -> str:
    """Questions that stand in the training data, as `evaluate` found them."""
    file = workdir / "contamination.json"
    if not file.exists():
        return "Not looked for: evaluate does, with --workdir."
    told = []
    for task, record in records.contamination(file).items():
        where = ", ".join(f"{len(ids)} in {domain}" for domain, ids in record["questions"].items())
        told.append(f"{task}: of {record['of']} questions 13 words in a row stand {where}")
    return "; ".join(told)


def missing(workdir: epath.Path, experiments: Experiments, study: dict[str, Any], results: list[Result]) -> list[str]:
    """What is not there yet, and what failed."""
    told = []
    wanted = dict.fromkeys(result.task for result in results)
    for name in study["experiments"]:
        if name not in experiments:
            told.append(f"{name}: not started")
            continue
        for stage, identity in experiments[name]["stages"].items():
            folder = records.stage_folder(workdir, identity)
            if folder is None or not (folder / "done.json").exists():
                told.append(f"{name}: its stage {stage} is not trained")
                break
            lost = [task for task in wanted if not (score_folder(folder, task) / "score.json").exists()]
            if lost:
                told.append(f"{name}: its stage {stage} has no score on {', '.join(lost)}")
    for file in matching(workdir / "failures", "*.json"):
        record = records.failure(file)
        last = record["error"].strip().splitlines()[-1]
        told.append(f"{', '.join(record['experiments'])}: {record['job']} failed: {last}")
    return told
