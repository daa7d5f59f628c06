#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action of this name, which runs on the control node."""
from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_page
short_description: Write the fleet as one HTML page
version_added: 0.1.0
author: kvmfleet contributors (@kvmfleet)
description:
  - Writes one HTML file on the control node out of what M(kvmfleet.core.host_capacity) and M(kvmfleet.core.vm_info) have registered on each host.
  - The file needs no network and no server. Nothing of guests or users in it can run, and nothing of it is secret.
  - A host that did not answer is shown as such, with the reason. It is a failure only where no host answered; then the file stays as it is.
  - The file is replaced in one step. Where only the time of the data and what is really used are others, it is written anew and counts as unchanged.
  - A file of that name that is no fleet page is refused.
  - Sets C(kvmfleet) as custom statistic, with path and time.
options:
  results:
    description:
      - Name of the variable in which each host's result of M(kvmfleet.core.host_capacity) was registered.
      - It has to be taken with O(kvmfleet.core.host_capacity#module:vms).
    type: str
    default: vm_result
  infos:
    description:
      - Name of the variable in which each host's result of M(kvmfleet.core.vm_info) was registered.
      - Without it the page has no addresses but static ones, and no descriptions.
    type: str
    default: vm_found
attributes:
  check_mode:
    support: full
    description: Says whether the page would change, and writes nothing.
  diff_mode:
    support: full
    description: Shows a line for each host and VM that changed.
  platform:
    support: full
    description: Runs on the control node.
    platforms: posix
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
notes:
  - The variables, such as C(fleet_page_path), are documented with the role P(kvmfleet.core.vm#role).
seealso:
  - module: kvmfleet.core.fleet_report
"""

EXAMPLES = r"""
- name: Look what the hosts have
  kvmfleet.core.host_capacity:
    vms: true
  register: vm_result

- name: Look at the VMs
  kvmfleet.core.vm_info:
  register: vm_found

- name: Write the page
  kvmfleet.core.fleet_page:
  run_once: true
  vars:
    fleet_page_path: /srv/www/fleet.html
    fleet_page_mode: '0644'
"""

RETURN = r"""
path:
  description: The file.
  type: str
  returned: success
reason:
  description: Stable key of the failure.
  type: str
  returned: failure
"""
