# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files, commands and XML that a plan of a host's networks becomes, read back by other readers than ours where there are some."""
from __future__ import annotations

import configparser
import json
import stat
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any, Dict, List

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import (
    _hostnet_firewall,
    _hostnet_ifupdown,
    _hostnet_libvirt,
    _hostnet_netplan,
    _hostnet_networkd,
    _hostnet_nft,
    _hostnet_nm,
    _hostnet_ovs,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import Link
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_networkd import parse_ini
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.tests.unit.plugins.module_utils.hostnet_cases import ALL, LAN, LINKS, declarations, plan

many = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
OVS = [dict(item, backend="openvswitch") for item in ALL if item["name"] in ("lan", "v10", "v20", "overlay", "pair")]
texts = st.text(st.characters(max_codepoint=0xD7FF, exclude_characters="\x7f"), max_size=12)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), texts, st.sampled_from(["yes", "0x10", "1e3", "null", "~", "a: b", "# c", "1:30"]))
trees = st.recursive(scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(texts, st.sampled_from(
    ["yes", "no", "on", "y", "n", "null", "1", "br-lan", "eth0.10"])), inner, max_size=4)), max_leaves=12)


def _sections(text: str) -> Dict[str, Dict[str, List[str]]]:
    return dict(parse_ini(text))


# --- netplan


@given(st.dictionaries(texts, trees, max_size=4))
def test_what_the_emitter_writes_any_yaml_reader_reads(data: Dict[str, Any]) -> None:
    assert yaml.safe_load(_hostnet_netplan.emit(data)) == data


@many
@given(declarations())
def test_netplan_defines_every_device_that_it_names(declared: List[Dict[str, Any]]) -> None:
    try:
        done = plan(declared, "netplan")
    except SpecError:
        return
    network = yaml.safe_load(_hostnet_netplan.render(done)[_hostnet_netplan.PATH][1])["network"]
    assert network.pop("version") == 2
    defined = [name for section in network.values() for name in section]
    assert len(set(defined)) == len(defined)
    for section in network.values():
        for entry in section.values():
            assert set(entry.get("interfaces", ())) <= set(defined)
            assert entry.get("link", defined[0]) in defined
    in_bridges = [name for section in ("bridges", "bonds") for entry in network.get(section, {}).values() for name in entry["interfaces"]]
    assert len(set(in_bridges)) == len(in_bridges)


def test_netplan_of_every_type() -> None:
    files = _hostnet_netplan.render(plan(ALL, "netplan"))
    mode, text = files[_hostnet_netplan.PATH]
    network = yaml.safe_load(text)["network"]
    assert mode == 0o600
    assert network["bridges"]["br-lan"]["addresses"] == ["192.0.2.10/24"] and network["bridges"]["br-lan"]["macaddress"] == "52:54:00:00:00:01"
    assert network["bridges"]["br-lan"]["routes"] == [{"to": "0.0.0.0/0", "via": "192.0.2.1"}]
    assert network["ethernets"]["enp0s31f6np1"] == {}, "a link that only carries VLANs keeps the configuration that others gave it"
    assert network["vlans"]["eth0.10"]["id"] == 10 and network["vlans"]["eth0.10"]["link"] == "eth0"
    assert network["tunnels"]["vx-7"]["remote"] == "239.1.1.1" and "remote" not in network["tunnels"]["vx-100"]
    assert network["bonds"]["bd-pair"]["parameters"] == {"mode": "802.3ad", "mii-monitor-interval": 100, "lacp-rate": "fast"}
    assert "br-served" not in network["bridges"], "libvirt makes that one"
    drop_in = _sections(files["/etc/systemd/network/10-netplan-vx-100.network.d/60-kvmfleet.conf"][1])
    assert drop_in["BridgeFDB"]["MACAddress"] == ["00:00:00:00:00:00"]
    assert _hostnet_nm.DISPATCHER in _hostnet_netplan.render(plan(ALL, "netplan", renderer="NetworkManager"))


CLOUD = """# from the installer
network:
    version: 2
    ethernets:
        "eth0":
            dhcp4: true   # for now
            match:
                macaddress: 52:54:00:00:00:01
        nic1:
            match: {macaddress: "52:54:00:00:00:02"}
            addresses:
            - 10.0.0.2/24
        eth9:
            dhcp4: true
        eth2: {}
"""


@pytest.mark.parametrize("text, stanzas", [
    (CLOUD, ["network.ethernets.eth0", "network.ethernets.nic1"]),
    ('{"network": {"ethernets": {"eth0": {"dhcp4": true}, "eth2": {}}}}', ["network.ethernets.eth0"]),
    ("network: {ethernets: {eth0: {dhcp4: true}}}\n", ["network"]),
    ("network:\n  ethernets: {eth1: {dhcp4: yes}}\n", ["network"]),
    ("network:\n  ethernets:\n    eth0: {dhcp4: yes}\n", ["network.ethernets.eth0"]),
    ("network:\n  bridges:\n    br0:\n      interfaces: [eth1]\n", ["network.bridges.br0"]),
    ("network:\n  bridges:\n    br0:\n      interfaces:\n        - eth1\n", ["network.bridges.br0"]),
    ("network:\n  version: 2\n  renderer: networkd\n", []),
    ("network:\n  ethernets:\n    eth9:\n      dhcp4: true\n", []),
])
def test_netplan_conflicts(text: str, stanzas: List[str]) -> None:
    found = _hostnet_netplan.conflicts(plan(ALL, "netplan", files={"/etc/netplan/50-cloud-init.yaml": text}))
    assert sorted({c.stanza for c in found}) == stanzas


@pytest.mark.parametrize("text, said", [
    ("network:\n  version: 2\n  renderer: NetworkManager\n", "NetworkManager"),
    ("network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    eth0: {dhcp4: true}\n  wifis:\n    wlan0:\n      renderer: NetworkManager\n", "networkd"),
    ("network:\n  ethernets:\n    eth0:\n      renderer: NetworkManager\n", ""),
    ("network: {version: 2, renderer: NetworkManager, ethernets: {}}\n", "NetworkManager"),
    ("network: {ethernets: {eth0: {renderer: NetworkManager}}}\n", ""),
    ('{"network": {"renderer": "NetworkManager", "ethernets": {"eth0": {"renderer": "networkd"}}}}', "NetworkManager"),
    ("# renderer: NetworkManager\nnetwork:\n    # renderer: NetworkManager\n    'renderer': \"networkd\"   # for now\n", "networkd"),
])
def test_netplan_hands_over_to_whom_it_says(text: str, said: str) -> None:
    assert _hostnet_netplan.renderer(text) == said


def test_netplan_does_not_define_the_sites_bond_as_another_thing() -> None:
    links = LINKS + [Link("bond0", "bond")]
    network = yaml.safe_load(_hostnet_netplan.render(plan([{"name": "a", "type": "vlan", "link": "bond0", "vlan": 5}], "netplan", links=links))[
        _hostnet_netplan.PATH][1])["network"]
    assert network["vlans"]["bond0.5"]["link"] == "bond0" and "ethernets" not in network


# --- systemd-networkd


@many
@given(declarations())
def test_networkd_files_fit_together(declared: List[Dict[str, Any]]) -> None:
    try:
        done = plan(declared)
    except SpecError:
        return
    files = _hostnet_networkd.render(done)
    made = {_sections(text)["NetDev"]["Name"][0] for path, (mode, text) in files.items() if path.endswith(".netdev")}
    claimed: List[str] = []
    for path, (_mode, text) in files.items():
        if path.endswith(".network"):
            network = _sections(text).get("Network", {})
            for key in ("Bridge", "Bond", "VLAN", "VXLAN"):
                assert set(network.get(key, ())) <= made
            claimed += network.get("VLAN", [])
    vlans = [d.name for d in done.devices if d.kind == "vlan"]
    assert sorted(claimed) == sorted(vlans), "each VLAN is on one link, once"


def test_networkd_of_every_type() -> None:
    files = {path.split("00-kvmfleet-")[1]: _sections(text) for path, (mode, text) in _hostnet_networkd.render(plan()).items()}
    assert files["eth0.network"]["Network"] == {"Bridge": ["br-lan"], "VLAN": ["eth0.10"], "LinkLocalAddressing": ["no"], "IPv6AcceptRA": ["no"]}
    assert files["br-lan.network"]["Network"]["Gateway"] == ["192.0.2.1"] and files["br-lan.netdev"]["NetDev"]["MACAddress"] == ["52:54:00:00:00:01"]
    assert files["vx-100.netdev"]["VXLAN"]["Independent"] == ["yes"] and "Independent" not in files["vx-7.netdev"]["VXLAN"]
    assert files["enp0s31f6np1.network"]["Network"]["KeepConfiguration"] == ["yes"]
    assert files["bd-pair.netdev"]["Bond"] == {"Mode": ["802.3ad"], "MIIMonitorSec": ["100ms"], "LACPTransmitRate": ["fast"]}
    assert files["eth1.network"]["Network"]["Bond"] == ["bd-pair"]


def test_networkd_adds_a_vlan_to_a_link_that_others_configure() -> None:
    declared = [{"name": "a", "type": "vlan", "link": "eth1", "vlan": 5}]
    own = {"/etc/systemd/network/20-eth1.network": "[Match]\nName=eth1\n[Network]\nDHCP=yes\n"}
    files = _hostnet_networkd.render(plan(declared, files=own))
    assert _sections(files["/etc/systemd/network/20-eth1.network.d/60-kvmfleet.conf"][1]) == {"Network": {"VLAN": ["eth1.5"]}}
    shared = {"/usr/lib/systemd/network/80-all.network": "[Match]\nName=eth*\n[Network]\nDHCP=yes\nAddress=10.0.0.1/8\nAddress=10.0.0.2/8\n"}
    files = _hostnet_networkd.render(plan(declared, files=shared))
    text = files["/etc/systemd/network/00-kvmfleet-eth1.network"][1]
    assert parse_ini(text) == [("Match", {"Name": ["eth1"]}), ("Network", {"DHCP": ["yes"], "Address": ["10.0.0.1/8", "10.0.0.2/8"]}),
                               ("Network", {"VLAN": ["eth1.5"]})]


SITE = {"/etc/systemd/network/10-eth0.network": "[Match]\nName=eth0\n[Link]\nMTUBytes=9000\nRequiredForOnline=yes\n[Network]\nVLAN=mgmt5\nVLAN=san6\n"
        "MACVLAN=mv0\nLinkLocalAddressing=no\nAddress=192.0.2.9/24\n",
        "/etc/systemd/network/10-eth0.network.d/tunnel.conf": "[Network]\nTunnel=sit1\n"}


def test_networkd_keeps_what_is_on_top_of_a_link_and_how_the_link_is_set() -> None:
    text = _hostnet_networkd.render(plan([LAN], files=SITE))["/etc/systemd/network/00-kvmfleet-eth0.network"][1]
    eth0 = _sections(text)
    assert eth0["Network"] == {"Bridge": ["br-lan"], "VLAN": ["mgmt5", "san6"], "MACVLAN": ["mv0"], "Tunnel": ["sit1"], "LinkLocalAddressing": ["no"],
                               "IPv6AcceptRA": ["no"]}
    assert eth0["Link"] == {"MTUBytes": ["9000"], "RequiredForOnline": ["no"]}
    told = _sections(_hostnet_networkd.render(plan([dict(LAN, mtu=1400)], files=SITE))["/etc/systemd/network/00-kvmfleet-eth0.network"][1])
    assert told["Link"]["MTUBytes"] == ["1400"]
    assert not _hostnet_networkd.conflicts(plan([LAN], files=SITE))


def test_networkd_refuses_what_would_be_gone_after_the_next_boot() -> None:
    links = [replace(link, addresses=(), gateways=(), management=False) for link in LINKS] + [
        Link("mgmt5", "vlan", addresses=("192.0.2.10/24",), gateways=("192.0.2.1",), management=True, parent="eth0")]
    declared = [{"name": "lan", "link": "eth0"}]
    assert not _hostnet_networkd.conflicts(plan(declared, links=links, files=SITE))
    bare = {"/etc/systemd/network/10-eth0.network": "[Match]\nName=eth0\n"}
    assert ["mgmt5" in c.reason for c in _hostnet_networkd.conflicts(plan(declared, links=links, files=bare))] == [True]
    rules = {"/etc/systemd/network/10-eth0.network": "[Match]\nName=eth0\n[RoutingPolicyRule]\nFrom=192.0.2.10\nTable=100\n"}
    assert [c.stanza for c in _hostnet_networkd.conflicts(plan([LAN], files=rules))] == ["[RoutingPolicyRule]"]


ROUTED = [dict(LAN, addresses=["192.0.2.10/24", "2001:db8::10/64"],
               routes=[{"to": "10.0.0.0/8", "via": "192.0.2.254"}, {"to": "10.7.0.0/16"}, {"to": "2001:db8:1::/48", "via": "fe80::1"}])]


def test_routes_on_every_system() -> None:
    text = _hostnet_networkd.render(plan(ROUTED))["/etc/systemd/network/00-kvmfleet-br-lan.network"][1]
    assert [pairs for name, pairs in parse_ini(text) if name == "Route"] == [
        {"Destination": ["10.0.0.0/8"], "Gateway": ["192.0.2.254"]}, {"Destination": ["10.7.0.0/16"], "Scope": ["link"]},
        {"Destination": ["2001:db8:1::/48"], "Gateway": ["fe80::1"]}]
    bridge = yaml.safe_load(_hostnet_netplan.render(plan(ROUTED, "netplan"))[_hostnet_netplan.PATH][1])["network"]["bridges"]["br-lan"]
    assert bridge["routes"] == [{"to": "0.0.0.0/0", "via": "192.0.2.1"}, {"to": "10.0.0.0/8", "via": "192.0.2.254"}, {"to": "10.7.0.0/16", "scope": "link"},
                                {"to": "2001:db8:1::/48", "via": "fe80::1"}]
    with pytest.raises(SpecError, match="10.7.0.0/16"):
        _hostnet_netplan.render(plan(ROUTED, "netplan", renderer="NetworkManager"))
    lines = _stanzas(_hostnet_ifupdown.render(plan(ROUTED, "ifupdown"))[_hostnet_ifupdown.PATH][1])["br-lan"]
    assert [line for line in lines if "route" in line] == [
        "up ip -4 route replace 10.0.0.0/8 via 192.0.2.254 dev br-lan", "up ip -4 route replace 10.7.0.0/16 dev br-lan",
        "up ip -6 route replace 2001:db8:1::/48 via fe80::1 dev br-lan"]
    assert lines.index("up ip -6 route replace 2001:db8:1::/48 via fe80::1 dev br-lan") > lines.index("inet6 static")
    keyfile = _sections(_hostnet_nm.render(plan(ROUTED, "networkmanager"))["/etc/NetworkManager/system-connections/kvmfleet-br-lan.nmconnection"][1])
    assert keyfile["ipv4"]["route1"] == ["10.0.0.0/8,192.0.2.254"] and keyfile["ipv4"]["route2"] == ["10.7.0.0/16"]
    assert keyfile["ipv6"]["route1"] == ["2001:db8:1::/48,fe80::1"]


@pytest.mark.parametrize("path, text, hit", [
    ("/etc/systemd/network/00-cabled.network", "[Match]\nName=eth0\n", True),
    ("/etc/systemd/network/00-cabled.network", "[Match]\nName=en* eth*\n", True),
    ("/etc/systemd/network/00-cabled.network", "[Match]\nMACAddress=52-54-00-00-00-01\n", True),
    ("/etc/systemd/network/00-cabled.network", "[Match]\nName=!eth0 br-lan\n", False),
    ("/etc/systemd/network/00-cabled.network", "[Match]\nName=eth7\n", False),
    ("/etc/systemd/network/20-wired.network", "[Match]\nName=eth0\n", False),
    ("/etc/systemd/network/30-br.netdev", "[NetDev]\nName=br-lan\nKind=bridge\n", True),
])
def test_networkd_conflicts(path: str, text: str, hit: bool) -> None:
    assert bool(_hostnet_networkd.conflicts(plan([LAN], files={path: text}))) == hit


# --- ifupdown


def _stanzas(text: str) -> Dict[str, List[str]]:
    result: Dict[str, List[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("iface "):
            name = line.split()[1]
            result.setdefault(name, []).append(line.split(maxsplit=2)[2])
        elif line.startswith("    "):
            result[name].append(line.strip())
    return result


def test_ifupdown_of_every_type() -> None:
    stanzas = _stanzas(_hostnet_ifupdown.render(plan(ALL, "ifupdown"))[_hostnet_ifupdown.PATH][1])
    assert stanzas["br-lan"][:4] == ["inet static", "address 192.0.2.10/24", "gateway 192.0.2.1", "dns-nameservers 192.0.2.53"]
    assert "bridge_ports eth0" in stanzas["br-lan"] and "bridge_hw 52:54:00:00:00:01" in stanzas["br-lan"]
    assert "bridge_ports none" in stanzas["br-iso"] and "bond-slaves eth1 eth2" in stanzas["bd-pair"]
    assert stanzas["br-v20"].count("inet6 static") == 1 and stanzas["br-v20"].count("inet static") == 1
    assert any("type vlan id 10" in line for line in stanzas["eth0.10"])
    assert any("group 239.1.1.1 dev enp0s31f6np1" in line for line in stanzas["vx-7"])
    assert "br-served" not in stanzas


def test_ifupdown_says_what_it_cannot() -> None:
    with pytest.raises(SpecError, match="dhcp_routes"):
        _hostnet_ifupdown.render(plan([{"name": "a", "link": "eth1", "dhcp4": True, "dhcp_routes": False}], "ifupdown"))


def test_ifupdown_conflicts() -> None:
    main = "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n"
    found = _hostnet_ifupdown.conflicts(plan([LAN], "ifupdown", files={_hostnet_ifupdown.MAIN: main}))
    assert [c.stanza for c in found] == ["auto eth0", "iface eth0 inet dhcp"]
    found = _hostnet_ifupdown.conflicts(plan([LAN], "ifupdown", files={_hostnet_ifupdown.MAIN: "source-directory interfaces.d\n"}))
    assert found == []
    found = _hostnet_ifupdown.conflicts(plan([LAN], "ifupdown", files={_hostnet_ifupdown.MAIN: "auto lo\n"}))
    assert [c.stanza for c in found] == ["source"]


# --- NetworkManager


@many
@given(declarations())
def test_keyfiles_fit_together(declared: List[Dict[str, Any]]) -> None:
    try:
        files = _hostnet_nm.render(plan(declared, "networkmanager"))
    except SpecError:
        return
    files.pop(_hostnet_nm.DISPATCHER, None)
    read = []
    for mode, text in files.values():
        assert stat.S_IMODE(mode) == 0o600
        parser = configparser.ConfigParser(interpolation=None, strict=True)
        parser.read_string(text)
        read.append(parser)
    names = {p["connection"]["interface-name"]: p["connection"]["type"] for p in read}
    assert len({p["connection"]["uuid"] for p in read}) == len(read)
    for parser in read:
        head = parser["connection"]
        if "master" in head:
            assert names[head["master"]] == head["slave-type"]
            assert "ipv4" not in parser
        else:
            assert "method" in parser["ipv4"] and "method" in parser["ipv6"]


def test_networkmanager_of_every_type() -> None:
    files = _hostnet_nm.render(plan(ALL, "networkmanager"))
    bridge = _sections(files["/etc/NetworkManager/system-connections/kvmfleet-br-lan.nmconnection"][1])
    assert bridge["ipv4"] == {"method": ["manual"], "address1": ["192.0.2.10/24"], "gateway": ["192.0.2.1"], "dns": ["192.0.2.53;"]}
    mode, script = files[_hostnet_nm.DISPATCHER]
    assert mode == 0o755 and subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
    assert script.count("bridge fdb append") == 2


@pytest.mark.parametrize("path, text, hit", [
    ("/etc/NetworkManager/system-connections/Wired.nmconnection", "[connection]\nid=Wired\ninterface-name=eth0\n", True),
    ("/etc/NetworkManager/system-connections/Wired.nmconnection", "[connection]\nid=Wired\n[ethernet]\nmac-address=52:54:00:00:00:01\n", True),
    ("/etc/NetworkManager/system-connections/Wired.nmconnection", "[connection]\nid=Wired\ninterface-name=eth7\n", False),
    ("/etc/sysconfig/network-scripts/ifcfg-eth0", 'DEVICE="eth0"\nBOOTPROTO=dhcp\n', True),
    ("/etc/sysconfig/network-scripts/ifcfg-eth7", "DEVICE=eth7\n", False),
])
def test_networkmanager_conflicts(path: str, text: str, hit: bool) -> None:
    assert bool(_hostnet_nm.conflicts(plan([LAN], "networkmanager", files={path: text}))) == hit


# --- Open vSwitch


def test_open_vswitch_of_every_type() -> None:
    done = plan(OVS)
    calls = {call[call.index("add-br") + 1]: [" ".join(part.split()) for part in " ".join(call[3:]).split(" -- ")] for call in _hostnet_ovs.commands(done)}
    shared = next(name for name in calls if name.startswith("ovs-enp0s"))
    assert set(calls) == {"br-lan", "br-overlay", "br-pair", shared}
    assert "--may-exist add-port br-lan eth0" in calls["br-lan"]
    assert any("hwaddr" in part and '"52:54:00:00:00:01"' in part for part in calls["br-lan"])
    assert [p for p in calls["br-overlay"] if p.endswith("protected=true")], "full mesh of tunnels without loops"
    assert "--may-exist add-bond br-pair bd-pair eth1 eth2" in calls["br-pair"]
    assert "set port br-v20 tag=2020" in calls[shared]
    kinds = {d.name: d.kind for d in done.devices}
    assert kinds["br-lan"] == "internal" and "br-v10" not in kinds, "no port for a host that has no address on the network"
    assert not [p for p in _hostnet_networkd.render(done) if p.endswith(".netdev")], "Open vSwitch makes the devices"


@many
@given(declarations())
def test_open_vswitch_calls_are_lists_of_plain_words(declared: List[Dict[str, Any]]) -> None:
    try:
        done = plan([dict(item, backend="openvswitch") for item in declared])
    except SpecError:
        return
    for call in _hostnet_ovs.commands(done):
        assert call[0] == "ovs-vsctl" and all(isinstance(word, str) and word and "\n" not in word and " " not in word for word in call)
        ports = [call[n + 2] for n, word in enumerate(call) if word == "add-port"]
        assert len(set(ports)) == len(ports) and all(len(p) <= 15 for p in ports)


def test_open_vswitch_removes_what_is_ours_only() -> None:
    done = plan(OVS)
    assert _hostnet_ovs.removals(done, {"br-old": ["eth5"], "br-lan": []}) == [["ovs-vsctl", "--timeout=30", "--", "--if-exists", "del-br", "br-old"]]
    calls = _hostnet_ovs.removals(done, {"br-lan": ["eth0", "vx1-0000ff"]})
    assert [call[-1] for call in calls] == ["vx1-0000ff"]


# --- nftables


def test_nat_is_in_a_table_of_ours() -> None:
    files = _hostnet_nft.render(plan())
    text = files[_hostnet_nft.RULES][1]
    lines = [line.strip() for line in text.splitlines()]
    assert lines[1:3] == ["table inet kvmfleet", "delete table inet kvmfleet"], "replaced at once, whether it is there or not"
    assert 'ip saddr 10.9.0.0/24 ip daddr != 10.9.0.0/24 oifname "br-lan" masquerade' in lines, "eth0 is in br-lan, and packets leave by the bridge"
    assert 'ip6 saddr fd08::/64 ip6 daddr != fd08::/64 oifname != "br-served" masquerade' in lines
    assert text.count("{") == text.count("}") and "flush ruleset" not in text
    assert "net.ipv6.conf.all.forwarding = 1" in files[_hostnet_nft.SYSCTL][1]
    assert _hostnet_nft.render(plan([LAN])) == {}
    assert _hostnet_nft.ruleset([]).splitlines()[1:] == ["table inet kvmfleet", "delete table inet kvmfleet"]


@many
@given(declarations())
def test_every_rule_is_about_a_bridge_or_subnet_of_ours(declared: List[Dict[str, Any]]) -> None:
    try:
        done = plan(declared)
    except SpecError:
        return
    own = {'"{0}"'.format(n.bridge) for n in done.networks} | {str(s) for n in done.networks for s in n.subnets}
    for chain in _hostnet_nft.chains(done):
        assert all(own & set(rule) for rule in chain.rules)


# --- libvirt


def test_libvirt_networks() -> None:
    xml = {name: ET.fromstring(text) for name, text in _hostnet_libvirt.definitions(plan()).items()}
    assert xml["lan"].find("bridge").attrib == {"name": "br-lan"} and xml["lan"].find("forward").get("mode") == "bridge"
    served = xml["served"]
    assert served.find("forward").get("mode") == "open" and [i.get("address") for i in served.findall("ip")] == ["10.8.0.1", "fd08::1"]
    assert served.find("ip/dhcp/range").attrib == {"start": "10.8.0.10", "end": "10.8.0.99"}
    ovs = {name: ET.fromstring(text) for name, text in _hostnet_libvirt.definitions(plan(OVS)).items()}
    assert ovs["v10"].find("bridge").get("name") == "br-lan" and ovs["v10"].find("vlan/tag").get("id") == "10"
    assert ovs["v10"].find("virtualport").get("type") == "openvswitch" and ovs["lan"].find("vlan") is None


def test_libvirt_takes_the_networks() -> None:
    libvirt = pytest.importorskip("libvirt")
    conn = libvirt.open("test:///default")       # a driver inside the library, with its real parser
    try:
        for declared in (ALL, OVS):
            for name, text in _hostnet_libvirt.definitions(plan(declared)).items():
                network = conn.networkDefineXML(text)
                assert network.name() == name
                network.undefine()
    finally:
        conn.close()


# --- what the site's own firewall makes of NAT


def _ruleset(policy: str, *rules: Any, hook: str = "input", more: Any = ()) -> str:
    chain = {"family": "ip", "table": "filter", "name": "CHAIN", "hook": hook, "type": "filter", "prio": 0, "policy": policy}
    return json.dumps({"nftables": [{"metainfo": {}}, {"chain": chain}, {"chain": {"family": "ip", "table": "filter", "name": "user"}}] + [
        {"rule": {"family": "ip", "table": "filter", "chain": name, "expr": expr}} for name, expr in [("CHAIN", rule) for rule in rules] + list(more)]})


def _on(bridge: str) -> Any:
    return {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": bridge}}


PORTS = {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": {"set": [53, 67]}}}
TO_USER = [{"jump": {"target": "user"}}]


@pytest.mark.parametrize("ruleset, told", [
    (_ruleset("accept"), []), (_ruleset("drop"), ["no DHCP"]), (_ruleset("accept", [{"counter": {}}, {"reject": None}]), ["no DHCP"]),
    (_ruleset("accept", [_on("eth0"), {"drop": None}]), []), (_ruleset("drop", [_on("br-served"), {"accept": None}]), []),
    (_ruleset("drop", [PORTS, {"accept": None}]), []), (_ruleset("drop", TO_USER, more=[("user", [_on("br-served"), {"accept": None}])]), []),
    (_ruleset("drop", TO_USER, more=[("user", [_on("eth0"), {"accept": None}])]), ["no DHCP"]),
    (_ruleset("drop", hook="forward"), ["do not get out", "do not get out"]), (_ruleset("drop", hook="output"), []),
])
def test_a_firewall_that_drops_what_nat_needs_is_told(ruleset: str, told: List[str]) -> None:
    """Of the two NAT networks one is served by libvirt."""
    done = plan([item for item in ALL if item["name"] in ("inside", "served")])

    def runner(argv: Any, _timeout: float) -> Any:
        return (127, "") if argv[0] == "firewall-cmd" else (0, ruleset)
    found = _hostnet_firewall.warnings(done, runner)
    assert len(found) == len(told) and all(word in text for word, text in zip(told, found))
    assert not _hostnet_firewall.warnings(plan([LAN]), runner)


@pytest.mark.parametrize("zone, told", [("libvirt", 0), ("trusted", 0), ("public", 2), ("no zone", 2)])
def test_firewalld_is_asked_for_the_bridges_zone(zone: str, told: int) -> None:
    done = plan([item for item in ALL if item["name"] in ("inside", "served")])

    def runner(argv: Any, _timeout: float) -> Any:
        return (0, "running") if argv[1] == "--state" else (int(zone == "no zone"), zone)
    found = _hostnet_firewall.warnings(done, runner)
    assert len(found) == told and all("--zone=libvirt --add-interface=br-" in text for text in found)
