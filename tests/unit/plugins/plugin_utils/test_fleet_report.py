# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports on the fleet: bars, totals, what fits for whom, and hosts that do not answer."""
from __future__ import annotations

import os
import re
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils._overhead import qemu_overhead_mib
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import GIB, MIB, SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, read_host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet_report import BAR_WIDTH, SHOWS, Fleet, compose, draw_bar
from ansible_collections.kvmfleet.core.plugins.plugin_utils._report import Report
from ansible_collections.kvmfleet.core.plugins.plugin_utils._variables import option_file, read

DEAD = {"unreachable": True, "msg": "Connection refused"}
HUNG = {"msg": "libvirt at qemu:///system did not answer within 20 s", "reason": "host_unreachable"}
CATALOGS: Dict[str, Any] = {
    "kvmfleet_flavors": {"small": {"vcpus": 1, "memory": "1GiB", "disk": "10GiB"},
                         "large": {"vcpus": 4, "memory": "4GiB", "disk": "20GiB", "data_disk": "5GiB", "memory_request": "2GiB", "max_vcpus": 8}},
    "kvmfleet_networks": {"lan": {"cidr": "192.0.2.0/24", "gateway": "192.0.2.1", "pool": "web", "vlan": 7}, "ops": {"admin_only": True},
                          "reds": {"groups": ["red"], "cidr": "2001:db8::/64", "pool": "six"}},
    "kvmfleet_ip_pools": {"web": {"network": "lan", "ranges": ["192.0.2.10-192.0.2.19"]}, "six": {"network": "reds", "ranges": ["2001:db8::/64"]}},
    "kvmfleet_images": {"debian:12": {"volume": "debian-12.qcow2", "min_disk": "2GiB", "default_user": "debian"},
                        "old:1": {"volume": "old.qcow2", "eol": "yes"},
                        "secret:1": {"volume": "secret.qcow2", "groups": ["red"]}, "ops:1": {"admin_only": True, "source": "path", "path": "/x"}},
    "kvmfleet_groups": {"red": {"quota": {"vms": 3, "vcpus": 8, "memory": "16GiB", "disk": "1TiB"}}, "blue": {}, "grey": {"locked": True}},
}


def state(vms: Any = (), vcpus: int = 8, memory_mib: int = 16384, disk: int = 100 * GIB, volumes: Any = ()) -> Dict[str, Any]:
    """What host_capacity says of a host with these VMs."""
    milli, mib = sum(vm["vcpus_milli"] for vm in vms), sum(vm["memory_mib"] for vm in vms)
    taken = sum(d["bytes"] for vm in vms for d in vm["disks"])
    return {"vcpus": {"total": vcpus, "reserved": 0, "ratio": 1.0, "allocated": milli / 1000, "used": milli / 2000, "available": vcpus - milli / 1000},
            "memory": {"total_mib": memory_mib, "reserved_mib": 0, "ratio": 1.0, "allocated_mib": mib, "used_mib": mib // 2, "available_mib": memory_mib - mib},
            "pools": {"default": {"active": True, "total_bytes": disk, "reserved_bytes": 0, "ratio": 1.0, "allocated_bytes": taken, "used_bytes": taken // 2,
                                  "available_bytes": disk - taken, "free_bytes": disk, "volumes": list(volumes)}, "off": {"active": False}},
            "domains": {"defined": len(vms), "running": 0, "ours": len(vms), "pending": 0}, "vms": list(vms), "virt_types": ["kvm", "qemu"],
            "networks": [{"name": "lan", "active": True}, {"name": "default", "active": True}], "libvirt_version": "9.0.0", "qemu_version": "7.2.0",
            "archs": ["x86_64"]}


def vm(name: str = "web", group: Optional[str] = None, vcpus: int = 2, memory_mib: int = 2048, disk: int = 20 * GIB, **more: Any) -> Dict[str, Any]:
    return dict({"name": name, "uuid": name, "group": group, "vcpus_milli": vcpus * 1000, "memory_mib": memory_mib,
                 "disks": [{"pool": "default", "bytes": disk}], "addresses": []}, **more)


def fleet(results: Dict[str, Any], variables: Optional[Dict[str, Dict[str, Any]]] = None, show: str = "capacity", catalogs: Optional[Dict[str, Any]] = None,
          left_out: Any = (), **given: str) -> Fleet:
    hosts = [read_host(name, (variables or {}).get(name, {})) for name in results]
    return Fleet(hosts, results, Catalogs(CATALOGS if catalogs is None else catalogs), read(show, given), left_out)


def told(show: str, results: Dict[str, Any], variables: Optional[Dict[str, Dict[str, Any]]] = None, **given: Any) -> Report:
    return compose(show, fleet(results, variables, show, **given))


def flavors(report: Report) -> Dict[str, Dict[str, Any]]:
    return {flavor["name"]: flavor for flavor in report.data["flavors"]}


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 200))
def test_a_bar_hides_nothing_and_boasts_nothing(used: int, allocated: int, capacity: int) -> None:
    drawn = draw_bar(used, allocated, capacity)
    assert re.match(r"^\[#*=*!?\.*\]$", drawn) and len(drawn) == BAR_WIDTH + 2
    assert ("!" in drawn) == (allocated > capacity)
    assert ("." in drawn) == (max(used, allocated) < capacity or max(used, allocated) == 0)
    assert ("#" in drawn) == (used > 0) and (used > 0 or allocated == 0 or "=" in drawn or "!" in drawn)


def test_the_capacity_of_a_fleet() -> None:
    east = {"kvm_zone": "east", "kvm_region": "eu"}
    report = told("capacity", {"kvm1": state([vm(), vm("db", memory_mib=6144)]), "kvm2": state(), "kvm3": DEAD, "kvm4": HUNG},
                  {"kvm1": east, "kvm2": {"kvm_zone": "west", "kvm_schedulable": False}, "kvm3": east})
    text = "\n".join(report.lines)
    assert report.lines[:4] == [
        "host  status       region  zone  resource                                  allocated    used       of     left",
        "kvm1  up           eu      east  vcpus         [######======............]          4       2        8        4",
        "kvm1  up           eu      east  memory        [######======............]      8 GiB   4 GiB   16 GiB    8 GiB",
        "kvm1  up           eu      east  disk default  [#####=====..............]     40 GiB  20 GiB  100 GiB   60 GiB",
    ]
    assert re.search(r"^kvm2 +no new VMs +- +west +vcpus", text, re.MULTILINE) and re.search(r"^kvm3 +unreachable +eu +east +-", text, re.MULTILINE)
    assert re.search(r"^eu +east +1 +4 of 8 +4 +8 GiB of 16 GiB +8 GiB +40 GiB of 100 GiB +60 GiB$", text, re.MULTILINE)
    assert re.search(r"^- +west +1 +0 of 8 +0 +0 of 16 GiB +0 +0 of 100 GiB +0$", text, re.MULTILINE), "what is closed is not left"
    assert re.search(r"^\(all\) +\(all\) +2 +4 of 16 +4 +8 GiB of 32 GiB +8 GiB +40 GiB of 200 GiB +60 GiB$", text, re.MULTILINE)
    assert "Not in what is left: 8 of vcpus, 16 GiB of memory, 100 GiB of disk on hosts that take no new VMs" in report.lines
    assert "kvm3: The host is unreachable: Connection refused" in report.lines and "kvm4: " + HUNG["msg"] in report.lines
    assert report.failure is None and report.data["unreachable"] == ["kvm3", "kvm4"]
    assert all(line.isascii() for line in report.lines)
    one = report.data["hosts"][0]
    assert (one["vcpus"]["available"], one["memory"]["capacity_mib"], one["pools"]["default"]["used_bytes"]) == (4, 16384, 20 * GIB)
    assert report.data["hosts"][2] == {"name": "kvm3", "status": "unreachable", "region": "eu", "zone": "east", "schedulable": True,
                                       "msg": "The host is unreachable: Connection refused"}
    assert [report.data["zones"]["west"]["vcpus"][key] for key in ("available", "closed", "capacity")] == [0, 8, 8]
    assert report.data["total"]["memory"]["allocated_mib"] == 8192
    assert [report.data["total"]["vcpus"][key] for key in ("allocated", "available", "closed", "capacity")] == [4, 4, 8, 16]
    small = 1024 + qemu_overhead_mib(1024, 1, disks=2)
    assert flavors(report)["small"]["fits"] == min(4, 8192 // small, 60 * GIB // (10 * GIB + MIB)) and flavors(report)["small"]["zones"] == {
        "": 0, "east": 4, "west": 0}


def test_two_zones_of_one_name_are_two_zones() -> None:
    results = {"kvm1": state([vm()]), "kvm2": state(), "kvm3": state([vm("db", vcpus=4)]), "kvm4": state(), "kvm5": state()}
    places = {"kvm1": {"kvm_region": "berlin", "kvm_zone": "a"}, "kvm2": {"kvm_region": "berlin", "kvm_zone": "b"},
              "kvm3": {"kvm_region": "munich", "kvm_zone": "a"}, "kvm4": {"kvm_region": "munich"}, "kvm5": {"kvm_zone": "a"}}
    report = told("capacity", results, places)
    assert {name: zone["vcpus"]["allocated"] for name, zone in report.data["zones"].items()} == {"berlin/a": 2, "b": 0, "munich/a": 4, "": 0, "a": 0}
    assert {name: region["vcpus"]["allocated"] for name, region in report.data["regions"].items()} == {"": 0, "berlin": 2, "munich": 4}
    assert flavors(report)["large"]["zones"] == {"berlin/a": 1, "b": 2, "munich/a": 1, "": 2, "a": 2}
    text = "\n".join(report.lines)
    for row in (r"berlin +a +1 +2 of 8", r"berlin +\(all\) +2 +2 of 16", r"munich +a +1 +4 of 8", r"munich +\(all\) +2 +4 of 16",
                r"\(all\) +\(all\) +5 +6 of 40"):
        assert re.search("^" + row + " ", text, re.MULTILINE), row
    both, one = (told("capacity", results, places, vm_zone="a", **more).data for more in ({}, {"vm_region": "munich"}))
    assert [host["name"] for host in both["hosts"]] == ["kvm1", "kvm3", "kvm5"] and [host["name"] for host in one["hosts"]] == ["kvm3"]
    assert set(one["zones"]) == {"munich/a"}, "it is called the same in each report"


def test_the_documented_output() -> None:
    root = os.path.abspath(__file__).partition(os.sep + os.path.join("tests", "unit"))[0]
    with open(os.path.join(root, "docs", "playbooks.md"), encoding="utf-8") as stream:
        shown = re.search(r"^```text\n(host  status.*?)```$", stream.read(), re.MULTILINE | re.DOTALL)
    east = {"kvm_zone": "east", "kvm_region": "eu"}
    report = told("capacity", {"kvm1": state([vm(), vm("db", memory_mib=6144)]), "kvm3": DEAD}, {"kvm1": east, "kvm3": east},
                  catalogs={"kvmfleet_flavors": {"small": {"vcpus": 1, "memory": "1GiB", "disk": "10GiB"}}})
    assert shown and shown.group(1).splitlines() == report.lines


def test_what_is_beyond_what_there_is() -> None:
    report = told("capacity", {"kvm1": state([vm(vcpus=12, memory_mib=17000)])})
    assert "!]" in report.lines[1] and report.lines[2].endswith("-616 MiB")
    assert flavors(report)["small"]["fits"] == 0


def test_all_hosts_dead_is_a_failure_with_a_table() -> None:
    report = told("capacity", {"kvm1": DEAD, "kvm2": DEAD, "kvm3": HUNG})
    assert report.failure == "kvm1, kvm2: The host is unreachable: Connection refused. kvm3: " + HUNG["msg"]
    assert report.reason == "host_unreachable" and report.lines[1].startswith("kvm1  unreachable")
    assert told("list_hosts", {"kvm1": {"msg": "Module crashed", "failed": True}}).failure == "Module crashed"
    assert told("list_hosts", {"kvm1": {}}).failure == "was not asked"


@pytest.mark.parametrize("show", SHOWS)
def test_every_report_has_its_entry_point(show: str) -> None:
    assert "vm_group" in option_file()[show]
    report = told(show, {"kvm1": state(), "kvm2": DEAD})
    assert report.failure is None and report.data["verb"] == show and report.lines[-1].startswith("kvm2: ")
    assert told(show, {"kvm1": state()}, catalogs={}).failure is None


def test_zones_and_regions_choose() -> None:
    places = {"kvm1": {"kvm_zone": "east", "kvm_region": "eu"}, "kvm2": {"kvm_zone": "west", "kvm_region": "us"}}
    report = told("capacity", {"kvm1": state(), "kvm2": state()}, places, vm_zone="west")
    assert [host["name"] for host in report.data["hosts"]] == ["kvm2"] and flavors(report)["small"]["zones"] == {"west": 8}
    assert flavors(report)["small"]["hosts"] == {"kvm2": 8}
    assert [host["name"] for host in told("list_hosts", {"kvm1": state(), "kvm2": state()}, places, vm_region="eu").data["hosts"]] == ["kvm1"]
    with pytest.raises(SpecError, match="Perhaps west was meant"):
        told("list_hosts", {"kvm2": state()}, places, vm_zone="wets")


def test_a_host_in_reserve() -> None:
    results = {"kvm1": state([vm()]), "kvm2": state()}
    alone, kept = (flavors(told("capacity", results, vm_reserve_failures=n)) for n in ("0", "1"))
    assert alone["small"]["fits"] == 6 + 8 and kept["small"]["fits"] == 6, "with one host gone the other has to hold everything"
    with pytest.raises(SpecError, match="vm_reserve_failures"):
        told("capacity", results, vm_reserve_failures="2")


def test_a_group_sees_what_is_for_it() -> None:
    variables = {"kvm1": {"kvm_pools": {"default": {"groups": ["red"]}}}, "kvm2": {"kvm_groups": ["red"]}, "kvm3": {"kvm_admin_only": True}}
    results = {"kvm1": state([vm("a", "red"), vm("b", "blue")]), "kvm2": state(), "kvm3": state(), "kvm4": state()}
    red, blue, nobody = (told("capacity", results, variables, vm_group=group) for group in ("red", "blue", ""))
    assert [[host["name"] for host in r.data["hosts"]] for r in (red, blue, nobody)] == [["kvm1", "kvm2", "kvm4"], ["kvm1", "kvm4"], list(results)]
    assert "default" in red.data["hosts"][0]["pools"] and not blue.data["hosts"][0]["pools"]
    assert flavors(red)["small"]["hosts"] == {"kvm1": 4, "kvm2": 8, "kvm4": 8} and flavors(blue)["small"]["hosts"] == {"kvm4": 8}
    assert flavors(nobody)["small"]["hosts"] == {"kvm3": 8, "kvm4": 8}, "an operator gets what is for administrators, but not what is a group's own"
    assert "Group red has 1 of 3 VMs, 2 of 8 vcpus, 2 GiB of 16 GiB memory, 20 GiB of 1 TiB disk" in red.lines
    assert flavors(red)["small"]["quota_leaves"] == 2 and flavors(red)["large"]["quota_leaves"] == 1 and flavors(blue)["small"]["quota_leaves"] is None
    assert red.data["quota"]["vms"] == {"used": 1, "limit": 3} and "quota" not in nobody.data
    assert [[i["name"] for i in told("list_images", results, vm_group=group).data["images"]] for group in ("red", "blue", "")] == [
        ["debian:12", "old:1", "secret:1"], ["debian:12", "old:1"], ["debian:12", "old:1", "secret:1", "ops:1"]]
    assert [[n["name"] for n in told("list_networks", results, vm_group=group).data["networks"]] for group in ("red", "blue", "")] == [
        ["default", "lan", "reds"], ["default", "lan"], ["default", "lan", "ops", "reds"]]
    with pytest.raises(SpecError, match="Perhaps red was meant"):
        told("capacity", results, vm_group="rod")


def test_a_groups_own_network_decides_where_its_vms_fit() -> None:
    catalogs = dict(CATALOGS, kvmfleet_groups={"red": {"network": "reds"}})
    report = told("capacity", {"kvm1": state(), "kvm2": state()}, {"kvm1": {"kvm_networks": {"reds": {"bridge": "br7"}}}}, catalogs=catalogs, vm_group="red")
    assert flavors(report)["small"]["hosts"] == {"kvm1": 8}


def test_a_locked_group_gets_nothing() -> None:
    report = told("list_flavors", {"kvm1": state()}, vm_group="grey")
    assert flavors(report)["small"]["quota_leaves"] == 0 and "Group grey is locked: it gets no new VMs" in report.lines


def test_what_is_not_seen_is_said() -> None:
    report = told("capacity", {"kvm1": state(), "kvm2": DEAD}, vm_group="red", left_out=["kvm9"])
    assert "What group red has on kvm2, kvm9 is not counted" in report.lines
    closed = {"kvm2": {"kvm_groups": ["blue"]}, "kvm3": {"kvm_admin_only": True}}
    for show in SHOWS:
        report = told(show, {"kvm1": state(), "kvm2": DEAD, "kvm3": HUNG}, variables=closed, vm_group="red")
        assert report.data["unreachable"] == [] and not re.search("kvm[23]", str(report)), "nothing of hosts that are closed to the group"
        report = told(show, {"kvm1": DEAD, "kvm2": DEAD, "kvm3": HUNG}, variables=closed, vm_group="red")
        assert list(report.data["hosts"]) == ["kvm1"] if isinstance(report.data["hosts"], dict) else True
        assert report.data["unreachable"] == ["kvm1"] and not re.search("kvm[23]", str(report))
    assert "What group red has on hosts that are closed to the group is not counted" in told(
        "capacity", {"kvm1": state(), "kvm2": DEAD}, variables=closed, vm_group="red").lines
    report = told("list_networks", {"kvm1": state()}, left_out=["kvm9"])
    assert "Addresses of VMs on kvm9 are not counted" in report.lines


def test_a_fault_in_one_entry_hides_no_other() -> None:
    catalogs = dict(CATALOGS, kvmfleet_flavors={"bad": {"vcpu": 1}, "odd": {"memory": "1.00000001GiB"}, "plain": {}})
    report = told("list_flavors", {"kvm1": state()}, catalogs=catalogs)
    assert list(flavors(report)) == ["plain"] and report.lines[-5:-3] == [
        "plain      1    1GiB  10GiB     8", ""]
    assert any("kvmfleet_flavors.bad.vcpu" in note for note in report.data["notes"]) and any("kvmfleet_flavors.odd" in note for note in report.data["notes"])


def test_one_machine_under_two_names_is_told() -> None:
    report = told("list_hosts", {"kvm1": state([vm()]), "alias": state([vm()])})
    assert report.failure is None and any("alias, kvm1" in note and "one and the same libvirt host" in note for note in report.data["notes"])


def test_why_a_flavor_fits_nowhere() -> None:
    report = told("list_flavors", {"kvm1": state(), "kvm2": DEAD}, {"kvm1": {"kvm_schedulable": False}})
    assert "small, large fit on no host: kvm1 takes no new VMs (schedulable is false)" in report.lines
    for others, text in ((1, "no room on the other one"), (3, "no room on the other 3")):
        results = dict({"kvm{0}".format(number): state([vm("db-{0}".format(number), vcpus=8)]) for number in range(others)}, kvm9=state())
        notes = told("capacity", results, {"kvm9": {"kvm_schedulable": False}}).data["notes"]
        assert notes == ["small, large fit on no host: kvm9 takes no new VMs (schedulable is false); " + text]
    assert told("capacity", {"kvm1": state([vm(vcpus=8)])}).data["notes"] == []


def test_flavors() -> None:
    report = told("list_flavors", {"kvm1": state()})
    assert report.lines == [
        "name   vcpus  memory   disk  data disk  up to  counted as   fits",
        "small      1    1GiB  10GiB          -  -      -               8",
        "large      4    4GiB  20GiB       5GiB  8      2GiB memory     2",
        "", "2 flavors"]
    large = flavors(report)["large"]
    assert (large["vcpus_milli"], large["memory_mib"], large["disk_bytes"]) == (4000, 2048 + qemu_overhead_mib(4096, 4, disks=3), 25 * GIB + MIB)


def test_hosts() -> None:
    report = told("list_hosts", {"kvm2": state([vm()]), "kvm1": state(), "kvm3": DEAD},
                  {"kvm1": {"kvm_virt_type": "qemu", "kvm_zone": "east"}, "kvm2": {"kvm_groups": ["red"], "kvm_schedulable": "no"}})
    assert report.lines == [
        "name  status       zone  schedulable  vcpus  memory  VMs  running  virt type  libvirt  QEMU   reserved to",
        "kvm1  up           east  yes              8  16 GiB    0        0  qemu       9.0.0    7.2.0  -",
        "kvm2  no new VMs   -     no               8  16 GiB    1        0  kvm, qemu  9.0.0    7.2.0  red",
        "kvm3  unreachable  -     yes              -       -    -        -  -          -        -      -",
        "", "3 hosts, 2 up", "kvm3: The host is unreachable: Connection refused"]
    assert report.data["hosts"][1]["vms"] == 1 and report.data["hosts"][0]["networks"] == ["default", "lan"]


def test_images() -> None:
    results = {"kvm1": state(volumes=["debian-12.qcow2", "old.qcow2"]), "kvm2": state(volumes=["debian-12.qcow2"]), "kvm3": DEAD}
    report = told("list_images", results)
    assert [(image["name"], image["hosts"]) for image in report.data["images"]] == [
        ("debian:12", ["kvm1", "kvm2"]), ("old:1", ["kvm1"]), ("secret:1", []), ("ops:1", [])]
    assert report.lines[:5] == [
        "name       min disk  user    end of life  reserved to     on hosts",
        "debian:12      2GiB  debian  -            -               all",
        "old:1             -  -       yes          -               kvm1",
        "secret:1          -  -       -            red             none",
        "ops:1             -  -       -            administrators  none"]
    elsewhere = told("list_images", {"kvm1": state(volumes=["debian-12.qcow2"])}, {"kvm1": {"kvm_image_pool": "images"}})
    assert elsewhere.data["images"][0]["hosts"] == []


def test_networks() -> None:
    vms: List[Dict[str, Any]] = [vm("a", addresses=["192.0.2.10/24", "2001:db8::9/64"]), vm("b", addresses=["192.0.2.12/24", "192.0.2.99/24"])]
    report = told("list_networks", {"kvm1": state(vms), "kvm2": state()}, {"kvm2": {"kvm_networks": {"reds": {"bridge": "br7"}}}})
    assert report.lines == [
        "name     cidr           vlan  gateway    address pool  used             free  reserved to     on hosts",
        "default  -                 -  -          -                -                -  -               all",
        "lan      192.0.2.0/24      7  192.0.2.1  web              2                8  -               all",
        "ops      -                 -  -          -                -                -  administrators  none",
        "reds     2001:db8::/64     -  -          six              1  over 4294967296  red             kvm2",
        "", "4 networks"]
    lan = report.data["networks"][1]
    assert lan["address_pool"] == {"name": "web", "size": 10, "used": 2, "free": 8, "groups": []} and lan["hosts"] == ["kvm1", "kvm2"]


def test_a_pool_with_a_fault_is_told() -> None:
    catalogs = dict(CATALOGS, kvmfleet_ip_pools={})
    report = told("list_networks", {"kvm1": state()}, catalogs=catalogs)
    assert any("kvmfleet_networks.lan.pool" in note for note in report.data["notes"]) and report.failure is None
