# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks' door: read and check the vm_* variables once, on the control node, before any host is asked."""
from __future__ import annotations

import dataclasses
import fnmatch
import os
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _keys, _request, _variables
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import HOST_SCHEMA, SCHEMAS, Catalogs, Host, read_host

VERBS = ("create", "delete", "power", "list")


class ActionModule(ActionBase):
    """Turns variables into what the modules on the hosts get; see plugins/modules/vm_request.py for its documentation."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        self._vars: Dict[str, Any] = task_vars or {}
        checked, args = self.validate_argument_spec(argument_spec={
            "verb": {"type": "str", "required": True, "choices": list(VERBS)},
            "found": {"type": "str"},
        })
        try:
            result.update(self._plan(args["verb"], args["found"]))
        except SpecError as exc:
            result.update(failed=True, msg=str(exc), reason=exc.code)
        result["changed"] = False
        return result

    def _value(self, name: str) -> Any:
        return self._templar.template(self._vars[name])

    def _hosts(self) -> List[Host]:
        hostvars = self._vars["hostvars"]
        hosts = []
        for name in self._vars.get("ansible_play_hosts") or []:
            variables = hostvars[name]
            hosts.append(read_host(name, {key: variables[key] for key in HOST_SCHEMA if key in variables}))
        return hosts

    def _found(self, variable: str, host: str) -> List[Mapping[str, Any]]:
        looked = self._vars["hostvars"][host].get(variable) or {}
        if "vms" not in looked:
            raise SpecError("vm_host", host, "could not be asked which VMs it has: {0}".format(" ".join(str(looked.get("msg")).split())),
                            "Nothing was done. Repair the host, or leave it out with --limit", "host_unreachable")
        return list(looked["vms"])

    def _plan(self, verb: str, found: Optional[str]) -> Dict[str, Any]:
        _variables.refuse_unknown(load_extra_vars(self._loader))
        values = _variables.read(verb, {name: self._value(name) for name in _variables.option_file()[verb] if name in self._vars})
        catalogs = Catalogs({name: self._value(name) for name in SCHEMAS if name in self._vars})
        hosts = self._hosts()
        if not hosts:
            raise SpecError("kvm_hosts", None, "no host of this group can be used", "Give an inventory with hosts in the group kvm_hosts", "no_host")
        plan: Dict[str, Any] = {"options": {host.name: _module_options(host) for host in hosts}, "verb": verb,
                                "users": catalogs.users(), "key_dir": values.get("vm_key_dir") or _variables.option_file()["create"]["vm_key_dir"]["default"]}
        if verb == "create":
            plan.update(self._create(values, catalogs, hosts))
        else:
            plan.update(self._select(verb, values, hosts, found))
        return plan

    def _create(self, values: Dict[str, Any], catalogs: Catalogs, hosts: List[Host]) -> Dict[str, Any]:
        image = _request.image_of(values, catalogs) if values["vm_state"] != "absent" else {}
        wait = _request.default_wait(values)
        wanted = _request.constraints(values)
        left = _request.candidates(hosts, wanted)
        if values["vm_state"] == "absent":
            requests = _request.build(values, catalogs, hosts, _keys.Keys())
            return {"vms": {host.name: [r.item for r in requests] for host in left}, "wait": "none", "names": [r.name for r in requests],
                    "verb": "delete"}
        vms = self._prepare(values, catalogs, hosts, wanted, _keys.Keys())[1]
        _request.check_items([item for items in vms.values() for item in items])
        keys = self._keys(values, image)
        # Once more, because a key pair is made only for a request that is right in all else.
        requests, vms = self._prepare(values, catalogs, hosts, wanted, keys)
        plan = {
            "vms": vms, "wait": wait, "wait_timeout": values["vm_wait_timeout"], "names": [r.name for r in requests], "image": values["vm_image"],
            "image_entry": image, "image_pools": {host.name: image.get("pool") or host.image_pool or host.pool for host in hosts},
            "key": dataclasses.asdict(keys),
        }
        if _request.has_secrets(values):
            plan["_ansible_no_log"] = True
        return plan

    def _prepare(self, values: Mapping[str, Any], catalogs: Catalogs, hosts: List[Host], wanted: _request.Constraints, keys: _keys.Keys) -> Tuple[
            List[_request.Request], Dict[str, List[Dict[str, Any]]]]:
        requests = _request.build(values, catalogs, hosts, keys)
        placed = _request.assign(requests, hosts, wanted)
        return requests, {host.name: [_request.host_item(request, host, catalogs) for request in placed.get(host.name, [])] for host in hosts}

    def _keys(self, values: Mapping[str, Any], image: Mapping[str, Any]) -> _keys.Keys:
        if not _request.wants_seed(values, image):
            return _keys.Keys()
        return _keys.keys_for(values, _key_name(values), self._task.check_mode, _keys.under_awx(self._vars, os.environ))

    def _select(self, verb: str, values: Dict[str, Any], hosts: List[Host], found: Optional[str]) -> Dict[str, Any]:
        selection = _request.select(values)
        left = _request.candidates(hosts, _request.Constraints(values["vm_host"], values["vm_zone"], values["vm_region"]))
        if verb != "list" and not (selection.names or selection.patterns or selection.labels or selection.group):
            raise SpecError("vm_name", None, "is missing", "Name the VMs: -e vm_name=web1, a list, or a pattern such as 'web-*'", "missing_variable")
        plan: Dict[str, Any] = {"hosts": [host.name for host in left], "select": dataclasses.asdict(selection), "lookup": False, "patterns": [],
                                "names": {host.name: list(selection.names) for host in left}}
        if verb == "list":
            plan.update(state=values["vm_state"], managed_only=values["vm_managed_only"], patterns=selection.names + selection.patterns)
            return plan
        # Which of several hosts has a VM, and what a pattern means today, only the hosts know.
        needs_lookup = not selection.exact or len(left) > 1
        if needs_lookup and found is None:
            plan.update(lookup=True, patterns=selection.names + selection.patterns)
            return plan
        if found is not None:
            plan["names"] = {host.name: _matching(self._found(found, host.name), selection) for host in left}
            missing = sorted(set(selection.names) - {n for names in plan["names"].values() for n in names})
            if missing and verb == "power":
                raise SpecError("vm_name", missing[0], "there is no such VM of ours on {0}".format(", ".join(plan["hosts"])),
                                "Look at list_vms.yml", "unknown_vm")
        if verb == "delete":
            # Two hosts may each have a VM of one name: that is two VMs to lose.
            _request.check_confirm(values, sum(len(listed) for listed in plan["names"].values()))
            plan["vms"] = {host: [_request.absent(name, values).item for name in listed] for host, listed in plan["names"].items()}
        else:
            plan.update(action=values["vm_action"], shutdown_timeout=values["vm_shutdown_timeout"], force=values["vm_force"])
        return plan


def _key_name(values: Mapping[str, Any]) -> str:
    parts = [str(values["vm_name"])]
    if values.get("vm_group"):
        parts += [values.get("vm_namespace") or _request.DEFAULT_NAMESPACE, values["vm_group"]]
    return ".".join(parts)


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
    for key in ("uri", "ratios", "reserved", "totals", "stopped_factor"):
        if getattr(host, key):
            options[key] = getattr(host, key)
    if host.stopped_factor is not None:
        options["stopped_factor"] = host.stopped_factor
    return options
