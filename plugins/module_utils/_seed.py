# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloud-init seeds: from a SeedSpec to documents (pure), from documents to a sealed ISO image, and that into a libvirt volume."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import _volumes as volumes
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._iso import make_iso
from ansible_collections.kvmfleet.core.plugins.module_utils._seed_spec import (
    MULTIPART,
    SeedNic,
    SeedSpec,
    SeedUser,
    check_routes,
    user_data_type,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import NicSpec, SpecError
from ansible_collections.kvmfleet.core.plugins.module_utils._volumes import Pool

try:
    import libvirt
except ImportError:
    pass  # reported by _connection.require_libvirt; the documents need no libvirt

VOLUME_IDS = {"nocloud": "cidata", "config_drive": "config-2"}
META_DATA = {"nocloud": "meta-data", "config_drive": "openstack/latest/meta_data.json"}
USER_DATA = {"nocloud": "user-data", "config_drive": "openstack/latest/user_data"}
NETWORK = {"nocloud": "network-config", "config_drive": "openstack/latest/network_data.json"}

# Application identifier of the primary volume descriptor (ECMA-119, 8.4.20): free text that nothing else reads.
SEAL_OFFSET, SEAL_LENGTH = 32768 + 574, 128
_SEAL = re.compile(rb"^kvmfleet1:([0-9a-f]{64}):([A-Za-z0-9._-]+) *$")
_UNFINISHED = "0" * 64

_CHUNK = 262144
# PyYAML refuses these unescaped, or (line separators) folds them; JSON leaves them as they are.
_YAML_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass
class Seal:
    """What a seed of ours says of itself. C(hash) is empty while it is being written."""

    hash: str
    instance_id: str

    @property
    def complete(self) -> bool:
        """Whether the seed was written to its end."""
        return bool(self.hash)


def _json(option: str, data: Any) -> str:
    """JSON that is the same YAML to PyYAML; the same text for the same data."""
    text = json.dumps(data, ensure_ascii=False, sort_keys=True, indent=1)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise SpecError(option, None, "has bytes that are not UTF-8", "Use UTF-8; for a file, use encoding: base64") from None
    return _YAML_UNSAFE.sub(lambda match: "\\u{0:04x}".format(ord(match.group())), text)


def _without_none(mapping: Mapping[str, Any]) -> Dict[str, Any]:
    return {key: value for key, value in mapping.items() if value is not None}


def _user(user: SeedUser) -> Dict[str, Any]:
    has_password = user.password is not None or user.password_hash is not None
    lock = user.lock_passwd if user.lock_passwd is not None else (False if has_password else None)
    return _without_none(
        {
            "name": user.name,
            "gecos": user.gecos,
            "groups": user.groups or None,
            "primary_group": user.primary_group,
            "uid": user.uid,
            "system": user.system,
            "shell": user.shell,
            "homedir": user.homedir,
            # cloud-init's schema knows one rule as a string only, and does without the key where there is none.
            "sudo": (user.sudo[0] if len(user.sudo) == 1 else user.sudo) if user.sudo else None,
            "ssh_authorized_keys": user.ssh_authorized_keys or None,
            "plain_text_passwd": user.password,
            "hashed_passwd": user.password_hash,
            "lock_passwd": lock,
        }
    )


def _users(spec: SeedSpec) -> Optional[List[Any]]:
    users: List[Any] = [_user(user) for user in spec.users]
    if spec.root_password is not None or spec.root_password_hash is not None:
        # Setting the password of an account that exists is what these two keys do in every release of cloud-init;
        # chpasswd has changed its form, and warns about the older one.
        users.append(_user(SeedUser("root", password=spec.root_password, password_hash=spec.root_password_hash)))
    if not users and spec.default_user:
        return None
    return (["default"] if spec.default_user else []) + users


def cloud_config(spec: SeedSpec) -> Dict[str, Any]:
    """The cloud-config mapping of the typed options; empty where none of them needs one (names and ssh_keys are meta-data)."""
    encodings = {"plain": None, "base64": "b64", "gzip+base64": "gz+b64"}
    files = [
        _without_none(
            {
                "path": f.path,
                "content": f.content,
                "encoding": encodings[f.encoding],
                "owner": f.owner,
                "permissions": f.permissions,
                "append": f.append,
                "defer": f.defer,
            }
        )
        for f in spec.write_files
    ]
    config = _without_none(
        {
            "users": _users(spec),
            "ssh_pwauth": spec.ssh_pwauth,
            "disable_root": spec.disable_root,
            "packages": spec.packages or None,
            "package_update": spec.package_update,
            "package_upgrade": spec.package_upgrade,
            "write_files": files or None,
            "bootcmd": spec.bootcmd or None,
            "runcmd": spec.runcmd or None,
            "timezone": spec.timezone,
            "locale": spec.locale,
            "manage_etc_hosts": "localhost" if spec.manage_etc_hosts else spec.manage_etc_hosts,
        }
    )
    if spec.growpart is not None:
        config["growpart"] = {"mode": "auto" if spec.growpart else "off"}
        config["resize_rootfs"] = spec.growpart
    return config


def _part(content_type: str, text: str, filename: Optional[str] = None) -> str:
    headers = ['Content-Type: {0}; charset="utf-8"'.format(content_type), "MIME-Version: 1.0", "Content-Transfer-Encoding: base64"]
    if filename:
        headers.append('Content-Disposition: attachment; filename="{0}"'.format(filename))
    return "\n".join(headers) + "\n\n" + base64.encodebytes(text.encode("utf-8")).decode("ascii")


def _multipart(config: Mapping[str, Any], user_data: str) -> str:
    """Both in one: the user's part first, then the options' part, which merges into it without replacing anything.

    cloud-init merges cloud-config part by part, and the later part says how. By default it would replace whole lists: users of the one
    part would silently lose against those of the other. Here lists join (the options' items first), mappings merge, and of a single
    value that both give the user's stays, as user_data is the door for what the options cannot say.
    """
    merging = dict(config, merge_how="list(prepend)+dict(recurse_list)+str()")
    kind = user_data_type("user_data", user_data)
    first = user_data.lstrip() if kind == MULTIPART else _part(kind, user_data)
    parts = [
        first if first.endswith("\n") else first + "\n",
        _part("text/cloud-config", "#cloud-config\n" + _json("seed", merging) + "\n", "kvmfleet-options.cfg"),
    ]
    # A boundary must not occur in any part; it is a hash, so that the same input makes the same bytes.
    boundary = "kvmfleet-" + hashlib.sha256("".join(parts).encode("utf-8")).hexdigest()[:32]
    head = 'Content-Type: multipart/mixed; boundary="{0}"\nMIME-Version: 1.0\n\n'.format(boundary)
    return head + "".join("--{0}\n{1}\n".format(boundary, part) for part in parts) + "--{0}--\n".format(boundary)


def _user_data(spec: SeedSpec) -> str:
    config = cloud_config(spec)
    if spec.user_data is None:
        return "#cloud-config\n" + _json("seed", config) + "\n"
    return _multipart(config, spec.user_data) if config else spec.user_data


def _seed_nics(spec: SeedSpec, nics: Sequence[NicSpec]) -> List[SeedNic]:
    """The guest's addresses per NIC in the order of the NICs: what the option network says of a MAC wins over the NIC's own."""
    asked = {nic.mac: nic for nic in spec.network}
    if not asked and len(nics) < 2 and not any(n.addresses or n.nameservers or n.search or n.routes for n in nics):
        return []
    result = []
    for index, nic in enumerate(nics):
        if not nic.mac:
            raise SpecError(
                "nics[{0}].mac".format(index), None, "is not known, and the seed's network configuration goes by MAC", "Give the NIC a MAC"
            )
        own = SeedNic(
            mac=nic.mac,
            addresses=nic.addresses,
            gateway=nic.gateway,
            nameservers=nic.nameservers,
            search=nic.search,
            routes=check_routes("nics[{0}].routes".format(index), nic.routes),
        )
        result.append(asked.pop(nic.mac, own))
    return result + [nic for nic in spec.network if nic.mac in asked]


def _default_route(gateway: str) -> str:
    return "::/0" if ":" in gateway else "0.0.0.0/0"


def _routes(nic: SeedNic) -> List[Tuple[str, str, Optional[int]]]:
    default = [(_default_route(nic.gateway), nic.gateway, None)] if nic.gateway else []
    return default + [(r.to, r.via, r.metric) for r in nic.routes]


def network_v2(nics: Sequence[SeedNic]) -> Dict[str, Any]:
    """Network configuration version 2 (netplan's): NICs are found by MAC, and keep their names unless one is asked for."""
    ethernets = {}
    for number, nic in enumerate(nics):
        entry: Dict[str, Any] = {"match": {"macaddress": nic.mac}}
        if nic.name:
            entry["set-name"] = nic.name
        for key, wanted in (("dhcp4", nic.by_dhcp), ("dhcp6", nic.dhcp6)):
            if wanted:
                entry[key] = True
                if number:
                    # The first NIC's default route wins.
                    entry[key + "-overrides"] = {"route-metric": 100 * (number + 1)}
        if number and nic.by_dhcp:
            # A second network without DHCP must not hold up the boot for minutes.
            entry["optional"] = True
        names = _without_none({"addresses": nic.nameservers or None, "search": nic.search or None})
        routes = [_without_none({"to": to, "via": via, "metric": metric}) for to, via, metric in _routes(nic)]
        for key, value in (("addresses", nic.addresses), ("routes", routes), ("nameservers", names), ("mtu", nic.mtu)):
            if value:
                entry[key] = value
        ethernets["nic{0}".format(number)] = entry
    return {"version": 2, "ethernets": ethernets}


def network_data(nics: Sequence[SeedNic]) -> Dict[str, Any]:
    """OpenStack's network_data.json, the only network document that cloud-init reads from a config drive."""
    links: List[Dict[str, Any]] = []
    networks: List[Dict[str, Any]] = []
    for number, nic in enumerate(nics):
        link = "nic{0}".format(number)
        links.append(_without_none({"id": link, "type": "phy", "ethernet_mac_address": nic.mac, "mtu": nic.mtu, "name": nic.name}))
        mine: List[Dict[str, Any]] = []
        for address in nic.addresses:
            interface = ip_interface(address)
            mine.append({"type": "ipv{0}".format(interface.version), "ip_address": str(interface.ip), "netmask": str(interface.netmask)})
        if nic.by_dhcp:
            mine.append({"type": "ipv4_dhcp"})
        if nic.dhcp6:
            mine.append({"type": "ipv6_dhcp"})
        for family in (4, 6):
            routes = [(ip_network(to), via) for to, via, metric in _routes(nic) if ip_network(to).version == family]
            if not routes:
                continue
            # Routes hang on a network of their own family; without one, on the first.
            holder = next((n for n in mine if n["type"].startswith("ipv{0}".format(family))), mine[0] if mine else None)
            if holder is not None:
                holder.setdefault("routes", []).extend(
                    {"network": str(net.network_address), "netmask": str(net.netmask), "gateway": via} for net, via in routes
                )
        if mine:
            if nic.nameservers:
                mine[0]["dns_nameservers"] = nic.nameservers
            if nic.search:
                mine[0]["dns_search"] = nic.search
        networks.extend(dict(network, id="{0}-{1}".format(link, place), link=link) for place, network in enumerate(mine))
    servers = sorted({address for nic in nics for address in nic.nameservers})
    return {"links": links, "networks": networks, "services": [{"type": "dns", "address": address} for address in servers]}


def _network(spec: SeedSpec, nics: Sequence[NicSpec]) -> Optional[Dict[str, Any]]:
    if spec.network_config is not None:
        return spec.network_config
    seed_nics = _seed_nics(spec, nics)
    if not seed_nics:
        return None
    return network_v2(seed_nics) if spec.format == "nocloud" else network_data(seed_nics)


def _meta_data(spec: SeedSpec, instance_id: str, hostname: str) -> Dict[str, Any]:
    name = spec.fqdn or spec.hostname or hostname
    raw = dict(spec.meta_data)
    if spec.format == "nocloud":
        ours: Dict[str, Any] = {"local-hostname": name} if name else {}
        if spec.ssh_keys:
            ours["public-keys"] = spec.ssh_keys
        return dict(ours, **dict(raw, **{"instance-id": instance_id}))
    ours = {"hostname": name, "name": name.split(".")[0]} if name else {}
    if spec.ssh_keys:
        ours["public_keys"] = {"key-{0}".format(index): key for index, key in enumerate(spec.ssh_keys)}
    raw.pop("instance-id", None)
    if "local-hostname" in raw:
        # cloud-init copies hostname over local-hostname on a config drive.
        raw.setdefault("hostname", raw.pop("local-hostname"))
    return dict(ours, **dict(raw, uuid=instance_id))


def documents(spec: SeedSpec, instance_id: str, hostname: str, nics: Sequence[NicSpec] = ()) -> Dict[str, bytes]:
    """The seed's files, name to content; the same bytes for the same input.

    :param instance_id: used where the spec has none (its own C(instance_id), or that of raw meta_data, wins)
    :param hostname: used where the spec has neither C(hostname) nor C(fqdn); where it is empty too, the guest keeps its own
    :param nics: the VM's NICs with their MACs, for the network document; it is left out where one NIC by DHCP is all
    """
    files = {
        META_DATA[spec.format]: _json("seed.meta_data", _meta_data(spec, spec.instance_id or instance_id, hostname)) + "\n",
        USER_DATA[spec.format]: _user_data(spec),
    }
    network = _network(spec, nics)
    if network is not None:
        files[NETWORK[spec.format]] = _json("seed.network_config", network) + "\n"
    try:
        return {name: files[name].encode("utf-8") for name in sorted(files)}
    except UnicodeEncodeError:
        raise SpecError("seed.user_data", None, "has bytes that are not UTF-8", "Use UTF-8") from None


def documents_hash(files: Mapping[str, bytes], seed_format: str) -> str:
    """SHA-256 over the format and all documents, in hexadecimal."""
    listing = [[name, hashlib.sha256(files[name]).hexdigest()] for name in sorted(files)]
    return hashlib.sha256(json.dumps([seed_format, listing]).encode("ascii")).hexdigest()


def instance_id_of(files: Mapping[str, bytes], seed_format: str) -> str:
    """The instance-id that the documents carry."""
    data = json.loads(files[META_DATA[seed_format]].decode("utf-8"))
    return str(data["instance-id" if seed_format == "nocloud" else "uuid"])


def seal(digest: str, instance_id: str) -> bytes:
    """The seal's bytes; an empty digest makes that of a seed which is being written."""
    text = "kvmfleet1:{0}:{1}".format(digest or _UNFINISHED, instance_id).encode("ascii")
    if len(text) > SEAL_LENGTH:
        raise SpecError("instance_id", instance_id, "is too long for the seed's seal", "Use at most 53 characters, such as a UUID")
    return text.ljust(SEAL_LENGTH)


def read_seal(data: bytes) -> Optional[Seal]:
    """The seal in the bytes of the seal's field, or of a whole image; None where there is none of ours."""
    found = _SEAL.match(data[SEAL_OFFSET : SEAL_OFFSET + SEAL_LENGTH] if len(data) > SEAL_LENGTH else data)
    if not found:
        return None
    digest = found.group(1).decode("ascii")
    return Seal("" if digest == _UNFINISHED else digest, found.group(2).decode("ascii"))


def build_iso(files: Mapping[str, bytes], seed_format: str) -> bytes:
    """A sealed ISO 9660 image of the documents. Raises FleetError."""
    sealed = seal(documents_hash(files, seed_format), instance_id_of(files, seed_format))
    image = make_iso(files, VOLUME_IDS[seed_format])
    return image[:SEAL_OFFSET] + sealed + image[SEAL_OFFSET + SEAL_LENGTH :]


def _upload(conn: libvirt.virConnect, volume: libvirt.virStorageVol, offset: int, data: bytes) -> None:
    stream = conn.newStream(0)
    try:
        volume.upload(stream, offset, len(data), 0)
        sent = 0
        while sent < len(data):
            sent += stream.send(data[sent : sent + _CHUNK])
        stream.finish()
    except BaseException:
        _abort(stream)
        raise


def _abort(stream: libvirt.virStream) -> None:
    try:
        stream.abort()
    except libvirt.libvirtError:
        pass  # the stream was never opened, or is broken already; the error that brought us here is the one to report


def _download(conn: libvirt.virConnect, volume: libvirt.virStorageVol, offset: int, length: int) -> bytes:
    stream = conn.newStream(0)
    data = b""
    try:
        volume.download(stream, offset, length, 0)
        while True:
            piece = stream.recv(_CHUNK)
            if not piece:
                break
            data += piece
        stream.finish()
    except BaseException:
        _abort(stream)
        raise
    return data


def read_volume_seal(conn: libvirt.virConnect, volume: libvirt.virStorageVol) -> Optional[Seal]:
    """The seal of a volume, by reading its 128 bytes only; None where it is no seed of ours."""
    if volume.info()[1] < SEAL_OFFSET + SEAL_LENGTH:
        return None
    return read_seal(_download(conn, volume, SEAL_OFFSET, SEAL_LENGTH))


def read_head(conn: libvirt.virConnect, volume: libvirt.virStorageVol, length: int) -> bytes:
    """The first C(length) bytes of a volume."""
    return _download(conn, volume, 0, length)


def write_volume(conn: libvirt.virConnect, pool: Pool, name: str, iso: bytes) -> libvirt.virStorageVol:
    """Create or rewrite the raw volume C(name) (mode 0600) with a sealed image, and return it. Raises FleetError.

    The seal is written last, and an old one is invalidated first: whoever is killed in between leaves a volume that says that it is
    unfinished. A creation that fails removes the volume again.
    """
    sealed = read_seal(iso)
    if sealed is None:
        raise ValueError("an image without a seal is no seed")
    # Asking libvirt for a volume that does not exist is dear (it prepares an error); asking the file system is not.
    found = pool.lookup(name, refresh=True) if os.path.lexists(pool.path_of(name)) else None
    created = found is None
    volume = found or volumes.create(pool, name, len(iso), "raw")
    try:
        _upload_sealed(conn, volume, iso, sealed.instance_id, not created)
    except BaseException as exc:
        if created:
            volume.delete(0)
        if isinstance(exc, libvirt.libvirtError):
            raise FleetError(
                "Writing seed {0} in pool {1} failed: {2}".format(name, pool.name, volumes.one_line(exc)), "volume_failed"
            ) from exc
        raise
    return volume


def _upload_sealed(conn: libvirt.virConnect, volume: libvirt.virStorageVol, iso: bytes, instance_id: str, existing: bool) -> None:
    pending = seal("", instance_id)
    if existing:
        capacity = volume.info()[1]
        if capacity >= SEAL_OFFSET + SEAL_LENGTH:
            _upload(conn, volume, SEAL_OFFSET, pending)
        if capacity < len(iso):
            volume.resize(len(iso), 0)
    _upload(conn, volume, 0, iso[:SEAL_OFFSET] + pending + iso[SEAL_OFFSET + SEAL_LENGTH :])
    _upload(conn, volume, SEAL_OFFSET, iso[SEAL_OFFSET : SEAL_OFFSET + SEAL_LENGTH])
