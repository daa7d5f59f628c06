# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hosts said of themselves and what the catalogs offer, as tables for people and as data for programs. Pure."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._images import image_volume_name
from ansible_collections.kvmfleet.core.plugins.module_utils._placement import Room, how_many
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_filters import group_use, memory_text, vcpus_text
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_input import access_of, flavor_of, group_of
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import Flavor, Group, HostCapacity
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import MIB, SpecError, format_size, human_size
from ansible_collections.kvmfleet.core.plugins.plugin_utils._address_pools import read_pool
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, Host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._planning import DEFAULT_MEMORY_MIB, DEFAULT_VCPUS, SEED_BYTES, capacities, check_distinct
from ansible_collections.kvmfleet.core.plugins.plugin_utils._report import Report, failures, reason_of, sentences
from ansible_collections.kvmfleet.core.plugins.plugin_utils._request import DEFAULT_DISK, Constraints, candidates
from ansible_collections.kvmfleet.core.plugins.plugin_utils._table import drop_empty, table, who

BAR_WIDTH = 24
LEGEND = "# in use by running VMs (of a pool: really written), = given out beyond that, . left, ! more given out than there is"
_NUMBERS = ("vcpus", "memory", "disk", "data disk", "VMs", "running", "fits", "quota leaves", "allocated", "used", "of", "left", "vlan", "free", "hosts up",
            "min disk", "min memory", "min vcpus")
_HUGE = 1 << 32


@dataclass
class Fleet:
    """What a report is made of.

    :param hosts: all hosts of the play
    :param results: per host what host_capacity (with C(vms)) returned
    :param values: converted variables of the entry point
    :param left_out: hosts of the inventory that are not in the play
    """

    hosts: List[Host]
    results: Mapping[str, Mapping[str, Any]]
    catalogs: Catalogs
    values: Mapping[str, Any] = field(default_factory=dict)
    left_out: Sequence[str] = ()


def draw_bar(used: float, allocated: float, capacity: float, width: int = BAR_WIDTH) -> str:
    """A bar in plain ASCII: see LEGEND. What there is shows, however little; full is only what is full."""
    def cells(amount: float) -> int:
        if amount <= 0 or capacity <= 0:
            return width if amount > 0 else 0
        return width if amount >= capacity else max(1, min(width - 1, int(amount / capacity * width + 0.5)))
    filled = cells(used)
    drawn = "#" * filled + "=" * (cells(allocated) - filled)
    if allocated > capacity:
        drawn = drawn[:width - 1] + "!"
    return "[{0}]".format(drawn.ljust(width, "."))


def amount(unit: str, value: float) -> str:
    """An amount of a resource for people."""
    if unit == "vcpus":
        return vcpus_text(int(round(value * 1000)))
    size = int(value * (MIB if unit == "mib" else 1))
    return ("-" if size < 0 else "") + human_size(abs(size)) if size else "0"


@dataclass
class Resource:
    """One resource of a host or zone. C(unit) is C(vcpus), C(mib) or C(bytes).

    :param closed: what the hosts of a sum that take no new VMs have left, which is nothing for new VMs and not in C(available)
    """

    name: str
    unit: str
    allocated: float = 0
    used: float = 0
    available: float = 0
    closed: float = 0

    @classmethod
    def of(cls, name: str, unit: str, facts: Mapping[str, Any]) -> Resource:
        suffix = "" if unit == "vcpus" else "_" + unit
        return cls(name, unit, *(facts[key + suffix] for key in ("allocated", "used", "available")))

    @property
    def capacity(self) -> float:
        return self.allocated + self.available + self.closed

    def add(self, other: Resource, schedulable: bool = True) -> None:
        """Add a host's resource, or another sum."""
        self.allocated += other.allocated
        self.used += other.used
        self.available += other.available if schedulable else 0
        self.closed += other.closed if schedulable else other.available

    def cells(self) -> List[Any]:
        return [draw_bar(self.used, self.allocated, self.capacity)] + [amount(self.unit, value) for value in (
            self.allocated, self.used, self.capacity, self.available)]

    def as_data(self, *more: str) -> Dict[str, Any]:
        """As data; a sum is told with C(closed) as well."""
        suffix = "" if self.unit == "vcpus" else "_" + self.unit
        return {key + suffix: getattr(self, key) for key in ("allocated", "used", "capacity", "available") + more}


def resources() -> Dict[str, Resource]:
    """Nothing yet of each resource, to be added to."""
    return {key: Resource(key, unit) for key, unit in (("vcpus", "vcpus"), ("memory", "mib"), ("disk", "bytes"))}


Place = Tuple[str, str]   # region and zone: two regions may each have a zone a


def zone_names(places: Iterable[Place]) -> Dict[Place, str]:
    """What zones are called: by their own names, with the region's before it where two regions have one of that name."""
    known = set(places)
    regions: Dict[str, int] = {}
    for _region, zone in known:
        regions[zone] = regions.get(zone, 0) + 1
    return {(region, zone): "{0}/{1}".format(region, zone) if regions[zone] > 1 and region and zone else zone for region, zone in known}


def _open(access: Any, group: Optional[str]) -> bool:
    """Whether a report for a group speaks of something with this access; one for nobody in particular speaks of everything."""
    return group is None or not (access.admin_only or (access.groups and group not in access.groups))


def _reserved(entry: Mapping[str, Any]) -> Optional[str]:
    if entry.get("groups"):
        return ", ".join(entry["groups"])
    return "administrators" if entry.get("admin_only") else None


class _Reporter:
    """One report."""

    def __init__(self, show: str, fleet: Fleet) -> None:
        self.fleet, self.catalogs, self.values = fleet, fleet.catalogs, fleet.values
        self.group: Optional[str] = fleet.values.get("vm_group") or None
        self.tenant = self._tenant()
        self.why = failures({host.name: fleet.results.get(host.name) or {"msg": "was not asked"} for host in fleet.hosts})
        self.states: Dict[str, Optional[Mapping[str, Any]]] = {
            host.name: None if host.name in self.why else fleet.results[host.name] for host in fleet.hosts}
        self.all = capacities(fleet.hosts, self.states, fleet.catalogs)
        self.group_has = group_use(self.group, self.all) if self.group else []
        known = {host.name: host for host in self.all}
        self.selected: List[Tuple[Host, HostCapacity]] = sorted((
            (host, known[host.name]) for host in candidates(fleet.hosts, Constraints(zone=fleet.values.get("vm_zone"), region=fleet.values.get("vm_region")))
            if _open(known[host.name], self.group)), key=lambda pair: pair[0].name)
        self.zone_names = zone_names((host.region or "", host.zone or "") for host in fleet.hosts)
        self.notes: List[str] = []
        # A group is told nothing of hosts that are closed to it.
        self.silent = {name: why for name, why in self.why.items() if _open(known[name], self.group)}
        self.report = Report(data={"verb": show, "unreachable": sorted(self.silent)})
        if self.group:
            self.report.data["group"] = self.group
        # One machine under two names would be shown, and counted, twice.
        self._without_fault(lambda: check_distinct(self.states))

    def _tenant(self) -> Optional[Group]:
        if not self.group:
            return None
        entry = self.catalogs.find("kvmfleet_groups", "vm_group", self.group) if self.catalogs.names("kvmfleet_groups") else {}
        return group_of(self.group, entry)

    # -- what all reports have ---------------------------------------------------------------------------------------------------------------

    def _entries(self, catalog: str) -> Iterator[Tuple[str, Dict[str, Any]]]:
        """The entries of a catalog that the group may use. A fault in one is told and does not hide the others."""
        for name in self.catalogs.names(catalog):
            entry = self._without_fault(lambda name=name: self.catalogs.entry(catalog, name))  # type: ignore[misc]
            if entry is not None and _open(access_of("{0}.{1}".format(catalog, name), {k: entry.get(k) for k in ("admin_only", "groups")}), self.group):
                yield name, entry

    def _without_fault(self, read: Callable[[], Any]) -> Any:
        """What C(read) returns; None, and a note, where it finds a fault in a catalog."""
        try:
            return read()
        except SpecError as exc:
            self.notes.append(str(exc))
            return None

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], keep: Sequence[str] = ("name",)) -> None:
        if rows:
            headings = [(name, "right" if name in _NUMBERS else "left") for name in columns]
            self.report.lines += table(*drop_empty(headings, rows, keep)) + [""]

    def _status(self, host: Host) -> str:
        if host.name not in self.why:
            return "up" if host.schedulable else "no new VMs"
        result = self.fleet.results.get(host.name) or {}
        return "unreachable" if result.get("unreachable") or result.get("reason") == "host_unreachable" else "failed"

    def _up(self) -> List[Tuple[Host, HostCapacity]]:
        return [(host, capacity) for host, capacity in self.selected if host.name not in self.why]

    def _unseen(self) -> List[str]:
        """The hosts of which nothing is known."""
        others = len(self.why) - len(self.silent)
        return sorted(set(self.silent) | set(self.fleet.left_out)) + (["hosts that are closed to the group"] if others else [])

    def finish(self) -> Report:
        """Notes and the failure, if no host could be asked at all."""
        self.report.data["notes"] = list(self.notes)
        silent: Dict[str, List[str]] = {}
        for host, _capacity in self.selected:
            if host.name in self.why:
                silent.setdefault(self.why[host.name], []).append(host.name)
        told = ["{0}: {1}".format(who(hosts), text) for text, hosts in silent.items()]
        if silent and not self._up():
            self.report.failure = sentences(silent if len(self.selected) == 1 else told)
            self.report.reason = reason_of(next(iter(silent.values()))[0], self.fleet.results)
            hosts = {name: {"reason": reason_of(name, self.fleet.results), "msg": text} for name, text in self.silent.items()}
            self.report.data.update(failed=True, msg=self.report.failure, reason=self.report.reason, hosts=hosts)
            told = []
        self.report.lines += self.notes + told
        return self.report

    # -- capacity ----------------------------------------------------------------------------------------------------------------------------

    def _resources(self, host: Host, capacity: HostCapacity) -> List[Resource]:
        """vcpus, memory, and every pool's disk that the group may use."""
        state = self.states[host.name] or {}
        pools = sorted(name for name, pool in capacity.pools.items() if _open(pool, self.group))
        return [Resource.of("vcpus", "vcpus", state["vcpus"]), Resource.of("memory", "mib", state["memory"])] + [
            Resource.of("disk " + pool, "bytes", state["pools"][pool]) for pool in pools]

    def capacity(self) -> None:
        """Bars of each host, totals by zone, and how many of each flavor fit."""
        rows: List[List[Any]] = []
        data = []
        zones: Dict[Place, Dict[str, Resource]] = {}
        up: Dict[Place, int] = {}
        for host, capacity in self.selected:
            where = [host.name, self._status(host), host.region, host.zone]
            told: Dict[str, Any] = dict(zip(("name", "status", "region", "zone"), where), schedulable=host.schedulable)
            data.append(told)
            if host.name in self.why:
                told["msg"] = self.why[host.name]
                rows.append(where + [None] * 6)
                continue
            place = (host.region or "", host.zone or "")
            zone = zones.setdefault(place, resources())
            up[place] = up.get(place, 0) + 1
            told["pools"] = {}
            for resource in self._resources(host, capacity):
                rows.append(where + [resource.name] + resource.cells())
                kind, _blank, pool = resource.name.partition(" ")
                zone[kind].add(resource, host.schedulable)
                (told["pools"] if pool else told)[pool or kind] = resource.as_data()
        self._table(("host", "status", "region", "zone", "resource", "", "allocated", "used", "of", "left"), rows, ("host", "status"))
        if any(host.name not in self.why for host, _capacity in self.selected):
            self.report.lines[-1:] = [LEGEND, ""]
        self.report.data["hosts"] = data
        self._zones(zones, up)
        self._quota()
        self._flavors(("name", "vcpus", "memory", "disk", "fits", "quota leaves", "by zone"))

    def _zones(self, zones: Mapping[Place, Mapping[str, Resource]], up: Mapping[Place, int]) -> None:
        whole, regions, hosts_up = resources(), {region: resources() for region, _zone in sorted(zones)}, sum(up.values())
        rows: List[List[Any]] = []

        def row(region: str, name: str, hosts: int, found: Mapping[str, Resource]) -> List[Any]:
            return [region, name, hosts] + [text for r in found.values() for text in (
                "{0} of {1}".format(amount(r.unit, r.allocated), amount(r.unit, r.capacity)), amount(r.unit, r.available))]
        for region, total in regions.items():
            inside = [place for place in sorted(zones) if place[0] == region]
            for place in inside:
                for key, resource in zones[place].items():
                    total[key].add(resource)
                    whole[key].add(resource)
                rows.append(row(region, place[1] or "(none)", up[place], zones[place]))
            if len(regions) > 1 and len(inside) > 1:
                rows.append(row(region, "(all)", sum(up[place] for place in inside), total))
        if len(rows) > 1:
            rows.append(row("(all)" if len(regions) > 1 else "", "(all)", hosts_up, whole))
        self._table(("region", "zone", "hosts up", "vcpus", "left", "memory", "left", "disk", "left"), rows, ("zone",))
        closed = ["{0} of {1}".format(amount(r.unit, r.closed), key) for key, r in whole.items() if r.closed > 0]
        if closed:
            self.report.lines[-1:] = ["Not in what is left: {0} on hosts that take no new VMs".format(", ".join(closed)), ""]
        self.report.data["zones"] = {self.zone_names[place]: dict(
            {key: r.as_data("closed") for key, r in found.items()}, hosts=up[place], region=place[0], zone=place[1]) for place, found in zones.items()}
        self.report.data["regions"] = {region: {key: r.as_data("closed") for key, r in found.items()} for region, found in regions.items()}
        self.report.data["total"] = {key: r.as_data("closed") for key, r in whole.items()}

    def _quota(self) -> None:
        """What the group has of its quota."""
        if self.tenant is None:
            return
        used = self.group_has
        limits = (self.tenant.max_vms, self.tenant.max_vcpus_milli, self.tenant.max_memory_mib, self.tenant.max_disk_bytes)
        shows: Sequence[Callable[[int], str]] = (str, vcpus_text, memory_text, human_size)
        texts = []
        self.report.data["quota"] = {}
        for key, what, have, limit, show in zip(("vms", "vcpus_milli", "memory_mib", "disk_bytes"), ("VMs", "vcpus", "memory", "disk"), used, limits,
                                                shows):
            self.report.data["quota"][key] = {"used": have, "limit": limit}
            texts.append("{0}{1} {2}".format(show(have), "" if limit is None else " of " + show(limit), what))
        self.report.lines += ["Group {0} has {1}".format(self.tenant.name, ", ".join(texts)), ""]
        unseen = self._unseen()
        if unseen and any(limit is not None for limit in limits):
            self.notes.append("What group {0} has on {1} is not counted".format(self.tenant.name, who(unseen)))

    def _quota_leaves(self, flavor: Flavor) -> Optional[int]:
        """How many VMs of a flavor the group's quota still allows; None for any number."""
        if self.tenant is None:
            return None
        if self.tenant.locked or not self.tenant.enabled:
            return 0
        used = self.group_has
        limits = (self.tenant.max_vms, self.tenant.max_vcpus_milli, self.tenant.max_memory_mib, self.tenant.max_disk_bytes)
        each = (1, flavor.vcpus_milli, flavor.memory_mib, flavor.disk_bytes)
        return min((max(0, limit - have) // one for limit, have, one in zip(limits, used, each) if limit is not None and one), default=None)

    # -- flavors -----------------------------------------------------------------------------------------------------------------------------

    def _flavor(self, name: str, entry: Mapping[str, Any]) -> Flavor:
        """A flavor as create_vm and the host will count it: with the defaults of what it leaves open, and the seed."""
        sizes = dict({"vcpus": DEFAULT_VCPUS, "memory": "{0}MiB".format(DEFAULT_MEMORY_MIB), "disk": format_size(DEFAULT_DISK)}, **entry)
        flavor = flavor_of(name, sizes)
        return dataclasses.replace(flavor, disk_bytes=flavor.disk_bytes + SEED_BYTES)

    def _flavors(self, columns: Sequence[str]) -> None:
        """The flavors with how many of each fit."""
        known = []
        for name, entry in self._entries("kvmfleet_flavors"):
            flavor = self._without_fault(lambda name=name, entry=entry: self._flavor(name, entry))  # type: ignore[misc]
            if flavor is not None:
                known.append((name, entry, flavor))
        networks = (self.tenant.network,) if self.tenant and self.tenant.network else ()
        place = {key: str(self.values.get("vm_" + key) or "") for key in ("zone", "region")}
        rooms = how_many([flavor.request(group=self.group or "", admin=not self.group, networks=networks, **place) for _name, _entry, flavor in known],
                         self.all, self.values.get("vm_reserve_failures") or 0)
        zones = {(capacity.region, capacity.zone) for _host, capacity in self.selected}
        rows, data = [], []
        for (name, entry, flavor), room in zip(known, rooms):
            by_zone = {self.zone_names[zone]: count for zone, count in sorted(room.zones.items()) if zone in zones}
            leaves = self._quota_leaves(flavor)
            data.append({"name": name, "fits": room.total, "quota_leaves": leaves, "zones": by_zone, "hosts": {h: n for h, n in room.hosts.items() if n},
                         "vcpus_milli": flavor.vcpus_milli, "memory_mib": flavor.memory_mib, "disk_bytes": flavor.disk_bytes, "entry": entry})
            cells = {"name": name, "vcpus": entry.get("vcpus", DEFAULT_VCPUS), "memory": entry.get("memory") or format_size(DEFAULT_MEMORY_MIB * MIB),
                     "disk": entry.get("disk") or format_size(DEFAULT_DISK), "data disk": entry.get("data_disk"), "fits": room.total, "quota leaves": leaves,
                     "by zone": ", ".join("{0} {1}".format(zone or "(none)", count) for zone, count in by_zone.items()) if len(by_zone) > 1 else None,
                     "counted as": self._requests(entry), "up to": ", ".join(str(entry[key]) for key in ("max_vcpus", "max_memory") if entry.get(key)),
                     "description": entry.get("description")}
            rows.append([cells[column] for column in columns])
        self._table(columns, rows, ("name", "fits"))
        self._nowhere(rooms)
        self.report.data["flavors"] = data
        if self.tenant and (self.tenant.locked or not self.tenant.enabled):
            self.notes.append("Group {0} is {1}: it gets no new VMs".format(self.tenant.name, "locked" if self.tenant.locked else "disabled"))
        if self.values.get("vm_reserve_failures") and rows:
            self.notes.append("What fits leaves every single host's VMs a place on the others")

    def _nowhere(self, rooms: Sequence[Room]) -> None:
        """Why a flavor fits nowhere, where that is not for lack of room alone."""
        told: Dict[str, List[str]] = {}
        for room in rooms:
            up = [host.name for host, _capacity in self._up()]
            reasons = [room.refusals[name].sentence for name in up if name in room.refusals]
            if not room.total and reasons:
                full = len(up) - len(reasons)
                said = reasons[:3] + ["and {0} more".format(len(reasons) - 3)] * (len(reasons) > 3)
                said += ["no room on {0}".format("the other one" if full == 1 else "the other {0}".format(full))] * (full > 0)
                told.setdefault("; ".join(said), []).append(room.name)
        self.notes += ["{0} {1} on no host: {2}".format(who(names), "fits" if len(names) == 1 else "fit", text) for text, names in told.items()]

    @staticmethod
    def _requests(entry: Mapping[str, Any]) -> Optional[str]:
        texts = ["{0} {1}".format(entry[key + "_request"], word) for key, word in (("vcpus", "vcpus"), ("memory", "memory")) if entry.get(key + "_request")]
        return ", ".join(texts) or None

    def list_flavors(self) -> None:
        """The flavors on offer."""
        self._flavors(("name", "vcpus", "memory", "disk", "data disk", "up to", "counted as", "fits", "quota leaves", "by zone", "description"))
        self.report.lines.append("1 flavor" if len(self.report.data["flavors"]) == 1 else "{0} flavors".format(len(self.report.data["flavors"])))

    # -- hosts -------------------------------------------------------------------------------------------------------------------------------

    def list_hosts(self) -> None:
        """The hosts with what they are."""
        rows, data = [], []
        for host, capacity in self.selected:
            state = self.states[host.name]
            told: Dict[str, Any] = {"name": host.name, "status": self._status(host), "region": host.region, "zone": host.zone, "schedulable": host.schedulable,
                                    "labels": capacity.labels, "groups": list(host.groups), "admin_only": host.admin_only}
            if state is None:
                told["msg"] = self.why[host.name]
                state = {}
            else:
                domains = state["domains"]
                told.update({"vcpus": state["vcpus"]["total"], "memory_mib": state["memory"]["total_mib"], "vms": domains["defined"],
                             "running": domains["running"], "virt_type": host.virt_type if host.virt_type not in (None, "auto") else state.get("virt_types"),
                             "networks": sorted(capacity.networks)})
                told.update({key: state.get(key) for key in ("libvirt_version", "qemu_version", "arch", "cpu_model", "hostname")})
            data.append(told)
            rows.append([told.get(key) for key in ("name", "status", "region", "zone", "schedulable", "vcpus")]
                        + [amount("mib", told["memory_mib"]) if "memory_mib" in told else None]
                        + [told.get(key) for key in ("vms", "running", "virt_type", "libvirt_version", "qemu_version")]
                        + [_reserved({"groups": host.groups, "admin_only": host.admin_only})])
        self._table(("name", "status", "region", "zone", "schedulable", "vcpus", "memory", "VMs", "running", "virt type", "libvirt", "QEMU",
                     "reserved to"), rows, ("name", "status"))
        self.report.data["hosts"] = data
        self.report.lines.append("{0}, {1} up".format("1 host" if len(rows) == 1 else "{0} hosts".format(len(rows)), len(self._up())))

    # -- images ------------------------------------------------------------------------------------------------------------------------------

    def _hosts_text(self, names: Sequence[str]) -> str:
        up = [host.name for host, _capacity in self._up()]
        return "none" if not names else "all" if len(up) > 1 and set(names) >= set(up) else who(sorted(names))

    def _has_volume(self, host: Host, entry: Mapping[str, Any], volume: str) -> bool:
        pool = entry.get("pool") or host.image_pool or host.pool
        pools = (self.states[host.name] or {}).get("pools") or {}
        return volume in ((pools.get(pool) or {}).get("volumes") or [])

    def list_images(self) -> None:
        """The images on offer, and which hosts have them already."""
        rows, data = [], []
        for name, entry in self._entries("kvmfleet_images"):
            volume = self._without_fault(lambda name=name, entry=entry: image_volume_name(name, entry))  # type: ignore[misc]
            there = [host.name for host, _capacity in self._up() if volume and self._has_volume(host, entry, volume)]
            data.append(dict({key: value for key, value in entry.items() if key not in ("url", "path")}, name=name, volume=volume, hosts=there))
            system = " ".join(str(entry[key]) for key in ("os_type", "os_variant") if entry.get(key))
            rows.append([name] + [entry.get(key) for key in ("min_disk", "min_memory", "min_vcpus", "default_user")]
                        + [system, entry.get("arch"), "yes" if entry.get("eol") else None, _reserved(entry), self._hosts_text(there), entry.get("description")])
        self._table(("name", "min disk", "min memory", "min vcpus", "user", "system", "arch", "end of life", "reserved to", "on hosts", "description"), rows)
        self.report.data["images"] = data
        self.report.lines.append("1 image" if len(rows) == 1 else "{0} images".format(len(rows)))

    # -- networks ----------------------------------------------------------------------------------------------------------------------------

    def _pool(self, network: str, entry: Mapping[str, Any], taken: Sequence[str]) -> Dict[str, Any]:
        """The network's address pool, as far as the group may use it."""
        if not entry.get("pool"):
            return {}
        pool = self._without_fault(lambda: read_pool(entry["pool"], self.catalogs, network))
        if pool is None or (self.group and pool.groups and self.group not in pool.groups):
            return {}
        used = pool.used(taken)
        return {"name": pool.name, "size": pool.size, "used": used, "free": pool.size - used, "groups": pool.groups}

    def list_networks(self) -> None:
        """The networks of the catalog and those that hosts have besides."""
        listed = dict(self._entries("kvmfleet_networks"))
        catalog = set(self.catalogs.names("kvmfleet_networks"))
        for _host, capacity in self._up():
            listed.update({name: {} for name in capacity.networks if name not in catalog})
        taken = [address for state in self.states.values() for vm in (state or {}).get("vms") or [] for address in vm.get("addresses") or []]
        rows, data = [], []
        for name in sorted(listed):
            entry = listed[name]
            pool = self._pool(name, entry, taken)
            there = [host.name for host, capacity in self._up() if name in capacity.networks]
            data.append(dict(entry, name=name, address_pool=pool or None, hosts=there))
            free = pool.get("free")
            rows.append([name, entry.get("cidr"), entry.get("vlan"), entry.get("gateway"), pool.get("name"), pool.get("used"),
                         "over {0}".format(_HUGE) if free is not None and free > _HUGE else free, _reserved(entry), self._hosts_text(there),
                         entry.get("description")])
        self._table(("name", "cidr", "vlan", "gateway", "address pool", "used", "free", "reserved to", "on hosts", "description"), rows)
        self.report.data["networks"] = data
        self.report.lines.append("1 network" if len(rows) == 1 else "{0} networks".format(len(rows)))
        if any(row[4] for row in rows) and self._unseen():
            self.notes.append("Addresses of VMs on {0} are not counted".format(who(self._unseen())))


SHOWS = ("capacity", "list_hosts", "list_images", "list_flavors", "list_networks")


def compose(show: str, fleet: Fleet) -> Report:
    """One of the reports C(SHOWS). Raises SpecError for a zone, region or group that does not exist, and for host variables that make no sense.

    It is a failure only where none of the hosts could be asked.
    """
    reporter = _Reporter(show, fleet)
    getattr(reporter, show)()
    return reporter.finish()
