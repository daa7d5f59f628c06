# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has to have before there are VMs: libvirt networks, defined, started, started at boot; and what storage pools (_host_pools) share with them."""
from __future__ import annotations

import ipaddress
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


def found(lookup: Callable[[str], Any], name: str) -> Optional[Any]:
    """libvirt's handle of an object, or None where there is none of that name."""
    try:
        return lookup(name)
    except libvirt.libvirtError as exc:
        if not is_gone(exc):
            raise
        return None


def converged(before: Dict[str, Any], after: Dict[str, Any], steps: List[Step], check: bool) -> Dict[str, Any]:
    """Take the steps unless C(check), and tell them; the module's result."""
    if not check:
        for _text, step in steps:
            step()
    return {"changed": bool(steps), "actions": [text for text, _step in steps], "diff": {"before": before, "after": after}}


def running(handle: Optional[Any]) -> Dict[str, Any]:
    """Whether an object is active and started at boot; nothing of one that does not exist."""
    return {} if handle is None else {"active": bool(handle.isActive()), "autostart": bool(handle.autostart())}


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
        self.handle = found(conn.networkLookupByName, spec.name)

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
            before = running(self.handle)
        if not before.get("active"):
            steps.append((
                "start network {0}".format(spec.name),
                lambda: self.handle.create()))  # type: ignore[union-attr]  # pylint: disable=unnecessary-lambda
        if before.get("autostart", False) != self.spec.autostart:
            steps.append(("set autostart of network {0} to {1}".format(spec.name, self.spec.autostart),
                          lambda: self.handle.setAutostart(int(self.spec.autostart))))  # type: ignore[union-attr]
        return converged(before, {"active": True, "autostart": self.spec.autostart}, steps, check)

    def absent(self, check: bool) -> Dict[str, Any]:
        """Make it gone, unless a domain names it; the module's result."""
        if self.handle is None:
            return converged({}, {}, [], check)
        users = [d.name() for d in self.conn.listAllDomains()
                 if any(s.get("network") == self.spec.name for s in ET.fromstring(d.XMLDesc()).iterfind("devices/interface/source"))]
        if users:
            raise SpecError("name", self.spec.name, "is used by {0}".format(", ".join(sorted(users)[:5])), "Delete those VMs or their NICs first",
                            "network_in_use")
        before = running(self.handle)
        steps: List[Step] = []
        if before["active"]:
            steps.append(("stop network {0}".format(self.spec.name), self.handle.destroy))
        if self.handle.isPersistent():
            steps.append(("undefine network {0}".format(self.spec.name), self.handle.undefine))
        return converged(before, {}, steps, check)

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
