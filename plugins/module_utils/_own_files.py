# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files of ours on a host: read, and replaced as a whole."""
from __future__ import annotations

import os
import tempfile
from typing import Optional


def read_text(path: str) -> Optional[str]:
    """The content of a small text file, or None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return None


def replace(path: str, content: str, mode: int = 0o644, folder_mode: int = 0o755) -> None:
    """Write a file; a reader sees the old one or the new one, never half of one, also after a power failure.

    :param folder_mode: of its folder, where that has to be made
    """
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=folder_mode, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".{0}-".format(os.path.basename(path)), dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as handle:
            handle.write(content)
            os.fchmod(handle.fileno(), mode)
            handle.flush()
            os.fsync(handle.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
