#!/usr/bin/env bash
# Makes the virtual environment .venv from the locked requirements, with uv, on a machine that has nothing but Python.
# Does nothing when it is there and the requirements have not changed.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.requirements
want=$(cat requirements-dev.txt pyproject.toml | sha256sum | cut -d' ' -f1)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
  exit 0
fi

python=""
for name in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
  if [ -n "$name" ] && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$(command -v "$name")
    break
  fi
done
if [ -z "$python" ]; then
  echo "regcred needs Python 3.11 or newer: install it, or set PYTHON to its path" >&2
  exit 1
fi

uv=$(command -v uv || true)
if [ -z "$uv" ]; then
  uv=.tool/bin/uv
  if [ ! -x "$uv" ]; then
    echo "Installing uv into .tool ..."
    rm -rf .tool
    if ! "$python" -m venv .tool >/dev/null 2>&1; then
      # Debian keeps ensurepip in a package of its own.
      if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing the Debian package python3-venv ..."
        apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
        "$python" -m venv .tool
      else
        echo "$python cannot make virtual environments: install the package python3-venv" >&2
        exit 1
      fi
    fi
    .tool/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
  fi
fi

# The system's own certificates: many networks have a CA of theirs there.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" UV_NATIVE_TLS="${UV_NATIVE_TLS:-1}"

echo "Installing the locked requirements into .venv (the first time takes a minute) ..."
"$uv" venv --quiet --allow-existing --python "$python" .venv
"$uv" pip sync --quiet --python .venv/bin/python --require-hashes requirements-dev.txt
"$uv" pip install --quiet --python .venv/bin/python --no-deps --editable .
echo "$want" > "$stamp"
