#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action of this name, which runs on the control node."""
from __future__ import annotations

DOCUMENTATION = r"""
module: host_promises
short_description: Check that a KVM host has what the inventory promises of it
version_added: 0.1.0
author: kvmfleet contributors (@kvmfleet)
description:
  - Reads the host variables C(kvm_*) and the catalogs C(kvmfleet_*), asks the host what it has, and fails with one message that names all that is missing.
  - Promised is what placement takes the host to have. These are its pools, the images of the catalog, the networks of the catalog and of C(kvm_networks),
    and the storage classes that have a pool in the catalog or in C(kvm_storage_classes).
  - An image with a C(source) need not be there yet, since it is fetched when it is needed.
options:
  step:
    description:
      - V(declared) checks variables and catalogs only, which can be done before the host has libvirt.
      - V(kept) asks the host too.
    type: str
    choices: [declared, kept]
    default: kept
  images:
    description: Names of images to look for, instead of all of the catalog.
    type: list
    elements: str
  networks:
    description: Names of networks to look for, instead of all.
    type: list
    elements: str
  storage_classes:
    description: Names of storage classes to look for, instead of all.
    type: list
    elements: str
  images_present:
    description: Whether images have to be there already.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: It changes nothing. In check mode it does not fail for what is missing, since tasks before it may be about to make that.
  diff_mode:
    support: none
    description: It changes nothing.
  platform:
    support: full
    description: Runs on the control node, and modules on the host.
    platforms: posix
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
seealso:
  - module: kvmfleet.core.host_capacity
"""

EXAMPLES = r"""
- name: See whether the host is complete
  kvmfleet.core.host_promises:

- name: See whether a host that has only one of the networks is complete
  kvmfleet.core.host_promises:
    networks: [lan]
"""

RETURN = r"""
images:
  description: The images that were looked for.
  returned: always
  type: list
  elements: str
networks:
  description: The networks that were looked for.
  returned: always
  type: list
  elements: str
storage_classes:
  description: The storage classes that were looked for.
  returned: always
  type: list
  elements: str
broken:
  description: A clause for each promise that is not kept.
  returned: when some are not
  type: list
  elements: str
  sample: ["network lan: there is no bridge br0"]
reason:
  description: Stable key of the failure, such as V(broken_promise).
  returned: on failure
  type: str
"""
