#!/usr/bin/env bash
# Builds .venv-lerobot: an environment of its own with the real lerobot, which loads what `embodichain export lerobot`
# writes (tests/export/test_lerobot_client.py). It cannot share .venv: lerobot wants another torch and Python >= 3.12.
# Called by `make lerobot-client`; instant when it is there already.
#
#   LEROBOT_PYTHON  the interpreter to build on, 3.12 or 3.13 (default: the first one found)
set -euo pipefail
cd "$(dirname "$0")/.."

readonly LEROBOT_VERSION="0.6.1"
readonly TORCH_VERSION="2.10.0"
readonly TORCHVISION_VERSION="0.25.0"
readonly VENV=.venv-lerobot
readonly PY="$VENV/bin/python"

say() { printf '%s\n' "lerobot-client: $*"; }
fail() {
  printf '%s\n' "lerobot-client: $*" >&2
  exit 2
}

is_supported() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 12), (3, 13)))' >/dev/null 2>&1; }

find_python() {
  local candidate
  # pyenv's commands work only for the versions that it was told to use; those it has lie in its folder.
  for candidate in "${LEROBOT_PYTHON:-}" python3.12 python3.13 python3 "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[23]*/bin/python3; do
    if [ -n "$candidate" ] && is_supported "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "Python 3.12 or 3.13 is needed; none was found. Name one: make lerobot-client LEROBOT_PYTHON=/path/to/python3.12"
}

pip() { "$PY" -m pip --disable-pip-version-check "$@"; }

installed() { "$PY" -c "import sys; from importlib.metadata import version as v; sys.exit(v('lerobot') != '$LEROBOT_VERSION')" 2>/dev/null; }

install_torch() {
  local wanted=("torch==$TORCH_VERSION" "torchvision==$TORCHVISION_VERSION")
  pip install -q uv
  if "$VENV/bin/uv" pip install -q --python "$PY" --torch-backend=cpu "${wanted[@]}" 2>/dev/null; then return; fi
  say "PyTorch's own index of CPU builds cannot be reached: taking the build of pip's index, gigabytes with its libraries"
  pip install -q "${wanted[@]}" || fail "torch $TORCH_VERSION cannot be installed (see above)"
}

if installed; then
  say "lerobot $LEROBOT_VERSION is there"
  exit 0
fi
python="$(find_python)"
say "creating $VENV on $("$python" --version)"
rm -rf "$VENV"
"$python" -m venv "$VENV" || fail "python -m venv failed (on Debian and Ubuntu: apt-get install python3-venv)"
install_torch
pip install -q "lerobot[dataset]==$LEROBOT_VERSION" || fail "lerobot $LEROBOT_VERSION cannot be installed (see above)"
pip check || fail "the environment is inconsistent: remove $VENV and run make lerobot-client again"
say "done: $("$PY" --version), lerobot $LEROBOT_VERSION"
