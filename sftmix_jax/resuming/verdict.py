"""A check's verdict as lines that can be pasted into an issue."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Mapping
from importlib import metadata

import jax

from sftmix_jax import __version__
from sftmix_jax.resuming.check import Findings, duration
from sftmix_jax.resuming.kills import WHERE
from sftmix_jax.resuming.shortening import Length

_WIDTH = 80
_HEAD = 13  # columns of the names on the left


def lines(found: Findings, spec: str, lengths: Mapping[str, Length], every: int, seconds: float) -> list[str]:
    """What was run, what was compared, and EQUAL or the first difference; at most 80 columns."""
    stages, done = found.reference, [record.done for record in found.reference.values()]
    out = [f"resume_check: {'DIFFERENT' if found.difference else 'EQUAL'}"]
    out += _row("config", spec)
    out += _row("versions", ", ".join(_versions()))
    out += _row("machine", f"{platform.system()} {platform.machine()}, {done[0]['devices']}")
    for name, length in lengths.items():
        out += _row("stage", _stage(name, stages[name].id, length))
        out += _row("", f"params_sha256 {stages[name].done['params_sha256'][:32]}…")
    out += _row(
        "shortened",
        f"checkpoints every {every} steps; no evaluation, no trackers; data, batches, mesh, model, dtypes and "
        "optimizer as configured; the learning rate schedule spans the shortened stage",
    )
    out += _row("killed", _kills(found))
    if len(found.exact) + len(found.rounded) > 1:
        out += _row("processes", "; ".join(str(layout) for layout in (*found.exact, *found.rounded)))
    compared = (
        f"{found.lines} training steps: batch as it lay on the devices, learning rate, tokens, losses, gradient norm; "
        "stage ids, ledger, row counts, validation losses and params_sha256 of finished stages"
    )
    out += _row("compared", compared)
    if not any(record.get("validation_loss") for record in done):
        out += _row("", "no validation losses: the experiment holds no rows out")
    for layout, largest in found.rounded.items():
        out += _row(
            "rounding",
            f"{layout}: batches, learning rates and ledger equal; losses and gradient norms within {largest:.0e} "
            "(relative); params_sha256 not compared; no kills on this process count",
        )
    out += _row("time", duration(seconds))
    if found.difference is None:
        return [*out, *_row("result", "equal bit for bit" + (", but for the rounding above" * bool(found.rounded)))]
    out += _row("first", f"{found.difference}")
    out += _row("difference", f"in {found.where}")
    if found.kills:
        out += _row("after", f"kill {len(found.kills)}, {found.kills[-1]}")
    if not found.repeatable:
        out += _row(
            "but",
            "two uninterrupted runs differ as well: this machine does not repeat its arithmetic, so this is no "
            "evidence against resuming. On GPUs compare again with XLA_FLAGS=--xla_gpu_deterministic_ops=true",
        )
    elif found.difference.measured:
        out += _row("and", "two uninterrupted runs are equal: the difference comes from being interrupted")
    return [*out, *_row("log", str(found.log))]


def _versions() -> list[str]:
    packages = [f"{name} {metadata.version(name)}" for name in ("jaxlib", "flax", "optax", "orbax-checkpoint", "grain")]
    return [f"sftmix-jax {__version__}", f"jax {jax.__version__}", *packages, f"Python {platform.python_version()}"]


def _stage(name: str, id: str, length: Length) -> str:
    whole = f" of {length.whole:,}" if length.whole != length.steps else ""
    return f"{name}-{id}: {length.steps}{whole} steps"


def _kills(found: Findings) -> str:
    hits = found.hits()
    parts = ", ".join(f"{hits[where]} {where}" for where in WHERE if hits[where])
    runs = f"{found.runs} run{'s' * (found.runs != 1)}"
    return f"{len(found.kills)} times ({parts}) in {runs}" if found.kills else "never"


def _row(name: str, text: str) -> list[str]:
    """`name` and its text, wrapped beside it; lines of the text stay apart."""
    first, rest = f"  {name:<{_HEAD - 2}}", " " * _HEAD
    out: list[str] = []
    for line in text.splitlines() or [""]:
        out += textwrap.wrap(
            line,
            _WIDTH,
            initial_indent=rest if out else first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return out
