# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From wishes and what hosts said to what each host has to do."""
from __future__ import annotations

from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils._overhead import qemu_overhead_mib
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import GIB, MIB, SpecError, mac_for
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _placement_report, _variables
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, Host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._planning import Context, FleetPlan, Wish, plan_requests, wish_of

CATALOGS: Dict[str, Any] = {
    "kvmfleet_networks": {"lan": {"cidr": "192.0.2.0/24"}, "few": {"cidr": "198.51.100.0/24", "gateway": "198.51.100.1", "pool": "few"}},
    "kvmfleet_ip_pools": {"few": {"network": "few", "ranges": "198.51.100.10-198.51.100.12"}},
    "kvmfleet_groups": {"acme": {"quota": {"vms": 2, "vcpus": 4, "memory": "4GiB", "disk": "100GiB"}}, "frozen": {"locked": True}},
    "kvmfleet_flavors": {"small": {"vcpus": 1, "memory": "1GiB", "disk": "8GiB"}},
}
SMALL = {"vm_vcpus": 1, "vm_memory": "1GiB", "vm_disk": "10GiB", "vm_network": "lan"}
SHARE = qemu_overhead_mib(1024, 1, disks=1, nics=1)   # of QEMU for such a VM


def vm(name: str, **more: Any) -> Dict[str, Any]:
    return dict({"name": name, "uuid": "uuid-" + name, "managed": True, "phase": "ready", "stopped": True, "vcpus": 1, "limit_mib": 1024,
                 "vcpus_milli": 1000,
                 "memory_mib": 1024 + SHARE, "disks": [{"name": "root", "pool": "default", "bytes": 10 * GIB}], "macs": [], "addresses": [],
                 "labels": {}}, **more)


def state(vms: Any = (), vcpus: float = 8, memory: int = 8192, disk: int = 200 * GIB) -> Dict[str, Any]:
    """What a host says that has so much left beside the VMs it has."""
    return {"vcpus": {"total": 100, "reserved": 0, "ratio": 1, "available": vcpus}, "memory": {"total_mib": 1 << 17, "reserved_mib": 0, "ratio": 1,
            "available_mib": memory}, "pools": {"default": {"active": True, "total_bytes": 1 << 45, "reserved_bytes": 0, "ratio": 1, "available_bytes": disk,
                                                            "free_bytes": 1 << 45}},
            "vms": list(vms), "archs": ["x86_64"], "virt_types": ["qemu"], "networks": [{"name": "lan"}, {"name": "few"}, {"name": "default"}]}


def wish(hosts: List[Host], **given: Any) -> Wish:
    values = _variables.read("create", dict(SMALL, **dict({"vm_name": "web"}, **given)))
    return wish_of(values, Catalogs(CATALOGS), hosts)


def plan(states: Dict[str, Any], context: Optional[Context] = None, hosts: Optional[List[Host]] = None, **given: Any) -> FleetPlan:
    hosts = hosts or [Host(name) for name in sorted(states)]
    return plan_requests([wish(hosts, **given)], Catalogs(CATALOGS), hosts, states, context)


@pytest.mark.parametrize(("left", "fits"), [
    ({}, True), ({"vcpus": 1}, True), ({"vcpus": 0.999}, False), ({"memory": 1024 + SHARE}, True), ({"memory": 1023 + SHARE}, False),
    ({"disk": 10 * GIB}, True), ({"disk": 10 * GIB - 1}, False)])
def test_exact_fit_fits_and_qemu_counts(left: Dict[str, Any], fits: bool) -> None:
    made = plan({"kvm1": state(**left)})
    assert made.placement.ok is fits
    assert list(made.items) == (["kvm1"] if fits else [])


def test_the_seed_is_counted_as_the_host_counts_it() -> None:
    assert plan({"kvm1": state(disk=10 * GIB + MIB, memory=1024 + SHARE + 4)}, vm_seed_format="nocloud").placement.ok
    assert not plan({"kvm1": state(disk=10 * GIB)}, vm_seed_format="nocloud").placement.ok


def test_who_exists_stays_and_grows_there_or_not_at_all() -> None:
    states = {"kvm1": state([vm("web")], vcpus=1, memory=0), "kvm2": state()}
    made = plan(states)
    assert (made.exists, made.fresh, made.placement.decisions[0].sticky) == ({"web": "kvm1"}, {}, True)
    assert plan(states, vm_vcpus=2, vm_memory="1GiB").placement.code in ("no_memory", ""), "a second vcpu takes memory of QEMU's too"
    states["kvm1"]["memory"]["available_mib"] = 8
    assert plan(states, vm_vcpus=2).placement.ok
    assert plan(states, vm_vcpus=3).placement.code == "no_vcpus"
    assert plan(states, vm_memory="2GiB").placement.code == "no_memory"
    assert plan(states, vm_vcpus=1, vm_memory="512MiB").placement.ok, "who shrinks needs no room"
    assert plan(states, vm_disks="300GiB").placement.code == "no_disk"


def test_addresses_come_from_the_pool_once_and_stay() -> None:
    states = {"kvm1": state([vm("other", addresses=["198.51.100.10/24"])]), "kvm2": state()}
    made = plan(states, vm_name="web", vm_count=2, vm_network="few", vm_seed_format="nocloud")
    nics = [item["nics"][0] for items in made.items.values() for item in items]
    assert sorted(nic["addresses"][0] for nic in nics) == ["198.51.100.11/24", "198.51.100.12/24"]
    assert {nic["gateway"] for nic in nics} == {"198.51.100.1"}
    with pytest.raises(SpecError) as caught:
        plan(states, vm_count=3, vm_network="few", vm_seed_format="nocloud")
    assert caught.value.code == "pool_exhausted" and "1 in use, 3 asked" in str(caught.value)
    there = {"kvm1": state([vm("web", addresses=["198.51.100.12/24"])]), "kvm2": state()}
    assert plan(there, vm_network="few", vm_seed_format="nocloud").items["kvm1"][0]["nics"][0]["addresses"] == ["198.51.100.12/24"]
    dhcp = plan(states, vm_network="few", vm_ip="dhcp", vm_seed_format="nocloud")
    assert "addresses" not in next(iter(dhcp.items.values()))[0]["nics"][0]


def test_a_host_that_does_not_answer_may_have_any_address() -> None:
    states = {"kvm1": state(), "kvm2": None}
    with pytest.raises(SpecError, match="kvm2.*vm_allow_unreachable") as caught:
        plan(states, vm_network="few", vm_seed_format="nocloud")
    assert caught.value.code == "host_unreachable"
    assert plan(states, vm_network="few", vm_seed_format="nocloud", vm_allow_unreachable="true").placement.ok
    assert "kvm2 did not answer" in plan(states).notes[0]
    assert plan(states, vm_host="kvm2").placement.code == "unreachable"


@pytest.mark.parametrize(("given", "option", "code"), [
    ({"vm_ip": "192.0.2.9"}, "vm_ip", "ip_in_use"), ({"vm_mac": "52:54:00:AA:00:01"}, "vm_mac", "mac_in_use")])
def test_what_others_have_is_refused_by_its_holder(given: Dict[str, Any], option: str, code: str) -> None:
    states = {"kvm1": state(), "kvm2": state([vm("db", addresses=["192.0.2.9/24"], macs=["52:54:00:aa:00:01"])])}
    with pytest.raises(SpecError, match="VM db on kvm2") as caught:
        plan(states, vm_seed_format="nocloud", **given)
    assert (caught.value.option, caught.value.code) == (option, code)
    with pytest.raises(SpecError, match="VM of another group on kvm2"):
        plan(states, vm_seed_format="nocloud", vm_group="acme", **given)
    states["kvm2"]["vms"][0]["name"] = "web"   # the same VM asked for again
    assert plan(states, vm_seed_format="nocloud", **given).placement.ok


def test_a_made_up_mac_that_another_host_has_gives_way() -> None:
    states = {"kvm1": state(), "kvm2": state([vm("db", macs=[mac_for("web", 0)])])}
    item = next(iter(plan(states).items.values()))[0]
    assert item["nics"][0]["mac"] == mac_for("web", 0, 1)
    assert "mac" not in next(iter(plan({"kvm1": state(), "kvm2": state()}).items.values()))[0]["nics"][0]


def test_two_names_for_one_host_are_found_out() -> None:
    states = {"kvm1": state([vm("db")]), "kvm2": state([vm("db")])}
    with pytest.raises(SpecError, match="kvm1, kvm2.*same libvirt host") as caught:
        plan(states)
    assert caught.value.code == "duplicate_host"


def test_a_name_on_two_hosts_is_told() -> None:
    states = {"kvm1": state([vm("web", uuid="1")]), "kvm2": state([vm("web", uuid="2")])}
    assert plan(states).placement.code == "exists_twice"


def test_a_set_shrinks_only_when_told_and_only_by_its_members() -> None:
    members = [vm("web-{0}".format(i), set="web", index=i) for i in (1, 2, 3, 4)]
    foreign = [vm("web-9", managed=False, phase=None), vm("web-8"), vm("web-7", set="web", index=7, group="acme")]
    states = {"kvm1": state(members[:3]), "kvm2": state(members[3:] + foreign)}
    made = plan(states, vm_count=2)
    assert list(made.surplus) == ["web-4", "web-3"] and made.removed == [] and "vm_scale_down=true" in made.notes[0]
    made = plan(states, vm_count=2, vm_scale_down="true")
    gone = [item["name"] for items in made.items.values() for item in items if item.get("state") == "absent"]
    assert made.removed == ["web-4", "web-3"] and sorted(gone) == ["web-3", "web-4"]
    assert plan(states, vm_count=6).fresh.keys() == {"web-5", "web-6"}


@pytest.mark.parametrize(("given", "code", "said"), [
    ({"vm_count": 3}, "quota_vms", "2 VMs allowed, 0 used, 3 more asked"), ({"vm_vcpus": 5}, "quota_vcpus", "4 vcpus allowed"),
    ({"vm_memory": "4GiB"}, "quota_memory", "4 GiB"), ({"vm_disk": "101GiB"}, "quota_disk", "100 GiB")])
def test_quotas(given: Dict[str, Any], code: str, said: str) -> None:
    made = plan({"kvm1": state(), "kvm2": state()}, vm_group="acme", **given)
    assert made.placement.code == code and said in made.placement.message and "acme" in made.placement.message


def test_claims_of_others() -> None:
    claim = vm("web", phase="pending", ticket="5", claim_age_s=10.0)
    states = {"kvm1": state([claim], vcpus=1), "kvm2": state(vcpus=0)}
    waiting = plan(states, Context("3", 60))
    assert list(waiting.waiting) == ["web"] and not waiting.fresh and not waiting.yields and waiting.placement.ok
    assert plan(states, Context("7", 60)).yields
    mine = plan(states, Context("5", 60))
    assert (mine.fresh, mine.waiting) == ({"web": "kvm1"}, {})
    stale = {"kvm1": state([dict(claim, claim_age_s=61.0)], vcpus=0, memory=0, disk=0)}
    made = plan(stale, Context("3", 60))
    assert (made.fresh, made.sweep) == ({"web": "kvm1"}, ["kvm1"]), "what it would have taken is counted as free"


def test_affinity_by_name_is_within_the_group() -> None:
    db = vm("db.default.acme", group="acme", namespace="default")
    states = {"kvm1": state([db]), "kvm2": state()}
    assert plan(states, vm_group="acme", vm_affinity="db").placement.hosts == {"web.default.acme": "kvm1"}
    assert plan(states, vm_group="acme", vm_anti_affinity="db").placement.hosts == {"web.default.acme": "kvm2"}
    assert plan(states, vm_group="acme", vm_anti_affinity="db", vm_affinity="db").placement.code == "contradictory_affinity"
    states["kvm2"]["vms"].append(vm("shy", anti_affinity=["web.default.acme"]))
    assert plan(states, vm_group="acme", vm_strategy="most_free_cpu").placement.hosts == {"web.default.acme": "kvm1"}, "whoever came first may have the rule"
    states["kvm2"]["vms"].pop()
    kept = next(iter(plan(states, vm_group="acme", vm_anti_affinity="db,tier=db").items.values()))[0]
    assert kept["anti_affinity"] == ["db.default.acme", "tier=db"]
    assert plan(states, vm_count=3, vm_max_per_host=1).placement.code == "max_per_host"


def test_several_wishes_are_placed_together() -> None:
    hosts = [Host("kvm1")]
    wishes = [wish(hosts, vm_name="a"), wish(hosts, vm_name="b", vm_vcpus=2)]
    states = {"kvm1": state(vcpus=2)}
    assert plan_requests(wishes, Catalogs(CATALOGS), hosts, states).placement.code == "no_capacity"
    states = {"kvm1": state(vcpus=3)}
    assert [item["name"] for item in plan_requests(wishes, Catalogs(CATALOGS), hosts, states).items["kvm1"]] == ["a", "b"]
    with pytest.raises(SpecError, match="different strategies"):
        plan_requests([wishes[0], wish(hosts, vm_name="c", vm_strategy="pack")], Catalogs(CATALOGS), hosts, states)
    with pytest.raises(SpecError, match="asked for twice"):
        plan_requests([wishes[0], wishes[0]], Catalogs(CATALOGS), hosts, states)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(1, 6), st.sampled_from(["spread", "pack", "round_robin", "most_free_cpu"]))
def test_a_batch_is_placed_whole_within_capacity_or_not_at_all(rooms: List[int], count: int, strategy: str) -> None:
    states = {"kvm{0}".format(i): state(vcpus=room) for i, room in enumerate(rooms)}
    made = plan(states, vm_count=count, vm_strategy=strategy)
    assert made.placement.ok is (sum(rooms) >= count)
    assert all(len(items) <= rooms[int(host[3:])] for host, items in made.items.items())
    assert sum(len(items) for items in made.items.values()) == (count if made.placement.ok else 0)
    assert made == plan(states, vm_count=count, vm_strategy=strategy)


def test_the_plan_is_told_with_its_reasons() -> None:
    states = {"kvm1": state([vm("db")]), "kvm2": state(vcpus=0), "kvm3": None}
    shown = "\n".join(_placement_report.lines(plan(states, vm_count=2).placement, {"kvm3": "no route"}))
    for words in ("Placement (spread)", "web-1", "kvm1", "Not considered for web-1, web-2", "no_vcpus", "kvm2", "unreachable", "kvm3: no route"):
        assert words in shown, shown
    full = {"kvm1": state(vcpus=50, memory=1 << 16, disk=1 << 43), "kvm2": state(vcpus=0)}
    few, many_vms = (plan(full, vm_count=count).placement.as_result()["vms"] for count in (2, 20))
    assert [r["host"] for r in few[0]["refused"]] == ["kvm2"] and many_vms[0]["refused"] == [] and many_vms[0]["reasons"] == {"no_vcpus": 1}
    many = {"kvm{0}".format(i): state(vcpus=0) for i in range(30)}
    assert "30 hosts: no_vcpus, such as: kvm0 has 0 vcpus left, " in "\n".join(_placement_report.lines(plan(many).placement, {}))
