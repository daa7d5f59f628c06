# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""host_pool and host_network on the real libvirtd."""
from __future__ import annotations

import contextlib
import os
import shutil

import libvirt
import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils._host_pools import PoolSpec, pool_xml


@pytest.fixture
def names(place):
    """A pool and a network of this test's own, gone afterwards."""
    pool, network = place.prefix + "-made", place.prefix + "-net"
    yield pool, network
    for lookup, name in ((place.conn.storagePoolLookupByName, pool), (place.conn.networkLookupByName, network)):
        with contextlib.suppress(libvirt.libvirtError):
            handle = lookup(name)
            with contextlib.suppress(libvirt.libvirtError):
                handle.destroy()
            handle.undefine()


def test_a_pool_is_made_and_removed(place, converge, names, tmp_path):
    name, path = names[0], tmp_path / "pool"
    converge("host_pool", name=name, path=str(path))
    handle = place.conn.storagePoolLookupByName(name)
    assert (handle.isActive(), handle.autostart(), handle.isPersistent()) == (1, 1, 1)
    assert os.stat(path).st_mode & 0o777 == 0o711
    converge("host_pool", name=name, path=str(path), autostart=False)
    assert handle.autostart() == 0
    handle.destroy()
    converge("host_pool", name=name, autostart=False)
    assert handle.isActive() == 1
    converge("host_pool", name=name, state="absent")
    assert not path.exists()
    with pytest.raises(libvirt.libvirtError):
        place.conn.storagePoolLookupByName(name)


def test_a_pool_with_something_in_it_stays(place, converge, names, tmp_path):
    converge("host_pool", name=names[0], path=str(tmp_path / "pool"))
    (tmp_path / "pool" / "theirs").write_text("x", encoding="ascii")
    refused = converge.refused("host_pool", name=names[0], state="absent")
    assert refused["reason"] == "pool_not_empty"
    assert "theirs" in refused["msg"]
    assert place.conn.storagePoolLookupByName(names[0]).isActive() == 1


def test_a_pool_is_not_moved(place, converge, tmp_path):
    refused = converge.refused("host_pool", name=place.pool, path=str(tmp_path))
    assert refused["error"]["option"] == "path"
    assert place.target in refused["msg"]


def test_a_new_pool_needs_a_folder(converge, names):
    assert converge.refused("host_pool", name=names[0])["error"]["option"] == "path"


def test_no_more_of_a_pool_is_given_out_than_its_limit(place, converge):
    """Where there is more. What a VM would take beyond it is refused."""
    whole = place.run("host_capacity", facts=False)["pools"][place.pool]
    assert whole["total_bytes"] > 64 << 20
    limit = {place.pool: {"max_capacity": "64MiB", "floor": "1GiB", "type": "dir"}}
    seen = place.run("host_capacity", facts=False, pools=limit)["pools"][place.pool]
    assert seen["total_bytes"] == 64 << 20 and seen["available_bytes"] == (64 << 20) - whole["allocated_bytes"]
    more = {place.pool: {"max_capacity": "1000TiB"}}
    assert place.run("host_capacity", facts=False, pools=more)["pools"][place.pool]["total_bytes"] == whole["total_bytes"]

    def vm(short, size):
        return [{"name": place.name(short), "memory": "64MiB", "virt_type": "qemu", "disks": [{"pool": place.pool, "size": size}]}]
    room = {"totals": {"vcpus": 4096, "memory": "64TiB"}, "pools": limit}
    refused = converge.refused("vm_set", vms=vm("large", "65MiB"), **room)
    assert "no_capacity" in str(refused) and place.pool in str(refused)
    converge("vm_set", vms=vm("small", "40MiB"), **room)
    assert "no_capacity" in str(converge.refused("vm_set", vms=vm("second", "40MiB"), **room))
    wrong = place.run("host_capacity", fails=True, pools={place.pool: {"max_capacity": "5"}})
    assert wrong["error"]["option"] == "pools.{0}.max_capacity".format(place.pool)


@pytest.mark.parametrize("wish", [
    {"volume_group": "kfit-vg"}, {"server": "nfs.example.org", "export": "/srv/vms", "path": "/nonexistent/mnt"}], ids=["logical", "netfs"])
def test_pools_of_other_types_are_as_libvirt_wants_them(place, converge, names, wish):
    """There is neither LVM nor NFS here; what can be seen is that libvirt's schema takes the definition, and that an existing pool is left as it is."""
    handle = place.conn.storagePoolDefineXML(pool_xml(PoolSpec(names[0], **wish)), libvirt.VIR_STORAGE_POOL_DEFINE_VALIDATE)
    option = "volume_group" if "volume_group" in wish else "export"
    refused = converge.refused("host_pool", name=names[0], **dict(wish, **{option: wish[option] + "2"}))
    assert (refused["reason"], refused["error"]["option"]) == ("pool_differs", option)
    assert converge.refused("host_pool", name=names[0], type="dir")["reason"] == "pool_differs"
    assert converge.refused("host_pool", name=names[0] + "2", **wish)["reason"] == "pool_source_in_use"
    assert handle.isPersistent()
    converge("host_pool", name=names[0], state="absent")


def test_a_volume_group_has_to_exist(converge, names):
    assert converge.refused("host_pool", name=names[0], volume_group="kfit-none")["reason"] in ("unknown_volume_group", "unsupported")


@pytest.mark.skipif(shutil.which("mount.nfs") is not None, reason="it would try for minutes")
def test_a_pool_that_does_not_start_leaves_nothing(place, names, tmp_path):
    failed = place.run("host_pool", fails=True, name=names[0], server="127.0.0.1", export="/none", path=str(tmp_path / "mnt"))
    assert failed["reason"] == "pool_not_started" and "mount" in failed["msg"]
    assert names[0] not in [p.name() for p in place.conn.listAllStoragePools()]


def test_two_pools_in_one_folder_are_refused(place, converge, names, tmp_path):
    (tmp_path / "link").symlink_to(place.target)
    for path in (place.target + "/", "/" + place.target, str(tmp_path / "link")):
        assert converge.refused("host_pool", name=names[0], path=path)["reason"] == "pool_source_in_use"


def test_a_pool_in_a_linked_folder_goes_and_the_link_stays(converge, names, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    converge("host_pool", name=names[0], path=str(tmp_path / "link"))
    converge("host_pool", name=names[0], state="absent")
    assert (tmp_path / "link").is_dir()


def test_an_existing_pool_may_be_elsewhere_than_new_ones(place, converge, names, tmp_path):
    converge("host_pool", name=names[0], default_path=str(tmp_path / "one"))
    assert converge("host_pool", name=names[0], default_path=str(tmp_path / "two"))["changed"] is False
    assert converge.refused("host_pool", name=names[0], path=str(tmp_path / "two"))["error"]["option"] == "path"
    converge("host_pool", name=names[0], state="absent")


def test_a_network_is_made_and_removed(place, converge, names):
    name = names[1]
    wish = {"name": name, "forward": "none", "address": "10.213.77.1/24", "dhcp": ["10.213.77.10", "10.213.77.20"]}
    converge("host_network", **wish)
    handle = place.conn.networkLookupByName(name)
    assert (handle.isActive(), handle.autostart()) == (1, 1)
    assert "10.213.77.10" in handle.XMLDesc()
    handle.destroy()
    converge("host_network", name=name)
    assert handle.isActive() == 1
    refused = converge.refused("host_network", **dict(wish, address="10.213.78.1/24", dhcp=None))
    assert "10.213.77.1/24" in refused["msg"]
    place.define("user", "<interface type='network'><source network='{0}'/></interface>".format(name))
    refused = converge.refused("host_network", name=name, state="absent")
    assert refused["reason"] == "network_in_use"
    place.domain("user").undefine()
    converge("host_network", name=name, state="absent")


@pytest.mark.parametrize("wish, option", [
    ({}, "address"), ({"address": "10.213.77.1"}, "address"), ({"address": "x/24"}, "address"), ({"dhcp": ["10.0.0.1", "10.0.0.2"]}, "dhcp"),
    ({"address": "10.213.77.1/24", "dhcp": ["10.213.78.1", "10.213.77.9"]}, "dhcp"), ({"address": "10.213.77.1/24", "dhcp": ["10.213.77.9"]}, "dhcp"),
])
def test_networks_that_cannot_be(converge, names, wish, option):
    assert converge.refused("host_network", name=names[1], **wish)["error"]["option"] == option
