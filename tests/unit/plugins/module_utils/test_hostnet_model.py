# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused before a host's network is touched, and the plan that comes out otherwise."""
from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import _hostnet_record
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet import choose_system, conflicts, kernel_modules, render
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import NAME_MAX, SYSTEMS, Link, fit
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_plan import make_plan
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.tests.unit.plugins.module_utils.hostnet_cases import ALL, LAN, LINKS, after, declarations, plan

many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ISO = {"name": "iso", "type": "isolated"}

BAD = [
    # declared networks, the option named, a part of the message
    ([{"name": "a", "link": "eth9"}], "[0].link", "Perhaps eth"),
    ([{"name": "a", "link": "eth1"}, {"name": "b", "link": "eth1"}], "[1].link", "also a link of network a"),
    ([{"name": "a", "type": "bond", "links": ["eth1", "eth2"]}, {"name": "b", "link": "eth2"}], "[1].link", "also a link of network a"),
    ([{"name": "a", "type": "bond", "links": ["eth1", "eth2"]}, {"name": "b", "type": "vlan", "vlan": 3, "link": "eth2"}], "[1].link", "bd-a"),
    ([{"name": "a", "type": "vlan", "link": "eth1", "vlan": 5}, {"name": "b", "type": "vlan", "link": "eth1", "vlan": 5}], "[1].vlan", "network a"),
    ([{"name": "a", "type": "vlan", "link": "eth1", "vlan": 4095}], "[0].vlan", "between 1 and 4094"),
    ([{"name": "a", "type": "vlan", "link": "eth1"}], "[0].vlan", "missing"),
    ([{"name": "a", "type": "vxlan", "vni": 1, "peers": "192.0.2.2"}, {"name": "b", "type": "vxlan", "vni": 1, "peers": "192.0.2.2"}], "[1].vni", "network a"),
    ([{"name": "a", "type": "vxlan", "vni": 1}], "[0].peers", "either"),
    ([{"name": "a", "type": "vxlan", "vni": 1, "group": "239.1.1.1"}], "[0].link", "missing"),
    ([{"name": "a", "type": "vxlan", "vni": 1, "group": "192.0.2.9", "link": "eth1"}], "[0].group", "multicast"),
    ([{"name": "a", "type": "vxlan", "vni": 1, "peers": ["192.0.2.2", "2001:db8::2"]}], "[0].peers", "mixes"),
    ([{"name": "a", "type": "vxlan", "vni": 1, "peers": "192.0.2.11", "mtu": 1451}], "[0].mtu", "at most 1450"),
    ([{"name": "a", "type": "vxlan", "vni": 1, "peers": "2001:db8::1", "mtu": 1431}], "[0].mtu", "at most 1430"),
    ([{"name": "a", "type": "vlan", "link": "eth1", "vlan": 5, "mtu": 9000}], "[0].mtu", "1500"),
    ([{"name": "a", "type": "bond"}], "[0].links", "at least one"),
    ([{"name": "a", "type": "bond", "links": ["eth1"], "bond": {"mode": "fast"}}], "[0].bond.mode", "802.3ad"),
    ([{"name": "a", "type": "bond", "links": ["eth1"], "bond": {"primary": "eth2"}}], "[0].bond.primary", "eth1"),
    ([{"name": "a", "type": "isolated", "bridge": "a-name-that-is-long"}], "[0].bridge", "15"),
    ([{"name": "a", "type": "isolated", "bridge": "br x"}], "[0].bridge", "not a device name"),
    ([{"name": "a", "type": "isolated", "bridge": "br-iso"}, ISO], "[1].bridge", "network a"),
    ([{"name": "a", "type": "isolated", "bridge": "eth2"}], "[0].bridge", "link of the host"),
    ([ISO, ISO], "[1].name", "[0]"),
    ([{"name": "a", "link": "eth1", "addresses": ["10.0.0.2/24"], "gateway4": "10.0.1.1"}], "[0].gateway4", "10.0.0.0/24"),
    ([{"name": "a", "link": "eth1", "addresses": ["fd00::2/64"], "gateway6": "fd01::1"}], "[0].gateway6", "fd00::/64"),
    ([{"name": "a", "link": "eth1", "addresses": ["10.0.0.2/24"], "gateway4": "10.0.0.1"}], "[0].gateway4", "second default route"),
    ([LAN, {"name": "a", "link": "eth1", "addresses": ["10.0.0.2/24"], "gateway4": "10.0.0.1"}], "[1].gateway4", "second default route"),
    ([{"name": "a", "link": "eth1", "addresses": ["10.0.0.2/24"], "gateway4": "10.0.0.1", "dhcp4": True}], "[0].gateway4", "dhcp4"),
    ([{"name": "a", "link": "eth0"}], "[0].addresses", "would not have that address"),
    ([dict(LAN, gateway4=None)], "[0].gateway4", "192.0.2.1"),
    ([dict(LAN, gateway4="192.0.2.2")], "[0].gateway4", "192.0.2.1"),
    ([{"name": "a", "type": "vlan", "link": "eth0", "vlan": 3, "backend": "openvswitch"}], "[0].addresses", "192.0.2.10/24"),
    ([{"name": "a", "type": "nat", "addresses": ["10.1.0.1/16"]}, {"name": "b", "type": "nat", "addresses": ["10.1.2.1/24"]}], "[1].addresses", "network a"),
    ([{"name": "a", "type": "nat", "addresses": ["192.0.2.1/25"]}], "[0].addresses", "link eth0"),
    ([{"name": "a", "type": "nat", "addresses": ["fd01::1/48"]}, {"name": "b", "type": "nat", "addresses": ["fd01::2/64"]}], "[1].addresses", "network a"),
    ([{"name": "a", "type": "nat"}], "[0].addresses", "missing"),
    ([{"name": "a", "type": "nat", "addresses": ["10.1.0.1/24"], "out": 'eth0" accept'}], "[0].out", "not a device name"),
    ([{"name": "a", "type": "nat", "addresses": ["10.1.0.1/24"], "out": "eth7"}], "[0].out", "not a link"),
    ([{"name": "a", "type": "nat", "addresses": ["10.1.0.1/24"], "dhcp_ranges": "10.1.1.1-10.1.1.9"}], "[0].dhcp_ranges", "outside"),
    ([{"name": "a", "type": "nat", "addresses": ["10.1.0.1/24"], "dhcp_ranges": "10.1.0.1-10.1.0.9"}], "[0].dhcp_ranges", "gateway"),
    ([{"name": "a", "type": "nat", "addresses": ["10.1.0.1/24"], "dns": True, "backend": "openvswitch"}], "[0].backend", "libvirt"),
    ([{"name": "a", "type": "isolated", "backend": "netplan"}], "[0].backend", "networkd"),
    ([{"name": "a", "type": "isolated", "vlan": 3}], "[0].vlan", "means nothing"),
    ([{"name": "a", "type": "isolated", "brigde": "x"}], "[0].brigde", "Perhaps bridge"),
    ([{"name": "a", "type": "switch"}], "[0].type", "isolated"),
    ([{"name": "a", "type": "isolated", "nameservers": ["192.0.2.53"]}], "[0].nameservers", "asked by nobody"),
    ([{"name": "a", "type": "nat", "addresses": ["10.1.0.1/24"], "dhcp_ranges": "10.1.0.5-10.1.0.9", "nameservers": "192.0.2.53"}], "[0].nameservers",
     "dns: true"),
    ([{"name": "a", "link": "eth1", "addresses": ["10.0.0.2/32"], "gateway4": "169.254.0.1"}], "[0].gateway4", "10.0.0.2/32"),
    ([{"name": "a", "type": "nat", "addresses": ["10.1.0.1/24"], "out": "br-a"}], "[0].out", "not a link"),
    ([{"name": "a", "type": "vxlan", "vni": 1, "peers": "10.1.0.2", "addresses": ["10.1.0.1/24"]}], "[0].peers", "through itself"),
    ([dict(LAN, routes=["10.0.0.0/8"])], "[0].routes[0]", "not a route"),
    ([dict(LAN, routes=[{"to": "10.0.0.1/8", "via": "192.0.2.9"}])], "[0].routes[0].to", "10.0.0.0/8"),
    ([dict(LAN, routes=[{"to": "0.0.0.0/0", "via": "192.0.2.9"}])], "[0].routes[0].to", "gateway4"),
    ([dict(LAN, routes=[{"to": "10.0.0.0/8", "via": "192.0.3.9"}])], "[0].routes[0].via", "outside"),
    ([dict(LAN, routes=[{"to": "fd00::/8", "via": "fe80::1"}])], "[0].routes[0]", "IPv6 address"),
    ([dict(LAN, routes=[{"to": "10.0.0.0/8"}, {"to": "10.0.0.0/8", "via": "192.0.2.9"}])], "[0].routes[1].to", "twice"),
    ([{"name": "a", "type": "nat", "addresses": ["10.1.0.1/24"], "routes": [{"to": "10.9.0.0/16"}]}], "[0].routes", "means nothing"),
    ([{"name": "Bad Name", "type": "isolated"}], "[0].name", "RFC 1123"),
]


@pytest.mark.parametrize("declared, option, message", BAD)
def test_bad_declarations_are_refused_with_their_place(declared: List[Dict[str, Any]], option: str, message: str) -> None:
    with pytest.raises(SpecError) as info:
        plan(declared)
    assert info.value.option == "host_network_networks" + option
    assert message in str(info.value)
    assert info.value.remedy


def test_static_routes_are_kept_or_given_up_on_purpose() -> None:
    links = [replace(link, routes=("10.0.0.0/8 via 192.0.2.254",)) if link.name == "eth0" else link for link in LINKS]
    with pytest.raises(SpecError, match="eth0 has static routes that would be lost: 10.0.0.0/8 via 192.0.2.254") as info:
        plan([LAN], links=links)
    assert info.value.option == "host_network_networks[0].routes" and info.value.code == "would_lose_routes"
    assert plan([dict(LAN, routes=[{"to": "10.0.0.0/8", "via": "192.0.2.254"}])], links=links).networks[0].routes == (("10.0.0.0/8", "192.0.2.254"),)
    assert plan([dict(LAN, routes=[])], links=links).networks[0].routes == ()
    assert plan([{"name": "iso", "type": "isolated"}], links=links).networks, "a link that nobody touches"
    # Those of a bridge of ours are what an earlier run was told
    bridge = [Link("br-lan", "bridge", routes=("10.0.0.0/8 via 192.0.2.254",))]
    record = _hostnet_record.render(plan([LAN]), {})[_hostnet_record.RECORD][1]
    assert plan([LAN], links=LINKS + bridge, files={_hostnet_record.RECORD: record}).networks
    with pytest.raises(SpecError, match="br-lan has static routes"):
        plan([LAN], links=LINKS + bridge)


@pytest.mark.parametrize("kind, remedy", [("bond", "of type bond"), ("vlan", "Use type: vlan"), ("macvlan", "physical link")])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_link_that_the_site_makes_is_taken_over_by_networkd_alone(kind: str, remedy: str, system: str) -> None:
    links = LINKS + [Link("theirs0", kind)]
    declared = [{"name": "a", "link": "theirs0"}]
    if system == "networkd":
        assert plan(declared, system, links=links).device("theirs0") is not None
        return
    with pytest.raises(SpecError, match=remedy) as info:
        plan(declared, system, links=links)
    assert info.value.option == "host_network_networks[0].link" and system in str(info.value)


def test_traffic_may_leave_by_the_bridge_of_another_network() -> None:
    done = plan([LAN, {"name": "in", "type": "nat", "addresses": ["10.1.0.1/24"], "out": "br-lan"}])
    assert any('oifname "br-lan" masquerade' in text for unused, text in render(done).values())


def test_a_port_of_another_bridge_is_refused() -> None:
    links = LINKS + [Link("eth5", master="br-theirs"), Link("br-theirs", "bridge")]
    with pytest.raises(SpecError, match="already a port of br-theirs"):
        plan([{"name": "a", "link": "eth5"}], links=links)
    assert plan([{"name": "a", "link": "eth5", "bridge": "br-theirs"}], links=links).device("br-theirs") is not None


def test_a_link_goes_from_one_bridge_of_ours_to_another_in_one_change() -> None:
    links = [replace(link, master="br-a") if link.name == "eth1" else link for link in LINKS] + [Link("br-a", "bridge")]
    moved = plan([{"name": "a", "link": "eth2"}, {"name": "b", "link": "eth1"}], links=links)
    assert {d.name: d.master for d in moved.devices if d.kind == "link"} == {"eth1": "br-b", "eth2": "br-a"}
    with pytest.raises(SpecError, match="already a port of br-a"):
        plan([{"name": "a", "link": "eth2"}, {"name": "b", "link": "eth1", "backend": "openvswitch"}], links=links)


def test_management_moves_with_address_and_route_or_by_dhcp_or_when_told() -> None:
    assert plan([LAN]).device("eth0") is not None
    assert plan([{"name": "lan", "link": "eth0", "dhcp4": True}]).device("br-lan") is not None
    assert plan([{"name": "lan", "link": "eth0"}], allow_management_change=True).device("br-lan") is not None


def test_an_address_on_our_own_bridge_is_management_too() -> None:
    done = plan([LAN])
    with pytest.raises(SpecError) as info:
        plan([dict(LAN, addresses=["192.0.2.99/24"])], links=after(done))
    assert info.value.code == "would_cut_off"


def test_one_of_two_routers_is_enough() -> None:
    links = [replace(link, gateways=("192.0.2.1", "192.0.2.2")) if link.management else link for link in LINKS]
    for gateway in ("192.0.2.1", "192.0.2.2"):
        assert plan([dict(LAN, gateway4=gateway)], links=links).device("br-lan") is not None
    with pytest.raises(SpecError, match="would not have that route"):
        plan([dict(LAN, gateway4="192.0.2.3")], links=links)


def test_vxlan_gets_the_mtu_that_its_underlay_leaves() -> None:
    networks = {n.name: n for n in plan().networks}
    assert networks["overlay"].mtu == 1450 and networks["multi"].mtu == 8950
    assert networks["overlay"].peers == ("192.0.2.11", "192.0.2.12")


def test_networks_of_one_link_share_an_open_vswitch() -> None:
    declared = [{"name": n, "type": "vlan", "link": "eth1", "vlan": v, "backend": "openvswitch"} for n, v in (("a", 1), ("b", 2))]
    assert {n.switch for n in plan(declared).networks} == {"ovs-eth1"}
    assert {n.switch for n in plan(declared + [{"name": "c", "link": "eth1", "backend": "openvswitch"}]).networks} == {"br-c"}


@given(st.text("abcdefghij-", min_size=1, max_size=63), st.lists(st.text("abcdefghij-", min_size=1, max_size=63), max_size=20))
def test_names_fit_and_are_told_apart(name: str, others: List[str]) -> None:
    taken: List[str] = []
    for text in sorted(set(others)):
        taken.append(fit("br-", text, taken))
    result = fit("br-", name, taken if name not in others else ())
    assert len(result) <= NAME_MAX
    assert result == fit("br-", name, taken if name not in others else ())
    long = [t for t in taken if len(t) == NAME_MAX]
    assert len(set(long)) == len(long)


@many
@given(declarations(), st.sampled_from(SYSTEMS), st.randoms(use_true_random=False))
def test_a_plan_is_refused_with_a_remedy_or_sound_whatever_the_order(declared: List[Dict[str, Any]], system: str, random: Any) -> None:
    try:
        done = make_plan(declared, LINKS, system)
        files = render(done)
    except SpecError as exc:
        assert exc.option.startswith("host_network") and exc.reason and exc.remedy
        return
    names = [d.name for d in done.devices]
    assert len(set(names)) == len(names) and all(len(n) <= NAME_MAX for n in names)
    position = {name: number for number, name in enumerate(names)}
    for device in done.devices:
        # a device comes after what it is made of and before what it is a port of, so that systems that go by order can
        assert not device.master or position[device.name] < position[device.master]
        assert not device.parent or device.parent not in position or position[device.parent] < position[device.name]
    for path, (mode, text) in files.items():
        assert "kvmfleet" in path and text.endswith("\n") and "Made by kvmfleet.core.host_network" in text.split("\n\n", maxsplit=1)[0]
        assert mode in (0o600, 0o644, 0o755)
    shuffled = list(declared)
    random.shuffle(shuffled)
    assert render(make_plan(shuffled, LINKS, system)) == files
    assert conflicts(replace(done, files={path: text for path, (mode, text) in files.items()})) == []


@many
@given(declarations(), st.sampled_from(SYSTEMS))
def test_a_second_run_comes_to_the_same(declared: List[Dict[str, Any]], system: str) -> None:
    try:
        first = make_plan(declared, LINKS, system)
        files = render(first)
    except SpecError:
        return
    assert render(make_plan(declared, after(first), system, files={path: text for path, (mode, text) in files.items()})) == files


@many
@given(declarations(), st.sampled_from(SYSTEMS))
def test_no_plan_takes_the_management_address_away(declared: List[Dict[str, Any]], system: str) -> None:
    try:
        done = make_plan(declared, LINKS, system)
    except SpecError:
        return
    if "eth0" in done.owned:
        networks = [d.network for d in done.devices if d.addressed and d.network is not None]
        assert any("192.0.2.10/24" in n.addresses or n.dhcp4 for n in networks)


def test_every_type_together_makes_a_plan_for_every_system() -> None:
    for system in SYSTEMS:
        assert len(render(plan(ALL, system))) >= 3


@pytest.mark.parametrize("active, told, result", [
    (["networkd"], "", "networkd"),
    (["networkd", "netplan"], "", "netplan"),
    (["networkmanager", "netplan"], "", "netplan"),
    (["networkd", "ifupdown"], "ifupdown", "ifupdown"),
    ([], "networkd", "networkd"),
    ([], "", "no_system"),
    (["networkd", "ifupdown"], "", "two_systems"),
    (["ifupdown", "netplan"], "", "two_systems"),
    (["networkd"], "netplan", "wrong_system"),
])
def test_the_system_is_found_or_asked_for(active: List[str], told: str, result: str) -> None:
    if result in SYSTEMS:
        assert choose_system(active, told) == result
    else:
        with pytest.raises(SpecError) as info:
            choose_system(active, told)
        assert info.value.code == result


def test_kernel_modules_are_those_of_the_devices() -> None:
    assert kernel_modules(plan()) == ["8021q", "bonding", "bridge", "vxlan"]
    assert kernel_modules(plan([LAN])) == ["bridge"]
    assert kernel_modules(plan([dict(LAN, backend="openvswitch")])) == ["openvswitch"]
