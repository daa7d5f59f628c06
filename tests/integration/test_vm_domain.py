# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module vm_domain on a real libvirtd; running domains are emulated, and have no guest that could answer."""
from __future__ import annotations

import json
import os
import uuid
import xml.etree.ElementTree as ET

import libvirt
import pytest

LITTLE = {"virt_type": "qemu", "vcpus": 1, "memory": "32MiB"}


def devices(root, tag):
    """Devices of a kind in a domain's XML."""
    return root.findall("devices/" + tag)


def attribute(root, path, name):
    """Attribute of an element, or None."""
    found = root.find(path)
    return None if found is None else found.get(name)


@pytest.fixture
def vm(place, converge):
    """A function: converge the domain "web"."""
    return lambda again=True, guest=True, **params: converge("vm_domain", again=again, guest=guest, name=place.name(), **params)["vm"]


def test_a_new_domain_has_what_was_asked_for(place, vm):
    """Every option at creation, and what libvirt made of it."""
    place.make_volume("data.qcow2", 4 << 20)
    identity = str(uuid.uuid4())
    made = vm(
        virt_type="qemu", uuid=identity, description="<web> & \"it's\" ünïcödé \u2603", labels={"team/env": "a<b>&\"c'", "x": "1"}, vcpus=2, max_vcpus=4,
        topology={"sockets": 2, "cores": 2}, memory="64MiB", max_memory="128MiB",
        cpu={"mode": "custom", "model": "qemu64", "features": [{"name": "sse4.1", "policy": "disable"}, {"name": "aes"}]}, machine="q35", arch="x86_64",
        boot=["network", "hd"], rng=False, agent=False, serial_console=False, autostart=True,
        disks=[{"pool": place.pool, "volume": "data.qcow2", "cache": "none", "discard": "unmap", "io": "native", "serial": "SN-1"},
               {"name": "extra", "path": place.path("image.qcow2"), "bus": "scsi", "readonly": True}],
        nics=[{"network": place.network, "model": "e1000e", "mac": "52:54:00:AA:bb:01", "link": "down", "mtu": 1400},
              {"bridge": place.bridge, "model": "virtio", "queues": 2}, {"network": place.network, "model": "rtl8139", "filter": "clean-traffic"}])
    assert made["uuid"] == identity and made["state"] == "stopped" and made["labels"] == {"team/env": "a<b>&\"c'", "x": "1"}
    root = place.xml()
    assert root.findtext("description") == "<web> & \"it's\" ünïcödé \u2603"
    assert (root.findtext("vcpu"), attribute(root, "vcpu", "current")) == ("4", "2")
    assert (root.findtext("memory"), root.findtext("currentMemory")) == ("131072", "65536")
    assert root.findtext("cpu/model") == "qemu64" and attribute(root, "cpu/topology", "cores") == "2"
    assert {f.get("name"): f.get("policy") for f in root.findall("cpu/feature")} == {"sse4.1": "disable", "aes": "require"}
    assert [b.get("dev") for b in root.findall("os/boot")] == ["network", "hd"]
    assert not devices(root, "rng") and not devices(root, "serial") and not devices(root, "channel")
    assert place.domain().autostart() == 1
    disk, extra = devices(root, "disk")
    assert {k: disk.find("driver").get(k) for k in ("cache", "discard", "io", "type")} == {"cache": "none", "discard": "unmap", "io": "native", "type": "qcow2"}
    assert disk.findtext("serial") == "SN-1" and extra.find("readonly") is not None and extra.find("target").get("bus") == "scsi"
    assert [c.get("model") for c in devices(root, "controller") if c.get("type") == "scsi"] == ["virtio-scsi"]
    one, two, three = devices(root, "interface")
    assert one.find("mac").get("address") == "52:54:00:aa:bb:01" and attribute(one, "link", "state") == "down" and attribute(one, "mtu", "size") == "1400"
    assert two.get("type") == "bridge" and attribute(two, "driver", "queues") == "2"
    assert attribute(three, "model", "type") == "rtl8139" and attribute(three, "filterref", "filter") == "clean-traffic"
    assert [n["mac"] for n in made["nics"]][0] == "52:54:00:aa:bb:01" and len({n["mac"] for n in made["nics"]}) == 3


def test_a_change_keeps_identity_and_everything_else(place, vm):
    """UUID, MACs, device addresses, and elements that we know nothing of survive every change."""
    vm(disks=[{"path": place.path("image.qcow2")}], nics=[{"network": place.network}, {"network": place.network}], description="one", **LITTLE)
    root = place.xml()
    foreign = root.find("metadata")
    other = foreign.makeelement("{urn:example:other}note", {"a": "1"})
    other.text = "kept"
    foreign.append(other)
    root.find("devices").append(root.makeelement("watchdog", {"model": "i6300esb", "action": "none"}))
    place.conn.defineXML(ET.tostring(root, encoding="unicode"))
    before = place.xml()
    # Numbers and booleans as strings, as -e k=v gives them.
    vm(vcpus="3", memory="48MiB", description="two", autostart="yes", rng="no", nics=[{"network": place.network, "mtu": "1300"}], boot=["cdrom", "hd"])
    after = place.xml()

    def addresses(tree):
        return {(d.tag, d.find("alias").get("name")): d.find("address").attrib for d in tree.findall("devices/*") if d.tag in ("disk", "interface")}
    assert before.findtext("uuid") == after.findtext("uuid") and addresses(before) == addresses(after)
    assert [m.get("address") for m in before.iter("mac")] == [m.get("address") for m in after.iter("mac")]
    assert after.find("metadata/{urn:example:other}note").text == "kept"
    assert after.find("devices/watchdog") is not None
    assert (after.findtext("vcpu"), after.findtext("memory"), after.findtext("description")) == ("3", "49152", "two")
    assert len(devices(after, "interface")) == 2 and not devices(after, "rng")


def test_nothing_asked_changes_nothing(place, vm, converge):
    """An existing domain by its name alone."""
    vm(disks=[{"path": place.path("image.qcow2")}], **LITTLE)
    assert converge("vm_domain", name=place.name())["changed"] is False


def test_cpu_memory_topology_stepwise(place, vm):
    """Maxima that were set stay; those that were not follow."""
    vm(disks=[{"path": place.path("image.qcow2")}], **LITTLE)
    steps = [
        (dict(vcpus=2, memory="64MiB"), (2, 2, 64, 64)),
        (dict(max_vcpus=4, max_memory="128MiB"), (2, 4, 64, 128)),
        (dict(vcpus=3, memory="96MiB"), (3, 4, 96, 128)),
        (dict(vcpus=6, memory="256MiB"), (6, 6, 256, 256)),
        (dict(vcpus=2, max_vcpus=2, memory="32MiB", max_memory="32MiB"), (2, 2, 32, 32)),
    ]
    for params, expected in steps:
        made = vm(**params)
        assert (made["vcpus"], made["max_vcpus"], made["memory_mib"], made["max_memory_mib"]) == expected
    vm(topology={"sockets": 1, "cores": 2, "threads": 1})
    for cpu in ({"mode": "host-model"}, {"mode": "maximum"}, {"mode": "custom", "model": "Nehalem"}, {"features": [{"name": "pcid", "policy": "disable"}]}):
        vm(cpu=cpu)
    assert attribute(place.xml(), "cpu/topology", "cores") == "2" and place.xml().findtext("cpu/model") == "Nehalem"


@pytest.mark.parametrize("arch, machine", [("i686", "pc"), ("x86_64", "pc"), ("i686", None)])
def test_other_machines_and_architectures(place, vm, arch, machine):
    """32-bit guests and i440fx; drives there."""
    params = {"machine": machine} if machine else {}
    made = vm(arch=arch, disks=[{"path": place.path("image.qcow2"), "bus": "ide" if machine else "sata"}, {"name": "cd", "device": "cdrom"},
                                {"name": "fd", "device": "floppy"}][:2 + bool(machine)], boot=["hd", "cdrom"] + ["floppy"] * bool(machine), state="running",
              nics=[{"network": place.network, "model": "e1000"}], **dict(LITTLE, **params))
    assert made["arch"] == arch and made["state"] == "running"
    assert made["machine"].startswith("pc-i440fx" if machine else "pc-q35")


def test_secure_boot_tpm_and_their_state_go_with_the_domain(place, vm):
    """UEFI with keys, an emulated TPM; NVRAM and TPM state are removed on delete."""
    made = vm(disks=[{"path": place.path("image.qcow2")}], secure_boot=True, tpm=True, state="running", virt_type="qemu", memory="64MiB")
    assert made["firmware"] == "efi" and made["state"] == "running"
    live = place.xml(live=True)
    nvram, state = live.findtext("os/nvram"), "/var/lib/libvirt/swtpm/" + made["uuid"]
    assert os.path.exists(nvram) and os.path.isdir(state)
    assert attribute(live, "os/loader", "secure") == "yes"
    vm(description="unrelated")
    vm(state="absent")
    assert not os.path.exists(nvram) and not os.path.exists(state)


def test_firmware_and_tpm_can_be_changed(place, vm):
    """bios to efi and back, of a stopped domain."""
    vm(disks=[{"path": place.path("image.qcow2")}], **LITTLE)
    assert vm(firmware="efi", tpm=True)["firmware"] == "efi"
    vm(secure_boot=True)
    vm(secure_boot=False)
    assert vm(firmware="bios", tpm=False)["firmware"] == "bios"
    root = place.xml()
    assert root.find("os/loader") is None and root.find("os/nvram") is None and not devices(root, "tpm")


def test_graphics_and_its_password(place, vm, converge):
    """On loopback unless told otherwise; the password is in libvirt's definition, and nowhere in what we say or keep."""
    secret = "hush-pw1"
    first = converge("vm_domain", name=place.name(), disks=[{"path": place.path("image.qcow2")}], graphics={"type": "vnc", "password": secret}, **LITTLE)
    assert secret not in json.dumps(first) and first["vm"]["console"]["listen"] == "127.0.0.1"
    assert attribute(place.xml(), "devices/graphics", "passwd") == secret
    unrelated = converge("vm_domain", name=place.name(), description="x", vcpus=2)
    assert attribute(place.xml(), "devices/graphics", "passwd") == secret and secret not in json.dumps(unrelated)
    other = converge("vm_domain", name=place.name(), graphics={"type": "vnc", "password": "hush-pw2", "listen": "0.0.0.0", "port": 5999})
    assert "hush" not in json.dumps(other)
    assert attribute(place.xml(), "devices/graphics", "passwd") == "hush-pw2" and attribute(place.xml(), "devices/graphics", "port") == "5999"
    assert "hush" not in place.domain().XMLDesc(0)
    for graphics in ({"type": "spice"}, {"type": "none"}):
        vm(graphics=graphics)
    root = place.xml()
    assert not devices(root, "graphics") and not devices(root, "video")


def test_switches(place, vm):
    """Devices that are there or not."""
    vm(disks=[{"path": place.path("image.qcow2")}], **LITTLE)
    for off in (False, True):
        vm(serial_console=off, agent=off, rng=off, autostart=off)
        root = place.xml()
        assert [bool(devices(root, tag)) for tag in ("serial", "console", "channel", "rng")] == [off] * 4


def test_running_changes_that_need_no_guest(place, vm):
    """vcpus, eight disks and NICs at a time, link, media, growth: all in the running guest, with nothing left for a restart."""
    for number in range(6):
        place.make_volume("d{0}.qcow2".format(number), 1 << 20)
    place.make_volume("one.iso", 1 << 20, "raw")
    place.make_volume("two.iso", 1 << 20, "raw")
    disks = [{"path": place.path("image.qcow2")}, {"name": "cd", "device": "cdrom", "path": place.path("one.iso")}]
    nics = [{"network": place.network}]
    made = vm(state="running", disks=disks, nics=nics, max_vcpus=3, **LITTLE)
    assert made["restart_required"] == [] and made["state"] == "running"
    started = place.domain().ID()
    assert vm(vcpus=3)["restart_required"] == []
    assert place.xml(live=True).find("vcpu").get("current", place.xml(live=True).findtext("vcpu")) == "3"
    more = [{"name": "d{0}".format(n), "pool": place.pool, "volume": "d{0}.qcow2".format(n)} for n in range(6)]
    assert vm(disks=disks + more, nics=nics + [{"bridge": place.bridge}, {"network": place.network, "model": "e1000e"}])["restart_required"] == []
    live, kept = place.xml(live=True), place.xml()
    assert len(devices(live, "disk")) == 8 and len(devices(live, "interface")) == 3

    def addresses(root):
        return {d.find("alias").get("name"): d.find("address").attrib for d in devices(root, "disk") + devices(root, "interface")}
    assert addresses(live) == addresses(kept)
    assert vm(nics=[{"network": place.network, "link": "down"}])["restart_required"] == []
    assert attribute(devices(place.xml(live=True), "interface")[0], "link", "state") == "down"
    assert vm(nics=[{"network": place.network, "link": "up"}])["restart_required"] == []
    for path in (place.path("two.iso"), None):
        cd = {"name": "cd", "device": "cdrom"}
        assert vm(disks=[disks[0], dict(cd, path=path) if path else cd])["restart_required"] == []
        source = next(d for d in devices(place.xml(live=True), "disk") if d.get("device") == "cdrom").find("source")
        assert (source.get("file") if source is not None else None) == path
    assert vm(disks=[disks[0], dict(cd, path=place.path("one.iso"))])["restart_required"] == []
    assert place.domain().ID() == started


def test_running_changes_that_the_guest_does_not_follow(place, vm):
    """No guest lets go of a disk or of memory: the deadline passes, the definition is as wanted, and what waits is said each time, changing nothing."""
    place.make_volume("data.qcow2", 1 << 20)
    root_disk, data = {"path": place.path("image.qcow2")}, {"name": "data", "pool": place.pool, "volume": "data.qcow2"}
    vm(state="running", disks=[root_disk, data], nics=[{"network": place.network}], virt_type="qemu", vcpus=1, memory="64MiB", max_memory="96MiB")
    made = vm(guest=False, timeout=0, memory="48MiB", disks=[root_disk], purge_disks=True)
    assert made["restart_required"] == ["disks[data]", "memory_mib"] and len(made["notes"]) == 2
    assert len(devices(place.xml(), "disk")) == 1 and place.xml().findtext("currentMemory") == "49152"
    assert vm(timeout=0)["restart_required"] == ["disks[data]", "memory_mib"]
    assert vm(timeout=0, description="unrelated", purge_disks=True, disks=[root_disk])["restart_required"] == ["disks[data]", "memory_mib"]
    # Below the running maximum is for the guest, above it for the next start.
    assert vm(guest=False, timeout=0, memory="128MiB", vcpus=2)["restart_required"] == ["disks[data]", "max_memory_mib", "max_vcpus", "memory_mib", "vcpus"]
    made = vm(allow_restart=True, force=True, shutdown_timeout=0)
    assert made["restart_required"] == [] and made["state"] == "running"
    assert len(devices(place.xml(live=True), "disk")) == 1 and place.xml(live=True).findtext("memory") == "131072"


def test_what_cannot_be_changed_live_waits_for_a_restart(place, vm):
    """The list of options, again at each run, until the restart; allow_restart does it at once."""
    disk = {"path": place.path("image.qcow2")}
    vm(state="running", disks=[disk], nics=[{"network": place.network}], **LITTLE)
    made = vm(disks=[dict(disk, cache="none")], nics=[{"network": place.network, "model": "e1000e"}], tpm=True,
              graphics={"type": "vnc"}, boot=["network", "hd"])
    waiting = ["boot", "disks[root]", "graphics.listen", "graphics.type", "nics[nic0]", "tpm"]
    assert made["restart_required"] == waiting
    assert vm()["restart_required"] == waiting
    made = vm(description="with a restart", allow_restart=True, force=True, shutdown_timeout=0, state="running")
    assert made["restart_required"] == [] and attribute(place.xml(live=True), "devices/interface/model", "type") == "e1000e"
    place.domain().destroy()
    place.domain().create()
    assert vm()["restart_required"] == []


def test_states(place, vm, converge):
    """Every state from every other; a guest that does not listen keeps running unless forced."""
    disk = {"path": place.path("image.qcow2")}
    assert vm(state="present", disks=[disk], **LITTLE)["state"] == "stopped"
    hard = {"force": True, "shutdown_timeout": 0}
    for state, shown in (("running", "running"), ("paused", "paused"), ("running", "running"),
                         ("stopped", "stopped"), ("paused", "paused"), ("stopped", "stopped")):
        assert vm(state=state, **hard)["state"] == shown
    assert vm(again=False, state="restarted", **hard)["state"] == "running"
    before = place.domain().ID()
    assert vm(again=False, state="restarted", **hard)["state"] == "running" and place.domain().ID() != before
    failed = place.run("vm_domain", fails=True, name=place.name(), state="stopped", shutdown_timeout=0)
    assert failed["reason"] == "shutdown_timeout" and "force" in failed["msg"] and place.domain().isActive()
    assert vm(state="paused")["state"] == "paused" and vm(state="present", description="still")["state"] == "paused"
    assert vm(state="absent")["state"] == "absent"
    assert converge("vm_domain", name=place.name(), state="absent")["changed"] is False
    assert os.path.exists(place.path("image.qcow2"))


def test_devices_of_others_are_left_alone(place, vm):
    """Disks and NICs added by virsh, in the definition or in the running guest only, stay as they are; purging takes them away."""
    for name in ("live.qcow2", "kept.qcow2"):
        place.make_volume(name, 1 << 20)
    disk, nic = {"path": place.path("image.qcow2")}, {"network": place.network}
    vm(state="running", disks=[disk], nics=[nic], **LITTLE)

    def disk_xml(name, target):
        return "<disk type='file'><driver name='qemu' type='qcow2'/><source file='{0}'/><target dev='{1}' bus='virtio'/></disk>".format(
            place.path(name), target)
    nic_xml = "<interface type='network'><mac address='52:54:00:cc:00:0{0}'/><source network='{1}'/><model type='virtio'/></interface>"
    domain = place.domain()
    domain.attachDeviceFlags(disk_xml("live.qcow2", "vdl"), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    domain.attachDeviceFlags(disk_xml("kept.qcow2", "vdk"), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    domain.attachDeviceFlags(nic_xml.format(1, place.network), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    domain.attachDeviceFlags(nic_xml.format(2, place.network), libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def counts():
        return [[len(devices(place.xml(live=live), tag)) for tag in ("disk", "interface")] for live in (True, False)]
    assert counts() == [[2, 2], [2, 2]]
    for params in ({}, {"description": "x"}, {"disks": [disk], "nics": [nic]}, {"vcpus": 1}):
        assert vm(**params)["restart_required"] == [] and counts() == [[2, 2], [2, 2]]
    made = vm(guest=False, disks=[disk], nics=[nic], purge_disks=True, purge_nics=True, timeout=0)
    assert counts() == [[2, 2], [1, 1]]
    assert made["restart_required"] == ["disks[vdl]", "nics[52:54:00:cc:00:01]"]
    vm(state="running", disks=[disk], nics=[nic], purge_disks=True, purge_nics=True, allow_restart=True, force=True, shutdown_timeout=0)
    assert counts() == [[1, 1], [1, 1]]
    assert {"live.qcow2", "kept.qcow2"} <= set(place.files())


@pytest.mark.parametrize("running", [False, True])
def test_adoption(place, vm, converge, running):
    """A foreign domain is refused, and untouched; with adopt it becomes ours, its devices where they were."""
    disk = "<disk type='file'><driver name='qemu' type='qcow2'/><source file='{0}'/><target dev='vda' bus='virtio'/></disk>".format(place.path("image.qcow2"))
    nic = "<interface type='network'><mac address='52:54:00:dd:00:01'/><source network='{0}'/><model type='virtio'/></interface>".format(place.network)
    handle = place.define("web", disk + nic)
    if running:
        handle.create()
    for params in ({"description": "x"}, {"state": "absent"}, {"state": "stopped"}):
        refused = converge.refused("vm_domain", name=place.name(), **params)
        assert refused["reason"] == "not_ours" and "adopt" in refused["msg"]
    made = vm(adopt=True, disks=[{"path": place.path("image.qcow2")}], nics=[{"network": place.network}])
    assert made["managed"] is True and [n["mac"] for n in made["nics"]] == ["52:54:00:dd:00:01"] and made["restart_required"] == []
    assert [d["name"] for d in made["disks"]] == ["root"] and len(devices(place.xml(), "disk")) == 1
    assert vm(description="ours")["restart_required"] == []
    vm(state="absent")
    assert "image.qcow2" in os.listdir(place.target)


def test_users_volumes_go_with_the_domain_only_where_said(place, vm):
    """delete_with_vm marks a volume; taking the mark back keeps it."""
    for name in ("a.qcow2", "b.qcow2", "c.qcow2"):
        place.make_volume(name, 1 << 20)

    def disks(**marks):
        return [{"name": n, "pool": place.pool, "volume": n + ".qcow2", "delete_with_vm": marks.get(n, False)} for n in ("a", "b", "c")]
    vm(disks=disks(a=True, b=True), **LITTLE)
    vm(disks=disks(a=True, c=True))
    vm(state="absent")
    assert place.files() == ["b.qcow2"]


def test_direct_nics_are_defined(place, vm):
    """macvtap in each mode; the kernel of the build machine has none to start."""
    for mode in (None, "bridge", "vepa", "private", "passthrough"):
        nic = {"direct": place.bridge, "mode": mode} if mode else {"direct": place.bridge}
        vm(disks=[{"path": place.path("image.qcow2")}], nics=[nic], **LITTLE)
        assert attribute(place.xml(), "devices/interface/source", "mode") == (mode or "bridge")


def test_a_nic_moves_to_another_bridge_while_it_runs(place, vm):
    """Its MAC and address stay."""
    vm(state="running", disks=[{"path": place.path("image.qcow2")}], nics=[{"network": place.network}], **LITTLE)
    before = devices(place.xml(), "interface")[0]
    made = vm(nics=[{"bridge": place.bridge}])
    after = devices(place.xml(), "interface")[0]
    assert after.get("type") == "bridge" and made["nics"][0]["mac"] == before.find("mac").get("address")
    assert before.find("address").attrib == after.find("address").attrib


def test_a_disk_grows_under_a_running_guest(place, vm, converge):
    """By vm_disk, through blockResize."""
    place.make_volume("data.qcow2", 1 << 20)
    vm(state="running", disks=[{"pool": place.pool, "volume": "data.qcow2"}], **LITTLE)
    grown = converge("vm_disk", pool=place.pool, name="data.qcow2", size="3MiB")
    assert grown["volume"]["size_bytes"] == 3 << 20 and place.size("data.qcow2") == 3 << 20
    assert place.domain().blockInfo("vda")[0] == 3 << 20
