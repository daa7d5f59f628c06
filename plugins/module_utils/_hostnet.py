# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan comes to on a host, whichever configuration system it has: files, commands, libvirt networks, and what stands in the way."""
from __future__ import annotations

from typing import Any, Dict, List

from ansible_collections.kvmfleet.core.plugins.module_utils import (
    _hostnet_ifupdown,
    _hostnet_netplan,
    _hostnet_networkd,
    _hostnet_nft,
    _hostnet_nm,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import Conflict, File, Plan

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
