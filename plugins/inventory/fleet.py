# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of a fleet: KVM hosts with their capacity, and their VMs as hosts."""
from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
short_description: KVM hosts with their capacity, and their VMs as hosts
version_added: 0.1.0
author:
  - kvmfleet contributors (@kvmfleet)
description:
  - Reads all KVM hosts of a fleet at once, each over one libvirt connection and with its own deadline, and changes nothing on them.
  - Hosts are members of the group C(kvm_hosts). Each has C(kvm_status), V(ok) or V(unreachable), and where it answered C(kvm_capacity).
    A host that is dead, refuses or hangs costs one deadline, gives one warning, and stays in the inventory.
  - VMs are members of the group C(kvm_vms) and of C(region_*), C(zone_*), C(state_*), C(group_*) (tenant), C(image_*) and C(label_KEY_VALUE).
    What is known of them is in C(kvm_vm_*) variables.
  - A VM's name that is another host's or a group's already, or that is there twice, becomes C(NAME-on-HOST), with one warning for all.
  - The file's name ends with C(fleet.yml) or C(fleet.yaml). It is checked as a whole; what is wrong is refused with file, line and key.
  - See docs/inventory.md for precedence, the cache, and placement at inventory time.
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: Marks the file as one of this plugin.
    type: str
    required: true
    choices: [kvmfleet.core.fleet]
  hosts:
    description:
      - KVM hosts by name. The settings of each are the host variables C(kvm_*) of docs/catalogs.md without their prefix.
      - A host without C(uri) is reached by its C(ansible_host), C(ansible_user), C(ansible_port) and C(ansible_ssh_private_key_file).
    type: dict
    default: {}
    suboptions:
      uri:
        description: libvirt connection from here, such as V(qemu+ssh://root@kvm1/system), or V(qemu:///system) for this machine.
        type: str
      region:
        description: Where the host is.
        type: str
      zone:
        description: Where in the region the host is.
        type: str
      labels:
        description: Labels for placement.
        type: dict
      ratios:
        description: How much of C(vcpus), C(memory) and C(disk) may be given out.
        type: dict
      reserved:
        description: What of C(vcpus), C(memory) and C(disk) is kept back for the host itself.
        type: dict
      totals:
        description: What the host has, where that should be something else than what it reports.
        type: dict
      stopped_factor:
        description: How much of a stopped VM is counted, between 0 and 1.
        type: float
      schedulable:
        description: Whether it takes new VMs.
        type: bool
      groups:
        description: Tenant groups that may use it; all by default.
        type: list
        elements: str
      admin_only:
        description: Whether only VMs without a tenant group may be placed here.
        type: bool
      max_vms:
        description: How many VMs it takes at most.
        type: int
      pool:
        description: Storage pool for disks.
        type: str
      image_pool:
        description: Storage pool for images.
        type: str
      pools:
        description:
          - By pool its C(floor) (what must stay really free), C(max_capacity) (what of it may be given out), C(admin_only) and C(groups).
          - How the role P(kvmfleet.core.kvm_host#role) makes it (C(type), C(path), C(volume_group), C(server), C(export)) may be there too.
        type: dict
      networks:
        description: By network what its NICs are attached to.
        type: dict
      storage_classes:
        description: By storage class its pool.
        type: dict
      virt_type:
        description: Virtualisation type.
        type: str
        choices: [auto, kvm, qemu]
  hosts_from:
    description:
      - A group of the inventory sources before this one, whose hosts are KVM hosts too.
      - The connection is made of C(ansible_host), C(ansible_user), C(ansible_port) and C(ansible_ssh_private_key_file); for C(ansible_connection=local) it
        is C(kvm_uri) or V(qemu:///system).
    type: str
  defaults:
    description: Settings as in O(hosts) but C(uri), for hosts for which neither O(hosts) nor an inventory variable says otherwise.
    type: dict
    default: {}
  vms:
    description:
      - VMs that are to exist, for the playbook C(converge_fleet). The keys are the C(vm_*) variables of the role P(kvmfleet.core.vm#role) without their prefix.
      - They do not become variables, because there may be secrets in them. Where they would go is in C(kvm_plan).
    type: list
    elements: dict
    default: []
  timeout:
    description: Seconds that a host has to answer.
    type: float
    default: 10
  ssh_key_file:
    description: Private key for hosts that are reached by SSH and have none in their URI. It does not become a variable of the host.
    type: path
    env:
      - name: KVMFLEET_SSH_KEY_FILE
  ssh_known_hosts:
    description: A known_hosts file for hosts that are reached by SSH. Hosts that are not in it are refused, whatever C(host_key_checking) says.
    type: path
    env:
      - name: KVMFLEET_SSH_KNOWN_HOSTS
  workers:
    description: How many hosts are read at once. By default all, up to 256.
    type: int
  vms_as_hosts:
    description: Whether VMs become hosts.
    type: bool
    default: true
  managed_only:
    description: Whether only VMs made by this collection become hosts.
    type: bool
    default: false
requirements:
  - libvirt-python on the control node
notes:
  - SSH connections never ask for a password or a passphrase. Use an agent, or a key without one.
  - Hosts that did not answer are not cached.
seealso:
  - module: kvmfleet.core.host_capacity
  - module: kvmfleet.core.vm_info
"""

EXAMPLES = r"""
# my.fleet.yml: two hosts, each with its own connection
plugin: kvmfleet.core.fleet
defaults:
  region: eu
  ratios: {vcpus: 4.0, memory: 1.0}
  reserved: {memory: 2GiB}
hosts:
  kvm1:
    uri: qemu+ssh://root@kvm1.example.org/system
    zone: east
  kvm2:
    uri: qemu+ssh://root@kvm2.example.org/system
    zone: west
    labels: {disk: nvme}

---
# The hosts of an inventory source before this one: ansible-inventory -i hosts.ini -i prod.fleet.yml --graph
plugin: kvmfleet.core.fleet
hosts_from: kvm_hosts
timeout: 5

---
# Groups and variables of one's own, the cache, and VMs that are to exist
plugin: kvmfleet.core.fleet
hosts:
  local:
    uri: qemu:///system
managed_only: true
keyed_groups:
  - key: kvm_vm_flavor
    prefix: flavor
compose:
  ansible_port: 2222 if kvm_vm_labels.ssh | default('') == 'high' else 22
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/kvmfleet
cache_timeout: 300
vms:
  - name: web
    count: 3
    image: debian:12
    flavor: small
    spread: zone
"""

import contextlib  # noqa: E402
import functools  # noqa: E402
import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from typing import Any, Callable, Dict, Iterator, List, Mapping, Tuple  # noqa: E402

from ansible import constants as C  # noqa: E402
from ansible.errors import AnsibleError, AnsibleParserError  # noqa: E402
from ansible.inventory.group import Group as InventoryGroup  # noqa: E402
from ansible.inventory.helpers import get_group_vars, sort_groups  # noqa: E402
from ansible.inventory.host import Host as InventoryHost  # noqa: E402
from ansible.module_utils.basic import missing_required_lib  # noqa: E402
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable  # noqa: E402
from ansible.utils.unsafe_proxy import wrap_var  # noqa: E402
from ansible.utils.vars import combine_vars  # noqa: E402
from ansible.vars.plugins import get_vars_from_inventory_sources  # noqa: E402

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import HAS_LIBVIRT  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _fleet, _fleet_file, _fleet_vms, _variables  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import HOST_SCHEMA, SCHEMAS, SHIPPED, Catalogs, Host, with_shipped  # noqa: E402
from ansible_collections.kvmfleet.core.plugins.plugin_utils._variables import to_bool  # noqa: E402

try:
    from ansible.template import trust_as_template
except ImportError:  # before core 2.19 everything is trusted that is not marked unsafe
    def trust_as_template(value: Any) -> Any:
        """The value itself."""
        return value

HOSTS = "kvm_hosts"
VMS = "kvm_vms"
_CACHE_FORMAT = 1
_HARMLESS = re.compile(r"^[\w .,:;/@+=?()\'-]*\Z")
_MOST_REFUSALS = 20  # hosts that are told one by one for each VM that is planned,
_MOST_EXPLAINED = 10  # for no more VMs than this
_ADDRESSING = ("ansible_host", "ansible_user", "ansible_ssh_user", "ansible_port", "ansible_ssh_port", "ansible_connection", "ansible_ssh_private_key_file",
               "ansible_private_key_file", "ansible_ssh_common_args")
# Of what a host tells; the rest is long and for placement only.
_FACTS = ("vcpus", "memory", "pools", "domains", "memory_used_mib", "memory_free_mib", "hostname", "arch", "archs", "virt_types", "firmware", "networks",
          "bridges", "cpu_model", "libvirt_version", "qemu_version")


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """See DOCUMENTATION."""

    NAME = "kvmfleet.core.fleet"
    # Without Ansible's warning about characters that it replaces
    _sanitize_group_name = staticmethod(_fleet_vms.safe_group)

    def verify_file(self, path: str) -> bool:
        """Whether the file is called like one of this plugin."""
        return bool(super().verify_file(path)) and path.endswith(("fleet.yml", "fleet.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Fill the inventory. Raises AnsibleParserError for a wrong file, and for nothing that hosts do."""
        super().parse(inventory, loader, path, cache)
        self._path = os.path.abspath(path)
        self._cached_vars: Dict[Tuple[str, ...], Dict[str, Any]] = {}
        if not HAS_LIBVIRT:
            raise AnsibleParserError(missing_required_lib("libvirt", reason="apt: python3-libvirt, dnf: python3-libvirt, PyPI: libvirt-python"))
        try:
            # First of all, because Ansible's own checks know no lines
            file = _fleet_file.read_fleet_file(path, self._text(path), self._decrypt)
            self._read_config_data(path)
            with _without_collector():
                self._fill(file, cache)
        except SpecError as exc:
            raise AnsibleParserError(str(exc)) from exc

    # -- the file and the variables beside it ----------------------------------------------------------------------------------------------

    def _text(self, path: str) -> str:
        content, _plain = self.loader._get_file_contents(path)  # the only way in all versions of Ansible that decrypts
        try:
            return str(content, "utf-8")
        except UnicodeDecodeError as exc:
            raise AnsibleParserError("{0} is not UTF-8: {1}".format(path, exc)) from exc

    def _decrypt(self, option: str, text: str) -> str:
        """A value tagged C(!vault). Those of declared VMs need no password: without one they are planned as if something else were there."""
        try:
            return str(self.loader._vault.decrypt(text.encode("utf-8")), "utf-8")
        except AnsibleError:
            if not option.startswith("vms["):
                raise
            return "(encrypted)"

    def _from_files(self, entity: Any) -> Dict[str, Any]:
        """What vars plugins (group_vars, host_vars) beside all inventory sources up to this one say of a host or group."""
        key = (type(entity).__name__, entity.name)
        if key not in self._cached_vars:
            sources = [*getattr(self.inventory, "processed_sources", []), self._path]
            self._cached_vars[key] = get_vars_from_inventory_sources(self.loader, sources, [entity], "all")
        return self._cached_vars[key]

    def _group_variables(self, groups: List[Any]) -> Dict[str, Any]:
        result: Dict[str, Any] = {}
        for group in sort_groups(groups):
            result = combine_vars(combine_vars(result, get_group_vars([group])), self._from_files(group))
        return result

    def _group(self, name: str) -> Any:
        return self.inventory.groups.get(name) or InventoryGroup(name)

    def _host_variables(self, file: _fleet_file.FleetFile, name: str) -> Dict[str, Any]:
        """The variables of a KVM host as plays will see them; templates are resolved in those that are needed here."""
        known = self.inventory.hosts.get(name) or InventoryHost(name)
        groups = {group.name: group for group in [*known.get_groups(), self._group("all"), self._group(HOSTS)]}
        entry = file.hosts.get(name, {})
        own: Dict[str, Any] = {"kvm_" + key: value for key, value in entry.items() if key != "uri"}
        if entry.get("uri"):
            own.update(_fleet.connection_variables(entry["uri"]))
        self._own[name] = own
        defaults = {"kvm_" + key: value for key, value in file.defaults.items()}
        result = dict(defaults)
        for more in (self._group_variables(list(groups.values())), known.vars, own, self._from_files(known), self._vars):
            result = combine_vars(result, more)
        said = {**self._group_variables(list(groups.values())), **known.vars, **own}
        self._own[name] = dict({key: value for key, value in defaults.items() if key not in said}, **own)
        return self._resolved(name, result)

    def _resolved(self, name: str, variables: Dict[str, Any]) -> Dict[str, Any]:
        """The variables with templates resolved in C(kvm_*) and in how the host is reached."""
        self.templar.available_variables = dict(variables, inventory_hostname=name)
        for key in [*HOST_SCHEMA, *_ADDRESSING]:
            if key in variables:
                try:
                    variables[key] = self.templar.template(variables[key])
                except AnsibleError as exc:
                    raise AnsibleParserError("{0} of host {1} cannot be resolved: {2}".format(key, name, exc)) from exc
        return variables

    def _read_catalogs(self, name: str, variables: Mapping[str, Any]) -> Catalogs:
        """The catalogs as a host sees them, with templates resolved as far as possible: an entry may use what only a play knows."""
        self.templar.available_variables = dict(variables, inventory_hostname=name)
        found = {}
        for key in [*SCHEMAS, SHIPPED]:
            if key in variables:
                try:
                    found[key] = self.templar.template(variables[key])
                except AnsibleError:
                    found[key] = variables[key]
        return Catalogs(with_shipped(found, found.get(SHIPPED)))

    # -- hosts -----------------------------------------------------------------------------------------------------------------------------

    def _names(self, file: _fleet_file.FleetFile) -> List[str]:
        names = list(file.hosts)
        if file.hosts_from is not None:
            group = self.inventory.groups.get(file.hosts_from)
            if group is None:
                raise file.wrong("hosts_from", file.hosts_from, "no inventory source before this file has such a group",
                                 "Give that source first: -i hosts.ini -i {0}".format(os.path.basename(self._path)))
            names.extend(host.name for host in group.get_hosts() if host.name not in file.hosts)
        taken = [name for name in names if name in self.inventory.groups]
        if taken:
            raise file.wrong("hosts." + taken[0], taken[0], "is the name of a group", "Rename one of them")
        return names

    def _uris(self, file: _fleet_file.FleetFile, variables: Mapping[str, Mapping[str, Any]]) -> Dict[str, str]:
        uris = {}
        for name, own in variables.items():
            uri = file.hosts.get(name, {}).get("uri") or _fleet.uri_from(name, self._with_settings(own))
            uris[name] = _fleet_file.check_uri("uri of host {0}".format(name), str(uri))
        # Hosts of other sources will get VMs as well
        group = self.inventory.groups.get(HOSTS)
        others = {host.name: _fleet.uri_from(host.name, self._with_settings(self._other(host))) for host in (group.get_hosts() if group else [])
                  if host.name not in uris}
        _fleet_file.refuse_same(file, dict(others, **uris))
        return uris

    def _other(self, host: Any) -> Dict[str, Any]:
        return self._resolved(host.name, combine_vars(combine_vars(self._group_variables(host.get_groups()), host.vars), self._from_files(host)))

    @staticmethod
    def _with_settings(variables: Mapping[str, Any]) -> Dict[str, Any]:
        """What a host is reached by, with what ansible.cfg says for all."""
        settings = {"ansible_user": C.DEFAULT_REMOTE_USER, "ansible_port": C.DEFAULT_REMOTE_PORT, "ansible_ssh_private_key_file": C.DEFAULT_PRIVATE_KEY_FILE}
        for key, other in (("ansible_user", "ansible_ssh_user"), ("ansible_port", "ansible_ssh_port"),
                           ("ansible_ssh_private_key_file", "ansible_private_key_file")):
            settings[key] = variables.get(key) or variables.get(other) or settings[key]
        return dict(variables, **settings)

    def _fill(self, file: _fleet_file.FleetFile, cache: bool) -> None:
        self._own: Dict[str, Dict[str, Any]] = {}
        variables = {name: self._host_variables(file, name) for name in self._names(file)}
        hosts = {name: _fleet_file.host_settings(name, own) for name, own in variables.items()}
        uris = self._uris(file, variables)
        with tempfile.TemporaryDirectory(prefix="kvmfleet-") as folder:
            readings = self._read(file, self._targets(hosts, uris, folder), cache)
        _fleet.refuse_twins(readings)
        self._add_hosts(hosts, variables, readings)
        # All hosts of a fleet see the same
        catalogs = next((self._read_catalogs(name, own) for name, own in variables.items()), Catalogs({}))
        plan = self._plan(file, list(hosts.values()), readings, catalogs)
        if plan:
            self.inventory.set_variable(HOSTS, "kvm_plan", _each(_said, plan))
        if file.vms_as_hosts:
            self._add_vms(file, hosts, variables, readings, catalogs)

    def _targets(self, hosts: Mapping[str, Host], uris: Mapping[str, str], folder: str) -> List[_fleet.Target]:
        known_hosts = self.get_option("ssh_known_hosts")
        ssh = _fleet.ssh_parameters(self.get_option("ssh_key_file"), known_hosts, folder)
        return [_fleet.Target(name, uris[name], host.policy(), bool(C.HOST_KEY_CHECKING or known_hosts), ssh) for name, host in hosts.items()]

    def _read(self, file: _fleet_file.FleetFile, targets: List[_fleet.Target], cache: bool) -> Dict[str, _fleet.Reading]:
        """What all hosts say, as far as possible out of the cache; warns of those that say nothing."""
        use = bool(self.get_option("cache"))
        key = self.get_cache_key(self._path)
        kept: Dict[str, Dict[str, Any]] = self._kept(key, targets) if use and cache else {}
        missing = [target for target in targets if target.name not in kept]
        fresh = _fleet.read_fleet(missing, file.timeout_s, file.workers)
        for name, reading in fresh.items():
            if reading.error:
                self.display.warning("KVM host {0} is unreachable: {1}".format(name, reading.error))
        if use and missing:
            now = time.time()
            for target in missing:
                reading = fresh[target.name]
                if reading.facts is not None:
                    kept[target.name] = {"of": _identity(target), "read": now, "facts": reading.facts, "vms": reading.vms}
            self._cache[key] = {"format": _CACHE_FORMAT, "hosts": kept}
        return {target.name: fresh[target.name] if target.name in fresh else _fleet.Reading(kept[target.name]["facts"], kept[target.name]["vms"])
                for target in targets}

    def _kept(self, key: str, targets: List[_fleet.Target]) -> Dict[str, Dict[str, Any]]:
        """The hosts of the cache that are neither too old nor reached or reckoned otherwise than now.

        Each has its own age: writing the cache for a host that has come back makes the others no younger.
        """
        try:
            data = self._cache[key]
        except KeyError:
            return {}
        timeout = int(self.get_option("cache_timeout") or 0)
        found = {}
        for target in targets if isinstance(data, Mapping) and data.get("format") == _CACHE_FORMAT else []:
            entry = data["hosts"].get(target.name)
            if entry and entry["of"] == _identity(target) and (not timeout or 0 <= time.time() - entry["read"] <= timeout):
                found[target.name] = entry
        return found

    def _add_hosts(self, hosts: Mapping[str, Host], variables: Mapping[str, Mapping[str, Any]], readings: Mapping[str, _fleet.Reading]) -> None:
        self.inventory.add_group(HOSTS)
        before = self.inventory.groups[HOSTS].vars.get("kvmfleet_file")
        if before and before != self._path:
            self.display.warning("{0} and {1} are both fleet files of this inventory. kvmfleet_file is the latter, and only its vms: are made so".format(
                before, self._path))
        self.inventory.set_variable(HOSTS, "kvmfleet_file", _ours(self._path))
        for name in hosts:
            self.inventory.add_host(name, group=HOSTS)
            reading = readings[name]
            for key, value in dict(self._own[name], kvm_status="unreachable" if reading.facts is None else "ok").items():
                self.inventory.set_variable(name, key, _each(_ours, value))
            if reading.facts is not None:
                self.inventory.set_variable(name, "kvm_capacity", _each(_said, {key: reading.facts[key] for key in _FACTS if key in reading.facts}))
        for name in hosts:
            self._construct(name, combine_vars(variables[name], self.inventory.hosts[name].get_vars()))

    def _construct(self, name: str, variables: Dict[str, Any]) -> None:
        """Variables and groups of the user's own."""
        strict = self.get_option("strict")
        if self.get_option("compose"):
            self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
            variables = combine_vars(variables, self.inventory.hosts[name].vars)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict, fetch_hostvars=False)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict, fetch_hostvars=False)

    # -- placement -------------------------------------------------------------------------------------------------------------------------

    def _plan(self, file: _fleet_file.FleetFile, hosts: List[Host], readings: Mapping[str, _fleet.Reading], catalogs: Catalogs) -> Dict[str, Any]:
        """Where the declared VMs would go, and with C(fleet_plan=true) those of the command line. What cannot be planned is said in the plan."""
        asked = self._vars.get("fleet_plan")
        result: Dict[str, Any] = {}
        if not file.vms and not asked:
            return result
        # Here, because it takes as long as reading ten hosts
        from ansible_collections.kvmfleet.core.plugins.plugin_utils import _planning
        states = {name: None if reading.facts is None else dict(reading.facts, vms=reading.vms) for name, reading in readings.items()}

        def declared() -> List[_planning.Wish]:
            wishes = []
            for number, raw in enumerate(file.vms):
                try:
                    wishes.append(_planning.wish_of(_variables.read("create", raw), catalogs, hosts))
                except SpecError as exc:
                    raise file.placed(exc, "vms[{0}].".format(number)) from None
            return wishes

        def requested() -> List[_planning.Wish]:
            given = {name: self._vars[name] for name in self._vars if name.startswith("vm_")}
            _variables.refuse_unknown(given)
            return [_planning.wish_of(_variables.read("create", given), catalogs, hosts)]

        def plan(wishes: Callable[[], List[_planning.Wish]]) -> Dict[str, Any]:
            try:
                made = _planning.plan_requests(wishes(), catalogs, hosts, states)
            except SpecError as exc:
                return {"ok": False, "strategy": "", "code": exc.code, "message": str(exc), "warnings": [], "vms": [], "waiting": {}}
            placed = made.placement
            # The variable is shown once for each host
            most = _MOST_REFUSALS if len(placed.decisions) <= _MOST_EXPLAINED else 0
            return dict(placed.as_result(), vms=[decision.as_result(most) for decision in placed.decisions], warnings=[*placed.warnings, *made.notes],
                        waiting=dict(made.waiting))
        if file.vms:
            result["declared"] = plan(declared)
        if asked and to_bool("fleet_plan", asked):
            result["request"] = plan(requested)
        return result

    # -- VMs -------------------------------------------------------------------------------------------------------------------------------

    def _add_vms(self, file: _fleet_file.FleetFile, hosts: Mapping[str, Host], variables: Mapping[str, Mapping[str, Any]],
                 readings: Mapping[str, _fleet.Reading], catalogs: Catalogs) -> None:
        self.inventory.add_group(VMS)
        vms = [(host, vm) for host in hosts for vm in readings[host].vms if vm["managed"] or not file.managed_only]
        groups = {(host, vm["name"]): _fleet_vms.groups_of(vm, hosts[host]) for host, vm in vms}
        every = {group for names in groups.values() for group in names}
        names, sentences = _fleet_vms.inventory_names(list(groups), {*self.inventory.hosts, *self.inventory.groups, *every})
        if sentences:
            self.display.warning("VMs whose name is another's have one of their own in the inventory: {0}{1}".format(
                "; ".join(sentences[:5]), " and {0} more".format(len(sentences) - 5) if len(sentences) > 5 else ""))
        for group in sorted(every):
            self.inventory.add_group(group)
        shared = self._group_variables([self._group("all"), self._group(VMS)])
        ways = {host: _Way(hosts[host], self._with_settings(variables[host]), readings[host], catalogs) for host in hosts}
        construct = any(self.get_option(option) for option in ("compose", "groups", "keyed_groups"))
        for host, vm in vms:
            name = names[host, vm["name"]]
            self.inventory.add_host(name, group=VMS)
            said, ours = _fleet_vms.variables_of(vm, hosts[host])
            ours.update(self._reach(ways[host], vm, groups[host, vm["name"]], shared))
            own = self.inventory.hosts[name]
            for group in groups[host, vm["name"]]:
                self.inventory.groups[group].add_host(own)
            for key, value in {**_each(_said, said), **_each(_ours, ours)}.items():
                # Not through the inventory, which would look into each value for what to trust: that has been decided
                own.set_variable(key, value)
            if construct:
                self._construct(name, combine_vars(shared, self.inventory.hosts[name].get_vars()))

    def _reach(self, way: _Way, vm: Mapping[str, Any], groups: List[str], shared: Mapping[str, Any]) -> Dict[str, Any]:
        """C(ansible_*) of a VM."""
        result: Dict[str, Any] = {}
        user = way.users.get(str(vm.get("image")))
        # The user of its image, unless group_vars of VMs, and not just of everything, say another
        if user and not any("ansible_user" in {**self._group(group).vars, **self._from_files(self._group(group))} for group in (VMS, *groups)):
            result["ansible_user"] = user
        found = _fleet_vms.best_address(vm)
        if found is not None:
            result["ansible_host"] = found["address"]
            if way.jump and way.facts is not None and _fleet_vms.needs_jump(vm, found, way.facts.get("networks") or [], way.sources):
                given = str(shared.get("ansible_ssh_common_args") or "")
                if "ProxyJump" not in given and "ProxyCommand" not in given and "-J" not in given.split():
                    result["ansible_ssh_common_args"] = (given + " " + way.jump).strip()
        return result


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Many objects are made and all of them are kept: looking for garbage among them again and again takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Way:
    """How the VMs of a host are reached."""

    def __init__(self, host: Host, connection: Mapping[str, Any], reading: _fleet.Reading, catalogs: Catalogs) -> None:
        self.facts, self.users = reading.facts, catalogs.users()
        self.sources = _fleet_vms.reachable_sources(host, catalogs.reachable_networks())
        self.jump = _fleet_vms.jump_through(host.name, connection, bool(C.HOST_KEY_CHECKING))


def _each(mark: Callable[[str], str], value: Any) -> Any:
    """A structure with each text marked."""
    if isinstance(value, str):
        return mark(value)
    if isinstance(value, Mapping):
        return {_each(mark, key): _each(mark, item) for key, item in value.items()}
    return [_each(mark, item) for item in value] if isinstance(value, (list, tuple)) else value


# The same few words are said by all VMs, and marking one takes longer than looking it up.
@functools.lru_cache(maxsize=4096)
def _said(text: str) -> str:
    """A text of a guest or of its definition: unsafe, unless it has no character that means anything in a template."""
    return trust_as_template(text) if _HARMLESS.match(text) else wrap_var(text)


@functools.lru_cache(maxsize=4096)
def _ours(text: str) -> str:
    """A text that is ours or the fleet file's; but never a template, since what is in variables has been resolved by now."""
    return wrap_var(text) if any(mark in text for mark in ("{{", "{%", "{#")) else trust_as_template(text)


def _identity(target: _fleet.Target) -> str:
    """What has to be the same for a host's cached answer to be used: where it was read, and how its capacity was reckoned."""
    return json.dumps([_fleet_file.identity(target.uri), vars(target.policy)], sort_keys=True, default=str)
