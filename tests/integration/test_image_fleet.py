# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One image for several hosts: made once and carried, and removed where nothing needs it."""
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils._images import image_volume_name
from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import FleetPlaybooks
from ansible_collections.kvmfleet.core.tests.integration.image_web import Web, digest, make_image, qemu_img

BUILD = {"source": "build", "suite": "bookworm"}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """See L(make_image)."""
    return make_image(tmp_path_factory.mktemp("image"))


class Fleet(FleetPlaybooks):
    """Runs the playbooks of images over the lab. C(control) is the control node's folder, C(cache) that of the hosts, which here is one for all."""

    def __init__(self, lab, folder, entry):
        super().__init__(lab, folder)
        self.cache, self.control = folder / "cache", folder / "control"
        self.catalogs["kvmfleet_images"] = {"test:1": dict({"min_disk": "16MiB"}, **entry)}
        self.room((4, 4, 4))
        self.volume = image_volume_name("test:1", entry)

    def image(self, *options, **given):
        """The run of base_image.yml."""
        return self.does("base_image", *options, base_image_cache_dir=self.cache, base_image_control_dir=self.control,
                         base_image_install_packages="false", **given)

    def have(self):
        """The hosts that have the image, whole."""
        return [host.host for host in self.lab.hosts if self.volume in host.files()]


def made_on(run):
    """How many hosts have made it themselves."""
    return run.output.split("Build, download or copy the image]", 1)[-1].split("TASK", 1)[0].count("changed: [")


def test_an_image_is_built_on_one_host_and_carried_to_the_others(lab, tmp_path, image):
    fleet = Fleet(lab, tmp_path, BUILD)
    fleet.cache.mkdir()
    shutil.copy(image, fleet.cache / fleet.volume)  # as if it had been built, which takes a minute
    killed = fleet.control / "carried-1"
    killed.mkdir(parents=True)
    (killed / fleet.volume).touch()
    for path in (killed / fleet.volume, killed):
        os.utime(path, (0, 0))
    foretold = fleet.image("--check")
    assert fleet.have() == []
    done = fleet.image()
    assert fleet.have() == ["kvm1", "kvm2", "kvm3"]
    assert foretold.changed == done.changed == 3
    assert made_on(done) == 1
    assert {Path(host.path(fleet.volume)).read_bytes() for host in lab.hosts} == {image.read_bytes()}
    assert os.listdir(fleet.control) == [], "the control node keeps what it only passed on"
    assert fleet.image().changed == 0


def test_a_host_that_has_it_lends_it(lab, tmp_path, image):
    """Nobody answers at the address: what is not lent is not to be had."""
    fleet = Fleet(lab, tmp_path, {"source": "url", "url": "http://192.0.2.1:9/image.qcow2", "checksum": digest(image)})
    shutil.copy(image, lab["kvm2"].path(fleet.volume))
    assert made_on(fleet.image()) == 0
    assert fleet.have() == ["kvm1", "kvm2", "kvm3"]


def test_the_control_node_downloads_once_for_all(lab, tmp_path, image):
    web = Web(image)
    try:
        fleet = Fleet(lab, tmp_path, {"source": "url", "url": web.url, "checksum": digest(image)})
        fleet.image(base_image_transfer="control", base_image_parallel=1)
        assert fleet.have() == ["kvm1", "kvm2", "kvm3"]
        assert web.starts == [0]
        lab["kvm3"].clean()
        fleet.image(base_image_transfer="control")
        assert fleet.have() == ["kvm1", "kvm2", "kvm3"]
        assert web.starts == [0], "downloaded again although the control node has it"
    finally:
        web.stop()


def test_unused_images_are_listed_and_removed_when_their_number_is_said(lab, tmp_path, image):
    fleet = Fleet(lab, tmp_path, {"source": "path", "path": str(image)})
    fleet.image()
    old = fleet.volume
    fleet.catalogs["kvmfleet_images"]["test:1"]["checksum"] = digest(image)
    fleet.room((4, 4, 4))
    fleet.volume = image_volume_name("test:1", fleet.catalogs["kvmfleet_images"]["test:1"])
    fleet.image()
    kvm1 = lab["kvm1"]
    qemu_img("create", "-q", "-f", "qcow2", "-b", "/var/lib/libvirt/images/" + old, "-F", "qcow2", "-u", kvm1.path("disk.qcow2"), "16M")
    kvm1.make_volume("other.iso", 1 << 20, "raw")
    listed = fleet.does("prune_images")
    assert (listed.changed, listed.data["unused"]) == (0, 2)
    assert "kept: it is the backing file of disk.qcow2" in listed.output and "kept: in the catalog" in listed.output
    assert fleet.run("prune_images", base_image_confirm=3).reason == "not_confirmed"
    assert fleet.does("prune_images", "--check", base_image_confirm=2).changed == 2
    assert [old in host.files() for host in lab.hosts] == [True, True, True]
    assert fleet.does("prune_images", base_image_confirm=2).changed == 2
    assert [old in host.files() for host in lab.hosts] == [True, False, False]
    assert fleet.have() == ["kvm1", "kvm2", "kvm3"]
    assert {"disk.qcow2", "other.iso"} <= set(kvm1.files())
    assert json.dumps(fleet.does("prune_images").data["remove"]) == "{}"
