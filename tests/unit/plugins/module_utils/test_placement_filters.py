# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each hard rule of placement refuses with its code and a sentence that names VM, host and rule."""
from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils._placement import Access, Amount, Disk, Group, HostCapacity, Pool, Request, Vm, place
from ansible_collections.kvmfleet.core.tests.unit.plugins.module_utils.placement_oracle import host, request

GIB = 1 << 30
PLAIN = dict(
    region="eu", zone="a", labels={"disk": "fast"}, archs=("x86_64",), virt_types=("kvm",), machines=("q35",), firmwares=("bios",),
    networks={"lan": Access(), "ops": Access(admin_only=True), "red": Access(groups=("red",))}, storage_classes={"ssd": "fast", "locked": "vault"},
    pools={"fast": Pool(10 * GIB, free_bytes=3 * GIB, floor_bytes=GIB), "vault": Pool(10 * GIB, admin_only=True),
           "reds": Pool(10 * GIB, groups=("red",)), "low": Pool(10 * GIB, free_bytes=GIB, floor_bytes=2 * GIB)})


def _one(vm: Request, **changes: Any) -> Any:
    return place([vm], [host("kvm1", 8, 8, **{**PLAIN, **changes})])


@pytest.mark.parametrize(("code", "changes", "wish", "said"), [
    ("unreachable", {"reachable": False}, {}, "kvm1 did not answer"),
    ("unschedulable", {"schedulable": False}, {}, "kvm1 takes no new VMs"),
    ("unschedulable", {"schedulable": False}, {"host": "kvm1", "group": "blue"}, "only an operator's, who names it"),
    ("refused_by_host", {}, {"avoid": (("kvm1", "kvm1 refused: 2 vcpus were taken meanwhile"),)}, "taken meanwhile"),
    ("label_mismatch", {}, {"host_labels": (("disk", "slow"),)}, "kvm1 has disk=fast, not disk=slow"),
    ("label_mismatch", {}, {"host_labels": (("gpu", "yes"),)}, "kvm1 has no label gpu, not gpu=yes"),
    ("admin_only", {"admin_only": True}, {}, "kvm1 is for administrators only"),
    ("group_not_allowed", {"groups": ("red", "green")}, {"group": "blue"}, "kvm1 is reserved to group green, red; asked for by group blue"),
    ("group_not_allowed", {"groups": ("red",)}, {}, "asked for by no group"),
    ("arch", {}, {"arch": "aarch64"}, "kvm1 has no architecture aarch64 (it has x86_64)"),
    ("virt_type", {}, {"virt_type": "qemu"}, "virtualisation type qemu"),
    ("machine", {}, {"machine": "pc"}, "machine type pc"),
    ("firmware", {}, {"firmware": "efi"}, "firmware efi"),
    ("network_missing", {}, {"networks": ("dmz",)}, "kvm1 has no network dmz (it has lan, ops, red)"),
    ("admin_only", {}, {"networks": ("lan", "ops")}, "network ops of kvm1 is for administrators only"),
    ("group_not_allowed", {}, {"networks": ("red",), "group": "blue"}, "network red of kvm1 is reserved to group red"),
    ("storage_class_missing", {}, {"disks": (Disk(GIB, "nvme"),)}, "kvm1 has no storage class nvme (it has locked, ssd)"),
    ("pool_missing", {}, {"disks": (Disk(GIB, pool="tape"),)}, "kvm1 has no pool tape"),
    ("admin_only", {}, {"disks": (Disk(GIB, "locked"),)}, "pool vault of kvm1 is for administrators only"),
    ("group_not_allowed", {}, {"disks": (Disk(GIB, pool="reds"),)}, "pool reds of kvm1 is reserved to group red"),
])
def test_a_host_that_could_never_take_it(code: str, changes: Dict[str, Any], wish: Dict[str, Any], said: str) -> None:
    plan = _one(request("web", **wish), **changes)
    assert (plan.code, plan.decisions[0].refusals["kvm1"].code) == (code, code)
    assert said in plan.message and "web" in plan.message


def test_an_operator_may_name_a_host_that_takes_no_new_vms() -> None:
    assert _one(request("web", host="kvm1", admin=True), schedulable=False).ok


@pytest.mark.parametrize(("code", "changes", "wish", "said"), [
    ("no_vcpus", {}, {"vcpus": 9}, "kvm1 has 8 vcpus left, 9 vcpus asked"),
    ("no_memory", {}, {"memory_gib": 9}, "kvm1 has 8 GiB left, 9 GiB asked"),
    ("no_disk", {}, {"disks": (Disk(6 * GIB, "ssd"), Disk(6 * GIB, "ssd"))}, "kvm1 has 10 GiB left in pool fast, 12 GiB asked"),
    ("no_free_space", {}, {"disks": (Disk(3 * GIB, "ssd", real_bytes=3 * GIB),)}, "2 GiB really free above the floor of pool fast"),
    ("no_free_space", {}, {"disks": (Disk(GIB, pool="low"),)}, "1 GiB really free below the floor of pool low"),
    ("max_vms", {"max_vms": 1, "vms": (Vm("old"),)}, {}, "kvm1 has all the VMs it may have"),
])
def test_a_host_without_the_room(code: str, changes: Dict[str, Any], wish: Dict[str, Any], said: str) -> None:
    plan = _one(request("web", **wish), **changes)
    assert (plan.code, plan.decisions[0].refusals["kvm1"].code) == ("no_capacity", code)
    assert said in plan.message


def test_administrators_may_use_what_is_reserved() -> None:
    vm = request("web", admin=True, networks=("ops",), disks=(Disk(GIB, "locked"),))
    assert _one(vm, admin_only=True).ok
    vm = request("web", admin=True, networks=("ops", "red"), disks=(Disk(GIB, "locked"), Disk(GIB, pool="reds")))
    refused = _one(vm, admin_only=True, groups=("green",))
    assert refused.decisions[0].reasons == {"group_not_allowed": 1}
    assert _one(replace(vm, host="kvm1"), admin_only=True, groups=("green",)).ok


def test_a_storage_class_is_another_pool_on_another_host() -> None:
    hosts = [host("kvm1", storage_classes={"ssd": "a"}, pools={"a": Pool(GIB), "b": Pool(9 * GIB)}),
             host("kvm2", storage_classes={"ssd": "b"}, pools={"a": Pool(GIB), "b": Pool(9 * GIB)})]
    assert place([request("web", disks=(Disk(5 * GIB, "ssd"),))], hosts).hosts == {"web": "kvm2"}


@pytest.mark.parametrize(("wish", "code", "said"), [
    ({"host": "kvm9"}, "unknown_host", "web asks for host kvm9, which is none of kvm1, kvm2"),
    ({"zone": "z"}, "unknown_zone", "which is none of a, b"), ({"region": "us"}, "unknown_region", "which is none of eu"),
    ({"host": "kvm1", "zone": "b"}, "wrong_zone", "web (1 vcpus, 1 GiB) cannot go to kvm1: kvm1 is in zone a, not b"),
    ({"host": "kvm1", "memory_gib": 9}, "no_memory", "cannot go to kvm1: kvm1 has 8 GiB left, 9 GiB asked"),
    ({"host": "kvm2"}, "unreachable", "cannot go to kvm2: kvm2 did not answer")])
def test_a_place_that_is_asked_for_by_name(wish: Dict[str, Any], code: str, said: str) -> None:
    plan = place([request("web", **wish)], [host("kvm1", 8, 8, zone="a", region="eu"), host("kvm2", 8, 8, zone="b", region="eu", reachable=False)])
    assert plan.code == code and said in plan.message


@pytest.mark.parametrize(("wish", "said"), [
    ({"image_memory_mib": 2048}, "web asks for 1 GiB of memory, debian:12 needs 2 GiB"),
    ({"image_vcpus_milli": 2000}, "web asks for 1 vcpus, debian:12 needs 2"),
    ({"image_disk_bytes": 2 * GIB, "disks": (Disk(GIB),)}, "web asks for a disk of 1 GiB, debian:12 needs 2 GiB")])
def test_the_minimums_of_the_image(wish: Dict[str, Any], said: str) -> None:
    plan = _one(request("web", image="debian:12", **wish))
    assert plan.code == "image_minimum" and said in plan.message


def test_locked_disabled_and_unknown_groups() -> None:
    groups = [Group("red", locked=True), Group("blue", enabled=False)]
    for name, code in (("red", "group_locked"), ("blue", "group_disabled"), ("grey", "unknown_group")):
        plan = place([request("web", group=name)], [host("kvm1")], groups=groups)
        assert plan.code == code and name in plan.message


@pytest.mark.parametrize(("quota", "code", "said"), [
    ({"max_vms": 3}, "quota_vms", "3 VMs allowed, 2 used, 2 more asked"),
    ({"max_vcpus_milli": 5000}, "quota_vcpus", "5 vcpus allowed, 2 used, 4 more asked"),
    ({"max_memory_mib": 4096}, "quota_memory", "4 GiB memory allowed, 2 GiB used, 4 GiB more asked"),
    ({"max_disk_bytes": 3 * GIB}, "quota_disk", "3 GiB disk allowed, 2 GiB used, 2 GiB more asked")])
def test_quotas_count_the_whole_fleet(quota: Dict[str, int], code: str, said: str) -> None:
    hosts = [host("kvm{0}".format(i), pools={"default": Pool(9 * GIB)}, vms=(
        Vm("old{0}".format(i), 1000, 1024, (Disk(GIB),), group="red"), Vm("other{0}".format(i), 1000, 1024, group="blue"))) for i in range(2)]
    new = [request("new{0}".format(i), 2, 2, disks=(Disk(GIB),), group="red") for i in range(2)]
    plan = place(new, hosts, groups=[Group("red", **quota)])
    assert plan.code == code and said in plan.message
    assert place([request("new", 2, 2, disks=(Disk(GIB),), group="red")], hosts, groups=[Group("red", **quota)]).ok
    # the VMs that exist are replaced by what is asked for them, not counted twice
    assert place([request("old0", 1, 1, disks=(Disk(GIB),), group="red")], hosts, groups=[Group("red", max_vms=2)]).ok


def test_the_network_of_the_group_is_the_default_of_its_vms() -> None:
    hosts = [host("kvm1", networks={"lan": Access()}), host("kvm2", networks={"red-net": Access()})]
    groups = [Group("red", network="red-net")]
    assert place([request("web", group="red")], hosts, groups=groups).hosts == {"web": "kvm2"}
    assert place([request("web", group="red", networks=("lan",))], hosts, groups=groups).hosts == {"web": "kvm1"}


def test_a_name_asked_for_twice() -> None:
    assert place([request("web"), request("web")], [host("kvm1")]).code == "duplicate_name"


def test_reserves_ratios_and_allocations_make_the_room() -> None:
    there = HostCapacity("kvm1", Amount(10000, 2000, 4, 30000), Amount(1024))
    assert place([Request("a", 2000, 1)], [there]).ok
    assert not place([Request("a", 2001, 1)], [there]).ok
