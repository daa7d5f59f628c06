#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action of this name, which runs on the control node."""
from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: Show what the fleet has and offers as tables, and hand it on as data
version_added: 0.1.0
author: kvmfleet contributors (@kvmfleet)
description:
  - Prints the fleet's capacity, its hosts, or what the catalogs offer, out of what M(kvmfleet.core.host_capacity) has registered on each host.
  - Sets the same as the custom statistic C(kvmfleet), as M(ansible.builtin.set_stats) does; in AWX that is the job's artifact.
  - A host that did not answer is named with the reason. It is a failure only where no host answered.
  - With the variable C(vm_group), what that tenant group may not use is left out.
options:
  show:
    description: What to show.
    type: str
    required: true
    choices: [capacity, list_hosts, list_images, list_flavors, list_networks]
  results:
    description:
      - Name of the variable in which each host's result of M(kvmfleet.core.host_capacity) was registered.
      - It has to be taken with O(kvmfleet.core.host_capacity#module:vms) and, for O(show=list_images), with O(kvmfleet.core.host_capacity#module:volumes).
    type: str
    default: vm_result
  after:
    description:
      - Name of the variable in which the result of this very task was registered, to hand on as data what has failed.
      - A task that fails sets no statistics. Put a second one with this option into C(always), after the first; it does nothing where the first went well.
    type: str
extends_documentation_fragment:
  - kvmfleet.core.attributes.control
notes:
  - The variables are documented with the role P(kvmfleet.core.vm#role).
requirements:
  - netaddr on the control node, for networks with an address pool
seealso:
  - module: kvmfleet.core.host_capacity
"""

EXAMPLES = r"""
- name: Look what the hosts have
  kvmfleet.core.host_capacity:
    vms: true
  register: vm_result

- name: Show the capacity of the fleet
  kvmfleet.core.fleet_report:
    show: capacity
  run_once: true
"""

RETURN = r"""
reason:
  description: Stable key of the failure.
  type: str
  returned: failure
"""
