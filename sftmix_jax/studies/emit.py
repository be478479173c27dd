"""A study as a script of jobs for a cluster: one a stage, each after the stage that it starts from."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.studies.jobs import Job

# What one job is submitted with; {after} is the option that names the job before.
_SUBMIT = {
    "slurm": 'launch/slurm.sh "$@" --job-name {name} {after}-- {verb}',
    "xpk": 'launch/gke.sh run "$CLUSTER" {name} {verb}',
    "sky": 'launch/sky.sh "$ACCELERATORS" {name} {verb}',
}
_HEAD = {
    "slurm": "Further arguments are sbatch's (--gpus-per-node 8 …). Each job is held until the one before it is done.",
    "xpk": "Needs CLUSTER, PROJECT and ZONE. A job waits for its stage's parent: queue them apart from others.",
    "sky": "Needs ACCELERATORS (H100:8, tpu-v5litepod-16 …). A job waits for its stage's parent while it is up.",
}


def script(kind: str, study: str, arguments: Sequence[str], jobs: Sequence[Job], workdir: str) -> str:
    """A shell script that submits every job, parents first, and a report after all. Raises UserError.

    `arguments` are those of the study command (--config …, --workdir …).
    """
    if kind not in _SUBMIT:
        raise UserError(f"--emit {kind}: {did_you_mean(kind, _SUBMIT)}")
    if unfit := [argument for argument in (*arguments, workdir) if "\n" in argument or "\r" in argument]:
        raise UserError(f"--emit: {unfit[0]!r} has a line break, which no line of a script can hold")
    known = {job.id for job in jobs}
    lines = [
        "#!/usr/bin/env bash",
        f"# {study}: {len(jobs)} jobs, to be run from the project's folder. {_HEAD[kind]}",
        "set -euo pipefail",
        "",
    ]
    for job in jobs:
        after = f'--dependency "afterok:$job_{job.parent}" ' if job.parent in known else ""
        verb = shlex.join(["study", *arguments, "--job", job.id])
        command = _SUBMIT[kind].format(name=f"{job.name.replace('_', '-')}-{job.id}", after=after, verb=verb)
        lines.append(f"# {job.name} of {', '.join(job.experiments)}")
        lines.append(f"job_{job.id}=$({command})" if kind == "slurm" else command)
    if kind == "slurm":
        every = ":".join(f"$job_{job.id}" for job in jobs)
        verb = shlex.join(["report", "--workdir", workdir])
        lines += [f'launch/slurm.sh "$@" --job-name report --dependency "afterany:{every}" -- {verb}']
    else:
        lines += [f"# after all: python -m sftmix_jax.report --workdir {shlex.quote(workdir)}"]
    return "\n".join(lines) + "\n"
