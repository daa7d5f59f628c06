# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be changed in a running guest, what waits, and what is none of our business."""
from __future__ import annotations

import copy
import dataclasses
import xml.etree.ElementTree as ET

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _live
from ansible_collections.kvmfleet.core.plugins.module_utils._domain_xml import Context, DiskSource, observe, render
from ansible_collections.kvmfleet.core.plugins.module_utils._live import Intent, operations, pending
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import DiskSpec, GraphicsSpec, NicSpec, VmSpec

BASE = VmSpec("web", uuid="u", vcpus=2, max_vcpus=4, memory_mib=64, max_memory_mib=128, cpu_mode="maximum",
              disks=[DiskSpec("root", path="/r"), DiskSpec("cd", path="/iso", device="cdrom")], nics=[NicSpec(network="n", mac="52:54:00:00:00:01")])
NONE = Intent()


def context(spec):
    """Sources of a spec's disks."""
    return Context(sources={d.name: DiskSource("file", d.path or "", "qcow2") for d in spec.disks or []})


def xml(spec=BASE, root=None):
    """A definition."""
    return render(spec, root, context(spec))


def changed(**options):
    """What is to be done, and what waits, when BASE runs and is changed so."""
    spec = dataclasses.replace(BASE, **{k: None for k in ("disks", "nics") if k not in options}, **options)
    before = xml()
    todo, later = operations(before, xml(spec, before), Intent(purge=["disks", "nics"], changed=["cpu", "memory_mib"]))
    return [(o.verb, o.option) for o in todo], later


def device(kind):
    """A device that somebody else has added."""
    if kind == "disk":
        return ET.fromstring("<disk type='file' device='disk'><source file='/y'/><target dev='vdz' bus='virtio'/></disk>")
    return ET.fromstring("<interface type='network'><mac address='52:54:00:ff:00:01'/><source network='n'/><model type='virtio'/></interface>")


ROOT, CD, NIC = BASE.disks[0], BASE.disks[1], BASE.nics[0]


@pytest.mark.parametrize("options, todo, later", [
    ({}, [], []),
    ({"vcpus": 4}, [("set", "vcpus")], []), ({"vcpus": 1}, [("set", "vcpus")], []), ({"vcpus": 6, "max_vcpus": 6}, [], ["vcpus", "max_vcpus"]),
    ({"memory_mib": 128}, [("set", "memory_mib")], []), ({"memory_mib": 256, "max_memory_mib": 256}, [], ["memory_mib", "max_memory_mib"]),
    ({"max_memory_mib": 256}, [], ["max_memory_mib"]), ({"description": "x"}, [], []), ({"tpm": True}, [], ["tpm"]), ({"rng": False}, [], ["rng"]),
    ({"boot": ["network"]}, [], ["boot"]), ({"graphics": GraphicsSpec("vnc")}, [], ["graphics.type", "graphics.listen"]),
    ({"cpu_mode": "host-model"}, [], ["cpu"]), ({"firmware": "efi"}, [], ["firmware"]),
    ({"disks": [ROOT, CD, DiskSpec("data", path="/d")]}, [("attach", "disks[data]")], []),
    ({"disks": [ROOT, CD, DiskSpec("data", path="/d", bus="scsi")]}, [("attach", "disks[data]")], []),
    ({"disks": [ROOT, CD, DiskSpec("data", path="/d", bus="sata")]}, [], ["disks[data]"]),
    ({"disks": [ROOT, CD, DiskSpec("cd2", path="", device="cdrom")]}, [], ["disks[cd2]"]),
    ({"disks": [ROOT, dataclasses.replace(CD, path="/other")]}, [("update", "disks[cd]")], []),
    ({"disks": [ROOT, dataclasses.replace(CD, path="")]}, [("update", "disks[cd]")], []),
    ({"disks": [dataclasses.replace(ROOT, path="/other"), CD]}, [], ["disks[root]"]),
    ({"disks": [dataclasses.replace(ROOT, cache="none"), CD]}, [], ["disks[root]"]),
    ({"disks": [CD], "purge_disks": True}, [("detach", "disks[root]")], []), ({"disks": [ROOT], "purge_disks": True}, [], ["disks[cd]"]),
    ({"nics": [NIC, NicSpec(bridge="b", mac="52:54:00:00:00:02")]}, [("attach", "nics[nic1]")], []),
    ({"nics": [dataclasses.replace(NIC, link="down")]}, [("update", "nics[nic0]")], []),
    ({"nics": [dataclasses.replace(NIC, filter="f")]}, [("update", "nics[nic0]")], []),
    ({"nics": [dataclasses.replace(NIC, network="m")]}, [("update", "nics[nic0]")], []),
    ({"nics": [dataclasses.replace(NIC, model="e1000e")]}, [], ["nics[nic0]"]),
    ({"nics": [dataclasses.replace(NIC, mtu=1400)]}, [], ["nics[nic0]"]), ({"nics": [], "purge_nics": True}, [("detach", "nics[nic0]")], []),
])
def test_each_change(options, todo, later):
    """Done in the running guest, or waiting for its restart."""
    assert changed(**options) == (todo, later)


@pytest.mark.parametrize("kind, option", [("disk", "disks[vdz]"), ("interface", "nics[52:54:00:ff:00:01]")])
def test_devices_of_others(kind, option):
    """Attached to one side only they are left alone; purged, they are detached from the running guest, and never attached to it."""
    live, kept = xml(), xml()
    live.find("devices").append(device(kind))
    assert pending(observe(live), observe(kept), NONE) == {} == pending(observe(kept), observe(live), NONE)
    purge = Intent(purge=[option.split("[")[0]])
    todo, later = operations(live, kept, purge)
    assert [(o.verb, o.option) for o in todo] == [("detach", option)] and later == []
    assert operations(kept, live, purge) == ([], [])


def test_a_guest_that_runs_without_our_aliases():
    """An adopted domain's devices are known by target and MAC; nothing is detached or attached anew."""
    live, kept = xml(), xml()
    for element in live.findall("devices/disk") + live.findall("devices/interface"):
        element.remove(element.find("alias"))
    assert operations(live, kept, NONE) == ([], [])
    todo, _later = operations(live, xml(dataclasses.replace(BASE, nics=[dataclasses.replace(NIC, link="down")]), kept), NONE)
    assert [(o.verb, o.option, o.value.find("link").get("state")) for o in todo] == [("update", "nics[nic0]", "down")]
    without = xml(dataclasses.replace(BASE, disks=[CD], purge_disks=True), kept)
    assert [(o.verb, o.key) for o in operations(live, without, Intent(purge=["disks"]))[0]] == [("detach", "vda")]


def test_what_libvirt_alone_knows_is_no_difference():
    """The expanded CPU, the port of a console, the MTU and the bridge of a network, the memory of a guest that boots."""
    kept = xml(dataclasses.replace(BASE, graphics=GraphicsSpec("vnc")))
    live = copy.deepcopy(kept)
    live.find("devices/graphics").set("port", "5901")
    live.find("devices/graphics").set("autoport", "no")
    cpu = live.find("cpu")
    cpu.set("mode", "custom")
    ET.SubElement(cpu, "feature", name="aes", policy="require")
    nic = live.find("devices/interface")
    ET.SubElement(nic, "mtu", size="9000")
    nic.set("type", "bridge")
    nic.find("source").set("bridge", "br-lan")
    live.find("currentMemory").text = live.findtext("memory")
    assert pending(observe(live), observe(kept), NONE) == {}
    assert set(pending(observe(live), observe(kept), Intent(changed=["cpu", "memory_mib"]))) == {"cpu", "memory_mib"}
    live.find("currentMemory").text = str(100 * 1024)
    assert set(pending(observe(live), observe(kept), NONE)) == {"memory_mib"}


def test_what_the_guest_did_not_follow_is_not_tried_again():
    """It waits, and is told each time; a new wish for the same option is tried."""
    before = xml()
    after = xml(dataclasses.replace(BASE, memory_mib=32, disks=[CD], purge_disks=True), before)
    first = Intent(purge=["disks"], changed=["memory_mib", "disks[root]"])
    assert [o.option for o in operations(before, after, first)[0]] == ["memory_mib", "disks[root]"]
    again = Intent(purge=["disks"], hopeless=["memory_mib", "disks[root]"])
    assert operations(before, after, again) == ([], ["memory_mib", "disks[root]"])
    assert [o.option for o in operations(before, after, dataclasses.replace(again, changed=["memory_mib"]))[0]] == ["memory_mib"]


class Domain:
    """A running domain that takes everything and follows after some looks at it, or never."""

    def __init__(self, before, after, looks):
        self.before, self.after, self.looks, self.calls = before, after, looks, []

    def XMLDesc(self, _flags):
        self.looks -= 1
        return ET.tostring(self.before if self.looks >= 0 else self.after, encoding="unicode")

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append(name)


@pytest.mark.parametrize("options, call", [({"vcpus": 4}, "setVcpusFlags"), ({"memory_mib": 128}, "setMemoryFlags"),
                                           ({"disks": [CD], "purge_disks": True}, "detachDeviceFlags")])
def test_the_guest_has_until_the_deadline(options, call):
    """libvirt's yes is not the guest's: what counts is what the running definition says in the end."""
    before = xml()
    after = xml(dataclasses.replace(BASE, **options), before)
    (operation,), _later = operations(before, after, Intent(purge=["disks"], changed=["memory_mib"]))
    slow = Domain(before, after, 2)
    assert _live.apply(slow, operation, 30) is None and slow.calls == [call] and slow.looks < 0
    never = Domain(before, after, 10 ** 9)
    assert "not followed within 0 s" in _live.apply(never, operation, 0)
