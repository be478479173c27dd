"""Scores on their way from a stage's folder to its trackers, whatever command measured them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from etils import epath

from sftmix_jax.experiment import stages
from sftmix_jax.machine import processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import matching
from sftmix_jax.training import trackers
from sftmix_jax.training.metrics import LoggingConfig
from sftmix_jax.training.trackers import Trackers
from sftmix_jax.training.trackers.tracker import Tracked
from sftmix_jax.workdir import records

Send = Callable[[Mapping[str, float]], None]  # takes scores by `score/TASK/METRIC`


def scores(folder: epath.Path) -> dict[str, float]:
    """The values of all score.json of a stage, as `score/TASK/METRIC`; of process 0 alone."""
    if not processes.is_first():
        return {}
    scored = []
    for file in (task / "score.json" for task in matching(folder / "eval", "*")):
        with contextlib.suppress(UserError):  # a damaged one is reported where it is scored again
            scored.append(records.score(file))
    return {
        f"score/{record['task']}/{name}": metric["value"]
        for record in scored
        for name, metric in record["metrics"].items()
        if metric["value"] is not None
    }


@contextlib.contextmanager
def sending(folder: epath.Path, send: Send) -> Iterator[None]:
    """Sends the scores that a stage's folder gains within, or that change."""
    before = scores(folder)
    yield
    new = {name: value for name, value in scores(folder).items() if before.get(name) != value}
    if new:
        send(new)


@contextlib.contextmanager
def trackers_of(folder: epath.Path) -> Iterator[Send]:
    """The trackers of a finished stage or a base, as the experiments of its workdir that hold it ask for them.

    None for other folders. A tracker that cannot be opened is reported, and does not end the command.
    """
    with contextlib.ExitStack() as stack:
        opened: list[Trackers] = []
        step = 0

        def send(new: Mapping[str, float]) -> None:
            for each in list(opened):
                try:
                    each.score(new, step)
                except UserError as error:
                    opened.remove(each)
                    _warn(folder, error)

        if processes.is_first() and (folder / "stage.json").exists():
            try:
                record = stages.read_stage(folder)
                if record["name"] == "base":
                    record = {key: record[key] for key in ("name", "id", "init")}
                else:
                    step = records.done(folder / "done.json")["steps"]
                for name, logging in _asked(folder.parent.parent, record["id"]):
                    trackers.require(logging)
                    opened.append(stack.enter_context(Trackers(Tracked(folder, name, record), logging)))
            except UserError as error:
                _warn(folder, error)
        yield send


def _asked(workdir: epath.Path, id: str) -> Iterator[tuple[str, LoggingConfig]]:
    """The experiments that hold a stage or base and track it, each with the trackers that none before it asks for."""
    board, projects = False, {""}
    for file in matching(workdir / "experiments", "*.json"):
        record = records.experiment(file)
        if id not in (record["base"], *record["stages"].values()):
            continue
        logging = record["experiment"].get("logging", {})
        new = LoggingConfig(
            tensorboard=logging.get("tensorboard", False) and not board,
            wandb="" if logging.get("wandb", "") in projects else logging["wandb"],
        )
        board, projects = board or new.tensorboard, projects | {new.wandb}
        if new.tensorboard or new.wandb:
            yield record["experiment"].get("name", file.stem), new


def _warn(folder: epath.Path, error: UserError) -> None:
    terminal.err(f"warning: scores of {folder.name} are not sent to its trackers: {error}")
