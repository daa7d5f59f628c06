#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action of this name, which runs on the control node."""
from __future__ import annotations

DOCUMENTATION = r"""
module: vm_report
short_description: Show what was done to VMs as a table, and hand it on as data
version_added: 0.1.0
author: kvmfleet contributors (@kvmfleet)
description:
  - Prints a table of the VMs that the tasks before it worked on, and what there is to know about them.
  - Sets the same as the custom statistic C(kvmfleet), as M(ansible.builtin.set_stats) does; in AWX that is the job's artifact.
  - Fails with one message where a host failed or was unreachable. The playbooks of this collection end with it.
options:
  plan:
    description: Name of the variable in which the result of M(kvmfleet.core.vm_request) was registered.
    type: str
    default: vm_plan
  results:
    description: Name of the variable in which each host's result was registered.
    type: str
    default: vm_result
  waited:
    description: Name of the variable in which each host's result of waiting was registered.
    type: str
    default: vm_waited
  after:
    description:
      - Name of the variable in which the result of this very task was registered, to hand on as data what has failed.
      - A task that fails sets no statistics. Put a second one with this option into C(always), after the first; it does nothing where the first went well.
    type: str
attributes:
  check_mode:
    support: full
    description: Says what would be done.
extends_documentation_fragment:
  - kvmfleet.core.attributes.control
seealso:
  - module: kvmfleet.core.vm_request
"""

EXAMPLES = r"""
- name: Show the result
  kvmfleet.core.vm_report:
  run_once: true
"""

RETURN = r"""
reason:
  description: Stable key of the first failure.
  type: str
  returned: failure
"""
