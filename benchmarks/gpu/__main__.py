"""Prints the table."""

from __future__ import annotations

import argparse
import os
import time
from functools import partial

from benchmarks import gpu
from benchmarks.gpu.alone import alone
from benchmarks.gpu.limits import limits
from benchmarks.gpu.lines import Entry, entries
from benchmarks.gpu.measuring import Line
from benchmarks.gpu.sizes import FULL, TINY
from sftmix_jax.models.kernels import BY_BACKEND

MEMORY = "0.94"  # of the GPU's memory that jax may take; its own default is three quarters


def show(entry: Entry, found: Line | str, can: Line, expected: str) -> None:
    """Prints a line, with the part of the limit that it reaches."""
    if isinstance(found, str):
        print(f"{entry.name:37} {found}", flush=True)
        return
    if "text" in found:
        beside = f" (expected {expected})" if expected else ""
        print(f"{entry.name:37} {found['text']}{beside}", flush=True)
        return
    share = ""
    if "flops" in found:
        share = f"{found['flops'] / can['flops']:7.0%}"
    if "bytes" in found:
        share = f"{found['bytes'] / can['bandwidth']:7.0%}"
    peak = f"{found['peak'] / 2**30:6.1f} GiB" if found.get("peak") else ""
    print(
        f"{entry.name:37} {found['tokens']:10,.0f} {expected:>14} {share:>7} {peak:>10}  {found.get('note', '')}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=gpu.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="on a CPU too, to see that all of it runs")
    parser.add_argument("--only", default="", help="lines whose name holds this")
    parser.add_argument("--seconds", type=float, default=540, help="for all lines; those not run are listed")
    parser.add_argument("--profile", default="runs/gpu_profile", help="the folder for the profile of one training step")
    options = parser.parse_args()
    size, until = TINY if options.tiny else FULL, time.monotonic() + options.seconds
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", MEMORY)
    can = alone(partial(limits, size), until)
    if isinstance(can, str):
        raise SystemExit(can)
    on_gpu = "cpu" not in can["card"].lower()
    if not (on_gpu or options.tiny):
        raise SystemExit(f"jax finds no GPU here, but {can['card']}; --tiny runs all of this on a CPU")
    print(f"{can['card']}: a product {can['flops'] / 1e12:,.2f} TFLOP/s, a copy {can['bandwidth'] / 1e9:,.0f} GB/s")
    print("attention: forward, forward and backward, TFLOP/s of each; other lines:")
    print(f"{'':37} {'tokens/s':>10} {'expected':>14} {'reached':>7} {'peak':>10}\n", flush=True)
    for entry in entries(size, (*BY_BACKEND["gpu"], "plain") if on_gpu else ("plain",), options.profile):
        if options.only not in entry.name:
            continue
        if entry.needs > can["memory"] and not options.tiny:
            found: Line | str = f"needs {entry.needs / 2**30:.0f} GiB of {can['memory'] / 2**30:.0f}"
        else:
            found = alone(entry.measure, until)
        show(entry, found, can, "" if options.tiny else entry.expected_on(can["card"]))


if __name__ == "__main__":
    main()
