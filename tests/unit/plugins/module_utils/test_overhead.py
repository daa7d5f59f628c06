# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What QEMU takes beyond the guest's memory."""
from __future__ import annotations

from ansible_collections.kvmfleet.core.plugins.module_utils._overhead import qemu_overhead_mib


def test_the_documented_formula() -> None:
    assert qemu_overhead_mib(2048, 2) == 96 + 4 + 16 + 4 + 2
    assert qemu_overhead_mib(513, 1, disks=2, nics=0, graphics=True) == 96 + 2 + 8 + 8 + 16


def test_it_grows_with_everything() -> None:
    least = qemu_overhead_mib(1024, 1)
    assert all(more > least for more in (qemu_overhead_mib(2048, 1), qemu_overhead_mib(1024, 2), qemu_overhead_mib(1024, 1, 2),
                                         qemu_overhead_mib(1024, 1, 1, 2), qemu_overhead_mib(1024, 1, 1, 1, True)))
