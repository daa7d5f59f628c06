#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's daemons under systemd."""
from __future__ import annotations

DOCUMENTATION = r"""
module: host_daemons
short_description: Keep libvirt's daemons enabled, reachable, and up to date with their configuration
version_added: 0.1.0
description:
  - Enables and starts libvirtd, or the modular daemons (virtqemud, virtnetworkd, virtstoraged and the like), whichever the system uses.
    A daemon that has ended because it was idle is reached through its socket, and is left alone.
  - Restarts a daemon that has not read what is configured now, such as after a run that died between the change and the restart.
    What each was started with is noted in C(/run/kvmfleet/daemons.json).
  - Opens and closes the TLS socket.
  - Running VMs do not notice that daemons restart.
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes
options:
  kind:
    description: V(monolithic) is libvirtd, V(modular) the others. Default is what the system uses.
    type: str
    choices: [monolithic, modular]
  tls:
    description: Whether libvirt listens for TLS, port 16514. Left out, that stays as it is.
    type: bool
notes:
  - Needs systemd.
seealso:
  - module: kvmfleet.core.host_tls
"""

EXAMPLES = r"""
- name: Start libvirt, and make up for a restart that is owed
  kvmfleet.core.host_daemons:

- name: Listen for TLS
  kvmfleet.core.host_daemons:
    tls: true
"""

RETURN = r"""
kind:
  description: Which daemons the system uses, V(monolithic) or V(modular).
  returned: success
  type: str
  sample: monolithic
actions:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: ["restart libvirtd, which has not read /etc/libvirt/qemu.conf"]
reason:
  description: Stable key of the failure, such as V(no_libvirt), V(daemon_masked) or V(daemon_failed).
  returned: on failure
  type: str
"""

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError, fail_from
from ansible_collections.kvmfleet.core.plugins.module_utils._host_daemons import KINDS, DaemonConverger
from ansible_collections.kvmfleet.core.plugins.module_utils._module import FleetModule
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError


def main() -> None:
    """Entry point."""
    module = FleetModule(supports_check_mode=True, argument_spec=dict(kind={"type": "str", "choices": list(KINDS)}, tls={"type": "bool"}))
    try:
        result = DaemonConverger(module.run_command, module.params["kind"], module.params["tls"]).converge(module.check_mode)
    except (SpecError, FleetError) as exc:
        fail_from(module, exc)
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
