# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power states of a domain, and the seven ways to change them."""
from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, Optional, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError, is_gone
from ansible_collections.kvmfleet.core.plugins.module_utils._guest import agent_connected

try:
    import libvirt
except ImportError:
    pass  # run_module says so

ACTIONS = ("start", "shutdown", "force_off", "reboot", "reset", "pause", "resume")
CLAIMED_PHASES = ("pending", "building", "deleting")  # another run is at work on the VM
PHASE_STATES = CLAIMED_PHASES + ("failed",)

# A guest that is still booting ignores the power button, so it is pressed again until the deadline.
_ASK_AGAIN_S = 10.0
# How long the agent may take to accept a request before the power button is pressed as well.
_AGENT_ACCEPT_S = 3.0
_POLL_FIRST_S, _POLL_MAX_S = 0.02, 0.25

# Numbers of virDomainState and its reasons, which are libvirt's stable ABI: this table also works on what bulk statistics return.
_RUNNING, _BLOCKED, _PAUSED, _SHUTDOWN, _SHUTOFF, _CRASHED, _PMSUSPENDED = 1, 2, 3, 4, 5, 6, 7
_PAUSED_SHUTTING_DOWN, _PAUSED_CRASHED, _SHUTOFF_CRASHED = 8, 10, 3
_STATES = {_RUNNING: "running", _BLOCKED: "running", _PAUSED: "paused", _SHUTDOWN: "stopping", _SHUTOFF: "stopped", _CRASHED: "crashed",
           _PMSUSPENDED: "paused"}
_REASONS = {(_PAUSED, _PAUSED_SHUTTING_DOWN): "stopping", (_PAUSED, _PAUSED_CRASHED): "crashed", (_SHUTOFF, _SHUTOFF_CRASHED): "crashed"}


def state_name(state: int, reason: int = 0, phase: Optional[str] = None) -> str:
    """The state shown to people, out of libvirt's state and reason and the phase in our metadata.

    A suspended guest (ACPI S3) counts as paused. A phase in which the VM is not yet, or no longer, the user's wins over libvirt's state.
    """
    if phase in PHASE_STATES:
        return str(phase)
    return _REASONS.get((state, reason)) or _STATES.get(state, "running")


def _raw_state(domain: libvirt.virDomain) -> Optional[Tuple[int, int]]:
    try:
        state, reason = domain.state()
    except libvirt.libvirtError as exc:
        if is_gone(exc):
            return None
        raise
    return state, reason


def state_of(domain: libvirt.virDomain, phase: Optional[str] = None) -> str:
    """The state of a domain; C(absent) where it has gone in the meantime, as transient domains do when they stop."""
    raw = _raw_state(domain)
    return "absent" if raw is None else state_name(raw[0], raw[1], phase)


def _observe(domain: libvirt.virDomain) -> Tuple[str, bool]:
    """State and whether there is a process behind it (a crashed domain can be either)."""
    raw = _raw_state(domain)
    if raw is None:
        return "absent", False
    return state_name(*raw), raw[0] != _SHUTOFF


_REMEDIES = {
    "start": "Wait until it has stopped, then start it",
    "reboot": "Use action: start for a stopped VM, resume for a paused one, reset for a crashed one",
    "reset": "Use action: start",
    "pause": "Only a running VM can be paused; use action: start",
    "resume": "Only a paused VM can be resumed; use action: start",
}
_CHANGES: Dict[str, Dict[str, Optional[bool]]] = {  # None: impossible
    "start": {"running": False, "paused": True, "stopping": None, "stopped": True, "crashed": True},
    "shutdown": {"running": True, "paused": True, "stopping": True, "stopped": False, "crashed": True},
    "force_off": {"running": True, "paused": True, "stopping": True, "stopped": False, "crashed": True},
    "reboot": {"running": True, "paused": None, "stopping": None, "stopped": None, "crashed": None},
    "reset": {"running": True, "paused": True, "stopping": None, "stopped": None, "crashed": True},
    "pause": {"running": True, "paused": False, "stopping": None, "stopped": None, "crashed": None},
    "resume": {"running": False, "paused": True, "stopping": None, "stopped": None, "crashed": None},
}


def plan(action: str, state: str, active: bool = True) -> bool:
    """Whether an action would change anything in a state; raises FleetError C(wrong_state) where it is impossible. Touches nothing.

    :param active: whether a crashed domain still has its process (its memory kept for a dump); other states imply it
    """
    if state == "crashed" and not active:
        state = "stopped" if action != "start" else state
    if state in CLAIMED_PHASES:
        raise FleetError("cannot {0}: it is {1}, another run is at work on it. Wait for that run, or run create or delete again to finish it".format(
            action, state), "wrong_state", action=action, state=state)
    changes = _CHANGES[action].get(state)
    if changes is None:
        remedy = _REMEDIES.get(action, "Look at its state first")
        raise FleetError("cannot {0}: it is {1}. {2}".format(action, state, remedy), "wrong_state", action=action, state=state)
    return changes


def _needed(domain: libvirt.virDomain, action: str) -> bool:
    state, active = _observe(domain)
    try:
        return plan(action, state, active)
    except FleetError as exc:
        raise FleetError("{0}: {1}".format(domain.name(), exc), exc.code, name=domain.name(), **exc.data) from None


def start(domain: libvirt.virDomain, paused: bool = False) -> bool:
    """Start a domain; a managed save image is restored rather than booted anew, a paused domain is resumed, a crashed one reset.

    :param paused: leave it paused after the start; changes nothing where it runs already
    """
    state, active = _observe(domain)
    if paused and state in ("running", "paused"):
        return False
    if not _needed(domain, "start"):
        return False
    if active and state == "crashed":
        return reset(domain)
    if active:
        return resume(domain)
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)
    return True


def force_off(domain: libvirt.virDomain) -> bool:
    """Pull the plug. A managed save image of a stopped domain is kept."""
    if not _needed(domain, "force_off"):
        return False
    try:
        domain.destroy()
    except libvirt.libvirtError:
        if _observe(domain)[1]:
            raise
        return False  # it stopped by itself in between
    return True


def _in_background(work: Callable[[], Any]) -> threading.Thread:
    """Run a call that a hung guest agent may block for a minute or for ever. The thread is a daemon: it is never joined late."""
    def quiet() -> None:
        try:
            work()
        except libvirt.libvirtError:
            return  # the power button follows in any case, and the domain's state is what decides
    thread = threading.Thread(target=quiet, daemon=True)
    thread.start()
    return thread


def _until_off(domain: libvirt.virDomain, deadline: float) -> bool:
    pause = _POLL_FIRST_S
    while True:
        if not _observe(domain)[1]:
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _POLL_MAX_S)


def _ask_to_stop(domain: libvirt.virDomain, with_agent: bool) -> None:
    """One press of the power button, and the agent asked first where there is one."""
    flags = 0
    if with_agent and agent_connected(domain):
        thread = _in_background(lambda: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT))
        thread.join(_AGENT_ACCEPT_S)
        flags = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        if not _observe(domain)[1]:
            return
    domain.shutdownFlags(flags)


def shutdown(domain: libvirt.virDomain, timeout_s: float = 120, force: bool = False) -> str:
    """Ask the guest to shut down, by its agent where connected and by ACPI, and wait until it is off.

    A paused guest cannot hear the question: it is resumed first. A guest that has crashed cannot either: its process is ended.

    :param timeout_s: how long the guest may take
    :param force: pull the plug when that time has passed; otherwise FleetError C(shutdown_timeout)
    :returns: how it went off: C(shutdown), C(forced), or the empty string where it was off already
    """
    deadline = time.monotonic() + timeout_s
    if not _needed(domain, "shutdown"):
        return ""
    state = _observe(domain)[0]
    if state == "crashed":
        force_off(domain)
        return "forced"
    if state == "paused":
        resume(domain)
    first = True
    while True:
        try:
            if state_of(domain) == "running":
                _ask_to_stop(domain, with_agent=first)
        except libvirt.libvirtError:
            if _observe(domain)[1]:
                raise
        first = False
        if _until_off(domain, min(deadline, time.monotonic() + _ASK_AGAIN_S)):
            return "shutdown"
        if time.monotonic() >= deadline:
            break
    if force:
        return "forced" if force_off(domain) else "shutdown"
    raise FleetError("{0} did not shut down within {1:g} s: the guest does not answer ACPI or its agent, or needs longer. Raise the shutdown timeout, "
                     "or allow to pull the plug (force: true, vm_force=true)".format(domain.name(), timeout_s),
                     "shutdown_timeout", name=domain.name(), state=state_of(domain))


def reboot(domain: libvirt.virDomain) -> bool:
    """Ask the guest to reboot; does not wait for it. A guest that does not listen needs C(reset)."""
    if not _needed(domain, "reboot"):
        return False
    if agent_connected(domain):
        # The power button as well would shut down a guest whose agent is already rebooting it, so it is either or.
        answers = []
        thread = _in_background(lambda: answers.append(domain.reboot(libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT)))
        thread.join(_AGENT_ACCEPT_S)
        if answers:
            return True
        domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)
        return True
    domain.reboot(0)
    return True


def reset(domain: libvirt.virDomain) -> bool:
    """Press the reset button. A paused domain stays paused; a crashed one runs again."""
    if not _needed(domain, "reset"):
        return False
    crashed = state_of(domain) == "crashed"
    domain.reset(0)
    if crashed and _observe(domain) != ("running", True):
        domain.resume()
    return True


def pause(domain: libvirt.virDomain) -> bool:
    """Stop the virtual CPUs, memory kept. A guest in ACPI sleep counts as paused and is left so."""
    if not _needed(domain, "pause"):
        return False
    domain.suspend()
    return True


def resume(domain: libvirt.virDomain) -> bool:
    """Let a paused domain run on, or wake one from ACPI sleep."""
    if not _needed(domain, "resume"):
        return False
    raw = _raw_state(domain)
    if raw is not None and raw[0] == _PMSUSPENDED:
        domain.pMWakeup(0)
    else:
        domain.resume()
    return True


def perform(domain: libvirt.virDomain, action: str, shutdown_timeout_s: float = 120, force: bool = False) -> bool:
    """Carry out one of ACTIONS; returns whether it changed anything."""
    if action == "shutdown":
        return bool(shutdown(domain, shutdown_timeout_s, force))
    simple: Dict[str, Callable[[libvirt.virDomain], bool]] = {
        "start": start, "force_off": force_off, "reboot": reboot, "reset": reset, "pause": pause, "resume": resume}
    return simple[action](domain)
