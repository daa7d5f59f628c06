# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe's verdicts on hosts that are made up, and how an answer is kept."""
from __future__ import annotations

import os
import xml.etree.ElementTree as ET

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _virt_probe
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError

libvirt = pytest.importorskip("libvirt")


def capabilities(*types, arch="x86_64"):
    domains = "".join("<domain type='{0}'/>".format(t) for t in types)
    return ("<capabilities><host><cpu><arch>x86_64</arch></cpu></host><guest><arch name='{0}'>{1}</arch></guest>"
            "<guest><arch name='aarch64'><domain type='qemu'/></arch></guest></capabilities>").format(arch, domains)


class Domain:
    """A guest that is in these states in turn; None means it is gone."""

    def __init__(self, *states):
        self.states, self.destroyed = list(states), False

    def state(self):
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if state is None:
            error = libvirt.libvirtError("Domain not found")
            error.err = (libvirt.VIR_ERR_NO_DOMAIN, 0, "Domain not found", 0, "", None, None, 0, 0)
            raise error
        return [state, 0]

    def destroy(self):
        self.destroyed = True


class Conn:
    """A connection that offers types and starts a guest, or fails to."""

    def __init__(self, types=("kvm", "qemu"), domain=None):
        self.types, self.domain, self.started = types, domain, []

    def getCapabilities(self):
        return capabilities(*self.types)

    def createXML(self, xml, flags):
        self.started.append(ET.fromstring(xml))
        if self.domain is None:
            raise libvirt.libvirtError("no MSR")
        return self.domain


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_virt_probe.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(_virt_probe.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_a_guest_that_keeps_running_means_kvm(clock):
    conn = Conn(domain=Domain(libvirt.VIR_DOMAIN_RUNNING))
    assert _virt_probe.probe(conn).virt_type == "kvm"
    assert clock[0] >= 2.0
    assert conn.domain.destroyed
    xml, = conn.started
    assert xml.get("type") == "kvm"
    assert xml.find("cpu").get("mode") == "host-passthrough"
    assert xml.find("devices/disk") is None
    assert xml.find("devices/interface") is None


@pytest.mark.parametrize("states", [
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING, None), (libvirt.VIR_DOMAIN_CRASHED,), (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED),
    (libvirt.VIR_DOMAIN_SHUTOFF,), (None,),
])
def test_a_guest_that_dies_means_qemu(states):
    verdict = _virt_probe.probe(Conn(domain=Domain(*states)))
    assert verdict.virt_type == "qemu"
    assert "at once" in verdict.reason


def test_a_guest_that_does_not_start_means_qemu():
    verdict = _virt_probe.probe(Conn())
    assert verdict.virt_type == "qemu"
    assert "no MSR" in verdict.reason


def test_where_kvm_is_not_offered_nothing_is_started():
    conn = Conn(types=("qemu",))
    assert _virt_probe.probe(conn).virt_type == "qemu"
    assert conn.started == []


def test_a_host_without_anything():
    with pytest.raises(FleetError, match="qemu-system-x86"):
        _virt_probe.probe(Conn(types=()))


def test_only_the_hosts_own_architecture_counts():
    assert _virt_probe.offered(capabilities("kvm", arch="armv7l")) == []
    assert _virt_probe.offered(capabilities("qemu", "kvm", "xen")) == ["kvm", "qemu"]


def test_check_mode_keeps_nothing(tmp_path):
    path = str(tmp_path / "a" / "virt_type")
    conn = Conn(types=("qemu",))
    assert _virt_probe.settle(conn, "auto", False, True, path)["changed"] is True
    assert not (tmp_path / "a").exists()
    assert _virt_probe.settle(conn, "auto", False, False, path)["changed"] is True
    assert os.listdir(tmp_path / "a") == ["virt_type"]
    again = _virt_probe.settle(conn, "auto", False, False, path)
    assert (again["changed"], again["cached"]) == (False, True)


def test_a_failed_write_keeps_the_old_answer(tmp_path, monkeypatch):
    path = str(tmp_path / "virt_type")
    _virt_probe.keep("kvm", path)

    def fail(source, target):
        raise OSError("no")
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="no"):
        _virt_probe.keep("qemu", path)
    assert _virt_probe.kept_virt_type(path) == "kvm"
    assert os.listdir(tmp_path) == ["virt_type"]


@pytest.mark.parametrize("content", ["", "xen\n", "\xff\xfe"])
def test_a_kept_answer_that_is_none(tmp_path, content):
    path = tmp_path / "virt_type"
    path.write_text(content, encoding="latin-1")
    assert _virt_probe.kept_virt_type(str(path)) is None
