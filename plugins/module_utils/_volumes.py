# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage pools and volumes: look up, create, grow, delete, and who uses what."""
from __future__ import annotations

import json
import os
import re
import struct
import threading
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError, error_code, is_gone
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

try:
    import libvirt
except ImportError:  # reported by _connection.require_libvirt
    pass

# Pools whose volumes are files below one directory, and those whose volumes are block devices below one.
_FILE_POOLS = ("dir", "fs", "netfs")
_BLOCK_POOLS = ("logical",)
_POOL_STATES = {0: "inactive", 1: "building", 2: "running", 3: "degraded", 4: "inaccessible"}


@dataclass
class Volume:
    """A volume as libvirt sees it. Sizes in bytes."""

    pool: str
    name: str
    path: str
    capacity: int
    allocation: int
    format: str = "raw"
    backing: Optional[str] = None
    handle: Any = None


class Pool:
    """One active storage pool, with what is asked of it often kept for the length of a run.

    Safe for use from several threads. Raises SpecError naming C(option) where there is no such pool or it is not active.
    """

    def __init__(self, conn: libvirt.virConnect, name: str, option: str = "pool") -> None:
        self.name, self.conn = name, conn
        self._lock = threading.Lock()
        self._refreshed = False
        try:
            self.handle = conn.storagePoolLookupByName(name)
        except libvirt.libvirtError as exc:
            if not is_gone(exc):
                raise
            known = sorted(p.name() for p in conn.listAllStoragePools())
            raise SpecError(option, name, "there is no such storage pool on this host",
                            "Use one of: {0}".format(", ".join(known) or "(none is defined; define one first)"), "unknown_pool") from None
        if not self.handle.isActive():
            raise SpecError(option, name, "the storage pool is not active", "Start it: virsh pool-start {0}".format(name), "pool_inactive")
        root = ET.fromstring(self.handle.XMLDesc())
        self.type = root.get("type", "dir")
        self.target = root.findtext("target/path") or ""

    @property
    def block(self) -> bool:
        """Whether its volumes are block devices."""
        return self.type in _BLOCK_POOLS

    def require_writable_type(self, option: str = "pool") -> None:
        """Raises SpecError for pool types in which the path of a new volume cannot be told beforehand."""
        if self.type not in _FILE_POOLS + _BLOCK_POOLS:
            raise SpecError(option, self.name, "volumes cannot be made in a pool of type {0}".format(self.type),
                            "Use a pool of type {0}".format(", ".join(_FILE_POOLS + _BLOCK_POOLS)))

    def path_of(self, volume: str) -> str:
        """The path a volume of that name has or will have."""
        return os.path.join(self.target, volume)

    def volumes(self) -> List[libvirt.virStorageVol]:
        """Handles of all volumes; none where the pool has been stopped or undefined since it was looked up."""
        try:
            return list(self.handle.listAllVolumes())
        except libvirt.libvirtError:
            if self.stopped():
                return []
            raise

    def stopped(self) -> bool:
        """Whether it has been stopped or undefined since it was looked up."""
        try:
            return not self.handle.isActive()
        except libvirt.libvirtError as exc:
            if is_gone(exc):
                return True
            raise

    def refresh(self, timeout_s: float = 30.0) -> None:
        """Let libvirt look at the directory anew. libvirt refuses while a volume is being made in the pool; then it is asked again until the deadline.

        Raises FleetError C(pool_busy) after C(timeout_s) seconds.
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while True:
                try:
                    self.handle.refresh()
                    break
                except libvirt.libvirtError as exc:
                    if "asynchronous jobs" not in str(exc):
                        raise
                    if time.monotonic() > deadline:
                        raise FleetError("Storage pool {0} is busy making volumes and cannot be looked at anew; try again later".format(self.name),
                                         "pool_busy") from exc
                time.sleep(0.05)
            self._refreshed = True

    def lookup(self, name: str, refresh: bool = False) -> Optional[libvirt.virStorageVol]:
        """libvirt's handle of a volume, or None. With C(refresh), a miss makes the pool look once whether the file came from elsewhere."""
        try:
            return self.handle.storageVolLookupByName(name)
        except libvirt.libvirtError as exc:
            if not is_gone(exc):
                raise
        if refresh and not self._refreshed:
            self.refresh()
            return self.lookup(name)
        return None

    def volume(self, name: str, refresh: bool = False) -> Optional[Volume]:
        """A volume with format and backing file, or None."""
        return self._ask(self.lookup(name, refresh), lambda handle: describe(self.name, handle))

    def capacity_of(self, name: str) -> Optional[int]:
        """Virtual size of a volume in bytes, or None where there is none: two calls, for looking at many."""
        return self._ask(self.lookup(name), lambda handle: handle.info()[1])

    def _ask(self, handle: Optional[libvirt.virStorageVol], question: Callable[[libvirt.virStorageVol], Any]) -> Any:
        """The answer, or None where the file was removed behind libvirt's back: then libvirt forgets the volume too, and its name is free."""
        if handle is None:
            return None
        try:
            return question(handle)
        except libvirt.libvirtError as exc:
            if not is_gone(exc):
                raise
        self.refresh()
        return None

    def free_bytes(self) -> int:
        """Bytes that are really free now. Of a directory the file system tells, without waiting for copies that are being made in the pool."""
        if self.type in _FILE_POOLS and os.path.isdir(self.target):
            system = os.statvfs(self.target)
            return system.f_bavail * system.f_frsize
        self.refresh()
        return self.handle.info()[3]

    def unknown_files(self) -> bool:
        """Whether files lie in a directory pool that libvirt has not seen yet."""
        if self.type not in _FILE_POOLS or not os.path.isdir(self.target):
            return False
        known = {handle.name() for handle in self.handle.listAllVolumes()}
        return any(name not in known and not name.startswith(".") and os.path.isfile(os.path.join(self.target, name)) for name in os.listdir(self.target))

    def refresh_if_possible(self) -> None:
        """L(refresh); but where a copy is being made in the pool, waits for it only if there are files that libvirt does not know."""
        try:
            self.refresh(timeout_s=0)
        except FleetError as exc:
            if exc.code != "pool_busy":
                raise
            if self.unknown_files():
                self.refresh()


def describe(pool: str, handle: libvirt.virStorageVol) -> Volume:
    """A Volume out of libvirt's handle."""
    root = ET.fromstring(handle.XMLDesc())
    form = root.find("target/format")
    kind = form.get("type", "raw") if form is not None else "raw"
    return Volume(pool=pool, name=handle.name(), path=root.findtext("target/path") or handle.path(), capacity=int(root.findtext("capacity") or 0),
                  allocation=int(root.findtext("allocation") or 0), format=kind if kind in ("qcow2", "raw", "iso") else kind,
                  backing=root.findtext("backingStore/path"), handle=handle)


def active_pools(conn: libvirt.virConnect) -> Iterator[Pool]:
    """All active pools; one that is stopped or undefined while they are listed is passed over."""
    for handle in conn.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        try:
            pool = Pool(conn, handle.name())
        except SpecError as exc:
            if exc.code not in ("unknown_pool", "pool_inactive"):
                raise
            continue
        except libvirt.libvirtError as exc:
            if is_gone(exc):
                continue
            raise
        yield pool


class Pools:
    """The pools of one connection, each looked up once."""

    def __init__(self, conn: libvirt.virConnect) -> None:
        self.conn = conn
        self._pools: Dict[str, Pool] = {}

    def get(self, name: str, option: str = "pool") -> Pool:
        """The pool of that name; raises SpecError naming C(option)."""
        if name not in self._pools:
            self._pools[name] = Pool(self.conn, name, option)
        return self._pools[name]


def find_image(pools: Pools, image: str, pool: Optional[str], option: str = "image") -> Volume:
    """The volume to put an overlay on or to clone: by absolute path or by name in a pool. Raises SpecError."""
    if image.startswith("/"):
        for attempt in range(2):
            try:
                handle = pools.conn.storageVolLookupByPath(image)
                return describe(handle.storagePoolLookupByVolume().name(), handle)
            except libvirt.libvirtError as exc:
                if not is_gone(exc):
                    raise
                if attempt == 0:
                    _refresh_pool_of(pools, image)
        raise SpecError(option, image, "is not a volume of an active storage pool", "Put the image into a pool (role base_image) and refresh the pool",
                        "unknown_image")
    if not pool:
        raise SpecError(option, image, "is given by name without a pool", "Give image_pool (or pool), or the absolute path")
    volume = pools.get(pool, "image_pool").volume(image, refresh=True)
    if volume is None:
        raise SpecError(option, image, "there is no such volume in pool {0}".format(pool),
                        "Fetch or build it first: role kvmfleet.core.base_image, playbook kvmfleet.core.base_image", "unknown_image")
    return volume


def _refresh_pool_of(pools: Pools, path: str) -> None:
    for handle in pools.conn.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        try:
            target = ET.fromstring(handle.XMLDesc()).findtext("target/path")
        except libvirt.libvirtError as exc:
            if is_gone(exc):
                continue
            raise
        if target and os.path.dirname(path) == target.rstrip("/"):
            pools.get(handle.name()).refresh()


def volume_xml(name: str, size: int, kind: str, backing: Optional[Volume] = None) -> str:
    """The XML of a new thin volume that only its owner can read; QEMU's user gets it from libvirt at start."""
    root = ET.Element("volume")
    ET.SubElement(root, "name").text = name
    ET.SubElement(root, "capacity").text = str(size)
    ET.SubElement(root, "allocation").text = "0"
    target = ET.SubElement(root, "target")
    ET.SubElement(target, "format", type=kind)
    permissions = ET.SubElement(target, "permissions")
    ET.SubElement(permissions, "mode").text = "0600"
    if backing is not None:
        store = ET.SubElement(root, "backingStore")
        ET.SubElement(store, "path").text = backing.path
        ET.SubElement(store, "format", type=backing.format)
    return ET.tostring(root, encoding="unicode")


def create(pool: Pool, name: str, size: int, kind: str, image: Optional[Volume] = None,
           clone: str = "overlay") -> libvirt.virStorageVol:
    """Make a volume and return its handle: empty, as overlay on an image, or as its full copy. A failed attempt leaves nothing behind.

    :param size: virtual size in bytes
    :param kind: C(qcow2) or C(raw)
    Raises FleetError with libvirt's reason, such as a full disk; C(volume_exists) where the name is taken.
    """
    if os.path.lexists(pool.path_of(name)):
        raise FleetError("Volume {0} in pool {1} exists already, and is not ours to replace".format(name, pool.name), "volume_exists")
    try:
        if image is not None and clone == "full":
            handle = pool.handle.createXMLFrom(volume_xml(name, max(size, image.capacity), kind), image.handle)
            if handle.info()[1] < size:
                handle.resize(size)
        else:
            handle = pool.handle.createXML(volume_xml(name, size, kind, image))
        return handle
    except libvirt.libvirtError as exc:
        if error_code(exc) != libvirt.VIR_ERR_STORAGE_VOL_EXIST:
            _remove_remains(pool, name)
        raise FleetError("Creating volume {0} in pool {1} failed: {2}".format(name, pool.name, one_line(exc)), "volume_failed") from exc


def _remove_remains(pool: Pool, name: str) -> None:
    """After a failed creation: libvirt removes what it made; where it did not (the copy was cut off), we do."""
    handle = pool.lookup(name, refresh=True)
    if handle is not None:
        handle.delete()


def one_line(exc: Exception) -> str:
    """libvirt's message without line breaks."""
    return re.sub(r"\s+", " ", str(exc)).strip()


@dataclass
class Usage:
    """Who uses which path: domain names by path, and the paths of overlays by that of their backing file."""

    domains: Dict[str, List[str]]
    overlays: Dict[str, List[str]]

    def why_needed(self, path: str) -> Optional[str]:
        """A sentence why a volume cannot be deleted, or None. A path is asked for as it is written and as it really is."""
        spellings = {path, os.path.realpath(path)}
        attached = {name for spelling in spellings for name in self.domains.get(spelling, [])}
        if attached:
            return "it is attached to {0}".format(", ".join(sorted(attached)))
        names = [os.path.basename(upper) for upper in sorted({upper for spelling in spellings for upper in self.overlays.get(spelling, [])})]
        if names:
            return "it is the backing file of {0}{1}".format(", ".join(names[:3]), " and {0} more".format(len(names) - 3) if len(names) > 3 else "")
        return None


def disk_paths(root: ET.Element) -> Set[str]:
    """All paths that a domain's XML names as disk sources or backing files."""
    paths = set()
    for source in root.iterfind("devices/disk//source"):
        for attribute in ("file", "dev"):
            if source.get(attribute):
                paths.add(source.get(attribute, ""))
    return paths


def usage(conn: libvirt.virConnect, known: Optional[Dict[str, List[ET.Element]]] = None) -> Usage:
    """Who uses which volume: every domain (running or not, ours or not) and every backing file in every active pool.

    :param known: the XML of all domains by name, where it has been read already
    """
    domains: Dict[str, List[str]] = {}
    targets = {pool.name: pool.target for pool in active_pools(conn)}
    if known is None:
        known = {domain.name(): definitions(domain) for domain in conn.listAllDomains()}
    for name, roots in known.items():
        for root in roots:
            paths = disk_paths(root)
            for source in root.iterfind("devices/disk/source"):
                if source.get("pool") in targets:  # what lies in an inactive pool is not to be deleted anyway
                    paths.add(os.path.join(targets[source.get("pool", "")], source.get("volume", "")))
            outside = [path for path in paths if os.path.dirname(path) not in targets.values()]
            for path in list(paths) + [below for upper in outside for below in backing_chain(upper)]:
                domains.setdefault(os.path.realpath(path), []).append(name)
                domains.setdefault(path, []).append(name)
    return Usage(domains, overlays(conn))


def backing_chain(path: str) -> List[str]:
    """The files below a qcow2 image, as far as they can be read; libvirt tells them of running domains and of volumes only."""
    chain: List[str] = []
    while True:
        below = _backing_of(path)
        if below is None or below in chain:
            return chain
        chain.append(below)
        path = below


def virtual_size(path: str) -> Optional[int]:
    """Bytes that a guest sees of a qcow2 image; None where it cannot be read or is none."""
    try:
        with open(path, "rb") as stream:
            magic, size = struct.unpack(">4s20xQ", stream.read(32).ljust(32, b"\0"))
    except OSError:
        return None
    return int(size) if magic == b"QFI\xfb" else None


def _backing_of(path: str) -> Optional[str]:
    try:
        with open(path, "rb") as stream:
            magic, _version, offset, length = struct.unpack(">4sIQI", stream.read(20).ljust(20, b"\0"))
            if magic != b"QFI\xfb" or not offset or length > 4096:
                return None
            stream.seek(offset)
            name = stream.read(length).decode("utf-8", "surrogateescape")
    except OSError:
        return None  # gone, a device without a medium, or not ours to read
    return _backing_path(name, os.path.dirname(path))


def _backing_path(name: str, folder: str) -> Optional[str]:
    """The path that an image in C(folder) means by the name of its backing file."""
    if name.startswith("json:"):
        try:
            options = json.loads(name[5:])
        except ValueError:
            return None
        while isinstance(options, dict) and isinstance(options.get("file"), dict):
            options = options["file"]
        name = str(options.get("filename") or options.get("file.filename") or "") if isinstance(options, dict) else ""
    name = name[5:] if name.startswith("file:") else name
    return os.path.join(folder, name) if name else None


def definitions(domain: libvirt.virDomain) -> List[ET.Element]:
    """A domain's persistent and running XML; nothing where it has gone since it was listed."""
    try:
        flags = [libvirt.VIR_DOMAIN_XML_INACTIVE] if domain.isPersistent() else []
        if domain.isActive():
            flags.append(0)
        return [ET.fromstring(domain.XMLDesc(flag)) for flag in flags]
    except libvirt.libvirtError as exc:
        if is_gone(exc):
            return []
        raise


def overlays(conn: libvirt.virConnect) -> Dict[str, List[str]]:
    """The paths of overlays by that of their backing file (as it is written, and as it really is), in all pools."""
    found: Dict[str, List[str]] = {}
    for pool in active_pools(conn):
        try:
            pool.refresh_if_possible()
        except libvirt.libvirtError:
            if pool.stopped():
                continue  # by somebody else, meanwhile; where it is still defined it is looked at below
            raise
        for handle in pool.volumes():
            try:
                volume = describe(pool.name, handle)
            except libvirt.libvirtError as exc:
                if is_gone(exc) or pool.stopped():
                    continue
                raise
            backing = _backing_path(volume.backing, pool.target) if volume.backing else None
            if backing:
                found.setdefault(os.path.realpath(backing), []).append(volume.path)
                found.setdefault(backing, []).append(volume.path)
    for handle in conn.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE):
        for path, backing in _sleeping_overlays(handle):
            found.setdefault(os.path.realpath(backing), []).append(path)
            found.setdefault(backing, []).append(path)
    return found


def _sleeping_overlays(handle: libvirt.virStoragePool) -> Iterator[Tuple[str, str]]:
    """Path and backing file of each overlay in a pool that is not active, as far as its folder can be read: libvirt does not know what is in there."""
    try:
        folder = ET.fromstring(handle.XMLDesc()).findtext("target/path") or ""
    except libvirt.libvirtError as exc:
        if is_gone(exc):
            return
        raise
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) and os.access(folder, os.R_OK) else []:
        path = os.path.join(folder, name)
        backing = _backing_of(path) if os.path.isfile(path) else None
        if backing:
            yield path, backing


def domains_using(conn: libvirt.virConnect, path: str) -> Iterable[Any]:
    """Active domains that have a disk at C(path), with the target name of that disk."""
    real = os.path.realpath(path)
    targets = {pool.name: pool.target for pool in active_pools(conn)}
    for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        for disk in ET.fromstring(domain.XMLDesc()).iterfind("devices/disk"):
            source, target = disk.find("source"), disk.find("target")
            if source is None or target is None:
                continue
            named = source.get("file") or source.get("dev") or ""
            if source.get("pool"):
                named = os.path.join(targets.get(source.get("pool", ""), ""), source.get("volume", ""))
            if named and os.path.realpath(named) == real:
                yield domain, target.get("dev")
