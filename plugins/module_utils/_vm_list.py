# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to know about VMs: choose them, describe them, wait for their guests. Only reads."""
from __future__ import annotations

import fnmatch
import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import _guest, _metadata, _power, _vm_result
from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import network_facts
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError, is_gone
from ansible_collections.kvmfleet.core.plugins.module_utils._domain_xml import observe
from ansible_collections.kvmfleet.core.plugins.module_utils._parallel import call_within, in_parallel
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import WILDCARDS, SpecError, parse_int

try:
    import libvirt
except ImportError:
    pass  # run_module says so

_WORKERS = 64
_BLOCK_INFO_S = 3.0
_GRACE_S = 15.0  # beyond the waits' own deadline, for a libvirtd that hangs


@dataclass
class Selection:
    """Which VMs are meant: all conditions have to hold."""

    names: Optional[Sequence[str]] = None   # exact names or shell patterns; None means all
    group: Optional[str] = None
    namespace: Optional[str] = None
    set: Optional[str] = None
    labels: Mapping[str, str] = field(default_factory=dict)
    states: Sequence[str] = ()
    managed_only: bool = False

    @property
    def exact(self) -> bool:
        """Whether every VM is named as such, without patterns."""
        return self.names is not None and not any(set_of in name for name in self.names for set_of in WILDCARDS)

    def named(self, name: str) -> bool:
        """Whether a domain's name is meant."""
        return self.names is None or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.names)

    def owned(self, meta: Optional[_metadata.VmMetadata]) -> bool:
        """Whether our metadata of a domain (None: it is not ours) is as wanted."""
        wanted = {key: getattr(self, key) for key in ("group", "namespace", "set") if getattr(self, key) is not None}
        if meta is None:
            return not (self.managed_only or wanted or self.labels)
        return all(getattr(meta, key) == value for key, value in wanted.items()) and all(meta.labels.get(k) == str(v) for k, v in self.labels.items())


@dataclass
class Vm:
    """A VM that was chosen: its handle, its live XML while it runs, and its description."""

    domain: libvirt.virDomain
    live: Optional[ET.Element]
    result: Dict[str, Any]
    static: List[str]


class _Volumes:
    """Path -> pool, volume name and handle, over all active pools; read at the first question."""

    def __init__(self, conn: libvirt.virConnect) -> None:
        self.conn = conn
        self._by_path: Optional[Dict[str, Tuple[str, libvirt.virStorageVol]]] = None

    def find(self, path: str) -> Optional[Tuple[str, libvirt.virStorageVol]]:
        """Pool and volume of a path, as far as the pools know it."""
        if self._by_path is None:
            self._by_path = {}
            for pool in self.conn.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
                try:
                    target = ET.fromstring(pool.XMLDesc()).findtext("target/path")
                    for volume in pool.listAllVolumes() if target else []:
                        self._by_path.setdefault(os.path.join(target or "", volume.name()), (pool.name(), volume))
                except libvirt.libvirtError as exc:
                    if not (is_gone(exc) or not pool.isActive()):
                        raise exc from None
        return self._by_path.get(path)

    def complete(self, disk: Dict[str, Any], domain: libvirt.virDomain) -> None:
        """Add pool, volume and size to a disk, as far as they can be known."""
        if not disk["path"] or (disk["size_bytes"] is not None and disk["volume"]):
            return
        found = self.find(disk["path"])
        try:
            if found is not None:
                disk["pool"], disk["volume"] = disk["pool"] or found[0], disk["volume"] or found[1].name()
                disk["size_bytes"] = disk["size_bytes"] or found[1].info()[1]
            elif disk["size_bytes"] is None:
                # The only question here that goes to the QEMU process, which may hang.
                known, answer = call_within(lambda: domain.blockInfo(disk["target"]), _BLOCK_INFO_S)
                disk["size_bytes"] = answer[0] if known else None
        except libvirt.libvirtError:
            disk["size_bytes"] = None  # the file is not there, or not this host's to read: the VM is listed all the same


def tell_forwarding(conn: libvirt.virConnect, vms: Sequence[Dict[str, Any]]) -> None:
    """Add to the NICs of described VMs how their libvirt network forwards, C(None) for those that are on none: it decides from where the guest is reached."""
    modes: Dict[str, Optional[str]] = {}
    for nic in [nic for vm in vms for nic in vm.get("nics") or []]:
        name = nic["source"] if nic["type"] == "network" else None
        if name is not None and name not in modes:
            try:
                modes[name] = network_facts(conn.networkLookupByName(name))["forward"]
            except libvirt.libvirtError as exc:
                if not is_gone(exc):
                    raise
                modes[name] = None
        nic["forward"] = modes[name] if name is not None else None


def _domains(conn: libvirt.virConnect, selection: Selection) -> List[libvirt.virDomain]:
    if selection.exact:
        found = []
        for name in dict.fromkeys(selection.names or []):
            try:
                found.append(conn.lookupByName(name))
            except libvirt.libvirtError as exc:
                if not is_gone(exc):
                    raise
        return found
    return sorted((d for d in conn.listAllDomains() if selection.named(d.name())), key=lambda d: str(d.name()))


def _look(domain: libvirt.virDomain, selection: Selection, autostarted: Sequence[str]) -> Optional[Vm]:
    raw_state, reason = domain.state()
    live = ET.fromstring(domain.XMLDesc(0))
    meta = _metadata.find(live)
    state = _power.state_name(raw_state, reason, meta.phase if meta else None)
    if not selection.owned(meta) or (selection.states and state not in selection.states):
        return None
    active = live.get("id") is not None
    persistent = bool(domain.isPersistent()) if active else True
    root = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)) if active and persistent else live
    result = _vm_result.describe(observe(root), observe(live) if active else None, state, domain.UUIDString() in autostarted)
    result.update(persistent=persistent, failure=meta.reason if meta else None)
    return Vm(domain, live if active else None, result, _guest.static_addresses(root))


def _put_addresses(vm: Vm, found: List[Dict[str, Any]]) -> None:
    vm.result["addresses"] = found
    vm.result["address"] = found[0]["address"] if found else None
    for nic in vm.result["nics"]:
        nic["addresses"] = [entry["address"] for entry in found if entry["mac"] == nic["mac"]]


def _find_addresses(conn: libvirt.virConnect, vms: Sequence[Vm], sources: Sequence[str], agent_timeout_s: float) -> None:
    running = [vm for vm in vms if vm.live is not None]
    tables = _guest.read_tables(conn, sources if running else ())

    def ask(vm: Vm) -> List[Dict[str, Any]]:
        seen = [] if vm.live is None else _guest.observed_addresses(vm.domain, vm.live, tables, sources, agent_timeout_s)
        return _guest.merge(seen, vm.static)
    for vm in vms:
        _put_addresses(vm, _guest.merge([], vm.static))
    for vm, (found, failure) in zip(running, in_parallel(ask, running, _WORKERS)):
        if failure is not None:
            raise failure
        _put_addresses(vm, found)


def collect(conn: libvirt.virConnect, selection: Selection, with_addresses: bool = True, sources: Optional[Sequence[str]] = None,
            agent_timeout_s: float = 5) -> List[Vm]:
    """The VMs of a selection, described; in the order of exact names, else by name. A domain that vanishes meanwhile is left out.

    :param sources: where addresses come from; None: everything for VMs named exactly, but no agents for lists, where each hung one would cost its timeout
    """
    autostarted = {d.UUIDString() for d in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)}
    volumes = _Volumes(conn)
    vms = []
    for domain in _domains(conn, selection):
        try:
            vm = _look(domain, selection, list(autostarted))
        except libvirt.libvirtError as exc:
            if not is_gone(exc):
                raise
            continue
        if vm is not None:
            for disk in vm.result["disks"]:
                volumes.complete(disk, domain)
            vms.append(vm)
    if with_addresses:
        _find_addresses(conn, vms, sources if sources is not None else _guest.SOURCES if selection.exact else ("lease", "arp"), agent_timeout_s)
    else:
        for vm in vms:
            vm.result["addresses"] = _guest.merge([], vm.static)
    return vms


def missing(selection: Selection, vms: Sequence[Vm]) -> List[str]:
    """Names given exactly of which there is no VM in the result."""
    found = {vm.result["name"] for vm in vms}
    return [name for name in dict.fromkeys(selection.names or []) if not any(c in name for c in WILDCARDS) and name not in found]


def wait(conn: libvirt.virConnect, vms: Sequence[Vm], what: str, timeout_s: float, port: int = 22, agent_timeout_s: float = 5) -> List[Dict[str, Any]]:
    """Wait for all VMs at once: [{name, waited_for, seconds, address, cloud_init}], and where one did not answer, its C(error) and C(last_state)."""
    def one(vm: Vm) -> Dict[str, Any]:
        return _guest.wait_for(vm.domain, conn, what, timeout_s, port, _guest.SOURCES, agent_timeout_s)
    waits = []
    for vm, (done, failure) in zip(vms, in_parallel(one, vms, max(1, len(vms)), timeout_s + agent_timeout_s + _GRACE_S)):
        if failure is None:
            waits.append(done)
        elif isinstance(failure, (FleetError, TimeoutError, libvirt.libvirtError)):
            late = "libvirt does not answer" if isinstance(failure, TimeoutError) else str(failure)
            last = failure.data.get("last_state", late) if isinstance(failure, FleetError) else late
            waits.append({"name": vm.result["name"], "waited_for": what, "address": None, "cloud_init": None, "seconds": None, "last_state": last,
                          "error": str(failure) if isinstance(failure, FleetError) else "{0}: {1}".format(vm.result["name"], late),
                          "reason": failure.code if isinstance(failure, FleetError) else "libvirt_error"})
        else:
            raise failure
    return waits


def check_waitable(selection: Selection, vms: Sequence[Vm]) -> None:
    """Raises SpecError where a wait is asked for VMs that are not there, or for none."""
    gone = missing(selection, vms)
    if gone:
        raise SpecError("names", ", ".join(gone), "there is no such VM on this host to wait for", "Create it first, or leave it out", "unknown_vm")
    if not vms:
        raise SpecError("wait", None, "no VM on this host is chosen", "Name at least one VM that runs", "unknown_vm")


def failure_of(waits: Sequence[Mapping[str, Any]], what: str, timeout_s: float) -> Optional[FleetError]:
    """One error that names each VM that did not answer and its last state, or None."""
    failed = [w for w in waits if w.get("error")]
    if not failed:
        return None
    reasons = {w["reason"] for w in failed}
    return FleetError("Waiting for {0} failed for {1} of {2} VMs (timeout {3:g} s). {4}".format(
        what, len(failed), len(waits), timeout_s, "; ".join(w["error"] for w in failed)), reasons.pop() if len(reasons) == 1 else "wait_timeout")


def selection_from(params: Mapping[str, Any]) -> Selection:
    """The selection out of a module's parameters."""
    return Selection(names=params.get("names"), group=params.get("group"), namespace=params.get("namespace"), set=params.get("set"),
                     labels={str(k): str(v) for k, v in (params.get("labels") or {}).items()}, states=params.get("state") or (),
                     managed_only=bool(params.get("managed_only")))


def inform(conn: libvirt.virConnect, params: Mapping[str, Any]) -> Tuple[Dict[str, Any], Optional[FleetError]]:
    """The whole of vm_info: its result, and the error to fail with where a wait was in vain."""
    selection = selection_from(params)
    agent_timeout = parse_int("agent_timeout", params["agent_timeout"], 1, 3600)
    timeout, port = parse_int("timeout", params["timeout"], 0), parse_int("ssh_port", params["ssh_port"], 1, 65535)

    def look() -> List[Vm]:
        return collect(conn, selection, params["addresses"], params["address_sources"], agent_timeout)
    if params["wait"] == "none":
        vms = look()
        return _result(conn, selection, vms), None
    chosen = collect(conn, selection, with_addresses=False)
    check_waitable(selection, chosen)
    waits = wait(conn, chosen, params["wait"], timeout, port, agent_timeout)
    vms = look()
    reached = {w["name"]: w["address"] for w in waits if w["address"]}
    for vm in vms:
        vm.result["address"] = reached.get(vm.result["name"], vm.result["address"])
    return dict(_result(conn, selection, vms), waits=waits), failure_of(waits, params["wait"], timeout)


def _result(conn: libvirt.virConnect, selection: Selection, vms: Sequence[Vm]) -> Dict[str, Any]:
    tell_forwarding(conn, [vm.result for vm in vms])
    return {"changed": False, "vms": [vm.result for vm in vms], "missing": missing(selection, vms)}
