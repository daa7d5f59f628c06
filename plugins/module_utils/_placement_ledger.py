# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The books of a placement: what every host has left, as plain integer vectors, and what a request takes from them."""
from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Container, Dict, List, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import UNLIMITED, Disk, HostCapacity, Vm

VCPUS, MEMORY, VMS, POOLS = 0, 1, 2, 3   # dimensions of a host's vector; each pool adds two: virtual bytes, really free bytes
Ask = Tuple[Tuple[int, int], ...]        # (dimension, amount) pairs, without zeros
Sizes = Tuple[int, int, Tuple[Disk, ...]]


def tie_break(name: str, host: str) -> int:
    """A number that looks random but is always the same for this VM and host: simultaneous planners do not all pick one host."""
    return int.from_bytes(hashlib.sha256("{0}|{1}".format(name, host).encode()).digest()[:8], "big")


class Layout:
    """Which dimension is which pool on hosts that have the same pools and storage classes."""

    def __init__(self, pools: Tuple[str, ...], classes: Tuple[Tuple[str, str], ...]) -> None:
        self.pools = pools
        self.dimension = {pool: POOLS + 2 * i for i, pool in enumerate(pools)}
        self.classes = dict(classes)
        self.names = ["vcpus", "memory", "VMs"]
        for pool in pools:
            self.names += ["pool " + pool, "room on pool " + pool]
        self._asks: Dict[Sizes, Optional[Ask]] = {}

    def pool_of(self, disk: Disk) -> Optional[str]:
        """The pool that a disk would land in; None where the host has none for it."""
        pool = disk.pool or self.classes.get(disk.storage_class, "")
        if not pool and not disk.storage_class:
            pool = self.classes.get("default") or ("default" if "default" in self.dimension else self.pools[0] if self.pools else "")
        return pool if pool in self.dimension else None

    def ask(self, vcpus_milli: int, memory_mib: int, disks: Tuple[Disk, ...]) -> Optional[Ask]:
        """What a VM of these sizes takes from the vector; None where there is no pool for a disk."""
        key = (vcpus_milli, memory_mib, disks)
        if key not in self._asks:
            self._asks[key] = self._make_ask(vcpus_milli, memory_mib, disks)
        return self._asks[key]

    def _make_ask(self, vcpus_milli: int, memory_mib: int, disks: Tuple[Disk, ...]) -> Optional[Ask]:
        amounts = {VCPUS: vcpus_milli, MEMORY: memory_mib, VMS: 1}
        for disk in disks:
            pool = self.pool_of(disk)
            if pool is None:
                return None
            at = self.dimension[pool]
            amounts[at] = amounts.get(at, 0) + disk.bytes
            amounts[at + 1] = amounts.get(at + 1, 0) + disk.real_bytes
        # the real room of a pool is asked for even when nothing is written at once: below its floor a pool takes no disk, as overlays grow
        return tuple(sorted((at, amount) for at, amount in amounts.items() if amount > 0 or at >= POOLS))


@lru_cache(maxsize=256)
def _layout(pools: Tuple[str, ...], classes: Tuple[Tuple[str, str], ...]) -> Layout:
    return Layout(pools, classes)


class Ledger:
    """All hosts in the given order, what is free on each, and changes to that."""

    def __init__(self, hosts: Sequence[HostCapacity], stopped_permille: int = 1000, wanted: Container[str] = ()) -> None:
        self.hosts = list(hosts)
        self.index = {host.name: i for i, host in enumerate(self.hosts)}
        self.present: List[Tuple[int, Vm]] = []   # VMs of the names in C(wanted)
        # VMs that want to be without certain others, so that the rule holds whichever of the two comes first
        self.shy: List[Tuple[int, Vm]] = []
        self.layouts: List[Layout] = []
        self.capacity: List[List[int]] = []
        self.free: List[List[int]] = []
        for host in self.hosts:
            layout = _layout(tuple(sorted(host.pools)), tuple(sorted(host.storage_classes.items())))
            capacity = [host.vcpus.capacity, host.memory.capacity, UNLIMITED if host.max_vms is None else host.max_vms]
            free = [capacity[0] - host.vcpus.allocated, capacity[1] - host.memory.allocated, capacity[2] - len(host.vms)]
            for name in layout.pools:
                pool = host.pools[name]
                virtual = pool.capacity
                real = UNLIMITED if pool.free_bytes is None else pool.free_bytes - pool.floor_bytes
                capacity += [virtual, real]
                free += [virtual - pool.allocated, real]
            for vm in host.vms:
                if vm.name in wanted:
                    self.present.append((len(self.free), vm))
                if vm.anti_affinity:
                    self.shy.append((len(self.free), vm))
            if stopped_permille != 1000:
                for vm in host.vms:
                    if vm.stopped:
                        free[VCPUS] += vm.vcpus_milli * (1000 - stopped_permille) // 1000
                        free[MEMORY] += vm.memory_mib * (1000 - stopped_permille) // 1000
            self.layouts.append(layout)
            self.capacity.append(capacity)
            self.free.append(free)

    def fits(self, host: int, ask: Ask) -> bool:
        """Whether the host has that much left in every dimension."""
        free = self.free[host]
        for at, amount in ask:  # noqa: SIM110 - the innermost loop of every search; all() takes twice as long
            if free[at] < amount:
                return False
        return True

    def take(self, host: int, ask: Ask) -> None:
        """Book it."""
        free = self.free[host]
        for at, amount in ask:
            free[at] -= amount

    def give(self, host: int, ask: Ask) -> None:
        """Undo take()."""
        free = self.free[host]
        for at, amount in ask:
            free[at] += amount

    def vm_ask(self, host: int, vm: Vm) -> Optional[Ask]:
        """What a VM that exists somewhere would take on this host."""
        return self.layouts[host].ask(vm.vcpus_milli, vm.memory_mib, vm.disks)


def growth(old: Ask, new: Ask) -> Ask:
    """What the new sizes take beyond the old ones. What shrinks is not counted on before it has shrunk."""
    before = dict(old)
    return tuple((at, amount - before.get(at, 0)) for at, amount in new if amount > before.get(at, 0))


def add(first: Ask, second: Ask) -> Ask:
    """Both together."""
    total = dict(first)
    for at, amount in second:
        total[at] = total.get(at, 0) + amount
    return tuple(sorted(total.items()))
