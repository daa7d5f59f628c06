#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action of this name, which runs on the control node."""
from __future__ import annotations

DOCUMENTATION = r"""
module: vm_request
short_description: Read and check the variables of a request for VMs
version_added: 0.1.0
author: kvmfleet contributors (@kvmfleet)
description:
  - Reads the C(vm_*) variables, the C(kvmfleet_*) catalogs and the hosts' C(kvm_*) variables, converts and checks them, and returns what the modules
    on the hosts need. The playbooks of this collection begin with it.
  - Runs on the control node and asks no host. What it refuses has touched nothing.
  - Makes an SSH key pair where a VM with a cloud-init seed is asked for without a key, and in no other case.
options:
  verb:
    description: What the request is for; V(converge) is for the VMs that the fleet file declares.
    type: str
    required: true
    choices: [create, converge, scale, delete, power, list]
  found:
    description: Name of the variable in which each host's result of M(kvmfleet.core.vm_info) was registered, to resolve patterns.
    type: str
attributes:
  check_mode:
    support: full
    description: A key pair that would be made is not kept.
  diff_mode:
    support: none
    description: It changes nothing on a host.
  platform:
    support: full
    description: Runs on the control node.
    platforms: posix
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
notes:
  - The variables are documented with the role P(kvmfleet.core.vm#role).
seealso:
  - module: kvmfleet.core.vm_report
"""

EXAMPLES = r"""
- name: Read the request
  kvmfleet.core.vm_request:
    verb: create
  run_once: true
  register: vm_plan
"""

RETURN = r"""
vms:
  description: For each host the items for the option O(kvmfleet.core.vm_set#module:vms).
  type: dict
  returned: when O(verb=create) or O(verb=delete)
names:
  description: The names of the VMs; for O(verb=delete) and O(verb=power) by host.
  type: raw
  returned: success
options:
  description: For each host what the modules need of its variables.
  type: dict
  returned: success
key:
  description: Public keys, name, and path of the private key on the control node. Never the private key itself.
  type: dict
  returned: when O(verb=create)
lookup:
  description: Whether the hosts have to be asked first which VMs there are.
  type: bool
  returned: when O(verb=delete), O(verb=power) or O(verb=list)
reason:
  description: Stable key of a refusal.
  type: str
  returned: failure
"""
