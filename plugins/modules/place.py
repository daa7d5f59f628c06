#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action of this name, which runs on the control node."""
from __future__ import annotations

DOCUMENTATION = r"""
module: place
short_description: Choose hosts for VMs and settle who keeps what was claimed
version_added: 0.1.0
author: kvmfleet contributors (@kvmfleet)
description:
  - Reads what M(kvmfleet.core.vm_request) has found to be asked for and what every host has said with M(kvmfleet.core.host_capacity), and says which host
    has to do what. The playbooks C(create_vm) and C(converge_fleet) call it between their tasks.
  - In check mode and with C(--diff) it prints the plan with its reasons, as it does when no host fits.
  - Runs on the control node and asks no host itself.
options:
  step:
    description:
      - V(plan) places the VMs, all or none. Those that exist stay where they are.
      - V(settle) decides after the claims have been made and every host has been read again - build, or another round, or give up.
      - V(undo) tells what is left on other hosts of a batch that failed on one.
    type: str
    required: true
    choices: [plan, settle, undo]
  plan:
    description: Name of the variable with the result of M(kvmfleet.core.vm_request), later with that of this action.
    type: str
    default: vm_plan
  capacity:
    description: Name of the variable in which each host's result of M(kvmfleet.core.host_capacity) was registered.
    type: str
    default: vm_capacity
  seen:
    description: Name of the variable with the hosts' answers after the claims.
    type: str
    default: vm_seen
  claimed:
    description: Name of the variable with the results of M(kvmfleet.core.vm_set) with O(kvmfleet.core.vm_set#module:step=claim).
    type: str
    default: vm_claim
  results:
    description: Name of the variable with the results of building.
    type: str
    default: vm_result
attributes:
  check_mode:
    support: full
    description: Nothing is claimed in check mode; the plan is the one of a real run at this moment.
  diff_mode:
    support: full
    description: Prints the plan.
  platform:
    support: full
    description: Runs on the control node.
    platforms: posix
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
notes:
  - How hosts are chosen is told in docs/placement.md, how claims are settled in docs/concepts.md.
seealso:
  - module: kvmfleet.core.host_capacity
  - module: kvmfleet.core.vm_set
"""

EXAMPLES = r"""
- name: Place the VMs
  kvmfleet.core.place:
    step: plan
  run_once: true
  register: vm_plan
"""

RETURN = r"""
vms:
  description: For each host the items for the option O(kvmfleet.core.vm_set#module:vms).
  type: dict
  returned: success
placement:
  description: For each VM its host, score and runner-up, and why the other hosts were refused.
  type: dict
  returned: success
next:
  description: What comes next - V(ignore:build), V(ignore:again) or V(ignore:failed).
  type: str
  returned: success
notes:
  description: Sentences for people.
  type: list
  elements: str
  returned: success
reason:
  description: Stable key of a refusal.
  type: str
  returned: failure
"""
