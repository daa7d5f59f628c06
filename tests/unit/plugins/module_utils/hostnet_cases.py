# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts and declared networks for the tests of _hostnet_*."""
from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List

from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import Link, Plan
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_plan import make_plan

LINKS = [
    Link("lo", "loopback", addresses=("127.0.0.1/8", "::1/128"), mtu=65536),
    Link("eth0", mac="52:54:00:00:00:01", addresses=("192.0.2.10/24",), gateways=("192.0.2.1",), management=True),
    Link("eth1", mac="52:54:00:00:00:02"),
    Link("eth2", mac="52:54:00:00:00:03"),
    Link("enp0s31f6np1", mac="52:54:00:00:00:04", mtu=9000),
]

LAN: Dict[str, Any] = {"name": "lan", "link": "eth0", "addresses": ["192.0.2.10/24"], "gateway4": "192.0.2.1", "nameservers": ["192.0.2.53"]}

# One of each type, all together on one host.
ALL: List[Dict[str, Any]] = [
    LAN,
    {"name": "v10", "type": "vlan", "link": "eth0", "vlan": 10},
    {"name": "v20", "type": "vlan", "link": "enp0s31f6np1", "vlan": 2020, "addresses": ["10.2.0.1/24", "fd02::1/64"]},
    {"name": "iso", "type": "isolated"},
    {"name": "overlay", "type": "vxlan", "vni": 100, "peers": ["192.0.2.11", "192.0.2.12", "192.0.2.10"], "local": "192.0.2.10"},
    {"name": "multi", "type": "vxlan", "vni": 7, "group": "239.1.1.1", "link": "enp0s31f6np1"},
    {"name": "pair", "type": "bond", "links": ["eth1", "eth2"], "bond": {"mode": "802.3ad", "lacp_rate": "fast"}, "stp": True},
    {"name": "inside", "type": "nat", "addresses": ["10.9.0.1/24"], "out": "eth0"},
    {"name": "served", "type": "nat", "addresses": ["10.8.0.1/24", "fd08::1/64"], "dhcp_ranges": ["10.8.0.10-10.8.0.99"], "dns": True, "mtu": 1400},
]


def plan(declared: Any = None, system: str = "networkd", **kwargs: Any) -> Plan:
    """A plan for the usual host."""
    return make_plan(ALL if declared is None else declared, kwargs.pop("links", LINKS), system, **kwargs)


def after(done: Plan) -> List[Link]:
    """The links as a host shows them once the plan is carried out."""
    links = {link.name: link for link in done.links}
    management = next((link for link in done.links if link.management), None)
    for device in done.devices:
        network = device.network
        if network is None or not device.ours:
            continue
        kind = {"link": "physical", "internal": "openvswitch"}.get(device.kind, device.kind)
        old = links.get(device.name, Link(device.name, kind, mac=device.mac))
        gateways = tuple(g for g in (network.gateway4, network.gateway6) if g and device.addressed)
        moved = management is not None and device.addressed and set(management.addresses) <= set(network.addresses)
        links[device.name] = replace(old, master=device.master, mtu=device.mtu or old.mtu, addresses=network.addresses if device.addressed else (),
                                     gateways=gateways, management=moved)
    return list(links.values())


def _mostly(good: Any, *bad: Any) -> Any:
    """A good value nine times out of ten, so that lists of networks with no mistake at all are common enough."""
    return st.integers(0, 9).flatmap(lambda n: good if n else st.sampled_from(bad))


def _network(index: int) -> Any:
    name = _mostly(st.sampled_from(["n{0}".format(index), "a-rather-long-name-{0}".format(index)]), "other")
    link = _mostly(st.just(["eth1", "eth2", "enp0s31f6np1", "eth0"][index]), "eth0", "eth1", "eth9", "bd-n0")
    own = ["10.{0}.0.1/16".format(index), "fd0{0}::1/64".format(index)]
    addresses = _mostly(st.lists(st.sampled_from(own), unique=True), ["192.0.2.10/24"], ["10.0.0.0/8"], ["10.0.1.1/24"])
    common = {"name": name, "addresses": addresses, "backend": st.sampled_from([None, None, "openvswitch"]),
              "mtu": _mostly(st.sampled_from([None, 1400]), 1500, 9000), "stp": st.booleans()}
    uplink = dict(common, gateway4=_mostly(st.none(), "192.0.2.1", "10.{0}.0.254".format(index)), dhcp4=st.booleans(), dhcp6=st.booleans())
    if index == 3:
        # the link with the management address: kept right, or by DHCP, or lost
        uplink.update(addresses=_mostly(st.just(["192.0.2.10/24"]), []), gateway4=_mostly(st.just("192.0.2.1"), None), dhcp4=_mostly(st.just(False), True))
    number = _mostly(st.just(index + 1), 0, 2)
    kinds = [
        st.fixed_dictionaries(dict(uplink, type=st.just("bridge"), link=link)),
        st.fixed_dictionaries(dict(common, type=st.just("isolated"))),
        st.fixed_dictionaries(dict(uplink, type=st.just("vlan"), link=link, vlan=number)),
        st.fixed_dictionaries(dict(common, type=st.just("vlan"), link=st.just("eth0"), vlan=number, backend=st.none())),
        st.fixed_dictionaries(dict(common, type=st.just("vxlan"), vni=number, peers=_mostly(
            st.lists(st.sampled_from(["192.0.2.11", "192.0.2.12"]), min_size=1), [], ["192.0.2.11", "2001:db8::1"]))),
        st.fixed_dictionaries(dict(common, type=st.just("vxlan"), vni=number, group=st.just("239.1.1.1"), link=link, backend=st.none())),
        st.fixed_dictionaries(dict(uplink, type=st.just("bond"), links=_mostly(link.map(lambda one: [one]), [], ["eth1", "eth2"]), bond=st.fixed_dictionaries(
            {"mode": _mostly(st.sampled_from(["active-backup", "802.3ad"]), "balance-slb")}))),
        st.fixed_dictionaries(dict(common, type=st.just("nat"), addresses=_mostly(st.just(own), []), dns=st.booleans(), backend=st.none())),
    ]
    return st.one_of(kinds)


def declarations() -> Any:
    """Lists of networks, good and bad ones."""
    return st.integers(1, 4).flatmap(lambda count: st.tuples(*[_network(n) for n in range(4)][-count:])).map(list)
