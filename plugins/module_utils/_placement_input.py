# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From plain data (results of host_capacity, host variables, catalogs) to what placement reads."""
from __future__ import annotations

from fractions import Fraction
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._overhead import qemu_overhead_mib
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import Access, Amount, Disk, Flavor, Group, HostCapacity, Pool, Selector, Vm
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, parse_int, parse_mib, parse_milli, parse_size

_QUOTAS = {"vms": "max_vms", "vcpus": "max_vcpus_milli", "memory": "max_memory_mib", "disk": "max_disk_bytes"}


def _names(option: str, value: Any) -> Tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise SpecError(option, value, "is not a list", "Write a list of group names, such as [red, blue]")
    return tuple(str(name) for name in value)


def _flag(option: str, value: Any, default: bool) -> bool:
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "yes", "false", "no"):
        return str(value).lower() in ("true", "yes")
    raise SpecError(option, value, "is neither true nor false", "Write true or false")


def _mapping(option: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SpecError(option, value, "is not a mapping", "Write key: value pairs")
    return value


def access_of(option: str, entry: Any) -> Access:
    """Who may use the thing that a catalog entry describes (C(admin_only), C(groups))."""
    settings = _mapping(option, entry)
    return Access(_flag(option + ".admin_only", settings.get("admin_only"), False), _names(option + ".groups", settings.get("groups")))


def _booked(total: int, reserved: int, ratio: Any, available: int) -> int:
    """What is allocated, taken from what the host says is available: admission on the host goes by that, whatever it rounds."""
    return Amount(total, reserved, ratio).capacity - available


def _amount(facts: Mapping[str, Any], unit: str, scale: int) -> Amount:
    whole = {key: int(Fraction(str(facts[key + unit])) * scale) for key in ("total", "reserved", "available")}
    ratio = facts.get("ratio", 1)
    return Amount(whole["total"], whole["reserved"], ratio, _booked(whole["total"], whole["reserved"], ratio, whole["available"]))


def _pools(name: str, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> Dict[str, Pool]:
    rules = _mapping(name + ": kvm_pools", settings.get("kvm_pools"))
    pools = {}
    for pool, fact in (facts.get("pools") or {}).items():
        if not fact.get("active"):
            continue
        option = "{0}: kvm_pools.{1}".format(name, pool)
        rule = _mapping(option, rules.get(pool))
        access = access_of(option, rule)
        amount = _amount(fact, "_bytes", 1)
        pools[pool] = Pool(amount.total, amount.reserved, amount.ratio, amount.allocated, fact.get("free_bytes"),
                           parse_size(option + ".floor", rule["floor"], 0) if rule.get("floor") is not None else 0,
                           access.admin_only, access.groups)
    return pools


def selector_of(text: str) -> Selector:
    """Other VMs, by the full name of one, or by a label as C(key=value)."""
    key, equals, value = text.partition("=")
    return Selector(labels=((key, value),)) if equals else Selector(vm=text)


def vm_of(fact: Mapping[str, Any]) -> Vm:
    """A VM that exists: C(name), C(vcpus_milli), C(memory_mib), C(disks) with C(pool) and C(bytes), C(group), C(namespace), C(labels), C(set)..."""
    disks = tuple(Disk(int(disk["bytes"]), str(disk.get("storage_class") or ""), str(disk.get("pool") or "")) for disk in fact.get("disks") or ())
    return Vm(str(fact["name"]), int(fact.get("vcpus_milli") or 0), int(fact.get("memory_mib") or 0), disks, str(fact.get("group") or ""),
              str(fact.get("namespace") or ""), dict(fact.get("labels") or {}), str(fact.get("set") or ""), bool(fact.get("stopped")),
              str(fact.get("arch") or ""), tuple(str(network) for network in fact.get("networks") or ()),
              tuple(selector_of(str(text)) for text in fact.get("anti_affinity") or ()))


def host_of(name: str, facts: Optional[Mapping[str, Any]], settings: Mapping[str, Any], vms: Sequence[Mapping[str, Any]] = (),
            networks: Optional[Mapping[str, Any]] = None, storage_classes: Optional[Mapping[str, Any]] = None) -> HostCapacity:
    """A host out of the result of host_capacity (None where it did not answer) and its C(kvm_*) variables.

    :param vms: what is on it, see vm_of()
    :param networks: the catalog kvmfleet_networks; says who may use which
    :param storage_classes: the catalog kvmfleet_storage_classes; says who may use which, and the pool on hosts that do not say otherwise
    Stopped VMs are counted by the host itself already (kvm_stopped_factor), so place() is to be called without a factor.
    """
    own = access_of(name, {"admin_only": settings.get("kvm_admin_only"), "groups": settings.get("kvm_groups")})
    max_vms = settings.get("kvm_max_vms")
    host: Dict[str, Any] = {
        "region": str(settings.get("kvm_region") or ""), "zone": str(settings.get("kvm_zone") or ""),
        "labels": {str(key): str(value) for key, value in _mapping(name + ": kvm_labels", settings.get("kvm_labels")).items()},
        "schedulable": _flag(name + ": kvm_schedulable", settings.get("kvm_schedulable"), True), "admin_only": own.admin_only, "groups": own.groups,
        "max_vms": None if max_vms is None else parse_int(name + ": kvm_max_vms", max_vms, 0)}
    if facts is None:
        return HostCapacity(name, reachable=False, **host)
    pools = _pools(name, facts, settings)
    there = {str(network["name"]) for network in facts.get("networks") or () if network.get("active", True)}
    there |= set(_mapping(name + ": kvm_networks", settings.get("kvm_networks")))
    classes = {key: str(entry["pool"]) for key, entry in (storage_classes or {}).items() if entry and entry.get("pool")}
    classes.update({str(key): str(pool) for key, pool in _mapping(name + ": kvm_storage_classes", settings.get("kvm_storage_classes")).items()})
    classes.setdefault("default", str(settings.get("kvm_pool") or "default"))
    virt_types: List[str] = [str(kind) for kind in facts.get("virt_types") or ()]
    return HostCapacity(
        name, _amount(facts["vcpus"], "", 1000), _amount(facts["memory"], "_mib", 1), pools, vms=tuple(vm_of(vm) for vm in vms),
        archs=tuple(facts.get("archs") or ()), virt_types=tuple(virt_types), machines=tuple(facts.get("machines") or ()),
        firmwares=tuple(facts.get("firmware") or ()),
        networks={network: access_of("kvmfleet_networks." + network, (networks or {}).get(network)) for network in sorted(there)},
        storage_classes={key: pool for key, pool in classes.items() if pool in pools},
        class_access={key: access_of("kvmfleet_storage_classes." + key, entry) for key, entry in (storage_classes or {}).items()}, **host)


def group_of(name: str, entry: Any) -> Group:
    """A tenant out of the catalog kvmfleet_groups."""
    option = "kvmfleet_groups." + name
    settings = _mapping(option, entry)
    quota = _mapping(option + ".quota", settings.get("quota"))
    limits: Dict[str, int] = {}
    for key, value in quota.items():
        if key not in _QUOTAS:
            raise SpecError("{0}.quota.{1}".format(option, key), value, "is not a resource with a quota", "Use vms, vcpus, memory or disk")
        if value is None:
            continue
        parse = {"vms": lambda o, v: parse_int(o, v, 0), "vcpus": _quota_vcpus, "memory": lambda o, v: parse_mib(o, v, 0),
                 "disk": lambda o, v: parse_size(o, v, 0)}[key]
        limits[_QUOTAS[key]] = parse("{0}.quota.{1}".format(option, key), value)
    return Group(name, _flag(option + ".locked", settings.get("locked"), False), _flag(option + ".enabled", settings.get("enabled"), True),
                 str(settings.get("network") or ""), **limits)


def _quota_vcpus(option: str, value: Any) -> int:
    return 0 if str(value).strip() == "0" else parse_milli(option, value)


def flavor_of(name: str, entry: Any) -> Flavor:
    """A size out of the catalog kvmfleet_flavors, as it is counted for a VM with one NIC and a seed: requests where given, else limits, and QEMU's share."""
    option = "kvmfleet_flavors." + name
    settings = _mapping(option, entry)
    sizes: Dict[str, Any] = {}
    for key, keys, parse in (("vcpus_milli", ("vcpus_request", "vcpus"), parse_milli), ("memory_mib", ("memory_request", "memory"), parse_mib)):
        given = next((one for one in keys if settings.get(one) is not None), keys[-1])
        if settings.get(given) is None:
            raise SpecError("{0}.{1}".format(option, given), None, "is missing", "A flavor has vcpus and memory")
        sizes[key] = parse("{0}.{1}".format(option, given), settings[given])
    vcpus = -(-sizes["vcpus_milli"] // 1000) if settings.get("vcpus") is None else parse_int(option + ".vcpus", settings["vcpus"], 1)
    memory = sizes["memory_mib"] if settings.get("memory") is None else parse_mib(option + ".memory", settings["memory"])
    disks = [parse_size("{0}.{1}".format(option, key), settings[key]) for key in ("disk", "data_disk") if settings.get(key) is not None]
    sizes["memory_mib"] += qemu_overhead_mib(memory, vcpus, disks=2 if settings.get("data_disk") is None else 3)
    return Flavor(name, disk_bytes=sum(disks), **sizes)
