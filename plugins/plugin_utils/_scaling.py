# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether and how a set of VMs is scaled, and what its new members are like the existing ones in. Pure.

Who acts, and how often, is settled by what the set's first member (that of the smallest number) keeps of the last act: see decide() and notes_for().
"""
from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, format_size
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _request
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, Host

# A run that has not said how it ended holds its alert for so long; then it is taken for dead.
WORK_S = 900
MOST_ALERTS = 100
SEED_VARIABLES = ("vm_ssh_key", "vm_users", "vm_root_password", "vm_user_data", "vm_meta_data", "vm_network_config", "vm_packages", "vm_runcmd",
                  "vm_write_files", "vm_timezone", "vm_locale", "vm_seed_format")
_SEED = "seed"
_CPU_MODES = ("host-passthrough", "host-model", "maximum")
_USUAL_CPU_MODE = {"kvm": "host-model", "qemu": "maximum"}


@dataclass(frozen=True)
class Ask:
    """What is asked for: a number of members, or a step up or down. C(alerts) are digests of what it is asked for by."""

    count: Optional[int] = None
    direction: Optional[str] = None
    minimum: int = 1
    maximum: Optional[int] = None
    step: int = 1
    cooldown_s: int = 0
    alerts: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Member:
    """A VM of the set, as vm_info has described it (C(vm))."""

    index: int
    name: str
    host: str
    vm: Mapping[str, Any] = field(compare=False, hash=False)

    @property
    def uuid(self) -> str:
        return str(self.vm["uuid"])


@dataclass(frozen=True)
class Note:
    """What is kept of the last act. C(age_s) is None where it is not known."""

    ticket: str = ""
    at: Optional[str] = None
    age_s: Optional[float] = None
    open: bool = False
    acting: Tuple[str, ...] = ()
    alerts: Tuple[str, ...] = ()

    def younger_than(self, seconds: float) -> bool:
        """Whether it is from less than so many seconds ago; nor is it from the future, but for a clock that was set back by less."""
        return self.age_s is not None and abs(self.age_s) < seconds


@dataclass
class Found:
    """A set as it was found.

    :param members: those that are there, by number
    :param occupied: number -> the VM of another origin, or the failed member, that has the name
    :param unfinished: members that are being made or deleted, or were when a run died
    """

    members: List[Member] = field(default_factory=list)
    occupied: Dict[int, str] = field(default_factory=dict)
    unfinished: List[Member] = field(default_factory=list)

    @property
    def exists(self) -> bool:
        return bool(self.members or self.unfinished)


@dataclass
class Decision:
    """What is to be done: numbers of new members (C(add)), or members that go (C(remove)); neither where C(code) is why nothing is."""

    size: int
    target: int
    code: str
    words: str
    add: List[int] = field(default_factory=list)
    remove: List[Member] = field(default_factory=list)

    @property
    def acts(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.add or self.remove)


def digest(alert: str) -> str:
    """An alert as it is kept: what outsiders write is never stored as it is."""
    return hashlib.sha256(alert.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def ask_of(values: Mapping[str, Any]) -> Ask:
    """What the variables ask for. Raises SpecError."""
    count, direction = values.get("vm_count"), values.get("vm_direction")
    minimum, maximum = values["vm_min"], values.get("vm_max")
    if (count is None) == (direction is None):
        raise SpecError("vm_direction", direction, "is given together with vm_count" if count is not None else "is missing, and so is vm_count",
                        "Give vm_direction=up or down to go a step, or vm_count for a number", "invalid_value" if count is not None else "missing_variable")
    if maximum is not None and maximum < minimum:
        raise SpecError("vm_max", maximum, "is less than vm_min ({0})".format(minimum), "Raise it, or lower vm_min")
    if direction == "up" and maximum is None:
        raise SpecError("vm_max", None, "is missing: a set that grows by steps needs an end", "Give the largest number of VMs", "missing_variable")
    if count is not None:
        if values.get("vm_alert"):
            raise SpecError("vm_alert", ",".join(values["vm_alert"]), "is given together with vm_count, which is done whoever asks for it",
                            "Give vm_direction instead of vm_count, or leave vm_alert out")
        if count < minimum or (maximum is not None and count > maximum):
            raise SpecError("vm_count", count, "is outside of vm_min ({0}) and vm_max ({1})".format(minimum, "none" if maximum is None else maximum),
                            "Ask for a number in between, or change these")
    alerts = tuple(dict.fromkeys(digest(alert) for alert in values.get("vm_alert") or []))
    return Ask(count, direction, minimum, maximum, values["vm_step"], values["vm_cooldown"], alerts)


def set_of(values: Mapping[str, Any], found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Found:
    """The set among the VMs that the hosts have. Raises SpecError where two hosts have one member."""
    label, group = str(values["vm_name"]), values.get("vm_group") or None
    namespace = (values.get("vm_namespace") or _request.DEFAULT_NAMESPACE) if group else None
    result = Found()
    seen: Dict[int, Member] = {}
    ending = _request.full_name(values, "")
    for host, vms in found.items():
        for vm in vms:
            name = str(vm["name"])
            number = name[len(label) + 1:len(name) - len(ending)] if name.startswith(label + "-") and name.endswith(ending) else ""
            index = int(number) if number.isdigit() and str(int(number)) == number else None
            ours = vm.get("managed") and vm.get("set") == label and (vm.get("group") or None, vm.get("namespace") or None) == (group, namespace)
            if not ours or vm.get("index") is None or name != _request.full_name(values, "{0}-{1}".format(label, vm["index"])):
                if index is not None:
                    result.occupied[index] = name
                continue
            member = Member(int(vm["index"]), name, host, vm)
            if member.index in seen:
                raise SpecError("vm_name", name, "is there twice, on {0} and on {1}".format(seen[member.index].host, host),
                                "Delete one of them (delete_vm with vm_host)", "exists_twice")
            seen[member.index] = member
            if vm.get("phase") == "failed":
                result.occupied[member.index] = name
            elif vm.get("phase") in ("pending", "building", "deleting"):
                result.unfinished.append(member)
            else:
                result.members.append(member)
    result.members.sort(key=lambda member: member.index)
    return result


def note_of(vm: Mapping[str, Any]) -> Note:
    """What a member keeps of the last act."""
    kept = vm.get("scaling")
    if not kept:
        return Note()
    return Note(str(kept["ticket"]), kept["at"], kept["age_s"], bool(kept["open"]), tuple(kept["acting"]), tuple(kept["alerts"]))


def last_note(members: Sequence[Member]) -> Note:
    """The last act that any member knows of, with the alerts that all of them know. The first member may have been deleted and made anew since."""
    notes = [note for note in (note_of(member.vm) for member in members) if note.ticket]
    if not notes:
        return Note()
    latest = min(notes, key=lambda note: float("inf") if note.age_s is None else note.age_s)
    alerts = tuple(dict.fromkeys(alert for note in notes for alert in note.alerts))
    return Note(latest.ticket, latest.at, latest.age_s, latest.open, latest.acting, alerts)


def _target(ask: Ask, size: int) -> int:
    """How many members there are to be. A step never leads beyond the bounds, and never away from them either."""
    if ask.count is not None:
        return ask.count
    if ask.direction == "up":
        wanted = max(size + ask.step, ask.minimum)
        return max(size, wanted if ask.maximum is None else min(wanted, ask.maximum))
    return min(size, max(size - ask.step, ask.minimum))


def _held_back(ask: Ask, note: Note) -> Optional[Tuple[str, str]]:
    """Why a step has to wait, as code and words."""
    ago = "some time" if note.age_s is None else "{0:.0f} s".format(note.age_s)
    fresh = set(ask.alerts) - set(note.alerts)
    if ask.alerts and not fresh:
        return "alert_done", "this alert has been acted on" if len(ask.alerts) == 1 else "these alerts have been acted on"
    if ask.alerts and note.open and not fresh - set(note.acting) and note.younger_than(max(WORK_S, ask.cooldown_s)):
        return "alert_done", "another run has been acting on this alert for {0}".format(ago)
    if note.ticket and note.younger_than(ask.cooldown_s):
        return "cooldown", "the set was scaled {0} ago, and vm_cooldown is {1} s".format(ago, ask.cooldown_s)
    return None


def free_numbers(found: Found, count: int) -> List[int]:
    """The numbers of new members: the smallest that are free. Not one before the first member, which keeps what all runs have to see."""
    first = found.members[0].index if found.members else 1
    taken = {member.index for member in found.members} | set(found.occupied)
    free: List[int] = []
    number = first
    while len(free) < count:
        if number not in taken:
            free.append(number)
        number += 1
    return free


def decide(ask: Ask, found: Found, note: Note) -> Decision:
    """What is to be done to a set."""
    size = len(found.members)
    held = _held_back(ask, note) if ask.direction is not None else None
    target = size if held else _target(ask, size)
    if target > size:
        return Decision(size, target, "scaled_up", "from {0} to {1}".format(size, target), add=free_numbers(found, target - size))
    if target < size:
        return Decision(size, target, "scaled_down", "from {0} to {1}".format(size, target), remove=found.members[target:][::-1])
    if held:
        return Decision(size, size, *held)
    if ask.count is not None:
        return Decision(size, size, "as_asked", "it has as many as asked for")
    if ask.direction == "up":
        return Decision(size, size, "at_max", "vm_max is {0}".format(ask.maximum))
    return Decision(size, size, "at_min", "vm_min is {0}".format(ask.minimum))


def notes_for(ask: Ask, first: Member, last: Note, ticket: str) -> Dict[str, Dict[str, Any]]:
    """The items of vm_set by which the first member is told of a run: C(begin), if it still keeps what it kept when it was looked at; then C(done), with
    which the cooldown begins, or C(undone), as if nothing had been.
    """
    own, alerts = note_of(first.vm), list(last.alerts[-MOST_ALERTS:])
    acting = list(ask.alerts[-MOST_ALERTS:])
    return {"begin": {"name": first.name, "scaling": {"expect": own.ticket, "ticket": ticket, "open": True, "acting": acting, "alerts": alerts}},
            "done": done_note(ask, first.name, alerts, ticket, ticket),
            "undone": {"name": first.name, "scaling": {"expect": ticket, "ticket": own.ticket, "at": own.at, "alerts": alerts}}}


def done_note(ask: Ask, name: str, alerts: Sequence[str], ticket: str, expect: str = "") -> Dict[str, Any]:
    """The item by which the first member is told that a run has ended well; without C(expect) that of a set that is new."""
    known = [alert for alert in alerts if alert not in ask.alerts] + list(ask.alerts)
    return {"name": name, "scaling": {"expect": expect, "ticket": ticket, "alerts": known[-MOST_ALERTS:]}}


# -- what new members are like ---------------------------------------------------------------------------------------------------------------

def filled(values: Mapping[str, Any], like: Mapping[str, Any]) -> Dict[str, Any]:
    """The variables of new members: what was given, and for the rest what the set's first member has. Without a number or a step."""
    result = dict(values, vm_count=None, vm_alert=None)
    for key, value in like.items():
        if result.get(key) is None:
            result[key] = value
    return result


def like_first(first: Member, host: Host, members: Sequence[Member], catalogs: Catalogs, values: Mapping[str, Any]) -> Tuple[Dict[str, Any], List[str]]:
    """The variables that a VM like the first member would be asked for by, as far as they are not given, and sentences about what is not kept.

    Raises SpecError where something has to be given because it cannot be told from the VM.

    :param host: the host of the first member
    :param values: variables that are given
    """
    vm, notes = first.vm, []  # type: Mapping[str, Any], List[str]
    like: Dict[str, Any] = {"vm_image": vm.get("image"), "vm_description": vm.get("description") or None, "vm_labels": vm.get("labels") or None,
                            "vm_autostart": vm.get("autostart") or None, "vm_anti_affinity": vm.get("anti_affinity") or None}
    image = values.get("vm_image") or vm.get("image")
    entry = catalogs.entry("kvmfleet_images", image) if image else {}
    if vm.get("firmware") != (entry.get("firmware") or "bios"):
        like["vm_firmware"] = vm.get("firmware")
    if vm.get("arch") not in (entry.get("arch"), "x86_64"):
        like["vm_arch"] = vm.get("arch")
    if (vm.get("console") or {}).get("type") not in (None, "none"):
        like["vm_graphics"] = vm["console"]["type"]
    if vm.get("cpu_mode") in _CPU_MODES and vm["cpu_mode"] != _USUAL_CPU_MODE.get(str(vm.get("virt_type"))):
        like["vm_cpu_mode"] = vm["cpu_mode"]
    if vm.get("boot") not in (None, [], ["hd"]):
        like["vm_boot"] = list(vm["boot"])
    for key in ("secure_boot", "tpm"):
        like["vm_" + key] = vm.get(key) or None
    if not values.get("vm_flavor"):
        like.update(_sizes(vm, values))
        if vm.get("flavor") in catalogs.names("kvmfleet_flavors"):
            like["vm_flavor"] = vm["flavor"]
        elif vm.get("flavor"):
            notes.append("flavor {0} of {1} is no longer in kvmfleet_flavors; new VMs get its sizes".format(vm["flavor"], first.name))
    like.update(_disks(first, host, catalogs, values))
    like.update(_nics(first, host, members, catalogs, values))
    like.update(_seed(vm, values))
    return {key: value for key, value in like.items() if value is not None}, notes


def _sizes(vm: Mapping[str, Any], values: Mapping[str, Any]) -> Dict[str, Any]:
    sizes: Dict[str, Any] = {}
    for key, value, most in (("vcpus", vm["vcpus"], vm["max_vcpus"]), ("memory", "{0}MiB".format(vm["memory_mib"]), "{0}MiB".format(vm["max_memory_mib"]))):
        if values.get("vm_" + key) is None:
            sizes["vm_" + key] = value
            if most != value:
                sizes["vm_max_" + key] = most
    if vm.get("vcpus_request") is not None:
        sizes["vm_vcpus_request"] = "{0:g}".format(vm["vcpus_request"])
    if vm.get("memory_request_mib") is not None:
        sizes["vm_memory_request"] = "{0}MiB".format(vm["memory_request_mib"])
    return sizes


def _class_of(pool: str, host: Host, catalogs: Catalogs, who: str) -> Optional[str]:
    """The storage class by which a pool of a host is asked for; None for its default pool. Raises SpecError where there is none."""
    if pool == host.pool:
        return None
    for name in sorted(set(host.storage_classes) | set(catalogs.names("kvmfleet_storage_classes"))):
        try:
            if host.pool_of("vm_storage_class", name, catalogs) == pool:
                return name
        except SpecError:
            continue  # a class that this host lacks is not the one
    raise SpecError("vm_storage_class", None, "is missing: {0} lies in pool {1} of {2}, which belongs to no storage class".format(who, pool, host.name),
                    "Name the storage class of new VMs", "missing_variable")


def _disks(first: Member, host: Host, catalogs: Catalogs, values: Mapping[str, Any]) -> Dict[str, Any]:
    """Root disk and further disks, of the sizes and kinds that the first member's have."""
    vm = first.vm
    devices = {disk["name"]: disk for disk in vm.get("disks") or []}
    own = [volume for volume in vm.get("volumes") or [] if volume["disk"] != _SEED and first.uuid[:8] in volume["name"]]
    asked = values.get("vm_disks") is not None
    others = sorted(set(devices) - {volume["disk"] for volume in own} - {_SEED})
    if others and not asked:
        raise SpecError("vm_disks", None, "is missing: disk {0} of {1} was not made with it, and a new VM cannot have it too".format(others[0], first.name),
                        "Say which further disks new VMs have; [] for none", "missing_variable")
    like: Dict[str, Any] = {}
    given = values.get("vm_storage_class")
    extra = []
    for number, volume in enumerate(own):
        storage_class = given or _class_of(volume["pool"], host, catalogs, "disk {0} of {1}".format(volume["disk"], first.name))
        if number == 0:
            if not values.get("vm_flavor"):
                like["vm_disk"] = format_size(volume["size_bytes"])
            like["vm_storage_class"] = storage_class
            continue
        device = devices.get(volume["disk"], {})
        disk = {"name": volume["disk"], "size": format_size(volume["size_bytes"])}
        if storage_class:
            disk["storage_class"] = storage_class
        elif like.get("vm_storage_class"):
            disk["pool"] = volume["pool"]
        if volume.get("reserve_bytes") is not None:
            disk["reserve"] = format_size(volume["reserve_bytes"]) if volume["reserve_bytes"] else "0B"
        for key, usual in (("format", "qcow2"), ("bus", "virtio")):
            if device.get(key) not in (None, usual):
                disk[key] = device[key]
        extra.append(disk)
    if not asked and not values.get("vm_flavor"):
        like["vm_disks"] = extra
    return like


def _network_of(nic: Mapping[str, Any], host: Host, first: Member) -> str:
    """The name by which what a NIC is attached to is asked for. Raises SpecError where it has none."""
    for name in sorted(host.networks):
        target = host.network(name)
        if target.get(str(nic["type"])) == nic["source"] and (target.get("vlan") or None) == (nic.get("vlan") or None):
            return name
    if nic["type"] == "network" and not nic.get("vlan") and nic["source"] not in host.networks:
        return str(nic["source"])
    raise SpecError("vm_network", None, "is missing: {0} is on {1} {2} of {3}, which no name in its kvm_networks stands for".format(
        first.name, nic["type"], nic["source"], host.name), "Name the network of new VMs (vm_network or vm_networks)", "missing_variable")


def _nics(first: Member, host: Host, members: Sequence[Member], catalogs: Catalogs, values: Mapping[str, Any]) -> Dict[str, Any]:
    """The networks that the first member is on; its static address, if it has one that no pool has given, goes on with the numbers."""
    if any(values.get(key) is not None for key in ("vm_network", "vm_networks")):
        return {}
    wishes = []
    for nic in first.vm.get("nics") or []:
        wish = {"network": _network_of(nic, host, first)}
        if nic.get("model") not in (None, "virtio"):
            wish["model"] = str(nic["model"])
        wishes.append(wish)
    pooled = [bool(catalogs.entry("kvmfleet_networks", wish["network"]).get("pool")) for wish in wishes]
    like: Dict[str, Any] = {"vm_network": wishes[0]["network"]} if len(wishes) == 1 and len(wishes[0]) == 1 else {"vm_networks": wishes}
    static = first.vm.get("static_addresses") or []
    if values.get("vm_ip") or (static and all(pooled)) or (not static and not any(pooled)):
        return like
    if len(wishes) != 1:
        raise SpecError("vm_networks", None, "is missing: {0} has several NICs and static addresses, which cannot be told apart".format(first.name),
                        "Say on which networks new VMs are, and which addresses they have", "missing_variable")
    like["vm_ip"] = _first_addresses(first, members) if static else ["dhcp"]
    return like


def _first_addresses(first: Member, members: Sequence[Member]) -> List[str]:
    """The addresses that number 1 of the set has or would have. Raises SpecError where those of the members do not follow each other by number."""
    bases: Set[Tuple[str, ...]] = set()
    for member in members:
        interfaces = [ipaddress.ip_interface(str(a)) for a in member.vm.get("static_addresses") or []]
        bases.add(tuple("{0}/{1}".format(i.ip - (member.index - 1), i.network.prefixlen) for i in interfaces))
    if len(bases) != 1:
        raise SpecError("vm_ip", None, "is missing: the addresses of the set do not follow from the numbers of its VMs",
                        "Give the address of {0} number 1, on which the others follow".format(first.vm["set"]), "missing_variable")
    return list(bases.pop())


def _seed(vm: Mapping[str, Any], values: Mapping[str, Any]) -> Dict[str, Any]:
    """Whether there is a seed, and whose key is in it. What else is in it nobody keeps."""
    if not any(volume["disk"] == _SEED for volume in vm.get("volumes") or []):
        return {"vm_seed_format": "none"} if vm.get("image") and not any(values.get(key) not in (None, [], "none") for key in SEED_VARIABLES) else {}
    like = {"vm_seed_format": "nocloud"}  # also with an image that is not said to read one
    if values.get("vm_ssh_key") is None:
        like.update({"vm_key_name": str(vm["key_name"])} if vm.get("key_name") else {"vm_ssh_key": "none"})
    return like


def differences(result: Mapping[str, Any]) -> Tuple[bool, List[str]]:
    """What vm_set in check mode would change at the first member to make it like the new ones: whether its seed, and which options else."""
    vm = (result.get("vms") or [{}])[0]
    actions = [str(action) for action in vm.get("actions") or []]
    return any("seed" in action for action in actions), [action[len("change "):] for action in actions if action.startswith("change ")]


def other_seed(name: str, first: str, values: Mapping[str, Any], like: Mapping[str, Any]) -> SpecError:
    """The refusal of new members whose seed would differ from the first one's: what could be missing, and what could be another one."""
    given = [key for key in SEED_VARIABLES if values.get(key) is not None]
    missing = [key for key in SEED_VARIABLES if key not in given and (key != "vm_ssh_key" or "vm_key_name" not in like)]
    parts = ["what could be missing: {0}".format(", ".join(missing))] if missing else []
    parts += ["what could be another one: {0}".format(", ".join(given))] if given else []
    return SpecError("vm_name", name, "the cloud-init seed of new VMs would differ from that of {0}, of which no more is kept ({1})".format(
        first, "; ".join(parts)), "Give what {0} was made with, in a file if it is secret (-e @file.yml; vm_ssh_key=none for no key), or "
        "vm_allow_other_seed=true together with all that new VMs are to have".format(first), "unknown_seed")


def names(items: Iterable[Member]) -> str:
    return ", ".join(member.name for member in items)
