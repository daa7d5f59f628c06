#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a KVM host offers and what of it is taken."""
from __future__ import annotations

DOCUMENTATION = r"""
module: host_capacity
short_description: Tell what a KVM host offers and what of it is taken
version_added: 0.1.0
description:
  - Sums what is defined on a host, ours or not, running or not. Nothing is stored anywhere.
  - Available is (total - reserved) x ratio - allocated; it is below zero where more is given out than there is.
  - A VM of ours counts with its request, else with what it may use. A domain that is not ours counts with its maximum, which it can
    reach without our knowing. Claims count in full with all that they will occupy.
  - Of a pool, volumes of VMs count with their virtual size, other volumes such as images with what they really take.
  - Changes nothing, so that a remote O(uri) is possible too.
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes.info
  - kvmfleet.core.connection
  - kvmfleet.core.capacity
options:
  facts:
    description: Whether to tell also what kind of host it is.
    type: bool
    default: true
  vms:
    description: Whether to tell also what is counted for which domain, and what it holds (names, addresses, MACs), as placement needs it.
    type: bool
    default: false
  volumes:
    description: Whether to name also each pool's volumes that are no disk of a VM of ours, such as images.
    type: bool
    default: false
  timeout:
    description:
      - Seconds that libvirt has to answer everything; O(timeout=0) waits for ever.
      - A daemon that hangs is reported as RV(ignore:reason=host_unreachable).
    type: int
    default: 30
requirements:
  - libvirt-python
seealso:
  - module: kvmfleet.core.vm_info
"""

EXAMPLES = r"""
- name: What is left of this host
  kvmfleet.core.host_capacity:
    ratios:
      vcpus: 2.0
    reserved:
      memory: 2GiB
  register: capacity

- name: Show it
  ansible.builtin.debug:
    msg: "{{ capacity.memory.available_mib }} MiB of memory are left"
"""

RETURN = r"""
vcpus:
  description: Virtual CPUs - total, reserved, ratio, allocated, used (by running domains) and available.
  returned: success
  type: dict
  sample: {total: 8, reserved: 0, ratio: 4.0, allocated: 6, used: 4, available: 26}
memory:
  description: Memory in MiB, in the same way.
  returned: success
  type: dict
  sample: {total_mib: 15976, reserved_mib: 0, ratio: 1.0, allocated_mib: 4096, used_mib: 2048, available_mib: 11880}
pools:
  description: Each storage pool in bytes, in the same way, with its type, path and what is really free; with O(volumes) their names as C(volumes).
  returned: success
  type: dict
domains:
  description: How many domains are defined, running, ours, and pending.
  returned: success
  type: dict
vms:
  description:
    - Each domain with its name, uuid, phase, group, namespace, set, index, labels, addresses, macs, networks, and whether it is stopped and managed.
    - C(vcpus_milli), C(memory_mib) and C(disks) are what is counted for it, memory with what QEMU itself takes. C(vcpus) and C(limit_mib) are what it
      may use.
    - A claim has a C(ticket), and C(claim_age_s) by this host's clock.
  returned: when O(vms)
  type: list
  elements: dict
memory_free_mib:
  description: Memory that is really free on the host, in MiB.
  returned: success
  type: int
hostname:
  description: Name of the host.
  returned: when O(facts)
  type: str
arch:
  description: Its architecture.
  returned: when O(facts)
  type: str
archs:
  description: Architectures of guests it can run.
  returned: when O(facts)
  type: list
  elements: str
cpu_model:
  description: Its CPU model as libvirt names it.
  returned: when O(facts)
  type: str
virt_types:
  description: Virtualisation types that libvirt offers for its own architecture.
  returned: when O(facts)
  type: list
  elements: str
machines:
  description: Machine types of its own architecture.
  returned: when O(facts)
  type: list
  elements: str
firmware:
  description: Kinds of firmware of its own architecture.
  returned: when O(facts)
  type: list
  elements: str
guests:
  description: Virtualisation and machine types of each architecture.
  returned: when O(facts)
  type: dict
networks:
  description: libvirt networks with their state, bridge, C(forward) mode (C(isolated) for none) and subnets.
  returned: when O(facts)
  type: list
  elements: dict
bridges:
  description: Linux bridges of the host.
  returned: when O(facts)
  type: list
  elements: str
libvirt_version:
  description: Version of libvirt.
  returned: when O(facts)
  type: str
qemu_version:
  description: Version of QEMU.
  returned: when O(facts)
  type: str
hugepages:
  description: Hugepages by size.
  returned: when O(facts)
  type: list
  elements: dict
numa_cells:
  description: NUMA cells with their CPUs and memory.
  returned: when O(facts)
  type: list
  elements: dict
"""

from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import CAPACITY_OPTIONS, host_capacity, policy_from_params  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import COMMON_ARGUMENT_SPEC, run_module  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._module import FleetModule  # noqa: E402


def main() -> None:
    """Entry point."""
    module = FleetModule(argument_spec=dict(
        COMMON_ARGUMENT_SPEC, facts={"type": "bool", "default": True}, vms={"type": "bool", "default": False},
        volumes={"type": "bool", "default": False}, timeout={"type": "int", "default": 30}, **CAPACITY_OPTIONS), supports_check_mode=True)
    params = module.params
    run_module(
        module, lambda conn: dict(host_capacity(conn, policy_from_params(params), params["facts"], params["vms"], volumes=params["volumes"]), changed=False),
        writes=False, timeout_s=params["timeout"] or None)


if __name__ == "__main__":
    main()
