# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan as a file of ifupdown: interfaces(5), with bridge-utils for bridges and ifenslave for bonds. VLANs and VXLANs need iproute2 only."""
from __future__ import annotations

import fnmatch
import ipaddress
import os
import re
from typing import Dict, List, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import ADDED, HEADER, PARKED, Conflict, Device, File, Network, Plan, unpark
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_networkd import ZERO_MAC
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

MAIN = "/etc/network/interfaces"
PATH = "/etc/network/interfaces.d/60-kvmfleet"      # no dot: source-directory would pass over it


def _families(device: Device, network: Network) -> List[Tuple[str, List[str]]]:
    """What comes after C(iface NAME), with its options: one stanza for each address, as interfaces(5) has it."""
    if not device.addressed:
        return [("inet manual", [])]
    if not network.dhcp_routes and (network.dhcp4 or network.dhcp6):
        raise SpecError("host_network_networks", network.name, "ifupdown cannot ask DHCP for an address without a default route",
                        "Give the address in addresses, or leave dhcp_routes out")
    found: List[Tuple[str, List[str]]] = [("inet dhcp", [])] if network.dhcp4 else []
    for address in network.addresses:
        interface = ipaddress.ip_interface(address)
        gateway = network.gateway4 if interface.version == 4 else network.gateway6
        family = "inet static" if interface.version == 4 else "inet6 static"
        options = ["address {0}".format(address)]
        # the gateway goes with the address in whose subnet it is, and once
        if gateway and (ipaddress.ip_address(gateway) in interface.network or ipaddress.ip_address(gateway).is_link_local):
            if not any("gateway {0}".format(gateway) in lines for name, lines in found):
                options.append("gateway {0}".format(gateway))
        if interface.version == 6:
            options.append("accept_ra 0")
        found.append((family, options))
    if network.dhcp6:
        found.append(("inet6 auto", ["dhcp 1"]))
    for route in network.routes or ():
        options = next(lines for name, lines in found if name.startswith("inet6") == (route.version == 6))
        options.append("up ip -{0} route replace {1}{2} dev {3}".format(route.version, route.to, " via " + route.via if route.via else "", device.name))
    if network.nameservers:
        found[0][1].append("dns-nameservers {0}".format(" ".join(network.nameservers)))
    return found


def _making(plan: Plan, device: Device, network: Network) -> List[str]:
    """The options that make a device and join it to others."""
    name, ports = device.name, sorted(d.name for d in plan.devices if d.master == device.name)
    add = "pre-up ip link show dev {0} >/dev/null 2>&1 || ip link add ".format(name)
    lines: List[str] = []
    if device.kind == "bridge":
        lines = ["bridge_ports {0}".format(" ".join(ports) or "none"), "bridge_stp {0}".format("on" if network.stp else "off"), "bridge_maxwait 0"]
        lines += [] if network.stp else ["bridge_fd 0"]
        lines += ["bridge_hw {0}".format(device.mac)] if device.mac else []
    elif device.kind == "bond" and network.bond is not None:
        bond = network.bond
        lines = ["bond-slaves {0}".format(" ".join(ports)), "bond-mode {0}".format(bond.mode), "bond-miimon {0}".format(bond.miimon)]
        lines += ["bond-{0} {1}".format(key, value) for key, value in (("lacp-rate", bond.lacp_rate), ("xmit-hash-policy", bond.hash_policy),
                                                                       ("primary", bond.primary)) if value]
    elif device.kind == "vlan":
        lines = [add + "link {0} name {1} type vlan id {2}".format(device.parent, name, network.vlan)]
    elif device.kind == "vxlan":
        words = ["{0} type vxlan id {1} dstport {2}".format(name, network.vni, network.port)]
        words += ["{0} {1}".format(key, value) for key, value in (("group", network.group), ("dev", device.parent), ("local", network.local)) if value]
        lines = [add + " ".join(words)]
    if device.kind in ("vlan", "vxlan"):
        # the parent need not be in a stanza of ours, and a VLAN's link has to be up for it to be up
        lines += ["pre-up ip link set dev {0} up".format(device.parent)] if device.kind == "vlan" else []
        lines += ["up bridge fdb append {0} dev {1} dst {2} || true".format(ZERO_MAC, name, peer) for peer in network.peers if device.kind == "vxlan"]
    if device.kind in ("vlan", "vxlan", "internal", "link") and not device.addressed:
        lines.append("up ip link set dev {0} up".format(name))
    if device.mtu:
        lines.append("up ip link set dev {0} mtu {1}".format(name, device.mtu))
    if device.kind in ("vlan", "vxlan"):
        lines.append("post-down ip link del dev {0} || true".format(name))
    return lines


def render(plan: Plan) -> Dict[str, File]:
    """The file of ours. Devices come in the order in which they can be brought up. Raises SpecError for what ifupdown cannot do."""
    blocks = ["# {0}".format(HEADER)]
    for device in plan.devices:
        network = device.network
        if network is None or not device.ours:
            continue
        lines = ["auto {0}".format(device.name)]
        for number, (family, options) in enumerate(_families(device, network)):
            lines.append("iface {0} {1}".format(device.name, family))
            lines += ["    " + text for text in options + (_making(plan, device, network) if number == 0 else [])]
        blocks.append("\n".join(lines))
    return {PATH: (0o644, "\n\n".join(blocks) + "\n")}


_KEYWORDS = ("iface", "auto", "mapping", "source", "source-directory", "rename", "template", "no-auto-down", "no-scripts")
READS = "source /etc/network/interfaces.d/*"


def _theirs(plan: Plan) -> List[str]:
    return sorted(path for path in plan.files if path != PATH and (path == MAIN or os.path.dirname(path) == os.path.dirname(PATH)))


def parked(plan: Plan) -> Dict[str, str]:
    """The files of others with the stanzas of the plan's devices put out of force, and those of devices that are ours no more back in force."""
    result = {}
    for path in _theirs(plan):
        before = unpark(plan.files[path])
        text = _park(before, sorted(plan.owned))
        if path == MAIN and plan.owned and not _reads_ours(text):
            text += ("" if text.endswith("\n") or not text else "\n") + ADDED + READS + "\n"
        result[path] = text
    return result


def _park(text: str, owned: List[str]) -> str:
    lines: List[str] = []
    inside = False
    for raw in text.splitlines(True):
        words = raw.split()
        if words and not words[0].startswith("#") and (words[0] in _KEYWORDS or words[0].startswith("allow-")):
            inside = words[0] == "iface" and words[1:2] != [] and words[1] in owned
            if words[0] == "auto" or words[0].startswith("allow-"):
                kept = [w for w in words[1:] if w not in owned]
                if len(kept) < len(words) - 1:
                    lines.append(PARKED + raw)
                    lines += [ADDED, "{0} {1}\n".format(words[0], " ".join(kept))] if kept else []
                    continue
        lines.append(PARKED + raw if inside and raw.strip() else raw)
    return "".join(lines)


def conflicts(plan: Plan) -> List[Conflict]:
    """Stanzas of others for the same devices, and a main file that does not read ours."""
    found = []
    owned = sorted(plan.owned)
    for path in sorted(plan.files):
        if path == PATH or not (path == MAIN or os.path.dirname(path) == os.path.dirname(PATH)):
            continue
        for raw in plan.files[path].replace("\\\n", " ").splitlines():
            words = raw.split()
            if not words or words[0].startswith("#"):
                continue
            names = words[1:2] if words[0] == "iface" else words[1:] if words[0] == "auto" or words[0].startswith("allow-") else []
            for name in owned:
                if any(fnmatch.fnmatchcase(name, n.split("=")[0].lstrip("/")) for n in names):
                    found.append(Conflict(path, " ".join(words), "configures {0}".format(name)))
    if MAIN in plan.files and not _reads_ours(plan.files[MAIN]):
        found.append(Conflict(MAIN, "source", "does not read {0}; add the line: source /etc/network/interfaces.d/*".format(PATH)))
    return found


def _reads_ours(text: str) -> bool:
    for kind, pattern in re.findall(r"(?m)^\s*(source-directory|source)\s+(\S+)\s*$", text):
        if not pattern.startswith("/"):
            pattern = os.path.join(os.path.dirname(MAIN), pattern)
        read = PATH if kind == "source" else os.path.dirname(PATH)
        if fnmatch.fnmatchcase(read, pattern.rstrip("/")):
            return True
    return False
