# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's daemons against a systemd of a few lines, which refuses what the real one refuses."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _host_daemons
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._host_daemons import DaemonConverger, kind_of, parse_units, process_of
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError


class Systemd:
    """Units by name: [active, enabled]. A service has a main process; its sockets make it start, and none can be opened while it runs."""

    def __init__(self, kind="monolithic", **more):
        names = ["libvirtd", "libvirtd-ro", "libvirtd-admin"] if kind == "monolithic" else [
            "virt{0}d{1}".format(driver, suffix) for driver in ("qemu", "network", "storage", "proxy") for suffix in ("", "-ro", "-admin")]
        self.main = "libvirtd" if kind == "monolithic" else "virtqemud"
        self.units = {name + ".socket": [False, "disabled"] for name in names}
        self.units.update({name + ".service": [False, "disabled"] for name in names if "-" not in name})
        self.units[_host_daemons.tls_socket(kind)] = [False, "disabled"]
        self.units.update(more)
        self.calls, self.pids, self.instances, self.broken_by_tls, self.comes_back = [], {}, 0, False, 0

    def run(self, command):
        self.calls.append(command[:2] + [c for c in command[2:] if not c.startswith("--")])
        if command[0] == "journalctl":
            return 0, "libvirt version\n\ncertificate is bad\n", ""
        verb, names = command[1], command[2:]
        if verb == "show":
            return 0, "\n\n".join(self._show(name) for name in names[1:]) + "\n", ""
        for name in names:
            code = getattr(self, "_" + verb.replace("-", "_"))(name)
            if code:
                return code, "", "Job for {0} failed".format(name)
        return 0, "", ""

    def _show(self, name):
        if name not in self.units:
            return "Id={0}\nLoadState=not-found\nActiveState=inactive\nUnitFileState=".format(name)
        active, state = self.units[name]
        return "Id={0}\nLoadState=loaded\nActiveState={1}\nUnitFileState={2}\nMainPID={3}".format(
            name, "active" if active else "inactive", state, self.pids.get(name, 0))

    def _enable(self, name):
        self.units[name][1] = "enabled"

    def _disable(self, name):
        self.units[name][1] = "disabled"

    def _reset_failed(self, name):
        return 0

    def _start(self, name):
        service = name.replace("-tls", "").replace("-ro", "").replace("-admin", "").replace(".socket", ".service")
        if name.endswith(".socket") and self.comes_back:
            self.comes_back -= 1
            self.units[service][0] = True
        if name.endswith(".socket") and not self.units[name][0] and self.units[service][0]:
            return 1
        if name == "libvirtd.service" and self.broken_by_tls and self.units["libvirtd-tls.socket"][0]:
            # It tries again and again, and its sockets have failed with it
            self.units[name][0] = True
            self.units.update({socket: [False, "enabled"] for socket in ("libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")})
            return 1
        if name.endswith(".service") and not self.units[name][0]:
            self.pids[name] = os.getpid()
            self.instances += 1
        self.units[name][0] = True
        return 0

    def _stop(self, name):
        self.units[name][0] = False
        self.pids.pop(name, None)

    def _restart(self, name):
        self._stop(name)
        return self._start(name)

    def _try_restart(self, name):
        return self._restart(name) if self.units[name][0] else 0


@pytest.fixture
def files(tmp_path, monkeypatch):
    """libvirt's configuration, and processes that are as old as their systemd says."""
    monkeypatch.setattr(_host_daemons.configuration, "__defaults__", ((str(tmp_path / "*.conf"),), (str(tmp_path / "cert.pem"),)))
    (tmp_path / "libvirtd.conf").write_text("a", encoding="ascii")
    return tmp_path


def converger(systemd, folder, monkeypatch, **wanted):
    monkeypatch.setattr(_host_daemons, "process_of", lambda pid: _host_daemons.Process("{0}:{1}".format(pid, systemd.instances), systemd.started))
    systemd.started = getattr(systemd, "started", time.time() + 60)
    return DaemonConverger(systemd.run, stamp=str(folder / "stamp.json"), **wanted)


def converge(systemd, folder, monkeypatch, **wanted):
    """Check mode says what is then done, and touches nothing; a second run does nothing."""
    before = json.dumps([systemd.units, systemd.pids])
    foretold = converger(systemd, folder, monkeypatch, **wanted).converge(True)
    assert json.dumps([systemd.units, systemd.pids]) == before
    done = converger(systemd, folder, monkeypatch, **wanted).converge(False)
    assert (foretold["actions"], foretold["changed"], foretold["diff"]) == (done["actions"], done["changed"], done["diff"])
    again = converger(systemd, folder, monkeypatch, **wanted).converge(False)
    assert (again["changed"], again["actions"]) == (False, [])
    return done["actions"]


@pytest.mark.parametrize("kind", ["monolithic", "modular"])
def test_daemons_are_enabled_and_started(kind, files, monkeypatch):
    systemd = Systemd(kind)
    assert len(converge(systemd, files, monkeypatch)) == 1 + (1 if kind == "monolithic" else 3)
    tls = _host_daemons.tls_socket(kind)
    wanted = {name: unit for name, unit in systemd.units.items() if name != tls and "proxy" not in name}
    assert all(unit == [True, "enabled"] for unit in wanted.values())
    assert systemd.units[tls] == [False, "disabled"]


@pytest.mark.parametrize("kind, other", [("monolithic", "modular"), ("modular", "monolithic")])
def test_one_kind_takes_over_from_the_other(kind, other, files, monkeypatch):
    """Sockets first, or whoever connects in between starts the old daemon again; TLS goes over."""
    both = dict(Systemd(other).units)
    systemd = Systemd(kind, **both)
    for unit in both.values():
        unit[:] = [True, "enabled"]
    actions = converge(systemd, files, monkeypatch, kind=kind)
    assert actions[0].startswith("stop {0}".format(_host_daemons.tls_socket(other))) and actions[1].startswith("disable ")
    assert all(unit == [False, "disabled"] for name, unit in systemd.units.items() if name in both)
    stopped = next(call[2:] for call in systemd.calls if call[:2] == ["systemctl", "stop"])
    services = [name for name in stopped if name.endswith(".service")]
    assert services and all(stopped.index(name.replace(".service", ".socket")) < stopped.index(name) for name in services)
    assert systemd.units[systemd.main + ".socket"] == [True, "enabled"] and systemd.units[_host_daemons.tls_socket(kind)] == [True, "enabled"]


@pytest.mark.parametrize("flaw", ["masked", "no TLS"])
def test_the_other_kind_is_not_ended_for_one_that_cannot_start(flaw, files, monkeypatch):
    both = dict(Systemd("monolithic").units)
    systemd = Systemd("modular", **both)
    for unit in both.values():
        unit[:] = [True, "enabled"]
    if flaw == "masked":
        systemd.units["virtqemud.socket"][1] = "masked"
    else:
        del systemd.units[_host_daemons.tls_socket("modular")]
    with pytest.raises(SpecError):
        converger(systemd, files, monkeypatch, kind="modular").converge(False)
    assert all(unit == [True, "enabled"] for name, unit in systemd.units.items() if name in both)


def test_an_idle_daemon_is_left_alone(files, monkeypatch):
    systemd = Systemd()
    converge(systemd, files, monkeypatch)
    systemd.run(["systemctl", "stop", "libvirtd.service"])
    assert converge(systemd, files, monkeypatch) == []
    assert systemd.units["libvirtd.service"][0] is False


def test_a_daemon_without_sockets_is_left_alone(files, monkeypatch):
    """A site that has it listen by itself."""
    systemd = Systemd()
    systemd.units = {"libvirtd.service": [True, "enabled"]}
    systemd.pids = {"libvirtd.service": os.getpid()}
    assert converge(systemd, files, monkeypatch) == []


def test_which_kind_is_found():
    def units(states):
        return parse_units("\n\n".join("Id={0}\nLoadState=loaded\nActiveState={1}\nUnitFileState={2}".format(name, *state) for name, state in states.items()))
    modular = {"virtqemud.socket": ("active", "enabled")}
    assert kind_of(units({"libvirtd.service": ("inactive", "disabled"), **modular})) == "modular"
    assert kind_of(units({"libvirtd.service": ("active", "disabled"), **modular})) == "monolithic"
    assert kind_of(units({"libvirtd.service": ("inactive", "disabled")})) == "monolithic"
    with pytest.raises(FleetError, match="No libvirt daemon"):
        kind_of(units({"other.service": ("active", "enabled")}))


def test_a_masked_unit_is_refused(files, monkeypatch):
    systemd = Systemd()
    systemd.units["libvirtd.socket"][1] = "masked"
    with pytest.raises(SpecError, match="unmask libvirtd.socket"):
        converger(systemd, files, monkeypatch).converge(True)


def test_a_kind_that_is_not_there(files, monkeypatch):
    with pytest.raises(SpecError) as caught:
        converger(Systemd(), files, monkeypatch, kind="modular").converge(False)
    assert caught.value.code == "no_libvirt"


def test_tls_goes_on_and_off(files, monkeypatch):
    systemd = Systemd()
    converge(systemd, files, monkeypatch)
    systemd.comes_back = 3  # others connect between stop and start
    assert converge(systemd, files, monkeypatch, tls=True) == ["switch TLS on (libvirtd-tls.socket)"]
    assert systemd.units["libvirtd-tls.socket"] == [True, "enabled"] and systemd.units["libvirtd.service"][0]
    assert converge(systemd, files, monkeypatch) == [], "not asked about, it stays as it is"
    before = systemd.instances
    assert converge(systemd, files, monkeypatch, tls=False) == ["switch TLS off (libvirtd-tls.socket)"]
    assert systemd.units["libvirtd-tls.socket"] == [False, "disabled"]
    assert systemd.instances == before + 1, "the daemon that has the socket open has ended"


def test_a_daemon_that_does_not_start_with_tls_starts_without_it(files, monkeypatch):
    systemd = Systemd()
    converge(systemd, files, monkeypatch)
    systemd.broken_by_tls = True
    with pytest.raises(FleetError, match="started without it again.*certificate is bad"):
        converger(systemd, files, monkeypatch, tls=True).converge(False)
    assert systemd.units["libvirtd-tls.socket"] == [False, "disabled"] and systemd.units["libvirtd.service"][0] and systemd.units["libvirtd.socket"][0]


def test_a_restart_that_was_owed_is_made_up_for(files, monkeypatch):
    systemd = Systemd()
    converge(systemd, files, monkeypatch)
    (files / "libvirtd.conf").write_text("b", encoding="ascii")
    (files / "new.conf").write_text("c", encoding="ascii")
    (files / "libvirtd.conf").touch()
    assert converge(systemd, files, monkeypatch) == ["restart libvirtd, which has not read {0}, {1}".format(files / "libvirtd.conf", files / "new.conf")]
    (files / "new.conf").unlink()
    assert len(converge(systemd, files, monkeypatch)) == 1
    (files / "libvirtd.conf").touch()
    assert converge(systemd, files, monkeypatch) == [], "only what is in it matters"
    (files / "cert.pem").write_text("x", encoding="ascii")
    assert converge(systemd, files, monkeypatch) == [], "TLS is off"


def test_a_daemon_that_others_have_started_is_judged_by_its_age(files, monkeypatch):
    systemd = Systemd()
    converge(systemd, files, monkeypatch)
    (files / "stamp.json").write_text("not JSON", encoding="ascii")
    systemd.started = time.time() - 60
    assert len(converger(systemd, files, monkeypatch).converge(True)["actions"]) == 1, "the file is younger"
    systemd.started = time.time() + 60
    assert converge(systemd, files, monkeypatch) == []


def test_when_a_process_began():
    before = time.time()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            seen = process_of(child.pid)
            assert before - 2 < seen.started < time.time() + 2
            assert process_of(child.pid).instance == seen.instance
        finally:
            child.communicate(b"\n")
    assert process_of(child.pid) is None
