# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From variables to requests to items of vm_set: what is asked for is there, and what cannot be is refused in the user's words."""
from __future__ import annotations

import ipaddress
import json
from typing import Any, Dict, List, Optional

import pytest
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import GIB, SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _request, _variables
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, Host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._keys import Keys
from ansible_collections.kvmfleet.core.plugins.plugin_utils._planning import wish_of
from hypothesis import given, settings
from hypothesis import strategies as st

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA me@laptop"
CATALOGS: Dict[str, Any] = {
    "kvmfleet_images": {
        "debian:12": {"volume": "debian.qcow2", "min_disk": "2GiB", "min_memory": "256MiB", "min_vcpus": 1, "default_user": "debian", "arch": "x86_64"},
        "win:11": {"volume": "win.qcow2", "cloud_init": False, "firmware": "efi", "min_vcpus": 2},
        "secret:1": {"volume": "s.qcow2", "groups": ["acme"]}, "root:1": {"volume": "r.qcow2", "admin_only": True},
    },
    "kvmfleet_flavors": {"small": {"vcpus": 1, "memory": "1GiB", "disk": "8GiB"}, "data": {"vcpus": 2, "memory": "2GiB", "data_disk": "50GiB"},
                         "tiny": {"vcpus": 1, "memory": "128MiB", "disk": "1GiB"}},
    "kvmfleet_networks": {"lan": {"cidr": "10.0.0.0/24", "gateway": "10.0.0.1", "nameservers": "10.0.0.2,10.0.0.3", "search": ["lan.test"], "mtu": 9000},
                          "v6": {"cidr": "10.1.0.0/24,fd00::/64"}, "acme": {"groups": "acme"}, "open": {}},
    "kvmfleet_groups": {"acme": {"network": "acme"}, "frozen": {"locked": True}, "gone": {"enabled": "false"}},
    "kvmfleet_storage_classes": {"ssd": {"pool": "fast"}},
}
HOST = Host("kvm1", pool="pool1", networks={"lan": {"bridge": "br0"}}, virt_type="qemu")


def items(keys: Optional[Keys] = None, hosts: Any = (HOST,), **given: Any) -> List[Dict[str, Any]]:
    """The items of vm_set that some variables become, by the same steps as the action takes."""
    catalogs = Catalogs(CATALOGS)
    values = _variables.read("create", dict({"vm_name": "web"}, **given))
    if values["vm_state"] == "absent":
        return [request.item for request in _request.build(values, catalogs, hosts, Keys())]
    wish = wish_of(values, catalogs, hosts, keys or Keys([KEY], "web"))
    result = _request.sample_items(wish.requests, hosts, catalogs)
    _request.check_items(result)
    return result


def refusal(**given: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        items(**given)
    assert caught.value.reason and caught.value.remedy
    return caught.value


def test_one_vm() -> None:
    assert items(vm_image="debian:12", vm_memory="768MiB", vm_vcpus="1") == [{
        "name": "web", "state": "running", "vcpus": 1, "memory": "768MiB", "default_memory": "256MiB", "default_vcpus": 1, "arch": "x86_64",
        "shutdown_timeout": 120, "image": "debian:12", "key_name": "web", "virt_type": "qemu",
        "seed": {"ssh_keys": [KEY], "hostname": "web"}, "default_nics": [{"network": "default"}],
        "disks": [{"name": "root", "default_size": "2GiB", "pool": "pool1", "image": "debian.qcow2", "image_pool": "pool1"}],
    }]


@pytest.mark.parametrize("count, names", [(None, ["web"]), (1, ["web-1"]), ("3", ["web-1", "web-2", "web-3"])])
def test_sets(count: Any, names: List[str]) -> None:
    made = items(vm_count=count)
    assert [i["name"] for i in made] == names
    assert [i.get("index") for i in made] == ([None] if count is None else list(range(1, len(names) + 1)))
    assert {i.get("set") for i in made} == ({None} if count is None else {"web"})


def test_groups_and_namespaces() -> None:
    made = items(vm_group="acme", vm_count=2, vm_image="debian:12")
    assert [(i["name"], i["seed"]["hostname"], i["group"], i["namespace"]) for i in made] == [
        ("web-1.default.acme", "web-1", "acme", "default"), ("web-2.default.acme", "web-2", "acme", "default")]
    assert items(vm_group="acme", vm_namespace="test")[0]["name"] == "web.test.acme"
    assert made[0]["default_nics"] == [{"network": "acme"}], "a group's own network is the default of its VMs"


@pytest.mark.parametrize("name, reason", [
    ("", "empty"), ("web_1", "RFC 1123"), ("web 1", "RFC 1123"), ("web/1", "RFC 1123"), ("w" * 64, "63"), ("wéb", "RFC 1123"), ("-web", "RFC 1123"),
    ("Web", "RFC 1123"), ("web.a.b", "RFC 1123"), ("東京", "RFC 1123"), ("web\n", "RFC 1123"),
])
def test_bad_names(name: str, reason: str) -> None:
    exc = refusal(vm_name=name)
    assert exc.option == "vm_name" and reason in exc.reason


@pytest.mark.parametrize("name", ["Win_Server", "web.example.org", "web 1", "東京", "-web"])
def test_any_name_is_taken_over_and_removed(name: str) -> None:
    assert items(vm_name=name, vm_adopt=True)[0]["name"] == name
    assert items(vm_name=name, vm_state="absent")[0]["name"] == name
    assert refusal(vm_name=name, vm_adopt=True, vm_count=2).option == "vm_name", "members of a set have a label"
    assert refusal(vm_name=name).option == "vm_name"


@pytest.mark.parametrize("given, reason", [
    ({"vm_name": "web[1]"}, "patterns"), ({"vm_name": "a/b"}, "slash"), ({"vm_name": " web"}, "blank"), ({"vm_name": "a.b", "vm_group": "acme"}, "RFC 1123"),
])
def test_names_that_cannot_be_taken_over(given: Dict[str, Any], reason: str) -> None:
    assert reason in refusal(vm_adopt=True, **given).reason


def test_the_number_counts_to_the_length_of_a_name() -> None:
    assert items(vm_name="w" * 61, vm_count=9)[0]["name"] == "w" * 61 + "-1"
    assert refusal(vm_name="w" * 61, vm_count=10).option == "vm_name"


@pytest.mark.parametrize("given, option, part", [
    ({"vm_memory": "0"}, "vm_memory", "unit"), ({"vm_memory": "0MiB"}, "vm_memory", "smallest"), ({"vm_memory": "-1GiB"}, "vm_memory", "smallest"),
    ({"vm_memory": "2"}, "vm_memory", "no unit"), ({"vm_memory": "lots"}, "vm_memory", "not a size"), ({"vm_memory": 2048}, "vm_memory", "no unit"),
    ({"vm_vcpus": "0"}, "vm_vcpus", "range"), ({"vm_vcpus": "-2"}, "vm_vcpus", "range"), ({"vm_vcpus": "two"}, "vm_vcpus", "number"),
    ({"vm_vcpus": 4, "vm_max_vcpus": 2}, "vm_max_vcpus", "less"), ({"vm_memory": "2GiB", "vm_max_memory": "1GiB"}, "vm_max_memory", "less"),
    ({"vm_vcpus_request": "many"}, "vm_vcpus_request", "number"), ({"vm_memory_request": "1"}, "vm_memory_request", "unit"),
    ({"vm_disk": "20"}, "vm_disk", "unit"), ({"vm_disk": "0GiB"}, "vm_disk", "smallest"), ({"vm_disks": "5"}, "vm_disks[0].size", "unit"),
    ({"vm_disks": "[{sise: 5GiB}]"}, "vm_disks[0].sise", "not a key"), ({"vm_disks": "[{name: root, size: 5GiB}]"}, "vm_disks", "one name"),
    ({"vm_disks": "[{name: seed, size: 5GiB}]"}, "vm_disks", "seed"), ({"vm_disks": "[{pool: a, volume: b, size: 1GiB}]"}, "vm_disks[0].volume", "together"),
    ({"vm_count": "0"}, "vm_count", "range"), ({"vm_count": "-3"}, "vm_count", "range"), ({"vm_count": "three"}, "vm_count", "number"),
    ({"vm_image": "debian:13"}, "vm_image", "no such image"), ({"vm_flavor": "smal"}, "vm_flavor", "no such flavor"),
    ({"vm_image": "debian:12", "vm_disk": "1GiB"}, "vm_disk", "too small for image"),
    ({"vm_image": "debian:12", "vm_memory": "128MiB"}, "vm_memory", "less than image"),
    ({"vm_image": "debian:12", "vm_flavor": "tiny", "vm_memory": "1GiB"}, "vm_disk", "too small"),
    ({"vm_image": "win:11", "vm_vcpus": 1}, "vm_vcpus", "less than image"), ({"vm_image": "debian:12", "vm_arch": "aarch64"}, "vm_arch", "is for x86_64"),
    ({"vm_mac": "52:54:00:00:00"}, "vm_mac", "not a MAC"), ({"vm_mac": "53:54:00:00:00:01"}, "vm_mac", "multicast"),
    ({"vm_mac": "52:54:00:00:00:01", "vm_count": 2}, "vm_mac", "2 VMs"),
    ({"vm_networks": "[{network: open, mac: 52:54:00:00:00:01}, {network: open, mac: 52-54-00-00-00-01}]"}, "vm_networks[1].mac", "also that of"),
    ({"vm_network": "lan", "vm_ip": "10.0.0.256"}, "vm_ip", ""), ({"vm_network": "lan", "vm_ip": "10.0.1.5"}, "vm_ip", "outside network lan"),
    ({"vm_network": "lan", "vm_ip": "10.0.0.0"}, "vm_ip", "network or broadcast"),
    ({"vm_network": "lan", "vm_ip": "10.0.0.255"}, "vm_ip", "network or broadcast"),
    ({"vm_network": "lan", "vm_ip": "10.0.0.1"}, "vm_ip", "gateway"), ({"vm_network": "lan", "vm_ip": "10.0.0.5/33"}, "vm_ip", ""),
    ({"vm_network": "open", "vm_ip": "10.0.0.5"}, "vm_ip", "no prefix"), ({"vm_network": "open", "vm_ip": "127.0.0.5/8"}, "vm_ip", "loopback"),
    ({"vm_network": "lan", "vm_ip": "10.0.0.250", "vm_count": 9}, "vm_ip", "room for 5"),
    ({"vm_network": "open", "vm_ip": "10.0.0.253/24", "vm_count": 3}, "vm_ip", "room for 2"),
    ({"vm_network": "open", "vm_ip": "10.0.0.5/24", "vm_gateway": "10.9.0.1"}, "vm_gateway", "outside"),
    ({"vm_network": "open", "vm_ip": "10.0.0.5/24", "vm_gateway": "10.0.0.5"}, "vm_gateway", "own address"),
    ({"vm_network": "open", "vm_gateway": "10.0.0.1"}, "vm_gateway", "without a static address"),
    ({"vm_network": "lan", "vm_ip": "10.0.0.5", "vm_nameservers": "dns"}, "vm_nameservers", ""),
    ({"vm_networks": "[{network: open, ip: 10.0.0.5/24}, {network: open, ip: 10.0.0.5/24}]"}, "vm_networks[1].addresses", "also on"),
    ({"vm_networks": "[{network: open, ip: 10.0.0.5/24}]", "vm_ip": "10.0.0.6/24"}, "vm_ip", "together"),
    ({"vm_networks": "[{netwrk: open}]"}, "vm_networks[0].netwrk", "not a key"),
    ({"vm_networks": "[{mac: 52:54:00:00:00:01}]"}, "vm_networks[0].network", "missing"),
    ({"vm_networks": "open", "vm_network": "lan"}, "vm_networks", "together"), ({"vm_network": "lann"}, "vm_network", "no such network"),
    ({"vm_networks": "open,lann"}, "vm_networks[1].network", "no such network"), ({"vm_storage_class": "sdd"}, "vm_storage_class", "no such storage class"),
    ({"vm_disks": "[{size: 1GiB, storage_class: x}]"}, "vm_disks[0].storage_class", "no such storage class"),
    ({"vm_namespace": "test"}, "vm_namespace", "without a group"), ({"vm_group": "acmee"}, "vm_group", "no such group"),
    ({"vm_group": "frozen"}, "vm_group", "locked"), ({"vm_group": "gone"}, "vm_group", "disabled"),
    ({"vm_network": "acme"}, "vm_network", "reserved"), ({"vm_image": "secret:1"}, "vm_image", "reserved"),
    ({"vm_image": "root:1", "vm_group": "acme"}, "vm_image", "administrators"),
    ({"vm_hostname": "a", "vm_count": 2}, "vm_hostname", "2 VMs"), ({"vm_hostname": "a_b"}, "vm_hostname", "RFC 1123"),
    ({"vm_clone": "full"}, "vm_clone", "no image"), ({"vm_spread": "rack"}, "vm_spread", "nothing to spread"),
    ({"vm_boot": "hd,hd"}, "vm_boot", "twice"), ({"vm_boot": "usb"}, "vm_boot", "not possible"), ({"vm_labels": "a b=c"}, "vm_labels.a b", "label"),
    ({"vm_secure_boot": "true", "vm_firmware": "bios"}, "vm_secure_boot", "UEFI"), ({"vm_description": "a\x00b"}, "vm_description", "control"),
    ({"vm_image": "debian:12", "vm_user_data": "#cloud-config\na: [b"}, "vm_user_data", "not valid YAML"),
    ({"vm_image": "debian:12", "vm_user_data": "#cloud-config\n- a"}, "vm_user_data", "instead of a mapping"),
    ({"vm_image": "debian:12", "vm_user_data": "/nowhere/user-data"}, "vm_user_data", "cannot be read"),
    ({"vm_image": "debian:12", "vm_user_data": "hello\nworld"}, "vm_user_data", "does not begin"),
    ({"vm_image": "debian:12", "vm_users": "al ice"}, "vm_users[0].name", "user name"),
    ({"vm_image": "debian:12", "vm_users": "[{name: a, pasword: x}]"}, "vm_users[0].pasword", "not a key"),
    ({"vm_image": "debian:12", "vm_write_files": "[{path: a}]"}, "vm_write_files[0].path", "absolute"),
    ({"vm_image": "debian:12", "vm_write_files": "[{path: /a, mode: x}]"}, "vm_write_files[0].mode", "not a key"),
    ({"vm_image": "debian:12", "vm_timezone": "Middle Earth"}, "vm_timezone", "time zone"),
    ({"vm_image": "debian:12", "vm_root_password": "a\nb"}, "vm_root_password", ""),
    ({"vm_image": "win:11", "vm_packages": "vim"}, "vm_packages", "seed"),
    ({"vm_image": "debian:12", "vm_seed_format": "none", "vm_users": "a"}, "vm_users", "seed"),
    ({"vm_state": "absent", "vm_memory": "1GiB"}, "vm_memory", "absent"), ({"vm_state": "absent", "vm_image": "debian:12"}, "vm_image", "absent"),
    ({"vm_state": "absent", "vm_disks": "1GiB"}, "vm_disks", "absent"), ({"vm_state": "absent", "vm_user_data": "#!/bin/sh"}, "vm_user_data", "absent"),
    ({"vm_host": "kvm2"}, "vm_host", "no such host"), ({"vm_zone": "east"}, "vm_zone", "zone"), ({"vm_region": "moon"}, "vm_region", "region"),
])
def test_bad_input_is_refused_in_the_users_words(given: Dict[str, Any], option: str, part: str) -> None:
    exc = refusal(**given)
    assert exc.option == option
    assert part in str(exc)


def test_consecutive_addresses() -> None:
    made = items(vm_network="lan", vm_ip="10.0.0.10", vm_count=3, vm_image="debian:12")
    assert [i["nics"] for i in made] == [[{"bridge": "br0", "addresses": ["10.0.0.{0}/24".format(10 + n)], "gateway": "10.0.0.1", "mtu": 9000,
                                           "nameservers": ["10.0.0.2", "10.0.0.3"], "search": ["lan.test"]}] for n in range(3)]


def test_two_families() -> None:
    made = items(vm_network="v6", vm_ip="10.1.0.5,fd00::5", vm_count=2, vm_image="debian:12")
    assert [i["nics"][0]["addresses"] for i in made] == [["10.1.0.5/24", "fd00::5/64"], ["10.1.0.6/24", "fd00::6/64"]]


@settings(deadline=None)
@given(st.integers(1, 254), st.integers(1, 300))
def test_addresses_are_the_networks_or_refused(first: int, count: int) -> None:
    try:
        made = items(vm_network="open", vm_ip="10.7.0.{0}/24".format(first), vm_count=count, vm_image="debian:12")
    except SpecError as exc:
        assert exc.option == "vm_ip" and first + count - 1 > 254
        return
    addresses = [ipaddress.ip_interface(i["nics"][0]["addresses"][0]) for i in made]
    assert [int(a.ip) & 255 for a in addresses] == list(range(first, first + count))
    assert all(a.network == ipaddress.ip_network("10.7.0.0/24") and a.ip != a.network.broadcast_address for a in addresses)


def test_a_gateway_in_the_way_is_refused() -> None:
    catalogs = dict(CATALOGS, kvmfleet_networks={"lan": {"cidr": "10.0.0.0/24", "gateway": "10.0.0.12"}})
    values = _variables.read("create", {"vm_name": "web", "vm_network": "lan", "vm_ip": "10.0.0.10", "vm_count": 5})
    with pytest.raises(SpecError, match="is the gateway"):
        _request.build(values, Catalogs(catalogs), [HOST], Keys())


def test_sizes_come_from_variable_flavor_image_in_this_order() -> None:
    made = items(vm_flavor="small", vm_memory="3GiB", vm_image="debian:12")[0]
    assert (made["vcpus"], made["memory"], made["disks"][0]["size"]) == (1, "3GiB", "8GiB")
    assert [d.get("size") for d in items(vm_flavor="data")[0]["disks"]] == [None, "50GiB"]
    assert items()[0]["disks"][0]["default_size"] == "10GiB"
    assert items(vm_disk="7GiB", vm_flavor="small")[0]["disks"][0]["size"] == "7GiB"
    assert "memory" not in items()[0] and "vcpus" not in items()[0], "what nobody asked for stays as it is on an existing VM"


def test_disks_by_storage_class() -> None:
    made = items(vm_storage_class="ssd", vm_disks="[1GiB, {size: 2GiB, pool: own}, {name: logs, size: 3GiB, bus: scsi}]")[0]
    assert [(d["name"], d["pool"], d.get("size")) for d in made["disks"]] == [
        ("root", "fast", None), ("data", "fast", "1GiB"), ("data2", "own", "2GiB"), ("logs", "fast", "3GiB")]


def test_users_get_the_key_they_could_not_do_without() -> None:
    users = items(vm_image="debian:12", vm_users='alice,bob')[0]["seed"]["users"]
    assert users == [{"name": "alice", "ssh_authorized_keys": [KEY]}, {"name": "bob", "ssh_authorized_keys": [KEY]}]
    users = items(vm_image="debian:12", vm_users=json.dumps([{"name": "carol", "password_hash": "$6$a$b"}]))[0]["seed"]["users"]
    assert "ssh_authorized_keys" not in users[0]


def test_user_data_from_text_and_file(tmp_path: Any) -> None:
    text = "#cloud-config\npackages: [vim]\n"
    (tmp_path / "user-data").write_text(text)
    for given_as in (text, str(tmp_path / "user-data")):
        assert items(vm_image="debian:12", vm_user_data=given_as)[0]["seed"]["user_data"] == text


def test_no_refusal_shows_a_secret() -> None:
    for given_as in ({"vm_root_password": "geheim\nx"}, {"vm_user_data": "#cloud-config\ngeheim: [geheim"},
                     {"vm_write_files": '[{"path": "x", "content": "geheim"}]'},
                     {"vm_users": '[{"name": "a", "password": "geheim", "password_hash": "geheim"}]'},
                     {"vm_state": "absent", "vm_user_data": "#!/bin/sh\ngeheim"}):
        assert "geheim" not in str(refusal(**dict({"vm_image": "debian:12"} if "vm_state" not in given_as else {}, **given_as)))


def test_images_without_cloud_init_get_no_seed() -> None:
    made = items(vm_image="win:11")[0]
    assert "seed" not in made and made["firmware"] == "efi"
    assert "seed" not in items()[0]
    assert items(vm_seed_format="config_drive")[0]["seed"]["format"] == "config_drive"


@pytest.mark.parametrize("entry, seed", [
    ({"os_type": "windows"}, False), ({"os_type": "other"}, False), ({"os_type": "windows", "cloud_init": True}, True), ({"os_type": "bsd"}, True), ({}, True),
])
def test_the_kind_of_system_decides_on_the_seed_where_the_entry_does_not(entry: Dict[str, Any], seed: bool) -> None:
    assert _request.wants_seed(_variables.read("create", {"vm_name": "web", "vm_image": "any:1"}), entry) is seed


def test_a_kind_of_system_that_is_none_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        Catalogs({"kvmfleet_images": {"a:1": {"os_type": "linus"}}}).entry("kvmfleet_images", "a:1")
    assert caught.value.option == "kvmfleet_images.a:1.os_type"


def test_absent() -> None:
    assert items(vm_state="absent", vm_count=2, vm_delete_disks="no") == [
        {"name": "web-1", "state": "absent", "delete_disks": False}, {"name": "web-2", "state": "absent", "delete_disks": False}]


def test_hosts_by_name_zone_and_region() -> None:
    east, west = Host("kvm1", zone="east"), Host("kvm2", zone="west", region="eu")
    assert [h.name for h in _request.candidates([east, west], _request.Constraints(zone="east"))] == ["kvm1"]
    assert [h.name for h in _request.candidates([east, west], _request.Constraints(region="eu"))] == ["kvm2"]
    assert [h.name for h in _request.candidates([east, west], _request.Constraints(host="kvm2"))] == ["kvm2"]
    assert len(_request.candidates([east, west], _request.Constraints())) == 2
    with pytest.raises(SpecError, match="Perhaps west was meant"):
        items(hosts=[east, west], vm_zone="wst")


def test_a_request_is_checked_on_a_host_that_can_take_it() -> None:
    """What only one of the hosts has is no fault of the request."""
    catalogs = dict(CATALOGS, kvmfleet_storage_classes={"ssd": {}})
    values = _variables.read("create", {"vm_name": "web", "vm_storage_class": "ssd"})
    both = [Host("kvm1"), Host("kvm2", storage_classes={"ssd": "fast"})]
    requests = _request.build(values, Catalogs(catalogs), both, Keys())
    assert _request.sample_items(requests, both, Catalogs(catalogs))[0]["disks"][0]["pool"] == "fast"
    with pytest.raises(SpecError, match="kvm1 has no pool of this storage class"):
        _request.sample_items(requests, both[:1], Catalogs(catalogs))


@pytest.mark.parametrize(("given", "option", "said"), [
    ({"vm_weights": "memory=2"}, "vm_weights", "vm_strategy=spread"), ({"vm_strategy": "weights"}, "vm_weights", "missing"),
    ({"vm_strategy": "weights", "vm_weights": "ram=2"}, "vm_weights.ram", "not a resource"),
    ({"vm_strategy": "weights", "vm_weights": "memory=much"}, "vm_weights.memory", "not a number"),
    ({"vm_affinity": "web 1"}, "vm_affinity", "neither"), ({"vm_soft_anti_affinity": "=x"}, "vm_soft_anti_affinity", "neither"),
    ({"vm_reserve_failures": "2"}, "vm_reserve_failures", "range"), ({"vm_max_per_host": "0"}, "vm_max_per_host", "range"),
])
def test_rules_of_placement_are_checked_at_the_door(given: Dict[str, Any], option: str, said: str) -> None:
    error = refusal(**given)
    assert error.option == option and said in str(error)


@pytest.mark.parametrize("given, wait", [
    ({"vm_image": "debian:12"}, "address"), ({}, "none"), ({"vm_state": "stopped", "vm_image": "debian:12"}, "none"), ({"vm_wait": "ssh"}, "ssh"),
    ({"vm_wait": "none", "vm_image": "debian:12"}, "none"), ({"vm_state": "present", "vm_wait": "ssh"}, "ssh"),
])
def test_what_is_waited_for(given: Dict[str, Any], wait: str) -> None:
    assert _request.default_wait(_variables.read("create", dict({"vm_name": "web"}, **given))) == wait


def test_waiting_for_what_cannot_come_is_refused() -> None:
    with pytest.raises(SpecError, match="cannot come true"):
        _request.default_wait(_variables.read("create", {"vm_name": "web", "vm_state": "stopped", "vm_wait": "ssh"}))


@pytest.mark.parametrize("given, names, patterns", [
    ({"vm_name": "web"}, ["web"], []), ({"vm_name": "web,db"}, ["web", "db"], []), ({"vm_name": "web", "vm_count": "2"}, ["web-1", "web-2"], []),
    ({"vm_name": "web-*"}, [], ["web-*"]), ({"vm_name": "web", "vm_group": "acme"}, ["web.default.acme"], []),
    ({"vm_name": "web-*", "vm_group": "acme"}, [], ["web-*.*.acme"]), ({"vm_name": "web.test.acme"}, ["web.test.acme"], []), ({"vm_group": "acme"}, [], []),
    ({"vm_name": "Win_Server,web.example.org"}, ["Win_Server", "web.example.org"], []), ({"vm_name": ["My VM"]}, ["My VM"], []),
    ({"vm_name": "Win*"}, [], ["Win*"]),
    ({"vm_name": "Win_1", "vm_group": "acme"}, ["Win_1.default.acme"], []), ({"vm_name": "-x"}, ["-x"], []),
])
def test_selectors(given: Dict[str, Any], names: List[str], patterns: List[str]) -> None:
    selection = _request.select(_variables.read("delete", given))
    assert (selection.names, selection.patterns) == (names, patterns)
    assert selection.exact is bool(names)


@pytest.mark.parametrize("given, option", [
    ({"vm_name": "web/1"}, "vm_name"), ({"vm_name": "web,web"}, "vm_name"), ({"vm_name": "web-*", "vm_count": 2}, "vm_count"),
    ({"vm_name": "Web", "vm_count": 2}, "vm_name"), ({"vm_name": "a.b", "vm_group": "acme"}, "vm_name"), ({"vm_name": ["a\tb"]}, "vm_name"),
    ({"vm_count": 2}, "vm_count"), ({"vm_namespace": "a"}, "vm_namespace"), ({"vm_name": "web/*"}, "vm_name"), ({"vm_name": ["web*\n"]}, "vm_name"),
])
def test_bad_selectors(given: Dict[str, Any], option: str) -> None:
    with pytest.raises(SpecError) as caught:
        _request.select(_variables.read("delete", given))
    assert caught.value.option == option


@pytest.mark.parametrize("given", [{"vm_network": "lan"}, {"vm_networks": ["lan"]}, {"vm_ip": "10.0.0.9/24"}, {"vm_mac": "52:54:00:00:00:01"},
                                   {"vm_nameservers": "10.0.0.2"}])
def test_nics_are_for_new_vms_only_unless_asked_for(given: Dict[str, Any]) -> None:
    assert "nics" not in items()[0] and len(items()[0]["default_nics"]) == 1
    asked = items(**given)[0]
    assert "default_nics" not in asked and len(asked["nics"]) == 1


@pytest.mark.parametrize("confirm, count, good", [(None, 0, True), (None, 1, True), (None, 2, False), (2, 2, True), (3, 2, False), (3, 0, True), (2, 1, False)])
def test_bulk_deletes_are_confirmed(confirm: Any, count: int, good: bool) -> None:
    if good:
        _request.check_confirm({"vm_confirm": confirm}, count)
        return
    with pytest.raises(SpecError, match="vm_confirm={0}".format(count)):
        _request.check_confirm({"vm_confirm": confirm}, count)


def test_defaults_are_beyond_doubt() -> None:
    assert _request.DEFAULT_DISK == 10 * GIB


def test_vms_that_nobody_has_named_are_named_before_they_go() -> None:
    with pytest.raises(SpecError, match=r"5 VMs \(a, b, c and 2 more\) would be deleted") as told:
        _request.check_confirm({"vm_confirm": None}, 5, ["a", "b", "c", "d", "e"])
    assert told.value.code == "not_confirmed"
