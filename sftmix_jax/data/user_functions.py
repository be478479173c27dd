"""The user's own functions, FILE.py:FUNCTION: loaded, and identified by all files that they come from."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sftmix_jax.data.messages import BadRow
from sftmix_jax.machine.errors import UserError, did_you_mean, text_of


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
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(f"{field} '{spec}': the file fails: {type(error).__name__}: {text_of(error)}") from None
    if not callable(getattr(module, name, None)):
        raise UserError(f"{file}: has no function {name}; {did_you_mean(name, vars(module))}")
    return getattr(module, name)


def call(field: str, function: Callable[..., Any], row: Mapping[str, Any]) -> Any:
    """What the function makes of a row; of a generator, the list of what it yields.

    Raises BadRow for whatever the function raises: one that ends the program must not look like a finished run.
    """
    try:
        result = function(row)
        return list(result) if isinstance(result, Iterator) else result
    except (BadRow, KeyboardInterrupt):
        raise
    except BaseException as error:
        said = " ".join(text_of(error).split())[:100]
        said = said if said.isprintable() else ascii(said)
        raise BadRow(f"{field} raised {type(error).__name__}: {said}") from None


def digest(field: str, spec: str) -> str:
    """A hash of the function's name, its file, and the files beside it that this imports or names, to any depth.

    Imports are `import` statements, and `import_module` and `__import__` of a literal name. Files are named by a
    literal path, from the folder of the file that names them: `open("words.txt")`,
    `Path(__file__).parent / "data" / "words.txt"`, `os.path.join(folder, "data", "words.txt")`,
    `f"{folder}/words.txt"`, `Path(__file__).with_suffix(".txt")`.

    A file that the function itself writes under a literal name changes the identity too: compute such a name.
    Not covered are computed names, other folders, what files other than .py name in turn, the network and the
    environment: the identity stays the same when they change. Rename the file or the function then.
    """
    file, name = _parts(field, spec)
    total = hashlib.sha256(name.encode())
    for each in sorted({file, *_imported(field, file, opened=True)}):
        total.update(b"\0" + str(each.relative_to(file.parent)).encode() + b"\0")
        with each.open("rb") as stream:  # a table that it names may be large
            while chunk := stream.read(1 << 24):
                total.update(chunk)
    return total.hexdigest()[:16]


def _parts(field: str, spec: str) -> tuple[Path, str]:
    path, _, name = spec.rpartition(":")
    path = os.path.expanduser(path)
    if not Path(path).is_file() or not name:
        raise UserError(f"{field} '{spec}': must be FILE.py:FUNCTION, and the file must exist")
    return Path(path).resolve(), name


def _module_files(folder: Path, module: str) -> list[Path]:
    """The files of a module that stands in the folder: NAME.py, or all of the package NAME/."""
    if (folder / f"{module}.py").is_file():
        return [folder / f"{module}.py"]
    return sorted((folder / module).rglob("*.py"))


def _parsed(field: str, file: Path) -> list[ast.AST]:
    """All nodes of the file's syntax tree. Raises UserError for a syntax error."""
    try:
        return list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(f"{file}:{line}: {field}: not Python: {error}") from None


def _modules(nodes: Iterable[ast.AST]) -> set[str]:
    """Top-level names of all modules that a file imports anywhere."""
    found = set()
    for node in nodes:
        match node:
            case ast.Import():
                found |= {alias.name.partition(".")[0] for alias in node.names}
            case ast.ImportFrom(module=str(module), level=0):
                found.add(module.partition(".")[0])
            case ast.Call(
                func=ast.Attribute(attr="import_module" | "__import__") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                found.add(module.partition(".")[0])
    return found - {"sftmix_jax", ""}  # its own version is in every identity that needs it


def _paths(nodes: Iterable[ast.AST]) -> set[str]:
    """All texts in a file that may be paths: literals, and literals that are joined to one path."""
    found = set()
    for node in nodes:
        match node:
            case ast.Constant(value=str(text)):
                found.add(text)
            case ast.BinOp(op=ast.Div()):
                parts: list[str] = []
                left: ast.expr = node
                while isinstance(left, ast.BinOp) and isinstance(left.right, ast.Constant):
                    parts.insert(0, str(left.right.value))
                    left = left.left
                found.add("/".join(parts))
            case ast.Call(func=ast.Attribute(attr="join" | "joinpath") | ast.Name(id="join")):
                found.add("/".join(str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)))
    return found


def _opened(nodes: Iterable[ast.AST], folder: Path, within: Path) -> set[Path]:
    """The files that a file in `folder` names by a literal path from there, of those that stand in `within`."""
    # What is added to a folder begins with a slash: f"{HERE}/words.txt"
    texts = [text.lstrip("/") for text in _paths(nodes) if 0 < len(text) < 256 and text.isprintable()]
    paths = {Path(os.path.normpath(folder / text)) for text in texts}  # links are followed when they are read
    return {path for path in paths if path.is_relative_to(within) and path.is_file()}


def _imported(field: str, file: Path, *, opened: bool = False) -> set[Path]:
    """The files beside `file` that it imports, and those that they import; `opened`: also those that they name."""
    found: set[Path] = set()
    new = {file}
    while new:
        reached: set[Path] = set()
        for each in new:
            nodes = _parsed(field, each) if each.suffix == ".py" else []
            suffixes = {text for text in _paths(nodes) if re.fullmatch(r"\.\w{1,9}", text)}  # Path.with_suffix
            beside = {each.with_suffix(suffix) for suffix in suffixes} if opened else set()
            reached |= {path for path in beside if path.is_file()} - {each}
            reached |= {path for module in _modules(nodes) for path in _module_files(file.parent, module)}
            reached |= _opened(nodes, each.parent, file.parent) if opened else set()
        new = reached - found - {file}
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
