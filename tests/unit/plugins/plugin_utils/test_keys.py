# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH keys: given ones are checked, a made one is made once, and a private one is never shown."""
from __future__ import annotations

import os
import pathlib
import stat
import subprocess
import threading
from typing import Any, Dict, List

import pytest
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _keys

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA me@laptop"


def values(folder: pathlib.Path, **given: Any) -> Dict[str, Any]:
    return dict({"vm_ssh_key": None, "vm_key_dir": str(folder / "keys"), "vm_key_name": None}, **given)


def test_a_pair_is_made_once(tmp_path: pathlib.Path) -> None:
    first = _keys.keys_for(values(tmp_path), "web", False, False)
    path = tmp_path / "keys" / "web"
    assert first.path == str(path) and first.name == "web"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert first.public == [path.with_suffix(".pub").read_text().strip()]
    assert _keys.keys_for(values(tmp_path), "web", False, False) == first
    assert sorted(os.listdir(tmp_path / "keys")) == ["web", "web.pub"]
    assert "PRIVATE" not in repr(first)


def test_openssh_reads_the_pair(tmp_path: pathlib.Path) -> None:
    keys = _keys.keys_for(values(tmp_path), "web", False, False)
    derived = subprocess.run(["ssh-keygen", "-y", "-f", str(keys.path)], check=True, capture_output=True, text=True).stdout
    assert derived.split()[:2] == keys.public[0].split()[:2]


def test_many_runs_at_once_end_with_one_pair(tmp_path: pathlib.Path) -> None:
    found: List[_keys.Keys] = []
    threads = [threading.Thread(target=lambda: found.append(_keys.key_pair(str(tmp_path / "k"), "web", False))) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16 and len({k.public[0] for k in found}) == 1
    assert sorted(os.listdir(tmp_path / "k")) == ["web", "web.pub"]


def test_a_lost_public_key_is_derived_again(tmp_path: pathlib.Path) -> None:
    first = _keys.key_pair(str(tmp_path), "web", False)
    (tmp_path / "web.pub").unlink()
    assert _keys.key_pair(str(tmp_path), "web", False).public == first.public


def test_check_mode_keeps_nothing(tmp_path: pathlib.Path) -> None:
    keys = _keys.keys_for(values(tmp_path), "web", True, False)
    assert keys.public and not keys.path and "would be made" in str(keys.note)
    assert not (tmp_path / "keys").exists()


def test_a_private_key_that_others_can_read_is_refused(tmp_path: pathlib.Path) -> None:
    _keys.key_pair(str(tmp_path), "web", False)
    (tmp_path / "web").chmod(0o644)
    with pytest.raises(SpecError, match="chmod 600"):
        _keys.key_pair(str(tmp_path), "web", False)


def test_a_foreign_file_in_the_way_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "web").write_text("my shopping list")
    (tmp_path / "web").chmod(0o600)
    with pytest.raises(SpecError, match="no OpenSSH private key"):
        _keys.key_pair(str(tmp_path), "web", False)
    assert (tmp_path / "web").read_text() == "my shopping list"


@pytest.mark.parametrize("name", ["../web", "a/b", "", ".hidden", "a b"])
def test_key_names_are_file_names(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(SpecError):
        _keys.key_pair(str(tmp_path), name, False)


@pytest.mark.parametrize("variables, environment, awx", [
    ({}, {}, False), ({"awx_job_id": 7}, {}, True), ({"tower_job_id": "7"}, {}, True), ({}, {"AWX_JOB_ID": "7"}, True), ({}, {"TOWER_JOB_ID": "7"}, True),
])
def test_awx_is_recognised(variables: dict, environment: dict, awx: bool) -> None:
    assert _keys.under_awx(variables, environment) is awx


def test_under_awx_a_key_is_required(tmp_path: pathlib.Path) -> None:
    with pytest.raises(SpecError, match="would be lost") as caught:
        _keys.keys_for(values(tmp_path), "web", False, True)
    assert caught.value.option == "vm_ssh_key" and not (tmp_path / "keys").exists()
    assert _keys.keys_for(values(tmp_path, vm_ssh_key=KEY), "web", False, True).public == [KEY]


def test_none_is_no_key(tmp_path: pathlib.Path) -> None:
    assert _keys.keys_for(values(tmp_path, vm_ssh_key="none"), "web", False, False) == _keys.Keys()


@pytest.mark.parametrize("given", [KEY, [KEY], KEY + "\n", KEY + "\n" + KEY])
def test_a_given_text(tmp_path: pathlib.Path, given: Any) -> None:
    keys = _keys.keys_for(values(tmp_path, vm_ssh_key=given), "web", False, False)
    assert (keys.public, keys.name, keys.path) == ([KEY], "me@laptop", None)


def test_a_given_path(tmp_path: pathlib.Path) -> None:
    made = _keys.key_pair(str(tmp_path), "id_web", False)
    for path in (str(tmp_path / "id_web"), str(tmp_path / "id_web.pub")):
        keys = _keys.given_keys("vm_ssh_key", path)
        assert (keys.public, keys.name, keys.path) == (made.public, "id_web", str(tmp_path / "id_web"))


@pytest.mark.parametrize("given, reason", [
    ("ssh-ed25519 AAAA", "body"), ("ssh-ed25519", "Quote it"),
    ("ssh-rsa!", "not an OpenSSH public key"), ("/nowhere/id.pub", "cannot be read"), ("nothing", "not an OpenSSH public key"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
])
def test_invalid_keys_are_refused(given: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        _keys.given_keys("vm_ssh_key", given)
    assert caught.value.option.startswith("vm_ssh_key")


def test_a_private_key_alone_is_refused_and_not_shown(tmp_path: pathlib.Path) -> None:
    made = _keys.key_pair(str(tmp_path), "web", False)
    (tmp_path / "web.pub").unlink()
    with pytest.raises(SpecError, match="ssh-keygen -y") as caught:
        _keys.given_keys("vm_ssh_key", str(tmp_path / "web"))
    body = (tmp_path / "web").read_text().splitlines()[1]
    assert body not in str(caught.value) and made.public
    with pytest.raises(SpecError) as caught:
        _keys.given_keys("vm_ssh_key", (tmp_path / "web").read_text())
    assert body not in str(caught.value)
