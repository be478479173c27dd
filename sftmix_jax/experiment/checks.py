"""What would keep a stage of an experiment from being trained, found before any of them is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import jax

from sftmix_jax.data import loader, mixture
from sftmix_jax.data.loader import Plan
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import decoder
from sftmix_jax.models.lora import LoraConfig
from sftmix_jax.training import optimizer

if TYPE_CHECKING:
    from sftmix_jax.experiment.config import ModelConfig, Stage
    from sftmix_jax.experiment.stages import Resolved, ResolvedStage


def check(resolved: Resolved, stages: Iterable[ResolvedStage]) -> None:
    """Raise one UserError with every fault of every stage: its data, its optimizer, its batch over the processes."""
    faults = [f"stage '{stage.name}': {fault}" for stage in stages for fault in _faults(resolved, stage)]
    if faults:
        raise UserError("\n".join(faults))


def warnings(resolved: Resolved, stages: Iterable[ResolvedStage]) -> list[str]:
    """What can be trained and is rarely meant: another tokenizer, shares that miss their weight or are cut off, …"""
    own, used = resolved.base.own_tokenizer, resolved.tokenizer
    found = [_tokenizer_warning(used, own)] if own not in ("", used.path) else []
    found.append(_adapter_warning(resolved.experiment.model))
    for stage in stages:
        config = stage.stage
        if any(share.weight is not None for share in config.mixture.values()):
            order, pools = loader.make_order(
                resolved.examples, config.mixture, config.batch, **resolved.amounts(config)
            )
            missed = mixture.missed(order, pools, config.mixture, config.unit)
            found += [f"stage '{stage.name}': {each}" for each in missed]
        if not config.steps and config.optimizer.warmup < 1:
            continue  # nothing below depends on a plan
        plan, pools = resolved.plan(config)
        steps = config.steps or plan.num_steps
        warmup = optimizer.warmup_steps(config.optimizer, steps)
        said = [_cut_off(plan, plan.rows_account(pools, resolved.experiment.seed), config)] if config.steps else []
        if warmup >= steps:
            said.append(
                f"optimizer.warmup={warmup} is not shorter than the stage's {steps:,} steps: the learning rate "
                "rises up to the last step"
            )
        found += [f"stage '{stage.name}': {each}" for each in said if each]
    return [each for each in found if each]


def _adapter_warning(model: ModelConfig) -> str:
    is_set = dataclasses.replace(model.lora, targets=tuple(model.lora.targets)) != LoraConfig()
    if model.lora.rank or not is_set:
        return ""
    what = f"the parameters {', '.join(model.trainable)} are" if model.trainable else "every parameter is"
    return f"model.lora is set but for its rank, which is 0: there are no adapters, {what} trained"


def _tokenizer_warning(used: Tokenizer, own: str) -> str:
    try:
        difference = used.difference(Tokenizer(own))
    except UserError:  # the model folder has none
        return ""
    return difference and (
        f"model.tokenizer={used.path} is not the tokenizer that the base was trained with ({own}): {difference}; "
        "leave model.tokenizer out unless the embeddings are to be learned anew"
    )


def _cut_off(plan: Plan, rows: dict[str, Any], stage: Stage) -> str:
    """The domains that `steps` ends before: of exact shares less than half of the rows, of others none."""
    cut, weighted = [], any(share.weight is not None for share in stage.mixture.values())
    for domain in stage.mixture:
        wanted, used = plan.order.selected[domain], rows[domain]["used"]
        if used == 0 or (not weighted and used < wanted / 2):
            of = "rows" if weighted else f"{wanted:,} rows"
            cut.append(f"{used or 'none'} of the {of} of {domain}")
    if not cut:
        return ""
    without = ", or set it to 0 to take all" if stage.budget or not weighted else ""
    return f"steps={stage.steps} takes {', '.join(cut)}; raise steps{without}"


def _faults(resolved: Resolved, stage: ResolvedStage) -> list[str]:
    config = stage.stage
    faults = [_data_fault(resolved, stage, domain) for domain in config.mixture]
    checks: list[Callable[[], Any]] = [
        lambda: optimizer.check(config.optimizer, config.steps or 1),
        lambda: loader.process_part(config.batch.batch_size, jax.process_index(), jax.process_count()),
        lambda: _check_carried(resolved, stage),
    ]
    if any(faults):
        faults.append(_replay_fault(resolved, stage))
    else:  # all of the plan but the packing, which cannot fail
        checks.append(
            lambda: loader.make_order(resolved.examples, config.mixture, config.batch, **resolved.amounts(config))
        )
    for each in checks:
        try:
            each()
        except UserError as error:
            faults.append(str(error))
    return [fault for fault in faults if fault]


def _data_fault(resolved: Resolved, stage: ResolvedStage, domain: str) -> str:
    """Why a stage cannot have its share of a domain, and what would work; empty if it can."""
    batch, examples = stage.stage.batch, resolved.examples[domain]
    validation_rows = resolved.experiment.domains[domain].validation_rows
    try:
        pool = loader.pool(examples, batch, validation_rows)
        mixture.selected(domain, pool, stage.stage.mixture[domain], resolved.experiment.seed)
    except UserError as error:
        if loader.pool(examples, batch, 0).trained.any():
            return f"{domain}: {error}"
        needed, longest = loader.shortest_length(examples, batch), resolved.base.config.max_length
        remedy = "no length keeps one" if needed is None else f"the shortest length that keeps one is {needed}"
        if needed and needed > longest:
            remedy += f", and the model was made for {longest}"
        return f"{domain}: no row has a trained token within batch.seq_len={batch.seq_len}; {remedy}"
    return ""


def _replay_fault(resolved: Resolved, stage: ResolvedStage) -> str:
    """The smallest k for a stage whose shares are a part k, too small, of what an earlier stage took."""
    small: dict[str, tuple[float, int]] = {}  # domain → k, and the rows that it is a part of
    for domain, share in stage.stage.mixture.items():
        earlier = stage.parent
        while earlier is not None and domain not in earlier.stage.mixture:
            earlier = earlier.parent
        before = earlier.stage.mixture[domain].fraction if earlier else None
        if not (share.fraction and before):
            continue
        rows, stored = mixture.rows_of(before, len(resolved.examples[domain])), len(resolved.examples[domain])
        if rows and not mixture.rows_of(share.fraction, stored):
            small[domain] = (share.fraction / before, rows)
    if not small:
        return ""
    listed = ", ".join(f"k={mixture.as_ratio(k)} of {rows} rows of {domain}" for domain, (k, rows) in small.items())
    fewest = min(rows for _, rows in small.values())
    return (
        f"the replay of an earlier stage is no row at all ({listed}); the smallest k that works is 1/{fewest}, as in "
        f"--config FILE.py:1/{fewest} for a config that takes k"
    )


def _check_carried(resolved: Resolved, stage: ResolvedStage) -> None:
    """Raise UserError if the optimizer cannot go on with the state of the stage before."""
    if not stage.stage.carry_optimizer or stage.parent is None:
        return
    _, whole, _ = decoder.build(resolved.tuning.architecture, resolved.compute)
    params = resolved.tuning.trainable.split(whole)[0]
    before, own = (
        jax.eval_shape(optimizer.make_optimizer(each.optimizer).init, params)
        for each in (stage.parent.stage, stage.stage)
    )
    if jax.tree_util.tree_leaves_with_path(before) != jax.tree_util.tree_leaves_with_path(own):
        raise UserError(
            f"carry_optimizer: the optimizer of stage '{stage.parent.name}' keeps another state; give both stages the "
            "same optimizer.name and options, and clip_norm=0 to both or to none, or set carry_optimizer=False"
        )
