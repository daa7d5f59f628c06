# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read many hosts at once, each over one connection and with its own deadline. Only reads."""
from __future__ import annotations

import functools
import glob
import os
import shlex
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from ansible_collections.kvmfleet.core.plugins.module_utils import _capacity, _guest, _power
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import DEFAULT_URI, FleetError, error_code, is_gone, is_remote, open_connection
from ansible_collections.kvmfleet.core.plugins.module_utils._parallel import Outcome
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet_file import without_password

try:
    import libvirt
except ImportError:  # the inventory plugin says so
    pass

MAX_AT_ONCE = 256
_SSH = ("ssh", "libssh", "libssh2")


@dataclass
class Target:
    """A host that is to be read.

    :param verify: whether the host's SSH key has to be known
    :param ssh: parameters of the URI for hosts that are reached by SSH, where the URI itself does not have them
    """

    name: str
    uri: str
    policy: _capacity.Policy = field(default_factory=_capacity.Policy)
    verify: bool = True
    ssh: Mapping[str, str] = field(default_factory=dict)

    @property
    def reading_uri(self) -> str:
        """See L(reading_uri)."""
        return reading_uri(self.uri, self.verify, self.ssh)


@dataclass
class Reading:
    """What a host said: the result of host_capacity with facts, and its VMs; or why it said nothing."""

    facts: Optional[Dict[str, Any]] = None
    vms: List[Dict[str, Any]] = field(default_factory=list)
    error: Optional[str] = None


def each_within(work: Callable[[Any], Any], items: Sequence[Any], timeout_s: float, workers: Optional[int] = None) -> List[Outcome]:
    """The outcome of C(work) for each item, in their order; a late one has a TimeoutError.

    An item's time begins when its own thread does. A late thread gives its place to the next item, is a daemon, and is never joined: hung hosts
    cost one deadline as long as there are no more of them than workers.

    :param workers: how many at once; by default all, up to 256
    """
    limit = min(workers or MAX_AT_ONCE, MAX_AT_ONCE)
    done: Dict[int, Outcome] = {}
    running: Dict[int, float] = {}
    results: List[Tuple[int, Outcome]] = []
    changed = threading.Condition()

    def run(index: int, item: Any) -> None:
        try:
            outcome: Outcome = (work(item), None)
        except Exception as exc:  # noqa: BLE001 - handed over to the caller's thread, which reports it
            outcome = (None, exc)
        with changed:
            results.append((index, outcome))
            changed.notify()

    waiting = list(enumerate(items))[::-1]
    while waiting or running:
        while waiting and len(running) < limit:
            index, item = waiting.pop()
            running[index] = time.monotonic() + timeout_s
            threading.Thread(target=run, args=(index, item), daemon=True).start()
        with changed:
            if not results:
                changed.wait(max(0.0, min(running.values()) - time.monotonic()))
            arrived, results[:] = list(results), []
        for index, outcome in arrived:
            if running.pop(index, None) is not None:
                done[index] = outcome
        now = time.monotonic()
        for index in [i for i, deadline in running.items() if deadline <= now]:
            del running[index]
            done[index] = (None, TimeoutError("no answer within {0:g} s".format(timeout_s)))
    return [done[index] for index in range(len(items))]


def _states(conn: libvirt.virConnect, domains: Sequence[_capacity.DomainRecord]) -> Dict[str, Tuple[int, int]]:
    """State and reason of every domain by its UUID, in one call where the driver has one for it."""
    try:
        return {domain.UUIDString(): (stats["state.state"], stats["state.reason"])
                for domain, stats in conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE) if "state.state" in stats}
    except libvirt.libvirtError as exc:
        if error_code(exc) not in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_INVALID_ARG):
            raise
    found = {}
    for domain in domains:
        try:
            found[domain.uuid] = tuple(domain.handle.state())
        except libvirt.libvirtError as exc:
            if not is_gone(exc):
                raise
    return found


def _addresses(domain: _capacity.DomainRecord, tables: _guest.Tables) -> List[Dict[str, Any]]:
    static = list(domain.metadata.addresses) if domain.metadata else []
    if not domain.active:
        return _guest.merge([], static)
    seen = _guest.observed_addresses(domain.handle, domain.root, tables, ("lease",))
    if not seen and not static:
        # One more call per VM where the host is remote
        seen = _guest.observed_addresses(domain.handle, domain.root, tables, ("arp",))
    return _guest.merge(seen, static)


def _vm(domain: _capacity.DomainRecord, state: Optional[Tuple[int, int]], tables: _guest.Tables) -> Dict[str, Any]:
    seen = domain.observed
    if state is None:
        state = (1, 0) if domain.active else (5, 0)
    result = dict(domain.as_dict(), state=_power.state_name(state[0], state[1], domain.metadata.phase if domain.metadata else None))
    result["found_addresses"] = [{key: entry[key] for key in ("address", "family", "mac")} for entry in _addresses(domain, tables)]
    if seen is not None:
        result.update(description=seen.description, vcpus=seen.vcpus, memory_configured_mib=seen.memory_mib,
                      nics=[{"mac": nic.mac, "type": nic.type, "source": nic.source} for nic in seen.nics.values()])
    return result


def read_host(target: Target, timeout_s: float) -> Reading:
    """Everything of one host, over one connection, with one XML per domain. Raises FleetError and libvirtError."""
    conn = open_connection(target.reading_uri, timeout_s)
    try:
        domains = _capacity.records(conn)
        facts = _capacity.host_capacity(conn, target.policy, facts=True, domains=domains)
        if is_remote(target.uri):
            del facts["bridges"]  # they would be those of this machine
        states = _states(conn, domains) if domains else {}
        tables = _guest.read_tables(conn, ("lease", "arp") if any(d.active for d in domains) else ())
        vms = [_vm(d, states.get(d.uuid), tables) for d in sorted(domains, key=lambda d: d.name)]
        return Reading(facts, vms)
    finally:
        conn.close()


def read_fleet(targets: Sequence[Target], timeout_s: float, workers: Optional[int] = None) -> Dict[str, Reading]:
    """All hosts at once. A host that is dead, refuses, or does not answer in time has an C(error); nothing is raised for it."""
    readings = {}
    for target, (reading, failure) in zip(targets, each_within(functools.partial(read_host, timeout_s=timeout_s), targets, timeout_s, workers)):
        if failure is None:
            readings[target.name] = reading
            continue
        if isinstance(failure, TimeoutError):
            end_ssh(target.uri)
        shown = without_password(target.uri)
        if isinstance(failure, TimeoutError):
            text = "libvirt at {0} did not answer within {1:g} s".format(shown, timeout_s)
        elif isinstance(failure, FleetError):
            text = str(failure).replace(target.reading_uri, shown)
        else:
            text = "libvirt at {0}: {1}".format(shown, str(failure) or type(failure).__name__)
        readings[target.name] = Reading(error=" ".join(text.split()))
    return readings


def end_ssh(uri: str) -> None:
    """End the ssh of a connection that was given up: it would wait for that host for ever, long after this process has ended.

    libvirt tells nobody its process id; it is the child of this process with these arguments.
    """
    parts = urlsplit(uri)
    if not parts.scheme.endswith("+ssh"):
        return
    for path in glob.glob("/proc/self/task/*/children"):
        try:
            with open(path, encoding="ascii") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:
            continue  # that thread has ended
        for pid in children:
            try:
                with open("/proc/{0}/cmdline".format(pid), encoding="utf-8", errors="replace") as file:
                    words = file.read().split("\0")
                if "--" in words and "".join(words[words.index("--") + 1:][:1]).lower() == parts.hostname and ("-p" in words) == bool(parts.port) and (
                        not parts.port or words[words.index("-p") + 1] == str(parts.port)):
                    os.kill(pid, signal.SIGTERM)
            except OSError:
                continue  # so has that child


def ssh_parameters(key_file: Optional[str], known_hosts: Optional[str], folder: str) -> Dict[str, str]:
    """Parameters of URIs that make SSH use this key and know these hosts and no others.

    libvirt gives ssh no options. What it calls instead is made here.

    :param folder: empty, and there as long as hosts are read
    """
    parameters = {"keyfile": key_file} if key_file else {}
    if known_hosts:
        command = os.path.join(folder, "ssh")
        with open(command, "w", encoding="utf-8") as stream:
            stream.write("#!/bin/sh\nexec ssh -o {0} -o StrictHostKeyChecking=yes \"$@\"\n".format(shlex.quote("UserKnownHostsFile=" + known_hosts)))
        os.chmod(command, 0o700)
        parameters.update(command=command, known_hosts=known_hosts)
    return parameters


def reading_uri(uri: str, verify: bool = True, ssh: Optional[Mapping[str, str]] = None) -> str:
    """The URI to connect with: ssh must not ask for a password or a key's phrase, since nobody is there to answer.

    :param verify: whether the host's SSH key has to be known
    :param ssh: see L(Target)
    """
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[2] not in _SSH:
        return uri
    query = dict(parse_qsl(parts.query))
    if parts.scheme.endswith("+ssh"):
        query.setdefault("no_tty", "1")
    for key in ("keyfile", "command") if parts.scheme.endswith("+ssh") else ("keyfile", "known_hosts"):
        if ssh and ssh.get(key):
            query.setdefault(key, ssh[key])
    if not verify:
        query.setdefault("no_verify", "1")
        if parts.scheme.endswith(("+libssh", "+libssh2")):
            query.setdefault("known_hosts_verify", "ignore")
    return parts._replace(query=urlencode(query, safe="/")).geturl()


def uri_from(name: str, variables: Mapping[str, Any]) -> str:
    """The URI of a host of ordinary inventory, out of C(ansible_*) and C(kvm_uri), which is the connection on the host itself."""
    own = str(variables.get("kvm_uri") or DEFAULT_URI)
    address = str(variables.get("ansible_host") or name)
    local = str(variables.get("ansible_connection") or "").rpartition(".")[2] == "local"
    if local or is_remote(own):
        return own
    parts = urlsplit(own)
    user = variables.get("ansible_user") or variables.get("ansible_ssh_user")
    port = variables.get("ansible_port") or variables.get("ansible_ssh_port")
    key = variables.get("ansible_ssh_private_key_file") or variables.get("ansible_private_key_file")
    query = dict(parse_qsl(parts.query))
    if key:
        query["keyfile"] = str(key)
    machine = "[{0}]".format(address) if ":" in address else address
    return "{0}+ssh://{1}{2}{3}{4}{5}".format(
        parts.scheme.partition("+")[0], quote(str(user), safe="") + "@" if user else "", machine, ":{0}".format(port) if port else "", parts.path,
        "?" + urlencode(query, safe="/") if query else "")


def connection_variables(uri: str) -> Dict[str, Any]:
    """How Ansible reaches the host of a URI, and C(kvm_uri) where libvirt on the host itself is not at its usual place."""
    parts = urlsplit(uri)
    driver, _plus, transport = parts.scheme.partition("+")
    query = dict(parse_qsl(parts.query))
    if not parts.hostname:
        return dict({"ansible_connection": "local"}, **({} if uri == DEFAULT_URI else {"kvm_uri": uri}))
    result: Dict[str, Any] = {"ansible_host": parts.hostname}
    if transport in _SSH:
        if parts.username:
            result["ansible_user"] = unquote(parts.username)
        if parts.port:
            result["ansible_port"] = parts.port
        if query.get("keyfile"):
            result["ansible_ssh_private_key_file"] = query["keyfile"]
    own = "{0}://{1}".format(driver, parts.path)
    if query.get("socket"):
        own = "{0}+unix://{1}?{2}".format(driver, parts.path, urlencode({"socket": query["socket"]}, safe="/"))
    if own != DEFAULT_URI:
        result["kvm_uri"] = own
    return result


def refuse_twins(readings: Mapping[str, Reading]) -> None:
    """Raises SpecError, naming both, where two names turn out to be one host: same name of its own, and exactly the same VMs."""
    seen: Dict[Tuple[str, ...], str] = {}
    for name, reading in readings.items():
        if reading.facts is None or not reading.vms:
            continue
        key = (str(reading.facts.get("hostname")), *sorted(str(vm["uuid"]) for vm in reading.vms))
        other = seen.setdefault(key, name)
        if other != name:
            raise SpecError("kvm_hosts", "{0}, {1}".format(other, name), "are the same host: both are {0} and have the same VMs".format(key[0]),
                            "Use one name for it everywhere", "duplicate_host")
