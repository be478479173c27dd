"""Files that are there whole or not at all, written by one process for all."""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from sftmix_jax import processes


def write_json(file: epath.Path, record: Any) -> None:
    """A reader sees the old record or the new one, never a part. Of many processes the first writes."""
    if not processes.is_first():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps(record, indent=1))
    partial.replace(file)
