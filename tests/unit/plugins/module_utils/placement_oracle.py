# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement's rules written down a second time, slowly and without any of its code, and small fleets to try both on."""
from __future__ import annotations

from itertools import product
from typing import Any, Dict, List, Optional, Sequence

from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils._placement import (
    Access,
    Amount,
    Disk,
    HostCapacity,
    Pool,
    Request,
    Selector,
    Vm,
)

APPS = ("db", "web")


def host(name: str, vcpus: int = 8, memory_gib: int = 16, **more: Any) -> HostCapacity:
    """A host in whole vcpus and GiB."""
    return HostCapacity(name, Amount(vcpus * 1000), Amount(memory_gib * 1024), **more)


def request(name: str, vcpus: int = 1, memory_gib: int = 1, **more: Any) -> Request:
    """A request in whole vcpus and GiB."""
    return Request(name, vcpus * 1000, memory_gib * 1024, **more)


def _pool(one: Request, there: HostCapacity, disk: Disk) -> Optional[str]:
    name = disk.pool or there.storage_classes.get(disk.storage_class)
    return name if name in there.pools else None


def may_go(one: Request, there: HostCapacity) -> bool:
    """Every rule that room and neighbours have no part in."""
    if not there.reachable or not (there.schedulable or (one.admin and one.host)):
        return False
    if one.host not in ("", there.name) or one.zone not in ("", there.zone) or one.region not in ("", there.region):
        return False
    if any(there.labels.get(key) != value for key, value in one.host_labels):
        return False
    for wanted, offered in ((one.arch, there.archs), (one.virt_type, there.virt_types), (one.machine, there.machines),
                            (one.firmware, there.firmwares)):
        if wanted and wanted not in offered:
            return False
    used: List[Any] = [there]
    for network in one.networks:
        if network not in there.networks:
            return False
        used.append(there.networks[network])
    for disk in one.disks:
        pool = _pool(one, there, disk)
        if pool is None:
            return False
        used.append(there.pools[pool])
    return all((one.admin or not thing.admin_only) and (not thing.groups or one.group in thing.groups or bool(one.admin and one.host)) for thing in used)


def fits(there: HostCapacity, guests: Sequence[Request]) -> bool:
    """Whether the host has room for all of them on top of what it has."""
    if not guests:
        return True
    if sum(one.vcpus_milli for one in guests) > there.vcpus.available or sum(one.memory_mib for one in guests) > there.memory.available:
        return False
    if there.max_vms is not None and len(there.vms) + len(guests) > there.max_vms:
        return False
    virtual: Dict[str, int] = {}
    real: Dict[str, int] = {}
    for one in guests:
        for disk in one.disks:
            pool = _pool(one, there, disk)
            if pool is None:
                return False
            virtual[pool] = virtual.get(pool, 0) + disk.bytes
            real[pool] = real.get(pool, 0) + disk.real_bytes
    for pool, amount in virtual.items():
        this = there.pools[pool]
        if amount > this.available or (this.free_bytes is not None and real[pool] > this.free_bytes - this.floor_bytes):
            return False
    return True


def keeps_apart(there: HostCapacity, guests: Sequence[Request]) -> bool:
    """Anti-affinity in both directions, and limits per host."""
    for i, one in enumerate(guests):
        others = [(other.name, dict(other.labels), other.anti_affinity) for j, other in enumerate(guests) if j != i]
        others += [(vm.name, dict(vm.labels), vm.anti_affinity) for vm in there.vms]
        for name, labels, anti in others:
            if any(selector.matches(name, labels) for selector in one.anti_affinity):
                return False
            if any(selector.matches(one.name, dict(one.labels)) for selector in anti):
                return False
        if one.max_per_host:
            mine = [other for other in guests if (other.group, other.set) == (one.group, one.set)]
            mine_there = [vm for vm in there.vms if (vm.group, vm.set) == (one.group, one.set)]
            if len(mine) + len(mine_there) > one.max_per_host:
                return False
    return True


def violations(requests: Sequence[Request], hosts: Sequence[HostCapacity], plan: Dict[str, str]) -> List[str]:
    """What is wrong with a plan; empty where nothing is."""
    found = []
    for there in hosts:
        guests = [one for one in requests if plan.get(one.name) == there.name]
        found += ["{0} must not go to {1}".format(one.name, there.name) for one in guests if not may_go(one, there)]
        if not fits(there, guests):
            found.append("{0} is too full".format(there.name))
        if not keeps_apart(there, guests):
            found.append("{0} has VMs together that must not be".format(there.name))
    missing = [one.name for one in requests if plan.get(one.name) not in {there.name for there in hosts}]
    return found + ["{0} has no host".format(name) for name in missing]


def some_assignment(requests: Sequence[Request], hosts: Sequence[HostCapacity]) -> Optional[Dict[str, str]]:
    """Any assignment that breaks no rule, by trying all."""
    choices = [[there.name for there in hosts if may_go(one, there) and fits(there, [one])] for one in requests]
    for names in product(*choices):
        plan = {one.name: name for one, name in zip(requests, names)}
        if not violations(requests, hosts, plan):
            return plan
    return None


_GIB = 1 << 30
_selector = st.builds(Selector, labels=st.sampled_from([(("app", app),) for app in APPS]))
_labels = st.sampled_from([()] + [(("app", app),) for app in APPS])
_pools = st.builds(Pool, total=st.integers(0, 8).map(lambda n: n * _GIB), free_bytes=st.none() | st.integers(0, 4).map(lambda n: n * _GIB),
                   floor_bytes=st.sampled_from([0, _GIB]), admin_only=st.just(False))
_amount = st.builds(Amount, total=st.integers(0, 9), reserved=st.integers(0, 1), ratio=st.sampled_from([1, 1, 1.5, "2.0"]), allocated=st.integers(0, 2))


def _scaled(amount: Amount, unit: int) -> Amount:
    return Amount(amount.total * unit, amount.reserved * unit, amount.ratio, amount.allocated * unit)


_vm = st.builds(Vm, name=st.just(""), labels=_labels.map(dict), set=st.sampled_from(["", "s"]),
                anti_affinity=st.sampled_from([(), (), (), (Selector(labels=(("app", "db"),)),)]))


def _name_vms(name: str, vms: Sequence[Vm]) -> tuple:
    return tuple(Vm("{0}-vm{1}".format(name, i), labels=vm.labels, set=vm.set, anti_affinity=vm.anti_affinity) for i, vm in enumerate(vms))


@st.composite
def fleets(draw: Any, most: int = 4) -> List[HostCapacity]:
    """A few hosts with all that filters look at."""
    hosts = []
    for i in range(draw(st.integers(1, most))):
        name = "kvm{0}".format(i)
        pool = draw(_pools)
        hosts.append(HostCapacity(
            name, _scaled(draw(_amount), 1000), _scaled(draw(_amount), 1024), pools={"p": pool}, storage_classes=draw(st.sampled_from([{"ssd": "p"}, {}])),
            max_vms=draw(st.sampled_from([None, None, 1, 3])), vms=_name_vms(name, draw(st.lists(_vm, max_size=1))),
            reachable=draw(st.sampled_from([True, True, True, False])), schedulable=draw(st.sampled_from([True, True, True, False])),
            zone=draw(st.sampled_from("ab")), labels=draw(st.sampled_from([{}, {"disk": "fast"}])), groups=draw(st.sampled_from([(), (), ("red",)])),
            networks={"lan": Access(groups=draw(st.sampled_from([(), (), ("red",)])))}, archs=("x86_64",)))
    return hosts


@st.composite
def batches(draw: Any, most: int = 4) -> List[Request]:
    """A few requests, some of them alike."""
    requests: List[Request] = []
    while len(requests) < most:
        one = dict(
            vcpus_milli=draw(st.integers(1, 6)) * 1000, memory_mib=draw(st.integers(1, 6)) * 1024,
            disks=draw(st.sampled_from([(), (), (Disk(2 * _GIB, "ssd"),), (Disk(_GIB, "ssd", real_bytes=_GIB),)])),
            zone=draw(st.sampled_from(["", "", "", "a"])), host_labels=draw(st.sampled_from([(), (), (("disk", "fast"),)])),
            group=draw(st.sampled_from(["", "red"])), networks=draw(st.sampled_from([(), ("lan",)])), labels=draw(_labels),
            set=draw(st.sampled_from(["", "s"])), anti_affinity=draw(st.sampled_from([(), (), ()]) | st.tuples(_selector)),
            max_per_host=draw(st.sampled_from([0, 0, 0, 1, 2])))
        for _copy in range(draw(st.integers(1, 3))):
            if len(requests) < most:
                requests.append(Request("vm{0}".format(len(requests)), **one))
        if draw(st.booleans()):
            break
    return requests
