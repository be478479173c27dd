"""Orbax checkpoints with a checksum manifest: what is restored is what was saved, bit for bit.

A checkpoint whose files do not match its manifest is damaged, and one of another stage or step was misplaced. All are
renamed to STEP.damaged, and the checkpoint before is used. One that Orbax has committed without a manifest, as where a
machine went between the two, is used if the state that is restored hashes to what was saved with it.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.tree_util import KeyPath

from sftmix_jax.machine import array_hash, files, manifest, processes, terminal
from sftmix_jax.training.step import TrainState


def _say(message: str) -> None:
    terminal.err(message)


class Checkpoints:
    """The checkpoints of one stage; saving goes on in the background while training continues."""

    def __init__(self, folder: epath.Path, keep: int = 1, report: Callable[[str], None] = _say, *, stage: str = ""):
        """`stage`: the id that every checkpoint is saved with, and must have been saved with to be used."""
        # Orbax takes absolute paths alone; gs:// paths are.
        self.folder = folder if "://" in str(folder) else epath.Path(os.path.abspath(folder))
        self._keep, self._report, self._stage = keep, report, stage
        self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        self._sealer = ThreadPoolExecutor(1)
        self._sealing: Future[None] | None = None

    def steps(self) -> list[int]:
        """Steps that have a folder, damaged or not, newest first."""
        if not self.folder.exists():
            return []
        names = (path.name for path in self.folder.iterdir())
        return sorted((int(name) for name in names if name.isdecimal() and str(int(name)) == name), reverse=True)

    def save(self, step: int, state: TrainState, position: dict[str, Any]) -> None:
        """Save in the background; waits only for a save that is still under way. Raises OSError if it has no room."""
        self.wait()
        self._check_room(state)
        self._orbax.save(
            self.folder / str(step),
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                opt_state=ocp.args.StandardSave(state.opt_state),
                position=ocp.args.JsonSave({**position, "step": step, "stage": self._stage, "hashes": _hashes(state)}),
            ),
        )
        self._sealing = self._sealer.submit(self._seal, step)

    def _check_room(self, state: TrainState) -> None:
        """Ahead of the save: a disk that fills up within it leaves many messages of many threads."""
        if "://" in str(self.folder):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        size = sum(x.nbytes for x in jax.tree.leaves((state.params, state.opt_state))) // jax.process_count()
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
        """Once Orbax has committed: write the manifest, each process its part; delete all but the newest `keep`."""
        self._orbax.wait_until_finished()  # of all processes
        self._write_manifest(step)
        if processes.is_first():
            for old in self.steps()[self._keep :]:
                files.remove(self.folder / str(old))

    def _write_manifest(self, step: int) -> None:
        of = _of(self._stage, step)
        manifest.seal(self.folder / str(step), of, jax.process_index(), jax.process_count())

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest sound checkpoint and its position, or None if there is none; from any number of processes.

        Frozen parameters are in no checkpoint.
        """
        if processes.is_first():
            self._sweep()
        while (step := self._newest_usable()) is not None:
            is_sealed = bool(processes.first_says(is_complete(self.folder, step)))
            found, problem = self._restored(step, abstract, is_sealed)
            if found is not None:
                if not is_sealed:
                    self._write_manifest(step)
                    processes.wait_for_all("sealed")
                return found
            if processes.is_first():
                self.set_aside(step, problem)
            processes.wait_for_all("set aside")
        return None

    def _restored(
        self, step: int, abstract: TrainState, is_sealed: bool
    ) -> tuple[tuple[TrainState, dict[str, Any]] | None, str]:
        """The state and position of a checkpoint, or None and what is wrong with it.

        The files of a sealed one have been looked at; of another one they may be damaged in any way.
        """
        try:
            found = self._orbax.restore(
                self.folder / str(step),
                args=ocp.args.Composite(
                    params=ocp.args.StandardRestore(abstract.params),
                    opt_state=ocp.args.StandardRestore(abstract.opt_state),
                    position=ocp.args.JsonRestore(),
                ),
            )
        except Exception as error:
            if is_sealed:
                raise
            found, problem = None, f"it has no manifest, and cannot be read ({str(error).splitlines()[0][:200]})"
        if processes.any_of_them(found is None):
            return None, problem if found is None else "it has no manifest, and cannot be read by every process"
        state, position = TrainState(found["params"], found["opt_state"]), found["position"]
        if position.get("step") != step:
            return None, f"its position is step {position.get('step')}"
        if not is_sealed and position.get("stage") != self._stage:
            return None, f"it is of stage {position.get('stage')}, not of stage {self._stage}"
        if not is_sealed and position.get("hashes") != _hashes(state):
            return None, "it has no manifest, and its state is not the one that was saved"
        return (state, position), ""

    def restore_part(self, step: int, part: str, abstract: Any) -> Any:
        """`params` or `opt_state` of the checkpoint after `step`, which must be sound."""
        args = ocp.args.Composite(**{part: ocp.args.StandardRestore(abstract)})
        return self._orbax.restore(self.folder / str(step), args=args)[part]

    def leaves(self, step: int, part: str, abstract: Any) -> Iterator[tuple[KeyPath, jax.Array]]:
        """The arrays of `params` or `opt_state` one after the other, so that the caller holds one at a time."""
        one_by_one = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        named = jax.tree_util.tree_leaves_with_path(abstract)
        structure = jax.tree.structure(abstract)
        try:
            for i, (path, leaf) in enumerate(named):
                tree = jax.tree.unflatten(structure, [leaf if j == i else ocp.PLACEHOLDER for j in range(len(named))])
                restore_args = jax.tree.map(_restore_args, tree)
                args = ocp.args.PyTreeRestore(item=tree, restore_args=restore_args)
                yield path, jax.tree.leaves(one_by_one.restore(self.folder / str(step) / part, args=args))[i]
        finally:
            one_by_one.close()

    def set_aside(self, step: int, problem: str) -> None:
        """Rename a checkpoint that must not be used, and report it."""
        aside = self.folder / f"{step}.damaged"
        files.remove(aside)
        (self.folder / str(step)).rename(aside)
        self._report(f"checkpoint {self.folder / str(step)} is not used: {problem}; set aside as {aside.name}")

    def _sweep(self) -> None:
        """Delete what saves that were cut off have left."""
        for path in files.matching(self.folder, "*.orbax-checkpoint-tmp*"):
            files.remove(path)

    def _newest_usable(self) -> int | None:
        """What process 0 finds: it alone looks, so that all restore the same."""
        step = None
        if processes.is_first():
            step = self._look()
        found = processes.first_says(-1 if step is None else step)
        return None if found < 0 else found

    def _look(self) -> int | None:
        for step in self.steps():
            problem = damage(self.folder, self._stage, step)
            if problem is None or (not is_complete(self.folder, step) and _is_committed(self.folder / str(step))):
                return step
            self.set_aside(step, problem)
        return None


def damage(folder: epath.Path, stage: str, step: int) -> str | None:
    """What is wrong with a checkpoint, or None if it is of this stage and step and every file is as it was saved."""
    return manifest.damage(folder / str(step), _of(stage, step))


def is_complete(folder: epath.Path, step: int) -> bool:
    """True if the checkpoint's save was finished; its files are not read."""
    return manifest.is_sealed(folder / str(step))


def _is_committed(folder: epath.Path) -> bool:
    """Whether Orbax has finished its part of a save."""
    return (folder / "commit_success.txt").exists()


def _hashes(state: TrainState) -> dict[str, str]:
    return {"params": array_hash.tree_digest(state.params), "opt_state": array_hash.tree_digest(state.opt_state)}


def _of(stage: str, step: int) -> dict[str, Any]:
    return {"stage": stage, "step": step}


def _restore_args(leaf: Any) -> ocp.RestoreArgs:
    if leaf is ocp.PLACEHOLDER:
        return ocp.RestoreArgs()
    return ocp.ArrayRestoreArgs(sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype)
