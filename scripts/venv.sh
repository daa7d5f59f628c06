#!/bin/sh
# Make a virtual environment hold exactly what a pinned requirements file says; instant when it does already.
# Usage: venv.sh DIRECTORY REQUIREMENTS [PYTHON]
set -eu

cd "$(dirname "$0")/.."
venv=$1
requirements=$2
python=${3:-/usr/bin/python3}

# Two makes at once must not install into one folder together
mkdir -p .ansible
exec 9>".ansible/$(basename "$venv").lock"
flock 9

key=$({ "$python" --version; cat "$requirements"; } | sha256sum | cut -c1-16)
if [ "$(cat "$venv/.made-of" 2>/dev/null || true)" = "$key" ]; then
    exit 0
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "kvmfleet: $python is $("$python" --version 2>&1); ansible-core 2.19 needs 3.11 or later. Say which: make PYTHON=/path/to/python3.11" >&2
    exit 1
fi
# Made anew, so that nothing of an older set remains
rm -rf "$venv"
"$python" -m venv "$venv"
log=$venv/install.log
# pip would compile each file of the bundled collections, of which hardly any is ever run
if ! "$venv/bin/pip" install --disable-pip-version-check --no-input --no-compile -r "$requirements" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "kvmfleet: installing $requirements failed; all of it is in $log" >&2
    exit 1
fi
# Templates and test data among the packages are no valid Python: not an error of ours
"$venv/bin/python" -m compileall -q -j 0 -x '/site-packages/ansible_collections/' "$venv/lib" >>"$log" 2>&1 || true
"$venv/bin/pip" check >>"$log" || { tail -n 5 "$log" >&2; exit 1; }
echo "$key" >"$venv/.made-of"
