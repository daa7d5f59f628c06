# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Affinity, anti-affinity, limits per host, and spreading over zones, among VMs that exist and VMs of one batch."""
from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils._placement import Selector, Vm, place
from ansible_collections.kvmfleet.core.tests.unit.plugins.module_utils.placement_oracle import host, request

DB = Selector(labels=(("app", "db"),))
DB_LABELS = (("app", "db"),)
WITH_DB = {"vms": (Vm("db1", labels={"app": "db"}),)}


def test_anti_affinity_to_vms_that_exist() -> None:
    hosts = [host("kvm1", 64, 64, **WITH_DB), host("kvm2", 4, 4)]
    assert place([request("a", anti_affinity=(DB,))], hosts).hosts == {"a": "kvm2"}
    assert place([request("a", anti_affinity=(Selector(vm="db1"),))], hosts).hosts == {"a": "kvm2"}
    plan = place([request("a", anti_affinity=(DB,))], hosts[:1])
    assert plan.code == "anti_affinity" and "kvm1 has VMs with app=db, which a must not share a host with" in plan.message


def test_anti_affinity_of_a_vm_that_exists_holds_for_newcomers() -> None:
    hosts = [host("kvm1", 64, 64, vms=(Vm("shy", anti_affinity=(DB,)),)), host("kvm2", 4, 4)]
    assert place([request("db1", labels=DB_LABELS)], hosts).hosts == {"db1": "kvm2"}


def test_another_groups_vm_is_not_named() -> None:
    hosts = [host("kvm1", 64, 64, vms=(Vm("shy.default.blue", group="blue", anti_affinity=(DB,)),))]
    for group, told in (("red", "VM of another group"), ("blue", "VM shy.default.blue"), ("", "VM shy.default.blue")):
        refusal = place([request("db1", labels=DB_LABELS, group=group)], hosts).message
        assert "kvm1 has {0}, which must not share".format(told) in refusal and ("shy" in refusal) is (group != "red")


def test_members_of_a_batch_keep_apart() -> None:
    hosts = [host("kvm{0}".format(i)) for i in range(3)]
    vms = [request("db{0}".format(i), labels=DB_LABELS, anti_affinity=(DB,)) for i in range(4)]
    assert sorted(place(vms[:3], hosts).hosts.values()) == ["kvm0", "kvm1", "kvm2"]
    plan = place(vms, hosts)
    assert plan.code == "anti_affinity" and "not on enough different hosts: 3 could take them" in plan.message


def test_anti_affinity_by_name_within_a_batch() -> None:
    hosts = [host("kvm1", 64, 64), host("kvm2", 2, 2)]
    plan = place([request("a", 2, 2), request("b", 2, 2, anti_affinity=(Selector(vm="a"),)), request("c", 2, 2)], hosts)
    assert plan.ok and plan.hosts["a"] != plan.hosts["b"]


def test_affinity_joins_vms_that_exist() -> None:
    hosts = [host("kvm1", 4, 4, **WITH_DB), host("kvm2", 64, 64)]
    assert place([request("a", affinity=(DB,))], hosts).hosts == {"a": "kvm1"}
    plan = place([request("a", 5, 1, affinity=(DB,))], hosts)
    assert plan.code == "no_capacity" and "kvm2 has none of VMs with app=db" in plan.message


def test_affinity_within_a_batch_is_one_unit() -> None:
    hosts = [host("kvm{0}".format(i), 4, 4) for i in range(3)]
    plan = place([request("a", 2, 2), request("b", 2, 2, affinity=(Selector(vm="a"),)), request("c", 3, 3)], hosts)
    assert plan.hosts["a"] == plan.hosts["b"] != plan.hosts["c"]
    assert place([request("a", 3, 3), request("b", 3, 3, affinity=(Selector(vm="a"),))], hosts).code == "no_capacity"


def test_the_first_of_its_kind_may_be_anywhere_and_the_rest_follows() -> None:
    plan = place([request("db{0}".format(i), labels=DB_LABELS, affinity=(DB,)) for i in range(3)], [host("kvm1"), host("kvm2")])
    assert len(set(plan.hosts.values())) == 1


def test_affinity_to_what_is_nowhere() -> None:
    plan = place([request("a", affinity=(Selector(vm="ghost"),))], [host("kvm1")])
    assert plan.code == "affinity" and "a has to share a host with VM ghost, which is nowhere" in plan.message


@pytest.mark.parametrize("vms", [
    [request("a", affinity=(DB,), anti_affinity=(DB,))],
    [request("a"), request("b", affinity=(Selector(vm="a"),)), request("c", affinity=(Selector(vm="b"),), anti_affinity=(Selector(vm="a"),))]])
def test_contradictions_are_detected_as_such(vms: Any) -> None:
    assert place(vms, [host("kvm1")]).code == "contradictory_affinity"


def test_soft_rules_lead_but_do_not_refuse() -> None:
    hosts = [host("kvm1", 64, 64, **WITH_DB), host("kvm2", 4, 4)]
    assert place([request("a", soft_anti_affinity=(DB,))], hosts).hosts == {"a": "kvm2"}
    assert place([request("a", soft_anti_affinity=(DB,))], hosts[:1]).ok
    assert place([request("a", soft_affinity=(DB,))], [host("kvm1", 4, 4, **WITH_DB), host("kvm2", 64, 64)]).hosts == {"a": "kvm1"}
    three = [request("db{0}".format(i), labels=DB_LABELS, soft_anti_affinity=(DB,)) for i in range(3)]
    assert sorted(Counter(place(three, [host("kvm1", 64, 64), host("kvm2", 4, 4)]).hosts.values()).values()) == [1, 2]
    friends = [request("a", 1, 1), request("b", 1, 1, soft_affinity=(Selector(vm="a"),))]
    assert len(set(place(friends, [host("kvm1"), host("kvm2")]).hosts.values())) == 1


def test_most_per_host_counts_members_that_exist() -> None:
    hosts = [host("kvm1", 64, 64, vms=(Vm("web-1", set="web"),)), host("kvm2", 8, 8)]
    vms = [request("web-{0}".format(i), set="web", max_per_host=2) for i in range(2, 6)]
    assert Counter(place(vms[:3], hosts).hosts.values()) == {"kvm1": 1, "kvm2": 2}
    plan = place(vms, hosts)
    assert plan.code == "max_per_host"


@pytest.mark.parametrize("strategy", ["spread", "pack", "most_free_cpu", "round_robin"])
@pytest.mark.parametrize("spread_by", ["zone", "region", "label:rack"])
def test_a_set_is_spread_evenly_over_domains(strategy: str, spread_by: str) -> None:
    hosts = [host("kvm{0}".format(i), 16 + 16 * i, 64, zone="z{0}".format(i % 3), region="z{0}".format(i % 3), labels={"rack": "z{0}".format(i % 3)})
             for i in range(5)]
    plan = place([request("web-{0}".format(i), set="web") for i in range(7)], hosts, strategy, spread_by=spread_by)
    domains = Counter(hosts[int(name[3:])].zone for name in plan.hosts.values())
    assert sorted(domains.values()) == [2, 2, 3]


def test_zones_of_one_name_in_two_regions_are_two_to_spread_over() -> None:
    hosts = [host("kvm1", 8, 64, zone="a", region="berlin"), host("kvm2", 64, 64, zone="a", region="munich"), host("kvm3", 64, 64, zone="b", region="munich")]
    plan = place([request("web-{0}".format(i), set="web") for i in range(6)], hosts, spread_by="zone")
    assert Counter(plan.hosts.values()) == {"kvm1": 2, "kvm2": 2, "kvm3": 2}
    assert {place([request("x", zone="a", region=region)], hosts).hosts["x"] for region in ("berlin", "munich")} == {"kvm1", "kvm2"}
    assert place([request("x", zone="a")], hosts[:1] + hosts[2:]).hosts == place([request("x", zone="a")], hosts[:1]).hosts == {"x": "kvm1"}


def test_spreading_counts_members_that_exist_and_yields_where_a_domain_is_full() -> None:
    hosts = [host("kvm1", 64, 64, zone="a", vms=(Vm("web-1", set="web"), Vm("web-2", set="web"))), host("kvm2", 64, 64, zone="b"),
             host("kvm3", 1, 1, zone="c")]
    plan = place([request("web-{0}".format(i), set="web") for i in range(3, 7)], hosts, spread_by="zone")
    assert Counter(plan.hosts.values()) == {"kvm3": 1, "kvm2": 2, "kvm1": 1}


def test_strategies_choose_what_they_say() -> None:
    hosts = [host("big", 64, 64), host("small", 8, 8)]
    vms = [request("vm{0}".format(i)) for i in range(4)]
    assert set(place(vms, [host("kvm1"), host("kvm2")], "spread").hosts.values()) == {"kvm1", "kvm2"}
    assert len(set(place(vms, [host("kvm1"), host("kvm2")], "pack").hosts.values())) == 1
    assert set(place(vms, hosts, "most_free_cpu").hosts.values()) == {"big"}
    assert Counter(place(vms, hosts, "round_robin").hosts.values()) == {"big": 2, "small": 2}
    assert set(place(vms, hosts, "least_memory_used").hosts.values()) == {"big"}
    assert set(place(vms, hosts, "weights", weights={"memory": -1}).hosts.values()) == {"small"}
    assert set(place(vms, hosts, "weights", weights={"memory": 1}).hosts.values()) == {"big"}


def test_the_tightest_resource_decides_for_spread() -> None:
    hosts = [host("cpus", 64, 8), host("even", 16, 16)]
    assert place([request("a", 2, 4)], hosts).hosts == {"a": "even"}


def test_pack_keeps_the_large_hole_and_looks_at_the_shape() -> None:
    hosts = [host("hole", 16, 64, vms=(Vm("old", 1000, 1024),)), host("scrap", 16, 8, vms=(Vm("older", 1000, 1024),))]
    assert place([request("a", 4, 4)], hosts, "pack").hosts == {"a": "scrap"}
    assert place([request("a", 2, 8)], hosts, "pack").ok
