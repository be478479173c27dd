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

# A command that installs this checkout with these extras into .venv of the folder that it runs in, on a machine of any
# Python: system images of TPUs have 3.10.
install_command() {
  printf '%s' "python3 -m pip install -q uv && python3 -m uv venv -q --allow-existing --python 3.12 .venv && \
python3 -m uv pip install -q --python .venv/bin/python -c constraints.txt '.[$1]'"
}
