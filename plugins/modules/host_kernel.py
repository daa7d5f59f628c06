#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a KVM host asks of its kernel."""
from __future__ import annotations

DOCUMENTATION = r"""
module: host_kernel
short_description: Set kernel parameters, options of KVM's modules, and huge pages of a KVM host
version_added: 0.1.0
description:
  - Keeps kernel parameters, options of kernel modules and numbers of huge pages in files of its own, and sets at once what can be set at once.
  - Options of modules are read when a module is loaded. It is never unloaded for that, since VMs may be using it; RV(next_boot) says what is to come.
  - What is no longer given is taken out of the files, and holds until the next boot.
  - Needs neither libvirt nor libvirt-python.
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes
options:
  nested:
    description:
      - Whether VMs may run VMs by KVM themselves, on the CPUs that have an option for that (Intel, AMD).
      - Left out, that stays as the kernel has it.
    type: bool
  module_options:
    description: By kernel module its options. Those of C(kvm_intel) and C(kvm_amd) are left out on a CPU of the other kind.
    type: dict
    default: {}
  sysctls:
    description: Kernel parameters and their values.
    type: dict
    default: {}
  hugepages:
    description: How many huge pages of which size are kept for VMs. Sizes other than the usual one get a mount unit, which has to be started.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Routing, nested VMs, and 8 GiB in huge pages
  kvmfleet.core.host_kernel:
    sysctls:
      net.ipv4.ip_forward: 1
    nested: true
    hugepages:
      2MiB: 4096
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [write /etc/sysctl.d/90-kvmfleet.conf]
next_boot:
  description: What takes effect at the next boot only.
  returned: success
  type: list
  elements: str
  sample: [kvm_intel.nested = 1 (now 0)]
notes:
  description: What was left out, and why.
  returned: success
  type: list
  elements: str
mount_units:
  description: systemd units that mount the huge pages of unusual sizes.
  returned: success
  type: list
  elements: str
  sample: [dev-hugepages1G.mount]
reason:
  description: Stable key of the failure, such as V(unknown_parameter) or V(kernel_refused).
  returned: on failure
  type: str
"""

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError, fail_from
from ansible_collections.kvmfleet.core.plugins.module_utils._host_check import examine
from ansible_collections.kvmfleet.core.plugins.module_utils._host_kernel import KernelConverger, spec_from_params
from ansible_collections.kvmfleet.core.plugins.module_utils._module import FleetModule
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError


def main() -> None:
    """Entry point."""
    module = FleetModule(supports_check_mode=True, argument_spec=dict(
        nested={"type": "bool"},
        module_options={"type": "dict", "default": {}},
        sysctls={"type": "dict", "default": {}},
        hugepages={"type": "dict", "default": {}},
    ))
    try:
        result = KernelConverger(spec_from_params(module.params, examine().flags)).converge(module.check_mode)
    except (SpecError, FleetError) as exc:
        fail_from(module, exc)
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
