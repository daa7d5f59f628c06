# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches on as few hosts as possible: whole hosts filled by patterns (so many of each kind), from column generation and diving."""
from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any, Dict, List, Optional, Sequence, Tuple

try:
    import numpy as _numpy

    numpy: Any = _numpy
except ImportError:   # the tables below are the same without it, number by number, only slower
    numpy = None

from ansible_collections.kvmfleet.core.plugins.module_utils._placement_ledger import MEMORY, VCPUS, Ask
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_search import Search

Pattern = Tuple[int, ...]     # how many units of each kind
MOST_KINDS = 24               # with more, one by one is as good
MOST_CELLS = 30000            # of a knapsack table; finer amounts are rounded
MOST_TABLES = 300             # knapsacks solved for one batch
_EPSILON = 1e-7


@dataclass
class _Type:
    """Empty hosts that are alike."""

    free: List[int]
    asks: List[Optional[Ask]]       # by kind
    hosts: List[int]


def repack(search: Search, failed: List[int]) -> List[int]:
    """Replace the assignment by one on fewer hosts, or by one for all units, where patterns give one. Returns the units without a host."""
    if search.ruled or search.softly or search.domains is not None or len(search.kinds) > MOST_KINDS:
        return failed
    before = list(search.place_of)
    empty = _empty_hosts(search, before)
    opened = len({host for host in before if host is not None and host in empty})
    if not failed and opened <= _least(search, before, empty):
        return failed
    scores = dict(search.scores)
    search.clear()
    assignment = _Packing(search, empty).run()
    if assignment is None or (not failed and len({host for host in assignment if host in empty}) >= opened):
        for unit, host in enumerate(before):
            if host is not None:
                search.put(unit, host)
        search.scores = scores
        return failed
    for unit, host in enumerate(assignment):
        search.put(unit, host)
    return []


def _empty_hosts(search: Search, before: Sequence[Optional[int]]) -> Dict[int, bool]:
    """Hosts that have nothing on them but units of this batch."""
    ledger = search.ledger
    batch: Dict[int, List[int]] = {}
    for unit, host in enumerate(before):
        if host is not None:
            batch.setdefault(host, [0, 0])
            for at, amount in search.kinds[search.unit_kind[unit]].asks[host] or ():
                if at in (VCPUS, MEMORY):
                    batch[host][at] += amount
    return {host: True for host, free in enumerate(ledger.free)
            if all(free[at] + batch.get(host, [0, 0])[at] >= ledger.capacity[host][at] for at in (VCPUS, MEMORY))}


def _least(search: Search, before: Sequence[Optional[int]], empty: Dict[int, bool]) -> int:
    """A simple lower bound of the number of empty hosts needed: what the others cannot hold in sum, over the largest host."""
    least = 0
    for at in (VCPUS, MEMORY):
        asked = 0
        elsewhere = sum(max(0, free[at]) for host, free in enumerate(search.ledger.free) if host not in empty)
        for unit, host in enumerate(before):
            amount = dict(search.kinds[search.unit_kind[unit]].asks[host] or ()).get(at, 0) if host is not None else 0
            asked += amount
            elsewhere += amount if host not in empty else 0
        largest = max((search.ledger.capacity[host][at] for host in empty), default=0)
        if largest and asked > elsewhere:
            least = max(least, -(-(asked - elsewhere) // largest))
    return least


class _Packing:
    """One attempt to pack a batch."""

    def __init__(self, search: Search, empty: Dict[int, bool]) -> None:
        self.search = search
        self.demand = [len(kind.units) for kind in search.kinds]
        self.count = len(self.demand)
        self.tables = 0
        self.assigned: Dict[int, List[int]] = {}     # host -> pattern
        types: Dict[Tuple[object, ...], _Type] = {}
        for host in empty:
            asks = [kind.asks[host] for kind in search.kinds]
            if any(ask is not None for ask in asks):
                free = search.ledger.free[host]
                types.setdefault((tuple(free), tuple(asks)), _Type(list(free), asks, [])).hosts.append(host)
        self.types = list(types.values())
        for one in self.types:
            one.hosts.sort(key=lambda host: search.ties[host], reverse=True)   # taken from the end
        self.used = [host for host in range(len(search.ledger.hosts)) if host not in empty]
        self.columns: List[List[Pattern]] = [[] for _type in self.types]

    def run(self) -> Optional[List[int]]:
        """A host for every unit, or None."""
        worth = self._solve(self.demand)[1] if self.types else [1.0] * self.count
        self._fill_used(worth)
        while any(self.demand):
            if not any(one.hosts for one in self.types) or not self._dive():
                return None
        left = [list(kind.units) for kind in self.search.kinds]
        result = [0] * len(self.search.unit_kind)
        for host, pattern in self.assigned.items():
            for kind, amount in enumerate(pattern):
                for _unit in range(amount):
                    result[left[kind].pop()] = host
        return result

    def _fill_used(self, worth: Sequence[float]) -> None:
        """Hosts that run anyway cost nothing: give them what is worth most, the fullest first."""
        free_of = self.search.ledger.free
        for host in sorted(self.used, key=lambda host: (free_of[host][MEMORY], free_of[host][VCPUS], host)):
            asks = [kind.asks[host] for kind in self.search.kinds]
            pattern = [0] * self.count
            self._top_up(pattern, free_of[host], asks, worth, self.demand)
            if any(pattern):
                self._assign(host, pattern)

    def _assign(self, host: int, pattern: Sequence[int]) -> None:
        self.assigned[host] = list(pattern)
        for kind, amount in enumerate(pattern):
            self.demand[kind] -= amount

    def _dive(self) -> bool:
        """Solve what is left as if hosts were divisible, and settle the whole hosts of that, or else the best part of one."""
        uses, worth = self._solve(self.demand)
        uses.sort(key=lambda use: -use[0])
        settled = False
        for amount, kind_of_host, pattern in uses:
            whole = int(amount + 1e-6)
            if not whole and settled:
                break
            for _host in range(max(1, whole)):
                trimmed = [min(wanted, have) for wanted, have in zip(pattern, self.demand)]
                if whole and settled and trimmed != list(pattern):
                    break
                one = self.types[kind_of_host]
                if not one.hosts:
                    break
                self._top_up(trimmed, one.free, one.asks, worth, self.demand)
                if not any(trimmed):
                    break
                self._assign(one.hosts.pop(), trimmed)
                settled = True
        return settled

    # -- the linear programme ----------------------------------------------------------------------------------------------------------

    def _solve(self, demand: Sequence[int]) -> Tuple[List[Tuple[float, int, Pattern]], List[float]]:
        """Fewest hosts if parts of hosts could be used: (how many, type, pattern) and what one unit of each kind is worth."""
        programme = _Programme(demand, [len(one.hosts) for one in self.types])
        for number, patterns in enumerate(self.columns):
            for pattern in patterns:
                if self.types[number].hosts and all(a <= d for a, d in zip(pattern, demand)):
                    programme.add(number, pattern)
        while True:
            programme.optimise()
            worth = programme.worth()
            found = False
            for number, one in enumerate(self.types):
                if not one.hosts or self.tables > MOST_TABLES:
                    continue
                pattern = self._best_pattern(one, worth, demand)
                value = sum(w * a for w, a in zip(worth, pattern))
                if value > 1 + programme.rent(number) + _EPSILON and not programme.has(number, pattern):
                    programme.add(number, pattern)
                    self.columns[number].append(pattern)
                    found = True
            if not found:
                return programme.uses(), worth

    def _best_pattern(self, one: _Type, worth: Sequence[float], demand: Sequence[int]) -> Pattern:
        """The most valuable pattern on an empty host: a knapsack over vcpus and memory; the other resources are enforced afterwards."""
        self.tables += 1
        kinds = [kind for kind in range(self.count) if demand[kind] and worth[kind] > _EPSILON and self._most(one, kind, demand)]
        pattern = [0] * self.count
        if kinds:
            sizes, width, height = _grid([dict(one.asks[kind] or ()) for kind in kinds], one.free)
            most = [self._most(one, kind, demand) for kind in kinds]
            bounded = any(demand[kind] < one.free[at] // amount for kind in kinds for at, amount in one.asks[kind] or ()
                          if at in (VCPUS, MEMORY) and amount and demand[kind] == self._most(one, kind, demand))
            values = [worth[kind] for kind in kinds]
            picked = _bounded(sizes, values, most, width, height) if bounded else _unbounded(sizes, values, width, height)
            for kind, amount in zip(kinds, picked):
                pattern[kind] = min(amount, demand[kind])
        self._cut(pattern, one, worth)
        self._top_up(pattern, one.free, one.asks, worth, demand)
        return tuple(pattern)

    @staticmethod
    def _most(one: _Type, kind: int, demand: Sequence[int]) -> int:
        ask = one.asks[kind]
        if ask is None or any(one.free[at] < amount for at, amount in ask):
            return 0
        return min([demand[kind]] + [one.free[at] // amount for at, amount in ask if amount])

    @staticmethod
    def _cut(pattern: List[int], one: _Type, worth: Sequence[float]) -> None:
        """Take out the least valuable units until every resource suffices (rounding, or disks, may have been overdrawn)."""
        while True:
            used = [0] * len(one.free)
            for kind, amount in enumerate(pattern):
                for at, each in one.asks[kind] or ():
                    used[at] += each * amount
            short = [at for at, have in enumerate(one.free) if used[at] > have]
            if not short:
                return
            inside = [kind for kind, amount in enumerate(pattern) if amount]
            pattern[min(inside, key=lambda kind: worth[kind] / max(1, sum(dict(one.asks[kind] or ()).get(at, 0) for at in short)))] -= 1

    def _top_up(self, pattern: List[int], free: Sequence[int], asks: Sequence[Optional[Ask]], worth: Sequence[float],
                demand: Sequence[int]) -> None:
        """Add whatever still fits, the most valuable for its size first."""
        left = list(free)
        for kind, amount in enumerate(pattern):
            for at, each in asks[kind] or ():
                left[at] -= each * amount
        while True:
            best: Optional[Tuple[float, int]] = None
            for kind in range(self.count):
                ask = asks[kind]
                if pattern[kind] >= demand[kind] or ask is None or any(left[at] < amount for at, amount in ask):
                    continue
                size = sum(amount / max(1, left[at]) for at, amount in ask if at in (VCPUS, MEMORY)) or 1.0
                density = (worth[kind] + _EPSILON) / size
                if best is None or density > best[0]:
                    best = (density, kind)
            if best is None:
                return
            pattern[best[1]] += 1
            for at, amount in asks[best[1]] or ():
                left[at] -= amount


def _grid(asks: Sequence[Dict[int, int]], free: Sequence[int]) -> Tuple[List[Tuple[int, int]], int, int]:
    """Amounts in the coarsest units that keep them exact; where the table would be too large, rounded to coarser ones."""
    steps = []
    for at in (VCPUS, MEMORY):
        step = 0
        for ask in asks:
            step = gcd(step, ask.get(at, 0))
        steps.append(step or max(1, free[at]))
    for at in (MEMORY, VCPUS):
        other = free[1 - at] // steps[1 - at] + 1
        most = max(64, MOST_CELLS // other)
        if free[at] // steps[at] > most:
            steps[at] = -(-free[at] // most)
    sizes = [(max(1, (ask.get(VCPUS, 0) + steps[0] // 2) // steps[0]), (ask.get(MEMORY, 0) + steps[1] // 2) // steps[1]) for ask in asks]
    return sizes, free[VCPUS] // steps[0], free[MEMORY] // steps[1]


def _unbounded(sizes: Sequence[Tuple[int, int]], values: Sequence[float], width: int, height: int) -> List[int]:
    """How many of each to take for the highest value, any number of each."""
    rows: List[Any] = []
    for across in range(width + 1):
        row = _zeros(height + 1)
        for (wide, high), value in zip(sizes, values):
            if wide <= across and high <= height:
                _raise(row, rows[across - wide], high, value)
        rows.append(row)
    picked, across, up = [0] * len(sizes), width, height
    while rows[across][up] > 0:
        for item, ((wide, high), value) in enumerate(zip(sizes, values)):
            if wide <= across and high <= up and rows[across][up] == rows[across - wide][up - high] + value:
                picked[item] += 1
                across, up = across - wide, up - high
                break
        else:
            break
    return picked


def _bounded(sizes: Sequence[Tuple[int, int]], values: Sequence[float], most: Sequence[int], width: int, height: int) -> List[int]:
    """The same with at most so many of each: bundles of 1, 2, 4, ... are taken or left."""
    bundles: List[Tuple[int, int]] = []
    for item, limit in enumerate(most):
        left, bundle = limit, 1
        while left > 0:
            bundles.append((item, min(bundle, left)))
            left -= bundle
            bundle *= 2
    tables: List[List[Any]] = [[_zeros(height + 1) for _across in range(width + 1)]]
    for item, amount in bundles:
        wide, high, value = sizes[item][0] * amount, sizes[item][1] * amount, values[item] * amount
        before = tables[-1]
        after = before[:wide]
        for across in range(wide, width + 1):
            row = before[across]
            if high <= height:
                row = row.copy()
                _raise(row, before[across - wide], high, value)
            after.append(row)
        tables.append(after)
    picked, across, up = [0] * len(sizes), width, height
    for number in range(len(bundles), 0, -1):
        if tables[number][across][up] > tables[number - 1][across][up]:
            item, amount = bundles[number - 1]
            picked[item] += amount
            across, up = across - sizes[item][0] * amount, up - sizes[item][1] * amount
    return picked


def _zeros(length: int) -> Any:
    return [0.0] * length if numpy is None else numpy.zeros(length)


def _raise(row: Any, lower: Any, high: int, value: float) -> None:
    """Where taking an item of that height on top of C(lower) is worth more than what the row has, write that into the row."""
    length = len(row) - high
    if numpy is None:
        row[high:] = map(max, row[high:], [got + value for got in lower[:length]])
    else:
        numpy.maximum(row[high:], lower[:length] + value, out=row[high:])


class _Programme:
    """min sum(x) with patterns x covering the demand, no more hosts of a type than there are: revised simplex with a dense inverse.

    Rows: one per kind (patterns . x >= demand), one per type (-x >= -hosts). There are few rows, so everything stays small.
    """

    _MISSING = 1000.0    # cost of leaving one unit out

    def __init__(self, demand: Sequence[int], limits: Sequence[int]) -> None:
        self.kinds, self.rows = len(demand), len(demand) + len(limits)
        self.right = [float(d) for d in demand] + [-float(limit) for limit in limits]
        self.columns: List[Tuple[float, List[float], Optional[Tuple[int, Pattern]]]] = []
        self.basis = []
        self.inverse = [[0.0] * self.rows for _row in range(self.rows)]
        for row in range(self.rows):
            sign = 1.0 if row < self.kinds else -1.0
            self.columns.append((self._MISSING if row < self.kinds else 0.0, self._unit(row, sign), None))
            self.basis.append(len(self.columns) - 1)
            self.inverse[row][row] = sign
        for row in range(self.kinds):
            self.columns.append((0.0, self._unit(row, -1.0), None))       # more than asked for
        self.values = [abs(amount) for amount in self.right]
        self._known: Dict[Tuple[int, Pattern], bool] = {}

    def _unit(self, row: int, sign: float) -> List[float]:
        column = [0.0] * self.rows
        column[row] = sign
        return column

    def has(self, number: int, pattern: Pattern) -> bool:
        """Whether that column is in already."""
        return (number, pattern) in self._known

    def add(self, number: int, pattern: Pattern) -> None:
        """One more pattern on hosts of a type."""
        column = [float(amount) for amount in pattern] + [0.0] * (self.rows - self.kinds)
        column[self.kinds + number] = -1.0
        self.columns.append((1.0, column, (number, pattern)))
        self._known[number, pattern] = True

    def _duals(self) -> List[float]:
        costs = [self.columns[column][0] for column in self.basis]
        return [sum(cost * line[row] for cost, line in zip(costs, self.inverse) if cost) for row in range(self.rows)]

    def worth(self) -> List[float]:
        """What one unit of each kind costs in hosts."""
        return [max(0.0, dual) for dual in self._duals()[:self.kinds]]

    def rent(self, number: int) -> float:
        """What one more host of the type would save."""
        return max(0.0, self._duals()[self.kinds + number])

    def uses(self) -> List[Tuple[float, int, Pattern]]:
        """Patterns of the solution."""
        found = []
        for column, value in zip(self.basis, self.values):
            pattern = self.columns[column][2]
            if pattern is not None and value > _EPSILON:
                found.append((value, pattern[0], pattern[1]))
        return found

    def optimise(self, most_steps: int = 400) -> None:
        """Simplex steps over the columns that are known."""
        for _step in range(most_steps):
            duals = self._duals()
            inside = set(self.basis)
            entering, best = -1, -_EPSILON
            for number, (cost, column, _pattern) in enumerate(self.columns):
                if number in inside or (number < self.rows and number < self.kinds):
                    continue
                reduced = cost - sum(dual * amount for dual, amount in zip(duals, column) if amount)
                if reduced < best:
                    entering, best = number, reduced
            if entering < 0 or not self._pivot(entering):
                return

    def _pivot(self, entering: int) -> bool:
        column = self.columns[entering][1]
        direction = [sum(a * b for a, b in zip(line, column) if b) for line in self.inverse]
        leaving, least = -1, float("inf")
        for row, slope in enumerate(direction):
            if slope > 1e-9 and self.values[row] / slope < least - 1e-12:
                leaving, least = row, self.values[row] / slope
        if leaving < 0:
            return False
        pivot = direction[leaving]
        self.inverse[leaving] = [amount / pivot for amount in self.inverse[leaving]]
        self.values[leaving] = least
        for row, slope in enumerate(direction):
            if row != leaving and slope:
                self.inverse[row] = [a - slope * b for a, b in zip(self.inverse[row], self.inverse[leaving])]
                self.values[row] = max(0.0, self.values[row] - slope * least)
        self.basis[leaving] = entering
        return True
