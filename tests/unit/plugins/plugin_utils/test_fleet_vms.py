# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs as hosts of an inventory: names, groups, addresses, the way to them."""
from __future__ import annotations

import re
import shlex
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Host
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet_vms import (
    best_address, groups_of, inventory_names, jump_arguments, jump_through, needs_jump, reachable_sources, safe_group, safe_host, variables_of)

NETWORKS = [
    {"name": "default", "forward": "nat", "subnets": ["192.168.122.1/255.255.255.0"]},
    {"name": "closed", "forward": "isolated", "subnets": ["10.9.0.1/24", "fd00::1/64"]},
    {"name": "routed", "forward": "route", "subnets": ["203.0.113.1/24"]},
    {"name": "lan-net", "forward": "bridge", "subnets": []},
]


@given(st.text(min_size=1))
def test_any_name_makes_a_group_and_a_host_that_ansible_takes(name: str) -> None:
    assert re.match("^[A-Za-z_][A-Za-z0-9_]*$", safe_group(name))
    safe = safe_host(name)
    assert safe and not re.search(r"[\s{}\[\]:,!&*?~/%$'\"@]", safe) and not safe.startswith(("-", "."))


def test_groups_of_a_vm() -> None:
    host = Host("kvm1", region="eu-1", zone="a/b")
    vm = {"state": "running", "group": "blue", "image": "debian:12", "labels": {"app": "web 1", "tls": ""}}
    assert groups_of(vm, host) == ["region_eu_1", "zone_a_b", "state_running", "group_blue", "image_debian_12", "label_app_web_1", "label_tls"]
    assert groups_of({"state": "stopped"}, Host("kvm1")) == ["state_stopped"]


def test_names_that_are_taken() -> None:
    vms = [("kvm1", "web"), ("kvm2", "web"), ("kvm1", "db"), ("kvm1", "kvm2"), ("kvm2", "LOCALHOST"), ("kvm1", "zone_a"), ("kvm1", "a b"), ("kvm1", "a_b")]
    names, sentences = inventory_names(vms, {"kvm1", "kvm2", "zone_a", "web-on-kvm2"})
    assert names == {("kvm1", "web"): "web-on-kvm1", ("kvm2", "web"): "web-on-kvm2-2", ("kvm1", "db"): "db", ("kvm1", "kvm2"): "kvm2-on-kvm1",
                     ("kvm2", "LOCALHOST"): "LOCALHOST-on-kvm2", ("kvm1", "zone_a"): "zone_a-on-kvm1", ("kvm1", "a b"): "a_b-on-kvm1",
                     ("kvm1", "a_b"): "a_b-on-kvm1-2"}
    assert len(sentences) == 7 and sentences[0] == "web on kvm1 is web-on-kvm1"


@given(st.lists(st.tuples(st.sampled_from(["k1", "k2"]), st.sampled_from(["a", "b", "a-on-k1", "a-on-k2", "a b", "A"])), unique=True),
       st.sets(st.sampled_from(["a", "b", "a-on-k1", "a-on-k1-2", "k1"])))
def test_no_two_hosts_have_one_name(vms: Any, taken: Any) -> None:
    names, _sentences = inventory_names(vms, taken)
    assert set(names) == set(vms)
    assert len(set(names.values())) == len(vms)
    assert not set(names.values()) & taken


def vm(nics: List[Dict[str, str]], address: str, mac: Optional[str] = None) -> Dict[str, Any]:
    return {"nics": nics, "found_addresses": [{"address": address, "mac": mac, "family": "ipv4"}]}


NAT, CLOSED = {"mac": "m1", "type": "network", "source": "default"}, {"mac": "m2", "type": "network", "source": "closed"}
LAN, BRIDGE = {"mac": "m3", "type": "network", "source": "lan-net"}, {"mac": "m4", "type": "bridge", "source": "br0"}


@pytest.mark.parametrize("nics, address, mac, catalog, jump", [
    ([NAT], "192.168.122.5", "m1", {}, True),
    ([NAT], "192.168.122.5", None, {}, True),
    ([CLOSED], "10.9.0.2", None, {}, True),
    ([CLOSED], "fd00::2", None, {}, True),
    ([BRIDGE], "192.0.2.5", None, {}, False),
    ([LAN], "192.0.2.5", "m3", {}, False),
    ([LAN, NAT], "192.168.122.5", None, {}, True),      # by the subnet
    ([NAT, LAN], "192.0.2.5", "m3", {}, False),         # by the MAC
    ([{"mac": "m5", "type": "network", "source": "routed"}], "203.0.113.5", None, {}, False),
    ([], "192.0.2.5", None, {}, False),
    ([NAT], "192.168.122.5", None, {"default": True}, False),
    ([NAT], "192.168.122.5", None, {"other": False}, True),
    ([BRIDGE], "192.0.2.5", None, {"lan": False}, True),
    ([BRIDGE], "192.0.2.5", None, {"lan": True}, False),
    ([BRIDGE], "192.0.2.5", None, {"other": False, "broken": False}, False),
])
def test_which_addresses_need_a_jump(nics: Any, address: str, mac: Any, catalog: Any, jump: bool) -> None:
    host = Host("kvm1", networks={"lan": {"bridge": "br0"}, "broken": {"bridge": "a", "network": "b"}})
    one = vm(nics, address, mac)
    assert needs_jump(one, one["found_addresses"][0], NETWORKS, reachable_sources(host, catalog)) is jump


def test_arguments_of_the_jump() -> None:
    assert jump_arguments("kvm1") == "-o ProxyJump=kvm1"
    assert shlex.split(jump_arguments("2001:db8::7", "root", 2222)) == ["-o", "ProxyJump=root@[2001:db8::7]:2222"]
    words = shlex.split(jump_arguments("kvm1", "root", 2222, "/k/id 1%"))
    assert words[0] == "-o" and words[1].startswith("ProxyCommand=")
    assert shlex.split(words[1][len("ProxyCommand="):]) == ["ssh", "-W", "[%h]:%p", "-i", "/k/id 1%%", "-p", "2222", "-l", "root", "kvm1"]
    assert "StrictHostKeyChecking=no" in jump_arguments("kvm1", verify=False)


@pytest.mark.parametrize("connection, words", [
    ({}, "-o ProxyJump=kvm1"), ({"ansible_connection": "local"}, None), ({"ansible_connection": "ansible.builtin.local"}, None),
    ({"ansible_host": "10.0.0.1", "ansible_user": "root", "ansible_port": 22}, "-o ProxyJump=root@10.0.0.1:22"),
    ({"ansible_ssh_private_key_file": "/k"}, "-o 'ProxyCommand=ssh -W [%h]:%p -i /k kvm1'"),
    ({"ansible_ssh_common_args": "-o ProxyJump=bastion", "ansible_ssh_extra_args": "-o UserKnownHostsFile=/k/h"},
     "-o 'ProxyCommand=ssh -W [%h]:%p -o ProxyJump=bastion -o UserKnownHostsFile=/k/h kvm1'"),
    ({"ansible_ssh_common_args": "-o 'ProxyCommand=nc %h %p'"}, """-o 'ProxyCommand=ssh -W [%h]:%p -o '"'"'ProxyCommand=nc %%h %%p'"'"' kvm1'"""),
])
def test_the_way_through_a_host(connection: Any, words: Optional[str]) -> None:
    assert jump_through("kvm1", connection) == words


def test_a_way_that_cannot_be_read() -> None:
    with pytest.raises(SpecError, match="ansible_ssh_common_args of host kvm1"):
        jump_through("kvm1", {"ansible_ssh_common_args": "-o 'ProxyJump"})


@pytest.mark.parametrize("addresses, best", [
    ([], None), (["192.0.2.1"], "192.0.2.1"), (["{{ evil }}", "2001:db8::1"], "2001:db8::1"), (["fe80::1%{{ evil }}"], None), (["127.0.0.1", "::1"], None),
])
def test_only_an_address_is_one(addresses: List[str], best: Optional[str]) -> None:
    found = best_address({"found_addresses": [{"address": address, "mac": None} for address in addresses]})
    assert (found or {}).get("address") == best


def test_variables_of_a_vm() -> None:
    said, ours = variables_of({"name": "web", "uuid": "u", "state": "running", "managed": True, "vcpus": 2, "memory_configured_mib": 512, "memory_mib": 700,
                               "labels": {"a": "b"}, "networks": [], "group": None, "description": "", "index": 0, "ticket": "secret", "macs": ["m"],
                               "found_addresses": [{"address": "192.0.2.1", "mac": None}]}, Host("kvm1", zone="a"))
    assert said == {"kvm_vm_name": "web", "kvm_vm_uuid": "u", "kvm_vm_labels": {"a": "b"}, "kvm_vm_index": 0, "kvm_vm_addresses": ["192.0.2.1"]}
    assert ours == {"kvm_vm_host": "kvm1", "kvm_vm_zone": "a", "kvm_vm_state": "running", "kvm_vm_managed": True, "kvm_vm_vcpus": 2, "kvm_vm_memory_mib": 512}
