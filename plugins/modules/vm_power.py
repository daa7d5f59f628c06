#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change the power state of VMs."""
from __future__ import annotations

DOCUMENTATION = r"""
module: vm_power
short_description: Start, stop, reboot and pause VMs
version_added: 0.1.0
description:
  - Carries out one action on any number of VMs of this host, all at once.
  - All VMs are looked up and checked before any is touched. An unknown name, a VM of another group or one in a state in which the action is impossible
    refuses the whole request.
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes
  - kvmfleet.core.connection
  - kvmfleet.core.progress
attributes:
  idempotent:
    support: partial
    details:
      - V(reboot) and V(reset) do what they say each time.
options:
  names:
    description: Names of the VMs, that is, of their domains.
    type: list
    elements: str
    required: true
    aliases: [name]
  action:
    description:
      - V(start) starts a stopped VM, resumes a paused one and resets one that has crashed. A managed save image is restored.
      - V(shutdown) asks the guest, by its agent where one answers and by ACPI, and waits until it is off. A paused VM is resumed first.
      - V(force_off) pulls the plug.
      - V(reboot) asks the guest to reboot and does not wait for it.
      - V(reset) presses the reset button.
      - V(pause) stops the virtual CPUs and keeps the memory, V(resume) lets them run on.
    type: str
    required: true
    choices: [start, shutdown, force_off, reboot, reset, pause, resume]
  shutdown_timeout:
    description: Seconds that guests have to shut down, counted once for all of them.
    type: int
    default: 120
  force:
    description: Whether to pull the plug of guests that have not shut down in time. Without it they are an error.
    type: bool
    default: false
  group:
    description: Refuse VMs that are not of this group.
    type: str
  managed_only:
    description: Refuse domains that were not made or adopted by this collection.
    type: bool
    default: true
notes:
  - A VM that another run is creating or deleting is refused.
  - Where several VMs fail, the others are still carried out. The message names each VM that failed, and RV(vms) tells of all.
seealso:
  - module: kvmfleet.core.vm_info
  - module: kvmfleet.core.vm_domain
"""

EXAMPLES = r"""
- name: Start two VMs
  kvmfleet.core.vm_power:
    names: [web1, web2]
    action: start

- name: Shut a VM down, and pull the plug after a minute
  kvmfleet.core.vm_power:
    names: web1
    action: shutdown
    shutdown_timeout: 60
    force: true

- name: Reboot a VM of a group, and only of that group
  kvmfleet.core.vm_power:
    names: db.prod.blue
    action: reboot
    group: blue
"""

RETURN = r"""
vms:
  description: The VMs, in the order of O(names).
  returned: success, and on failure once all have been checked
  type: list
  elements: dict
  contains:
    name:
      description: Name of the VM.
      type: str
      returned: always
    uuid:
      description: UUID of the VM.
      type: str
      returned: always
    state_before:
      description: State before, such as V(running).
      type: str
      returned: always
    state:
      description: State after the action; in check mode the one it would lead to.
      type: str
      returned: always
    changed:
      description: Whether the action changed, or would change, anything.
      type: bool
      returned: always
    failed:
      description: Set where the action failed on this VM.
      type: bool
      returned: on failure
    msg:
      description: What failed.
      type: str
      returned: on failure
    reason:
      description: Stable key of the failure, such as V(shutdown_timeout).
      type: str
      returned: on failure
  sample:
    - {name: web1, uuid: 8a1c9d1e-5c0e-4a57-9a55-0a4ccba1c5a0, state_before: stopped, state: running, changed: true}
reason:
  description: Stable key of the failure, such as V(unknown_vm), V(not_managed), V(wrong_group), V(wrong_state) or V(shutdown_timeout).
  returned: on failure
  type: str
"""

from typing import Any, Dict

from ansible_collections.kvmfleet.core.plugins.module_utils import _power
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import COMMON_ARGUMENT_SPEC, fail_from, run_module
from ansible_collections.kvmfleet.core.plugins.module_utils._module import PROGRESS_ARGUMENT_SPEC, FleetModule
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import parse_int


def main() -> None:
    """Entry point."""
    module = FleetModule(supports_check_mode=True, argument_spec=dict(
        COMMON_ARGUMENT_SPEC, **PROGRESS_ARGUMENT_SPEC,
        names={"type": "list", "elements": "str", "required": True, "aliases": ["name"]},
        action={"type": "str", "required": True, "choices": list(_power.ACTIONS)},
        shutdown_timeout={"type": "int", "default": 120},
        force={"type": "bool", "default": False},
        group={"type": "str"},
        managed_only={"type": "bool", "default": True},
    ))
    params = module.params

    def work(conn: Any) -> Dict[str, Any]:
        timeout = parse_int("shutdown_timeout", params["shutdown_timeout"], 0)
        chosen = _power.targets(conn, params["names"], params["action"], params["group"], params["managed_only"])
        if not module.check_mode:
            _power.perform_all(chosen, params["action"], timeout, params["force"])
        result: Dict[str, Any] = {"changed": any(t.changed for t in chosen), "vms": [t.as_result() for t in chosen]}
        if module._diff:
            result["diff"] = _power.diff(chosen, params["action"])
        error = _power.failure_of(chosen)
        if error is not None:
            fail_from(module, error, **result)
        return result
    run_module(module, work)


if __name__ == "__main__":
    main()
