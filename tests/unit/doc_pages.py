# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The written pages, taken apart: headings, links, blocks, and the commands that they tell people to type."""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, List, NamedTuple, Set, Tuple

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+)(?P<language>[^`]*)$")
_HEADING = re.compile(r"^(#{1,6}) +(.*?) *#*$")
_LINK = re.compile(r"(?<!\\)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)(?: +\"[^\"]*\")?\)")
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
# What is typed at a prompt that no block of its own announces
_PROGRAMS = ("ansible-playbook", "ansible-inventory", "ansible-doc", "ansible-galaxy", "ansible ", "make ", "scripts/")


class Block(NamedTuple):
    """A fenced block, or an indented one, whose language is then empty."""

    line: int
    language: str
    text: str


class Link(NamedTuple):
    """Where a link leads."""

    line: int
    target: str


class Command(NamedTuple):
    """A command with its continuation lines joined, and what the page shows as its output."""

    line: int
    text: str
    output: str = ""
    section: str = ""


def slug(heading: str) -> str:
    """The anchor that a forge gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@dataclass
class Page:
    """A page in Markdown."""

    path: Path
    anchors: Set[str] = field(default_factory=set)
    links: List[Link] = field(default_factory=list)
    blocks: List[Block] = field(default_factory=list)
    spans: List[Block] = field(default_factory=list)
    headings: List[Tuple[int, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its path in the checkout."""
        return str(self.path.relative_to(ROOT))

    def commands(self) -> Iterator[Command]:
        """All commands, in the order of the page."""
        found: List[Command] = []
        for block in self.blocks:
            if block.language == "console":
                found += _prompted(block)
            elif block.language in ("sh", "bash", "shell"):
                found += [c for c in _joined(block) if c.text and not c.text.startswith("#")]
            elif not block.language:
                found += [c for c in _joined(block) if c.text.startswith(_PROGRAMS)]
        found += [Command(span.line, span.text) for span in self.spans if span.text.startswith(_PROGRAMS) and " " in span.text]
        for command in sorted(found):
            above = [text for line, text in self.headings if line < command.line]
            yield command._replace(section=above[-1] if above else "")


def _joined(block: Block) -> Iterator[Command]:
    number, text = 0, ""
    for i, line in enumerate(block.text.splitlines(), block.line):
        if not text:
            number = i
        text += line.strip()
        if text.endswith("\\"):
            text = text[:-1]
            continue
        yield Command(number, text)
        text = ""


def _prompted(block: Block) -> Iterator[Command]:
    """Lines behind the prompt; the others are output."""
    number, text, output, going_on = 0, "", [], False  # type: int, str, List[str], bool
    for i, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ ") and not going_on:
            if text:
                yield Command(number, text, "\n".join(output))
            number, text, output = i, line[2:], []
        elif going_on:
            text += line.strip()
        else:
            output.append(line)
            continue
        going_on = text.endswith("\\")
        if going_on:
            text = text[:-1]
    if text:
        yield Command(number, text, "\n".join(output))


def read(path: Path) -> Page:
    """A page out of its file."""
    page = Page(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    i = 0
    while i < len(lines):
        line = lines[i]
        fence = _FENCE.match(line)
        if fence:
            indent, start = len(fence.group("indent")), i + 1
            i = start
            while i < len(lines) and lines[i].strip() != fence.group("fence"):
                i += 1
            page.blocks.append(Block(start + 1, fence.group("language").strip(), "\n".join(text[indent:] for text in lines[start:i]) + "\n"))
        elif line.startswith("    ") and (not i or not lines[i - 1].strip()) and not _within_list(lines, i):
            start = i
            while i < len(lines) and (lines[i].startswith("    ") or not lines[i].strip()):
                i += 1
            page.blocks.append(Block(start + 1, "", "\n".join(text[4:] for text in lines[start:i]) + "\n"))
            continue
        else:
            heading = _HEADING.match(line)
            if heading:
                anchor, number = slug(heading.group(2)), 0
                while anchor in page.anchors:
                    number += 1
                    anchor = "{0}-{1}".format(slug(heading.group(2)), number)
                page.anchors.add(anchor)
                page.headings.append((i + 1, heading.group(2)))
            page.links += [Link(i + 1, target) for target in _LINK.findall(_SPAN.sub("``", line))]
            page.spans += [Block(i + 1, "span", text.strip()) for _ticks, text in _SPAN.findall(line)]
        i += 1
    return page


def _within_list(lines: List[str], i: int) -> bool:
    """Whether an indented line goes on with an item of a list, instead of being code."""
    for line in reversed(lines[:i]):
        if line.strip() and not line.startswith(" "):
            return bool(re.match(r"^([-*+]|\d+\.) ", line))
    return False


def pages() -> List[Page]:
    """Every page that people read, beginning with the README."""
    paths = [p for pattern in ("*.md", "docs/*.md", "roles/*/README.md", "extensions/**/*.md", "tests/**/README.md") for p in sorted(ROOT.glob(pattern))]
    return [read(path) for path in paths]
