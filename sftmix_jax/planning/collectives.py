"""What a compiled program sends between devices, read from its text."""

from __future__ import annotations

import math
import re
from collections import Counter

_BYTES = {
    "f32": 4,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "s64": 8,
    "u64": 8,
    "f8e4m3fn": 1,
}
_KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(_KINDS)})(-start)?\(")
_PERMUTE = re.compile(r"collective-permute(-start)?\(")
# A slice reaches another through its hosts.
BETWEEN_SLICES = "between slices"
_HOST_SEND = re.compile(r"= (\(.*?\)) send\(.*is_host_transfer=true")
# Groups of devices: {{0,1},{2,3}}, [groups,devices]<=[all], or names of a mesh's axes.
_LISTED, _COUNTED = re.compile(r"replica_groups=\{\{([\d,]+)\}"), re.compile(r"replica_groups=\[\d+,(\d+)\]")
_NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_EVERYONE = re.compile(r"\bnum_partitions=(\d+)")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_CALL = re.compile(r"(?:body|condition|calls|to_apply|called_computations=\{)=?%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_BOUND = re.compile(r"constant\((\d+)\)")
# The TPU compiler writes an asynchronous collective into the computations of its start, of what goes on meanwhile and
# of its end; it is sent once.
_LATER = re.compile(r'custom_call_target="AsyncCollective(?!Start)')
# What it names so is written as an all-reduce and a cut of its result, and run as a scatter ("emitter":
# "SingleInputAllReduceScatterFusion", which it gives a reduce-scatter too).
_SCATTER = "all-reduce-scatter"


def bytes_sent(program: str) -> dict[str, int]:
    """Bytes that a device receives in one run, by kind of collective; what stands in a loop counts as often as it runs.

    `program` is the text of a compiled HLO module. Of g devices that are joined, each receives (g − 1)/g of what is
    whole: an all-gather's result, a reduce-scatter's and an all-reduce's operand (the all-reduce twice), an
    all-to-all's result; and all of a permute's. What passes between slices is what is sent.
    """
    bodies = _computations(program)
    named = _EVERYONE.search(program)
    everyone = int(named[1]) if named else 1
    totals: Counter[str] = Counter()

    def visit(name: str, times: int) -> None:
        lines = bodies.get(name, ())
        later = name.startswith("async_collective_fusion") or any(_LATER.search(line) for line in lines)
        for line in lines:
            found = _COLLECTIVE.search(line)
            if found and not later:
                kind = "reduce-scatter" if name.startswith(_SCATTER) else found[2]
                totals[kind] += times * _received(kind, found, _group(line) or everyone)
            between = _HOST_SEND.search(line)
            if between:
                totals[BETWEEN_SLICES] += times * sum(_sizes(between[1]))
            if " while(" in line:
                body = re.search(r"body=%?([\w.\-]+)", line)
                if body:
                    visit(body[1], times * _trips(line, bodies))
            elif not found:
                for called in _CALL.findall(line):
                    visit(called, times)

    entry = re.search(r"^ENTRY %?([\w.\-]+)", program, re.MULTILINE)
    if entry:
        visit(entry[1], 1)
    return {kind: totals[kind] for kind in (*_KINDS, BETWEEN_SLICES) if totals[kind]}


def _group(line: str) -> int:
    """How many devices a collective joins, 0 where it does not say."""
    if found := _LISTED.search(line):
        return found[1].count(",") + 1
    if found := _COUNTED.search(line):
        return int(found[1])
    if found := _NAMED.search(line):
        sizes = {name.strip("' "): int(size) for name, size in (axis.split("=") for axis in found[1].split(","))}
        return math.prod(sizes[name.strip("' ")] for name in found[2].split(","))
    return 0


def _trips(line: str, bodies: dict[str, list[str]]) -> int:
    """How often a while runs: as it says, or up to the bound that its condition compares a counter with."""
    known = _TRIPS.search(line)
    if known:
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    text = "\n".join(bodies.get(condition[1], ())) if condition else ""
    bounds = [int(bound) for bound in _BOUND.findall(text)]
    if "direction=LT" not in text or not bounds:
        return 1
    body = re.search(r"body=%?([\w.\-]+)", line)
    if body and "windowed_dot_general" in body[1]:
        # A product that gathers or scatters its weight piece by piece, a piece each way at a time; unrolled, it
        # counts up by more than one, and holds as many more permutes.
        permutes = sum(bool(_PERMUTE.search(each)) for each in bodies.get(body[1], ()))
        return max(bounds) // max(permutes // 2, 1)
    return max(bounds)


def _computations(program: str) -> dict[str, list[str]]:
    """The lines of each computation by its name."""
    bodies: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in program.splitlines():
        if current is None or not line.startswith(" "):
            head = re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
            if head and not line.startswith((" ", "HloModule")):
                current = bodies.setdefault(head[1], [])
        else:
            current.append(line)
    return bodies


def _received(kind: str, found: re.Match[str], group: int) -> int:
    """Bytes that arrive at one of the `group` devices that a collective joins."""
    sizes, is_start = _sizes(found[1]) or [0], bool(found[3])
    # An asynchronous start shows its operand beside its result; an all-reduce's may be several arrays.
    size = max(sizes) if is_start and found[2] != "all-reduce" else sum(sizes)
    if kind == "collective-permute":
        return size
    if found[2] == "reduce-scatter" and not is_start:
        size *= group  # the result is one device's part
    return size * (group - 1) // group * (2 if kind == "all-reduce" else 1)


def _sizes(shape: str) -> list[int]:
    """Bytes of each array in a shape, or in a tuple of them."""
    return [
        _BYTES.get(dtype, 0) * math.prod(int(dimension) for dimension in dimensions.split(",") if dimension)
        for dtype, dimensions in _SHAPE.findall(shape)
    ]


def needed_by_fsdp(parameters: int, layer_parameters: int, shards: int, gather_bytes: int, reduce_bytes: int) -> float:
    """What fully sharded data parallelism has to move a step, in bytes that a device receives.

    Parameters gathered for the forward pass, those of the layers again for the backward pass (under remat), and every
    gradient reduced.
    """
    share = (shards - 1) / shards
    return share * ((parameters + layer_parameters) * gather_bytes + parameters * reduce_bytes)
