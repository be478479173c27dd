"""Rotary positions as config.json states them, read and written.

transformers 5 writes rope_parameters, earlier versions rope_theta and rope_scaling; it reads all of them.
"""

from __future__ import annotations

import math
from typing import Any

from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.model_folder import short
from sftmix_jax.models.architecture import Rope
from sftmix_jax.models.fields import Fields

_KINDS = ("default", "linear", "llama3", "yarn")
_ORIGINAL = "original_max_position_embeddings"
_PART = "partial_rotary_factor"


def read(fields: Fields, *, theta: float = 1e4, part: float | None = None) -> Rope:
    """The rotation of all layers; `theta` and `part` where the file does not say them. Raises UserError.

    `part` None: transformers rotates whole heads in this family, so nothing else may stand in the file.
    """
    scaling, parameters = fields.object("rope_scaling"), fields.object("rope_parameters")
    record = scaling or parameters  # the order of transformers
    if nested := [name for name, value in record.items() if isinstance(value, dict)]:
        raise UserError(
            f"{fields.where}: rope_parameters has {nested[0]}; only one rotation for all layers is supported"
        )
    if part is None:
        for place in (fields, Fields(record, f"{fields.where}: rope scaling")):
            place.only(_PART, 1.0)
    return _read(record, fields, fields.number("rope_theta", theta), fields.number(_PART, part or 1.0))


def read_by_type(fields: Fields, *, full: float, sliding: float, local_name: str = "rope_theta") -> tuple[Rope, Rope]:
    """The rotation of layers with full attention, which alone is stretched, and of those with a window.

    `full` and `sliding`: theta where the file does not say it; `local_name`: the field for the windowed layers' theta
    in files of earlier versions. Raises UserError.
    """
    parameters, scaling = fields.object("rope_parameters"), fields.object("rope_scaling")
    full, sliding = fields.number("rope_theta", full), fields.number(local_name, sliding)
    given = Fields(parameters, f"{fields.where}: rope_parameters")
    records = {**given.object("full_attention"), **scaling}, given.object("sliding_attention")
    if left := given.left():
        raise UserError(f"{given.where}: {left[0]} is not known; must hold full_attention and sliding_attention")
    return _read(records[0], fields, full, 1.0), _read(records[1], fields, sliding, 1.0)


def _read(record: dict[str, Any], outer: Fields, theta: float, part: float) -> Rope:
    fields = Fields(record, f"{outer.where}: rope scaling" if record else outer.where)
    kind = record.get("rope_type", record.get("type", "default"))
    fields.skip("rope_type", "type")
    if kind not in _KINDS:
        raise UserError(f"{outer.where}: rope scaling {short(kind)} is not supported, only {', '.join(_KINDS[1:])}")
    found: dict[str, Any] = {
        "theta": fields.number("rope_theta", theta),
        "part": fields.number(_PART, part),
        "kind": kind,
    }
    if kind != "default":
        found["factor"] = fields.number("factor")
    if kind in ("llama3", "yarn"):
        found["original_length"] = fields.size(_ORIGINAL, outer.size("max_position_embeddings", 2048))
    if kind == "llama3":
        found |= {name: fields.number(name) for name in ("low_freq_factor", "high_freq_factor")}
    if kind == "yarn":
        found |= {"beta_fast": fields.number("beta_fast", 32.0), "beta_slow": fields.number("beta_slow", 1.0)}
        found |= {"truncate": fields.flag("truncate", True), "magnitude": _yarn_magnitude(fields, found["factor"])}
    if kind == "default":
        fields.skip(_ORIGINAL)
    if left := fields.left():
        raise UserError(f"{fields.where}: {left[0]} is not known for rope_type {short(kind)}; delete it if unused")
    return Rope(**found)


def _yarn_magnitude(fields: Fields, factor: float) -> float:
    def grown(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

    if fields.has("mscale") and fields.has("mscale_all_dim"):
        derived = grown(fields.number("mscale")) / grown(fields.number("mscale_all_dim"))
    else:
        fields.skip("mscale", "mscale_all_dim")
        derived = grown(1.0)
    return fields.number("attention_factor", derived)


def write(rope: Rope) -> dict[str, Any]:
    """The fields of config.json, in the form that every version of transformers reads."""
    part = {_PART: rope.part} if rope.part != 1 else {}
    return {"rope_theta": rope.theta, "rope_scaling": scaling(rope), **part}


def write_by_type(full: Rope, sliding: Rope) -> dict[str, Any]:
    """The inverse of `read_by_type`, for transformers 5 and for earlier versions."""
    by_type = {
        name: {"rope_type": rope.kind, "rope_theta": rope.theta, **(scaling(rope) or {})}
        for name, rope in (("full_attention", full), ("sliding_attention", sliding))
    }
    return {**write(full), "rope_parameters": by_type}


def scaling(rope: Rope) -> dict[str, Any] | None:
    """The field rope_scaling; None for the default rotation."""
    fields: dict[str, Any] = {"rope_type": rope.kind, "factor": rope.factor}
    match rope.kind:
        case "default":
            return None
        case "linear":
            return fields
        case "llama3":
            return fields | {
                "low_freq_factor": rope.low_freq_factor,
                "high_freq_factor": rope.high_freq_factor,
                _ORIGINAL: rope.original_length,
            }
        case "yarn":
            return fields | {
                "beta_fast": rope.beta_fast,
                "beta_slow": rope.beta_slow,
                "truncate": rope.truncate,
                _ORIGINAL: rope.original_length,
                "attention_factor": rope.magnitude,
            }
        case "longrope":
            return {
                "rope_type": "longrope",
                "short_factor": list(rope.short_factors),
                "long_factor": list(rope.long_factors),
                "factor": rope.factor,
                "attention_factor": rope.magnitude,
                _ORIGINAL: rope.original_length,
            }
    raise ValueError(f"no rope kind {rope.kind!r}")
