# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses, probes and the guest agent's answers, without a libvirtd."""
from __future__ import annotations

import base64
import json
import socket
import threading
import time
import xml.etree.ElementTree as ET

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import _guest, _metadata
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError

MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"


def entry(address, source="lease", mac=MAC, prefix=None):
    """An address as observed."""
    return {"address": address, "prefix": prefix, "family": "ipv6" if ":" in address else "ipv4", "mac": mac, "source": source}


def domain_xml(agent="connected", addresses=(), macs=(MAC,)):
    """A live domain."""
    root = ET.Element("domain", id="1")
    devices = ET.SubElement(root, "devices")
    for mac in macs:
        ET.SubElement(ET.SubElement(devices, "interface", type="network"), "mac", address=mac)
    ET.SubElement(ET.SubElement(devices, "channel"), "target", name="org.qemu.guest_agent.0", state=agent)
    _metadata.store(root, _metadata.VmMetadata(addresses=list(addresses)))
    return root


class FakeDomain:
    """A running domain that answers for its interfaces, or hangs, or fails."""

    def __init__(self, answer=None, hang=None, error=None, active=True, **xml):
        self.answer, self.hang, self.error, self.active, self.root, self.asked = answer or {}, hang, error, active, domain_xml(**xml), []

    def name(self):
        return "web1"

    def isActive(self):
        return self.active

    def XMLDesc(self, _flags):
        return ET.tostring(self.root, encoding="unicode")

    def interfaceAddresses(self, source, _flags):
        self.asked.append(source)
        if self.hang:
            self.hang.wait(60)
        if self.error:
            raise self.error
        return self.answer


class FakeConnection:
    """A connection to another host with these networks, each a list of leases."""

    def __init__(self, *networks):
        self.networks = networks

    def getURI(self):
        return "qemu+ssh://elsewhere/system"

    def listAllNetworks(self, _flags):
        return self.networks


class FakeNetwork:
    """A network with leases."""

    def __init__(self, leases):
        self.leases = leases

    def DHCPLeases(self):
        return self.leases


def libvirt_error(number):
    """A libvirtError with that number."""
    exc = libvirt.libvirtError("no")
    exc.err = (number, 0, "no", 0, None, None, None, 0, 0)
    return exc


@pytest.mark.parametrize("address, expected", [
    ("192.0.2.7", True), ("10.0.0.1", True), ("fd00::7", True), ("2001:db8::1", True), ("127.0.0.1", False), ("::1", False), ("169.254.3.4", False),
    ("fe80::5054:ff:fe00:1", False), ("224.0.0.1", False), ("0.0.0.0", False), ("::", False), ("", False), ("nonsense", False),
])
def test_usable(address, expected):
    """Never loopback, link-local, multicast, unspecified."""
    assert _guest.usable(address) is expected


@given(st.lists(st.tuples(st.ip_addresses().map(str), st.sampled_from(["lease", "agent", "arp"])), max_size=12),
       st.lists(st.ip_addresses(v=4).map(str), max_size=3))
def test_merge_tells_each_usable_address_once(observed, static):
    """Nothing usable is lost, nothing else is told, static ones come first, and the first source wins."""
    merged = _guest.merge([entry(a, s) for a, s in observed], [a + "/24" for a in static])
    addresses = [e["address"] for e in merged]
    assert len(set(addresses)) == len(addresses)
    assert set(addresses) == {a for a, _s in observed if _guest.usable(a)} | set(static)
    assert [a in static for a in addresses] == sorted((a in static for a in addresses), reverse=True)
    for found in merged:
        sources = [s for a, s in observed if a == found["address"] and _guest.usable(a)]
        assert found["source"] == (sources[0] if sources else "static")


def test_merge_fills_in_what_the_first_source_did_not_know():
    """ARP knows the MAC, the metadata the prefix."""
    assert _guest.merge([entry("192.0.2.7", "arp")], ["192.0.2.7/24"]) == [entry("192.0.2.7", "arp", prefix=24)]
    assert _guest.merge([entry("192.0.2.7", "lease", prefix=24), entry("192.0.2.7", "agent", prefix=16)], []) == [entry("192.0.2.7", "lease", prefix=24)]
    assert [e["address"] for e in _guest.merge([entry("fd00::1"), entry("192.0.2.7")], [])] == ["192.0.2.7", "fd00::1"]


def test_the_newest_lease_of_a_mac_comes_first():
    """Over all networks; MACs in whatever case."""
    def lease(address, expiry, mac=MAC):
        return {"mac": mac, "ipaddr": address, "prefix": 24, "expirytime": expiry}
    conn = FakeConnection(FakeNetwork([lease("192.0.2.1", 10), lease("192.0.2.2", 30)]), FakeNetwork([lease("192.0.2.3", 20, MAC.upper())]), FakeNetwork(None))
    assert [e["address"] for e in _guest.lease_table(conn)[MAC]] == ["192.0.2.2", "192.0.2.3", "192.0.2.1"]


def test_the_neighbour_table(tmp_path):
    """Entries without an answer are no neighbours."""
    path = tmp_path / "arp"
    path.write_text("IP address       HW type     Flags       HW address            Mask     Device\n"
                    "192.0.2.7        0x1         0x2         52:54:00:00:00:01     *        br0\n"
                    "192.0.2.9        0x1         0x6         52:54:00:00:00:02     *        br0\n"
                    "192.0.2.8        0x1         0x0         00:00:00:00:00:00     *        br0\n")
    assert _guest.neighbour_table(str(path)) == {MAC: [entry("192.0.2.7", "arp")], OTHER: [entry("192.0.2.9", "arp", OTHER)]}


def test_the_agent_tells_of_the_vms_nics_only():
    """A guest's loopback, containers' bridge and link-local addresses are left out."""
    answer = {
        "lo": {"hwaddr": "00:00:00:00:00:00", "addrs": [{"type": 0, "addr": "127.0.0.1", "prefix": 8}]},
        "eth0": {"hwaddr": MAC.upper(), "addrs": [{"type": 0, "addr": "192.0.2.7", "prefix": 24}, {"type": 1, "addr": "fe80::1%eth0", "prefix": 64},
                                                  {"type": 1, "addr": "fd00::7", "prefix": 64}]},
        "docker0": {"hwaddr": "02:42:00:00:00:01", "addrs": [{"type": 0, "addr": "172.17.0.1", "prefix": 16}]},
        "down": {"hwaddr": MAC, "addrs": None},
    }
    found = _guest.addresses(FakeDomain(answer), FakeConnection(), ("agent",))
    assert found == [entry("192.0.2.7", "agent", prefix=24), entry("fd00::7", "agent", prefix=64)]


def test_a_hung_agent_costs_its_timeout_only():
    """What the other sources know is told nevertheless."""
    hang = threading.Event()
    conn = FakeConnection(FakeNetwork([{"mac": MAC, "ipaddr": "192.0.2.7", "prefix": 24, "expirytime": 1}]))
    started = time.monotonic()
    found = _guest.addresses(FakeDomain(hang=hang), conn, ("lease", "agent"), agent_timeout_s=0.2)
    assert time.monotonic() - started < 30
    assert found == [entry("192.0.2.7", prefix=24)]
    hang.set()


def test_an_agent_that_is_not_there_is_not_asked():
    """Only a connected channel is worth a question, and only a running domain."""
    quiet = FakeDomain(agent="disconnected")
    assert _guest.addresses(quiet, FakeConnection(), ("agent",)) == [] and quiet.asked == []
    off = FakeDomain(active=False, addresses=["192.0.2.9/24"])
    assert _guest.addresses(off, FakeConnection()) == [entry("192.0.2.9", "static", None, 24)] and off.asked == []


def test_a_wait_asks_the_agent_last():
    """A hung agent does not keep a wait from the address that a lease tells of."""
    conn = FakeConnection(FakeNetwork([{"mac": MAC, "ipaddr": "127.0.0.2", "prefix": 24, "expirytime": 1},
                                       {"mac": MAC, "ipaddr": "192.0.2.7", "prefix": 24, "expirytime": 1}]))
    domain = FakeDomain(hang=threading.Event())
    assert _guest.wait_for(domain, conn, "address", 60, sources=("agent", "lease"))["address"] == "192.0.2.7"
    assert domain.asked == []


@pytest.mark.parametrize("number, told", [
    (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, True), (libvirt.VIR_ERR_OPERATION_INVALID, True), (libvirt.VIR_ERR_NO_DOMAIN, True),
    (libvirt.VIR_ERR_INTERNAL_ERROR, True), (libvirt.VIR_ERR_AUTH_FAILED, False), (libvirt.VIR_ERR_SYSTEM_ERROR, False),
])
def test_which_errors_mean_no_address(number, told):
    """An agent that fails is no address; a connection that fails is an error."""
    domain = FakeDomain(error=libvirt_error(number))
    if told:
        assert _guest.addresses(domain, FakeConnection(), ("agent", "arp")) == []
    else:
        with pytest.raises(libvirt.libvirtError):
            _guest.addresses(domain, FakeConnection(), ("agent",))


class Server:
    """A TCP server on loopback that does one thing with each connection."""

    def __init__(self, handle):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.handle, self.held = self.socket.getsockname()[1], handle, []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            self.held.append(connection)
            self.handle(connection)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.socket.close()
        for connection in self.held:
            connection.close()


def in_pieces(connection):
    """A banner after other lines, byte by byte."""
    for byte in b"hello\r\nSSH-2.0-x\r\n":
        connection.send(bytes([byte]))


@pytest.mark.parametrize("handle, expected", [
    (lambda c: c.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), "open"), (in_pieces, "open"), (lambda c: None, "connected, no banner"),
    (lambda c: c.close(), "connected, no banner"), (lambda c: (c.sendall(b"220 mail\r\n"), c.close()), "connected, another banner"),
    (lambda c: (c.sendall(b"not SSH-\r\n" * 600), c.close()), "connected, another banner"),
])
def test_ssh_is_known_by_its_greeting(handle, expected):
    """A port that is open is not yet SSH."""
    with Server(handle) as server:
        patience = 30 if expected != "connected, no banner" else 0.5
        assert _guest.probe_tcp("127.0.0.1", server.port, patience, b"SSH-") == expected


def unused_port():
    """A port of loopback on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_wait_ssh_ends_with_the_last_state():
    """Refused is said to be refused; a server that is there ends the wait."""
    port = unused_port()
    with pytest.raises(FleetError, match="refused") as caught:
        _guest.wait_ssh("127.0.0.1", port, 0.1, "web1")
    assert caught.value.code == "wait_timeout" and caught.value.data == {"name": "web1", "last_state": "refused"}
    with Server(lambda c: c.sendall(b"SSH-2.0-x\r\n")) as server:
        assert _guest.wait_ssh("127.0.0.1", server.port, 30) < 30


def test_waiting_for_a_guest_that_is_off_ends_at_once():
    """It cannot answer."""
    with pytest.raises(FleetError) as caught:
        _guest.wait_for(FakeDomain(active=False), FakeConnection(), "ssh", 3600)
    assert caught.value.code == "guest_not_running"


DONE = '{"v1": {"datasource": "DataSourceNoCloud", "errors": []}}'


@pytest.mark.parametrize("output, expected", [
    (DONE, {"status": "done", "errors": []}), ('{"v1": {"errors": ["boom", 3]}}', {"status": "error", "errors": ["boom", "3"]}),
    ('{"v1": {"datasource"', {"status": "running", "errors": []}), ("", {"status": "running", "errors": []}), ("[]", {"status": "running", "errors": []}),
    ('{"v1": null}', {"status": "running", "errors": []}),
])
def test_cloud_inits_result(output, expected):
    """Errors are a failure; half a file is none yet."""
    assert _guest.read_cloud_init_result(output) == expected


class Agent:
    """qemuAgentCommand of a guest in which opening a file meets this, one after another: its content, None for no such file, or an exception."""

    def __init__(self, *answers):
        self.answers, self.current, self.opened, self.handles = list(answers), None, [], 0

    def __call__(self, _domain, text, _timeout, _flags):
        command = json.loads(text)
        if command["execute"] == "guest-file-open":
            self.opened.append(command["arguments"]["path"])
            self.current = self.answers.pop(0)
            if self.current is None:
                raise libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR)
            if isinstance(self.current, Exception):
                raise self.current
            self.handles += 1
            return '{"return": 1000}'
        assert command["arguments"]["handle"] == 1000
        if command["execute"] == "guest-file-close":
            self.handles -= 1
            return '{"return": {}}'
        return json.dumps({"return": {"count": len(self.current), "buf-b64": base64.b64encode(self.current.encode()).decode(), "eof": True}})


def wait_cloud_init(monkeypatch, *answers, timeout_s=60):
    """Wait for such a guest."""
    agent = Agent(*answers)
    monkeypatch.setattr(_guest, "_POLL_AGENT_S", 0.01)
    monkeypatch.setattr(_guest, "_POLL_S", 0.01)
    monkeypatch.setattr(_guest, "libvirt_qemu", type("Module", (), {"qemuAgentCommand": staticmethod(agent)}))
    return agent, lambda: _guest.wait_for(FakeDomain(), FakeConnection(), "cloud_init", timeout_s)


def test_cloud_init_is_asked_until_it_is_done(monkeypatch):
    """Not there, an agent that does not listen for a while, half a file, then the whole; no file is left open."""
    agent, wait = wait_cloud_init(monkeypatch, None, None, libvirt_error(libvirt.VIR_ERR_AGENT_UNRESPONSIVE), '{"v1"', DONE)
    assert wait()["cloud_init"] == {"status": "done", "errors": []} and agent.answers == [] and agent.handles == 0


@pytest.mark.parametrize("missing", [None, 113])
def test_a_guest_with_cloud_init_disabled_is_not_waited_for(monkeypatch, missing):
    """It will never end. For a file that is not there libvirt has a code of its own since 11.2."""
    monkeypatch.setattr(libvirt, "VIR_ERR_AGENT_COMMAND_FAILED", 113, raising=False)
    agent, wait = wait_cloud_init(monkeypatch, missing and libvirt_error(missing), "")
    assert wait()["cloud_init"]["status"] == "disabled" and agent.opened == ["/run/cloud-init/result.json", "/run/cloud-init/disabled"]


def test_a_failed_cloud_init_ends_the_wait(monkeypatch):
    """With its errors."""
    _agent, wait = wait_cloud_init(monkeypatch, '{"v1": {"errors": ["no such module"]}}')
    with pytest.raises(FleetError, match="no such module") as caught:
        wait()
    assert caught.value.code == "cloud_init_failed"


def test_an_agent_that_never_listens_is_the_last_state(monkeypatch):
    """The wait ends at its deadline."""
    _agent, wait = wait_cloud_init(monkeypatch, *[libvirt_error(libvirt.VIR_ERR_AGENT_UNRESPONSIVE)] * 10000, timeout_s=0.3)
    with pytest.raises(FleetError, match="agent says") as caught:
        wait()
    assert caught.value.code == "wait_timeout"


def test_an_agent_that_forbids_reading_ends_the_wait(monkeypatch):
    """Waiting on would be in vain."""
    refusal = libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR)
    refusal.args = ("internal error: unable to execute QEMU agent command 'guest-file-open': Command guest-file-open has been disabled",)
    _agent, wait = wait_cloud_init(monkeypatch, refusal)
    with pytest.raises(FleetError, match="Allow guest-file-open") as caught:
        wait()
    assert caught.value.code == "agent_refused"


def test_without_libvirt_qemu_the_message_says_so(monkeypatch):
    """The module is part of libvirt-python, but packaged apart here and there."""
    monkeypatch.setattr(_guest, "HAS_LIBVIRT_QEMU", False)
    with pytest.raises(FleetError, match="libvirt_qemu") as caught:
        _guest.wait_for(FakeDomain(), FakeConnection(), "cloud_init", 60)
    assert caught.value.code == "missing_library"
