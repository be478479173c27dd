"""Adapters in PEFT's layout: the parameter table's A and B by the names of the weights that they stand beside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from sftmix_jax.models import families, huggingface, layout, table
from sftmix_jax.models.architecture import Architecture, Lora
from sftmix_jax.models.decoder import Params

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save(folder: epath.Path, config: Architecture, lora: Lora, params: Params, base: str) -> None:
    """Writes an adapter that `peft` loads onto the base; `config` is the base's, `params` hold A and B (host arrays).

    Weights that lie in one tensor of the base, as phi3's q, k and v do, have one adapter there, of all their ranks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = [parts for parts in layout.stored(families.parameters(config)).values() if _targets(parts, lora)]
    tensors: dict[str, np.ndarray] = {}
    for parts in groups:
        for i in range(config.num_layers):
            for side, tensor in zip("AB", _pair(parts, lora, params, i), strict=True):
                name = f"base_model.model.{_module(parts).format(i)}.lora_{side}.weight"
                tensors[name] = np.ascontiguousarray(tensor)  # the package writes a view's memory as it lies
    huggingface.save_file(tensors, folder / WEIGHTS)
    modules = {_module(parts).rpartition(".")[2]: len(_targets(parts, lora)) for parts in groups}
    shared = {module: count for module, count in modules.items() if count > 1}
    record: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "rank_pattern": {module: count * lora.rank for module, count in shared.items()},
        "alpha_pattern": {module: count * lora.alpha for module, count in shared.items()},
        "target_modules": sorted(modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(record, indent=1))


def _targets(parts: list[table.Param], lora: Lora) -> list[table.Param]:
    return [param for param in parts if param.name in lora.targets]


def _module(parts: list[table.Param]) -> str:
    return parts[0].stored.removesuffix(".weight")


def _pair(parts: list[table.Param], lora: Lora, params: Params, layer: int) -> Iterator[np.ndarray]:
    """A [ranks, inputs] and B [outputs, ranks] of one layer's tensor, float32."""
    targets = _targets(parts, lora)
    owned = {param.name: table.adapters(param, lora) for param in targets}
    sides = {
        param.name: [np.asarray(params["layers"][own.name][layer], np.float32) for own in owned[param.name]]
        for param in targets
    }
    yield np.concatenate([layout.to_theirs([owned[p.name][0]], [sides[p.name][0]]) for p in targets])
    b = np.zeros((layout.stored_shape(parts)[0], len(targets) * lora.rank), np.float32)
    for place in layout.places(parts):
        if place.param.name in owned:
            own = layout.to_theirs([owned[place.param.name][1]], [sides[place.param.name][1]])
            at = targets.index(place.param) * lora.rank
            b[place.first : place.first + len(own), at : at + lora.rank] = own
    yield b
