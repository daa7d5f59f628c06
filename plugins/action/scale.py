# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scale a set: what is to be done, whether another run was faster, and how it ended."""
from __future__ import annotations

import os
import secrets
from typing import Any, Dict, List, Mapping, Sequence

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _keys, _request, _scaling
from ansible_collections.kvmfleet.core.plugins.plugin_utils._action import PlanAction
from ansible_collections.kvmfleet.core.plugins.plugin_utils._address_pools import read_pool
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, Host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._planning import wish_of
from ansible_collections.kvmfleet.core.plugins.plugin_utils._report import failures, user_message

STEPS = ("decide", "compare", "begun", "ended")
_MOST_ROUNDS = 10
# The first member has been scaled, deleted, or taken in hand by another run: what was decided no longer holds.
_AGAIN = ("scaled_meanwhile", "unknown_vm", "busy")
# Of what is given, what the first member is compared by as well; besides what goes into the seed.
_KEPT = ("vm_name", "vm_group", "vm_namespace", "vm_key_dir", "vm_shutdown_timeout")


class ActionModule(PlanAction):
    """See plugins/modules/scale.py for its documentation."""

    ARGUMENTS = {
        "step": {"type": "str", "required": True, "choices": list(STEPS)},
        "plan": {"type": "str", "default": "vm_plan"},
        "found": {"type": "str", "default": "vm_found"},
        "compared": {"type": "str", "default": "vm_like"},
        "noted": {"type": "str", "default": "vm_noted"},
        "results": {"type": "str", "default": "vm_result"},
        "undone": {"type": "str", "default": "vm_undo"},
    }

    def step(self, name: str, plan: Dict[str, Any]) -> Dict[str, Any]:
        return {"decide": self._decide, "compare": self._compare, "begun": self._begun, "ended": self._ended}[name](plan)

    # -- what is there, and what is to be done ---------------------------------------------------------------------------------------------

    def _found(self, values: Mapping[str, Any], said: List[str]) -> Dict[str, List[Mapping[str, Any]]]:
        """What each host has. Raises SpecError where one cannot be asked and nobody has allowed that: its members would be missing in the count."""
        found = {host: self.registered(host, self.args["found"]) for host in self._vars.get("ansible_play_hosts_all") or []}
        silent = sorted([host for host, looked in found.items() if "vms" not in looked] + self.left_out())
        if silent and not values["vm_allow_unreachable"]:
            why = next((user_message(found[host]) for host in silent if found.get(host)), "it is left out by --limit")
            raise SpecError("vm_name", str(values["vm_name"]), "may have members on {0}, which cannot be asked: {1}".format(", ".join(silent), why),
                            "Nothing was done. Repair the host, take it out of the inventory, or give vm_allow_unreachable=true to count what is seen",
                            "host_unreachable")
        if silent:
            said.append("{0} could not be asked: members of the set there are not counted".format(", ".join(silent)))
        return {host: list(looked.get("vms") or []) for host, looked in found.items()}

    def _decide(self, plan: Dict[str, Any]) -> Dict[str, Any]:
        values = self.values("scale")
        ask = _scaling.ask_of(values)
        catalogs, hosts = self.catalogs(), self.hosts()
        said: List[str] = []
        found = _scaling.set_of(values, self._found(values, said))
        name = _request.full_name(values, str(values["vm_name"]))
        if not found.exists and not (values["vm_create_set"] and ask.direction != "down"):
            raise SpecError("vm_name", str(values["vm_name"]), "there is no set of that name", "Make it with create_vm and vm_count, look for it with "
                            "list_vms, or give vm_create_set=true together with what its VMs are to be", "unknown_set")
        if found.exists and not found.members:
            raise SpecError("vm_name", str(values["vm_name"]), "has no member that is there: {0} is being made or deleted by another run, or was left by one"
                            .format(found.unfinished[0].name), "Try again when that has ended, or delete what is left (delete_vm)", "busy")
        last = _scaling.last_note(found.members)
        decision = _scaling.decide(ask, found, last)
        # The number of the round is all that outlives it.
        scaling: Dict[str, Any] = {"round": plan["scaling"]["round"] + 1, "next": "act" if decision.acts else "done", "set": name,
                                   "from": decision.size, "to": decision.target, "reason": decision.code, "words": decision.words,
                                   "direction": ask.direction, "add": decision.add, "like": {}, "ticket": secrets.token_hex(8),
                                   "said": said + self._notes(found, decision)}
        if scaling["round"] > _MOST_ROUNDS:
            raise SpecError("vm_name", str(values["vm_name"]), "is being scaled by other runs over and over", "Try again", "busy")
        made = {key: plan[key] for key in ("options", "users", "jumps", "key_dir", "patterns", "lookup")}
        made.update(verb="scale", scaling=scaling, vms={}, wait="none", claims=False, step="all")
        if found.members and decision.acts:
            first = found.members[0]
            scaling.update(keeper=first.host, first=first.name, notes=_scaling.notes_for(ask, first, last, scaling["ticket"]))
        if decision.remove:
            for member in decision.remove:
                item = dict(_request.absent(member.name, dict(values, vm_delete_disks=True)).item, uuid=member.uuid)
                made["vms"].setdefault(member.host, []).append(item)
        if decision.add:
            made.update(self._additions(values, catalogs, hosts, found, scaling))
        return made

    @staticmethod
    def _notes(found: _scaling.Found, decision: _scaling.Decision) -> List[str]:
        notes = []
        if found.unfinished:
            notes.append("{0}: being made or deleted by another run, or left by one; not counted".format(_scaling.names(found.unfinished)))
        passed = [name for number, name in sorted(found.occupied.items()) if decision.add and number < decision.add[-1]]
        if passed:
            notes.append("{0}: a VM of another origin, or one that has failed, has the name; passed over".format(", ".join(passed)))
        return notes

    def _additions(self, values: Dict[str, Any], catalogs: Catalogs, hosts: List[Host], found: _scaling.Found, scaling: Dict[str, Any]) -> Dict[str, Any]:
        """What the tasks that make the new members need."""
        secret: Dict[str, Any] = {}
        if found.members:
            first = found.members[0]
            host = next(h for h in hosts if h.name == first.host)
            scaling["like"], said = _scaling.like_first(first, host, found.members, catalogs, values)
            scaling["said"].extend(said)
            self._check_key(values, scaling["like"], first)
            given = {key: values[key] if key in _scaling.SEED_VARIABLES or key in _KEPT else None for key in values}
            try:
                scaling["compare"] = self._like_item(given, catalogs, hosts, found, host)
            except SpecError:  # what is not known of it, such as a network without a name, is given for new VMs perhaps
                try:
                    scaling["compare"] = self._like_item(values, catalogs, hosts, found, host)
                except SpecError as exc:
                    self._not_compared(values, scaling, first.name, str(exc))
            if _request.has_secrets(values):
                secret = {"_ansible_no_log": True, "secret": True}
        wishes = self.wishes(self.requested("scale", scaling), catalogs, hosts)
        return dict(self.creation("scale", wishes, hosts), verb="scale", fleet=True, **secret)

    def _check_key(self, values: Mapping[str, Any], like: Mapping[str, Any], first: _scaling.Member) -> None:
        """The key pair that the set was made with has to be here; another one of its name would be made otherwise."""
        name = like.get("vm_key_name")
        if name is None or values.get("vm_key_name") is not None:
            return
        path = os.path.join(os.path.expanduser(values["vm_key_dir"]), name)
        if _keys.under_awx(self._vars, os.environ) or not (os.path.exists(path) or os.path.exists(path + ".pub")):
            raise SpecError("vm_ssh_key", None, "is missing: {0} has key {1}, which is not in {2} here".format(first.name, name, values["vm_key_dir"]),
                            "Give the public key that new VMs are to have, or none", "missing_variable")

    def _like_item(self, given: Dict[str, Any], catalogs: Catalogs, hosts: Sequence[Host], found: _scaling.Found, host: Host) -> Dict[str, Any]:
        """The first member as it would be asked for by what is given and known of it; vm_set in check mode tells what is not. Raises SpecError."""
        first = found.members[0]
        like, _said = _scaling.like_first(first, host, found.members, catalogs, given)
        wanted = dict(_scaling.filled(given, like), numbers=[first.index], vm_state="present")
        keys = _keys.Keys()
        if _request.wants_seed(wanted, _request.image_of(wanted, catalogs)):
            keys = _keys.keys_for(wanted, str(wanted["vm_name"]), True, _keys.under_awx(self._vars, os.environ))
        request = wish_of(wanted, catalogs, hosts, keys).requests[0]
        item = _request.host_item(request, host, catalogs)
        for nic, wish in zip(item.get("nics") or item.get("default_nics") or [], request.nics or []):
            if wish.pool:
                pool = read_pool(wish.pool, catalogs, wish.network)
                nic.update(wish.with_address, addresses=[a for a in first.vm.get("static_addresses") or [] if pool.contains(a)][:1])
        return item

    # -- what came of it ---------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _not_compared(values: Mapping[str, Any], scaling: Dict[str, Any], first: str, why: str) -> None:
        """Say that nobody knows whether new members are like the first one. Raises SpecError where that is not allowed."""
        if not values["vm_allow_other_seed"]:
            raise SpecError("vm_name", scaling["set"], "new VMs could not be compared with {0}, so that they may lack what is in its cloud-init seed: {1}"
                            .format(first, why.rstrip(".")), "Mend that, or give vm_allow_other_seed=true together with all that new VMs are to have",
                            "unknown_seed")
        scaling["said"].append("New VMs could not be compared with {0}: {1}".format(first, why))

    def _compare(self, plan: Dict[str, Any]) -> Dict[str, Any]:
        """Whether the first member is as it would be made by what is given and known of it. Raises SpecError where its seed is not and that is not allowed."""
        scaling, values = plan["scaling"], self.values("scale")
        if scaling.pop("compare", None) is None:
            return plan  # a new set, or there is something in the way, which has been said
        result = self.registered(scaling["keeper"], self.args["compared"])
        first = scaling["first"]
        if "vms" not in result or result.get("reason"):
            self._not_compared(values, scaling, first, user_message(result))
            return plan
        other_seed, options = _scaling.differences(result)
        if other_seed and not values["vm_allow_other_seed"]:
            raise _scaling.other_seed(scaling["set"], first, values, scaling["like"])
        if other_seed:
            scaling["said"].append("The cloud-init seed of new VMs differs from that of {0}".format(first))
        if options:
            scaling["said"].append("New VMs differ from {0} in {1}".format(first, ", ".join(options)))
        return plan

    def _begun(self, plan: Dict[str, Any]) -> Dict[str, Any]:
        """Whether the first member has taken the note that this run begins."""
        scaling = plan["scaling"]
        if "keeper" not in scaling:
            return plan  # a new set
        result = self.registered(scaling["keeper"], self.args["noted"])
        if "vms" in result and not result.get("reason"):
            return plan
        if result.get("reason") in _AGAIN:
            return dict(plan, vms={}, claims=False, scaling=dict(scaling, next="again"))
        raise SpecError("vm_name", scaling["set"], "could not be marked as being scaled on {0}: {1}".format(scaling["keeper"], user_message(result)),
                        "Nothing else was done", str(result.get("reason") or ("host_unreachable" if result.get("unreachable") else "failed")))

    def _ended(self, plan: Dict[str, Any]) -> Dict[str, Any]:
        """What the first member is to keep of it: host and item of vm_set. Nothing where nothing was begun."""
        scaling = plan["scaling"]
        undone = (self._vars.get(self.args["undone"]) or {}).get("work") or {}
        results = {host: self.registered(host, self.args["results"]) for host, items in (plan.get("vms") or {}).items() if items}
        changed = any(vm.get("changed") for result in results.values() for vm in result.get("vms") or [])
        # Of members that go, each is a step done; of new ones all are made or none.
        failed = bool(plan.get("failure") or undone or (failures(results) and not (changed and not scaling["add"])))
        if "keeper" in scaling:
            return {"note": {scaling["keeper"]: scaling["notes"]["undone" if failed else "done"]}}
        if failed or scaling["next"] != "act":
            return {"note": {}}
        name = str(plan["names"][0])
        host = next(host for host, items in plan["vms"].items() if any(item["name"] == name for item in items))
        return {"note": {host: _scaling.done_note(_scaling.ask_of(self.values("scale")), name, [], scaling["ticket"])}}
