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
import time
from typing import BinaryIO, Iterator, List, Optional, Pattern


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


def beside(final: str, what: str) -> str:
    """The path of a temporary file beside C(final), which libvirt does not take for a volume."""
    return os.path.join(os.path.dirname(final), ".{0}.{1}".format(os.path.basename(final), what))


def _lock(handle: BinaryIO, wait: bool) -> bool:
    """Lock an open file; whether it was had. On NFS this is a lock of byte ranges, for which the file has to be open for writing."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as exc:
        if not wait and exc.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise ImageError("Cannot lock {0}: {1}. Use a folder on a file system that has locks (on NFS: mounted without nolock)".format(
            handle.name, exc.strerror), "lock_failed") from None
    return True


@contextlib.contextmanager
def part_file(final: str) -> Iterator[BinaryIO]:
    """The temporary file beside C(final), open and locked: two runs at once make it one after the other. It stays unless renamed or removed."""
    path = beside(final, "part")
    while True:
        handle: BinaryIO = open(path, "r+b", opener=_open_or_create)
        try:
            _lock(handle, wait=True)
        except ImageError:
            handle.close()
            raise
        # Whoever held the lock before may have renamed or removed the file meanwhile.
        if os.path.exists(path) and os.path.samestat(os.fstat(handle.fileno()), os.stat(path)):
            break
        handle.close()
    try:
        yield handle
    finally:
        handle.close()


@contextlib.contextmanager
def scratch_file(final: str, what: str) -> Iterator[BinaryIO]:
    """Another temporary file beside C(final), empty, for whoever has that of L(part_file). It goes at the end unless it has been renamed."""
    path = beside(final, what)
    try:
        with open(path, "r+b", opener=_open_or_create) as handle:
            handle.truncate(0)
            yield handle
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


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


def abandoned(final: str) -> List[str]:
    """The temporary files beside C(final), unless somebody is working on them."""
    part = beside(final, "part")
    with contextlib.ExitStack() as stack:
        try:
            handle = stack.enter_context(open(part, "r+b", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW)))
        except FileNotFoundError:
            pass
        except OSError as exc:
            raise ImageError("Cannot open {0}: {1}. Look at it, and remove it".format(part, exc.strerror), "unreadable_file") from None
        else:
            if not _lock(handle, wait=False):
                return []
        return [path for path in (part, beside(final, "unpacked"), beside(final, "converted")) if os.path.lexists(path)]


def remove_stale_folders(folder: str, names: Pattern[str], older_s: float = 86400.0) -> None:
    """Remove folders of runs that were killed: nothing in them has changed for a day, and nobody is working on a file of theirs.

    :param names: what such folders are called
    """
    for entry in os.scandir(folder):
        if not names.match(entry.name) or not entry.is_dir(follow_symlinks=False):
            continue
        with contextlib.suppress(FileNotFoundError, PermissionError, ImageError):  # somebody else removes it too, or it is somebody else's
            files = list(os.scandir(entry.path))
            newest = max(item.stat(follow_symlinks=False).st_mtime for item in [entry] + files)
            if newest >= time.time() - older_s:
                continue
            parts = [item.name for item in files if item.name.endswith(".part")]
            if all(abandoned(os.path.join(entry.path, name[1:-len(".part")])) for name in parts):
                shutil.rmtree(entry.path)


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


class SparseWriter:
    """Writes a file from its beginning, leaving holes where it has nothing but zeros. C(size): what has been written so far."""

    _BLOCK = 1 << 16

    def __init__(self, target: BinaryIO) -> None:
        self._target, self._zeros, self.size = target, bytes(self._BLOCK), 0
        target.truncate(0)
        target.seek(0)

    def write(self, data: bytes) -> None:
        """Go on with these bytes."""
        for start in range(0, len(data), self._BLOCK):
            block = data[start:start + self._BLOCK]
            if block == self._zeros:
                self._target.seek(len(block), os.SEEK_CUR)
            else:
                self._target.write(block)
            self.size += len(block)

    def close(self) -> None:
        """Make the file as long as what has been written; the file itself stays open."""
        self._target.truncate(self.size)
        self._target.flush()


def copy_sparse(source: str, target: BinaryIO) -> None:
    """Copy a file, leaving holes where it has nothing but zeros."""
    writer = SparseWriter(target)
    with open(source, "rb") as handle:
        for chunk in iter(lambda: handle.read(1 << 20), b""):
            writer.write(chunk)
    writer.close()
