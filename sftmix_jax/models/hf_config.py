"""config.json and generation_config.json of a Hugging Face LLaMA, read and written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from etils import epath

from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.model_folder import read_object, short
from sftmix_jax.models.attention import RopeScaling
from sftmix_jax.models.llama import LlamaConfig

_CONFIG, _GENERATION = "config.json", "generation_config.json"
_SIZES = range(1, 1 << 31)
_NO_PAD = -1  # the pad_token_id of the first LLaMA folders, which have no such token


class Ends(NamedTuple):
    """What ends an answer: token ids, and strings for ends that are no single token."""

    ids: tuple[int, ...] = ()
    strings: tuple[str, ...] = ()

    def behind(self, ids: Iterable[int], strings: Iterable[str]) -> Ends:
        """These ends behind those of a chat template, each once."""
        return Ends(tuple(dict.fromkeys([*ids, *self.ids])), tuple(dict.fromkeys([*strings, *self.strings])))


NO_ENDS = Ends()


def read(folder: epath.Path) -> LlamaConfig:
    """The architecture that a model folder states. Raises UserError, also for special tokens out of its vocabulary."""
    file = folder / _CONFIG
    if not file.exists():
        raise UserError(f"{folder}: no config.json; a model folder holds config.json and *.safetensors")
    config = parse(read_object(file), str(file))
    for file in (folder / _CONFIG, folder / _GENERATION):
        record = read_object(file) if file.exists() else {}
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if name != "pad_token_id" or record.get(name) != _NO_PAD:
                _token_ids(record, name, file, config.vocab_size)
    return config


def read_ends(folder: epath.Path) -> Ends:
    """What ends an answer of a model folder: generation_config.json says it; config.json where there is no such file.

    The same precedence as in transformers. Raises UserError.
    """
    file = folder / _GENERATION
    if not file.exists():
        file = folder / _CONFIG
    record = read_object(file)
    ids, strings = _token_ids(record, "eos_token_id", file), _as_list(record.get("stop_strings"))
    if not all(isinstance(string, str) and string for string in strings):
        raise UserError(f"{file}: stop_strings is {short(strings)}; must be a string or a list of strings")
    return Ends(tuple(dict.fromkeys(ids)), tuple(dict.fromkeys(strings)))


def _token_ids(record: dict[str, Any], name: str, file: epath.Path, vocab_size: int = _SIZES.stop) -> list[int]:
    """The token ids of a field: none, one, or a list. Raises UserError for all else, and for ids of no token."""
    ids = _as_list(record.get(name))
    if not all(_is_int(token) and 0 <= token < vocab_size for token in ids):
        below = f" below {vocab_size}, the vocab_size of config.json" if vocab_size < _SIZES.stop else ""
        raise UserError(f"{file}: {name} is {short(record[name])}; must be a token id or a list of token ids{below}")
    return ids


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


class _Fields:
    """Typed access to the fields of a JSON object; a field of null counts as absent."""

    def __init__(self, record: dict[str, Any], where: str):
        self._record, self._where = record, where

    def _get(self, name: str, default: Any) -> Any:
        value = self._record.get(name)
        if value is None and default is None:
            raise UserError(f"{self._where}: the field '{name}' is missing")
        return default if value is None else value

    def size(self, name: str, default: int | None = None) -> int:
        value = self._get(name, default)
        if not _is_int(value) or value not in _SIZES:
            raise UserError(f"{self._where}: {name} is {short(value)}; must be a whole number from 1 to 2^31 - 1")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise UserError(f"{self._where}: {name} is {short(value)}; must be a positive number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise UserError(f"{self._where}: {name} is {short(value)}; must be true or false")
        return value

    def object(self, name: str) -> dict[str, Any]:
        value = self._get(name, {})
        if not isinstance(value, dict):
            raise UserError(f"{self._where}: {name} is {short(value)}; must be an object")
        return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# Fields whose other values would make another model.
_FIXED = {
    "model_type": "llama",  # transformers goes by it, whatever `architectures` says
    "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "partial_rotary_factor": 1.0,
}  # fmt: skip


def parse(hf: dict[str, Any], where: str) -> LlamaConfig:
    """Reads a config.json. Raises UserError, with the field's name, for anything but a plain LLaMA."""
    architectures = hf.get("architectures") or [hf.get("model_type", "?")]
    if not isinstance(architectures, list):
        raise UserError(f"{where}: architectures {short(architectures)}; must be a list of names")
    if architectures not in (["LlamaForCausalLM"], ["LLaMAForCausalLM"], ["llama"]):
        raise UserError(f"{where}: architecture {short(architectures)} is not supported, only LlamaForCausalLM")
    for name, wanted in _FIXED.items():
        if hf.get(name, wanted) != wanted:
            raise UserError(f"{where}: {name} is {short(hf[name])}; only {short(wanted)} is supported")
    if quantization := hf.get("quantization_config"):
        raise UserError(
            f"{where}: quantization_config is {short(quantization)}, so the weights are quantised; only plain float "
            "weights can be read: use the model that this one was made from"
        )
    fields = _Fields(hf, where)
    heads = fields.size("num_attention_heads")
    hidden = fields.size("hidden_size")
    # transformers 5 writes rope_parameters; earlier versions rope_theta and rope_scaling. It takes them in this order.
    rope = fields.object("rope_scaling") or fields.object("rope_parameters")
    if nested := [name for name, value in rope.items() if isinstance(value, dict)]:
        raise UserError(f"{where}: rope_parameters has {nested[0]}; only one rotation for all layers is supported")
    config = LlamaConfig(
        vocab_size=fields.size("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.size("intermediate_size"),
        num_layers=fields.size("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=fields.size("num_key_value_heads", heads),
        head_dim=fields.size("head_dim", hidden // heads or 1),
        max_length=fields.size("max_position_embeddings", 2048),
        rope_theta=_Fields(rope, f"{where}: rope_parameters").number("rope_theta", fields.number("rope_theta", 1e4)),
        rope_scaling=_scaling(rope, where),
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        tied=fields.flag("tie_word_embeddings", False),
    )
    if config.num_heads % config.num_kv_heads:
        raise UserError(
            f"{where}: num_attention_heads is {config.num_heads}, num_key_value_heads {config.num_kv_heads}; "
            "the second must divide the first"
        )
    if config.head_dim % 2:
        raise UserError(f"{where}: head_dim is {config.head_dim}; must be even")
    return config


def _scaling(scaling: dict[str, Any], where: str) -> RopeScaling | None:
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if scaling.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError(f"{where}: partial_rotary_factor {short(scaling['partial_rotary_factor'])} is not supported")
    if kind == "default":
        return None
    if kind != "llama3":
        raise UserError(f"{where}: rope scaling {short(kind)} is not supported, only llama3")
    fields = _Fields(scaling, f"{where}: rope scaling")
    return RopeScaling(
        fields.number("factor"),
        fields.number("low_freq_factor"),
        fields.number("high_freq_factor"),
        fields.size("original_max_position_embeddings"),
    )


class Special(NamedTuple):
    """The special token ids that a model folder states."""

    bos: int | None = None
    ends: Ends = NO_ENDS
    pad: int | None = None

    def fields(self) -> dict[str, Any]:
        """As config.json and generation_config.json state them."""
        ids = list(self.ends.ids)
        return {
            "bos_token_id": self.bos,
            "eos_token_id": ids[0] if len(ids) == 1 else ids or None,
            "pad_token_id": self.pad,
        }


def generation_fields(special: Special) -> dict[str, Any]:
    """The generation_config.json from which transformers and vLLM take what ends an answer.

    vLLM reads the ids alone. transformers reads `stop_strings` too, and its `generate` then asks for a tokenizer.
    """
    stated = {name: value for name, value in special.fields().items() if value is not None}
    return {**stated, **({"stop_strings": list(special.ends.strings)} if special.ends.strings else {})}


def fields(config: LlamaConfig, special: Special, dtype: str) -> dict[str, Any]:
    """The config.json that transformers reads."""
    scaling = config.rope_scaling
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_length,
        "rope_theta": config.rope_theta,
        "rope_scaling": None
        if scaling is None
        else {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position_embeddings,
        },
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        **special.fields(),
        "torch_dtype": dtype,
    }
