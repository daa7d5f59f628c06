# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan as keyfiles of NetworkManager: nm-settings-keyfile(5)."""
from __future__ import annotations

import ipaddress
import os
import re
import uuid
from dataclasses import replace
from typing import Dict, List, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import ADDED, HEADER, PARKED, Conflict, Device, File, Network, Plan, unpark
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_networkd import Section, ini, parse_ini
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

DIRECTORY = "/etc/NetworkManager/system-connections"
DISPATCHER = "/etc/NetworkManager/dispatcher.d/60-kvmfleet-vxlan"
PREFIX = "kvmfleet-"
_SPACE = uuid.UUID("6f2f2f0a-5e0a-5c0e-9d60-6b766d666c74")
_TYPES = {"link": "ethernet", "bond": "bond", "vlan": "vlan", "vxlan": "vxlan", "bridge": "bridge"}


def connection_uuid(name: str) -> str:
    """The UUID of the connection of a device: the same on every run, so that NetworkManager sees a change and no new connection."""
    return str(uuid.uuid5(_SPACE, name))


def _method(network: Network, version: int, addressed: bool) -> List[Tuple[str, str]]:
    off = [("method", "disabled")]
    if not addressed:
        return off
    own = [a for a in network.addresses if ipaddress.ip_interface(a).version == version]
    dhcp, gateway = (network.dhcp4, network.gateway4) if version == 4 else (network.dhcp6, network.gateway6)
    if not own and not dhcp:
        # the link-local address costs nothing, and IPv4 has no such thing
        return off if version == 4 else [("method", "link-local")]
    lines = [("method", "auto" if dhcp else "manual")] + [("address{0}".format(n), a) for n, a in enumerate(own, 1)]
    lines += [("gateway", gateway)] if gateway else []
    ways = [route for route in network.routes or () if route.version == version]
    lines += [("route{0}".format(number), route.to + ("," + route.via if route.via else "")) for number, route in enumerate(ways, 1)]
    dns = [a for a in network.nameservers if ipaddress.ip_address(a).version == version]
    lines += [("dns", ";".join(dns) + ";")] if dns else []
    lines += [("ignore-auto-routes", "true")] if dhcp and not network.dhcp_routes else []
    lines += [("may-fail", "true")] if dhcp else []
    return lines


def _keyfile(plan: Plan, device: Device, network: Network) -> str:
    head = [("id", PREFIX + device.name), ("uuid", connection_uuid(device.name)), ("type", _TYPES[device.kind]), ("interface-name", device.name),
            # above what others have, so that ours is taken when a link appears
            ("autoconnect-priority", "10")]
    if device.master:
        master = plan.device(device.master)
        # "controller" and "port-type" are not known before 1.46; these are known to all
        head += [("master", device.master), ("slave-type", master.kind if master else "bridge")]
    elif device.kind in ("bridge", "bond"):
        # With it bringing up the bridge brings up what is in it, at boot and when the connection is activated again.
        head.append(("autoconnect-slaves", "1"))
    body: List[Section] = []
    ether = ([("mtu", str(device.mtu))] if device.mtu else []) + ([("cloned-mac-address", device.mac)] if device.mac else [])
    body.append(("ethernet", ether))
    if device.kind == "bridge":
        body.append(("bridge", [("stp", "true")] if network.stp else [("stp", "false"), ("forward-delay", "0")]))
    if device.kind == "bond" and network.bond is not None:
        bond = network.bond
        body.append(("bond", [(key, str(value)) for key, value in (("mode", bond.mode), ("miimon", bond.miimon), ("lacp_rate", bond.lacp_rate),
                                                                   ("xmit_hash_policy", bond.hash_policy), ("primary", bond.primary)) if value != ""]))
    if device.kind == "vlan":
        body.append(("vlan", [("id", str(network.vlan)), ("parent", device.parent)]))
    if device.kind == "vxlan":
        pairs = [("id", str(network.vni)), ("destination-port", str(network.port)), ("learning", "true")]
        pairs += [(key, value) for key, value in (("parent", device.parent), ("remote", network.group), ("local", network.local)) if value]
        body.append(("vxlan", pairs))
    if not device.master:
        body += [("ipv4", _method(network, 4, device.addressed)), ("ipv6", _method(network, 6, device.addressed))]
    return ini([("connection", head)] + body)


def dispatcher(plan: Plan) -> Dict[str, File]:
    """The script that tells the kernel the peers of a VXLAN when it comes up: a keyfile can have one remote address only. Nothing where there are none."""
    cases = []
    for device in plan.devices:
        if device.kind == "vxlan" and device.network is not None and device.network.peers:
            # Names and addresses are checked ones. An entry that is there already makes "append" fail, which is as well.
            lines = ["        bridge fdb append 00:00:00:00:00:00 dev {0} dst {1} || true".format(device.name, peer) for peer in device.network.peers]
            cases.append("    {0})\n{1}\n        ;;\n".format(device.name, "\n".join(lines)))
    if not cases:
        return {}
    # NetworkManager calls it with the device and what happened to it, ports of bridges too
    text = '#!/bin/sh\n# {0}\n[ "$2" = up ] || exit 0\ncase "$1" in\n{1}esac\nexit 0\n'.format(HEADER, "".join(cases))
    return {DISPATCHER: (0o755, text)}


def render(plan: Plan) -> Dict[str, File]:
    """Keyfiles by path; NetworkManager ignores those that others than root can read. Raises SpecError for what it cannot do."""
    files: Dict[str, File] = dispatcher(plan)
    for device in plan.devices:
        network = device.network
        if network is None or not device.ours:
            continue
        if device.kind == "internal":
            if device.addressed:
                raise SpecError("host_network_networks", network.name, "NetworkManager gives no addresses to ports that Open vSwitch made",
                                "Leave the host's addresses out of this network, or use another backend for it")
            continue
        files["{0}/{1}{2}.nmconnection".format(DIRECTORY, PREFIX, device.name)] = (0o600, _keyfile(plan, device, network))
    return dict(sorted(files.items()))


def parked(plan: Plan) -> Dict[str, str]:
    """The keyfiles of others, with those for the plan's devices told not to be activated by themselves."""
    clean = replace(plan, files={path: unpark(text) for path, text in plan.files.items()})
    wanted = {conflict.file for conflict in conflicts(clean) if not os.path.basename(conflict.file).startswith("ifcfg-")}
    return {path: _park(text) if path in wanted else text for path, text in clean.files.items()
            if path.startswith(DIRECTORY) and not os.path.basename(path).startswith(PREFIX)}


def _park(text: str) -> str:
    lines: List[str] = []
    section = ""
    for line in text.splitlines(True):
        stripped = line.strip()
        if stripped.startswith("["):
            section = stripped
        if section == "[connection]" and stripped.split("=")[0].strip() == "autoconnect":
            lines.append(PARKED + line)
            continue
        lines.append(line)
        if stripped == "[connection]":
            lines += [ADDED, "autoconnect=false\n"]
    return "".join(lines)


def conflicts(plan: Plan) -> List[Conflict]:
    """Connections of others for the same devices, as keyfiles or as the older ifcfg files: they could be activated instead of ours."""
    found = []
    macs = {link.mac.lower(): link.name for link in plan.links if link.mac and link.name in plan.owned and link.kind == "physical"}
    for path in sorted(plan.files):
        base, text = os.path.basename(path), plan.files[path]
        if base.startswith(PREFIX) or path.startswith("/run/"):
            continue        # what NetworkManager makes up for a link without a connection gives way to any other
        if base.startswith("ifcfg-"):
            values = dict(re.findall(r"""(?m)^\s*(DEVICE|HWADDR|NAME)=["']?([^"'\s]*)["']?\s*$""", text))
            name = values.get("DEVICE") or macs.get(values.get("HWADDR", "").lower(), "")
            if name in plan.owned:
                found.append(Conflict(path, "DEVICE={0}".format(name), "configures {0}".format(name)))
        elif path.endswith(".nmconnection") or "/system-connections/" in path:
            sections = dict(parse_ini(text))
            names = sections.get("connection", {}).get("interface-name", [])
            wired = sections.get("ethernet", sections.get("802-3-ethernet", {}))
            if sections.get("connection", {}).get("autoconnect", [""])[-1] == "false":
                continue        # nobody activates it but by hand
            name = names[-1] if names else macs.get((wired.get("mac-address") or [""])[-1].lower(), "")
            if name in plan.owned:
                stanza = "connection {0}".format((sections.get("connection", {}).get("id") or [base])[-1])
                found.append(Conflict(path, stanza, "configures {0}".format(name)))
    return found
