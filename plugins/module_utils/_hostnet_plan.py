# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From declared networks and observed links to a plan of devices; everything that could not work, or could cut the host off, is refused here."""
from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any, Container, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import _hostnet_record
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import (
    PHYSICAL,
    SYSTEMS,
    Device,
    Link,
    Network,
    Plan,
    near,
    fit,
    network_from,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, each, one_of

VARIABLE = "host_network_networks"
_OWN_KINDS = ("bridge", "openvswitch")


def _where(networks: Sequence[Network], network: Network, key: str) -> str:
    return "{0}[{1}].{2}".format(VARIABLE, networks.index(network), key)


def make_plan(declared: Sequence[Mapping[str, Any]], links: Sequence[Link], system: str, files: Optional[Mapping[str, str]] = None,
              renderer: str = "networkd", allow_management_change: bool = False, datapath: str = "") -> Plan:
    """The plan for one host.

    C(links) are those that it has now, also our own bridges of an earlier run; C(files) its configuration files by path. C(allow_management_change) takes
    the responsibility for a new address or gateway of the link by which the host is reached. Raises SpecError.
    """
    one_of("host_network_system", system, SYSTEMS)
    networks = each(VARIABLE, declared, lambda item, index: network_from(item, system))
    names: Dict[str, int] = {}
    for index, network in enumerate(networks):
        if network.name in names:
            raise SpecError("{0}[{1}].name".format(VARIABLE, index), network.name, "is also the name of {0}[{1}]".format(VARIABLE, names[network.name]),
                            "Give each network its own name")
        names[network.name] = index
    observed = {link.name: link for link in links}
    networks = _name_bridges(networks, observed)
    _check_links(networks, observed)
    _check_kinds(networks, observed, system)
    _check_numbers(networks)
    networks = _switches(networks)
    networks = _sizes(networks, observed)
    _check_names(networks, observed)
    _check_routes(networks, observed)
    _check_subnets(networks, observed)
    recorded = {name for old in _hostnet_record.read(files or {}).values() for name in old.devices}
    _check_kept_routes(networks, observed, recorded)
    if not allow_management_change:
        _check_management(networks, observed)
    # By name, so that neither files nor anything else depend on the order in which networks are listed.
    return Plan(system=system, networks=tuple(sorted(networks, key=lambda n: n.name)), devices=tuple(_devices(networks, observed)), links=tuple(links),
                files=dict(files or {}), renderer=renderer, datapath=datapath)


def _name_bridges(networks: Sequence[Network], observed: Mapping[str, Link]) -> List[Network]:
    taken = {n.bridge for n in networks if n.bridge} | {name for name, link in observed.items() if link.kind not in _OWN_KINDS}
    named = {}
    for network in sorted(networks, key=lambda n: n.name):
        named[network.name] = network.bridge or fit("br-", network.name, taken)
        taken.add(named[network.name])
    return [replace(n, bridge=named[n.name]) for n in networks]


def _check_names(networks: Sequence[Network], observed: Mapping[str, Link]) -> None:
    """No two devices with one name, and none that the host already uses for something else."""
    owner: Dict[str, str] = {}
    for network in networks:
        made = [(network.bridge, "bridge", _OWN_KINDS if not network.openvswitch else ("openvswitch",))]
        if network.switch and network.switch not in owner and all(n.bridge != network.switch for n in networks):
            made.append((network.switch, "link", ("openvswitch",)))
        if network.bond and not network.openvswitch:
            made.append((network.bond.name, "bond.name", ("bond",)))
        if network.vlan and not network.openvswitch:
            made.append((vlan_name(network), "vlan", ("vlan",)))
        if network.vni and not network.openvswitch:
            made.append((vxlan_name(network), "vni", ("vxlan",)))
        for name, key, kinds in made:
            where = _where(networks, network, key)
            if name in owner:
                raise SpecError(where, name, "is also a device of network {0}".format(owner[name]), "Give one of them another name with bridge", "name_clash")
            if name in observed and observed[name].kind not in kinds:
                raise SpecError(where, name, "is the name of a link of the host ({0})".format(observed[name].kind), "Choose another name with bridge",
                                "name_clash")
            owner[name] = network.name


def _base(name: str, networks: Sequence[Network]) -> Optional[Network]:
    """The network whose bond a link name means."""
    return next((n for n in networks if n.bond and n.bond.name == name), None)


def _check_links(networks: Sequence[Network], observed: Mapping[str, Link]) -> None:
    bonds = {n.bond.name for n in networks if n.bond}
    ours = {n.bridge for n in networks}
    usable = ({name for name, link in observed.items() if link.kind in ("physical", "bond", "veth", "vlan", "dummy", "team")} - ours) | bonds
    untagged: Dict[str, Network] = {}
    for network in networks:
        for link in network.links + network.out:
            where = _where(networks, network, "link" if link in network.links else "out")
            if link not in observed and link not in bonds and not (link in network.out and link in ours - {network.bridge}):
                raise SpecError(where, link, "is not a link of this host", near(link, usable), "unknown_link")
            if link in ours and link in network.links and network.type != "vxlan":
                raise SpecError(where, link, "is a bridge of another network", near(link, usable), "unknown_link")
        if network.type not in ("bridge", "bond"):
            continue
        for link in network.links:
            where = _where(networks, network, "links" if network.bond else "link")
            if link in untagged:
                raise SpecError(where, link, "is also a link of network {0}, and a link can be in one bridge only".format(untagged[link].name),
                                "Use type: vlan for one of them, or another link", "link_in_use")
            untagged[link] = network
            # A bridge of ours gives a link up in the same change; Open vSwitch would be asked for it before that
            wanted = {network.bridge} if network.openvswitch else set(ours)
            wanted |= {network.bond.name if network.bond else network.bridge, "ovs-system"}
            master = observed[link].master if link in observed else ""
            if master and master not in wanted:
                raise SpecError(where, link, "is already a port of {0}".format(master), "Take it out there first, or name that bridge with bridge",
                                "link_in_use")
    for network in networks:
        for link in network.links if network.type in ("vlan", "vxlan") else ():
            holder = untagged.get(link)
            if holder is None:
                continue
            where = _where(networks, network, "link")
            if holder.bond:
                raise SpecError(where, link, "is a part of the bond {0} of network {1}".format(holder.bond.name, holder.name),
                                "Use link: {0}".format(holder.bond.name), "link_in_use")
            if network.type == "vlan" and holder.openvswitch != network.openvswitch:
                raise SpecError(where, link, "is in an Open vSwitch bridge of one network and used by the kernel's VLANs of another ({0})".format(holder.name),
                                "Use one backend for all networks of a link", "link_in_use")
    kinds: Dict[str, Network] = {}
    for network in networks:
        for link in network.links if network.type == "vlan" else ():
            first = kinds.setdefault(link, network)
            if first.openvswitch != network.openvswitch:
                raise SpecError(_where(networks, network, "backend"), None, "VLANs of link {0} would be made twice: network {1} has another backend".format(
                    link, first.name), "Use one backend for all networks of a link", "link_in_use")
            base = _base(link, networks)
            if base is not None and base.openvswitch != network.openvswitch:
                raise SpecError(_where(networks, network, "backend"), None, "the bond {0} is made by another backend".format(link),
                                "Use the same backend as network {0}".format(base.name), "link_in_use")
            if network.openvswitch and base is None and link not in untagged and observed[link].master not in ("", "ovs-system"):
                raise SpecError(_where(networks, network, "link"), link, "is already a port of {0}".format(observed[link].master), "Take it out there first",
                                "link_in_use")


def _check_kinds(networks: Sequence[Network], observed: Mapping[str, Link], system: str) -> None:
    """A link that the site's configuration makes has to be made by it after the change, too; only networkd keeps that apart from the addresses."""
    for link, network in moved_links(networks).items():
        kind = observed[link].kind if link in observed else "physical"
        if system == "networkd" or kind in PHYSICAL:
            continue
        remedy = {"bond": "Name the links of {0} in a network of type bond, and take {0} out of the host's own configuration",
                  "vlan": "Use type: vlan with the link below {0} and its VLAN id, and take {0} out of the host's own configuration"}.get(
                      kind, "Use a physical link instead of {0}")
        raise SpecError(_where(networks, network, "links" if network.bond else "link"), link,
                        "is a {0} that this host's own configuration ({1}) makes, and would not be made any more once it is ours".format(kind, system),
                        remedy.format(link), "unsupported")


def _check_numbers(networks: Sequence[Network]) -> None:
    vlans: Dict[Tuple[str, int], Network] = {}
    vnis: Dict[int, Network] = {}
    for network in networks:
        if network.type == "vlan":
            key = (network.links[0], network.vlan)
            if key in vlans:
                raise SpecError(_where(networks, network, "vlan"), network.vlan, "is also the VLAN of network {0} on {1}".format(vlans[key].name, key[0]),
                                "Give each network its own VLAN, or attach the VMs to that network", "vlan_in_use")
            vlans[key] = network
        if network.type == "vxlan":
            if network.vni in vnis:
                raise SpecError(_where(networks, network, "vni"), network.vni, "is also the VXLAN of network {0}".format(vnis[network.vni].name),
                                "Give each network its own number", "vni_in_use")
            vnis[network.vni] = network


def _switches(networks: Sequence[Network]) -> List[Network]:
    """Which Open vSwitch bridge a network is on: networks of one link share one, told apart by VLAN."""
    by_link = {link: n.bridge for n in networks if n.openvswitch and n.type in ("bridge", "bond") for link in n.links}
    by_link.update({n.bond.name: n.bridge for n in networks if n.openvswitch and n.bond})
    result = []
    for network in networks:
        switch = ""
        if network.openvswitch:
            switch = by_link.get(network.links[0]) or fit("ovs-", network.links[0]) if network.type == "vlan" else network.bridge
        result.append(replace(network, switch=switch))
    return result


def underlay(network: Network, networks: Sequence[Network], observed: Mapping[str, Link]) -> Tuple[str, int]:
    """Name and MTU of what a VXLAN's packets go over: its link, else the device with C(local) or in a subnet with a peer, else the smallest physical one."""
    def size(name: str) -> int:
        wanted = [n.mtu for n in networks if n.mtu and (name == n.bridge or (
            n.type in ("bridge", "bond") and (name in n.links or (n.bond and n.bond.name == name))))]
        return wanted[0] if wanted else observed[name].mtu if name in observed else 1500

    if network.links:
        return network.links[0], size(network.links[0])
    for address in ((network.local,) if network.local else network.peers):
        ip = ipaddress.ip_address(address)
        for other in networks:
            if other is not network and any(ip in net for net in other.subnets):
                return other.bridge, size(other.bridge)
        for link in observed.values():
            if link.kind != "vxlan" and any(ip in ipaddress.ip_interface(a).network for a in link.addresses):
                return link.name, size(link.name)
    physical = sorted((size(link.name), link.name) for link in observed.values() if link.kind == "physical")
    return (physical[0][1], physical[0][0]) if physical else ("", 1500)


def _sizes(networks: Sequence[Network], observed: Mapping[str, Link]) -> List[Network]:
    result = []
    for network in networks:
        if network.type == "vxlan":
            name, mtu = underlay(network, networks, observed)
            ends = network.peers or ((network.group,) if network.group else (network.local,) if network.local else ())
            overhead = 70 if any(ipaddress.ip_address(a).version == 6 for a in ends) else 50
            if network.mtu > mtu - overhead:
                raise SpecError(_where(networks, network, "mtu"), network.mtu, "is too large: {0} carries {1}, and a VXLAN takes {2} of them".format(
                    name or "the link below", mtu, overhead), "Use at most {0}, or raise the MTU of {1}".format(mtu - overhead, name or "the link"), "mtu")
            # Without it the bridge would promise guests 1500 and lose their large packets.
            network = replace(network, mtu=network.mtu or mtu - overhead)
        if network.type == "vlan" and network.mtu:
            link = network.links[0]
            raised = [n.mtu for n in networks if n.mtu and n.type in ("bridge", "bond") and (link in n.links or (n.bond and n.bond.name == link))]
            mtu = raised[0] if raised else observed[link].mtu if link in observed else 1500
            if network.mtu > mtu:
                raise SpecError(_where(networks, network, "mtu"), network.mtu, "is more than link {0} carries ({1})".format(link, mtu),
                                "Use at most {0}, or raise the MTU of the link".format(mtu), "mtu")
        result.append(network)
    return result


def moved_links(networks: Sequence[Network]) -> Dict[str, Network]:
    """The links that lose their own addresses, with the network that takes the link over."""
    moved = {link: n for n in networks if n.type in ("bridge", "bond") for link in n.links}
    for network in networks:
        if network.type == "vlan" and network.openvswitch and _base(network.links[0], networks) is None:
            moved.setdefault(network.links[0], network)
    return moved


def _made(networks: Sequence[Network]) -> Dict[str, Network]:
    """Every device whose addresses the plan decides on, with its network: moved links, bridges, and what is between the two."""
    made = dict(moved_links(networks))
    for network in networks:
        made[network.bridge] = network
        if network.switch:
            made.setdefault(network.switch, network)
        if network.bond:
            made[network.bond.name] = network
        if network.type == "vlan":
            made[vlan_name(network)] = network
        if network.type == "vxlan":
            made[vxlan_name(network)] = network
    return made


def _staying(networks: Sequence[Network], observed: Mapping[str, Link]) -> List[Link]:
    """The observed links whose addresses remain as they are."""
    made = _made(networks)
    return [link for link in observed.values() if link.name not in made]


def _check_routes(networks: Sequence[Network], observed: Mapping[str, Link]) -> None:
    for version, key in ((4, "gateway4"), (6, "gateway6")):
        routes = [(link.name, g) for link in _staying(networks, observed) for g in link.gateways if ipaddress.ip_address(g).version == version]
        for network in networks:
            gateway = getattr(network, key)
            if not gateway and not (getattr(network, "dhcp{0}".format(version)) and network.dhcp_routes):
                continue
            # An answer of DHCP need not have a router in it, so two that ask are no mistake yet; one that asks and one that has a gateway are.
            if routes and (gateway or routes[0][1]):
                shown = "{0} of {1}".format(routes[0][1] or "DHCP", routes[0][0])
                raise SpecError(_where(networks, network, key if gateway else "dhcp{0}".format(version)), gateway or None,
                                "would be a second default route; there is {0}".format(shown), "Leave one of them out, or set dhcp_routes: false",
                                "two_default_routes")
            routes.append((network.bridge, gateway))


def _check_kept_routes(networks: Sequence[Network], observed: Mapping[str, Link], recorded: Container[str]) -> None:
    """Static routes of a link do not move by themselves. Where a network says which ones it has, these are all."""
    for name, network in sorted(_made(networks).items()):
        link = observed.get(name)
        if link is None or not link.routes or name in recorded or network.routes is not None:
            continue
        raise SpecError(_where(networks, network, "routes"), None, "{0} has static routes that would be lost: {1}".format(name, "; ".join(link.routes)),
                        "Write all that are to be kept in routes, as {to: 10.0.0.0/8, via: 192.0.2.254}; with routes: [] none is", "would_lose_routes")


def _check_subnets(networks: Sequence[Network], observed: Mapping[str, Link]) -> None:
    seen: List[Tuple[Any, str]] = []
    for link in _staying(networks, observed):
        if link.name != "lo":
            for address in link.addresses:
                subnet = ipaddress.ip_interface(address).network
                if not subnet.is_link_local:
                    seen.append((subnet, "link {0}".format(link.name)))
    for network in networks:
        for subnet in network.subnets:
            for other, owner in seen:
                if other.version == subnet.version and other.overlaps(subnet):
                    raise SpecError(_where(networks, network, "addresses"), str(subnet), "overlaps {0} of {1}".format(other, owner),
                                    "Give each network a subnet of its own", "subnet_in_use")
        seen.extend((subnet, "network {0}".format(network.name)) for subnet in network.subnets)


def _check_management(networks: Sequence[Network], observed: Mapping[str, Link]) -> None:
    """The link by which the host is reached keeps its address and its way out, wherever they move to."""
    made = _made(networks)
    for link in observed.values():
        if not link.management:
            continue
        network = made.get(link.name)
        if network is None:
            continue
        remedy = "or set host_network_allow_management_change: true if the host is to be reached in another way from then on"
        for address in link.addresses:
            interface = ipaddress.ip_interface(address)
            if interface.ip.is_link_local:
                continue
            if str(interface) not in network.addresses and not (network.dhcp4 if interface.version == 4 else network.dhcp6):
                raise SpecError(_where(networks, network, "addresses"), ", ".join(network.addresses) or None,
                                "the host is reached by {0} on {1}, and would not have that address any more".format(address, link.name),
                                "Add {0} to addresses (or use DHCP), {1}".format(address, remedy), "would_cut_off")
        for gateway in link.gateways:
            version = ipaddress.ip_address(gateway).version
            kept = getattr(network, "gateway{0}".format(version))
            by_dhcp = getattr(network, "dhcp{0}".format(version)) and network.dhcp_routes
            # Of several routers one is enough.
            if kept not in link.gateways and not by_dhcp:
                raise SpecError(_where(networks, network, "gateway{0}".format(version)), kept or None,
                                "the host is reached by way of {0} on {1}, and would not have that route any more".format(gateway, link.name),
                                "Write gateway{0}: {1} (or use DHCP), {2}".format(version, gateway, remedy), "would_cut_off")


def vlan_name(network: Network) -> str:
    """The kernel's VLAN device of a network: C(eth0.10), shortened where the link's name is long."""
    plain = "{0}.{1}".format(network.links[0], network.vlan)
    return fit("", plain)


def vxlan_name(network: Network) -> str:
    """The VXLAN device of a network; at most 11 characters."""
    return "vx-{0}".format(network.vni)


def _devices(networks: Sequence[Network], observed: Mapping[str, Link]) -> List[Device]:
    networks = sorted(networks, key=lambda n: n.name)
    moved = moved_links(networks)
    links: Dict[str, Device] = {}
    bonds, vlans, vxlans, bridges = [], [], [], []
    for network in networks:
        mac = observed[network.links[0]].mac if network.links and network.links[0] in observed else ""
        for link in network.links:
            if _base(link, networks) is not None or link in {n.bridge for n in networks}:
                continue
            if moved.get(link) is network:
                master = "" if network.openvswitch else network.bond.name if network.bond else network.bridge
                # A VLAN's MTU is not that of the link, which others go over as well
                links[link] = Device(link, "link", master=master, mtu=0 if network.type == "vlan" else network.mtu, network=network)
            elif link not in moved:
                links.setdefault(link, Device(link, "link", ours=False))
        if network.openvswitch:
            if network.has_address or network.switch == network.bridge:
                bridges.append(Device(network.bridge, "internal", mtu=network.mtu, network=network, addressed=network.has_address))
            continue
        if network.bond:
            bonds.append(Device(network.bond.name, "bond", master=network.bridge, mac=mac, mtu=network.mtu, network=network))
        if network.type == "vlan":
            vlans.append(Device(vlan_name(network), "vlan", master=network.bridge, parent=network.links[0], mtu=network.mtu, network=network))
        if network.type == "vxlan":
            vxlans.append(Device(vxlan_name(network), "vxlan", master=network.bridge, parent=network.links[0] if network.group else "", mtu=network.mtu,
                                 network=network))
        if not network.by_libvirt:
            # The bridge takes over the link's MAC address, so that DHCP leases and switches that know the host by it go on.
            bridges.append(Device(network.bridge, "bridge", mac=mac if network.type in ("bridge", "bond") else "", mtu=network.mtu, network=network,
                                  addressed=network.has_address))
    return [links[name] for name in sorted(links)] + bonds + vlans + vxlans + bridges
