# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vm_set and vm_domain share: parameters in, the converge engine, results out."""
from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import policy_from_params
from ansible_collections.kvmfleet.core.plugins.module_utils._claims import Claims
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import fail_from, run_module
from ansible_collections.kvmfleet.core.plugins.module_utils._converge import Converger, Options, Outcome, diff_of, failure, result_of
from ansible_collections.kvmfleet.core.plugins.module_utils._host import Host
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, VmSpec, vm_from_params
from ansible_collections.kvmfleet.core.plugins.module_utils._vm_list import tell_forwarding


def _specs(items: Sequence[Mapping[str, Any]], prefix: str) -> List[VmSpec]:
    specs = []
    for index, item in enumerate(items):
        try:
            specs.append(vm_from_params(item))
        except SpecError as exc:
            raise exc.within(prefix.format(index)) from None
    return specs


def _surplus(host: Host, specs: Sequence[VmSpec]) -> List[str]:
    """VMs of the sets in question that were not asked for, by name: they are left alone, and the user may want to know."""
    sets = {(s.set, s.group, s.namespace) for s in specs if s.set}
    asked = {s.name for s in specs}
    return sorted(r.name for r in host.domains.values()
                  if r.metadata is not None and (r.metadata.set, r.metadata.group, r.metadata.namespace) in sets and r.name not in asked)


def _converge(module: AnsibleModule, host: Host, specs: Sequence[VmSpec]) -> List[Outcome]:
    params = module.params
    options = Options(check=module.check_mode, atomic=params.get("atomic", True), lock_timeout_s=params.get("lock_timeout", 30),
                      claim_ttl_s=params.get("claim_ttl", 60), claimed=params.get("claimed"))
    step = params.get("step", "all")
    if step == "all":
        return Converger(host, options).run(specs)
    return Claims(host, options, params["ticket"]).run(step, specs)


def _run(module: AnsibleModule, items: Sequence[Mapping[str, Any]], prefix: str, shape: Callable[[List[Dict[str, Any]]], Dict[str, Any]]) -> None:
    def work(conn: Any) -> Dict[str, Any]:
        specs = _specs(items, prefix)
        host = Host(conn, module.params["uri"], policy_from_params(module.params))
        outcomes = _converge(module, host, specs)
        vms = [result_of(outcome, module.check_mode) for outcome in outcomes]
        tell_forwarding(conn, vms)
        result: Dict[str, Any] = dict(shape(vms), changed=any(vm["changed"] for vm in vms))
        surplus = _surplus(host, specs)
        if surplus:
            result["surplus"] = surplus
        if module._diff:
            result["diff"] = diff_of(outcomes)
        error = failure(outcomes)
        if error is not None:
            fail_from(module, error, **result)
        return result
    run_module(module, work)


def run(module: AnsibleModule, items: Sequence[Mapping[str, Any]], prefix: str) -> None:
    """The whole of vm_set."""
    _run(module, items, prefix, lambda vms: {"vms": vms})


def run_one(module: AnsibleModule) -> None:
    """The whole of vm_domain."""
    _run(module, [module.params], "", lambda vms: {"vm": vms[0]})
