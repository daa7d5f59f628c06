# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has now: links, routes, the configuration systems at work with their files, Open vSwitch, kernel modules, and by which address it is reached."""
from __future__ import annotations

import glob
import ipaddress
import json
import os
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import _hostnet_guard as guard
from ansible_collections.kvmfleet.core.plugins.module_utils import _hostnet_netplan, _hostnet_nft, _hostnet_nm
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import Link
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_record import RECORD

# Where the systems have their files. What is in /run and /usr/lib is read only to know what configures a link.
_FILES = {
    "netplan": ("/etc/netplan/*.yaml", "/run/netplan/*.yaml", "/lib/netplan/*.yaml"),
    "networkd": ("/etc/systemd/network/*", "/etc/systemd/network/*.d/*", "/run/systemd/network/*", "/run/systemd/network/*.d/*", "/usr/lib/systemd/network/*"),
    "ifupdown": ("/etc/network/interfaces", "/etc/network/interfaces.d/*"),
    "networkmanager": ("/etc/NetworkManager/system-connections/*", "/run/NetworkManager/system-connections/*", "/etc/sysconfig/network-scripts/ifcfg-*"),
}
_OURS = (RECORD, _hostnet_nft.RULES, _hostnet_nft.SYSCTL, _hostnet_nft.UNIT, _hostnet_nm.DISPATCHER)
# The kernel modules whose devices can be tried out in a network namespace of their own, which leaves nothing behind.
_TRIALS: Dict[str, List[List[str]]] = {
    "bridge": [["ip", "link", "add", "name", "kvmfleet0", "type", "bridge"]],
    "vxlan": [["ip", "link", "add", "name", "kvmfleet0", "type", "vxlan", "id", "1", "dstport", "4789"]],
    "bonding": [["ip", "link", "add", "name", "kvmfleet0", "type", "bond"]],
    "8021q": [["ip", "link", "add", "name", "kvmfleet0", "type", "bridge"],
              ["ip", "link", "add", "link", "kvmfleet0", "name", "kvmfleet1", "type", "vlan", "id", "1"]],
}


@dataclass
class Observed:
    """A host's network before a change. C(links) as the guard reads them, C(switch_ports) the ports of each Open vSwitch bridge, C(database) its settings."""

    links: Dict[str, Dict[str, Any]]
    routes: Dict[str, List[str]]
    files: Dict[str, str] = field(default_factory=dict)
    systems: Tuple[str, ...] = ()
    renderer: str = "networkd"
    database: Dict[str, List[Dict[str, Any]]] = field(default_factory=dict)
    management: Tuple[str, ...] = ()
    ways: Dict[str, List[str]] = field(default_factory=dict)

    def model(self) -> List[Link]:
        """The links as the plan wants to know them."""
        gateways = default_gateways(self.routes)
        internal = {row["name"] for row in self.database.get("Interface", ()) if row.get("type") == "internal"}
        return [Link(name, "openvswitch" if name in internal else link["kind"], link["mac"], link["mtu"], tuple(link["addresses"]),
                     tuple(gateways.get(name, ())), link["master"], name in self.management, link.get("parent", ""), tuple(self.ways.get(name, ())))
                for name, link in sorted(self.links.items())]


def default_gateways(routes: Mapping[str, Sequence[str]]) -> Dict[str, List[str]]:
    """The gateways of the default routes, by device."""
    found: Dict[str, List[str]] = {}
    for lines in routes.values():
        for line in lines:
            words = line.split()
            if words[0] == "default" and "via" in words and "dev" in words:
                found.setdefault(words[words.index("dev") + 1], []).append(words[words.index("via") + 1])
    return found


def set_routes(text: str) -> Dict[str, List[str]]:
    """The routes that somebody has set beside the default ones, by device, out of the output of C(ip route show table all).

    Those of the kernel, of routers, of DHCP and of routing daemons come again by themselves; a way to a gateway is set together with it.
    """
    lines = [line.split() for line in text.splitlines() if line and not line[0].isspace()]
    routers = {words[words.index("via") + 1] for words in lines if "via" in words}
    found: Dict[str, List[str]] = {}
    for words in lines:
        line = " ".join(words)
        table = words[words.index("table") + 1] if "table" in words else "main"
        ordinary = words[0][0].isdigit() or ":" in words[0] or (words[0] == "default" and table != "main")
        if not ordinary or table == "local" or guard.protocol_of(line) not in ("", "static", "boot") or words[0] in routers:
            continue
        shown = " ".join(words[:1] + [word for key in ("via", "table") if key in words for word in words[words.index(key):words.index(key) + 2]])
        found.setdefault(guard.device_of(line), []).append(shown)
    return {name: sorted(shown) for name, shown in found.items()}


def read_set_routes(runner: guard.Runner) -> Dict[str, List[str]]:
    """The same for both families. Raises guard.Failed."""
    found: Dict[str, List[str]] = {}
    for family in ("-4", "-6"):
        code, text = runner(["ip", family, "route", "show", "table", "all"], 20.0)
        if code:
            raise guard.Failed("ip route show: {0}".format(text))
        for name, shown in set_routes(text).items():
            found.setdefault(name, []).extend(shown)
    return found


def answers(device: str, gateway: str, runner: guard.Runner) -> bool:
    """Whether a router is there: it answers a ping, or has at least told its hardware address."""
    family = "-6" if ":" in gateway else "-4"
    # What was known of it before is no answer of now
    runner(["ip", family, "neigh", "flush", "to", gateway, "dev", device], 10.0)
    if runner(["ping", family, "-n", "-c", "1", "-W", "2", "-I", device, gateway], 10.0)[0] == 0:
        return True
    code, text = runner(["ip", family, "-j", "neigh", "show", "to", gateway, "dev", device], 10.0)
    known = json.loads(text or "[]") if code == 0 else []
    return any(item.get("lladdr") and not set(item.get("state", ())) & {"FAILED", "INCOMPLETE"} for item in known)


def reached_by(told: str = "") -> str:
    """The host's own address of the SSH connection that this process runs in; empty where there is none, or it runs in something else.

    C(become) clears the environment, so that of the processes above is looked at.
    """
    if told:
        return told
    pid = os.getpid()
    while pid > 1:
        try:
            with open("/proc/{0}/environ".format(pid), "rb") as file:
                variables = dict(part.split(b"=", 1) for part in file.read().split(b"\0") if b"=" in part)
            with open("/proc/{0}/stat".format(pid), encoding="utf-8", errors="replace") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            return ""
        words = variables.get(b"SSH_CONNECTION", b"").decode("ascii", "replace").split()
        if len(words) == 4:
            return words[2]
    return ""


def session_age() -> Optional[float]:
    """Seconds since the SSH connection that this process runs in was made, by its server's process; None outside of SSH."""
    pid, started = os.getpid(), None
    while pid > 1:
        try:
            with open("/proc/{0}/stat".format(pid), encoding="utf-8", errors="replace") as file:
                head, _sep, tail = file.read().rpartition(")")
        except OSError:
            break
        if head.partition("(")[2].startswith("sshd"):
            # The first one is the connection's own; the listener is further up.
            started = int(tail.split()[19]) / os.sysconf("SC_CLK_TCK")
            break
        pid = int(tail.split()[1])
    return None if started is None else guard.clock() - started


def management_links(links: Mapping[str, Mapping[str, Any]], routes: Mapping[str, Sequence[str]], address: str) -> Tuple[str, ...]:
    """The link that has the address by which the host is reached; where that is not known, those with a default route. Raises FleetError."""
    plain = address.partition("%")[0]
    if plain:
        try:
            ip = ipaddress.ip_address(plain)
        except ValueError:
            raise FleetError("host_network_management_address {0} is not an IP address. Give the address by which the host is reached".format(plain),
                             "invalid_value") from None
        mapped = getattr(ip, "ipv4_mapped", None)
        wanted = str(mapped or ip)
        found = sorted(name for name, link in links.items() if any(a.partition("/")[0] == wanted for a in link["addresses"]))
        if found:
            return tuple(found)
    return tuple(sorted(default_gateways(routes)))


def read_files(systems: Iterable[str] = tuple(_FILES)) -> Dict[str, str]:
    """The texts of all files that matter, by path. A file of the same name in /etc, then /run, hides the others', as with systemd itself."""
    result: Dict[str, str] = {}
    for system in systems:
        names: Set[str] = set()
        for pattern in _FILES[system]:
            for path in sorted(glob.glob(pattern)):
                name = os.path.relpath(path, os.path.dirname(pattern.rstrip("*").rstrip("/")))
                if not os.path.isfile(path) and not os.path.islink(path) or (system in ("networkd", "netplan") and name in names):
                    continue
                names.add(name)
                text = _text(path)
                if text:
                    result[path] = text
    result.update((path, text) for path, text in ((path, _text(path)) for path in _OURS) if text)
    return result


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def at_work(files: Mapping[str, str], running: Set[str]) -> Tuple[str, ...]:
    """The configuration systems that configure links of this host, by their files and by which of their services run."""
    found = []
    if any(path.startswith(("/etc/netplan/", "/run/netplan/", "/lib/netplan/")) for path in files) and "netplan" in running:
        found.append("netplan")
    own = [path for path in files if path.endswith(".network") and not path.startswith("/usr/lib") and "-netplan-" not in path]
    if "systemd-networkd.service" in running and own:
        found.append("networkd")
    if "NetworkManager.service" in running:
        found.append("networkmanager")
    stanzas = [words[1] for path, text in files.items() if path.startswith("/etc/network/interfaces")
               for words in (line.split() for line in text.splitlines()) if len(words) > 2 and words[0] == "iface"]
    if "ifupdown" in running and any(name != "lo" for name in stanzas):
        found.append("ifupdown")
    return tuple(found)


def running_systems(runner: guard.Runner) -> Set[str]:
    """Services that run, and tools that are there, of those that configure links."""
    found = {name for name, tool in (("netplan", "/usr/sbin/netplan"), ("ifupdown", "/sbin/ifup")) if os.path.exists(tool)}
    for unit in ("systemd-networkd.service", "NetworkManager.service"):
        if runner(["systemctl", "is-active", "--quiet", unit], 20.0)[0] == 0:
            found.add(unit)
    return found


def netplan_renderer(files: Mapping[str, str]) -> str:
    """What netplan hands over to; networkd where it does not say."""
    found = [name for path, text in sorted(files.items(), key=lambda item: os.path.basename(item[0])) if "/netplan/" in path
             for name in [_hostnet_netplan.renderer(text)] if name]
    return "NetworkManager" if found and found[-1] == "NetworkManager" else "networkd"


def parse_database(text: str) -> List[Dict[str, Any]]:
    """Rows of C(ovs-vsctl --format=json list TABLE): sets as lists, maps as dicts, references as their UUID."""
    data = json.loads(text)
    return [{heading: _value(value) for heading, value in zip(data["headings"], row)} for row in data["data"]]


def _value(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 2 and value[0] in ("set", "map", "uuid"):
        kind, content = value
        return content if kind == "uuid" else [_value(v) for v in content] if kind == "set" else {str(k): v for k, v in content}
    return value


def read_database(runner: guard.Runner) -> Dict[str, List[Dict[str, Any]]]:
    """The tables of Open vSwitch that a plan is about; nothing where it does not run."""
    result = {}
    for table in ("Bridge", "Port", "Interface"):
        code, text = runner(["ovs-vsctl", "--timeout=10", "--format=json", "list", table], 15.0)
        if code:
            return {}
        result[table] = parse_database(text)
    return result


def missing_modules(names: Sequence[str], runner: guard.Runner) -> List[str]:
    """Those kernel modules that the running kernel does not have."""
    release = os.uname().release
    index = "/lib/modules/{0}".format(release)
    known = ""
    for name in ("modules.dep", "modules.builtin"):
        known += _text(os.path.join(index, name))
    missing = []
    for name in names:
        if os.path.isdir("/sys/module/{0}".format(name)):
            continue
        if known:
            if not re.search(r"/{0}\.ko".format(re.escape(name)), known):
                missing.append(name)
        elif name in _TRIALS:
            # A container has no list of its kernel's modules
            script = " && ".join(" ".join(call) for call in _TRIALS[name])
            if runner(["unshare", "-n", "sh", "-c", script], 20.0)[0]:
                missing.append(name)
        else:
            missing.append(name)
    return missing


def observe(runner: guard.Runner = guard.run, told: str = "") -> Observed:
    """Look at this host. Raises FleetError."""
    try:
        links, routes, ways = guard.links(runner), guard.routes(runner), read_set_routes(runner)
    except guard.Failed as exc:
        raise FleetError("Cannot read the host's links: {0}. Install iproute2".format(exc), "missing_tool") from exc
    files = read_files()
    return Observed(links, routes, files, at_work(files, running_systems(runner)), netplan_renderer(files), read_database(runner),
                    management_links(links, routes, reached_by(told)), ways)
