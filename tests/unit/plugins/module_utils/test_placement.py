# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties of placement on small fleets, against an oracle that tries everything."""
from __future__ import annotations

from dataclasses import replace
from typing import Any, List

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils._placement import Amount, Flavor, HostCapacity, Request, Vm, how_many, place
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.tests.bench.pack_planner import PackPlanner
from ansible_collections.kvmfleet.core.tests.unit.plugins.module_utils.placement_oracle import (
    batches,
    fits,
    fleets,
    host,
    may_go,
    request,
    some_assignment,
    violations,
)

STRATEGIES = ("spread", "pack", "least_memory_used", "most_free_cpu", "round_robin")
few = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(batches(), fleets(), st.sampled_from(STRATEGIES), st.sampled_from(["", "zone", "host"]))
def test_no_plan_breaks_a_rule(requests: List[Request], hosts: List[HostCapacity], strategy: str, spread_by: str) -> None:
    plan = place(requests, hosts, strategy, spread_by=spread_by)
    if plan.ok:
        assert violations(requests, hosts, plan.hosts) == []
    else:
        assert plan.hosts == {}
        assert plan.code and plan.message and all(decision.code for decision in plan.decisions)


@few
@given(batches(most=1), fleets(), st.sampled_from(STRATEGIES))
def test_a_single_vm_is_refused_only_where_every_host_has_to_refuse_it(requests: List[Request], hosts: List[HostCapacity], strategy: str) -> None:
    plan = place(requests, hosts, strategy)
    assert plan.ok == (some_assignment(requests, hosts) is not None)
    refused = set(plan.decisions[0].refusals)
    if plan.code not in ("unknown_zone",):
        assert refused == {there.name for there in hosts if violations(requests, hosts, {requests[0].name: there.name})}


@few
@given(batches(most=5), fleets(most=3), st.sampled_from(("spread", "pack")))
def test_a_batch_is_refused_only_where_no_assignment_exists(requests: List[Request], hosts: List[HostCapacity], strategy: str) -> None:
    assert place(requests, hosts, strategy).ok == (some_assignment(requests, hosts) is not None)


@few
@given(batches(), fleets(), st.sampled_from(STRATEGIES), st.randoms())
def test_the_order_of_hosts_does_not_matter(requests: List[Request], hosts: List[HostCapacity], strategy: str, rnd: Any) -> None:
    other = list(hosts)
    rnd.shuffle(other)
    assert place(requests, hosts, strategy).as_result() == place(requests, other, strategy).as_result()


@few
@given(batches(most=1), fleets())
def test_how_many_is_what_place_places(requests: List[Request], hosts: List[HostCapacity]) -> None:
    one = replace(requests[0], set="s")
    room = how_many([one], hosts)[0]
    assert room.total == sum(room.hosts.values()) == sum(room.zones.values())
    if one.zone and one.zone not in {there.zone for there in hosts}:
        return
    count = min(room.total, 12)
    assert place([replace(one, name="n{0}".format(i)) for i in range(count)], hosts).ok
    if room.total < 12:
        assert not place([replace(one, name="n{0}".format(i)) for i in range(count + 1)], hosts).ok


def _survives(hosts: List[HostCapacity], on: dict) -> bool:
    """Whether for each host the VMs on it could all be somewhere else, by trying all."""
    for lost in hosts:
        guests = on[lost.name]
        rest = [replace(there, vcpus=replace(there.vcpus, allocated=sum(one.vcpus_milli for one in on[there.name])),
                        memory=replace(there.memory, allocated=sum(one.memory_mib for one in on[there.name])))
                for there in hosts if there is not lost]
        if some_assignment(guests, rest) is None:
            return False
    return True


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4),
       st.lists(st.tuples(st.integers(2, 9), st.integers(2, 9)), min_size=2, max_size=3))
def test_with_a_host_in_reserve_any_host_may_fail(sizes: List[Any], capacities: List[Any]) -> None:
    hosts = [host("kvm{0}".format(i), *capacity) for i, capacity in enumerate(capacities)]
    requests = [request("vm{0}".format(i), *size) for i, size in enumerate(sizes)]
    plan = place(requests, hosts, reserve_failures=1)
    if plan.ok:
        assert violations(requests, hosts, plan.hosts) == []
        assert _survives(hosts, {there.name: [one for one in requests if plan.hosts[one.name] == there.name] for there in hosts})
    elif len(requests) == 1:
        one = requests[0]
        assert not any(fits(there, [one]) and _survives(hosts, {other.name: [one] if other is there else [] for other in hosts}) for there in hosts)
        assert plan.code in ("failover", "no_capacity")


def test_an_exact_fit_fits_and_one_mib_more_does_not() -> None:
    hosts = [HostCapacity("kvm1", Amount(10_000, 2000, 1.5, 2000), Amount(16384, 1024, 1, 1024))]
    assert place([Request("a", 10_000, 14336)], hosts).hosts == {"a": "kvm1"}
    short = place([Request("a", 10_000, 14337)], hosts)
    assert short.code == "no_capacity"
    assert "kvm1 has 14 GiB left, 14337 MiB asked" in short.message
    assert place([Request("a", 10_001, 14336)], hosts).decisions[0].reasons == {"no_vcpus": 1}


@pytest.mark.parametrize(("ratio", "capacity"), [(1.1, 1100), ("1.1", 1100), (0.7, 700), (3, 3000), (2.675, 2675)])
def test_ratios_are_the_decimals_they_are_written_as(ratio: Any, capacity: int) -> None:
    assert Amount(1000, 0, ratio).capacity == capacity


def test_a_stopped_vm_counts_by_its_factor() -> None:
    there = HostCapacity("kvm1", Amount(8000, allocated=8000), Amount(8192, allocated=8192), vms=(Vm("old", 8000, 8192, stopped=True),))
    assert not place([request("new", 4, 4)], [there]).ok
    assert place([request("new", 4, 4)], [there], stopped_factor=0.5).ok
    assert not place([request("new", 5, 4)], [there], stopped_factor=0.5).ok
    assert place([request("new", 8, 8)], [there], stopped_factor=0).ok


def test_a_vm_that_exists_stays_and_only_its_growth_is_checked() -> None:
    full = HostCapacity("kvm1", Amount(4000, allocated=3000), Amount(8192, allocated=8192), vms=(Vm("web", 3000, 8192),), schedulable=False)
    hosts = [full, host("kvm2", 64, 64)]
    same = place([request("web", 3, 8)], hosts)
    assert (same.hosts, same.decisions[0].sticky) == ({"web": "kvm1"}, True)
    assert place([request("web", 4, 8)], hosts).hosts == {"web": "kvm1"}
    grown = place([request("web", 5, 8)], hosts)
    assert grown.code == "no_vcpus" and "web cannot grow on its host: kvm1 has 1 vcpus left, 2 vcpus asked" in grown.message
    assert place([request("web", 3, 9)], hosts).code == "no_memory"
    assert place([request("web", 3, 8, host="kvm2")], hosts).code == "exists_elsewhere"
    assert place([request("web", 3, 8)], [full, replace(full, name="kvm3")]).code == "exists_twice"


def test_what_shrinks_is_not_given_to_others_in_the_same_batch() -> None:
    there = HostCapacity("kvm1", Amount(4000, allocated=4000), Amount(4096, allocated=2048), vms=(Vm("web", 4000, 2048),))
    assert not place([request("web", 1, 2), request("new", 1, 1)], [there]).ok


def test_one_by_one_fails_where_a_feasible_assignment_is_found() -> None:
    hosts = [host("kvm{0}".format(i), 10, 10) for i in range(2)]
    requests = [request("a", 4, 4), request("b", 4, 4), request("c", 3, 3), request("d", 3, 3), request("e", 3, 3), request("f", 3, 3)]
    for strategy in STRATEGIES:
        plan = place(requests, hosts, strategy)
        assert violations(requests, hosts, plan.hosts) == [], strategy


def test_what_would_be_needed_is_said() -> None:
    hosts = [host("kvm1", 64, 16), host("kvm2", 64, 48)]
    plan = place([request("big-{0}".format(i), 2, 64) for i in range(1, 4)], hosts)
    assert plan.code == "no_capacity"
    assert "3 x 2 vcpus, 64 GiB asked" in plan.message and "the largest hole is 48 GiB on kvm2" in plan.message
    assert "big-1, big-2, big-3" in plan.message
    part = place([request("mid-{0}".format(i), 2, 20) for i in range(3)], hosts)
    assert "there is room for 2" in part.message
    assert [decision.code for decision in part.decisions] == ["no_capacity"] * 3


def test_the_nearest_miss_is_named() -> None:
    plan = place([request("a", 8, 8)], [host("kvm1", 2, 2), host("kvm2", 7, 8), host("kvm3", 4, 8)])
    assert "nearest miss: kvm2 has 7 vcpus left, 8 vcpus asked" in plan.message


def test_a_batch_with_one_hopeless_vm_places_none() -> None:
    plan = place([request("a", 1, 1), request("b", 99, 1)], [host("kvm1")])
    assert [decision.code for decision in plan.decisions] == ["batch_refused", "no_capacity"]
    assert plan.hosts == {}


def test_simultaneous_planners_do_not_all_pick_one_host() -> None:
    hosts = [host("kvm{0}".format(i)) for i in range(8)]
    picked = {place([request("vm{0}".format(i))], hosts).hosts["vm{0}".format(i)] for i in range(40)}
    assert len(picked) >= 6


def test_score_and_runner_up_are_told() -> None:
    decision = place([request("a", 2, 2)], [host("kvm1", 8, 8), host("kvm2", 16, 16), host("kvm3", 4, 4)]).decisions[0]
    assert (decision.host, decision.runner_up) == ("kvm2", "kvm1")
    assert decision.score == 125_000 and decision.runner_up_score == 250_000


def test_reasons_are_counted_and_listed_only_for_few_hosts() -> None:
    hosts = [host("kvm{0:02}".format(i), 8, 8, schedulable=i % 2 == 0) for i in range(50)]
    result = place([request("a", 4, 4)], hosts).as_result()["vms"][0]
    assert result["reasons"] == {"unschedulable": 25} and result["refused"] == []
    assert len(place([request("a", 4, 4)], hosts[:5]).as_result()["vms"][0]["refused"]) == 2


@pytest.mark.parametrize(("setting", "option"), [
    ({"strategy": "best"}, "vm_strategy"), ({"strategy": "weights"}, "vm_weights"), ({"strategy": "weights", "weights": {"gpu": 1}}, "vm_weights"),
    ({"spread_by": "rack"}, "vm_spread"), ({"spread_by": "label:"}, "vm_spread"), ({"reserve_failures": 2}, "reserve_failures"),
    ({"stopped_factor": "half"}, "stopped_factor"), ({"stopped_factor": 2}, "stopped_factor")])
def test_settings_that_make_no_sense_are_refused(setting: Any, option: str) -> None:
    with pytest.raises(SpecError) as caught:
        place([request("a")], [host("kvm1")], **setting)
    assert caught.value.option == option


def test_a_host_listed_twice_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        place([request("a")], [host("kvm1"), host("kvm1")])
    assert caught.value.code == "duplicate_host"


def test_how_many_by_zone_and_with_a_host_in_reserve() -> None:
    hosts = [host("kvm1", 8, 16, zone="a"), host("kvm2", 8, 48, zone="b"), host("kvm3", 8, 48, zone="b", schedulable=False)]
    small = Flavor("small", 2000, 4096).request()
    room = how_many([small], hosts)[0]
    assert (room.total, room.zones) == (8, {("", "a"): 4, ("", "b"): 4})
    munich = replace(hosts[0], name="kvm4", region="munich")
    for reserve in (0, 1):
        apart = how_many([small], hosts + [munich], reserve_failures=reserve)[0]
        assert apart.zones["", "a"] == apart.hosts["kvm1"] and apart.zones["munich", "a"] == apart.hosts["kvm4"] > 0
    assert room.refusals["kvm3"].code == "unschedulable"
    assert how_many([small], hosts, reserve_failures=1)[0].total == 4
    assert how_many([replace(small, max_per_host=1, set="s")], hosts)[0].total == 2


def test_the_empty_batch_and_the_empty_fleet() -> None:
    assert place([], [host("kvm1")]).ok
    assert place([request("a")], []).code == "no_host"
    assert how_many([request("a")], [])[0].total == 0
    assert not may_go(request("a", zone="x"), host("kvm1"))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 12)), min_size=1, max_size=12))
def test_the_planner_of_the_benchmark_decides_as_place_does(vms: List[Any]) -> None:
    capacities = [(16, 60, 100), (32, 60, 100), (16, 124, 100)]
    planner, free = PackPlanner(capacities), [list(capacity) for capacity in capacities]
    seen: dict = {}
    for vcpus, memory in vms:
        hosts = [HostCapacity("h{0:04}".format(i), Amount(whole[0] * 1000, allocated=(whole[0] - left[0]) * 1000),
                              Amount(whole[1] * 1024, allocated=(whole[1] - left[1]) * 1024))
                 for i, (whole, left) in enumerate(zip(capacities, free))]
        catalog = [Flavor("", size[0] * 1000, size[1] * 1024, weight=count) for size, count in seen.items()]
        decision = place([request("new", vcpus, memory)], hosts, "pack", flavors=catalog).decisions[0]
        chosen = planner(free, capacities, (vcpus, memory, 0))
        if chosen is None:
            assert decision.code
            return
        ask = planner.ledger.layouts[0].ask(vcpus * 1000, memory * 1024, ()) or ()
        assert abs(planner.holes.score(chosen, ask)[0] - (decision.score or 0)) <= 10    # equal but for the order of a sum
        seen[vcpus, memory] = seen.get((vcpus, memory), 0) + 1
        free[chosen] = [have - need for have, need in zip(free[chosen], (vcpus, memory, 0))]
