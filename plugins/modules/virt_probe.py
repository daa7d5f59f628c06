#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which virtualisation type really works on a host."""
from __future__ import annotations

DOCUMENTATION = r"""
module: virt_probe
short_description: Find out whether KVM really works on a host
version_added: 0.1.0
description:
  - A host can have C(/dev/kvm), and libvirt can offer V(kvm), although no guest runs on it (nested virtualisation, for example).
    So a transient guest with the host's CPU is started. If it still runs two seconds later the answer is V(kvm), else V(qemu), which is emulation.
  - The answer is kept on the host in C(/var/lib/kvmfleet/virt_type), and C(virt_type=auto) of the other modules means that answer.
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes
  - kvmfleet.core.connection
options:
  virt_type:
    description:
      - V(auto) gives the kept answer, or probes where none is kept.
      - V(kvm) and V(qemu) are kept as the answer without probing.
    type: str
    choices: [auto, kvm, qemu]
    default: auto
  force:
    description: Probe although an answer is kept.
    type: bool
    default: false
notes:
  - In check mode the probe runs where it would run, because only so the answer is known. Nothing is kept.
seealso:
  - module: kvmfleet.core.vm_domain
"""

EXAMPLES = r"""
- name: Find out what this host can do
  kvmfleet.core.virt_probe:

- name: Probe again after nested virtualisation was enabled
  kvmfleet.core.virt_probe:
    force: true

- name: Use emulation whatever the host offers
  kvmfleet.core.virt_probe:
    virt_type: qemu
"""

RETURN = r"""
virt_type:
  description: The answer, V(kvm) or V(qemu).
  returned: success
  type: str
  sample: kvm
reason:
  description: Why this is the answer; on failure a stable key of the failure.
  returned: always
  type: str
  sample: a kvm guest ran for 2 seconds
offered:
  description: What libvirt offers for guests of the host's architecture.
  returned: success
  type: list
  elements: str
  sample: [kvm, qemu]
cached:
  description: Whether the answer was kept from an earlier run.
  returned: success
  type: bool
  sample: false
"""

from typing import Any, Dict

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import COMMON_ARGUMENT_SPEC, run_module
from ansible_collections.kvmfleet.core.plugins.module_utils._module import FleetModule
from ansible_collections.kvmfleet.core.plugins.module_utils._virt_probe import settle


def main() -> None:
    """Entry point."""
    module = FleetModule(supports_check_mode=True, argument_spec=dict(
        COMMON_ARGUMENT_SPEC,
        virt_type={"type": "str", "choices": ["auto", "kvm", "qemu"], "default": "auto"},
        force={"type": "bool", "default": False},
    ))

    def work(conn: Any) -> Dict[str, Any]:
        result = settle(conn, module.params["virt_type"], module.params["force"], module.check_mode)
        if not module._diff:
            del result["diff"]
        return result
    run_module(module, work)


if __name__ == "__main__":
    main()
