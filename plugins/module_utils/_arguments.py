# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a VM as Ansible argument specs: one source for vm_domain and for the items of vm_set."""
from __future__ import annotations

from typing import Any, Dict

from ansible_collections.kvmfleet.core.plugins.module_utils._seed_spec import SEED_OPTIONS
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import STATES

DISK_OPTIONS: Dict[str, Any] = {
    "name": {"type": "str"},
    "pool": {"type": "str"},
    "volume": {"type": "str"},
    "path": {"type": "str"},
    "format": {"type": "str", "choices": ["qcow2", "raw"]},
    "device": {"type": "str", "choices": ["disk", "cdrom", "floppy"], "default": "disk"},
    "bus": {"type": "str", "choices": ["virtio", "scsi", "sata", "ide", "usb", "fdc"]},
    "readonly": {"type": "bool"},
    "serial": {"type": "str"},
    "cache": {"type": "str", "choices": ["default", "none", "writethrough", "writeback", "directsync", "unsafe"]},
    "discard": {"type": "str", "choices": ["ignore", "unmap"]},
    "io": {"type": "str", "choices": ["native", "threads", "io_uring"]},
    "delete_with_vm": {"type": "bool", "default": False},
}

# What only vm_set's disks have: volumes made with the VM.
NEW_DISK_OPTIONS: Dict[str, Any] = {
    "size": {"type": "str"},
    "default_size": {"type": "str"},
    "image": {"type": "str"},
    "image_pool": {"type": "str"},
    "clone": {"type": "str", "choices": ["overlay", "full"], "default": "overlay"},
    "reserve": {"type": "str"},
}

NIC_OPTIONS: Dict[str, Any] = {
    "network": {"type": "str"},
    "bridge": {"type": "str"},
    "direct": {"type": "str"},
    "mode": {"type": "str", "choices": ["bridge", "vepa", "private", "passthrough"]},
    "model": {"type": "str", "choices": ["virtio", "e1000e", "e1000", "rtl8139"]},
    "mac": {"type": "str"},
    "vlan": {"type": "int"},
    "mtu": {"type": "int"},
    "filter": {"type": "str"},
    "queues": {"type": "int"},
    "link": {"type": "str", "choices": ["up", "down"]},
}

# What only vm_set's NICs have: the guest's addresses, which reach it by its seed.
ADDRESS_OPTIONS: Dict[str, Any] = {
    "addresses": {"type": "list", "elements": "str"},
    "gateway": {"type": "str"},
    "nameservers": {"type": "list", "elements": "str"},
    "search": {"type": "list", "elements": "str"},
    "routes": {"type": "list", "elements": "dict", "options": {
        "to": {"type": "str", "required": True}, "via": {"type": "str", "required": True}, "metric": {"type": "int"}}},
}

VM_OPTIONS: Dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "uuid": {"type": "str"},
    "state": {"type": "str", "choices": list(STATES), "default": "present"},
    "description": {"type": "str"},
    "labels": {"type": "dict"},
    "anti_affinity": {"type": "list", "elements": "str"},
    "vcpus": {"type": "int"},
    "max_vcpus": {"type": "int"},
    "topology": {"type": "dict", "options": {k: {"type": "int", "default": 1} for k in ("sockets", "cores", "threads")}},
    "memory": {"type": "str"},
    "max_memory": {"type": "str"},
    "cpu": {"type": "dict", "options": {
        "mode": {"type": "str", "choices": ["host-passthrough", "host-model", "maximum", "custom"]},
        "model": {"type": "str"},
        "features": {"type": "list", "elements": "dict", "options": {
            "name": {"type": "str", "required": True},
            "policy": {"type": "str", "choices": ["require", "optional", "disable", "forbid", "force"], "default": "require"}}},
    }},
    "machine": {"type": "str"},
    "arch": {"type": "str", "choices": ["x86_64", "i686", "aarch64"]},
    "virt_type": {"type": "str", "choices": ["auto", "kvm", "qemu"]},
    "firmware": {"type": "str", "choices": ["bios", "efi"]},
    "secure_boot": {"type": "bool"},
    "tpm": {"type": "bool"},
    "boot": {"type": "list", "elements": "str", "choices": ["hd", "cdrom", "network", "floppy"]},
    "graphics": {"type": "dict", "options": {
        "type": {"type": "str", "choices": ["none", "vnc", "spice"], "default": "none"},
        "listen": {"type": "str", "default": "127.0.0.1"},
        "port": {"type": "int"},
        "password": {"type": "str", "no_log": True},
    }},
    "serial_console": {"type": "bool"},
    "agent": {"type": "bool"},
    "rng": {"type": "bool"},
    "autostart": {"type": "bool"},
    "purge_disks": {"type": "bool", "default": False},
    "purge_nics": {"type": "bool", "default": False},
    "adopt": {"type": "bool", "default": False},
    "allow_restart": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "delete_disks": {"type": "bool", "default": True},
    "shutdown_timeout": {"type": "int", "default": 120},
    "timeout": {"type": "int", "default": 60},
}

# What only vm_set's VMs have: who they belong to, what is counted for them, and their seed.
SET_OPTIONS: Dict[str, Any] = {
    "group": {"type": "str"},
    "namespace": {"type": "str"},
    "set": {"type": "str"},
    "index": {"type": "int"},
    "image": {"type": "str"},
    "flavor": {"type": "str"},
    "key_name": {"type": "str", "no_log": False},
    "vcpus_request": {"type": "str"},
    "memory_request": {"type": "str"},
    "default_vcpus": {"type": "int"},
    "default_memory": {"type": "str"},
    "seed": {"type": "dict", "options": SEED_OPTIONS},
    "scaling": {"type": "dict", "options": {
        "expect": {"type": "str", "default": ""}, "ticket": {"type": "str", "default": ""}, "at": {"type": "str"}, "open": {"type": "bool", "default": False},
        "acting": {"type": "list", "elements": "str", "default": []}, "alerts": {"type": "list", "elements": "str", "default": []}}},
}


def domain_options() -> Dict[str, Any]:
    """The argument spec of vm_domain."""
    return dict(VM_OPTIONS, disks={"type": "list", "elements": "dict", "options": DISK_OPTIONS},
                nics={"type": "list", "elements": "dict", "options": NIC_OPTIONS})


def vm_item_options() -> Dict[str, Any]:
    """The argument spec of one item of vm_set's C(vms)."""
    return dict(VM_OPTIONS, disks={"type": "list", "elements": "dict", "options": dict(DISK_OPTIONS, **NEW_DISK_OPTIONS)},
                nics={"type": "list", "elements": "dict", "options": dict(NIC_OPTIONS, **ADDRESS_OPTIONS)},
                default_nics={"type": "list", "elements": "dict", "options": dict(NIC_OPTIONS, **ADDRESS_OPTIONS)}, **SET_OPTIONS)
