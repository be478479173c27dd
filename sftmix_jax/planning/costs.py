"""Steps, tokens and operations of an experiment's stages; counted where the data is here, else expected."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from sftmix_jax.data import readers
from sftmix_jax.data.mixture import rows_of
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment import tuning
from sftmix_jax.experiment.config import Experiment, Stage
from sftmix_jax.experiment.stages import Resolved, find_base
from sftmix_jax.experiment.tuning import Tuning
from sftmix_jax.machine import identity, model_folder
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import families, hf_config
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.planning import flops

_FILL = 0.97  # of a packed row that holds tokens, as best-fit packing gives on real rows


@dataclasses.dataclass(frozen=True)
class StageCost:
    """One stage of one experiment."""

    name: str
    key: str  # stages of the same key are the same training
    steps: int
    tokens: int
    flops: float
    expected: bool  # from the sources' expected sizes, as the data is not here


def architecture(experiment: Experiment) -> Architecture:
    """The model's, without its weights: from its folder, or from the published ones, so that a model's cost is known
    before it is fetched. Raises UserError."""
    kind, _, name = experiment.model.init.partition(":")
    is_here = Path(name).expanduser().exists()
    if kind == "hf" and name in families.PUBLISHED and not is_here:
        return families.preset(families.PUBLISHED[name])
    if kind == "hf" and not is_here:
        return hf_config.read(model_folder.find(name, weights=False))
    if kind == "scratch":
        return families.preset(name)
    return find_base(experiment.model.init, experiment.model.tokenizer, experiment.seed).config


def stage_costs(experiment: Experiment) -> list[StageCost]:
    """Each stage's. Raises UserError where a source is neither here nor has an expected size."""
    config = architecture(experiment)
    if all(_is_here(experiment.domains[d]) for stage in experiment.stages.values() for d in stage.mixture):
        return _counted(experiment)
    how = tuning.of_config(experiment.model, config)
    model = experiment.model
    costs, parent = (
        [],
        identity.digest({"init": model.init, "tokenizer": model.tokenizer, "dtype": model.compute.dtype, **how.record}),
    )
    for name, stage in experiment.stages.items():
        parent = identity.digest(
            {
                "parent": parent,
                "stage": stage,
                "template": experiment.template,
                "seed": experiment.seed,
                "sources": {domain: experiment.domains[domain] for domain in stage.mixture},
            }
        )
        expected, steps = _expected(experiment, name, stage, config)
        length = stage.batch.resolved(config.max_length).seq_len
        costs.append(StageCost(name, parent, steps, expected, expected * operations_per_token(how, length), True))
    return costs


def operations_per_token(how: Tuning, length: float) -> float:
    """Floating-point operations of a trained token."""
    return flops.training_per_token(how.architecture, length, how.num_trained(multiplied=True))


def _counted(experiment: Experiment) -> list[StageCost]:
    resolved, costs = Resolved(experiment), []
    for stage in resolved.chain():
        plan, _ = resolved.plan(stage.stage)
        steps = stage.stage.steps or plan.num_steps
        tokens = int(sum(account["tokens"] for account in plan.ledger(steps).values()))
        operations = tokens * operations_per_token(resolved.tuning, stage.stage.batch.seq_len)
        costs.append(StageCost(stage.name, stage.id, steps, tokens, operations, False))
    return costs


def _expected(experiment: Experiment, name: str, stage: Stage, config: Architecture) -> tuple[int, int]:
    """Tokens and steps from the sources' expected sizes."""
    length = stage.batch.resolved(config.max_length).seq_len
    tokens = 0.0
    for domain, share in stage.mixture.items():
        source = experiment.domains[domain]
        if not (source.expected_rows and source.expected_tokens):
            raise UserError(
                f"config.domains.{domain}: {source.path} is not here; set expected_rows and expected_tokens to see "
                "what it would cost"
            )
        if share.weight is not None:
            continue
        rows = share.count if share.count is not None else rows_of(share.fraction or 0.0, source.expected_rows)
        tokens += rows * min(source.expected_tokens, length) * stage.epochs
    if stage.budget:
        tokens = float(stage.budget)
    steps = stage.steps or max(1, math.ceil(tokens / (stage.batch.batch_size * length * _FILL)))
    return int(tokens), steps


def _is_here(source: Source) -> bool:
    if source.path.startswith("tiny:"):
        return True
    if source.path.startswith(("hf:", "tfds:")) or "://" in source.path:
        return not source.expected_rows  # without an expectation only the data can tell
    try:
        return bool(readers.files(source.path))
    except UserError:
        return False


def distinct(costs: Iterable[Sequence[StageCost]]) -> dict[str, StageCost]:
    """Stages that are really trained, by key."""
    return {cost.key: cost for chain in costs for cost in chain}
