# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement, pure: requests + capacities -> which host for which VM, and for each host that was refused, why (docs/placement.md)."""
from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, cast

from ansible_collections.kvmfleet.core.plugins.module_utils._placement_explain import no_host
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_failover import Failover, put_reserved
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_filters import (
    capacity_refusal, host_refusal, quota_refusal, request_refusal, unknown_place,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_ledger import MEMORY, VCPUS, Ledger, growth, tie_break
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import (
    STRATEGIES, Access, Amount, Decision, Disk, Flavor, Group, HostCapacity, Plan, Pool, Refusal, Request, Selector, Vm,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_patterns import repack
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_rules import Neighbours, make_kinds, members, together
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_score import (
    Holes, Scorer, flavor_mix, least_memory_used, most_free_cpu, spread, weights as weighted,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_search import Kind, Search
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

__all__ = ["Access", "Amount", "Decision", "Disk", "Flavor", "Group", "HostCapacity", "Plan", "Pool", "Refusal", "Request", "Room",
           "Selector", "Vm", "how_many", "place"]

REPAIR_STEPS = 3000     # ejections tried before giving up; a bound on work, not on time, so that every machine finds the same
EXHAUST_STEPS = 20000   # assignments tried where everything is tried


def place(requests: Sequence[Request], hosts: Sequence[HostCapacity], strategy: str = "spread", groups: Sequence[Group] = (),
          flavors: Sequence[Flavor] = (), weights: Optional[Mapping[str, float]] = None, spread_by: str = "", reserve_failures: int = 0,
          stopped_factor: Any = 1) -> Plan:
    """Where the VMs go: all of them, or none and the reasons.

    The same input gives the same plan, in whatever order the hosts are listed. Raises SpecError for a setting that makes no sense.
    """
    return _Placement(requests, hosts, strategy, groups, flavors, weights, spread_by, reserve_failures, stopped_factor).run()


def _check_settings(strategy: str, weights: Optional[Mapping[str, float]], spread_by: str, reserve_failures: int) -> None:
    if strategy not in STRATEGIES:
        raise SpecError("vm_strategy", strategy, "is not a strategy", "Use one of " + ", ".join(STRATEGIES))
    if strategy == "weights":
        unknown = sorted(set(weights or {}) - {"vcpus", "memory", "disk", "vms"})
        if not weights or unknown:
            raise SpecError("vm_weights", weights, "has to name resources" if not unknown else "unknown resource " + unknown[0],
                            "Give numbers for vcpus, memory, disk or vms; positive ones spread, negative ones pack")
    if spread_by and spread_by not in ("host", "zone", "region") and not (spread_by.startswith("label:") and spread_by[6:]):
        raise SpecError("vm_spread", spread_by, "is not something to spread over", "Use host, zone, region or label:KEY")
    if reserve_failures not in (0, 1):
        raise SpecError("reserve_failures", reserve_failures, "is out of range", "Use 0, or 1 to survive the loss of any one host")


def _permille(stopped_factor: Any) -> int:
    try:
        factor = Fraction(str(stopped_factor))
    except (ValueError, ZeroDivisionError):
        raise SpecError("stopped_factor", stopped_factor, "is not a number", "Write a number from 0 to 1") from None
    if not 0 <= factor <= 1:
        raise SpecError("stopped_factor", stopped_factor, "is out of range", "Write a number from 0 to 1")
    return int(-(-factor * 1000 // 1))


def _by_name(hosts: Sequence[HostCapacity]) -> List[HostCapacity]:
    ordered = sorted(hosts, key=lambda host: host.name)
    for one, other in zip(ordered, ordered[1:]):
        if one.name == other.name:
            raise SpecError("hosts", one.name, "is listed twice", "Name each host once", "duplicate_host")
    return ordered


class _Placement:
    """One call of place()."""

    def __init__(self, requests: Sequence[Request], hosts: Sequence[HostCapacity], strategy: str, groups: Sequence[Group],
                 flavors: Sequence[Flavor], weights: Optional[Mapping[str, float]], spread_by: str, reserve_failures: int,
                 stopped_factor: Any) -> None:
        _check_settings(strategy, weights, spread_by, reserve_failures)
        self.strategy, self.flavors, self.weights = strategy, flavors, weights
        self.spread_by, self.reserve_failures = spread_by, reserve_failures
        self.groups = {group.name: group for group in groups}
        self.hosts = _by_name(hosts)
        self.requests = [self._effective(request) for request in requests]
        self.ledger = Ledger(self.hosts, _permille(stopped_factor), {request.name for request in requests})
        self.plan = Plan([Decision(request.name) for request in requests], strategy)
        self.units: List[Tuple[int, ...]] = []
        self.sticky: Dict[int, Tuple[int, Vm]] = {}

    def _effective(self, request: Request) -> Request:
        group = self.groups.get(request.group)
        return replace(request, networks=(group.network,)) if group and group.network and not request.networks else request

    def run(self) -> Plan:
        """Checks of the requests, those that stay, then the search."""
        if self._refuse_requests() or self._keep_sticky() or self._refuse_quota():
            return self._failed()
        wanted = [i for i in range(len(self.requests)) if i not in self.sticky]
        if not wanted:
            return self._failed() if self._growth_breaks_reserve() else self.plan
        neighbours = Neighbours(self.ledger, self.requests)
        self.units, contradiction = together(neighbours, wanted)
        if contradiction:
            self._refuse(*contradiction)
            return self._failed()
        kinds, unit_kind, self.static = make_kinds(self.ledger, neighbours, self.units)
        self.start = [list(free) for free in self.ledger.free]
        search = self._search(kinds, unit_kind)
        if self._assign(search):
            self._report(search)
            return self.plan
        self._explain(search)
        return self._failed()

    # -- before any host is looked at ------------------------------------------------------------------------------------------------

    def _refuse(self, i: int, refusal: Refusal) -> None:
        self.plan.decisions[i].code, self.plan.decisions[i].message = refusal.code, refusal.sentence

    def _refuse_requests(self) -> bool:
        seen: Dict[str, int] = {}
        for i, request in enumerate(self.requests):
            if request.name in seen:
                self._refuse(i, Refusal("duplicate_name", "{0} is asked for twice".format(request.name)))
                continue
            seen[request.name] = i
            refusal = request_refusal(request, self.groups) or unknown_place(request, self.hosts)
            if refusal:
                self._refuse(i, refusal)
        return any(decision.code for decision in self.plan.decisions)

    def _keep_sticky(self) -> bool:
        """A VM that exists stays; what it grows by is checked as a request on its own host."""
        asked = {request.name: i for i, request in enumerate(self.requests)}
        for at, vm in self.ledger.present:
            i, host = asked[vm.name], self.hosts[at]
            decision, request = self.plan.decisions[i], self.requests[i]
            if i in self.sticky:
                self._refuse(i, Refusal("exists_twice", "{0} exists on {1} and on {2}; delete one of them".format(
                    vm.name, self.hosts[self.sticky[i][0]].name, host.name)))
                continue
            self.sticky[i] = (at, vm)
            decision.host, decision.sticky = host.name, True
            if request.host and request.host != host.name:
                self._refuse(i, Refusal("exists_elsewhere", "{0} is on {1}, not on {2}; placement does not move VMs".format(
                    vm.name, host.name, request.host)))
                continue
            self._grow(i, at, vm)
        return any(decision.code for decision in self.plan.decisions)

    def _grow(self, i: int, at: int, vm: Vm) -> None:
        request, layout = self.requests[i], self.ledger.layouts[at]
        old = self.ledger.vm_ask(at, vm)
        new = layout.ask(request.vcpus_milli, request.memory_mib, request.disks)
        if new is None:
            refusal = host_refusal(replace(request, host=""), self.hosts[at], layout)
            self._refuse(i, refusal or Refusal("pool_missing", "{0} has no pool for a disk of {1}".format(self.hosts[at].name, vm.name)))
            return
        more = growth(old or (), new)
        refusal = capacity_refusal(self.hosts[at].name, layout, self.ledger.free[at], more)
        if refusal:
            self._refuse(i, Refusal(refusal.code, "{0} cannot grow on its host: {1}".format(vm.name, refusal.sentence)))
            self.plan.decisions[i].refusals[self.hosts[at].name] = refusal
            return
        self.ledger.take(at, more)

    def _grown(self) -> Dict[str, Request]:
        return {vm.name: self.requests[i] for i, (_at, vm) in self.sticky.items()}

    def _growth_breaks_reserve(self) -> bool:
        if not self.reserve_failures:
            return False
        failover = Failover(self.ledger, self._grown())
        failover.start({})
        for i in self.sticky if failover.broken else ():
            self._refuse(i, Refusal("failover", failover.broken))
        return bool(failover.broken)

    def _refuse_quota(self) -> bool:
        for group in self.groups.values():
            mine = [i for i, request in enumerate(self.requests) if request.group == group.name]
            if not mine:
                continue
            replaced = [self.sticky[i][1] for i in mine if i in self.sticky and self.sticky[i][1].group == group.name]
            refusal = quota_refusal(group, [self.requests[i] for i in mine], replaced, self.hosts)
            if refusal:
                for i in mine:
                    self._refuse(i, refusal)
        return any(decision.code for decision in self.plan.decisions)

    # -- the search ------------------------------------------------------------------------------------------------------------------

    def _search(self, kinds: List[Kind], unit_kind: List[int]) -> Search:
        holes: Optional[Holes] = None
        scorer: Scorer
        if self.strategy == "pack":
            holes = Holes(self.ledger, flavor_mix(self.flavors, self.hosts, self.requests))
            scorer = holes.score
        elif self.strategy == "least_memory_used":
            scorer = least_memory_used(self.ledger)
        elif self.strategy == "most_free_cpu":
            scorer = most_free_cpu(self.ledger)
        elif self.strategy == "weights":
            scorer = weighted(self.ledger, self.weights or {})
        else:
            scorer = spread(self.ledger)
        first = self.requests[self.units[0][0]].name
        counters = {key: members(self.ledger, key) for kind in kinds for key, _count, _limit in kind.counters}
        domains, spread_counts = self._domains(kinds)
        rotate = sum(len(host.vms) for host in self.hosts) % len(self.hosts) if self.strategy == "round_robin" and self.hosts else None
        return Search(self.ledger, kinds, unit_kind, scorer, [tie_break(first, host.name) for host in self.hosts], domains, counters,
                      spread_counts, holes, rotate)

    def _domains(self, kinds: Sequence[Kind]) -> Tuple[Optional[List[int]], Dict[Tuple[str, ...], Dict[int, int]]]:
        if not self.spread_by:
            return None, {}
        names = [self._domain_name(host) for host in self.hosts]
        number = {name: i for i, name in enumerate(sorted(set(names)))}
        domains = [number[name] for name in names]
        counts: Dict[Tuple[str, ...], Dict[int, int]] = {}
        for kind in kinds:
            if kind.spread_key not in counts:
                there = members(self.ledger, kind.spread_key) if len(kind.spread_key) > 1 else {}
                counts[kind.spread_key] = {}
                for at, count in there.items():
                    counts[kind.spread_key][domains[at]] = counts[kind.spread_key].get(domains[at], 0) + count
        return domains, counts

    def _domain_name(self, host: HostCapacity) -> Tuple[str, ...]:
        if self.spread_by.startswith("label:"):
            return (host.labels.get(self.spread_by[6:], ""),)
        if self.spread_by == "zone":
            return (host.region, host.zone)   # two regions may each have a zone a
        return (host.name if self.spread_by == "host" else host.region,)

    def _assign(self, search: Search) -> bool:
        """Put every unit somewhere, or leave everything as it was."""
        for kind, this in enumerate(search.kinds):
            if not any(search.feasible(kind, host) for host in this.hosts):
                self.unplaced = list(this.units)
                return False
        order = list(range(len(self.units)))
        if len(search.kinds) > 1 and self.strategy != "round_robin":
            sizes = [search.size(kind.units[0]) for kind in search.kinds]
            order.sort(key=lambda unit: -sizes[search.unit_kind[unit]])
        failover = Failover(self.ledger, self._grown()) if self.reserve_failures else None
        if failover and len(order) == 1:
            return self._assign_one(search, failover)
        failed = search.greedy(order)
        search.holes = None
        if self.strategy == "pack" and len(order) > 1:
            failed = repack(search, failed)
        if failed:
            failed = self._mend(search, failed)
        if failed:
            self.unplaced = list(failed)
            search.clear()
            return False
        if failover is None:
            return True
        failover.start(self._booked(search))
        if not failover.broken:
            return True
        # as a whole it leaves too little; taking the reserve into account with each VM may still find a way
        search.clear()
        failover = Failover(self.ledger, self._grown())
        failover.start({})
        for unit in order:
            if not self._put_reserved(search, failover, unit):
                self.unplaced = [unit]
                search.clear()
                return False
        return True

    def _mend(self, search: Search, failed: List[int]) -> List[int]:
        failed = search.repair(failed, REPAIR_STEPS)
        if not failed:
            return []
        kept = list(search.place_of)
        if self._too_much(search):
            return failed
        if search.exhaust(EXHAUST_STEPS):
            return []
        for unit, host in enumerate(kept):
            if host is not None:
                search.put(unit, host)
        return failed

    @staticmethod
    def _too_much(search: Search) -> bool:
        """Whether the sum over all hosts is short already, so that no search can help."""
        search_hosts = {host for kind in search.kinds for host in kind.hosts}
        for at in (VCPUS, MEMORY):
            asked = 0
            for unit, host in enumerate(search.place_of):
                if host is None:
                    asked += min(dict(ask).get(at, 0) for ask in search.kinds[search.unit_kind[unit]].asks if ask is not None)
            if asked > sum(max(0, search.ledger.free[host][at]) for host in search_hosts):
                return True
        return False

    def _booked(self, search: Search) -> Dict[int, List[Request]]:
        booked: Dict[int, List[Request]] = {}
        for unit, host in enumerate(search.place_of):
            if host is not None:
                booked.setdefault(host, []).extend(self.requests[i] for i in self.units[unit])
        return booked

    def _assign_one(self, search: Search, failover: Failover) -> bool:
        failover.start({})
        if self._put_reserved(search, failover, 0):
            return True
        self.unplaced = [0]
        return False

    def _put_reserved(self, search: Search, failover: Failover, unit: int) -> bool:
        kind = search.unit_kind[unit]
        refused = put_reserved(search, failover, unit, [self.requests[i] for i in self.units[unit]])
        for host, why in refused.items():
            self.static[kind].setdefault(self.hosts[host].name, Refusal("failover", why))
        return search.place_of[unit] is not None

    # -- what is said about it -------------------------------------------------------------------------------------------------------

    def _refusals(self, kinds: Sequence[Kind]) -> List[Dict[str, Refusal]]:
        """By kind: why not which host, with the room as it was before the batch."""
        found = []
        for kind, refusals in zip(kinds, self.static):
            all_of = dict(refusals)
            for at, ask in enumerate(kind.asks):
                if ask is None or self.hosts[at].name in all_of:
                    continue
                refusal = capacity_refusal(self.hosts[at].name, self.ledger.layouts[at], self.start[at], ask)
                if refusal is None and kind.counters:
                    refusal = self._limit_refusal(kind, at)
                if refusal:
                    all_of[self.hosts[at].name] = refusal
            pinned = kind.requests[0].host
            found.append({pinned: all_of[pinned]} if pinned and pinned in all_of else {} if pinned else all_of)
        return found

    def _limit_refusal(self, kind: Kind, at: int) -> Optional[Refusal]:
        for key, count, limit in kind.counters:
            there = members(self.ledger, key).get(at, 0)
            if there + count > limit:
                whose = "set " + key[2] if key[2] else "group {0} without a set".format(key[0]) if key[0] else "no group and no set"
                return Refusal("max_per_host", "{0} has {1} VMs of {2}; {3} more are beyond {4} per host".format(
                    self.hosts[at].name, there, whose, count, limit))
        return None

    def _report(self, search: Search) -> None:
        refusals = self._refusals(search.kinds)
        rankings: Dict[int, List[int]] = {}
        for unit, members_ in enumerate(self.units):
            host, kind = cast(int, search.place_of[unit]), search.unit_kind[unit]
            scored = search.scores.get(unit)
            if scored is None:
                # the unit was moved after it had been scored: what the place is worth now, and where it could go otherwise
                if kind not in rankings:
                    rankings[kind] = [entry[1] for entry in search.ranking(kind)[:2]]
                others = [other for other in rankings[kind] if other != host]
                scored = (search.key(kind, host)[2], others[0] if others else -1, search.key(kind, others[0])[2] if others else None)
            for i in members_:
                decision = self.plan.decisions[i]
                decision.host = self.hosts[host].name
                decision.score, decision.runner_up_score = scored[0], scored[2]
                decision.runner_up = self.hosts[scored[1]].name if scored[1] >= 0 else ""
                decision.refusals = refusals[kind]

    def _explain(self, search: Search) -> None:
        refusals = self._refusals(search.kinds)
        told: Dict[int, Refusal] = {}
        for unit in self.unplaced:
            kind = search.unit_kind[unit]
            if kind not in told:
                names = [self.requests[i].name for other in search.kinds[kind].units for i in self.units[other]]
                told[kind] = no_host(search.kinds[kind], names, self.ledger, self.start, refusals[kind])
                for i in (i for other in search.kinds[kind].units for i in self.units[other]):
                    self._refuse(i, told[kind])
        for unit, kind in enumerate(search.unit_kind):
            for i in self.units[unit]:
                self.plan.decisions[i].refusals = refusals[kind]

    def _failed(self) -> Plan:
        """Nothing is placed: say why, and what would be needed."""
        refused = [decision for decision in self.plan.decisions if decision.code]
        if refused:
            self.plan.code = refused[0].code
            sentences: List[str] = []
            for decision in refused:
                if decision.message not in sentences:
                    sentences.append(decision.message)
            self.plan.message = "; ".join(sentences[:5]) + ("; and {0} more".format(len(sentences) - 5) if len(sentences) > 5 else "") + "."
        for decision in self.plan.decisions:
            if not decision.code and not decision.sticky:
                decision.host, decision.score, decision.runner_up, decision.runner_up_score = "", None, "", None
                decision.code, decision.message = "batch_refused", "the batch is placed as a whole or not at all"
        return self.plan


class Room:
    """How many more VMs of one size fit: altogether, by zone (region and name) and by host, and why none on the others."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.total = 0
        self.zones: Dict[Tuple[str, str], int] = {}
        self.hosts: Dict[str, int] = {}
        self.refusals: Dict[str, Refusal] = {}


def how_many(sizes: Sequence[Request], hosts: Sequence[HostCapacity], reserve_failures: int = 0, stopped_factor: Any = 1) -> List[Room]:
    """How many more VMs of each size would fit if only that size were asked for from now on; every rule of place() but quotas holds.

    With C(reserve_failures) 1 it is how many place() would place one after another, by C(spread), with a host in reserve.
    """
    _check_settings("spread", None, "", reserve_failures)
    ordered = _by_name(hosts)
    ledger = Ledger(ordered, _permille(stopped_factor))
    neighbours = Neighbours(ledger, sizes)
    rooms = []
    for number, size in enumerate(sizes):
        kinds, _unit_kind, refusals = make_kinds(ledger, neighbours, [(number,)])
        room, kind = Room(size.name), kinds[0]
        room.refusals = dict(refusals[0])
        for at, host in enumerate(ordered):
            ask = kind.asks[at]
            count = 0 if ask is None else max(0, min(ledger.free[at][dimension] // amount for dimension, amount in ask if amount))
            if ask is not None and count:
                count = count if ledger.fits(at, ask) else 0
                for key, _one, limit in kind.counters:
                    count = min(count, max(0, limit - members(ledger, key).get(at, 0)))
                if any(selector.matches(size.name, dict(size.labels)) for selector in size.anti_affinity):
                    count = min(count, 1)
            room.hosts[host.name] = count
            room.zones[host.region, host.zone] = room.zones.get((host.region, host.zone), 0) + count
            room.total += count
        if reserve_failures and room.total:
            _with_reserve(room, kind, ledger)
        rooms.append(room)
    return rooms


def _with_reserve(room: Room, kind: Kind, ledger: Ledger) -> None:
    """Cut the room down to what still leaves every single host's VMs a place elsewhere."""
    kind.units = list(range(room.total))
    search = Search(ledger, [kind], [0] * room.total, spread(ledger), [tie_break(room.name, host.name) for host in ledger.hosts])
    failover = Failover(ledger)
    failover.start({})
    room.hosts = {host.name: 0 for host in ledger.hosts}
    room.zones = {(host.region, host.zone): 0 for host in ledger.hosts}
    for unit in kind.units:
        refused = put_reserved(search, failover, unit, kind.requests)
        host = search.place_of[unit]
        for at, why in refused.items():
            if not room.hosts[ledger.hosts[at].name]:
                room.refusals[ledger.hosts[at].name] = Refusal("failover", why)
        if host is None:
            break
        room.hosts[ledger.hosts[host].name] += 1
        room.zones[ledger.hosts[host].region, ledger.hosts[host].zone] += 1
    room.total = sum(room.hosts.values())
    search.clear()
