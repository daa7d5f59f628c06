# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deleting VMs: what goes, what stays, and what is refused before anything is touched."""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import xml.etree.ElementTree as ET

import libvirt
import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _metadata
from ansible_collections.kvmfleet.core.tests.integration.killpoints import MIB, Site, fingerprint


@pytest.fixture
def site(private_libvirt):
    """A place of its own on a libvirtd of its own."""
    made = Site(private_libvirt.conn, private_libvirt.uri, private_libvirt.root)
    yield made
    made.clean()


def state_of(site):
    """Everything there is: domains with state and XML, files with bytes and times."""
    domains = {d.name(): (d.state(), d.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))
               for d in site.conn.listAllDomains() if d.name().startswith(site.prefix)}
    return domains, {name: os.stat(site.path(name)).st_mtime_ns for name in os.listdir(site.target)}


def deleted(site, *shorts, **options):
    """The result of a deletion; check mode has said the same and touched nothing, and a second one finds nothing to do."""
    vms = site.absent(*shorts, **options)
    before = state_of(site)
    foretold = site.run(vms, _ansible_check_mode=True)
    assert state_of(site) == before
    result = site.run(vms)
    for key in ("changed", "diff"):
        assert foretold[key] == result[key]
    assert [(vm["name"], vm["actions"], vm["state"]) for vm in foretold["vms"]] == [(vm["name"], vm["actions"], vm["state"]) for vm in result["vms"]]
    again = site.run(vms)
    assert (again["changed"], [vm["actions"] for vm in again["vms"]]) == (False, [[] for _vm in vms])
    return result


def refused(site, *shorts, **options):
    """The failure of a deletion that is refused, in check mode as for real; nothing was touched."""
    vms = site.absent(*shorts, **options)
    before = state_of(site)
    foretold = site.run(vms, fails=True, _ansible_check_mode=True)
    result = site.run(vms, fails=True)
    assert state_of(site) == before
    assert (foretold["msg"], foretold["changed"], result["changed"]) == (result["msg"], False, False)
    return result


def process_of(name):
    """The process of a running domain, whatever namespace it is in."""
    for number in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open("/proc/{0}/cmdline".format(number), "rb") as stream:
            if "guest={0},".format(name).encode() in stream.read():
                return int(number)
    raise AssertionError("no process of " + name)


def volume_of(site, disk="root", short="a"):
    """Name of a VM's volume."""
    return site.metadata(short).volume(disk).name


def test_all_that_is_ours_goes(site):
    """And nothing else: the base image, the ISO image, another one's VM and its volume stay as they are."""
    disks = [{"name": "root", "pool": site.pool, "image": site.IMAGE}, {"name": "data", "pool": site.pool, "size": "4MiB"},
             {"name": "tools", "device": "cdrom", "path": site.path(site.ISO)},
             {"name": "lent", "pool": site.pool, "volume": site.FOREIGN, "readonly": True}]
    site.stranger.undefine()  # its volume is now nobody's
    before = fingerprint(site.path(site.FOREIGN))
    site.run([site.vm(disks=disks, seed={"hostname": "a"}, nics=[{"network": site.network}])])
    result = deleted(site)
    assert [action.split()[:2] for action in result["vms"][0]["actions"]] == [["delete", "disk"], ["delete", "disk"], ["delete", "the"], ["undefine", "the"]]
    assert (site.domain(), site.made(), fingerprint(site.path(site.FOREIGN))) == (None, [], before)


@pytest.mark.parametrize("given", [True, False])
def test_a_volume_of_the_users_goes_only_where_he_said_so(site, given):
    """delete_with_vm."""
    site.image("data.qcow2", 4 * MIB)
    site.handle.refresh()
    site.run([site.vm(disks=[{"name": "root", "pool": site.pool, "size": "4MiB"},
                             {"name": "data", "pool": site.pool, "volume": "data.qcow2", "delete_with_vm": given}])])
    deleted(site)
    assert site.made() == ([] if given else ["data.qcow2"])


def test_a_foreign_domain_is_refused(site):
    """One of that name that is not ours, running or not, persistent or transient."""
    assert refused(site, "stranger")["reason"] == "not_ours"
    site.stranger.create()
    assert refused(site, "stranger")["reason"] == "not_ours"
    site.stranger.destroy()
    xml = site.stranger.XMLDesc()
    site.stranger.undefine()
    site.stranger = site.conn.createXML(xml)
    assert refused(site, "stranger")["reason"] == "not_ours"


def test_a_volume_that_another_domain_has_is_refused(site):
    """By path, by pool and volume, through a symbolic link; running or not. Deleting both at once is not refused where the other is ours too."""
    site.run([site.vm(), site.vm("b")])
    path = site.path(volume_of(site))
    link = os.path.join(site.scratch, "link")
    os.symlink(path, link)
    sources = ["<source file='{0}'/>".format(path), "<source file='{0}'/>".format(link),
               "<source pool='{0}' volume='{1}'/>".format(site.pool, os.path.basename(path))]
    for source in sources:
        kind = "volume" if "pool=" in source else "file"
        other = site.define("other", "<disk type='{0}'><driver name='qemu' type='qcow2'/>{1}<target dev='vda' bus='virtio'/></disk>".format(kind, source))
        assert (refused(site)["reason"], refused(site, "a", "b")["reason"]) == ("volume_in_use", "volume_in_use")
        assert site.name("other") in refused(site)["msg"]
        other.undefine()
    os.unlink(link)
    deleted(site, "a", "b")
    site.assert_clean()


def test_a_volume_below_an_overlay_of_the_same_name_elsewhere_is_refused(site, tmp_path):
    """That one is not what is to be deleted as well, whatever it is called."""
    for name in ("lower.qcow2", "data.qcow2"):
        site.image(name, 4 * MIB)
    site.handle.refresh()
    site.run([site.vm("a", disks=[{"name": short, "pool": site.pool, "volume": short + ".qcow2", "delete_with_vm": True} for short in ("lower", "data")])])
    other = os.path.join(site.scratch, "other")
    os.mkdir(other)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", site.path("lower.qcow2"), os.path.join(other, "data.qcow2")], check=True)
    pool = site.conn.storagePoolCreateXML("<pool type='dir'><name>{0}-other</name><target><path>{1}</path></target></pool>".format(site.prefix, other), 0)
    try:
        result = refused(site, "a")
        assert result["reason"] == "volume_in_use" and "data.qcow2" in result["msg"]
        os.unlink(os.path.join(other, "data.qcow2"))
        pool.refresh()
        deleted(site, "a")
    finally:
        pool.destroy()
    assert not {"lower.qcow2", "data.qcow2"} & set(os.listdir(site.target))


@pytest.mark.parametrize("name", ["../hosts", "..", "", "/etc/hosts"])
def test_what_is_no_name_of_a_volume_stops_a_deletion_before_it_begins(site, name):
    site.run([site.vm("a")])
    domain = site.domain("a")
    meta = _metadata.find(ET.fromstring(domain.XMLDesc()))
    meta.volumes.append(_metadata.VolumeRef("data", site.pool, name, 1, given=True))
    text = ET.tostring(_metadata.to_element(meta, namespaced=False), encoding="unicode")
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, _metadata.PREFIX, _metadata.NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    assert refused(site, "a")["reason"] == "bad_metadata"
    assert site.run(site.absent("a", delete_disks=False))["changed"]


def test_a_volume_below_another_overlay_is_refused(site):
    """Made by the user with qemu-img, known to libvirt or not, named in whatever way; and one in which a domain stands outside of any pool."""
    site.run([site.vm()])
    path = site.path(volume_of(site))
    for backing in (path, os.path.basename(path), 'json:{"driver":"qcow2","file":{"driver":"file","filename":"%s"}}' % path):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, site.path("mine.qcow2")], check=True, cwd=site.target)
        result = refused(site)
        assert result["reason"] == "volume_in_use" and "mine.qcow2" in result["msg"], result["msg"]
        os.unlink(site.path("mine.qcow2"))
    outside = os.path.join(site.scratch, "outside.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", path, outside], check=True)
    other = site.define("other", site.disk(outside))
    assert refused(site)["reason"] == "volume_in_use"
    other.undefine()
    os.unlink(outside)
    deleted(site)
    site.assert_clean()


def test_a_domain_copied_with_its_metadata_does_not_own_the_volumes(site):
    """As virt-clone makes it: its deletion leaves the original's volumes alone, even where the original has none of them attached any more."""
    site.run([site.vm()])
    root = ET.fromstring(site.domain().XMLDesc())
    root.find("name").text = site.name("b")
    root.remove(root.find("uuid"))
    disk = root.find("devices/disk")
    root.find("devices").remove(disk)
    site.conn.defineXML(ET.tostring(root, encoding="unicode"))
    volume = volume_of(site)
    assert volume_of(site, short="b") == volume
    deleted(site, "b")
    assert site.made() == [volume]
    deleted(site)
    site.assert_clean()


def test_what_the_user_attached_stays(site):
    """By virsh attach-disk, live and in the definition."""
    site.run([site.vm(state="running", disks=[{"name": "root", "pool": site.pool, "size": "4MiB"}])])
    site.image("attached.qcow2", 4 * MIB)
    subprocess.run(["virsh", "-q", "-c", site.uri, "attach-disk", site.name(), site.path("attached.qcow2"), "vdz", "--subdriver", "qcow2", "--persistent"],
                   check=True, stdout=subprocess.DEVNULL)
    deleted(site)
    assert (site.domain(), site.made()) == (None, ["attached.qcow2"])


@pytest.mark.parametrize("state", ["running", "paused", "stopped", "crashed", "saved", "snapshot", "pending", "building", "deleting", "failed"])
def test_in_every_state(site, state):
    """With NVRAM, TPM state, managed save images and snapshots."""
    firmware = {"firmware": "efi", "tpm": True} if state in ("running", "stopped") else {}
    started = "running" if state in ("running", "stopped", "crashed", "saved") else "paused" if state == "paused" else "present"
    vm = site.vm(state=started, **firmware)
    if state == "pending":
        site.run([vm], step="claim", ticket="t")
    else:
        site.run([vm])
    domain = site.domain()
    site.uuids.add(domain.UUIDString())
    if state == "stopped":
        domain.destroy()
        assert len(site.libvirt_files()) >= 3  # definition, NVRAM, TPM state
    elif state == "crashed":
        os.kill(process_of(site.name()), signal.SIGSEGV)
        site.until(lambda: not domain.isActive())
    elif state == "saved":
        domain.managedSave()
        assert any("/save/" in path for path in site.libvirt_files())
    elif state == "snapshot":
        domain.snapshotCreateXML("<domainsnapshot><name>before</name></domainsnapshot>")
    elif state in ("building", "deleting", "failed"):
        meta = site.metadata()
        meta.phase = state
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, ET.tostring(_metadata.to_element(meta, namespaced=False), encoding="unicode"),
                           _metadata.PREFIX, _metadata.NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    result = deleted(site)
    assert ("stop" in result["vms"][0]["actions"]) is (state in ("running", "paused"))
    site.assert_clean()


def test_disks_kept(site):
    """delete_disks: false keeps them for good; the seed, which holds secrets, goes. A new VM of that name has new volumes."""
    site.run([site.vm(seed={"hostname": "a"})])
    kept = volume_of(site)
    deleted(site, delete_disks=False)
    assert (site.domain(), site.made()) == (None, [kept])
    site.run([site.vm()])
    deleted(site)
    assert site.made() == [kept]


def test_an_interrupted_deletion_that_kept_the_disks_keeps_them(site):
    """Finished by one that would have deleted them: it was decided before."""
    finished = 0
    for point in range(1, 200):
        site.run([site.vm(seed={"hostname": "a"})])
        kept = volume_of(site)
        if site.start(site.absent(delete_disks=False), point).wait() is not None:
            break
        begun = site.domain() is not None and site.metadata().phase == "deleting"
        deleted(site)
        assert (site.domain(), site.made()) == (None, [kept] if begun or point > 1 and kept in site.made() else [])
        finished += begun
        for name in site.made():
            os.unlink(site.path(name))
        site.handle.refresh()
    assert finished >= 3


def test_an_inactive_pool_is_a_clear_refusal(site):
    """Its volumes cannot be deleted, and forgetting them would leak them."""
    site.run([site.vm()])
    site.handle = site.conn.storagePoolDefineXML(site.handle.XMLDesc())
    site.handle.destroy()
    result = refused(site)
    assert (result["reason"], site.pool in result["msg"], "pool-start" in result["msg"]) == ("pool_inactive", True, True)
    site.handle.create()
    deleted(site)
    site.assert_clean()
    site.handle.destroy()
    site.handle.undefine()


def test_others_may_have_inactive_pools(site):
    """A domain of someone else's on such a pool, or on none that exists, does not keep ours from being deleted."""
    site.define("other", "<disk type='volume'><source pool='kfkill-none' volume='none'/><target dev='vda' bus='virtio'/></disk>")
    site.run([site.vm()])
    deleted(site)
    assert site.made() == []


@pytest.mark.parametrize("refresh", [True, False])
def test_volumes_that_vanished(site, refresh):
    """Deleted by hand, with libvirt's knowledge or without."""
    site.run([site.vm(seed={"hostname": "a"})])
    for name in site.made():
        os.unlink(site.path(name))
    if refresh:
        site.handle.refresh()
    deleted(site)
    site.assert_clean()


def test_a_volume_that_libvirt_does_not_know(site):
    """Put back by hand, and the pool not refreshed."""
    site.run([site.vm()])
    path = site.path(volume_of(site))
    os.rename(path, path + ".away")
    site.handle.refresh()
    os.rename(path + ".away", path)
    deleted(site)
    site.assert_clean()


def test_something_else_in_the_volumes_place(site):
    """A folder is not removed, and the VM is not forgotten."""
    site.run([site.vm()])
    path = site.path(volume_of(site))
    os.unlink(path)
    os.makedirs(os.path.join(path, "of-the-users"))
    site.handle.refresh()
    result = site.run(site.absent(), fails=True)
    assert os.path.basename(path) in result["msg"] and site.metadata().phase == "deleting"
    shutil.rmtree(path)
    deleted(site)
    site.assert_clean()


@pytest.mark.parametrize("atomic", [True, False])
def test_a_batch_in_which_one_is_refused(site, atomic):
    """All or none, or the others."""
    site.run([site.vm(), site.vm("b")])
    vms = site.absent("a", "stranger", "b")
    before = state_of(site)
    result = site.run(vms, fails=True, atomic=atomic)
    assert (result["reason"], [bool(vm.get("failed")) for vm in result["vms"]]) == ("not_ours", [False, True, False])
    if atomic:
        assert state_of(site) == before and not result["changed"]
        deleted(site, "a", "b")
    assert (site.domain(), site.domain("b"), site.made()) == (None, None, [])
    site.assert_clean()


def test_names_with_dots(site):
    """The form with namespace and group."""
    short = "a.test.kfkill"
    site.run([site.vm(short, group="kfkill", namespace="test")])
    deleted(site, short)
    site.assert_clean()


def test_ours_that_virsh_made_transient(site):
    """`virsh undefine` of a running VM leaves it to be forgotten at its end; its volumes are still ours."""
    site.run([site.vm(state="running")])
    site.domain().undefine()
    assert not site.domain().isPersistent()
    deleted(site)
    site.assert_clean()


def test_deleting_what_does_not_exist(site):
    """Changes nothing."""
    assert not deleted_nothing(site)["changed"]


def deleted_nothing(site):
    """The deletion of a VM that there is not."""
    return site.run(site.absent("never"))


def test_create_after_a_deletion_that_was_interrupted_by_a_refusal(site):
    """The rest of the old VM goes, unless somebody needs it by now: then the new one is refused and nothing is touched."""
    site.run([site.vm()])
    meta = site.metadata()
    meta.phase = "deleting"
    site.domain().setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, ET.tostring(_metadata.to_element(meta, namespaced=False), encoding="unicode"),
                              _metadata.PREFIX, _metadata.NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    other = site.define("other", site.disk(site.path(volume_of(site))))
    before = state_of(site)
    result = site.run([site.vm()], fails=True)
    assert (result["reason"], state_of(site)) == ("volume_in_use", before)
    other.undefine()
    old = volume_of(site)
    site.run([site.vm()])
    assert site.made() == [volume_of(site)] != [old]
    deleted(site)
    site.assert_clean()


def test_a_kept_disk_survives_a_new_vm_of_the_same_uuid(place):
    uuid = "5a1e0f6c-0d5f-4d0e-9b0b-1f2e3d4c5b6a"
    vm = {"name": place.name(), "uuid": uuid, "memory": "64MiB", "virt_type": "qemu", "disks": [{"pool": place.pool, "size": "1MiB"}]}
    place.run("vm_set", vms=[vm])
    place.run("vm_set", vms=[{"name": place.name(), "state": "absent", "delete_disks": False}])
    kept = place.files()
    assert len(kept) == 1
    for clone in ("overlay", "full"):
        disk = {"pool": place.pool, "size": "8MiB", "image": "image.qcow2", "clone": clone}
        refused = place.run("vm_set", fails=True, vms=[dict(vm, disks=[disk])])
        assert refused["reason"] == "volume_exists"
        assert kept[0] in refused["msg"]
    assert place.files() == kept
    assert place.domains() == []


def test_a_copy_of_a_vm_is_not_converged_onto_the_disks_of_its_original(place):
    place.run("vm_set", vms=[{"name": place.name("web"), "memory": "64MiB", "virt_type": "qemu", "disks": [{"pool": place.pool, "size": "1MiB"}]}])
    root = place.xml("web")
    root.find("name").text = place.name("copy")
    root.find("uuid").text = "11111111-2222-4333-8444-555555555555"
    for alias in root.findall("devices/disk/source"):
        alias.set("file", place.make_volume("copy.qcow2", 1 << 20))
    place.conn.defineXML(ET.tostring(root, encoding="unicode"))
    refused = place.run("vm_set", fails=True, vms=[{"name": place.name("copy"), "memory": "64MiB", "disks": [{"size": "2MiB"}]}])
    assert refused["reason"] == "not_ours"
    place.run("vm_set", vms=[{"name": place.name("copy"), "state": "absent"}])
    assert len(place.files()) == 2  # the original's volume, and the copy's own


def test_a_volume_is_attached_however_its_path_is_spelled(place, tmp_path):
    path = place.make_volume("data.qcow2", 1 << 20)
    (tmp_path / "link").symlink_to(place.target)
    place.define("other", "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{0}/link/data.qcow2'/>"
                          "<target dev='vda' bus='virtio'/></disk>".format(tmp_path))
    refused = place.run("vm_disk", fails=True, pool=place.pool, name="data.qcow2", state="absent")
    assert refused["reason"] == "volume_in_use"
    assert os.path.exists(path)
