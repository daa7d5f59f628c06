# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hard rules of placement. Each refusal has a stable code and a sentence that names host, rule and numbers."""
from __future__ import annotations

from typing import Iterable, List, Mapping, Optional, Sequence

from ansible_collections.kvmfleet.core.plugins.module_utils._placement_ledger import MEMORY, POOLS, VCPUS, VMS, Ask, Layout
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import Group, HostCapacity, Refusal, Request, Vm
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import human_size

CAPACITY_CODES = ("no_vcpus", "no_memory", "no_disk", "no_free_space", "max_vms")


def vcpus_text(milli: int) -> str:
    """Thousandths of a vcpu for people."""
    return "{0}".format(milli // 1000) if milli % 1000 == 0 else "{0:.3f}".format(milli / 1000).rstrip("0")


def memory_text(mib: int) -> str:
    """MiB for people, exact where whole GiB."""
    return "{0} GiB".format(mib // 1024) if mib % 1024 == 0 else "{0} MiB".format(mib)


def amount_text(dimension: int, amount: int) -> str:
    """An amount of one dimension of a host's vector."""
    amount = max(0, amount)
    if dimension == VCPUS:
        return vcpus_text(amount) + " vcpus"
    if dimension == MEMORY:
        return memory_text(amount)
    return "{0} VMs".format(amount) if dimension == VMS else human_size(amount)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _open_to(request: Request, admin_only: bool, groups: Sequence[str], what: str) -> Optional[Refusal]:
    """Whether something that is reserved may be used by the asking group. An operator gets what is a group's own only on a host named for it."""
    if admin_only and not request.admin:
        return Refusal("admin_only", what + " is for administrators only")
    if groups and request.group not in groups and not (request.admin and request.host):
        return Refusal("group_not_allowed", "{0} is reserved to group {1}; asked for by {2}".format(
            what, _listed(groups), "group " + request.group if request.group else "no group"))
    return None


def host_refusal(request: Request, host: HostCapacity, layout: Layout) -> Optional[Refusal]:
    """Why the host cannot take the request whatever room it has; None if it could."""
    name = host.name
    if not host.reachable:
        return Refusal("unreachable", "{0} did not answer".format(name))
    if request.host and request.host != name:
        return Refusal("not_pinned_host", "{0} is not {1}, the host that is asked for".format(name, request.host))
    if not host.schedulable and not (request.admin and request.host):
        return Refusal("unschedulable", "{0} takes no new VMs (schedulable is false){1}".format(
            name, "; only an operator's, who names it" if request.host else ""))
    if request.avoid:
        for avoided, sentence in request.avoid:
            if avoided == name:
                return Refusal("refused_by_host", sentence)
    if request.region and request.region != host.region:
        return Refusal("wrong_region", "{0} is in region {1}, not {2}".format(name, host.region or "none", request.region))
    if request.zone and request.zone != host.zone:
        return Refusal("wrong_zone", "{0} is in zone {1}, not {2}".format(name, host.zone or "none", request.zone))
    for key, value in request.host_labels:
        if host.labels.get(key) != value:
            return Refusal("label_mismatch", "{0} has {1}, not {2}={3}".format(
                name, "{0}={1}".format(key, host.labels[key]) if key in host.labels else "no label " + key, key, value))
    if host.admin_only or host.groups:
        refusal = _open_to(request, host.admin_only, host.groups, name)
        if refusal:
            return refusal
    for code, wanted, offered, what in (
            ("arch", request.arch, host.archs, "architecture"), ("virt_type", request.virt_type, host.virt_types, "virtualisation type"),
            ("machine", request.machine, host.machines, "machine type"), ("firmware", request.firmware, host.firmwares, "firmware")):
        if wanted and wanted not in offered:
            return Refusal(code, "{0} has no {1} {2} (it has {3})".format(name, what, wanted, _listed(offered)))
    return _network_refusal(request, host) or _storage_refusal(request, host, layout)


def _network_refusal(request: Request, host: HostCapacity) -> Optional[Refusal]:
    for network in request.networks:
        access = host.networks.get(network)
        if access is None:
            return Refusal("network_missing", "{0} has no network {1} (it has {2})".format(host.name, network, _listed(host.networks)))
        refusal = _open_to(request, access.admin_only, access.groups, "network {0} of {1}".format(network, host.name))
        if refusal:
            return refusal
    return None


def _storage_refusal(request: Request, host: HostCapacity, layout: Layout) -> Optional[Refusal]:
    for disk in request.disks:
        pool = layout.pool_of(disk)
        if pool is None:
            if disk.pool:
                return Refusal("pool_missing", "{0} has no pool {1} (it has {2})".format(host.name, disk.pool, _listed(host.pools)))
            return Refusal("storage_class_missing", "{0} has no storage class {1} (it has {2})".format(
                host.name, disk.storage_class or "default", _listed(host.storage_classes)))
        access = host.class_access.get(disk.storage_class) if host.class_access else None
        refusal = access and _open_to(request, access.admin_only, access.groups, "storage class {0} of {1}".format(disk.storage_class, host.name))
        there = host.pools[pool]
        if not refusal and (there.admin_only or there.groups):
            refusal = _open_to(request, there.admin_only, there.groups, "pool {0} of {1}".format(pool, host.name))
        if refusal:
            return refusal
    return None


def capacity_refusal(name: str, layout: Layout, free: Sequence[int], ask: Ask) -> Optional[Refusal]:
    """Which resources of the host are short, the first of them as the code, all of them in the sentence."""
    code, lack, short = "", 0.0, []
    for at, amount in ask:
        if free[at] >= amount:
            continue
        lack += (amount - free[at]) / max(1, amount)
        if at == VMS:
            code, text = code or "max_vms", "has all the VMs it may have"
        elif at >= POOLS and (at - POOLS) % 2:
            code, text = code or "no_free_space", "has {0} really free {1} the floor of pool {2}, {3} to be written at once".format(
                human_size(abs(free[at])), "below" if free[at] < 0 else "above", layout.pools[(at - POOLS) // 2], human_size(amount))
        else:
            code = code or ("no_vcpus", "no_memory", "", "no_disk")[min(at, POOLS)]
            text = "has {0} left{1}, {2} asked".format(
                amount_text(at, free[at]), " in " + layout.names[at] if at >= POOLS else "", amount_text(at, amount))
        short.append(text)
    return Refusal(code, "{0} {1}".format(name, "; ".join(short)), lack) if short else None


def request_refusal(request: Request, groups: Mapping[str, Group]) -> Optional[Refusal]:
    """Why the request cannot be met on any host at all."""
    image = request.image or "the image"
    if request.memory_mib < request.image_memory_mib:
        return Refusal("image_minimum", "{0} asks for {1} of memory, {2} needs {3}".format(
            request.name, memory_text(request.memory_mib), image, memory_text(request.image_memory_mib)))
    if request.vcpus_milli < request.image_vcpus_milli:
        return Refusal("image_minimum", "{0} asks for {1} vcpus, {2} needs {3}".format(
            request.name, vcpus_text(request.vcpus_milli), image, vcpus_text(request.image_vcpus_milli)))
    if request.image_disk_bytes and request.disks and request.disks[0].bytes < request.image_disk_bytes:
        return Refusal("image_minimum", "{0} asks for a disk of {1}, {2} needs {3}".format(
            request.name, human_size(request.disks[0].bytes), image, human_size(request.image_disk_bytes)))
    if request.group and groups:
        group = groups.get(request.group)
        if group is None:
            return Refusal("unknown_group", "{0} asks for group {1}, which is none of {2}".format(
                request.name, request.group, _listed(groups)))
        if group.locked:
            return Refusal("group_locked", "group {0} of {1} is locked".format(group.name, request.name))
        if not group.enabled:
            return Refusal("group_disabled", "group {0} of {1} is disabled".format(group.name, request.name))
    for kind, hard in (("affinity", request.affinity), ("soft affinity", request.soft_affinity)):
        for selector in hard:
            if selector in request.anti_affinity:
                return Refusal("contradictory_affinity", "{0} has both {1} and anti-affinity to {2}".format(request.name, kind, selector))
    return None


def unknown_place(request: Request, hosts: Sequence[HostCapacity]) -> Optional[Refusal]:
    """A host, zone or region that does not exist in this fleet, which is a typing error rather than a lack of room."""
    for option, code, wanted, known in (("host", "unknown_host", request.host, {host.name for host in hosts}),
                                        ("region", "unknown_region", request.region, {host.region for host in hosts}),
                                        ("zone", "unknown_zone", request.zone, {host.zone for host in hosts})):
        if wanted and wanted not in known:
            return Refusal(code, "{0} asks for {1} {2}, which is none of {3}".format(
                request.name, option, wanted, _listed(name for name in known if name)))
    return None


def quota_refusal(group: Group, requests: Sequence[Request], replaced: Sequence[Vm], hosts: Sequence[HostCapacity]) -> Optional[Refusal]:
    """Whether what a group has on the whole fleet, plus what it asks for, is beyond its quota."""
    limits = (("VMs", group.max_vms), ("vcpus", group.max_vcpus_milli), ("memory", group.max_memory_mib), ("disk", group.max_disk_bytes))
    if all(limit is None for _what, limit in limits):
        return None
    used, asked = group_use(group.name, hosts), [0, 0, 0, 0]
    for vm in replaced:
        if vm.group == group.name:
            _count(asked, -vm.vcpus_milli, -vm.memory_mib, -sum(disk.bytes for disk in vm.disks), -1)
    for request in requests:
        _count(asked, request.vcpus_milli, request.memory_mib, request.disk_bytes)
    for i, (what, limit) in enumerate(limits):
        # a group that is over its quota already may still change what takes nothing more
        if limit is not None and asked[i] > 0 and used[i] + asked[i] > limit:
            show = (str, vcpus_text, memory_text, human_size)[i]
            return Refusal("quota_" + what.lower(), "quota of group {0} exceeded: {1} {2} allowed, {3} used, {4} more asked".format(
                group.name, show(limit), what, show(used[i]), show(asked[i])))
    return None


def group_use(name: str, hosts: Sequence[HostCapacity]) -> List[int]:
    """What a group has on the whole fleet: VMs, thousandths of vcpus, MiB of memory, bytes of disk."""
    used = [0, 0, 0, 0]
    for host in hosts:
        for vm in host.vms:
            if vm.group == name:
                _count(used, vm.vcpus_milli, vm.memory_mib, sum(disk.bytes for disk in vm.disks))
    return used


def _count(total: List[int], vcpus_milli: int, memory_mib: int, disk: int, vms: int = 1) -> None:
    for i, amount in enumerate((vms, vcpus_milli, memory_mib, disk)):
        total[i] += amount
