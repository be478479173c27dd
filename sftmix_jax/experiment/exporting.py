"""Writes a stage as a model folder for transformers and vLLM, instead of an older export or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from etils import epath

from sftmix_jax.data.chat import Chat
from sftmix_jax.experiment import tuning
from sftmix_jax.experiment.opening import one_stage, stage_chat
from sftmix_jax.experiment.stages import (
    Base,
    architecture,
    base_below,
    check_tokenizer,
    merged_before,
    on_one_device,
    read_stage,
    stage_params,
    trained_params,
)
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import check_folder, check_out, is_litter, is_remote, read_json, write_json
from sftmix_jax.models import huggingface, peft
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.decoder import Params
from sftmix_jax.models.hf_config import Ends, Special
from sftmix_jax.parallel import sharding

_ORIGIN = "sftmix_jax"  # the field of config.json that marks an export
_ADAPTER = "sftmix_jax.json"  # marks the export of an adapter, whose config has no room for other fields


def export(workdir: epath.Path, stage: str, target: str, dtype: str) -> tuple[epath.Path, Ends]:
    """Writes a finished stage, by name or id → the stage's folder, and what ends a turn. Raises UserError."""
    out, folder, record = _to_write(workdir, stage, target)
    config, chat = architecture(record), stage_chat(folder, record)
    # A float32 model has room on the host that has none on the accelerator where its adapter was trained.
    params = jax.device_get(stage_params(folder, on_one_device(config, sharding.host())))
    with _explained(out):
        return folder, write(out, config, params, chat, Ends(**record["ends"]), dtype=dtype, origin=_origin(record))


def export_adapter(workdir: epath.Path, stage: str, target: str) -> epath.Path:
    """Writes the adapter of a finished stage for PEFT → the stage's folder. Raises UserError."""
    out, folder, record = _to_write(workdir, stage, target)
    config = architecture(record)
    how = tuning.of_record(record, config)
    remedy = "leave --adapter out, and the merged model is written"
    if how.lora is None:
        raise UserError(f"{folder.name} was trained without adapters; {remedy}")
    if how.names:
        raise UserError(f"{folder.name} has trained weights beside its adapter ({', '.join(how.names)}); {remedy}")
    if merged := merged_before(folder, record):
        raise UserError(f"the adapter of {folder.name} stands on the merged weights of {merged}; {remedy}")
    init, base = base_below(folder, record)
    if init.startswith(("stage:", "scratch:")):
        raise UserError(f"the adapter of {folder.name} stands on {init}, onto which PEFT cannot load it; {remedy}")
    chat = stage_chat(folder, record)
    params = jax.device_get(trained_params(folder, how.abstract_trained(on_one_device(config, sharding.host()))))
    with _explained(out), _replaced(out) as new:
        chat.save(new)
        peft.save(new, config, how.lora, params, _for_peft(init, base))
        write_json(new / _ADAPTER, _origin(record))
    return folder


def _to_write(workdir: epath.Path, stage: str, target: str) -> tuple[epath.Path, epath.Path, dict[str, Any]]:
    """The folder to write, the stage's folder and its record. Raises UserError for either, before a weight is read."""
    out = epath.Path(target).expanduser()
    with _explained(out):
        check_replaceable(out)
        check_out(out, replaced=True)
    folder = one_stage(workdir, stage)
    record = read_stage(folder)
    if record["name"] == "base":
        raise UserError("the base is a model folder already")
    check_tokenizer(folder)
    return out, folder, record


def _for_peft(init: str, base: Base) -> str:
    """A base as PEFT finds it from any working directory: its hub id, or its folder."""
    name = init.removeprefix("hf:")
    is_folder = init == "tiny" or epath.Path(name).expanduser().is_dir()
    return os.path.abspath(base.folder) if is_folder and "://" not in base.folder else name


def _origin(record: Mapping[str, Any]) -> dict[str, Any]:
    """What an export says of the stage that it is of."""
    return {"stage": record["name"], "id": record["id"]}


def write(
    out: epath.Path,
    config: Architecture,
    params: Params,
    chat: Chat,
    ends: Ends,
    *,
    dtype: str = "float32",
    origin: Mapping[str, Any],
) -> Ends:
    """Writes a model with its chat template to a folder, instead of an older export there. Returns what ends a turn.

    `ends`: what ends an answer besides the template's end of turn. Raises UserError.
    """
    ends = ends.behind(*chat.stops())
    special = Special(chat.tokenizer.bos_id, ends, chat.tokenizer.pad_id)
    check_replaceable(out)
    with _replaced(out) as folder:
        chat.save(folder)
        huggingface.save(folder, config, params, special, dtype=dtype, origin={_ORIGIN: dict(origin)})
    return ends


def check_replaceable(out: epath.Path) -> None:
    """Raises UserError if there is something at `out` that is neither an export nor an empty folder."""
    check_folder(out)
    if not out.exists():
        return
    names = sorted(path.name for path in out.iterdir() if not is_litter(path.name))
    if not names:
        return
    remedy = "choose another --out, or remove the folder yourself"
    is_adapter = _ADAPTER in names
    if not is_adapter and ("config.json" not in names or _ORIGIN not in read_json(out / "config.json", remedy)):
        raise UserError(f"{out}: holds {names[0]} and is no export of this package, so it is not replaced; {remedy}")
    if foreign := [name for name in names if not _is_exported(name)]:
        raise UserError(f"{out}: holds {foreign[0]}, which no export wrote, so it is not replaced; {remedy}")


@contextlib.contextmanager
def _explained(out: epath.Path) -> Iterator[None]:
    """Raises UserError instead of an OSError of the target; a full disk or quota is left to `machine.command`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = error.strerror or type(error).__name__
        raise UserError(f"{out}: cannot be written ({reason}); choose another --out") from None


def _is_exported(name: str) -> bool:
    """True for the name of a file that an export writes."""
    stem, _, suffix = name.partition(".")
    match suffix:
        case "json" | "jinja":
            return stem in (
                "config",
                "generation_config",
                "tokenizer",
                "tokenizer_config",
                "special_tokens_map",
                "added_tokens",
                "chat_template",
                "adapter_config",
                "sftmix_jax",
            )
        case "safetensors" | "safetensors.index.json":
            return stem in ("model", "adapter_model") or stem.startswith("model-")
        case _:
            return name == "tokenizer.model"


@contextlib.contextmanager
def _replaced(out: epath.Path) -> Iterator[epath.Path]:
    """A new folder to write to; it takes the place of `out` if nothing is raised."""
    if is_remote(out):
        old = sorted(out.iterdir(), key=lambda path: path.name != "config.json") if out.exists() else []
        for path in old:
            path.unlink()
        yield out
        return
    target = Path(out).resolve()
    new, old_one = (target.with_name(f".{target.name}.{state}") for state in ("partial", "replaced"))
    if old_one.exists() and not target.exists():  # a process ended between the two renames
        old_one.rename(target)
    for left in (new, old_one):
        shutil.rmtree(left, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        yield epath.Path(new)
        for file in new.iterdir():
            _sync(file)
        _swap(new, target, old_one)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old_one, ignore_errors=True)


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _swap(new: Path, target: Path, old: Path) -> None:
    """Renames `new` to `target`, and what was there to `old`."""
    try:
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        raise UserError(f"{target}: is a mount point, which cannot be replaced; name a folder in it") from None
