# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What we know about a VM that libvirt does not, kept in the domain's own C(<metadata>)."""
from __future__ import annotations

import datetime
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

NAMESPACE = "urn:kvmfleet:vm:1"
PREFIX = "kvmfleet"
PHASES = ("pending", "building", "ready", "deleting", "failed")

ET.register_namespace(PREFIX, NAMESPACE)


def utc_now() -> str:
    """The time as metadata carries it: UTC, ISO 8601, whole seconds."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def age_seconds(timestamp: str, now: Optional[datetime.datetime] = None) -> float:
    """Seconds since a timestamp of L(utc_now); infinite where it cannot be read (such a claim is stale)."""
    try:
        then = datetime.datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return float("inf")
    return ((now or datetime.datetime.now(datetime.timezone.utc)) - then).total_seconds()


@dataclass
class VolumeRef:
    """A volume of ours: listed before it is created and until after it is gone. Sizes in bytes.

    C(planned) marks a volume added to an existing VM that may not have been created yet; C(given) one that the user made and
    wants deleted with the VM.
    """

    disk: str
    pool: str
    name: str
    size: int
    reserve: Optional[int] = None
    planned: bool = False
    given: bool = False

    @property
    def booked(self) -> int:
        """Bytes that are counted for it."""
        return self.size if self.reserve is None else self.reserve


@dataclass
class VmMetadata:
    """The content of our metadata element. Times are UTC, ISO 8601."""

    phase: str = "ready"
    reason: Optional[str] = None
    ticket: Optional[str] = None
    claimed: Optional[str] = None
    group: Optional[str] = None
    namespace: Optional[str] = None
    set: Optional[str] = None
    index: Optional[int] = None
    image: Optional[str] = None
    flavor: Optional[str] = None
    key_name: Optional[str] = None
    labels: Dict[str, str] = field(default_factory=dict)
    vcpus_request_milli: Optional[int] = None
    memory_request_mib: Optional[int] = None
    addresses: List[str] = field(default_factory=list)
    volumes: List[VolumeRef] = field(default_factory=list)
    seed_instance_id: Optional[str] = None
    seed_hash: Optional[str] = None
    seed_format: Optional[str] = None

    def volume(self, disk: str) -> Optional[VolumeRef]:
        """Our volume behind the disk of that name."""
        return next((v for v in self.volumes if v.disk == disk), None)


_TEXTS = ("phase", "reason", "ticket", "claimed", "group", "namespace", "set", "index", "image", "flavor", "key_name")
_INTS = ("index", "vcpus_request_milli", "memory_request_mib")


def to_element(meta: VmMetadata) -> ET.Element:
    """Our metadata element; only the root is in our namespace, as virDomainSetMetadata keeps it."""
    root = ET.Element("{%s}vm" % NAMESPACE)
    for key in _TEXTS:
        value = getattr(meta, key)
        if value is not None:
            ET.SubElement(root, key).text = str(value)
    if meta.vcpus_request_milli is not None or meta.memory_request_mib is not None:
        request = ET.SubElement(root, "request")
        for key in ("vcpus_request_milli", "memory_request_mib"):
            if getattr(meta, key) is not None:
                request.set(key, str(getattr(meta, key)))
    for name in sorted(meta.labels):
        ET.SubElement(root, "label", name=name).text = meta.labels[name]
    for address in meta.addresses:
        ET.SubElement(root, "address").text = address
    for volume in meta.volumes:
        item = ET.SubElement(root, "volume", disk=volume.disk, pool=volume.pool, name=volume.name, bytes=str(volume.size))
        if volume.reserve is not None:
            item.set("reserve", str(volume.reserve))
        for flag in ("planned", "given"):
            if getattr(volume, flag):
                item.set(flag, "yes")
    if meta.seed_instance_id is not None:
        seed = ET.SubElement(root, "seed", instance_id=meta.seed_instance_id, format=meta.seed_format or "nocloud")
        if meta.seed_hash:
            seed.set("sha256", meta.seed_hash)
    return root


def _int(text: Optional[str]) -> Optional[int]:
    return int(text) if text is not None and text.strip().lstrip("-").isdigit() else None


def from_element(root: ET.Element) -> VmMetadata:
    """Our metadata out of its element; unknown children (of newer versions) are passed over."""
    meta = VmMetadata()
    for key in _TEXTS:
        text = root.findtext(key)
        if text is not None:
            setattr(meta, key, _int(text) if key in _INTS else text)
    request = root.find("request")
    if request is not None:
        meta.vcpus_request_milli = _int(request.get("vcpus_request_milli"))
        meta.memory_request_mib = _int(request.get("memory_request_mib"))
    meta.labels = {e.get("name", ""): e.text or "" for e in root.findall("label")}
    meta.addresses = [e.text or "" for e in root.findall("address")]
    meta.volumes = [VolumeRef(e.get("disk", ""), e.get("pool", ""), e.get("name", ""), _int(e.get("bytes")) or 0, _int(e.get("reserve")), e.get("planned") == "yes",
                              e.get("given") == "yes")
                    for e in root.findall("volume")]
    seed = root.find("seed")
    if seed is not None:
        meta.seed_instance_id, meta.seed_hash, meta.seed_format = seed.get("instance_id"), seed.get("sha256"), seed.get("format")
    return meta


def find(domain: ET.Element) -> Optional[VmMetadata]:
    """Our metadata in a domain's XML, or None: then the domain is not ours."""
    element = domain.find("metadata/{%s}vm" % NAMESPACE)
    return None if element is None else from_element(element)


def store(domain: ET.Element, meta: VmMetadata) -> None:
    """Put our metadata into a domain's XML, in place of what was there."""
    holder = domain.find("metadata")
    if holder is None:
        holder = ET.SubElement(domain, "metadata")
    for old in holder.findall("{%s}vm" % NAMESPACE):
        holder.remove(old)
    holder.append(to_element(meta))


def summary(meta: VmMetadata) -> Dict[str, Any]:
    """The metadata a user cares for, as plain data for results and diffs."""
    return {
        "group": meta.group, "namespace": meta.namespace, "set": meta.set, "index": meta.index, "image": meta.image, "flavor": meta.flavor,
        "key_name": meta.key_name, "labels": dict(meta.labels), "vcpus_request_milli": meta.vcpus_request_milli,
        "memory_request_mib": meta.memory_request_mib, "static_addresses": list(meta.addresses),
    }
