# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The strategy pack as a planner that lives through a whole replay: place() would take stock of every host again for each VM."""
from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._placement import Amount, Disk, Flavor, HostCapacity, Pool
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_ledger import MEMORY, POOLS, VCPUS, Ledger
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_score import Holes

GIB = 1 << 30


def disks_of(gib: float) -> Tuple[Disk, ...]:
    """One disk of that size, or none."""
    return (Disk(int(gib * GIB)),) if gib else ()


def host_of(name: str, capacity: Sequence[float]) -> HostCapacity:
    """An empty host of so many vcpus, GiB of memory and GiB of disk."""
    return HostCapacity(name, Amount(int(capacity[0] * 1000)), Amount(int(capacity[1] * 1024)), {"p": Pool(int(capacity[2] * GIB))},
                        storage_classes={"default": "p"})


class PackPlanner:
    """Chooses a host for one VM after another. It knows the flavors on offer and the VMs that were asked for so far, never those to come."""

    def __init__(self, hosts: Sequence[Sequence[float]], catalog: Sequence[Tuple[float, float, float]] = ()) -> None:
        self.ledger = Ledger([host_of("h{0:04}".format(i), host) for i, host in enumerate(hosts)])
        self.seen: Dict[Tuple[float, float, float], float] = dict.fromkeys(catalog, 1.0)
        self.holes = Holes(self.ledger, self._flavors())
        self._known: List[Optional[Sequence[float]]] = [None] * len(hosts)

    def _flavors(self) -> List[Flavor]:
        return [Flavor("", int(vm[0] * 1000), int(vm[1] * 1024), int(vm[2] * GIB), "", weight) for vm, weight in self.seen.items()]

    def __call__(self, free: Sequence[Sequence[float]], _hosts: Sequence[Sequence[float]], vm: Tuple[float, float, float]) -> Optional[int]:
        for host, now in enumerate(free):
            if now is not self._known[host]:     # replays replace a host's vector when they change it
                self._known[host] = now
                mine = self.ledger.free[host]
                mine[VCPUS], mine[MEMORY], mine[POOLS] = int(now[0] * 1000), int(now[1] * 1024), int(now[2] * GIB)
                self.holes.changed(host)
        if vm in self.seen:
            self.seen[vm] += 1
            self.holes.weigh(list(self.seen.values()))
        else:
            self.seen[vm] = 1.0
            self.holes.flavors = self._flavors()
            self.holes.refresh()
        ask = self.ledger.layouts[0].ask(int(vm[0] * 1000), int(vm[1] * 1024), disks_of(vm[2])) or ()
        fits, score = self.ledger.fits, self.holes.score
        best = min(((score(host, ask), host) for host in range(len(free)) if fits(host, ask)), default=None)
        return None if best is None else best[1]
