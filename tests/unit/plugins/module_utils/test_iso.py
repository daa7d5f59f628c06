# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ISO images, read back by a small reader that goes by the standard; isoinfo, blkid and a guest's kernel read them in the integration tests."""
from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils._iso import SECTOR, make_iso


def both(data, at, size):
    """A number in both byte orders, which have to agree."""
    little, big = int.from_bytes(data[at : at + size], "little"), int.from_bytes(data[at + size : at + 2 * size], "big")
    assert little == big
    return little


class Reader:
    """One tree of an image, by its descriptor in that sector."""

    def __init__(self, image, sector):
        self.image = image
        self.descriptor = image[sector * SECTOR : (sector + 1) * SECTOR]
        self.joliet = self.descriptor[0] == 2
        self.codec = "utf-16-be" if self.joliet else "ascii"
        assert self.descriptor[1:7] == b"CD001\1" and self.descriptor[88:91] == (b"%/E" if self.joliet else b"\0\0\0")
        assert both(self.descriptor, 80, 4) * SECTOR == len(image) and both(self.descriptor, 128, 2) == SECTOR

    @property
    def label(self):
        """The volume identifier."""
        return self.descriptor[40:72].decode(self.codec).rstrip(" ")

    def records(self, sector):
        """Identifier, sector, size and whether it is a folder, of each record in a directory's sector."""
        data, at = self.image[sector * SECTOR : (sector + 1) * SECTOR], 0
        while at < SECTOR and data[at]:
            length = data[at + 32]
            yield data[at + 33 : at + 33 + length], both(data, at + 2, 4), both(data, at + 10, 4), bool(data[at + 25] & 2)
            assert data[at] % 2 == 0
            at += data[at]

    def walk(self, sector=None, above=None, prefix=""):
        """All files, path to content; the entries . and .. have to be right."""
        root = both(self.descriptor, 158, 4)
        sector = root if sector is None else sector
        listed = list(self.records(sector))
        assert [r[:2] for r in listed[:2]] == [(b"\0", sector), (b"\1", sector if above is None else above)]
        identifiers = [r[0] for r in listed[2:]]
        assert identifiers == sorted(identifiers)
        files = {}
        for identifier, where, size, folder in listed[2:]:
            name = identifier.decode(self.codec)
            if folder:
                assert size == SECTOR
                files.update(self.walk(where, sector, prefix + name + "/"))
            else:
                assert name.endswith(";1")
                name = name[:-2] if self.joliet else name[:-2].rstrip(".")
                files[prefix + name] = self.image[where * SECTOR : where * SECTOR + size]
        return files

    def table(self, order, at):
        """The path table in one byte order: name, sector and parent of each folder."""
        size = both(self.descriptor, 132, 4)
        start = struct.unpack(order + "I", self.descriptor[at : at + 4])[0] * SECTOR
        data, at, found = self.image[start : start + size], 0, []
        while at < size:
            length, _extended, sector, parent = struct.unpack(order + "BBIH", data[at : at + 8])
            found.append((data[at + 8 : at + 8 + length], sector, parent))
            at += 8 + length + length % 2
        return found


def trees(image):
    """The two trees of an image, whose descriptors are closed by the terminator."""
    assert image[: 16 * SECTOR] == bytes(16 * SECTOR) and image[18 * SECTOR : 18 * SECTOR + 7] == b"\xffCD001\1"
    return Reader(image, 16), Reader(image, 17)


NAMES = st.from_regex(r"\A[a-z0-9_-]{1,14}(\.[a-z]{1,4})?\Z").filter(lambda name: name.strip("."))
PATHS = st.lists(NAMES, min_size=1, max_size=4)


def consistent(paths):
    """No path is at once a file and a folder."""
    return not any(other.startswith(path + "/") for path in paths for other in paths)


@given(st.dictionaries(PATHS.map("/".join), st.binary(max_size=5000), max_size=8).filter(consistent))
def test_what_went_in_comes_out_of_both_trees(files):
    """Empty files, full sectors, nested folders."""
    image = make_iso(files, "cidata")
    assert len(image) % SECTOR == 0 and make_iso(dict(reversed(list(files.items()))), "cidata") == image
    for tree in trees(image):
        assert tree.walk() == files and tree.label == "cidata"
        little, big = tree.table("<", 140), tree.table(">", 148)
        assert little == big and little[0][0] == b"\0" and little[0][1] == both(tree.descriptor, 158, 4)
        parents = [entry[2] for entry in little]
        assert parents == sorted(parents)
        # The parent that the table names is the one whose directory lists the folder.
        for identifier, sector, parent in little[1:]:
            assert (identifier, sector) in [record[:2] for record in tree.records(little[parent - 1][1])]


def test_contents_follow_the_structures_without_waste():
    """A seed of three small files takes 28 sectors."""
    assert len(make_iso({"meta-data": b"a", "user-data": b"b" * SECTOR, "network-config": b"c"}, "cidata")) == 28 * SECTOR


def test_more_than_a_sector_of_names_is_refused():
    """Rather than written wrongly."""
    with pytest.raises(ValueError, match="too many files"):
        make_iso({"file-number-{0}".format(n): b"" for n in range(60)}, "cidata")
