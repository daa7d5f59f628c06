# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module vm_power on real domains: guests that obey, that do not, and that crash."""
from __future__ import annotations

import os
import signal
import time

import libvirt
import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils._metadata import VmMetadata
from ansible_collections.kvmfleet.core.plugins.module_utils._power import ACTIONS, state_of
from ansible_collections.kvmfleet.core.tests.integration.tiny_guests import URI, Guests, eventually, run_module


@pytest.fixture(scope="module")
def conn():
    """The real libvirtd."""
    libvirt.registerErrorHandler(lambda context, error: None, None)
    opened = libvirt.open(URI)
    yield opened
    opened.close()


@pytest.fixture
def guests(conn):
    """Domains of this test's own."""
    made = Guests(conn)
    yield made
    made.clean()


def power(domains, action, **kwargs):
    """vm_power on these domains."""
    return run_module("vm_power", names=[d if isinstance(d, str) else d.name() for d in domains], action=action, **kwargs)


def test_every_step_is_foretold_done_and_done_once(guests):
    """Check mode, real, again: for each action on a guest that obeys."""
    domain = guests.define("obey", "obedient")
    steps = [("start", "running", False), ("pause", "paused", False), ("resume", "running", False), ("reset", "running", True), ("pause", "paused", False),
             ("start", "running", False), ("reboot", "running", True), ("shutdown", "stopped", False), ("start", "running", False),
             ("force_off", "stopped", False)]
    assert {action for action, _state, _repeats in steps} == set(ACTIONS)
    for action, state, repeats in steps:
        before = state_of(domain)
        foretold = power([domain], action, check=True, diff=True)
        assert state_of(domain) == before
        done = power([domain], action, diff=True)
        assert done == foretold
        assert done["changed"] is True and "msg" not in done
        assert done["vms"] == [{"name": domain.name(), "uuid": domain.UUIDString(), "state_before": before, "state": state, "changed": True}]
        assert done["diff"]["before"] == "{0}: {1}\n".format(domain.name(), before)
        assert done["diff"]["after"] != done["diff"]["before"]
        assert state_of(domain) == state
        if not repeats:
            again = power([domain], action)
            assert again["changed"] is False and again["vms"][0]["state"] == state


def test_a_stubborn_guest_is_an_error_that_says_what_helps(guests):
    """The timeout ends the wait, the guest is left running, the others of the call are off; force pulls the plug."""
    stubborn, stopped = guests.define("stub", "stubborn"), guests.define("off")
    stubborn.create()
    refused = power([stopped, stubborn], "shutdown", shutdown_timeout=1)
    assert refused["failed"] is True and refused["reason"] == "shutdown_timeout" and refused["changed"] is False
    assert stubborn.name() in refused["msg"] and "within 1 s" in refused["msg"] and "force" in refused["msg"] and stopped.name() not in refused["msg"]
    assert [vm.get("failed") for vm in refused["vms"]] == [None, True] and refused["vms"][1]["state"] == "running"
    assert stubborn.isActive()
    forced = power([stubborn], "shutdown", shutdown_timeout=0, force=True)
    assert forced["changed"] is True and forced["vms"][0]["state"] == "stopped" and not stubborn.isActive()


def test_many_guests_share_one_deadline(guests):
    """Four stubborn guests cost one timeout, not four."""
    domains = [guests.define("s{0}".format(i), "stubborn") for i in range(4)]
    assert power(domains, "start")["changed"] is True
    timeout = 5
    started = time.monotonic()
    refused = power(domains, "shutdown", shutdown_timeout=timeout)
    assert timeout <= time.monotonic() - started < 3 * timeout
    assert all(domain.name() in refused["msg"] for domain in domains)


@pytest.mark.parametrize("case", ["unknown", "foreign", "group", "claimed", "state"])
def test_what_is_refused_touches_nothing(guests, case):
    """One VM that cannot be meant refuses the request for all."""
    innocent = guests.define("innocent", meta=VmMetadata(group="blue"))
    options = {}
    if case == "unknown":
        other, reason, text = guests.name("nowhere"), "unknown_vm", "no such VM"
    elif case == "foreign":
        other, reason, text = guests.define("other", meta=False), "not_managed", "adopt"
    elif case == "group":
        other, reason, text = guests.define("other", meta=VmMetadata(group="red")), "wrong_group", "group"
        options = {"group": "blue"}
    elif case == "claimed":
        other, reason, text = guests.define("other", meta=VmMetadata(phase="building")), "wrong_state", "another run"
    else:
        other, reason, text = guests.define("other"), "wrong_state", "use action: start"
        innocent.create()
    action = "pause" if case == "state" else "start"
    for check in (True, False):
        refused = power([innocent, other], action, check=check, **options)
        assert refused["failed"] is True and refused["reason"] == reason and text in refused["msg"]
        assert (other if isinstance(other, str) else other.name()) in refused["msg"]
    assert state_of(innocent) == ("running" if case == "state" else "stopped")


def test_foreign_domains_on_request(guests):
    """managed_only: false."""
    domain = guests.define("foreign", meta=False)
    assert power([domain], "start", managed_only=False)["changed"] is True
    assert domain.isActive()


def test_a_crashed_guest(guests):
    """A guest whose kernel panicked, and one whose QEMU was killed: both are seen as crashed and can be started and stopped."""
    domain = guests.define("panic", "panicking")
    power([domain], "start")
    eventually(lambda: state_of(domain) == "crashed")
    assert domain.isActive()
    refused = power([domain], "reboot")
    assert refused["reason"] == "wrong_state" and "reset" in refused["msg"]
    assert power([domain], "start")["vms"][0]["state_before"] == "crashed"
    eventually(lambda: state_of(domain) == "crashed")
    assert power([domain], "shutdown", shutdown_timeout=5)["vms"][0]["state"] == "stopped"

    killed = guests.define("killed")
    killed.create()
    with open("/run/libvirt/qemu/{0}.pid".format(killed.name())) as file:
        os.kill(int(file.read()), signal.SIGKILL)
    eventually(lambda: state_of(killed) == "crashed")
    assert power([killed], "shutdown")["changed"] is False
    assert power([killed], "start")["vms"][0]["state"] == "running"


def test_start_restores_a_managed_save(guests):
    """A saved guest goes on where it was; a saved VM that is off counts as off and keeps its image."""
    domain = guests.define("saved")
    domain.create()
    domain.managedSave(0)
    for action in ("shutdown", "force_off"):
        assert power([domain], action)["changed"] is False
    assert domain.hasManagedSaveImage(0)
    assert power([domain], "start")["changed"] is True
    assert domain.state() == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_RESTORED]
    assert not domain.hasManagedSaveImage(0)


def test_a_paused_guest_is_resumed_to_hear_the_request(guests):
    """A shutdown of a paused guest that obeys is graceful."""
    domain = guests.define("paused", "obedient")
    domain.create()
    domain.suspend()
    done = power([domain], "shutdown", shutdown_timeout=60)
    assert done["vms"] == [{"name": domain.name(), "uuid": domain.UUIDString(), "state_before": "paused", "state": "stopped", "changed": True}]
    assert domain.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN]


def test_a_transient_domain_is_gone_when_off(guests):
    """No definition is left behind by force_off, and that is no error."""
    domain = guests.transient("fleeting")
    done = power([domain], "force_off")
    assert done["changed"] is True and done["vms"][0]["state"] == "absent"
