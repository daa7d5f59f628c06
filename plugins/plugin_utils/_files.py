# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text files on the control node: read, and written as a whole or not at all."""
from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from typing import Any, Optional

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError


def mode_of(option: str, value: Any) -> Optional[int]:
    """Permissions out of a text such as C(0644), or the number that YAML makes of it without quotes; None where none were given. Raises SpecError."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        mode: Optional[int] = int(value)
    else:
        mode = int(str(value), 8) if re.match("^[0-7]{3,4}$", str(value)) else None
    if mode is None or not 0 <= mode <= 0o777:
        raise SpecError(option, value, "is no mode of a file", "Write it in octal and in quotes, such as '0644'")
    return mode


def _failure(option: str, path: str, what: str, exc: Exception) -> SpecError:
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return SpecError(option, path, "{0} ({1})".format(what, text), "Give a path in a folder that exists and that this user may use", "file_error")


def read_text(option: str, path: str) -> Optional[str]:
    """A file's text, None where it is not there; bytes that are no text become replacement characters. Raises SpecError."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _failure(option, path, "cannot be read", exc) from None


def write_text(option: str, path: str, text: str, mode: Optional[int], new_mode: int, check_mode: bool = False) -> bool:
    """Write a file so that a reader sees the old or the new one and nothing between. Raises SpecError.

    :param mode: its permissions; without them a file that is there keeps its own, and another one gets C(new_mode)
    :return: whether the permissions change
    """
    folder = os.path.dirname(path)
    try:
        there: Optional[int] = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        there = None
    wanted = mode if mode is not None else new_mode if there is None else there
    if os.path.isdir(path):
        raise _failure(option, path, "cannot be written", IsADirectoryError(0, "it is a folder"))
    if check_mode:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _failure(option, path, "cannot be written", PermissionError(0, "no folder that may be written to") if os.path.isdir(folder)
                           else FileNotFoundError(0, "there is no such folder"))
        return wanted != there
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=folder)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), wanted)
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as exc:
        raise _failure(option, path, "cannot be written", exc) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    return wanted != there
