# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which virtualisation type really works on this host, found out once and kept."""
from __future__ import annotations

from typing import Optional

KEPT_PATH = "/var/lib/kvmfleet/virt_type"


def kept_virt_type() -> Optional[str]:
    """The kept answer of the probe: C(kvm), C(qemu), or None where there was no probe yet."""
    try:
        with open(KEPT_PATH, encoding="ascii") as file:
            answer = file.read().strip()
    except FileNotFoundError:
        return None
    return answer if answer in ("kvm", "qemu") else None
