# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan and apply for one volume: create it or let it grow. Used for vm_disk and for every disk of a VM."""
from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import Optional

from ansible_collections.kvmfleet.core.plugins.module_utils import _volumes
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError, is_gone
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, format_size, human_size
from ansible_collections.kvmfleet.core.plugins.module_utils._volumes import Pool, Volume

try:
    import libvirt
except ImportError:  # reported by _connection.require_libvirt
    pass


@dataclass
class VolumeJob:
    """What is to be done to one volume. Sizes in bytes; C(verb) is create or grow.

    C(redo): a volume of that name may be there already, left unfinished by an interrupted run, and has to go first.
    """

    verb: str
    disk: str
    pool: Pool
    name: str
    size: int
    format: str = "qcow2"
    image: Optional[Volume] = None
    clone: str = "overlay"
    old_size: int = 0
    redo: bool = False
    foreign: bool = False  # the name turned out to be taken by somebody else: undoing must not touch it

    @property
    def sentence(self) -> str:
        """What it does, for people."""
        if self.verb == "grow":
            return "grow disk {0} from {1} to {2}".format(self.disk, format_size(self.old_size), format_size(self.size))
        origin = ""
        if self.image is not None:
            origin = ", {0} of {1}".format("overlay" if self.clone == "overlay" else "full copy", self.image.name)
        return "create disk {0} in pool {1}: {2} {3}{4}".format(self.disk, self.pool.name, format_size(self.size), self.format, origin)

    def progress(self) -> str:
        """How far it is: of a copy, what has been written."""
        if self.verb == "create" and self.clone == "full" and self.image is not None:
            with contextlib.suppress(OSError):
                written = os.stat(self.pool.path_of(self.name)).st_blocks * 512
                return "{0}: {1} written".format(self.sentence, human_size(written))
        return self.sentence


def plan_new(pool: Pool, name: str, disk: str, size: Optional[int], kind: Optional[str], image: Optional[Volume], clone: str,
             prefix: str = "") -> VolumeJob:
    """A volume that does not exist yet. Raises SpecError where it cannot be made.

    :param size: virtual size in bytes; None takes the image's
    :param kind: qcow2, raw, or None for what suits the pool
    :param prefix: what stands before the option names in messages
    """
    pool.require_writable_type(prefix + "pool")
    kind = kind or ("raw" if pool.block else "qcow2")
    if pool.block and kind != "raw":
        raise SpecError(prefix + "format", kind, "pool {0} gives out block devices".format(pool.name), "Use format: raw (and clone: full with an image)")
    if image is not None and clone == "overlay" and pool.block:
        raise SpecError(prefix + "clone", clone, "pool {0} gives out block devices, which can be no overlays".format(pool.name), "Use clone: full")
    if size is None:
        if image is None:
            raise SpecError(prefix + "size", None, "is missing", "Give a size such as 10GiB, or an image")
        size = image.capacity
    if image is not None and size < image.capacity:
        raise SpecError(prefix + "size", format_size(size), "is smaller than the image {0}, which needs {1}".format(image.name, human_size(image.capacity)),
                        "Ask for at least {0}".format(format_size(image.capacity)), "image_too_big")
    if image is not None and clone == "full":
        free = pool.free_bytes()
        if image.capacity > free:
            raise SpecError(prefix + "clone", clone, "a full copy of {0} takes up to {1}, and pool {2} has {3} free".format(
                image.name, human_size(image.capacity), pool.name, human_size(free)), "Use clone: overlay, free room, or use another pool", "no_capacity")
    return VolumeJob("create", disk, pool, name, size, kind, image, clone)


def plan_existing(pool: Pool, name: str, disk: str, size: Optional[int], capacity: int, prefix: str = "") -> Optional[VolumeJob]:
    """A volume that exists with C(capacity) bytes: None, or its growth. Raises SpecError where it would have to shrink."""
    if size is None or size == capacity:
        return None
    if size < capacity:
        raise SpecError(prefix + "size", format_size(size), "the disk has {0} already, and disks are never shrunk".format(format_size(capacity)),
                        "Ask for at least {0}, or make a new disk".format(format_size(capacity)), "shrink")
    return VolumeJob("grow", disk, pool, name, size, old_size=capacity)


def apply(job: VolumeJob, conn: libvirt.virConnect) -> None:
    """Carry out a job. Raises FleetError; a failed creation leaves nothing behind."""
    if job.verb == "create":
        if job.redo:
            delete_patiently(job.pool, job.name)
        try:
            _volumes.create(job.pool, job.name, job.size, job.format, job.image, job.clone)
        except FleetError as exc:
            job.foreign = exc.code == "volume_exists"
            raise
        return
    path = job.pool.path_of(job.name)
    running = list(_volumes.domains_using(conn, path))
    if running:
        for domain, target in running:
            domain.blockResize(target, job.size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
        job.pool.refresh()
    else:
        handle = job.pool.lookup(job.name)
        if handle is None:
            raise FleetError("Volume {0} in pool {1} vanished before it could grow".format(job.name, job.pool.name), "volume_failed")
        handle.resize(job.size)
    now = job.pool.capacity_of(job.name)
    if now is None or now < job.size:
        raise FleetError("Volume {0} in pool {1} has {2} bytes after growing, {3} were asked for".format(job.name, job.pool.name, now, job.size),
                         "residue")


def delete_patiently(pool: Pool, name: str, timeout_s: float = 60.0) -> bool:
    """Remove a volume, waiting while libvirt is still filling it for a run that has died. Returns whether there was one."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            handle = pool.lookup(name)
            if handle is None and os.path.lexists(pool.path_of(name)):
                pool.refresh()
                handle = pool.lookup(name)
                if handle is None and os.path.lexists(pool.path_of(name)):
                    raise FleetError("Deleting volume {0} in pool {1} failed: libvirt does not take what lies at {2} for a volume. Look at it, and "
                                     "remove it".format(name, pool.name, pool.path_of(name)), "volume_failed")
            if handle is None:
                return False
            handle.delete()
            return True
        except libvirt.libvirtError as exc:
            if is_gone(exc):
                return False
            if "still being allocated" not in str(exc) and "in use" not in str(exc):
                raise FleetError("Deleting volume {0} in pool {1} failed: {2}".format(name, pool.name, _volumes.one_line(exc)), "volume_failed") from exc
            if time.monotonic() >= deadline:
                raise FleetError("Volume {0} in pool {1} is still in use: {2}".format(name, pool.name, _volumes.one_line(exc)), "volume_busy") from exc
        time.sleep(0.1)
