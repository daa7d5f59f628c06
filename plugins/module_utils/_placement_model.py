# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What placement reads and answers: requests, capacities of hosts, tenants, and the plan with its reasons. All amounts are integers."""
from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Dict, List, Mapping, Optional, Tuple

STRATEGIES = ("spread", "pack", "least_memory_used", "most_free_cpu", "round_robin", "weights")
UNLIMITED = 1 << 60


@dataclass(frozen=True)
class Amount:
    """One resource of a host: C((total - reserved) x ratio) is its capacity; what is not allocated of that is available."""

    total: int
    reserved: int = 0
    ratio: Any = 1            # int, float or text such as "1.5"; read as the decimal number it is written as, so that exact fit is exact
    allocated: int = 0

    @property
    def capacity(self) -> int:
        """What may be given away altogether."""
        usable = max(0, self.total - self.reserved)
        return usable * self.ratio if isinstance(self.ratio, int) else int(usable * Fraction(str(self.ratio)))

    @property
    def available(self) -> int:
        """What is left; negative where more has been given away than there is."""
        return self.capacity - self.allocated


@dataclass(frozen=True)
class Access:
    """Who may use a network or a storage class."""

    admin_only: bool = False
    groups: Tuple[str, ...] = ()   # empty: every group


@dataclass(frozen=True)
class Pool(Amount):
    """A storage pool. Amounts are virtual bytes; C(free_bytes) is the room really left on it, of which C(floor_bytes) stay untouched."""

    free_bytes: Optional[int] = None
    floor_bytes: int = 0
    admin_only: bool = False
    groups: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Disk:
    """A disk as it is counted. Which pool it lands in is up to the host, if only a storage class is given."""

    bytes: int                 # what is counted (the virtual size, or what is reserved for it)
    storage_class: str = ""
    pool: str = ""
    real_bytes: int = 0        # what is written at once: a full clone or a preallocated volume


@dataclass(frozen=True)
class Selector:
    """Other VMs, by name or by labels (all of them have to match)."""

    vm: str = ""
    labels: Tuple[Tuple[str, str], ...] = ()

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether the VM is meant."""
        if self.vm:
            return name == self.vm
        return bool(self.labels) and all(labels.get(key) == value for key, value in self.labels)

    def __str__(self) -> str:
        return "VM " + self.vm if self.vm else "VMs with " + ",".join("{0}={1}".format(*pair) for pair in self.labels)


@dataclass(frozen=True)
class Vm:
    """A VM that is on a host already, with what is counted for it (C(memory_mib) includes QEMU's own share)."""

    name: str
    vcpus_milli: int = 0
    memory_mib: int = 0
    disks: Tuple[Disk, ...] = ()
    group: str = ""
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    set: str = ""
    stopped: bool = False
    arch: str = ""
    networks: Tuple[str, ...] = ()
    anti_affinity: Tuple[Selector, ...] = ()


@dataclass(frozen=True)
class HostCapacity:
    """A host as placement sees it."""

    name: str
    vcpus: Amount = Amount(0)          # thousandths
    memory: Amount = Amount(0)         # MiB
    pools: Mapping[str, Pool] = field(default_factory=dict)
    max_vms: Optional[int] = None
    vms: Tuple[Vm, ...] = ()
    reachable: bool = True
    schedulable: bool = True
    region: str = ""
    zone: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    groups: Tuple[str, ...] = ()       # empty: every group
    admin_only: bool = False
    archs: Tuple[str, ...] = ()
    virt_types: Tuple[str, ...] = ()
    machines: Tuple[str, ...] = ()
    firmwares: Tuple[str, ...] = ()
    networks: Mapping[str, Access] = field(default_factory=dict)
    storage_classes: Mapping[str, str] = field(default_factory=dict)   # class -> pool
    class_access: Mapping[str, Access] = field(default_factory=dict)   # who may use a class, where not everybody may


@dataclass(frozen=True)
class Request:
    """One VM that wants a place. Amounts are what is to be counted for it; empty strings ask for nothing."""

    name: str
    vcpus_milli: int
    memory_mib: int                    # with QEMU's own share, see _overhead
    disks: Tuple[Disk, ...] = ()
    host: str = ""                     # pinned
    region: str = ""
    zone: str = ""
    host_labels: Tuple[Tuple[str, str], ...] = ()
    group: str = ""
    namespace: str = ""
    admin: bool = False                # asked by an operator: admin-only things are open, those of a group on a named host only
    labels: Tuple[Tuple[str, str], ...] = ()
    set: str = ""
    arch: str = ""
    virt_type: str = ""
    machine: str = ""
    firmware: str = ""
    networks: Tuple[str, ...] = ()
    affinity: Tuple[Selector, ...] = ()
    anti_affinity: Tuple[Selector, ...] = ()
    soft_affinity: Tuple[Selector, ...] = ()
    soft_anti_affinity: Tuple[Selector, ...] = ()
    max_per_host: int = 0              # of its set (or, without one, of its group's VMs that are in none); 0: any number
    image: str = ""
    image_memory_mib: int = 0          # minimums of the image
    image_vcpus_milli: int = 0
    image_disk_bytes: int = 0
    avoid: Tuple[Tuple[str, str], ...] = ()   # hosts that admission refused in this run, each with its sentence

    @property
    def disk_bytes(self) -> int:
        """All disks together."""
        return sum(disk.bytes for disk in self.disks)


@dataclass(frozen=True)
class Group:
    """A tenant. Quotas are over the whole fleet; None: no limit."""

    name: str
    locked: bool = False
    enabled: bool = True
    network: str = ""                  # of its VMs, where none is asked for
    max_vms: Optional[int] = None
    max_vcpus_milli: Optional[int] = None
    max_memory_mib: Optional[int] = None
    max_disk_bytes: Optional[int] = None


@dataclass(frozen=True)
class Flavor:
    """A size that people ask for, and how often; tells C(pack) which holes are worth keeping, and how_many what to count."""

    name: str
    vcpus_milli: int
    memory_mib: int
    disk_bytes: int = 0
    storage_class: str = ""
    weight: float = 1.0

    def request(self, name: str = "", **more: Any) -> Request:
        """A VM of this flavor."""
        disks = (Disk(self.disk_bytes, self.storage_class),) if self.disk_bytes else ()
        return Request(name or self.name, self.vcpus_milli, self.memory_mib, disks, **more)


@dataclass(frozen=True)
class Refusal:
    """Why a host (or the request as a whole) is refused: a stable code and a sentence for people.

    C(lack) says how much is missing where room is: the smaller, the nearer the miss.
    """

    code: str
    sentence: str
    lack: float = field(default=0.0, compare=False)


@dataclass
class Decision:
    """Where one VM goes, and why not elsewhere. C(refusals) are those of the fleet as it was before the batch."""

    name: str
    host: str = ""
    score: Optional[int] = None        # lower is better; comparable within one plan only
    runner_up: str = ""
    runner_up_score: Optional[int] = None
    sticky: bool = False               # it is there already and stays
    code: str = ""                     # where it got no host
    message: str = ""
    refusals: Dict[str, Refusal] = field(default_factory=dict)

    @property
    def reasons(self) -> Dict[str, int]:
        """How many hosts were refused for which reason."""
        counts: Dict[str, int] = {}
        for refusal in self.refusals.values():
            counts[refusal.code] = counts.get(refusal.code, 0) + 1
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    @property
    def examples(self) -> Dict[str, Dict[str, str]]:
        """For each reason the host that it fits best, in words: the one that lacks least."""
        best: Dict[str, Tuple[float, str, str]] = {}
        for host, why in self.refusals.items():
            entry = (why.lack, host, why.sentence)
            if why.code not in best or entry < best[why.code]:
                best[why.code] = entry
        return {code: {"host": best[code][1], "reason": best[code][2]} for code in self.reasons}

    @property
    def refused(self) -> List[Dict[str, str]]:
        """All hosts that were refused, as data."""
        return [{"host": host, "code": why.code, "reason": why.sentence} for host, why in sorted(self.refusals.items())]

    def as_result(self, most_refusals: int = 20) -> Dict[str, Any]:
        """As data. With more hosts refused than C(most_refusals) the counts by reason stand alone."""
        return {"name": self.name, "host": self.host, "score": self.score, "runner_up": self.runner_up, "sticky": self.sticky,
                "runner_up_score": self.runner_up_score, "code": self.code, "message": self.message, "reasons": self.reasons,
                "refused": self.refused if len(self.refusals) <= most_refusals else []}


@dataclass
class Plan:
    """The answer for a batch: all VMs have a host, or C(ok) is false and nothing may be done."""

    decisions: List[Decision] = field(default_factory=list)
    strategy: str = ""
    code: str = ""
    message: str = ""
    warnings: List[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every VM has its host."""
        return not self.code

    @property
    def hosts(self) -> Dict[str, str]:
        """VM -> host."""
        return {decision.name: decision.host for decision in self.decisions if decision.host}

    def as_result(self, every_host: bool = False) -> Dict[str, Any]:
        """As data, for a module's or a playbook's result. For a large batch, refused hosts are counted by reason and not listed for each VM.

        C(refusals) has the counts with an example of each reason, once for all VMs of which the same is to be said; with C(every_host) all the hosts too.
        """
        most_refusals = 20 if len(self.decisions) <= 10 else 0
        return {"ok": self.ok, "strategy": self.strategy, "code": self.code, "message": self.message, "warnings": list(self.warnings),
                "vms": [decision.as_result(most_refusals) for decision in self.decisions], "refusals": self._refusals(every_host)}

    def _refusals(self, every_host: bool) -> List[Dict[str, Any]]:
        groups: Dict[int, Tuple[List[str], Decision]] = {}
        for decision in self.decisions:
            if decision.refusals:
                # VMs of one kind share theirs
                groups.setdefault(id(decision.refusals), ([], decision))[0].append(decision.name)
        return [dict({"vms": names, "reasons": one.reasons, "examples": one.examples}, **({"hosts": one.refused} if every_host else {}))
                for names, one in groups.values()]
