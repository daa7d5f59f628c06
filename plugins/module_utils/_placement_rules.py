# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Affinity, anti-affinity and limits per host: which VMs have to share a host, and which must not."""
from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Dict, List, Mapping, Optional, Sequence, Set, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._placement_filters import host_refusal
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_ledger import Ask, Ledger, add
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import Refusal, Request, Selector
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_search import Kind
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import told_name

Unit = Tuple[int, ...]   # VMs of the batch, by number, that go to one host


def counter_key(request: Request) -> Tuple[str, ...]:
    """Whose VMs C(max_per_host) and C(spread_by) count: those of the same set, or else those of the same group that are in no set."""
    return request.group, request.namespace, request.set


def members(ledger: Ledger, key: Tuple[str, ...]) -> Dict[int, int]:
    """How many VMs of that set or group are on each host."""
    counts: Dict[int, int] = {}
    for at, host in enumerate(ledger.hosts):
        count = sum(1 for vm in host.vms if (vm.group, vm.namespace, vm.set) == key)
        if count:
            counts[at] = count
    return counts


class Neighbours:
    """Answers, with a memory, which hosts have VMs that a selector means."""

    def __init__(self, ledger: Ledger, requests: Sequence[Request]) -> None:
        self.ledger = ledger
        self.requests = requests
        self.labels = [dict(request.labels) for request in requests]
        self._counts: Dict[Selector, Dict[int, int]] = {}
        self.shy = ledger.shy

    def on_hosts(self, selector: Selector) -> Dict[int, int]:
        """Host -> how many VMs that exist there match."""
        if selector not in self._counts:
            counts: Dict[int, int] = {}
            for at, host in enumerate(self.ledger.hosts):
                matches = sum(1 for vm in host.vms if selector.matches(vm.name, vm.labels))
                if matches:
                    counts[at] = matches
            self._counts[selector] = counts
        return self._counts[selector]

    def in_batch(self, selector: Selector) -> List[int]:
        """Which VMs of the batch match."""
        return [i for i, request in enumerate(self.requests) if selector.matches(request.name, self.labels[i])]

    def refusal(self, request: Request, labels: Mapping[str, str], host: int) -> Optional[Refusal]:
        """Why VMs that exist keep this one off the host."""
        name = self.ledger.hosts[host].name
        for selector in request.anti_affinity:
            if self.on_hosts(selector).get(host):
                return Refusal("anti_affinity", "{0} has {1}, which {2} must not share a host with".format(name, selector, request.name))
        for at, vm in self.shy:
            if at == host and any(selector.matches(request.name, labels) for selector in vm.anti_affinity):
                return Refusal("anti_affinity", "{0} has VM {1}, which must not share a host with {2}".format(
                    name, told_name(vm.name, vm.group, request.group), request.name))
        for selector in request.affinity:
            there = self.on_hosts(selector)
            if there and host not in there:
                return Refusal("affinity", "{0} has none of {1}, which {2} has to share a host with".format(name, selector, request.name))
        return None

    def soft(self, request: Request, host: int) -> int:
        """How many soft rules VMs that exist on the host break."""
        broken = sum(self.on_hosts(selector).get(host, 0) for selector in request.soft_anti_affinity)
        return broken + sum(1 for selector in request.soft_affinity if not self.on_hosts(selector).get(host))


def together(neighbours: Neighbours, wanted: Sequence[int]) -> Tuple[List[Unit], Optional[Tuple[int, Refusal]]]:
    """Units of the batch: VMs that hard affinity binds to one host are one unit. The second item is a rule that nothing can meet.

    Where VMs that exist match a selector, the new VM joins them (a filter). Where only others of the batch match, it is bound to the first of
    them. Where none but itself matches, it is free: the first of a kind has to be somewhere.
    """
    root = {i: i for i in wanted}

    def find(i: int) -> int:
        while root[i] != i:
            i = root[i]
        return i
    for i in wanted:
        request = neighbours.requests[i]
        for selector in request.affinity:
            if neighbours.on_hosts(selector):
                continue
            others = [j for j in neighbours.in_batch(selector) if j != i and j in root]
            if others:
                low, high = sorted((find(i), find(others[0])))
                root[high] = low
            elif not selector.matches(request.name, neighbours.labels[i]):
                return [], (i, Refusal("affinity", "{0} has to share a host with {1}, which is nowhere".format(request.name, selector)))
    units: Dict[int, List[int]] = {}
    for i in wanted:
        units.setdefault(find(i), []).append(i)
    for unit in units.values():
        for i in unit if len(unit) > 1 else ():
            for selector in neighbours.requests[i].anti_affinity:
                clash = [j for j in neighbours.in_batch(selector) if j in unit and j != i]
                if clash:
                    sentence = "{0} must not share a host with {1}, and affinity binds both to one"
                    return [], (i, Refusal("contradictory_affinity", sentence.format(
                        neighbours.requests[i].name, neighbours.requests[clash[0]].name)))
    return [tuple(unit) for unit in units.values()], None


def make_kinds(ledger: Ledger, neighbours: Neighbours,
               units: Sequence[Unit]) -> Tuple[List[Kind], List[int], List[Dict[str, Refusal]]]:
    """Kinds of units, the kind of each unit, and for each kind the hosts that something else than room keeps it off."""
    requests = neighbours.requests
    selectors = {selector for request in requests
                 for selector in request.affinity + request.anti_affinity + request.soft_affinity + request.soft_anti_affinity}
    named = {selector.vm for selector in selectors if selector.vm}
    named |= {selector.vm for _at, vm in neighbours.shy for selector in vm.anti_affinity if selector.vm}
    index: Dict[Tuple[Request, ...], int] = {}
    kinds: List[Kind] = []
    refusals: List[Dict[str, Refusal]] = []
    unit_kind: List[int] = []
    for number, unit in enumerate(units):
        signature = tuple(requests[i] if requests[i].name in named else replace(requests[i], name="") for i in unit)
        kind = index.get(signature)
        if kind is None:
            kind = index[signature] = len(kinds)
            made, refused = _make_kind(ledger, neighbours, unit)
            kinds.append(made)
            refusals.append(refused)
        kinds[kind].units.append(number)
        unit_kind.append(kind)
    if selectors:
        _relate(kinds)
    _limit(kinds)
    return kinds, unit_kind, refusals


def _make_kind(ledger: Ledger, neighbours: Neighbours, unit: Unit) -> Tuple[Kind, Dict[str, Refusal]]:
    wanted = [neighbours.requests[i] for i in unit]
    asks: List[Optional[Ask]] = []
    soft: Dict[int, int] = {}
    refused: Dict[str, Refusal] = {}
    ruled = bool(neighbours.shy) or any(request.affinity or request.anti_affinity for request in wanted)
    softly = any(request.soft_affinity or request.soft_anti_affinity for request in wanted)
    for at, host in enumerate(ledger.hosts):
        layout = ledger.layouts[at]
        total: Ask = ()
        refusal: Optional[Refusal] = None
        for i, request in zip(unit, wanted):
            refusal = host_refusal(request, host, layout)
            if refusal is None and ruled:
                refusal = neighbours.refusal(request, neighbours.labels[i], at)
            if refusal:
                break
            ask = layout.ask(request.vcpus_milli, request.memory_mib, request.disks) or ()
            total = add(total, ask) if total else ask
        if refusal:
            refused[host.name] = refusal
            asks.append(None)
            continue
        asks.append(total)
        if softly:
            soft[at] = sum(neighbours.soft(request, at) for request in wanted)
    return Kind(tuple(wanted), asks, soft=soft, spread_key=counter_key(wanted[0]) if wanted[0].set else ("batch",)), refused


def _limit(kinds: Sequence[Kind]) -> None:
    """A limit per host binds all VMs of the batch that it counts, whichever of them asks for it; the lowest one holds."""
    limits: Dict[Tuple[str, ...], int] = {}
    for kind in kinds:
        for request in kind.requests:
            if request.max_per_host:
                key = counter_key(request)
                limits[key] = min(request.max_per_host, limits.get(key, request.max_per_host))
    for kind in kinds if limits else ():
        counted = Counter(counter_key(request) for request in kind.requests)
        kind.counters = tuple((key, count, limits[key]) for key, count in sorted(counted.items()) if key in limits)


def _meet(selectors: Sequence[Selector], kind: Kind) -> bool:
    return any(selector.matches(request.name, dict(request.labels)) for selector in selectors for request in kind.requests)


def _relate(kinds: Sequence[Kind]) -> None:
    """Rules among the VMs of the batch itself, as relations of kinds; hard ones work both ways."""
    conflicts: List[Set[int]] = [set() for _kind in kinds]
    for i, this in enumerate(kinds):
        hard = [selector for request in this.requests for selector in request.anti_affinity]
        soft = [selector for request in this.requests for selector in request.soft_anti_affinity]
        friends = [selector for request in this.requests for selector in request.soft_affinity]
        for j, other in enumerate(kinds):
            # a VM's rule about itself says nothing; about others of its kind it does, so names were kept apart above
            if hard and _meet(hard, other) and (i != j or len(this.units) > 1):
                conflicts[i].add(j)
                conflicts[j].add(i)
        if soft:
            this.soft_conflicts = frozenset(j for j, other in enumerate(kinds) if _meet(soft, other))
        if friends:
            this.soft_friends = frozenset(j for j, other in enumerate(kinds) if _meet(friends, other))
    for this, found in zip(kinds, conflicts):
        this.conflicts = frozenset(found)
