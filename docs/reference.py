"""Writes the reference pages before a build: config fields from their dataclasses, commands from their --help."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sftmix_jax.experiment.config import Experiment
from sftmix_jax.machine.ranges import Items, Range, Table, Tree, range_of
from sftmix_jax.studies.study import Study

ROOT = Path(__file__).parent.parent
PAGES = Path(__file__).parent / "reference"

_CONFIG = """# Config fields

Every field of an experiment and of a study, from the dataclasses that declare them. `NAME` stands for the name of a
domain, a stage or an experiment. Any field of an experiment can be set on the command line, as
`--config.stages.general.batch.batch_size=8`. A value out of its range ends the command before anything is read or written.
"""
_COMMANDS = """# Command line

What `--help` prints for each command.
"""


def setup(app: Any) -> dict[str, bool]:
    """Registers with Sphinx."""
    app.connect("builder-inited", lambda app: write_pages())
    return {"parallel_read_safe": True}


def write_pages() -> None:
    """Writes docs/reference/config.md and docs/reference/commands.md."""
    PAGES.mkdir(exist_ok=True)
    _write(PAGES / "config.md", config_page())
    _write(PAGES / "commands.md", commands_page())


def config_page() -> str:
    """A section per config dataclass: its fields with default, range and meaning."""
    sections, known = [_CONFIG], set[type]()
    for path, kind in (*_trees("config", Experiment, known), *_trees("study", Study, known)):
        sections.append(f"({kind.__name__.lower()})=\n## `{path}`\n\n{_prose(inspect.getdoc(kind) or '')}\n")
        sections.append("| field | default | range | meaning |\n|---|---|---|---|\n" + "".join(_rows(kind)))
    return "\n".join(sections)


def commands_page() -> str:
    """A section per verb with what its --help prints. Raises CalledProcessError if a verb fails."""
    with ThreadPoolExecutor(4) as pool:
        texts = dict(zip(verbs(), pool.map(_help, verbs()), strict=True))
    sections = [f"## {verb}\n\n```text\n{text.rstrip()}\n```\n" for verb, text in texts.items()]
    return "\n".join([_COMMANDS, *sections])


def verbs() -> list[str]:
    """The package's commands: modules at its top that have a `main`."""
    return sorted(
        file.stem
        for file in (ROOT / "sftmix_jax").glob("*.py")
        if not file.stem.startswith("__")
        and any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in ast.parse(file.read_text()).body)
    )


def _help(verb: str) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", f"sftmix_jax.{verb}", "--help"]
    return subprocess.run(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, check=True).stdout


def _trees(path: str, kind: type, known: set[type]) -> Iterator[tuple[str, type]]:
    """A config dataclass and those that its fields hold, each once, with the path by which the first is reached."""
    if kind in known:
        return
    known.add(kind)
    yield path, kind
    for field in dataclasses.fields(kind):
        match range_of(field):
            case Tree(type=inner):
                yield from _trees(f"{path}.{field.name}", inner, known)
            case Table(each=type() as inner):
                yield from _trees(f"{path}.{field.name}.NAME", inner, known)
            case Items(each=type() as inner):
                yield from _trees(f"{path}.{field.name}[0]", inner, known)


def _rows(kind: type) -> Iterator[str]:
    """A line of the table per field; a field that holds other configs links to theirs."""
    for field in dataclasses.fields(kind):
        allowed = range_of(field)
        inner = allowed.type if isinstance(allowed, Tree) else getattr(allowed, "each", None)
        name = f"[`{field.name}`](#{inner.__name__.lower()})" if isinstance(inner, type) else f"`{field.name}`"
        if isinstance(allowed, Tree):
            cells = (name, "", "", (inspect.getdoc(inner) or "").partition("\n")[0])
        else:
            cells = (name, _default(field), _range(allowed), field.metadata["meaning"])
        yield "| " + " | ".join((*cells[:2], *map(_prose, cells[2:]))) + " |\n"


def _prose(text: str) -> str:
    """Plain text as Markdown; what stands between backticks is code already."""
    parts = text.split("`")
    return "`".join(part if i % 2 else re.sub(r"([\\_*<>|\[\]])", r"\\\1", part) for i, part in enumerate(parts))


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()!r}`"
    return "required"


def _range(allowed: Range) -> str:
    """The rule that an error message gives for a value of a wrong type."""
    problem = next(iter(allowed.problems(object(), "")))
    rule = problem.rpartition("; must be ")[2] or problem
    each = getattr(allowed, "each", None)
    if isinstance(each, Range):
        return f"{rule}; each: {_range(each)}"
    return rule


def _write(file: Path, text: str) -> None:
    """Leaves a page that has not changed as it is, so that Sphinx does not read it again."""
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
