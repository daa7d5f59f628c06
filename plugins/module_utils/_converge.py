# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converge VMs on one host: observe -> plan -> apply -> observe again. Behind vm_set and vm_domain."""
from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Collection, Dict, List, Optional, Sequence, Set, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import (
    _admission, _domain_xml, _live, _metadata, _power, _progress, _seed, _vm_result, _volume_job, _volumes,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import DomainRecord
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError, is_gone
from ansible_collections.kvmfleet.core.plugins.module_utils._domain_xml import observe
from ansible_collections.kvmfleet.core.plugins.module_utils._host import Host
from ansible_collections.kvmfleet.core.plugins.module_utils._metadata import VmMetadata
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, VmSpec, check_batch
from ansible_collections.kvmfleet.core.plugins.module_utils._vm_plan import VmPlan, doomed, make_plan, restart_actions

try:
    import libvirt
except ImportError:  # reported by _connection.require_libvirt
    pass

# One VM's steps are a chain of calls that wait for libvirtd; a few chains side by side keep it busy.
_WORKERS = 4
_POWER_STEPS = {"start": "starting it", "start paused": "starting it paused", "shutdown": "shutting it down", "resume": "resuming it", "pause": "pausing it"}


@dataclass
class Options:
    """How to converge.

    :param check: plan only
    :param atomic: all VMs or none: a failure undoes what this call created
    :param lock_timeout_s: how long to wait for another run that works on the same VM
    :param claim_ttl_s: after which another run's claim may be removed
    :param ticket: of this run's own claims
    :param claimed: VMs that have to be claims under this ticket when they are built, whatever is there
    """

    check: bool = False
    atomic: bool = True
    lock_timeout_s: float = 30.0
    claim_ttl_s: float = _admission.DEFAULT_CLAIM_TTL_S
    ticket: Optional[str] = None
    claimed: Optional[Sequence[str]] = None


@dataclass
class Outcome:
    """What came of one VM."""

    name: str
    plan: Optional[VmPlan] = None
    error: Optional[Exception] = None
    seconds: float = 0.0
    notes: List[str] = field(default_factory=list)
    restart_required: List[str] = field(default_factory=list)
    record: Optional[DomainRecord] = None
    undone: bool = False
    carried_out: bool = False  # or begun; in check mode: would be


def torn_by_others(outcome: Outcome) -> bool:
    """Whether a VM was found without a disk of its own: it may be that another run is deleting it, which the lock of the VM tells."""
    return isinstance(outcome.error, SpecError) and outcome.error.code == "disk_missing"


def _deletion(plan: Optional[VmPlan]) -> Optional[VmPlan]:
    """The deletion that a plan is, or begins with."""
    if plan is None:
        return None
    return plan if plan.kind == "delete" else plan.first


def _shape(root: ET.Element) -> Tuple[Any, ...]:
    """What of a definition the schema is about, but for values that are names, numbers and paths in all of them."""
    return tuple((element.tag, tuple(sorted(element.attrib)), element.get("type"), element.get("model")) for element in root.iter())


def _guarded(work: Callable[[], None], outcome: Outcome) -> None:
    """Run one VM's work; its error becomes part of its outcome, the others go on."""
    start = time.monotonic()
    try:
        work()
    except (SpecError, FleetError, libvirt.libvirtError) as exc:
        outcome.error = exc
    except Exception as exc:  # noqa: BLE001 - a fault of ours must not keep what has been made from being undone
        outcome.error = FleetError("Unexpected {0}: {1}. This is a defect of kvmfleet.core; please report it with what was asked for".format(
            type(exc).__name__, _volumes.one_line(exc)), "internal")
    outcome.seconds += time.monotonic() - start


def _in_parallel(outcomes: Sequence[Outcome], work: Callable[[Outcome], None]) -> None:
    if len(outcomes) == 1:
        _guarded(lambda: work(outcomes[0]), outcomes[0])
        return
    with ThreadPoolExecutor(max_workers=min(_WORKERS, max(1, len(outcomes)))) as pool:
        list(pool.map(lambda o: _guarded(lambda: work(o), o), outcomes))


def write_metadata(domain: libvirt.virDomain, meta: VmMetadata) -> None:
    """Write our metadata into a domain, persistent and (where it runs) live. What waits for a restart is written live only, so that the restart ends it."""
    def write(written: VmMetadata, flags: int) -> None:
        text = ET.tostring(_metadata.to_element(written, namespaced=False), encoding="unicode")
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, _metadata.PREFIX, _metadata.NAMESPACE, flags)
    write(dataclasses.replace(meta, hopeless=[]), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    if domain.isActive():
        write(meta, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def undefine(domain: libvirt.virDomain) -> None:
    """Undefine a domain with all that libvirt keeps for it: NVRAM, managed save image, snapshot metadata, TPM state."""
    flags = (libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
             | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
    # libvirt-python 9.0 knows the flag for TPM state; older ones lack it, and their libvirt removes the state by itself.
    flags |= getattr(libvirt, "VIR_DOMAIN_UNDEFINE_TPM", 0)
    domain.undefineFlags(flags)


class Converger:
    """Brings a list of VMs on one host to what is wanted. Raises SpecError or FleetError; with C(atomic) nothing that it made is left then."""

    def __init__(self, host: Host, options: Optional[Options] = None) -> None:
        self.host, self.options = host, options or Options()

    def run(self, specs: Sequence[VmSpec]) -> List[Outcome]:
        """Plan, and unless in check mode apply. The outcomes are in the order of the specs; errors are in them."""
        check_batch(specs)
        self.host.look()
        outcomes = self._plan(specs, together=self.options.check)
        changed = [o.name for o in outcomes if o.plan and o.plan.changed]
        torn = [o.name for o in outcomes if torn_by_others(o)]
        if torn and self.options.check:
            with _admission.vm_locks(self.host.uri, torn, self.options.lock_timeout_s):
                self.host.look()
                outcomes = self._plan(specs)
        if self.options.check or not (changed or torn) or (self._refused(outcomes) and not torn):
            return self.described(outcomes)
        with _admission.vm_locks(self.host.uri, changed + torn, self.options.lock_timeout_s):
            return self.run_locked(specs)

    def run_locked(self, specs: Sequence[VmSpec], created: Collection[str] = (), first: Callable[[], None] = lambda: None) -> List[Outcome]:
        """The same under the VMs' locks, which the caller holds.

        :param created: VMs that this run has claimed before: a failure undoes them like those that this call creates
        :param first: called under the host's lock, after the host has been looked at and before anything is planned
        """
        outcomes = self._admit(specs, first)
        for outcome in outcomes:
            if outcome.plan and outcome.name in created:
                outcome.plan.made = True
        if not self._refused(outcomes):
            self._apply([o for o in outcomes if o.plan and o.plan.changed and not o.error])
        return self.described(outcomes)

    def _refused(self, outcomes: Sequence[Outcome]) -> bool:
        return self.options.atomic and any(o.error for o in outcomes)

    def _plan(self, specs: Sequence[VmSpec], together: bool = True) -> List[Outcome]:
        """Plans for all, with what they ask of the host checked; nothing is touched.

        :param together: whether to check what can be told only of all plans together; takes longest, and is done under the locks in any case
        """
        outcomes = [self.plan_one(spec) for spec in specs]
        if together:
            self.check_together(outcomes)
        return outcomes

    def plan_one(self, spec: VmSpec) -> Outcome:
        """The plan for one VM, or why there is none."""
        outcome = Outcome(spec.name)

        def plan() -> None:
            outcome.plan = make_plan(self.host, spec, self.options.ticket, self.options.claim_ttl_s)
            self._check_unique(outcome.plan)
        _guarded(plan, outcome)
        return outcome

    def check_together(self, outcomes: Sequence[Outcome]) -> None:
        """What can be told only of all plans together: room, and volumes that others need. Errors go into the outcomes."""
        self._check_deletions([o for o in outcomes if _deletion(o.plan) and not o.error])
        self._check_room([o for o in outcomes if o.plan and o.plan.demand and not o.error])

    def _others(self) -> List[DomainRecord]:
        """The domains that room and addresses are checked against; in check mode without the claims that a real run would remove first."""
        records = list(self.host.domains.values())
        stale = {r.name for r in _admission.stale_claims(records, self.options.claim_ttl_s)} if self.options.check and self.options.ticket is None else set()
        return [r for r in records if r.name not in stale]

    def _check_unique(self, plan: VmPlan) -> None:
        if plan.kind != "delete" and plan.metadata is not None:
            addresses = plan.metadata.addresses if plan.changed else []
            uuid = plan.spec.uuid if plan.kind == "create" else None
            if addresses or uuid:
                _admission.check_unique(self._others(), plan.spec.name, uuid, [], addresses, plan.metadata.group)

    def _check_room(self, outcomes: Sequence[Outcome]) -> None:
        if not outcomes:
            return
        going = {o.name for o in outcomes if o.plan and o.plan.first}
        records = [r for r in self._others() if r.name not in going]
        if self.options.atomic:
            try:
                _admission.check_room(self.host.conn, records, self.host.policy, self.host.pools, [o.plan.demand for o in outcomes if o.plan and o.plan.demand])
            except SpecError as exc:
                for outcome in outcomes:
                    outcome.error = exc
            return
        granted: List[_admission.Demand] = []
        for outcome in outcomes:
            if outcome.plan and outcome.plan.demand:
                granted.append(outcome.plan.demand)
                try:
                    _admission.check_room(self.host.conn, records, self.host.policy, self.host.pools, granted)
                except SpecError as exc:
                    outcome.error = exc
                    granted.pop()

    def _check_deletions(self, outcomes: Sequence[Outcome]) -> None:
        """Refuse to delete a volume that somebody else needs: attached to another domain, or the backing file of what stays."""
        going_paths = {os.path.realpath(self.host.pools.get(v.pool).path_of(v.name)) for o in outcomes for v in self._doomed(o)}
        if not going_paths:
            return
        usage = _volumes.usage(self.host.conn, {r.name: _definitions(r) for r in self.host.domains.values()})
        going = {o.name for o in outcomes}
        for outcome in outcomes:
            for volume in self._doomed(outcome):
                path = self.host.pools.get(volume.pool).path_of(volume.name)
                for real in sorted({path, os.path.realpath(path)}):
                    domains = [d for d in usage.domains.get(real, []) if d not in going]
                    overlays = [p for p in usage.overlays.get(real, []) if os.path.realpath(p) not in going_paths]
                    reason = _volumes.Usage({real: domains}, {real: overlays}).why_needed(real)
                    if reason:
                        outcome.error = SpecError("name", outcome.name, "its volume {0} cannot go: {1}".format(volume.name, reason),
                                                  "Detach or delete that first, or keep the disks (delete_disks: false)", "volume_in_use")

    @staticmethod
    def _doomed(outcome: Outcome) -> List[_metadata.VolumeRef]:
        deletion = _deletion(outcome.plan)
        return doomed(deletion.record, deletion.spec) if deletion and deletion.record else []

    def _admit(self, specs: Sequence[VmSpec], first: Callable[[], None]) -> List[Outcome]:
        """Look and plan anew under the VMs' locks; what takes room is booked under the host's lock by defining it."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_admission.host_lock(self.host.uri))
            self.host.look()
            first()
            outcomes = self._plan(specs)
            if self._refused(outcomes):
                return outcomes
            for outcome in outcomes:
                self.delete_predecessor(outcome)
            self.book([o for o in outcomes if o.plan and not o.error and (o.plan.kind == "create" or o.plan.demand)])
            if self.options.atomic and any(o.error for o in outcomes):
                self.undo_all(outcomes)
        return outcomes

    def book(self, outcomes: Sequence[Outcome]) -> None:
        """Book all of them; for callers that hold the host's lock."""
        shapes: Set[Tuple[Any, ...]] = set()
        checked: Set[str] = set()
        for outcome in outcomes:
            shape = _shape(outcome.plan.root) if outcome.plan is not None and outcome.plan.root is not None else ()
            if shape not in shapes:
                checked.add(outcome.name)
            shapes.add(shape)
        if outcomes:
            # libvirt reads its whole schema anew for each domain that it validates: of VMs that differ in their values only, one is enough
            _in_parallel(outcomes, lambda outcome: self._book(outcome, outcome.name in checked))

    def _book(self, outcome: Outcome, validate: bool = True) -> None:
        """Define the domain, or write its grown definition: from here on its room is taken."""
        plan = outcome.plan
        if plan is None or plan.root is None or plan.metadata is None:
            return
        outcome.carried_out = True
        booked = self._unfinished(plan, plan.metadata)
        if plan.kind == "create" or plan.define:
            _metadata.store(plan.root, dataclasses.replace(booked, hopeless=[]))
            domain = self._define(plan, plan.root, libvirt.VIR_DOMAIN_DEFINE_VALIDATE if validate else 0)
            if plan.record is not None and plan.record.active:
                write_metadata(domain, booked)  # into the running definition, which readers may see
        elif plan.mark:
            write_metadata(self._domain(plan), booked)

    def _define(self, plan: VmPlan, root: ET.Element, flags: int) -> libvirt.virDomain:
        try:
            return self.host.conn.defineXMLFlags(_domain_xml.to_string(root), flags)
        except libvirt.libvirtError as exc:
            there = self.host.look_at(plan.spec.name) if plan.kind == "create" else None
            if there is None or there.uuid == plan.spec.uuid:
                raise
            raise FleetError("VM {0} has come to be in this moment, by another run or by libvirt, which ends what a killed run has asked for. Run again"
                             .format(plan.spec.name), "busy") from exc

    @staticmethod
    def _unfinished(plan: VmPlan, meta: VmMetadata) -> VmMetadata:
        """The plan's metadata as it has to be until the seed is written: without a hash, for what is there may be half of either."""
        return meta if plan.seed is None or plan.record is None else dataclasses.replace(meta, seed_hash=None)

    def _domain(self, plan: VmPlan) -> libvirt.virDomain:
        return self.host.conn.lookupByName(plan.spec.name)

    def _apply(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            _progress.say(outcome.name, "waiting for its turn")
        _in_parallel(outcomes, self._apply_and_tell)
        failed = [o for o in outcomes if o.error]
        if failed and self.options.atomic:
            self.undo_all(outcomes)

    def _apply_and_tell(self, outcome: Outcome) -> None:
        ended = "failed"
        try:
            self._apply_one(outcome)
            ended = "done"
        finally:
            _progress.say(outcome.name, ended, done=True)

    def _apply_one(self, outcome: Outcome) -> None:
        plan = outcome.plan
        if plan is None:
            return
        outcome.carried_out = True
        if plan.kind == "delete":
            self._delete(plan)
            return
        try:
            # A VM that is being made is booked, and whoever finishes it writes its seed anew whatever its metadata says.
            if plan.kind == "update" and not plan.demand and (plan.define or not plan.finish):
                self._book(outcome)
            self._build(plan, outcome)
            self._verify(plan, outcome)
        except Exception:  # whatever it was
            if not self.options.atomic:
                self._undo(outcome)
            raise

    def _build(self, plan: VmPlan, outcome: Outcome) -> None:
        """Volumes, seed, live changes, power; then the phase C(ready)."""
        if plan.metadata is None or plan.root is None:
            return
        domain = self._domain(plan)
        try:
            self._volumes(plan, plan.metadata, domain)
        except (SpecError, FleetError, libvirt.libvirtError) as exc:
            if plan.record is not None and not plan.finish:
                self._take_back(plan, plan.record, plan.metadata, exc)
            raise
        hopeless: List[str] = []
        if domain.isActive() and "shutdown" not in plan.power:
            hopeless = self._change_running(plan, domain, outcome)
        for action in plan.power:
            _progress.say(plan.spec.name, _POWER_STEPS.get(action, action))
            self._power_step(domain, action, plan)
        unready = plan.metadata.phase != "ready" or plan.seed is not None or any(v.planned for v in plan.metadata.volumes) or hopeless != plan.metadata.hopeless
        plan.metadata.hopeless = hopeless
        if unready:
            plan.metadata.phase, plan.metadata.ticket, plan.metadata.claimed = "ready", None, None
            for volume in plan.metadata.volumes:
                volume.planned = False
            write_metadata(domain, plan.metadata)
        if plan.autostart is not None:
            domain.setAutostart(plan.autostart)

    def _volumes(self, plan: VmPlan, meta: VmMetadata, domain: libvirt.virDomain) -> None:
        """Make and grow the volumes, and write the seed."""
        for job in plan.jobs:
            _progress.say(plan.spec.name, job.progress)
            _volume_job.apply(job, self.host.conn)
            listed = meta.volume(job.disk)
            if job.verb == "create" and job.clone == "full" and job.image is not None and listed is not None:
                listed.planned = False
                write_metadata(domain, self._unfinished(plan, meta))
        if plan.seed is not None:
            iso = _seed.build_iso(plan.seed.documents, plan.seed.spec.format)
            _seed.write_volume(self.host.conn, self.host.pools.get(plan.seed.pool), plan.seed.name, iso)

    def _take_back(self, plan: VmPlan, record: DomainRecord, meta: VmMetadata, why: Exception) -> None:
        """A VM that was complete before gets its old definition back, without the volumes that were to be added to it."""
        kept = {v.name for v in record.metadata.volumes} if record.metadata is not None else set()
        kept.update(job.name for job in plan.jobs if job.foreign)
        try:
            for volume in meta.volumes:
                if volume.name not in kept and not volume.given:
                    _volume_job.delete_patiently(self.host.pools.get(volume.pool), volume.name)
            domain = self.host.conn.defineXMLFlags(_domain_xml.to_string(record.root), 0)
            if record.active and record.metadata is not None:
                write_metadata(domain, record.metadata)
        except (SpecError, FleetError, libvirt.libvirtError) as exc:
            raise FleetError("{0} Taking the change of VM {1} back failed as well: {2}. Run it again when the cause is gone".format(
                _message(why), record.name, _message(exc)), "undo_failed") from why

    def _change_running(self, plan: VmPlan, domain: libvirt.virDomain, outcome: Outcome) -> List[str]:
        """Change the running guest as far as it follows; returns the options that it did not follow, which wait for a restart."""
        found = self.host.look_at(plan.spec.name)
        if found is None:
            raise FleetError("VM {0} vanished while it was worked on".format(plan.spec.name), "residue")
        # What libvirt has made of the definition: a device is attached at the address that it will have at the next start too.
        live = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))
        todo, later = _live.operations(live, found.root, plan.intent)
        hopeless = [option for option in later if option in plan.intent.hopeless or option in _live.REMEMBERED]
        for operation in todo:
            refusal = _live.apply(domain, operation, plan.spec.timeout)
            if refusal:
                outcome.notes.append("{0}: {1}".format(operation.option, refusal))
                hopeless.append(operation.option)
        if hopeless and plan.spec.allow_restart and not plan.power:
            plan.power = restart_actions(_power.state_of(domain), plan.spec.state)
            plan.actions.extend(plan.power)
            return []
        return sorted(hopeless)

    @staticmethod
    def _power_step(domain: libvirt.virDomain, action: str, plan: VmPlan) -> None:
        if action == "shutdown":
            _power.shutdown(domain, plan.spec.shutdown_timeout, plan.spec.force)
        elif action == "start paused":
            _power.start(domain, paused=True)
        else:
            _power.perform(domain, action)

    def _verify(self, plan: VmPlan, outcome: Outcome) -> None:
        """Observe again: what remains to be done after apply is a failure."""
        found = self.host.look_at(plan.spec.name)
        if found is None or plan.root is None:
            raise FleetError("VM {0} vanished while it was worked on".format(plan.spec.name), "residue")
        residue = _domain_xml.differences(observe(found.root), observe(plan.root))
        residue.pop("metadata", None)
        if residue:
            raise FleetError("VM {0} is not as it was asked for after the change: {1}".format(
                plan.spec.name, "; ".join("{0} is {1!r}, not {2!r}".format(k, a, b) for k, (a, b) in sorted(residue.items()))), "residue")

    def undo_all(self, outcomes: Sequence[Outcome]) -> None:
        _in_parallel([o for o in outcomes if o.plan and o.plan.unfinished], self._undo)

    def _undo(self, outcome: Outcome) -> None:
        """Take back a creation, or what is left of an interrupted one. Volumes that the user gave stay."""
        plan = outcome.plan
        if plan is None or not plan.unfinished or plan.metadata is None or outcome.undone:
            return
        try:
            domain = self.host.conn.lookupByUUIDString(plan.spec.uuid)
        except libvirt.libvirtError as exc:
            if not is_gone(exc):
                raise
            return
        if domain.name() != plan.spec.name or _metadata.find(ET.fromstring(domain.XMLDesc(0))) is None:
            return  # somebody else's, under the UUID that was given
        foreign = {job.name for job in plan.jobs if job.foreign}
        try:
            _power.force_off(domain)
            for volume in plan.metadata.volumes:
                if not volume.given and volume.name not in foreign:
                    _volume_job.delete_patiently(self.host.pools.get(volume.pool), volume.name)
            undefine(domain)
        except (SpecError, FleetError, libvirt.libvirtError) as exc:
            plan.metadata.phase, plan.metadata.reason = "failed", "undoing a failed creation failed: {0}".format(exc)
            write_metadata(domain, plan.metadata)
            outcome.notes.append("undoing failed, the rest is marked failed: {0}".format(exc))
            return
        self.host.domains.pop(plan.spec.name, None)
        outcome.undone = True

    def delete_predecessor(self, outcome: Outcome) -> None:
        """Carry out the deletion that the outcome's plan begins with, if it does; an error goes into the outcome. For holders of the host's lock."""
        first = outcome.plan.first if outcome.plan is not None and outcome.error is None else None
        if first is not None:
            _guarded(lambda: self._delete(first), outcome)

    def delete(self, outcome: Outcome) -> None:
        """Delete what the outcome's plan says; an error goes into the outcome."""
        if outcome.plan is not None:
            plan = outcome.plan
            outcome.carried_out = True
            _guarded(lambda: self._delete(plan), outcome)

    def _delete(self, plan: VmPlan) -> None:
        """Delete a VM: phase deleting, stop, exactly the listed volumes, undefine last. A run that was interrupted is finished by the next."""
        if plan.record is None:
            return
        domain = plan.record.handle
        _progress.say(plan.spec.name, "deleting it with its volumes")
        if not plan.record.persistent:
            # Undefined by someone while it ran. Without a definition, the list of its volumes would go with its process.
            domain = self.host.conn.defineXMLFlags(_domain_xml.to_string(plan.record.root), 0)
        volumes = doomed(plan.record, plan.spec)
        if plan.record.metadata is not None:
            # Kept disks leave the list with the same write, so that whoever finishes this keeps them too.
            write_metadata(domain, dataclasses.replace(plan.record.metadata, phase="deleting", volumes=volumes))
        _power.force_off(domain)
        for volume in volumes:
            _volume_job.delete_patiently(self.host.pools.get(volume.pool), volume.name)
        undefine(domain)
        self.host.domains.pop(plan.spec.name, None)

    def described(self, outcomes: List[Outcome]) -> List[Outcome]:
        refused = self._refused(outcomes)
        for outcome in outcomes:
            outcome.carried_out = outcome.carried_out or (self.options.check and not outcome.error and not refused)
            outcome.record = self.host.domains.get(outcome.name)
            if outcome.plan and not self.options.check and outcome.record is not None and outcome.record.active and outcome.plan.kind == "update":
                live = observe(ET.fromstring(outcome.record.handle.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)))
                outcome.restart_required = sorted(_live.pending(live, observe(outcome.record.root), _with_hopeless(outcome.plan)))
            elif outcome.plan:
                outcome.restart_required = sorted(outcome.plan.restart_required)
        return outcomes


def _with_hopeless(plan: VmPlan) -> _live.Intent:
    """What the plan was about, with what its run has found out."""
    return dataclasses.replace(plan.intent, hopeless=plan.metadata.hopeless if plan.metadata else [])


def _definitions(record: DomainRecord) -> List[ET.Element]:
    return [record.root] if not record.active else _volumes.definitions(record.handle)


def _current(outcome: Outcome) -> Optional[Dict[str, Any]]:
    record = outcome.record
    if record is None:
        return None
    try:
        live = observe(ET.fromstring(record.handle.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))) if record.active else None
        phase = record.metadata.phase if record.metadata else None
        state = _power.state_of(record.handle, phase) if record.active else (phase if phase in _power.PHASE_STATES else "stopped")
        return _vm_result.describe(observe(record.root), live, state)
    except libvirt.libvirtError as exc:
        if is_gone(exc):
            return None
        raise


def _foretold(plan: VmPlan, shown: Optional[Dict[str, Any]]) -> Optional[Dict[str, Any]]:
    """What a real run would show in place of what there is."""
    if plan.kind == "delete" or plan.root is None:
        return None if plan.kind == "delete" else shown
    phase = "pending" if plan.kind == "create" and plan.metadata is not None and plan.metadata.phase == "pending" else "ready"
    state = plan.after.get("state", shown["state"] if shown and shown["state"] not in _power.PHASE_STATES else "stopped")
    foretold = dict(_vm_result.describe(observe(plan.root), None, state if phase == "ready" else phase), phase=phase)
    return dict(foretold, uuid=None) if plan.made else dict(foretold, console=shown["console"]) if shown else foretold


def result_of(outcome: Outcome, check: bool = False) -> Dict[str, Any]:
    """One VM's part of a module's result."""
    plan = outcome.plan
    result: Dict[str, Any] = {"name": outcome.name, "changed": bool(plan and plan.changed and outcome.carried_out and not (outcome.undone and plan.made)),
                              "actions": list(plan.actions) if plan else [],
                              "created": bool(plan and plan.made and outcome.carried_out and not outcome.undone and not outcome.error),
                              "seconds": round(outcome.seconds, 3)}
    shown = _current(outcome)
    if check and plan is not None and outcome.error is None:
        shown = _foretold(plan, shown)
    result.update(shown or {"state": "absent"})
    result["restart_required"] = outcome.restart_required
    if outcome.notes:
        result["notes"] = outcome.notes
    if plan and plan.takes_effect:
        result["takes_effect"] = plan.takes_effect
    if outcome.error is not None:
        result["failed"] = True
        result["msg"] = _message(outcome.error)
        result["reason"] = getattr(outcome.error, "code", "libvirt_error")
    return result


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, (SpecError, FleetError)) else "libvirt refused: {0}".format(_volumes.one_line(error))


def failure(outcomes: Sequence[Outcome]) -> Optional[FleetError]:
    """The one error a module ends with when VMs failed: the first VM's own words, and how many there are like it."""
    failed = [o for o in outcomes if o.error is not None]
    if not failed:
        return None
    messages: Dict[str, List[str]] = {}
    for outcome in failed:
        messages.setdefault(_message(outcome.error), []).append(outcome.name)  # type: ignore[arg-type]
    parts = []
    for message, names in messages.items():
        who = names[0] if len(names) == 1 else "{0} and {1} more".format(names[0], len(names) - 1)
        parts.append("{0}: {1}".format(who, message))
    first = failed[0].error
    data = {"error": first.as_result()} if isinstance(first, SpecError) else {}
    return FleetError(" ".join(parts), getattr(first, "code", "libvirt_error"), **data)


def diff_of(outcomes: Sequence[Outcome]) -> Dict[str, Any]:
    """What diff mode shows: the changed options of each VM, before and after."""
    before, after = {}, {}
    for outcome in outcomes:
        if outcome.plan and outcome.plan.changed:
            before[outcome.name], after[outcome.name] = outcome.plan.before, outcome.plan.after
    return {"before": before, "after": after}
