# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of runs that were killed, and the locks that tell them from files that somebody is working on."""
from __future__ import annotations

import errno
import fcntl
import os
import re
import time

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _image_files
from ansible_collections.kvmfleet.core.plugins.module_utils._image_files import ImageError, abandoned, part_file, remove_stale_folders

DAY = 86400


@pytest.fixture
def nfs(monkeypatch):
    """flock as flock(2) describes it on NFS: an exclusive lock needs a file that is open for writing."""
    real = fcntl.flock

    def flock(handle, flags):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(handle, flags)
    monkeypatch.setattr(_image_files.fcntl, "flock", flock)


def test_what_nobody_is_working_on(tmp_path, nfs):
    final = str(tmp_path / "image.qcow2")
    assert abandoned(final) == []
    names = [tmp_path / ".image.qcow2.{0}".format(what) for what in ("part", "unpacked", "converted")]
    for name in names:
        name.touch()
    assert abandoned(final) == [str(name) for name in names]
    names[0].unlink()
    assert abandoned(final) == [str(name) for name in names[1:]]


def test_what_somebody_is_working_on(tmp_path, nfs):
    final = str(tmp_path / "image.qcow2")
    with part_file(final):
        assert abandoned(final) == []
    assert len(abandoned(final)) == 1


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def flock(handle, flags):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(_image_files.fcntl, "flock", flock)
    final = str(tmp_path / "image.qcow2")
    with pytest.raises(ImageError, match="No locks available.*nolock") as caught, part_file(final):
        pass
    assert caught.value.code == "lock_failed"
    with pytest.raises(ImageError, match="No locks available"):
        abandoned(final)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "other").touch()
    (tmp_path / ".image.qcow2.part").symlink_to(tmp_path / "other")
    with pytest.raises(ImageError, match="Look at it"):
        abandoned(str(tmp_path / "image.qcow2"))


def test_folders_of_killed_runs_go_after_a_day(tmp_path):
    old = time.time() - DAY - 60

    def folder(name, *files, aged=True):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
            os.utime(tmp_path / name / file, (old, old))
        if aged:
            os.utime(tmp_path / name, (old, old))
    folder("carried-1", "image.qcow2")
    folder("carried-2", ".image.qcow2.part")
    folder("carried-new", "image.qcow2", aged=False)
    folder("carried-held", ".image.qcow2.part")
    folder("carried-written", "image.qcow2")
    os.utime(tmp_path / "carried-written" / "image.qcow2")
    folder("mine", "image.qcow2")
    (tmp_path / "carried-file").touch()
    os.utime(tmp_path / "carried-file", (old, old))
    (tmp_path / "carried-link").symlink_to(tmp_path / "mine")
    with part_file(str(tmp_path / "carried-held" / "image.qcow2")):
        os.utime(tmp_path / "carried-held", (old, old))
        remove_stale_folders(str(tmp_path), re.compile("^carried-"))
    assert sorted(os.listdir(tmp_path)) == ["carried-file", "carried-held", "carried-link", "carried-new", "carried-written", "mine"]
    assert os.listdir(tmp_path / "mine") == ["image.qcow2"]
