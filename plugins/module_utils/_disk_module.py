# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converge one stand-alone volume: behind vm_disk."""
from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from ansible_collections.kvmfleet.core.plugins.module_utils import _admission, _image_stock, _progress, _volume_job, _volumes
from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import Policy, records
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import MIB, SpecError, check_volume_name, parse_size
from ansible_collections.kvmfleet.core.plugins.module_utils._volumes import Pool, Pools, Volume, find_image


class DiskConverger:
    """One volume of a pool on its way to what is wanted. Raises SpecError or FleetError."""

    def __init__(self, conn: Any, uri: str, params: Mapping[str, Any], policy: Policy) -> None:
        self.conn, self.uri, self.params, self.policy = conn, uri, params, policy
        self.name = check_volume_name("name", params["name"])
        self.size: Optional[int] = None
        if params.get("size") is not None:
            self.size = parse_size("size", params["size"], minimum=MIB)
            if self.size % 512:
                raise SpecError("size", params["size"], "is not a whole number of 512-byte sectors", "Use MiB or GiB")
        if params["state"] == "absent":
            for option in ("size", "image", "format"):
                if params.get(option) is not None:
                    raise SpecError(option, params[option], "is given together with state=absent", "To delete, give pool and name only")
        elif params.get("clone") == "full" and not params.get("image"):
            raise SpecError("clone", "full", "there is no image to clone", "Give image, or leave clone out")
        self.pools = Pools(conn)
        self.pool: Pool = self.pools.get(params["pool"])

    def run(self, check: bool) -> Dict[str, Any]:
        """Plan and, unless C(check), apply; the module's result."""
        if self.params["state"] == "absent":
            return self._absent(check)
        return self._present(check)

    def _absent(self, check: bool) -> Dict[str, Any]:
        volume = self.pool.volume(self.name, refresh=True)
        result: Dict[str, Any] = {"changed": volume is not None, "actions": [], "volume": None}
        if volume is None:
            return result
        result["actions"] = ["delete volume {0}".format(self.name)]
        result["diff"] = {"before": _facts(volume), "after": {}}
        with _admission.host_lock(self.uri):
            reason = _volumes.usage(self.conn).why_needed(volume.path) or _image_stock.claimed(self.conn, self.name)
            if reason:
                raise SpecError("name", self.name, "the volume cannot be deleted: {0}".format(reason), "Detach or delete that first", "volume_in_use")
            if not check:
                _volume_job.delete_patiently(self.pool, self.name)
        return result

    def _plan(self, volume: Optional[Volume]) -> Optional[_volume_job.VolumeJob]:
        params = self.params
        if volume is not None:
            if params.get("format") and volume.format != params["format"]:
                raise SpecError("format", params["format"], "the volume exists and is {0}; formats are not converted".format(volume.format),
                                "Leave format as it was, or use another name")
            if params.get("image") and params["clone"] == "overlay":
                wanted = find_image(self.pools, params["image"], params.get("image_pool") or self.pool.name)
                if volume.backing != wanted.path:
                    raise SpecError("image", params["image"], "the volume exists and lies on {0}".format(volume.backing or "no image"), "Use another name")
            elif params.get("image"):
                self.pool.refresh()  # waits for a copy that libvirt is still making, perhaps for a run that has died
            return _volume_job.plan_existing(self.pool, self.name, self.name, self.size, volume.capacity)
        image = find_image(self.pools, params["image"], params.get("image_pool") or self.pool.name) if params.get("image") else None
        if image is not None and params["clone"] == "overlay" and params.get("format") == "raw":
            raise SpecError("format", "raw", "an overlay is always qcow2", "Use clone: full, or format: qcow2")
        return _volume_job.plan_new(self.pool, self.name, self.name, self.size, params.get("format"), image, params["clone"])

    def _present(self, check: bool) -> Dict[str, Any]:
        volume = self.pool.volume(self.name, refresh=True)
        job = self._plan(volume)
        result: Dict[str, Any] = {"changed": job is not None, "actions": [job.sentence] if job else [], "volume": _facts(volume) if volume else None}
        if job is None:
            return result
        before = _facts(volume) if volume else {}
        after = dict(before, size_bytes=job.size)
        if volume is None:
            after.update(name=self.name, pool=self.pool.name, format=job.format, path=self.pool.path_of(self.name),
                         backing=job.image.path if job.image and job.clone == "overlay" else None)
        result["diff"] = {"before": before, "after": after}
        with _admission.host_lock(self.uri):
            demand = _admission.Demand(self.name, pools={self.pool.name: job.size - job.old_size})
            _admission.check_room(self.conn, records(self.conn), self.policy, self.pools, [demand])
            if check:
                result["volume"] = after
                return result
            _progress.say(self.name, job.progress)
            if job.verb == "create" and job.clone == "overlay":
                _volume_job.apply(job, self.conn)
        if job.verb != "create" or job.clone != "overlay":
            _volume_job.apply(job, self.conn)
        found = self.pool.volume(self.name)
        if found is None or found.capacity < job.size:
            raise FleetError("Volume {0} is not as it was asked for after the change".format(self.name), "residue")
        result["volume"] = _facts(found)
        return result


def _facts(volume: Volume) -> Dict[str, Any]:
    return {"name": volume.name, "pool": volume.pool, "path": volume.path, "size_bytes": volume.capacity, "format": volume.format, "backing": volume.backing}
