# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet file: hosts, defaults and declared VMs, checked with file, key and line. Pure."""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Set, Tuple
from urllib.parse import parse_qs, urlsplit

import yaml

from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import policy_from_params
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, parse_int
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import HOST_SCHEMA, Host, read_host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._variables import PlainLoader, convert, nearest, option_file, to_bool, to_text

PLUGIN = "kvmfleet.core.fleet"
TIMEOUT_S = 10.0
RESERVED_NAMES = ("all", "ungrouped", "kvm_hosts", "kvm_vms")
_PREFIX = "kvm_"
_DRIVERS = ("qemu", "test")
_MAX_NODES = 500000  # far beyond any fleet; a few lines of nested aliases can stand for more
_HOST_NAME = re.compile(r"^[^\W_][\w.-]*$")
_MERGE, _VAULT = "tag:yaml.org,2002:merge", "!vault"
_TYPES: Dict[str, type] = {"mapping": dict, "list": list}

# What the file may have beside hosts, defaults and vms. The types are those of the plugin's own options.
_OPTIONS = {
    "plugin": "text", "hosts": "mapping", "hosts_from": "text", "defaults": "mapping", "timeout": "seconds", "workers": "count", "vms": "list",
    "ssh_key_file": "text", "ssh_known_hosts": "text", "vms_as_hosts": "bool", "managed_only": "bool", "compose": "mapping", "groups": "mapping",
    "keyed_groups": "list", "strict": "bool", "leading_separator": "bool", "use_extra_vars": "bool", "cache": "bool", "cache_plugin": "text",
    "cache_timeout": "int", "cache_connection": "text", "cache_prefix": "text",
}


@dataclass
class FleetFile:
    """A fleet file that has been checked. Keys of hosts and defaults bear no prefix and have their values converted.

    C(vms) are requests: C(vm_*) variables with their values as written, for L(_variables.read). They may hold secrets.
    """

    path: str
    hosts: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    hosts_from: Optional[str] = None
    defaults: Dict[str, Any] = field(default_factory=dict)
    vms: List[Dict[str, Any]] = field(default_factory=list)
    timeout_s: float = TIMEOUT_S
    workers: Optional[int] = None
    vms_as_hosts: bool = True
    managed_only: bool = False
    lines: Dict[str, int] = field(default_factory=dict)

    def where(self, option: str) -> str:
        """File, line and option, as errors name it: C(fleet.yml, line 7: hosts.kvm1.zone)."""
        return "{0}, line {1}: {2}".format(self.path, line_of(self.lines, option), option)

    def wrong(self, option: str, value: Any, reason: str, remedy: str) -> SpecError:
        """An error of this file, to be raised."""
        return SpecError(self.where(option), value, reason, remedy, "invalid_fleet_file")

    def placed(self, error: SpecError, prefix: str = "") -> SpecError:
        """An error of something in this file, with file and line. Errors of C(vms) name the variable, which has a prefix that the key has not."""
        own = error.option[len("vm_"):] if prefix.startswith("vms[") and error.option.startswith("vm_") else error.option
        code = "invalid_fleet_file" if error.code in ("invalid_value", "invalid_catalog") else error.code
        return SpecError(self.where(prefix + own), error.value, error.reason, error.remedy, code)


def line_of(lines: Mapping[str, int], option: str) -> int:
    """The line of an option such as C(hosts.kvm1.labels.rack) or C(vms[0].name), else of what it is in."""
    while option and option not in lines:
        option = option[:max(option.rfind("."), option.rfind("["), 0)]
    return lines.get(option, 1)


def _child(option: str, key: str) -> str:
    return "{0}.{1}".format(option, key) if option else key


class _Tree:
    """Plain data out of YAML nodes, with the line of each key; duplicate keys and endless aliases are refused."""

    def __init__(self, file: FleetFile, vault: Optional[Callable[[str, str], str]]) -> None:
        self.file, self.vault = file, vault
        self._scalars = yaml.constructor.SafeConstructor()
        self._within: Set[int] = set()
        self._count = 0

    def data(self, node: yaml.Node, option: str) -> Any:
        """The value of a node."""
        self._count += 1
        self.file.lines.setdefault(option, node.start_mark.line + 1)
        if id(node) in self._within or self._count > _MAX_NODES:
            raise self.file.wrong(option, None, "refers to itself, or its aliases grow without end", "Write it out")
        self._within.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, option)
            if isinstance(node, yaml.SequenceNode):
                return [self.data(item, "{0}[{1}]".format(option, i)) for i, item in enumerate(node.value)]
            return self._scalar(node, option)
        finally:
            self._within.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, option: str) -> Dict[str, Any]:
        own: Dict[str, Any] = {}
        merged: Dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for base in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    if not isinstance(base, yaml.MappingNode):
                        raise self.file.wrong(option, None, "merges something that is no mapping", "Merge a mapping: <<: *name")
                    merged = dict(self.data(base, option), **merged)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.file.wrong(option, None, "has a key that is no text", "Write key: value")
            key, line = str(key_node.value), key_node.start_mark.line + 1
            child = _child(option, key)
            if key in own:
                before = self.file.lines[child]
                self.file.lines[child] = line
                raise self.file.wrong(child, None, "is there twice, in line {0} as well".format(before), "Keep one of them")
            self.file.lines[child] = line
            own[key] = self.data(value_node, child)
        return dict(merged, **own)

    def _scalar(self, node: yaml.Node, option: str) -> Any:
        if node.tag == _VAULT:
            if self.vault is None:
                raise self.file.wrong(option, None, "is encrypted", "Give the vault's password, as with --vault-password-file")
            return self.vault(option, node.value)
        if node.tag in ("!unsafe", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"):
            return node.value
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError):
            raise self.file.wrong(option, None, "cannot be read", "Write a plain text, number, true or false") from None


def _typed(file: FleetFile, option: str, kind: str, value: Any) -> Any:
    if kind in _TYPES:
        if not isinstance(value, _TYPES[kind]):
            raise file.wrong(option, None, "is not a {0}".format(kind), "Write {0}".format("key: value pairs" if kind == "mapping" else "items, as - ..."))
        return value
    if kind == "seconds":
        try:
            seconds = float(str(value))
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= 3600:
            raise file.wrong(option, value, "is not a number of seconds between 0 and 3600", "Write a number such as 10")
        return seconds
    if kind == "bool":
        return to_bool(option, value)
    if kind in ("count", "int"):
        return parse_int(option, value, 1 if kind == "count" else 0)
    return to_text(option, value)


def check_uri(option: str, uri: str) -> str:
    """A libvirt URI of a QEMU host. Raises SpecError."""
    parts = urlsplit(uri)
    driver, _plus, transport = parts.scheme.partition("+")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if driver not in _DRIVERS or not parts.path.strip("/") or port == -1:
        raise SpecError(option, without_password(uri), "is not a libvirt URI of a KVM host", "Write one such as qemu+ssh://root@kvm1/system or qemu:///system")
    if transport not in ("", "unix", "ssh", "libssh", "libssh2", "tcp", "tls"):
        raise SpecError(option, without_password(uri), "has the unknown transport {0}".format(transport), "Use qemu+ssh, or qemu for this machine")
    if transport not in ("", "unix") and not parts.hostname:
        raise SpecError(option, without_password(uri), "names no machine", "Write one such as qemu+ssh://root@kvm1/system")
    return uri


def without_password(uri: str) -> str:
    """A URI for people: libvirt knows no passwords in URIs, but that keeps nobody from writing one."""
    return re.sub(r"^([^/]*//[^/@:]*):[^/@]*@", r"\1@", uri)


def identity(uri: str) -> Tuple[str, ...]:
    """What two URIs of the same libvirt daemon have in common, whatever user, key or options they have."""
    parts = urlsplit(uri)
    driver, _plus, transport = parts.scheme.partition("+")
    socket = parse_qs(parts.query).get("socket", [""])[0]
    ssh = transport in ("ssh", "libssh", "libssh2")
    port = parts.port or (22 if ssh else None)
    here = not parts.hostname
    return (driver, "" if here else "ssh" if ssh else transport or "tls", (parts.hostname or "").lower(), "" if here else str(port or ""), socket,
            parts.path.rstrip("/"))


def _settings(file: FleetFile, where: str, name: str, data: Any) -> Dict[str, Any]:
    """The settings of a host or of all, converted; raises SpecError for the first wrong one."""
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise file.wrong(where, None, "is not a mapping", "Write its keys and values, such as uri: qemu+ssh://root@kvm1/system")
    known = {variable[len(_PREFIX):]: reader for variable, reader in HOST_SCHEMA.items()}
    result: Dict[str, Any] = {}
    for key, value in data.items():
        option = _child(where, key)
        if key not in known:
            raise file.wrong(option, None, "is not a setting of a host", nearest(key[len(_PREFIX):] if key.startswith(_PREFIX) else key, known))
        _refuse_templates(file, option, value)
        if value is None:
            continue
        try:
            result[key] = known[key](option, value)
            if key == "uri":
                check_uri(option, result[key])
        except SpecError as exc:
            raise file.placed(exc) from None
    check_settings(file, where, name, result)
    return result


def check_settings(file: FleetFile, where: str, name: str, settings: Mapping[str, Any]) -> None:
    """What single readers cannot say: sizes and ratios as capacity reads them, and what networks are attached to."""
    try:
        policy_from_params({key: settings[key] for key in ("ratios", "reserved", "totals", "stopped_factor", "pools") if key in settings})
    except SpecError as exc:
        raise file.placed(exc, where + ".") from None
    for network in settings.get("networks") or {}:
        try:
            Host(name, networks=settings["networks"]).network(network)
        except SpecError as exc:
            raise file.wrong("{0}.networks.{1}".format(where, network), exc.value, exc.reason, exc.remedy) from None


def _refuse_templates(file: FleetFile, option: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_templates(file, _child(option, key), item)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _refuse_templates(file, "{0}[{1}]".format(option, i), item)
    elif isinstance(value, str) and ("{{" in value or "{%" in value):
        raise file.wrong(option, None, "is a template, which this file cannot have", "Set the variable in group_vars or host_vars, where templates work")


def _vms(file: FleetFile, data: List[Any]) -> List[Dict[str, Any]]:
    options = option_file()["create"]
    known = {name[len("vm_"):] for name in options if name.startswith("vm_")}
    found: List[Dict[str, Any]] = []
    seen: Dict[Tuple[str, str, str], str] = {}
    for i, item in enumerate(data):
        where = "vms[{0}]".format(i)
        if not isinstance(item, Mapping):
            raise file.wrong(where, None, "is not a mapping", "Write the vm_* variables without their prefix, such as name: web1")
        request: Dict[str, Any] = {}
        for key, value in item.items():
            option = _child(where, key)
            if key not in known:
                raise file.wrong(option, None, "is not a variable of a VM", nearest(key[len("vm_"):] if key.startswith("vm_") else key, known))
            if value is None:
                continue
            name = "vm_" + key
            try:
                convert(name, options[name], value)
            except SpecError as exc:
                raise file.placed(exc, where + ".") from None
            request[name] = value
        if not str(request.get("vm_name") or "").strip():
            raise file.wrong(where + ".name", None, "is missing", "Say what the VM is called")
        identifier = (str(request["vm_name"]), str(request.get("vm_namespace") or ""), str(request.get("vm_group") or ""))
        if identifier in seen:
            raise file.wrong(where + ".name", identifier[0], "is declared twice, by {0} in line {1} as well".format(
                seen[identifier], line_of(file.lines, seen[identifier])), "Keep one, or raise its count")
        seen[identifier] = where
        found.append(request)
    return found


def _hosts(file: FleetFile, data: Mapping[str, Any]) -> Dict[str, Dict[str, Any]]:
    hosts: Dict[str, Dict[str, Any]] = {}
    for name, settings in data.items():
        where = _child("hosts", name)
        if not _HOST_NAME.match(name) or name in RESERVED_NAMES:
            raise file.wrong(where, name, "cannot be the name of a host", "Use letters, digits, dots, dashes and underscores; ranges are not expanded here")
        hosts[name] = _settings(file, where, name, settings)
    return hosts


def read_fleet_file(path: str, text: str, vault: Optional[Callable[[str, str], str]] = None) -> FleetFile:
    """A fleet file out of its text.

    :param path: for messages
    :param vault: called with the option (such as C(vms[0].root_password)) and the content of a value tagged C(!vault), returns its text; without it
        such a value is refused
    Raises SpecError, whose option names file, line and key, for anything that is not as it should be.
    """
    file = FleetFile(path)
    try:
        node = yaml.compose(text, Loader=PlainLoader)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        file.lines[""] = 1 if mark is None else mark.line + 1
        raise SpecError("{0}, line {1}".format(path, file.lines[""]), None, "is not valid YAML: {0}".format(getattr(exc, "problem", None) or exc),
                        "Correct it", "invalid_fleet_file") from None
    data = None if node is None else _Tree(file, vault).data(node, "")
    if not isinstance(data, dict):
        raise SpecError("{0}, line 1".format(path), None, "is not a mapping", "Begin with plugin: {0}".format(PLUGIN), "invalid_fleet_file")
    for key, value in data.items():
        if key not in _OPTIONS:
            raise file.wrong(key, None, "is not a key of a fleet file", nearest(key, _OPTIONS))
        if value is None:
            continue
        try:
            data[key] = _typed(file, key, _OPTIONS[key], value)
        except SpecError as exc:
            raise exc if exc.code == "invalid_fleet_file" else file.placed(exc) from None
    if data.get("plugin") != PLUGIN:
        raise file.wrong("plugin", data.get("plugin"), "is not this plugin", "Write plugin: {0}".format(PLUGIN))
    if not data.get("hosts") and not data.get("hosts_from"):
        raise file.wrong("hosts", None, "are missing: the file names no host", "Write hosts: with at least one name, or hosts_from: with a group")
    file.hosts_from = data.get("hosts_from")
    file.hosts = _hosts(file, data.get("hosts") or {})
    file.defaults = _settings(file, "defaults", "all", data.get("defaults"))
    if "uri" in file.defaults:
        raise file.wrong("defaults.uri", None, "cannot be the same for all hosts", "Give each host its own, or ansible_host and ansible_user")
    file.vms = _vms(file, data.get("vms") or [])
    file.timeout_s, file.workers = data.get("timeout") or TIMEOUT_S, data.get("workers")
    file.vms_as_hosts, file.managed_only = data.get("vms_as_hosts") is not False, bool(data.get("managed_only"))
    refuse_same(file, {name: str(host["uri"]) for name, host in file.hosts.items() if host.get("uri")})
    return file


def refuse_same(file: FleetFile, uris: Mapping[str, str]) -> None:
    """Raises SpecError, naming both, where two names stand for the same libvirt daemon: its room would be given away twice."""
    seen: Dict[Tuple[str, ...], str] = {}
    for name, uri in uris.items():
        other = seen.setdefault(identity(uri), name)
        if other != name:
            option = "hosts.{0}".format(name if "hosts." + name in file.lines else other)
            raise file.wrong(option, None, "{0} and {1} are the same host, {2}".format(other, name, without_password(uri)), "Use one name for it everywhere")


def host_settings(name: str, variables: Mapping[str, Any]) -> Host:
    """A host out of its C(kvm_*) variables, whatever source they come from. Raises SpecError, naming host and variable."""
    host = read_host(name, {key: variables[key] for key in HOST_SCHEMA if key in variables})
    host.policy()
    return host
