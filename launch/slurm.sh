#!/usr/bin/env bash
# A Slurm job: one process a node, or an array whose members share a study.
#
#   launch/slurm.sh [--dry-run] [SBATCH OPTIONS…] -- VERB [ARGUMENTS…]
#   launch/slurm.sh --nodes 2 --gpus-per-node 8 --time 12:00:00 -- train --config dmt.py:7b --workdir /shared/runs/dmt
#   launch/slurm.sh --array 0-7 --gpus-per-node 1 -- study --config studies/rq4.py:7b --workdir /shared/runs/rq4
#
# Two minutes before its time is over the job gets SIGTERM, saves, and is queued again; the same happens after a
# preemption. Members of an array each take the next free stage of the study, wait where a stage needs another one, and
# survive each other's death; a last job, which depends on the array, writes the report.
# The workdir is on a file system that all nodes share. PYTHON names the interpreter there (.venv of this checkout).
# Cost: your allocation's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/common.sh"

options=() array='' # not empty: the job is an array
while [[ $# -gt 0 ]]; do
  case "$1" in
    --dry-run) DRY_RUN=1; shift ;;
    -h | --help) usage ;;
    --) shift; break ;;
    --array | --array=*) array=1; options+=("$1"); shift ;;
    *) options+=("$1"); shift ;;
  esac
done
[[ $# -gt 0 ]] || usage 2
[[ -z "$array" || "$1" == study ]] || fail "an array is for study: its members share the stages; '$1' is one run (--nodes)"
python=${PYTHON:-$(cd "$here/.." && pwd)/.venv/bin/python}

submit() { # a job on stdin, sbatch's options → the job's id
  if [[ -n "${DRY_RUN:-}" ]]; then
    run sbatch "$@"
    cat
  else
    run sbatch --parsable "$@"
  fi
}

command="$python -m sftmix_jax.$(quoted "$@")"
[[ -z "$array" ]] || command+="--workers 1"
# What is escaped is for the job's own shell. srun itself takes SIGTERM for the end: its tasks are told by scancel.
id=$(
  submit "${options[@]}" <<JOB
#!/usr/bin/env bash
#SBATCH --job-name sftmix
#SBATCH --requeue
#SBATCH --signal B:TERM@120
#SBATCH --output sftmix-%j.log
#SBATCH --open-mode append
if [ "\$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  export JAX_COORDINATOR_ADDRESS="\$(scontrol show hostnames "\$SLURM_JOB_NODELIST" | head -n 1):\$((20000 + SLURM_JOB_ID % 10000))"
fi
srun --ntasks-per-node 1 --kill-on-bad-exit=1 $command &
step=\$!
trap 'scancel --signal TERM \$SLURM_JOB_ID' TERM
wait \$step; code=\$?
while kill -0 \$step 2>/dev/null; do wait \$step; code=\$?; done
if [ \$code -eq 143 ]; then # a controller that is busy is asked again
  for _ in 1 2 3 4 5; do scontrol requeue \$SLURM_JOB_ID && break; sleep 2; done
fi
exit \$code
JOB
)
printf '%s\n' "$id"

if [[ -n "$array" ]]; then
  workdir=$(printf '%s\n' "$@" | sed -n '/^--workdir$/{n;p;}; s/^--workdir=//p' | head -n 1)
  [[ -z "${DRY_RUN:-}" ]] || id=JOB
  submit --job-name sftmix-report --output sftmix-report-%j.log --dependency "afterany:$id" <<JOB
#!/usr/bin/env bash
exec $python -m sftmix_jax.report --workdir $(quoted "$workdir")
JOB
fi
