# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done so that one VM is as wanted; reads, and touches nothing."""
from __future__ import annotations

import dataclasses
import os
import re
import uuid as uuid_lib
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any, Collection, Dict, List, Optional

from ansible_collections.kvmfleet.core.plugins.module_utils import _domain_xml, _live, _metadata, _power, _seed, _volume_job
from ansible_collections.kvmfleet.core.plugins.module_utils._admission import DEFAULT_CLAIM_TTL_S, Demand
from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import DomainRecord, requests_of
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError, is_gone
from ansible_collections.kvmfleet.core.plugins.module_utils._domain_xml import Context, DiskSource, ObservedDisk, ObservedVm, observe
from ansible_collections.kvmfleet.core.plugins.module_utils._host import Host
from ansible_collections.kvmfleet.core.plugins.module_utils._metadata import VmMetadata, VolumeRef
from ansible_collections.kvmfleet.core.plugins.module_utils._seed_spec import SeedSpec, seed_from_params
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import (
    DiskSpec, NicSpec, ScalingSpec, SpecError, VmSpec, check_domain_name, format_size, volume_name)
from ansible_collections.kvmfleet.core.plugins.module_utils._volume_job import VolumeJob
from ansible_collections.kvmfleet.core.plugins.module_utils._volumes import Pool, backing_chain, describe, disk_paths, virtual_size

try:
    import libvirt
except ImportError:  # reported by _connection.require_libvirt
    pass

SEED = "seed"

FINISH = "finish what an interrupted run began"


@dataclass
class SeedJob:
    """A seed that has to be written. C(hash) is that of its documents."""

    spec: SeedSpec
    documents: Dict[str, bytes]
    hash: str
    pool: str
    name: str
    new: bool


@dataclass
class VmPlan:
    """The plan for one VM. C(kind) is create, update or delete; C(actions) are what it does, in order, for people and for check mode."""

    spec: VmSpec
    kind: str
    record: Optional[DomainRecord] = None
    root: Optional[ET.Element] = None
    metadata: Optional[VmMetadata] = None
    actions: List[str] = field(default_factory=list)
    before: Dict[str, Any] = field(default_factory=dict)
    after: Dict[str, Any] = field(default_factory=dict)
    define: bool = False
    jobs: List[VolumeJob] = field(default_factory=list)
    seed: Optional[SeedJob] = None
    power: List[str] = field(default_factory=list)
    autostart: Optional[bool] = None
    restart_required: List[str] = field(default_factory=list)
    takes_effect: Optional[str] = None
    demand: Optional[Demand] = None
    finish: bool = False
    first: Optional[VmPlan] = None  # an interrupted deletion that has to end before
    made: bool = False  # by this run: a failure undoes it
    mark: bool = False  # only our metadata has to be written
    intent: _live.Intent = field(default_factory=_live.Intent)

    @property
    def unfinished(self) -> bool:
        """Whether the VM is not the user's yet, so that a failure undoes it: made by this run, or taken over from one that was interrupted."""
        return self.made or self.finish

    @property
    def changed(self) -> bool:
        """Whether carrying it out changes anything."""
        return bool(self.actions)


def _require_ours(record: DomainRecord, spec: VmSpec) -> None:
    if record.metadata is None and not spec.adopt:
        raise SpecError("name", spec.name, "a VM of that name exists and is not ours (it has no kvmfleet metadata)",
                        "Use another name, or take it over with adopt: true", "not_ours")


def power_actions(state: str, wanted: str) -> List[str]:
    """The actions of _power that lead from a state to the wanted one. Pure."""
    off = state in ("stopped", "crashed", "absent")
    table = {
        "running": ["start"] if off else {"paused": ["resume"], "stopping": ["shutdown", "start"]}.get(state, []),
        "stopped": [] if off else ["shutdown"],
        "paused": ["start paused"] if off else {"paused": [], "stopping": ["shutdown", "start paused"]}.get(state, ["pause"]),
        "restarted": ["start"] if off else ["shutdown", "start"],
    }
    return table.get(wanted, [])


def restart_actions(state: str, wanted: str) -> List[str]:
    """The actions that restart a VM and leave it in the state that is wanted, or that it was in."""
    return ["shutdown", "start paused" if wanted == "paused" or (state == "paused" and wanted == "present") else "start"]


def _first_pool(spec: VmSpec, meta: Optional[VmMetadata]) -> Optional[str]:
    for disk in spec.disks or []:
        if disk.pool:
            return disk.pool
    return meta.volumes[0].pool if meta and meta.volumes else None


def _foreign_source(host: Host, disk: DiskSpec, option: str) -> DiskSource:
    """Where a disk of the user's own is: a volume in a pool, or a path."""
    if disk.volume is not None:
        pool = host.pools.get(disk.pool or "", option + ".pool")
        found = pool.volume(disk.volume, refresh=True)
        if found is None:
            raise SpecError(option + ".volume", disk.volume, "there is no such volume in pool {0}".format(pool.name), "Create it first (vm_disk)",
                            "unknown_volume")
        return DiskSource("block" if pool.block else "file", found.path, disk.format or ("raw" if found.format == "iso" else found.format))
    path = disk.path or ""
    if not path:
        return DiskSource("file", "", "raw")
    if not os.path.exists(path):
        raise SpecError(option + ".path", path, "does not exist on this host, or cannot be read", "Give an existing file or block device", "unknown_path")
    if os.path.isdir(path):
        raise SpecError(option + ".path", path, "is a directory", "Give a file or a block device", "unknown_path")
    kind = "file" if os.path.isfile(path) else "block"
    if disk.format:
        return DiskSource(kind, path, disk.format)
    if disk.device != "disk" or kind == "block":
        return DiskSource(kind, path, "raw")
    volume = _known_volume(host, path)
    if volume is None:
        raise SpecError(option + ".format", None, "the format of {0} is not known, and guessing it would let a guest choose it".format(path),
                        "Say format: qcow2 or format: raw")
    return DiskSource(kind, path, volume)


def _known_volume(host: Host, path: str) -> Optional[str]:
    """The format of a file or device that is a volume of an active pool."""
    try:
        handle = host.conn.storageVolLookupByPath(path)
        found = describe(handle.storagePoolLookupByVolume().name(), handle).format
    except libvirt.libvirtError as exc:
        if is_gone(exc):
            return None
        raise
    return "raw" if found == "iso" else found


class _Planner:
    """Builds the plan of one VM, step by step; each step adds to the plan."""

    def __init__(self, host: Host, spec: VmSpec, record: Optional[DomainRecord], going: Collection[str] = ()) -> None:
        self.going = going  # volumes of a predecessor, which are deleted before
        self.host, self.spec, self.record = host, dataclasses.replace(spec), record
        self.plan = VmPlan(self.spec, "update" if record else "create", record, made=record is None)
        self.meta = VmMetadata() if record is None or record.metadata is None else _copy_metadata(record.metadata)
        self.plan.metadata = self.meta
        self.old: Optional[ObservedVm] = None if record is None else observe(record.root)
        self.sources: Dict[str, DiskSource] = {}
        self.state = "absent"
        self.made_up = False
        self.pool: Optional[str] = None
        if record is None:
            self.spec.vcpus = self.spec.vcpus or self.spec.default_vcpus
            self.spec.memory_mib = self.spec.memory_mib or self.spec.default_memory_mib
            self.spec.nics = self.spec.default_nics if self.spec.nics is None else self.spec.nics
            self._check_new_name()
            self.made_up = not spec.uuid
            self.uuid = spec.uuid or str(uuid_lib.uuid4())
        else:
            self.uuid = record.uuid
            self.state = _power.settled_state(record.handle) if record.active else "stopped"
            self.plan.finish = self.meta.phase in ("pending", "building")
            if spec.uuid and spec.uuid != record.uuid:
                raise SpecError("uuid", spec.uuid, "the VM exists and has UUID {0}, which never changes".format(record.uuid),
                                "Leave uuid out, or use another name",
                                "uuid_in_use")

    def _check_new_name(self) -> None:
        try:
            check_domain_name("name", self.spec.name)
        except SpecError as exc:
            if not self.spec.adopt:
                raise
            raise SpecError("name", self.spec.name, "there is no such VM to take over, and a new one cannot be called this: it {0}".format(exc.reason),
                            "Give the name of a domain of this host (list_vms with vm_managed_only=false)", "unknown_vm") from None

    def build(self) -> VmPlan:
        if not self.record and (self.spec.disks is None and self.spec.nics is None and self.spec.vcpus is None and self.spec.memory_mib is None):
            raise SpecError("name", self.spec.name, "there is no such VM, and nothing says what it should be",
                            "Give at least memory and disks, or the name of an existing VM", "unknown_vm")
        self._check_size()
        self._identity()
        self._nics()
        self._disks()
        self._seed()
        self._definition()
        self._power()
        self._demand()
        return self.plan

    def _check_size(self) -> None:
        if self.spec.machine and not (self.old and _domain_xml.same_machine(self.spec.machine, self.old.machine)):
            self.host.check_machine(self.spec.machine, self.spec.arch or (self.old.arch if self.old else "x86_64"))
        node = self.host.conn.getInfo()
        total_memory = self.host.policy.totals.get("memory", node[1])
        for option, mib in (("memory", self.spec.memory_mib), ("max_memory", self.spec.max_memory_mib)):
            if mib is not None and mib > total_memory * self.host.policy.ratios["memory"]:
                raise SpecError(option, "{0}MiB".format(mib), "this host has {0} MiB of memory".format(total_memory), "Ask for less, or use a larger host",
                                "no_capacity")
        total_vcpus = self.host.policy.totals.get("vcpus", node[2])
        limit = total_vcpus * self.host.policy.ratios["vcpus"]
        for option, count in (("vcpus", self.spec.vcpus), ("max_vcpus", self.spec.max_vcpus)):
            if count is not None and count > limit:
                raise SpecError(option, count,
                                "this host gives out at most {0:g} vcpus ({1} x {2:g})".format(limit, total_vcpus, self.host.policy.ratios["vcpus"]),
                                "Ask for fewer, or use a larger host", "no_capacity")

    def _identity(self) -> None:
        self.spec.uuid = self.uuid
        for key in ("group", "namespace", "set", "index", "image", "flavor", "key_name", "vcpus_request_milli", "memory_request_mib"):
            value = getattr(self.spec, key)
            if value is not None:
                if key in ("group", "namespace") and self.record and self.record.metadata and getattr(self.meta, key) not in (None, value):
                    raise SpecError(key, value, "the VM belongs to {0} {1!r}".format(key, getattr(self.meta, key)),
                                    "A VM does not move; make a new one", "not_ours")
                setattr(self.meta, key, value)
        if self.spec.labels is not None:
            self.meta.labels = dict(self.spec.labels)
        if self.spec.anti_affinity is not None:
            self.meta.anti_affinity = list(self.spec.anti_affinity)
        if self.spec.scaling is not None:
            self._scaling(self.spec.scaling)

    def _scaling(self, wanted: ScalingSpec) -> None:
        """The compare of a compare-and-set: what is planned is written under the VM's lock, under which it was planned."""
        kept = self.meta.scaling.ticket if self.meta.scaling is not None else ""
        if kept != wanted.expect:
            raise FleetError("The set of VM {0} was scaled by another run meanwhile".format(self.spec.name), "scaled_meanwhile")
        self.meta.scaling = _metadata.Scaling(
            wanted.ticket, wanted.at or _metadata.utc_now(), wanted.open, wanted.acting, wanted.alerts) if wanted.ticket else None
        self.plan.mark = True

    def _nics(self) -> None:
        if self.spec.nics is None:
            return
        nics: List[NicSpec] = []
        for number, nic in enumerate(self.spec.nics):
            option = "nics[{0}]".format(number)
            self.host.check_nic(nic, option, self.spec.state in ("running", "paused", "restarted") or self.record is not None and self.record.active)
            found = None if self.record is None else _domain_xml.find_nic(self.record.root, number, nic.mac)
            if found is None and not nic.mac:
                nic = dataclasses.replace(nic, mac=self.host.mac(self.spec.name, number))
            elif nic.mac and self.host.macs.get(nic.mac, self.spec.name) != self.spec.name:
                raise SpecError(option + ".mac", nic.mac, "is used by domain {0}".format(self.host.macs[nic.mac]), "Use another, or none to get one made",
                                "mac_in_use")
            nics.append(nic)
        self.spec.nics = nics
        addresses = [a for nic in nics for a in nic.addresses]
        if addresses and self.spec.seed is None and self.meta.seed_hash is None:
            raise SpecError("nics", addresses[0], "a static address reaches the guest by its cloud-init seed, and there is none",
                            "Give a seed, or configure the guest yourself")
        if addresses or any(n.addresses for n in nics) or self.record is None:
            self.meta.addresses = addresses

    def _unasked(self, disk: DiskSpec) -> bool:
        """Whether a disk is for a new VM only (it has nothing but a default size), and this VM was there without it."""
        there = self.record is not None and not self.plan.finish
        return there and disk.size is None and disk.default_size is not None and self.meta.volume(disk.name) is None

    def _disks(self) -> None:
        self.pool = _first_pool(self.spec, self.meta)
        wanted = [(number, disk) for number, disk in enumerate(self.spec.disks or []) if not self._unasked(disk)]
        if self.spec.disks:
            self.spec.disks = [disk for number, disk in wanted] or None  # an empty list would be a wish to have none
        for number, disk in wanted:
            option = "disks[{0}]".format(number)
            if disk.managed:
                self._managed_disk(disk, option)
            else:
                self.sources[disk.name] = _foreign_source(self.host, disk, option)
                self._require_no_overlays(disk, self.sources[disk.name].path, option)
                self._user_volume(disk, self.sources[disk.name])
        if self.plan.finish:
            known = {d.name for d in self.spec.disks or []} | {SEED}
            missing = [v.disk for v in self.meta.volumes if v.disk not in known]
            if missing and self.record is not None:
                raise FleetError("VM {0} was left half-made by an interrupted run that asked for the disks {1} too. Delete it first, or ask for the same "
                                 "disks".format(self.spec.name, ", ".join(missing)), "half_made")

    def _require_no_overlays(self, disk: DiskSpec, path: str, option: str) -> None:
        """What is attached newly and may be written must not be what overlays lie on: they would be spoiled."""
        if not path or disk.readonly or disk.device != "disk" or self._attached(path):
            return
        uppers = {os.path.basename(upper) for upper in self.host.overlays().get(os.path.realpath(path), [])}
        if uppers:
            raise SpecError(option + (".volume" if disk.volume else ".path"), disk.volume or path, "is the backing file of {0}, which the guest would spoil"
                            .format(", ".join(sorted(uppers)[:3])), "Make a disk of its own (image: ...), or attach it with readonly: true", "volume_in_use")

    def _attached(self, path: str) -> bool:
        """Whether the VM has it already."""
        return self.old is not None and any(d.path and os.path.realpath(d.path) == os.path.realpath(path) for d in self.old.disks.values())

    def _snapshot_of(self, disk: DiskSpec, path: str, option: str) -> Optional[ObservedDisk]:
        """The VM's disk where it is an overlay that somebody has put over the volume since (an external snapshot): that has what the guest wrote.

        Raises SpecError where the disk is another file that does not lie on the volume at all.
        """
        now = next((d for d in self.old.disks.values() if d.key == disk.name), None) if self.old else None
        if now is None or not now.path or not os.path.exists(now.path) or os.path.realpath(now.path) == os.path.realpath(path):
            return None
        if os.path.realpath(path) in [os.path.realpath(below) for below in backing_chain(now.path)]:
            return now
        raise SpecError(option, now.path, "is what disk {0!r} is now, moved there by someone else; its volume was {1}, and what is in that is older".format(
            disk.name, path), "Move it back (virsh blockcopy), or delete the VM with delete_disks: false and make it anew from the file", "disk_moved")

    def _user_volume(self, disk: DiskSpec, source: DiskSource) -> None:
        """A user's volume is listed as the VM's own only where the user said that it goes with the VM."""
        listed = self.meta.volume(disk.name)
        if listed is not None and listed.given and (listed.pool, listed.name) != (disk.pool, disk.volume):
            self.meta.volumes.remove(listed)  # another one has taken its place
            self.plan.mark = True
            listed = None
        if disk.delete_with_vm and disk.volume is not None and listed is None:
            size = self.host.pools.get(disk.pool or "").capacity_of(disk.volume) or 0
            self.meta.volumes.append(VolumeRef(disk.name, disk.pool or "", disk.volume, size, disk.reserve, given=True))
            if self.record is not None:
                self.plan.mark = True
        elif not disk.delete_with_vm and listed is not None and listed.given:
            self.meta.volumes.remove(listed)
            self.plan.mark = True

    def _managed_disk(self, disk: DiskSpec, option: str) -> None:
        listed = self.meta.volume(disk.name)
        pool_name = listed.pool if listed else (disk.pool or self.pool)
        if not pool_name:
            raise SpecError(option + ".pool", None, "no pool is given for disk {0!r}".format(disk.name), "Give the storage pool for it")
        if listed and disk.pool and disk.pool != listed.pool:
            raise SpecError(option + ".pool", disk.pool, "disk {0!r} lies in pool {1}, and disks are not moved".format(disk.name, listed.pool),
                            "Leave pool as it was")
        pool = self.host.pools.get(pool_name, option + ".pool")
        kind = "block" if pool.block else "file"
        capacity = pool.capacity_of(listed.name) if listed else None
        if listed and capacity is not None and not self._may_be_torso(disk, listed, pool):
            xml_format = next((d.format for d in self.old.disks.values() if d.key == disk.name), None) if self.old else None
            if disk.format and xml_format and disk.format != xml_format:
                raise SpecError(option + ".format", disk.format, "disk {0!r} is {1}, and formats are not converted".format(disk.name, xml_format),
                                "Leave format as it was")
            snapshot = self._snapshot_of(disk, pool.path_of(listed.name), option)
            if snapshot is not None:
                capacity = virtual_size(snapshot.path) or capacity
            self.sources[disk.name] = DiskSource(kind, snapshot.path if snapshot else pool.path_of(listed.name), xml_format or disk.format or "qcow2")
            job = _volume_job.plan_existing(pool, listed.name, disk.name, disk.size, capacity, option + ".")
            if job and snapshot is not None:
                raise SpecError(option + ".size", format_size(job.size), "disk {0!r} has a snapshot ({1}), and is not grown below it".format(
                    disk.name, snapshot.path), "Commit or remove the snapshot first (virsh blockcommit)", "disk_moved")
            if job:
                self.plan.jobs.append(job)
                listed.size = job.size
            elif listed.size != capacity:
                listed.size, self.plan.mark = capacity, True
            if disk.reserve is not None and listed.reserve != disk.reserve:
                listed.reserve, self.plan.mark = disk.reserve, True
            return
        if listed and not (listed.planned or self.plan.finish):
            raise SpecError(option, listed.name, "the volume of disk {0!r} is gone from pool {1}, deleted by someone else".format(disk.name, listed.pool),
                            "Restore it, or delete the VM and create it anew", "disk_missing")
        image = self.host.image(disk.image, disk.image_pool or pool_name) if disk.image else None
        extension = disk.format or ("raw" if pool.block else "qcow2")
        name = listed.name if listed else volume_name(self.spec.name, disk.name, self.uuid, "img" if extension == "raw" else extension)
        if not listed:
            self._require_free(option, pool, name)
        size = disk.size
        if size is None and disk.default_size is not None:
            size = max(disk.default_size, image.capacity if image else 0)
        job = _volume_job.plan_new(pool, name, disk.name, size, disk.format, image, disk.clone, option + ".")
        job.redo = listed is not None
        if not listed:
            # A copy takes its time: until it is noted as complete, it may be a torso.
            planned = self.record is not None or (image is not None and disk.clone == "full")
            self.meta.volumes.append(VolumeRef(disk.name, pool_name, name, job.size, disk.reserve, planned=planned))
        self.plan.jobs.append(job)
        self.sources[disk.name] = DiskSource(kind, pool.path_of(name), job.format)

    def _require_free(self, option: str, pool: Pool, name: str) -> None:
        """A new volume's name can be taken where the UUID was given: by a disk that was kept when its VM was deleted, for instance."""
        if name not in self.going and os.path.lexists(pool.path_of(name)):
            raise SpecError(option, name, "pool {0} has a volume of that name already, which is not listed as this VM's".format(pool.name),
                            "Give it as pool and volume, delete it with vm_disk, or use another uuid", "volume_exists")

    def _may_be_torso(self, disk: DiskSpec, listed: VolumeRef, pool: Pool) -> bool:
        """A full copy that an interrupted run began and did not note as complete; never one that the guest has been given already."""
        if not (listed.planned and disk.image is not None and disk.clone == "full"):
            return False
        if self.record is None or not self.record.active:
            return True
        return pool.path_of(listed.name) not in disk_paths(ET.fromstring(self.record.handle.XMLDesc()))

    def _seed(self) -> None:
        if self.spec.seed is None:
            return
        spec = seed_from_params(self.spec.seed)
        listed = self.meta.volume(SEED)
        pool_name = listed.pool if listed else self.pool
        if not pool_name:
            raise SpecError("seed", None, "there is no pool to put the seed in", "Give a disk with a pool")
        pool = self.host.pools.get(pool_name)
        if pool.block:
            raise SpecError("disks[0].pool", pool_name, "gives out block devices, and the seed is a file", "Put the first disk into a directory pool")
        name = listed.name if listed else volume_name(self.spec.name, SEED, self.uuid, "iso")
        instance_id = spec.instance_id or self.uuid
        files = _seed.documents(spec, instance_id, self.spec.hostname, self._all_nics())
        digest = _seed.documents_hash(files, spec.format)
        if not listed:
            self._require_free("seed", pool, name)
            self.meta.volumes.append(VolumeRef(SEED, pool_name, name, 1 << 20, planned=self.record is not None))
        there = bool(listed) and pool.lookup(name) is not None
        if digest != self.meta.seed_hash or not there or self.plan.finish:
            self.plan.seed = SeedJob(spec, files, digest, pool_name, name, new=self.meta.seed_hash is None)
            self.plan.mark = self.plan.mark or self.record is not None  # no hash is noted while it is being rewritten
            if self.meta.seed_hash is not None and not self.plan.finish:
                self.plan.takes_effect = "next_instance"
        self.meta.seed_instance_id, self.meta.seed_hash, self.meta.seed_format = instance_id, digest, spec.format
        disks = list(self.spec.disks or [])
        self.sources[SEED] = DiskSource("file", pool.path_of(name), "raw")
        # Debian's and Ubuntu's cloud kernels have no AHCI: a CD-ROM would never be seen.
        self.spec.disks = disks + [DiskSpec(SEED, bus="virtio", readonly=True, path=pool.path_of(name))]

    def _all_nics(self) -> List[NicSpec]:
        """The NICs with their MACs, for the seed's network document: as wanted, with the MACs that existing ones have."""
        nics = []
        for number, nic in enumerate(self.spec.nics or []):
            if not nic.mac and self.record is not None:
                found = _domain_xml.find_nic(self.record.root, number, None)
                if found is not None:
                    nic = dataclasses.replace(nic, mac=_domain_xml.observe_device(found).mac)  # type: ignore[union-attr]
            nics.append(nic)
        return nics

    def _context(self) -> Context:
        virt_type = "" if self.record is not None and self.spec.virt_type in (None, "auto") else self.host.virt_type(self.spec)
        return Context(virt_type, self.host.lib_version, self.sources, self.host.openvswitch)

    def _definition(self) -> None:
        plan, spec = self.plan, self.spec
        root = _domain_xml.render(spec, None if self.record is None else self.record.root, self._context())
        if self.record is None:
            self.meta.phase = "building"
        _metadata.store(root, self.meta)
        plan.root = root
        wanted = observe(root)
        if self.record is None or self.old is None:
            plan.define = True
            plan.actions.append("define the domain: {0} vcpus, {1} MiB".format(wanted.vcpus, wanted.memory_mib))
            plan.after.update(_facts(wanted))
        else:
            if self.record.metadata is None:
                plan.actions.append("adopt the domain")
                plan.mark = True
            old = _domain_xml.aligned(self.old, wanted)
            named = ["{0}[{1}]".format(kind, k) for kind in ("disks", "nics") for k, device in getattr(old, kind).items()
                     if k in getattr(wanted, kind) and device.key != k]
            if named:
                plan.actions.append("name {0}".format(", ".join(named)))
            changes = _domain_xml.differences(old, wanted)
            for option, (before, after) in changes.items():
                if option == "metadata" and self.record.metadata is None:
                    continue
                plan.before[option], plan.after[option] = before, after
                plan.actions.append("change {0}".format(option))
            plan.define = bool(set(changes) - {"metadata"}) or bool(named)
            plan.mark = plan.mark or bool(changes) or bool(plan.jobs)
            if plan.finish:
                plan.actions.append(FINISH)
        for job in plan.jobs:
            plan.actions.append(job.sentence)
            plan.before["disks[{0}].size".format(job.disk)] = job.old_size or None
            plan.after["disks[{0}].size".format(job.disk)] = job.size
        if plan.seed:
            plan.actions.append("write the cloud-init seed")
            plan.before["seed"] = None if self.record is None or not self.record.metadata else self.record.metadata.seed_hash
            # A made-up UUID is the instance-id of a new VM, and would show another hash in check mode than for real.
            plan.after["seed"] = "new" if self.made_up else plan.seed.hash
        if plan.mark and not plan.actions:
            plan.actions.append("write the metadata")
        autostart = bool(self.record.handle.autostart()) if self.record is not None and spec.autostart is not None else False
        if spec.autostart is not None and spec.autostart != autostart:
            plan.autostart = spec.autostart
            plan.before["autostart"], plan.after["autostart"] = autostart, spec.autostart
            plan.actions.append("set autostart {0}".format("on" if spec.autostart else "off"))

    def _power(self) -> None:
        plan, spec = self.plan, self.spec
        plan.power = power_actions(self.state, spec.state)
        if self.record is not None and self.record.active and plan.root is not None and "shutdown" not in plan.power:
            live = ET.fromstring(self.record.handle.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))
            running = _metadata.find(live)
            self.meta.hopeless = running.hopeless if running else []
            if self.record.metadata is not None and (running is None or dataclasses.replace(running, hopeless=[]) != self.record.metadata):
                # A run was interrupted between writing the two definitions.
                if not plan.actions:
                    plan.actions.append("write the metadata")
                plan.mark = True
            purge = [kind for kind in ("disks", "nics") if getattr(spec, "purge_" + kind) and getattr(spec, kind) is not None]
            plan.intent = _live.Intent(purge, set(plan.before), list(self.meta.hopeless))
            todo, plan.restart_required = _live.operations(live, plan.root, plan.intent)
            for operation in todo:
                if "change {0}".format(operation.option) not in plan.actions:
                    plan.actions.append("{0} {1} in the running guest".format(operation.verb, operation.option))
            if plan.restart_required and spec.allow_restart:
                plan.power = restart_actions(self.state, spec.state)
                plan.restart_required = []
        if plan.power:
            plan.actions.extend(plan.power)
            plan.before["state"] = self.state
            plan.after["state"] = {"start": "running", "resume": "running", "shutdown": "stopped"}.get(plan.power[-1], "paused")

    def _demand(self) -> None:
        """What the plan takes beyond what is counted for the VM already; shrinking is no demand."""
        plan = self.plan
        vcpus, memory = requests_of(dataclasses.replace(observe(plan.root), metadata=self.meta)) if plan.root is not None else (0, 0)
        pools: Dict[str, int] = {}
        for volume in self.meta.volumes:
            pools[volume.pool] = pools.get(volume.pool, 0) + volume.booked
        if self.record is not None:
            vcpus, memory = max(0, vcpus - self.record.vcpus_milli), max(0, memory - self.record.memory_mib)
            for volume in self.record.metadata.volumes if self.record.metadata else []:
                pools[volume.pool] = pools.get(volume.pool, 0) - volume.booked
        pools = {name: size for name, size in pools.items() if size > 0}
        if vcpus or memory or pools:
            plan.demand = Demand(self.spec.name, vcpus, memory, pools)


def _copy_metadata(meta: VmMetadata) -> VmMetadata:
    return dataclasses.replace(meta, labels=dict(meta.labels), anti_affinity=list(meta.anti_affinity), addresses=list(meta.addresses),
                               volumes=[dataclasses.replace(v) for v in meta.volumes])


def _facts(vm: ObservedVm) -> Dict[str, Any]:
    """A new VM in a diff: what was decided for it, without what is made up at random."""
    options = ("vcpus", "max_vcpus", "memory_mib", "max_memory_mib", "machine", "arch", "virt_type", "firmware", "boot")
    facts: Dict[str, Any] = {option: getattr(vm, option) for option in options}
    facts["nics"] = ["{0} {1}, {2}".format(n.type, n.source, n.mac) for n in vm.nics.values()]
    facts["metadata"] = _metadata.summary(vm.metadata) if vm.metadata else None
    return facts


def _plan_delete(host: Host, spec: VmSpec, record: Optional[DomainRecord]) -> VmPlan:
    plan = VmPlan(spec, "delete", record)
    if record is None:
        return plan
    if record.metadata is None and not record.persistent:
        raise SpecError("name", spec.name, "is a transient domain, which is not ours", "Stop it by the tool that made it", "not_ours")
    if spec.group and (record.metadata is None or record.metadata.group != spec.group):
        raise SpecError("group", spec.group, "VM {0} is not of this group".format(spec.name), "Name the group it belongs to, or another VM", "not_ours")
    if spec.uuid and spec.uuid != record.uuid:
        raise SpecError("uuid", spec.uuid, "VM {0} has UUID {1}".format(spec.name, record.uuid), "Leave uuid out to delete it all the same", "not_ours")
    plan.metadata = record.metadata
    state = _power.state_of(record.handle) if record.active else "stopped"
    if record.active:
        plan.actions.append("stop")
    for volume in doomed(record, spec):
        if os.path.basename(volume.name) != volume.name or volume.name in ("", ".", ".."):
            raise SpecError("name", spec.name, "its metadata lists a volume {0!r}, which is no name of one; somebody has changed it".format(volume.name),
                            "Look at it (virsh dumpxml), and keep the disks (delete_disks: false)", "bad_metadata")
        host.pools.get(volume.pool)
        plan.actions.append("delete {0} {1}".format("the seed" if volume.disk == SEED else "disk " + volume.disk, volume.name))
    plan.actions.append("undefine the domain")
    plan.before, plan.after = {"state": state, "volumes": [v.name for v in doomed(record, spec)]}, {"state": "absent", "volumes": []}
    return plan


def doomed(record: DomainRecord, spec: VmSpec) -> List[VolumeRef]:
    """The volumes that go with a VM: those listed in its metadata, and nothing else. Kept disks stay; the seed never does, it holds secrets.

    A domain that was copied with its metadata (virt-clone) lists the volumes of its original: they bear another UUID in their names.
    """
    ending = re.compile(r"-{0}\.[a-z0-9]+$".format(re.escape(record.uuid[:8])))
    listed = [v for v in record.metadata.volumes if v.given or ending.search(v.name)] if record.metadata else []
    return [v for v in listed if (spec.delete_disks or v.disk == SEED) and (spec.delete_given or not v.given)]


def _refuse_fresh_claim(record: DomainRecord, meta: VmMetadata, claim_ttl_s: float) -> None:
    age = _metadata.age_seconds(meta.claimed or "")
    if record.active or age <= claim_ttl_s:
        raise FleetError("VM {0} was claimed by another run {1:.0f} s ago. Wait for that run to end; a claim that is older than claim_ttl "
                         "({2:g} s) is removed".format(record.name, age, claim_ttl_s), "name_in_use")


def make_plan(host: Host, spec: VmSpec, ticket: Optional[str] = None, claim_ttl_s: float = DEFAULT_CLAIM_TTL_S) -> VmPlan:
    """The plan for one VM on a host that has been looked at. Raises SpecError or FleetError; touches nothing.

    :param ticket: of the run whose claims are to be kept
    :param claim_ttl_s: after which another run's claim may be removed
    """
    record = host.domains.get(spec.name)
    if record is not None:
        _require_ours(record, spec)
    if spec.state == "absent":
        return _plan_delete(host, spec, record)
    if record is not None and record.metadata is not None:
        phase = record.metadata.phase
        stale = phase == "pending" and (ticket is None or record.metadata.ticket != ticket)
        if stale:
            _refuse_fresh_claim(record, record.metadata, claim_ttl_s)
        if stale or phase == "deleting":
            first = _plan_delete(host, VmSpec(spec.name, state="absent", delete_given=not stale), record)
            plan = _Planner(host, spec, None, going=[v.name for v in doomed(record, first.spec)]).build()
            plan.first = first
            plan.actions.insert(0, "remove a stale claim" if stale else "finish the interrupted deletion of its predecessor")
            return plan
        if phase == "failed":
            raise FleetError("VM {0} was left in phase failed: {1}. Delete it, then create it anew".format(
                spec.name, record.metadata.reason or "no reason noted"), "failed_vm")
        if any(not v.given and record.uuid[:8] not in v.name for v in record.metadata.volumes):
            raise SpecError("name", spec.name, "is a copy of another VM (virt-clone): its metadata lists the other one's volumes",
                            "Remove its metadata, virsh metadata {0} {1} --remove --config, then take it over with adopt: true".format(
                                spec.name, _metadata.NAMESPACE), "not_ours")
    return _Planner(host, spec, record).build()
