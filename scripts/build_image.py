# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build an image of the local inventory's catalog into the cache, with nothing but Python's standard library; print its path."""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".ansible" / "collections"))

from ansible_collections.kvmfleet.core.plugins.module_utils import _image_build  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._image_files import ImageError, copy_sparse, part_file, publish  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._images import DEFAULT_CACHE, image_from_entry  # noqa: E402


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="debian:12", help="name:tag of the image")
    parser.add_argument("--suite", default="bookworm", help="Debian release")
    parser.add_argument("--mirror", default=os.environ.get("KVMFLEET_MIRROR", ""), help="Debian mirror; default is mmdebstrap's")
    parser.add_argument("--into", help="also copy the image into this folder, and print that path")
    arguments = parser.parse_args()
    image = image_from_entry(arguments.name, {"source": "build", "suite": arguments.suite})
    try:
        path = _image_build.cached(image, os.environ.get("KVMFLEET_CACHE") or DEFAULT_CACHE, arguments.mirror)
        if arguments.into:
            target = os.path.join(arguments.into, image.volume_name())
            if not os.path.exists(target):
                with part_file(target) as part:
                    copy_sparse(path, part)
                    publish(part, target)
            path = target
    except ImageError as exc:
        print("kvmfleet: {0}".format(exc), file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
