# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks of a host: what is declared, what is observed, and the plan of devices that makes the one out of the other. Touches nothing.

Every configuration system gets its files from the same plan (C(_hostnet_netplan), C(_hostnet_networkd), ...), so that what is refused is refused alike
everywhere, before any file is written.
"""
from __future__ import annotations

import difflib
import hashlib
import ipaddress
import re
from dataclasses import dataclass, field, replace
from typing import Any, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import (
    SpecError,
    check_address,
    check_interface,
    check_label,
    one_of,
    parse_int,
)

SYSTEMS = ("netplan", "networkd", "ifupdown", "networkmanager")
BACKENDS = SYSTEMS + ("openvswitch",)
TYPES = ("bridge", "isolated", "vlan", "vxlan", "bond", "nat")
BOND_MODES = ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb", "balance-slb")
HASH_POLICIES = ("layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4", "vlan+srcmac")
HEADER = "Made by kvmfleet.core.host_network; changes here are lost, change host_network_networks instead"
# What begins a line of somebody else's file that a network of ours has put out of force, and that comes back when the network goes.
PARKED = "#kvmfleet# "
ADDED = "#kvmfleet+\n"       # the line after it was added by us
NAME_MAX = 15            # IFNAMSIZ of the kernel is 16 with the zero at the end
VXLAN_PORT = 4789
PHYSICAL = ("physical", "veth", "dsa")      # kinds of links that nobody's configuration has to make
_IFNAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_KEYS = frozenset((
    "name", "type", "link", "links", "vlan", "vni", "group", "peers", "local", "port", "bond", "addresses", "gateway4", "gateway6", "nameservers", "dhcp4",
    "dhcp6", "dhcp_routes", "mtu", "stp", "bridge", "dhcp_ranges", "dns", "out", "backend", "routes"))
# Which keys mean something for some types only: written elsewhere they would be silently without effect.
_ONLY = {
    "vlan": ("vlan",), "vni": ("vxlan",), "group": ("vxlan",), "peers": ("vxlan",), "local": ("vxlan",), "port": ("vxlan",), "bond": ("bond",),
    "dhcp_ranges": ("nat",), "dns": ("nat",), "out": ("nat",), "dhcp4": ("bridge", "vlan", "vxlan", "bond"), "dhcp6": ("bridge", "vlan", "vxlan", "bond"),
    "gateway4": ("bridge", "vlan", "vxlan", "bond"), "gateway6": ("bridge", "vlan", "vxlan", "bond"),
    "routes": ("bridge", "isolated", "vlan", "vxlan", "bond"),
}

File = Tuple[int, str]          # mode, text


class Route(NamedTuple):
    """A static route beside the default ones. Without C(via) what it leads to is on the network itself."""

    to: str
    via: str = ""

    @property
    def version(self) -> int:
        """4 or 6."""
        return int(ipaddress.ip_network(self.to).version)

    @property
    def shown(self) -> str:
        """As C(ip route show) has it, without the device."""
        network = ipaddress.ip_network(self.to)
        to = str(network.network_address) if network.prefixlen == network.max_prefixlen else self.to
        return "{0} via {1}".format(to, self.via) if self.via else to


class Conflict(NamedTuple):
    """A definition in a file that is not ours and stands in the way."""

    file: str
    stanza: str
    reason: str


def unpark(text: str) -> str:
    """A file as it was before networks of ours put lines of it out of force and added some."""
    lines = text.splitlines(True)
    kept = [line for number, line in enumerate(lines) if line != ADDED and (number == 0 or lines[number - 1] != ADDED)]
    return "".join(line[len(PARKED):] if line.startswith(PARKED) else line for line in kept)


@dataclass(frozen=True)
class Link:
    """A link as the host has it now. C(management): the address by which the control node reaches the host is on it."""

    name: str
    kind: str = "physical"       # what ip -d link calls info_kind; "physical" where there is none
    mac: str = ""
    mtu: int = 1500
    addresses: Tuple[str, ...] = ()
    gateways: Tuple[str, ...] = ()      # of the default routes that go out here
    master: str = ""
    management: bool = False
    parent: str = ""                    # the link that this one is on top of
    routes: Tuple[str, ...] = ()        # that somebody has set beside the default ones, as C(ip route show) has them


@dataclass(frozen=True)
class Bond:
    """How several links are made one. C(miimon) is in milliseconds."""

    name: str
    mode: str = "active-backup"
    miimon: int = 100
    lacp_rate: str = ""
    hash_policy: str = ""
    primary: str = ""


@dataclass(frozen=True)
class Network:
    """A declared network, with every default filled in. C(mtu) 0: the system's own."""

    name: str
    type: str
    bridge: str
    links: Tuple[str, ...] = ()
    vlan: int = 0
    vni: int = 0
    group: str = ""
    peers: Tuple[str, ...] = ()
    local: str = ""
    port: int = VXLAN_PORT
    bond: Optional[Bond] = None
    addresses: Tuple[str, ...] = ()
    gateway4: str = ""
    gateway6: str = ""
    routes: Optional[Tuple[Route, ...]] = None      # None: nothing is said about them
    nameservers: Tuple[str, ...] = ()
    dhcp4: bool = False
    dhcp6: bool = False
    dhcp_routes: bool = True
    mtu: int = 0
    stp: bool = False
    dhcp_ranges: Tuple[Tuple[str, str], ...] = ()
    dns: bool = False
    out: Tuple[str, ...] = ()
    openvswitch: bool = False
    switch: str = ""             # the Open vSwitch bridge that it is on; with VLANs not C(bridge), which then is the host's port in it

    @property
    def by_libvirt(self) -> bool:
        """Whether libvirt makes the bridge: it serves DHCP and DNS on bridges of its own only."""
        return self.type == "nat" and bool(self.dhcp_ranges or self.dns)

    @property
    def has_address(self) -> bool:
        """Whether the host itself is on the network."""
        return bool(self.addresses or self.dhcp4 or self.dhcp6)

    @property
    def subnets(self) -> List[Any]:
        """The IP networks of the host's addresses."""
        return [ipaddress.ip_interface(a).network for a in self.addresses]


@dataclass(frozen=True)
class Device:
    """One device of the plan.

    C(kind) is C(link) (an existing one), C(bond), C(vlan), C(vxlan), C(bridge), or C(internal): a port that Open vSwitch makes and that only gets addresses.
    C(ours) is false for a link that merely carries a VLAN or a VXLAN and keeps the configuration it has.
    """

    name: str
    kind: str
    ours: bool = True
    master: str = ""
    parent: str = ""
    mac: str = ""
    mtu: int = 0
    network: Optional[Network] = None
    addressed: bool = False      # the addresses of C(network) are on it


@dataclass(frozen=True)
class Plan:
    """What a host gets. C(files) are the texts of the configuration files that it has now, by path; a renderer never changes those that are not ours."""

    system: str
    networks: Tuple[Network, ...] = ()
    devices: Tuple[Device, ...] = ()
    links: Tuple[Link, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    renderer: str = "networkd"   # what netplan hands over to: networkd or NetworkManager
    datapath: str = ""           # of Open vSwitch bridges: system, netdev (in user space), or as it is

    def device(self, name: str) -> Optional[Device]:
        """The device of that name, if the plan has it."""
        return next((d for d in self.devices if d.name == name), None)

    def children(self, parent: str, kind: str) -> List[Device]:
        """Devices of a kind that are on top of another one."""
        return [d for d in self.devices if d.kind == kind and d.parent == parent]

    @property
    def owned(self) -> Set[str]:
        """Names of the devices that only our files may configure."""
        return {d.name for d in self.devices if d.ours}


def fit(prefix: str, name: str, taken: Iterable[str] = ()) -> str:
    """A device name out of a prefix and a name: C(br-lan); shortened and told apart by a hash where that is longer than 15 characters.

    A shortened name in C(taken) gets another hash; a name that needs no shortening is never changed, for a bridge must not change its name because of
    another network.
    """
    plain = prefix + name
    if len(plain) <= NAME_MAX:
        return plain
    taken = set(taken)
    head = plain[:NAME_MAX - 5].rstrip("-.")
    for attempt in range(1 << 16):
        candidate = "{0}-{1}".format(head, hashlib.sha256("{0}:{1}".format(plain, attempt).encode()).hexdigest()[:4])
        if candidate not in taken:
            return candidate
    raise SpecError("name", name, "leaves no free device name of 15 characters", "Give the bridge a name with bridge")


def check_ifname(option: str, value: Any) -> str:
    """A name that the kernel, all configuration systems and Open vSwitch take for a device."""
    text = str(value)
    if len(text) > NAME_MAX:
        raise SpecError(option, text, "has {0} characters, {1} are possible".format(len(text), NAME_MAX), "Shorten it, or leave it out")
    if not _IFNAME.match(text) or text == "all" or text == "default":
        raise SpecError(option, text, "is not a device name", "Use letters, digits, '-', '_' and '.', beginning with a letter or a digit")
    return text


def near(name: str, known: Iterable[str]) -> str:
    """The sentence that helps somebody who mistyped a name."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return "Perhaps {0} was meant".format(close[0])
    return "There are: {0}".format(", ".join(known)) if known else "The host has no link that could be used"


def _texts(data: Mapping[str, Any], key: str) -> List[str]:
    value = data.get(key)
    if value is None or value == "":
        return []
    return [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]


def _flag(data: Mapping[str, Any], key: str, default: bool) -> bool:
    value = data.get(key)
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text not in ("true", "yes", "on", "1", "false", "no", "off", "0"):
        raise SpecError(key, value, "is neither true nor false", "Write true or false")
    return text in ("true", "yes", "on", "1")


def _bond(name: str, data: Any, links: Sequence[str], openvswitch: bool) -> Bond:
    if data is not None and not isinstance(data, Mapping):
        raise SpecError("bond", data, "is not a mapping", "Write it as {mode: active-backup}")
    data = data or {}
    known = ("name", "mode", "miimon", "lacp_rate", "xmit_hash_policy", "primary")
    for key in data:
        if key not in known:
            raise SpecError("bond.{0}".format(key), data[key], "is not known", near(str(key), known))
    if not links:
        raise SpecError("links", None, "names no link, and a bond needs at least one", "Name the links that the bond is made of")
    mode = one_of("bond.mode", data.get("mode") or "active-backup", BOND_MODES)
    if openvswitch and mode not in ("active-backup", "balance-slb", "802.3ad"):
        raise SpecError("bond.mode", mode, "is not known to Open vSwitch", "Use active-backup, balance-slb or 802.3ad")
    if not openvswitch and mode == "balance-slb":
        raise SpecError("bond.mode", mode, "is known to Open vSwitch only", "Use balance-xor or active-backup, or backend: openvswitch")
    rate = one_of("bond.lacp_rate", data["lacp_rate"], ("slow", "fast")) if data.get("lacp_rate") else ""
    if rate and mode != "802.3ad":
        raise SpecError("bond.lacp_rate", rate, "is for mode 802.3ad", "Leave it out, or use that mode")
    policy = one_of("bond.xmit_hash_policy", data["xmit_hash_policy"], HASH_POLICIES) if data.get("xmit_hash_policy") else ""
    primary = str(data.get("primary") or "")
    if primary and primary not in links:
        raise SpecError("bond.primary", primary, "is not one of the bond's links", near(primary, links))
    return Bond(name=check_ifname("bond.name", data["name"]) if data.get("name") else fit("bd-", name), mode=mode,
                miimon=100 if data.get("miimon") is None else parse_int("bond.miimon", data["miimon"], 0, 60000), lacp_rate=rate, hash_policy=policy,
                primary=primary)


def _ranges(data: Mapping[str, Any], interfaces: Sequence[Any]) -> Tuple[Tuple[str, str], ...]:
    result: List[Tuple[str, str]] = []
    for text in _texts(data, "dhcp_ranges"):
        parts = [p.strip() for p in text.split("-")]
        if len(parts) != 2:
            raise SpecError("dhcp_ranges", text, "is not a range of addresses", "Write it as 192.0.2.100-192.0.2.199")
        first, last = (ipaddress.ip_address(check_address("dhcp_ranges", p)) for p in parts)
        own = [i for i in interfaces if first in i.network and last in i.network]
        if not own:
            raise SpecError("dhcp_ranges", text, "is outside the network's subnets ({0})".format(", ".join(str(i.network) for i in interfaces)),
                            "Use addresses of one of them")
        if int(first) > int(last):
            raise SpecError("dhcp_ranges", text, "ends before it begins", "Turn it round")
        if any(int(first) <= int(i.ip) <= int(last) for i in own):
            raise SpecError("dhcp_ranges", text, "includes the gateway's address {0}".format(own[0].ip), "Leave that address out of the range")
        for other in result:
            if ipaddress.ip_address(other[0]).version == first.version and int(first) <= int(ipaddress.ip_address(other[1])) \
                    and int(ipaddress.ip_address(other[0])) <= int(last):
                raise SpecError("dhcp_ranges", text, "overlaps {0}-{1}".format(*other), "Join them, or move one")
        result.append((str(first), str(last)))
    return tuple(result)


def network_from(data: Mapping[str, Any], system: str) -> Network:
    """One item of C(host_network_networks), read and checked on its own. Raises SpecError that names the key."""
    if not isinstance(data, Mapping):
        raise SpecError("", data, "is not a mapping", "Write it as {name: lan, type: bridge, link: eth1}")
    for key in sorted(str(k) for k in data):
        if key not in _KEYS:
            raise SpecError(key, data.get(key), "is not known", near(key, _KEYS))
    name = check_label("name", data.get("name"))
    kind = one_of("type", data.get("type") or "bridge", TYPES)
    for key, types in _ONLY.items():
        if kind not in types and data.get(key) not in (None, "", [], False):
            raise SpecError(key, data[key], "means nothing for a network of type {0}".format(kind), "Leave it out; it is for {0}".format(", ".join(types)))
    backend = one_of("backend", data.get("backend") or system, BACKENDS)
    if backend not in (system, "openvswitch"):
        raise SpecError("backend", backend, "is not this host's configuration system, which is {0}".format(system),
                        "Leave it out, or write openvswitch for a bridge in Open vSwitch")
    openvswitch = backend == "openvswitch"
    if data.get("link") and data.get("links"):
        raise SpecError("links", data["links"], "is given together with link", "Use one of them")
    links = tuple(check_ifname("link", text) for text in _texts(data, "links") or _texts(data, "link"))
    if len(set(links)) != len(links):
        raise SpecError("links", ", ".join(links), "names a link twice", "Name each once")
    if kind in ("bridge", "vlan") and len(links) != 1:
        raise SpecError("link", ", ".join(links) or None, "a network of type {0} is over exactly one link".format(kind),
                        "Name one link" if not links else "Use type: bond for several links")
    if kind in ("isolated", "nat") and links:
        raise SpecError("link", ", ".join(links), "means nothing for a network of type {0}".format(kind), "Leave it out, or use type: bridge")
    if kind == "vxlan" and len(links) > 1:
        raise SpecError("links", ", ".join(links), "a VXLAN goes over one link", "Name one, or none with peers")
    own = _addresses(data)
    interfaces = [ipaddress.ip_interface(a) for a in own]
    gateways = {}
    for key, version in (("gateway4", 4), ("gateway6", 6)):
        if not data.get(key):
            continue
        if ipaddress.ip_address(check_address(key, data[key])).version != version:
            raise SpecError(key, data[key], "is not an IPv{0} address".format(version), "Use gateway{0} for it".format(10 - version))
        gateways[key] = _gateway(key, data[key], [i for i in interfaces if i.version == version])
    dhcp = {key: _flag(data, key, False) for key in ("dhcp4", "dhcp6")}
    for key, asking in (("gateway4", "dhcp4"), ("gateway6", "dhcp6")):
        if gateways.get(key) and dhcp[asking] and _flag(data, "dhcp_routes", True):
            raise SpecError(key, gateways[key], "is given together with {0}, which brings a default route of its own".format(asking),
                            "Leave one out, or set dhcp_routes: false", "two_default_routes")
    network = Network(
        name=name, type=kind, bridge=check_ifname("bridge", data["bridge"]) if data.get("bridge") else "", links=links, openvswitch=openvswitch,
        addresses=own, gateway4=gateways.get("gateway4", ""), gateway6=gateways.get("gateway6", ""),
        routes=_routes(data, interfaces, dhcp),
        nameservers=tuple(check_address("nameservers", a) for a in _texts(data, "nameservers")), dhcp4=dhcp["dhcp4"], dhcp6=dhcp["dhcp6"],
        dhcp_routes=_flag(data, "dhcp_routes", True), stp=_flag(data, "stp", False), dns=_flag(data, "dns", False),
        out=tuple(check_ifname("out", text) for text in _texts(data, "out")),
        # 1280 is what IPv6 needs; nothing smaller is of use on a bridge
        mtu=0 if data.get("mtu") is None else parse_int("mtu", data["mtu"], 1280, 65535),
        bond=_bond(name, data.get("bond"), links, openvswitch) if kind == "bond" else None,
    )
    if kind == "vlan":
        if data.get("vlan") is None:
            raise SpecError("vlan", None, "is missing", "Give the VLAN id, 1 to 4094")
        network = replace(network, vlan=parse_int("vlan", data["vlan"], 1, 4094, "a VLAN id"))
    if kind == "vxlan":
        network = _vxlan(network, data)
    if kind == "nat":
        if not own:
            raise SpecError("addresses", None, "is missing, and a NAT network's gateway is the host", "Give the host's address, such as 10.20.0.1/24")
        network = replace(network, dhcp_ranges=_ranges(data, interfaces))
        if network.by_libvirt and openvswitch:
            raise SpecError("backend", backend, "does not go with dhcp_ranges or dns, which libvirt serves on Linux bridges of its own",
                            "Leave backend out, or leave dhcp_ranges and dns out")
    if network.nameservers and not (network.dns if network.by_libvirt else network.has_address):
        raise SpecError("nameservers", ", ".join(network.nameservers), "would be asked by nobody", "Set dns: true, for libvirt to ask them for the guests"
                        if network.by_libvirt else "Give the host an address on this network, or leave them out")
    return network


def _gateway(key: str, value: Any, interfaces: Sequence[Any]) -> str:
    gateway = ipaddress.ip_address(check_address(key, value))
    if any(gateway == i.ip for i in interfaces):
        raise SpecError(key, value, "is the host's own address", "Give the router's address")
    if not any(gateway in i.network for i in interfaces) and not (gateway.is_link_local and gateway.version == 6):
        raise SpecError(key, value, "is outside the subnets of the host's addresses ({0})".format(", ".join(str(i.network) for i in interfaces) or "none"),
                        "Use a gateway inside one of them, or correct addresses", "gateway_outside")
    return str(gateway)


def _routes(data: Mapping[str, Any], interfaces: Sequence[Any], dhcp: Mapping[str, bool]) -> Optional[Tuple[Route, ...]]:
    value = data.get("routes")
    if value is None:
        return None
    found: List[Route] = []
    for index, item in enumerate(value if isinstance(value, (list, tuple)) else [value]):
        where = "routes[{0}]".format(index)
        if not isinstance(item, Mapping) or set(item) - {"to", "via"} or not item.get("to"):
            raise SpecError(where, item, "is not a route", "Write it as {to: 10.0.0.0/8, via: 192.0.2.254}")
        try:
            target = ipaddress.ip_network(str(item["to"]))
        except ValueError:
            raise SpecError(where + ".to", item["to"], "is not a subnet", "Write it as 10.0.0.0/8") from None
        if target.prefixlen == 0:
            raise SpecError(where + ".to", item["to"], "is everything", "Use gateway{0} for the default route".format(target.version))
        own = [i for i in interfaces if i.version == target.version]
        if not own and not dhcp["dhcp{0}".format(target.version)]:
            raise SpecError(where, item["to"], "needs an IPv{0} address of the host on this network".format(target.version), "Give one in addresses")
        via = ""
        if item.get("via"):
            router = ipaddress.ip_address(check_address(where + ".via", item["via"]))
            if router.version != target.version:
                raise SpecError(where + ".via", item["via"], "is not an IPv{0} address".format(target.version), "Give a router of the same kind")
            inside = any(router in i.network for i in own) or dhcp["dhcp{0}".format(router.version)] or (router.version == 6 and router.is_link_local)
            if not inside:
                raise SpecError(where + ".via", item["via"], "is outside the subnets of the host's addresses", "Use a router inside one of them",
                                "gateway_outside")
            via = str(router)
        if str(target) in {route.to for route in found}:
            raise SpecError(where + ".to", item["to"], "is given twice", "Remove one")
        found.append(Route(str(target), via))
    return tuple(sorted(found))


def _addresses(data: Mapping[str, Any]) -> Tuple[str, ...]:
    own = tuple(check_interface("addresses", a) for a in _texts(data, "addresses"))
    if len(set(own)) != len(own):
        raise SpecError("addresses", ", ".join(own), "an address is given twice", "Remove one")
    return own


def _vxlan(network: Network, data: Mapping[str, Any]) -> Network:
    if data.get("vni") is None:
        raise SpecError("vni", None, "is missing", "Give the VXLAN's number, 1 to 16777215, the same on every host")
    network = replace(network, vni=parse_int("vni", data["vni"], 1, (1 << 24) - 1, "a VXLAN number"),
                      port=VXLAN_PORT if data.get("port") is None else parse_int("port", data["port"], 1, 65535))
    peers = tuple(check_address("peers", p) for p in _texts(data, "peers"))
    local = check_address("local", data["local"]) if data.get("local") else ""
    group = check_address("group", data["group"]) if data.get("group") else ""
    if bool(group) == bool(peers):
        raise SpecError("peers", ", ".join(peers) or None, "a VXLAN has either a multicast group or a list of peers",
                        "Give group, or peers" if not group else "Leave one of group and peers out")
    if group and not ipaddress.ip_address(group).is_multicast:
        raise SpecError("group", group, "is not a multicast address", "Use one such as 239.1.1.1, or list the other hosts in peers")
    if group and not network.links:
        raise SpecError("link", None, "is missing, and a multicast group is joined on a link", "Name the link to the other hosts")
    if group and network.openvswitch:
        raise SpecError("group", group, "Open vSwitch has no multicast VXLANs", "List the other hosts in peers")
    # The list is the same for all hosts of a group; the host itself is left out of its own.
    peers = tuple(sorted({p for p in peers if p != local}, key=lambda p: (ipaddress.ip_address(p).version, int(ipaddress.ip_address(p)))))
    versions = {ipaddress.ip_address(a).version for a in peers + ((local,) if local else ()) + ((group,) if group else ())}
    if len(versions) > 1:
        raise SpecError("peers", ", ".join(peers) or group, "mixes IPv4 and IPv6", "Use addresses of one kind")
    for peer in peers:
        address = ipaddress.ip_address(peer)
        if address.is_multicast or address.is_unspecified or address.is_loopback:
            raise SpecError("peers", peer, "is not the address of another host", "Use group for multicast")
        if any(address in subnet for subnet in network.subnets):
            raise SpecError("peers", peer, "is inside the subnet of this network itself, and a tunnel does not go through itself",
                            "Give the address by which that host is reached without this network, or correct addresses")
    return replace(network, peers=peers, local=local, group=group)
