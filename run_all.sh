#!/usr/bin/env bash
# Finds or makes an environment for normkit, then runs the workbook in it.
set -euo pipefail

usage() {
  cat <<'EOF'
./run_all.sh [options]          bring the notebooks and their figures up to date
./run_all.sh --test [words]     run the tests; the words go to pytest

  --profile NAME                smoke, quick (default), cifar10 or paper
  --only NOTEBOOK|CLAIM         only these; repeatable, or joined by commas
  --set NOTEBOOK.PARAM=VALUE    another value for a notebook's parameter; repeatable
  --jobs N                      train N runs at a time (default: as many as there are cores)
  --device auto|cpu|cuda        where to train
  --scheduler tcp://HOST:PORT   train on this Dask cluster (pip install -e '.[cluster]')
  --timeout SECONDS             that a cell of a notebook may take
  --force                       run what is up to date, too
  --list                        say what would run and why, runs, hours and disk; run nothing
  --test                        install what the tests need and run them
  --help                        this text

A notebook runs only if something changed that it depends on; the reason is printed. Runs that are
finished are kept in runs/, figures and the scoreboard of claims are in figures/PROFILE/.

Environment, the first of: an active one that has normkit from this folder; .venv in this folder;
a new .venv, made with uv where there is uv, else with venv and pip (Python 3.11 or newer).
On Linux without an NVIDIA GPU it gets a CPU build of torch if one can be reached.

  NORMKIT_TORCH_INDEX           package index for torch and torchvision, such as one of CPU builds
  NORMKIT_DATA                  folder of the data sets (default: the user's cache folder)
  NORMKIT_RUNS, NORMKIT_FIGURES where runs and figures go (default: runs and figures here)
EOF
}

say() { printf 'run_all.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

this_folder() {
  local file=${BASH_SOURCE[0]} target
  while [ -L "$file" ]; do
    target=$(readlink "$file")
    case $target in
      /*) file=$target ;;
      *) file=$(dirname "$file")/$target ;;
    esac
  done
  (cd "$(dirname "$file")" && pwd -P)
}

# Prints the requirements that a Python lacks, a line each, and "normkit" if it does not have the
# one of this folder. Fails if the Python does not work or is older than 3.11.
lacks() {
  (cd / && "$1" - "$ROOT" "$EXTRA" 2>/dev/null) <<'EOF'
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

root, extra = Path(sys.argv[1]), sys.argv[2]
project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def numbers(text):
    return [int(number) for number in re.findall(r"\d+", text)]


def lacking(need):
    name, least = re.match(r"([\w.-]+)(?:>=([\d.]+))?", need).groups()
    try:
        return numbers(version(name)) < numbers(least or "0")
    except PackageNotFoundError:
        return True


needs = project["dependencies"] + project["optional-dependencies"].get(extra, [])
missing = [need for need in needs if lacking(need)]
if any(need.startswith("torch") for need in missing):
    missing = [need for need in needs if need.startswith("torch") or need in missing]
print(*missing, sep="\n")
spec = find_spec("normkit")
if spec is None or spec.origin is None or Path(spec.origin).resolve().parent.parent != root:
    print("normkit")
EOF
}

has_normkit() {
  local missing
  missing=$(lacks "$1") && [[ $'\n'$missing$'\n' != *$'\nnormkit\n'* ]]
}

has_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; }

# install PYTHON words...: with uv, else (or if uv cannot) with pip.
install() {
  local python=$1
  shift
  if [ -n "$UV" ]; then
    uv pip install ${QUIET:+"$QUIET"} --python "$python" "$@" >&2 && return
    say "uv could not install (see above); trying pip"
  fi
  "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null 2>&1 ||
    die "there is no pip in $python; install pip there, or uv"
  "$python" -m pip install ${QUIET:+-qq} "$@" >&2
}

imports_torch() { "$1" -c 'import torch, torchvision' >/dev/null 2>&1; }

prefers_cpu() {
  [ "$(uname -s)" = Linux ] && ! has_gpu && [ -z "${UV_TORCH_BACKEND:-}" ]
}

# torch and torchvision are built for one another, so both come from the same place.
install_torch() {
  local python=$1 size="0.3 GB more"
  shift
  if [ -n "${NORMKIT_TORCH_INDEX:-}" ]; then
    say "torch: from $NORMKIT_TORCH_INDEX (NORMKIT_TORCH_INDEX)"
    if install "$python" --index-url "$NORMKIT_TORCH_INDEX" "$@" && imports_torch "$python"; then
      return
    fi
    say "torch cannot be had from there; taking the default build"
  elif prefers_cpu; then
    say "torch: no NVIDIA GPU here, so the CPU build (download about 0.3 GB)"
    if cpu_torch "$python" "$@" && imports_torch "$python"; then
      return
    fi
    say "the CPU build cannot be had; NORMKIT_TORCH_INDEX could name an index that has it"
  fi
  if [ "$(uname -s)" = Linux ]; then
    size="2.7 GB or more, 5.4 GB unpacked, if it is the CUDA build"
  fi
  say "torch: the default build (download about $size)"
  install "$python" "$@"
  imports_torch "$python" && return
  say "torch and torchvision do not fit together; installing both again"
  install "$python" --force-reinstall "$@"
  imports_torch "$python" || die "torch cannot be imported: try $python -c 'import torch'"
}

# Only uv knows where CPU builds are, so without one on the PATH the environment gets its own. The
# trial run finds out within seconds whether the builds can be reached.
cpu_torch() {
  local python=$1 uv=$UV
  shift
  if [ -z "$uv" ]; then
    install "$python" uv || return 1
    uv=$(dirname "$python")/uv
  fi
  UV_HTTP_TIMEOUT=10 UV_HTTP_RETRIES=0 "$uv" pip install --quiet --dry-run --python "$python" \
    --torch-backend cpu "$@" >/dev/null 2>&1 || return 1
  "$uv" pip install ${QUIET:+"$QUIET"} --python "$python" --torch-backend cpu "$@" >&2
}

# complete PYTHON: installs what it lacks.
complete() {
  local python=$1 missing torch rest
  missing=$(lacks "$python") || die "$python does not work, or is older than 3.11"
  [ -n "$missing" ] || return 0
  say "it lacks: $(printf '%s' "$missing" | tr '\n' ' ')"
  torch=$(printf '%s\n' "$missing" | grep '^torch' || true)
  rest=$(printf '%s\n' "$missing" | grep -v -e '^torch' -e '^normkit$' || true)
  # A requirement has no spaces: a word each.
  # shellcheck disable=SC2086
  if [ -n "$torch" ]; then install_torch "$python" $torch; fi
  if [ -n "$rest" ]; then
    say "the other packages (download about 0.3 GB if it is all of them)"
    # shellcheck disable=SC2086
    install "$python" $rest
  fi
  has_normkit "$python" || install "$python" --no-deps --editable "$ROOT"
  missing=$(lacks "$python")
  [ -z "$missing" ] || die "still missing in $python: $(printf '%s' "$missing" | tr '\n' ' ')"
}

find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
  done
  die "there is no Python 3.11 or newer on the PATH; install one, or uv, and start again"
}

make_venv() {
  local python
  if [ -e "$ROOT/.venv" ]; then
    say "$ROOT/.venv does not work; making it anew"
    rm -rf "$ROOT/.venv"
  fi
  if [ -n "$UV" ] && uv venv --quiet --python '>=3.11' "$ROOT/.venv" >&2; then
    say "made $ROOT/.venv with uv"
    return
  fi
  python=$(find_python) || exit 1
  "$python" -m venv "$ROOT/.venv" >&2 ||
    die "$python cannot make an environment; on Debian and Ubuntu install python3-venv"
  say "made $ROOT/.venv with $python"
}

# Sets PYTHON.
find_environment() {
  local candidate
  for candidate in "${VIRTUAL_ENV:-/nowhere}/bin/python" "${CONDA_PREFIX:-/nowhere}/bin/python" \
    "$(command -v python || true)" "$(command -v python3 || true)"; do
    if [ -x "$candidate" ] && has_normkit "$candidate"; then
      PYTHON=$candidate
      say "environment: $PYTHON (active)"
      return
    fi
  done
  PYTHON=$ROOT/.venv/bin/python
  lacks "$PYTHON" >/dev/null || make_venv
  say "environment: $PYTHON"
}

check_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --profile | --only | --set | --jobs | --device | --scheduler | --timeout)
        [ $# -gt 1 ] || die "$1 takes a value; see ./run_all.sh --help"
        shift
        ;;
      --profile=* | --only=* | --set=* | --jobs=* | --device=*) ;;
      --scheduler=* | --timeout=* | --force | --list) ;;
      --test) die "--test comes first; the words after it go to pytest" ;;
      *) die "there is no option '$1'; see ./run_all.sh --help" ;;
    esac
    shift
  done
}

for word in "$@"; do
  case $word in -h | --help) usage; exit ;; esac
done
case ${1:-} in
  --test) EXTRA="test"; shift ;;
  *) EXTRA=""; check_options "$@" ;;
esac
ROOT=$(this_folder)
UV=$(command -v uv || true)
QUIET=$([ -t 2 ] || echo --quiet)  # a terminal gets the installers' progress
find_environment
complete "$PYTHON"
cd "$ROOT"
if [ "$EXTRA" = test ]; then
  if "$PYTHON" -c 'import xdist' >/dev/null 2>&1; then
    set -- -n 2 --dist loadgroup "$@"
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # threads of two processes would wait for each other
  fi
  # As many processes as there are cores, so one thread each.
  OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} exec "$PYTHON" -m pytest -q "$@"
fi
exec "$PYTHON" -m normkit run "$@"
