#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that a pool holds, and who needs them."""
from __future__ import annotations

DOCUMENTATION = r"""
module: base_image_info
short_description: Tell which images a storage pool holds and what needs them
version_added: 0.1.0
description:
  - Lists the images that M(kvmfleet.core.base_image_file) has made in one pool, and for each why it cannot be removed.
  - An image is known by its volume's name, C(base-NAME-TAG-<12 digits>). Other volumes, such as disks and ISO images, are never listed.
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes.info
  - kvmfleet.core.connection
options:
  pool:
    description: The storage pool. No other pool is listed, but overlays are looked for in all of them.
    type: str
    required: true
seealso:
  - module: kvmfleet.core.base_image_file
"""

EXAMPLES = r"""
- name: Look which images there are
  kvmfleet.core.base_image_info:
    pool: default
  register: found

- name: Show those that no disk needs
  ansible.builtin.debug:
    msg: "{{ found.images | selectattr('needed', 'none') | map(attribute='volume') }}"
"""

RETURN = r"""
images:
  description: The images, by name.
  returned: always
  type: list
  elements: dict
  contains:
    volume:
      description: Name of the volume.
      type: str
      returned: always
    pool:
      description: Its pool.
      type: str
      returned: always
    volume_path:
      description: Its path.
      type: str
      returned: always
    size_bytes:
      description: What it takes on disk.
      type: int
      returned: always
    needed:
      description: Why it cannot be removed, such as the overlays on it; null where nothing needs it.
      type: str
      returned: always
  sample:
    - {volume: base-debian-12-0a1b2c3d4e5f.qcow2, pool: default, size_bytes: 143785984, needed: null}
reason:
  description: Stable key of the failure, such as V(unknown_pool).
  returned: on failure
  type: str
"""

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import COMMON_ARGUMENT_SPEC, run_module
from ansible_collections.kvmfleet.core.plugins.module_utils._image_publish import image_pool
from ansible_collections.kvmfleet.core.plugins.module_utils._image_stock import stock
from ansible_collections.kvmfleet.core.plugins.module_utils._module import FleetModule


def main() -> None:
    """Entry point."""
    module = FleetModule(supports_check_mode=True, argument_spec=dict(
        COMMON_ARGUMENT_SPEC, pool={"type": "str", "required": True}))
    run_module(module, lambda conn: {"changed": False, "images": stock(conn, image_pool(conn, module.params["pool"]))})


if __name__ == "__main__":
    main()
