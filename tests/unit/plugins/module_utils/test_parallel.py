# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls at once and calls with a deadline."""
from __future__ import annotations

import threading
import time

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils._parallel import call_within, in_parallel


def test_a_late_call_costs_its_timeout_only():
    """A call that hangs is given up, and its thread does not keep the process."""
    hung = threading.Event()
    before = set(threading.enumerate())
    started = time.monotonic()
    assert call_within(lambda: hung.wait(60), 0.2) == (False, None)
    assert time.monotonic() - started < 30
    assert all(thread.daemon for thread in set(threading.enumerate()) - before)
    hung.set()


def test_results_and_exceptions_come_back():
    """None is a result, too."""
    assert call_within(lambda: 7, 30) == (True, 7)
    assert call_within(lambda: None, 30) == (True, None)
    with pytest.raises(KeyError):
        call_within(lambda: {}["x"], 30)


def test_outcomes_keep_the_order_of_the_items():
    """Also where later items are done first, and one fails."""
    last = threading.Event()

    def work(item):
        if item == 0:
            assert last.wait(30)
        if item == 3:
            last.set()
        if item == 2:
            raise ValueError("two")
        return item * 10
    outcomes = in_parallel(work, [0, 1, 2, 3], workers=4)
    assert [o[0] for o in outcomes] == [0, 10, None, 30]
    assert [type(o[1]) for o in outcomes] == [type(None), type(None), ValueError, type(None)]


def test_no_more_than_the_workers_at_once():
    """And every item is worked on exactly once."""
    lock, now, most, seen = threading.Lock(), [0], [0], []

    def work(item):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            seen.append(item)
        with lock:
            now[0] -= 1
    in_parallel(work, range(50), workers=3)
    assert most[0] <= 3 and sorted(seen) == list(range(50))


def test_hung_items_are_left_and_the_others_reported():
    """One hung item of three."""
    hung = threading.Event()
    outcomes = in_parallel(lambda item: hung.wait(60) if item == 1 else item, [0, 1, 2], workers=3, timeout_s=0.5)
    assert [outcomes[0], outcomes[2]] == [(0, None), (2, None)]
    assert isinstance(outcomes[1][1], TimeoutError)
    hung.set()


def test_nothing_to_do():
    """No items, no threads."""
    assert in_parallel(lambda item: item, []) == []
