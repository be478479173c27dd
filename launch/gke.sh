#!/usr/bin/env bash
# TPU slices of a GKE cluster through xpk: one or several slices, one run.
#
#   launch/gke.sh [--dry-run] create CLUSTER               a cluster with SLICES slices of TPU_TYPE
#   launch/gke.sh [--dry-run] image CLUSTER                IMAGE, built of this checkout and pushed
#   launch/gke.sh [--dry-run] run CLUSTER NAME VERB [ARGS…]
#   launch/gke.sh [--dry-run] logs CLUSTER NAME | stop CLUSTER NAME | delete CLUSTER
#
#   PROJECT and ZONE (required), TPU_TYPE (v5litepod-16), SLICES (1), IMAGE (required to run: a name in a registry that
#   the cluster may read; `image` builds and pushes it)
#
# With several slices the data axis goes across them, and FSDP stays within each.
# Cost: the cluster's machines from create to delete; xpk queues workloads and restarts them after a preemption: after
# exit codes 42, 127 to 255, and 1, with which the other hosts end when one is lost. Bad input (2) ends a workload.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/common.sh"

[[ "${1:-}" != --dry-run ]] || { DRY_RUN=1; shift; }
[[ $# -ge 2 ]] || usage 2
action=$1 cluster=$2
shift 2
where=(--cluster "$cluster" --project "${PROJECT:?set PROJECT}" --zone "${ZONE:?set ZONE}")
type=${TPU_TYPE:-v5litepod-16} slices=${SLICES:-1}

case "$action" in
  image)
    run docker build --file "$here/docker/tpu.Dockerfile" --tag "${IMAGE:?set IMAGE to a name in your registry}" "$here/.."
    run docker push "$IMAGE"
    ;;
  create) run xpk cluster create "${where[@]}" --tpu-type "$type" --num-slices "$slices" ;;
  run)
    [[ $# -ge 2 ]] || usage 2
    name=$1
    shift
    [[ "$*" == *gs://* ]] || fail "the hosts share no disk: put the workdir on gs:// (--workdir gs://BUCKET/FOLDER)"
    run xpk workload create "${where[@]}" --workload "$name" --tpu-type "$type" --num-slices "$slices" \
      --docker-image "${IMAGE:?set IMAGE to an image of launch/docker/tpu.Dockerfile; launch/gke.sh image pushes it}" \
      --max-restarts 20 --restart-on-exit-codes 1 \
      --command "python -m sftmix_jax.$(quoted "$@")"
    ;;
  logs)
    # all pods of all slices; without a limit of its own kubectl follows five at most
    run kubectl logs --follow --prefix --all-containers --max-log-requests 1024 \
      --selector "jobset.sigs.k8s.io/jobset-name=${1:?name the workload}"
    ;;
  stop) run xpk workload delete "${where[@]}" --workload "${1:?name the workload}" ;;
  delete) run xpk cluster delete "${where[@]}" ;;
  *) usage 2 ;;
esac
