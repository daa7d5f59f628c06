# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest tells: whether its agent listens, its addresses, its SSH, its cloud-init."""
from __future__ import annotations

import base64
import errno
import functools
import ipaddress
import json
import socket
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import _metadata, _progress
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError, error_code, is_gone, is_remote
from ansible_collections.kvmfleet.core.plugins.module_utils._parallel import call_within

try:
    import libvirt
except ImportError:
    pass  # run_module says so
try:
    import libvirt_qemu
    HAS_LIBVIRT_QEMU = True
except ImportError:
    HAS_LIBVIRT_QEMU = False

AGENT_CHANNEL = "org.qemu.guest_agent.0"
SOURCES = ("lease", "agent", "arp")
WAITS = ("none", "address", "ssh", "cloud_init")
_WHAT = {"address": "an address", "ssh": "SSH", "cloud_init": "the end of cloud-init"}
_REACHED = {"address": "has the address", "ssh": "SSH answers at", "cloud_init": "cloud-init is done"}

_POLL_S = 0.5
_POLL_AGENT_S = 1.0    # the guest is busy booting
_AGENT_COMMAND_S = 30.0
_PROBE_S = 3.0         # one TCP connection attempt, banner included
_PROBE_LEAST_S = 0.5   # also for the last one before a deadline, or its haste would be taken for silence
_BANNER_BYTES = 4096   # a server may send lines before its SSH identification (RFC 4253, 4.2)
_FILE_BYTES = 1 << 16
_CLOUD_INIT_RESULT = "/run/cloud-init/result.json"
_CLOUD_INIT_DISABLED = "/run/cloud-init/disabled"
_REFUSED = ("has been disabled", "has not been found", "not allowed")  # QEMU's agent on commands that its configuration blocks
_ARP_COMPLETE = 2      # ATF_COM
_FAMILY = {0: "ipv4", 1: "ipv6"}  # virIPAddrType


def agent_in(root: ET.Element) -> bool:
    """Whether a live domain XML says that the guest's agent has opened its channel."""
    return any(target.get("name") == AGENT_CHANNEL and target.get("state") == "connected" for target in root.iterfind("devices/channel/target"))


def agent_connected(domain: libvirt.virDomain) -> bool:
    """Whether the guest's agent has opened its channel; says nothing about whether it answers."""
    return agent_in(ET.fromstring(domain.XMLDesc(0)))


def usable(address: str) -> bool:
    """Whether an address can be one to reach a guest by: neither loopback, link-local, multicast nor unspecified."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified)


def _entry(address: str, prefix: Optional[int], mac: Optional[str], source: str) -> Dict[str, Any]:
    return {"address": address, "prefix": prefix or None, "family": "ipv6" if ":" in address else "ipv4", "mac": mac, "source": source}


def merge(observed: Sequence[Mapping[str, Any]], static: Sequence[str]) -> List[Dict[str, Any]]:
    """One list out of what was observed (best source first) and the static addresses of our metadata (with or without prefix).

    An address appears once, under the first source that told it. Static ones come first, then IPv4 before IPv6: the first is the one to use.
    """
    found: Dict[str, Dict[str, Any]] = {}
    for item in observed:
        if not usable(item["address"]):
            continue
        known = found.setdefault(item["address"], dict(item))
        for key in ("prefix", "mac"):
            known[key] = known[key] or item[key]
    wanted = []
    for text in static:
        address, _slash, prefix = text.partition("/")
        wanted.append(address)
        length = int(prefix) if prefix.isdigit() else None
        known = found.setdefault(address, _entry(address, length, None, "static"))
        known["prefix"] = known["prefix"] or length
    order = list(found.values())
    return sorted(order, key=lambda e: (e["address"] not in wanted, e["family"] != "ipv4"))


def lease_table(conn: libvirt.virConnect) -> Dict[str, List[Dict[str, Any]]]:
    """MAC -> DHCP leases of all active libvirt networks, the newest first: one call per network, however many VMs.

    A guest that was made anew under its old MAC may show two leases, because its DHCP client identifies itself otherwise.
    """
    table: Dict[str, List[Tuple[int, Dict[str, Any]]]] = {}
    for network in conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE):
        try:
            leases = network.DHCPLeases() or []
        except libvirt.libvirtError as exc:
            if is_gone(exc) or error_code(exc) in (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_SUPPORT):
                continue  # stopped in between, or without DHCP
            raise
        for lease in leases:
            mac = (lease.get("mac") or "").lower()
            if mac and lease.get("ipaddr"):
                table.setdefault(mac, []).append((int(lease.get("expirytime") or 0), _entry(lease["ipaddr"], lease.get("prefix"), mac, "lease")))
    return {mac: [entry for _expiry, entry in sorted(items, key=lambda i: -i[0])] for mac, items in table.items()}


def neighbour_table(path: str = "/proc/net/arp") -> Dict[str, List[Dict[str, Any]]]:
    """MAC -> addresses in this host's ARP table: one read for all VMs, and free of libvirt's trouble with it."""
    table: Dict[str, List[Dict[str, Any]]] = {}
    with open(path, encoding="ascii") as file:
        for line in file.read().splitlines()[1:]:
            fields = line.split()
            if len(fields) >= 4 and int(fields[2], 16) & _ARP_COMPLETE:
                table.setdefault(fields[3].lower(), []).append(_entry(fields[0], None, fields[3].lower(), "arp"))
    return table


@dataclass
class Tables:
    """What one question tells of all VMs. Without neighbours (they are another host's) libvirt is asked for each VM."""

    leases: Dict[str, List[Dict[str, Any]]]
    neighbours: Optional[Dict[str, List[Dict[str, Any]]]]


def read_tables(conn: libvirt.virConnect, sources: Sequence[str]) -> Tables:
    """Leases and neighbours, as far as they are wanted."""
    neighbours = neighbour_table() if "arp" in sources and not is_remote(conn.getURI()) else None
    return Tables(lease_table(conn) if "lease" in sources else {}, neighbours)


def _interface_entries(answer: Mapping[str, Any], source: str, macs: Sequence[str]) -> List[Dict[str, Any]]:
    """Entries out of virDomainInterfaceAddresses' answer; a guest's own bridges and tunnels (another MAC) are left out."""
    entries: List[Dict[str, Any]] = []
    for interface in answer.values():
        mac = (interface.get("hwaddr") or "").lower()
        if mac not in macs:
            continue
        entries.extend(_entry(a["addr"].partition("%")[0], a.get("prefix"), mac, source) for a in interface.get("addrs") or [] if a.get("type") in _FAMILY)
    return entries


def _no_answer() -> List[int]:
    """libvirt's errors that mean that there is nothing to be learned there: the guest went off, its agent went away or is too old.

    An internal error is also what libvirt 9.0 makes of the neighbour table of recent Linux ("wrong nlmsg len").
    """
    names = ("OPERATION_INVALID", "OPERATION_TIMEOUT", "OPERATION_UNSUPPORTED", "ARGUMENT_UNSUPPORTED", "NO_SUPPORT", "INTERNAL_ERROR", "AGENT_UNRESPONSIVE",
             "AGENT_UNSYNCED", "AGENT_COMMAND_TIMEOUT", "AGENT_COMMAND_FAILED")
    return [getattr(libvirt, "VIR_ERR_" + name) for name in names if hasattr(libvirt, "VIR_ERR_" + name)]


def _asked(domain: libvirt.virDomain, source: str, macs: Sequence[str], agent_timeout_s: float) -> List[Dict[str, Any]]:
    number = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT if source == "agent" else libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP
    try:
        if source == "agent":
            answered, answer = call_within(lambda: domain.interfaceAddresses(number, 0), agent_timeout_s)
            if not answered:
                return []
        else:
            answer = domain.interfaceAddresses(number, 0)
    except libvirt.libvirtError as exc:
        if is_gone(exc) or error_code(exc) in _no_answer():
            return []
        raise
    return _interface_entries(answer or {}, source, macs)


def observed_addresses(domain: libvirt.virDomain, root: ET.Element, tables: Tables, sources: Sequence[str] = SOURCES,
                       agent_timeout_s: float = 5) -> List[Dict[str, Any]]:
    """What leases, agent and ARP say of a running domain with this live XML."""
    macs = [(m.get("address") or "").lower() for m in root.iterfind("devices/interface/mac")]
    found: List[Dict[str, Any]] = []
    for source in sources:
        known = {"lease": tables.leases, "arp": tables.neighbours}.get(source)
        if known is not None:
            found.extend(entry for mac in macs for entry in known.get(mac, []))
        elif source != "agent" or agent_in(root):
            found.extend(_asked(domain, source, macs, agent_timeout_s))
    return [e for e in found if usable(e["address"])]


def static_addresses(root: ET.Element) -> List[str]:
    """The addresses in our metadata."""
    meta = _metadata.find(root)
    return list(meta.addresses) if meta else []


def addresses(domain: libvirt.virDomain, conn: libvirt.virConnect, sources: Sequence[str] = SOURCES, agent_timeout_s: float = 5) -> List[Dict[str, Any]]:
    """The addresses of a domain: DHCP lease, guest agent, ARP, and the static ones of our metadata; never loopback or link-local.

    A hung agent costs its timeout, once. A domain that is not running has its static addresses only.

    :returns: [{address, prefix (or None), family, mac (or None), source}], the one to use first
    """
    root = ET.fromstring(domain.XMLDesc(0))
    if not domain.isActive():
        return merge([], static_addresses(root))
    return merge(observed_addresses(domain, root, read_tables(conn, sources), sources, agent_timeout_s), static_addresses(root))


def _greeting(sock: socket.socket, greeting: bytes, deadline: float) -> str:
    received = b""
    try:
        while len(received) < _BANNER_BYTES:
            left = deadline - time.monotonic()
            if left <= 0:
                return "connected, no banner"
            sock.settimeout(left)
            piece = sock.recv(256)
            if not piece:
                break
            received += piece
            if any(line.startswith(greeting) for line in received.split(b"\n")):
                return "open"
    except (socket.timeout, ConnectionResetError):
        return "connected, no banner"
    return "connected, another banner" if received else "connected, no banner"


def probe_tcp(address: str, port: int, timeout_s: float = _PROBE_S, greeting: Optional[bytes] = None) -> str:
    """How a TCP port answers: C(open), C(refused), C(no route), C(no answer); where a greeting is expected also C(connected, no banner)."""
    deadline = time.monotonic() + max(0.01, timeout_s)
    try:
        with socket.create_connection((address, port), timeout=max(0.01, timeout_s)) as sock:
            return "open" if greeting is None else _greeting(sock, greeting, deadline)
    except socket.timeout:
        return "no answer"
    except ConnectionRefusedError:
        return "refused"
    except OSError as exc:
        if exc.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ETIMEDOUT):
            return "no route"
        return str(exc)


def _timeout(name: str, what: str, timeout_s: float, last: str) -> FleetError:
    return FleetError("{0}: no {1} within {2:g} s; last state: {3}".format(name, what, timeout_s, last), "wait_timeout", name=name, last_state=last)


def wait_ssh(address: str, port: int = 22, timeout_s: float = 300, name: Optional[str] = None) -> float:
    """Wait until an SSH server greets at an address; returns the seconds it took. Raises FleetError C(wait_timeout) with the last state."""
    started = time.monotonic()
    while True:
        left = started + timeout_s - time.monotonic()
        last = probe_tcp(address, port, min(_PROBE_S, max(_PROBE_LEAST_S, left)), b"SSH-")
        if last == "open":
            return time.monotonic() - started
        left = started + timeout_s - time.monotonic()
        if left <= 0:
            raise _timeout(name or address, "SSH at {0}:{1}".format(address, port), timeout_s, last)
        time.sleep(min(_POLL_S, left))


class Waiter:
    """One wait for one domain: observes it again and again until a deadline, and keeps the last state for the message.

    :param what: what is waited for, as people call it
    """

    def __init__(self, domain: libvirt.virDomain, conn: libvirt.virConnect, timeout_s: float, sources: Sequence[str], agent_timeout_s: float,
                 what: str = "an address") -> None:
        self.domain, self.conn, self.timeout_s, self.sources, self.agent_timeout_s = domain, conn, timeout_s, sources, agent_timeout_s
        self.name, self.what = domain.name(), what
        self.started = time.monotonic()
        self.last = "no address yet"

    @property
    def last(self) -> str:
        """The last state."""
        return self._last

    @last.setter
    def last(self, state: str) -> None:
        self._last = state
        _progress.say(self.name, "waiting for {0}: {1}".format(self.what, state))

    @property
    def left(self) -> float:
        return self.started + self.timeout_s - time.monotonic()

    def elapsed(self) -> float:
        return round(time.monotonic() - self.started, 1)

    def poll(self, what: str, pause_s: Optional[float] = None) -> None:
        """Wait for the next try; raises C(wait_timeout) where there is none."""
        if self.left <= 0:
            raise _timeout(self.name, what, self.timeout_s, self.last)
        time.sleep(max(0.0, min(pause_s or _POLL_S, self.left)))

    def live(self) -> ET.Element:
        """The live XML; a guest that is off cannot answer, so it is not waited for."""
        try:
            active = self.domain.isActive()
            root = ET.fromstring(self.domain.XMLDesc(0)) if active else None
        except libvirt.libvirtError as exc:
            if not is_gone(exc):
                raise
            root = None
        if root is None:
            raise FleetError("{0}: it is not running, so it cannot answer. Start it, and look at its console if it stopped by itself".format(self.name),
                             "guest_not_running", name=self.name, last_state="stopped")
        return root

    def observe(self) -> Iterator[List[Dict[str, Any]]]:
        """The usable addresses that are seen in use now: what costs nothing to know first, then the agent's, which may hang."""
        root = self.live()
        for sources in (tuple(s for s in self.sources if s != "agent"), tuple(s for s in self.sources if s == "agent")):
            tables = read_tables(self.conn, sources)
            yield observed_addresses(self.domain, root, tables, sources, min(self.agent_timeout_s, max(0.1, self.left)))

    def static(self) -> List[str]:
        """The addresses that it should have by its metadata."""
        return static_addresses(self.live())

    def address(self) -> List[Dict[str, Any]]:
        """The usable addresses now, an empty list where there are none. A static one counts where the guest shows signs of it."""
        static = self.static()
        for observed in self.observe():
            if observed:
                return merge(observed, static)
        self.last = "no address yet"
        for text in static:
            # The attempt also makes the host ask for the MAC, so that ARP knows a guest on the same link next time, whatever its firewall does.
            address = text.partition("/")[0]
            answer = probe_tcp(address, 22, min(1.0, max(_PROBE_LEAST_S, self.left)))
            self.last = "static address {0}: {1}".format(address, answer)
            if answer in ("open", "refused"):
                return merge([], static)
        return []


def _wait_address_of(waiter: Waiter) -> List[Dict[str, Any]]:
    found = waiter.address()
    while not found:
        waiter.poll("address")
        found = waiter.address()
    return found


def wait_address(domain: libvirt.virDomain, conn: libvirt.virConnect, timeout_s: float = 300, sources: Sequence[str] = SOURCES,
                 agent_timeout_s: float = 5) -> List[Dict[str, Any]]:
    """Wait until a running domain has an address that can be used; returns its addresses. Raises FleetError C(wait_timeout)."""
    return _wait_address_of(Waiter(domain, conn, timeout_s, sources, agent_timeout_s))


def _wait_ssh_of(waiter: Waiter, port: int) -> str:
    """Wait until one of a domain's addresses greets as an SSH server; returns that address."""
    while True:
        answers: Dict[str, str] = {}
        static = waiter.static()
        for observed in waiter.observe():
            for address in [e["address"] for e in merge(observed, static) if e["address"] not in answers]:
                answers[address] = probe_tcp(address, port, min(_PROBE_S, max(_PROBE_LEAST_S, waiter.left)), b"SSH-")
                if answers[address] == "open":
                    return address
        waiter.last = ", ".join("{0} port {1}: {2}".format(address, port, answer) for address, answer in answers.items()) or "no address yet"
        waiter.poll("SSH")


def _agent_command(domain: libvirt.virDomain, command: str, arguments: Mapping[str, Any], timeout_s: float) -> Any:
    """One command to the guest's agent, asked again while it does not listen: libvirt gives it five seconds, which a guest busy booting can miss."""
    text = json.dumps({"execute": command, "arguments": arguments})
    deadline = time.monotonic() + timeout_s
    while True:
        left = max(1.0, deadline - time.monotonic())
        try:
            answered, answer = call_within(functools.partial(libvirt_qemu.qemuAgentCommand, domain, text, int(left), 0), left + 1)
        except libvirt.libvirtError as exc:
            if error_code(exc) != libvirt.VIR_ERR_AGENT_UNRESPONSIVE or time.monotonic() + _POLL_S >= deadline:
                raise
            time.sleep(_POLL_S)
            continue
        if not answered:
            raise TimeoutError(command)
        return json.loads(answer).get("return")


def _command_failed() -> List[int]:
    """libvirt's errors for what the agent itself could not do: one of its own since libvirt 11.2, an internal one before."""
    return [getattr(libvirt, name) for name in ("VIR_ERR_INTERNAL_ERROR", "VIR_ERR_AGENT_COMMAND_FAILED") if hasattr(libvirt, name)]


def read_guest_file(domain: libvirt.virDomain, path: str, timeout_s: float = 30) -> Optional[str]:
    """A small file of the guest by its agent; None where it cannot be opened, which says as much as that it is not there."""
    try:
        handle = _agent_command(domain, "guest-file-open", {"path": path, "mode": "r"}, timeout_s)
    except libvirt.libvirtError as exc:
        if error_code(exc) not in _command_failed() or any(text in str(exc) for text in _REFUSED):
            raise
        return None
    try:
        answer = _agent_command(domain, "guest-file-read", {"handle": handle, "count": _FILE_BYTES}, timeout_s)
    finally:
        _agent_command(domain, "guest-file-close", {"handle": handle}, timeout_s)
    return base64.b64decode(answer.get("buf-b64") or "").decode("utf-8", "replace")


def read_cloud_init_result(output: str) -> Dict[str, Any]:
    """cloud-init's result.json, which is there once it has ended: {status, errors}, status C(done), C(error) or C(running) for half a file."""
    try:
        result = json.loads(output)["v1"]
        errors = [str(e) for e in result.get("errors") or []]
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"status": "running", "errors": []}
    return {"status": "error" if errors else "done", "errors": errors}


def cloud_init_status(domain: libvirt.virDomain, timeout_s: float = 30) -> Dict[str, Any]:
    """How far cloud-init has come since the guest's boot, by its agent.

    The files are read rather than C(cloud-init status) run: that takes seconds of a small guest's processor each time, at the very moment it boots.
    """
    output = read_guest_file(domain, _CLOUD_INIT_RESULT, timeout_s)
    if output is not None:
        return read_cloud_init_result(output)
    disabled = read_guest_file(domain, _CLOUD_INIT_DISABLED, timeout_s) is not None
    return {"status": "disabled" if disabled else "running", "errors": []}


def _wait_cloud_init_of(waiter: Waiter) -> Dict[str, Any]:
    if not HAS_LIBVIRT_QEMU:
        raise FleetError("{0}: waiting for cloud-init by the guest agent needs the Python module libvirt_qemu, which is part of libvirt-python; "
                         "this installation lacks it. Wait for ssh instead".format(waiter.name), "missing_library", name=waiter.name)
    waiter.last = "the guest agent is not connected (is qemu-guest-agent installed in the image, and the VM's agent channel on?)"
    while True:
        if agent_in(waiter.live()):
            try:
                answer = cloud_init_status(waiter.domain, min(_AGENT_COMMAND_S, max(1.0, waiter.left)))
            except TimeoutError:
                waiter.last = "the guest agent does not answer"
            except libvirt.libvirtError as exc:
                if any(text in str(exc) for text in _REFUSED):
                    raise FleetError("{0}: the guest's agent refuses to read files: {1}. Allow guest-file-open, -read and -close in the guest's "
                                     "qemu-ga configuration, or wait for ssh instead".format(waiter.name, exc), "agent_refused", name=waiter.name) from None
                waiter.last = "the guest agent says: {0}".format(exc)
            else:
                waiter.last = "cloud-init: {0}".format(answer["status"])
                if answer["status"] in ("done", "disabled"):
                    return answer
                if answer["status"] == "error":
                    raise FleetError("{0}: cloud-init failed in the guest: {1}. See /var/log/cloud-init-output.log there".format(
                        waiter.name, "; ".join(answer["errors"])), "cloud_init_failed", name=waiter.name, errors=answer["errors"])
        waiter.poll("end of cloud-init", _POLL_AGENT_S)


def wait_cloud_init_by_agent(domain: libvirt.virDomain, timeout_s: float = 600) -> Dict[str, Any]:
    """Wait until cloud-init in the guest is done, by what its agent reads there.

    Raises FleetError C(wait_timeout), C(cloud_init_failed), C(agent_refused) or C(missing_library).
    """
    return _wait_cloud_init_of(Waiter(domain, domain.connect(), timeout_s, (), 5))


def wait_for(domain: libvirt.virDomain, conn: libvirt.virConnect, what: str, timeout_s: float = 300, port: int = 22, sources: Sequence[str] = SOURCES,
             agent_timeout_s: float = 5) -> Dict[str, Any]:
    """Wait for C(address), C(ssh) or C(cloud_init); returns {name, waited_for, seconds, address, cloud_init}."""
    waiter = Waiter(domain, conn, timeout_s, sources, agent_timeout_s, _WHAT[what])
    result: Dict[str, Any] = {"name": waiter.name, "waited_for": what, "address": None, "cloud_init": None}
    try:
        if what == "ssh":
            result["address"] = _wait_ssh_of(waiter, port)
        elif what == "cloud_init":
            result["cloud_init"] = _wait_cloud_init_of(waiter)
        else:
            result["address"] = _wait_address_of(waiter)[0]["address"]
    except FleetError as exc:
        _progress.say(waiter.name, "given up: {0}".format(exc.data.get("last_state", exc)), done=True)
        raise
    result["seconds"] = waiter.elapsed()
    _progress.say(waiter.name, "{0}{1}".format(_REACHED[what], " " + result["address"] if result["address"] else ""), done=True)
    return result
