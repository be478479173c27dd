"""The user's desk: configs and tasks are files, found by name or path, in the working directory first."""

from __future__ import annotations

from pathlib import Path

from sftmix_jax.errors import UserError, did_you_mean

_PACKAGED = Path(__file__).parent  # an installed wheel carries a copy of configs/ and eval/ here
_CHECKOUT = _PACKAGED.parent.parent


def _folders(kind: str) -> list[Path]:
    return [Path(kind), _PACKAGED / kind, _CHECKOUT / kind]


def listed(kind: str) -> list[str]:
    """Names of the files of a kind (configs, eval) that can be found."""
    return sorted({
        str(file.relative_to(folder)) for folder in _folders(kind) if folder.is_dir() for file in folder.rglob("*.py")
        if file.name != "__init__.py"
    })  # fmt: skip


def find(kind: str, name: str) -> Path:
    """The file `name` (its .py may be left out) as a path, then in the desk. Raises UserError."""
    for candidate in (name, f"{name}.py"):
        for folder in (Path(), *_folders(kind)):
            if (folder / candidate).is_file():
                return folder / candidate
    raise UserError(f"no file '{name}' here or in {kind}/; {did_you_mean(name, listed(kind))}")
