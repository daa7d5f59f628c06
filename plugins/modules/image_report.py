#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action of this name, which runs on the control node."""
from __future__ import annotations

DOCUMENTATION = r"""
module: image_report
short_description: Show the images on the hosts, and choose those that can go
version_added: 0.1.0
author: kvmfleet contributors (@kvmfleet)
description:
  - Prints a table of the images that M(kvmfleet.core.base_image_info) has found on each host and says which are unused, needed by nothing and not (any
    more) in the site's catalog C(kvmfleet_images). The playbook C(prune_images) calls it.
  - Sets the same as the custom statistic C(kvmfleet), as M(ansible.builtin.set_stats) does; in AWX that is the job's artifact.
options:
  results:
    description: Name of the variable in which each host's result of M(kvmfleet.core.base_image_info) was registered.
    type: str
    default: base_image_stock
  confirm:
    description: The number of images that are to go. Without it none is chosen; another number than that of the unused ones is refused.
    type: int
  all:
    description: Whether images of the catalog that nothing needs count as unused too.
    type: bool
    default: false
extends_documentation_fragment:
  - kvmfleet.core.attributes.control
seealso:
  - module: kvmfleet.core.base_image_info
"""

EXAMPLES = r"""
- name: Look which images there are
  kvmfleet.core.base_image_info:
    pool: default
  register: base_image_stock

- name: Show them
  kvmfleet.core.image_report:
  run_once: true
"""

RETURN = r"""
remove:
  description: By host the images to remove, each with C(pool) and C(volume); empty unless confirmed.
  returned: success
  type: dict
reason:
  description: Stable key of a failure, such as V(not_confirmed).
  returned: on failure
  type: str
"""
