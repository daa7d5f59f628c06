#!/usr/bin/env bash
# Run a command with libvirtd running. Where it did not run before, the last of the commands that are run so at the same time ends it.
# Usage: with-libvirtd.sh COMMAND [ARGUMENT...]
set -euo pipefail

libvirtd=$(dirname "$0")/libvirtd.sh
lock=/run/lock/kvmfleet-libvirtd-$UID
mark=$lock.started

# Whoever needs libvirtd holds the lock shared; who gets it alone afterwards was the last
leave() {
    if [ -e "$mark" ] && flock --exclusive --nonblock 9; then
        "$libvirtd" stop 9>&-
        rm -f "$mark"
    fi
}

exec 9>>"$lock"
flock --shared 9
(
    # Two at once must not both start it
    flock 8
    if ! "$libvirtd" status >/dev/null 8>&- 9>&-; then
        "$libvirtd" start 8>&- 9>&-
        touch "$mark"
    fi
) 8>>"$lock.start"
trap leave EXIT
# In the foreground: a signal to the group reaches the command, and libvirtd is there until its clean-up is done
"$@" 9>&-
