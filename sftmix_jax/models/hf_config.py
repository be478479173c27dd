"""config.json and generation_config.json of a Hugging Face model folder, read and written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from etils import epath

from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.model_folder import read_object, short
from sftmix_jax.models import rope
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.families import FAMILIES
from sftmix_jax.models.families.family import Family, shared_fields
from sftmix_jax.models.fields import SIZES, Fields, is_int

_CONFIG, _GENERATION = "config.json", "generation_config.json"
_NO_PAD = -1  # the pad_token_id of the first LLaMA folders, which have no such token


class Ends(NamedTuple):
    """What ends an answer: token ids, and strings for ends that are no single token."""

    ids: tuple[int, ...] = ()
    strings: tuple[str, ...] = ()

    def behind(self, ids: Iterable[int], strings: Iterable[str]) -> Ends:
        """These ends behind those of a chat template, each once."""
        return Ends(tuple(dict.fromkeys([*ids, *self.ids])), tuple(dict.fromkeys([*strings, *self.strings])))


NO_ENDS = Ends()


def read(folder: epath.Path) -> Architecture:
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


def _token_ids(record: dict[str, Any], name: str, file: epath.Path, vocab_size: int = SIZES.stop) -> list[int]:
    """The token ids of a field: none, one, or a list. Raises UserError for all else, and for ids of no token."""
    ids = _as_list(record.get(name))
    if not all(is_int(token) and 0 <= token < vocab_size for token in ids):
        below = f" below {vocab_size}, the vocab_size of config.json" if vocab_size < SIZES.stop else ""
        raise UserError(f"{file}: {name} is {short(record[name])}; must be a token id or a list of token ids{below}")
    return ids


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


# Fields that do not decide what the model computes.
_HARMLESS = frozenset(
    """
    architectures model_type torch_dtype dtype transformers_version use_cache initializer_range name_or_path
    pretraining_tp attention_dropout residual_dropout resid_pdrop embd_pdrop hidden_dropout cache_implementation
    bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id tokenizer_class prefix
    quantization_config max_length min_length do_sample num_beams temperature top_k top_p typical_p repetition_penalty
    length_penalty num_return_sequences chunk_size_feed_forward is_decoder is_encoder_decoder return_dict id2label
    label2id finetuning_task problem_type task_specific_params output_attentions output_hidden_states
    early_stopping num_beam_groups diversity_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    forced_bos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens exponential_decay_length_penalty
    is_llama_config transformers.js_config unsloth_version unsloth_fixed sftmix_jax
""".split()
)
_HARMLESS_PREFIX = "_"  # _name_or_path, _attn_implementation


def parse(hf: dict[str, Any], where: str) -> Architecture:
    """Reads a config.json. Raises UserError, with the field's name, for all that is not supported."""
    family = _family(hf, where)
    if quantization := hf.get("quantization_config"):
        raise UserError(
            f"{where}: quantization_config is {short(quantization)}, so the weights are quantised; only plain float "
            "weights can be read: use the model that this one was made from"
        )
    fields = Fields(hf, where)
    config = family.read(fields)
    unknown = [name for name in fields.left() if name not in _HARMLESS and not name.startswith(_HARMLESS_PREFIX)]
    if unknown:
        raise UserError(
            f"{where}: the field '{unknown[0]}' is not known in a {family.name} model; delete it from the file if it "
            "does not change what the model computes"
        )
    if config.num_heads % config.num_kv_heads:
        raise UserError(
            f"{where}: num_attention_heads is {config.num_heads}, num_key_value_heads {config.num_kv_heads}; "
            "the second must divide the first"
        )
    for rotated in {rope.rotated(kind.rope, config.head_dim) for kind in config.pattern if kind.rope}:
        if rotated % 2 or not rotated:
            raise UserError(f"{where}: head_dim is {config.head_dim}, of which {rotated} are rotated; must be even")
    return config


def _family(hf: dict[str, Any], where: str) -> Family:
    """The family that a file states: transformers goes by model_type; `architectures` must say the same."""
    classes = {family.class_name: family for family in FAMILIES.values()} | {"LLaMAForCausalLM": FAMILIES["llama"]}
    stated = hf.get("architectures") or []
    if not isinstance(stated, list):
        raise UserError(f"{where}: architectures {short(stated)}; must be a list of names")
    if any(not isinstance(name, str) or name not in {*classes, *FAMILIES} for name in stated) or len(stated) > 1:
        raise UserError(f"{where}: architecture {short(stated)} is not supported, only {', '.join(sorted(classes))}")
    by_class = (classes.get(stated[0]) or FAMILIES[stated[0]]) if stated else None
    kind = hf.get("model_type") or (by_class.name if by_class else None)
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError(f"{where}: model_type is {short(kind)}; supported are {', '.join(sorted(FAMILIES))}")
    if by_class and by_class is not FAMILIES[kind]:
        raise UserError(f"{where}: model_type is {short(kind)}, architectures {short(stated)}; must be one model")
    return FAMILIES[kind]


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


def fields(config: Architecture, special: Special, dtype: str) -> dict[str, Any]:
    """The config.json that transformers reads."""
    family = FAMILIES[config.family]
    return {
        "architectures": [family.class_name],
        **shared_fields(config),
        **family.write(config),
        **special.fields(),
        "torch_dtype": dtype,
    }
