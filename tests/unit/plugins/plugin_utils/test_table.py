# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables: aligned whatever is in them."""
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.plugin_utils import _table

COLUMNS = [("name", "left"), ("memory", "right"), ("host", "left")]


def test_alignment() -> None:
    assert _table.table(COLUMNS, [["web", 512, "kvm1"], ["database", 16384, None]]) == [
        "name      memory  host",
        "web          512  kvm1",
        "database   16384  -",
    ]


def test_wide_and_combining_characters_count_as_shown() -> None:
    lines = _table.table([("name", "left"), ("x", "left")], [["東京", 1], ["e\u0301", 2]])
    assert [_table.width(line) for line in lines] == [len("name  x")] * 3


@pytest.mark.parametrize("value, text", [
    (None, "-"), ("", "-"), ([], "-"), (0, "0"), (False, "no"), (True, "yes"), (["a", "b"], "a, b"), ("a\nb", "a b"), ("\x1b[31mred\u202e", "[31mred"),
])
def test_cells(value: object, text: str) -> None:
    assert _table.shown(value) == text


def test_empty_columns_go() -> None:
    columns, rows = _table.drop_empty(COLUMNS, [["web", None, ""], ["db", None, None]], keep=("memory",))
    assert columns == COLUMNS[:2]
    assert rows == [["web", None], ["db", None]]


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.integers()), max_size=20))
def test_every_line_is_one_line_of_one_width(pairs: list) -> None:
    lines = _table.table(COLUMNS, [[text, number, "end"] for text, number in pairs])
    assert len(lines) == len(pairs) + 1
    assert all(len(line.splitlines()) == 1 for line in lines)
    assert len({_table.width(line) for line in lines[1:]}) <= 1
