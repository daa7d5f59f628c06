# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much host memory QEMU itself takes for one VM, over and above the guest's memory."""
from __future__ import annotations

PROCESS_MIB = 96       # code, heap, device models, I/O thread and migration buffers of one QEMU process
VCPU_MIB = 8           # one thread and its stack
DISK_MIB = 4           # request queues and the metadata cache of one qcow2 image
NIC_MIB = 2            # rings and buffers of one virtio NIC
VIDEO_MIB = 16         # frame buffer, where there is a graphical console
PAGE_TABLE_SHARE = 512  # 8 bytes for each page of 4 KiB, by host and by hypervisor


def qemu_overhead_mib(memory_mib: int, vcpus: int, disks: int = 1, nics: int = 1, graphics: bool = False) -> int:
    """MiB that QEMU takes on its host for a VM of C(memory_mib) and C(vcpus), rounded up.

    C(96 + memory / 512 + 8 x vcpus + 4 x disks + 2 x NICs + 16 with graphics). It is an upper estimate for the usual VM, not a
    measurement: a VM with emulated CPU (virt_type qemu) may take up to 1 GiB more for translated code, which is not counted.
    """
    page_tables = -(-memory_mib // PAGE_TABLE_SHARE)
    return PROCESS_MIB + page_tables + VCPU_MIB * vcpus + DISK_MIB * disks + NIC_MIB * nics + (VIDEO_MIB if graphics else 0)
