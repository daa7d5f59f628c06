# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""N+1: would the VMs of any one host still fit on the others? One evacuation plan per host, mended where a new VM takes its room."""
from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence, Tuple, cast

from ansible_collections.kvmfleet.core.plugins.module_utils._placement_filters import host_refusal, memory_text, vcpus_text
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_ledger import MEMORY, VCPUS, Ask, Ledger
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import Disk, Request, Vm
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_search import Kind, Search

Reserve = Dict[int, List[int]]   # target -> what one host's evacuation would take there
_Form = Tuple[int, int, Tuple[Disk, ...], str, bool, str, Tuple[str, ...]]
_REPAIR_STEPS = 300


class _Guest:
    """VMs of one shape: where they could go, and what they would take there."""

    def __init__(self, ledger: Ledger, name: str, form: _Form) -> None:
        self.request = Request(name, form[0], form[1], form[2], group=form[3], admin=form[4], arch=form[5], networks=form[6])
        self.ledger = ledger
        self.size = 0.0
        self._asks: Dict[int, Optional[Ask]] = {}

    def ask(self, target: int) -> Optional[Ask]:
        """What it takes on the target; None where it must not go."""
        if target not in self._asks:
            layout, host = self.ledger.layouts[target], self.ledger.hosts[target]
            barred = host_refusal(self.request, host, layout)
            self._asks[target] = None if barred else layout.ask(self.request.vcpus_milli, self.request.memory_mib, self.request.disks)
        return self._asks[target]

    def __str__(self) -> str:
        return "{0} ({1} vcpus, {2})".format(self.request.name, vcpus_text(self.request.vcpus_milli), memory_text(self.request.memory_mib))


class Failover:
    """Evacuation plans of all hosts. The plans are found by heuristics: what they promise holds, but a very tight fleet may be refused."""

    def __init__(self, ledger: Ledger, replaced: Optional[Mapping[str, Request]] = None) -> None:
        self.ledger = ledger
        self.replaced = replaced or {}
        self.broken = ""                                  # which VM would be homeless already, as a sentence
        self._guests: Dict[_Form, _Guest] = {}
        self._on: List[List[_Guest]] = [[] for _host in ledger.hosts]
        self._plans: List[Reserve] = [{} for _host in ledger.hosts]
        self._order: List[int] = []

    def start(self, booked: Mapping[int, Sequence[Request]]) -> None:
        """Plan the evacuation of every host; C(booked) VMs are in the ledger already."""
        total = [max(1, sum(max(0, free[at]) for free in self.ledger.free)) for at in (VCPUS, MEMORY)]
        self._unit = total
        for at, host in enumerate(self.ledger.hosts):
            if host.reachable:
                self._on[at] = [self._of_vm(vm, host.admin_only) for vm in host.vms]
                self._on[at] += [self._of_request(one) for one in booked.get(at, ())]
                self._on[at].sort(key=lambda guest: -guest.size)
        targets = [at for at, host in enumerate(self.ledger.hosts) if host.reachable and host.schedulable]
        free = self.ledger.free
        self._order = sorted(targets, key=lambda at: -min(free[at][VCPUS] / total[0], free[at][MEMORY] / total[1]))
        for at in range(len(self.ledger.hosts)):
            plan = self._evacuate(at, self._on[at])
            if plan is None:
                self.broken = self._sentence(at, self._on[at])
                return
            self._plans[at] = plan

    def admit(self, host: int, ask: Ask, requests: Sequence[Request]) -> Optional[str]:
        """Why a VM must not take that room of the host, or None; then it is part of the plans from now on. The ledger is not changed."""
        if self.broken:
            return self.broken
        guests = [self._of_request(request) for request in requests]
        changed: Dict[int, Reserve] = {}
        self.ledger.take(host, ask)
        try:
            free = self.ledger.free[host]
            for other, plan in enumerate(self._plans):
                used = plan.get(host)
                if used is None or other == host or all(have >= need for have, need in zip(free, used) if need):
                    continue
                again = self._evacuate(other, self._on[other])
                if again is None:
                    return self._sentence(other, self._on[other])
                changed[other] = again
            on_host = sorted(self._on[host] + guests, key=lambda guest: -guest.size)
            own = self._append(host, self._plans[host], guests) or self._evacuate(host, on_host)
            if own is None:
                return self._sentence(host, on_host)
            changed[host] = own
        finally:
            self.ledger.give(host, ask)
        self._on[host] = on_host
        for at, plan in changed.items():
            self._plans[at] = plan
        return None

    def _of_vm(self, vm: Vm, admin: bool) -> _Guest:
        new = self.replaced.get(vm.name)
        if new is not None:
            return self._of_request(new)
        return self._guest(vm.name, (vm.vcpus_milli, vm.memory_mib, vm.disks, vm.group, admin, vm.arch, vm.networks))

    def _of_request(self, request: Request) -> _Guest:
        return self._guest(request.name, (request.vcpus_milli, request.memory_mib, request.disks, request.group, request.admin, request.arch,
                                          request.networks))

    def _guest(self, name: str, form: _Form) -> _Guest:
        guest = self._guests.get(form)
        if guest is None:
            guest = self._guests[form] = _Guest(self.ledger, name, form)
            guest.size = max(form[0] / self._unit[0], form[1] / self._unit[1])
        return guest

    def _append(self, source: int, plan: Reserve, guests: Sequence[_Guest]) -> Optional[Reserve]:
        """The plan with a few more VMs, without moving those in it."""
        return self._fill(source, {at: list(used) for at, used in plan.items()}, guests, self._order)

    def _fill(self, source: int, plan: Reserve, guests: Sequence[_Guest], order: Sequence[int]) -> Optional[Reserve]:
        free_of, position, count = self.ledger.free, 0, len(order)
        for guest in guests:
            for step in range(count):
                target = order[(position + step) % count]
                if target == source:
                    continue
                ask = guest.ask(target)
                if ask is None:
                    continue
                free, used = free_of[target], plan.get(target)
                if used is None:
                    if all(free[at] >= amount for at, amount in ask):
                        used = plan[target] = [0] * len(free)
                    else:
                        continue
                elif not all(free[at] - used[at] >= amount for at, amount in ask):
                    continue
                for at, amount in ask:
                    used[at] += amount
                position += step
                break
            else:
                return None
        return plan

    def _evacuate(self, source: int, guests: Sequence[_Guest]) -> Optional[Reserve]:
        """Where everything of a host would go; quickly with the emptiest hosts first, and if that fails with a search."""
        if not guests:
            return {}
        return self._fill(source, {}, guests, self._order) or self._search(source, guests)

    def _search(self, source: int, guests: Sequence[_Guest]) -> Optional[Reserve]:
        kinds: List[Kind] = []
        index: Dict[int, int] = {}
        unit_kind = []
        for unit, guest in enumerate(guests):
            if id(guest) not in index:
                index[id(guest)] = len(kinds)
                asks = [guest.ask(at) if at != source and host.schedulable else None for at, host in enumerate(self.ledger.hosts)]
                kinds.append(Kind((guest.request,), asks))
            kinds[index[id(guest)]].units.append(unit)
            unit_kind.append(index[id(guest)])

        def tightest(host: int, ask: Ask) -> Tuple[int, int]:
            left = [self.ledger.free[host][at] - amount for at, amount in ask if at in (VCPUS, MEMORY)]
            return min(left, default=0), sum(left)
        search = Search(self.ledger, kinds, unit_kind, tightest, [0] * len(self.ledger.hosts))
        plan: Optional[Reserve] = None
        if not search.repair(search.greedy(range(len(guests))), _REPAIR_STEPS):
            plan = {}
            for unit, target in enumerate(cast(List[int], search.place_of)):
                used = plan.setdefault(target, [0] * len(self.ledger.free[target]))
                for at, amount in kinds[unit_kind[unit]].asks[target] or ():
                    used[at] += amount
        search.clear()
        return plan

    def _sentence(self, source: int, guests: Sequence[_Guest]) -> str:
        return "if {0} failed, its {1} VMs would not all fit elsewhere (the largest is {2})".format(
            self.ledger.hosts[source].name, len(guests), guests[0])


def put_reserved(search: Search, failover: Failover, unit: int, requests: Sequence[Request]) -> Dict[int, str]:
    """Put a unit on the best host that leaves the reserve whole, if there is one. Returns the hosts that did not, each with a sentence."""
    kind = search.unit_kind[unit]
    refused: Dict[int, str] = {}
    while True:
        best, second = search.best(kind)
        if best is None:
            return refused
        why = failover.admit(best[1], search.kinds[kind].asks[best[1]] or (), requests)
        if why is None:
            search.choose(unit, best, second)
            return refused
        # room only shrinks while VMs are placed, so it need not be asked again for this kind
        refused[best[1]] = why
        search.barred.add((kind, best[1]))
