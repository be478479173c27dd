"""The user's desk: configs and tasks are files, found by name or path, in the working directory first."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from sftmix_jax.machine import specs
from sftmix_jax.machine.errors import UserError, did_you_mean, text_of

_PACKAGED = Path(__file__).parent  # an installed wheel carries a copy of configs/ and eval/ here
_CHECKOUT = _PACKAGED.parent.parent


def _folders(kind: str) -> list[Path]:
    return [Path(kind), _PACKAGED / kind, _CHECKOUT / kind]


def listed(kind: str) -> list[str]:
    """Names of the files of a kind (configs, eval) that can be found."""
    return sorted(
        {
            str(file.relative_to(folder))
            for folder in _folders(kind)
            if folder.is_dir()
            for file in folder.rglob("*.py")
            if file.name != "__init__.py"
        }
    )


def find(kind: str, name: str) -> Path:
    """The file `name` (its .py may be left out) as a path, then in the desk. Raises UserError."""
    given = os.path.expanduser(name)
    for candidate in (given, f"{given}.py"):
        for folder in (Path(), *_folders(kind)):
            if (folder / candidate).is_file():
                return folder / candidate
    raise UserError(f"no file '{name}' here or in {kind}/; {did_you_mean(name, listed(kind))}")


def load(file: Path, kind: str) -> ModuleType:
    """The module of a config or task file. Raises UserError, with the line, for whatever its code raises."""
    name = f"sftmix_{kind}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if not spec or not spec.loader:
        raise UserError(f"{file}: is no Python file; give it a name that ends in .py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    with _explained(file, ""):
        spec.loader.exec_module(module)
    return module


def configured(spec: str, kind: str) -> Any:
    """What `get_config` of a config file returns for `FILE[:ARGUMENTS]`. Raises UserError.

    The file is looked for as it is, then in the desk's configs. ARGUMENTS are those of get_config
    (sftmix_jax.machine.specs).
    """
    name, _, text = spec.partition(":")
    file = find("configs", name)
    get_config = _get_config(file, kind)
    given = specs.read(str(file), text, specs.readers(get_config))
    with _explained(file, f" or the '{text}' behind the colon" if text else ""):
        return get_config(**given)


def arguments(spec: str, kind: str) -> list[str]:
    """The arguments of a config file with their defaults, as `k=1/256`. Raises UserError."""
    return specs.described(_get_config(find("configs", spec.partition(":")[0]), kind))


def _get_config(file: Path, kind: str) -> Callable[..., Any]:
    get_config = getattr(load(file, kind), "get_config", None)
    if not callable(get_config):
        raise UserError(f"{file}: has no function get_config")
    return get_config


@contextlib.contextmanager
def _explained(file: Path, suspect: str) -> Iterator[None]:
    """Raises UserError with the last line of the file that an exception passed through; `suspect`: what else may be
    at fault."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a config that ends the program must not look like a finished run
        frames, own = traceback.extract_tb(error.__traceback__), file.resolve()
        place, line = file, next((f.lineno for f in reversed(frames) if Path(f.filename).resolve() == own), None)
        if isinstance(error, SyntaxError) and error.filename:
            place, line = Path(error.filename), error.lineno
        text = " ".join((error.msg if isinstance(error, SyntaxError) else text_of(error)).split())[:200]
        said = f"{type(error).__name__}: {text}" if text else type(error).__name__
        where = f"{place}:{line}" if line else str(place)
        raise UserError(f"{where}: {said}; correct the file{suspect}") from None
