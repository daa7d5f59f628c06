#!/usr/bin/env bash
# Run a command with libvirtd running, and end libvirtd afterwards if it did not run before.
# Usage: with-libvirtd.sh COMMAND [ARGUMENT...]
set -euo pipefail

libvirtd=$(dirname "$0")/libvirtd.sh
if "$libvirtd" status >/dev/null; then
    exec "$@"
fi

trap '"$libvirtd" stop' EXIT
# In the foreground: a signal to the group reaches the command, and libvirtd is there until its clean-up is done
"$libvirtd" start
"$@"
