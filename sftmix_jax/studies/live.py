"""What is going on in a workdir, read from its records; nothing is written."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from etils import epath

from sftmix_jax.analysis import curves, results
from sftmix_jax.machine import escaping, identity
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import matching, read_json
from sftmix_jax.machine.leases import STALE, Leases, describe
from sftmix_jax.planning import chips
from sftmix_jax.workdir import records

_POINTS = 300  # of a stage's curves
_RECENT = 20  # lines of metrics that the speed is taken from


def state(workdir: epath.Path) -> dict[str, Any]:
    """Stages with their progress, scores as they come, and failures; for JSON.

    A record that is damaged or half-written stands under `notes` and is read again the next time.
    """
    notes: list[str] = []
    experiments: dict[str, dict[str, Any]] = {}
    for file in matching(workdir / "experiments", "*.json"):
        with _noted(notes, file):
            experiments[file.name.removesuffix(".json")] = records.experiment(file)
    leases = Leases(workdir / "claims") if (workdir / "claims").is_dir() else None
    stages: dict[str, dict[str, Any]] = {}
    for experiment, record in experiments.items():
        for name, id in record["stages"].items():
            if id in stages:
                stages[id]["experiments"].append(experiment)
                continue
            stages[id] = {"id": id, "name": name, "experiments": [experiment], "state": "waiting"}
            with _noted(notes, f"{name}-{id}"):
                stages[id] |= stage(workdir, id, leases)
                if curve := stages[id].get("curve"):
                    curve["title"] = escaping.plotly(f"{name} of {experiment}: loss")
    failures = []
    for file in matching(workdir / "failures", "*.json"):
        if failure := _failure(file, notes):
            failures.append(failure)
            failed = stages.get(file.name.removesuffix(".json"), {})
            if failed.get("state") in ("waiting", "stopped"):
                failed["state"] = "failed"
    scores = _scores(workdir, notes)
    found = list(stages.values())
    return {
        "stages": found,
        "scores": scores,
        "failures": failures,
        "device_hours": sum(stage.get("device_hours", 0.0) for stage in found),
        "dollars": _dollars(found),
        "notes": notes,
        # the report is older than this if it was made with another one
        "version": identity.digest({"scores": scores, "done": sorted(s["id"] for s in found if s["state"] == "done")}),
    }


@contextlib.contextmanager
def _noted(notes: list[str], what: object) -> Iterator[None]:
    """A damaged record, of whatever form, is no reason to show nothing."""
    try:
        yield
    except (UserError, OSError) as error:
        notes.append(str(error))
    except Exception as error:
        notes.append(f"{what}: its records cannot be read ({type(error).__name__}: {error})")


def stage(workdir: epath.Path, id: str, leases: Leases | None) -> dict[str, Any]:
    """A stage's part of `state` beside its name. Raises UserError."""
    folder = records.stage_folder(workdir, id)
    if folder is None:
        return {}
    record = records.stage(folder / "stage.json") if (folder / "stage.json").exists() else {}
    planned = record.get("run", {})
    rows, _ = records.metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else ([], [])
    trained = [row for row in rows if "loss" in row]
    is_done, holder = (folder / "done.json").exists(), leases.holder(id) if leases else None
    last = trained[-1] if trained else {"step": 0, "seconds": 0.0}
    hours = float(last.get("seconds", 0.0)) * planned.get("devices", 1) / 3600
    found = {
        "step": last["step"],
        "steps": planned.get("steps", 0),
        "loss": last.get("loss"),
        "losses": {name.removeprefix("loss/"): value for name, value in last.items() if name.startswith("loss/")},
        "device_hours": hours,
        "device": planned.get("kind", ""),
    }
    if is_done:
        return {**found, "state": "done", "step": planned.get("steps", last["step"])}
    quiet = time.time() - _changed(folder / "metrics.jsonl") if trained else 0.0
    if holder is None or (quiet > STALE and not _beats(workdir, id)):
        return {**found, "state": "stopped"}
    speed = _speed(trained[-_RECENT:])
    left = (found["steps"] - last["step"]) / speed["steps"] if speed["steps"] and found["steps"] else None
    return {
        **found,
        "state": "training",
        "worker": describe(holder),
        "seconds_left": left,
        "tokens_per_second": speed["tokens"],
        "curve": _curve(rows),
    }


def _dollars(stages: list[dict[str, Any]]) -> float | None:
    """What the stages have cost at the planner's list prices; None where a device that was used has none."""
    prices = [(each["device_hours"], chips.price_of(each["device"])) for each in stages if each.get("device_hours")]
    if not prices or any(price is None for _, price in prices):
        return None
    return sum(hours * price for hours, price in prices if price is not None)


def _curve(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Loss by domain over the steps, thinned; names as plotly reads them."""
    series = curves.of_stage("", rows).training.thinned(_POINTS)
    losses = {
        escaping.plotly(name.removeprefix("loss/")): values
        for name, values in series.values.items()
        if name.startswith("loss/")
    }
    return {"step": series.step, "losses": losses}


def _speed(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Steps and tokens per second of the last lines; 0 where they cannot be told."""
    if len(rows) < 2 or (seconds := rows[-1].get("seconds", 0) - rows[0].get("seconds", 0)) <= 0:
        return {"steps": 0.0, "tokens": 0.0}
    steps = rows[-1]["step"] - rows[0]["step"]
    tokens = sum(row.get("tokens", 0) for row in rows[1:]) / max(len(rows) - 1, 1)  # of one step, on average
    return {"steps": steps / seconds, "tokens": tokens * steps / seconds}


def _changed(file: epath.Path) -> float:
    """When a file was written last, in seconds; 0 where there is none."""
    try:
        return float(file.stat().mtime)
    except OSError:
        return 0.0


def _beats(workdir: epath.Path, id: str) -> bool:
    """Whether the holder of a stage's lease has given a sign of life lately, by this machine's clock."""
    newest = max((_changed(file) for file in matching(workdir / "claims", f"{id}.*.json")), default=0.0)
    return time.time() - newest < STALE


def _failure(file: epath.Path, notes: list[str]) -> dict[str, Any]:
    with _noted(notes, file):
        record = read_json(file, "the study writes it again", job=str, experiments=list, error=str)
        return {"job": record["job"], "experiments": record["experiments"], "error": record["error"][-2000:]}
    return {}


def _scores(workdir: epath.Path, notes: list[str]) -> list[dict[str, Any]]:
    """Every primary metric; of a stage that experiments share once."""
    if not (workdir / "stages").is_dir():
        return []
    with _noted(notes, workdir):
        found = results.read_results(workdir, results.every_experiment(workdir))
        once = {(each.stage_id, each.task): each for each in reversed(found) if each.primary}
        return [
            {
                "experiment": each.experiment,
                "stage": each.stage,
                "task": each.task,
                "metric": each.metric,
                "value": each.value,
                "low": each.low,
                "high": each.high,
                "best": each.best,
            }
            for each in reversed(once.values())
        ]
    return []
