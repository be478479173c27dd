# What the launchers share; sourced, not run.
# shellcheck shell=bash

# Show a command; with --dry-run that is all.
run() {
  printf '+ ' >&2
  printf '%q ' "$@" >&2
  printf '\n' >&2
  if [[ -z "${DRY_RUN:-}" ]]; then "$@"; fi
}

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# The prose at the head of a launcher, as its help.
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit "${1:-0}"
}

# The arguments of a command as one line for another machine's shell.
quoted() {
  printf '%q ' "$@"
}
