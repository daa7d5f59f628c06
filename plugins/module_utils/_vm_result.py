# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM as plain data: the one shape in which all modules return it."""
from __future__ import annotations

from typing import Any, Dict, List, Optional

from ansible_collections.kvmfleet.core.plugins.module_utils import _metadata
from ansible_collections.kvmfleet.core.plugins.module_utils._domain_xml import ObservedDisk, ObservedNic, ObservedVm

_OWN = ("group", "namespace", "set", "index", "image", "flavor", "key_name")


def _disk(disk: ObservedDisk, meta: Optional[_metadata.VmMetadata]) -> Dict[str, Any]:
    listed = meta.volume(disk.key) if meta else None
    return {"name": disk.key, "pool": listed.pool if listed else disk.pool, "volume": listed.name if listed else disk.volume, "path": disk.path or None,
            "size_bytes": listed.size if listed and disk.key != "seed" else None, "format": disk.format, "bus": disk.bus, "target": disk.target,
            "device": disk.device, "readonly": disk.readonly}


def _nic(nic: ObservedNic, live: Optional[ObservedVm]) -> Dict[str, Any]:
    running = next((n for n in live.nics.values() if n.mac == nic.mac), None) if live else None
    return {"name": nic.key, "mac": nic.mac, "type": nic.type, "source": nic.source, "model": nic.model, "link": nic.link, "vlan": nic.vlan, "mtu": nic.mtu,
            "target": running.target if running else None}


def console(vm: ObservedVm, live: Optional[ObservedVm]) -> Dict[str, Any]:
    """Where the consoles are: graphical (address and port, known while it runs) and serial (a pty while it runs)."""
    graphics = (live or vm).graphics
    return {"type": graphics["type"], "listen": graphics.get("listen"), "port": graphics.get("live_port") if live else graphics.get("port"),
            "serial": live.serial_path if live else None, "serial_console": vm.serial_console}


def describe(vm: ObservedVm, live: Optional[ObservedVm], state: str, autostart: Optional[bool] = None) -> Dict[str, Any]:
    """A VM as returned by vm_set, vm_domain and vm_info. Memory in MiB, sizes in bytes.

    :param vm: normal form of the persistent definition
    :param live: that of the running one, or None
    :param state: a state of DESIGN.md
    """
    meta = vm.metadata
    static: List[str] = list(meta.addresses) if meta else []
    result: Dict[str, Any] = {
        "name": vm.name, "uuid": vm.uuid, "state": state, "phase": meta.phase if meta else None, "managed": meta is not None, "description": vm.description,
        "vcpus": vm.vcpus, "max_vcpus": vm.max_vcpus, "memory_mib": vm.memory_mib, "max_memory_mib": vm.max_memory_mib,
        "machine": vm.machine, "arch": vm.arch, "firmware": vm.firmware, "virt_type": vm.virt_type,
        "secure_boot": vm.secure_boot, "tpm": vm.tpm, "boot": list(vm.boot), "cpu_mode": vm.cpu["mode"],
        "labels": dict(meta.labels) if meta else {}, "anti_affinity": list(meta.anti_affinity) if meta else [],
        "scaling": meta.scaling.as_dict() if meta and meta.scaling else None,
        "disks": [_disk(d, meta) for d in vm.disks.values()], "nics": [_nic(n, live) for n in vm.nics.values()],
        "console": console(vm, live), "static_addresses": static, "address": static[0].split("/")[0] if static else None,
        "volumes": [{"disk": v.disk, "pool": v.pool, "name": v.name, "size_bytes": v.size, "reserve_bytes": v.reserve} for v in (meta.volumes if meta else [])],
        "vcpus_request": None if meta is None or meta.vcpus_request_milli is None else meta.vcpus_request_milli / 1000,
        "memory_request_mib": meta.memory_request_mib if meta else None,
    }
    result.update({key: getattr(meta, key) if meta else None for key in _OWN})
    if autostart is not None:
        result["autostart"] = autostart
    return result
