# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's TLS files on a host: whose they are, and that a run that dies leaves nothing that looks like somebody else's."""
from __future__ import annotations

import os
import stat

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _host_tls
from ansible_collections.kvmfleet.core.plugins.module_utils._host_tls import FILES, TlsFiles
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

ONE = {"ca": "ca 1", "certificate": "certificate 1", "key": "key 1"}
TWO = {"ca": "ca 2", "certificate": "certificate 2", "key": "key 2"}


def files(root):
    return TlsFiles(str(root))


def put(root, **texts):
    for name, text in texts.items():
        path = files(root).paths[name]
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)


def present(root, wanted, overwrite=False):
    """Check mode says what is then done; a second run does nothing."""
    foretold = files(root).present(wanted, overwrite, True)
    done = files(root).present(wanted, overwrite, False)
    assert foretold == done
    assert files(root).there == wanted
    assert files(root).present(wanted, False, False)["actions"] == []
    return done


def test_files_are_written_replaced_and_removed(tmp_path):
    assert len(present(tmp_path, ONE)["actions"]) == 3
    assert stat.S_IMODE(os.stat(tmp_path / FILES["key"][1:]).st_mode) == 0o600
    assert files(tmp_path).query()["foreign"] == []
    assert len(present(tmp_path, dict(TWO, ca="ca 1"))["actions"]) == 2
    assert "key" not in str(present(tmp_path, TWO)["diff"]["after"].values())
    assert len(files(tmp_path).absent(True)["actions"]) == 3 and files(tmp_path).there == TWO
    files(tmp_path).absent(False)
    assert set(files(tmp_path).there.values()) == {None}
    assert files(tmp_path).absent(False)["changed"] is False


def test_what_others_have_put_there(tmp_path):
    put(tmp_path, certificate="theirs")
    for check in (True, False):
        with pytest.raises(SpecError) as caught:
            files(tmp_path).present(ONE, False, check)
        assert caught.value.code == "foreign_certificate" and FILES["certificate"] in str(caught.value)
    assert files(tmp_path).there == {"ca": None, "certificate": "theirs", "key": None}
    assert files(tmp_path).absent(False)["changed"] is False and files(tmp_path).there["certificate"] == "theirs"
    present(tmp_path, ONE, overwrite=True)
    put(tmp_path, key="edited")
    assert files(tmp_path).query()["foreign"] == [str(tmp_path / FILES["key"][1:])]


def test_the_same_files_are_taken_over(tmp_path):
    put(tmp_path, **ONE)
    assert present(tmp_path, ONE)["changed"] is False
    assert len(present(tmp_path, TWO)["actions"]) == 3, "from then on they are ours"


@pytest.mark.parametrize("fatal", range(1, 6))
def test_a_run_that_dies_anywhere_leaves_nothing_foreign(tmp_path, monkeypatch, fatal):
    present(tmp_path, ONE)
    calls = []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == fatal:
            raise KeyboardInterrupt
        return replace(*arguments)
    replace = _host_tls.replace
    with monkeypatch.context() as patch:
        patch.setattr(_host_tls, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            files(tmp_path).present(TWO, False, False)
    assert files(tmp_path).query()["foreign"] == []
    present(tmp_path, TWO)
