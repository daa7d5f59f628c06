# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain-text tables for people: aligned by what a terminal shows, not by how many characters there are."""
from __future__ import annotations

import unicodedata
from typing import Any, List, Sequence, Tuple

GAP = "  "


def plain(text: Any) -> str:
    """A text as one line without control characters (they could move the cursor, or turn the direction of what follows)."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c for c in " ".join(text.splitlines()).replace("\t", " ") if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))


def who(names: Sequence[str]) -> str:
    """Names for a sentence: the first three, and how many there are besides."""
    return ", ".join(names[:3]) + (" and {0} more".format(len(names) - 3) if len(names) > 3 else "")


def shown(value: Any) -> str:
    """One cell's text: a dash for nothing, else as plain() has it."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return plain(", ".join(str(v) for v in value) if isinstance(value, (list, tuple)) else value)


def width(text: str) -> int:
    """Columns that a terminal takes for a text: two for wide characters, none for combining ones."""
    columns = 0
    for character in text:
        if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
            continue
        columns += 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
    return columns


def _pad(text: str, columns: int, right: bool) -> str:
    blank = " " * (columns - width(text))
    return blank + text if right else text + blank


def table(columns: Sequence[Tuple[str, str]], rows: Sequence[Sequence[Any]]) -> List[str]:
    """Lines of a table.

    :param columns: heading and alignment (C(left) or C(right)) of each
    :param rows: as many cells each; the last column is not padded
    """
    cells = [[heading for heading, align in columns]] + [[shown(cell) for cell in row] for row in rows]
    widths = [max(width(row[i]) for row in cells) for i in range(len(columns))]
    lines = []
    for row in cells:
        parts = [_pad(cell, widths[i], columns[i][1] == "right") for i, cell in enumerate(row)]
        lines.append(GAP.join(parts).rstrip())
    return lines


def drop_empty(columns: Sequence[Tuple[str, str]], rows: Sequence[Sequence[Any]], keep: Sequence[str]) -> Tuple[
        List[Tuple[str, str]], List[List[Any]]]:
    """The same without columns in which no row has anything, except those in C(keep)."""
    used = [i for i, (heading, align) in enumerate(columns) if heading in keep or any(shown(row[i]) != "-" for row in rows)]
    return [columns[i] for i in used], [[row[i] for i in used] for row in rows]
