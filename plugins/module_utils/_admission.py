# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks of a host, and the check under the host's lock that a claim really fits."""
from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

from ansible_collections.kvmfleet.core.plugins.module_utils import _metadata, _progress
from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import DomainRecord, Policy, compute, pool_use
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, human_size, told_name
from ansible_collections.kvmfleet.core.plugins.module_utils._volumes import Pools

LOCK_DIR = "/run/kvmfleet"
HOST_LOCK_TIMEOUT_S = 30.0
DEFAULT_CLAIM_TTL_S = 60


def lock_dir(uri: str) -> str:
    """Where the locks of a connection live: one place per machine for the system daemon, the user's own for session daemons."""
    if uri.rstrip("/").endswith("/session"):
        return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or os.path.expanduser("~/.cache"), "kvmfleet")
    return LOCK_DIR


def _open_lock(directory: str, name: str) -> int:
    try:
        os.makedirs(directory, mode=0o770, exist_ok=True)
        return os.open(os.path.join(directory, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
    except OSError as exc:
        raise FleetError("Cannot open the lock {0}/{1}: {2}. Run as root (become: true), or let the role kvmfleet.core.kvm_host make {0} for the "
                         "group libvirt".format(directory, name, exc.strerror), "lock_failed") from exc


def _retry(attempt: Callable[[], None], timeout_s: float, subject: str, message: str, code: str) -> None:
    """Try a non-blocking lock until it is had or the deadline has passed (flock knows no deadline of its own).

    :param subject: what is told to be waited for, where it has to be
    """
    deadline = time.monotonic() + timeout_s
    delay, waited = 0.005, False
    while True:
        try:
            attempt()
            if waited:
                _progress.say(subject, "the other run is out of the way", done=True)
            return
        except OSError as exc:
            if exc.errno not in (errno.EACCES, errno.EAGAIN):
                raise FleetError("Locking failed: {0}".format(exc.strerror), "lock_failed") from exc
            if time.monotonic() >= deadline:
                raise FleetError(message, code) from exc
        if not waited:
            waited = True
            _progress.say(subject, "waiting for another run, {0:.0f} s at most".format(timeout_s))
        time.sleep(delay)
        delay = min(delay * 1.5, 0.1)


@contextlib.contextmanager
def host_lock(uri: str, timeout_s: float = HOST_LOCK_TIMEOUT_S) -> Iterator[None]:
    """The one lock of this machine, under which room is counted and given out. Raises FleetError C(host_busy) after C(timeout_s) seconds."""
    descriptor = _open_lock(lock_dir(uri), "lock")
    try:
        _retry(lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB), timeout_s, "this host's lock",
               "Another run has held this host's lock ({0}/lock) for {1:g} s".format(lock_dir(uri), timeout_s), "host_busy")
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def vm_locks(uri: str, names: Sequence[str], timeout_s: float) -> Iterator[None]:
    """A lock per VM for as long as the block runs; it ends with the process, however that ends.

    All are byte ranges of one file, at an offset made of the name, so that no lock files pile up. They are taken in one order by everybody: no deadlock.
    Raises FleetError C(busy) after C(timeout_s) seconds.
    """
    if not names:
        yield
        return
    descriptor = _open_lock(lock_dir(uri), "vms")
    deadline = time.monotonic() + timeout_s
    try:
        for offset, name in sorted((int.from_bytes(hashlib.sha256(n.encode()).digest()[:7], "big"), n) for n in names):
            def attempt(offset: int = offset) -> None:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
            _retry(attempt, max(0.0, deadline - time.monotonic()), name, "Another run is working on VM {0}; try again when it has ended".format(name), "busy")
        yield
    finally:
        os.close(descriptor)


@dataclass
class Demand:
    """What is asked of a host beyond what is already counted there. Thousandths of vcpus, MiB, bytes per pool."""

    vm: str
    vcpus_milli: int = 0
    memory_mib: int = 0
    pools: Dict[str, int] = field(default_factory=dict)


def check_room(conn: Any, records: Sequence[DomainRecord], policy: Policy, pools: Pools, demands: Sequence[Demand],
               options: Optional[Mapping[str, str]] = None) -> None:
    """Raises SpecError C(no_capacity) where the demands together do not fit; exact fit fits.

    :param options: what the user calls C(vcpus), C(memory) and C(disk)
    """
    names = dict({"vcpus": "vcpus", "memory": "memory", "disk": "size"}, **(options or {}))
    who = demands[0].vm if len(demands) == 1 else "{0} VMs ({1} ... {2})".format(len(demands), demands[0].vm, demands[-1].vm) if demands else ""
    vcpus, memory = sum(d.vcpus_milli for d in demands), sum(d.memory_mib for d in demands)
    if vcpus > 0 or memory > 0:
        resources = compute(conn, records, policy)
        checks = (("vcpus", vcpus, 1000, "vcpus"), ("memory", memory, 1, "MiB of memory"))
        for key, wanted, divide, unit in checks:
            have = resources[key]
            if wanted > max(0, have.available) and wanted > 0:
                raise SpecError(names[key], _count(wanted, divide) if divide > 1 else human_size(wanted << 20),
                                "{0} would take {1} {2}, and this host has {3} available "
                                "(({4} - {5} reserved) x {6:g} - {7} allocated)".format(
                                    who, _count(wanted, divide), unit, _count(have.available, divide), _count(have.total, divide),
                                    _count(have.reserved, divide), have.ratio, _count(have.allocated, divide)),
                                "Ask for less, free room, or use another host", "no_capacity")
    wanted_pools: Dict[str, int] = {}
    for demand in demands:
        for name, size in demand.pools.items():
            wanted_pools[name] = wanted_pools.get(name, 0) + size
    for name, size in wanted_pools.items():
        if size <= 0:
            continue
        use = pool_use(pools.get(name), records, policy)
        if size > max(0, use.resource.available):
            raise SpecError(names["disk"], human_size(size), "{0} would take that much of pool {1}, which has {2} available".format(
                who, name, human_size(max(0, use.resource.available))), "Ask for less, free room, or use another pool or host", "no_capacity")


def _count(value: int, divide: int) -> str:
    return "{0:g}".format(value / divide) if divide > 1 else str(value)


def stale_claims(records: Sequence[DomainRecord], ttl_s: float) -> List[DomainRecord]:
    """Claims whose run is gone: C(pending) for longer than C(ttl_s) seconds by this host's clock. Only to be asked under the host's lock."""
    return [r for r in records if r.metadata is not None and r.metadata.phase == "pending" and not r.active
            and _metadata.age_seconds(r.metadata.claimed or "") > ttl_s]


def check_unique(records: Sequence[DomainRecord], name: str, uuid: Optional[str], macs: Sequence[str], addresses: Sequence[str],
                 group: Optional[str] = None) -> None:
    """Raises SpecError where a UUID, MAC or static address of VM C(name) belongs to another domain of this host.

    :param group: of the VM; other groups' domains are not named to it
    """
    for other in records:
        if other.name == name:
            continue
        holder = told_name(other.name, other.metadata.group if other.metadata else None, group)
        if uuid and other.uuid == uuid:
            raise SpecError("uuid", uuid, "belongs to domain {0}".format(holder), "Leave uuid out", "uuid_in_use")
        for mac in macs:
            if mac in other.macs:
                raise SpecError("mac", mac, "is used by domain {0}".format(holder), "Use another, or none to get one made", "mac_in_use")
        for address in addresses:
            if other.metadata and address.split("/")[0] in [a.split("/")[0] for a in other.metadata.addresses]:
                raise SpecError("addresses", address, "is the address of domain {0}".format(holder), "Use another address", "ip_in_use")
