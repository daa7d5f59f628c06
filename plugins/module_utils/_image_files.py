# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are there whole or not at all: a locked temporary file beside the final name, synced and renamed. Pure standard library."""
from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import BinaryIO, Iterator


class ImageError(Exception):
    """An image that could not be made.

    :param message: what failed and what to do
    :param code: stable key for programs
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def _open_or_create(path: str, _flags: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


@contextlib.contextmanager
def part_file(final: str) -> Iterator[BinaryIO]:
    """The temporary file beside C(final), open and locked: two runs at once make it one after the other. It stays unless renamed or removed."""
    path = os.path.join(os.path.dirname(final), ".{0}.part".format(os.path.basename(final)))
    while True:
        handle: BinaryIO = open(path, "r+b", opener=_open_or_create)
        fcntl.flock(handle, fcntl.LOCK_EX)
        # Whoever held the lock before may have renamed or removed the file meanwhile.
        if os.path.exists(path) and os.path.samestat(os.fstat(handle.fileno()), os.stat(path)):
            break
        handle.close()
    try:
        yield handle
    finally:
        handle.close()


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(handle: BinaryIO, final: str) -> None:
    """Give a finished temporary file its final name, so that even after a power cut there is all of it under that name, or nothing."""
    handle.flush()
    os.fchmod(handle.fileno(), 0o644)
    os.fsync(handle.fileno())
    os.rename(handle.name, final)
    _sync_folder(os.path.dirname(final))


@contextlib.contextmanager
def room(what: str, target: str) -> Iterator[None]:
    """Turn a full disk into one message."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ImageError("Cannot {0}: the disk of {1} is full. Free some room or choose another pool".format(
            what, os.path.dirname(target)), "no_space") from None


def copy_sparse(source: str, target: BinaryIO) -> None:
    """Copy a file, leaving holes where it has nothing but zeros."""
    zeros = bytes(1 << 16)
    target.truncate(0)
    target.seek(0)
    with open(source, "rb") as handle:
        for chunk in iter(lambda: handle.read(1 << 16), b""):
            if chunk == zeros:
                target.seek(len(chunk), os.SEEK_CUR)
            else:
                target.write(chunk)
    target.truncate(target.tell())
