# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The storage pools of a host: folders, LVM volume groups and NFS exports. Nothing is ever formatted, and no pool is moved."""
from __future__ import annotations

import dataclasses
import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError, is_gone
from ansible_collections.kvmfleet.core.plugins.module_utils._host_objects import Step, converged, found, running
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

try:
    import libvirt
except ImportError:  # reported by _connection.require_libvirt
    pass

POOL_TYPES = ("dir", "logical", "netfs")
# What each type is made of; its path is the last thing to be said of a folder and of a mount point.
_SOURCES = {"dir": (), "logical": ("volume_group",), "netfs": ("server", "export")}
_FOLDER_MODE = 0o711


@dataclass(frozen=True)
class PoolSpec:
    """A storage pool. What is None is not said: an existing pool is taken as it is. C(default_path) is for one that does not exist yet."""

    name: str
    type: Optional[str] = None
    path: Optional[str] = None
    volume_group: Optional[str] = None
    server: Optional[str] = None
    export: Optional[str] = None
    autostart: bool = True
    default_path: Optional[str] = None

    @property
    def kind(self) -> str:
        """The type: as it is said, else as it follows from the source."""
        return self.type or next((kind for kind, options in _SOURCES.items() if any(getattr(self, o) for o in options)), "dir")

    @property
    def target(self) -> Optional[str]:
        """Where its volumes are to be found, as far as it is said."""
        if self.kind == "logical":
            return "/dev/{0}".format(self.volume_group) if self.volume_group else None
        return _normal(self.path)


def _normal(path: Optional[str]) -> Optional[str]:
    return "/" + os.path.normpath(path).lstrip("/") if path else None  # POSIX lets normpath leave two slashes alone


def _same_place(one: Optional[str], other: Optional[str]) -> bool:
    return bool(one and other and os.path.realpath(one) == os.path.realpath(other))


def check_pool(spec: PoolSpec) -> None:
    """Raises SpecError for options that do not go together."""
    for kind, options in _SOURCES.items():
        for option in options:
            if getattr(spec, option) and kind != spec.kind:
                raise SpecError(option, getattr(spec, option), "is not for a pool of type {0}".format(spec.kind), "Leave it out, or use type {0}".format(kind))
    for option in ("path", "default_path", "export"):
        value = getattr(spec, option)
        if value and not os.path.isabs(value):
            raise SpecError(option, value, "has to be an absolute path", "Begin it with /")
    if spec.volume_group and ("/" in spec.volume_group or spec.volume_group.startswith((".", "-"))):
        raise SpecError("volume_group", spec.volume_group, "is not the name of a volume group", "Give its name as vgs shows it")
    if spec.path and spec.kind == "logical":
        raise SpecError("path", spec.path, "is not for a pool of type logical, whose volumes are in /dev", "Leave it out")


def require_whole(spec: PoolSpec) -> None:
    """Raises SpecError where it is not said what a new pool is made of. Nothing is guessed: a wrong guess would be somebody else's data."""
    remedy = {"path": "Give the folder", "volume_group": "Name a volume group that exists", "server": "Name the NFS server",
              "export": "Give the folder as the server exports it"}
    for option in _SOURCES[spec.kind] + (() if spec.kind == "logical" else ("path",)):
        if not getattr(spec, option):
            raise SpecError(option, None, "is missing: pool {0} does not exist yet, and it is not said what it shall be".format(spec.name), remedy[option])


def pool_xml(spec: PoolSpec) -> str:
    """libvirt's definition of a new pool."""
    root = ET.Element("pool", type=spec.kind)
    ET.SubElement(root, "name").text = spec.name
    if spec.kind == "logical":
        source = ET.SubElement(root, "source")
        ET.SubElement(source, "name").text = spec.volume_group
        ET.SubElement(source, "format", type="lvm2")
    elif spec.kind == "netfs":
        source = ET.SubElement(root, "source")
        ET.SubElement(source, "host", name=str(spec.server))
        ET.SubElement(source, "dir", path=str(spec.export))
        ET.SubElement(source, "format", type="nfs")
    ET.SubElement(ET.SubElement(root, "target"), "path").text = spec.target
    return ET.tostring(root, encoding="unicode")


def observed(xml: str) -> PoolSpec:
    """What an existing pool is; C(path) is its target whatever its type."""
    root = ET.fromstring(xml)
    host, folder = root.find("source/host"), root.find("source/dir")
    return PoolSpec(str(root.findtext("name")), root.get("type"), root.findtext("target/path"),
                    root.findtext("source/name") if root.get("type") == "logical" else None,
                    None if host is None else host.get("name"), None if folder is None else folder.get("path"))


def require_same(spec: PoolSpec, there: PoolSpec) -> None:
    """Raises SpecError where an existing pool is not the one that is asked for."""
    known = "pool {0} exists, has type {1} and is at {2}".format(
        there.name, there.type, there.path) + ("" if not there.export else ", from {0}:{1}".format(there.server, there.export))
    pairs: List[Tuple[str, Optional[str], Optional[str]]] = [
        ("path", _normal(spec.path), _normal(there.path)), ("volume_group", spec.volume_group, there.volume_group), ("server", spec.server, there.server),
        ("export", _normal(spec.export), _normal(there.export))]
    said = [(option, wanted) for option, wanted, seen in pairs if wanted and wanted != seen]
    if not said and spec.type and spec.type != there.type:
        said = [("type", spec.type)]
    elif not said and spec.path and there.type != spec.kind:
        said = [("path", spec.path)]
    for option, wanted in said:
        raise SpecError(option, wanted, known, "Choose another name, or correct the {0}; a pool is not moved".format(option.replace("_", " ")), "pool_differs")


class PoolConverger:
    """One storage pool on its way to what is wanted. Raises SpecError."""

    def __init__(self, conn: Any, spec: PoolSpec) -> None:
        check_pool(spec)
        self.conn, self.spec = conn, spec
        self.handle = found(conn.storagePoolLookupByName, spec.name)
        self.there: Optional[PoolSpec] = None
        if self.handle is not None:
            self.there = observed(self.handle.XMLDesc())
            require_same(spec, self.there)
        elif spec.kind != "logical" and not spec.path:
            self.spec = dataclasses.replace(spec, path=spec.default_path)

    def present(self, check: bool) -> Dict[str, Any]:
        """Make it defined, active and started at boot; the module's result."""
        spec = self.spec
        steps: List[Step] = []
        target = self.there.path if self.there else spec.target
        kind = self.there.type if self.there else spec.kind
        before = dict({"path": target}, **running(self.handle)) if self.handle is not None else {}
        if self.handle is None:
            require_whole(spec)
            self._require_free_source()
            if target and os.path.exists(target) and not os.path.isdir(target):
                raise SpecError("path", target, "is there and is not a folder", "Choose another path")
            steps.append(("define pool {0}".format(spec.name), self._define))
        if kind != "logical" and target and not os.path.isdir(target):
            steps.append(("make folder {0}".format(target), lambda: _make_folder(str(target))))
        if not before.get("active"):
            steps.append(("start pool {0}".format(spec.name), self._start))
        if before.get("autostart", False) != spec.autostart:
            steps.append(("set autostart of pool {0} to {1}".format(spec.name, spec.autostart),
                          lambda: self.handle.setAutostart(int(spec.autostart))))  # type: ignore[union-attr]
        return converged(before, {"path": target, "active": True, "autostart": spec.autostart}, steps, check)

    def absent(self, check: bool) -> Dict[str, Any]:
        """Make it gone, unless there is something in it; the module's result. An empty folder goes too; volume groups, exports and mount points stay."""
        if self.handle is None or self.there is None:
            return converged({}, {}, [], check)
        path, kind = self.there.path, self.there.type
        before = dict({"path": path}, **running(self.handle))
        content = self._content(self.there, self.handle, bool(before["active"]))
        if content:
            raise SpecError("name", self.spec.name, "the pool at {0} is not empty: {1}{2}".format(
                path, ", ".join(content[:5]), " ..." if len(content) > 5 else ""), "Delete the VMs and volumes in it first", "pool_not_empty")
        steps: List[Step] = []
        if before["active"]:
            steps.append(("stop pool {0}".format(self.spec.name), self.handle.destroy))
        if self.handle.isPersistent():
            steps.append(("undefine pool {0}".format(self.spec.name), self.handle.undefine))
        if kind == "dir" and path and os.path.isdir(path) and not os.path.islink(path):
            steps.append(("remove folder {0}".format(path), lambda: os.rmdir(str(path))))
        return converged(before, {}, steps, check)

    @staticmethod
    def _content(there: PoolSpec, handle: Any, active: bool) -> List[str]:
        """What is in the pool. In a folder all that lies there counts, not what libvirt has noticed of it: a part of a download is somebody's too."""
        if there.type == "dir" or (there.type == "netfs" and active):
            return sorted(os.listdir(there.path)) if there.path and os.path.isdir(there.path) else []
        return sorted(handle.listVolumes()) if active else []

    def _require_free_source(self) -> None:
        """Raises SpecError where another pool has this source already, or the volume group does not exist."""
        spec = self.spec
        for other in self.conn.listAllStoragePools():
            try:
                there = observed(other.XMLDesc())
            except libvirt.libvirtError as exc:
                if is_gone(exc):
                    continue
                raise
            same = (spec.kind == there.type and (spec.volume_group, spec.server, spec.export) == (there.volume_group, there.server, there.export)
                    if spec.kind != "dir" else False)
            if same or _same_place(spec.target, there.path):
                option = (_SOURCES[spec.kind] or ("path",))[-1]
                raise SpecError(option, getattr(spec, option), "is that of pool {0} already, and would be given out twice".format(there.name),
                                "Use that pool, or another source", "pool_source_in_use")
        if spec.kind == "logical" and spec.volume_group not in self._volume_groups():
            raise SpecError("volume_group", spec.volume_group, "there is no such LVM volume group on this host; none is ever made here",
                            "Make it (pvcreate and vgcreate), or name one of: {0}".format(", ".join(self._volume_groups()) or "(there is none)"),
                            "unknown_volume_group")

    def _volume_groups(self) -> List[str]:
        try:
            sources = ET.fromstring(self.conn.findStoragePoolSources("logical", None, 0))
        except libvirt.libvirtError as exc:
            raise SpecError("volume_group", self.spec.volume_group, "libvirt cannot look for volume groups ({0})".format(" ".join(str(exc).split())),
                            "Install lvm2", "unsupported") from None
        return sorted({name.text or "" for name in sources.iterfind("source/name")})

    def _define(self) -> None:
        self.handle = self.conn.storagePoolDefineXML(pool_xml(self.spec), libvirt.VIR_STORAGE_POOL_DEFINE_VALIDATE)

    def _start(self) -> None:
        """Start it; a pool that was defined just now and does not start is undefined again."""
        handle: Any = self.handle
        try:
            handle.create()
        except libvirt.libvirtError as exc:
            if self.there is None:
                handle.undefine()
            raise FleetError("Pool {0} does not start: {1}".format(self.spec.name, " ".join(str(exc).split())), "pool_not_started") from None


def _make_folder(path: str) -> None:
    os.makedirs(path, exist_ok=True)
    os.chmod(path, _FOLDER_MODE)
