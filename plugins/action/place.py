# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement at run time: from what every host has just said to what each has to do, round by round until it is settled."""
from __future__ import annotations

import random
import secrets
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible.utils.display import Display

from ansible_collections.kvmfleet.core.plugins.module_utils._placement_filters import CAPACITY_CODES
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import Plan
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, told_name
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _placement_report, _request, _settle
from ansible_collections.kvmfleet.core.plugins.plugin_utils._action import PlanAction
from ansible_collections.kvmfleet.core.plugins.plugin_utils._planning import (
    Context, FleetPlan, State, Wish, holders, plan_requests, still_holds, without_claims)
from ansible_collections.kvmfleet.core.plugins.plugin_utils._report import nobody_answered, user_message, where_to_look

display = Display()

STEPS = ("plan", "settle", "undo")
_PATIENCE_S = 60.0   # beyond the time after which a crashed run's claim may be removed
_MOST_TTL_S = 600.0
_MOST_ROUNDS = 100   # each is an included file within the one before
_SILENCES = 1        # readings in a row that a host may miss while it may hold the addresses in question
_PAUSE_S = 0.5       # before one looks again, where nothing can be done but wait for another run


class ActionModule(PlanAction):
    """See plugins/modules/place.py for its documentation."""

    ARGUMENTS = {
        "step": {"type": "str", "required": True, "choices": list(STEPS)},
        "plan": {"type": "str", "default": "vm_plan"},
        "capacity": {"type": "str", "default": "vm_capacity"},
        "seen": {"type": "str", "default": "vm_seen"},
        "claimed": {"type": "str", "default": "vm_claim"},
        "results": {"type": "str", "default": "vm_result"},
    }

    def step(self, name: str, plan: Dict[str, Any]) -> Dict[str, Any]:
        try:
            return {"plan": self._first, "settle": self._after_claims, "undo": self._undo}[name](plan)
        except SpecError as exc:
            if name != "settle":
                raise
            return self._give_up(plan, {}, str(exc), exc.code)  # what is claimed already is taken back first

    # -- what the hosts said -------------------------------------------------------------------------------------------------------------

    def _states(self, names: Sequence[str], later: Optional[str] = None) -> Dict[str, State]:
        """What each host said; with C(later) brought up to date by what it has said since."""
        # A host that has left the play, or was never in it, may have said something in an earlier play or round.
        there = set(self._vars.get("ansible_play_hosts") or [])
        states: Dict[str, State] = {}
        for name in names:
            if name not in there:
                states[name] = None
                continue
            first = self.registered(name, self.args["capacity"])
            now = self.registered(name, later) if later else first
            states[name] = dict(first, **now) if "vcpus" in now else None
        return states

    def _silent(self, states: Mapping[str, State]) -> Dict[str, str]:
        """Host -> why it did not answer."""
        return {name: _why_silent(self.registered(name, self.args["capacity"])) for name, state in states.items()
                if state is None and name in (self._vars.get("ansible_play_hosts_all") or [])}

    def _wishes(self, plan: Mapping[str, Any]) -> List[Wish]:
        self._catalogs, self._all_hosts = self.catalogs(), self.hosts()
        out = self.left_out()
        self._all_hosts += [self._read(name) for name in out]
        return self.wishes(self.requested(plan["source"], plan.get("scaling")), self._catalogs, self._all_hosts)

    # -- the first plan ------------------------------------------------------------------------------------------------------------------

    def _first(self, plan: Dict[str, Any]) -> Dict[str, Any]:
        wishes = self._wishes(plan)
        states = self._states([host.name for host in self._all_hosts])
        silent = self._silent(states)
        plan.update(silent=silent, silent_first=silent)
        if silent and len(silent) == len(self.hosts()):
            why = SpecError("kvm_hosts", None, "no host answered: {0}".format(nobody_answered(silent)),
                            where_to_look([self.registered(name, self.args["capacity"]) for name in silent]), "host_unreachable")
            return self._refuse(plan, str(why), why.code)
        # One random value per run, the same for all its VMs: ordered by VM, two batches could withdraw from each other for ever.
        plan["ticket"] = secrets.token_hex(8)
        context = Context(plan["ticket"], plan["claim_ttl"])
        made = self._made(wishes, states, context)
        self._tell(made, silent)
        if not made.placement.ok:
            plan["placement"] = made.placement.as_result(every_host=True)
            return self._refuse(plan, made.placement.message, _code(made.placement))
        plan.update(unseen=all(w.values.get("vm_allow_unreachable") for w in wishes))
        plan.update(notes=made.notes, placement=made.placement.as_result(every_host=True), reachable=[n for n in states if states[n] is not None],
                    surplus=[name for name in made.surplus if name not in made.removed])
        if self._task.check_mode or not (made.fresh or made.waiting or made.sweep):
            plan["notes"] += ["{0}; a real run would wait for it".format(why) for why in dict.fromkeys(made.waiting.values())]
            del plan["ticket"]
            return self._ready(plan, made, wishes, "all")
        plan["waiting"] = sorted(made.waiting)
        plan["race"] = {"round": 1, "began": time.time(), "avoid": {}, "lost": {}, "refusals": {}, "codes": []}
        return self._claim(plan, made, wishes, [] if made.yields else list(made.items))

    def _made(self, wishes: Sequence[Wish], states: Mapping[str, State], context: Context) -> FleetPlan:
        """The plan; where it fails only because of claims of others, which may yet be given up, one that says to wait for them. Raises SpecError."""
        fault: Optional[SpecError] = None
        made: Optional[FleetPlan] = None
        try:
            made = plan_requests(wishes, self._catalogs, self._all_hosts, states, context)
        except SpecError as exc:
            fault = exc
        if made is not None and made.placement.ok:
            return made
        left, rivals = without_claims(states, context)
        if rivals:
            try:
                without = plan_requests(wishes, self._catalogs, self._all_hosts, left, context)
            except SpecError:
                without = None
            if without is not None and without.placement.ok:
                if self._task.check_mode:
                    without.notes.append("other runs have claims that are in the way of this; a real run would wait for them")
                    return without
                reader = next((str(w.values["vm_group"]) for w in wishes if w.values.get("vm_group")), None)
                named = sorted({"VM " + told_name(str(vm["name"]), vm.get("group"), reader) for vm in rivals})
                why = "room, addresses or a quota are claimed by other runs ({0})".format(", ".join(named[:3]))
                held = {str(vm["name"]): host for host, vm in holders(states) if vm.get("ticket") == context.ticket and vm.get("phase") == "pending"}
                return FleetPlan(placement=without.placement, fresh=held, waiting=dict.fromkeys(without.placement.hosts, why), sweep=without.sweep,
                                 yields=any(str(vm.get("ticket") or "") < str(context.ticket) for vm in rivals), notes=without.notes)
        if made is None:
            raise fault or AssertionError("neither a plan nor why there is none")
        return made

    def _tell(self, made: FleetPlan, silent: Mapping[str, str]) -> None:
        """Where it goes and why: in check mode and with C(--diff), and where it goes nowhere."""
        if self._task.check_mode or self._task.diff or not made.placement.ok:
            display.display("\n".join([""] + _placement_report.lines(made.placement, silent) + [""]))

    def _ready(self, plan: Dict[str, Any], made: FleetPlan, wishes: Sequence[Wish], step: str) -> Dict[str, Any]:
        if wishes and made.removed:
            _request.check_confirm(wishes[0].values, len(made.removed), sorted(made.removed))
        waits = {r.name for w in wishes for r in w.requests if _request.default_wait(w.values) != "none"}
        claimed = {host: sorted(name for name, where in made.fresh.items() if where == host) for host in set(made.fresh.values())}
        plan.update(vms=made.items, claimed=claimed, step=step, next="build", claims=step == "build", fresh=made.fresh)
        plan.update(claim_hosts={}, withdraw={}, fetch_now={}, waits={
            host: [item["name"] for item in items if item["name"] in waits and item.get("state") != "absent"] for host, items in made.items.items()})
        return plan

    @staticmethod
    def _refuse(plan: Dict[str, Any], why: str, reason: str) -> Dict[str, Any]:
        """The failure of a request for which nothing is to be done. vm_report tells it, with the reasons of each host."""
        plan.update(failure={"msg": why, "reason": reason}, vms={}, waits={}, claims=False, wait="none")
        return plan

    # -- rounds --------------------------------------------------------------------------------------------------------------------------

    def _claim(self, plan: Dict[str, Any], made: FleetPlan, wishes: Sequence[Wish], hosts: Sequence[str]) -> Dict[str, Any]:
        """What is to be claimed now: on hosts with news, and on those where claims of runs that are gone have to be removed."""
        self._ready(plan, made, wishes, "build")
        plan["next"] = "again"
        if made.yields:
            plan["fresh"] = {}
        plan["claim_hosts"] = {host: [i for i in made.items.get(host, []) if i.get("state") != "absent"] if host in hosts else []
                               for host in sorted(set(hosts) | set(made.sweep))}
        # A claim keeps its first address until the host has taken the next one.
        drawn = plan.get("drawn") or {}
        plan["drawn"] = dict(drawn, **{name: sorted(set(drawn.get(name, []) + addresses)) for name, addresses in self._drawn(made, wishes).items()})
        return plan

    @staticmethod
    def _drawn(made: FleetPlan, wishes: Sequence[Wish]) -> Dict[str, List[str]]:
        """VM -> addresses that it was given out of pools."""
        pools = {(r.name, number) for w in wishes for r in w.requests for number, nic in enumerate(r.nics or []) if nic.pool}
        return {item["name"]: [a for number, nic in enumerate(item.get("nics") or item.get("default_nics") or []) if (item["name"], number) in pools
                               for a in nic.get("addresses") or []] for items in made.items.values() for item in items}

    def _after_claims(self, plan: Dict[str, Any]) -> Dict[str, Any]:
        """After the claims have been made and every host has been read: build, or another round."""
        wishes = self._wishes(plan)
        race, ticket = plan["race"], plan["ticket"]
        context = Context(ticket, plan["claim_ttl"], race["avoid"], race["lost"])
        states = self._states([host.name for host in self._all_hosts], self.args["seen"])
        refused = self._refused(plan, context)
        mine, misplaced = self._mine(plan, states, ticket)
        plan["mine"] = [*mine.items(), *misplaced]
        held = dict({name: host for name, host in plan["fresh"].items() if host not in refused.avoid_hosts}, **mine)
        macs = {r.name: [str(nic.item["mac"]).lower() for nic in r.nics or [] if nic.item.get("mac")] for w in wishes for r in w.requests}
        verdict = _settle.settle(held, states, context, plan["drawn"], macs)
        race["round"] += 1
        race["began"] = race["began"] or time.time()
        if refused.fatal or verdict.fatal:
            return self._give_up(plan, mine, refused.fatal or verdict.fatal or "", refused.reason or verdict.reason or "failed")
        self._look_at_rules(plan, wishes, states, context, mine, verdict)
        silent = self._newly_silent(plan, states, mine)
        waiting = set(plan.get("waiting") or [])
        if verdict.decided and not refused.hosts and not waiting and not misplaced and not silent:
            return dict(plan, next="build", claim_hosts={}, withdraw={}, fetch_now={})
        race["silent"] = race.get("silent", 0) + 1 if silent else 0
        late = time.time() - race["began"] > min(plan["claim_ttl"], _MOST_TTL_S) + _PATIENCE_S or race["round"] > _MOST_ROUNDS
        if late or race["silent"] > _SILENCES:
            why = silent + list(verdict.wait.values()) + list(verdict.withdraw.values()) + list(refused.words.values()) + ["another run is in the way"]
            return self._give_up(plan, mine, "gave up after {0} rounds: {1}".format(race["round"], why[0]), "host_unreachable" if silent else
                                 refused.reason or "busy")
        for name, addresses in verdict.lost.items():
            race["lost"].setdefault(name, []).extend(addresses)
        for name, hosts in verdict.avoid.items():
            for host, words in hosts.items():
                race["refusals"][name + " " + host] = race["refusals"].get(name + " " + host, 0) + 1
                if race["refusals"][name + " " + host] > 1:
                    race["avoid"].setdefault(name, {})[host] = words
        return self._again(plan, wishes, states, context, mine, verdict, refused, misplaced)

    @staticmethod
    def _mine(plan: Mapping[str, Any], states: Mapping[str, State], ticket: str) -> Tuple[Dict[str, str], List[Tuple[str, str]]]:
        """The claims of this run that are where they are wanted, and those that are elsewhere: left on a host that did not answer for a while."""
        found = [(str(vm["name"]), host) for host, vm in holders(states) if vm.get("ticket") == ticket and vm.get("phase") == "pending"]
        return {n: host for n, host in found if plan["fresh"].get(n, host) == host}, [(n, host) for n, host in found if plan["fresh"].get(n, host) != host]

    def _newly_silent(self, plan: Dict[str, Any], states: Mapping[str, State], mine: Mapping[str, str]) -> List[str]:
        """Hosts that answered first and did not now. A VM of the same name there would not be seen; for addresses that is too little to go on."""
        silent = sorted(host for host in plan["reachable"] if states[host] is None)
        plan["silent"] = dict(plan["silent_first"])
        for host in silent:
            plan["silent"][host] = _why_silent(self.registered(host, self.args["seen"]))
        note = "{0} did not answer any more after the claims: a VM of the same name there would not have been seen".format(", ".join(silent))
        plan["notes"] = [n for n in plan["notes"] if "did not answer any more" not in n] + ([note] if silent else [])
        addressed = any(vm.get("addresses") for _host, vm in holders(states) if vm.get("ticket") == plan["ticket"] and str(vm["name"]) in mine)
        return ["{0} does not answer, and may have the addresses of these VMs".format(host) for host in silent] if addressed and not plan["unseen"] else []

    def _look_at_rules(self, plan: Mapping[str, Any], wishes: Sequence[Wish], states: Mapping[str, State], context: Context, mine: Mapping[str, str],
                       verdict: _settle.Verdict) -> None:
        """Whether what no single host can judge (quotas, VMs per host, rules of nearness) still holds with what others have claimed meanwhile."""
        if not mine:
            return
        broken = still_holds(wishes, self._catalogs, self._all_hosts, states, context, plan["fresh"], larger=False)
        if broken:
            verdict.withdraw.update(dict.fromkeys(mine, broken))
            return
        broken = still_holds(wishes, self._catalogs, self._all_hosts, states, context, plan["fresh"], larger=True)
        if broken:
            for name in mine:
                verdict.wait.setdefault(name, broken)

    def _again(self, plan: Dict[str, Any], wishes: Sequence[Wish], states: Dict[str, State], context: Context, mine: Dict[str, str],
               verdict: _settle.Verdict, refused: "_Refused", misplaced: Sequence[Tuple[str, str]]) -> Dict[str, Any]:
        """The next round: withdraw what is lost, fetch images that are missing, plan anew from what the hosts have just said."""
        race = plan["race"]
        # Fetching takes longer than a claim is good for.
        going = set(mine) if refused.fetch else set(verdict.withdraw)
        withdraw: Dict[str, List[str]] = {}
        for name in sorted(going & set(mine)):
            withdraw.setdefault(mine[name], []).append(name)
        for name, host in misplaced:
            withdraw.setdefault(host, []).append(name)
        for host, names in withdraw.items():
            state = states[host]
            if state is not None:
                states[host] = dict(state, vms=[vm for vm in state["vms"] if vm["name"] not in names or vm.get("ticket") != context.ticket])
        made = self._made(wishes, states, context)
        if not made.placement.ok:
            return self._give_up(plan, mine, made.placement.message, _code(made.placement, race["codes"]), made)
        news = {host for name, host in made.fresh.items() if name not in mine or name in going or name in verdict.lost}
        for name, old in plan["fresh"].items():
            if states.get(old) is None and made.fresh.get(name) != old:
                withdraw.setdefault(old, []).append(name)  # it may be there, on a host that does not say
        # A claim that is held for long is made young again, or others would take it for one of a run that is gone.
        ages = {str(vm["name"]): vm.get("claim_age_s") or 0 for _host, vm in holders(states) if vm.get("ticket") == context.ticket}
        news |= {host for name, host in mine.items() if name not in going and ages.get(name, 0) > plan["claim_ttl"] / 3}
        if made.yields:
            news = set()
            for name, host in mine.items():
                if name not in withdraw.get(host, []):
                    withdraw.setdefault(host, []).append(name)
        self._claim(plan, made, wishes, sorted(news))
        plan.update(waiting=sorted(made.waiting), notes=made.notes, placement=made.placement.as_result(every_host=True), fetch_now=refused.fetch,
                    withdraw={host: [{"name": name} for name in names] for host, names in withdraw.items()})
        if refused.fetch:
            plan["race"]["began"] = 0  # it may take as long as it takes
        if not news and not withdraw:
            time.sleep(_PAUSE_S * (1 + random.random()))
        return plan

    def _refused(self, plan: Dict[str, Any], context: Context) -> "_Refused":
        """What became of the claim step on each host that had one."""
        refused, race = _Refused(), plan["race"]
        for host, items in plan["claim_hosts"].items():
            result = self.registered(host, self.args["claimed"])
            if "vms" in result and not result.get("reason"):
                continue
            reason = "host_unreachable" if result.get("unreachable") else str(result.get("reason") or "failed")
            words = user_message(result)
            refused.hosts.append(host)
            refused.words[host] = words
            if reason == "unknown_image" and plan["fetch"].get(host):
                used = {item.get("image") for item in items}
                refused.fetch[host] = [image for image in plan["fetch"][host] if image["name"] in used]
                if race["refusals"].get("image " + host):
                    refused.fatal, refused.reason = words, reason
                race["refusals"]["image " + host] = 1
            elif reason in _settle.ELSEWHERE:
                refused.avoid_hosts.append(host)
                race["codes"].append(reason)
                for item in items:
                    key = "{0} {1}".format(item["name"], host)
                    race["refusals"][key] = race["refusals"].get(key, 0) + 1
                    # Its capacity is known anew; only a host that says no again, or for another reason, is left out.
                    if reason != "no_capacity" or race["refusals"][key] > 1:
                        race["avoid"].setdefault(item["name"], {})[host] = "{0} refused: {1}".format(host, words)
                    if race["refusals"][key] > 1 and not any(other["name"] in plan["fresh"] for other in items):
                        refused.fatal, refused.reason = "{0}: {1}".format(host, words), reason  # it stays where it is, and cannot be as it is asked
                refused.reason = refused.reason or (reason if reason == "no_capacity" else None)
            elif reason in _settle.AGAIN:
                refused.avoid_hosts.append(host)
            else:
                refused.fatal, refused.reason = "{0}: {1}".format(host, words), reason
        return refused

    def _give_up(self, plan: Dict[str, Any], mine: Mapping[str, str], why: str, reason: str, made: Optional[FleetPlan] = None) -> Dict[str, Any]:
        """The failure that undoes the batch: every claim of this run is taken back."""
        if made is not None:
            self._tell(made, plan.get("silent") or {})
            plan["placement"] = made.placement.as_result(every_host=True)
        withdraw: Dict[str, List[Dict[str, Any]]] = {}
        # Also where it is not known whether there is a claim; if a host does not answer, it runs out there.
        wanted = set(mine.items()) | set(plan["fresh"].items()) | {(str(name), str(host)) for name, host in plan.get("mine") or []}
        wanted |= {(item["name"], host) for host, items in plan["claim_hosts"].items() for item in items}
        for name, host in sorted(wanted):
            withdraw.setdefault(host, []).append({"name": name})
        self._refuse(plan, why, reason)
        plan.update(next="failed", withdraw=withdraw, claims=True, claim_hosts={}, fetch_now={})
        return plan

    # -- after a failure -----------------------------------------------------------------------------------------------------------------

    def _undo(self, plan: Dict[str, Any]) -> Dict[str, Any]:
        """What is left of a batch that failed while it was built: by host the VMs that this run has made, and its claims. Nothing where all went well."""
        results = {host: self.registered(host, self.args["results"]) for host in plan["vms"]}
        if all("vms" in result and not result.get("reason") for result in results.values()):
            return {"work": {}}
        work: Dict[str, List[Dict[str, Any]]] = {}
        for host, items in plan["vms"].items():
            # With its UUID, so that nothing goes but what this run has made.
            made = {vm["name"]: vm.get("uuid") for vm in results[host].get("vms") or [] if vm.get("created")}
            names = [item["name"] for item in items if plan["fresh"].get(item["name"]) == host]
            if names:
                work[host] = [{"name": name, "uuid": made[name]} if made.get(name) else {"name": name} for name in names]
        return {"work": work}


def _why_silent(result: Mapping[str, Any]) -> str:
    return user_message(result) if result.get("msg") else "no answer"


def _code(placement: Plan, refusals: Sequence[str] = ()) -> str:
    """The reason of a refusal as users know it: which resource is short is in the words, and what the hosts said is their reason.

    :param refusals: the hosts' own reasons in this run
    """
    if placement.code in CAPACITY_CODES or (placement.code == "refused_by_host" and "no_capacity" in refusals):
        return "no_capacity"
    return refusals[-1] if placement.code == "refused_by_host" and refusals else placement.code


class _Refused:
    """Hosts that refused their claims: their words, what to fetch for them, and whether all has to be given up."""

    def __init__(self) -> None:
        self.hosts: List[str] = []
        self.avoid_hosts: List[str] = []
        self.words: Dict[str, str] = {}
        self.fetch: Dict[str, List[Dict[str, Any]]] = {}
        self.fatal: Optional[str] = None
        self.reason: Optional[str] = None
