# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text files on the control node."""
from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils._files import read_text, write_text


def test_what_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    """A folder, and a file in a folder that is not there: check mode says it as the real run does, and nothing is left."""
    for path in (tmp_path, tmp_path / "none" / "file"):
        for check in (True, False):
            with pytest.raises(SpecError, match="option = .*cannot be written"):
                write_text("option", str(path), "text", None, 0o600, check)
    assert list(tmp_path.iterdir()) == []


def test_check_mode_writes_nothing_and_a_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert write_text("option", str(path), "new", None, 0o600, True) and not path.exists()
    assert write_text("option", str(path), "new", None, 0o600)
    os.chmod(path, 0o640)
    assert not write_text("option", str(path), "newer\n", None, 0o600)
    assert (read_text("option", str(path)), stat.S_IMODE(path.stat().st_mode), len(list(tmp_path.iterdir()))) == ("newer\n", 0o640, 1)
    assert read_text("option", str(tmp_path / "none")) is None
