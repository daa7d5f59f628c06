#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converge many VMs on one host in one call."""
from __future__ import annotations

DOCUMENTATION = r"""
module: vm_set
short_description: Create, change and delete many VMs on one KVM host in one call
version_added: 0.1.0
description:
  - Brings a list of VMs, each with its disks, cloud-init seed, NICs and domain, to what is wanted. One round trip, however many VMs.
  - Runs on the KVM host itself. Room is counted and given out under one lock of the host, so that runs at once never take the same room.
  - A volume made for a VM is listed in its metadata before it is made, and is deleted with the VM; nothing that is not listed is ever deleted.
  - A run that was interrupted at whatever point is finished by the next one for the same VM.
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes
  - kvmfleet.core.connection
  - kvmfleet.core.progress
  - kvmfleet.core.vm.set
  - kvmfleet.core.capacity
options:
  step:
    description:
      - V(all) does everything.
      - V(claim) only books room, names, addresses and MACs for the VMs that do not exist yet, by defining them in phase C(pending).
      - V(build) makes claimed VMs complete, provided that their claim under O(ticket) is still there.
      - V(withdraw) takes back what was claimed under O(ticket), and what was built under it but is not ready.
    type: str
    choices: [all, claim, build, withdraw]
    default: all
  ticket:
    description: Random value of the run whose claims these are. Required for the steps V(claim), V(build) and V(withdraw).
    type: str
  claimed:
    description: >-
      For the step V(build), VMs that have to be claims under this O(ticket). One that is not, because its claim became too old and somebody else took the name,
      fails the step before anything is touched. Without it, a VM that is there and no claim is taken for one that was there before.
    type: list
    elements: str
  atomic:
    description: Whether a failure undoes all that this call created. Otherwise the other VMs are made, and the module fails at its end.
    type: bool
    default: true
  claim_ttl:
    description: Seconds after which anybody may remove a claim that was neither built nor withdrawn.
    type: int
    default: 60
  lock_timeout:
    description: Seconds to wait for another run that works on the same VM.
    type: int
    default: 30
requirements:
  - libvirt-python
seealso:
  - module: kvmfleet.core.vm_domain
  - module: kvmfleet.core.vm_info
  - module: kvmfleet.core.host_capacity
"""

EXAMPLES = r"""
- name: Two web servers from one image
  kvmfleet.core.vm_set:
    vms:
      - name: web-1
        state: running
        vcpus: 1
        memory: 768MiB
        disks:
          - pool: kvmfleet
            image: "{{ image_volume }}"
            size: 10GiB
        nics:
          - network: default
        seed:
          ssh_keys: ["{{ public_key }}"]
      - name: web-2
        state: running
        vcpus: 1
        memory: 768MiB
        disks:
          - pool: kvmfleet
            image: "{{ image_volume }}"
            size: 10GiB
        nics:
          - network: default
        seed:
          ssh_keys: ["{{ public_key }}"]

- name: Delete both
  kvmfleet.core.vm_set:
    vms:
      - name: web-1
        state: absent
      - name: web-2
        state: absent
"""

RETURN = r"""
surplus:
  description: VMs of the same sets on this host that were not among O(vms), which were left alone.
  returned: when there are any
  type: list
  elements: str
vms:
  description: What came of each VM, in the order of the option.
  returned: always, unless the options could not be read
  type: list
  elements: dict
  contains:
    name:
      description: Name of the domain.
      type: str
    uuid:
      description: UUID of the domain; null in check mode for a VM that does not exist yet.
      type: str
    state:
      description: State of the VM, such as C(running), C(stopped) or C(absent).
      type: str
    phase:
      description: Phase in its metadata.
      type: str
    changed:
      description: Whether anything was (or would be) changed.
      type: bool
    created:
      description: Whether this call made it, or would.
      type: bool
    actions:
      description: What was (or would be) done, in order.
      type: list
      elements: str
    restart_required:
      description: Options whose new value waits for a restart of the VM.
      type: list
      elements: str
    takes_effect:
      description: V(next_instance) where the seed of an existing VM changed, which a guest that has booted does not read again.
      type: str
    notes:
      description: What a person should know, such as why a change could not be made in the running guest.
      type: list
      elements: str
    seconds:
      description: How long it took.
      type: float
    msg:
      description: Why it failed.
      type: str
      returned: when this VM failed
    reason:
      description: Stable key of the failure, such as C(no_capacity).
      type: str
      returned: when this VM failed
reason:
  description: Stable key of the first failure.
  returned: on failure
  type: str
  sample: no_capacity
error:
  description: Option, value, reason and remedy of the first failure.
  returned: on failure by an option
  type: dict
"""

from ansible_collections.kvmfleet.core.plugins.module_utils._arguments import vm_item_options  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import CAPACITY_OPTIONS  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import COMMON_ARGUMENT_SPEC  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._module import PROGRESS_ARGUMENT_SPEC, FleetModule  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._vm_module import run  # noqa: E402


def main() -> None:
    """Entry point."""
    module = FleetModule(
        argument_spec=dict(
            COMMON_ARGUMENT_SPEC, **PROGRESS_ARGUMENT_SPEC,
            vms={"type": "list", "elements": "dict", "required": True, "options": vm_item_options()},
            step={"type": "str", "choices": ["all", "claim", "build", "withdraw"], "default": "all"},
            ticket={"type": "str"}, claimed={"type": "list", "elements": "str"}, atomic={"type": "bool", "default": True},
            claim_ttl={"type": "int", "default": 60}, lock_timeout={"type": "int", "default": 30}, **CAPACITY_OPTIONS),
        required_if=[("step", step, ("ticket",)) for step in ("claim", "build", "withdraw")],
        supports_check_mode=True)
    run(module, module.params["vms"], "vms[{0}].")


if __name__ == "__main__":
    main()
