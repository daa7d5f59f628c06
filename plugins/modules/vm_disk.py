#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converge one volume."""
from __future__ import annotations

DOCUMENTATION = r"""
module: vm_disk
short_description: Create, grow and delete a volume in a storage pool
version_added: 0.1.0
description:
  - Makes a volume in a storage pool, empty, as an overlay on an image or as its full copy, and lets it grow. Runs on the KVM host itself.
  - A volume that a running domain uses grows in the running guest.
  - Volumes are thin, and only their owner can read them.
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes
  - kvmfleet.core.connection
  - kvmfleet.core.progress
  - kvmfleet.core.capacity
options:
  name:
    description: Name of the volume.
    type: str
    required: true
  pool:
    description: Storage pool of the volume.
    type: str
    required: true
  size:
    description:
      - Virtual size with its unit, such as V(20GiB). A smaller one than the volume has is refused.
      - Default with an image is the image's size.
    type: str
  format:
    description: Format of the volume. Default is V(qcow2), and V(raw) in pools of block devices.
    type: str
    choices: [qcow2, raw]
  image:
    description: Volume (or absolute path) of the image that it is made from.
    type: str
  image_pool:
    description: Storage pool of the image. Default is O(pool).
    type: str
  clone:
    description: Whether it is an overlay on the image, or its full copy.
    type: str
    choices: [overlay, full]
    default: overlay
  state:
    description:
      - V(present) makes the volume or lets it grow.
      - V(absent) deletes it, but never while a domain (running or not) has it attached or another volume is an overlay on it.
    type: str
    choices: [present, absent]
    default: present
requirements:
  - libvirt-python
seealso:
  - module: kvmfleet.core.vm_domain
  - module: kvmfleet.core.vm_set
"""

EXAMPLES = r"""
- name: A root disk on an image
  kvmfleet.core.vm_disk:
    pool: kvmfleet
    name: db1-root.qcow2
    image: "{{ image_volume }}"
    size: 20GiB

- name: An empty data disk
  kvmfleet.core.vm_disk:
    pool: kvmfleet
    name: db1-data.qcow2
    size: 50GiB

- name: Delete the data disk
  kvmfleet.core.vm_disk:
    pool: kvmfleet
    name: db1-data.qcow2
    state: absent
"""

RETURN = r"""
volume:
  description: The volume as it is, or in check mode as it would be; null where there is none.
  returned: success
  type: dict
  contains:
    name:
      description: Name of the volume.
      type: str
    pool:
      description: Its storage pool.
      type: str
    path:
      description: Its path on the host.
      type: str
    size_bytes:
      description: Its virtual size in bytes.
      type: int
    format:
      description: Its format.
      type: str
    backing:
      description: Path of the image it is an overlay on, or null.
      type: str
actions:
  description: What was (or would be) done.
  returned: success
  type: list
  elements: str
reason:
  description: Stable key of a failure, such as C(no_capacity), C(shrink) or C(volume_in_use).
  returned: on failure
  type: str
error:
  description: Option, value, reason and remedy.
  returned: on failure by an option
  type: dict
"""

from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import CAPACITY_OPTIONS, policy_from_params  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import COMMON_ARGUMENT_SPEC, run_module  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._disk_module import DiskConverger  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._module import PROGRESS_ARGUMENT_SPEC, FleetModule  # noqa: E402


def main() -> None:
    """Entry point."""
    module = FleetModule(
        argument_spec=dict(
            COMMON_ARGUMENT_SPEC, name={"type": "str", "required": True}, pool={"type": "str", "required": True}, size={"type": "str"},
            format={"type": "str", "choices": ["qcow2", "raw"]}, image={"type": "str"}, image_pool={"type": "str"},
            clone={"type": "str", "choices": ["overlay", "full"], "default": "overlay"},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"}, **PROGRESS_ARGUMENT_SPEC,
            **CAPACITY_OPTIONS),
        supports_check_mode=True)
    run_module(module, lambda conn: DiskConverger(conn, module.params["uri"], module.params, policy_from_params(module.params)).run(module.check_mode))


if __name__ == "__main__":
    main()
