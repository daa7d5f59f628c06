# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module vm_disk on a real libvirtd."""
from __future__ import annotations

import json
import os
import stat
import subprocess

import pytest

MIB = 1 << 20


def image_info(path):
    """What QEMU says of a disk image."""
    return json.loads(subprocess.run(["qemu-img", "info", "-U", "--output=json", path], check=True, stdout=subprocess.PIPE).stdout)


@pytest.fixture
def disk(place, converge):
    """A function: converge a volume of this test's pool."""
    return lambda name="a.qcow2", **params: converge("vm_disk", pool=place.pool, name=name, **params)


@pytest.mark.parametrize("params, form, size, backed", [
    ({"size": "3MiB"}, "qcow2", 3 * MIB, False),
    ({"size": "3MiB", "format": "raw"}, "raw", 3 * MIB, False),
    ({"image": "image.qcow2"}, "qcow2", 8 * MIB, True),
    ({"image": "image.qcow2", "size": "12MiB"}, "qcow2", 12 * MIB, True),
    ({"image": "image.qcow2", "clone": "full", "size": "12MiB"}, "qcow2", 12 * MIB, False),
    ({"image": "image.qcow2", "clone": "full", "format": "raw"}, "raw", 8 * MIB, False),
    ({"image": "image.qcow2", "clone": "full", "format": "raw", "size": "9MiB"}, "raw", 9 * MIB, False),
])
def test_make_and_delete(place, disk, params, form, size, backed):
    """Each kind of volume is what QEMU too says it is, and private."""
    made = disk(**params)["volume"]
    info = image_info(made["path"])
    assert (info["format"], info["virtual-size"], "backing-filename" in info) == (form, size, backed)
    assert (made["format"], made["size_bytes"], bool(made["backing"])) == (form, size, backed)
    assert stat.S_IMODE(os.stat(made["path"]).st_mode) == 0o600
    assert info.get("backing-filename", place.path("image.qcow2")) == place.path("image.qcow2")
    assert disk(state="absent")["volume"] is None and place.files() == []


def test_an_image_elsewhere(place, disk):
    """By absolute path, and by the name of its pool."""
    path = place.path("image.qcow2")
    assert disk("a.qcow2", image=path)["volume"]["backing"] == path
    assert disk("b.qcow2", image="image.qcow2", image_pool=place.pool)["volume"]["backing"] == path


def test_growth_only(place, disk, converge):
    """A larger size grows it, no size leaves it, a smaller one is refused, whether a guest uses it or not."""
    for form in ("qcow2", "raw"):
        name = "a." + form
        disk(name, size="2MiB", format=form)
        assert disk(name, size="4MiB")["actions"] == ["grow disk {0} from 2MiB to 4MiB".format(name)]
        assert disk(name)["changed"] is False and place.size(name) == 4 * MIB
        refused = converge.refused("vm_disk", pool=place.pool, name=name, size="3MiB")
        assert refused["reason"] == "shrink" and refused["error"]["option"] == "size" and "4MiB" in refused["msg"]


def test_a_volume_that_somebody_needs_stays(place, disk, converge):
    """Attached to a domain, running or not, or the backing file of another volume."""
    place.make_volume("a.qcow2", MIB)
    place.make_volume("overlay.qcow2", MIB, backing=place.path("a.qcow2"))
    refused = converge.refused("vm_disk", pool=place.pool, name="a.qcow2", state="absent")
    assert refused["reason"] == "volume_in_use" and "overlay.qcow2" in refused["msg"]
    os.unlink(place.path("overlay.qcow2"))
    source = "<disk type='file'><driver name='qemu' type='qcow2'/><source file='{0}'/><target dev='vda' bus='virtio'/></disk>".format(place.path("a.qcow2"))
    handle = place.define("foreign", source)
    for running in (False, True):
        if running:
            handle.create()
        refused = converge.refused("vm_disk", pool=place.pool, name="a.qcow2", state="absent")
        assert refused["reason"] == "volume_in_use" and handle.name() in refused["msg"]
    handle.destroy()
    handle.undefine()
    # The same by pool and volume, as libvirt lets a domain say it
    handle = place.define("foreign", "<disk type='volume'><source pool='{0}' volume='a.qcow2'/><target dev='vda' bus='virtio'/></disk>".format(place.pool))
    assert converge.refused("vm_disk", pool=place.pool, name="a.qcow2", state="absent")["reason"] == "volume_in_use"
    handle.undefine()
    disk("a.qcow2", state="absent")
    assert place.files() == []


def test_a_file_that_libvirt_has_not_seen_yet(place):
    """Made or removed behind its back: it is looked at, not overwritten."""
    def disk(**params):
        return place.run("vm_disk", pool=place.pool, name="a.qcow2", **params)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", place.path("a.qcow2"), "2M"], check=True)
    assert disk(size="2MiB")["changed"] is False
    os.unlink(place.path("a.qcow2"))
    disk(state="absent")
    assert disk(size="2MiB")["changed"] is True and place.files() == ["a.qcow2"]


def test_what_cannot_become_of_an_existing_volume(place, disk, converge):
    """Another format, another image."""
    disk(size="8MiB")
    for params, option in (({"format": "raw"}, "format"), ({"image": "image.qcow2"}, "image")):
        refused = converge.refused("vm_disk", pool=place.pool, name="a.qcow2", **params)
        assert refused["error"]["option"] == option
    assert disk(image="image.qcow2", clone="full", size="8MiB")["changed"] is False


def test_room_in_the_pool(lonely):
    """Exact, by ratio, reserve and total; a full copy needs real room too."""
    image = os.stat(lonely.path("image.qcow2")).st_blocks * 512
    params = {"pool": lonely.pool, "totals": {"disk": "64MiB"}, "ratios": {"disk": 2.0}, "reserved": {"disk": "32MiB"}}
    left = 64 * MIB - image

    def make(name, size, fails=False):
        return lonely.run("vm_disk", fails=fails, name=name, size="{0}KiB".format(size // 1024), **params)
    refused = make("a.qcow2", left + 4096, True)
    assert refused["reason"] == "no_capacity" and lonely.files() == [] and lonely.pool in refused["msg"]
    make("a.qcow2", left)
    # A volume that no VM has attached counts with what it really takes, a few hundred KiB.
    assert lonely.run("host_capacity", **{k: v for k, v in params.items() if k != "pool"})["pools"][lonely.pool]["allocated_bytes"] < image + MIB
