"""Gradients between domains and where queries lie, for every finished stage of an experiment."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import numpy as np
from etils import epath

from sftmix_jax.data import loader, mixture
from sftmix_jax.data.loader import LoaderConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment.config import Experiment
from sftmix_jax.experiment.stages import Resolved, on_one_device, stage_params
from sftmix_jax.machine import identity, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import exists, write_json
from sftmix_jax.models.decoder import Params
from sftmix_jax.probes import gradients, hidden
from sftmix_jax.probes.gradients import Sketcher
from sftmix_jax.probes.settings import ProbeConfig
from sftmix_jax.workdir import records


def probe(config: Experiment, workdir: epath.Path, asked: ProbeConfig) -> None:
    """Write probe.json for the base and every finished stage that was not probed in this way before.

    Layer 0 stands for the middle one, the paper's 15 of 32. Raises UserError for one that the model does not have.
    """
    resolved = Resolved(config)
    layers = resolved.base.config.num_layers
    queries, batches, layer = asked.queries, asked.batches, asked.layer or (layers + 1) // 2
    if not 1 <= layer <= layers:
        raise UserError(f"--layer {layer}: the model has layers 1 to {layers}")
    settings = {"layer": layer, "queries": queries, "batches": batches, "domains": config.domains}
    settings = identity.plain(settings | {"seed": config.seed, "template": resolved.chat.fingerprint})
    abstract = on_one_device(resolved.base.config)
    mesh = experiment.make_mesh(config, resolved.base.config)
    sketcher = gradients.make_sketcher(resolved.base.config, resolved.compute, mesh)
    done = [stage.folder(workdir) for stage in resolved.chain() if stage.is_done(workdir)]
    for folder in (resolved.base_folder(workdir), *done):
        file = folder / "probe.json"
        record = _known(file)
        if record.get("settings") != settings:
            params = stage_params(folder, abstract) if folder in done else resolved.base.params(abstract)
            record = {
                "settings": settings,
                "layer": layer,
                "cosines": _cosines(resolved, sketcher, params, batches),
                **_map(resolved, params, layer, queries),
            }
            write_json(file, record)
        told = ", ".join(f"{name} {value:.2f}" for name, value in record["silhouette"].items())
        terminal.out(f"{folder.name}: silhouettes after layer {layer}: {told}")


def _known(file: epath.Path) -> dict[str, Any]:
    """What was probed before; nothing if the record is damaged, so that it is made again."""
    if not exists(file):
        return {}
    try:
        return records.probe(file)
    except UserError as error:
        terminal.err(f"probing again: {error}")
        return {}


def _cosines(resolved: Resolved, sketcher: Sketcher, params: Params, batches: int) -> dict[str, dict[str, float]]:
    """Between domains; and of each domain with itself, on other rows: the most that the others can reach."""
    batch = resolved.chain()[0].stage.batch
    sketches = {}
    for name, examples in resolved.examples.items():
        plan, _ = loader.make_plan(
            {name: examples},
            {name: Share(fraction=1.0)},
            batch,
            {},
            epochs=1,
            budget=None,
            unit="tokens",
            steps=None,
            seed=resolved.experiment.seed,
        )
        every = loader.batches(plan, LoaderConfig(), 0, min(2 * batches, plan.num_steps))
        sketches[name] = sketcher(params, itertools.islice(every, batches))
        again = sketcher(params, every)
        if again:
            sketches[f"{name} again"] = again
    found = gradients.cosines(sketches)
    return {pair: groups for pair, groups in found.items() if "again" not in pair or _is_itself(pair)}


def _is_itself(pair: str) -> bool:
    first, second = pair.split(" · ")
    return second == f"{first} again"


def _map(resolved: Resolved, params: Params, layer: int, count: int) -> dict[str, Any]:
    """The first question of `count` rows of each domain, cut to a batch's length."""
    length = resolved.chain()[0].stage.batch.seq_len
    queries: list[list[int]] = []
    domains: list[str] = []
    for name, examples in resolved.examples.items():
        for index in mixture.shuffled(name, len(examples), resolved.experiment.seed)[-count:]:
            tokens, mask = examples.example(int(index), length)
            trained = np.flatnonzero(mask)
            if len(trained) and trained[0] > 0:
                queries.append(tokens[: trained[0]].tolist())
                domains.append(name)
    states = hidden.hidden_states(resolved.base.config, resolved.compute, jax.device_get(params), queries, layer)
    placed, silhouette = hidden.separation(states, domains, resolved.experiment.seed)
    return {"silhouette": silhouette, "domains": domains, "x": placed[:, 0].tolist(), "y": placed[:, 1].tolist()}
