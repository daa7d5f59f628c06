# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pool that is too small, or runs full half-way: refused before or undone after, never left half-made."""
from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
import xml.etree.ElementTree as ET

import libvirt
import pytest

from ansible_collections.kvmfleet.core.tests.integration.killpoints import MIB, Site

# The pool promises more than it has, so that nothing but the file system says no.
GENEROUS = {"ratios": {"disk": 1000.0}}


@pytest.fixture
def site(conn):
    """A place whose pool is a file system of 48 MiB of its own; and an image of 16 MiB, full of data, in a pool beside it."""
    folder = tempfile.mkdtemp(prefix="kfkill-small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "kfkill-small", folder], check=True)
    made = None
    try:
        made = Site(conn, folder=folder)
        made.image_folder = tempfile.mkdtemp(prefix=made.prefix + "-images")
        images = conn.storagePoolCreateXML("<pool type='dir'><name>{0}-images</name><target><path>{1}</path></target></pool>".format(
            made.prefix, made.image_folder), 0)
        made.full = os.path.join(made.image_folder, "full.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", made.full, str(16 * MIB)], check=True)
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -q -P 7 0 {0}".format(16 * MIB), made.full], check=True)
        images.refresh()
        made.settled = used(made)
        yield made
        images.destroy()
        os.unlink(made.full)
        os.rmdir(made.image_folder)
    finally:
        if made is not None:
            made.clean(keep_folder=True)
        subprocess.run(["umount", folder], check=True)
        os.rmdir(folder)


def used(site):
    """Bytes that are taken in the pool's file system."""
    system = os.statvfs(site.target)
    return (system.f_blocks - system.f_bfree) * system.f_frsize


def free(site):
    """Bytes that are left there."""
    system = os.statvfs(site.target)
    return system.f_bavail * system.f_frsize


def fill(site, left):
    """Someone else's file takes all but this many bytes."""
    with open(site.path("ballast"), "wb") as stream:
        stream.write(b"x" * (free(site) - left))
    site.files.add("ballast")
    site.handle.refresh()
    site.before, site.settled = site.foreign(), used(site)


def definition(site):
    """A VM's definition, however its namespaces are written."""
    return ET.canonicalize(site.domain().XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), rewrite_prefixes=True)


def copy(site, short):
    """A VM on a full copy."""
    return site.vm(short, disks=[{"name": "root", "pool": site.pool, "image": site.full, "clone": "full"}])


def assert_as_before(site):
    """Nothing of ours is left, and no byte is taken."""
    site.assert_clean()
    assert used(site) == site.settled


def test_a_copy_that_does_not_fit_is_refused(site):
    """Before anything is touched; however generous the pool's ratio is."""
    fill(site, 15 * MIB)
    for params in (GENEROUS, {}):
        for check in (True, False):
            result = site.run([copy(site, "a")], fails=True, _ansible_check_mode=check, **params)
            assert (result["reason"], site.pool in result["msg"], result["changed"]) == ("no_capacity", True, False)
            assert_as_before(site)


@pytest.mark.parametrize("atomic", [True, False])
def test_copies_that_do_not_fit_together(site, atomic):
    """Each would fit alone; the disk runs full while they are made. All are undone, or the one that did not fit is."""
    fill(site, 24 * MIB)
    vms = [copy(site, "a"), copy(site, "b")]
    result = site.run(vms, fails=True, atomic=atomic, **GENEROUS)
    assert result["reason"] == "volume_failed" and "No space left" in result["msg"], result["msg"]
    if atomic:
        assert [vm["state"] for vm in result["vms"]] == ["absent", "absent"]
        assert not result["changed"]
    else:
        whole = [vm for vm in result["vms"] if not vm.get("failed")]
        assert all(vm["phase"] == "ready" for vm in whole)
        assert sorted(site.made()) == sorted(v["name"] for vm in whole for v in vm["volumes"])
        site.run(site.absent("a", "b"))
    assert_as_before(site)


@pytest.mark.parametrize("disk", [{"image": Site.IMAGE}, {"size": "8MiB"}], ids=["overlay", "empty"])
def test_no_room_for_the_smallest_disk(site, disk):
    """Not even for its tables."""
    fill(site, 64 << 10)
    result = site.run([site.vm(), site.vm("b", disks=[dict(disk, name="root", pool=site.pool)])], fails=True, **GENEROUS)
    assert result["reason"] == "volume_failed" and "No space left" in result["msg"], result["msg"]
    assert_as_before(site)


def test_no_room_for_the_seed(site):
    """The disks were made, and go again."""
    fill(site, 2 * MIB)
    vm = site.vm(seed={"hostname": "a", "write_files": [{"path": "/a", "content": os.urandom(2 * MIB).hex()}]})
    result = site.run([vm], fails=True, **GENEROUS)
    assert result["reason"] == "volume_failed" and "seed" in result["msg"], result["msg"]
    assert_as_before(site)


def test_no_room_to_finish_what_an_interrupted_run_began(site):
    """Nothing of it is left: a VM that never was complete is nobody's."""
    vm = site.vm()
    for point in itertools.count():
        assert site.start([vm], point, **GENEROUS).wait() is None
        if site.domain() is not None and site.metadata().phase == "building" and not site.made():
            break
        site.run(site.absent())
    fill(site, 64 << 10)
    result = site.run([vm], fails=True, **GENEROUS)
    assert result["reason"] == "volume_failed" and "No space left" in result["msg"], result["msg"]
    assert_as_before(site)


def test_no_room_for_another_disk_of_an_existing_vm(site):
    """The VM stays what it was, to the letter; with room again, the same request is carried out."""
    old = site.vm(vcpus=1)
    site.run([old])
    xml, made = definition(site), site.made()
    fill(site, 20 * MIB)
    more = {"pool": site.pool, "image": site.full, "clone": "full"}
    new = dict(old, vcpus=2, disks=old["disks"] + [dict(more, name="one"), dict(more, name="two")])
    result = site.run([new], fails=True, **GENEROUS)
    assert result["reason"] == "volume_failed" and "No space left" in result["msg"], result["msg"]
    assert definition(site) == xml
    assert site.made() == made and used(site) == site.settled
    os.unlink(site.path("ballast"))
    site.files.discard("ballast")
    site.handle.refresh()
    site.before = site.foreign()
    assert site.run([new], **GENEROUS)["changed"]
    assert not site.run([new], **GENEROUS)["changed"]
    site.run(site.absent())
    site.assert_clean()
