# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The claim protocol is safe and live over all interleavings of three runs, and the model can tell: each weakened variant of it fails."""
from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.kvmfleet.core.tests.unit.protocol.model import ENDED, Case, Rules, Walk, winners

ONE_NAME = Case(wishes=((("x", 0),), (("x", 1),), (("x", 0),)))
OPPOSITE = Case(wishes=((("x", 0), ("y", 1)), (("y", 0), ("x", 1)), (("x", 1),)))
CROSSED = Case(wishes=((("x", 0), ("y", 1)), (("y", 1), ("x", 0)), (("y", 0), ("x", 1))))
ROOM = Case(wishes=((("a", 0),), (("b", 0),), (("c", 0),)), hosts=1, capacity=2)


@pytest.mark.parametrize("case", [ONE_NAME, OPPOSITE, CROSSED, ROOM], ids=["one_name", "opposite", "crossed", "room"])
def test_never_two_holders_and_never_over_capacity(case: Case) -> None:
    walk = Walk(case)
    assert walk.broken == ""
    # it was a walk, not a stroll: all three runs can win, be beaten and crash somewhere in it
    assert {run for end in walk.ends for run in winners(end)} == {0, 1, 2}
    assert {place[0] for end in walk.ends for place in end[0]} >= {"won", "crashed"}
    assert len(walk.came_from) > 100


@pytest.mark.parametrize("case", [ONE_NAME, OPPOSITE, CROSSED], ids=["one_name", "opposite", "crossed"])
def test_without_crashes_somebody_wins(case: Case) -> None:
    walk = Walk(replace(case, crashes=False, removals=False))
    assert walk.broken == "" and walk.stuck() is None
    assert all(winners(end) for end in walk.ends)


def test_without_crashes_all_room_is_used() -> None:
    walk = Walk(replace(ROOM, crashes=False, removals=False))
    assert walk.stuck() is None
    assert all(len(winners(end)) == 2 for end in walk.ends)


@pytest.mark.parametrize("case", [ONE_NAME, OPPOSITE], ids=["one_name", "opposite"])
def test_a_crash_blocks_nobody_for_ever_once_its_claims_are_removed(case: Case) -> None:
    walk = Walk(case)
    assert walk.stuck() is None
    # without removal it would: the model sees the difference
    assert Walk(replace(case, removals=False)).stuck() is not None


def test_whoever_loses_leaves_nothing_behind() -> None:
    walk = Walk(replace(OPPOSITE, crashes=False))
    for places, claims in walk.ends:
        owners = {claim[2] for claim, _phase in claims}
        assert owners <= {run for run, place in enumerate(places) if place[0] == "won"}
        assert all(place[0] in ENDED for place in places)


@pytest.mark.parametrize(("rules", "said"), [
    (Rules(define_first=False), "x is held by runs"),
    (Rules(compare=False), "x is held by runs"),
    (Rules(heed_larger=False), "x is held by runs")],
    ids=["reading_before_defining", "committing_without_the_compare", "ignoring_larger_claims"])
def test_each_weakened_variant_has_two_holders(rules: Rules, said: str) -> None:
    assert said in Walk(replace(ONE_NAME, rules=rules)).broken


def test_a_sum_outside_the_lock_overcommits() -> None:
    assert "host 0 is over its capacity" in Walk(replace(ROOM, rules=Rules(check_under_lock=False))).broken


def test_tickets_by_vm_let_two_batches_withdraw_from_each_other() -> None:
    two = Case(wishes=((("x", 0), ("y", 1)), (("y", 0), ("x", 1))), crashes=False, removals=False)
    assert all(winners(end) for end in Walk(two).ends)
    walk = Walk(replace(two, rules=Rules(ticket_per_run=False)))
    assert walk.broken == "" and any(not winners(end) for end in walk.ends)
