# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The libvirt networks on top of a plan's bridges, so that VMs name networks and not bridges."""
from __future__ import annotations

import ipaddress
import xml.etree.ElementTree as ET
from typing import Any, Dict

from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import Network, Plan

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
    return {network.name: ET.tostring(element(network), encoding="unicode") for network in plan.networks}
