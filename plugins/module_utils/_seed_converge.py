# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converge one stand-alone seed volume, as cloudinit_seed asks for it: observe, plan, apply, observe again."""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import _seed as seeds
from ansible_collections.kvmfleet.core.plugins.module_utils import _volumes as volumes
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError, is_gone
from ansible_collections.kvmfleet.core.plugins.module_utils._seed_spec import SeedSpec, seed_from_params
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, check_volume_name

try:
    import libvirt
except ImportError:
    pass  # reported by _connection.require_libvirt

# A blank volume of at most this size can be what a killed run left between creating the volume and writing to it.
_BLANK_LIMIT = 1 << 20


@dataclass
class _Observed:
    """The volume of that name: C(seal) is None where it is no seed of ours, C(blank) where it holds nothing at all."""

    volume: Any = None
    seal: Optional[seeds.Seal] = None
    blank: bool = False


def _observe(conn: libvirt.virConnect, pool: volumes.Pool, name: str) -> _Observed:
    volume = pool.lookup(name, refresh=True)
    if volume is not None and not os.path.lexists(pool.path_of(name)):
        # The file was removed behind libvirt's back.
        pool.refresh()
        volume = pool.lookup(name)
    if volume is None:
        return _Observed()
    found = seeds.read_volume_seal(conn, volume)
    capacity = volume.info()[1]
    blank = found is None and capacity <= _BLANK_LIMIT and not seeds.read_head(conn, volume, capacity).strip(b"\0")
    return _Observed(volume, found, blank)


def _require_ours(observed: _Observed, pool: str, name: str, remedy: str) -> None:
    if observed.volume is not None and observed.seal is None and not observed.blank:
        raise SpecError(
            "name", name, "is a volume in pool {0} that is no seed of this collection (it bears no seal)".format(pool), remedy, "not_ours"
        )


def _domain(conn: libvirt.virConnect, name: str) -> Tuple[str, str]:
    """UUID and host name of the domain that the seed is for."""
    try:
        return conn.lookupByName(name).UUIDString(), name.split(".")[0]
    except libvirt.libvirtError as exc:
        if not is_gone(exc):
            raise
        raise SpecError(
            "domain",
            name,
            "there is no domain of that name on this host",
            "Define it first, or leave domain out and give the returned instance_id as uuid of kvmfleet.core.vm_domain",
            "unknown_domain",
        ) from None


def _state(digest: Optional[str], instance_id: Optional[str], files: Optional[Mapping[str, bytes]] = None) -> Dict[str, Any]:
    """What diff mode shows: names and hashes, never contents."""
    shown: Dict[str, Any] = {"state": "present", "sha256": digest, "instance_id": instance_id}
    if files is not None:
        shown["documents"] = sorted(files)
    return shown


def _present(
    conn: libvirt.virConnect, pool: volumes.Pool, name: str, spec: SeedSpec, domain: Optional[str], check_mode: bool
) -> Dict[str, Any]:
    observed = _observe(conn, pool, name)
    remedy = "Use another name, or delete that volume yourself if nobody needs it"
    _require_ours(observed, pool.name, name, remedy)
    if observed.blank and volumes.usage(conn).why_needed(observed.volume.path()):
        raise SpecError("name", name, "is an empty disk that is in use", remedy, "not_ours")
    existing = observed.seal
    instance_id, hostname = _domain(conn, domain) if domain else (spec.instance_id or "", "")
    made = not instance_id and existing is None
    if not instance_id:
        instance_id = existing.instance_id if existing is not None else str(uuid.uuid4())
    files = seeds.documents(spec, instance_id, hostname)
    digest = seeds.documents_hash(files, spec.format)
    changed = existing is None or existing.hash != digest
    # Check mode cannot tell an identifier that only the real run will draw, nor what depends on it.
    unknown = made and check_mode
    hashes = {n: hashlib.sha256(c).hexdigest() for n, c in files.items() if not (unknown and n == seeds.META_DATA[spec.format])}
    result: Dict[str, Any] = {
        "changed": changed,
        "pool": pool.name,
        "volume": name,
        "path": pool.path_of(name),
        "format": spec.format,
        "instance_id": None if unknown else instance_id,
        "sha256": hashes,
    }
    if changed and observed.volume is not None and not observed.blank:
        result["takes_effect"] = "next_instance"
    before = (
        {"state": "absent"}
        if observed.volume is None
        else _state(existing.hash if existing else None, existing.instance_id if existing else None)
    )
    result["diff"] = {
        "before": before,
        "after": before if not changed else _state(None if unknown else digest, result["instance_id"], files),
    }
    if changed and not check_mode:
        volume = seeds.write_volume(conn, pool, name, seeds.build_iso(files, spec.format))
        written = seeds.read_volume_seal(conn, volume)
        if written is None or written.hash != digest:
            raise FleetError(
                "Seed {0} in pool {1} does not hold what was written to it; another program writes to it".format(name, pool.name), "residue"
            )
    return result


def _absent(conn: libvirt.virConnect, pool: volumes.Pool, name: str, check_mode: bool) -> Dict[str, Any]:
    observed = _observe(conn, pool, name)
    result: Dict[str, Any] = {"changed": observed.volume is not None, "pool": pool.name, "volume": name, "path": pool.path_of(name)}
    if observed.volume is None:
        return dict(result, diff={"before": {"state": "absent"}, "after": {"state": "absent"}})
    _require_ours(observed, pool.name, name, "Check the name; use kvmfleet.core.vm_disk to delete other volumes")
    needed = volumes.usage(conn).why_needed(observed.volume.path())
    if needed:
        raise SpecError(
            "name", name, "the seed cannot be deleted: {0}".format(needed), "Detach it, or delete the VM (which deletes its seed)", "in_use"
        )
    result["diff"] = {
        "before": _state(observed.seal.hash if observed.seal else None, observed.seal.instance_id if observed.seal else None),
        "after": {"state": "absent"},
    }
    if not check_mode:
        observed.volume.delete(0)
        if pool.lookup(name) is not None:
            raise FleetError("Volume {0} in pool {1} is still there after its deletion".format(name, pool.name), "residue")
    return result


def converge_seed(conn: libvirt.virConnect, params: Mapping[str, Any], check_mode: bool) -> Dict[str, Any]:
    """The whole work of cloudinit_seed: returns its result. Raises SpecError, FleetError."""
    name = check_volume_name("name", params["name"])
    spec = seed_from_params(params, "") if params["state"] == "present" else None
    domain = params.get("domain")
    if spec is not None and domain and spec.instance_id:
        raise SpecError("meta_data.instance-id", spec.instance_id, "is given although domain decides the instance-id", "Give one of them")
    pool = volumes.Pool(conn, params["pool"])
    pool.require_writable_type()
    if spec is None:
        return _absent(conn, pool, name, check_mode)
    return _present(conn, pool, name, spec, domain, check_mode)
