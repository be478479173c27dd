#!/usr/bin/env bash
# One GPU of this machine, or all of them: one process drives every GPU that it sees.
#
#   launch/gpu.sh [--dry-run] [--gpus 0,1,…] VERB [ARGUMENTS…]
#   launch/gpu.sh --gpus 0 train --config dmt.py:7b --workdir runs/dmt
#
# Needs: pip install -e '.[cuda]'. By default all GPUs, which the mesh splits the model over (config.mesh).
# Cost: `plan` says before whether a model fits. jax takes three quarters of each GPU's memory at once; here it takes
# nine tenths, as nothing else should be running there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/common.sh"

gpus=
while [[ $# -gt 0 ]]; do
  case "$1" in
    --dry-run) DRY_RUN=1; shift ;;
    --gpus) gpus=$2; shift 2 ;;
    -h | --help) usage ;;
    *) break ;;
  esac
done
[[ $# -gt 0 ]] || usage 2
command -v nvidia-smi >/dev/null || fail "no nvidia-smi here: this machine has no NVIDIA GPU, or no driver"

[[ -z "$gpus" ]] || export CUDA_VISIBLE_DEVICES=$gpus
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}
run "${PYTHON:-$here/../.venv/bin/python}" -m "sftmix_jax.$1" "${@:2}"
