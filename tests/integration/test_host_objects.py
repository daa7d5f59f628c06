# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""host_pool and host_network on the real libvirtd."""
from __future__ import annotations

import contextlib
import os

import libvirt
import pytest


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
