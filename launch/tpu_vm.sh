#!/usr/bin/env bash
# A TPU slice of Google Cloud as a queued resource: made, set up, run on all hosts, followed, made again, deleted.
#
#   launch/tpu_vm.sh [--dry-run] create NAME              ask for the slice and wait until it is there
#   launch/tpu_vm.sh [--dry-run] setup NAME               copy this checkout to all hosts and install it
#   launch/tpu_vm.sh [--dry-run] run NAME VERB [ARGS…]    start a command on all hosts, in the background
#   launch/tpu_vm.sh [--dry-run] logs NAME                follow host 0
#   launch/tpu_vm.sh [--dry-run] keep NAME VERB [ARGS…]   all of the above, again after each preemption, to the end
#   launch/tpu_vm.sh [--dry-run] delete NAME              give it back
#
#   ZONE (us-central2-b), ACCELERATOR (v4-32), RUNTIME (tpu-ubuntu2204-base), SPOT=1 for preemptible capacity
#
# The workdir must be on gs://, since hosts share nothing else. The project is gcloud's own (gcloud config set project).
# Cost: by chip and hour from the moment it is ACTIVE until it is deleted, whether it computes or not; spot capacity for
# about a third. `python -m sftmix_jax.plan` gives chip-hours and a price before.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/common.sh"

[[ "${1:-}" != --dry-run ]] || { DRY_RUN=1; shift; }
[[ $# -ge 2 ]] || usage 2
action=$1 name=$2
shift 2
zone=${ZONE:-us-central2-b}
patience=${PATIENCE:-30} # seconds between looks

state() {
  gcloud compute tpus queued-resources describe "$name" --zone "$zone" --format 'value(state.state)' 2>/dev/null || true
}

create() {
  local spot=()
  [[ -z "${SPOT:-}" ]] || spot=(--spot)
  run gcloud compute tpus queued-resources create "$name" --node-id "$name" --zone "$zone" \
    --accelerator-type "${ACCELERATOR:-v4-32}" --runtime-version "${RUNTIME:-tpu-ubuntu2204-base}" "${spot[@]}"
  [[ -z "${DRY_RUN:-}" ]] || return 0
  local now
  while now=$(state) && [[ "$now" != ACTIVE ]]; do
    [[ "$now" != FAILED ]] || fail "the request for $name failed; see gcloud compute tpus queued-resources describe $name"
    echo "$name: ${now:-asked for}" >&2
    sleep "$patience"
  done
}

everywhere() {
  run gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker all --command "$1"
}

setup() {
  local archive
  archive=$(mktemp -d)/sftmix.tar.gz
  run git -C "$here/.." archive --format tar.gz --output "$archive" HEAD
  run gcloud compute tpus tpu-vm scp "$archive" "$name:sftmix.tar.gz" --zone "$zone" --worker all
  everywhere "mkdir -p sftmix && tar -xzf sftmix.tar.gz -C sftmix && cd sftmix && \
python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt '.[tpu,gcs]'"
}

start() {
  [[ $# -gt 0 ]] || usage 2
  [[ "$*" == *gs://* ]] || fail "the hosts share no disk: put the workdir on gs:// (--workdir gs://BUCKET/FOLDER)"
  local command
  command=".venv/bin/python -m sftmix_jax.$(quoted "$@"); echo \$? > exit_code"
  everywhere "cd sftmix && rm -f exit_code && (setsid nohup bash -c $(quoted "$command") > log 2>&1 < /dev/null &)"
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" --zone "$zone" --force --quiet
}

# Until the command has ended with code 0: look, and when the slice is gone make it again.
keep() {
  [[ -n "$(state)" ]] || { create && setup && start "$@"; }
  [[ -z "${DRY_RUN:-}" ]] || return 0
  while true; do
    local now code
    now=$(state)
    case "$now" in
      ACTIVE)
        code=$(gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker 0 \
          --command 'cat sftmix/exit_code 2>/dev/null' 2>/dev/null || true)
        case "$code" in
          0) echo "$name: done" >&2; return 0 ;;
          2) fail "the command refused its input; see launch/tpu_vm.sh logs $name" ;;
          '') ;;
          *) echo "$name: ended with code $code; started again, it goes on" >&2; start "$@" ;;
        esac
        ;;
      SUSPENDED | SUSPENDING | FAILED)
        echo "$name: $now, made again" >&2
        delete && create && setup && start "$@"
        ;;
      '') create && setup && start "$@" ;;
    esac
    sleep "$patience"
  done
}

case "$action" in
  create | setup | delete) "$action" ;;
  run) start "$@" ;;
  keep) keep "$@" ;;
  logs) run gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker 0 --command 'tail -n 100 -F sftmix/log' ;;
  *) usage 2 ;;
esac
