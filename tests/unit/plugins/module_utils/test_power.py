# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power states as pure tables, and requests to agents that answer, hang or fail."""
from __future__ import annotations

import threading

import libvirt
import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _power
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError

CHANNEL = "<domain><devices><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='{0}'/></channel></devices></domain>"


class FakeDomain:
    """A domain with an agent: C(alive), C(hung) or C(failing), or none (C(disconnected)); notes what it is asked."""

    def __init__(self, agent, state=libvirt.VIR_DOMAIN_RUNNING):
        self.agent, self.raw, self.asked, self.release = agent, state, [], threading.Event()

    def name(self):
        return "web1"

    def state(self):
        return [self.raw, 0]

    def XMLDesc(self, _flags):
        return CHANNEL.format("disconnected" if self.agent == "disconnected" else "connected")

    def getTime(self, _flags):
        if self.agent == "hung":
            self.release.wait(60)
        if self.agent == "failing":
            raise libvirt.libvirtError("the agent says no")
        return {}

    def shutdownFlags(self, flags):
        self.asked.append(flags)
        self.raw = libvirt.VIR_DOMAIN_SHUTOFF

    def reboot(self, flags):
        self.asked.append(flags)


@pytest.mark.parametrize("state, reason, name", [
    (libvirt.VIR_DOMAIN_RUNNING, 0, "running"), (libvirt.VIR_DOMAIN_BLOCKED, 0, "running"), (libvirt.VIR_DOMAIN_PAUSED, 0, "paused"),
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, "paused"), (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_CRASHED, "crashed"),
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN, "stopping"), (libvirt.VIR_DOMAIN_SHUTDOWN, 0, "stopping"),
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SAVED, "stopped"), (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, "crashed"),
    (libvirt.VIR_DOMAIN_CRASHED, libvirt.VIR_DOMAIN_CRASHED_PANICKED, "crashed"), (libvirt.VIR_DOMAIN_PMSUSPENDED, 0, "paused"),
])
def test_states_by_libvirts_own_numbers(state, reason, name):
    """The numbers in the table are those of libvirt; phases that are not the user's win, ready does not."""
    assert _power.state_name(state, reason) == name
    assert _power.state_name(state, reason, "ready") == name
    for phase in ("pending", "building", "deleting", "failed"):
        assert _power.state_name(state, reason, phase) == phase


@pytest.mark.parametrize("state", ["running", "paused", "stopping", "stopped", "crashed"])
@pytest.mark.parametrize("action", _power.ACTIONS)
def test_plan_is_yes_no_or_a_remedy(action, state):
    """Every action has an answer in every state; a refusal names both and what to do."""
    try:
        changes = _power.plan(action, state)
    except FleetError as exc:
        assert exc.code == "wrong_state" and exc.data == {"action": action, "state": state}
        assert action in str(exc) and state in str(exc) and str(exc).count(". ") == 1
    else:
        assert changes is not (state in {"start": ["running"], "resume": ["running"], "pause": ["paused"], "shutdown": ["stopped"],
                                         "force_off": ["stopped"]}.get(action, []))


@pytest.mark.parametrize("action", _power.ACTIONS)
@pytest.mark.parametrize("phase", ["pending", "building", "deleting"])
def test_a_claimed_vm_is_another_runs(action, phase):
    """Nothing is done to it."""
    with pytest.raises(FleetError, match="another run"):
        _power.plan(action, phase)


def test_a_crashed_process_that_is_gone_is_off():
    """To stop it changes nothing, to start it does."""
    assert _power.plan("shutdown", "crashed", active=False) is False and _power.plan("force_off", "crashed", active=False) is False
    assert _power.plan("shutdown", "crashed", active=True) is True and _power.plan("start", "crashed", active=False) is True
    with pytest.raises(FleetError):
        _power.plan("reset", "crashed", active=False)


@pytest.mark.parametrize("agent, flags", [
    ("alive", libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT), ("hung", libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN),
    ("failing", libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN), ("disconnected", 0),
])
def test_shutdown_asks_the_agent_only_if_it_answers(monkeypatch, agent, flags):
    """A hung agent costs its timeout, then the power button is pressed, and libvirt is told not to ask the agent again."""
    monkeypatch.setattr(_power, "_AGENT_ANSWER_S", 0.2)
    domain = FakeDomain(agent)
    assert _power.shutdown(domain, 30) == "shutdown"
    assert domain.asked == [flags]
    domain.release.set()


@pytest.mark.parametrize("agent, flags", [
    ("alive", libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT), ("hung", libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN),
    ("failing", libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN), ("disconnected", 0),
])
def test_reboot_asks_once(monkeypatch, agent, flags):
    """By agent or by button, never both."""
    monkeypatch.setattr(_power, "_AGENT_ANSWER_S", 0.2)
    domain = FakeDomain(agent)
    assert _power.reboot(domain) is True
    assert domain.asked == [flags]
    domain.release.set()


def test_a_guest_in_its_boot_is_asked_again(monkeypatch):
    """The first press of the button is lost; a later one is heard."""
    monkeypatch.setattr(_power, "_ASK_AGAIN_S", 0.05)

    class Booting(FakeDomain):
        def shutdownFlags(self, flags):
            self.asked.append(flags)
            if len(self.asked) == 3:
                self.raw = libvirt.VIR_DOMAIN_SHUTOFF
    domain = Booting("disconnected")
    assert _power.shutdown(domain, 30) == "shutdown" and len(domain.asked) == 3


def test_failures_of_several_vms_are_one_error():
    """Each is named; different reasons make a reason of their own."""
    def failed(name, code):
        return _power.Target(None, name, "", "running", False, "running", FleetError(name + " failed", code))
    fine = _power.Target(None, "ok", "", "running", True, "stopped")
    assert _power.failure_of([fine]) is None
    one = _power.failure_of([failed("a", "shutdown_timeout"), fine, failed("b", "shutdown_timeout")])
    assert str(one) == "a failed; b failed" and one.code == "shutdown_timeout"
    assert _power.failure_of([failed("a", "x"), failed("b", "y")]).code == "several_failed"
