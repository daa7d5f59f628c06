#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what there is to know about VMs, and wait for their guests."""
from __future__ import annotations

DOCUMENTATION = r"""
module: vm_info
short_description: List VMs and wait for their guests
version_added: 0.1.0
description:
  - Returns state, addresses, disks, NICs, consoles and metadata of one, some or all VMs of this host.
  - Waits, if asked to, until the guests of those VMs have an address, answer on SSH or are done with cloud-init, all of them at once.
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes.info
  - kvmfleet.core.connection
  - kvmfleet.core.progress
options:
  names:
    description:
      - Names of VMs, or shell patterns such as V(web*).
      - Default is all VMs. A name of which there is no VM is returned in RV(missing).
    type: list
    elements: str
    aliases: [name]
  group:
    description: Only VMs of this group.
    type: str
  namespace:
    description: Only VMs of this namespace.
    type: str
  set:
    description: Only VMs that were made together as this set.
    type: str
  labels:
    description: Only VMs that have all of these labels.
    type: dict
  state:
    description: Only VMs in one of these states.
    type: list
    elements: str
    choices: [pending, building, running, paused, stopping, stopped, crashed, deleting, failed]
  managed_only:
    description: Leave out domains that were not made or adopted by this collection.
    type: bool
    default: false
  addresses:
    description:
      - Whether to look for addresses. Loopback and link-local ones are never returned.
      - Static addresses, which are in the VM's metadata, are returned in any case.
    type: bool
    default: true
  address_sources:
    description:
      - Where to look for the addresses of running VMs.
      - V(lease) are the DHCP leases of libvirt's networks, V(agent) is the agent in the guest, V(arp) is this host's neighbour table.
      - Default is all of them for VMs named without patterns, and V(lease) and V(arp) for lists, which are to be fast.
    type: list
    elements: str
    choices: [lease, agent, arp]
  agent_timeout:
    description: Seconds that guest agents have to answer. They are asked at the same time, and only where they are connected.
    type: int
    default: 5
  wait:
    description:
      - What to wait for.
      - V(address) waits until an address is seen in use.
      - V(ssh) waits until an SSH server greets at one of the addresses.
      - V(cloud_init) waits until cloud-init is done, which needs the guest's agent. It fails where cloud-init did.
      - VMs that do not run cannot answer. They end the wait with an error at once.
    type: str
    choices: [none, address, ssh, cloud_init]
    default: none
  timeout:
    description: Seconds to wait, counted once for all VMs.
    type: int
    default: 300
  ssh_port:
    description: Port on which SSH is waited for.
    type: int
    default: 22
notes:
  - With a remote O(uri), addresses are those that the other host sees, but O(wait=ssh) connects from the machine the module runs on.
seealso:
  - module: kvmfleet.core.vm_power
  - module: kvmfleet.core.vm_set
"""

EXAMPLES = r"""
- name: List all VMs of this host, ours or not
  kvmfleet.core.vm_info:
  register: found

- name: The web servers of a group
  kvmfleet.core.vm_info:
    names: web*
    group: blue
    labels:
      tier: front

- name: Wait until two VMs answer on SSH
  kvmfleet.core.vm_info:
    names: [web1, web2]
    wait: ssh
    timeout: 180
"""

RETURN = r"""
vms:
  description: The VMs, in the order of O(names) if those are without patterns, else by name.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the VM's domain.
      type: str
      returned: always
    uuid:
      description: UUID.
      type: str
      returned: always
    state:
      description: One of V(pending), V(building), V(running), V(paused), V(stopping), V(stopped), V(crashed), V(deleting), V(failed).
      type: str
      returned: always
    phase:
      description: Phase of the VM's life in its metadata, null for a domain that is not ours.
      type: str
      returned: always
    failure:
      description: Why the VM is V(failed).
      type: str
      returned: always
    managed:
      description: Whether it was made or adopted by this collection.
      type: bool
      returned: always
    persistent:
      description: Whether it has a definition that outlives its process.
      type: bool
      returned: always
    autostart:
      description: Whether it starts with the host.
      type: bool
      returned: always
    vcpus:
      description: Virtual CPUs, with RV(vms[].max_vcpus) those that it can have without a restart.
      type: int
      returned: always
    max_vcpus:
      description: Greatest number of virtual CPUs.
      type: int
      returned: always
    memory_mib:
      description: Memory in MiB, with RV(vms[].max_memory_mib) what it can have without a restart.
      type: int
      returned: always
    max_memory_mib:
      description: Greatest memory in MiB.
      type: int
      returned: always
    machine:
      description: Machine type, beside RV(vms[].arch), RV(vms[].virt_type) and RV(vms[].firmware).
      type: str
      returned: always
    arch:
      description: Architecture.
      type: str
      returned: always
    virt_type:
      description: V(kvm) or V(qemu).
      type: str
      returned: always
    firmware:
      description: V(bios) or V(efi).
      type: str
      returned: always
    secure_boot:
      description: Whether UEFI verifies what it boots.
      type: bool
      returned: always
    tpm:
      description: Whether it has an emulated TPM.
      type: bool
      returned: always
    boot:
      description: Boot order.
      type: list
      elements: str
      returned: always
    cpu_mode:
      description: CPU mode of libvirt.
      type: str
      returned: always
    group:
      description: Metadata, like RV(vms[].namespace), RV(vms[].set), RV(vms[].index), RV(vms[].image), RV(vms[].flavor), RV(vms[].key_name), RV(vms[].labels).
      type: str
      returned: always
    namespace:
      description: Namespace.
      type: str
      returned: always
    set:
      description: The set that it was made in.
      type: str
      returned: always
    index:
      description: Its number in the set.
      type: int
      returned: always
    image:
      description: Name of its image.
      type: str
      returned: always
    flavor:
      description: Name of its flavor.
      type: str
      returned: always
    key_name:
      description: Name of its SSH key.
      type: str
      returned: always
    labels:
      description: Labels.
      type: dict
      returned: always
    anti_affinity:
      description: VMs (by name or label) that it has to be kept away from.
      type: list
      elements: str
      returned: always
    scaling:
      description:
        - The last act of scaling the set of which it is the first member, else null.
        - Has C(ticket), C(at), C(age_s) by this host's clock, C(open) while the run is at work, C(acting), the alerts that it
          acts on, and C(alerts) that were acted on.
      type: dict
      returned: always
    volumes:
      description: Volumes that are the VM's own and deleted with it.
      type: list
      elements: dict
      returned: always
    vcpus_request:
      description: Virtual CPUs that are counted for it, where that is not RV(vms[].vcpus).
      type: float
      returned: always
    memory_request_mib:
      description: MiB of memory that are counted for it, where that is not RV(vms[].memory_mib).
      type: int
      returned: always
    disks:
      description: Disks, each with C(name), C(pool), C(volume), C(path), C(size_bytes), C(format), C(bus), C(target), C(device), C(readonly).
      type: list
      elements: dict
      returned: always
    nics:
      description: NICs, each with C(name), C(mac), C(type), C(source), C(model), C(target), C(link), C(vlan), C(mtu), C(forward), and with
        O(addresses) C(addresses). C(forward) is the libvirt network's mode of forwarding, V(isolated) where it does not forward, or null on no such network.
      type: list
      elements: dict
      returned: always
    console:
      description: C(type), C(listen) and C(port) of the graphical console, and C(serial), the terminal of the serial one while it runs.
      type: dict
      returned: always
    addresses:
      description:
        - Addresses, the one to use first, each with C(address), C(prefix), C(family), C(mac) and C(source).
        - C(source) is V(lease), V(agent), V(arp), or V(static) for one of the metadata that nothing else has told of.
      type: list
      elements: dict
      returned: always
    static_addresses:
      description: The addresses of the VM's metadata, with prefix, whether it runs or not.
      type: list
      elements: str
      returned: always
    description:
      description: Description of the domain.
      type: str
      returned: always
    address:
      description: The address to use, or null. After O(wait=ssh), the one that answered.
      type: str
      returned: always
  sample:
    - {name: web1, uuid: 8a1c9d1e-5c0e-4a57-9a55-0a4ccba1c5a0, state: running, phase: ready, vcpus: 2, memory_mib: 2048, address: 192.0.2.10}
missing:
  description: Names in O(names) of which there is no such VM.
  returned: always
  type: list
  elements: str
waits:
  description: What waiting was like for each VM.
  returned: with O(wait)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the VM.
      type: str
      returned: always
    waited_for:
      description: The value of O(wait).
      type: str
      returned: always
    seconds:
      description: How long it took, null where it failed.
      type: float
      returned: always
    address:
      description: The address that was found or that answered.
      type: str
      returned: always
    cloud_init:
      description: How cloud-init ended, C(status) and C(errors).
      type: dict
      returned: always
    error:
      description: Why the wait failed.
      type: str
      returned: on failure
    last_state:
      description: What was last seen of a guest that did not answer in time.
      type: str
      returned: on failure
reason:
  description: Stable key of the failure, such as V(wait_timeout), V(guest_not_running), V(cloud_init_failed) or V(unknown_vm).
  returned: on failure
  type: str
"""

from typing import Any, Dict

from ansible_collections.kvmfleet.core.plugins.module_utils import _guest, _vm_list
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import COMMON_ARGUMENT_SPEC, fail_from, run_module
from ansible_collections.kvmfleet.core.plugins.module_utils._module import PROGRESS_ARGUMENT_SPEC, FleetModule

STATES = ["pending", "building", "running", "paused", "stopping", "stopped", "crashed", "deleting", "failed"]


def main() -> None:
    """Entry point."""
    module = FleetModule(supports_check_mode=True, argument_spec=dict(
        COMMON_ARGUMENT_SPEC, **PROGRESS_ARGUMENT_SPEC,
        names={"type": "list", "elements": "str", "aliases": ["name"]},
        group={"type": "str"},
        namespace={"type": "str"},
        set={"type": "str"},
        labels={"type": "dict"},
        state={"type": "list", "elements": "str", "choices": STATES},
        managed_only={"type": "bool", "default": False},
        addresses={"type": "bool", "default": True},
        address_sources={"type": "list", "elements": "str", "choices": list(_guest.SOURCES)},
        agent_timeout={"type": "int", "default": 5},
        wait={"type": "str", "choices": list(_guest.WAITS), "default": "none"},
        timeout={"type": "int", "default": 300},
        ssh_port={"type": "int", "default": 22},
    ))

    def work(conn: Any) -> Dict[str, Any]:
        result, error = _vm_list.inform(conn, module.params)
        if error is not None:
            fail_from(module, error, **result)
        return result
    run_module(module, work, writes=False)


if __name__ == "__main__":
    main()
