#!/usr/bin/env bash
# TPU slices of a GKE cluster through xpk: one or several slices, one run.
#
#   launch/gke.sh [--dry-run] create CLUSTER               a cluster with SLICES slices of TPU_TYPE
#   launch/gke.sh [--dry-run] run CLUSTER NAME VERB [ARGS…]
#   launch/gke.sh [--dry-run] logs CLUSTER NAME | stop CLUSTER NAME | delete CLUSTER
#
#   PROJECT and ZONE (required), TPU_TYPE (v5litepod-16), SLICES (1), IMAGE (a base image, by default launch/docker/tpu)
#
# With several slices the data axis goes across them, and FSDP stays within each.
# Cost: the cluster's machines from create to delete; xpk queues workloads and restarts them after a preemption.
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
  create) run xpk cluster create "${where[@]}" --tpu-type "$type" --num-slices "$slices" ;;
  run)
    [[ $# -ge 2 ]] || usage 2
    name=$1
    shift
    [[ "$*" == *gs://* ]] || fail "the hosts share no disk: put the workdir on gs:// (--workdir gs://BUCKET/FOLDER)"
    run xpk workload create "${where[@]}" --workload "$name" --tpu-type "$type" --num-slices "$slices" \
      --docker-image "${IMAGE:-gcr.io/$PROJECT/sftmix-tpu}" --max-restarts 100 \
      --command "python -m sftmix_jax.$(quoted "$@")"
    ;;
  logs) run kubectl logs --follow --selector "jobset.sigs.k8s.io/jobset-name=${1:?name the workload}" --container jax-tpu ;;
  stop) run xpk workload delete "${where[@]}" --workload "${1:?name the workload}" ;;
  delete) run xpk cluster delete "${where[@]}" ;;
  *) usage 2 ;;
esac
