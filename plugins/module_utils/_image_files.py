# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are there whole or not at all: a locked temporary file beside the final name, synced and renamed. Pure standard library."""
from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from typing import BinaryIO, Iterator, Optional


class ImageError(Exception):
    """An image that could not be made.

    :param message: what failed and what to do
    :param code: stable key for programs
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Folder:
    """A plain folder for images, where no libvirt is needed: the control node's cache. It can be used like a pool."""

    name: Optional[str] = None

    def __init__(self, path: str) -> None:
        self.target = path
        os.makedirs(path, mode=0o755, exist_ok=True)

    def path_of(self, name: str) -> str:
        """The path that a file of that name has or will have."""
        return os.path.join(self.target, name)

    def lookup(self, name: str, refresh: bool = False) -> Optional[str]:
        """The path of a file, or None."""
        return self.path_of(name) if os.path.exists(self.path_of(name)) else None


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


def abandoned_part(final: str) -> Optional[str]:
    """The temporary file beside C(final) that nobody is working on, or None."""
    path = os.path.join(os.path.dirname(final), ".{0}.part".format(os.path.basename(final)))
    try:
        with open(path, "rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return None
    return path


def lend(source: str, target: str) -> None:
    """Make a file with the content of C(source) that everybody who gets at its folder can read: another name of the same file where that is possible."""
    try:
        if not os.stat(source).st_mode & 0o004:
            raise PermissionError(errno.EACCES, "only its owner can read it", source)
        os.link(source, target)
    except OSError:
        with room("copy {0}".format(source), target):
            shutil.copyfile(source, target)
        os.chmod(target, 0o644)


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
