# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches: one by one first, and where that fails a bounded search for an assignment of all (ejection chains, then trying everything)."""
from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Dict, FrozenSet, List, Optional, Sequence, Set, Tuple, cast

from ansible_collections.kvmfleet.core.plugins.module_utils._placement_ledger import Ask, Ledger
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import Request
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_score import Holes, Scorer

Key = Tuple[int, int, int, int, int]   # soft rules broken, VMs of the set in the host's domain, score, its second part, tie break
Choice = Tuple[Key, int]               # key, host
Entry = Tuple[Key, int, int]           # key, host, version of the host when the key was computed


@dataclass
class Kind:
    """Units of one batch that differ in nothing but their names. A unit is one VM, or several that have to be on one host."""

    requests: Tuple[Request, ...]
    asks: List[Optional[Ask]]                        # by host; None: refused for another reason than room
    units: List[int] = field(default_factory=list)
    soft: Dict[int, int] = field(default_factory=dict)          # by host: soft rules broken by VMs that exist
    conflicts: FrozenSet[int] = frozenset()                     # kinds that may not share a host with this one
    soft_conflicts: FrozenSet[int] = frozenset()
    soft_friends: FrozenSet[int] = frozenset()                  # kinds it would like to share a host with
    counters: Tuple[Tuple[Tuple[str, ...], int, int], ...] = ()   # what counts it, how many of the unit, and the most on a host
    spread_key: Tuple[str, ...] = ()

    @property
    def hosts(self) -> List[int]:
        """Hosts that nothing but room can keep it off."""
        return [host for host, ask in enumerate(self.asks) if ask is not None]


class Search:
    """The state of one placement: what is on which host so far."""

    def __init__(self, ledger: Ledger, kinds: Sequence[Kind], unit_kind: Sequence[int], scorer: Optional[Scorer], ties: Sequence[int],
                 domains: Optional[Sequence[int]] = None, counters: Optional[Dict[Tuple[str, ...], Dict[int, int]]] = None,
                 spread_counts: Optional[Dict[Tuple[str, ...], Dict[int, int]]] = None, holes: Optional[Holes] = None,
                 rotate: Optional[int] = None) -> None:
        self.ledger, self.kinds, self.unit_kind, self.scorer, self.ties = ledger, list(kinds), list(unit_kind), scorer, ties
        self.domains = domains
        self.counters = counters or {}
        self.spread_counts = spread_counts or {}
        self.holes = holes
        self.rotate = rotate                 # round robin: the position whose turn it is
        self.place_of: List[Optional[int]] = [None] * len(self.unit_kind)
        self.scores: Dict[int, Tuple[int, int, Optional[int]]] = {}   # unit -> score, runner-up's host (-1: none), its score
        self.on_host: Dict[int, List[int]] = {}
        self.ruled = any(kind.conflicts or kind.counters for kind in self.kinds)
        self.barred: Set[Tuple[int, int]] = set()   # (kind, host) that something outside of this search forbids
        self.softly = any(kind.soft or kind.soft_conflicts or kind.soft_friends for kind in self.kinds)
        self._versions = [0] * len(ledger.hosts)
        self._heaps: Dict[Tuple[int, int], List[Entry]] = {}

    def feasible(self, kind: int, host: int) -> bool:
        """Whether a unit of the kind may go there now."""
        ask = self.kinds[kind].asks[host]
        if ask is None or not self.ledger.fits(host, ask) or (self.ruled and not self.allowed(kind, host)):
            return False
        return not self.barred or (kind, host) not in self.barred

    def allowed(self, kind: int, host: int) -> bool:
        """Rules among the VMs of the batch."""
        this = self.kinds[kind]
        for key, count, limit in this.counters:
            if self.counters.get(key, {}).get(host, 0) + count > limit:
                return False
        if this.conflicts:
            for unit in self.on_host.get(host, ()):
                if self.unit_kind[unit] in this.conflicts:
                    return False
        return True

    def put(self, unit: int, host: int) -> None:
        """Assign."""
        kind = self.kinds[self.unit_kind[unit]]
        self.ledger.take(host, cast(Ask, kind.asks[host]))
        self.on_host.setdefault(host, []).append(unit)
        self.place_of[unit] = host
        self._count(kind, host, len(kind.requests))

    def remove(self, unit: int) -> int:
        """Take back; returns where it was."""
        host = cast(int, self.place_of[unit])
        kind = self.kinds[self.unit_kind[unit]]
        self.ledger.give(host, kind.asks[host] or ())
        self.on_host[host].remove(unit)
        self.place_of[unit] = None
        self._count(kind, host, -len(kind.requests))
        return host

    def _count(self, kind: Kind, host: int, change: int) -> None:
        for key, count, _limit in kind.counters:
            counter = self.counters.setdefault(key, {})
            counter[host] = counter.get(host, 0) + (count if change > 0 else -count)
        if self.domains is not None:
            counts = self.spread_counts.setdefault(kind.spread_key, {})
            domain = self.domains[host]
            counts[domain] = counts.get(domain, 0) + change
        self._versions[host] += 1
        if self.holes is not None:
            self.holes.changed(host)

    def clear(self) -> None:
        """Take everything back."""
        for unit, host in enumerate(self.place_of):
            if host is not None:
                self.remove(unit)
        self._heaps.clear()
        self.scores.clear()

    # -- one by one ------------------------------------------------------------------------------------------------------------------

    def key(self, kind: int, host: int, count_domain: bool = True) -> Key:
        """What the host is worth to the kind; the least wins."""
        this = self.kinds[kind]
        ask = this.asks[host] or ()
        soft = 0
        if self.softly:
            soft = this.soft.get(host, 0)
            if this.soft_conflicts or this.soft_friends:
                there = [self.unit_kind[unit] for unit in self.on_host.get(host, ())]
                soft += sum(1 for other in there if other in this.soft_conflicts)
                if this.soft_friends and soft > 0 and any(other in this.soft_friends for other in there):
                    soft -= 1
        domain = 0
        if self.domains is not None and count_domain:
            domain = self.spread_counts.get(this.spread_key, {}).get(self.domains[host], 0)
        if self.scorer is None:
            return soft, domain, 0, 0, self.ties[host]
        if self.rotate is not None:
            return soft, domain, (host - self.rotate) % len(self.ledger.hosts), 0, self.ties[host]
        score = self.scorer(host, ask)
        return soft, domain, score[0], score[1], self.ties[host]

    def greedy(self, order: Sequence[int]) -> List[int]:
        """Place units in that order, each on its best host. Returns those that found none."""
        failed, hopeless = [], set()
        for unit in order:
            kind = self.unit_kind[unit]
            if kind in hopeless:
                failed.append(unit)
                continue
            best, second = self.best(kind)
            if best is None:
                failed.append(unit)
                hopeless.add(kind)   # room only shrinks while units are placed, so the next of its kind would fail as well
                continue
            self.choose(unit, best, second)
        return failed

    def best(self, kind: int) -> Tuple[Optional[Choice], Optional[Choice]]:
        """The best host for one more unit of the kind, and the next best."""
        if len(self.kinds[kind].units) > 1 and self.rotate is None and not self.softly:
            return self._best_of_heaps(kind)
        return self._best_of_all(kind)

    def choose(self, unit: int, best: Choice, second: Optional[Choice]) -> None:
        """Assign what best() has found, and remember why."""
        self.put(unit, best[1])
        self.scores[unit] = (best[0][2], -1 if second is None else second[1], None if second is None else second[0][2])
        if self.rotate is not None:
            self.rotate = (best[1] + 1) % len(self.ledger.hosts)
        self._refresh_heaps(best[1])

    def ranking(self, kind: int) -> List[Choice]:
        """All hosts that could take a unit of the kind, best first."""
        return sorted((self.key(kind, host), host) for host, ask in enumerate(self.kinds[kind].asks)
                      if ask is not None and self.feasible(kind, host))

    def _best_of_all(self, kind: int) -> Tuple[Optional[Choice], Optional[Choice]]:
        best: Optional[Choice] = None
        second: Optional[Choice] = None
        for host, ask in enumerate(self.kinds[kind].asks):
            if ask is None or not self.feasible(kind, host):
                continue
            entry = (self.key(kind, host), host)
            if best is None or entry < best:
                best, second = entry, best
            elif second is None or entry < second:
                second = entry
        return best, second

    def _domain(self, host: int) -> int:
        return 0 if self.domains is None else self.domains[host]

    def _heads(self, kind: int) -> List[Tuple[int, List[Entry]]]:
        if (kind, -1) not in self._heaps:
            self._heaps[kind, -1] = []
            heaps: Dict[int, List[Entry]] = {}
            for host, ask in enumerate(self.kinds[kind].asks):
                if ask is not None and self.feasible(kind, host):
                    heaps.setdefault(self._domain(host), []).append((self.key(kind, host, False), host, self._versions[host]))
            for domain, heap in heaps.items():
                heapify(heap)
                self._heaps[kind, domain] = heap
        return [(domain, heap) for (owner, domain), heap in self._heaps.items() if owner == kind and domain >= 0]

    def _best_of_heaps(self, kind: int) -> Tuple[Optional[Choice], Optional[Choice]]:
        candidates = []
        for domain, heap in self._heads(kind):
            count = self.spread_counts.get(self.kinds[kind].spread_key, {}).get(domain, 0)
            head = self._head(kind, heap)
            if head is None:
                continue
            candidates.append((self._with_count(head[0], count), head[1]))
            heappop(heap)
            after = self._head(kind, heap)
            if after is not None:
                candidates.append((self._with_count(after[0], count), after[1]))
            heappush(heap, head)
        candidates.sort()
        return (candidates[0] if candidates else None), (candidates[1] if len(candidates) > 1 else None)

    def _head(self, kind: int, heap: List[Entry]) -> Optional[Entry]:
        """The best entry that still holds; those that do not are dropped."""
        while heap and (heap[0][2] != self._versions[heap[0][1]] or not self.feasible(kind, heap[0][1])):
            heappop(heap)
        return heap[0] if heap else None

    @staticmethod
    def _with_count(key: Key, count: int) -> Key:
        return key[0], count, key[2], key[3], key[4]

    def _refresh_heaps(self, host: int) -> None:
        for (kind, domain), heap in self._heaps.items():
            if domain == self._domain(host) and self.feasible(kind, host):
                heappush(heap, (self.key(kind, host, False), host, self._versions[host]))

    # -- where one by one fails ------------------------------------------------------------------------------------------------------

    def size(self, unit: int) -> float:
        """How large a unit is, as the largest share of what hosts have on the mean."""
        kind = self.kinds[self.unit_kind[unit]]
        total = self._totals()
        asks = [ask for ask in kind.asks if ask is not None]
        return max((amount / total[at] for at, amount in asks[0] if at < 2 and total[at]), default=0.0) if asks else 0.0

    def _totals(self) -> List[int]:
        if not hasattr(self, "_total"):
            self._total = [sum(max(0, free[at]) for free in self.ledger.free) for at in (0, 1)]
        return self._total

    def repair(self, failed: Sequence[int], budget: int, depth: int = 3) -> List[int]:
        """Ejection chains: move VMs of this batch out of the way of those without a host. Returns those still without one."""
        left, self._budget = [], budget
        for unit in failed:
            if not self._insert(unit, depth, frozenset([unit])):
                left.append(unit)
        return left

    def _insert(self, unit: int, depth: int, moved: FrozenSet[int]) -> bool:
        kind = self.unit_kind[unit]
        hosts = [host for host, ask in enumerate(self.kinds[kind].asks) if ask is not None]
        for host in hosts:
            if self.feasible(kind, host):
                self.put(unit, host)
                return True
        if depth == 0 or self._budget <= 0:
            return False
        hosts.sort(key=lambda host: (self._lack(kind, host), self.ties[host]))
        for host in hosts:
            for victims in self._victims(unit, host, moved):
                self._budget -= 1
                if self._budget <= 0:
                    return False
                if self._eject(unit, host, victims, depth, moved):
                    return True
        return False

    def _eject(self, unit: int, host: int, victims: Tuple[int, ...], depth: int, moved: FrozenSet[int]) -> bool:
        before = list(self.place_of)
        for victim in victims:
            self.remove(victim)
        self.put(unit, host)
        if all(self._insert(victim, depth - 1, moved | frozenset(victims)) for victim in victims):
            return True
        self._restore(before)
        return False

    def _restore(self, before: Sequence[Optional[int]]) -> None:
        changed = [other for other, host in enumerate(self.place_of) if host != before[other]]
        for other in changed:
            if self.place_of[other] is not None:
                self.remove(other)
        for other in changed:
            host = before[other]
            if host is not None:
                self.put(other, host)

    def _lack(self, kind: int, host: int) -> float:
        free, total = self.ledger.free[host], self._totals()
        return sum((amount - free[at]) / max(1, total[at]) for at, amount in self.kinds[kind].asks[host] or () if at < 2 and amount > free[at])

    def _victims(self, unit: int, host: int, moved: FrozenSet[int]) -> List[Tuple[int, ...]]:
        """What could leave the host so that the unit fits: single VMs, small ones first, then pairs; one of each kind."""
        kind = self.unit_kind[unit]
        by_kind: Dict[int, List[int]] = {}
        for other in self.on_host.get(host, ()):
            if other not in moved and self.unit_kind[other] != kind:
                by_kind.setdefault(self.unit_kind[other], []).append(other)
        some = sorted((units[:2] for units in by_kind.values()), key=lambda units: (self.size(units[0]), units[0]))
        sets: List[Tuple[int, ...]] = [(units[0],) for units in some]
        singles = [unit_ for units in some for unit_ in units]
        sets += [(a, b) for i, a in enumerate(singles) for b in singles[i + 1:]]
        return [victims for victims in sets if self._would_fit(kind, host, victims)]

    def _would_fit(self, kind: int, host: int, without: Sequence[int]) -> bool:
        for victim in without:
            self.remove(victim)
        fits = self.feasible(kind, host)
        for victim in without:
            self.put(victim, host)
        return fits

    def exhaust(self, budget: int) -> Optional[bool]:
        """Try every assignment from scratch. True: found and in place; False: there is none; None: gave up, nothing is in place."""
        self.clear()
        self._budget = budget
        left = {kind: list(this.units) for kind, this in enumerate(self.kinds)}
        found = self._branch(left, {})
        return found if found or self._budget > 0 else None

    def _branch(self, left: Dict[int, List[int]], floor: Dict[int, int]) -> bool:
        """Place the kind with the fewest choices. Units of a kind go to hosts in rising order, and equal hosts are tried once."""
        choices: Optional[Tuple[int, int, List[int]]] = None
        for kind, units in left.items():
            if not units:
                continue
            # all units of the kind have to find room on hosts from its floor on
            hosts = [host for host in range(floor.get(kind, 0), len(self.ledger.hosts)) if self.feasible(kind, host)]
            if not hosts or not self._room_for(kind, len(units), hosts):
                return False
            if choices is None or len(hosts) < choices[0]:
                choices = (len(hosts), kind, hosts)
        if choices is None:
            return True
        kind, tried = choices[1], set()
        unit = left[kind].pop()
        for host in choices[2]:
            self._budget -= 1
            if self._budget <= 0:
                break
            alike = (tuple(self.ledger.free[host]), id(self.ledger.layouts[host]), self._alike(host, left, floor))
            if len(left[kind]) == 0 and alike in tried:
                continue
            tried.add(alike)
            self.put(unit, host)
            if self._branch(left, {**floor, kind: host}):
                return True
            self.remove(unit)
        left[kind].append(unit)
        return False

    def _room_for(self, kind: int, count: int, hosts: Sequence[int]) -> bool:
        room = 0
        for host in hosts:
            free = self.ledger.free[host]
            room += min((free[at] // amount for at, amount in self.kinds[kind].asks[host] or () if amount), default=count)
            if room >= count:
                return True
        return False

    def _alike(self, host: int, left: Dict[int, List[int]], floor: Dict[int, int]) -> Tuple[object, ...]:
        """What else than room tells two hosts apart for the units that are still to be placed."""
        open_to = tuple(kind for kind, units in left.items()
                        if units and self.kinds[kind].asks[host] is not None and host >= floor.get(kind, 0))
        if not self.ruled:
            return open_to
        return open_to, tuple(sorted({self.unit_kind[unit] for unit in self.on_host.get(host, ())})), tuple(
            counter.get(host, 0) for counter in self.counters.values())
