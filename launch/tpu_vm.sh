#!/usr/bin/env bash
# A TPU slice of Google Cloud as a queued resource: made, set up, run on all hosts, followed, made again, deleted.
#
#   launch/tpu_vm.sh [--dry-run] create NAME              ask for the slice and wait until it is there
#   launch/tpu_vm.sh [--dry-run] setup NAME               copy this checkout to all hosts and install it
#   launch/tpu_vm.sh [--dry-run] run NAME VERB [ARGS…]    start a command on all hosts, in the background
#   launch/tpu_vm.sh [--dry-run] logs NAME                follow host 0
#   launch/tpu_vm.sh [--dry-run] stop NAME                SIGTERM to the command on all hosts: it saves and ends
#   launch/tpu_vm.sh [--dry-run] keep NAME VERB [ARGS…]   all of the above, again after each preemption, to the end
#   launch/tpu_vm.sh [--dry-run] delete NAME              give it back
#
#   ZONE (us-central2-b), ACCELERATOR (v4-32), RUNTIME (by ACCELERATOR), SPOT=1 for preemptible capacity
#
# keep takes what there is: a slice that is there or asked for, what is installed on it, and the same command if it runs
# there already. It goes on while gcloud does not answer, and ends once the command has ended with code 0 or 2 (bad
# input), or three times at the same checkpoint.
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
accelerator=${ACCELERATOR:-v4-32}
patience=${PATIENCE:-30} # seconds between looks
attempts=5               # of an action of keep that fails, one after the other
# shellcheck disable=SC2016 # expanded on the host
alive='[ -f pid ] && kill -0 -- "-$(cat pid)" 2>/dev/null' # on a host, in sftmix: whether a command runs there

# The system image that a kind of chip wants.
runtime() {
  case "$accelerator" in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    tpu7x-* | v7x-*) fail "ACCELERATOR=$accelerator is to be had through GKE alone: launch/gke.sh" ;;
    *) fail "ACCELERATOR=$accelerator: no runtime version is known for it; set RUNTIME" ;;
  esac
}

# The state of the request: ACTIVE, …; MISSING where there is none; UNKNOWN where gcloud does not say.
state() {
  local said errors
  errors=$(mktemp)
  if said=$(gcloud compute tpus queued-resources describe "$name" --zone "$zone" --format 'value(state.state)' 2>"$errors"); then
    echo "${said:-UNKNOWN}"
  elif grep -qiE 'not[_ ]found' "$errors"; then
    echo MISSING
  else
    head -n 3 "$errors" >&2
    echo UNKNOWN
  fi
  rm -f "$errors"
}

ask() {
  local spot=()
  [[ -z "${SPOT:-}" ]] || spot=(--spot)
  run gcloud compute tpus queued-resources create "$name" --node-id "$name" --zone "$zone" \
    --accelerator-type "$accelerator" --runtime-version "$version" "${spot[@]}"
}

create() {
  ask
  [[ -z "${DRY_RUN:-}" ]] || return 0
  local now
  while now=$(state) && [[ "$now" != ACTIVE ]]; do
    [[ "$now" != FAILED ]] || fail "the request for $name failed; see gcloud compute tpus queued-resources describe $name"
    echo "$name: $now" >&2
    sleep "$patience"
  done
}

everywhere() {
  run gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker all --command "$1"
}

setup() {
  local archive
  archive=$(mktemp -d)/sftmix.tar.gz
  run git -C "$here/.." archive --format tar.gz --output "$archive" HEAD || return
  run gcloud compute tpus tpu-vm scp "$archive" "$name:sftmix.tar.gz" --zone "$zone" --worker all || return
  everywhere "mkdir -p sftmix && tar -xzf sftmix.tar.gz -C sftmix && cd sftmix && $(install_command tpu,gcs) && touch installed"
}

check() {
  [[ $# -gt 0 ]] || usage 2
  [[ "$*" == *gs://* ]] || fail "the hosts share no disk: put the workdir on gs:// (--workdir gs://BUCKET/FOLDER)"
}

start() {
  local command words
  words=$(quoted "$@")
  command="echo \$\$ > pid; .venv/bin/python -m sftmix_jax.$words; echo \$? > exit_code; rm pid"
  everywhere "cd sftmix && if $alive; then echo 'a command runs here already: launch/tpu_vm.sh stop $name' >&2; exit 3; fi; \
rm -f exit_code pid; echo $(quoted "$words") > command; (setsid nohup bash -c $(quoted "$command") > log 2>&1 < /dev/null &)"
}

stop() {
  everywhere "cd sftmix && if $alive; then kill -TERM -- \"-\$(cat pid)\"; fi; for _ in \$(seq 600); do $alive || break; sleep 1; done; \
if $alive; then kill -KILL -- \"-\$(cat pid)\"; fi; rm -f pid"
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" --zone "$zone" --force --quiet
}

# Host 0: bare (not installed), idle, running, other (runs another command), or `ended CODE MARK`. The mark changes with
# the checkpoint that the command began from. Fails where the host does not answer.
look() {
  local words end
  words=$(quoted "$(quoted "$@")")
  end="echo \"ended \$(cat exit_code) \$(grep -E 'goes on after step|done already' log | cksum | cut -d ' ' -f 1)\""
  gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker 0 --command "\
[ -f sftmix/installed ] || { echo bare; exit 0; }; cd sftmix; \
[ \"\$(cat command 2>/dev/null)\" = $words ] && same=yes || same=no; \
if $alive; then [ \$same = yes ] && echo running || echo other; \
elif [ -s exit_code ] && [ \$same = yes ]; then $end; \
else echo idle; fi" 2>/dev/null
}

keep() {
  local now found node code mark before='' same=0 failed=0 seen=''
  check "$@"
  if [[ -n "${DRY_RUN:-}" ]]; then create && setup && start "$@"; return; fi
  while true; do
    now=$(state)
    case "$now" in
      MISSING) try ask ;;
      FAILED) failed=$((failed + 1)); try delete ;;
      SUSPENDED) try delete ;;
      ACTIVE)
        if ! found=$(look "$@"); then
          node=$(gcloud compute tpus tpu-vm describe "$name" --zone "$zone" --format 'value(state)' 2>/dev/null || true)
          case "$node" in
            PREEMPTED | TERMINATED | STOPPED) now=$node; try delete ;;
            *) now="host 0 does not answer" ;;
          esac
        else
          case "$found" in
            bare) now="setting up"; try setup ;;
            idle) now="starting"; try start "$@" ;;
            running) now="running" failed=0 ;;
            other) fail "another command runs on $name; launch/tpu_vm.sh stop $name ends it" ;;
            'ended '*)
              read -r _ code mark <<<"$found"
              if [[ -z "$seen" && "$code" != 0 ]]; then mark="before"; fi # a former keep's: begun again, not counted
              case "$code" in
                0) echo "$name: done" >&2; return 0 ;;
                2) [[ "$mark" == before ]] || fail "the command refused its input; see launch/tpu_vm.sh logs $name" ;;
              esac
              if [[ "$mark" == "$before" ]]; then same=$((same + 1)); else same=1 before=$mark; fi
              [[ $same -lt 3 ]] ||
                fail "ended with code $code three times at the same checkpoint; see launch/tpu_vm.sh logs $name"
              now="ended with code $code; started again, it goes on"
              try stop && try start "$@"
              ;;
          esac
          seen=1
        fi
        ;;
      *) ;; # asked for, being made or taken away, or unknown: wait
    esac
    echo "$name: $now" >&2
    [[ $failed -lt $attempts ]] || fail "$name: what was tried last failed $attempts times; see above"
    sleep "$patience"
  done
}

# For keep: an action that may fail, and is then tried again at the next look.
try() {
  if "$@"; then return 0; fi
  failed=$((failed + 1))
  return 0
}

version=
case "$action" in create | keep) version=${RUNTIME:-$(runtime)} ;; esac
case "$action" in
  create | setup | stop | delete) "$action" ;;
  run) check "$@"; start "$@" ;;
  keep) keep "$@" ;;
  logs) run gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker 0 --command 'tail -n 100 -F sftmix/log' ;;
  *) usage 2 ;;
esac
