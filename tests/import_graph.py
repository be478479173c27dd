"""Which room of the package imports which. A room is a folder of sftmix_jax/, or a file at its top.

python -m tests.import_graph    prints rooms, arrows and circles
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "sftmix_jax"


def modules() -> dict[str, Path]:
    """All modules of the package by their dotted names."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts): file for file in files}


def imported(file: Path, known: Iterable[str]) -> set[str]:
    """The modules of the package that a file imports, also within functions; not those for type checkers alone."""
    known, found = set(known), set()
    tree = ast.parse(file.read_text())
    guards = (node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    guarded = {id(inner) for guard in guards for inner in ast.walk(guard)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in guarded:
            for alias in node.names:
                within = f"{node.module}.{alias.name}"
                found.add(within if {within, f"{within}.__init__"} & known else node.module)
        elif isinstance(node, ast.Import) and id(node) not in guarded:
            found |= {alias.name for alias in node.names}
    return {name if name in known else f"{name}.__init__" for name in found} & known


@functools.cache
def imports() -> dict[str, set[str]]:
    """Each module with the modules of the package that it imports."""
    known = modules()
    return {name: imported(file, known) - {name} for name, file in known.items()}


def room(module: str) -> str:
    """`sftmix_jax.data.chat` is in `data`."""
    return module.split(".")[1]


def rooms() -> dict[str, set[str]]:
    """Each room with the rooms that its modules import; `__init__` is the package's own file."""
    graph: dict[str, set[str]] = {}
    for module, targets in imports().items():
        graph.setdefault(room(module), set()).update(room(target) for target in targets)
    return {name: targets - {name, "__init__"} for name, targets in graph.items() if name != "__init__"}


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Some nodes that all lead to each other; empty where there are none."""
    left = dict(graph)
    while free := [node for node, targets in left.items() if not targets & left.keys()]:
        for node in free:
            del left[node]
    path: list[str] = []
    while left and (node := path[-1] if path else next(iter(left))) not in path[:-1]:
        path.append(next(iter(sorted(left[node] & left.keys()))))
    return path


def main() -> None:
    graph = rooms()
    for name, targets in sorted(graph.items()):
        print(f"{name:14} → {', '.join(sorted(targets)) or '(none)'}")
    print(f"{len(graph)} rooms, {sum(map(len, graph.values()))} arrows")
    for kind, found in (("modules", circle(imports())), ("rooms", circle(graph))):
        print(f"circles of {kind}: {' → '.join(found) or 'none'}")


if __name__ == "__main__":
    main()
