# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogs C(kvmfleet_*) and the host variables C(kvm_*), checked where they are used. Pure but for one file of ours."""
from __future__ import annotations

import functools
import ipaddress
import math
import os
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional

import yaml

from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import Policy, policy_from_params
from ansible_collections.kvmfleet.core.plugins.module_utils._host_pools import POOL_TYPES
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, one_of, parse_int, parse_milli, parse_size
from ansible_collections.kvmfleet.core.plugins.plugin_utils._variables import PlainLoader, nearest, to_bool, to_dict, to_list, to_text

Reader = Callable[[str, Any], Any]


def _size(option: str, value: Any) -> str:
    parse_size(option, value)
    return str(value)


def _floor(option: str, value: Any) -> str:
    parse_size(option, value, 0)
    return str(value)


def _count(option: str, value: Any) -> int:
    return parse_int(option, value, 0)


def _positive(option: str, value: Any) -> int:
    return parse_int(option, value, 1)


def _milli(option: str, value: Any) -> str:
    parse_milli(option, value)
    return str(value)


def _number(option: str, value: Any) -> float:
    try:
        number = float(str(value))
    except ValueError:
        raise SpecError(option, value, "is not a number", "Write a number such as 1.5") from None
    if number < 0 or not math.isfinite(number):
        raise SpecError(option, value, "is not a possible number", "Write a number of at least 0")
    return number


def _texts(option: str, value: Any) -> List[str]:
    return [to_text(option, v) for v in to_list(option, value)]


def _choice(*choices: str) -> Reader:
    return lambda option, value: one_of(option, str(value), choices)


def _any(option: str, value: Any) -> Any:
    return value


def _mapping(schema: Mapping[str, Reader]) -> Reader:
    return lambda option, value: read_entry(option, value, schema)


def _pools(option: str, value: Any) -> Dict[str, Any]:
    return {name: read_entry("{0}.{1}".format(option, name), rules, _POOL_RULES) for name, rules in to_dict(option, value).items()}


_QUOTA: Dict[str, Reader] = {"vms": _count, "vcpus": _milli, "memory": _size, "disk": _size}
_PER_RESOURCE: Dict[str, Reader] = {"vcpus": _any, "memory": _any, "disk": _any}

OS_TYPES = ("linux", "bsd", "windows", "other")

# Every key that an entry of a catalog may have. docs/catalogs.md says what each is for.
SCHEMAS: Dict[str, Dict[str, Reader]] = {
    "kvmfleet_images": {
        "source": _choice("build", "url", "path"), "url": to_text, "path": to_text, "suite": to_text, "packages": _texts, "checksum": to_text,
        "format": _choice("qcow2", "raw"), "min_disk": _size, "min_memory": _size, "min_vcpus": _positive, "os_type": _choice(*OS_TYPES), "os_variant": to_text,
        "default_user": to_text, "firmware": _choice("bios", "efi"), "arch": _choice("x86_64", "i686", "aarch64"), "eol": to_bool, "description": to_text,
        "cloud_init": to_bool, "volume": to_text, "pool": to_text, "admin_only": to_bool, "groups": _texts,
    },
    "kvmfleet_flavors": {
        "vcpus": _positive, "memory": _size, "disk": _size, "data_disk": _size, "max_vcpus": _positive, "max_memory": _size, "vcpus_request": _milli,
        "memory_request": _size, "description": to_text,
    },
    "kvmfleet_networks": {
        "cidr": _texts, "gateway": to_text, "nameservers": _texts, "search": _texts, "vlan": _positive, "mtu": _positive, "pool": to_text,
        "admin_only": to_bool, "groups": _texts, "description": to_text, "reachable": to_bool,
    },
    "kvmfleet_storage_classes": {"description": to_text, "pool": to_text, "admin_only": to_bool, "groups": _texts},
    "kvmfleet_groups": {
        "enabled": to_bool, "locked": to_bool, "quota": _mapping(_QUOTA), "vlan": _positive, "network": to_text, "description": to_text,
    },
    "kvmfleet_ip_pools": {"network": to_text, "ranges": _texts, "excluded": _texts, "groups": _texts, "description": to_text},
}
_WORDS = {"kvmfleet_images": "image", "kvmfleet_flavors": "flavor", "kvmfleet_networks": "network", "kvmfleet_storage_classes": "storage class",
          "kvmfleet_groups": "group", "kvmfleet_ip_pools": "address pool"}


def read_entry(where: str, data: Any, schema: Mapping[str, Reader]) -> Dict[str, Any]:
    """One entry with its values converted; keys that are not there stay away. Raises SpecError for unknown keys and wrong values."""
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise SpecError(where, None, "is not a mapping", "Write its keys and values: {0}".format(", ".join(sorted(schema))))
    for key in data:
        if key not in schema:
            raise SpecError("{0}.{1}".format(where, key), None, "is not a key of such an entry", nearest(key, schema), "invalid_catalog")
    return {str(k): schema[k]("{0}.{1}".format(where, k), v) for k, v in data.items() if v is not None}


_SHIPPED_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "roles", "base_image", "defaults", "main", "catalog.yml")
# Whether the images that come with the collection are on offer beside those of kvmfleet_images.
SHIPPED = "kvmfleet_shipped_images"


@functools.lru_cache(maxsize=None)
def shipped_images() -> Dict[str, Dict[str, Any]]:
    """The images that come with the collection: those that the role base_image knows."""
    with open(_SHIPPED_FILE, encoding="utf-8") as stream:
        return dict(yaml.load(stream, Loader=PlainLoader)["base_image_catalog"])


def with_shipped(raw: Mapping[str, Any], wanted: Any) -> Dict[str, Any]:
    """The catalogs with those images added, unless C(wanted), the value of L(SHIPPED), is false. Entries of the site win."""
    if wanted not in (None, "") and not to_bool(SHIPPED, wanted):
        return dict(raw)
    own = raw.get("kvmfleet_images")
    return dict(raw, kvmfleet_images=dict(shipped_images(), **to_dict("kvmfleet_images", own) if own else {}))


class Catalogs:
    """The catalogs of one inventory; entries are checked when they are asked for, so that a fault in one does not stop users of another."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw: Dict[str, Dict[str, Any]] = {}
        for name in SCHEMAS:
            data = raw.get(name)
            self._raw[name] = to_dict(name, data) if data else {}

    def names(self, catalog: str) -> List[str]:
        """The names that a catalog has."""
        return list(self._raw[catalog])

    def entry(self, catalog: str, name: str) -> Dict[str, Any]:
        """An entry by name, checked. Raises SpecError where it has unknown keys or wrong values; an absent entry is empty."""
        return read_entry("{0}.{1}".format(catalog, name), self._raw[catalog].get(name), SCHEMAS[catalog])

    def find(self, catalog: str, option: str, name: str) -> Dict[str, Any]:
        """An entry that a variable names. Raises SpecError, naming the variable, where there is none of that name."""
        if name not in self._raw[catalog]:
            word = _WORDS[catalog]
            raise SpecError(option, name, "there is no such {0} in {1}".format(word, catalog), nearest(name, self._raw[catalog]),
                            "unknown_" + word.replace(" ", "_"))
        return self.entry(catalog, name)

    def users(self) -> Dict[str, str]:
        """The default user of each image that has one."""
        images = self._raw["kvmfleet_images"]
        return {name: str(data["default_user"]) for name, data in images.items() if isinstance(data, Mapping) and data.get("default_user")}

    def reachable_networks(self) -> Dict[str, bool]:
        """The networks that are said to be reachable from here, or not to be. Raises SpecError where that is neither true nor false."""
        networks = self._raw["kvmfleet_networks"]
        return {name: to_bool("kvmfleet_networks.{0}.reachable".format(name), data["reachable"])
                for name, data in networks.items() if isinstance(data, Mapping) and data.get("reachable") is not None}

    def check_all(self) -> None:
        """Check every entry of every catalog. Raises SpecError for the first fault."""
        for catalog, entries in self._raw.items():
            for name in entries:
                self.entry(catalog, name)


def check_allowed(entry: Mapping[str, Any], option: str, name: str, group: Optional[str]) -> None:
    """Raises SpecError where a group (or nobody's VM, C(None)) may not use what an entry with C(groups) or C(admin_only) describes."""
    if entry.get("groups") and group not in entry["groups"]:
        raise SpecError(option, name, "is reserved to the groups {0}".format(", ".join(entry["groups"])), "Use another one", "not_allowed")
    if entry.get("admin_only") and group:
        raise SpecError(option, name, "is for administrators only, not for group {0}".format(group), "Use another one", "not_allowed")


def cidrs_of(network: str, entry: Mapping[str, Any]) -> List[Any]:
    """The IP networks of an entry of kvmfleet_networks. Raises SpecError where one is none."""
    result = []
    for text in entry.get("cidr") or []:
        try:
            result.append(ipaddress.ip_network(text))
        except ValueError as exc:
            raise SpecError("kvmfleet_networks.{0}.cidr".format(network), text, str(exc), "Write it as 192.0.2.0/24", "invalid_catalog") from None
    return result


_POOL_RULES: Dict[str, Reader] = {
    "floor": _floor, "max_capacity": _size, "admin_only": to_bool, "groups": _texts,
    "type": _choice(*POOL_TYPES), "path": to_text, "volume_group": to_text, "server": to_text, "export": to_text,
}
_NIC_TARGET: Dict[str, Reader] = {"network": to_text, "bridge": to_text, "direct": to_text, "mode": to_text, "vlan": _positive, "mtu": _positive,
                                  "filter": to_text, "model": to_text, "queues": _positive}
HOST_SCHEMA: Dict[str, Reader] = {
    "kvm_uri": to_text, "kvm_virt_type": _choice("auto", "kvm", "qemu"), "kvm_pool": to_text, "kvm_image_pool": to_text, "kvm_networks": to_dict,
    "kvm_storage_classes": to_dict, "kvm_ratios": _mapping(dict.fromkeys(_PER_RESOURCE, _number)), "kvm_reserved": _mapping(_PER_RESOURCE),
    "kvm_totals": _mapping(_PER_RESOURCE), "kvm_stopped_factor": _number, "kvm_region": to_text, "kvm_zone": to_text, "kvm_labels": to_dict,
    "kvm_schedulable": to_bool, "kvm_groups": _texts, "kvm_admin_only": to_bool, "kvm_max_vms": _count, "kvm_pools": _pools,
}


@dataclass
class Host:
    """What the inventory says of one KVM host."""

    name: str
    uri: Optional[str] = None
    virt_type: Optional[str] = None
    pool: str = "default"
    image_pool: Optional[str] = None
    networks: Dict[str, Any] = field(default_factory=dict)
    storage_classes: Dict[str, Any] = field(default_factory=dict)
    ratios: Dict[str, Any] = field(default_factory=dict)
    reserved: Dict[str, Any] = field(default_factory=dict)
    totals: Dict[str, Any] = field(default_factory=dict)
    stopped_factor: Optional[float] = None
    region: Optional[str] = None
    zone: Optional[str] = None
    labels: Dict[str, Any] = field(default_factory=dict)
    schedulable: bool = True
    groups: List[str] = field(default_factory=list)
    admin_only: bool = False
    max_vms: Optional[int] = None
    pools: Dict[str, Dict[str, Any]] = field(default_factory=dict)

    def policy(self) -> Policy:
        """How its capacity is reckoned. Raises SpecError."""
        return policy_from_params({"ratios": self.ratios, "reserved": self.reserved, "totals": self.totals, "pools": self.pools,
                                   "stopped_factor": 1.0 if self.stopped_factor is None else self.stopped_factor})

    def network(self, name: str) -> Dict[str, Any]:
        """What a NIC on the network of that name is attached to on this host: by C(kvm_networks), else the libvirt network of the same name."""
        if name not in self.networks:
            return {"network": name}
        where = "kvm_networks.{0} of host {1}".format(name, self.name)
        data = self.networks[name]
        target = read_entry(where, {"network": data} if isinstance(data, str) else data, _NIC_TARGET)
        if len([k for k in ("network", "bridge", "direct") if target.get(k)]) != 1:
            raise SpecError(where, None, "names not exactly one of network, bridge, direct", "Name one, such as {bridge: br0}", "invalid_catalog")
        return target

    def pool_of(self, option: str, storage_class: Optional[str], catalogs: Catalogs) -> str:
        """The libvirt pool of a storage class on this host. Raises SpecError where the class is known neither here nor in the catalog."""
        if storage_class is None:
            return self.pool
        if storage_class in self.storage_classes:
            return to_text("kvm_storage_classes.{0} of host {1}".format(storage_class, self.name), self.storage_classes[storage_class])
        known = set(self.storage_classes) | set(catalogs.names("kvmfleet_storage_classes"))
        if storage_class not in known:
            raise SpecError(option, storage_class, "there is no such storage class", nearest(storage_class, known), "unknown_storage_class")
        pool = catalogs.entry("kvmfleet_storage_classes", storage_class).get("pool")
        if not pool:
            raise SpecError(option, storage_class, "host {0} has no pool of this storage class".format(self.name),
                            "Add {0} to its kvm_storage_classes, or use another class or host".format(storage_class), "no_storage_class")
        return str(pool)


def read_host(name: str, raw: Mapping[str, Any]) -> Host:
    """A host out of its variables. Raises SpecError, naming host and variable."""
    host = Host(name)
    for variable, reader in HOST_SCHEMA.items():
        value = raw.get(variable)
        if value is None or value == "":
            continue
        try:
            setattr(host, variable[len("kvm_"):], reader(variable, value))
        except SpecError as exc:
            raise SpecError("{0} of host {1}".format(exc.option, name), exc.value, exc.reason, exc.remedy, exc.code) from None
    return host
