"""Seconds per GiB to seal a checkpoint of many processes: each sums what it wrote, against one that reads all.

python benchmarks/sealing.py [--gib 1] [--processes 4] [--folder DIR]

`--folder` may be on an object store (gs://…), whose own sums are taken; else it is a temporary one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable

from etils import epath

from sftmix_jax.machine import files, manifest

_ROUNDS = 5
_FILE = 1 << 26  # bytes of one of Orbax's files, about


def fill(folder: epath.Path, gib: float, processes: int) -> None:
    """Files as Orbax writes them: each process in a folder of its own."""
    for number in range(max(round(gib * 2**30 / _FILE), processes)):
        place = folder / f"ocdbt.process_{number % processes}" / "d"
        place.mkdir(parents=True, exist_ok=True)
        (place / str(number)).write_bytes(os.urandom(_FILE))


def each_its_own(folder: epath.Path, processes: int) -> None:
    """As checkpoints are sealed: one part of the manifest per process."""
    context = multiprocessing.get_context("fork")
    parts = [context.Process(target=manifest.seal, args=(folder, {}, i, processes)) for i in range(processes)]
    for part in parts:
        part.start()
    for part in parts:
        part.join()


def one_reads_all(folder: epath.Path, processes: int) -> None:
    manifest.seal(folder, {})


def seconds(seal: Callable[[epath.Path, int], None], folder: epath.Path, processes: int) -> float:
    begin = time.perf_counter()
    seal(folder, processes)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--folder", help="default: a temporary one on this machine's disk")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = epath.Path(options.folder or temporary) / "sealing"
        fill(folder, options.gib, options.processes)
        try:
            sides = (each_its_own, one_reads_all)
            rounds = [[seconds(side, folder, options.processes) for side in sides] for _ in range(_ROUNDS)]
        finally:
            files.remove(folder)
    mine, other = (statistics.median(side) / options.gib for side in zip(*rounds, strict=True))
    print(
        f"{options.processes} processes: {mine:.3f} s/GiB; one that reads all: {other:.3f} s/GiB; {mine / other:.2f}×"
    )


if __name__ == "__main__":
    main()
