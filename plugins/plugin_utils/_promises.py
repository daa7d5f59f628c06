# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory promises of a KVM host, and what of it the host does not have. Pure."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Collection, Dict, List, Mapping, Optional, Sequence

from ansible_collections.kvmfleet.core.plugins.module_utils._images import image_volume_name
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, Host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._variables import nearest


@dataclass(frozen=True)
class Promises:
    """The names of catalog entries that users will find on a host."""

    images: List[str]
    networks: List[str]
    storage_classes: List[str]


def promised(host: Host, catalogs: Catalogs, images: Optional[Sequence[str]] = None, networks: Optional[Sequence[str]] = None,
             storage_classes: Optional[Sequence[str]] = None) -> Promises:
    """What placement takes the host to have, or those that are named instead. Raises SpecError for a name that nobody knows, and for a faulty catalog."""
    catalogs.check_all()
    known: Dict[str, List[str]] = {
        "images": catalogs.names("kvmfleet_images"),
        "networks": sorted(set(host.networks) | set(catalogs.names("kvmfleet_networks"))),
        "storage_classes": sorted(set(host.storage_classes) | set(catalogs.names("kvmfleet_storage_classes")))}
    for kind, names in (("images", images), ("networks", networks), ("storage_classes", storage_classes)):
        for name in names or []:
            if name not in known[kind]:
                raise SpecError(kind, name, "is promised of host {0}, and nothing says what it is".format(host.name), nearest(name, known[kind]),
                                "unknown_promise")
    # A class without a pool in the catalog is a matter of the hosts that name one
    classes = [c for c in known["storage_classes"] if c in host.storage_classes or catalogs.entry("kvmfleet_storage_classes", c).get("pool")]
    return Promises(*(list(default if given is None else given) for given, default in (
        (images, known["images"]), (networks, known["networks"]), (storage_classes, classes))))


def devices_of(host: Host, promises: Promises) -> List[str]:
    """Network devices that NICs of promised networks are attached to directly."""
    return sorted({str(target["direct"]) for target in map(host.network, promises.networks) if target.get("direct")})


def broken(host: Host, catalogs: Catalogs, promises: Promises, facts: Mapping[str, Any], devices: Collection[str], images_present: bool) -> List[str]:
    """A clause for each promise that the host does not keep.

    :param facts: the result of host_capacity with facts and volumes
    :param devices: which of devices_of() there are
    :param images_present: whether images have to be there although they could be fetched when they are needed
    """
    return _pools(host, facts) + _networks(host, promises, facts, devices) + _classes(host, catalogs, promises, facts) + _images(
        host, catalogs, promises, facts, images_present)


def _why_no_pool(pool: str, facts: Mapping[str, Any]) -> Optional[str]:
    there = facts["pools"].get(pool)
    if there is None:
        return "there is no pool {0}".format(pool)
    return None if there.get("active") else "pool {0} is not active".format(pool)


def _pools(host: Host, facts: Mapping[str, Any]) -> List[str]:
    found = []
    for variable, pool in (("kvm_pool", host.pool), ("kvm_image_pool", host.image_pool)):
        why = _why_no_pool(pool, facts) if pool else None
        if why:
            found.append("{0}: {1}".format(variable, why))
    return found


def _networks(host: Host, promises: Promises, facts: Mapping[str, Any], devices: Collection[str]) -> List[str]:
    active = {network["name"]: network["active"] for network in facts["networks"]}
    found = []
    for name in promises.networks:
        target = host.network(name)
        if target.get("network"):
            if not active.get(target["network"]):
                found.append("network {0}: libvirt's network {1} {2}".format(
                    name, target["network"], "is not active" if target["network"] in active else "does not exist"))
        elif target.get("bridge") and target["bridge"] not in facts["bridges"]:
            found.append("network {0}: there is no bridge {1}".format(name, target["bridge"]))
        elif target.get("direct") and target["direct"] not in devices:
            found.append("network {0}: there is no network device {1}".format(name, target["direct"]))
    return found


def _classes(host: Host, catalogs: Catalogs, promises: Promises, facts: Mapping[str, Any]) -> List[str]:
    found = []
    for name in promises.storage_classes:
        try:
            why = _why_no_pool(host.pool_of("kvm_storage_classes", name, catalogs), facts)
        except SpecError as exc:
            why = exc.reason
        if why:
            found.append("storage class {0}: {1}".format(name, why))
    return found


def _images(host: Host, catalogs: Catalogs, promises: Promises, facts: Mapping[str, Any], images_present: bool) -> List[str]:
    found = []
    for name in promises.images:
        entry = catalogs.entry("kvmfleet_images", name)
        pool = str(entry.get("pool") or host.image_pool or host.pool)
        why = _why_no_pool(pool, facts)
        if entry.get("arch") and entry["arch"] not in facts["archs"]:
            why = "the host cannot run {0} guests".format(entry["arch"])
        elif entry.get("firmware") and entry["firmware"] not in facts["firmware"]:
            why = "the host has no {0} firmware".format(entry["firmware"])
        elif why is None and (images_present or not entry.get("source")):
            volume = image_volume_name(name, entry)
            if volume not in facts["pools"][pool].get("volumes", []):
                why = "there is no volume {0} in pool {1}".format(volume, pool) + ("" if entry.get("source") else ", and no source to fetch it from")
        if why:
            found.append("image {0}: {1}".format(name, why))
    return found
