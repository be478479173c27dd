"""The families of models that can be trained, one file each."""

from __future__ import annotations

from collections.abc import Mapping

from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.models import table
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.families import (
    exaone4,
    gemma2,
    gemma3,
    glm4,
    granite,
    llama,
    mistral,
    olmo2,
    olmo3,
    phi3,
    qwen2,
    qwen3,
    seed_oss,
    smollm3,
)
from sftmix_jax.models.families.family import Family
from sftmix_jax.models.table import Param

_ALL = (
    llama,
    mistral,
    qwen2,
    qwen3,
    gemma2,
    gemma3,
    olmo2,
    olmo3,
    smollm3,
    granite,
    phi3,
    glm4,
    seed_oss,
    exaone4,
)
FAMILIES: Mapping[str, Family] = {module.FAMILY.name: module.FAMILY for module in _ALL}
PRESETS: Mapping[str, Architecture] = {
    name: architecture for family in FAMILIES.values() for name, architecture in family.presets.items()
}
PUBLISHED: Mapping[str, str] = {hub: name for family in FAMILIES.values() for hub, name in family.published.items()}


def preset(name: str) -> Architecture:
    """A published architecture by name. Raises UserError."""
    if name not in PRESETS:
        raise UserError(f"no preset '{name}'; {did_you_mean(name, PRESETS)}")
    return PRESETS[name]


def parameters(architecture: Architecture) -> tuple[Param, ...]:
    """The table of an architecture, with the Hugging Face names of its family."""
    return table.parameters(architecture, FAMILIES[architecture.family].names)
