"""Packages beside the standard library that answers and tests can import: those of human-eval, EvalPlus and bigcode.

They are loaded once, before the first fork, so that no run waits for them. Nothing else of the environment is on the
path, and where the root wall stands it is not there at all: a score does not depend on what else is installed.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

_LOADED = {"numpy": ("testing", "random", "linalg", "fft", "polynomial", "ma")}  # parts that load lazily
_places: dict[str, str] = {}


def load(places: Mapping[str, str]) -> None:
    """Make the packages importable and import them; `places`: package → the folder that holds it."""
    _places.update(places)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads do not live through a fork
    sys.meta_path.append(_Finder())  # type: ignore[arg-type]
    for name in places:
        for part in ("", *_LOADED.get(name, ())):
            importlib.import_module(f"{name}.{part}" if part else name)


def folders() -> list[str]:
    """What of the file system the packages read."""
    every = [f"{folder}/{name}{own}" for name, folder in _places.items() for own in ("", ".libs")]
    return [folder for folder in every if os.path.isdir(folder)]


class _Finder:
    """Finds these packages where they are, and nothing beside them."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | Any:
        return importlib.machinery.PathFinder.find_spec(name, [_places[name]], target) if name in _places else None
