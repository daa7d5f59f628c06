# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The libvirt networks on top of a plan's bridges, so that VMs name networks and not bridges."""
from __future__ import annotations

import hashlib
import ipaddress
import xml.etree.ElementTree as ET
from typing import Any, Callable, Dict, List, Set, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._host_objects import Step
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import Network, Plan
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

try:
    import libvirt
except ImportError:  # reported by _connection.require_libvirt
    pass

OPTION = "host_network_networks"
NAMESPACE = "urn:kvmfleet:network:1"
ET.register_namespace("kvmfleetnet", NAMESPACE)


def _served(root: ET.Element, network: Network) -> None:
    """A network whose bridge libvirt makes, for DHCP and DNS. Mode "open": libvirt adds no firewall rules, those are ours."""
    ET.SubElement(root, "forward", {"mode": "open"})
    ET.SubElement(root, "bridge", {"name": network.bridge, "stp": "on" if network.stp else "off", "delay": "2" if network.stp else "0"})
    if network.mtu:
        ET.SubElement(root, "mtu", {"size": str(network.mtu)})
    if not network.dns:
        ET.SubElement(root, "dns", {"enable": "no"})
    elif network.nameservers:
        dns = ET.SubElement(root, "dns")
        for address in network.nameservers:
            ET.SubElement(dns, "forwarder", {"addr": address})
    for text in network.addresses:
        interface = ipaddress.ip_interface(text)
        element = ET.SubElement(root, "ip", {"family": "ipv{0}".format(interface.version), "address": str(interface.ip),
                                             "prefix": str(interface.network.prefixlen)})
        ranges = [r for r in network.dhcp_ranges if ipaddress.ip_address(r[0]) in interface.network]
        if ranges:
            dhcp = ET.SubElement(element, "dhcp")
            for first, last in ranges:
                ET.SubElement(dhcp, "range", {"start": first, "end": last})


def element(network: Network) -> ET.Element:
    """The C(<network>) of a declared network, with our mark in its metadata."""
    root = ET.Element("network")
    ET.SubElement(root, "name").text = network.name
    metadata: Any = ET.SubElement(root, "metadata")
    ET.SubElement(metadata, "{%s}network" % NAMESPACE, {"type": network.type})
    if network.by_libvirt:
        _served(root, network)
        return root
    ET.SubElement(root, "forward", {"mode": "bridge"})
    ET.SubElement(root, "bridge", {"name": network.switch or network.bridge})
    if network.openvswitch:
        ET.SubElement(root, "virtualport", {"type": "openvswitch"})
        if network.vlan:
            vlan = ET.SubElement(root, "vlan")
            ET.SubElement(vlan, "tag", {"id": str(network.vlan)})
    return root


def definitions(plan: Plan) -> Dict[str, str]:
    """The XML of each libvirt network, by name."""
    result = {}
    for network in plan.networks:
        root = element(network)
        # libvirt adds to what it is given, so that only a digest tells whether a network is still what was asked for
        mark = root.find("metadata/{%s}network" % NAMESPACE)
        if mark is not None:
            mark.set("digest", hashlib.sha256(ET.tostring(root)).hexdigest()[:16])
        result[network.name] = ET.tostring(root, encoding="unicode")
    return result


def users(conn: Any) -> List[Tuple[str, str, str]]:
    """What the domains of a host are attached to, running or not: domain, C(network) or C(bridge), and its name."""
    found: Set[Tuple[str, str, str]] = set()
    for domain in conn.listAllDomains():
        try:
            texts = [domain.XMLDesc(), domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)]
        except libvirt.libvirtError:
            continue        # it has gone in between
        for text in texts:
            for source in ET.fromstring(text).iterfind("devices/interface/source"):
                found.update((domain.name(), kind, source.get(kind, "")) for kind in ("network", "bridge") if source.get(kind))
    return sorted(found)


def digest(text: str) -> str:
    """The mark of a libvirt network of ours; empty for those of others."""
    mark = ET.fromstring(text).find("metadata/{%s}network" % NAMESPACE)
    return "" if mark is None else mark.get("digest") or "?"


class NetworksConverger:
    """The libvirt networks of a plan on their way to what is wanted. Raises SpecError before anything is touched."""

    def __init__(self, conn: Any, plan: Plan) -> None:
        self.conn, self.wanted = conn, definitions(plan)
        self.steps: List[Step] = []
        attached: Dict[str, List[str]] = {}
        for domain, kind, name in users(conn):
            if kind == "network":
                attached.setdefault(name, []).append(domain)
        handles = {str(handle.name()): handle for handle in conn.listAllNetworks()}
        for name, text in sorted(self.wanted.items()):
            self._present(name, text, handles.get(name), attached.get(name, []))
        for name, handle in sorted(handles.items()):
            if name not in self.wanted and digest(handle.XMLDesc()):
                self._absent(name, handle, attached.get(name, []))

    def _present(self, name: str, text: str, handle: Any, attached: List[str]) -> None:
        active = handle is not None and handle.isActive()
        if handle is None:
            self.steps.append(("define network {0}".format(name), lambda: self.conn.networkDefineXML(text)))
        else:
            mark = digest(handle.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))
            if not mark:
                raise SpecError(OPTION, name, "libvirt has a network of that name that is not ours", "Choose another name, or remove that one: "
                                "virsh net-undefine {0}".format(name), "name_clash")
            if mark != digest(text):
                if attached:
                    raise SpecError(OPTION, name, "is to become another network, and {0} is attached to it".format(_some(attached)),
                                    "Delete those VMs or their NICs first, or leave the network as it is", "network_in_use")
                if active:
                    self.steps.append(("stop network {0}".format(name), handle.destroy))
                    active = False
                # Under its UUID a network is redefined, without it libvirt takes it for another one of the same name
                root = ET.fromstring(text)
                ET.SubElement(root, "uuid").text = handle.UUIDString()
                changed = ET.tostring(root, encoding="unicode")
                self.steps.append(("define network {0}".format(name), lambda: self.conn.networkDefineXML(changed)))
        if not active:
            self.steps.append(("start network {0}".format(name), self._start(name)))
        if handle is None or not handle.autostart():
            self.steps.append(("set autostart of network {0}".format(name), lambda: self.conn.networkLookupByName(name).setAutostart(1)))

    def _start(self, name: str) -> Callable[[], Any]:
        return lambda: self.conn.networkLookupByName(name).create()

    def _absent(self, name: str, handle: Any, attached: List[str]) -> None:
        if attached:
            raise SpecError(OPTION, name, "would be removed, and {0} is attached to it".format(_some(attached)), "Delete those VMs or their NICs first",
                            "network_in_use")
        if handle.isActive():
            self.steps.append(("stop network {0}".format(name), handle.destroy))
        if handle.isPersistent():
            self.steps.append(("undefine network {0}".format(name), handle.undefine))

    def apply(self) -> List[str]:
        """Do it; what was done."""
        for _text, step in self.steps:
            step()
        return [text for text, _step in self.steps]


def _some(names: List[str]) -> str:
    return ", ".join(sorted(set(names))[:5]) + (" ..." if len(set(names)) > 5 else "")
