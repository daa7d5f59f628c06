# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observation, the steps of a change, and the guard: what it restores, confirms, and takes back."""
from __future__ import annotations

import errno
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
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_links import HostLinks
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


def _link(*addresses: str, **more: Any) -> Dict[str, Any]:
    return dict({"kind": "physical", "data": {}, "mac": "52:54:00:00:00:01", "mtu": 1500, "master": "", "up": True, "parent": "",
                 "addresses": {a: {"dynamic": False, "valid": 0, "preferred": 0} for a in addresses}}, **more)


def test_the_way_back_leaves_links_alone_that_the_change_is_not_about(monkeypatch: Any) -> None:
    """A host with two uplinks, whose default route is on the one that nobody speaks of."""
    present = {"lo": _link(kind="loopback"), "mgmt0": _link("10.0.0.5/24"), "eth0": _link("192.0.2.10/24"), "eth1": _link()}
    ways = {"-4": ["default via 192.0.2.1 dev eth0 proto static", "172.16.0.0/12 via 10.0.0.1 dev mgmt0"], "-6": []}
    files = {"/etc/systemd/network/10.network": "[Match]\nName=eth0 mgmt0\n"}
    seen = _hostnet_observe.Observed(present, ways, files, ("networkd",), "networkd", {}, ("mgmt0",))
    monkeypatch.setattr(_hostnet_observe, "observe", lambda *unused: seen)
    monkeypatch.setattr(_hostnet_observe, "missing_modules", lambda *unused: [])
    monkeypatch.setattr(HostLinks, "_require_tools", lambda self: None)
    host = HostLinks({"networks": [{"name": "lan", "link": "eth1"}], "management_address": "10.0.0.5", "system": "", "allow_management_change": False,
                      "ovs_datapath": "", "prune": False, "libvirt": False}, lambda: None, lambda argv, timeout: (1, ""))
    host.look()
    change = host.change()
    assert guard.corrections(change.before, present, ways, change.made) == []
    # What the change brought goes again, and what it took comes back
    worse = {"-4": ["default via 192.0.2.1 dev eth0 proto static", "default via 10.9.0.1 dev br-lan proto static", "10.0.0.0/8 via 10.0.0.2 dev mgmt0",
                    "10.3.0.0/16 via 10.0.0.2 dev mgmt0 proto bird"], "-6": []}
    assert [" ".join(call) for call in guard.corrections(change.before, present, worse, change.made)] == [
        "ip -4 route del default via 10.9.0.1 dev br-lan proto static", "ip -4 route del 10.0.0.0/8 via 10.0.0.2 dev mgmt0",
        "ip -4 route replace 172.16.0.0/12 via 10.0.0.1 dev mgmt0"]


def test_declared_routes_are_waited_for_and_set_again(monkeypatch: Any) -> None:
    done = plan([dict(LAN, routes=[{"to": "10.0.0.0/8", "via": "192.0.2.254"}, {"to": "10.9.9.9/32"}])])
    expected = [item for item in _hostnet_steps.expected(done) if item["name"] == "br-lan"]
    present = {"br-lan": _link("192.0.2.10/24", kind="bridge", data={"stp_state": 0})}
    ways = {"-4": ["10.0.0.0/8 via 192.0.2.254 dev br-lan proto static", "10.9.9.9 dev br-lan proto static scope link"], "-6": []}
    assert guard.unmet(expected, present, ways) == []
    assert guard.unmet(expected, present, {"-4": ways["-4"][:1], "-6": []}) == ["br-lan does not have the route 10.9.9.9"]
    wrong = {"-4": ["10.0.0.0/8 via 192.0.2.253 dev br-lan", ways["-4"][1]], "-6": []}
    assert guard.unmet(expected, present, wrong) == ["br-lan does not have the route 10.0.0.0/8 via 192.0.2.254"]
    host = HostLinks({"networks": []}, lambda: None)
    host.files, host.expected, host.seen = {}, expected, _hostnet_observe.Observed(present, wrong)
    assert host._lost_routes() == [["-4", "route", "replace", "10.0.0.0/8", "via", "192.0.2.254", "dev", "br-lan"]]


def test_routes_that_somebody_set_are_told_from_those_that_come_by_themselves() -> None:
    text = """default via 192.0.2.1 dev eth0 proto static
10.0.0.0/8 via 192.0.2.254 dev eth0
169.254.169.254 via 192.0.2.2 dev eth0 proto dhcp metric 100
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.10
192.0.2.1 dev eth0 proto static scope link
10.5.0.0/16 via 192.0.2.3 dev eth0 proto bird metric 32
10.7.0.0/16 dev eth1 proto static scope link
default via 192.0.2.9 dev eth0 table 100
local 192.0.2.10 dev eth0 table local proto kernel scope host src 192.0.2.10
"""
    assert _hostnet_observe.set_routes(text) == {"eth0": ["10.0.0.0/8 via 192.0.2.254", "default via 192.0.2.9 table 100"], "eth1": ["10.7.0.0/16"]}
    assert _hostnet_observe.set_routes("2001:db8:1::/48 via fe80::1 dev eth0 proto static\nfe80::/64 dev eth0 proto kernel metric 256\n"
                                       "multicast ff00::/8 dev eth0 table local proto kernel\n") == {"eth0": ["2001:db8:1::/48 via fe80::1"]}


@pytest.mark.parametrize("applied, age, proof, router, phase", [
    (2.0, 1.0, "connection", True, "confirmed"), (2.0, 100.0, "connection", True, "applied"), (2.0, 100.0, "gateway", True, "confirmed"),
    (2.0, None, "gateway", False, "applied"),
])
def test_what_confirms_a_change(host: Any, monkeypatch: Any, applied: float, age: Any, proof: str, router: bool, phase: str) -> None:
    """A new connection; with one that is none of the network, a router that answers."""
    _etc, folder, write_down = host
    watched = write_down(deadline=600.0)
    watched.change["before"]["gateways"] = [["eth0", "192.0.2.1"]]
    guard.write_json(str(folder), "change.json", watched.change)
    watched.enter("applied")
    guard.write_json(str(folder), "state.json", dict(watched.state(), at=guard.clock() - applied))
    monkeypatch.setattr(guard, "FOLDER", str(folder))
    monkeypatch.setattr(_hostnet_change.confirm, "__defaults__", (str(folder),))
    monkeypatch.setattr(_hostnet_observe, "session_age", lambda: age)
    answered = {"ip -4 route": "default via 192.0.2.1 dev eth0\n", "ip -6 route": "", "ip -4 -j": "[]"}

    def runner(argv: Sequence[str], _timeout: float) -> Tuple[int, str]:
        return (0 if argv[0] != "ping" or router else 1, answered.get(" ".join(argv[:3]), ""))
    result = HostLinks({"networks": [], "token": "token", "proof": proof}, lambda: None, runner).confirm()
    assert result["phase"] == phase
    assert bool(result.get("trouble")) == (phase == "applied")


@pytest.fixture(name="host")
def _host(tmp_path: Any, monkeypatch: Any) -> Any:
    """A folder with files of a host, a change that is written down, and its guard, whose commands do nothing."""
    calls: List[List[str]] = []
    undo = {"run": ["back"]}

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
            _hostnet_steps.Steps([_hostnet_steps.NEW_FILES] + list(steps), [undo, _hostnet_steps.OLD_FILES]), [],
            {"links": {}, "routes": {}})
        _hostnet_change.write_down(change, "token", deadline, str(folder), runner)
        made = guard.Guard(str(folder), runner)
        made.calls = calls      # type: ignore[attr-defined]
        return made
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


def _no_space(*unused: Any, **unused_too: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("phase", ["applied", "applying", "undoing"])
def test_a_full_disk_keeps_nothing_from_being_taken_back(host: Any, monkeypatch: Any, phase: str) -> None:
    """No file can be written anew, and no line be added to the log; the links come back at the first try. A host that is started anew likewise."""
    etc, folder, write_down = host
    before = _state(etc)
    for restart in (False, True):
        watched = write_down()
        watched.write()
        watched.enter(phase, deadline=guard.clock() - 1)
        del watched.calls[:]
        with monkeypatch.context() as patch:
            patch.setattr(guard, "write_json", _no_space)
            os.unlink(folder / "log") if (folder / "log").exists() else None
            (folder / "log").mkdir()        # so that no line can be added
            watched.boot() if restart else watched.watch()
        assert restart or watched.calls[0] == ["back"]
        assert watched.state()["phase"] == "undone", "written over the old state"
        assert _state(etc) == before
        (folder / "log").rmdir()


def test_space_is_kept_for_the_way_back_and_given_free(host: Any) -> None:
    etc, folder, write_down = host
    watched = write_down(deadline=600.0)
    reserves = watched.change["reserves"]
    assert [os.path.dirname(path) for path in reserves] == [str(folder)], "one for each file system"
    assert os.stat(reserves[0]).st_blocks * 512 >= _hostnet_change.RESERVE
    watched.enter("applied", deadline=guard.clock() + 600)
    assert _hostnet_change.confirm("token", str(folder))["phase"] == "confirmed"
    assert not os.path.exists(reserves[0])
    watched = write_down()
    watched.watch()
    assert not os.path.exists(reserves[0]) and watched.state()["phase"] == "undone"


def test_a_file_that_cannot_be_put_back_keeps_no_other_from_it(host: Any, monkeypatch: Any) -> None:
    etc, _folder, write_down = host
    watched = write_down()
    put = guard.Guard._put

    def broken(self: Any, path: str, wanted: Any) -> None:
        if path.endswith("gone"):
            _no_space()
        put(self, path, wanted)
    watched.write()
    monkeypatch.setattr(guard.Guard, "_put", broken)
    watched.undo("told")
    assert (etc / "kept").read_text() == "old\n" and os.readlink(etc / "link") == "kept" and not (etc / "deep").exists()
    assert watched.state()["left"] == ["{0}: No space left on device".format(etc / "gone")]
