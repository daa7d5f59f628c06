# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Catalogs and host variables: faults are found by key, and only where they are used."""
from __future__ import annotations

import os
import re
from typing import Any

import pytest
import yaml
from ansible_collections.kvmfleet.core.plugins.module_utils._images import image_from_entry, image_volume_name
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils._address_pools import read_pool
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import SCHEMAS, Catalogs, Host, read_host, with_shipped


def test_an_entry_is_converted() -> None:
    catalogs = Catalogs({"kvmfleet_flavors": {"small": {"vcpus": "2", "memory": "2GiB", "disk": None}}})
    assert catalogs.find("kvmfleet_flavors", "vm_flavor", "small") == {"vcpus": 2, "memory": "2GiB"}


def test_a_catalog_may_come_as_text() -> None:
    catalogs = Catalogs({"kvmfleet_networks": '{"lan": {"cidr": "10.0.0.0/24"}}'})
    assert catalogs.entry("kvmfleet_networks", "lan") == {"cidr": ["10.0.0.0/24"]}


@pytest.mark.parametrize("catalog", sorted(SCHEMAS))
def test_unknown_keys_are_named_with_the_nearest(catalog: str) -> None:
    key = sorted(SCHEMAS[catalog])[0]
    catalogs = Catalogs({catalog: {"good": {}, "bad": {key + "x": 1}}})
    assert catalogs.entry(catalog, "good") == {}
    with pytest.raises(SpecError, match="Perhaps {0} was meant".format(key)) as caught:
        catalogs.entry(catalog, "bad")
    assert caught.value.option == "{0}.bad.{1}x".format(catalog, key)
    with pytest.raises(SpecError):
        catalogs.check_all()


@pytest.mark.parametrize("catalog, key, value", [
    ("kvmfleet_flavors", "memory", "2"), ("kvmfleet_flavors", "vcpus", 0), ("kvmfleet_images", "source", "ftp"), ("kvmfleet_images", "min_disk", "big"),
    ("kvmfleet_groups", "locked", "perhaps"), ("kvmfleet_groups", "quota", {"vm": 3}), ("kvmfleet_networks", "mtu", "jumbo"),
])
def test_wrong_values_are_named_by_key(catalog: str, key: str, value: Any) -> None:
    with pytest.raises(SpecError) as caught:
        Catalogs({catalog: {"it": {key: value}}}).entry(catalog, "it")
    assert caught.value.option.startswith("{0}.it.{1}".format(catalog, key))


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    catalogs = Catalogs({"kvmfleet_images": {"debian:12": {}, "ubuntu:24.04": {}}})
    with pytest.raises(SpecError, match="Perhaps debian:12 was meant") as caught:
        catalogs.find("kvmfleet_images", "vm_image", "debain:12")
    assert (caught.value.option, caught.value.code) == ("vm_image", "unknown_image")
    with pytest.raises(SpecError, match="None is defined"):
        Catalogs({}).find("kvmfleet_storage_classes", "vm_storage_class", "ssd")


def test_the_documented_example() -> None:
    root = os.path.abspath(__file__).partition(os.sep + os.path.join("tests", "unit"))[0]
    with open(os.path.join(root, "docs", "catalogs.md"), encoding="utf-8") as stream:
        group = yaml.safe_load(re.search(r"^```yaml\n(.*?)```$", stream.read(), re.MULTILINE | re.DOTALL).group(1))["kvm_hosts"]  # type: ignore[union-attr]
    catalogs = Catalogs(group["vars"])
    catalogs.check_all()
    assert read_pool("lan-vms", catalogs, "lan").size == 99
    assert all(read_host(name, variables).name == name for name, variables in group["hosts"].items())


def test_host_variables() -> None:
    host = read_host("kvm1", {"kvm_pool": "ssd", "kvm_ratios": {"vcpus": "4"}, "kvm_schedulable": "no", "kvm_zone": "", "kvm_totals": {"memory": "64GiB"}})
    assert (host.pool, host.ratios, host.schedulable, host.zone, host.totals) == ("ssd", {"vcpus": 4.0}, False, None, {"memory": "64GiB"})
    host = read_host("kvm1", {"kvm_groups": "red,blue", "kvm_admin_only": "yes", "kvm_max_vms": "0",
                              "kvm_pools": {"ssd": {"floor": "20GiB", "admin_only": "no", "groups": ["red"]}, "hdd": None}})
    assert (host.groups, host.admin_only, host.max_vms) == (["red", "blue"], True, 0)
    assert host.pools == {"ssd": {"floor": "20GiB", "admin_only": False, "groups": ["red"]}, "hdd": {}}


@pytest.mark.parametrize("variable, value", [("kvm_virt_type", "xen"), ("kvm_ratios", {"cpu": 4}), ("kvm_ratios", {"vcpus": "many"}),
                                             ("kvm_schedulable", "perhaps"), ("kvm_networks", "br0"), ("kvm_admin_only", "maybe"), ("kvm_max_vms", -1),
                                             ("kvm_pools", {"ssd": {"floor": "20"}}), ("kvm_pools", {"ssd": {"top": "20GiB"}})])
def test_wrong_host_variables_name_host_and_variable(variable: str, value: Any) -> None:
    with pytest.raises(SpecError) as caught:
        read_host("kvm1", {variable: value})
    assert caught.value.option.startswith(variable) and caught.value.option.endswith(" of host kvm1")


def test_networks_of_a_host() -> None:
    host = Host("kvm1", networks={"lan": {"bridge": "br0"}, "dmz": "dmz-net", "bad": {"bridge": "br0", "network": "x"}})
    assert host.network("lan") == {"bridge": "br0"}
    assert host.network("dmz") == {"network": "dmz-net"}
    assert host.network("default") == {"network": "default"}
    with pytest.raises(SpecError, match="exactly one of"):
        host.network("bad")


def test_pools_of_storage_classes() -> None:
    catalogs = Catalogs({"kvmfleet_storage_classes": {"ssd": {"pool": "fast"}, "tape": {}}})
    host = Host("kvm1", pool="own", storage_classes={"nvme": "faster"})
    assert [host.pool_of("x", c, catalogs) for c in (None, "nvme", "ssd")] == ["own", "faster", "fast"]
    with pytest.raises(SpecError, match="kvm1 has no pool"):
        host.pool_of("vm_storage_class", "tape", catalogs)
    with pytest.raises(SpecError, match="Perhaps nvme was meant"):
        host.pool_of("vm_storage_class", "nvm", catalogs)


def test_which_networks_are_said_to_be_reachable() -> None:
    networks = {"a": {"reachable": "no"}, "b": {"reachable": True, "typo": 1}, "c": {}, "d": None}
    assert Catalogs({"kvmfleet_networks": networks}).reachable_networks() == {"a": False, "b": True}
    with pytest.raises(SpecError, match="kvmfleet_networks.a.reachable"):
        Catalogs({"kvmfleet_networks": {"a": {"reachable": "perhaps"}}}).reachable_networks()


def test_the_images_that_come_with_the_collection_are_whole_entries():
    catalogs = Catalogs(with_shipped({}, None))
    names = catalogs.names("kvmfleet_images")
    assert {name.partition(":")[0] for name in names} == {"debian", "ubuntu", "centos", "rocky", "almalinux", "fedora"}
    assert len({image_volume_name(name, catalogs.entry("kvmfleet_images", name)) for name in names}) == len(names)
    for name in names:
        entry = catalogs.entry("kvmfleet_images", name)
        image = image_from_entry(name, entry)
        assert image.source == "build" or image.checksum is not None
        assert {"min_disk", "min_memory", "min_vcpus", "os_type", "os_variant", "default_user", "firmware", "arch", "description"} <= set(entry)
    assert {name for name in names if catalogs.entry("kvmfleet_images", name).get("eol")} >= {"centos:7", "centos:8", "ubuntu:20.04"}


def test_the_sites_own_images_win_over_those_that_come_with_the_collection():
    own = {"kvmfleet_images": {"debian:12": {"volume": "mine.qcow2"}, "debian:12-site": {"volume": "site.qcow2"}}}
    catalogs = Catalogs(with_shipped(own, True))
    assert catalogs.entry("kvmfleet_images", "debian:12") == {"volume": "mine.qcow2"}
    assert "debian:12-site" in catalogs.names("kvmfleet_images") and "rocky:9" in catalogs.names("kvmfleet_images")
    assert Catalogs(with_shipped(own, "false")).names("kvmfleet_images") == ["debian:12", "debian:12-site"]
    with pytest.raises(SpecError) as caught:
        with_shipped(own, "perhaps")
    assert caught.value.option == "kvmfleet_shipped_images"
