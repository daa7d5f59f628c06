#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action of this name, which moves files between the control node and a host."""
from __future__ import annotations

DOCUMENTATION = r"""
module: base_image_carry
short_description: Carry an image between the control node and a KVM host
version_added: 0.1.0
author: kvmfleet contributors (@kvmfleet)
description:
  - Fetches an image from the pool of a host that has it, or brings it to the pool of one that has not, over the connection that Ansible has to the host.
    Hosts need no way to each other and none to the internet.
  - What arrives is compared with the checksum of what was sent before it gets its name.
  - The role P(kvmfleet.core.base_image#role) calls it where several hosts lack an image, so that it is downloaded or built once.
  - Where the folder of O(path) is called C(carried-) and a number, as the role calls it, such folders beside it that runs have left that were killed
    more than a day ago are removed.
  - Prints how much has been carried when it takes longer than five seconds.
options:
  state:
    description:
      - V(fetched) copies the volume of the host to O(path), where there is no such file yet.
      - V(brought) makes the image present in the pool of the host out of O(path).
    type: str
    required: true
    choices: [fetched, brought]
  path:
    description: Path on the control node.
    type: path
    required: true
  image:
    description: Options of M(kvmfleet.core.base_image_file) that describe the image and its pool on the host.
    type: dict
    required: true
  checksum:
    description: With O(state=brought), checksum of the file. Without one it is computed on the control node.
    type: str
attributes:
  check_mode:
    support: full
    description: Says that it would carry the image.
  diff_mode:
    support: none
    description: Shows no difference.
  platform:
    support: full
    description: Runs on the control node, with hosts that run Linux.
    platforms: posix
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
seealso:
  - module: kvmfleet.core.base_image_file
"""

EXAMPLES = r"""
- name: Fetch the image from the host that has built it
  kvmfleet.core.base_image_carry:
    state: fetched
    path: /var/tmp/base-debian-12-0a1b2c3d4e5f.qcow2
    image: {name: "debian:12", pool: default, source: build, suite: bookworm}
  delegate_to: kvm1

- name: Bring it to this host
  kvmfleet.core.base_image_carry:
    state: brought
    path: /var/tmp/base-debian-12-0a1b2c3d4e5f.qcow2
    image: {name: "debian:12", pool: default, source: build, suite: bookworm}
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
checksum:
  description: Checksum of what was carried.
  returned: unless in check mode
  type: str
size_bytes:
  description: Its size.
  returned: unless in check mode
  type: int
reason:
  description: Stable key of the failure, such as V(checksum_mismatch) or V(carry_failed).
  returned: on failure
  type: str
"""
