# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the connection to libvirt, for every module that has one."""
from __future__ import annotations


class ModuleDocFragment:
    """The option that all modules share."""

    DOCUMENTATION = r"""
options:
  uri:
    description:
      - libvirt's connection URI.
      - Default is the environment variable E(LIBVIRT_DEFAULT_URI) of the machine the module runs on, else V(qemu:///system).
      - Modules that write run on the KVM host itself and refuse the URI of another machine. Add that machine to the inventory instead.
      - To give it once for all modules of a play, use C(module_defaults) with C(group/kvmfleet.core.kvmfleet).
    type: str
    default: qemu:///system
requirements:
  - libvirt-python (package C(python3-libvirt) in Debian, Ubuntu and the RHEL family)
"""
