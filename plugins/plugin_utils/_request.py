# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From variables and catalogs to VM requests that know no host yet, and from a request and its host to an item of vm_set's C(vms).

Everything that can be known without asking a host is refused here, before anything is touched.
"""
from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._images import image_volume_name
from ansible_collections.kvmfleet.core.plugins.module_utils._seed_spec import SEED_OPTIONS, seed_from_params
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import (
    GIB, WILDCARDS, SpecError, VmSpec, check_address, check_batch, check_domain_name, check_existing_name, check_gateway, check_interface, check_label,
    check_selector, format_size, parse_int, parse_mib, parse_size, vm_from_params)
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _keys
from ansible_collections.kvmfleet.core.plugins.plugin_utils._address_pools import read_pool
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, Host, check_allowed, cidrs_of
from ansible_collections.kvmfleet.core.plugins.plugin_utils._keys import Keys
from ansible_collections.kvmfleet.core.plugins.plugin_utils._table import who
from ansible_collections.kvmfleet.core.plugins.plugin_utils._variables import nearest, to_dict, to_list

DEFAULT_NETWORK = "default"
DEFAULT_NAMESPACE = "default"
DEFAULT_DISK = 10 * GIB
_SPREAD = ("host", "zone", "region")
_NIC_KEYS = ("network", "ip", "gateway", "nameservers", "search", "routes", "mac", "model", "mtu", "filter", "queues", "link")
_DISK_KEYS = ("name", "size", "storage_class", "pool", "volume", "format", "bus", "cache", "discard", "io", "serial", "reserve", "readonly",
              "delete_with_vm")
_WITHOUT_ABSENT = ("vm_vcpus", "vm_memory", "vm_disk", "vm_disks", "vm_flavor", "vm_image", "vm_network", "vm_networks", "vm_ip", "vm_max_vcpus",
                   "vm_max_memory", "vm_user_data")


@dataclass
class NicRequest:
    """A NIC as asked for: the network by the name that every host maps for itself."""

    network: str
    item: Dict[str, Any] = field(default_factory=dict)
    pool: Optional[str] = None  # of addresses: which one the NIC gets is known when the fleet has been looked at
    with_address: Dict[str, Any] = field(default_factory=dict)  # what goes with it then


@dataclass
class DiskRequest:
    """A disk as asked for: where it is put by storage class or pool, which every host maps for itself."""

    item: Dict[str, Any]
    storage_class: Optional[str] = None
    image: Optional[str] = None


@dataclass
class Request:
    """One VM as asked for, with nothing in it that depends on the host it will be on.

    C(item) has the keys of vm_set's C(vms) items less C(nics) and the hosts' part of C(disks).
    """

    name: str
    item: Dict[str, Any]
    nics: Optional[List[NicRequest]] = None
    disks: Optional[List[DiskRequest]] = None
    image: Optional[str] = None
    nics_by_default: bool = False  # nobody asked for them: they are for a new VM only


@dataclass
class Constraints:
    """Which hosts the VMs of one request may be on, and how to choose among them."""

    host: Optional[str] = None
    zone: Optional[str] = None
    region: Optional[str] = None
    strategy: str = "spread"
    spread_by: Optional[str] = None
    weights: Optional[Dict[str, float]] = None
    reserve_failures: int = 0
    host_labels: Dict[str, str] = field(default_factory=dict)
    max_per_host: int = 0
    affinity: List[str] = field(default_factory=list)
    anti_affinity: List[str] = field(default_factory=list)
    soft_affinity: List[str] = field(default_factory=list)
    soft_anti_affinity: List[str] = field(default_factory=list)


def _is_mapping(item: Any) -> bool:
    """Whether a list's item is meant as a mapping and not as a plain text."""
    return isinstance(item, Mapping) or (isinstance(item, str) and item.lstrip().startswith("{"))


def _fail(option: str, value: Any, reason: str, remedy: str, code: str = "invalid_value") -> SpecError:
    return SpecError(option, value, reason, remedy, code)


def full_name(values: Mapping[str, Any], label: str) -> str:
    """The domain name of a VM of the request's own group and namespace."""
    if not values.get("vm_group"):
        return label
    return "{0}.{1}.{2}".format(label, values.get("vm_namespace") or DEFAULT_NAMESPACE, values["vm_group"])


def full_selectors(values: Mapping[str, Any], texts: Sequence[str]) -> List[str]:
    """Names of VMs and labels, with the names as they are called in the whole fleet."""
    return [text if "=" in text or "." in text else full_name(values, text) for text in texts]


def domain_names(values: Mapping[str, Any], label: str, existing: bool = False) -> List[Tuple[str, str, Optional[int]]]:
    """Domain name, host name label and index of each VM of a request. Raises SpecError.

    :param existing: whether it may be a VM that others have made, and that has any name; members of a set and what is to be made have a label
    """
    if existing and values.get("vm_count") is None and not (values.get("vm_group") and "." in label):
        check_existing_name("vm_name", label)
    else:
        check_label("vm_name", label, "VM name")
    suffix = ""
    if values.get("vm_group"):
        namespace = check_label("vm_namespace", values.get("vm_namespace") or DEFAULT_NAMESPACE, "namespace")
        suffix = ".{0}.{1}".format(namespace, check_label("vm_group", values["vm_group"], "group"))
    elif values.get("vm_namespace"):
        raise _fail("vm_namespace", values["vm_namespace"], "is given without a group to subdivide", "Give vm_group too, or leave it out")
    numbers = values.get("numbers") or range(1, (values.get("vm_count") or 0) + 1)
    if not numbers:
        return [(label + suffix, label, None)]
    count = max(numbers)
    try:
        check_label("vm_name", "{0}-{1}".format(label, count), "VM name")
    except SpecError as exc:
        raise exc if len(label) + len(str(count)) < 63 else _fail(
            "vm_name", label, "is too long for a set: {0}-{1} has more than 63 characters".format(label, count), "Shorten it") from None
    return [("{0}-{1}{2}".format(label, i, suffix), "{0}-{1}".format(label, i), i) for i in numbers]


def _group(values: Mapping[str, Any], catalogs: Catalogs) -> Dict[str, Any]:
    """The entry of the request's group. Raises SpecError where it is unknown to a catalog that has groups, locked or disabled."""
    name = values.get("vm_group")
    if not name or not catalogs.names("kvmfleet_groups"):
        return {}
    entry = catalogs.find("kvmfleet_groups", "vm_group", name)
    for key, bad, word in (("enabled", False, "disabled"), ("locked", True, "locked")):
        if entry.get(key) is bad:
            raise _fail("vm_group", name, "the group is {0}".format(word), "Ask whoever runs the fleet, or use another group", "group_" + word)
    return entry


def _sizes(values: Mapping[str, Any], flavor: Mapping[str, Any], image: Mapping[str, Any]) -> Dict[str, Any]:
    """The sizes asked for, by variable or flavor. What nobody asked for stays away: an existing VM keeps what it has."""
    result: Dict[str, Any] = {}
    for key in ("vcpus", "max_vcpus", "memory", "max_memory", "vcpus_request", "memory_request"):
        value = values.get("vm_" + key)
        if value is None:
            value = flavor.get(key)
        if value is not None:
            result[key] = value
    if "memory" in result:
        mib = parse_mib("vm_memory", result["memory"])
        if image.get("min_memory") and mib < parse_mib("min_memory", image["min_memory"]):
            raise _fail("vm_memory", result["memory"], "is less than image {0} needs ({1})".format(values["vm_image"], image["min_memory"]), "Ask for more")
    if image.get("min_vcpus") and result.get("vcpus", image["min_vcpus"]) < image["min_vcpus"]:
        raise _fail("vm_vcpus", result["vcpus"], "is less than image {0} needs ({1})".format(values["vm_image"], image["min_vcpus"]), "Ask for more")
    for key, least in (("memory", image.get("min_memory")), ("vcpus", image.get("min_vcpus"))):
        if least is not None:
            result.setdefault("default_" + key, least)
    return result


def _root_disk(values: Mapping[str, Any], flavor: Mapping[str, Any], image: Mapping[str, Any]) -> DiskRequest:
    disk: Dict[str, Any] = {"name": "root"}
    least = parse_size("min_disk", image["min_disk"]) if image.get("min_disk") else 0
    asked = values.get("vm_disk") or flavor.get("disk")
    if asked is not None:
        if parse_size("vm_disk", asked) < least:
            raise _fail("vm_disk", asked, "is too small for image {0}, which needs {1}".format(values["vm_image"], image["min_disk"]),
                        "Ask for {0} or more".format(image["min_disk"]), "image_too_big")
        disk["size"] = asked
    else:
        disk["default_size"] = format_size(least or DEFAULT_DISK)
    if values.get("vm_clone") is not None:
        if not values.get("vm_image"):
            raise _fail("vm_clone", values["vm_clone"], "there is no image to clone", "Give vm_image, or leave it out")
        disk["clone"] = values["vm_clone"]
    return DiskRequest(disk, values.get("vm_storage_class"), values.get("vm_image"))


def _extra_disks(values: Mapping[str, Any], flavor: Mapping[str, Any]) -> List[DiskRequest]:
    given = values.get("vm_disks")
    items = list(given) if given is not None else ([flavor["data_disk"]] if flavor.get("data_disk") else [])
    disks = []
    for index, item in enumerate(items):
        where = "vm_disks[{0}]".format(index)
        if _is_mapping(item):
            disk = to_dict(where, item)
            for key in disk:
                if key not in _DISK_KEYS:
                    raise _fail("{0}.{1}".format(where, key), None, "is not a key of a disk", nearest(key, _DISK_KEYS))
        else:
            disk = {"size": str(item)}
        storage_class = disk.pop("storage_class", None)
        if storage_class is not None and disk.get("pool"):
            raise _fail(where + ".pool", disk["pool"], "is given together with storage_class", "Give one of them")
        if storage_class is None and not disk.get("pool"):
            storage_class = values.get("vm_storage_class")
        disk.setdefault("name", "data{0}".format("" if index == 0 else index + 1))
        disks.append(DiskRequest(disk, storage_class))
    return disks


class _Addresses:
    """The static addresses of one NIC: those of the first VM, and the ones that follow for the others of its set."""

    def __init__(self, option: str, given: Sequence[str], network: str, entry: Mapping[str, Any]) -> None:
        self.option, self.network = option, network
        self.cidrs = cidrs_of(network, entry)
        self.first = [self._interface(text.strip()) for text in given if text.strip() not in ("", "dhcp")]
        self.gateways = set()
        if entry.get("gateway"):
            self.gateways.add(ipaddress.ip_address(check_address("kvmfleet_networks.{0}.gateway".format(network), entry["gateway"])))

    def _interface(self, text: str) -> Any:
        if "/" in text:
            interface = ipaddress.ip_interface(check_interface(self.option, text))
        else:
            address = ipaddress.ip_address(check_address(self.option, text))
            home = next((c for c in self.cidrs if address in c), None)
            if home is None and self.cidrs:
                raise self._outside(text)
            if home is None:
                raise _fail(self.option, text, "has no prefix length, and network {0} has no cidr in kvmfleet_networks".format(self.network),
                            "Write it as {0}/24".format(text))
            interface = ipaddress.ip_interface(check_interface(self.option, "{0}/{1}".format(address, home.prefixlen)))
        if self.cidrs and not any(interface.ip in c for c in self.cidrs):
            raise self._outside(text)
        return interface

    def _outside(self, text: str) -> SpecError:
        return _fail(self.option, text, "is outside network {0} ({1})".format(self.network, ", ".join(map(str, self.cidrs))), "Use an address of it",
                     "address_outside")

    def at(self, offset: int, count: int) -> List[str]:
        """The addresses of VM number C(offset) (from 0) of C(count)."""
        result = []
        for first in self.first:
            room = first.network
            highest = int(room.broadcast_address) - (1 if first.version == 4 and room.prefixlen < 31 else 0)
            if int(first.ip) + offset > highest:
                raise _fail(self.option, str(first), "leaves room for {0} addresses in {1}, not for {2}".format(highest - int(first.ip) + 1, room, count),
                            "Begin lower, or ask for fewer VMs", "address_outside")
            address = first.ip + offset
            if address in self.gateways:
                raise _fail(self.option, str(address), "is the gateway of network {0}".format(self.network),
                            "Use a range without it" if count > 1 else "Use another address", "ip_in_use")
            result.append("{0}/{1}".format(address, room.prefixlen))
        return result


def _nic_wishes(values: Mapping[str, Any], group: Mapping[str, Any]) -> List[Tuple[str, Dict[str, Any]]]:
    """Per NIC how its option is called in messages, and what is asked for."""
    given = values.get("vm_networks")
    if given is not None and values.get("vm_network"):
        raise _fail("vm_networks", None, "is given together with vm_network", "Put the first network into vm_networks")
    if given is None:
        return [("vm_network", {"network": values.get("vm_network") or group.get("network") or DEFAULT_NETWORK})]
    wishes = []
    for index, item in enumerate(given):
        where = "vm_networks[{0}]".format(index)
        if _is_mapping(item):
            nic = to_dict(where, item)
            for key in nic:
                if key not in _NIC_KEYS:
                    raise _fail("{0}.{1}".format(where, key), None, "is not a key of a NIC", nearest(key, _NIC_KEYS))
        else:
            nic = {"network": str(item)}
        if not nic.get("network"):
            raise _fail(where + ".network", None, "is missing", "Name a network of kvmfleet_networks or of the host's kvm_networks")
        wishes.append((where, nic))
    return wishes


def _asks_for_nics(values: Mapping[str, Any]) -> bool:
    return values.get("vm_networks") is not None or any(values.get(key) for key in ("vm_network", "vm_ip", "vm_mac", "vm_nameservers"))


def _check_network(option: str, name: str, catalogs: Catalogs, hosts: Sequence[Host]) -> Dict[str, Any]:
    """The catalog entry of a network. Where there is neither catalog nor mapping, any name may be a libvirt network; the host will know."""
    known = set(catalogs.names("kvmfleet_networks"))
    mapped = {n for host in hosts for n in host.networks}
    if name not in known and name not in mapped and name != DEFAULT_NETWORK and (known or mapped):
        raise _fail(option, name, "there is no such network in kvmfleet_networks, nor in kvm_networks of a host", nearest(name, known | mapped),
                    "unknown_network")
    return catalogs.entry("kvmfleet_networks", name)


def _nics(values: Mapping[str, Any], group: Mapping[str, Any], catalogs: Catalogs, hosts: Sequence[Host], count: int) -> List[
        Callable[[int], NicRequest]]:
    """Per NIC a function that makes it for VM number N (from 0): only its addresses differ."""
    makers: List[Callable[[int], NicRequest]] = []
    for index, (where, nic) in enumerate(_nic_wishes(values, group)):
        first = index == 0
        option = where if where == "vm_network" else where + ".network"
        name = str(nic["network"])
        entry = _check_network(option, name, catalogs, hosts)
        check_allowed(entry, option, name, values.get("vm_group"))
        wish: Dict[str, Any] = {k: nic[k] for k in ("model", "filter", "queues", "link", "routes", "mtu") if nic.get(k) is not None}
        if "mtu" not in wish and entry.get("mtu"):
            wish["mtu"] = entry["mtu"]
        listed = {"ip": to_list(where + ".ip", nic["ip"])} if nic.get("ip") is not None else {}
        ip_option = where + ".ip" if "ip" in listed else "vm_ip"
        if first and "ip" in listed and values.get("vm_ip"):
            raise _fail("vm_ip", ",".join(values["vm_ip"]), "is given together with {0}.ip".format(where), "Give it once")
        given = [str(a) for a in listed.get("ip", (values.get("vm_ip") if first else None) or [])]
        addresses = _Addresses(ip_option, given, name, entry)
        addresses.at(0, count)
        pool = read_pool(entry["pool"], catalogs, name) if entry.get("pool") else None
        if pool is not None:
            pool.check_group(option, values.get("vm_group"))
            for offset in range(count) if addresses.first else ():
                for address in addresses.at(offset, count):
                    pool.check_address(ip_option, address)
        draws = pool is not None and not given and values["vm_state"] != "absent"
        mac = nic.get("mac") or (values.get("vm_mac") if first else None)
        if mac:
            if count > 1:
                raise _fail("vm_mac" if not nic.get("mac") else where + ".mac", mac, "cannot be that of {0} VMs".format(count), "Leave it out with vm_count",
                            "mac_in_use")
            wish["mac"] = str(mac)
        for key, own in (("gateway", "vm_gateway"), ("nameservers", "vm_nameservers"), ("search", None)):
            asked = nic.get(key)
            source = where + "." + key
            if asked is None and first and own and values.get(own):
                asked, source = values[own], own
            if asked is not None and not addresses.first and not draws and key == "gateway":
                raise _fail(source, asked, "is given for a NIC without a static address", "Give vm_ip too; DHCP brings its own gateway")
            if asked is None and (addresses.first or draws):
                asked, source = entry.get(key), "kvmfleet_networks.{0}.{1}".format(name, key)
            if not asked:
                continue
            if key == "gateway":
                wish[key] = check_gateway(source, asked, [str(a) for a in addresses.first]) if addresses.first else check_address(source, asked)
            elif key == "nameservers":
                wish[key] = [check_address(source, a) for a in to_list(source, asked)]
            else:
                wish[key] = [str(s) for s in to_list(source, asked)]
        makers.append(functools.partial(_nic, name, wish, addresses, count, entry["pool"] if draws else None))
    return makers


def _nic(network: str, wish: Mapping[str, Any], addresses: _Addresses, count: int, pool: Optional[str], offset: int) -> NicRequest:
    item = dict(wish)
    if addresses.first:
        item["addresses"] = addresses.at(offset, count)
    return NicRequest(network, item, pool, {key: item.pop(key) for key in ("gateway", "nameservers", "search") if pool and key in item})


def _user_data(text: Optional[str]) -> Optional[str]:
    """User data given as such, or read from the file that is named."""
    if text is None or not _names_a_file(text):
        return text
    return _keys.read_text("vm_user_data", text.strip())


def _names_a_file(text: str) -> bool:
    """Whether C(vm_user_data) is a path and not the user data itself."""
    start = text.lstrip()
    return not ("\n" in start or start.startswith("#") or start.lower().startswith(("content-type:", "mime-version:")))


def refuse_files(values: Mapping[str, Any]) -> None:
    """Raises SpecError where variables name files. Those of an AWX job are its own, credentials among them, and who answers a survey may not read them."""
    if values.get("vm_user_data") and _names_a_file(values["vm_user_data"]):
        raise _fail("vm_user_data", None, "names a file, and an AWX job reads none", "Give the user data itself, beginning with #cloud-config or #!",
                    "not_allowed")
    if values.get("vm_ssh_key") and any(_keys.names_a_file(item) for item in _keys.items_of(values["vm_ssh_key"])):
        raise _fail("vm_ssh_key", None, "names a file, and an AWX job reads none", "Give the public key itself", "not_allowed")


def _users(values: Mapping[str, Any], keys: Keys) -> List[Dict[str, Any]]:
    """Users as vm_set wants them; those without keys get the request's, for they could not log in otherwise."""
    users = []
    known = SEED_OPTIONS["users"]["options"]
    for index, item in enumerate(values.get("vm_users") or []):
        where = "vm_users[{0}]".format(index)
        user: Dict[str, Any] = to_dict(where, item) if _is_mapping(item) else {"name": str(item)}
        for key in user:
            if key not in known:
                raise _fail("{0}.{1}".format(where, key), None, "is not a key of a user", nearest(key, known))
        if not user.get("ssh_authorized_keys") and not user.get("password") and not user.get("password_hash") and keys.public:
            user["ssh_authorized_keys"] = list(keys.public)
        users.append(user)
    return users


def wants_seed(values: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    """Whether the VMs get a cloud-init seed: where it is asked for, else with an image that reads one."""
    if values.get("vm_seed_format") is not None:
        return bool(values["vm_seed_format"] != "none")
    return bool(values.get("vm_image")) and image.get("cloud_init", image.get("os_type", "linux") in ("linux", "bsd"))


def build_seed(values: Mapping[str, Any], image: Mapping[str, Any], keys: Keys) -> Optional[Dict[str, Any]]:
    """The seed options of a request (all but the host name), checked; None for a VM without a seed. Raises SpecError naming C(vm_*)."""
    typed = {"users": _users(values, keys), "root_password": values.get("vm_root_password"), "packages": values.get("vm_packages"),
             "runcmd": values.get("vm_runcmd"), "write_files": values.get("vm_write_files"), "timezone": values.get("vm_timezone"),
             "locale": values.get("vm_locale"), "user_data": _user_data(values.get("vm_user_data")), "meta_data": values.get("vm_meta_data"),
             "network_config": values.get("vm_network_config")}
    seed: Dict[str, Any] = {k: v for k, v in typed.items() if v}
    if not wants_seed(values, image):
        if seed:
            option = "vm_" + sorted(seed)[0]
            raise _fail(option, None, "needs a cloud-init seed, and this VM has none", "Leave it out, or give vm_seed_format=nocloud")
        return None
    for index, item in enumerate(seed.get("write_files") or []):
        for key in item:
            if key not in SEED_OPTIONS["write_files"]["options"]:
                raise _fail("vm_write_files[{0}].{1}".format(index, key), None, "is not a key of a file", nearest(key, SEED_OPTIONS["write_files"]["options"]))
    if keys.public:
        seed["ssh_keys"] = list(keys.public)
    if values.get("vm_seed_format"):
        seed["format"] = values["vm_seed_format"]
    try:
        seed_from_params(seed, "")
    except SpecError as exc:
        raise SpecError("vm_" + re.sub(r"^ssh_keys\b.*", "ssh_key", exc.option), exc.value, exc.reason, exc.remedy, exc.code) from None
    return seed


def has_secrets(values: Mapping[str, Any]) -> bool:
    """Whether the variables hold what must not be shown: passwords, user data, file contents."""
    return any(values.get(k) for k in ("vm_root_password", "vm_user_data", "vm_write_files", "vm_users", "vm_runcmd", "vm_meta_data", "vm_network_config"))


def constraints(values: Mapping[str, Any]) -> Constraints:
    """Where the VMs may go. Raises SpecError."""
    spread = values.get("vm_spread")
    if spread is not None and spread not in _SPREAD and not re.match(r"^label:[A-Za-z0-9._/-]+$", spread):
        raise _fail("vm_spread", spread, "is nothing to spread over", "Use one of {0}, or label:NAME".format(", ".join(_SPREAD)))
    strategy = values.get("vm_strategy") or "spread"
    if values.get("vm_weights") and strategy != "weights":
        raise _fail("vm_weights", None, "is given with vm_strategy={0}".format(strategy), "Give vm_strategy=weights too, or leave it out")
    if strategy == "weights" and not values.get("vm_weights"):
        raise _fail("vm_weights", None, "is missing", "Give numbers for vcpus, memory, disk or vms, such as memory=2,vcpus=1", "missing_variable")
    made = Constraints(values.get("vm_host"), values.get("vm_zone"), values.get("vm_region"), strategy, spread, _weights(values.get("vm_weights")),
                       values.get("vm_reserve_failures") or 0, {str(k): str(v) for k, v in (values.get("vm_host_labels") or {}).items()},
                       values.get("vm_max_per_host") or 0)
    for key in ("affinity", "anti_affinity", "soft_affinity", "soft_anti_affinity"):
        setattr(made, key, [check_selector("vm_" + key, item) for item in values.get("vm_" + key) or []])
    return made


def _weights(given: Optional[Mapping[str, Any]]) -> Optional[Dict[str, float]]:
    if not given:
        return None
    weights = {}
    for key, value in given.items():
        if key not in ("vcpus", "memory", "disk", "vms"):
            raise _fail("vm_weights." + key, None, "is not a resource", "Use vcpus, memory, disk or vms")
        try:
            weights[key] = float(str(value))
        except ValueError:
            raise _fail("vm_weights." + key, value, "is not a number", "Write a number such as 1.5; positive ones spread, negative ones pack") from None
    return weights


def _domain_options(values: Mapping[str, Any], image: Mapping[str, Any]) -> Dict[str, Any]:
    item: Dict[str, Any] = {}
    for key in ("description", "machine", "secure_boot", "tpm", "boot", "autostart"):
        if values.get("vm_" + key) is not None:
            item[key] = values["vm_" + key]
    for key in ("arch", "firmware"):
        value = values.get("vm_" + key) or image.get(key)
        if value is not None:
            item[key] = value
    if image.get("arch") and item["arch"] != image["arch"] and (item["arch"], image["arch"]) != ("x86_64", "i686"):
        raise _fail("vm_arch", item["arch"], "image {0} is for {1}".format(values["vm_image"], image["arch"]), "Use another image, or leave vm_arch out")
    if values.get("vm_cpu_mode"):
        item["cpu"] = {"mode": values["vm_cpu_mode"]}
    if values.get("vm_graphics"):
        item["graphics"] = {"type": values["vm_graphics"]}
    for key in ("allow_restart", "force", "adopt"):
        if values.get("vm_" + key):
            item[key] = True
    item["shutdown_timeout"] = values["vm_shutdown_timeout"]
    return item


def _absent(values: Mapping[str, Any]) -> List[Request]:
    for option in _WITHOUT_ABSENT:
        if values.get(option):
            value = values[option] if option != "vm_user_data" and isinstance(values[option], (str, int)) else None
            raise _fail(option, value, "is given together with vm_state=absent", "To delete, give the name only")
    return [absent(name, values) for name, label, index in domain_names(values, str(values["vm_name"]), existing=True)]


def absent(name: str, values: Mapping[str, Any]) -> Request:
    """The request that a VM shall not be there."""
    item = {"name": name, "state": "absent", "delete_disks": values["vm_delete_disks"]}
    if values.get("vm_group"):
        item["group"] = values["vm_group"]
    return Request(name, item)


def surplus_note(names: Sequence[str]) -> str:
    """What to tell of VMs of a set that are beyond the number asked for."""
    return "{0}{1} of the set {2} although beyond vm_count; vm_scale_down=true deletes what is beyond it".format(
        ", ".join(names[:3]), " and {0} more".format(len(names) - 3) if len(names) > 3 else "", "stays" if len(names) == 1 else "stay")


def image_of(values: Mapping[str, Any], catalogs: Catalogs) -> Dict[str, Any]:
    """The catalog entry of the request's image; empty without one. Raises SpecError."""
    if not values.get("vm_image"):
        return {}
    image = catalogs.find("kvmfleet_images", "vm_image", values["vm_image"])
    check_allowed(image, "vm_image", values["vm_image"], values.get("vm_group"))
    return image


def build(values: Mapping[str, Any], catalogs: Catalogs, hosts: Sequence[Host], keys: Keys) -> List[Request]:
    """The requests of create_vm or scale_vm: one for each VM. Raises SpecError naming the C(vm_*) variable.

    :param values: converted variables of the entry point C(create) or C(scale); C(numbers) in them are those of the members of a set that are meant, if not all
    :param hosts: all hosts, for the names of networks that they map
    :param keys: the SSH keys
    """
    if values["vm_state"] == "absent":
        return _absent(values)
    label = str(values["vm_name"])
    names = domain_names(values, label, existing=bool(values.get("vm_adopt")))
    group = _group(values, catalogs)
    image = image_of(values, catalogs)
    flavor = catalogs.find("kvmfleet_flavors", "vm_flavor", values["vm_flavor"]) if values.get("vm_flavor") else {}
    hostname = check_label("vm_hostname", values["vm_hostname"], "host name") if values.get("vm_hostname") else None
    if hostname and len(names) > 1:
        raise _fail("vm_hostname", hostname, "cannot be that of {0} VMs".format(len(names)), "Leave it out with vm_count")
    nics = _nics(values, group, catalogs, hosts, names[-1][2] or 1)
    disks = [_root_disk(values, flavor, image)] + _extra_disks(values, flavor)
    seed = build_seed(values, image, keys)
    common: Dict[str, Any] = {"state": values["vm_state"]}
    common.update(_sizes(values, flavor, image))
    common.update(_domain_options(values, image))
    for key, value in (("group", values.get("vm_group")), ("namespace", values.get("vm_group") and (values.get("vm_namespace") or DEFAULT_NAMESPACE)),
                       ("image", values.get("vm_image")), ("flavor", values.get("vm_flavor")), ("key_name", keys.name), ("labels", values.get("vm_labels")),
                       ("virt_type", values.get("vm_virt_type")), ("anti_affinity", full_selectors(values, values.get("vm_anti_affinity") or []))):
        if value:
            common[key] = value
    requests = []
    for name, short, index in names:
        item = dict(common, name=name)
        if index is not None:
            item.update(set=label, index=index)
        if seed is not None:
            item["seed"] = dict(seed, hostname=hostname or short)
        requests.append(Request(name, item, [make((index or 1) - 1) for make in nics], disks, values.get("vm_image"), not _asks_for_nics(values)))
    return requests


def host_item(request: Request, host: Host, catalogs: Catalogs) -> Dict[str, Any]:
    """The item of vm_set's C(vms) that a request becomes on a host. Raises SpecError where the host lacks a network or storage class."""
    item = dict(request.item)
    if item["state"] == "absent":
        return item
    if item.get("virt_type", "auto") == "auto":
        item.pop("virt_type", None)
        if host.virt_type not in (None, "auto"):
            item["virt_type"] = host.virt_type
    if request.nics is not None:
        nics = []
        for nic in request.nics:
            target = dict(host.network(nic.network))
            target.update(nic.item)
            nics.append(target)
        item["default_nics" if request.nics_by_default else "nics"] = nics
    if request.disks is not None:
        item["disks"] = [_host_disk(disk, host, catalogs, index) for index, disk in enumerate(request.disks)]
    return item


def _host_disk(disk: DiskRequest, host: Host, catalogs: Catalogs, index: int) -> Dict[str, Any]:
    item = dict(disk.item)
    if not item.get("pool"):
        item["pool"] = host.pool_of("vm_storage_class" if index == 0 else "vm_disks[{0}].storage_class".format(index - 1), disk.storage_class, catalogs)
    if disk.image:
        entry = catalogs.entry("kvmfleet_images", disk.image)
        try:
            item["image"] = image_volume_name(disk.image, entry)
        except SpecError as exc:
            raise exc.within("kvmfleet_images.{0}.".format(disk.image)) from None
        item["image_pool"] = entry.get("pool") or host.image_pool or host.pool
    return item


def sample_items(requests: Sequence[Request], hosts: Sequence[Host], catalogs: Catalogs) -> List[Dict[str, Any]]:
    """The items that requests become on the first host that can take them as far as the inventory tells. Raises SpecError where none can."""
    fault: Optional[SpecError] = None
    for host in hosts:
        try:
            return [host_item(request, host, catalogs) for request in requests]
        except SpecError as exc:
            fault = fault or exc
    if fault is not None:
        raise fault
    return []


_PLACES = (
    (re.compile(r"^disks\[0\]\.size$"), "vm_disk"),
    (re.compile(r"^disks\[0\]\."), "vm_disk."),
    (re.compile(r"^nics\[0\]\.(mac|gateway|nameservers)$"), r"vm_\1"),
    (re.compile(r"^nics\[0\]\.addresses$"), "vm_ip"),
    (re.compile(r"^nics\[(\d+)\]\."), r"vm_networks[\1]."),
    (re.compile(r"^nics$"), "vm_networks"),
    (re.compile(r"^disks$"), "vm_disks"),
    (re.compile(r"^cpu\.mode$"), "vm_cpu_mode"),
    (re.compile(r"^graphics\."), "vm_graphics."),
    (re.compile(r"^address$"), "vm_ip"),
    (re.compile(r"^names$"), "vm_name"),
    (re.compile(r"^size$"), "vm_disk"),
    (re.compile(r"^(ratios|reserved|totals|stopped_factor|pools|uri)\b"), r"kvm_\1"),
)


def variable_of(option: str) -> str:
    """The C(vm_*) variable behind an option of vm_set, for messages."""
    match = re.match(r"^disks\[([1-9]\d*)\]", option)
    if match:
        return "vm_disks[{0}]".format(int(match.group(1)) - 1) + option[match.end():]
    for pattern, replacement in _PLACES:
        if pattern.match(option):
            return pattern.sub(replacement, option)
    return option if option.startswith(("vm_", "kvm_")) else "vm_" + option


def in_variables(exc: SpecError) -> SpecError:
    """The same error with the variable that the user wrote."""
    return SpecError(variable_of(exc.option), exc.value, exc.reason, exc.remedy, exc.code)


def check_items(items: Sequence[Mapping[str, Any]]) -> List[VmSpec]:
    """Check the items as vm_set itself will do on the host, only now and in the user's words. Raises SpecError."""
    try:
        specs = [vm_from_params(item) for item in items]
        for spec in specs:
            (check_existing_name if spec.adopt else check_domain_name)("name", spec.name)
        check_batch(specs)
    except SpecError as exc:
        raise in_variables(exc) from None
    return specs


def candidates(hosts: Sequence[Host], wanted: Constraints) -> List[Host]:
    """The hosts that the constraints leave. Raises SpecError naming the one that leaves none."""
    left = list(hosts)
    if wanted.host is not None:
        left = [h for h in left if h.name == wanted.host]
        if not left:
            raise _fail("vm_host", wanted.host, "there is no such host in the group kvm_hosts", nearest(wanted.host, [h.name for h in hosts]), "unknown_host")
    for option, value, key in (("vm_region", wanted.region, "region"), ("vm_zone", wanted.zone, "zone")):
        if value is None:
            continue
        if not any(getattr(h, key) == value for h in left):
            raise _fail(option, value, "no host {0}is in this {1}".format("" if wanted.host is None else "called {0} ".format(wanted.host), key),
                        nearest(value, {getattr(h, key) for h in hosts if getattr(h, key)}), "unknown_" + key)
        left = [h for h in left if getattr(h, key) == value]
    return left


def default_wait(values: Mapping[str, Any]) -> str:
    """What to wait for. Raises SpecError where a VM that will not run is to be waited for."""
    runs = values["vm_state"] in ("running", "restarted")
    asked = values.get("vm_wait")
    if asked not in (None, "none") and values["vm_state"] not in ("running", "restarted", "present"):
        raise _fail("vm_wait", asked, "cannot come true with vm_state={0}".format(values["vm_state"]), "Leave it out")
    if asked is not None:
        return str(asked)
    return "address" if runs and values.get("vm_image") else "none"


def parse_confirm(values: Mapping[str, Any]) -> Optional[int]:
    """The number of VMs that the user confirmed."""
    return None if values.get("vm_confirm") is None else parse_int("vm_confirm", values["vm_confirm"], 0)


@dataclass
class Selection:
    """Which existing VMs a verb is for: exact names, or patterns and filters that need to be looked up on the hosts first."""

    names: List[str] = field(default_factory=list)
    patterns: List[str] = field(default_factory=list)
    group: Optional[str] = None
    namespace: Optional[str] = None
    labels: Dict[str, str] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether the names say it all."""
        return bool(self.names) and not self.patterns and not self.labels


def select(values: Mapping[str, Any], strict: bool = True) -> Selection:
    """The VMs that the selectors name. Raises SpecError.

    :param strict: whether to refuse the name of another group's VM, where something is to be done to it
    """
    group = values.get("vm_group")
    selection = Selection(group=group, namespace=values.get("vm_namespace"), labels={str(k): str(v) for k, v in (values.get("vm_labels") or {}).items()})
    if selection.namespace and not group:
        raise _fail("vm_namespace", selection.namespace, "is given without its group", "Give vm_group too")
    given = values.get("vm_name")
    if given is not None and not given:
        raise _fail("vm_name", "", "is empty", "Give the name of a VM")
    for name in given or []:
        if any(c in name for c in WILDCARDS):
            if values.get("vm_count") is not None:
                raise _fail("vm_count", values["vm_count"], "does not go with the pattern {0}".format(name), "Give the set's name, or leave vm_count out")
            if "/" in name or not name.isprintable() or len(name) > 200:
                raise _fail("vm_name", name, "is not a pattern of VM names", "Use what names are made of, and the wildcards * ? [...]")
            selection.patterns.append(name if "." in name or not group else "{0}.{1}.{2}".format(name, selection.namespace or "*", group))
        elif "." in name:
            if group and strict and not name.endswith("." + group):
                raise _fail("vm_name", name, "is not a VM of group {0}".format(group), "Name a VM of this group, or the group that it belongs to", "not_ours")
            selection.names.append(check_existing_name("vm_name", name))
        else:
            selection.names.extend(full for full, label, index in domain_names(values, name, existing=True))
    if len(set(selection.names)) != len(selection.names):
        twice = next(n for n in selection.names if selection.names.count(n) > 1)
        raise _fail("vm_name", twice, "is given twice", "Give each name once")
    if not given and values.get("vm_count") is not None:
        raise _fail("vm_count", values["vm_count"], "is given without the set's name", "Give vm_name too")
    return selection


def check_confirm(values: Mapping[str, Any], count: int, names: Sequence[str] = ()) -> None:
    """Raises SpecError where more than one VM would go and their number was not confirmed.

    :param names: of those that would go, where nobody has named them
    """
    confirmed = parse_confirm(values)
    going = "{0} VMs{1} would be deleted".format(count, " ({0})".format(who(names)) if names else "")
    if confirmed is not None and confirmed != count and count > 0:
        raise _fail("vm_confirm", confirmed, going, "Give vm_confirm={0} if that is right".format(count), "not_confirmed")
    if confirmed is None and count > 1:
        raise _fail("vm_confirm", None, "is missing, and " + going, "Give vm_confirm={0} if that is right".format(count), "not_confirmed")
