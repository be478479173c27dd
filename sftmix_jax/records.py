"""The JSON records of a workdir: the fields that each must have, and how a damaged one is made again."""

from __future__ import annotations

from typing import Any

from etils import epath

from sftmix_jax.files import read_json, read_lines

TRAIN_AGAIN = "run the same train command again, which writes what is missing or damaged"
_EVALUATE_AGAIN = "delete it and evaluate again, which asks only for what is missing"


def experiment(file: epath.Path) -> dict[str, Any]:
    """experiments/NAME.json: the resolved experiment and the ids of its base and stages. Raises UserError."""
    remedy = "delete it and run its train or study command again, which writes it anew"
    return read_json(file, remedy, experiment=dict, base=str, stages=dict)


def study(file: epath.Path) -> dict[str, Any]:
    """studies/NAME.json: its question and its experiments' labels. Raises UserError."""
    remedy = "delete it and run its study command again, which writes it anew"
    return read_json(file, remedy, name=str, question=str, hold=str, experiments=dict)


def stage(file: epath.Path) -> dict[str, Any]:
    """stage.json. Raises UserError."""
    return read_json(file, TRAIN_AGAIN, name=str, id=str, model=dict, template=str, tokenizer=str, dtype=str)


def done(file: epath.Path) -> dict[str, Any]:
    """done.json. Raises UserError."""
    return read_json(
        file, TRAIN_AGAIN, id=str, digest=str, steps=int, ledger=dict, rows=dict, held_out_loss=dict, params_sha256=str
    )  # fmt: skip


def score(file: epath.Path) -> dict[str, Any]:
    """eval/TASK/score.json. Raises UserError."""
    return read_json(file, _EVALUATE_AGAIN, task=str, metrics=dict, fixed_by=dict)


def responses(file: epath.Path) -> list[dict[str, Any]]:
    """eval/TASK/responses.jsonl, a question per line. Raises UserError."""
    return read_lines(file, _EVALUATE_AGAIN)


def contamination(file: epath.Path) -> dict[str, Any]:
    """contamination.json: by task what was looked for and found. Raises UserError."""
    return read_json(file, "evaluate again, which writes it anew")


def probe(file: epath.Path) -> dict[str, Any]:
    """probe.json. Raises UserError."""
    return read_json(file, "probe again, which writes it anew", settings=dict, cosines=dict, silhouette=dict)


def failure(file: epath.Path) -> dict[str, Any]:
    """failures/ID.json: what a study's worker could not do. Raises UserError."""
    return read_json(file, "delete it and run the study again", job=str, experiments=list, error=str)
