#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One storage pool of a host."""
from __future__ import annotations

DOCUMENTATION = r"""
module: host_pool
short_description: Make a folder a storage pool
version_added: 0.1.0
description:
  - Defines a storage pool of type C(dir), makes its folder, starts it, and has it started at boot.
  - An existing pool is started, never moved.
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes
  - kvmfleet.core.connection
options:
  name:
    description: Name of the pool.
    type: str
    required: true
  path:
    description: Folder of the pool. Needed where the pool does not exist yet.
    type: path
  autostart:
    description: Whether the pool is started with libvirt.
    type: bool
    default: true
  state:
    description:
      - V(present) makes the pool defined and active.
      - V(absent) removes a pool whose folder is empty, and the folder. Any other is refused.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: kvmfleet.core.vm_disk
"""

EXAMPLES = r"""
- name: A pool for VMs
  kvmfleet.core.host_pool:
    name: kvmfleet
    path: /var/lib/libvirt/images/kvmfleet
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [define pool kvmfleet, start pool kvmfleet]
reason:
  description: Stable key of the failure, such as V(invalid_value) or V(pool_not_empty).
  returned: on failure
  type: str
"""

from typing import Any, Dict

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import COMMON_ARGUMENT_SPEC, run_module
from ansible_collections.kvmfleet.core.plugins.module_utils._host_objects import PoolConverger, PoolSpec
from ansible_collections.kvmfleet.core.plugins.module_utils._module import FleetModule


def main() -> None:
    """Entry point."""
    module = FleetModule(supports_check_mode=True, argument_spec=dict(
        COMMON_ARGUMENT_SPEC,
        name={"type": "str", "required": True},
        path={"type": "path"},
        autostart={"type": "bool", "default": True},
        state={"type": "str", "choices": ["present", "absent"], "default": "present"},
    ))
    params = module.params

    def work(conn: Any) -> Dict[str, Any]:
        converger = PoolConverger(conn, PoolSpec(params["name"], params["path"], autostart=params["autostart"]))
        result = (converger.present if params["state"] == "present" else converger.absent)(module.check_mode)
        if not module._diff:
            del result["diff"]
        return result
    run_module(module, work)


if __name__ == "__main__":
    main()
