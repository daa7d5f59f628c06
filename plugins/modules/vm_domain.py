#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converge one domain."""
from __future__ import annotations

DOCUMENTATION = r"""
module: vm_domain
short_description: Define, change, start, stop and delete one domain
version_added: 0.1.0
description:
  - Brings one domain to what is wanted by typed options; no XML is needed. Runs on the KVM host itself.
  - Identity is kept. UUID, MACs and device addresses survive every change, and so do devices that were added by other means,
    unless O(purge_disks) or O(purge_nics) is set.
  - What libvirt can change in a running guest is changed there. The rest is written to the persistent definition and returned as
    RV(vm.restart_required), and applied at once only with O(allow_restart).
  - Disks given here are the user's own. They are deleted with the domain only with O(disks[].delete_with_vm). To have disks and seed made
    with the VM, use M(kvmfleet.core.vm_set).
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes
  - kvmfleet.core.connection
  - kvmfleet.core.progress
  - kvmfleet.core.vm
  - kvmfleet.core.capacity
requirements:
  - libvirt-python
seealso:
  - module: kvmfleet.core.vm_set
  - module: kvmfleet.core.vm_disk
  - module: kvmfleet.core.cloudinit_seed
  - module: kvmfleet.core.vm_info
"""

EXAMPLES = r"""
- name: A VM from a disk and a seed made before
  kvmfleet.core.vm_domain:
    name: db1
    uuid: "{{ seed.instance_id }}"
    state: running
    vcpus: 2
    max_vcpus: 8
    memory: 2GiB
    max_memory: 8GiB
    disks:
      - pool: kvmfleet
        volume: db1-root.qcow2
        delete_with_vm: true
      - name: cidata
        pool: kvmfleet
        volume: db1-seed.iso
        readonly: true
        delete_with_vm: true
    nics:
      - network: default

- name: More CPUs while it runs
  kvmfleet.core.vm_domain:
    name: db1
    vcpus: 4

- name: Delete it with its listed volumes
  kvmfleet.core.vm_domain:
    name: db1
    state: absent
"""

RETURN = r"""
vm:
  description: What came of the VM.
  returned: always, unless the options could not be read
  type: dict
  contains:
    name:
      description: Name of the domain.
      type: str
    uuid:
      description: UUID of the domain; null in check mode for one that does not exist yet.
      type: str
    state:
      description: State of the VM.
      type: str
    actions:
      description: What was (or would be) done, in order.
      type: list
      elements: str
    restart_required:
      description: Options whose new value waits for a restart of the VM.
      type: list
      elements: str
    disks:
      description: Its disks.
      type: list
      elements: dict
    nics:
      description: Its NICs with their MACs.
      type: list
      elements: dict
    console:
      description: Where its consoles are.
      type: dict
reason:
  description: Stable key of a failure.
  returned: on failure
  type: str
error:
  description: Option, value, reason and remedy.
  returned: on failure by an option
  type: dict
"""

from ansible_collections.kvmfleet.core.plugins.module_utils._arguments import domain_options  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import CAPACITY_OPTIONS  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import COMMON_ARGUMENT_SPEC  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._module import PROGRESS_ARGUMENT_SPEC, FleetModule  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._vm_module import run_one  # noqa: E402


def main() -> None:
    """Entry point."""
    module = FleetModule(argument_spec=dict(COMMON_ARGUMENT_SPEC, **PROGRESS_ARGUMENT_SPEC, **domain_options(), **CAPACITY_OPTIONS), supports_check_mode=True)
    run_one(module)


if __name__ == "__main__":
    main()
