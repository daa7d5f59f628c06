# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection -> what a host offers and what of it is taken. Nothing is stored: it is summed from what is defined."""
from __future__ import annotations

import datetime
import math
import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import _domain_xml, _metadata
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import is_gone
from ansible_collections.kvmfleet.core.plugins.module_utils._overhead import qemu_overhead_mib
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import MIB, SpecError, parse_int, parse_mib, parse_size
from ansible_collections.kvmfleet.core.plugins.module_utils._volumes import Pool, active_pools, disk_paths

try:
    import libvirt
except ImportError:  # reported by _connection.require_libvirt
    pass

DEFAULT_RATIOS = {"vcpus": 4.0, "memory": 1.0, "disk": 1.0}

# Options of host_capacity and vm_set.
CAPACITY_OPTIONS: Dict[str, Any] = {
    "ratios": {"type": "dict", "options": {k: {"type": "float"} for k in ("vcpus", "memory", "disk")}},
    "reserved": {"type": "dict", "options": {"vcpus": {"type": "int"}, "memory": {"type": "str"}, "disk": {"type": "str"}}},
    "totals": {"type": "dict", "options": {"vcpus": {"type": "int"}, "memory": {"type": "str"}, "disk": {"type": "str"}}},
    "stopped_factor": {"type": "float", "default": 1.0},
    "pools": {"type": "dict"},
}


@dataclass
class Policy:
    """How a host's capacity is reckoned: ratios, what is kept back, totals that overrule what the host reports. Memory in MiB, disk in bytes.

    C(max_capacity) is what of a pool may be given out where that is less than there is.
    """

    ratios: Dict[str, float] = field(default_factory=lambda: dict(DEFAULT_RATIOS))
    reserved: Dict[str, int] = field(default_factory=lambda: {"vcpus": 0, "memory": 0, "disk": 0})
    totals: Dict[str, int] = field(default_factory=dict)
    stopped_factor: float = 1.0
    max_capacity: Dict[str, int] = field(default_factory=dict)


def policy_from_params(params: Mapping[str, Any]) -> Policy:
    """A Policy out of module parameters (CAPACITY_OPTIONS). Raises SpecError."""
    policy = Policy()
    for key, value in (params.get("ratios") or {}).items():
        if value is not None:
            if not value > 0 or math.isinf(value):
                raise SpecError("ratios.{0}".format(key), value, "is not positive" if value <= 0 else "is not a number",
                                "1.0 gives out what there is, 4.0 four times as much")
            policy.ratios[key] = float(value)
    for name, target in (("reserved", policy.reserved), ("totals", policy.totals)):
        for key, value in (params.get(name) or {}).items():
            if value is None:
                continue
            option = "{0}.{1}".format(name, key)
            if key == "vcpus":
                target[key] = parse_int(option, value, 0)
            elif str(value) == "0":
                target[key] = 0
            else:
                target[key] = parse_mib(option, value) if key == "memory" else parse_size(option, value)
    policy.stopped_factor = float(params.get("stopped_factor", 1.0))
    if not 0 <= policy.stopped_factor <= 1:
        raise SpecError("stopped_factor", policy.stopped_factor, "is not between 0 and 1", "1 counts a stopped VM in full, 0 not at all")
    for name, rules in (params.get("pools") or {}).items():
        if not isinstance(rules, Mapping):
            raise SpecError("pools.{0}".format(name), None, "is not a mapping", "Write it as {max_capacity: 500GiB}")
        if rules.get("max_capacity") is not None:
            policy.max_capacity[name] = parse_size("pools.{0}.max_capacity".format(name), rules["max_capacity"])
    return policy


@dataclass
class DomainRecord:
    """What one defined domain occupies."""

    name: str
    uuid: str
    active: bool
    vcpus_milli: int
    memory_mib: int
    metadata: Optional[_metadata.VmMetadata]
    macs: List[str]
    paths: List[str]
    root: ET.Element
    handle: Any = None
    persistent: bool = True
    observed: Optional[_domain_xml.ObservedVm] = None

    def as_dict(self, now: Optional[datetime.datetime] = None) -> Dict[str, Any]:
        """What placement and the check for uniqueness read of a domain: what is counted for it, whose it is, and what it holds."""
        meta, seen = self.metadata, self.observed
        volumes = [{"name": v.disk, "pool": v.pool, "bytes": v.booked} for v in meta.volumes] if meta else []
        result: Dict[str, Any] = {
            "name": self.name, "uuid": self.uuid, "managed": meta is not None, "phase": meta.phase if meta else None, "stopped": not self.active,
            "vcpus_milli": self.vcpus_milli, "memory_mib": self.memory_mib, "disks": volumes, "macs": list(self.macs),
            "addresses": list(meta.addresses) if meta else [], "labels": dict(meta.labels) if meta else {},
            "anti_affinity": list(meta.anti_affinity) if meta else [],
            "networks": sorted({n.source for n in seen.nics.values() if n.source}) if seen else [], "arch": seen.arch if seen else None,
            "vcpus": seen.vcpus if seen else None, "limit_mib": seen.memory_mib if seen else None}
        for key in ("group", "namespace", "set", "index", "image", "flavor", "ticket"):
            result[key] = getattr(meta, key) if meta else None
        if meta is not None and meta.phase == "pending":
            age = _metadata.age_seconds(meta.claimed or "", now)
            result["claim_age_s"] = round(age, 1) if age != float("inf") else None
        return result


@dataclass
class Resource:
    """One resource of a host: all in the same unit (vcpus in thousandths, memory in MiB, disk in bytes)."""

    total: int
    reserved: int
    ratio: float
    allocated: int = 0
    used: int = 0

    @property
    def available(self) -> int:
        """(total - reserved) x ratio - allocated; below 0 where more is given out than there is."""
        # As written, not as a binary fraction: 100 x 1.15 is 115, and 114 in floats.
        return int((self.total - self.reserved) * Fraction(str(self.ratio))) - self.allocated

    def as_dict(self, unit: str, divide: int = 1) -> Dict[str, Any]:
        """Plain data with the unit in each key."""
        shown: Dict[str, Any] = {"ratio": self.ratio}
        for key in ("total", "reserved", "allocated", "used", "available"):
            value = getattr(self, key)
            exact = value // divide if value % divide == 0 else round(value / divide, 3)
            shown["{0}_{1}".format(key, unit) if unit else key] = exact
        return shown


def requests_of(observed: _domain_xml.ObservedVm) -> Tuple[int, int]:
    """Thousandths of vcpus and MiB that are counted for a domain: its request, else what it may use, and what QEMU itself takes (_overhead).

    A domain that is not ours can balloon up to its maximum without our knowing, so there the maximum counts.
    """
    meta = observed.metadata
    vcpus, memory = (observed.max_vcpus, observed.max_memory_mib) if meta is None else (observed.vcpus, observed.memory_mib)
    counted = memory if meta is None or meta.memory_request_mib is None else meta.memory_request_mib
    counted += qemu_overhead_mib(memory, vcpus, len(observed.disks), len(observed.nics), observed.graphics.get("type", "none") != "none")
    return vcpus * 1000 if meta is None or meta.vcpus_request_milli is None else meta.vcpus_request_milli, counted


def record(domain: libvirt.virDomain, active: Optional[bool] = None, persistent: Optional[bool] = None) -> Optional[DomainRecord]:
    """What a domain occupies, or None where it vanished meanwhile.

    :param active: whether it runs, where that is known already; likewise C(persistent)
    """
    try:
        active = bool(domain.isActive()) if active is None else active
        persistent = bool(domain.isPersistent()) if persistent is None else persistent
        flags = libvirt.VIR_DOMAIN_XML_SECURE | (libvirt.VIR_DOMAIN_XML_INACTIVE if persistent else 0)
        root = ET.fromstring(domain.XMLDesc(flags))
    except libvirt.libvirtError as exc:
        if is_gone(exc):
            return None
        raise
    observed = _domain_xml.observe(root)
    vcpus, memory = requests_of(observed)
    return DomainRecord(observed.name, observed.uuid, active, vcpus, memory, observed.metadata, [n.mac for n in observed.nics.values()],
                        sorted(disk_paths(root)), root, domain, persistent, observed)


def records(conn: libvirt.virConnect) -> List[DomainRecord]:
    """All domains of a host, ours or not, running or not."""
    active = {d.UUIDString() for d in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)}
    transient = {d.UUIDString() for d in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_TRANSIENT)}
    found = [record(d, d.UUIDString() in active, d.UUIDString() not in transient) for d in conn.listAllDomains()]
    return [r for r in found if r is not None]


def host_totals(conn: libvirt.virConnect, policy: Policy) -> Tuple[int, int]:
    """vcpus and MiB of memory of a host, or what the policy says instead."""
    info = conn.getInfo()
    return policy.totals.get("vcpus", info[2]), policy.totals.get("memory", info[1])


def compute(conn: libvirt.virConnect, domains: Iterable[DomainRecord], policy: Policy) -> Dict[str, Resource]:
    """vcpus (thousandths) and memory (MiB) of a host with what the domains take of them."""
    vcpus, memory = host_totals(conn, policy)
    result = {"vcpus": Resource(vcpus * 1000, policy.reserved["vcpus"] * 1000, policy.ratios["vcpus"]),
              "memory": Resource(memory, policy.reserved["memory"], policy.ratios["memory"])}
    for domain in domains:
        factor = 1.0 if domain.active or _claimed(domain) else policy.stopped_factor
        result["vcpus"].allocated += int(domain.vcpus_milli * factor)
        result["memory"].allocated += int(domain.memory_mib * factor)
        if domain.active:
            result["vcpus"].used += domain.vcpus_milli
            result["memory"].used += domain.memory_mib
    return result


def _claimed(domain: DomainRecord) -> bool:
    """A claim will run soon: it counts in full whatever stopped VMs count."""
    return domain.metadata is not None and domain.metadata.phase in ("pending", "building")


@dataclass
class PoolUse:
    """The disk of one pool. Sizes in bytes; C(free) is what the file system really has left, C(others) the volumes that are no VM's of ours."""

    resource: Resource
    free: int
    capacity: int
    others: List[str] = field(default_factory=list)


def pool_use(pool: Pool, domains: Iterable[DomainRecord], policy: Policy) -> PoolUse:
    """What of a pool is given out: volumes of VMs with their virtual size (or reserve), others with what they really take, claims with what they will."""
    _state, capacity, _allocation, free = pool.handle.info()
    domains = list(domains)
    booked: Dict[str, int] = {}
    for domain in domains:
        for volume in domain.metadata.volumes if domain.metadata else []:
            if volume.pool == pool.name:
                booked[volume.name] = volume.booked
    attached = {path for domain in domains for path in domain.paths}
    total = 0
    others = []
    for handle in pool.volumes():
        name = handle.name()
        if name in booked:
            continue
        try:
            _kind, size, allocation = handle.info()
        except libvirt.libvirtError as exc:
            if is_gone(exc):
                continue
            raise
        total += size if pool.path_of(name) in attached else allocation
        others.append(name)
    size = policy.totals.get("disk", capacity)
    size = min(size, policy.max_capacity.get(pool.name, size))
    resource = Resource(size, policy.reserved["disk"], policy.ratios["disk"], total + sum(booked.values()), capacity - free)
    return PoolUse(resource, free, capacity, sorted(others))


def host_facts(conn: libvirt.virConnect) -> Dict[str, Any]:
    """What kind of host this is: CPU, architectures, virtualisation and machine types, firmware, networks, bridges, versions, hugepages, NUMA cells."""
    capabilities = ET.fromstring(conn.getCapabilities())
    guests: Dict[str, Any] = {}
    for guest in capabilities.findall("guest"):
        arch = guest.find("arch")
        if arch is None:
            continue
        machines = sorted({m.get("canonical") or m.text or "" for m in arch.findall("machine")} | {m.text or "" for m in arch.findall("machine")})
        guests[arch.get("name", "")] = {"virt_types": sorted(d.get("type", "") for d in arch.findall("domain")), "machines": machines}
    cells = []
    for cell in capabilities.findall("host/topology/cells/cell"):
        cells.append({"id": int(cell.get("id", "0")), "memory_mib": int(cell.findtext("memory") or 0) // 1024, "cpus": len(cell.findall("cpus/cpu"))})
    hugepages = [{"size_kib": int(p.get("size", "0")), "pages": int(p.text or 0)}
                 for cell in capabilities.findall("host/topology/cells/cell") for p in cell.findall("pages") if int(p.get("size", "0")) > 4]
    native = capabilities.findtext("host/cpu/arch") or ""
    running = {n.name() for n in conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)}
    networks = [dict(network_facts(n), name=n.name(), active=n.name() in running) for n in conn.listAllNetworks()]
    try:
        hypervisor = _version(conn.getVersion())
    except libvirt.libvirtError:
        hypervisor = None  # the test driver and connections without a hypervisor binary have none
    return {
        "hostname": conn.getHostname(), "arch": native, "cpu_model": capabilities.findtext("host/cpu/model"),
        "cpu_vendor": capabilities.findtext("host/cpu/vendor"),
        "guests": guests, "archs": sorted(guests), "virt_types": guests.get(native, {}).get("virt_types", []),
        "machines": guests.get(native, {}).get("machines", []),
        "firmware": _firmware(conn, native), "networks": sorted(networks, key=lambda n: n["name"]), "bridges": _bridges(),
        "libvirt_version": _version(conn.getLibVersion()), "qemu_version": hypervisor, "hugepages": hugepages, "numa_cells": cells,
    }


def _version(number: int) -> str:
    return "{0}.{1}.{2}".format(number // 1000000, number // 1000 % 1000, number % 1000)


def network_facts(network: libvirt.virNetwork) -> Dict[str, Any]:
    """Bridge, mode of forwarding (C(isolated) where it has none) and subnets of a libvirt network; nothing where it has vanished meanwhile."""
    try:
        root = ET.fromstring(network.XMLDesc())
    except libvirt.libvirtError as exc:
        if is_gone(exc):
            return {"bridge": None, "forward": None, "subnets": []}
        raise
    bridge, forward = root.find("bridge"), root.find("forward")
    subnets = ["{0}/{1}".format(ip.get("address"), ip.get("prefix") or ip.get("netmask") or (64 if ip.get("family") == "ipv6" else 24))
               for ip in root.findall("ip") if ip.get("address")]
    return {"bridge": None if bridge is None else bridge.get("name"), "subnets": subnets,
            "forward": "isolated" if forward is None else forward.get("mode") or "nat"}


def _bridges() -> List[str]:
    """Bridges of the host itself; none where there is no Linux below (the test driver on another system)."""
    try:
        return sorted(name for name in os.listdir("/sys/class/net") if os.path.isdir(os.path.join("/sys/class/net", name, "bridge")))
    except FileNotFoundError:
        return []


def _firmware(conn: libvirt.virConnect, arch: str) -> List[str]:
    """Kinds of firmware that guests of the host's own architecture can have."""
    try:
        root = ET.fromstring(conn.getDomainCapabilities(None, arch or None, None, None))
    except libvirt.libvirtError:
        return []  # a driver without domain capabilities, such as test:///
    kinds = [v.text or "" for e in root.findall("os/enum") if e.get("name") == "firmware" for v in e.findall("value")]
    if any(v.text == "rom" for e in root.findall("os/loader/enum") if e.get("name") == "type" for v in e.findall("value")) and "bios" not in kinds:
        kinds.append("bios")
    return sorted(kinds)


def host_capacity(conn: libvirt.virConnect, policy: Policy, facts: bool = True, vms: bool = False,
                  domains: Optional[List[DomainRecord]] = None, volumes: bool = False) -> Dict[str, Any]:
    """The result of the module host_capacity: resources, pools, counts, (C(facts)) what kind of host it is, and (C(vms)) what is counted for which VM.

    :param domains: all records() of this connection, where they have been read already
    :param volumes: whether to name each pool's volumes that are no VM's of ours, which images are
    """
    domains = records(conn) if domains is None else domains
    resources = compute(conn, domains, policy)
    pools: Dict[str, Dict[str, Any]] = {}
    for handle in conn.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE):
        pools[handle.name()] = {"active": False}
    for pool in active_pools(conn):
        try:
            use, autostart = pool_use(pool, domains, policy), bool(pool.handle.autostart())
        except libvirt.libvirtError:
            if pool.stopped():
                continue  # by somebody else, since it was listed
            raise
        pools[pool.name] = {"active": True, "type": pool.type, "path": pool.target, "free_bytes": use.free, "autostart": autostart,
                            **use.resource.as_dict("bytes")}
        if volumes:
            pools[pool.name]["volumes"] = use.others
    result: Dict[str, Any] = {
        "vcpus": resources["vcpus"].as_dict("", 1000), "memory": resources["memory"].as_dict("mib"), "pools": pools,
        "domains": {"defined": len(domains), "running": sum(d.active for d in domains), "ours": sum(d.metadata is not None for d in domains),
                    "pending": sum(1 for d in domains if d.metadata and d.metadata.phase == "pending")},
        "memory_used_mib": resources["memory"].used, "memory_free_mib": conn.getFreeMemory() // MIB,
    }
    if facts:
        result.update(host_facts(conn))
    if vms:
        result["vms"] = [domain.as_dict() for domain in sorted(domains, key=lambda d: d.name)]
    return result
