# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a machine is fit to be a KVM host, before anything is installed on it."""
from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import List

from ansible_collections.kvmfleet.core.plugins.module_utils._own_files import read_text
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import MIB, SpecError, human_size, parse_size

# What Intel's and AMD's processors call it; other architectures have no such flag.
VIRTUALISATION_FLAGS = ("vmx", "svm")


@dataclass(frozen=True)
class Machine:
    """What of a machine matters. C(flags) are those of VIRTUALISATION_FLAGS that its CPU has."""

    memory_mib: int
    kvm: bool
    flags: List[str]
    container: bool


def examine(root: str = "/") -> Machine:
    """Look at the machine below C(root)."""
    def text(path: str) -> str:
        return read_text(os.path.join(root, path)) or ""
    memory = re.search(r"^MemTotal:\s*(\d+) kB", text("proc/meminfo"), re.MULTILINE)
    words = set(re.sub("[^a-z0-9_]", " ", "".join(re.findall(r"^flags\s*:(.*)$", text("proc/cpuinfo"), re.MULTILINE)[:1])).split())
    container = any(os.path.exists(os.path.join(root, path)) for path in ("run/systemd/container", "run/.containerenv", ".dockerenv"))
    return Machine(int(memory.group(1)) // 1024 if memory else 0, os.path.exists(os.path.join(root, "dev/kvm")),
                   [flag for flag in VIRTUALISATION_FLAGS if flag in words], container)


def require_fit(machine: Machine, min_memory: str, allow_emulation: bool) -> None:
    """Raises SpecError for a machine with too little memory, or without virtualisation unless emulation will do."""
    least = parse_size("min_memory", min_memory, 0)
    if machine.memory_mib * MIB < least:
        raise SpecError("min_memory", min_memory, "this host has {0} of memory only".format(human_size(machine.memory_mib * MIB)),
                        "Use another machine, or lower kvm_host_min_memory", "too_little_memory")
    if machine.kvm or allow_emulation:
        return
    if machine.flags:
        why, remedy = "its CPU has {0}, but there is no /dev/kvm".format(machine.flags[0]), "See what modprobe kvm_{0} says".format(
            "intel" if machine.flags[0] == "vmx" else "amd")
    else:
        why, remedy = "there is no /dev/kvm, and its CPU shows no virtualisation", "Enable that in the firmware (or, of a VM, in its hypervisor)"
    remedy = "Give the container /dev/kvm" if machine.container else remedy
    raise SpecError("allow_emulation", allow_emulation, "this host cannot run VMs by KVM: {0}".format(why),
                    "{0}. To run slow, emulated VMs there, set kvm_host_allow_emulation to true".format(remedy), "no_virtualisation")
