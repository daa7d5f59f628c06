#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One libvirt network of a host."""
from __future__ import annotations

DOCUMENTATION = r"""
module: host_network
short_description: Make a libvirt network defined and active
version_added: 0.1.0
description:
  - Defines a libvirt network, starts it, and has it started at boot.
  - An existing network is started, and is not reconfigured, because guests may be on it. One that differs from what is asked for is an error.
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes
  - kvmfleet.core.connection
options:
  name:
    description: Name of the network. V(default) needs no further options; it is made as libvirt ships it.
    type: str
    required: true
  forward:
    description: How packets leave the network; V(none) isolates it.
    type: str
    choices: [nat, route, open, none]
    default: nat
  address:
    description: The host's own address in the network, with the prefix. Needed where the network does not exist yet and is not isolated.
    type: str
  dhcp:
    description: First and last address that the network gives out by DHCP. Without it there is no DHCP.
    type: list
    elements: str
  bridge:
    description: Name of the bridge that libvirt makes. Default is a name that libvirt chooses.
    type: str
  autostart:
    description: Whether the network is started with libvirt.
    type: bool
    default: true
  state:
    description:
      - V(present) makes the network defined and active.
      - V(absent) removes it, unless a domain uses it.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: kvmfleet.core.vm_domain
"""

EXAMPLES = r"""
- name: Libvirt's own network
  kvmfleet.core.host_network:
    name: default

- name: A network for a lab
  kvmfleet.core.host_network:
    name: lab
    address: 10.20.0.1/24
    dhcp: [10.20.0.100, 10.20.0.199]
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [start network default]
reason:
  description: Stable key of the failure, such as V(invalid_value) or V(network_in_use).
  returned: on failure
  type: str
"""

from typing import Any, Dict

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import COMMON_ARGUMENT_SPEC, run_module
from ansible_collections.kvmfleet.core.plugins.module_utils._host_objects import NetworkConverger, NetworkSpec
from ansible_collections.kvmfleet.core.plugins.module_utils._module import FleetModule
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError


def main() -> None:
    """Entry point."""
    module = FleetModule(supports_check_mode=True, argument_spec=dict(
        COMMON_ARGUMENT_SPEC,
        name={"type": "str", "required": True},
        forward={"type": "str", "choices": ["nat", "route", "open", "none"], "default": "nat"},
        address={"type": "str"},
        dhcp={"type": "list", "elements": "str"},
        bridge={"type": "str"},
        autostart={"type": "bool", "default": True},
        state={"type": "str", "choices": ["present", "absent"], "default": "present"},
    ))
    params = module.params

    def work(conn: Any) -> Dict[str, Any]:
        dhcp = params["dhcp"]
        if dhcp and len(dhcp) != 2:
            raise SpecError("dhcp", ", ".join(dhcp), "is not a first and a last address", "Give two addresses")
        spec = NetworkSpec(params["name"], params["forward"], params["address"], (dhcp[0], dhcp[1]) if dhcp else None, params["bridge"], params["autostart"])
        converger = NetworkConverger(conn, spec)
        result = (converger.present if params["state"] == "present" else converger.absent)(module.check_mode)
        if not module._diff:
            del result["diff"]
        return result
    run_module(module, work)


if __name__ == "__main__":
    main()
