#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One storage pool of a host."""
from __future__ import annotations

DOCUMENTATION = r"""
module: host_pool
short_description: Make a folder, an LVM volume group or an NFS export a storage pool
version_added: 0.1.0
description:
  - Defines a storage pool, makes its folder or mount point, starts it, and has it started at boot.
  - An existing pool is started, never moved. One that is made of something else than what is asked for is an error.
  - Nothing is ever formatted. A volume group has to exist, and what lies in it, in a folder or on an export stays.
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
  type:
    description:
      - V(dir) is a folder, V(logical) an LVM volume group, V(netfs) an NFS export that is mounted.
      - Default follows from the other options, and is V(dir) without O(volume_group), O(server) and O(export).
    type: str
    choices: [dir, logical, netfs]
  path:
    description: Folder of a V(dir) pool, or where a V(netfs) pool is mounted. Needed where the pool does not exist yet.
    type: path
  default_path:
    description: Like O(path), for a pool that does not exist yet; one that exists may be elsewhere.
    type: path
  volume_group:
    description: LVM volume group of a V(logical) pool. Needed where the pool does not exist yet; the volume group has to exist.
    type: str
  server:
    description: NFS server of a V(netfs) pool. Needed where the pool does not exist yet.
    type: str
  export:
    description: Folder of a V(netfs) pool as the server exports it. Needed where the pool does not exist yet.
    type: str
  autostart:
    description: Whether the pool is started with libvirt.
    type: bool
    default: true
  state:
    description:
      - V(present) makes the pool defined and active.
      - V(absent) removes a pool that is empty, and its folder; volume groups, exports and mount points stay. Any other pool is refused.
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

- name: A pool of logical volumes, on the hosts that have the volume group
  kvmfleet.core.host_pool:
    name: fast
    volume_group: vg_fast
  when: "'fast_disks' in group_names"

- name: A pool on an NFS server
  kvmfleet.core.host_pool:
    name: shared
    server: nfs.example.org
    export: /srv/vms
    path: /var/lib/libvirt/images/shared
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [define pool kvmfleet, start pool kvmfleet]
reason:
  description: Stable key of the failure, such as V(invalid_value), V(pool_differs) or V(pool_not_empty).
  returned: on failure
  type: str
"""

from typing import Any, Dict

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import COMMON_ARGUMENT_SPEC, run_module
from ansible_collections.kvmfleet.core.plugins.module_utils._host_pools import POOL_TYPES, PoolConverger, PoolSpec
from ansible_collections.kvmfleet.core.plugins.module_utils._module import FleetModule


def main() -> None:
    """Entry point."""
    module = FleetModule(supports_check_mode=True, argument_spec=dict(
        COMMON_ARGUMENT_SPEC,
        name={"type": "str", "required": True},
        type={"type": "str", "choices": list(POOL_TYPES)},
        path={"type": "path"},
        default_path={"type": "path"},
        volume_group={"type": "str"},
        server={"type": "str"},
        export={"type": "str"},
        autostart={"type": "bool", "default": True},
        state={"type": "str", "choices": ["present", "absent"], "default": "present"},
    ))
    params = module.params

    def work(conn: Any) -> Dict[str, Any]:
        converger = PoolConverger(conn, PoolSpec(**{key: params[key] for key in (
            "name", "type", "path", "default_path", "volume_group", "server", "export", "autostart")}))
        result = (converger.present if params["state"] == "present" else converger.absent)(module.check_mode)
        if not module._diff:
            del result["diff"]
        return result
    run_module(module, work)


if __name__ == "__main__":
    main()
