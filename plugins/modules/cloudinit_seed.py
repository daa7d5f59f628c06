#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make, change and delete the seed volume that configures a guest at its first boot."""
from __future__ import annotations

DOCUMENTATION = r"""
module: cloudinit_seed
short_description: Make the cloud-init seed of a VM
version_added: 0.1.0
description:
  - Makes a volume that cloud-init reads at a guest's first boot, out of typed options, raw user data, or both.
  - The volume is an ISO 9660 image of some 60 KiB that only its owner can read (mode 0600). Attach it as a read-only virtio disk,
    since the kernels of several cloud images lack what a SATA CD-ROM needs.
  - The volume is written only if its documents differ from those it holds. Their hash and the instance-id stand within the image,
    so that this takes one short read.
  - To make VMs complete with their seeds, use M(kvmfleet.core.vm_set).
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes
  - kvmfleet.core.connection
  - kvmfleet.core.seed
options:
  pool:
    description: Storage pool of the volume.
    type: str
    required: true
  name:
    description: Name of the volume, such as V(web1-seed.iso).
    type: str
    required: true
  domain:
    description:
      - Name of an existing domain that the seed is for. Its UUID is the instance-id, and its name is the host name unless one is given.
      - Without this and O(instance_id), an existing seed keeps its instance-id, and a new seed gets a random UUID. Give the returned
        RV(instance_id) as C(uuid) to M(kvmfleet.core.vm_domain), and both belong together for good.
    type: str
  state:
    description:
      - V(present) makes or changes the volume.
      - V(absent) deletes it, but never a volume that is attached to a domain, running or not, or that this module did not make.
    type: str
    choices: [present, absent]
    default: present
notes:
  - A guest that has booted with an instance-id configures itself only once. A changed seed takes effect with the next instance.
  - In check mode the instance-id of a new seed that would get a random one is not known, and RV(instance_id) is null.
  - The hashes returned cannot be turned back, but short passwords in plain text can be guessed and compared. Prefer password hashes.
seealso:
  - module: kvmfleet.core.vm_set
  - module: kvmfleet.core.vm_domain
"""

EXAMPLES = r"""
- name: Seed with a user, a package and a static address
  kvmfleet.core.cloudinit_seed:
    pool: default
    name: web1-seed.iso
    hostname: web1
    ssh_keys:
      - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice@example.org
    users:
      - name: deploy
        groups: [adm]
        sudo: true
        password_hash: "{{ vault_deploy_password_hash }}"
    packages: [nginx]
    network:
      - mac: "52:54:00:12:34:56"
        addresses: [192.0.2.10/24]
        gateway: 192.0.2.1
        nameservers: [192.0.2.53]
  register: seed

- name: The VM that it belongs to
  kvmfleet.core.vm_domain:
    name: web1
    uuid: "{{ seed.instance_id }}"
    vcpus: 1
    memory: 1GiB
    disks:
      - name: root
        pool: default
        volume: debian-12.qcow2
      - name: config
        pool: default
        volume: web1-seed.iso
        readonly: true

- name: Seed of an existing domain, with a script of one's own next to the options
  kvmfleet.core.cloudinit_seed:
    pool: default
    name: db1-seed.iso
    domain: db1
    timezone: Europe/Berlin
    user_data: |
      #!/bin/sh
      echo ready > /etc/motd

- name: Delete a seed
  kvmfleet.core.cloudinit_seed:
    pool: default
    name: db1-seed.iso
    state: absent
"""

RETURN = r"""
path:
  description: Path of the volume.
  returned: success
  type: str
  sample: /var/lib/libvirt/images/web1-seed.iso
volume:
  description: Name of the volume.
  returned: success
  type: str
  sample: web1-seed.iso
pool:
  description: Storage pool of the volume.
  returned: success
  type: str
  sample: default
format:
  description: Format of the seed.
  returned: if O(state=present)
  type: str
  sample: nocloud
instance_id:
  description: The instance-id within the seed; null in check mode where it is not known yet.
  returned: if O(state=present)
  type: str
  sample: 6a4f0ab7-4b48-4b5f-9d57-8b6f7a5b5c55
sha256:
  description: SHA-256 of each document, by name.
  returned: if O(state=present)
  type: dict
  sample:
    user-data: ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356
takes_effect:
  description: V(next_instance) where an existing seed has changed.
  returned: if an existing seed has changed
  type: str
  sample: next_instance
reason:
  description: Stable key of a failure, such as C(invalid_value), C(unknown_pool), C(not_ours) or C(in_use).
  returned: on failure
  type: str
  sample: not_ours
error:
  description: Option, value, reason and remedy.
  returned: on failure by an option
  type: dict
"""

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import COMMON_ARGUMENT_SPEC, run_module
from ansible_collections.kvmfleet.core.plugins.module_utils._module import FleetModule
from ansible_collections.kvmfleet.core.plugins.module_utils._seed_converge import converge_seed
from ansible_collections.kvmfleet.core.plugins.module_utils._seed_spec import SEED_OPTIONS

ARGUMENT_SPEC = dict(
    COMMON_ARGUMENT_SPEC,
    pool={"type": "str", "required": True},
    name={"type": "str", "required": True},
    domain={"type": "str"},
    state={"type": "str", "choices": ["present", "absent"], "default": "present"},
    **SEED_OPTIONS
)


def main() -> None:
    """Run the module."""
    module = FleetModule(argument_spec=ARGUMENT_SPEC, mutually_exclusive=[("domain", "instance_id")], supports_check_mode=True)
    run_module(module, lambda conn: converge_seed(conn, module.params, module.check_mode))


if __name__ == "__main__":
    main()
