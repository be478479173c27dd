#!/usr/bin/env bash
# Several processes on this machine, as on a pod: to try out what a pod will do.
#
#   launch/local.sh [--dry-run] [-n PROCESSES] [-d DEVICES] VERB [ARGUMENTS…]
#   launch/local.sh -n 2 train --config quickstart.py --workdir runs/local
#
# Each process has DEVICES CPU devices (1); together they are one run. Only process 0 prints. When one ends, all end;
# Ctrl-C and SIGTERM reach all of them, and the same command goes on.
# Cost: nothing; it is slower than one process, as they share the cores.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/common.sh"

processes=2 devices=1
while [[ $# -gt 0 ]]; do
  case "$1" in
    --dry-run) DRY_RUN=1; shift ;;
    -n) processes=$2; shift 2 ;;
    -d) devices=$2; shift 2 ;;
    -h | --help) usage ;;
    *) break ;;
  esac
done
[[ $# -gt 0 ]] || usage 2

port=${PORT:-$((20000 + RANDOM % 10000))}
python=${PYTHON:-$here/../.venv/bin/python}
pids=()
# shellcheck disable=SC2317 # called by the trap
stop() {
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
}
trap stop TERM INT

for ((index = 0; index < processes; index++)); do
  command=(env "JAX_COORDINATOR_ADDRESS=127.0.0.1:$port" "JAX_NUM_PROCESSES=$processes" "JAX_PROCESS_ID=$index"
    JAX_PLATFORMS=cpu "XLA_FLAGS=--xla_force_host_platform_device_count=$devices ${XLA_FLAGS:-}"
    "$python" -m "sftmix_jax.$1" "${@:2}")
  if [[ -n "${DRY_RUN:-}" ]]; then run "${command[@]}"; continue; fi
  "${command[@]}" &
  pids+=($!)
done

code=0
for pid in "${pids[@]}"; do
  until wait "$pid"; do
    ended=$?
    kill -0 "$pid" 2>/dev/null && continue # a signal to this script ended `wait`, not the process: ask again
    [[ $code -ne 0 ]] || code=$ended
    break
  done
done
exit "$code"
