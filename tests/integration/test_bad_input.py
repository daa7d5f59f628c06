# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What bad input gets: one message with option, value, reason and remedy, and nothing touched."""
from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid

import libvirt
import pytest

SIZED = {"virt_type": "qemu", "vcpus": 1, "memory": "32MiB"}


def fails_with(result, option, value, *words, code=None):
    """Assert that a failure says all that a user needs in its one message."""
    message = result["msg"]
    error = result["error"]
    assert error["option"] == option, result
    assert message.endswith(".") and "\n" not in message and "Traceback" not in message
    assert option in message and error["reason"].rstrip(".") in message and error["remedy"].rstrip(".") in message and error["remedy"]
    if value is None:
        assert error["value"] is None
    else:
        assert value in str(error["value"]) and value in message, message
    for word in words:
        assert word in message, message
    if code:
        assert result["reason"] == code == error["code"]


@pytest.fixture
def refused(place, converge):
    """A function: vm_set must refuse this VM, in check mode and for real, and touch nothing."""
    def check(option, value, *words, code=None, totals=None, **vm):
        wanted = dict({"name": place.name()}, **vm)
        extra = {"totals": totals} if totals else {}
        fails_with(converge.refused("vm_set", vms=[wanted], **extra), option, value, *words, code=code)
    return check


def disk(place, **more):
    """A disk on the image, or without one."""
    return [dict({"pool": place.pool, "image": "image.qcow2", "size": "16MiB"}, **more)]


@pytest.mark.parametrize("name", ["a_b", "a b", "a/b", "a" * 64, "", "bücher", "-a", "a-", "A", "a.b", "a.b.c.d", "..", "a\n", "a;b", "$(x)", "a'b", "<a>"])
def test_names(place, name, converge):
    """A VM's name is a host name label."""
    wanted = dict({"name": name, "disks": disk(place)}, **SIZED)
    result = converge.refused("vm_set", vms=[wanted])
    assert result["error"]["option"].endswith("name") and result["error"]["value"] == name and repr(name) in result["msg"]
    assert result["error"]["remedy"].rstrip(".") in result["msg"]
    wanted["disks"] = [{"path": place.path("image.qcow2")}]
    assert converge.refused("vm_domain", **wanted)["error"]["option"] == "name"


@pytest.mark.parametrize("option, value, words", [
    ("memory", "0", ("unit",)), ("memory", "0MiB", ("below",)), ("memory", "-1GiB", ("below",)), ("memory", "2", ("2GiB", "2MiB")), ("memory", "x", ("2GiB",)),
    ("memory", "1.5KiB", ("MiB",)), ("memory", "2GX", ("unit",)), ("memory", "99TiB", ("this host has",)), ("max_memory", "99TiB", ("this host has",)),
    ("max_memory", "1MiB", ("memory",)), ("vcpus", 0, ("between 1",)), ("vcpus", -1, ("between 1",)), ("vcpus", 4000, ("at most",)),
    ("max_vcpus", 4000, ("at most",)), ("uuid", "x", ("8-4-4-4-12",)), ("description", "a\x00b", ("control",)), ("machine", "q36", ("q35",)),
    ("labels", {"a b": "x"}, ()), ("index", -1, ("at least 0",)), ("topology", {"sockets": 3}, ("max_vcpus",)),
    ("graphics", {"type": "vnc", "listen": "here"}, ()), ("graphics", {"type": "vnc", "password": "123456789"}, ("8",)),
    ("cpu", {"mode": "custom"}, ("model",)), ("cpu", {"mode": "host-model", "model": "x"}, ("custom",)), ("boot", ["hd", "hd"], ("twice",)),
    ("secure_boot", True, ("efi",)),
])
def test_sizes_and_other_options(place, converge, option, value, words):
    """Sizes without unit, out of bounds, above the host; contradictions."""
    wanted = dict({"name": place.name(), "disks": disk(place)}, **SIZED)
    wanted[option] = value
    if option == "secure_boot":
        wanted["firmware"] = "bios"
    result = converge.refused("vm_set", vms=[wanted], totals={"vcpus": 16, "memory": "1TiB"})
    assert option in result["error"]["option"] and option in result["msg"]
    assert result["error"]["remedy"].rstrip(".") in result["msg"] and all(word in result["msg"] for word in words), result["msg"]
    assert "123456789" not in str(result)


def test_a_missing_size_of_an_unknown_vm(place, converge):
    """A typing error in the name does not make an empty VM."""
    for params in ({"state": "running"}, {"description": "x"}):
        fails_with(converge.refused("vm_domain", name=place.name("wbe"), **params), "name", place.name("wbe"), "no such VM", code="unknown_vm")


def test_images_and_disks(place, refused):
    """Unknown, too big, without source, twice, shrinking later."""
    refused("vms[0].disks[0].size", "12", "unit", disks=disk(place, size="12"), **SIZED)
    refused("image", "nope.qcow2", place.pool, code="unknown_image", disks=disk(place, image="nope.qcow2"), **SIZED)
    refused("image", "/nonexistent/nope.qcow2", code="unknown_image", disks=disk(place, image="/nonexistent/nope.qcow2"), **SIZED)
    refused("disks[0].size", "4MiB", "image.qcow2", "8MiB", code="image_too_big", disks=disk(place, size="4MiB"), **SIZED)
    refused("disks[0].pool", "nope", place.pool, code="unknown_pool", disks=disk(place, pool="nope"), **SIZED)
    refused("vms[0].disks[0].size", None, "no source", disks=[{"pool": place.pool}], **SIZED)
    refused("vms[0].disks[0].volume", "v", "one source", disks=disk(place, volume="v"), **SIZED)
    refused("vms[0].disks", "data", "one name", disks=disk(place, name="data") + disk(place, name="data"), **SIZED)
    refused("vms[0].disks", "seed", disks=disk(place, name="seed"), **SIZED)
    refused("vms[0].disks[0].path", "relative", "absolute", disks=[{"path": "relative"}], **SIZED)
    refused("disks[0].path", "/nonexistent/x", code="unknown_path", disks=[{"path": "/nonexistent/x"}], **SIZED)
    refused("disks[0].volume", "nope", code="unknown_volume", disks=[{"pool": place.pool, "volume": "nope"}], **SIZED)
    refused("vms[0].disks[0].volume", "../x", disks=[{"pool": place.pool, "volume": "../x"}], **SIZED)
    refused("vms[0].disks[0].format", "raw", "overlay", disks=disk(place, format="raw"), **SIZED)
    refused("vms[0].disks[0].serial", "no<good>", disks=disk(place, serial="no<good>"), **SIZED)


def test_disks_larger_than_their_pool(place, converge):
    """By the ratio; and a full copy by what is really free."""
    room = {"vcpus": 64, "memory": "1TiB", "disk": "1GiB"}
    wanted = dict({"name": place.name(), "disks": disk(place, size="2GiB")}, **SIZED)
    fails_with(converge.refused("vm_set", vms=[wanted], totals=room), "size", "2 GiB", place.pool, "available", code="no_capacity")
    assert place.run("vm_set", check=True, vms=[wanted], totals=room, ratios={"disk": 3.0})["changed"] is True
    place.make_volume("huge.qcow2", 1 << 50)
    wanted["disks"] = disk(place, image="huge.qcow2", size="1024TiB", clone="full")
    fails_with(converge.refused("vm_set", vms=[wanted], totals=dict(room, disk="4096TiB")), "disks[0].clone", "full", "free", code="no_capacity")


def test_a_disk_never_shrinks(place, converge):
    """Neither vm_set's nor a stand-alone one."""
    converge("vm_set", vms=[dict({"name": place.name(), "disks": disk(place)}, **SIZED)])
    refusal = converge.refused("vm_set", vms=[dict({"name": place.name(), "disks": disk(place, size="12MiB")}, **SIZED)])
    fails_with(refusal, "disks[0].size", "12MiB", "16MiB", code="shrink")


def test_what_exists_is_not_moved_nor_renamed(place, converge):
    """UUID, pool, format, image of what is there already."""
    made = converge("vm_set", vms=[dict({"name": place.name(), "disks": disk(place)}, **SIZED)])["vms"][0]
    other = str(uuid.uuid4())
    for params, option, value in (({"uuid": other}, "uuid", other), ({"disks": disk(place, format="raw", clone="full")}, "disks[0].format", "raw")):
        fails_with(converge.refused("vm_set", vms=[dict({"name": place.name()}, **params)]), option, value)
    again = dict({"name": place.name("other"), "uuid": made["uuid"], "disks": disk(place)}, **SIZED)
    fails_with(converge.refused("vm_set", vms=[again]), "uuid", made["uuid"], place.name(), code="uuid_in_use")


def test_nics_and_addresses(place, refused):
    """MACs, addresses, gateways, networks."""
    def nics(option, value, *words, code=None, **nic):
        seed = {} if "addresses" in nic else None
        refused(option, value, *words, code=code, disks=disk(place), seed=seed, nics=[dict({"network": place.network}, **nic)], **SIZED)
    prefix = "vms[0].nics[0]."
    nics("nics[0].network", "nope", place.network, code="unknown_network", network="nope")
    for kind in ("bridge", "direct"):
        nics("nics[0]." + kind, "kfit-nope", code="unknown_network", network=None, **{kind: "kfit-nope"})
    nics(prefix + "bridge", place.bridge, "exactly one", bridge=place.bridge)
    nics(prefix + "network", None, "exactly one", network=None)
    for mac in ("52:54:00:12:34", "52:54:00:12:34:5g", "525400123456", "53:54:00:12:34:56"):
        nics(prefix + "mac", mac, mac=mac)
    for address in ("192.0.2.5", "192.0.2.256/24", "192.0.2.5/33", "192.0.2.0/24", "192.0.2.255/24", "127.0.0.1/8", "x/24", "fe80::1/64", "224.0.0.1/4"):
        nics(prefix + "addresses", address, addresses=[address])
    nics(prefix + "gateway", "198.51.100.1", "192.0.2.0/24", addresses=["192.0.2.5/24"], gateway="198.51.100.1")
    nics(prefix + "gateway", "192.0.2.5", "own", addresses=["192.0.2.5/24"], gateway="192.0.2.5")
    nics(prefix + "gateway", "here", addresses=["192.0.2.5/24"], gateway="here")
    nics(prefix + "nameservers", "ns1", addresses=["192.0.2.5/24"], nameservers=["ns1"])
    nics(prefix + "vlan", "4095", "4094", vlan=4095)
    nics(prefix + "mtu", "10", mtu=10)
    nics("nics[0].vlan", "5", "Open vSwitch", network=None, bridge=place.bridge, vlan=5)
    nics("nics[0].filter", "nope", filter="nope")
    nics(prefix + "mode", "vepa", "direct", mode="vepa")
    refused("nics", "192.0.2.5/24", "seed", disks=disk(place), nics=[{"network": place.network, "addresses": ["192.0.2.5/24"]}], **SIZED)


@pytest.mark.parametrize("seed, option, secret", [
    ({"user_data": "#cloud-config\nhush: [\n"}, "user_data", True), ({"user_data": "no cloud-config, hush"}, "user_data", True),
    ({"ssh_keys": ["ssh-rsa nonsense"]}, "ssh_keys[0]", False), ({"ssh_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----\nhush\n"]}, "ssh_keys[0]", True),
    ({"users": [{"name": "Bob Smith"}]}, "users[0].name", False), ({"hostname": "a_b"}, "hostname", False), ({"timezone": "no zone"}, "timezone", False),
    ({"write_files": [{"path": "relative", "content": "hush"}]}, "write_files[0].path", True),
])
def test_seeds(place, converge, seed, option, secret):
    """Nothing of a secret is in the message."""
    result = converge.refused("vm_set", vms=[dict({"name": place.name(), "disks": disk(place), "seed": seed}, **SIZED)])
    assert result["error"]["option"].endswith(option) and option in result["msg"] and result["error"]["remedy"].rstrip(".") in result["msg"]
    assert "hush" not in str(result)


def test_absent_together_with_sizes(place, converge):
    """To delete, the name is enough."""
    converge("vm_set", vms=[dict({"name": place.name(), "disks": disk(place)}, **SIZED)])
    for params, option in (({"vcpus": 1}, "vcpus"), ({"memory": "1GiB"}, "memory"), ({"disks": disk(place)}, "disks"), ({"seed": {"hostname": "a"}}, "seed")):
        result = converge.refused("vm_set", vms=[dict({"name": place.name(), "state": "absent"}, **params)])
        assert result["error"]["option"] == "vms[0]." + option and "absent" in result["msg"]
    result = converge.refused("vm_domain", name=place.name(), state="absent", memory="1GiB")
    fails_with(result, "memory", "1GiB", "absent")


def test_a_vm_that_is_not_ours(place, converge):
    """Neither changed nor deleted, nor in a batch."""
    place.define("foreign")
    for vms in ([{"name": place.name("foreign"), "state": "absent"}], [dict({"name": place.name("foreign"), "disks": disk(place)}, **SIZED)],
                [dict({"name": place.name("mine"), "disks": disk(place)}, **SIZED), {"name": place.name("foreign"), "state": "absent"}]):
        fails_with(converge.refused("vm_set", vms=vms), "name", place.name("foreign"), "not ours", "adopt", code="not_ours")


def test_an_inactive_pool(place, converge):
    """It is said how to start it."""
    target = tempfile.mkdtemp(prefix=place.prefix)
    handle = place.conn.storagePoolDefineXML("<pool type='dir'><name>{0}-off</name><target><path>{1}</path></target></pool>".format(place.prefix, target))
    try:
        result = converge.refused("vm_set", vms=[dict({"name": place.name(), "disks": disk(place, pool=handle.name(), image=None)}, **SIZED)])
        fails_with(result, "disks[0].pool", handle.name(), "virsh pool-start", code="pool_inactive")
        for params in ({"size": "1MiB"}, {"state": "absent"}):
            result = converge.refused("vm_disk", pool=handle.name(), name="a.qcow2", **params)
            fails_with(result, "pool", handle.name(), "virsh pool-start", code="pool_inactive")
    finally:
        handle.undefine()
        shutil.rmtree(target)


def test_an_inactive_network(place, converge):
    """Refused where the VM is to run, allowed where it is only defined."""
    handle = place.conn.networkDefineXML("<network><name>{0}-off</name><bridge name='{0}'/></network>".format(place.prefix))
    try:
        vm = dict({"name": place.name(), "disks": disk(place), "nics": [{"network": handle.name()}]}, **SIZED)
        result = converge.refused("vm_set", vms=[dict(vm, state="running")])
        fails_with(result, "nics[0].network", handle.name(), "virsh net-start", code="network_inactive")
        converge("vm_set", vms=[vm])
    finally:
        handle.undefine()


@pytest.mark.parametrize("module, params", [("vm_set", {"vms": []}), ("vm_domain", {"name": "kfit-x"}),
                                            ("vm_disk", {"pool": "p", "name": "a"}), ("host_capacity", {})])
def test_libvirt_is_down(run_module, module, params):
    """A socket that nobody answers."""
    result = run_module(module, fails=True, uri="qemu+unix:///system?socket=/nonexistent/libvirt-sock", **params)
    assert result["reason"] == "host_unreachable" and "/nonexistent/libvirt-sock" in result["msg"] and "libvirtd" in result["msg"]


@pytest.mark.parametrize("uri", ["qemu+ssh://root@kvm1/system", "qemu+tls://kvm1/system", "qemu+tcp://kvm1/system", "qemu+ssh://kvm1/system?keyfile=/k"])
@pytest.mark.parametrize("module, params", [("vm_set", {"vms": []}), ("vm_domain", {"name": "kfit-x"}), ("vm_disk", {"pool": "p", "name": "a"})])
def test_modules_that_write_refuse_other_machines(run_module, module, params, uri):
    """With the way that works, without having connected."""
    fails_with(run_module(module, fails=True, uri=uri, **params), "uri", uri, "kvm1", "inventory", code="remote_uri")


def test_libvirt_goes_down_in_the_middle(tmp_path, private_libvirt_class, run_module):
    """A connection that breaks is one message."""
    root = tempfile.mkdtemp(prefix="kfit-libvirt")
    os.chmod(root, 0o755)
    private = private_libvirt_class(root)
    try:
        assert run_module("host_capacity", uri=private.uri, facts=False)["domains"]["defined"] == 0
        private.stop()
        result = run_module("host_capacity", uri=private.uri, fails=True)
        assert result["reason"] == "host_unreachable" and private.socket in result["msg"]
    finally:
        private.stop()
        with contextlib.suppress(libvirt.libvirtError):
            private.conn.close()
        shutil.rmtree(root)
