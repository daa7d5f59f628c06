# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file in which a module tells how far it is."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _progress
from ansible_collections.kvmfleet.core.plugins.module_utils._progress import Progress

NOBODY = 65534


def seen(path, condition):
    """The content of the file as soon as it is as wanted."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists():
            states = json.loads(path.read_text(encoding="utf-8"))
            if condition(states):
                return states
        time.sleep(0.01)
    raise AssertionError("never seen")


def test_what_is_said_is_written_and_goes_with_the_module(tmp_path):
    path = tmp_path / "progress" / "run-1"
    progress = Progress(str(path), 0, 0.01)
    try:
        progress.say("web-1", "waiting")
        assert seen(path, lambda states: "web-1" in states) == {"web-1": ["waiting", False]}
        assert (os.stat(path).st_mode & 0o777, os.stat(path.parent).st_mode & 0o777) == (0o600, 0o700)
        progress.say("web-1", "there", done=True)
        assert seen(path, lambda states: states["web-1"][1]) == {"web-1": ["there", True]}
    finally:
        progress.close()
    assert os.listdir(path.parent) == []


def test_a_callable_is_asked_anew_and_its_faults_are_passed_over(tmp_path):
    path, answers = tmp_path / "run-1", iter(["one", ValueError("closed"), OSError("gone")])

    def far():
        answer = next(answers, "last")
        if isinstance(answer, Exception):
            raise answer
        return answer
    progress = Progress(str(path), 0, 0.01)
    try:
        progress.say("image", far)
        assert seen(path, lambda states: states == {"image": ["last", False]})
    finally:
        progress.close()


def test_fast_work_writes_nothing(tmp_path):
    path = tmp_path / "run-1"
    progress = Progress(str(path), 3600)
    progress.say("web-1", "waiting")
    progress.close()
    assert os.listdir(tmp_path) == []


def test_without_a_place_to_write_to_the_work_goes_on(tmp_path):
    (tmp_path / "file").write_text("")
    progress = Progress(str(tmp_path / "file" / "progress" / "run-1"), 0, 0.01)
    progress.say("web-1", "waiting")
    progress.close()


def test_files_of_killed_runs_go_after_a_day(tmp_path):
    for name, age in (("run-old", 100000), ("run-new", 10), ("other", 100000)):
        (tmp_path / name).write_text("{}")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    progress = Progress(str(tmp_path / "run-1"), 0, 0.01)
    progress.say("web-1", "waiting")
    seen(tmp_path / "run-1", lambda states: states)
    progress.close()
    assert sorted(os.listdir(tmp_path)) == ["other", "run-new"]


@pytest.fixture
def shared(monkeypatch):
    """A folder that several users may write to, as /run/kvmfleet is for root and the group libvirt."""
    folder = Path(tempfile.mkdtemp(prefix="kvmfleet-run-"))  # into pytest's own nobody else is let
    folder.chmod(0o777)
    monkeypatch.setattr(_progress, "FOLDER", str(folder / "progress"))
    yield folder
    shutil.rmtree(folder)


def told(name):
    """What the control node reads while a module tells something; None where it sees nothing."""
    path = os.path.join(_progress.FOLDER, name)
    progress = Progress(_progress.own_path(path), 0, 0.01)
    try:
        progress.say("web-1", "waiting")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and progress._thread.is_alive():
            done = subprocess.run(_progress.reading(path), capture_output=True, text=True, check=False, user=os.geteuid())
            if done.returncode == 0 and json.loads(done.stdout):
                return json.loads(done.stdout)
            time.sleep(0.01)
        return None
    finally:
        progress.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_each_user_has_a_folder_of_his_own(shared):
    assert told("run-1") == {"web-1": ["waiting", False]}
    os.seteuid(NOBODY)
    try:
        assert told("run-2") == {"web-1": ["waiting", False]}
    finally:
        os.seteuid(0)
    assert {(path.name, path.stat().st_mode & 0o777) for path in shared.iterdir()} == {("progress-0", 0o700), ("progress-{0}".format(NOBODY), 0o700)}


def test_a_folder_that_somebody_else_has_made_is_not_written_to(shared, monkeypatch):
    (shared / "progress-4711").mkdir(mode=0o777)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    path = _progress.own_path(os.path.join(_progress.FOLDER, "run-1"))
    with pytest.raises(PermissionError):
        _progress._write(path, "{}")
    assert os.listdir(shared / "progress-4711") == []


def test_a_file_elsewhere_stays_there(shared):
    assert _progress.own_path("/tmp/mine/run-1") == "/tmp/mine/run-1" and _progress.reading("/tmp/mine/run-1") == ["cat", "/tmp/mine/run-1"]
