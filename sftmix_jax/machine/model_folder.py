"""Model folders in Hugging Face's layout: found on a disk, in a bucket or on the hub, and read as data alone.

Python code in a model folder never runs, and pickled files in it are never loaded.
"""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import read_json

_FILES = ["*.json", "*.jinja", "tokenizer.model"]  # neither code nor pickles
_CONFIGS = ("config.json", "tokenizer_config.json")


def find(model: str, *, weights: bool = True) -> epath.Path:
    """A folder on a disk or in a bucket as it is; anything else is a hub id, fetched into the hub's cache.

    Raises UserError, also if the folder's configs name Python code.
    """
    folder = epath.Path(model).expanduser()
    if not folder.is_dir():
        folder = _fetched(model, [*_FILES, "*.safetensors"] if weights else _FILES)
    refuse_code(folder)
    return folder


def _fetched(model: str, files: list[str]) -> epath.Path:
    if model.startswith((".", "/", "~")) or "://" in model or model.count("/") != 1:
        raise UserError(f"no model folder {model}")
    from huggingface_hub import snapshot_download

    try:
        return epath.Path(snapshot_download(model, allow_patterns=files))
    except Exception as error:
        raise UserError(
            f"no model folder {model}, and the hub could not give it ({type(error).__name__}): "
            "check the name and the network, or name a local folder"
        ) from None


def refuse_code(folder: epath.Path) -> None:
    """Raises UserError if a model folder's configs name Python code for its model or tokenizer.

    Without that code transformers would read the same files as another model or tokenizer, in silence.
    """
    for file in (folder / name for name in _CONFIGS):
        if file.exists() and (auto_map := read_object(file).get("auto_map")):
            raise UserError(
                f"{file}: 'auto_map' names Python code for this model: {short(auto_map)}. Code in a model folder is "
                "never run. If the folder is complete without it, remove 'auto_map'; otherwise use another model"
            )


def read_object(file: epath.Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder. Raises UserError."""
    return read_json(file, "download it again")


def short(value: Any) -> str:
    """A value of a JSON file, for one line of a message."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
