# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a small ISO 9660 image out of files in memory, by whichever tool the host has, without secrets reaching a disk."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import subprocess
import tempfile
from typing import Dict, Iterator, List, Mapping, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError

_TOOLS = (("genisoimage",), ("mkisofs",), ("xorrisofs",), ("xorriso", "-as", "mkisofs"))
_TIMEOUT = 60
_FOLDER = "kvmfleet-iso-"


def _tool() -> Tuple[List[str], bool]:
    """The command to call, and whether it is xorriso behind whatever name."""
    for tool in _TOOLS:
        path = shutil.which(tool[0])
        if path:
            return [path] + list(tool[1:]), "xorriso" in os.path.basename(os.path.realpath(path))
    raise FleetError(
        "No program to make ISO images on this host: install one of genisoimage, xorriso, mkisofs (apt install genisoimage, dnf install xorriso)",
        "missing_tool",
    )


@contextlib.contextmanager
def _memory_files(files: Mapping[str, bytes]) -> Iterator[Tuple[Dict[str, str], List[int]]]:
    """Paths of anonymous memory files, which vanish with this process however it ends, and their descriptors to be inherited."""
    opened: List[int] = []
    paths = {}
    try:
        for name, content in files.items():
            fd = os.memfd_create(os.path.basename(name))
            opened.append(fd)
            with os.fdopen(fd, "wb", closefd=False) as stream:
                stream.write(content)
            os.fchmod(fd, 0o400)
            paths[name] = "/proc/self/fd/{0}".format(fd)
        yield paths, opened
    finally:
        for fd in opened:
            os.close(fd)


@contextlib.contextmanager
def _private_files(files: Mapping[str, bytes]) -> Iterator[Tuple[Dict[str, str], List[int]]]:
    """Paths of files in a private folder (mode 0700, in memory where there is /dev/shm), for xorriso, which wants real paths."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
    for stale in glob.glob(os.path.join(parent, _FOLDER + "*")):
        owner = re.match(r"\d+", os.path.basename(stale)[len(_FOLDER) :])
        if owner and not os.path.exists("/proc/" + owner.group()) and os.lstat(stale).st_uid == os.getuid():
            shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(prefix="{0}{1}-".format(_FOLDER, os.getpid()), dir=parent) as folder:
        paths = {}
        for number, (name, content) in enumerate(sorted(files.items())):
            paths[name] = os.path.join(folder, str(number))
            with open(os.open(paths[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as stream:
                stream.write(content)
        yield paths, []


def make_iso(files: Mapping[str, bytes], volume_id: str) -> bytes:
    """An ISO 9660 image with Rock Ridge and Joliet names. Raises FleetError.

    :param files: path within the image to content
    """
    command, xorriso = _tool()
    try:
        with (_private_files if xorriso else _memory_files)(files) as (paths, inherited):
            arguments = ["-quiet", "-no-pad", "-J", "-R", "-V", volume_id, "-graft-points"]
            # The paths of memory files are symbolic links, which have to be followed.
            arguments += ([] if xorriso else ["-f"]) + ["{0}={1}".format(name, paths[name]) for name in sorted(files)]
            made = subprocess.run(
                command + arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=inherited,
                timeout=_TIMEOUT,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise FleetError("Making an ISO image by {0} failed: {1}".format(command[0], exc), "iso_failed") from exc
    if made.returncode or made.stdout[32769:32774] != b"CD001":
        said = made.stderr.decode("utf-8", "replace").strip()[-500:]
        raise FleetError("{0} made no ISO image (exit code {1}): {2}".format(command[0], made.returncode, said), "iso_failed")
    return made.stdout
