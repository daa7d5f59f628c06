# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan comes to on a host, whichever configuration system it has: files, commands, libvirt networks, and what stands in the way."""
from __future__ import annotations

from typing import Any, Dict, Iterable, List

from ansible_collections.kvmfleet.core.plugins.module_utils import (
    _hostnet_ifupdown,
    _hostnet_netplan,
    _hostnet_networkd,
    _hostnet_nft,
    _hostnet_nm,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import SYSTEMS, Conflict, File, Plan
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, one_of

_SYSTEMS: Dict[str, Any] = {"netplan": _hostnet_netplan, "networkd": _hostnet_networkd, "ifupdown": _hostnet_ifupdown, "networkmanager": _hostnet_nm}


def render(plan: Plan) -> Dict[str, File]:
    """All files of ours, by path: those of the configuration system, and those for NAT. Raises SpecError for what the system cannot do."""
    files: Dict[str, File] = dict(_SYSTEMS[plan.system].render(plan))
    files.update(_hostnet_nft.render(plan))
    return dict(sorted(files.items()))


def conflicts(plan: Plan) -> List[Conflict]:
    """Definitions in files of others that have to go before ours can work."""
    found: List[Conflict] = _SYSTEMS[plan.system].conflicts(plan)
    return found


def parked(plan: Plan) -> Dict[str, str]:
    """Files of others whose definitions of the plan's devices are to go out of force, or of devices that were ours to come back in force: path and text."""
    texts: Dict[str, str] = _SYSTEMS[plan.system].parked(plan)
    return {path: text for path, text in sorted(texts.items()) if text != plan.files[path]}


def choose_system(active: Iterable[str], told: str = "") -> str:
    """The configuration system to use: the one that was told, else the only one that is at work on the host. Raises SpecError for none, and for two.

    C(active) are the systems that configure links there. netplan is at work through networkd or NetworkManager, so with it these do not count.
    """
    option = "host_network_system"
    found = sorted(set(active))
    if told:
        one_of(option, told, SYSTEMS)
        if found and told not in found:
            raise SpecError(option, told, "is not at work on this host, where {0} is".format(" and ".join(found)),
                            "Leave it out, or write {0}".format(found[0]), "wrong_system")
        return told
    if "netplan" in found:
        found = [name for name in found if name not in ("networkd", "networkmanager")]
    if len(found) != 1:
        shown = "no configuration system was found on this host" if not found else "more than one configuration system is at work on this host: {0}".format(
            ", ".join(found))
        raise SpecError(option, None, shown, "Say which one is to be used: {0}".format(", ".join(found or SYSTEMS)), "two_systems" if found else "no_system")
    return found[0]


def kernel_modules(plan: Plan) -> List[str]:
    """The kernel modules without which the plan cannot work. To be looked for first: networkd gives up on a link whose VLAN cannot be made."""
    kinds = {"bridge": "bridge", "bond": "bonding", "vlan": "8021q", "vxlan": "vxlan", "internal": "openvswitch"}
    needed = {kinds[device.kind] for device in plan.devices if device.kind in kinds}
    needed |= {"openvswitch" for network in plan.networks if network.openvswitch} | {"bridge" for network in plan.networks if network.by_libvirt}
    return sorted(needed)
