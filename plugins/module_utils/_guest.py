# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest tells: whether its agent listens, its addresses, its SSH, its cloud-init."""
from __future__ import annotations

import xml.etree.ElementTree as ET

try:
    import libvirt
except ImportError:
    pass  # run_module says so

AGENT_CHANNEL = "org.qemu.guest_agent.0"


def agent_in(root: ET.Element) -> bool:
    """Whether a live domain XML says that the guest's agent has opened its channel."""
    return any(target.get("name") == AGENT_CHANNEL and target.get("state") == "connected" for target in root.iterfind("devices/channel/target"))


def agent_connected(domain: libvirt.virDomain) -> bool:
    """Whether the guest's agent has opened its channel; says nothing about whether it answers."""
    return agent_in(ET.fromstring(domain.XMLDesc(0)))
