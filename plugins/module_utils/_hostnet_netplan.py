# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan as a file of netplan. VXLANs need netplan 0.105 or newer."""
from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterable, List, Mapping, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import _hostnet_networkd, _hostnet_nm
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import (
    ADDED,
    HEADER,
    PARKED,
    PHYSICAL,
    Conflict,
    Device,
    File,
    Network,
    Plan,
    unpark,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

PATH = "/etc/netplan/60-kvmfleet.yaml"
_ADDRESSING = frozenset(("addresses", "dhcp4", "dhcp6", "gateway4", "gateway6", "routes", "nameservers", "link-local", "accept-ra", "interfaces", "id", "link"))
_SECTIONS = ("ethernets", "bonds", "bridges", "vlans", "tunnels", "wifis", "dummy-devices", "virtual-ethernets")


def emit(value: Any, depth: int = 0) -> str:
    """YAML of mappings, lists and scalars: block mappings, everything else as JSON, which is YAML; so nothing can be read as something else.

    Names and addresses are plain ASCII here; beyond the first 65536 characters of Unicode JSON's escapes are not YAML's.
    """
    if not isinstance(value, dict) or not value:
        return " " + json.dumps(value, sort_keys=True) + "\n"
    lines = ["{0}{1}:{2}".format("  " * depth, _key(str(key)), emit(item, depth + 1)) for key, item in value.items()]
    return ("\n" if depth else "") + "".join(lines)


def _key(key: str) -> str:
    """A key as it is where no reader of YAML can take it for anything but text."""
    plain = re.match(r"^[a-z][a-z0-9-]+\Z", key) and key not in ("yes", "no", "on", "off", "true", "false", "null")
    return key if plain else json.dumps(key)


def _addressing(device: Device, network: Network) -> Dict[str, Any]:
    if not device.addressed:
        return {"dhcp4": False, "dhcp6": False, "accept-ra": False, "link-local": []}
    data: Dict[str, Any] = {"dhcp4": network.dhcp4, "dhcp6": network.dhcp6, "accept-ra": network.dhcp6}
    if network.addresses:
        data["addresses"] = list(network.addresses)
    # "default" as destination is not known to netplan before 0.103; these are
    routes: List[Dict[str, str]] = [{"to": to, "via": gateway} for to, gateway in (("0.0.0.0/0", network.gateway4), ("::/0", network.gateway6)) if gateway]
    routes += [{"to": route.to, "via": route.via} if route.via else {"to": route.to, "scope": "link"} for route in network.routes or ()]
    if routes:
        data["routes"] = routes
    if network.nameservers:
        data["nameservers"] = {"addresses": list(network.nameservers)}
    if not network.dhcp_routes:
        data.update({"{0}-overrides".format(key): {"use-routes": False} for key in ("dhcp4", "dhcp6") if getattr(network, key)})
    return data


def _device(plan: Plan, device: Device) -> Tuple[str, Dict[str, Any]]:
    network = device.network
    if network is None or not device.ours:
        return "ethernets", {}
    data = _addressing(device, network)
    if device.mac:
        data["macaddress"] = device.mac
    if device.mtu:
        data["mtu"] = device.mtu
    if device.kind in ("link", "internal"):
        return "ethernets", dict(data, optional=True) if device.kind == "internal" and not network.links else data
    ports = sorted(d.name for d in plan.devices if d.master == device.name)
    if device.kind == "bridge":
        data["interfaces"] = ports
        data["parameters"] = {"stp": True} if network.stp else {"stp": False, "forward-delay": 0}
        if not network.links:
            data["optional"] = True      # no carrier before a VM is on it: the boot must not wait for that
        return "bridges", data
    if device.kind == "bond" and network.bond is not None:
        bond = network.bond
        data["interfaces"] = ports
        data["parameters"] = {key: value for key, value in (("mode", bond.mode), ("mii-monitor-interval", bond.miimon), ("lacp-rate", bond.lacp_rate),
                                                            ("transmit-hash-policy", bond.hash_policy), ("primary", bond.primary)) if value != ""}
        return "bonds", data
    if device.kind == "vlan":
        return "vlans", dict(data, id=network.vlan, link=device.parent)
    data.update({"mode": "vxlan", "id": network.vni, "port": network.port, "mac-learning": True})
    data.update({key: value for key, value in (("link", device.parent), ("remote", network.group), ("local", network.local)) if value})
    return "tunnels", data


def render(plan: Plan) -> Dict[str, File]:
    """The file of ours, and beside it what netplan has no words for: the peers of VXLANs, as drop-ins of networkd or as a dispatcher of NetworkManager."""
    sections: Dict[str, Dict[str, Any]] = {}
    for network in plan.networks:
        direct = [route.to for route in network.routes or () if not route.via]
        if direct and plan.renderer == "NetworkManager":
            raise SpecError("host_network_networks", network.name, "netplan hands no routes without a router to NetworkManager ({0})".format(", ".join(direct)),
                            "Give via, or an address of the host in that subnet")
    kinds = {link.name: link.kind for link in plan.links}
    for device in plan.devices:
        if not device.ours and kinds.get(device.name, "physical") not in PHYSICAL:
            continue        # a bond of the site, say, that carries a VLAN: the site's file has it, in a section of its own
        section, data = _device(plan, device)
        sections.setdefault(section, {})[device.name] = data
    # With nothing to make the file says so much and no more; netplan takes it.
    body: Dict[str, Any] = {"version": 2}
    body.update((name, sections[name]) for name in _SECTIONS if name in sections)
    # netplan warns about files that others than root can read
    files: Dict[str, File] = {PATH: (0o600, "# {0}\n{1}".format(HEADER, emit({"network": body})))}
    for device in plan.devices:
        if device.kind == "vxlan" and device.network is not None and device.network.peers and plan.renderer == "networkd":
            path = "{0}/10-netplan-{1}.network.d/{2}".format(_hostnet_networkd.DIRECTORY, device.name, _hostnet_networkd.DROP_IN)
            files[path] = (0o644, _hostnet_networkd.ini(_hostnet_networkd.fdb_sections(device.network)))
    if plan.renderer == "NetworkManager":
        files.update(_hostnet_nm.dispatcher(plan))
    return dict(sorted(files.items()))


def definitions(text: str) -> List[Tuple[str, str, List[str], str]]:
    """What a file of netplan defines, as C((section, id, keys, text)); for block style and JSON, the ways in which such files are written.

    There is no YAML parser on a host. What is in flow style comes as one definition with the id C(*) that has the whole text.
    """
    try:
        data = json.loads(text)
    except ValueError:
        return _scan(text)
    network = data.get("network") if isinstance(data, dict) else None
    return [(section, str(key), sorted(entry), json.dumps(entry)) for section in _SECTIONS if isinstance(network, dict)
            for key, entry in (network.get(section) or {}).items() if isinstance(entry, dict)]


def _scan(text: str) -> List[Tuple[str, str, List[str], str]]:
    found: List[Tuple[str, str, List[str], List[str]]] = []
    stack: List[Tuple[int, str]] = []
    for raw in text.splitlines():
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        match = re.match(r"""^(\s*)(?:"([^"]*)"|'([^']*)'|([^\s"'{\[&*!|>%@-][^:]*|-[^\s:][^:]*))\s*:(?:\s+(.*))?$""", line)
        if not line.strip() or line.strip() in ("---", "..."):
            continue
        indent = len(line) - len(line.lstrip())
        if not match:
            if found and stack and len(stack) >= 3:
                found[-1][3].append(line)
            continue
        key, value = next((g for g in match.groups()[1:4] if g is not None), "").strip(), match.group(5) or ""
        while stack and stack[-1][0] >= indent:
            stack.pop()
        stack.append((indent, key))
        path = [k for unused, k in stack]
        if path[0] == "network" and "{" in value and len(path) <= 2:
            found.append((path[1] if len(path) == 2 else "*", "*", ["*"], [text]))
        elif path[0] == "network" and len(path) == 3 and path[1] in _SECTIONS:
            found.append((path[1], key, sorted(_ADDRESSING) if "{" in value and value.replace(" ", "") != "{}" else [], [value]))
        elif len(path) >= 4 and path[0] == "network" and found:
            if len(path) == 4:
                found[-1][2].append(key)
            found[-1][3].append(line)
    return [(section, name, keys, "\n".join(lines)) for section, name, keys, lines in found]


def renderer(text: str) -> str:
    """What a file of netplan says about all devices: C(renderer) under C(network); empty where it does not. One device's own is not meant."""
    try:
        data = json.loads(text)
        network = data.get("network") if isinstance(data, dict) else None
        return str(network.get("renderer") or "") if isinstance(network, dict) else ""
    except ValueError:
        pass
    depth = -1
    for raw in text.splitlines():
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        indent = len(line) - len(line.lstrip())
        match = re.match(r"""^["']?network["']?\s*:\s*(.*)$""", line)
        if match:
            depth = 0
            flow = re.match(r"""^\{\s*(?:[^{}]*,\s*)?["']?renderer["']?\s*:\s*["']?(\w+)""", match.group(1))
            if flow:
                return flow.group(1)
        elif line and indent == 0:
            depth = -1
        elif line and depth >= 0:
            # the keys of the mapping are as far in as its first one
            depth = depth or indent
            own = re.match(r"""^["']?renderer["']?\s*:\s*["']?(\w+)""", line.lstrip()) if indent == depth else None
            if own:
                return own.group(1)
    return ""


def parked(plan: Plan) -> Dict[str, str]:
    """The files of others with the addressing of the plan's devices put out of force, where they are written in block style under the device's name.

    What else a stanza says (C(match), C(set-name)) stays, and is merged with ours.
    """
    return {path: _park(unpark(text), plan.owned) for path, text in plan.files.items()
            if path != PATH and path.startswith("/etc/netplan/") and path.endswith((".yaml", ".yml"))}


def _park(text: str, owned: Iterable[str]) -> str:
    lines = text.splitlines(True)
    result: List[str] = []
    path: List[Tuple[int, str]] = []
    holder, kept, taken, hidden = -1, 0, 0, -1

    def close() -> None:
        # a stanza without a word in it is no mapping for netplan
        if holder >= 0 and taken and not kept:
            indent = re.match(r"\s*", lines[holder]).group(0)      # type: ignore[union-attr]
            result[place:place + 1] = [PARKED + lines[holder], ADDED, "{0}{1}: {{}}\n".format(indent, lines[holder].strip().rstrip(":").strip())]
    place = 0
    for number, raw in enumerate(lines):
        line = re.sub(r"(^|\s)#.*$", "", raw.rstrip("\n")).rstrip()
        indent = len(line) - len(line.lstrip())
        match = re.match(r"""^\s*["']?([^\s"'{\[&*!|>%@#-][^:"']*|-[^\s:][^:]*)["']?\s*:(?:\s+(.*))?$""", line)
        if not line.strip():
            result.append(raw)
            continue
        if hidden >= 0 and (indent > hidden or (indent == hidden and line.lstrip().startswith("-"))):
            result.append(PARKED + raw)
            continue
        hidden = -1
        if match:
            while path and path[-1][0] >= indent:
                path.pop()
            path.append((indent, match.group(1).strip()))
        if len(path) <= 3 and holder >= 0 and match:
            close()
            holder = -1
        names = [name for unused, name in path]
        if match and len(path) == 3 and names[0] == "network" and names[1] in _SECTIONS and names[2] in owned and not match.group(2):
            holder, kept, taken, place = number, 0, 0, len(result)
        elif match and len(path) == 4 and holder >= 0:
            if names[3] in _ADDRESSING or names[3] == "accept-ra" or names[3].startswith("dhcp"):
                hidden, taken = indent, taken + 1
                result.append(PARKED + raw)
                continue
            kept += 1
        result.append(raw)
    close()
    return "".join(result)


def conflicts(plan: Plan) -> List[Conflict]:
    """Definitions in other files for the same devices. netplan merges files: lists such as addresses add up, so ours cannot take theirs away."""
    found = []
    macs: Mapping[str, str] = {link.name: link.mac.lower() for link in plan.links if link.mac}
    for path in sorted(plan.files):
        if path == PATH or not path.endswith((".yaml", ".yml")):
            continue
        for section, name, keys, body in definitions(plan.files[path]):
            for device in sorted(plan.owned):
                words = [word.rstrip(":") for word in re.findall(r"[0-9A-Za-z_.:-]+", body)]
                mine = name == device or device in words and ("match" in keys or "set-name" in keys or "interfaces" in keys or name == "*") or (
                    macs.get(device, "-") in [w.lower() for w in words] and "match" in keys)
                if mine and (set(keys) & _ADDRESSING or "*" in keys):
                    stanza = "network.{0}.{1}".format(section, name) if name != "*" else "network"
                    found.append(Conflict(path, stanza, "configures {0}".format(device)))
    return found
