# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan as files of systemd-networkd: systemd.netdev(5) and systemd.network(5)."""
from __future__ import annotations

import fnmatch
import os
import re
from typing import Dict, List, Mapping, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import HEADER, PHYSICAL, Conflict, Device, File, Network, Plan

DIRECTORY = "/etc/systemd/network"
PREFIX = "00-kvmfleet-"          # sorts before what others have, and the first file that matches a link is the only one that counts
DROP_IN = "60-kvmfleet.conf"
ZERO_MAC = "00:00:00:00:00:00"

# What is on top of a link: named in the link's own file
STACKED = ("VLAN", "VXLAN", "MACVLAN", "MACVTAP", "IPVLAN", "IPVTAP", "MACsec", "Tunnel", "Xfrm")

Section = Tuple[str, Sequence[Tuple[str, str]]]


def ini(sections: Sequence[Section], comment: str = HEADER) -> str:
    """The text of sections with C(key=value) lines, our comment at its head; keys may come more than once."""
    blocks = ["# {0}".format(comment)]
    for name, pairs in sections:
        if pairs:
            blocks.append("\n".join(["[{0}]".format(name)] + ["{0}={1}".format(key, value) for key, value in pairs]))
    return "\n\n".join(blocks) + "\n"


def parse_ini(text: str) -> List[Tuple[str, Dict[str, List[str]]]]:
    """Sections in order with the values of each key; comments and what cannot be read are skipped, as the readers of such files do."""
    result: List[Tuple[str, Dict[str, List[str]]]] = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        match = re.match(r"^\[(.+)\]$", line)
        if match:
            result.append((match.group(1), {}))
        elif "=" in line and result:
            key, value = line.split("=", 1)
            result[-1][1].setdefault(key.strip(), []).append(value.strip())
    return result


def flag(value: bool) -> str:
    """A boolean as systemd writes it."""
    return "yes" if value else "no"


def fdb_sections(network: Network) -> List[Section]:
    """One entry for each peer under the all-zero MAC: where frames go whose receiver is not known yet."""
    return [("BridgeFDB", [("MACAddress", ZERO_MAC), ("Destination", peer)]) for peer in network.peers]


def _netdev(device: Device) -> str:
    head = [("Name", device.name), ("Kind", device.kind)]
    if device.mac:
        head.append(("MACAddress", device.mac))
    if device.mtu:
        head.append(("MTUBytes", str(device.mtu)))
    network, bond = device.network, device.network.bond if device.network else None
    body: List[Tuple[str, str]] = []
    if network is None:
        return ini([("NetDev", head)])
    if device.kind == "bridge":
        body = [("STP", flag(network.stp))] + ([] if network.stp else [("ForwardDelaySec", "0")])
        return ini([("NetDev", head), ("Bridge", body)])
    if device.kind == "vlan":
        return ini([("NetDev", head), ("VLAN", [("Id", str(network.vlan))])])
    if device.kind == "vxlan":
        body = [("VNI", str(network.vni)), ("DestinationPort", str(network.port)), ("MacLearning", "yes")]
        body += [("Group", network.group)] if network.group else []
        body += [("Local", network.local)] if network.local else []
        body += [] if device.parent else [("Independent", "yes")]
        return ini([("NetDev", head), ("VXLAN", body)])
    if bond is not None:
        body = [("Mode", bond.mode), ("MIIMonitorSec", "{0}ms".format(bond.miimon))]
        body += [("LACPTransmitRate", bond.lacp_rate)] if bond.lacp_rate else []
        body += [("TransmitHashPolicy", bond.hash_policy)] if bond.hash_policy else []
    return ini([("NetDev", head), ("Bond", body)])


def _address_lines(network: Network) -> Tuple[List[Tuple[str, str]], List[Section]]:
    dhcp = {(True, True): "yes", (True, False): "ipv4", (False, True): "ipv6", (False, False): "no"}[network.dhcp4, network.dhcp6]
    lines = [("DHCP", dhcp)] + [("Address", a) for a in network.addresses]
    lines += [("Gateway", g) for g in (network.gateway4, network.gateway6) if g]
    lines += [("DNS", a) for a in network.nameservers]
    # A guest's bridge brings up nobody's default route by accident; the router's word counts where the host asks for its IPv6 configuration.
    lines.append(("IPv6AcceptRA", flag(network.dhcp6)))
    extra: List[Section] = []
    if not network.dhcp_routes:
        extra = [(name, [("UseRoutes", "no")]) for name, on in (("DHCPv4", network.dhcp4),) if on]
        extra += [("IPv6AcceptRA", [("UseGateway", "no")])] if network.dhcp6 else []
    extra += [("Route", [("Destination", route.to), ("Gateway", route.via) if route.via else ("Scope", "link")]) for route in network.routes or ()]
    return lines, extra


def _network(plan: Plan, device: Device) -> str:
    link: List[Tuple[str, str]] = [("MTUBytes", str(device.mtu))] if device.mtu and device.kind in ("link", "internal") else []
    lines: List[Tuple[str, str]] = []
    theirs: Dict[str, List[Tuple[str, str]]] = carried(plan, device.name) if device.kind == "link" and device.ours else {}
    link += [pair for pair in theirs.get("Link", []) if pair[0] not in dict(link)]
    extra: List[Section] = []
    if device.master:
        master = plan.device(device.master)
        lines.append(("Bond" if master is not None and master.kind == "bond" else "Bridge", device.master))
        bond = device.network.bond if device.network else None
        if bond is not None and bond.primary == device.name:
            lines.append(("PrimarySlave", "yes"))
    lines += [("VLAN", d.name) for d in plan.children(device.name, "vlan")] + [("VXLAN", d.name) for d in plan.children(device.name, "vxlan")]
    lines += [pair for pair in theirs.get("Network", []) if pair not in lines]
    if device.addressed and device.network is not None:
        found, extra = _address_lines(device.network)
        lines += found
        # An isolated bridge has no carrier before the first VM is on it, and its gateway's address has to be there all the same.
        lines.append(("ConfigureWithoutCarrier", "yes"))
    elif not device.ours:
        # Nobody configures it by a file: whatever addresses it has got, it keeps.
        lines.append(("KeepConfiguration", "yes"))
    else:
        lines += [("LinkLocalAddressing", "no"), ("IPv6AcceptRA", "no")]
        if device.kind in ("bridge", "internal"):
            lines.append(("ConfigureWithoutCarrier", "yes"))
    uplink = device.addressed and device.network is not None and bool(device.network.links)
    link.append(("RequiredForOnline", flag(uplink)))
    if device.kind == "vxlan" and device.network is not None:
        extra = extra + fdb_sections(device.network)
    return ini([("Match", [("Name", device.name)]), ("Link", link), ("Network", lines)] + extra)


def site_sections(plan: Plan, name: str) -> List[Tuple[str, Dict[str, List[str]]]]:
    """What the site's own file for a link says, with its drop-ins; nothing where there is none."""
    theirs = _matching_file(plan, name)
    if not theirs:
        return []
    folder = os.path.basename(theirs) + ".d"
    found = parse_ini(plan.files[theirs])
    for path in sorted(plan.files, key=os.path.basename):
        if os.path.basename(os.path.dirname(path)) == folder and path.endswith(".conf") and os.path.basename(path) != DROP_IN:
            found += parse_ini(plan.files[path])
    return found


def carried(plan: Plan, name: str) -> Dict[str, List[Tuple[str, str]]]:
    """What of the site's own file for a link goes on when the link is in a bridge of ours: how the link itself is set, and the devices on top of it."""
    found: Dict[str, List[Tuple[str, str]]] = {}
    for section, pairs in site_sections(plan, name):
        for key, values in pairs.items():
            if (section == "Link" and key != "RequiredForOnline") or (section == "Network" and key in STACKED):
                # The last value of a setting counts, and each of a list of devices
                kept = [pair for pair in found.get(section, []) if section == "Network" or pair[0] != key]
                found[section] = kept + [(key, value) for value in (values if section == "Network" else values[-1:])]
    return found


def _matching_file(plan: Plan, name: str) -> str:
    """The file, not ours, that configures a link now: the first in the order of names that matches it."""
    for path in sorted(plan.files, key=os.path.basename):
        if path.endswith(".network") and not os.path.basename(path).startswith(PREFIX) and _matches(plan, parse_ini(plan.files[path]), name):
            return path
    return ""


def _matches(plan: Plan, sections: Sequence[Tuple[str, Mapping[str, List[str]]]], name: str) -> bool:
    """Whether the [Match] section is for the link, as far as name and MAC address tell; other conditions are taken as met."""
    mac = next((link.mac for link in plan.links if link.name == name), "").lower()
    for section, pairs in sections:
        if section != "Match":
            continue
        names = " ".join(pairs.get("Name", [])).split()
        macs = " ".join(pairs.get("MACAddress", []) + pairs.get("PermanentMACAddress", [])).lower().replace("-", ":").split()
        if names:
            inverted = names[0].startswith("!")
            patterns = [n.lstrip("!") for n in names]
            if any(fnmatch.fnmatchcase(name, p) for p in patterns) == inverted:
                return False
        if macs and mac not in macs:
            return False
        return bool(names or macs or pairs)
    return False


def _beside(plan: Plan, name: str, theirs: str, lines: Sequence[Tuple[str, str]]) -> Tuple[str, str]:
    """Path and text that add lines to a link's configuration without touching it.

    A drop-in where the file is for that link only. Where it is for several (C(Name=en*)), a copy for the one link: a drop-in would put the VLAN on whichever
    of them comes up first.
    """
    sections = site_sections(plan, name)
    if [link.name for link in plan.links if link.kind != "loopback" and _matching_file(plan, link.name) == theirs] == [name]:
        return "{0}/{1}.d/{2}".format(DIRECTORY, os.path.basename(theirs), DROP_IN), ini([("Network", lines)])
    copy: List[Section] = [("Match", [("Name", name)])]
    copy += [(section, [(key, value) for key, values in pairs.items() for value in values]) for section, pairs in sections if section != "Match"]
    return "{0}/{1}{2}.network".format(DIRECTORY, PREFIX, name), ini(copy + [("Network", lines)])


def render(plan: Plan) -> Dict[str, File]:
    """Files by path. A link that only carries a VLAN or a multicast VXLAN gets a drop-in beside the file that configures it."""
    files: Dict[str, File] = {}
    for device in plan.devices:
        if not device.ours:
            lines = [("VLAN", d.name) for d in plan.children(device.name, "vlan")] + [("VXLAN", d.name) for d in plan.children(device.name, "vxlan")]
            if not lines:
                continue
            theirs = _matching_file(plan, device.name)
            if theirs:
                path, text = _beside(plan, device.name, theirs, lines)
                files[path] = (0o644, text)
                continue
        if device.kind not in ("link", "internal"):
            files["{0}/{1}{2}.netdev".format(DIRECTORY, PREFIX, device.name)] = (0o644, _netdev(device))
        files["{0}/{1}{2}.network".format(DIRECTORY, PREFIX, device.name)] = (0o644, _network(plan, device))
    return dict(sorted(files.items()))


def parked(plan: Plan) -> Dict[str, str]:
    """No file of others has to be changed: ours are read first."""
    return {}


def conflicts(plan: Plan) -> List[Conflict]:
    """Files of others that would win over ours for a device of the plan: they sort before them, or make a device of the same name."""
    found = []
    for path in sorted(plan.files):
        base = os.path.basename(path)
        if base.startswith(PREFIX):
            continue
        sections = parse_ini(plan.files[path])
        for name in sorted(plan.owned):
            if path.endswith(".network") and base < "{0}{1}.network".format(PREFIX, name) and _matches(plan, sections, name):
                found.append(Conflict(path, "[Match]", "configures {0}, and is read before our file".format(name)))
            if path.endswith(".netdev") and any(s == "NetDev" and name in pairs.get("Name", []) for s, pairs in sections):
                found.append(Conflict(path, "[NetDev] Name={0}".format(name), "makes {0} too".format(name)))
    for name in sorted(device.name for device in plan.devices if device.ours and device.kind == "link"):
        theirs = _matching_file(plan, name)
        if any(section == "RoutingPolicyRule" for section, unused in site_sections(plan, name)):
            found.append(Conflict(theirs, "[RoutingPolicyRule]", "is for {0}, and would be lost with its addresses".format(name)))
        stacked = [value for key, value in carried(plan, name).get("Network", [])]
        for link in plan.links:
            if link.parent == name and link.kind not in PHYSICAL and link.management and link.name not in stacked and plan.device(link.name) is None:
                found.append(Conflict(theirs or DIRECTORY, "[Network]", "does not name {0}, which is on top of {1} and by which the host is reached: "
                                      "it would not be there after the next boot".format(link.name, name)))
    return found
