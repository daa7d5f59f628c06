# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How files reach the tool that makes ISO images, with tools of our own making; real ones are used in the integration tests."""

from __future__ import annotations

import glob
import os
import stat
import subprocess
import sys

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _iso
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError

FILES = {"meta-data": b"one\n", "openstack/latest/user_data": b"two\n"}
# Says where each file is, with mode and content, in place of an image; the magic stands where an image has it.
HONEST = """#!{0}
import os, stat, sys
head = b"\\0" * 32769 + b"CD001"
lines = []
for argument in sys.argv[1:]:
    name, _, path = argument.partition("=")
    if path:
        with open(path, "rb") as stream:
            content = stream.read()
        folder = stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode)
        lines.append("%s|%s|%o|%o|%s" % (name, path, stat.S_IMODE(os.stat(path).st_mode), folder, content.decode().strip()))
sys.stdout.buffer.write(head + "\\n".join(lines).encode())
""".format(sys.executable)


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A function that makes a program of that name the only one on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(name, text):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(stat.S_IRWXU)
        return path

    return install


def lines(image):
    """What the honest tool said, as lists of fields."""
    return [line.split("|") for line in image[32774:].decode().split("\n")]


def open_files():
    """Descriptors of this process."""
    return sorted(os.listdir("/proc/self/fd"))


def folders():
    """Private folders of this process or of any other."""
    return glob.glob("/dev/shm/kvmfleet-iso-*")


@pytest.mark.parametrize("name", ["genisoimage", "mkisofs"])
def test_files_are_handed_over_in_memory(tool, name):
    """Readable by their owner only, under no name on any file system, and closed afterwards."""
    tool(name, HONEST)
    before = open_files(), folders()
    said = lines(_iso.make_iso(FILES, "cidata"))
    assert [(n, mode, content) for n, path, mode, folder, content in said] == [
        ("meta-data", "400", "one"),
        ("openstack/latest/user_data", "400", "two"),
    ]
    assert all(path.startswith("/proc/self/fd/") for n, path, mode, folder, content in said)
    assert (open_files(), folders()) == before


@pytest.mark.parametrize("name", ["xorrisofs", "xorriso", "mkisofs"])
def test_xorriso_gets_real_files_in_a_private_folder(tool, name):
    """It does not follow links into memory, whatever name it is called by; the folder is gone afterwards."""
    path = tool("xorriso", HONEST)
    if name != "xorriso":
        os.symlink(str(path), str(path.with_name(name)))
    said = lines(_iso.make_iso(FILES, "cidata"))
    assert [(n, mode, folder, content) for n, path, mode, folder, content in said] == [
        ("meta-data", "400", "700", "one"),
        ("openstack/latest/user_data", "400", "700", "two"),
    ]
    assert not any(os.path.exists(path) for n, path, mode, folder, content in said)


def test_what_a_killed_run_left_is_removed_by_the_next(tool):
    """Its process is gone; folders of living processes stay."""
    tool("xorriso", HONEST)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    stale, living = "/dev/shm/kvmfleet-iso-{0}-x".format(gone.pid), "/dev/shm/kvmfleet-iso-{0}-x".format(os.getpid())
    os.mkdir(stale)
    os.mkdir(living)
    try:
        _iso.make_iso(FILES, "cidata")
        assert not os.path.exists(stale) and os.path.exists(living)
    finally:
        os.rmdir(living)


@pytest.mark.parametrize("name", ["genisoimage", "xorriso"])
@pytest.mark.parametrize("script, reason", [("echo oops >&2; exit 3", "exit code 3.*oops"), ("echo nonsense", "made no ISO image")])
def test_a_failing_tool_is_reported_and_leaves_nothing(tool, name, script, reason):
    """Neither an open file nor a folder."""
    tool(name, "#!/bin/sh\n" + script + "\n")
    before = open_files(), folders()
    with pytest.raises(FleetError, match=reason):
        _iso.make_iso(FILES, "cidata")
    assert (open_files(), folders()) == before


def test_a_missing_tool_is_named(tool):
    """With the packages to install."""
    with pytest.raises(FleetError, match="apt install genisoimage") as caught:
        _iso.make_iso(FILES, "cidata")
    assert caught.value.code == "missing_tool"
