#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action of this name, which runs on the control node."""
from __future__ import annotations

DOCUMENTATION = r"""
module: scale
short_description: Decide how a set of VMs is scaled, and settle which of several runs does it
version_added: 0.1.0
author: kvmfleet contributors (@kvmfleet)
description:
  - Reads what M(kvmfleet.core.vm_request) has found to be asked for and which VMs every host has, and says which members of the set are to be made or
    deleted, or why none. The playbook C(scale_vm) calls it between its tasks.
  - Runs on the control node and asks no host itself.
options:
  step:
    description:
      - V(decide) says what is to be done, and what new members are like.
      - V(compare) refuses where new members cannot be like the first one, because its cloud-init seed holds what nobody keeps.
      - V(begun) tells whether the first member has noted that this run begins, or another run was faster.
      - V(ended) tells what the first member is to note in the end.
    type: str
    required: true
    choices: [decide, compare, begun, ended]
  plan:
    description: Name of the variable with the result of M(kvmfleet.core.vm_request), later with that of this action.
    type: str
    default: vm_plan
  found:
    description: Name of the variable in which each host's result of M(kvmfleet.core.vm_info) was registered.
    type: str
    default: vm_found
  compared:
    description: Name of the variable with the result of M(kvmfleet.core.vm_set) in check mode for the first member.
    type: str
    default: vm_like
  noted:
    description: Name of the variable with the result of noting in the first member that the run begins.
    type: str
    default: vm_noted
  results:
    description: Name of the variable with the results of making and deleting members.
    type: str
    default: vm_result
  undone:
    description: Name of the variable with the result of M(kvmfleet.core.place) with O(kvmfleet.core.place#module:step=undo).
    type: str
    default: vm_undo
attributes:
  check_mode:
    support: full
    description: Decides as a real run would at this moment.
extends_documentation_fragment:
  - kvmfleet.core.attributes.control
notes:
  - How it is decided is told in docs/events.md.
seealso:
  - module: kvmfleet.core.vm_info
  - module: kvmfleet.core.vm_set
"""

EXAMPLES = r"""
- name: Decide
  kvmfleet.core.scale:
    step: decide
  run_once: true
  register: vm_plan
"""

RETURN = r"""
scaling:
  description: The set, its size, the size that it will have, and why - C(set), C(from), C(to), C(reason), C(words).
  type: dict
  returned: success
note:
  description: With O(step=ended), host and item of M(kvmfleet.core.vm_set) for what the first member is to keep.
  type: dict
  returned: success
reason:
  description: Stable key of a refusal.
  type: str
  returned: failure
"""
