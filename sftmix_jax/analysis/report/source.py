"""What a report is made of: a study's records, scores and curves, each file read once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from sftmix_jax.analysis import curves, results
from sftmix_jax.analysis.cells import given
from sftmix_jax.analysis.curves import StageCurves
from sftmix_jax.workdir import records


class Source:
    """One study of one workdir."""

    def __init__(self, workdir: epath.Path, study: dict[str, Any], ability_of: Callable[[str], str] = str):
        self.workdir, self.study = workdir, results.told_apart(study)
        self.experiments = results.read_experiments(workdir)
        self.results, self.set_aside = results.comparable(results.read_results(workdir, study, ability_of))
        self._metrics = curves.MetricsFiles()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is scored and nothing was trained."""
        return not any(result.primary for result in self.results) and not self.curves

    @functools.cached_property
    def setups(self) -> list[dict[str, Any]]:
        """The distinct labels of all planned experiments, without their seeds."""
        found: dict[str, dict[str, Any]] = {}
        for labels in self.study["experiments"].values():
            setup = {key: value for key, value in sorted(given(labels.items()).items()) if key != "seed"}
            found.setdefault(repr(setup), {key: labels[key] for key in labels if key in setup})
        return list(found.values())

    @functools.cached_property
    def firsts(self) -> list[str]:
        """One started experiment of each set-up: the one with the lowest seed."""
        by_setup: dict[Any, tuple[int, str]] = {}
        for name, labels in self.study["experiments"].items():
            if name in self.experiments:
                setup = tuple(sorted((k, str(v)) for k, v in labels.items() if k != "seed"))
                by_setup[setup] = min(by_setup.get(setup, (1 << 30, "")), (int(labels.get("seed", 0)), name))
        return [name for _, name in by_setup.values()]

    def chain(self, name: str) -> dict[str, str]:
        """An experiment's stages with their ids, the base first."""
        record = self.experiments[name]
        return {"base": record["base"], **record["stages"]}

    def folder(self, identity: str) -> epath.Path | None:
        """Where a stage lies, if it was begun."""
        return self._folders.get(identity)

    @functools.cached_property
    def _folders(self) -> Mapping[str, epath.Path]:
        ids = (id for name in self.experiments for id in self.chain(name).values())
        return records.stage_folders(self.workdir, ids)

    @functools.cached_property
    def curves(self) -> dict[str, dict[str, StageCurves]]:
        """Each started experiment's stages by id, as far as they were begun."""
        found = {}
        for name in self.study["experiments"]:
            if name in self.experiments:
                chain = [(stage, id, self.folder(id)) for stage, id in self.experiments[name]["stages"].items()]
                found[name] = curves.of_chain(self._metrics, chain)
        return {name: stages for name, stages in found.items() if stages}

    @functools.cached_property
    def probes(self) -> dict[str, dict[str, Any]]:
        """Experiment → stage → probe.json, of those whose every stage was probed."""
        found = {}
        for name in self.study["experiments"]:
            if name in self.experiments:
                folders = {stage: self.folder(identity) for stage, identity in self.chain(name).items()}
                if all(folder is not None and (folder / "probe.json").exists() for folder in folders.values()):
                    found[name] = {stage: records.probe(f / "probe.json") for stage, f in folders.items() if f}
        return found
