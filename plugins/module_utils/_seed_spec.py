# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The typed model of a cloud-init seed, and its validation out of module parameters. Knows neither libvirt nor ISO images."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import (
    SpecError, check_address, check_gateway, check_interface, check_label, check_mac, each, one_of, parse_int,
)

try:
    import yaml

    HAS_YAML = True
except ImportError:  # hosts need the standard library only; user_data is then checked on the control side alone
    HAS_YAML = False

FORMATS = ("nocloud", "config_drive")
ENCODINGS = ("plain", "base64", "gzip+base64")

# Beginnings that cloud-init knows, with the MIME type of such a part; the longest match counts.
USER_DATA_TYPES = {
    "#!": "text/x-shellscript",
    "#cloud-config": "text/cloud-config",
    "#cloud-config-archive": "text/cloud-config-archive",
    "#cloud-config-jsonp": "text/cloud-config-jsonp",
    "#cloud-boothook": "text/cloud-boothook",
    "#include": "text/x-include-url",
    "#include-once": "text/x-include-once-url",
    "#part-handler": "text/part-handler",
    "## template: jinja": "text/jinja2",
}
MULTIPART = "multipart"

_KEY_FIELDS = {  # number of fields behind the type's name in the key's base64 body
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ssh-dss": 4,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
_CRYPT = re.compile(r"^\$(1|2[abxy]?|5|6|7|y|gy|sha1)\$[./A-Za-z0-9,=$]+$")
_USER = re.compile(r"^[a-z_][a-z0-9_.-]{0,30}[a-z0-9_$-]?$")
_GROUP = re.compile(r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$")
_OWNER = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$")
_TIMEZONE = re.compile(r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9][A-Za-z0-9_+-]*)*$")
_LOCALE = re.compile(r"^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)?(@[A-Za-z0-9_-]+)?$")
_MODE = re.compile(r"^0[0-7]{3,4}$")
_PACKAGE = re.compile(r"^[A-Za-z0-9@*/][^\s]*$")
_INSTANCE_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,52}$")
_INTERFACE = re.compile(r"^[A-Za-z][A-Za-z0-9._-]{0,14}$")

SEED_OPTIONS: Dict[str, Any] = {
    "format": {"type": "str", "choices": list(FORMATS), "default": "nocloud"},
    "instance_id": {"type": "str"},
    "hostname": {"type": "str"},
    "fqdn": {"type": "str"},
    "default_user": {"type": "bool", "default": True},
    "ssh_keys": {"type": "list", "elements": "str", "no_log": False},
    "users": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "gecos": {"type": "str"},
            "groups": {"type": "list", "elements": "str"},
            "primary_group": {"type": "str"},
            "uid": {"type": "int"},
            "system": {"type": "bool"},
            "shell": {"type": "str"},
            "homedir": {"type": "str"},
            "sudo": {"type": "raw"},
            "ssh_authorized_keys": {"type": "list", "elements": "str", "no_log": False},
            "password": {"type": "str", "no_log": True},
            "password_hash": {"type": "str", "no_log": True},
            "lock_passwd": {"type": "bool", "no_log": False},
        },
    },
    "root_password": {"type": "str", "no_log": True},
    "ssh_pwauth": {"type": "bool", "no_log": False},
    "disable_root": {"type": "bool"},
    "packages": {"type": "list", "elements": "str"},
    "package_update": {"type": "bool"},
    "package_upgrade": {"type": "bool"},
    "write_files": {
        "type": "list",
        "elements": "dict",
        "options": {
            "path": {"type": "str", "required": True},
            "content": {"type": "str", "no_log": True},
            "encoding": {"type": "str", "choices": list(ENCODINGS), "default": "plain"},
            "owner": {"type": "str"},
            "permissions": {"type": "str"},
            "append": {"type": "bool"},
            "defer": {"type": "bool"},
        },
    },
    "bootcmd": {"type": "list", "elements": "raw"},
    "runcmd": {"type": "list", "elements": "raw"},
    "timezone": {"type": "str"},
    "locale": {"type": "str"},
    "growpart": {"type": "bool"},
    "manage_etc_hosts": {"type": "bool"},
    "network": {
        "type": "list",
        "elements": "dict",
        "options": {
            "mac": {"type": "str", "required": True},
            "name": {"type": "str"},
            "dhcp4": {"type": "bool"},
            "dhcp6": {"type": "bool"},
            "addresses": {"type": "list", "elements": "str"},
            "gateway": {"type": "str"},
            "nameservers": {"type": "list", "elements": "str"},
            "search": {"type": "list", "elements": "str"},
            "routes": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "to": {"type": "str", "required": True},
                    "via": {"type": "str", "required": True},
                    "metric": {"type": "int"},
                },
            },
            "mtu": {"type": "int"},
        },
    },
    "network_config": {"type": "dict"},
    "meta_data": {"type": "dict"},
    "user_data": {"type": "str", "no_log": True},
}


@dataclass
class SeedUser:
    """One account that the guest gets. C(None) means cloud-init's own default."""

    name: str
    gecos: Optional[str] = None
    groups: List[str] = field(default_factory=list)
    primary_group: Optional[str] = None
    uid: Optional[int] = None
    system: Optional[bool] = None
    shell: Optional[str] = None
    homedir: Optional[str] = None
    sudo: Optional[List[str]] = None
    ssh_authorized_keys: List[str] = field(default_factory=list)
    password: Optional[str] = None
    password_hash: Optional[str] = None
    lock_passwd: Optional[bool] = None


@dataclass
class SeedFile:
    """One file that the guest writes at its first boot."""

    path: str
    content: str = ""
    encoding: str = "plain"
    owner: Optional[str] = None
    permissions: Optional[str] = None
    append: Optional[bool] = None
    defer: Optional[bool] = None


@dataclass
class Route:
    """A route of the guest: C(to) is a network with prefix length, C(0.0.0.0/0) or C(::/0) for the default."""

    to: str
    via: str
    metric: Optional[int] = None


@dataclass
class SeedNic:
    """The addresses of the guest on one NIC. C(dhcp4=None) means: by DHCP where no address is given."""

    mac: str
    name: Optional[str] = None
    dhcp4: Optional[bool] = None
    dhcp6: bool = False
    addresses: List[str] = field(default_factory=list)
    gateway: Optional[str] = None
    nameservers: List[str] = field(default_factory=list)
    search: List[str] = field(default_factory=list)
    routes: List[Route] = field(default_factory=list)
    mtu: Optional[int] = None

    @property
    def by_dhcp(self) -> bool:
        """Whether the guest asks for an IPv4 address on this NIC."""
        return not (self.addresses or self.dhcp6) if self.dhcp4 is None else self.dhcp4


@dataclass
class SeedSpec:
    """A seed as wanted. C(None) and empty lists mean "not mentioned in the documents"."""

    format: str = "nocloud"
    instance_id: Optional[str] = None
    hostname: Optional[str] = None
    fqdn: Optional[str] = None
    default_user: bool = True
    ssh_keys: List[str] = field(default_factory=list)
    users: List[SeedUser] = field(default_factory=list)
    root_password: Optional[str] = None
    root_password_hash: Optional[str] = None
    ssh_pwauth: Optional[bool] = None
    disable_root: Optional[bool] = None
    packages: List[str] = field(default_factory=list)
    package_update: Optional[bool] = None
    package_upgrade: Optional[bool] = None
    write_files: List[SeedFile] = field(default_factory=list)
    bootcmd: List[Union[str, List[str]]] = field(default_factory=list)
    runcmd: List[Union[str, List[str]]] = field(default_factory=list)
    timezone: Optional[str] = None
    locale: Optional[str] = None
    growpart: Optional[bool] = None
    manage_etc_hosts: Optional[bool] = None
    network: List[SeedNic] = field(default_factory=list)
    network_config: Optional[Dict[str, Any]] = None
    meta_data: Dict[str, Any] = field(default_factory=dict)
    user_data: Optional[str] = None


def user_data_type(option: str, text: str) -> str:
    """The MIME type of user data, told by its first line; C(multipart) for a MIME message. Raises SpecError for what is ignored."""
    start = text.lstrip()
    lowered = start.lower()
    first = lowered.split("\n", 1)[0].rstrip()
    if re.match(r"(mime-version|content-type):", lowered):
        # cloud-init itself takes a text for a MIME message by this header within the first 4096 bytes only.
        if "mime-version:" not in lowered[:4096]:
            raise SpecError(
                option,
                None,
                "is a MIME message without the header MIME-Version, which cloud-init would ignore",
                "Add the line 'MIME-Version: 1.0' to its headers",
            )
        return MULTIPART
    for beginning in sorted(USER_DATA_TYPES, key=len, reverse=True):
        if first.startswith(beginning):
            rest = first[len(beginning) :]
            if beginning in ("#!", "#include", "#include-once") or not rest or rest[0].isspace():
                return USER_DATA_TYPES[beginning]
    raise SpecError(
        option,
        None,
        "does not begin like anything that cloud-init executes, and would be ignored silently",
        "Begin it with '#cloud-config' (YAML), '#!/bin/sh' (a script), or one of #include, #cloud-boothook, ## template: jinja, "
        "#cloud-config-archive, #part-handler, or a MIME multipart message",
    )


def check_user_data(option: str, text: str) -> str:
    """User data that cloud-init can read. YAML is parsed where PyYAML is there (always on the control side). Raises SpecError."""
    kind = user_data_type(option, text)
    if kind == "text/cloud-config" and HAS_YAML:
        try:
            parsed = yaml.safe_load(text)
        except yaml.YAMLError as exc:
            mark = getattr(exc, "problem_mark", None)
            # The parser's message may quote the document, which may be secret: keep its words, drop what it quotes.
            problem = re.sub(r"'[^']{2,}'|\"[^\"]{2,}\"", "(text)", str(getattr(exc, "problem", None) or "unreadable"))
            where = "" if mark is None else " at line {0}, column {1}".format(mark.line + 1, mark.column + 1)
            raise SpecError(option, None, "is not valid YAML{0}: {1}".format(where, problem), "Correct the cloud-config document") from None
        if not isinstance(parsed, dict):
            raise SpecError(
                option,
                None,
                "is a cloud-config document that holds {0} instead of a mapping".format(
                    "nothing" if parsed is None else "a " + type(parsed).__name__
                ),
                "Write 'key: value' lines below #cloud-config, or leave it out",
            )
    return text


def check_ssh_key(option: str, value: str) -> str:
    """One line of an authorized_keys file with an OpenSSH public key whose body is what its type says. Raises SpecError."""
    text = value.strip()
    if "PRIVATE KEY" in text:
        raise SpecError(
            option, None, "is a private key, which must never be given away", "Give the public key, the line in the file ending in .pub"
        )
    shown = text if len(text) <= 60 else text[:57] + "..."

    def bad(reason: str) -> SpecError:
        return SpecError(option, shown, reason, "Give the whole line of a public key file, such as 'ssh-ed25519 AAAA... comment'")

    if "\n" in text or re.search("[\x00-\x08\x0b-\x1f\x7f]", text):
        raise bad("is more than one line or has control characters")
    # Options such as from="..." may precede the type; quoted blanks there are no separators.
    words = re.findall(r'(?:[^\s"]|"[^"]*")+', text)
    at = next((i for i, word in enumerate(words[:2]) if word in _KEY_FIELDS), None)
    if at is None or len(words) < at + 2:
        raise bad("is not an OpenSSH public key")
    kind = words[at]
    try:
        body = base64.b64decode(words[at + 1], validate=True)
    except (binascii.Error, ValueError):
        raise bad("has a body that is not base64, perhaps because it was cut off") from None
    fields, rest = [], body
    while rest:
        length = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 + length:
            raise bad("has a body that ends too early")
        fields.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    if not fields or fields[0] != kind.encode():
        raise bad("has a body that is not of type {0}".format(kind))
    if len(fields) != _KEY_FIELDS[kind] + 1 or (kind.endswith("ssh-ed25519") and len(fields[1]) != 32):
        raise bad("has a body that does not make a key of type {0}".format(kind))
    return text


def _ssh_keys(option: str, values: Optional[Sequence[str]]) -> List[str]:
    """Public keys; an item may be the text of a whole authorized_keys file."""
    keys: List[str] = []
    for index, value in enumerate(values or []):
        lines = [line for line in str(value).splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if "PRIVATE KEY" in str(value) or not lines:
            lines = [str(value)]
        for line in lines:
            key = check_ssh_key("{0}[{1}]".format(option, index), line)
            if key not in keys:
                keys.append(key)
    return keys


def is_crypt_hash(text: str) -> bool:
    """Whether a password is given as a crypt(5) hash such as C($6$salt$...)."""
    return bool(_CRYPT.match(text))


def _password(option: str, given: Any) -> str:
    value = str(given)
    if isinstance(given, (list, tuple, dict)):
        raise SpecError(option, None, "is not a text", "Give a password of one line, or better its hash (mkpasswd)")
    if not value or re.search("[\x00-\x1f\x7f]", value):
        raise SpecError(option, None, "is empty or has control characters", "Give a password of one line, or better its hash (mkpasswd)")
    return value


def _matching(option: str, value: Any, pattern: Any, what: str, remedy: str) -> Optional[str]:
    if value is None:
        return None
    if not pattern.match(str(value)) or "\n" in str(value):
        raise SpecError(option, value, "is not {0}".format(what), remedy)
    return str(value)


def _absolute(option: str, value: Any, what: str) -> str:
    text = str(value)
    if not text.startswith("/") or ".." in text.split("/") or re.search("[\x00-\x1f\x7f]", text):
        raise SpecError(option, value, "is not an absolute path", "Write {0} as a path that begins with '/' and has no '..'".format(what))
    return text


def _sudo(option: str, value: Any) -> Optional[List[str]]:
    if value is None:
        return None
    if isinstance(value, bool) or str(value).lower() in ("true", "false", "yes", "no"):
        return ["ALL=(ALL) NOPASSWD:ALL"] if str(value).lower() in ("true", "yes") else []
    rules = value if isinstance(value, list) else [value]
    for rule in rules:
        if not isinstance(rule, str) or not rule.strip() or "\n" in rule:
            raise SpecError(option, rule, "is not a sudo rule", "Write true, false, or a rule such as 'ALL=(ALL) NOPASSWD:ALL'")
    return [str(r) for r in rules]


def _user(params: Mapping[str, Any]) -> SeedUser:
    name = _matching(
        "name", params.get("name") or "", _USER, "a user name", "Use a-z, 0-9, '_' and '-', beginning with a letter, at most 32 characters"
    )
    user = SeedUser(name=str(name), gecos=params.get("gecos"), system=params.get("system"), lock_passwd=params.get("lock_passwd"))
    if user.name == "default":
        raise SpecError(
            "name",
            user.name,
            "is cloud-init's word for the image's own user, which is there anyway",
            "Use ssh_keys for its keys, and default_user: false to leave it out",
        )
    if user.gecos is not None and re.search("[\x00-\x1f\x7f:]", user.gecos):
        raise SpecError("gecos", user.gecos, "has a colon or control characters", "Remove them")
    user.groups = [
        str(_matching("groups", g, _GROUP, "a group name", "Use letters, digits, '_' and '-'")) for g in params.get("groups") or []
    ]
    user.primary_group = _matching("primary_group", params.get("primary_group"), _GROUP, "a group name", "Use letters, digits, '_' and '-'")
    if params.get("uid") is not None:
        user.uid = parse_int("uid", params["uid"], 0, 2**32 - 2)
    for key in ("shell", "homedir"):
        if params.get(key) is not None:
            setattr(user, key, _absolute(key, params[key], key))
    user.sudo = _sudo("sudo", params.get("sudo"))
    user.ssh_authorized_keys = _ssh_keys("ssh_authorized_keys", params.get("ssh_authorized_keys"))
    if params.get("password") is not None and params.get("password_hash") is not None:
        raise SpecError("password_hash", None, "is given together with password", "Give one of them; the hash is better")
    if params.get("password") is not None:
        user.password = _password("password", params["password"])
    if params.get("password_hash") is not None:
        if not is_crypt_hash(params["password_hash"]):
            raise SpecError(
                "password_hash",
                None,
                "is not a crypt(5) hash",
                "Give what 'mkpasswd -m sha-512' prints, beginning with $6$, or use password",
            )
        user.password_hash = params["password_hash"]
    return user


def _file(params: Mapping[str, Any]) -> SeedFile:
    item = SeedFile(
        path=_absolute("path", params.get("path") or "", "the file"),
        content=params.get("content") or "",
        encoding=one_of("encoding", params.get("encoding") or "plain", ENCODINGS),
        append=params.get("append"),
        defer=params.get("defer"),
    )
    if item.path.endswith("/"):
        raise SpecError("path", item.path, "names a directory", "Name a file")
    item.owner = _matching("owner", params.get("owner"), _OWNER, "an owner", "Write user or user:group")
    # A bare 0644 in YAML arrives as 420: only a text that says that it is octal can be trusted.
    item.permissions = _matching(
        "permissions", params.get("permissions"), _MODE, "an octal mode in quotes", "Write it with its quotes and leading zero, '0644'"
    )
    if item.encoding != "plain":
        try:
            data = base64.b64decode("".join(item.content.split()), validate=True)
        except (binascii.Error, ValueError):
            raise SpecError(
                "content", None, "is not base64, as encoding {0} says".format(item.encoding), "Encode it, or use encoding: plain"
            ) from None
        if item.encoding.startswith("gzip") and data[:2] != b"\x1f\x8b":
            raise SpecError("content", None, "is not gzip data within its base64", "Compress it, or use encoding: base64")
    return item


def _commands(option: str, values: Optional[Sequence[Any]]) -> List[Union[str, List[str]]]:
    """Shell lines as they are, argument lists with every word a string."""
    commands: List[Union[str, List[str]]] = []
    for index, value in enumerate(values or []):
        place = "{0}[{1}]".format(option, index)
        if isinstance(value, str) and value.strip():
            commands.append(value)
        elif (
            isinstance(value, (list, tuple))
            and value
            and all(isinstance(word, (str, int, float)) and not isinstance(word, bool) for word in value)
        ):
            commands.append([str(word) for word in value])
        else:
            raise SpecError(
                place,
                None,
                "is neither a shell line nor a list of words",
                "Write a string or [program, argument, ...]; quote true, false and lines that hold ': '",
            )
    return commands


def check_routes(option: str, routes: Optional[Sequence[Mapping[str, Any]]]) -> List[Route]:
    """Routes with C(to) (network or C(default)), C(via) and C(metric). Raises SpecError."""
    result = []
    for index, given in enumerate(routes or []):
        place = "{0}[{1}].".format(option, index)
        via = check_address(place + "via", given.get("via") or "")
        version = ipaddress.ip_address(via).version
        to = str(given.get("to") or "")
        if to == "default":
            to = "0.0.0.0/0" if version == 4 else "::/0"
        try:
            network = ipaddress.ip_network(to)
        except ValueError as exc:
            raise SpecError(place + "to", given.get("to"), str(exc), "Write 'default' or a network such as 10.1.0.0/16") from None
        if network.version != version:
            raise SpecError(
                place + "via", via, "is IPv{0}, the destination is IPv{1}".format(version, network.version), "Use one IP version"
            )
        metric = given.get("metric")
        result.append(Route(str(network), via, None if metric is None else parse_int(place + "metric", metric, 0, 2**32 - 1)))
    return result


def _nic(params: Mapping[str, Any]) -> SeedNic:
    nic = SeedNic(mac=check_mac("mac", params.get("mac") or ""), dhcp4=params.get("dhcp4"), dhcp6=bool(params.get("dhcp6")))
    nic.name = _matching("name", params.get("name"), _INTERFACE, "an interface name", "Use a name such as eth0, at most 15 characters")
    nic.addresses = [check_interface("addresses", a) for a in params.get("addresses") or []]
    if len(set(nic.addresses)) != len(nic.addresses):
        raise SpecError("addresses", ", ".join(nic.addresses), "an address is given twice", "Remove one")
    if params.get("gateway"):
        nic.gateway = check_gateway("gateway", params["gateway"], nic.addresses)
    nic.nameservers = [check_address("nameservers", a) for a in params.get("nameservers") or []]
    nic.search = [check_fqdn("search", s) for s in params.get("search") or []]
    nic.routes = check_routes("routes", params.get("routes"))
    if params.get("mtu") is not None:
        nic.mtu = parse_int("mtu", params["mtu"], 68, 65535)
    return nic


def check_fqdn(option: str, value: Any) -> str:
    """A host name with or without domain: RFC 1123 labels, 253 characters at most, in lower case."""
    text = str(value).rstrip(".").lower()
    if len(text) > 253:
        raise SpecError(option, value, "has {0} characters, 253 are possible".format(len(text)), "Shorten it")
    for label in text.split("."):
        try:
            check_label(option, label)
        except SpecError as exc:
            raise SpecError(option, value, exc.reason, exc.remedy) from None
    return text


def check_instance_id(option: str, value: Any) -> str:
    """An instance-id that fits into the seal; a UUID is the usual one."""
    text = str(value)
    if not _INSTANCE_ID.match(text) or text.endswith("\n"):
        raise SpecError(
            option,
            value,
            "is not an instance-id",
            "Use 1 to 53 letters, digits and . _ -, beginning with a letter or a digit; a UUID is best",
        )
    return text


def _network_config(seed_format: str, value: Mapping[str, Any]) -> Dict[str, Any]:
    config = dict(value)
    if set(config) == {"network"} and isinstance(config["network"], dict):
        config = dict(config["network"])
    if seed_format == "nocloud":
        if str(config.get("version")) not in ("1", "2"):
            raise SpecError("network_config", None, "has no version 1 or 2", "Give a network-config document with 'version: 2' at its top")
        config["version"] = int(config["version"])
    elif not {"links", "networks"} <= set(config):
        raise SpecError(
            "network_config",
            None,
            "is not network_data.json, the only network document that a config drive can carry",
            "Give a mapping with links, networks and services, use the option network, or format: nocloud",
        )
    return config


def _unique(option: str, key: str, values: Sequence[str]) -> None:
    for index, value in enumerate(values):
        if value and value in values[:index]:
            raise SpecError("{0}[{1}].{2}".format(option, index, key), value, "is given twice", "Merge the two entries")


def _names(params: Mapping[str, Any]) -> Tuple[Optional[str], Optional[str]]:
    hostname = None if params.get("hostname") is None else check_label("hostname", params["hostname"], "host name")
    fqdn = None if params.get("fqdn") is None else check_fqdn("fqdn", params["fqdn"])
    if hostname and fqdn and fqdn.partition(".")[0] != hostname:
        raise SpecError(
            "fqdn",
            fqdn,
            "does not begin with the hostname {0}".format(hostname),
            "Let the first label of fqdn be the hostname, or leave hostname out",
        )
    return hostname, fqdn


def _instance_id(params: Mapping[str, Any], meta_data: Mapping[str, Any]) -> Optional[str]:
    """The instance-id asked for: by the option, or within raw meta_data (C(instance-id), or C(uuid) of a config drive)."""
    given = {}
    if params.get("instance_id") is not None:
        given["instance_id"] = check_instance_id("instance_id", params["instance_id"])
    for key in ("instance-id",) + (("uuid",) if params.get("format") == "config_drive" else ()):
        if meta_data.get(key) is not None:
            given["meta_data." + key] = check_instance_id("meta_data." + key, meta_data[key])
    if len(set(given.values())) > 1:
        option = sorted(given)[-1]
        raise SpecError(
            option,
            given[option],
            "differs from the instance-id given elsewhere ({0})".format(", ".join(v for k, v in sorted(given.items()) if k != option)),
            "Give it once",
        )
    return next(iter(given.values()), None)


_FLAGS = ("ssh_pwauth", "disable_root", "package_update", "package_upgrade", "growpart", "manage_etc_hosts")


def _build(params: Mapping[str, Any]) -> SeedSpec:
    spec = SeedSpec(format=one_of("format", params.get("format") or "nocloud", FORMATS))
    spec.hostname, spec.fqdn = _names(params)
    spec.meta_data = dict(params.get("meta_data") or {})
    spec.instance_id = _instance_id(params, spec.meta_data)
    spec.default_user = params.get("default_user") is not False
    spec.ssh_keys = _ssh_keys("ssh_keys", params.get("ssh_keys"))
    if spec.ssh_keys and not spec.default_user:
        raise SpecError(
            "ssh_keys", None, "are for the image's default user, which default_user: false leaves out", "Give the keys to one of users"
        )
    spec.users = each("users", params.get("users"), lambda item, index: _user(item))
    _unique("users", "name", [u.name for u in spec.users])
    if params.get("root_password") is not None:
        if any(u.name == "root" for u in spec.users):
            raise SpecError("root_password", None, "is given although users has an entry for root", "Give the password there")
        password = _password("root_password", params["root_password"])
        if is_crypt_hash(password):
            spec.root_password_hash = password
        else:
            spec.root_password = password
    for key in _FLAGS:
        setattr(spec, key, params.get(key))
    spec.packages = [
        str(_matching("packages[{0}]".format(i), p, _PACKAGE, "a package name", "Write the name, or name=version, without blanks"))
        for i, p in enumerate(params.get("packages") or [])
    ]
    spec.write_files = each("write_files", params.get("write_files"), lambda item, index: _file(item))
    _unique("write_files", "path", ["" if f.append else f.path for f in spec.write_files])
    spec.bootcmd = _commands("bootcmd", params.get("bootcmd"))
    spec.runcmd = _commands("runcmd", params.get("runcmd"))
    spec.timezone = _matching(
        "timezone", params.get("timezone"), _TIMEZONE, "a time zone name", "Write it as in the tz database, such as Europe/Berlin or UTC"
    )
    spec.locale = _matching("locale", params.get("locale"), _LOCALE, "a locale name", "Write it as en_US.UTF-8")
    spec.network = each("network", params.get("network"), lambda item, index: _nic(item))
    _unique("network", "mac", [n.mac for n in spec.network])
    if params.get("network_config"):
        if spec.network:
            raise SpecError("network_config", None, "is given together with network", "Give one of them")
        spec.network_config = _network_config(spec.format, params["network_config"])
    if params.get("user_data") is not None and str(params["user_data"]).strip():
        spec.user_data = check_user_data("user_data", str(params["user_data"]))
    return spec


def seed_from_params(params: Mapping[str, Any], option: str = "seed") -> SeedSpec:
    """A SeedSpec out of the parameters of cloudinit_seed, or of vm_set's C(vms[].seed).

    Raises SpecError with options below C(option), such as C(seed.users[0].name); an empty C(option) adds nothing.
    """
    try:
        return _build(params)
    except SpecError as exc:
        raise exc.within(option + "." if option else "") from None
