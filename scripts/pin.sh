#!/bin/sh
# Pin what a list of direct requirements pulls in today.
# Usage: pin.sh IN OUT [PYTHON]
set -eu

in=$1
out=$2
python=${3:-/usr/bin/python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile -r "$in"
"$work/venv/bin/pip" check
{
    echo "# Made by 'make requirements' from $(basename "$in"). Edit that."
    "$work/venv/bin/pip" freeze
} >"$work/pinned"
mv "$work/pinned" "$out"
