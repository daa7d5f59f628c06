# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file that is to become an image really is, by its content: qcow2, raw, packed, or something no VM boots from. Pure standard library."""
from __future__ import annotations

import importlib
import os
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Optional

from ansible_collections.kvmfleet.core.plugins.module_utils._image_files import SparseWriter
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import MIB, TIB, SpecError, human_size

_QCOW2_MAGIC = b"QFI\xfb"
_EXTERNAL_DATA_FILE = 1 << 2
_HEAD = 0x10048
_CHUNK = 1 << 20
# An image that unpacks to more is no image of ours: a small file could fill any disk.
LARGEST = 4 * TIB

# What is unpacked: magic, and the module of the standard library that does it
_PACKED = {"gzip": (b"\x1f\x8b\x08", "gzip"), "bzip2": (b"BZh", "bz2"), "xz": (b"\xfd7zXZ\x00", "lzma")}

# (offset, magic, what it is)
_ARCHIVES = (
    (0, b"\x28\xb5\x2f\xfd", "is packed with zstd"), (0, b"\x04\x22\x4d\x18", "is packed with lz4"), (0, b"PK\x03\x04", "is a ZIP archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive"), (257, b"ustar", "is a tar archive"), (0, b"BZh", "is packed twice"), (0, b"\x1f\x8b\x08", "is packed twice"),
    (0, b"\xfd7zXZ\x00", "is packed twice"),
)
_FOREIGN = (
    (0, b"KDMV", "is a VMDK image"), (0, b"COWD", "is a VMDK image"), (0, b"# Disk DescriptorFile", "is a VMDK image"), (0, b"vhdxfile", "is a VHDX image"),
    (0, b"conectix", "is a VHD image"), (64, b"\x7f\x10\xda\xbe", "is a VDI image"), (0, b"QED\x00", "is a QED image"),
    (0, b"WithoutFreeSpace", "is a Parallels image"), (0, b"WithouFreSpacExt", "is a Parallels image"),
)
_ISO = (0x8001, b"CD001")
# What the beginning of a raw disk has: a boot sector (of MBR, and so of GPT too), a GPT without one, other partition tables, file systems without any.
_DISKS = (
    (510, b"\x55\xaa"), (512, b"EFI PART"), (4096, b"EFI PART"), (512, b"\x57\x45\x56\x82"), (508, b"\xda\xbe"), (1080, b"\x53\xef"), (0, b"XFSB"),
    (0x10040, b"_BHRfS_M"), (512, b"LABELONE"), (0, b"hsqs"),
)
_TEXT = frozenset(b"\t\n\f\r") | frozenset(range(0x20, 0x7f)) | frozenset(range(0x80, 0x100))


@dataclass(frozen=True)
class Header:
    """What an image file says of itself. C(size) is its virtual size in bytes."""

    format: str
    size: int


def read_header(path: str, option: str = "path", shown: Optional[str] = None) -> Header:
    """Format and virtual size of an image file. Raises SpecError for one that refers to other files: a guest could read them.

    :param shown: what to call the file in messages
    """
    with open(path, "rb") as handle:
        head = handle.read(104)
    if head[:4] != _QCOW2_MAGIC:
        return Header("raw", os.path.getsize(path))
    if len(head) < 72:
        raise SpecError(option, shown or path, "is a qcow2 file cut off in its header", "Get the image anew", "invalid_image")
    version, backing, size = struct.unpack_from(">I", head, 4)[0], struct.unpack_from(">Q", head, 8)[0], struct.unpack_from(">Q", head, 24)[0]
    features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 and len(head) >= 80 else 0
    if backing or features & _EXTERNAL_DATA_FILE:
        raise SpecError(option, shown or path, "is a qcow2 file that refers to another file", "Make one file of it: qemu-img convert -O qcow2", "invalid_image")
    if version < 2:
        raise SpecError(option, shown or path, "is a qcow image of version 1", "Convert it: qemu-img convert -f qcow -O qcow2", "invalid_image")
    return Header("qcow2", size)


def _has(head: bytes, offset: int, magic: bytes) -> bool:
    return head[offset:offset + len(magic)] == magic


def examine(path: str, option: str, shown: str) -> Header:
    """As L(read_header), for a file that somebody says is an image. Raises SpecError where a VM could not have it as its disk."""
    header = read_header(path, option, shown)
    if header.format != "raw":
        return header
    with open(path, "rb") as handle:
        head = handle.read(_HEAD)
        handle.seek(-min(512, header.size), os.SEEK_END)
        tail = handle.read(8)

    def refused(reason: str, remedy: str) -> SpecError:
        return SpecError(option, shown, reason, remedy, "invalid_image")
    for offset, magic, reason in _ARCHIVES:
        if _has(head, offset, magic):
            raise refused(reason, "Unpack it, and use the image that is in it")
    foreign = [reason for offset, magic, reason in _FOREIGN if _has(head, offset, magic)] + ["is a VHD image"] * (tail == b"conectix")
    if foreign:
        raise refused(foreign[0], "Convert it (qemu-img convert -O qcow2), and use what comes out")
    if _has(head, *_ISO):
        raise refused("is an ISO image, not a disk with a system", "Use the cloud image of that system, or attach the ISO to a VM as a CD")
    if head and _TEXT.issuperset(head[:512]):
        raise refused("is text, such as a login page or an error message, not an image",
                      "Look at it and correct the address; a server that wants a login gets it by base_image_headers")
    if header.size < MIB:
        raise refused("has {0}, which is no disk".format(human_size(header.size)), "Get the image anew")
    if not any(_has(head, offset, magic) for offset, magic in _DISKS):
        raise refused("has neither a boot sector nor a partition table nor a file system that is known here, and is no qcow2 file",
                      "Use another file; if this is a disk nevertheless, convert it: qemu-img convert -f raw -O qcow2")
    return header


def packing_of(path: str) -> Optional[str]:
    """How a file is packed, if it is in a way that L(unpack) knows."""
    with open(path, "rb") as handle:
        head = handle.read(8)
    return next((name for name, (magic, _module) in _PACKED.items() if head.startswith(magic)), None)


def unpack(packing: str, source: BinaryIO, target: BinaryIO, option: str, shown: str, largest: int = LARGEST) -> None:
    """Unpack a file into another one, leaving holes where there is nothing but zeros. Raises SpecError for a damaged or a huge one.

    :param packing: what L(packing_of) says
    """
    _magic, name = _PACKED[packing]
    try:
        module = importlib.import_module(name)
    except ImportError:
        raise SpecError(option, shown, "is packed with {0}, and Python on this host cannot unpack that".format(packing),
                        "Install Python's module {0}, or unpack the image before".format(name), "missing_tool") from None
    damage = (EOFError, zlib.error, getattr(module, "LZMAError", EOFError))
    opened: BinaryIO = module.open(source, "rb")
    writer = SparseWriter(target)
    with opened:
        while writer.size <= largest:
            try:
                chunk = opened.read(_CHUNK)
            except OSError as exc:
                if exc.errno is not None:
                    raise
                raise _damaged(option, shown, exc) from None  # what gzip and bz2 say of bytes that are not theirs
            except damage as exc:
                raise _damaged(option, shown, exc) from None
            if not chunk:
                writer.close()
                return
            writer.write(chunk)
    raise SpecError(option, shown, "unpacks to more than {0}".format(human_size(largest)), "Use another image", "invalid_image")


def _damaged(option: str, shown: str, exc: Exception) -> SpecError:
    return SpecError(option, shown, "cannot be unpacked: {0}".format(exc), "Get the image anew", "invalid_image")
