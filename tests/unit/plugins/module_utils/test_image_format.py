# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is taken for an image and what is not, and how packed ones are unpacked."""
from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import _image_format
from ansible_collections.kvmfleet.core.plugins.module_utils._image_format import Header, examine, packing_of, unpack
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import MIB, SpecError

PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
NO_TEXT = bytes(range(256)) * 4


def disk(*marks, size=MIB):
    """A raw disk with these (offset, bytes) and nothing else."""
    content = bytearray(size)
    for offset, mark in marks:
        content[offset:offset + len(mark)] = mark
    return bytes(content)


def qcow2(version=3, backing=0, features=0):
    return b"QFI\xfb" + struct.pack(">IQIIQ", version, backing, 0, 16, 5 << 30) + bytes(40) + struct.pack(">Q", features) + bytes(24)


def look(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    return examine(str(path), "url", "https://images.example.com/a")


@pytest.mark.parametrize("content, reason", [
    (b"", "has 0 B"), (disk((510, b"\x55\xaa"), size=MIB - 512), "which is no disk"), (b"<!DOCTYPE html>\n<html>Bitte anmelden: \xc3\xbc</html>", "is text"),
    (b'{"error": "unauthorized"}' + b" " * (2 * MIB), "is text"), (disk(), "neither a boot sector"), (NO_TEXT * 1024, "neither a boot sector"),
    (disk((0, b"\x28\xb5\x2f\xfd")), "zstd"), (disk((0, b"PK\x03\x04")), "ZIP"), (disk((257, b"ustar")), "tar"), (disk((0, b"\x1f\x8b\x08")), "packed twice"),
    (disk((0, b"KDMV")), "VMDK"), (b"# Disk DescriptorFile\nversion=1\n", "VMDK"), (disk((0, b"vhdxfile")), "VHDX"), (disk((0, b"conectix")), "VHD"),
    (disk((510, b"\x55\xaa"), (MIB - 512, b"conectix")), "VHD"), (disk((64, b"\x7f\x10\xda\xbe")), "VDI"),
    (disk((510, b"\x55\xaa"), (0x8001, b"CD001")), "ISO"), (qcow2(version=1), "version 1"), (qcow2(backing=512), "another file"), (b"QFI\xfb\0\0", "cut off"),
])
def test_what_is_no_image(tmp_path, content, reason):
    with pytest.raises(SpecError, match=reason) as caught:
        look(tmp_path, content)
    assert (caught.value.option, caught.value.value, caught.value.code) == ("url", "https://images.example.com/a", "invalid_image")
    assert caught.value.remedy


@pytest.mark.parametrize("mark", [
    (510, b"\x55\xaa"), (512, b"EFI PART"), (4096, b"EFI PART"), (1080, b"\x53\xef"), (0, b"XFSB"), (0x10040, b"_BHRfS_M"), (512, b"LABELONE"),
])
def test_raw_disks(tmp_path, mark):
    assert look(tmp_path, disk(mark)) == Header("raw", MIB)


def test_a_qcow2_image(tmp_path):
    assert look(tmp_path, qcow2()) == look(tmp_path, qcow2(version=2)) == Header("qcow2", 5 << 30)


@given(st.sampled_from(sorted(PACK)), st.lists(st.tuples(st.integers(0, 255 << 10), st.binary(max_size=600)), max_size=3), st.integers(0, 256 << 10))
def test_what_is_packed_comes_out_as_it_was(packing, marks, size):
    content = disk(*marks, size=257 << 10)[:size]
    with tempfile.TemporaryFile() as out:
        out.write(b"what was there before")
        unpack(packing, io.BytesIO(PACK[packing](content)), out, "path", "/x")
        out.seek(0)
        assert out.read() == content


def test_holes_stay_holes(tmp_path):
    path = tmp_path / "disk"
    with open(path, "w+b") as handle:
        unpack("xz", io.BytesIO(lzma.compress(disk((8 * MIB, b"x"), size=16 * MIB))), handle, "path", "/x")
    assert path.stat().st_size == 16 * MIB and path.stat().st_blocks * 512 < MIB


@pytest.mark.parametrize("packing", sorted(PACK))
def test_a_damaged_one_is_refused(tmp_path, packing):
    packed = PACK[packing](NO_TEXT * 512)
    path = tmp_path / "packed"
    path.write_bytes(packed)
    assert packing_of(str(path)) == packing
    for damaged in (packed[:len(packed) // 2], packed[:20] + bytes(20) + packed[40:]):
        with pytest.raises(SpecError, match="cannot be unpacked") as caught:
            unpack(packing, io.BytesIO(damaged), io.BytesIO(), "path", "/x")
        assert caught.value.code == "invalid_image"


def test_a_small_file_does_not_fill_the_disk():
    out = io.BytesIO()
    with pytest.raises(SpecError, match="unpacks to more than 4 MiB"):
        unpack("xz", io.BytesIO(lzma.compress(NO_TEXT * (16 << 10))), out, "path", "/x", largest=4 * MIB)
    assert len(out.getvalue()) <= 5 * MIB


def test_a_python_that_cannot_unpack(monkeypatch):
    def missing(name):
        raise ImportError(name)
    monkeypatch.setattr(_image_format.importlib, "import_module", missing)
    with pytest.raises(SpecError, match="module lzma") as caught:
        unpack("xz", io.BytesIO(), io.BytesIO(), "path", "/x")
    assert caught.value.code == "missing_tool"
