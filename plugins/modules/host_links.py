#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks of a host: bridges over links, VLANs, VXLANs, bonds, NAT."""
from __future__ import annotations

DOCUMENTATION = r"""
module: host_links
short_description: Make a host's networks for VMs, without cutting the host off
version_added: 0.1.0
description:
  - Makes bridges over links, VLANs, VXLANs, bonds, isolated bridges and NAT networks by the configuration system that the host has (netplan, systemd-networkd,
    ifupdown, NetworkManager), and by Open vSwitch; and a libvirt network on top of each.
  - A change is carried out on the host by a unit of systemd that takes it back, files and running links, unless it is confirmed. It is confirmed once the
    control node has come in by a new connection. So a change that cuts the host off comes back by itself, and the task fails with what happened.
  - With a connection that is none of the network (C(ansible_connection=local)) a change is confirmed once a router answers by which the host goes out.
    That proves less, and the run says so.
  - The same happens where the host is restarted before that, and where a step of the change fails on the host.
  - Interfaces of VMs that are in a bridge stay in it, or are put back into it.
  - It needs root.
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes
  - kvmfleet.core.connection
attributes:
  action:
    support: full
    description: An action on the control node makes the new connection.
options:
  networks:
    description:
      - The networks of the host, all of them, each as the role P(kvmfleet.core.host_network#role) describes it under C(host_network_networks).
      - A network with C(state=absent) is removed.
    type: list
    elements: dict
    required: true
  system:
    description: The host's configuration system. Default is the one that is at work there; more than one is an error.
    type: str
    choices: [netplan, networkd, ifupdown, networkmanager]
  prune:
    description: Whether networks that an earlier run made and that are declared no more are removed. Where it is false they are an error.
    type: bool
    default: false
  allow_management_change:
    description: Whether the link by which the host is reached may get another address or gateway.
    type: bool
    default: false
  management_address:
    description: The host's own address by which it is reached. Default is the one of the SSH connection.
    type: str
  deadline:
    description: Seconds within which the new connection has to come in, from when the change begins.
    type: int
    default: 120
  libvirt:
    description: Whether libvirt networks are defined on top.
    type: bool
    default: true
  ovs_datapath:
    description: Datapath of Open vSwitch bridges, V(netdev) in user space. Default is Open vSwitch's own.
    type: str
    choices: [system, netdev]
  step:
    description: For the action's use. V(apply) sets the change to work, V(confirm) confirms it, V(networks) defines libvirt's networks.
    type: str
    choices: [apply, confirm, networks]
    default: apply
  token:
    description: For the action's use. Which change is meant.
    type: str
  proof:
    description:
      - For the action's use. What confirms a change. V(connection) is a new one from the control node; V(gateway), with connections that are none of the
        network (C(local)), an answer of a router by which the host goes out.
    type: str
    choices: [connection, gateway]
    default: connection
seealso:
  - module: kvmfleet.core.host_network
"""

EXAMPLES = r"""
- name: A bridge over the host's link, to which its address moves, and a network across all hosts
  kvmfleet.core.host_links:
    networks:
      - name: lan
        link: eth0
        addresses: [192.0.2.10/24]
        gateway4: 192.0.2.1
      - name: overlay
        type: vxlan
        vni: 100
        peers: [192.0.2.10, 192.0.2.11, 192.0.2.12]
        local: 192.0.2.10

- name: Remove a network
  kvmfleet.core.host_links:
    networks:
      - name: overlay
        state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [write /etc/systemd/network/00-kvmfleet-br-lan.netdev]
affected:
  description: Names of the networks that were not yet what they are declared to be.
  returned: success, and where the change was taken back
  type: list
  elements: str
log:
  description: What the host's unit did, its last lines.
  returned: where the change was taken back
  type: list
  elements: str
networks:
  description: The declared networks by name, with their type, the bridge that VMs are attached to, and the VLAN on it.
  returned: success
  type: dict
settled:
  description: What was done about the change of an earlier run that was not confirmed.
  returned: success
  type: str
system:
  description: The host's configuration system.
  returned: success
  type: str
reason:
  description: Stable key of the failure, such as V(invalid_value), V(would_cut_off), V(network_in_use), V(cut_off) or V(change_failed).
  returned: on failure
  type: str
"""

import contextlib
from typing import Any, Dict, List, Tuple, Type

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import (
    COMMON_ARGUMENT_SPEC,
    HAS_LIBVIRT,
    FleetError,
    connection,
    fail_from,
    refuse_remote,
    require_libvirt,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_links import HostLinks
from ansible_collections.kvmfleet.core.plugins.module_utils._module import FleetModule
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

try:
    import libvirt
except ImportError:  # reported by require_libvirt
    pass


def main() -> None:
    """Entry point."""
    module = FleetModule(supports_check_mode=True, argument_spec=dict(
        COMMON_ARGUMENT_SPEC,
        networks={"type": "list", "elements": "dict", "required": True},
        system={"type": "str", "choices": ["netplan", "networkd", "ifupdown", "networkmanager"]},
        prune={"type": "bool", "default": False},
        allow_management_change={"type": "bool", "default": False},
        management_address={"type": "str"},
        deadline={"type": "int", "default": 120},
        libvirt={"type": "bool", "default": True},
        ovs_datapath={"type": "str", "choices": ["system", "netdev"]},
        step={"type": "str", "choices": ["apply", "confirm", "networks"], "default": "apply"},
        token={"type": "str", "no_log": False},
        proof={"type": "str", "choices": ["connection", "gateway"], "default": "connection"},
    ))
    opened: List[Any] = []
    errors: Tuple[Type[Exception], ...] = (SpecError, FleetError) + ((libvirt.libvirtError,) if HAS_LIBVIRT else ())
    with contextlib.ExitStack() as stack:
        def connect() -> Any:
            if not opened:
                require_libvirt(module)
                opened.append(stack.enter_context(connection(module.params["uri"])))
            return opened[0]
        try:
            refuse_remote(module.params["uri"])
            if not 20 <= module.params["deadline"] <= 1800:
                raise SpecError("deadline", module.params["deadline"], "is not between 20 and 1800 seconds", "Use 120, or more where switches are slow")
            host = HostLinks(module.params, connect)
            steps = {"apply": lambda: host.apply(module.check_mode), "confirm": host.confirm, "networks": host.networks}
            result: Dict[str, Any] = steps[module.params["step"]]()
        except errors as exc:
            fail_from(module, exc)
    if not module._diff:
        result.pop("diff", None)
    for text in result.pop("warnings", []):
        module.warn(text)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
