# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What we know about a VM that libvirt does not, kept in the domain's own C(<metadata>)."""
from __future__ import annotations

import dataclasses
import datetime
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

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


@dataclass(frozen=True)
class Scaling:
    """The last act of scaling a set, kept with the member of the smallest number, and written by its host with its own clock.

    :param ticket: random value of the run that acted; whoever wants to be the next has to name it
    :param at: when that was
    :param open: whether that run has not said yet how it ended
    :param acting: what it acts on, until it has ended
    :param alerts: what was acted on, the latest last
    """

    ticket: str
    at: str
    open: bool = False
    acting: Tuple[str, ...] = ()
    alerts: Tuple[str, ...] = ()

    def as_dict(self) -> Dict[str, Any]:
        """As plain data for results; its age is that by this host's clock, null where the time cannot be read."""
        age = age_seconds(self.at)
        return {"ticket": self.ticket, "at": self.at, "age_s": None if age == float("inf") else round(age, 3), "open": self.open,
                "acting": list(self.acting), "alerts": list(self.alerts)}


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
    anti_affinity: List[str] = field(default_factory=list)
    vcpus_request_milli: Optional[int] = None
    memory_request_mib: Optional[int] = None
    addresses: List[str] = field(default_factory=list)
    volumes: List[VolumeRef] = field(default_factory=list)
    seed_instance_id: Optional[str] = None
    seed_hash: Optional[str] = None
    seed_format: Optional[str] = None
    scaling: Optional[Scaling] = None
    hopeless: List[str] = field(default_factory=list)  # options that wait for a restart; kept in the running definition only, with which they end

    def volume(self, disk: str) -> Optional[VolumeRef]:
        """Our volume behind the disk of that name."""
        return next((v for v in self.volumes if v.disk == disk), None)


_TEXTS = ("phase", "reason", "ticket", "claimed", "group", "namespace", "set", "index", "image", "flavor", "key_name")
_INTS = ("index", "vcpus_request_milli", "memory_request_mib")


def to_element(meta: VmMetadata, namespaced: bool = True) -> ET.Element:
    """Our metadata element.

    :param namespaced: for use within a domain's XML; virDomainSetMetadata wants it without, and puts root and children into the namespace itself
    """
    prefix = "{%s}" % NAMESPACE if namespaced else ""
    root = ET.Element(prefix + "vm")
    for key in _TEXTS:
        value = getattr(meta, key)
        if value is not None:
            ET.SubElement(root, prefix + key).text = str(value)
    if meta.vcpus_request_milli is not None or meta.memory_request_mib is not None:
        request = ET.SubElement(root, prefix + "request")
        for key in ("vcpus_request_milli", "memory_request_mib"):
            if getattr(meta, key) is not None:
                request.set(key, str(getattr(meta, key)))
    for name in sorted(meta.labels):
        ET.SubElement(root, prefix + "label", name=name).text = meta.labels[name]
    for selector in meta.anti_affinity:
        ET.SubElement(root, prefix + "anti_affinity").text = selector
    for address in meta.addresses:
        ET.SubElement(root, prefix + "address").text = address
    for option in meta.hopeless:
        ET.SubElement(root, prefix + "hopeless").text = option
    for volume in meta.volumes:
        item = ET.SubElement(root, prefix + "volume", disk=volume.disk, pool=volume.pool, name=volume.name, bytes=str(volume.size))
        if volume.reserve is not None:
            item.set("reserve", str(volume.reserve))
        for flag in ("planned", "given"):
            if getattr(volume, flag):
                item.set(flag, "yes")
    if meta.scaling is not None:
        scaling = ET.SubElement(root, prefix + "scaling", ticket=meta.scaling.ticket, at=meta.scaling.at)
        if meta.scaling.open:
            scaling.set("open", "yes")
        for tag in ("acting", "alerts"):
            for alert in getattr(meta.scaling, tag):
                ET.SubElement(root, prefix + tag).text = alert
    if meta.seed_instance_id is not None:
        seed = ET.SubElement(root, prefix + "seed", instance_id=meta.seed_instance_id, format=meta.seed_format or "nocloud")
        if meta.seed_hash:
            seed.set("sha256", meta.seed_hash)
    return root


def _int(text: Optional[str]) -> Optional[int]:
    """A count; nothing where it is none, whoever wrote that: one domain must not make its host unreadable, or seem to have more room."""
    return int(text) if text is not None and re.fullmatch("[0-9]{1,19}", text.strip()) else None


def from_element(root: ET.Element) -> VmMetadata:
    """Our metadata out of its element, whose children are in our namespace or in none; unknown ones (of newer versions) are passed over."""
    meta = VmMetadata()
    alerts: Dict[str, List[str]] = {"acting": [], "alerts": []}
    for child in root:
        tag = child.tag.rpartition("}")[2]
        if tag in _TEXTS:
            setattr(meta, tag, _int(child.text) if tag in _INTS else child.text or "")
        elif tag == "request":
            meta.vcpus_request_milli = _int(child.get("vcpus_request_milli"))
            meta.memory_request_mib = _int(child.get("memory_request_mib"))
        elif tag == "label":
            meta.labels[child.get("name", "")] = child.text or ""
        elif tag == "anti_affinity":
            meta.anti_affinity.append(child.text or "")
        elif tag == "address":
            meta.addresses.append(child.text or "")
        elif tag == "hopeless":
            meta.hopeless.append(child.text or "")
        elif tag == "volume":
            meta.volumes.append(VolumeRef(
                child.get("disk", ""), child.get("pool", ""), child.get("name", ""), _int(child.get("bytes")) or 0, _int(child.get("reserve")),
                child.get("planned") == "yes", child.get("given") == "yes"))
        elif tag == "scaling":
            meta.scaling = Scaling(child.get("ticket", ""), child.get("at", ""), child.get("open") == "yes")
        elif tag in alerts:
            alerts[tag].append(child.text or "")
        elif tag == "seed":
            meta.seed_instance_id, meta.seed_hash, meta.seed_format = child.get("instance_id"), child.get("sha256"), child.get("format")
    if meta.scaling is not None:
        meta.scaling = dataclasses.replace(meta.scaling, acting=tuple(alerts["acting"]), alerts=tuple(alerts["alerts"]))
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
        "key_name": meta.key_name, "labels": dict(meta.labels), "anti_affinity": list(meta.anti_affinity), "vcpus_request_milli": meta.vcpus_request_milli,
        "memory_request_mib": meta.memory_request_mib, "static_addresses": list(meta.addresses),
    }
