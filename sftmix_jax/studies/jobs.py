"""What a study has to do: each distinct stage once, after its parent."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from etils import epath

from sftmix_jax.evaluation import fixed
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.evaluation.task import find_task
from sftmix_jax.experiment.runner import check_folders, register
from sftmix_jax.experiment.stages import Resolved, ResolvedStage
from sftmix_jax.machine import identity
from sftmix_jax.machine.files import write_json
from sftmix_jax.studies.study import Study
from sftmix_jax.workdir import records


@dataclasses.dataclass
class Job:
    """A stage to train and score, or (without a stage) a base to score."""

    id: str
    name: str
    resolved: Resolved
    stage: ResolvedStage | None
    experiments: list[str]  # that hold this stage; the first one's name stands for it
    scores: Callable[[], Scores]

    @property
    def parent(self) -> str | None:
        """The id of the job that must be done before."""
        if self.stage is None:
            return None
        return self.stage.parent.id if self.stage.parent else self.resolved.base_id

    def folder(self, workdir: epath.Path) -> epath.Path:
        return self.stage.folder(workdir) if self.stage else self.resolved.base_folder(workdir)

    def is_trained(self, workdir: epath.Path) -> bool:
        """A base needs no training, but its folder must be there."""
        return self.stage.is_done(workdir) if self.stage else (self.folder(workdir) / "stage.json").exists()

    def is_done(self, workdir: epath.Path) -> bool:
        """Trained, and scored as the experiment asks."""
        if not self.is_trained(workdir):
            return False
        scored = self.folder(workdir) / "eval"
        return all(fixed.is_scored(scored / task, wanted) for task, wanted in self.scores().items())


Scores = dict[str, dict[str, Any]]  # task → what fixes its score


def _scores(config: EvaluationConfig) -> Callable[[], Scores]:
    """The scores that a config asks for; its questions are read when they are first asked for."""
    return functools.cache(lambda: {find_task(name)[0].name: fixed.wanted(name, config) for name in config.tasks})


def make_jobs(study: Study, workdir: epath.Path) -> list[Job]:
    """The study's jobs, parents first; registers its experiments, and the study itself, in the workdir."""
    jobs: dict[str, Job] = {}
    registered: dict[str, Any] = {}
    asked: dict[str, Callable[[], Scores]] = {}  # by the config's fields: most experiments of a study share one
    # All chains before the first is written down: a stage of the last run may be one that cannot be trained.
    chains = [(run, resolved, resolved.chain()) for run in study.runs for resolved in (Resolved(run.experiment),)]
    for run, resolved, chain in chains:
        check_folders(chain, workdir)
        name = run.experiment.name
        register(run.experiment, resolved.base_id, chain, workdir)
        registered[name] = run.labels
        evaluation = run.experiment.evaluation
        scores = asked.setdefault(repr(evaluation), _scores(evaluation))
        base = jobs.setdefault(resolved.base_id, Job(resolved.base_id, "base", resolved, None, [], scores))
        base.experiments.append(name)
        for stage in chain:
            jobs.setdefault(stage.id, Job(stage.id, stage.name, resolved, stage, [], scores)).experiments.append(name)
    file = workdir / "studies" / f"{study.name}.json"
    known = records.known(file, records.study)
    # A part of a study (--only) adds to what is known of it, and takes nothing away.
    experiments = known.get("experiments", {}) | registered
    record = {
        "name": study.name,
        "question": study.question,
        "hold": study.hold,
        "axes": study.axes,
        "experiments": experiments,
    }
    if known != identity.plain(record):
        write_json(file, identity.plain(record))
    return list(jobs.values())


def naive_stages(study: Study) -> int:
    """How many stages would be trained if none were shared."""
    return sum(len(run.experiment.stages) for run in study.runs)
