#!/usr/bin/env bash
# Whatever cloud has the chips, through SkyPilot: found, set up, run as a managed job, recovered after preemptions.
#
#   launch/sky.sh [--dry-run] ACCELERATORS NAME VERB [ARGUMENTS…]
#   launch/sky.sh H100:8 dmt-7b train --config dmt.py:7b --workdir gs://BUCKET/dmt
#   launch/sky.sh tpu-v5litepod-16 dmt-7b train --config dmt.py:7b --workdir gs://BUCKET/dmt
#
#   SPOT=1 for preemptible capacity, CLOUD to insist on one (gcp, aws, lambda…)
#
# Then: sky jobs queue, sky jobs logs NAME, sky jobs cancel NAME.
# Cost: sky shows the price before it starts; the machines end with the job.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/common.sh"

[[ "${1:-}" != --dry-run ]] || { DRY_RUN=1; shift; }
[[ $# -ge 3 ]] || usage 2
accelerators=$1 name=$2
shift 2
[[ "$*" == *://* ]] || fail "the machine ends with the job: put the workdir into a bucket (--workdir gs://BUCKET/FOLDER)"

extra=cuda
[[ "$accelerators" != tpu* ]] || extra=tpu
options=()
[[ -z "${SPOT:-}" ]] || options+=(--use-spot)
[[ -z "${CLOUD:-}" ]] || options+=(--cloud "$CLOUD")
task=$(mktemp --suffix .yaml)
cat >"$task" <<TASK
name: $name
workdir: $here/..
resources:
  accelerators: $accelerators
  job_recovery: {max_restarts_on_errors: 3}
setup: |
  $(install_command "$extra,gcs")
run: |
  .venv/bin/python -m sftmix_jax.$(quoted "$@")
TASK
[[ -z "${DRY_RUN:-}" ]] || cat "$task"
run sky jobs launch --yes --detach-run --name "$name" "${options[@]}" "$task"
