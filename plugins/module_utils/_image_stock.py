# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that a pool holds: which there are, who needs them, and the removal of one that nobody needs."""
from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import _admission, _volume_job, _volumes
from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import records
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._image_files import ImageError, abandoned
from ansible_collections.kvmfleet.core.plugins.module_utils._images import Image, is_image_volume, may_hold
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.module_utils._volumes import Pool


def _shared(pool: Pool) -> Optional[str]:
    """Why this host alone cannot tell that nothing needs an image, or None."""
    return "pool {0} is on a file server, and disks of other hosts may lie on it".format(pool.name) if pool.type == "netfs" else None


def _in_the_making(conn: Any) -> List[Tuple[str, str]]:
    """VM and image of each VM that is being made at this moment and may have no disk yet."""
    return [(r.name, r.metadata.image) for r in records(conn) if r.metadata and r.metadata.phase in ("pending", "building") and r.metadata.image]


def _claim(making: List[Tuple[str, str]], volume: str) -> Optional[str]:
    return next(("VM {0} is being made of image {1}".format(name, image) for name, image in making if may_hold(volume, image)), None)


def claimed(conn: Any, volume: str) -> Optional[str]:
    """Why a volume has to stay although no disk lies on it yet, or None. By name: which volume an image is in is the control node's knowledge."""
    return _claim(_in_the_making(conn), volume) if is_image_volume(volume) else None


def stock(conn: Any, pool: Pool) -> List[Dict[str, Any]]:
    """The images of a pool by name, each with C(needed): why it cannot be removed, or None. Neither disks nor ISOs nor files of others are among them."""
    pool.refresh_if_possible()
    usage, making = _volumes.usage(conn), _in_the_making(conn)
    found = []
    for handle in pool.volumes():
        name = handle.name()
        if is_image_volume(name):
            path = pool.path_of(name)
            found.append({"volume": name, "pool": pool.name, "volume_path": path, "size_bytes": handle.info()[2],
                          "needed": usage.why_needed(path) or _claim(making, name) or _shared(pool)})
    return sorted(found, key=lambda item: str(item["volume"]))


def remove(conn: Any, uri: str, pool: Pool, image: Image, check: bool) -> Dict[str, Any]:
    """Remove an image from a pool; the module's result. Raises SpecError C(image_in_use) while anything needs it."""
    volume, path = image.volume_name(), pool.path_of(image.volume_name())
    present = pool.lookup(volume, refresh=True) is not None
    try:
        rest = abandoned(path)
    except ImageError as exc:
        raise FleetError(str(exc), exc.code) from exc
    actions = ["remove image {0}, volume {1}".format(image.name, volume)] if present else []
    actions += ["remove what was received of image {0}".format(image.name)] if rest else []
    if present:
        with _admission.host_lock(uri):
            building = next((name for name, made_of in _in_the_making(conn) if made_of == image.name), None)
            reason = "VM {0} is being made of it".format(building) if building else _volumes.usage(conn).why_needed(path) or _shared(pool)
            if reason:
                raise SpecError("name", image.name, "volume {0} of pool {1} cannot be removed: {2}".format(volume, pool.name, reason),
                                "Delete what needs it first", "image_in_use")
            if not check:
                _volume_job.delete_patiently(pool, volume)
    if not check:
        for name in rest:
            os.unlink(name)
    return {"name": image.name, "volume": volume, "pool": pool.name, "volume_path": path, "present": False, "changed": bool(actions), "actions": actions,
            "diff": {"before": {"volume": volume if present else None}, "after": {"volume": None}}}
