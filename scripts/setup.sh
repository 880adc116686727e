#!/usr/bin/env bash
# Builds the virtual environment .venv at the repository's root: torch first (of one kind), then everything else,
# at the versions of constraints.txt. Called by `make setup`, which skips it while nothing it depends on has changed.
#
#   PYTHON  the interpreter to build on (default python3; 3.11 or 3.12)
#   TORCH   cpu (default) | cu126 | cu128 | cu130 | auto. `cpu` never installs a CUDA build.
#   EXTRAS  of pyproject.toml (default dev)
set -euo pipefail
cd "$(dirname "$0")/.."

readonly TORCH_VERSION="2.13.0"
readonly TORCH="${TORCH:-cpu}"
readonly EXTRAS="${EXTRAS:-dev}"
readonly PY=.venv/bin/python

say() { printf '%s\n' "setup: $*"; }
fail() {
  printf '%s\n' "setup: $*" >&2
  exit 2
}

is_supported() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.12 python3.11; do
    if is_supported "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "Python 3.11 or 3.12 is needed; '${PYTHON:-python3}' is $("${PYTHON:-python3}" --version 2>&1 || true)." \
    "Install one, or name it: make setup PYTHON=/path/to/python3.12"
}

make_venv() {
  if is_supported "$PY"; then return; fi
  local python
  python="$(find_python)"
  say "creating .venv on $("$python" --version)"
  rm -rf .venv
  "$python" -m venv .venv || fail "python -m venv failed (on Debian and Ubuntu: apt-get install python3-venv)"
}

pip() { "$PY" -m pip --disable-pip-version-check "$@"; }

# The installed torch's version with its local part, say 2.13.0+cpu; empty without torch. Read without importing it.
torch_version() {
  "$PY" -c 'from importlib.metadata import distributions
print(next((d.version for d in distributions(name="torch")), ""))'
}

# A PyPI build carries no "+cpu" in its name although, outside Linux on x86, it is one: ask the metadata, not the name.
wants_cuda() {
  "$PY" -c 'from importlib.metadata import requires
import sys
sys.exit(not any(r.startswith(("nvidia-", "triton", "cuda-")) for r in requires("torch") or ()))'
}

has_wanted_torch() {
  local version
  version="$(torch_version)"
  [ "${version%%+*}" = "$TORCH_VERSION" ] || return 1
  case "$TORCH" in
    cpu) ! wants_cuda ;;
    auto) return 1 ;;
    *) [ "${version#*+}" = "$TORCH" ] ;;
  esac
}

uv_torch() {
  [ -x .venv/bin/uv ] || pip install -q -c constraints.txt uv
  .venv/bin/uv pip install --python "$PY" --torch-backend="$TORCH" --reinstall-package torch "$@" "torch==$TORCH_VERSION"
}

install_torch() {
  if has_wanted_torch; then return; fi
  say "installing torch $TORCH_VERSION ($TORCH)"
  if [ "$TORCH" != cpu ]; then
    uv_torch -c constraints.txt || fail "no torch $TORCH_VERSION for TORCH=$TORCH (one of cpu, cu126, cu128, cu130, auto)"
    return
  fi
  pip install -q -c constraints.txt "torch==$TORCH_VERSION+cpu" 2>/dev/null ||
    { say "pip's indexes carry no +cpu build; asking PyTorch's own index through uv" && uv_torch --no-deps; } ||
    fail "no CPU build of torch $TORCH_VERSION found. Give pip a place that has one" \
      "(PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL), then run make setup again. A CUDA build is never installed instead."
  has_wanted_torch || fail "TORCH=cpu, but torch $(torch_version) wants CUDA packages: not going on"
}

install_rest() {
  local pinned
  pinned="$(torch_version)"
  say "installing the project and its packages ($EXTRAS)"
  printf 'torch==%s\n' "$pinned" >.venv/.torch-constraint
  pip install -q -c constraints.txt -c .venv/.torch-constraint -e ".[$EXTRAS]" ||
    fail "pip could not install the packages of pyproject.toml at the versions of constraints.txt (see above)"
  [ "$(torch_version)" = "$pinned" ] || fail "torch $pinned was replaced by $(torch_version)"
  pip check || fail "the environment is inconsistent: remove .venv and run make setup again"
}

case "$TORCH" in
  cpu | auto | cu126 | cu128 | cu130) ;;
  *) fail "TORCH=$TORCH: expected cpu, cu126, cu128, cu130 or auto" ;;
esac
make_venv
install_torch
install_rest
printf '%s\n' "$TORCH" >.venv/.torch-choice
say "done: $("$PY" --version), torch $(torch_version)"
