#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a machine is fit to be a KVM host."""
from __future__ import annotations

DOCUMENTATION = r"""
module: host_check
short_description: Refuse a machine that is not fit to be a KVM host
version_added: 0.1.0
description:
  - Looks at memory and virtualisation of a machine before anything is installed on it, and fails where it is not fit.
  - It needs neither libvirt nor libvirt-python. Whether KVM really runs guests is found out by M(kvmfleet.core.virt_probe).
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes.info
options:
  min_memory:
    description: Memory that it has to have, with the unit. The kernel counts a little less than what is built in.
    type: str
    default: 1GiB
  allow_emulation:
    description: Whether a machine without KVM will do. VMs are emulated there, which is slow.
    type: bool
    default: false
seealso:
  - module: kvmfleet.core.virt_probe
"""

EXAMPLES = r"""
- name: Refuse machines with less than 4 GiB
  kvmfleet.core.host_check:
    min_memory: 3800MiB
    allow_emulation: true
"""

RETURN = r"""
memory_mib:
  description: Memory in MiB.
  returned: success
  type: int
  sample: 64000
kvm:
  description: Whether there is C(/dev/kvm).
  returned: success
  type: bool
flags:
  description: Which of V(vmx) (Intel) and V(svm) (AMD) the CPU has.
  returned: success
  type: list
  elements: str
  sample: [vmx]
container:
  description: Whether it is a container.
  returned: success
  type: bool
reason:
  description: Stable key of the failure, V(too_little_memory) or V(no_virtualisation).
  returned: on failure
  type: str
"""

import dataclasses

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import fail_from
from ansible_collections.kvmfleet.core.plugins.module_utils._host_check import examine, require_fit
from ansible_collections.kvmfleet.core.plugins.module_utils._module import FleetModule
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError


def main() -> None:
    """Entry point."""
    module = FleetModule(supports_check_mode=True, argument_spec=dict(
        min_memory={"type": "str", "default": "1GiB"}, allow_emulation={"type": "bool", "default": False}))
    machine = examine()
    try:
        require_fit(machine, module.params["min_memory"], module.params["allow_emulation"])
    except SpecError as exc:
        fail_from(module, exc)
    module.exit_json(changed=False, **dataclasses.asdict(machine))


if __name__ == "__main__":
    main()
