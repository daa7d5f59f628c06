# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module vm_info on real domains, with leases of a real DHCP server and neighbours of a real bridge."""
from __future__ import annotations

import concurrent.futures
import ipaddress
import os
import shutil
import time
import uuid
import xml.etree.ElementTree as ET

import libvirt
import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils._metadata import VmMetadata, VolumeRef
from ansible_collections.kvmfleet.core.tests.integration.fake_nic import FakeNic
from ansible_collections.kvmfleet.core.tests.integration.tiny_guests import IMAGES, URI, Guests, run_module

# Of this process's own, so that two at once do not meet in the neighbour table.
NUMBER = os.getpid() % 256
SUBNET = ipaddress.ip_network("10.231.{0}.0/24".format(NUMBER))
STATIC = str(SUBNET[9])
MACS = ["52:54:00:4b:{0:02x}:{1:02x}".format(NUMBER, last) for last in range(4)]
MAC, OTHER_MAC = MACS[:2]


@pytest.fixture(scope="module")
def conn():
    """The real libvirtd."""
    libvirt.registerErrorHandler(lambda context, error: None, None)
    opened = libvirt.open(URI)
    yield opened
    opened.close()


@pytest.fixture
def guests(conn):
    """Domains of this test's own."""
    made = Guests(conn)
    yield made
    made.clean()


@pytest.fixture
def network(conn):
    """An isolated libvirt network with DHCP."""
    name = "kfpow-" + uuid.uuid4().hex[:8]
    root = ET.Element("network")
    ET.SubElement(root, "name").text = name
    ET.SubElement(root, "bridge", name="kfp" + uuid.uuid4().hex[:8], stp="off", delay="0")
    ip = ET.SubElement(root, "ip", address=str(SUBNET[1]), prefix=str(SUBNET.prefixlen))
    ET.SubElement(ET.SubElement(ip, "dhcp"), "range", start=str(SUBNET[100]), end=str(SUBNET[150]))
    made = conn.networkCreateXML(ET.tostring(root, encoding="unicode"))
    yield made
    made.destroy()


@pytest.fixture
def nic(network):
    """The network side of a guest with the MAC C(MAC)."""
    made = FakeNic(network.bridgeName(), MAC)
    yield made
    made.remove()


@pytest.fixture
def pool(conn):
    """A transient pool with one volume, v1, of 3 MiB."""
    name = "kfpow-" + uuid.uuid4().hex[:8]
    target = os.path.join(IMAGES, name)
    os.mkdir(target)
    made = conn.storagePoolCreateXML("<pool type='dir'><name>{0}</name><target><path>{1}</path></target></pool>".format(name, target), 0)
    made.createXML("<volume><name>v1</name><capacity unit='MiB'>3</capacity></volume>")
    yield made
    made.destroy()
    shutil.rmtree(target)


def info(**kwargs):
    """The result of vm_info."""
    result = run_module("vm_info", **kwargs)
    assert result.get("failed") or result["changed"] is False
    return result


def names_of(result):
    """The names in a result."""
    return [vm["name"] for vm in result["vms"]]


def test_what_is_told_of_a_vm(guests, pool):
    """The whole of it for one VM, stopped and running."""
    path = os.path.join(IMAGES, pool.name(), "v1")
    meta = VmMetadata(group="blue", namespace="prod", set="web", index=2, image="debian:12", flavor="small", key_name="me", labels={"tier": "front"},
                      addresses=[STATIC + "/24"], volumes=[VolumeRef("vda", pool.name(), "v1", 3 << 20)])
    domain = guests.define("told", meta=meta, disks=[path], nics=[(MAC, "default")])
    domain.setAutostart(True)
    stopped = info(name=domain.name())["vms"][0]
    expected = {"name": domain.name(), "uuid": domain.UUIDString(), "state": "stopped", "phase": "ready", "managed": True, "persistent": True,
                "autostart": True, "vcpus": 1, "max_vcpus": 1, "memory_mib": 64, "max_memory_mib": 64, "arch": "x86_64", "virt_type": "qemu",
                "firmware": "bios", "group": "blue", "namespace": "prod", "set": "web", "index": 2, "image": "debian:12",
                "flavor": "small", "key_name": "me", "labels": {"tier": "front"},
                "address": STATIC, "failure": None}
    assert {key: stopped[key] for key in expected} == expected
    assert stopped["addresses"] == [{"address": STATIC, "prefix": 24, "family": "ipv4", "mac": None, "source": "static"}]
    disk = stopped["disks"][0]
    assert (disk["pool"], disk["volume"], disk["path"], disk["size_bytes"], disk["format"], disk["bus"], disk["target"]) == (
        pool.name(), "v1", path, 3 << 20, "raw", "virtio", "vda")
    assert [(n["mac"], n["type"], n["source"], n["model"], n["link"], n["addresses"]) for n in stopped["nics"]] == [
        (MAC, "network", "default", "virtio", "up", [])]
    assert stopped["console"]["type"] == "vnc" and stopped["console"]["port"] is None and stopped["console"]["serial"] is None


def test_consoles_of_a_running_vm(guests):
    """Port and terminal are those of the running domain."""
    domain = guests.define("console")
    domain.create()
    running = info(name=domain.name())["vms"][0]
    live = ET.fromstring(domain.XMLDesc(0))
    assert running["state"] == "running"
    assert running["console"]["port"] == int(live.find("devices/graphics").get("port")) and running["console"]["listen"] == "127.0.0.1"
    assert running["console"]["serial"] == live.find("devices/console/source").get("path")


def test_sizes_of_disks_that_are_not_ours(guests, pool):
    """A volume of the user's is told with its pool; a file outside all pools with its size; a missing one without."""
    outside = os.path.join(IMAGES, guests.name("outside.img"))
    guests.files.append(outside)
    with open(outside, "wb") as file:
        file.truncate(5 << 20)
    missing = outside + ".missing"
    domain = guests.define("sizes", meta=False, disks=[os.path.join(IMAGES, pool.name(), "v1"), outside, missing])
    vm = info(name=domain.name())["vms"][0]
    assert vm["managed"] is False and vm["phase"] is None
    assert [(d["pool"], d["volume"], d["size_bytes"]) for d in vm["disks"]] == [(pool.name(), "v1", 3 << 20), (None, None, 5 << 20), (None, None, None)]


def test_selection(guests):
    """Names, patterns, metadata, states and ownership, each on its own and together."""
    guests.define("a", meta=VmMetadata(group="blue", labels={"tier": "front"}))
    guests.define("b", meta=VmMetadata(group="blue", phase="failed", reason="disk full", labels={"tier": "back"}))
    guests.define("c", meta=VmMetadata(group="red", set="s1"))
    guests.define("d", meta=False).create()
    a, b, c, d = (guests.name(label) for label in "abcd")
    mine = guests.name("*")
    assert names_of(info(names=[mine])) == [a, b, c, d]
    assert names_of(info(names=[c, a])) == [c, a]
    assert names_of(info(names=[mine], managed_only=True)) == [a, b, c]
    assert names_of(info(names=[mine], group="blue")) == [a, b]
    assert names_of(info(names=[mine], set="s1")) == [c]
    assert names_of(info(names=[mine], labels={"tier": "back"})) == [b]
    assert names_of(info(names=[mine], state=["running"])) == [d]
    assert [vm["failure"] for vm in info(names=[mine], state="failed")["vms"]] == ["disk full"]
    absent = info(names=[a, "kfpow-nowhere"])
    assert names_of(absent) == [a] and absent["missing"] == ["kfpow-nowhere"]
    assert set(names_of(info())) >= {a, b, c, d}


def test_a_lease_is_seen(guests, network, nic):
    """A DHCP lease shows on the VM and its NIC, and only while it runs; ARP tells of the same address once."""
    domain = guests.define("lease", "stubborn", nics=[(MAC, network.name()), (OTHER_MAC, network.name())])
    address, prefix = nic.lease().split("/")
    assert info(name=domain.name())["vms"][0]["addresses"] == []
    domain.create()
    vm = info(name=domain.name())["vms"][0]
    assert vm["addresses"] == [{"address": address, "prefix": int(prefix), "family": "ipv4", "mac": MAC, "source": "lease"}]
    assert vm["address"] == address and [n["addresses"] for n in vm["nics"]] == [[address], []]
    assert [n["forward"] for n in vm["nics"]] == ["isolated", "isolated"]
    assert info(name=domain.name(), addresses=False)["vms"][0]["address"] is None
    assert info(name=domain.name(), address_sources=["agent"])["vms"][0]["addresses"] == []


def test_waiting_for_ssh_says_what_is_missing(guests, network, nic):
    """Each stage of a boot that comes to nothing is told apart; the whole one ends the wait with the address."""
    domain = guests.define("ssh", "stubborn", nics=[(MAC, network.name())])
    domain.create()

    def stage(wait="ssh"):
        result = info(name=domain.name(), wait=wait, timeout=1)
        assert result["failed"] is True and result["reason"] == "wait_timeout" and domain.name() in result["msg"]
        assert result["waits"][0]["last_state"] in result["msg"] and names_of(result) == [domain.name()]
        return result["waits"][0]["last_state"]
    assert stage("address") == stage() == "no address yet"
    address = nic.lease().split("/")[0]
    assert info(name=domain.name(), wait="address", timeout=30)["waits"][0]["address"] == address
    assert stage() == "{0} port 22: refused".format(address)
    nic.serve(22, "")
    assert stage() == "{0} port 22: connected, no banner".format(address)
    nic.hush()
    nic.serve(22, "220 mail.example ESMTP")
    assert stage() == "{0} port 22: connected, another banner".format(address)
    nic.hush()
    nic.serve(22, "SSH-2.0-tiny")
    done = info(name=domain.name(), wait="ssh", timeout=30)
    assert done["waits"][0]["address"] == address == done["vms"][0]["address"] and done["waits"][0]["seconds"] < 30


def test_a_wait_ends_when_the_guest_comes(guests, network, nic):
    """The guest gets its address and its SSH server while the module waits."""
    domain = guests.define("late", "stubborn", nics=[(MAC, network.name())])
    domain.create()
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(info, name=domain.name(), wait="ssh", timeout=60)
        address = nic.lease().split("/")[0]
        assert not waiting.done()
        nic.serve(22, "SSH-2.0-tiny")
        assert waiting.result()["waits"][0]["address"] == address


def test_a_static_address_has_to_show_life(guests, network, nic):
    """An address of the metadata is no proof of a guest: it counts once something answers there."""
    static = "{0}/{1}".format(SUBNET[50], SUBNET.prefixlen)
    domain = guests.define("static", "stubborn", meta=VmMetadata(addresses=[static]), nics=[(MAC, network.name())])
    domain.create()
    refused = info(name=domain.name(), wait="address", timeout=1)
    assert refused["reason"] == "wait_timeout" and str(SUBNET[50]) in refused["waits"][0]["last_state"]
    nic.use(static)
    done = info(name=domain.name(), wait="address", timeout=30)
    assert done["waits"][0]["address"] == str(SUBNET[50])
    assert done["vms"][0]["addresses"] == [{"address": str(SUBNET[50]), "prefix": 24, "family": "ipv4", "mac": MAC, "source": "arp"}]


def test_all_wait_at_once_and_each_that_fails_is_named(guests, network):
    """Three VMs without address cost one timeout; a stopped one does not wait at all."""
    running = [guests.define("w{0}".format(i), "stubborn", nics=[(MACS[i], network.name())]) for i in range(3)]
    for domain in running:
        domain.create()
    stopped = guests.define("stopped")
    timeout = 4
    started = time.monotonic()
    result = info(names=[d.name() for d in running + [stopped]], wait="address", timeout=timeout)
    assert timeout <= time.monotonic() - started < 3 * timeout
    assert result["failed"] is True and all(d.name() in result["msg"] for d in running + [stopped])
    assert [w["last_state"] for w in result["waits"]] == ["no address yet"] * 3 + ["stopped"]
    assert info(name=stopped.name(), wait="ssh")["reason"] == "guest_not_running"


def test_waiting_for_vms_that_are_not_there():
    """A name of which there is no VM is an error before anything is waited for."""
    result = info(names=["kfpow-nowhere"], wait="address")
    assert result["reason"] == "unknown_vm" and "kfpow-nowhere" in result["msg"]


def test_cloud_init_needs_the_agent(guests):
    """Without an agent the wait says so."""
    domain = guests.define("cloud")
    domain.create()
    result = info(name=domain.name(), wait="cloud_init", timeout=1)
    assert result["reason"] == "wait_timeout" and "qemu-guest-agent" in result["msg"]
