# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory promises of a host, and each way in which it may not be there."""
from __future__ import annotations

import copy

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils._images import image_volume_name
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, read_host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._promises import broken, devices_of, promised

CATALOGS = {
    "kvmfleet_images": {"debian:12": {"source": "build", "suite": "bookworm", "firmware": "bios", "arch": "x86_64"}, "own:1": {"volume": "own.qcow2"}},
    "kvmfleet_networks": {"default": {}, "lan": {"cidr": "192.0.2.0/24"}},
    "kvmfleet_storage_classes": {"bulk": {"pool": "bulk"}, "ssd": {"description": "on hosts that have it"}}}
HOST = {"kvm_pool": "vms", "kvm_networks": {"lan": {"bridge": "br0"}, "wan": {"direct": "eth7"}}, "kvm_storage_classes": {"nvme": "fast"}}
FACTS = {"pools": {"vms": {"active": True, "volumes": ["own.qcow2"]}, "bulk": {"active": True}, "fast": {"active": True}}, "archs": ["x86_64"],
         "firmware": ["bios", "efi"], "bridges": ["br0"], "networks": [{"name": "default", "active": True}]}


def look(change=None, catalogs=None, host=None, devices=("eth7",), present=False, **named):
    facts = copy.deepcopy(FACTS)
    if change:
        change(facts)
    known, one = Catalogs(dict(CATALOGS, **(catalogs or {}))), read_host("kvm1", dict(HOST, **(host or {})))
    return broken(one, known, promised(one, known, **named), facts, devices, present)


def test_a_host_that_has_all():
    assert look() == []
    one, known = read_host("kvm1", HOST), Catalogs(CATALOGS)
    promises = promised(one, known)
    assert promises.networks == ["default", "lan", "wan"] and promises.storage_classes == ["bulk", "nvme"]
    assert devices_of(one, promises) == ["eth7"]


@pytest.mark.parametrize("change, text", [
    (lambda facts: facts["pools"].pop("vms"), "kvm_pool: there is no pool vms; image debian:12: there is no pool vms; image own:1: there is no pool vms"),
    (lambda facts: facts["pools"].update(bulk={"active": False}), "storage class bulk: pool bulk is not active"),
    (lambda facts: facts["pools"].pop("fast"), "storage class nvme: there is no pool fast"),
    (lambda facts: facts["bridges"].clear(), "network lan: there is no bridge br0"),
    (lambda facts: facts["networks"].clear(), "network default: libvirt's network default does not exist"),
    (lambda facts: facts["networks"][0].update(active=False), "network default: libvirt's network default is not active"),
    (lambda facts: facts["pools"]["vms"]["volumes"].clear(), "image own:1: there is no volume own.qcow2 in pool vms, and no source to fetch it from"),
    (lambda facts: facts["firmware"].remove("bios"), "image debian:12: the host has no bios firmware"),
    (lambda facts: facts["archs"].clear(), "image debian:12: the host cannot run x86_64 guests"),
])
def test_each_is_named(change, text):
    assert "; ".join(look(change)) == text


def test_devices_and_images_that_have_to_be_there():
    assert look(devices=()) == ["network wan: there is no network device eth7"]
    volume = image_volume_name("debian:12", CATALOGS["kvmfleet_images"]["debian:12"])
    assert look(present=True) == ["image debian:12: there is no volume {0} in pool vms".format(volume)]
    assert look(lambda facts: facts["pools"]["vms"]["volumes"].append(volume), present=True) == []


def test_named_ones_only():
    assert look(lambda facts: (facts["networks"].clear(), facts["pools"].pop("bulk")), networks=["lan"], storage_classes=[], images=[]) == []
    assert look(storage_classes=["ssd"]) == ["storage class ssd: host kvm1 has no pool of this storage class"]


@pytest.mark.parametrize("named, option", [
    ({"networks": ["lann"]}, "networks"), ({"images": ["debian:13"]}, "images"), ({"storage_classes": ["x"]}, "storage_classes")])
def test_names_that_nobody_knows(named, option):
    with pytest.raises(SpecError) as caught:
        look(**named)
    assert caught.value.option == option and caught.value.code == "unknown_promise"


def test_a_faulty_catalog_is_found_before_anything_is_done():
    with pytest.raises(SpecError, match="kvmfleet_networks.lan.cidrr"):
        promised(read_host("kvm1", HOST), Catalogs({"kvmfleet_networks": {"lan": {"cidrr": 1}}}))


def test_pools_of_hosts_are_checked():
    for rules, option in (({"typ": "dir"}, "typ"), ({"type": "zfs"}, "type"), ({"max_capacity": "5"}, "max_capacity")):
        with pytest.raises(SpecError, match="kvm_pools.ssd.{0} of host kvm1".format(option)):
            read_host("kvm1", {"kvm_pools": {"ssd": rules}})
    host = read_host("kvm1", {"kvm_pools": {"ssd": {"type": "dir", "path": "/srv", "max_capacity": "1GiB", "admin_only": "yes"}}})
    assert host.policy().max_capacity == {"ssd": 1 << 30}
