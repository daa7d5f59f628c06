# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spec -> XML -> normal form: what is asked for is there, what is not asked for stays as it was."""
from __future__ import annotations

import copy
import dataclasses
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import _domain_xml, _metadata
from ansible_collections.kvmfleet.core.plugins.module_utils._domain_xml import Context, DiskSource, differences, observe, parse, render, to_string
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import DiskSpec, GraphicsSpec, NicSpec, VmSpec

UUID = "6e0fa2c8-7f5f-4d3c-9c8a-000000000001"
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), min_size=1, max_size=20)


def maybe(strategy):
    return st.none() | strategy


@st.composite
def disks(draw):
    """Disks of distinct names."""
    found = []
    for number in range(draw(st.integers(0, 4))):
        device = draw(st.sampled_from(["disk", "disk", "cdrom"]))
        found.append(DiskSpec(
            name="d{0}".format(number), path="/x/{0}".format(number), device=device,
            bus=draw(st.sampled_from([None, "sata", "scsi", "usb"] + ["virtio"] * (device == "disk"))),
            readonly=draw(maybe(st.booleans())), serial=draw(maybe(st.from_regex("[A-Z0-9]{1,8}", fullmatch=True))),
            cache=draw(st.sampled_from([None, "none", "writeback"])), discard=draw(st.sampled_from([None, "unmap"])),
            io=draw(st.sampled_from([None, "threads"]))))
    return found


@st.composite
def nics(draw):
    """NICs of distinct MACs."""
    found = []
    for number in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["network", "bridge", "direct"]))
        found.append(NicSpec(
            mac="52:54:00:00:00:{0:02x}".format(number), model=draw(st.sampled_from([None, "virtio", "e1000e"])), vlan=draw(maybe(st.integers(1, 4094))),
            mtu=draw(maybe(st.integers(68, 9000))), filter=draw(st.sampled_from([None, "clean"])), queues=draw(maybe(st.integers(1, 8))),
            link=draw(st.sampled_from([None, "up", "down"])), mode=draw(st.sampled_from([None, "vepa"])) if kind == "direct" else None, **{kind: "net"}))
    return found


@st.composite
def specs(draw):
    """VMs as vm_from_params could have made them."""
    vcpus, memory = draw(maybe(st.integers(1, 8))), draw(maybe(st.integers(1, 4096)))
    return VmSpec(
        name="web", uuid=UUID, description=draw(maybe(TEXT)), vcpus=vcpus, max_vcpus=draw(maybe(st.integers(vcpus or 8, 16))), memory_mib=memory,
        max_memory_mib=draw(maybe(st.integers(memory or 4096, 8192))), cpu_mode=draw(st.sampled_from([None, "host-model", "maximum", "host-passthrough"])),
        cpu_features=draw(maybe(st.dictionaries(st.sampled_from(["aes", "pcid"]), st.sampled_from(["require", "disable"])))),
        machine=draw(st.sampled_from([None, "q35", "pc"])), firmware=draw(st.sampled_from([None, "bios", "efi"])), tpm=draw(maybe(st.booleans())),
        boot=draw(st.sampled_from([None, ["hd"], ["network", "hd"], ["cdrom"]])), disks=draw(maybe(disks())), nics=draw(maybe(nics())),
        graphics=draw(maybe(st.builds(GraphicsSpec, st.sampled_from(["none", "vnc", "spice"]), st.sampled_from(["127.0.0.1", "::1"]), maybe(TEXT),
                                      maybe(st.integers(5900, 6000))))),
        serial_console=draw(maybe(st.booleans())), agent=draw(maybe(st.booleans())), rng=draw(maybe(st.booleans())))


def context(spec):
    """As the planner makes it."""
    return Context("qemu", sources={d.name: DiskSource("file", d.path, "qcow2" if d.device == "disk" else "raw") for d in spec.disks or []})


def made(spec):
    """Rendered anew, and read as from libvirt."""
    return parse(to_string(render(spec, None, context(spec))))


def asked_for(spec, vm):
    """Assert that a normal form is what a spec asks for."""
    for option in ("description", "vcpus", "max_vcpus", "memory_mib", "max_memory_mib", "firmware", "tpm", "boot", "serial_console", "agent", "rng"):
        if getattr(spec, option) is not None:
            assert getattr(vm, option) == getattr(spec, option), option
    if spec.cpu_mode:
        assert vm.cpu["mode"] == spec.cpu_mode
    if spec.cpu_features is not None:
        assert vm.cpu["features"] == spec.cpu_features
    if spec.graphics is not None:
        assert vm.graphics["type"] == spec.graphics.type
        if spec.graphics.type != "none":
            assert (vm.graphics["listen"], vm.graphics["port"]) == (spec.graphics.listen, spec.graphics.port)
            assert spec.graphics.password is None or vm.graphics["password"] == spec.graphics.password
    for wanted in spec.disks or []:
        disk = vm.disks[wanted.name]
        assert disk.ours and (disk.path, disk.device) == (wanted.path, wanted.device)
        for key in ("bus", "serial", "cache", "discard", "io"):
            assert getattr(wanted, key) is None or getattr(disk, key) == getattr(wanted, key)
        assert wanted.readonly is None or wanted.device == "cdrom" or disk.readonly is wanted.readonly
    for number, wanted in enumerate(spec.nics or []):
        nic = vm.nics["nic{0}".format(number)]
        assert nic.ours and (nic.type, nic.source) == wanted.source and nic.mac == wanted.mac
        for key in ("model", "vlan", "mtu", "filter", "queues", "link", "mode"):
            assert getattr(wanted, key) is None or getattr(nic, key) == getattr(wanted, key), key


@given(specs())
@settings(max_examples=60)
def test_what_is_asked_for_is_there(spec):
    """A new domain, and rendering the same again changes nothing."""
    root = made(spec)
    vm = observe(root)
    asked_for(spec, vm)
    assert (vm.name, vm.uuid) == ("web", UUID) and len({d.target for d in vm.disks.values()}) == len(spec.disks or [])
    assert to_string(render(spec, root, context(spec))) == to_string(root)


@given(specs(), specs())
@settings(max_examples=60)
def test_a_change_is_what_was_asked_for_and_no_more(first, second):
    """Addresses, MACs, UUID and what we know nothing of survive; a second time changes nothing."""
    root = made(first)
    root.append(ET.fromstring("<unknown xmlns='urn:x'><deep a='1'>t</deep></unknown>"))
    root.find("devices").append(ET.Element("watchdog", {"model": "itco"}))
    for number, device in enumerate(root.findall("devices/disk") + root.findall("devices/interface")):
        ET.SubElement(device, "address", type="pci", slot=str(number))
    before = observe(root)
    kept = to_string(root)
    second = dataclasses.replace(second, nics=None if second.nics is None else [dataclasses.replace(n, mac=None) if i < len(before.nics) else n
                                                                                for i, n in enumerate(second.nics)])
    changed = parse(to_string(render(second, root, context(second))))
    assert to_string(root) == kept, "rendering changed its input"
    vm = observe(changed)
    with_macs = dataclasses.replace(second, nics=None if second.nics is None else [
        dataclasses.replace(n, mac=before.nics["nic{0}".format(i)].mac) if n.mac is None else n for i, n in enumerate(second.nics)])
    if second.max_vcpus is None and second.vcpus is None:
        assert (vm.vcpus, vm.max_vcpus) == (before.vcpus, before.max_vcpus)
    asked_for(with_macs, vm)
    assert vm.uuid == before.uuid and changed.find("{urn:x}unknown/{urn:x}deep").text == "t" and changed.find("devices/watchdog") is not None
    for kind in ("disk", "interface"):
        old = {d.find("alias").get("name"): d for d in root.findall("devices/" + kind)}
        for device in changed.findall("devices/" + kind):
            name = device.find("alias").get("name")
            moved = kind == "disk" and name in old and old[name].find("target").get("bus") != device.find("target").get("bus")
            if name in old and not moved:
                assert device.find("address").attrib == old[name].find("address").attrib
    assert set(before.disks) <= set(vm.disks) and set(before.nics) <= set(vm.nics)
    assert to_string(render(second, changed, context(second))) == to_string(changed)


@given(specs())
def test_nothing_asked_changes_nothing(spec):
    """Whatever the domain is."""
    root = made(spec)
    assert to_string(render(VmSpec("web"), root, Context())) == to_string(root)


@given(specs(), specs())
def test_differences(first, second):
    """None with itself; else the same seen from both sides; a password is never shown."""
    one, two = observe(made(first)), observe(made(second))
    assert differences(one, one) == {} == differences(two, copy.deepcopy(two))
    forth, back = differences(one, two), differences(two, one)
    assert set(forth) == set(back)
    for option, (old, new) in forth.items():
        if option == "graphics.password":
            assert old in (None, "set") and new in (None, "set anew")
        else:
            assert back[option] == (new, old)


@given(specs(), st.booleans(), st.booleans())
def test_purging(spec, purge_disks, purge_nics):
    """What is not named goes only where that is asked for; the seed's disk stays."""
    full = dataclasses.replace(spec, disks=(spec.disks or []) + [DiskSpec("seed", path="/x/seed", bus="virtio")], nics=spec.nics or [])
    root = made(full)
    devices = root.find("devices")
    devices.append(ET.fromstring("<disk type='file' device='disk'><source file='/y'/><target dev='vdz' bus='virtio'/></disk>"))
    devices.append(ET.fromstring("<interface type='network'><mac address='52:54:00:ff:00:01'/><source network='n'/></interface>"))
    wanted = dataclasses.replace(full, disks=(spec.disks or [])[:1], nics=full.nics[:1], purge_disks=purge_disks, purge_nics=purge_nics)
    vm = observe(render(wanted, root, context(full)))
    assert set(vm.disks) == ({d.name for d in wanted.disks} | {"seed"} if purge_disks else {d.name for d in full.disks} | {"vdz"})
    assert len(vm.nics) == (len(wanted.nics) if purge_nics else len(full.nics) + 1)


@pytest.mark.parametrize("wanted, actual, same", [
    ("q35", "pc-q35-7.2", True), ("pc", "pc-i440fx-7.2", True), ("virt", "virt-7.2", True), ("pc-q35-7.2", "pc-q35-7.2", True), ("pc", "pc-q35-7.2", False),
    ("q35", "pc-i440fx-7.2", False), ("pc-q35-7.1", "pc-q35-7.2", False)])
def test_machine_aliases(wanted, actual, same):
    """An alias is any of its versions."""
    assert _domain_xml.same_machine(wanted, actual) is same


def test_units_of_memory():
    """Whatever unit libvirt or somebody writes."""
    for unit, number in (("KiB", 2097152), ("MiB", 2048), ("GiB", 2), ("b", 2 << 30), ("GB", 2)):
        root = parse("<domain><name>a</name><memory unit='{0}'>{1}</memory></domain>".format(unit, number))
        assert observe(root).memory_mib == (1907 if unit == "GB" else 2048)
    assert observe(parse("<domain><name>a</name><memory>2048</memory><currentMemory>1024</currentMemory></domain>")).memory_mib == 1


def test_a_topology_that_no_longer_fits_goes():
    """Changing the maximum of vcpus without a topology would leave libvirt a contradiction."""
    root = made(VmSpec("web", uuid=UUID, vcpus=4, topology={"sockets": 2, "cores": 2, "threads": 1}))
    assert observe(root).topology == {"sockets": 2, "cores": 2, "threads": 1}
    assert observe(render(VmSpec("web", vcpus=6), root, Context())).topology is None
    assert observe(render(VmSpec("web", memory_mib=6), root, Context())).topology is not None


def test_aligned_names():
    """A device has the name that the other definition has for it: by target or MAC, but never another's name."""
    root = made(VmSpec("web", uuid=UUID, disks=[DiskSpec("root", path="/x")], nics=[NicSpec(network="n", mac="52:54:00:00:00:01")]))
    ours = observe(root)
    for device in root.findall("devices/disk") + root.findall("devices/interface"):
        device.remove(device.find("alias"))
    theirs = observe(root)
    assert set(theirs.disks) == {"vda"} and not theirs.disks["vda"].ours
    for one, other in ((theirs, ours), (ours, theirs)):
        aligned = _domain_xml.aligned(one, other)
        assert set(aligned.disks) == set(other.disks) and set(aligned.nics) == set(other.nics) and differences(aligned, other) == {}


@pytest.mark.parametrize("actual, attribute", [("bridge", "bridge"), ("direct", "dev")])
def test_a_nic_in_a_network_that_stands_for_a_bridge_or_a_link(actual, attribute):
    """A running domain tells the type of what the network stands for, beside the network's name: it is the same NIC."""
    root = made(VmSpec("web", uuid=UUID, nics=[NicSpec(network="lan", mac="52:54:00:00:00:01")]))
    live = copy.deepcopy(root)
    nic = live.find("devices/interface")
    nic.set("type", actual)
    nic.find("source").set(attribute, "br-lan")
    assert differences(observe(live), observe(root)) == {}


@given(st.permutations([1, 2, 3]), st.integers(0, 3), st.booleans())
def test_a_nic_is_its_mac(order, count, purge):
    """Whatever place it has in the list: nothing of it changes but its number, and no two have one number."""
    def nic(number):
        return NicSpec(network="n{0}".format(number), mac="52:54:00:00:00:0{0}".format(number))
    root = made(VmSpec("web", uuid=UUID, nics=[nic(1), nic(2), nic(3)]))
    changed = render(VmSpec("web", nics=[nic(number) for number in order[:count]], purge_nics=purge), root, Context())
    after = observe(changed)
    kept = {"n{0}".format(number) for number in (order[:count] if purge else order)}
    assert len(changed.findall("devices/interface")) == len(after.nics) == len(kept)
    assert {n.source for n in after.nics.values()} == kept and all(n.mac.endswith(n.source[1:]) for n in after.nics.values())
    assert [after.nics["nic{0}".format(place)].source for place in range(count)] == ["n{0}".format(number) for number in order[:count]]
    before = _domain_xml.aligned(observe(root), after)
    assert len(before.nics) == 3
    assert [new for _old, new in differences(before, after).values() if new is not None] == []


def test_the_metadata_counts_as_a_difference_but_not_its_bookkeeping():
    """Phases and tickets are ours alone."""
    one, two = made(VmSpec("web", uuid=UUID)), made(VmSpec("web", uuid=UUID))
    _metadata.store(one, _metadata.VmMetadata(phase="pending", ticket="t", labels={"a": "b"}))
    _metadata.store(two, _metadata.VmMetadata(phase="ready", labels={"a": "b"}))
    assert differences(observe(one), observe(two)) == {}
    _metadata.store(two, _metadata.VmMetadata(labels={"a": "c"}))
    assert set(differences(observe(one), observe(two))) == {"metadata"}
