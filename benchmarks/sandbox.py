"""What it costs to contain model-written code: HumanEval's 164 solutions in the sandbox and unprotected.

python benchmarks/sandbox.py --humaneval HumanEval.jsonl.gz

Unprotected is a fresh interpreter a solution, with the same flags, as many at a time, and nothing around it. A ratio of
0.83 is 1.2 times the time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import timing

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation import programs, sandbox


def _rows(file: str) -> list[dict[str, str]]:
    return [row.value for row in read_rows(Source(file))]


def _in_parallel(one: Callable[[dict[str, str]], bool], file: str) -> timing.Round:
    """A solution a core at a time; the work is solutions that pass their tests."""
    rows = _rows(file)

    def run() -> float:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return sum(pool.map(one, rows))

    return run


def _contained(row: dict[str, str]) -> bool:
    tests = f"{row['test']}\n\ncheck({row['entry_point']})\n"
    program, entry_point = row["prompt"] + row["canonical_solution"], row["entry_point"]
    return sandbox.run(program, entry_point, tests, prelude=programs.context(row["prompt"], entry_point)).passed


def _unprotected(row: dict[str, str]) -> bool:
    program = f"{row['prompt']}{row['canonical_solution']}\n{row['test']}\n\ncheck({row['entry_point']})\n"
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return ran.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--humaneval", required=True)
    options = parser.parse_args()
    timing.heading("unprotected")
    timing.alternate(
        "164 solutions of HumanEval",
        "solutions/s",
        partial(_in_parallel, _contained, options.humaneval),
        partial(_in_parallel, _unprotected, options.humaneval),
    )


if __name__ == "__main__":
    main()
