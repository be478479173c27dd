"""All commands under one name: `sftmix train …` is `python -m sftmix_jax.train …`."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

from sftmix_jax.machine import terminal
from sftmix_jax.machine.errors import did_you_mean

_HERE = Path(__file__).parent


def verbs() -> dict[str, str]:
    """The commands, each with the first line of what it says of itself."""
    files = sorted(file for file in _HERE.glob("*.py") if not file.stem.startswith("_"))
    docs = {file.stem: ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "" for file in files}
    return {name: doc.partition("\n")[0] for name, doc in docs.items() if f"python -m sftmix_jax.{name}" in doc}


def main() -> None:
    """Runs the command that the first argument names, with the others. Exits with its code; 2 for an unknown one."""
    verb, *arguments = sys.argv[1:] or ["--help"]
    known = verbs()
    if verb in ("--help", "-h"):
        width = max(map(len, known))
        terminal.out("sftmix COMMAND [OPTIONS]; sftmix COMMAND --help lists the options\n")
        for name, told in known.items():
            terminal.out(f"  {name:{width}}  {told}")
    elif verb not in known:
        terminal.err(f"error: sftmix {verb}: no such command; {did_you_mean(verb, known)}")
        sys.exit(2)
    else:
        sys.argv[:] = [f"sftmix {verb}", *arguments]
        runpy.run_module(f"sftmix_jax.{verb}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
