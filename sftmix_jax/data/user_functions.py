"""The user's own functions, FILE.py:FUNCTION: loaded, and identified by all files that they come from."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sftmix_jax.errors import UserError, did_you_mean


def load(field: str, spec: str) -> Callable[..., Any]:
    """The function. Its file can import modules that stand beside it, as a script can.

    Raises UserError for a file or function that is not there, a file that fails, and an import that would not
    be taken from beside the file.
    """
    file, name = _parts(field, spec)
    _check_imports(field, file)
    module_name = f"sftmix_user_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    module_spec = importlib.util.spec_from_file_location(module_name, file)
    assert module_spec and module_spec.loader
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module  # dataclasses look their module up there
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{field} '{spec}': the file fails: {type(error).__name__}: {error}") from None
    if not callable(getattr(module, name, None)):
        raise UserError(f"{file}: has no function {name}; {did_you_mean(name, vars(module))}")
    return getattr(module, name)


def failure(field: str, error: Exception) -> str:
    """What to say of an exception that the function raised."""
    said = " ".join(str(error).split())[:100]
    return f"{field} raised {type(error).__name__}: {said if said.isprintable() else ascii(said)}"


def digest(field: str, spec: str) -> str:
    """A hash of the function's name, its file, and the files that this imports from beside it, to any depth."""
    file, name = _parts(field, spec)
    total = hashlib.sha256(name.encode())
    for each in sorted({file, *_imported(field, file)}):
        total.update(b"\0" + str(each.relative_to(file.parent)).encode() + b"\0" + each.read_bytes())
    return total.hexdigest()[:16]


def _parts(field: str, spec: str) -> tuple[Path, str]:
    path, _, name = spec.rpartition(":")
    if not Path(path).is_file() or not name:
        raise UserError(f"{field} '{spec}': must be FILE.py:FUNCTION, and the file must exist")
    return Path(path).resolve(), name


def _module_files(folder: Path, module: str) -> list[Path]:
    """The files of a module that stands in the folder: NAME.py, or all of the package NAME/."""
    if (folder / f"{module}.py").is_file():
        return [folder / f"{module}.py"]
    return sorted((folder / module).rglob("*.py"))


def _modules(field: str, file: Path) -> set[str]:
    """Top-level names of all modules that the file imports anywhere. Raises UserError for a syntax error."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(f"{file}:{line}: {field}: not Python: {error}") from None
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - {"sftmix_jax"}  # its own version is in every identity that needs it


def _imported(field: str, file: Path) -> set[Path]:
    """The files beside `file` that it imports, and those that they import."""
    found: set[Path] = set()
    new = {file}
    while new:
        modules = set().union(*(_modules(field, each) for each in new))
        new = {each for module in modules for each in _module_files(file.parent, module)} - found - {file}
        found |= new
    return found


def _check_imports(field: str, file: Path) -> None:
    """Make the file's folder importable. Raises UserError where a name in it means another module to Python."""
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # last: a file of the user's never takes the place of a library's module
    importlib.invalidate_caches()
    beside = _imported(field, file)
    for module in {each.relative_to(file.parent).parts[0].removesuffix(".py") for each in beside}:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            spec = None
        places = {spec.origin, *(spec.submodule_search_locations or ())} if spec else set()
        if not any(place and Path(place).resolve().is_relative_to(file.parent) for place in places):
            raise UserError(
                f"{field}: {file} imports '{module}' from beside it, but another module of that name is loaded "
                f"({spec.origin if spec else 'unknown'}); rename the file"
            )
