"""Orbax checkpoints with a checksum manifest: what is restored is what was saved, bit for bit.

A checkpoint without a manifest was not finished; one whose files do not match it is damaged. Both
are set aside under a telling name, and the one before is used.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from sftmix_jax import processes
from sftmix_jax.training.step import TrainState

_MANIFEST = "manifest.json"


def _say(message: str) -> None:
    print(message, file=sys.stderr)


class Checkpoints:
    """The checkpoints of one stage; saving goes on in the background while training continues."""

    def __init__(self, folder: epath.Path, keep: int = 1, report: Callable[[str], None] = _say):
        # Orbax takes absolute paths alone; gs:// paths are.
        self.folder = folder if "://" in str(folder) else epath.Path(os.path.abspath(folder))
        self._keep, self._report = keep, report
        self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        self._sealer = ThreadPoolExecutor(1)
        self._sealing: Future[None] | None = None

    def steps(self) -> list[int]:
        """Steps that have a folder, damaged or not, newest first."""
        if not self.folder.exists():
            return []
        return sorted((int(p.name) for p in self.folder.iterdir() if p.name.isdigit()), reverse=True)

    def save(self, step: int, state: TrainState, position: dict[str, Any]) -> None:
        """Save in the background; waits only for a save that is still under way. Raises OSError if it has no room."""
        self.wait()
        self._check_room(state)
        self._orbax.save(
            self.folder / str(step),
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                opt_state=ocp.args.StandardSave(state.opt_state),
                position=ocp.args.JsonSave({"step": step, **position}),
            ),
        )
        self._sealing = self._sealer.submit(self._seal, step)

    def _check_room(self, state: TrainState) -> None:
        """Ahead of the save: a disk that fills up within it leaves many messages of many threads."""
        if "://" in str(self.folder):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        size = sum(x.nbytes for x in jax.tree.leaves(state)) // jax.process_count()
        if shutil.disk_usage(self.folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    def wait(self) -> None:
        """Until everything asked for is on disk and sealed. Raises OSError if the disk is full."""
        sealing, self._sealing = self._sealing, None
        if sealing is None:
            return
        self._settle(sealing)
        processes.wait_for_all("sealed")

    def _settle(self, sealing: Future[None]) -> None:
        try:
            sealing.result()
        except ValueError as error:  # TensorStore's, of any failed write
            if os.strerror(errno.ENOSPC) not in str(error):
                raise
            logging.getLogger("asyncio").disabled = True  # the other writes of this save fail in the same way
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder)) from None

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._sealer.shutdown()
            self._orbax.close()

    def _seal(self, step: int) -> None:
        """Once Orbax has committed: write the manifest, then delete all but the newest `keep`."""
        self._orbax.wait_until_finished()
        if not processes.is_first():
            return
        partial = self.folder / str(step) / f"{_MANIFEST}.partial"
        partial.write_text(json.dumps(checksums(self.folder / str(step))))
        partial.rename(self.folder / str(step) / _MANIFEST)
        for old in self.steps()[self._keep :]:
            (self.folder / str(old)).rmtree()

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest sound checkpoint and its position, or None if there is none; from any number of processes."""
        if processes.is_first():
            self._sweep()
        step = self._newest_sound()
        if step is None:
            return None
        found = self._orbax.restore(
            self.folder / str(step),
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(abstract.params),
                opt_state=ocp.args.StandardRestore(abstract.opt_state),
                position=ocp.args.JsonRestore(),
            ),
        )
        return TrainState(found["params"], found["opt_state"]), found["position"]

    def restore_part(self, part: str, abstract: Any) -> Any:
        """`params` or `opt_state` alone of the newest sound checkpoint, or None if there is none."""
        step = self._newest_sound()
        if step is None:
            return None
        args = ocp.args.Composite(**{part: ocp.args.StandardRestore(abstract)})
        return self._orbax.restore(self.folder / str(step), args=args)[part]

    def _sweep(self) -> None:
        """Delete what saves that were cut off have left."""
        if self.folder.exists():
            for path in self.folder.glob("*.orbax-checkpoint-tmp*"):
                path.rmtree()

    def _newest_sound(self) -> int | None:
        """What process 0 finds: it alone looks, so that all restore the same."""
        step = None
        if processes.is_first():
            step = self._look()
        found = processes.first_says(-1 if step is None else step)
        return None if found < 0 else found

    def _look(self) -> int | None:
        for step in self.steps():
            problem = damage(self.folder / str(step))
            if problem is None:
                return step
            aside = self.folder / f"{step}.damaged"
            if aside.exists():
                aside.rmtree()
            (self.folder / str(step)).rename(aside)
            self._report(f"checkpoint {self.folder / str(step)} is not used: {problem}; set aside as {aside.name}")
        return None


def checksums(folder: epath.Path) -> dict[str, list[int]]:
    """Size and CRC-32 of every file below a folder, by relative path."""
    sums = {}
    for file in sorted(_files(folder)):
        name = str(file.relative_to(folder))
        if name.startswith(_MANIFEST):
            continue
        crc, size = 0, 0
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 24):
                crc, size = zlib.crc32(chunk, crc), size + len(chunk)
        sums[name] = [size, crc]
    return sums


def damage(folder: epath.Path) -> str | None:
    """What is wrong with a checkpoint, or None if every file is as it was saved."""
    manifest = folder / _MANIFEST
    if not manifest.exists():
        return "it has no manifest, so its save was not finished"
    try:
        wanted = json.loads(manifest.read_text())
    except ValueError:
        return "its manifest is not readable"
    found = checksums(folder)
    for name, sums in wanted.items():
        if name not in found:
            return f"the file {name} is missing"
        if found[name] != sums:
            return f"the file {name} has changed since it was saved"
    return None


def _files(folder: epath.Path) -> list[epath.Path]:
    files: list[epath.Path] = []
    for path in folder.iterdir():
        files += _files(path) if path.is_dir() else [path]
    return files
