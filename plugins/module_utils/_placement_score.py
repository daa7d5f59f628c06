# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The strategies: which of the hosts that could take a VM should. A score is an integer and lower is better."""
from __future__ import annotations

from math import sqrt
from typing import Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._placement_ledger import MEMORY, POOLS, VCPUS, VMS, Ask, Layout, Ledger
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import UNLIMITED, Disk, Flavor, HostCapacity, Request

SCALE = 10 ** 6
PRECISION = 10 ** 9                          # of scores that are not whole by nature
MOST_FLAVORS = 16
Score = Tuple[int, int]                       # the score itself, and what decides between equal ones
Scorer = Callable[[int, Ask], Score]
_Sizes = Tuple[int, int, int, List[Tuple[int, int]]]


def _shares(ledger: Ledger, host: int, ask: Ask) -> List[int]:
    """How much of each resource that the VM needs would be in use after placement, in millionths."""
    free, capacity = ledger.free[host], ledger.capacity[host]
    shares = []
    for at, amount in ask:
        whole = capacity[at]
        if (at < POOLS or (at - POOLS) % 2 == 0) and 0 < whole < UNLIMITED:
            shares.append((whole - free[at] + amount) * SCALE // whole)
    return shares


def spread(ledger: Ledger) -> Scorer:
    """The resource that is tightest after placement decides."""
    def score(host: int, ask: Ask) -> Score:
        shares = _shares(ledger, host, ask)
        return (max(shares), sum(shares)) if shares else (0, 0)
    return score


def least_memory_used(ledger: Ledger) -> Scorer:
    """The lowest share of memory in use after placement (a share, so that hosts of unequal size are used equally)."""
    def score(host: int, ask: Ask) -> Score:
        free, whole = ledger.free[host][MEMORY], max(1, ledger.capacity[host][MEMORY])
        return (whole - free + dict(ask).get(MEMORY, 0)) * SCALE // whole, -free
    return score


def most_free_cpu(ledger: Ledger) -> Scorer:
    """The most vcpus left after placement."""
    def score(host: int, ask: Ask) -> Score:
        return dict(ask).get(VCPUS, 0) - ledger.free[host][VCPUS], -ledger.free[host][MEMORY]
    return score


def weights(ledger: Ledger, given: Mapping[str, float]) -> Scorer:
    """Own weights for the shares in use after placement: positive ones spread, negative ones pack."""
    names = {VCPUS: "vcpus", MEMORY: "memory", VMS: "vms"}

    def score(host: int, ask: Ask) -> Score:
        free, capacity = ledger.free[host], ledger.capacity[host]
        total = 0.0
        for at, amount in ask:
            weight = given.get(names.get(at, "disk"), 0.0)
            if weight and (at < POOLS or (at - POOLS) % 2 == 0) and 0 < capacity[at] < UNLIMITED:
                total += weight * ((capacity[at] - free[at] + amount) * SCALE // capacity[at])
        return int(total), 0
    return score


def flavor_mix(catalog: Iterable[Flavor], hosts: Sequence[HostCapacity], requests: Iterable[Request]) -> List[Flavor]:
    """The sizes that are in use and on offer, with how often: what C(pack) keeps holes for. Catalog weights count as VMs seen."""
    seen: Dict[Tuple[int, int, int, str], float] = {}
    for flavor in catalog:
        key = (flavor.vcpus_milli, flavor.memory_mib, flavor.disk_bytes, flavor.storage_class)
        seen[key] = seen.get(key, 0.0) + flavor.weight
    for vms in [host.vms for host in hosts] + [tuple(requests)]:
        for vm in vms:
            disk = sum(disk.bytes for disk in vm.disks) if vm.disks else 0
            key = (vm.vcpus_milli, vm.memory_mib, disk, vm.disks[0].storage_class if disk else "")
            seen[key] = seen.get(key, 0.0) + 1.0
    # where there are more sizes than can be looked at, those that make up most of the fleet
    most = sorted(seen.items(), key=lambda pair: (-pair[1] * (pair[0][0] / 1000 + pair[0][1] / 1024), pair[0]))[:MOST_FLAVORS]
    return [Flavor("", key[0], key[1], key[2], key[3], weight) for key, weight in sorted(most) if key[0] or key[1]]


class Holes:
    """What placing a VM would spoil: the loss of room for the flavors in use, each at its price.

    How many VMs of flavor j still fit on host h is n(h, j) = min over resources of free // asked; N(j) is the sum over hosts. A flavor's
    price grows with its size (squared: a large hole is hard to get back), with how often it is asked for, and as its holes become rare:
    size(j)^2 x sqrt(frequency(j) / (N(j) + 10)), scaled so that all holes together are worth 1 per host. The score of a host is the price
    of the holes lost there, plus BALANCE times how much further its free vcpus and memory get out of step, plus OPENING if it is empty.
    Constants come from replays of traces (docs/placement.md); results are flat around them.
    """

    BALANCE = 2.0
    OPENING = 0.1
    RARE = 10

    def __init__(self, ledger: Ledger, flavors: Sequence[Flavor]) -> None:
        self.ledger = ledger
        self.flavors = list(flavors)
        count = max(1, len(ledger.hosts))
        self.unit = [max(1.0, sum(capacity[at] for capacity in ledger.capacity) / count) for at in (VCPUS, MEMORY)]
        self._memo: Dict[Tuple[int, ...], List[int]] = {}
        self._versions = [0] * len(ledger.hosts)
        self._parts: Dict[Ask, List[Optional[Tuple[int, List[Tuple[int, int]], float]]]] = {}
        self._tables: Dict[Layout, List[Optional[_Sizes]]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take stock of all hosts again, after the flavors or many hosts have changed."""
        self.frequencies = [flavor.weight for flavor in self.flavors]
        self._sizes = [self._size(flavor) for flavor in self.flavors]
        self._memo.clear()
        self._tables.clear()
        self._parts.clear()
        self.counts = [self.fitting(layout, free) for layout, free in zip(self.ledger.layouts, self.ledger.free)]
        self.totals = [sum(column) for column in zip(*self.counts)] if self.counts else [0] * len(self.flavors)
        self.reprice()

    def weigh(self, weights: Sequence[float]) -> None:
        """Other frequencies of the same flavors."""
        self.frequencies = list(weights)
        self.reprice()

    def _size(self, flavor: Flavor) -> float:
        return flavor.vcpus_milli / self.unit[0] + flavor.memory_mib / self.unit[1]

    def _table(self, layout: Layout) -> List[Optional[_Sizes]]:
        if layout not in self._tables:
            table: List[Optional[_Sizes]] = []
            for flavor in self.flavors:
                disks = (Disk(flavor.disk_bytes, flavor.storage_class),) if flavor.disk_bytes else ()
                ask = layout.ask(flavor.vcpus_milli, flavor.memory_mib, disks)
                others = [(at, amount) for at, amount in ask or () if at >= POOLS and amount]
                table.append(None if ask is None else (max(1, flavor.vcpus_milli), max(1, flavor.memory_mib), 1, others))
            self._tables[layout] = table
        return self._tables[layout]

    def fitting(self, layout: Layout, free: Sequence[int]) -> List[int]:
        """How many VMs of each flavor fit into that vector."""
        key = (id(layout), *free)
        known = self._memo.get(key)
        if known is not None:
            return known
        if len(self._memo) > 200000:
            self._memo.clear()
        vcpus, memory, vms = free[VCPUS], free[MEMORY], free[VMS]
        counts = []
        for sizes in self._table(layout):
            if sizes is None:
                counts.append(0)
                continue
            fit = vcpus // sizes[0]
            by_memory = memory // sizes[1]
            if by_memory < fit:
                fit = by_memory
            if vms < fit:
                fit = vms
            for at, amount in sizes[3]:
                if free[at] // amount < fit:
                    fit = free[at] // amount
            counts.append(fit if fit > 0 else 0)
        self._memo[key] = counts
        return counts

    def reprice(self) -> None:
        """Prices for the holes as they are now."""
        seen = sum(self.frequencies) or 1.0
        prices = [size * size * sqrt(frequency / seen / (total + self.RARE))
                  for size, frequency, total in zip(self._sizes, self.frequencies, self.totals)]
        worth = sum(price * total for price, total in zip(prices, self.totals)) or 1.0
        self.prices = [price * len(self.ledger.hosts) / worth for price in prices]

    def changed(self, host: int) -> None:
        """The host's vector is another now."""
        self._versions[host] += 1
        old = self.counts[host]
        new = self.counts[host] = self.fitting(self.ledger.layouts[host], self.ledger.free[host])
        self.totals = [total + b - a for total, a, b in zip(self.totals, old, new)]

    def score(self, host: int, ask: Ask) -> Score:
        """What the VM would spoil on that host."""
        parts = self._parts.get(ask)
        if parts is None:
            parts = self._parts[ask] = [None] * len(self.ledger.hosts)
        part = parts[host]
        if part is None or part[0] != self._versions[host]:
            part = parts[host] = self._part(host, ask)
        loss, prices = part[2], self.prices
        for flavor, lost in part[1]:
            loss += prices[flavor] * lost
        return round(loss * PRECISION), 0

    def _part(self, host: int, ask: Ask) -> Tuple[int, List[Tuple[int, int]], float]:
        """What does not change with prices: the holes lost by flavor, and the rest of the score."""
        free = self.ledger.free[host]
        rest = list(free)
        for at, amount in ask:
            rest[at] -= amount
        after = self.fitting(self.ledger.layouts[host], rest)
        lost = [(flavor, count - after[flavor]) for flavor, count in enumerate(self.counts[host]) if count != after[flavor]]
        by_vcpus, by_memory = self.unit
        step = abs(rest[VCPUS] / by_vcpus - rest[MEMORY] / by_memory) - abs(free[VCPUS] / by_vcpus - free[MEMORY] / by_memory)
        other = self.BALANCE * step
        capacity = self.ledger.capacity[host]
        if free[VCPUS] >= capacity[VCPUS] and free[MEMORY] >= capacity[MEMORY]:
            other += self.OPENING
        return self._versions[host], lost, other
