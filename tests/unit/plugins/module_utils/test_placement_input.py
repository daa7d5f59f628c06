# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results, variables and catalogs as placement reads them."""
from __future__ import annotations

from typing import Any, Dict

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils._overhead import qemu_overhead_mib
from ansible_collections.kvmfleet.core.plugins.module_utils._placement import Disk, Request, place
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_input import flavor_of, group_of, host_of
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import GIB, SpecError

FACTS: Dict[str, Any] = {
    "vcpus": {"total": 8, "reserved": 1, "ratio": 1.5, "allocated": 6.5, "used": 4, "available": 4},
    "memory": {"total_mib": 16000, "reserved_mib": 1000, "ratio": 1.0, "allocated_mib": 4096, "used_mib": 2048, "available_mib": 10904},
    "pools": {"ssd": {"active": True, "total_bytes": 100 * GIB, "reserved_bytes": 0, "ratio": 1.0, "allocated_bytes": 40 * GIB, "used_bytes": 0,
                      "available_bytes": 60 * GIB, "free_bytes": 30 * GIB}, "off": {"active": False}},
    "archs": ["x86_64"], "virt_types": ["kvm", "qemu"], "machines": ["q35"], "firmware": ["bios", "efi"],
    "networks": [{"name": "default", "active": True, "bridge": "virbr0"}, {"name": "down", "active": False}]}
SETTINGS = {"kvm_zone": "east", "kvm_region": "eu", "kvm_labels": {"rack": 7}, "kvm_networks": {"lan": {"bridge": "br0"}}, "kvm_pool": "ssd",
            "kvm_storage_classes": {"fast": "ssd", "gone": "off"}, "kvm_groups": ["red"], "kvm_max_vms": "3",
            "kvm_pools": {"ssd": {"floor": "20GiB", "groups": ["red"]}}}


def test_a_host_that_answered() -> None:
    host = host_of("kvm1", FACTS, SETTINGS, [{"name": "old", "vcpus_milli": 500, "memory_mib": 512, "disks": [{"pool": "ssd", "bytes": 5}],
                                              "group": "red", "labels": {"app": "db"}, "stopped": True}],
                   {"lan": {"admin_only": True}, "elsewhere": {}}, {"fast": {"groups": ["red"]}, "slow": {"pool": "hdd"}})
    assert host.vcpus.available == 4000 and host.memory.available == 10904
    assert host.pools["ssd"].available == 60 * GIB and host.pools["ssd"].floor_bytes == 20 * GIB and set(host.pools) == {"ssd"}
    assert host.storage_classes == {"fast": "ssd", "default": "ssd"} and host.class_access["fast"].groups == ("red",)
    assert set(host.networks) == {"default", "lan"} and host.networks["lan"].admin_only
    assert (host.zone, host.region, host.labels, host.groups, host.max_vms) == ("east", "eu", {"rack": "7"}, ("red",), 3)
    assert host.vms[0].labels == {"app": "db"} and host.vms[0].stopped
    plan = place([Request("web", 4000, 10904, (Disk(60 * GIB, "fast", real_bytes=10 * GIB),), group="red", arch="x86_64", firmware="efi")], [host])
    assert plan.hosts == {"web": "kvm1"}
    assert place([Request("web", 4001, 1, group="red")], [host]).code == "no_capacity"
    assert place([Request("web", 1, 1, (Disk(1, "fast"),), group="red", networks=("lan",))], [host]).code == "admin_only"


def test_a_class_may_be_reserved_where_its_pool_is_not() -> None:
    host = host_of("kvm1", FACTS, {"kvm_storage_classes": {"fast": "ssd", "any": "ssd"}}, storage_classes={"fast": {"groups": ["red"]}})
    plan = place([Request("web", 1, 1, (Disk(1, "fast"),))], [host])
    assert plan.code == "group_not_allowed" and "storage class fast of kvm1 is reserved to group red" in plan.message
    assert place([Request("web", 1, 1, (Disk(1, "any"),))], [host]).ok


def test_a_host_that_did_not_answer() -> None:
    host = host_of("kvm1", None, {"kvm_zone": "east", "kvm_schedulable": "false"})
    assert not host.reachable and not host.schedulable and host.zone == "east"


def test_a_group_with_its_quota() -> None:
    group = group_of("red", {"locked": "yes", "network": "red-net", "quota": {"vms": "4", "vcpus": "1500m", "memory": "2GiB", "disk": "1TiB"}})
    assert (group.locked, group.enabled, group.network) == (True, True, "red-net")
    assert (group.max_vms, group.max_vcpus_milli, group.max_memory_mib, group.max_disk_bytes) == (4, 1500, 2048, 1024 * GIB)
    assert group_of("blue", None).max_vms is None
    assert group_of("none", {"quota": {"vms": 0, "vcpus": 0}}).max_vcpus_milli == 0


def test_a_flavor_is_counted_by_its_requests() -> None:
    flavor = flavor_of("small", {"vcpus": 2, "vcpus_request": "500m", "memory": "2GiB", "disk": "10GiB", "data_disk": "5GiB"})
    assert (flavor.vcpus_milli, flavor.memory_mib, flavor.disk_bytes) == (500, 2048 + qemu_overhead_mib(2048, 2, disks=3), 15 * GIB)
    lean = flavor_of("lean", {"vcpus": 2, "memory": "2GiB", "memory_request": "1GiB"})
    assert (lean.vcpus_milli, lean.memory_mib) == (2000, 1024 + qemu_overhead_mib(2048, 2, disks=2)), "QEMU takes its share of what the VM may use"


@pytest.mark.parametrize(("make", "option"), [
    (lambda: group_of("red", {"quota": {"gpus": 1}}), "kvmfleet_groups.red.quota.gpus"),
    (lambda: group_of("red", {"quota": {"memory": "2"}}), "kvmfleet_groups.red.quota.memory"),
    (lambda: group_of("red", {"locked": "maybe"}), "kvmfleet_groups.red.locked"),
    (lambda: group_of("red", ["x"]), "kvmfleet_groups.red"),
    (lambda: flavor_of("small", {"vcpus": 1}), "kvmfleet_flavors.small.memory"),
    (lambda: host_of("kvm1", None, {"kvm_groups": "red"}), "kvm1.groups"),
    (lambda: host_of("kvm1", None, {"kvm_labels": ["x"]}), "kvm1: kvm_labels"),
    (lambda: host_of("kvm1", None, {"kvm_max_vms": "many"}), "kvm1: kvm_max_vms")])
def test_bad_settings_are_named(make: Any, option: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert caught.value.option == option
