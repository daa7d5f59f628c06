# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has to have before there are VMs: storage pools that are folders, and libvirt networks. Defined, started, started at boot."""
from __future__ import annotations

import ipaddress
import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import is_gone
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

try:
    import libvirt
except ImportError:  # reported by _connection.require_libvirt
    pass

Step = Tuple[str, Callable[[], Any]]


@dataclass(frozen=True)
class PoolSpec:
    """A storage pool that is a folder. C(mode) is for the folder where it has to be made."""

    name: str
    path: Optional[str] = None
    mode: int = 0o711
    autostart: bool = True


@dataclass(frozen=True)
class NetworkSpec:
    """A libvirt network. Without C(address) an existing one is taken as it is."""

    name: str
    forward: str = "nat"
    address: Optional[str] = None
    dhcp: Optional[Tuple[str, str]] = None
    bridge: Optional[str] = None
    autostart: bool = True


# What libvirt itself ships as its network C(default).
STOCK_NETWORK = NetworkSpec("default", "nat", "192.168.122.1/24", ("192.168.122.2", "192.168.122.254"), "virbr0")


def _found(lookup: Callable[[str], Any], name: str) -> Optional[Any]:
    try:
        return lookup(name)
    except libvirt.libvirtError as exc:
        if not is_gone(exc):
            raise
        return None


def _result(before: Dict[str, Any], after: Dict[str, Any], steps: List[Step], check: bool) -> Dict[str, Any]:
    if not check:
        for _text, step in steps:
            step()
    return {"changed": bool(steps), "actions": [text for text, _step in steps], "diff": {"before": before, "after": after}}


def _running(handle: Optional[Any]) -> Dict[str, Any]:
    return {} if handle is None else {"active": bool(handle.isActive()), "autostart": bool(handle.autostart())}


class PoolConverger:
    """One folder pool on its way to what is wanted. Raises SpecError."""

    def __init__(self, conn: Any, spec: PoolSpec) -> None:
        self.conn, self.spec = conn, spec
        self.handle = _found(conn.storagePoolLookupByName, spec.name)

    def _path(self) -> Optional[str]:
        if self.handle is None:
            return None
        root = ET.fromstring(self.handle.XMLDesc())
        path = root.findtext("target/path")
        if self.spec.path and (root.get("type") != "dir" or os.path.normpath(path or "") != os.path.normpath(self.spec.path)):
            raise SpecError("path", self.spec.path, "pool {0} exists, has type {1} and is at {2}".format(self.spec.name, root.get("type"), path),
                            "Choose another name, or correct the path; a pool is not moved")
        return path

    def present(self, check: bool) -> Dict[str, Any]:
        """Make it defined, active and started at boot; the module's result."""
        spec, path = self.spec, self._path()
        before = dict({"path": path}, **_running(self.handle)) if self.handle is not None else {}
        steps: List[Step] = []
        if self.handle is None:
            if not spec.path or not os.path.isabs(spec.path):
                raise SpecError("path", spec.path, "has to be an absolute path, because pool {0} does not exist yet".format(spec.name), "Give the folder")
            path = os.path.normpath(spec.path)
            if os.path.exists(path) and not os.path.isdir(path):
                raise SpecError("path", path, "is there and is not a folder", "Choose another path")
            steps.append(("define pool {0}".format(spec.name), lambda: self._define(str(path))))
        if path and not os.path.isdir(path):
            steps.append(("make folder {0}".format(path), lambda: self._make_folder(str(path))))
        if not before.get("active"):
            steps.append(("start pool {0}".format(spec.name), lambda: self.handle.create()))  # type: ignore[union-attr]  # pylint: disable=unnecessary-lambda
        if before.get("autostart", False) != spec.autostart:
            steps.append(("set autostart of pool {0} to {1}".format(spec.name, spec.autostart),
                          lambda: self.handle.setAutostart(int(spec.autostart))))  # type: ignore[union-attr]
        return _result(before, {"path": path, "active": True, "autostart": spec.autostart}, steps, check)

    def absent(self, check: bool) -> Dict[str, Any]:
        """Make it gone, unless there is something in it; the module's result. The folder goes if it is empty."""
        path = self._path()
        if self.handle is None:
            return _result({}, {}, [], check)
        before = dict({"path": path}, **_running(self.handle))
        # What lies in the folder counts, not what libvirt has noticed of it: a part of a download is somebody's too.
        content = sorted(os.listdir(path)) if path and os.path.isdir(path) else []
        if content:
            raise SpecError("name", self.spec.name, "the pool's folder {0} is not empty: {1}{2}".format(
                path, ", ".join(content[:5]), " ..." if len(content) > 5 else ""), "Delete the VMs and volumes in it first", "pool_not_empty")
        steps: List[Step] = []
        if before["active"]:
            steps.append(("stop pool {0}".format(self.spec.name), self.handle.destroy))
        if self.handle.isPersistent():
            steps.append(("undefine pool {0}".format(self.spec.name), self.handle.undefine))
        if path and os.path.isdir(path):
            steps.append(("remove folder {0}".format(path), lambda: os.rmdir(str(path))))
        return _result(before, {}, steps, check)

    def _define(self, path: str) -> None:
        root = ET.Element("pool", type="dir")
        ET.SubElement(root, "name").text = self.spec.name
        target = ET.SubElement(root, "target")
        ET.SubElement(target, "path").text = path
        self.handle = self.conn.storagePoolDefineXML(ET.tostring(root, encoding="unicode"), 0)

    def _make_folder(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)
        os.chmod(path, self.spec.mode)


def check_network(spec: NetworkSpec) -> None:
    """Raises SpecError for addresses that do not go together."""
    if spec.address is None:
        if spec.dhcp:
            raise SpecError("dhcp", "-".join(spec.dhcp), "needs the network's own address", "Give address, such as 10.1.0.1/24")
        return
    try:
        own = ipaddress.ip_interface(spec.address)
    except ValueError:
        own = None
    if own is None or "/" not in spec.address:
        raise SpecError("address", spec.address, "is not an address with a prefix", "Write the host's address in the network, such as 10.1.0.1/24")
    for value in spec.dhcp or ():
        try:
            inside = ipaddress.ip_address(value) in own.network
        except ValueError:
            inside = False
        if not inside:
            raise SpecError("dhcp", value, "is not an address within {0}".format(own.network), "Give first and last address of the range")


class NetworkConverger:
    """One libvirt network on its way to what is wanted. Raises SpecError."""

    def __init__(self, conn: Any, spec: NetworkSpec) -> None:
        check_network(spec)
        self.conn, self.spec = conn, spec
        self.handle = _found(conn.networkLookupByName, spec.name)

    def present(self, check: bool) -> Dict[str, Any]:
        """Make it defined, active and started at boot; the module's result. An existing one is not reconfigured: guests hang on it."""
        spec = self.spec
        steps: List[Step] = []
        before: Dict[str, Any] = {}
        if self.handle is None:
            if spec.address is None and spec.forward != "none":
                if spec.name != STOCK_NETWORK.name:
                    raise SpecError("address", None, "network {0} does not exist yet, and it is not said what it shall be".format(spec.name),
                                    "Give address, such as 10.1.0.1/24, or forward: none")
                spec = STOCK_NETWORK
            steps.append(("define network {0}".format(spec.name), lambda: self._define(spec)))
        else:
            self._require_same()
            before = _running(self.handle)
        if not before.get("active"):
            steps.append((
                "start network {0}".format(spec.name),
                lambda: self.handle.create()))  # type: ignore[union-attr]  # pylint: disable=unnecessary-lambda
        if before.get("autostart", False) != self.spec.autostart:
            steps.append(("set autostart of network {0} to {1}".format(spec.name, self.spec.autostart),
                          lambda: self.handle.setAutostart(int(self.spec.autostart))))  # type: ignore[union-attr]
        return _result(before, {"active": True, "autostart": self.spec.autostart}, steps, check)

    def absent(self, check: bool) -> Dict[str, Any]:
        """Make it gone, unless a domain names it; the module's result."""
        if self.handle is None:
            return _result({}, {}, [], check)
        users = [d.name() for d in self.conn.listAllDomains()
                 if any(s.get("network") == self.spec.name for s in ET.fromstring(d.XMLDesc()).iterfind("devices/interface/source"))]
        if users:
            raise SpecError("name", self.spec.name, "is used by {0}".format(", ".join(sorted(users)[:5])), "Delete those VMs or their NICs first",
                            "network_in_use")
        before = _running(self.handle)
        steps: List[Step] = []
        if before["active"]:
            steps.append(("stop network {0}".format(self.spec.name), self.handle.destroy))
        if self.handle.isPersistent():
            steps.append(("undefine network {0}".format(self.spec.name), self.handle.undefine))
        return _result(before, {}, steps, check)

    def _require_same(self) -> None:
        spec = self.spec
        if spec.address is None or self.handle is None:
            return
        root = ET.fromstring(self.handle.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))
        forward = root.find("forward")
        mode = "none" if forward is None else forward.get("mode", "nat")
        addresses = [_interface(element) for element in root.iterfind("ip")]
        if mode != spec.forward or ipaddress.ip_interface(spec.address) not in addresses:
            raise SpecError("address", spec.address, "network {0} exists with forward {1} and {2}".format(
                spec.name, mode, ", ".join(str(a) for a in addresses) or "no address"),
                "Choose another name, or correct address and forward; a network that guests may be on is not changed")

    def _define(self, spec: NetworkSpec) -> None:
        root = ET.Element("network")
        ET.SubElement(root, "name").text = spec.name
        if spec.forward != "none":
            ET.SubElement(root, "forward", mode=spec.forward)
        if spec.bridge:
            ET.SubElement(root, "bridge", name=spec.bridge, stp="off")
        if spec.address:
            own = ipaddress.ip_interface(spec.address)
            attributes = {"address": str(own.ip), "prefix": str(own.network.prefixlen)}
            if own.version == 6:
                attributes["family"] = "ipv6"
            element = ET.SubElement(root, "ip", attributes)
            if spec.dhcp:
                ET.SubElement(ET.SubElement(element, "dhcp"), "range", start=spec.dhcp[0], end=spec.dhcp[1])
        self.handle = self.conn.networkDefineXML(ET.tostring(root, encoding="unicode"))


def _interface(element: ET.Element) -> Any:
    return ipaddress.ip_interface("{0}/{1}".format(element.get("address"), element.get("prefix") or element.get("netmask") or "32"))
