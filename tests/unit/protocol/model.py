# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The claim protocol of DESIGN.md ("How a VM is created", points 3 to 5) as a small state machine whose every interleaving can be walked.

A run defines all its claims C(pending), reads every host, and then withdraws, reads again or commits to C(building) by compare-and-set. One step
is what one host does under its lock, so reads of several hosts are several steps. Besides the runs there are two nuisances: any run may crash
between any two steps, and any pending claim may be removed at any time, as if it were found too old (also where its owner is merely slow).
"""
from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Dict, FrozenSet, Iterator, List, Optional, Sequence, Tuple

PENDING, BUILDING = "pending", "building"
Claim = Tuple[int, str, int]                     # host, name, run
Claims = FrozenSet[Tuple[Claim, str]]            # with the phase of each
# where a run is: what it does next, at which of its claims or hosts, and whether it has seen larger pending claims in this reading
Place = Tuple[str, int, bool]
State = Tuple[Tuple[Place, ...], Claims]
ENDED = ("won", "lost", "refused", "crashed")


@dataclass(frozen=True)
class Rules:
    """The protocol as designed, and switches that each break it."""

    define_first: bool = True        # else: read, then define
    compare: bool = True             # else: commit whether or not the claim is still there
    heed_larger: bool = True         # else: commit although larger pending claims are there
    ticket_per_run: bool = True      # else: one per run and name, so that two batches can each be smaller in one name
    check_under_lock: bool = True    # else: sum first, define in a later step


@dataclass(frozen=True)
class Case:
    """Who wants what: for each run its (name, host) in the order of claiming; its ticket is its number."""

    wishes: Tuple[Tuple[Tuple[str, int], ...], ...]
    hosts: int = 2
    capacity: int = 99               # claims that a host has room for
    crashes: bool = True
    removals: bool = True
    rules: Rules = Rules()

    def start(self) -> State:
        """Nobody has done anything."""
        first = ("define" if self.rules.define_first else "read", 0, False)
        return tuple(first for _run in self.wishes), frozenset()

    def ticket(self, run: int, name: str) -> int:
        """What decides between two pending claims; the smaller wins."""
        if self.rules.ticket_per_run:
            return run
        return run if [wish[0] for wish in self.wishes[run]].index(name) == 0 else run + 100

    def after(self, state: State) -> Iterator[Tuple[str, State]]:
        """Every step that is possible now."""
        places, claims = state
        for run, place in enumerate(places):
            if place[0] in ENDED:
                continue
            what, next_place, next_claims = self._step(run, place, dict(claims))
            yield "run {0}: {1}".format(run, what), (places[:run] + (next_place,) + places[run + 1:], next_claims)
            if self.crashes:
                yield "run {0} crashes".format(run), (places[:run] + (("crashed", 0, False),) + places[run + 1:], claims)
        if self.removals:
            for claim, phase in claims:
                if phase == PENDING:
                    yield "claim {0} is found too old".format(claim), (places, claims - {(claim, phase)})

    def _step(self, run: int, place: Place, claims: Dict[Claim, str]) -> Tuple[str, Place, Claims]:
        what, at, flag = place
        wishes = self.wishes[run]
        if what == "read":
            verdict = self._read(run, at, claims)
            flag = flag or verdict == "larger"
            if verdict == "lost":
                place = ("withdraw", 0, False)
            elif at + 1 < self.hosts:
                place = ("read", at + 1, flag)
            elif flag and self.rules.heed_larger:
                place = ("read", 0, False)
            else:
                place = ("commit" if self.rules.define_first else "define", 0, False)
            return "reads host {0}: {1}".format(at, verdict), place, frozenset(claims.items())
        if what == "withdraw":
            name, host = wishes[at]
            claims.pop((host, name, run), None)
            place = ("withdraw", at + 1, flag) if at + 1 < len(wishes) else ("refused" if flag else "lost", 0, False)
            return "withdraws {0}".format(name), place, frozenset(claims.items())
        name, host = wishes[at]
        claim = (host, name, run)
        if what in ("define", "write"):
            full = sum(1 for other in claims if other[0] == host) >= self.capacity
            if what == "define" and full:
                return "is refused by host {0}".format(host), ("withdraw", 0, True), frozenset(claims.items())
            if what == "define" and not self.rules.check_under_lock:
                return "finds room on host {0}".format(host), ("write", at, False), frozenset(claims.items())
            claims[claim] = PENDING
            following = "read" if self.rules.define_first else "commit"
            place = ("define", at + 1, False) if at + 1 < len(wishes) else (following, 0, False)
            return "defines {0} on host {1}".format(name, host), place, frozenset(claims.items())
        if self.rules.compare and claim not in claims:
            return "finds its claim of {0} gone".format(name), ("withdraw", 0, False), frozenset(claims.items())
        claims[claim] = BUILDING
        place = ("commit", at + 1, False) if at + 1 < len(wishes) else ("won", 0, False)
        return "commits {0}".format(name), place, frozenset(claims.items())

    def _read(self, run: int, host: int, claims: Dict[Claim, str]) -> str:
        mine = {name for name, _host in self.wishes[run]}
        verdict = "nothing"
        for (there, name, other), phase in claims.items():
            if there != host or other == run or name not in mine:
                continue
            if phase == BUILDING or self.ticket(other, name) < self.ticket(run, name):
                return "lost"
            verdict = "larger"
        return verdict

    def unsafe(self, state: State) -> str:
        """What must never be, as a sentence; empty where all is well."""
        held: Dict[str, int] = {}
        room: Dict[int, int] = {}
        for (host, name, run), phase in state[1]:
            room[host] = room.get(host, 0) + 1
            if phase == BUILDING:
                if name in held:
                    return "{0} is held by runs {1} and {2}".format(name, *sorted((held[name], run)))
                held[name] = run
        full = [host for host, count in room.items() if count > self.capacity]
        return "host {0} is over its capacity".format(full[0]) if full else ""


class Walk:
    """Every state that can be reached, and how."""

    def __init__(self, case: Case) -> None:
        self.case = case
        start = case.start()
        self.came_from: Dict[State, Optional[Tuple[State, str]]] = {start: None}
        self.before: Dict[State, List[State]] = {}
        self.ends: List[State] = []
        self.broken = ""
        todo = deque([start])
        while todo:
            state = todo.popleft()
            wrong = case.unsafe(state)
            if wrong:
                self.broken = "{0} after: {1}".format(wrong, "; ".join(self.history(state)))
                return
            if all(place[0] in ENDED for place in state[0]):
                self.ends.append(state)
            for what, following in case.after(state):
                if not what.endswith("crashes"):
                    self.before.setdefault(following, []).append(state)
                if following not in self.came_from:
                    self.came_from[following] = (state, what)
                    todo.append(following)

    def history(self, state: State) -> List[str]:
        """The shortest way there."""
        steps = []
        link = self.came_from[state]
        while link is not None:
            steps.append(link[1])
            link = self.came_from[link[0]]
        return steps[::-1]

    def stuck(self) -> Optional[State]:
        """A state from which no end can be reached without a further crash; None where there is none (so fair scheduling gets to an end)."""
        good, todo = set(self.ends), deque(self.ends)
        while todo:
            for state in self.before.get(todo.popleft(), ()):
                if state not in good:
                    good.add(state)
                    todo.append(state)
        return next((state for state in self.came_from if state not in good), None)


def winners(state: State) -> Sequence[int]:
    """Runs that got all they wanted."""
    return [run for run, place in enumerate(state[0]) if place[0] == "won"]
