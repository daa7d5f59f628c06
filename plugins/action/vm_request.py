# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks' door: read and check the vm_* variables once, on the control node, before any host is asked."""
from __future__ import annotations

import dataclasses
import fnmatch
from typing import Any, Dict, List, Mapping, Optional

from ansible import constants as C
from ansible.utils.vars import load_extra_vars

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _fleet_vms, _last_run, _request, _scaling, _variables
from ansible_collections.kvmfleet.core.plugins.plugin_utils._action import CheckedAction
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, Host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._planning import Wish
from ansible_collections.kvmfleet.core.plugins.plugin_utils._report import user_message

VERBS = ("create", "converge", "scale", "delete", "power", "list")


class ActionModule(CheckedAction):
    """Turns variables into what the modules on the hosts get; see plugins/modules/vm_request.py for its documentation."""

    ARGUMENTS = {"verb": {"type": "str", "required": True, "choices": list(VERBS)}, "found": {"type": "str"}}

    def work(self, args: Mapping[str, Any]) -> Dict[str, Any]:
        return self._plan(args["verb"], args["found"])

    def _found(self, variable: str, host: str) -> List[Mapping[str, Any]]:
        looked = self._vars["hostvars"][host].get(variable) or {}
        if "vms" not in looked:
            raise SpecError("vm_host", host, "could not be asked which VMs it has: {0}".format(user_message(looked)),
                            "Nothing was done. Repair the host, or leave it out with --limit", "host_unreachable")
        return list(looked["vms"])

    def _uuid(self, variable: Optional[str], host: str, name: str) -> Dict[str, str]:
        """The UUID of a VM that was looked up: one that is made anew under the name meanwhile is another VM, which nobody has confirmed."""
        looked = self._found(variable, host) if variable else []
        return next(({"uuid": str(vm["uuid"])} for vm in looked if vm["name"] == name), {})

    def _refuse_others(self, selection: _request.Selection, variable: str, hosts: List[str]) -> None:
        """Raises SpecError where a VM that is named exactly turns out to be another group's, whatever its name says."""
        for host in hosts:
            for vm in self._found(variable, host):
                if selection.group and vm["name"] in selection.names and vm.get("group") != selection.group:
                    raise SpecError("vm_name", vm["name"], "is a VM of {0} on {1}, not of group {2}".format(
                        "group {0}".format(vm["group"]) if vm.get("group") else "no group", host, selection.group), "Name a VM of this group", "not_ours")

    def _plan(self, verb: str, found: Optional[str]) -> Dict[str, Any]:
        _variables.refuse_unknown(load_extra_vars(self._loader))
        catalogs, hosts = self.catalogs(), self.hosts()
        plan: Dict[str, Any] = {"options": {host.name: _module_options(host) for host in hosts}, "verb": verb, "users": catalogs.users(), "lookup": False,
                                "jumps": self._jumps(catalogs, hosts)}
        if verb == "scale":
            values = self.values(verb)
            plan.update(key_dir=values["vm_key_dir"], patterns=self._members(values), scaling={"next": "look", "round": 0})
        elif verb in ("create", "converge"):
            wanted = self.requested(verb)
            if not wanted:
                raise SpecError("kvmfleet_file", self.value("kvmfleet_file"), "declares no VMs", "List them under vms", "missing_variable")
            plan.update(key_dir=wanted[0]["vm_key_dir"], result_file=wanted[0]["vm_result_file"])
            # Better now than when all is made
            _last_run.keep(plan["result_file"], {}, check_mode=True)
            plan.update(self._absent(wanted[0], catalogs, hosts) if wanted[0]["vm_state"] == "absent" and verb == "create" else
                        self._create(verb, wanted, catalogs, hosts))
        else:
            plan["key_dir"] = _variables.option_file()["create"]["vm_key_dir"]["default"]
            plan.update(self._select(verb, self.values(verb), hosts, found))
        return plan

    def _jumps(self, catalogs: Catalogs, hosts: List[Host]) -> Dict[str, Dict[str, Any]]:
        """How the VMs of each host are reached from here where they are not to be reached otherwise."""
        reachable = catalogs.reachable_networks()
        return {host.name: {"arguments": _fleet_vms.jump_through(host.name, self._vars["hostvars"][host.name], bool(C.HOST_KEY_CHECKING)),
                            "sources": _fleet_vms.reachable_sources(host, reachable)} for host in hosts}

    @staticmethod
    def _members(values: Dict[str, Any]) -> List[str]:
        """The pattern of names of a set's members, after all has been checked that can be without knowing them."""
        _scaling.ask_of(values)
        _request.domain_names(values, str(values["vm_name"]))
        return [_request.full_name(values, "{0}-*".format(values["vm_name"]))]

    def _absent(self, values: Dict[str, Any], catalogs: Catalogs, hosts: List[Host]) -> Dict[str, Any]:
        """The deletion that create_vm with C(vm_state=absent) is."""
        left = _request.candidates(hosts, _request.constraints(values))
        requests = _request.build(values, catalogs, hosts, self.no_keys)
        if len(left) > 1:
            return {"verb": "delete", "lookup": True, "patterns": [r.name for r in requests], "hosts": [host.name for host in left], "fleet": False,
                    "wait": "none"}
        _request.check_confirm(values, len(requests))
        return {"vms": {host.name: [r.item for r in requests] for host in left}, "wait": "none", "names": [r.name for r in requests], "verb": "delete",
                "fleet": False, "step": "all"}

    def _create(self, verb: str, wanted: List[Dict[str, Any]], catalogs: Catalogs, hosts: List[Host]) -> Dict[str, Any]:
        wishes = self.wishes(wanted, catalogs, hosts)
        plan = self.creation(verb, wishes, hosts)
        plan["fleet"] = self._needs_placement(wishes, catalogs, hosts)
        if not plan["fleet"]:
            host = hosts[0]
            plan["vms"] = {host.name: [_request.host_item(request, host, catalogs) for w in wishes for request in w.requests]}
            plan["waits"] = {host.name: [r.name for w in wishes if _request.default_wait(w.values) != "none" for r in w.requests]}
        return plan

    def _needs_placement(self, wishes: List[Wish], catalogs: Catalogs, hosts: List[Host]) -> bool:
        """Whether there is anything to decide that the one host cannot decide for itself."""
        if len(hosts) != 1 or self.left_out():
            return True
        host = hosts[0]
        for wish in wishes:
            wanted = wish.wanted
            if wanted.host_labels or wanted.affinity or wanted.soft_affinity or wanted.anti_affinity or wanted.max_per_host or wanted.reserve_failures:
                return True
            if wish.values.get("vm_scale_down") or any(nic.pool for request in wish.requests for nic in request.nics or []):
                return True
            group = wish.values.get("vm_group")
            if group and catalogs.entry("kvmfleet_groups", group).get("quota"):
                return True
        return bool(not host.schedulable or host.groups or host.admin_only or host.max_vms is not None or host.pools)

    def _select(self, verb: str, values: Dict[str, Any], hosts: List[Host], found: Optional[str]) -> Dict[str, Any]:
        selection = _request.select(values, strict=verb != "list")
        left = _request.candidates(hosts, _request.Constraints(values["vm_host"], values["vm_zone"], values["vm_region"]))
        if verb != "list" and not (selection.names or selection.patterns or selection.labels or selection.group):
            raise SpecError("vm_name", None, "is missing", "Name the VMs: -e vm_name=web1, a list, or a pattern such as 'web-*'", "missing_variable")
        plan: Dict[str, Any] = {"hosts": [host.name for host in left], "select": dataclasses.asdict(selection), "lookup": False, "patterns": [], "step": "all",
                                "names": {host.name: list(selection.names) for host in left}}
        if verb == "list":
            plan.update(state=values["vm_state"], managed_only=values["vm_managed_only"], patterns=selection.names + selection.patterns)
            return plan
        # Which of several hosts has a VM, and what a pattern means today, only the hosts know.
        needs_lookup = not selection.exact or len(left) > 1
        if needs_lookup and found is None:
            # A VM that is named exactly is looked up whosever it is: see _refuse_others().
            plan.update(lookup=True, patterns=selection.names + selection.patterns, look_group=None if selection.names else selection.group)
            return plan
        if found is not None:
            plan["names"] = {host.name: _matching(self._found(found, host.name), selection) for host in left}
            self._refuse_others(selection, found, [host.name for host in left])
            missing = sorted(set(selection.names) - {n for names in plan["names"].values() for n in names})
            if missing and verb == "power":
                raise SpecError("vm_name", missing[0], "there is no such VM of ours on {0}".format(", ".join(plan["hosts"])),
                                "Look at list_vms.yml", "unknown_vm")
        if verb == "delete":
            # Two hosts may each have a VM of one name: that is two VMs to lose.
            _request.check_confirm(values, sum(len(listed) for listed in plan["names"].values()))
            plan["vms"] = {host: [dict(_request.absent(name, values).item, **self._uuid(found, host, name)) for name in listed]
                           for host, listed in plan["names"].items()}
        else:
            plan.update(action=values["vm_action"], shutdown_timeout=values["vm_shutdown_timeout"], force=values["vm_force"])
        return plan


def _matching(vms: List[Mapping[str, Any]], selection: _request.Selection) -> List[str]:
    """The names of those VMs that a selection means."""
    chosen = []
    for vm in vms:
        by_name = vm["name"] in selection.names or any(fnmatch.fnmatchcase(vm["name"], p) for p in selection.patterns)
        if not by_name and (selection.names or selection.patterns):
            continue
        if any(wanted is not None and vm.get(key) != wanted for key, wanted in (("group", selection.group), ("namespace", selection.namespace))):
            continue
        if any((vm.get("labels") or {}).get(key) != value for key, value in selection.labels.items()):
            continue
        chosen.append(vm["name"])
    return chosen


def _module_options(host: Host) -> Dict[str, Any]:
    """What the modules on a host need of its variables; what is not set stays away, so that their defaults hold."""
    options: Dict[str, Any] = {}
    for key in ("uri", "ratios", "reserved", "totals", "stopped_factor", "pools"):
        if getattr(host, key):
            options[key] = getattr(host, key)
    if host.stopped_factor is not None:
        options["stopped_factor"] = host.stopped_factor
    return options
