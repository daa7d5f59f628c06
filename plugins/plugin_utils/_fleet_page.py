# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fleet page shows, out of what the hosts said of themselves: bars, blocks, words, and the facts of each VM. Pure."""
from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import MIB, human_size
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_filters import vcpus_text
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet_report import Fleet, Resource, amount, zone_names
from ansible_collections.kvmfleet.core.plugins.plugin_utils._last_run import read_run
from ansible_collections.kvmfleet.core.plugins.plugin_utils._report import Report
from ansible_collections.kvmfleet.core.plugins.plugin_utils._table import plain, who

# State of a VM -> how its blocks look. The page explains each in its legend; KINDS is their order within a bar.
_LOOKS = {"running": "run", "paused": "hold", "stopping": "busy", "stopped": "stop", "pending": "busy", "building": "busy", "deleting": "busy",
          "failed": "bad", "crashed": "bad"}
KINDS = ("run", "hold", "bad", "busy", "stop", "alien", "rest")
_LABEL_SHARE = 0.14     # of a bar, from which on a block has room for a name
_THIN_SHARE = 0.015     # of a bar, below which a line between two blocks would hide them: neighbours of one look are drawn as one
_LITTLE = 0.05          # of a pool, below which what is really free is worth a warning
_TROUBLE = {"failed": "", "crashed": "", "paused": "QEMU pauses a VM when it cannot write, as on a full disk"}
_TOTALS = {"vcpus": "vCPUs", "memory": "Memory", "disk": "Disk"}


class Widths:
    """CSS classes for widths. A strict content security policy allows no style attributes."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._classes: Dict[str, str] = {}

    def of(self, share: float) -> str:
        """The class for a share of the whole."""
        text = "{0:.3f}".format(max(0.0, min(1.0, share)) * 100).rstrip("0").rstrip(".")
        return self._classes.setdefault(text, "{0}{1}".format(self._prefix, len(self._classes)))

    def css(self) -> str:
        """A rule for each class."""
        return "\n".join(".{0}{{width:{1}%}}".format(name, text) for text, name in self._classes.items())


@dataclass
class Block:
    """A piece of a bar. C(vm) is the VM's number, None for what is no single VM's; C(name) is shown where C(wide); C(inner) are thin ones drawn as one."""

    kind: str
    width: str
    name: str = ""
    vm: Optional[int] = None
    wide: bool = False
    thin: bool = False
    inner: List[Block] = field(default_factory=list)


@dataclass
class Bar:
    """One resource, drawn: what is given out piece by piece, what is closed to new VMs and what is reserved at the end, what is really used below, and
    C(excess), the part of it that is more than there is."""

    name: str
    given: str
    left: str
    used: str
    percent: str
    used_width: str
    over: bool = False
    blocks: List[Block] = field(default_factory=list)
    reserved_width: str = ""
    reserved: str = ""
    closed_width: str = ""
    closed: str = ""
    excess: str = ""
    note: str = ""
    full: float = 0


@dataclass
class Card:
    """One host."""

    number: int
    name: str
    status: str
    message: str = ""
    facts: str = ""
    room: str = ""
    bars: List[Bar] = field(default_factory=list)
    vms: List[int] = field(default_factory=list)
    others: int = 0
    flags: List[str] = field(default_factory=list)

    @property
    def up(self) -> bool:
        """Whether it answered."""
        return not self.message

    @property
    def attention(self) -> bool:
        """Whether somebody has to look at it."""
        return bool(self.flags) or not self.up

    @property
    def full(self) -> int:
        """How full it is where it is the fullest, for sorting."""
        return max((int(meter.full * 1000) for meter in self.bars), default=-1)


@dataclass
class Zone:
    """The hosts of a zone (or of a region), and bars of all of them together."""

    region: str
    name: str
    cards: List[Card] = field(default_factory=list)
    bars: List[Bar] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What it is called."""
        return " / ".join(filter(None, (self.region, self.name))) or "No zone"

    @property
    def up(self) -> int:
        """How many of its hosts answered."""
        return len([card for card in self.cards if card.up])

    @property
    def attention(self) -> int:
        """How many of its hosts somebody has to look at."""
        return len([card for card in self.cards if card.attention])


@dataclass
class Link:
    """Where to look: a host, and a VM of it."""

    text: str
    host: int
    vm: Optional[int] = None


@dataclass
class Trouble:
    """Something that needs attention: what, where, and perhaps why."""

    what: str
    links: List[Link]
    why: str = ""


@dataclass
class Page:
    """All that is on the page but its time.

    :param data: what is embedded for the page's script and for the next run: hosts and VMs as plain data
    """

    title: str
    zones: List[Zone] = field(default_factory=list)
    regions: List[Zone] = field(default_factory=list)
    troubles: List[Trouble] = field(default_factory=list)
    bars: List[Bar] = field(default_factory=list)
    flavors: List[Dict[str, Any]] = field(default_factory=list)
    flavor_zones: List[str] = field(default_factory=list)
    quota: List[str] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)
    silent: List[Tuple[str, str]] = field(default_factory=list)
    last_run: Optional[Dict[str, Any]] = None
    reserve: bool = False
    widths: Widths = field(default_factory=lambda: Widths("w"))
    uses: Widths = field(default_factory=lambda: Widths("u"))
    data: Dict[str, List[Dict[str, Any]]] = field(default_factory=lambda: {"hosts": [], "vms": []})

    @property
    def hosts(self) -> List[Card]:
        """All hosts."""
        return [card for zone in self.zones for card in zone.cards]

    @property
    def up(self) -> int:
        """How many hosts answered."""
        return sum(zone.up for zone in self.zones)

    @property
    def attention(self) -> int:
        """How many hosts somebody has to look at."""
        return sum(zone.attention for zone in self.zones)

    @property
    def closed(self) -> bool:
        """Whether there is a host that takes no new VMs."""
        return any(card.status == "no new VMs" for card in self.hosts)

    def zones_of(self, region: str) -> List[Tuple[int, Zone]]:
        """The zones of a region with their numbers."""
        return [(number, zone) for number, zone in enumerate(self.zones, 1) if zone.region == region]

    @property
    def others(self) -> int:
        """How many VMs other groups have, of which nothing is told."""
        return sum(card.others for card in self.hosts)

    @property
    def states(self) -> Dict[str, int]:
        """How many VMs are in which state, the most frequent first."""
        counts: Dict[str, int] = {}
        for vm in self.data["vms"]:
            counts[vm["state"]] = counts.get(vm["state"], 0) + 1
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def natural(text: str) -> List[Any]:
    """A key that sorts kvm2 before kvm10."""
    return [(0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part) for part in re.split("([0-9]+)", text)]


def percent(part: float, whole: float) -> str:
    """A share for people. Full is only what is full, and nothing only what is nothing."""
    if whole <= 0:
        return "-" if part <= 0 else "over 100 %"
    if part > whole:
        return "{0} %".format(max(101, round(part / whole * 100)))
    share = int(part / whole * 100)
    return "under 1 %" if part > 0 and share == 0 else "{0} %".format(share)


def _vcpus(milli: float) -> str:
    """Thousandths of vCPUs in words."""
    return "{0} vCPU{1}".format(vcpus_text(int(milli)), "" if milli == 1000 else "s")


# -- VMs -------------------------------------------------------------------------------------------------------------------------------------

def state_of(vm: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    """The state of a VM: as vm_info saw it, else what its being active and its phase say."""
    if info.get("state"):
        return plain(info["state"])
    phase = str(vm.get("phase") or "ready")
    return phase if phase != "ready" else "stopped" if vm.get("stopped") else "running"


def _disks(vm: Mapping[str, Any]) -> Dict[str, int]:
    """Bytes that are counted for a VM, by pool."""
    found: Dict[str, int] = {}
    for disk in vm.get("disks") or []:
        found[disk["pool"]] = found.get(disk["pool"], 0) + disk["bytes"]
    return found


def _facts(vm: Mapping[str, Any], info: Mapping[str, Any], host: str) -> Dict[str, Any]:
    """What the page tells of a VM. Nothing of it is secret; what has no value is left out."""
    vcpus, memory = info.get("vcpus", vm.get("vcpus")), info.get("memory_mib", vm.get("limit_mib"))
    sizes = [_vcpus(vcpus * 1000)] if vcpus else []
    sizes += [human_size(memory * MIB)] if memory else []
    addresses = [str(entry["address"]) for entry in info.get("addresses") or []] or list(vm.get("addresses") or [])
    said = {
        "name": plain(vm["name"]) or "?", "host": host, "state": state_of(vm, info), "size": ", ".join(sizes) or "unknown",
        "disk": ", ".join("{0} in {1}".format(human_size(size), plain(pool)) for pool, size in sorted(_disks(vm).items())),
        "counted": "{0}, {1}".format(_vcpus(vm["vcpus_milli"]), amount("mib", vm["memory_mib"])),
        "addresses": [plain(address).partition("/")[0] for address in addresses],
        "networks": [plain(name) for name in vm.get("networks") or []],
        "labels": ["{0}={1}".format(plain(key), plain(value)) for key, value in sorted((vm.get("labels") or {}).items())],
        "managed": None if vm.get("managed") else False, "description": plain(info.get("description") or "")}
    said.update({key: plain(vm[key]) for key in ("image", "flavor", "group", "namespace", "set", "uuid") if vm.get(key)})
    return {key: value for key, value in said.items() if value not in (None, "", [])}


def _size(vm: Mapping[str, Any], resource: str, pool: str, stopped_factor: float) -> float:
    """How much of a resource is counted for a VM: of vcpus and memory of a stopped one by the host's factor, of a claim always in full."""
    if resource == "disk":
        return _disks(vm).get(pool, 0)
    whole = vm["vcpus_milli"] / 1000 if resource == "vcpus" else vm["memory_mib"]
    return float(whole) * (stopped_factor if vm.get("stopped") and vm.get("phase") not in ("pending", "building") else 1.0)


@dataclass
class _Amounts(Resource):
    """A resource with what is reserved (times its ratio, as what is given out is), and the scale on which it is drawn."""

    reserved: float = 0

    @classmethod
    def read(cls, name: str, unit: str, facts: Mapping[str, Any]) -> _Amounts:
        """Out of what host_capacity says of it."""
        suffix = "" if unit == "vcpus" else "_" + unit
        amounts = cls(name, unit, *(facts[key + suffix] for key in ("allocated", "used", "available")))
        if facts["reserved" + suffix]:
            amounts.reserved = max(0.0, facts["total" + suffix] * facts["ratio"] - amounts.capacity)
        return amounts

    @property
    def whole(self) -> float:
        """What the whole bar stands for."""
        return max(self.capacity + self.reserved, self.allocated, 0)

    def share(self, part: float) -> float:
        """A part of the bar."""
        return part / self.whole if self.whole > 0 else 0.0

    def text(self, value: float) -> str:
        """An amount for people."""
        return amount(self.unit, value)

    def sum_up(self, other: _Amounts) -> None:
        """Add a host's, of which what is closed is closed in the sum too."""
        self.add(other)
        self.reserved += other.reserved

    def close(self) -> None:
        """What a host that takes no new VMs has left is nothing for them."""
        self.available, self.closed = 0, self.available


class _Pages:
    """One page in the making."""

    def __init__(self, fleet: Fleet, report: Report, infos: Mapping[str, Mapping[str, Any]], title: str) -> None:
        self.fleet, self.report, self.infos = fleet, report, infos
        self.group = report.data.get("group")
        self.page = Page(title)
        self.factors = {host.name: 1.0 if host.stopped_factor is None else host.stopped_factor for host in fleet.hosts}
        self.sums: Dict[Any, Dict[str, _Amounts]] = {}
        self.beyond: Dict[int, List[Bar]] = {}
        self.filled: Dict[int, List[Bar]] = {}
        self.written: Dict[int, List[Bar]] = {}
        self.room: Dict[str, List[str]] = {}

    def make(self) -> Page:
        page, data = self.page, self.report.data
        self._flavors()
        zones: Dict[Tuple[str, str], Zone] = {}
        for told in sorted(data["hosts"], key=lambda host: natural(host["name"])):
            place = (plain(told.get("region") or ""), plain(told.get("zone") or ""))
            zones.setdefault(place, Zone(*place)).cards.append(self._card(told, place))
        page.zones = [zones[place] for place in sorted(zones, key=lambda place: (natural(place[0]), natural(place[1])))]
        for zone in page.zones:
            zone.bars = self._sums((zone.region, zone.name))
        regions = sorted({zone.region for zone in page.zones}, key=natural)
        page.regions = [Zone(region, "", [card for zone in page.zones if zone.region == region for card in zone.cards], self._sums(region))
                        for region in regions]
        page.bars = self._sums(None)
        self._troubles()
        page.notes = [plain(note) for note in data.get("notes") or []] + self._unseen()
        page.reserve = bool(self.fleet.values.get("vm_reserve_failures"))
        self._quota()
        return page

    def _troubles(self) -> None:
        """What an operator should look at, the worst first."""
        page = self.page
        silent: Dict[str, List[Card]] = {}
        for card in page.hosts:
            if not card.up:
                silent.setdefault(card.message, []).append(card)
        for text, cards in silent.items():
            cards.sort(key=lambda card: natural(card.name))
            page.silent.append((who([card.name for card in cards]), text))
            page.troubles.append(Trouble("No answer, and not counted", [Link(card.name, card.number) for card in cards], text))
        for state, why in _TROUBLE.items():
            vms = [Link("{0} on {1}".format(page.data["vms"][number]["name"], card.name), card.number, number)
                   for card in page.hosts for number in card.vms if page.data["vms"][number]["state"] == state]
            page.troubles.append(Trouble("{0} VM{1} {2}".format(len(vms), "" if len(vms) == 1 else "s", state), vms, why))
        page.troubles.append(Trouble("Over-booked", self._worst(self.beyond)))
        page.troubles.append(Trouble("Pools with nothing left to give out", self._worst(self.filled)))
        page.troubles.append(Trouble("Pools almost full of what is written", self._worst(self.written, False), _TROUBLE["paused"]))
        page.troubles = [trouble for trouble in page.troubles if trouble.links]

    def _worst(self, found: Mapping[int, Sequence[Bar]], told: bool = True) -> List[Link]:
        """Links to hosts with their resources, the fullest first."""
        names = {card.number: card.name for card in self.page.hosts}
        ranked = sorted(found.items(), key=lambda item: (-max(meter.full for meter in item[1]), natural(names[item[0]])))
        texts = {number: ", ".join("{0} {1}".format(meter.name, meter.percent) if told else meter.name for meter in bars) for number, bars in ranked}
        return [Link("{0}: {1}".format(names[number], text), number) for number, text in texts.items()]

    def _watch(self, card: Card, amounts: _Amounts, meter: Bar, facts: Mapping[str, Any]) -> None:
        """Note what is wrong with one resource of a host."""
        over, pool = meter.over, amounts.unit == "bytes"
        if over or (pool and amounts.available + amounts.closed <= 0 < amounts.allocated):
            (self.filled if pool else self.beyond).setdefault(card.number, []).append(meter)
            card.flags.append("{0} {1}".format(amounts.name, "over-booked" if over else "full"))
        if pool and 0 <= facts.get("free_bytes", -1) < _LITTLE * facts["total_bytes"]:
            self.written.setdefault(card.number, []).append(meter)
            card.flags.append("{0} almost full".format(amounts.name))

    def _unseen(self) -> List[str]:
        """Hosts that told their capacity and then failed to tell more."""
        told: Dict[str, List[str]] = {}
        for host in sorted((card.name for card in self.page.hosts if card.up), key=natural):
            info = self.infos.get(host) or {}
            if info.get("msg") and "vms" not in info:
                told.setdefault(plain(info["msg"]), []).append(host)
        return ["Addresses and descriptions of VMs on {0} are missing: {1}".format(who(hosts), text) for text, hosts in told.items()]

    # -- hosts ---------------------------------------------------------------------------------------------------------------------------

    def _card(self, told: Mapping[str, Any], place: Tuple[str, str]) -> Card:
        name = plain(told["name"])
        card = Card(len(self.page.data["hosts"]), name, told["status"], plain(told["msg"]) or "no answer" if "msg" in told else "")
        self.page.data["hosts"].append({key: value for key, value in (
            ("name", name), ("region", place[0]), ("zone", place[1]), ("status", told["status"]), ("message", card.message)) if value})
        if not card.up:
            return card
        state = self.fleet.results[told["name"]]
        vms = self._vms(told["name"], state)
        card.vms, card.others = [number for _vm, _kind, number in vms if number is not None], len([1 for _vm, _kind, number in vms if number is None])
        counts = [(state, len([1 for number in card.vms if self.page.data["vms"][number]["state"] == state])) for state in _TROUBLE]
        card.flags = ["{0} {1}".format(count, word) for word, count in counts if count]
        factor = self.factors[told["name"]]
        resources = [("vCPUs", "vcpus", "vcpus", state["vcpus"], ""), ("Memory", "memory", "mib", state["memory"], "")]
        resources += [("Pool " + plain(pool), "disk", "bytes", state["pools"][pool], pool) for pool in sorted(told["pools"], key=natural)]
        for label, key, unit, facts, pool in resources:
            amounts = _Amounts.read(label, unit, facts)
            if not told["schedulable"]:
                amounts.close()
            pieces = [(vm, kind, number, _size(vm, key, pool, factor)) for vm, kind, number in vms]
            card.bars.append(self._bar(amounts, [piece for piece in pieces if piece[3] > 0 or unit != "bytes"]))
            self._watch(card, amounts, card.bars[-1], facts)
            for where in (place, place[0], None):
                whole = self.sums.setdefault(where, {}).setdefault(key, _Amounts(_TOTALS[key], unit))
                whole.sum_up(amounts)
        self.page.data["hosts"][-1]["given"] = {meter.name: meter.given for meter in card.bars}
        versions = (("libvirt", "libvirt_version"), ("QEMU", "qemu_version"))
        card.facts = ", ".join("{0} {1}".format(name, plain(state[key])) for name, key in versions if state.get(key))
        card.room = ", ".join(self.room.get(told["name"], []))
        return card

    def _vms(self, host: str, state: Mapping[str, Any]) -> List[Tuple[Mapping[str, Any], str, Optional[int]]]:
        """A host's VMs with their looks and numbers, in the order in which they are drawn. Those of other groups than the page's have no number."""
        infos = {str(vm["uuid"]): vm for vm in (self.infos.get(host) or {}).get("vms") or []}
        found = []
        for vm in state.get("vms") or []:
            info = infos.get(str(vm["uuid"]), {})
            kind = "rest" if self.group and vm.get("group") != self.group else "alien" if not vm.get("managed") else _LOOKS.get(state_of(vm, info), "bad")
            found.append((KINDS.index(kind), natural(str(vm["name"])), vm, info, kind))
        vms: List[Tuple[Mapping[str, Any], str, Optional[int]]] = []
        for _rank, _name, vm, info, kind in sorted(found, key=lambda item: item[:2]):
            number = None
            if kind != "rest":
                number = len(self.page.data["vms"])
                self.page.data["vms"].append(_facts(vm, info, plain(host)))
            vms.append((vm, kind, number))
        return vms

    def _bar(self, amounts: _Amounts, pieces: Sequence[Tuple[Mapping[str, Any], str, Optional[int], float]]) -> Bar:
        meter = self._empty(amounts)
        rest = amounts.allocated - sum(size for _vm, kind, _number, size in pieces if kind != "rest")
        run: List[Tuple[str, int, float, str]] = []
        for vm, kind, number, size in pieces:
            if number is None:
                continue
            share = amounts.share(size)
            if run and (share >= _THIN_SHARE or run[0][0] != kind):
                meter.blocks += self._thin(run)
                run = []
            if share < _THIN_SHARE:
                run.append((kind, number, share, plain(vm["name"])))
            else:
                meter.blocks.append(Block(kind, self.page.widths.of(share), plain(vm["name"]), number, share >= _LABEL_SHARE))
        meter.blocks += self._thin(run)
        if amounts.share(rest) >= 0.0005:
            # Rounding leaves crumbs that are nobody's
            meter.blocks.append(Block("rest", self.page.widths.of(amounts.share(rest))))
            meter.note = "{0} {1}".format(amounts.text(rest), self._rest_words(amounts, pieces))
        return meter

    def _thin(self, run: Sequence[Tuple[str, int, float, str]]) -> List[Block]:
        """Blocks too thin for a line between them, as one whose parts lie side by side."""
        whole = sum(share for _kind, _number, share, _name in run)
        if len(run) < 2 or whole <= 0:
            return [Block(kind, self.page.widths.of(share), name, number, thin=True) for kind, number, share, name in run]
        return [Block(run[0][0], self.page.widths.of(whole), thin=whole < _THIN_SHARE, inner=[
            Block("", self.page.widths.of(share / whole), name, number) for _kind, number, share, name in run])]

    @staticmethod
    def _rest_words(amounts: _Amounts, pieces: Sequence[Tuple[Mapping[str, Any], str, Optional[int], float]]) -> str:
        others = any(kind == "rest" for _vm, kind, _number, _size in pieces)
        return "of others" if others or amounts.unit != "bytes" else "images"

    def _empty(self, amounts: _Amounts) -> Bar:
        """A bar without blocks."""
        over = amounts.allocated > amounts.capacity
        meter = Bar(
            amounts.name, "{0} of {1}".format(amounts.text(amounts.allocated), amounts.text(amounts.capacity)),
            "{0} left".format(amounts.text(amounts.available)),
            "{0} {1}".format(amounts.text(amounts.used), "written" if amounts.unit == "bytes" else "in use"), percent(amounts.allocated, amounts.capacity),
            self.page.uses.of(amounts.share(amounts.used)) if amounts.used > 0 else "", over)
        meter.full = amounts.allocated / amounts.capacity if amounts.capacity > 0 else float(amounts.allocated > 0) * 10
        if meter.over:
            meter.left = "{0} more than there is".format(amounts.text(amounts.allocated - amounts.capacity))
            meter.excess = self.page.widths.of(amounts.share(amounts.allocated - max(0.0, amounts.capacity)))
        elif amounts.closed > 0:
            meter.closed = "{0} closed".format(amounts.text(amounts.closed))
            meter.closed_width = self.page.widths.of(amounts.share(min(amounts.closed, amounts.capacity - amounts.allocated)))
            meter.left = "{0} left".format(amounts.text(amounts.available)) if amounts.available > 0 else ""
        if amounts.reserved > 0:
            meter.reserved = "{0} reserved".format(amounts.text(amounts.reserved))
            meter.reserved_width = self.page.widths.of(amounts.share(max(0.0, amounts.whole - max(amounts.capacity, amounts.allocated))))
        return meter

    def _sums(self, where: Any) -> List[Bar]:
        """Plain bars of all hosts of a zone (region and name), a region (its name), or the fleet (None)."""
        bars = []
        for amounts in self.sums.get(where, {}).values():
            meter = self._empty(amounts)
            meter.blocks = [Block("run", self.page.widths.of(amounts.share(amounts.allocated)))] if amounts.allocated > 0 else []
            bars.append(meter)
        return bars

    # -- flavors and quota ---------------------------------------------------------------------------------------------------------------

    def _flavors(self) -> None:
        known = zone_names((host.region or "", host.zone or "") for host in self.fleet.hosts)
        there = {zone for flavor in self.report.data["flavors"] for zone in flavor["zones"]}
        zones = [known[place] for place in sorted(known, key=lambda place: (natural(place[0]), natural(place[1]))) if known[place] in there]
        self.page.flavor_zones = [plain(zone) or "(no zone)" for zone in zones] if len(zones) > 1 else []
        for flavor in self.report.data["flavors"]:
            name = plain(flavor["name"])
            for host, count in flavor["hosts"].items():
                self.room.setdefault(host, []).append("{0} {1}".format(count, name))
            self.page.flavors.append({
                "name": name, "fits": flavor["fits"], "leaves": flavor["quota_leaves"], "zones": [flavor["zones"].get(zone, 0) for zone in zones],
                "size": ", ".join((_vcpus(flavor["vcpus_milli"]), amount("mib", flavor["memory_mib"]), human_size(flavor["disk_bytes"]))),
                "description": plain(flavor["entry"].get("description") or "")})

    def _quota(self) -> None:
        shows: Dict[str, Callable[[int], str]] = {"vms": str, "vcpus_milli": vcpus_text, "memory_mib": functools.partial(amount, "mib"),
                                                  "disk_bytes": human_size}
        words = {"vms": "VMs", "vcpus_milli": "vCPUs", "memory_mib": "memory", "disk_bytes": "disk"}
        for key, quota in (self.report.data.get("quota") or {}).items():
            limit = "" if quota["limit"] is None else " of {0}".format(shows[key](quota["limit"]))
            self.page.quota.append("{0}{1} {2}".format(shows[key](quota["used"]), limit, words[key]))


# -- all of it -------------------------------------------------------------------------------------------------------------------------------

def page_of(fleet: Fleet, report: Report, infos: Mapping[str, Mapping[str, Any]], title: str = "Fleet", last_run: Any = None) -> Page:
    """The page.

    :param report: what compose("capacity") says of the fleet
    :param infos: per host what vm_info returned, as far as it did: states and addresses of the VMs
    :param last_run: data of a run whose refusals are to be shown
    """
    page = _Pages(fleet, report, infos, plain(title)).make()
    if last_run is not None:
        page.last_run = read_run(last_run)
    return page


def lines(data: Mapping[str, Sequence[Mapping[str, Any]]]) -> List[str]:
    """The page's data as lines of text, for a diff."""
    said = []
    for host in data["hosts"]:
        given = "; ".join("{0} {1}".format(name, text) for name, text in (host.get("given") or {}).items())
        said.append("host {0}: {1}".format(host.get("name"), ", ".join(filter(None, (host.get("status"), host.get("region"), host.get("zone"), given)))))
    for vm in data["vms"]:
        facts = ("{0} {1}".format(key, " ".join(value) if isinstance(value, list) else value)
                 for key, value in vm.items() if key not in ("name", "host", "uuid"))
        said.append("vm {0} on {1}: {2}".format(vm.get("name"), vm.get("host"), ", ".join(facts)))
    return said
