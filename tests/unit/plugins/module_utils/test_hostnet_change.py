# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observation, the steps of a change, and the guard: what it restores, confirms, and takes back."""
from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Sequence, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import (
    _hostnet,
    _hostnet_change,
    _hostnet_guard as guard,
    _hostnet_ifupdown,
    _hostnet_observe,
    _hostnet_ovs,
    _hostnet_record,
    _hostnet_steps,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import SYSTEMS, unpark
from ansible_collections.kvmfleet.core.tests.unit.plugins.module_utils.hostnet_cases import ALL, LAN, plan

SHOWN = json.dumps([
    {"ifname": "lo", "link_type": "loopback", "flags": ["UP"], "mtu": 65536, "address": "00:00:00:00:00:00", "addr_info": [
        {"local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]},
    {"ifname": "eth0", "link_type": "ether", "flags": ["UP"], "mtu": 1500, "address": "52:54:00:00:00:01", "master": "br-lan", "addr_info": []},
    {"ifname": "br-lan", "link_type": "ether", "flags": ["UP"], "mtu": 1500, "address": "52:54:00:00:00:01", "linkinfo": {
        "info_kind": "bridge", "info_data": {"stp_state": 0}}, "addr_info": [
            {"local": "192.0.2.10", "prefixlen": 24, "scope": "global"}, {"local": "fe80::1", "prefixlen": 64, "scope": "link"},
            {"local": "192.0.2.99", "prefixlen": 24, "scope": "global", "dynamic": True, "valid_life_time": 60, "preferred_life_time": 30}]},
    {},
])
MAIN = "source /etc/network/interfaces.d/*\nauto lo eth0\niface lo inet loopback\niface eth0 inet static\n  address 192.0.2.10/24\n\niface eth9 inet dhcp\n"
CLOUD = """\
network:
  version: 2
  ethernets:
    eth0:
      match: {macaddress: '52:54:00:00:00:01'}
      addresses:
      - 192.0.2.10/24
    eth9:
      dhcp4: true
"""
WIRED = "[connection]\nid=wired\ninterface-name=eth0\nautoconnect=true\n\n[ipv4]\nmethod=auto\n"
THEIRS = {"netplan": {"/etc/netplan/50-cloud-init.yaml": CLOUD}, "ifupdown": {_hostnet_ifupdown.MAIN: MAIN},
          "networkmanager": {"/etc/NetworkManager/system-connections/wired.nmconnection": WIRED},
          "networkd": {"/etc/systemd/network/10-eth0.network": "[Match]\n"}}


def test_links_and_routes_are_read() -> None:
    links = guard.parse_links(SHOWN)
    assert links["br-lan"]["kind"] == "bridge" and links["lo"]["kind"] == "loopback" and links["eth0"]["kind"] == "physical"
    assert links["eth0"]["master"] == "br-lan" and list(links["br-lan"]["addresses"]) == ["192.0.2.10/24", "192.0.2.99/24"]
    assert links["br-lan"]["addresses"]["192.0.2.99/24"] == {"dynamic": True, "valid": 60, "preferred": 30}
    lines = guard.parse_routes("default via 192.0.2.1 dev br-lan proto static linkdown\n192.0.2.0/24 dev br-lan proto kernel scope link\n"
                               "default via fe80::1 dev eth1 proto ra expires 5sec\n")
    assert lines == ["default via 192.0.2.1 dev br-lan proto static"]
    routes = {"-4": lines}
    assert _hostnet_observe.default_gateways(routes) == {"br-lan": ["192.0.2.1"]}
    assert _hostnet_observe.management_links(links, routes, "192.0.2.10") == ("br-lan",)
    assert _hostnet_observe.management_links(links, routes, "::ffff:192.0.2.10") == ("br-lan",)
    assert _hostnet_observe.management_links(links, routes, "") == ("br-lan",), "not known: the way out counts"


@pytest.mark.parametrize("files, running, found", [
    ({"/etc/netplan/50.yaml": "x", "/run/systemd/network/10-netplan-eth0.network": "x"}, {"netplan", "systemd-networkd.service"}, ("netplan",)),
    ({"/etc/systemd/network/eth0.network": "x"}, {"systemd-networkd.service"}, ("networkd",)),
    ({"/usr/lib/systemd/network/80-container.network": "x"}, {"systemd-networkd.service"}, ()),
    ({"/etc/network/interfaces": "auto lo\niface lo inet loopback\n"}, {"ifupdown"}, ()),
    ({"/etc/network/interfaces.d/x": "iface eth0 inet dhcp\n"}, {"ifupdown", "NetworkManager.service"}, ("networkmanager", "ifupdown")),
])
def test_the_systems_at_work_are_found(files: Dict[str, str], running: Any, found: Tuple[str, ...]) -> None:
    assert _hostnet_observe.at_work(files, running) == found


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_the_site_has_goes_out_of_force_and_comes_back(system: str) -> None:
    mine = plan([LAN], system, files=THEIRS[system])
    parked = _hostnet.parked(mine)
    assert not _hostnet.conflicts(plan([LAN], system, files=dict(THEIRS[system], **parked)))
    assert {path: unpark(text) for path, text in parked.items()} == {path: THEIRS[system][path] for path in parked}
    assert system == "networkd" or set(parked) == set(THEIRS[system])
    without = plan([{"name": "iso", "type": "isolated"}], system, files=dict(THEIRS[system], **parked))
    assert _hostnet.parked(without) == {path: THEIRS[system][path] for path in parked}, "the link is ours no more"
    assert all("eth9" not in line for text in parked.values() for line in text.splitlines() if line.startswith("#kvmfleet#"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_change_writes_its_files_and_has_a_way_back(system: str) -> None:
    mine = plan([LAN], system)
    new = {path: text for path, (_mode, text) in _hostnet.render(mine).items()}
    present = {link.name: {"kind": link.kind, "mac": link.mac, "mtu": link.mtu, "master": "", "up": True, "addresses": {}, "data": {}} for link in mine.links}
    steps = _hostnet_steps.steps(_hostnet_steps.Context(mine, {}, new, present))
    assert steps.apply.count(_hostnet_steps.NEW_FILES) == 1 and steps.undo.count(_hostnet_steps.OLD_FILES) == 1
    assert [step for step in steps.apply if "run" in step] and [step for step in steps.reload if "run" in step] or system == "ifupdown"
    named = {item["name"]: item for item in _hostnet_steps.expected(mine, ["eth7"])}
    assert named["eth0"]["master"] == "br-lan" and named["br-lan"]["addresses"] == ["192.0.2.10/24"] and named["eth7"]["no_master"] == ["br-lan"]


def test_the_record_is_read_back() -> None:
    mine = plan(ALL)
    path, (_mode, text) = next(iter(_hostnet_record.render(mine, _hostnet_ovs.ports(mine)).items()))
    found = _hostnet_record.read({path: text})
    assert set(found) == {item["name"] for item in ALL}
    assert found["pair"].devices == ("bd-pair", "br-pair") and found["pair"].links == ("eth1", "eth2")
    assert _hostnet_record.read({path: "{torn"}) == {} and _hostnet_record.read({}) == {}


def test_open_vswitch_is_compared_with_its_database() -> None:
    mine = plan([dict(LAN, backend="openvswitch")], datapath="netdev")
    rows: Dict[str, List[Dict[str, Any]]] = {
        "Bridge": [{"_uuid": "b", "name": "br-lan", "ports": ["p", "q"], "stp_enable": False, "datapath_type": "netdev", "external_ids": {"kvmfleet": "yes"},
                    "other_config": {"hwaddr": "52:54:00:00:00:01"}}],
        "Port": [{"_uuid": "p", "name": "eth0", "interfaces": "i"}, {"_uuid": "q", "name": "br-lan", "interfaces": "j"}],
        "Interface": [{"_uuid": "i", "name": "eth0"}, {"_uuid": "j", "name": "br-lan"}]}
    assert _hostnet_ovs.unmet(mine, rows) == []
    rows["Bridge"][0].update(ports="q", datapath_type="system")
    assert len(_hostnet_ovs.unmet(mine, rows)) == 2
    assert _hostnet_ovs.unmet(mine, {}), "nothing is there yet"


def test_a_vxlan_whose_only_peer_is_the_host_itself_waits_for_no_peer() -> None:
    alone = plan([{"name": "overlay", "type": "vxlan", "vni": 7, "peers": ["192.0.2.10"], "local": "192.0.2.10"}])
    assert [item["data"]["peers"] for item in _hostnet_steps.expected(alone) if item.get("kind") == "vxlan"] == [[]]


addresses = st.dictionaries(st.sampled_from(["192.0.2.1/24", "192.0.2.2/24", "10.0.0.1/8"]), st.just({"dynamic": False, "valid": 0, "preferred": 0}))
one_link = st.fixed_dictionaries({"kind": st.just("bridge"), "data": st.just({}), "mac": st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"]),
                                  "mtu": st.sampled_from([1400, 1500]), "master": st.sampled_from(["", "br0"]), "up": st.booleans(), "addresses": addresses})
some_links = st.fixed_dictionaries({"eth0": one_link.map(lambda link: dict(link, kind="physical"))}, optional={"br0": one_link, "br1": one_link})


@given(some_links, some_links)
def test_corrections_lead_back(before: Dict[str, Any], present: Dict[str, Any]) -> None:
    """The commands, done by a model of C(ip), make the links what they were; then none are left."""
    now = json.loads(json.dumps(present))
    for _round in range(2):
        for call in guard.corrections({"links": before, "routes": {}}, now, {}):
            _ip(now, call)
    assert guard.corrections({"links": before, "routes": {}}, now, {}) == []
    for name, link in before.items():
        assert {k: v for k, v in now[name].items() if k != "up"} == {k: v for k, v in link.items() if k != "up"} and now[name]["up"] >= link["up"]
        assert now[name]["up"] == link["up"] or link["kind"] == "bridge"


def _ip(links: Dict[str, Any], call: Sequence[str]) -> None:
    if call[1:3] == ["link", "add"]:
        links[call[4]] = {"kind": "bridge", "data": {}, "mac": "", "mtu": 1500, "master": "", "up": False, "addresses": {}}
    elif call[1:3] == ["link", "set"]:
        link, key = links[call[4]], call[5]
        link.update({"address": lambda: {"mac": call[6]}, "master": lambda: {"master": call[6]}, "nomaster": lambda: {"master": ""},
                     "mtu": lambda: {"mtu": int(call[6])}, "up": lambda: {"up": True}, "down": lambda: {"up": False}}[key]())
    elif call[2] == "replace":
        links[call[5]]["addresses"][call[3]] = {"dynamic": False, "valid": 0, "preferred": 0}
    else:
        links[call[5]]["addresses"].pop(call[3])


@pytest.fixture(name="host")
def _host(tmp_path: Any, monkeypatch: Any) -> Any:
    """A folder with files of a host, a change that is written down, and its guard, whose commands do nothing."""
    calls: List[List[str]] = []

    def runner(argv: Sequence[str], _timeout: float) -> Tuple[int, str]:
        calls.append(list(argv))
        return (1, "no") if argv[0] == "breaks" else (0, "[]" if argv[0] == "ip" and "-j" in argv else "")
    etc, folder = tmp_path / "etc", tmp_path / "state"
    etc.mkdir()
    (etc / "kept").write_text("old\n")
    (etc / "kept").chmod(0o640)
    (etc / "gone").write_text("bytes \u00e9\n")
    os.symlink("kept", etc / "link")
    monkeypatch.setattr(guard, "disarm_boot", lambda: None)
    monkeypatch.setattr(guard, "PATIENCE_S", 0.0)
    monkeypatch.setattr(_hostnet_change, "DELAY_S", 0.0)
    monkeypatch.setattr(_hostnet_change, "SETTLE_S", 0.0)

    def write_down(*steps: Any, deadline: float = 0.0) -> guard.Guard:
        change = _hostnet_change.Change(
            {str(etc / "kept"): (0o600, "new\n"), str(etc / "gone"): None, str(etc / "deep" / "er" / "made"): (0o644, "x"), str(etc / "link"): "elsewhere"},
            _hostnet_steps.Steps([_hostnet_steps.NEW_FILES] + list(steps), [_hostnet_steps.OLD_FILES]), [], {"links": {}, "routes": {}})
        _hostnet_change.write_down(change, "token", deadline, str(folder), runner)
        return guard.Guard(str(folder), runner)
    return etc, folder, write_down


def _state(etc: Any) -> Any:
    return sorted((str(p.relative_to(etc)), os.readlink(p) if p.is_symlink() else p.read_bytes() if p.is_file() else None,
                   oct(p.lstat().st_mode), p.lstat().st_mtime_ns if p.is_file() and not p.is_symlink() else 0) for p in etc.rglob("*"))


def test_an_unconfirmed_change_is_taken_back_byte_by_byte(host: Any) -> None:
    etc, _folder, write_down = host
    before = _state(etc)
    watched = write_down()
    watched.watch()
    assert watched.state()["phase"] == "undone" and "no new connection" in watched.state()["reason"]
    assert _state(etc) == before


def test_a_step_that_fails_takes_the_change_back_at_once(host: Any) -> None:
    etc, folder, write_down = host
    before = _state(etc)
    watched = write_down({"run": ["breaks"]}, deadline=600.0)
    watched.watch()
    assert watched.state()["phase"] == "undone" and "breaks ended with 1: no" in watched.state()["reason"]
    assert _state(etc) == before and "breaks" in "".join(_hostnet_change.log_tail(str(folder)))


def test_a_confirmed_change_stays(host: Any) -> None:
    etc, folder, write_down = host
    watched = write_down(deadline=600.0)
    watched.enter("applying", deadline=guard.clock() + 600)
    watched.apply()
    watched.enter("applied")
    assert _hostnet_change.confirm("another", str(folder))["phase"] == "applied", "not the change that is meant"
    assert _hostnet_change.confirm("token", str(folder))["phase"] == "confirmed"
    watched.watch()
    watched.boot()
    assert (etc / "kept").read_text() == "new\n" and not (etc / "gone").exists() and (etc / "deep" / "er" / "made").exists()
    assert _hostnet_change.pending(str(folder)) == {}


@pytest.mark.parametrize("phase", ["armed", "applying", "applied", "undoing"])
def test_the_next_start_of_the_host_and_the_next_run_take_back_what_is_left(host: Any, phase: str) -> None:
    etc, folder, write_down = host
    before = _state(etc)
    for restart in (True, False):
        left = write_down(deadline=600.0)
        left.write()
        left.enter(phase, deadline=guard.clock() + 600)
        assert _hostnet_change.pending(str(folder))["phase"] == phase
        if restart:
            left.boot()
        else:
            _hostnet_change.settle_pending(str(folder))
        assert left.state()["phase"] == "undone" and _state(etc) == before


@pytest.mark.parametrize("phase", ["applying", "undoing"])
def test_a_guard_that_is_started_again_takes_the_change_back(host: Any, phase: str) -> None:
    etc, _folder, write_down = host
    before = _state(etc)
    watched = write_down(deadline=600.0)
    watched.write()
    watched.enter(phase, deadline=guard.clock() + 600)
    watched.watch()
    assert watched.state()["phase"] == "undone" and _state(etc) == before
