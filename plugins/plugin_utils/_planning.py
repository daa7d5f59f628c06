# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is asked for and what the hosts said of themselves to what each host has to do: placement, addresses and MACs. Pure.

Used at run time by the action C(place) and at inventory time by the plugin C(fleet).
"""
from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import _placement, _placement_input
from ansible_collections.kvmfleet.core.plugins.module_utils._overhead import qemu_overhead_mib
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import Disk, HostCapacity, Plan, Selector
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import Request as Ask
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import MIB, SpecError, mac_for, parse_mib, parse_milli, parse_size, told_name
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _request
from ansible_collections.kvmfleet.core.plugins.plugin_utils._address_pools import AddressPool, read_pool
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import HOST_SCHEMA, Catalogs, Host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._keys import Keys

State = Optional[Mapping[str, Any]]   # what host_capacity (with its VMs) said of a host; None where it did not answer

DEFAULT_VCPUS = 1
DEFAULT_MEMORY_MIB = 1024
SEED_BYTES = MIB


@dataclass
class Wish:
    """One request of create_vm, or one of the VMs that a fleet file declares.

    C(values) are its converted C(vm_*) variables, C(requests) its VMs, C(image) the entry of its image.
    """

    values: Mapping[str, Any]
    requests: List[_request.Request]
    wanted: _request.Constraints
    image: Mapping[str, Any] = field(default_factory=dict)


def wish_of(values: Mapping[str, Any], catalogs: Catalogs, hosts: Sequence[Host], keys: Optional[Keys] = None) -> Wish:
    """A wish out of the converted variables of the entry point C(create). Raises SpecError naming the C(vm_*) variable."""
    if values["vm_state"] == "absent":
        raise SpecError("vm_state", "absent", "is nothing to declare or to place", "Leave the VM out, and delete it by name (delete_vm)")
    wanted = _request.constraints(values)
    _request.candidates(hosts, wanted)
    image = _request.image_of(values, catalogs)
    return Wish(values, _request.build(values, catalogs, hosts, keys or Keys()), wanted, image)


@dataclass
class Context:
    """What else a plan depends on.

    :param ticket: of this run, whose claims are its own; None before there are any
    :param claim_ttl_s: seconds after which the claim of a run that is gone does not count
    :param avoid: VM -> host -> why that host has refused it in this run
    :param lost: VM -> addresses that somebody else turned out to have
    """

    ticket: Optional[str] = None
    claim_ttl_s: float = 60
    avoid: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    lost: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class FleetPlan:
    """What is to be done where.

    :param placement: the decisions with their reasons; nothing may be done where it is not ok
    :param items: host -> items of vm_set's C(vms), those of VMs that exist among them
    :param fresh: VM -> host, of those that have to be claimed or have been in this run
    :param exists: VM -> host, of those that exist
    :param surplus: VM -> host, members of a set beyond the number asked for, the highest number first
    :param removed: those of them that are to go
    :param waiting: VM -> why it cannot be placed before another run has decided
    :param yields: whether one of these runs has the smaller ticket: then all claims of this run have to be given up while it waits, or two runs that
        hold a part each would wait for each other
    :param sweep: hosts with claims of runs that are gone
    :param notes: sentences for people
    """

    placement: Plan = field(default_factory=Plan)
    items: Dict[str, List[Dict[str, Any]]] = field(default_factory=dict)
    fresh: Dict[str, str] = field(default_factory=dict)
    exists: Dict[str, str] = field(default_factory=dict)
    surplus: Dict[str, str] = field(default_factory=dict)
    removed: List[str] = field(default_factory=list)
    waiting: Dict[str, str] = field(default_factory=dict)
    yields: bool = False
    sweep: List[str] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)


def host_settings(host: Host) -> Dict[str, Any]:
    """The C(kvm_*) variables of a host as placement reads them."""
    return {variable: getattr(host, variable[len("kvm_"):]) for variable in HOST_SCHEMA}


def is_stale(vm: Mapping[str, Any], context: Context) -> bool:
    """Whether a VM is the claim of a run that is gone, which anyone may remove."""
    if vm.get("phase") != "pending" or not vm.get("stopped", True) or (context.ticket and vm.get("ticket") == context.ticket):
        return False
    age = vm.get("claim_age_s")
    return age is None or age > context.claim_ttl_s


def _without(state: Mapping[str, Any], gone: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What a host would say without these domains."""
    left = dict(state, vms=[vm for vm in state.get("vms") or [] if vm not in gone], vcpus=dict(state["vcpus"]), memory=dict(state["memory"]),
                pools=copy.deepcopy(dict(state.get("pools") or {})))
    for vm in gone:
        left["vcpus"]["available"] += vm["vcpus_milli"] / 1000
        left["memory"]["available_mib"] += vm["memory_mib"]
        for disk in vm.get("disks") or []:
            if "available_bytes" in left["pools"].get(disk["pool"], {}):
                left["pools"][disk["pool"]]["available_bytes"] += disk["bytes"]
    return left


def capacities(hosts: Sequence[Host], states: Mapping[str, State], catalogs: Catalogs) -> List[HostCapacity]:
    """The hosts as placement reads them. Raises SpecError for catalog entries and host variables that make no sense."""
    networks = {name: catalogs.entry("kvmfleet_networks", name) for name in catalogs.names("kvmfleet_networks")}
    classes = {name: catalogs.entry("kvmfleet_storage_classes", name) for name in catalogs.names("kvmfleet_storage_classes")}
    return [_placement_input.host_of(host.name, states.get(host.name), host_settings(host), (states.get(host.name) or {}).get("vms") or (), networks, classes)
            for host in hosts]


def holders(states: Mapping[str, State]) -> Iterator[Tuple[str, Mapping[str, Any]]]:
    """Every domain of the hosts that answered, with its host."""
    for host, state in states.items():
        for vm in (state or {}).get("vms") or []:
            yield host, vm


def bare(address: str) -> str:
    """An address without its prefix length."""
    return str(address).partition("/")[0]


def _own_name(states: Mapping[str, State], host: str) -> Any:
    return (states.get(host) or {}).get("hostname")


def check_distinct(states: Mapping[str, State]) -> None:
    """Raises SpecError where two names of the inventory lead to one libvirt host, which would be given out twice."""
    seen: Dict[str, Tuple[str, str]] = {}
    for host, vm in holders(states):
        other = seen.setdefault(str(vm["uuid"]), (host, str(vm["name"])))
        if other[0] != host and other[1] == vm["name"] and _own_name(states, host) == _own_name(states, other[0]):
            raise SpecError("kvm_hosts", "{0}, {1}".format(*sorted((other[0], host))),
                            "are one and the same libvirt host: both list domain {0} with UUID {1}".format(vm["name"], vm["uuid"]),
                            "Keep one of the two in the inventory", "duplicate_host")


def _selectors(texts: Sequence[str], values: Mapping[str, Any]) -> Tuple[Selector, ...]:
    return tuple(_placement_input.selector_of(text) for text in _request.full_selectors(values, texts))


class _Planner:
    """One call of plan_requests()."""

    def __init__(self, wishes: Sequence[Wish], catalogs: Catalogs, hosts: Sequence[Host], states: Mapping[str, State], context: Context) -> None:
        self.wishes, self.catalogs, self.context = wishes, catalogs, context
        self.pinned: Mapping[str, str] = {}   # where claims of this run are, while it is asked whether they may stay
        self.hosts = {host.name: host for host in hosts}
        self.plan = FleetPlan()
        self.of_set: Dict[str, Wish] = {}   # whose surplus a VM is
        self.states: Dict[str, State] = {}
        for name in self.hosts:
            state = states.get(name)
            stale = [vm for vm in (state or {}).get("vms") or [] if is_stale(vm, context)]
            if stale:
                self.plan.sweep.append(name)
            self.states[name] = _without(state, stale) if state is not None and stale else state
        check_distinct(self.states)
        # Where I hold a claim and am still here, the others' claims for the name are the larger ones: they give way, or the next reading decides.
        held = {str(vm["name"]) for _host, vm in holders(self.states) if self._mine(vm)}
        for name, state in self.states.items():
            if state is not None and held:
                self.states[name] = dict(state, vms=[vm for vm in state["vms"] if vm["name"] not in held or self._mine(vm) or vm.get("phase") != "pending"])
        self.there: Dict[str, List[Tuple[str, Mapping[str, Any]]]] = {}
        for host, vm in holders(self.states):
            self.there.setdefault(str(vm["name"]), []).append((host, vm))

    def run(self) -> FleetPlan:
        """Plan all wishes together: all of them are placed, or none."""
        self._unreachable()
        asks: List[Ask] = []
        chosen: Dict[str, Tuple[Wish, _request.Request]] = {}
        for wish in self.wishes:
            for request in wish.requests:
                rival = self._rival(request.name)
                if rival:
                    self.plan.waiting[request.name] = rival
                    continue
                if request.name in chosen:
                    raise SpecError("vm_name", request.name, "is asked for twice", "Name each VM once", "duplicate_name")
                chosen[request.name] = (wish, request)
                asks.append(self._ask(wish, request))
            self._surplus(wish)
        self.plan.placement = self._place(asks)
        if self.plan.placement.ok:
            self._check_taken(chosen)
            self._hand_out(chosen)
        return self.plan

    def _place(self, asks: Sequence[Ask]) -> Plan:
        settings = {(w.wanted.strategy, w.wanted.spread_by, tuple(sorted((w.wanted.weights or {}).items())), w.wanted.reserve_failures) for w in self.wishes}
        if len(settings) > 1:
            raise SpecError("vm_strategy", None, "VMs that are placed together ask for different strategies ({0})".format(
                ", ".join(sorted({w.wanted.strategy for w in self.wishes}))), "Give all of them the same strategy, spread, weights and reserve_failures")
        wanted = self.wishes[0].wanted if self.wishes else _request.Constraints()
        names = self.catalogs.names("kvmfleet_groups")
        groups = [_placement_input.group_of(name, self.catalogs.entry("kvmfleet_groups", name)) for name in names]
        flavors = [_placement_input.flavor_of(name, self.catalogs.entry("kvmfleet_flavors", name))
                   for name in self.catalogs.names("kvmfleet_flavors")] if wanted.strategy == "pack" else []
        return _placement.place(asks, capacities(list(self.hosts.values()), self.states, self.catalogs), wanted.strategy, groups, flavors, wanted.weights,
                                wanted.spread_by or "", wanted.reserve_failures)

    def _unreachable(self) -> None:
        silent = sorted(name for name, state in self.states.items() if state is None)
        if silent:
            quota = ", and what a group has there is not counted for its quota" if any(w.values.get("vm_group") for w in self.wishes) else ""
            self.plan.notes.append("{0} did not answer or {1} left out: a VM of the same name there would not have been seen{2}".format(
                ", ".join(silent), "was" if len(silent) == 1 else "were", quota))

    def _mine(self, vm: Mapping[str, Any]) -> bool:
        return bool(self.context.ticket) and vm.get("ticket") == self.context.ticket and vm.get("phase") == "pending"

    def _rival(self, name: str) -> Optional[str]:
        """Another run's claim for the name, which has to become something or vanish first."""
        for host, vm in self.there.get(name, []):
            if vm.get("phase") == "pending" and not self._mine(vm):
                self.plan.yields = self.plan.yields or str(vm.get("ticket") or "") < str(self.context.ticket or "")
                return "{0} was claimed on {1} by another run {2:.0f} s ago".format(name, host, vm.get("claim_age_s") or 0)
        return None

    def _is_new(self, name: str) -> bool:
        """Whether a VM is to be made, or has been claimed by this run."""
        found = self._existing(name)
        return found is None or self._mine(found[1])

    def _existing(self, name: str) -> Optional[Tuple[str, Mapping[str, Any]]]:
        return next(iter(self.there.get(name, [])), None)

    # -- what a request asks of placement ----------------------------------------------------------------------------------------------

    def _ask(self, wish: Wish, request: _request.Request) -> Ask:
        item, wanted, group = request.item, wish.wanted, str(request.item.get("group") or "")
        found = self._existing(request.name)
        vcpus, memory, disks = _grown(found[1], request) if found else _sizes(request)
        networks = tuple(dict.fromkeys(nic.network for nic in request.nics or [])) if not found else ()
        machine: Dict[str, Any] = {}
        if not found:
            machine = {key: str(item.get(key) or "") for key in ("arch", "machine", "firmware")}
            machine["virt_type"] = "" if item.get("virt_type") in (None, "auto") else str(item["virt_type"])
            machine["arch"] = machine["arch"] or "x86_64"
        image = wish.image
        return Ask(
            request.name, vcpus, memory, disks, host=self.pinned.get(request.name) or wanted.host or "", region=wanted.region or "", zone=wanted.zone or "",
            host_labels=tuple(sorted(wanted.host_labels.items())), group=group, namespace=str(item.get("namespace") or ""), admin=not group,
            labels=tuple(sorted((str(k), str(v)) for k, v in (item.get("labels") or {}).items())), set=str(item.get("set") or ""), networks=networks,
            affinity=_selectors(wanted.affinity, wish.values), anti_affinity=_selectors(wanted.anti_affinity, wish.values),
            soft_affinity=_selectors(wanted.soft_affinity, wish.values), soft_anti_affinity=_selectors(wanted.soft_anti_affinity, wish.values),
            max_per_host=wanted.max_per_host, image=str(request.image or ""),
            image_memory_mib=0 if found or not image.get("min_memory") else parse_mib("min_memory", image["min_memory"]),
            avoid=tuple(sorted(self.context.avoid.get(request.name, {}).items())), **machine)

    # -- what comes of it ----------------------------------------------------------------------------------------------------------------

    def _check_taken(self, chosen: Mapping[str, Tuple[Wish, _request.Request]]) -> None:
        """Static addresses and MACs that were asked for and belong to others. Raises SpecError before anything is touched."""
        macs = {mac: (host, vm) for host, vm in holders(self.states) for mac in vm.get("macs") or []}
        addresses = {bare(a): (host, vm) for host, vm in holders(self.states) for a in vm.get("addresses") or []}
        for name, (_wish, request) in chosen.items():
            for nic in request.nics or []:
                for option, code, values, taken in (("vm_ip", "ip_in_use", [bare(a) for a in nic.item.get("addresses") or []], addresses),
                                                    ("vm_mac", "mac_in_use", [str(nic.item.get("mac") or "").lower()], macs)):
                    for value in values:
                        host, holder = taken.get(value, ("", {"name": name}))
                        if holder["name"] != name and not (holder.get("phase") == "pending" and holder.get("ticket") == self.context.ticket):
                            raise SpecError(option, value, "which {0} asks for, belongs to VM {1} on {2}".format(
                                name, told_name(str(holder["name"]), holder.get("group"), request.item.get("group")), host), "Use another one", code)

    def _hand_out(self, chosen: Mapping[str, Tuple[Wish, _request.Request]]) -> None:
        addresses = self._addresses(chosen)
        macs: Dict[str, str] = {mac: str(vm["name"]) for _host, vm in holders(self.states) for mac in vm.get("macs") or []}
        for name, (_wish, request) in chosen.items():
            host = self.plan.placement.hosts[name]
            found = self._existing(name)
            (self.plan.fresh if self._is_new(name) else self.plan.exists)[name] = host
            item = _request.host_item(request, self.hosts[host], self.catalogs)
            key = "default_nics" if request.nics_by_default else "nics"
            for number, nic in enumerate(item.get(key) or []):
                if (name, number) in addresses:
                    nic.update((request.nics or [])[number].with_address, addresses=[addresses[name, number]])
                if found is None and not nic.get("mac"):
                    self._free_mac(nic, name, number, macs)
            self.plan.items.setdefault(host, []).append(item)
        for name in self.plan.removed:
            # With its UUID: a VM that has been made anew under the name meanwhile is another one
            uuid = next(vm["uuid"] for host, vm in self.there[name] if host == self.plan.surplus[name])
            self.plan.items.setdefault(self.plan.surplus[name], []).append(dict(_request.absent(name, self.of_set[name].values).item, uuid=uuid))

    @staticmethod
    def _free_mac(nic: Dict[str, Any], name: str, number: int, macs: Dict[str, str]) -> None:
        """A VM's own MAC follows from its name; where a VM of another host has it already, the next candidate is named."""
        attempt = 0
        while macs.get(mac_for(name, number, attempt), name) != name:
            attempt += 1
        macs[mac_for(name, number, attempt)] = name
        if attempt:
            nic["mac"] = mac_for(name, number, attempt)

    def _addresses(self, chosen: Mapping[str, Tuple[Wish, _request.Request]]) -> Dict[Tuple[str, int], str]:
        """(VM, NIC) -> address out of its network's pool: the one it has, else a free one."""
        taken: Set[str] = {bare(a) for _host, vm in holders(self.states) for a in vm.get("addresses") or []}
        given: Dict[Tuple[str, int], str] = {}
        asking: Dict[Tuple[str, str], List[Tuple[str, int]]] = {}
        for name, (_wish, request) in chosen.items():
            taken.update(bare(a) for nic in request.nics or [] for a in nic.item.get("addresses") or [])
            for number, nic in enumerate(request.nics or []):
                if nic.pool:
                    asking.setdefault((nic.pool, nic.network), []).append((name, number))
        for (pool_name, network), asked in asking.items():
            pool = read_pool(pool_name, self.catalogs, network)
            new = []
            for name, number in asked:
                kept = self._kept(name, pool, [address for (other, _number), address in given.items() if other == name])
                if kept:
                    given[name, number] = kept
                elif self._is_new(name):
                    new.append((name, number))
            if new and not self.wishes[0].values.get("vm_allow_unreachable"):
                silent = sorted(host for host, state in self.states.items() if state is None)
                if silent:
                    raise SpecError("vm_ip", None, "an address of pool {0} may be in use on {1}, which did not answer".format(pool_name, ", ".join(silent)),
                                    "Name an address, leave the host out of the inventory, or give vm_allow_unreachable=true", "host_unreachable")
            lost = {bare(a) for name, _number in new for a in self.context.lost.get(name, [])}
            keys = [name if number == 0 else "{0}/{1}".format(name, number) for name, number in new]
            found = pool.allocate(keys, taken | lost) if new else {}
            for key, (name, number) in zip(keys, new):
                given[name, number] = found[key]
                taken.add(bare(found[key]))
        return given

    def _kept(self, name: str, pool: AddressPool, others: Sequence[str]) -> Optional[str]:
        """The address of the pool that a VM, or this run's claim for it, has already; not one that another of its NICs keeps."""
        found = self._existing(name)
        lost = {bare(a) for a in self.context.lost.get(name, [])}
        if found is None:
            return None
        return next((a for a in found[1].get("addresses") or [] if pool.contains(a) and bare(a) not in lost and a not in others), None)

    def _surplus(self, wish: Wish) -> None:
        """Members of the set beyond its new size. A VM that is called so and is not of the set is none."""
        count, label = wish.values.get("vm_count"), wish.values.get("vm_name")
        if count is None:
            return
        first = wish.requests[0].item
        beyond = [(int(vm["index"]), str(vm["name"]), host) for host, vm in holders(self.states)
                  if vm.get("managed") and vm.get("set") == label and vm.get("index") is not None and int(vm["index"]) > count
                  and all((vm.get(key) or None) == (first.get(key) or None) for key in ("group", "namespace"))]
        # Another run is at work on these, or was: their claims and half-made VMs are not for this one to delete.
        busy = {name for _index, name, host in beyond for where, vm in self.there[name] if where == host and vm.get("phase") in ("pending", "building")}
        if busy:
            self.plan.notes.append("{0} of the set {1} being made by another run, or {1} left by one; delete_vm deletes what is left".format(
                ", ".join(sorted(busy)), "is" if len(busy) == 1 else "are"))
        beyond = [entry for entry in beyond if entry[1] not in busy]
        for _index, name, host in sorted(beyond, reverse=True):
            self.plan.surplus[name] = host
            self.of_set[name] = wish
        if beyond and wish.values.get("vm_scale_down"):
            self.plan.removed.extend(name for _index, name, _host in sorted(beyond, reverse=True))
        elif beyond:
            self.plan.notes.append(_request.surplus_note([name for _index, name, _host in sorted(beyond)]))


def _disk(disk: _request.DiskRequest, first: Optional[str], first_class: Optional[str]) -> Tuple[int, str, str]:
    """Bytes, pool and storage class of a disk; without either it lands where the first one does."""
    item = disk.item
    size = item.get("reserve") or item.get("size") or item.get("default_size")
    amount = 0 if item.get("volume") or size is None else parse_size("vm_disks", size)
    pool, storage_class = str(item.get("pool") or ""), str(disk.storage_class or "")
    return amount, pool or (first or "" if not storage_class else ""), storage_class or (first_class or "" if not pool else "")


def _disks(request: _request.Request) -> List[Tuple[str, Disk]]:
    made: List[Tuple[str, Disk]] = []
    for disk in request.disks or []:
        first = made[0][1] if made else None
        amount, pool, storage_class = _disk(disk, first.pool if first else None, first.storage_class if first else None)
        full = disk.item.get("clone") == "full" or disk.item.get("format") == "raw" and disk.image
        made.append((str(disk.item.get("name")), Disk(amount, storage_class, pool, amount if full else 0)))
    if "seed" in request.item and made:
        made.append(("seed", Disk(SEED_BYTES, made[0][1].storage_class, made[0][1].pool)))
    return made


def _overhead(request: _request.Request, memory_mib: int, vcpus: int) -> int:
    graphics = (request.item.get("graphics") or {}).get("type", "none") != "none"
    return qemu_overhead_mib(memory_mib, vcpus, len(request.disks or []) + ("seed" in request.item), len(request.nics or []), graphics)


def _limits(item: Mapping[str, Any], vcpus: int, memory_mib: int) -> Tuple[int, int]:
    return (int(item.get("vcpus") or item.get("default_vcpus") or vcpus),
            parse_mib("vm_memory", item.get("memory") or item.get("default_memory") or "{0}MiB".format(memory_mib)))


def _sizes(request: _request.Request) -> Tuple[int, int, Tuple[Disk, ...]]:
    """What is counted for a new VM: thousandths of vcpus, MiB with QEMU's own share, disks; as the host will count it (_capacity.requests_of)."""
    item = request.item
    vcpus, memory = _limits(item, DEFAULT_VCPUS, DEFAULT_MEMORY_MIB)
    counted = memory if item.get("memory_request") is None else parse_mib("vm_memory_request", item["memory_request"])
    milli = vcpus * 1000 if item.get("vcpus_request") is None else parse_milli("vm_vcpus_request", item["vcpus_request"])
    return milli, counted + _overhead(request, memory, vcpus), tuple(disk for _name, disk in _disks(request))


def _grown(vm: Mapping[str, Any], request: _request.Request) -> Tuple[int, int, Tuple[Disk, ...]]:
    """What will be counted for a VM that exists: what is counted now, and what is asked for beyond it."""
    item = request.item
    vcpus, memory = int(vm.get("vcpus") or 0), int(vm.get("limit_mib") or 0)
    new_vcpus, new_memory = int(item.get("vcpus") or vcpus), parse_mib("vm_memory", item["memory"]) if item.get("memory") else memory
    milli, counted = int(vm["vcpus_milli"]), int(vm["memory_mib"])
    if item.get("vcpus_request") is not None:
        milli = parse_milli("vm_vcpus_request", item["vcpus_request"])
    elif new_vcpus != vcpus:
        milli += (new_vcpus - vcpus) * 1000
    if item.get("memory_request") is not None:
        counted = parse_mib("vm_memory_request", item["memory_request"]) + _overhead(request, new_memory, new_vcpus)
    else:
        counted += max(0, new_memory - memory) + max(0, qemu_overhead_mib(new_memory, new_vcpus) - qemu_overhead_mib(memory, vcpus))
    disks = {str(d.get("name")): Disk(int(d["bytes"]), "", str(d["pool"])) for d in vm.get("disks") or []}
    for (name, disk), wished in zip(_disks(request), request.disks or []):
        if name not in disks:
            if wished.item.get("size") is not None:
                disks[name] = disk
        elif wished.item.get("size") is not None:
            disks[name] = Disk(max(disks[name].bytes, disk.bytes), "", disks[name].pool)
    return milli, counted, tuple(disks.values())


def plan_requests(wishes: Sequence[Wish], catalogs: Catalogs, hosts: Sequence[Host], states: Mapping[str, State],
                  context: Optional[Context] = None) -> FleetPlan:
    """What each host has to do so that all wishes come true: all VMs are placed, or none (C(placement.ok)), with the reasons.

    The same input gives the same plan. Raises SpecError for what no placement could mend: an address or MAC of somebody else, an exhausted pool, two
    names for one host, settings that contradict each other.

    :param hosts: all hosts of the inventory, with their variables
    :param states: host -> result of host_capacity with its VMs; None or nothing where it did not answer
    """
    return _Planner(wishes, catalogs, hosts, states, context or Context()).run()


def without_claims(states: Mapping[str, State], context: Context) -> Tuple[Dict[str, State], List[Mapping[str, Any]]]:
    """The hosts as they would be if all other runs gave up their claims, and these claims."""
    left: Dict[str, State] = {}
    rivals: List[Mapping[str, Any]] = []
    for name, state in states.items():
        others = [vm for vm in (state or {}).get("vms") or [] if vm.get("phase") == "pending" and vm.get("ticket") != context.ticket
                  and not is_stale(vm, context)]
        rivals += others
        left[name] = _without(state, others) if state is not None and others else state
    return left, rivals


_PLENTY = 1 << 40


def still_holds(wishes: Sequence[Wish], catalogs: Catalogs, hosts: Sequence[Host], states: Mapping[str, State], context: Context, fresh: Mapping[str, str],
                larger: bool) -> Optional[str]:
    """Why the claims of this run may not stay where they are, seen with what others have and have claimed meanwhile; None where they may.

    Quotas, VMs per host, rules of nearness and a host in reserve are sums over several VMs, often over several hosts, which no host can judge under
    its lock as it judges its room. Room is taken for granted here, unless a host has to be kept in reserve.

    :param fresh: VM -> host, of these claims
    :param larger: whether to count claims of others with a larger ticket, which give way if they can
    """
    for plenty in (True, False) if any(wish.wanted.reserve_failures for wish in wishes) else (True,):
        broken = _broken(wishes, catalogs, hosts, states, context, fresh, larger, plenty)
        if broken:
            return broken
    return None


def _broken(wishes: Sequence[Wish], catalogs: Catalogs, hosts: Sequence[Host], states: Mapping[str, State], context: Context, fresh: Mapping[str, str],
            larger: bool, plenty: bool) -> Optional[str]:
    """One of the questions of still_holds(): with room taken for granted all rules, and as it is only the host in reserve."""
    seen: Dict[str, State] = {}
    for name, state in states.items():
        if state is None:
            seen[name] = None
            continue
        own = [vm for vm in state["vms"] if vm.get("phase") == "pending" and vm.get("ticket") == context.ticket]
        others = [vm for vm in state["vms"] if vm.get("phase") == "pending" and vm not in own and (vm["name"] in fresh or (
            not larger and str(vm.get("ticket") or "") > str(context.ticket)))]
        left = dict(_without(state, own + others))
        if plenty:
            left.update(vcpus=dict(left["vcpus"], available=_PLENTY), memory=dict(left["memory"], available_mib=_PLENTY), pools={
                pool: dict(facts, available_bytes=_PLENTY << 20, free_bytes=_PLENTY << 20) if facts.get("active") else facts
                for pool, facts in left["pools"].items()})
        seen[name] = left
    planner = _Planner(wishes, catalogs, hosts, seen, Context(None, context.claim_ttl_s))
    planner.pinned = fresh
    asks = [planner._ask(wish, request) for wish in wishes for request in wish.requests if request.name in fresh or request.name in planner.there]
    plan = planner._place(asks)
    codes = {decision.code for decision in plan.decisions if decision.code} - {"batch_refused", "exists_twice", "unreachable"}
    if not plenty:
        codes &= {"failover"}
    return plan.message if codes and not plan.ok else None
