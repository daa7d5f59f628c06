# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of vm_set that a fleet needs apart: claim room, build what was claimed, withdraw."""
from __future__ import annotations

import dataclasses
from typing import List, Optional, Sequence

from ansible_collections.kvmfleet.core.plugins.module_utils import _admission, _metadata
from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import DomainRecord
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._converge import Converger, Options, Outcome, torn_by_others, undefine, write_metadata
from ansible_collections.kvmfleet.core.plugins.module_utils._host import Host
from ansible_collections.kvmfleet.core.plugins.module_utils._parallel import in_parallel
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import VmSpec, check_batch
from ansible_collections.kvmfleet.core.plugins.module_utils._vm_plan import FINISH, make_plan

BUILD = "build the domain that was claimed"


class Claims:
    """Claims under one ticket on one host: the random value of a run, the same for all its VMs."""

    def __init__(self, host: Host, options: Options, ticket: str) -> None:
        self.host, self.options, self.ticket = host, dataclasses.replace(options, ticket=ticket), ticket
        self.converger = Converger(host, self.options)

    def run(self, step: str, specs: Sequence[VmSpec]) -> List[Outcome]:
        """Carry out C(claim), C(build) or C(withdraw) for the VMs."""
        check_batch(specs)
        return {"claim": self.claim, "build": self.build, "withdraw": self.withdraw}[step](specs)

    def _mine(self, record: Optional[DomainRecord]) -> bool:
        return record is not None and record.metadata is not None and record.metadata.ticket == self.ticket

    def _phase(self, name: str) -> Optional[str]:
        record = self.host.domains.get(name)
        return record.metadata.phase if record is not None and record.metadata is not None else None

    def claim(self, specs: Sequence[VmSpec]) -> List[Outcome]:
        """Under the host's lock: remove stale claims, count, and define what is new in phase C(pending).

        Claims of mine that are there already are kept, with the addresses that are asked for now. VMs that exist are left as they are.
        """
        self.host.look()
        half_deleted = [s.name for s in specs if self._phase(s.name) == "deleting"]
        with _admission.vm_locks(self.host.uri, half_deleted, self.options.lock_timeout_s), _admission.host_lock(self.host.uri):
            self.host.look()
            if not self.options.check:
                stale = _admission.stale_claims(list(self.host.domains.values()), self.options.claim_ttl_s)
                for record in stale:
                    undefine(record.handle)
                if stale:
                    self.host.look()
            outcomes = [self.converger.plan_one(spec) for spec in specs]
            for outcome in outcomes:
                torn = torn_by_others(outcome)
                if torn and self.host.look_at(outcome.name) is None:
                    outcome.error = FleetError("VM {0} was deleted by another run meanwhile; try again".format(outcome.name), "busy")
                elif self._phase(outcome.name) == "deleting" and outcome.name not in half_deleted and (torn or not outcome.error):
                    outcome.error = FleetError("VM {0} is being deleted by another run; try again when that has ended".format(outcome.name), "busy")
            self.converger.check_together(outcomes)  # the growth of those that exist is counted with the new ones
            fresh = [o for o in outcomes if o.plan and o.plan.kind == "create"]
            moved = [o for o in outcomes if self._other_addresses(o)]
            for outcome in outcomes:
                if outcome in moved and outcome.plan and outcome.plan.metadata:
                    outcome.plan.actions = ["claim other addresses: {0}".format(", ".join(outcome.plan.metadata.addresses))]
                elif outcome.plan and outcome.plan.metadata and outcome in fresh:
                    outcome.plan.metadata.phase, outcome.plan.metadata.ticket = "pending", self.ticket
                    outcome.plan.metadata.claimed = _metadata.utc_now()
                    outcome.plan.actions = ["claim room: define the domain as pending"]
                elif outcome.plan:
                    outcome.plan.actions = []
            if self.options.check or (self.options.atomic and any(o.error for o in outcomes)):
                return self.converger.described(outcomes)
            if not self.options.check:
                self._renew()
            for outcome in moved:
                record = self.host.domains[outcome.name]
                if outcome.plan and outcome.plan.metadata and record.metadata:
                    write_metadata(record.handle, dataclasses.replace(record.metadata, addresses=list(outcome.plan.metadata.addresses)))
                    outcome.carried_out = True
            for outcome in fresh:
                self.converger.delete_predecessor(outcome)
            self.converger.book([o for o in fresh if not o.error])
            if self.options.atomic and any(o.error for o in outcomes):
                self.converger.undo_all(outcomes)
        for outcome in fresh + moved:
            self.host.look_at(outcome.name)
        return self.converger.described(outcomes)

    def _renew(self) -> None:
        """Make claims of mine young again that are held for long; nobody has removed them, so nobody is lied to."""
        for record in self.host.domains.values():
            if self._mine(record) and record.metadata is not None and record.metadata.phase == "pending" and (
                    _metadata.age_seconds(record.metadata.claimed or "") > self.options.claim_ttl_s / 4):
                record.metadata.claimed = _metadata.utc_now()
                write_metadata(record.handle, record.metadata)

    def _other_addresses(self, outcome: Outcome) -> bool:
        """Whether a claim of mine is kept and gets other addresses, because somebody else turned out to have the first ones."""
        record = self.host.domains.get(outcome.name)
        if not self._mine(record) or self._phase(outcome.name) != "pending" or outcome.error or outcome.plan is None or outcome.plan.metadata is None:
            return False
        return record is not None and record.metadata is not None and outcome.plan.metadata.addresses != record.metadata.addresses

    def _commit(self, names: Sequence[str]) -> List[str]:
        """The compare-and-set, under the host's lock and on what has just been read: my pending claims become C(building). Returns their names.

        Raises FleetError C(claim_lost) where one is gone. A VM that was there before the claim is none.
        """
        claimed, lost = [], []
        for name in names:
            # What is not there, or is going, was claimed and lost; so was what is there and should be a claim.
            if name not in (self.options.claimed or ()) and name in self.host.domains and self._phase(name) not in ("pending", "deleting"):
                continue
            claimed.append(name)
            if not self._mine(self.host.domains.get(name)) or self._phase(name) != "pending":
                lost.append(name)
        if lost:
            raise FleetError("The claim for {0} is gone: it took longer than claim_ttl ({1:g} s), and another run removed it".format(
                ", ".join(lost), self.options.claim_ttl_s), "claim_lost")
        failures = [failure for _done, failure in in_parallel(self._to_building, claimed, workers=4) if failure is not None]
        if failures:
            raise failures[0]
        return claimed

    def _to_building(self, name: str) -> None:
        record = self.host.domains[name]
        if record.metadata is not None:
            record.metadata.phase = "building"
            _metadata.store(record.root, record.metadata)
            write_metadata(record.handle, record.metadata)

    def build(self, specs: Sequence[VmSpec]) -> List[Outcome]:
        """Commit, then make the VMs complete; those that existed before are converged as by step C(all)."""
        claimed: List[str] = []
        wanted = [s.name for s in specs if s.state != "absent"]
        if self.options.check:
            outcomes = self.converger.run(specs)
            claimed = [name for name in wanted if self._mine(self.host.domains.get(name))]
        else:
            with _admission.vm_locks(self.host.uri, [s.name for s in specs], self.options.lock_timeout_s):
                outcomes = self.converger.run_locked(specs, claimed, lambda: claimed.extend(self._commit(wanted)))
        for outcome in outcomes:
            if outcome.name in claimed and outcome.plan is not None:
                outcome.plan.actions = [BUILD if action == FINISH else action for action in outcome.plan.actions]
        return outcomes

    def withdraw(self, specs: Sequence[VmSpec]) -> List[Outcome]:
        """Take back my claims, and what I built under them that is not ready, or is and is named with its UUID.

        VMs of others stay, whatever their name, and so do volumes that the user gave.
        """
        outcomes = []
        with _admission.vm_locks(self.host.uri, [s.name for s in specs], self.options.lock_timeout_s), _admission.host_lock(self.host.uri):
            self.host.look()
            for spec in specs:
                record = self.host.domains.get(spec.name)
                outcome = Outcome(spec.name)
                if record is not None and record.metadata is not None and (
                        (self._mine(record) and record.metadata.phase != "ready") or (spec.uuid is not None and spec.uuid == record.uuid)):
                    outcome.plan = make_plan(self.host, VmSpec(spec.name, state="absent", delete_given=False))
                    if not self.options.check:
                        self.converger.delete(outcome)
                outcomes.append(outcome)
        return self.converger.described(outcomes)
