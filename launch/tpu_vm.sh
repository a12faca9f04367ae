#!/usr/bin/env bash
# A TPU slice of Cloud TPU VMs, one step at a time; each command is printed.
#   launch/tpu_vm.sh create | setup | run CONFIG WORKDIR [FLAG...] | delete
# Environment: NAME, ZONE, TYPE (v5litepod-16), VERSION (runtime), SPOT=1, MOUNT
# (command that mounts the folder of the workdir on a host, for `setup`),
# DRY_RUN=1 to print only. `run` stays with the run and ends with its status.
set -euo pipefail

usage="usage: NAME=... ZONE=... $0 create|setup|run CONFIG WORKDIR [FLAG...]|delete"
step=${1:?$usage}
: "${NAME:?$usage}" "${ZONE:?$usage}"
TYPE=${TYPE:-v5litepod-16}
VERSION=${VERSION:-v2-alpha-tpuv5-lite}
root=$(cd "$(dirname "$0")/.." && pwd)
tpu=(gcloud compute tpus tpu-vm)

say() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  if [[ -z ${DRY_RUN:-} ]]; then "$@"; fi
}

# The same command on every host of the slice; JAX finds the others.
everywhere() {
  say "${tpu[@]}" ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

# The files that git knows or does not ignore, as they are here.
pack() {
  git -C "$root" ls-files --cached --others --exclude-standard -z |
    while IFS= read -r -d '' file; do
      if [[ -e $root/$file ]]; then printf '%s\0' "$file"; fi
    done | tar --directory="$root" --null --files-from=- -czf "$1"
}

case $step in
create)
  spot=()
  if [[ -n ${SPOT:-} ]]; then spot=(--spot); fi
  say "${tpu[@]}" create "$NAME" --zone="$ZONE" --accelerator-type="$TYPE" \
    --version="$VERSION" "${spot[@]}"
  ;;
setup)
  archive=$(mktemp --suffix=.tar.gz)
  trap 'rm -f "$archive"' EXIT
  changed=$(git -C "$root" status --short)
  if [[ -n $changed ]]; then
    printf 'sent as they are here, not as in the last commit:\n%s\n' \
      "$changed" >&2
  fi
  say pack "$archive"
  say "${tpu[@]}" scp "$archive" "$NAME:nashmd.tar.gz" --zone="$ZONE" \
    --worker=all
  # The runtime's own Python can be older than 3.11.
  everywhere "set -e; mkdir -p nashmd; tar -xzf nashmd.tar.gz -C nashmd
cd nashmd; python3 -m pip install --quiet --user uv
python3 -m uv venv --quiet --python 3.12 .venv
python3 -m uv pip install --quiet --python .venv/bin/python -c requirements.lock -e '.[tpu]'
${MOUNT:-}"
  ;;
run)
  config=${2:?$usage}
  workdir=${3:?$usage}
  shift 3
  flags=$(printf ' %q' "--config=$config" "--workdir=$workdir" "$@")
  everywhere "cd nashmd && exec .venv/bin/python -m nashmd_jax.main$flags"
  ;;
delete)
  say "${tpu[@]}" delete "$NAME" --zone="$ZONE" --quiet
  ;;
*)
  echo "$usage" >&2
  exit 2
  ;;
esac
