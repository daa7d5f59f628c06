#!/usr/bin/env bash
# The Debian image of the demo and the tests: built once, kept in $KVMFLEET_CACHE (default /var/cache/kvmfleet/images). Prints its path.
# Usage: build-image.sh [--into FOLDER] [--name NAME:TAG] [--suite SUITE] [--mirror URL]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
"$here/packages.sh" image
"$here/link.sh"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo "--preserve-env=KVMFLEET_CACHE,KVMFLEET_MIRROR,http_proxy,https_proxy,no_proxy")
fi
# Python's byte code of a checkout that belongs to somebody else is not root's to write
exec "${as_root[@]}" env PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$here/build_image.py" "$@"
