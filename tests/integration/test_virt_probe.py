# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe on the real libvirtd, with the answer kept elsewhere than this machine's own."""
from __future__ import annotations

import functools
import os

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _virt_probe
from ansible_collections.kvmfleet.core.plugins.modules import virt_probe


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where the answer is kept during a test."""
    path = str(tmp_path / "state" / "virt_type")
    monkeypatch.setattr(virt_probe, "settle", functools.partial(_virt_probe.settle, path=path))
    return path


def test_the_probe_is_asked_once_and_then_kept(conn, run_module, kept):
    foretold = run_module("virt_probe", check=True)
    assert not os.path.exists(kept)
    found = run_module("virt_probe")
    assert found["virt_type"] == foretold["virt_type"]
    assert found["changed"] is foretold["changed"] is True
    assert found["cached"] is False
    assert found["diff"] == foretold["diff"] == {"before": {"virt_type": None}, "after": {"virt_type": found["virt_type"]}}
    assert _virt_probe.kept_virt_type(kept) == found["virt_type"]
    assert os.stat(kept).st_mode & 0o777 == 0o644
    again = run_module("virt_probe")
    assert (again["changed"], again["cached"], again["virt_type"]) == (False, True, found["virt_type"])
    assert not [d.name() for d in conn.listAllDomains() if d.name().startswith("kvmfleet-probe-")]


def test_without_kvm_it_is_qemu_and_says_why(conn, run_module, kept):
    found = run_module("virt_probe", force=True)
    assert found["virt_type"] in found["offered"]
    assert found["reason"]
    if not os.path.exists("/dev/kvm"):
        assert found["virt_type"] == "qemu"


def test_a_choice_overrules_and_is_kept(run_module, kept):
    assert run_module("virt_probe", virt_type="kvm", check=True)["changed"] is True
    assert _virt_probe.kept_virt_type(kept) is None
    chosen = run_module("virt_probe", virt_type="kvm")
    assert (chosen["virt_type"], chosen["changed"]) == ("kvm", True)
    assert run_module("virt_probe")["virt_type"] == "kvm"
    assert run_module("virt_probe", virt_type="kvm")["changed"] is False
    assert run_module("virt_probe", virt_type="qemu")["changed"] is True
    assert _virt_probe.kept_virt_type(kept) == "qemu"


def test_force_probes_although_an_answer_is_kept(conn, run_module, kept):
    truth = _virt_probe.probe(conn).virt_type
    run_module("virt_probe", virt_type="kvm" if truth == "qemu" else "qemu")
    found = run_module("virt_probe", force=True)
    assert (found["virt_type"], found["changed"], found["cached"]) == (truth, True, False)
