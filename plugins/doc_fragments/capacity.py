# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of how a host's capacity is reckoned, for host_capacity, vm_set, vm_domain and vm_disk."""
from __future__ import annotations


class ModuleDocFragment:
    """Ratios, reserves, totals, limits of pools."""

    DOCUMENTATION = r"""
options:
  ratios:
    description: How much of what there is may be given out. Available is (total - reserved) x ratio - allocated.
    type: dict
    suboptions:
      vcpus:
        description: Ratio for virtual CPUs. Default is 4.0.
        type: float
      memory:
        description: Ratio for memory. Default is 1.0.
        type: float
      disk:
        description: Ratio for the disk of each pool. Default is 1.0.
        type: float
  reserved:
    description: What is kept back for the host itself.
    type: dict
    suboptions:
      vcpus:
        description: Number of CPUs.
        type: int
      memory:
        description: Memory with its unit, such as V(4GiB).
        type: str
      disk:
        description: Disk of each pool with its unit.
        type: str
  totals:
    description: What the host has, where that should be something else than what it reports.
    type: dict
    suboptions:
      vcpus:
        description: Number of CPUs.
        type: int
      memory:
        description: Memory with its unit.
        type: str
      disk:
        description: Disk of each pool with its unit.
        type: str
  stopped_factor:
    description: How much of a stopped VM's CPUs and memory is counted, between 0 and 1.
    type: float
    default: 1.0
  pools:
    description:
      - By pool its C(max_capacity), such as V(500GiB), which counts as the size of the pool where there is more.
      - The other keys of the host variable C(kvm_pools) may be there, and are not read here.
    type: dict
"""
