#!/usr/bin/env bash
# Real hosts on this machine, for tests and for people: containers with systemd and sshd on bare Debian, each with two links.
# Usage: lab.sh up|down|status|start|stop [HOST...] [--name NAME] [--hosts N] [--suites LIST] [--network-system LIST] [--folder FOLDER] [--images]
#   up      make what is missing, start what is stopped, and wait until every host answers on SSH; prints the folder of the lab
#   down    remove the lab; the images stay in podman's store, as a cache, unless --images is given
#   status  one line for each host; exit code 0 when all of them answer
#   stop, start   the hosts named, as if by their power button; their disks stay, their links are new
# scripts/lab.py has the rest, and the reasons.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo "--preserve-env=KVMFLEET_LAB,KVMFLEET_MIRROR,http_proxy,https_proxy,no_proxy")
fi
# Python's byte code of a checkout that belongs to somebody else is not root's to write
exec "${as_root[@]}" env PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$here/lab.py" "$@"
