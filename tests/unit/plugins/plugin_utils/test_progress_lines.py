# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which lines people see while they wait."""
from __future__ import annotations

import threading

import pytest

from ansible_collections.kvmfleet.core.plugins.plugin_utils import _progress
from ansible_collections.kvmfleet.core.plugins.plugin_utils._progress import Teller, Watch, read_states


def test_what_is_new_gets_a_line_and_what_goes_on_one_from_time_to_time():
    teller = Teller("kvm1", again_s=10)
    waiting = {"web-1": ("waiting for SSH", False)}
    assert teller.lines(5.2, waiting) == ["web-1 on kvm1: waiting for SSH (5 s)"]
    assert teller.lines(10, waiting) == []
    assert teller.lines(15.4, waiting) == ["web-1 on kvm1: waiting for SSH (15 s)"]
    assert teller.lines(17, {"web-1": ("SSH answers", True)}) == ["web-1 on kvm1: SSH answers (17 s)"]
    assert teller.lines(60, {"web-1": ("SSH answers", True)}) == []


def test_many_are_summed_up():
    teller = Teller("kvm1", most=2)
    states = {"web-{0}".format(n): ("waiting", n > 7) for n in range(10)}
    assert teller.lines(5, states) == ["web-0 on kvm1: waiting (5 s)", "web-1 on kvm1: waiting (5 s)", "... and 8 more on kvm1, 8 of 10 not done yet"]
    assert teller.lines(6, states) == []


def test_what_a_guest_says_cannot_move_the_cursor():
    assert Teller("kvm1").lines(5, {"web-1": ("a\x1b[2Jb\nc", False)}) == ["web-1 on kvm1: a[2Jb c (5 s)"]


@pytest.mark.parametrize("text", [None, "", '{"web-1": ["wai', "cat: No such file"])
def test_no_file_yet_is_nothing_to_see(text):
    assert read_states(text) is None


def test_a_watch_prints_while_the_work_goes_on(monkeypatch):
    printed, looked = [], threading.Event()
    monkeypatch.setattr(_progress.display, "display", printed.append)

    def look():
        if printed:
            looked.set()
        return {"web-1": ("waiting", False)}
    with Watch(look, "kvm1", 0, 0.01):
        assert looked.wait(60)
    assert printed == ["web-1 on kvm1: waiting (0 s)"]


def test_work_that_is_done_soon_is_not_looked_at():
    def look():
        raise AssertionError("looked")
    with Watch(look, "kvm1", 3600):
        pass


def test_trouble_with_looking_is_no_trouble_with_the_work(monkeypatch):
    told = threading.Event()
    monkeypatch.setattr(_progress.display, "vvv", lambda *args, **kwargs: told.set())

    def look():
        raise OSError("no route")
    with Watch(look, "kvm1", 0):
        assert told.wait(60)
