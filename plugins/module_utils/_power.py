# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power states of a domain, and the seven ways to change them."""
from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import _metadata, _progress
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError, is_gone
from ansible_collections.kvmfleet.core.plugins.module_utils._guest import agent_connected
from ansible_collections.kvmfleet.core.plugins.module_utils._parallel import call_within, in_parallel
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

try:
    import libvirt
except ImportError:
    pass  # run_module says so

ACTIONS = ("start", "shutdown", "force_off", "reboot", "reset", "pause", "resume")
CLAIMED_PHASES = ("pending", "building", "deleting")  # another run is at work on the VM
PHASE_STATES = CLAIMED_PHASES + ("failed",)

# A guest that is still booting ignores the power button, so it is pressed again until the deadline.
_ASK_AGAIN_S = 5.0
# How long the agent may take to answer before the power button is pressed instead.
_AGENT_ANSWER_S = 3.0
_POLL_FIRST_S, _POLL_MAX_S = 0.02, 0.25
_WORKERS = 16

# Numbers of virDomainState and its reasons, which are libvirt's stable ABI: this table also works on what bulk statistics return.
_RUNNING, _BLOCKED, _PAUSED, _SHUTDOWN, _SHUTOFF, _CRASHED, _PMSUSPENDED = 1, 2, 3, 4, 5, 6, 7
_PAUSED_SHUTTING_DOWN, _PAUSED_CRASHED, _PAUSED_STARTING_UP, _SHUTOFF_CRASHED = 8, 10, 11, 3
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


def settled_state(domain: libvirt.virDomain, timeout_s: float = 60) -> str:
    """L(state_of), once libvirt has ended a start that it is carrying out, perhaps for a run that has died since: until then a domain looks paused."""
    deadline = time.monotonic() + timeout_s
    pause = _POLL_FIRST_S
    while _raw_state(domain) == (_PAUSED, _PAUSED_STARTING_UP) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 1.5, _POLL_MAX_S)
    return state_of(domain)


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


def _by_agent(domain: libvirt.virDomain, request: Callable[[], Any]) -> bool:
    """Whether the guest's agent took a request. It is asked the time first, because the request itself may rightly take as long as a guest's way down."""
    if not agent_connected(domain):
        return False
    try:
        if not call_within(lambda: domain.getTime(0), _AGENT_ANSWER_S)[0]:
            return False
        call_within(request, _AGENT_ANSWER_S)
    except libvirt.libvirtError:
        return False  # the power button follows, and the domain's state is what decides
    return True


def _ask_to_stop(domain: libvirt.virDomain, by_agent: bool) -> None:
    if not (by_agent and _by_agent(domain, lambda: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT))):
        # Without the flag libvirt would ask the agent itself, and wait for a hung one.
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN if agent_connected(domain) else 0)


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
    _progress.say(domain.name(), "waiting for the guest to shut down, {0:g} s at most".format(timeout_s))
    first = True
    while True:
        try:
            if state_of(domain) == "running":
                _ask_to_stop(domain, by_agent=first)
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
    if not _by_agent(domain, lambda: domain.reboot(libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT)):
        domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN if agent_connected(domain) else 0)
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


_AFTER = {"start": "running", "shutdown": "stopped", "force_off": "stopped", "pause": "paused", "resume": "running"}


@dataclass
class Target:
    """A VM that an action is for: what is known of it before, and what became of it."""

    domain: libvirt.virDomain
    name: str
    uuid: str
    state_before: str
    changed: bool
    state: str
    error: Optional[Exception] = None

    def as_result(self) -> Dict[str, Any]:
        """Its item in the module's result."""
        result = {"name": self.name, "uuid": self.uuid, "state_before": self.state_before, "state": self.state, "changed": self.changed}
        if self.error is not None:
            result.update(failed=True, msg=str(self.error), reason=getattr(self.error, "code", "libvirt_error"))
        return result


def _find(conn: libvirt.virConnect, names: Sequence[str]) -> List[libvirt.virDomain]:
    found, missing = [], []
    for name in dict.fromkeys(names):
        try:
            found.append(conn.lookupByName(name))
        except libvirt.libvirtError as exc:
            if not is_gone(exc):
                raise
            missing.append(name)
    if missing:
        raise SpecError("names", ", ".join(missing), "there is no such VM on this host", "Look at the list of VMs (playbook list_vms, module vm_info)",
                        "unknown_vm")
    return found


def _target(domain: libvirt.virDomain, action: str, group: Optional[str], managed_only: bool) -> Target:
    meta = _metadata.find(ET.fromstring(domain.XMLDesc(0)))
    name = domain.name()
    if meta is None and managed_only:
        raise SpecError("names", name, "is a domain that was not made by kvmfleet",
                        "Adopt it (vm_domain with adopt: true), or set managed_only: false", "not_managed")
    if group is not None and (meta is None or meta.group != group):
        raise SpecError("group", group, "{0} is not a VM of this group".format(name), "Name VMs of the group only", "wrong_group")
    state, active = _observe(domain)
    try:
        if meta is not None and meta.phase in CLAIMED_PHASES:
            plan(action, meta.phase)
        changed = plan(action, state, active)
    except FleetError as exc:
        raise FleetError("{0}: {1}. Nothing was touched".format(name, exc), exc.code, name=name, **exc.data) from None
    return Target(domain, name, domain.UUIDString(), state, changed, _AFTER.get(action, state) if changed else state)


def targets(conn: libvirt.virConnect, names: Sequence[str], action: str, group: Optional[str] = None, managed_only: bool = True) -> List[Target]:
    """The VMs of an action, all of them checked; touches nothing. C(changed) and C(state) are what the action will make of them.

    :param group: refuse VMs of any other group
    :param managed_only: refuse domains without our metadata
    """
    return [_target(domain, action, group, managed_only) for domain in _find(conn, names)]


def _carry_out(target: Target, action: str, shutdown_timeout_s: float, force: bool) -> None:
    try:
        target.changed = perform(target.domain, action, shutdown_timeout_s, force)
    except (FleetError, libvirt.libvirtError) as exc:
        target.error = exc if isinstance(exc, FleetError) else FleetError("{0}: cannot {1}: libvirt refused: {2}".format(target.name, action, exc))
    target.state = state_of(target.domain)
    _progress.say(target.name, target.state if target.error is None else "{0}, which was not asked for".format(target.state), done=True)
    if target.error is not None:
        target.changed = target.state != target.state_before


def perform_all(chosen: Sequence[Target], action: str, shutdown_timeout_s: float = 120, force: bool = False) -> None:
    """Carry out an action on many VMs at once; shutdowns share one deadline. A failure stays with its VM (C(error))."""
    workers = len(chosen) if action == "shutdown" else _WORKERS
    for _none, failure in in_parallel(lambda target: _carry_out(target, action, shutdown_timeout_s, force), chosen, workers):
        if failure is not None:
            raise failure


def failure_of(chosen: Sequence[Target]) -> Optional[FleetError]:
    """One error for all VMs that failed, or None."""
    failed = [t for t in chosen if t.error is not None]
    if not failed:
        return None
    codes = {getattr(t.error, "code", "libvirt_error") for t in failed}
    return FleetError("; ".join(str(t.error) for t in failed), codes.pop() if len(codes) == 1 else "several_failed")


def diff(chosen: Sequence[Target], action: str) -> Dict[str, str]:
    """Ansible's diff of the power states; a reboot or reset shows as such, since the state before and after is the same."""
    def after(target: Target) -> str:
        return "{0} ({1})".format(target.state, action) if target.changed and target.state == target.state_before else target.state
    return {"before": "".join("{0}: {1}\n".format(t.name, t.state_before) for t in chosen),
            "after": "".join("{0}: {1}\n".format(t.name, after(t)) for t in chosen)}
