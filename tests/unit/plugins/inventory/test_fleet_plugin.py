# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin with hosts that are made up: remote ones, jumps, variables beside the file. Without libvirt."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

import pytest
import yaml

from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.utils.display import Display

from ansible_collections.kvmfleet.core.plugins.inventory import fleet as plugin
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _fleet
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet import Reading, Target

FACTS = {
    "vcpus": {"total": 8, "reserved": 0, "ratio": 4.0, "allocated": 0, "used": 0, "available": 32},
    "memory": {"total_mib": 8192, "reserved_mib": 0, "ratio": 1.0, "allocated_mib": 0, "used_mib": 0, "available_mib": 8192}, "pools": {},
    "networks": [{"name": "default", "active": True, "bridge": "virbr0", "forward": "nat", "subnets": ["192.168.122.1/24"]}], "guests": {"x86_64": {}},
}


def vm(name: str, address: str = "192.168.122.5", **more: Any) -> Dict[str, Any]:
    """What a host says of a VM."""
    return dict({"name": name, "uuid": "uuid of " + name, "managed": True, "state": "running", "labels": {}, "vcpus": 1, "memory_configured_mib": 64,
                 "vcpus_milli": 1000, "memory_mib": 200, "nics": [{"mac": "m", "type": "network", "source": "default"}],
                 "found_addresses": [{"address": address, "mac": "m", "family": "ipv4"}]}, **more)


@pytest.fixture(autouse=True)
def host_keys_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is by default, and not in ansible-test."""
    monkeypatch.setattr(plugin.C, "HOST_KEY_CHECKING", True)


class Fleet:
    """A fleet file in a folder, and what its hosts say."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.vms, self.silent = folder, {}, []  # type: ignore[var-annotated]
        self.targets: List[Target] = []
        self.inventory = InventoryData()
        self.extra: Dict[str, Any] = {}

    def read(self, targets: Sequence[Target], timeout_s: float, workers: Any = None) -> Dict[str, Reading]:
        """In place of _fleet.read_fleet."""
        self.targets = list(targets)
        return {t.name: Reading(error="dead") if t.name in self.silent else
                Reading(dict(FACTS, hostname=t.name), [vm(name) if isinstance(name, str) else name for name in self.vms.get(t.name, [])]) for t in targets}

    def parse(self, hosts: Mapping[str, Any], **more: Any) -> InventoryData:
        """The inventory of a file with these hosts."""
        path = self.folder / "fleet.yml"
        path.write_text(yaml.safe_dump(dict({"plugin": "kvmfleet.core.fleet", "hosts": hosts}, **more), sort_keys=False))
        made = plugin.InventoryModule()
        made._load_name = made._original_path = made.ansible_name = "kvmfleet.core.fleet"
        made._redirected_names = ["kvmfleet.core.fleet"]
        made.set_options = lambda direct, var_options: made._options.update({key: direct.get(key) for key in OPTIONS})  # type: ignore[method-assign]
        made.get_option = lambda option, hostvars=None: made._options.get(option)  # type: ignore[method-assign]
        made.parse(self.inventory, DataLoader(), str(path))
        return self.inventory

    def variables(self, name: str) -> Dict[str, Any]:
        """What the inventory says of a host."""
        return dict(self.inventory.hosts[name].vars)


OPTIONS = ("compose", "groups", "keyed_groups", "strict", "leading_separator", "use_extra_vars", "cache", "cache_timeout")


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """See L(Fleet)."""
    made = Fleet(tmp_path)
    monkeypatch.setattr(_fleet, "read_fleet", made.read)
    monkeypatch.setattr(plugin, "HAS_LIBVIRT", True)
    return made


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """What is warned of."""
    said: List[str] = []
    monkeypatch.setattr(Display, "warning", lambda self, msg, *args, **kwargs: said.append(str(msg)))
    return said


def test_how_remote_hosts_and_their_vms_are_reached(fleet: Fleet) -> None:
    fleet.vms = {"kvm1": ["web", vm("bridged", nics=[{"mac": "m", "type": "bridge", "source": "br0"}])], "kvm2": ["db"], "here": ["own"]}
    fleet.parse({"kvm1": {"uri": "qemu+ssh://root@192.0.2.1:2222/system"}, "kvm2": {"uri": "qemu+ssh://192.0.2.2/session?keyfile=/k"},
                 "here": {"uri": "qemu:///system"}})
    one = fleet.variables("kvm1")
    assert (one["ansible_host"], one["ansible_user"], one["ansible_port"]) == ("192.0.2.1", "root", 2222) and "kvm_uri" not in one
    two = fleet.variables("kvm2")
    assert (two["ansible_ssh_private_key_file"], two["kvm_uri"]) == ("/k", "qemu:///session") and "ansible_connection" not in two
    assert fleet.variables("here")["ansible_connection"] == "local"
    assert fleet.variables("web")["ansible_ssh_common_args"] == "-o ProxyJump=root@192.0.2.1:2222"
    assert "ssh -W" in fleet.variables("db")["ansible_ssh_common_args"] and "-i /k" in fleet.variables("db")["ansible_ssh_common_args"]
    assert not [name for name in ("bridged", "own") if "ansible_ssh_common_args" in fleet.variables(name)]
    assert [target.uri for target in fleet.targets][0] == "qemu+ssh://root@192.0.2.1:2222/system"


def test_hosts_of_other_sources_are_reached_by_their_variables(fleet: Fleet) -> None:
    fleet.inventory.add_group("machines")
    fleet.inventory.add_host("kvm1", group="machines")
    for key, value in {"ansible_host": "192.0.2.1", "ansible_user": "root", "kvm_zone": "east"}.items():
        fleet.inventory.set_variable("kvm1", key, value)
    (fleet.folder / "group_vars").mkdir()
    (fleet.folder / "group_vars" / "machines.yml").write_text("ansible_port: 2222\nansible_ssh_private_key_file: /k\n")
    fleet.vms = {"kvm1": ["web"]}
    fleet.parse({"kvm2": {"zone": "west"}}, hosts_from="machines")
    assert {target.name: target.uri for target in fleet.targets} == {
        "kvm1": "qemu+ssh://root@192.0.2.1:2222/system?keyfile=/k", "kvm2": "qemu+ssh://kvm2/system"}
    assert "-p 2222" in fleet.variables("web")["ansible_ssh_common_args"]
    assert [host.name for host in fleet.inventory.groups["zone_east"].get_hosts()] == ["web"]


def test_a_users_own_ssh_arguments_are_kept(fleet: Fleet) -> None:
    (fleet.folder / "group_vars").mkdir()
    path = fleet.folder / "group_vars" / "kvm_vms.yml"
    path.write_text("ansible_ssh_common_args: -o StrictHostKeyChecking=no\n")
    fleet.vms = {"kvm1": ["web"]}
    hosts = {"kvm1": {"uri": "qemu+ssh://192.0.2.1/system"}}
    fleet.parse(hosts)
    assert fleet.variables("web")["ansible_ssh_common_args"] == "-o StrictHostKeyChecking=no -o ProxyJump=192.0.2.1"
    path.write_text("ansible_ssh_common_args: -o ProxyJump=bastion\n")
    fleet.inventory = InventoryData()
    fleet.parse(hosts)
    assert "ansible_ssh_common_args" not in fleet.variables("web")


def test_a_network_that_is_said_to_be_reachable(fleet: Fleet) -> None:
    (fleet.folder / "group_vars").mkdir()
    (fleet.folder / "group_vars" / "all.yml").write_text("kvmfleet_networks: {default: {reachable: true}}\n")
    fleet.vms = {"kvm1": ["web"]}
    fleet.parse({"kvm1": {"uri": "qemu+ssh://192.0.2.1/system"}})
    assert "ansible_ssh_common_args" not in fleet.variables("web")


def test_silent_hosts_are_told_once_each(fleet: Fleet, warnings: List[str]) -> None:
    fleet.silent = ["kvm1", "kvm2"]
    fleet.parse({name: {"uri": "qemu+ssh://{0}/system".format(name), "zone": "a"} for name in ("kvm1", "kvm2", "kvm3")})
    assert warnings == ["KVM host kvm1 is unreachable: dead", "KVM host kvm2 is unreachable: dead"]
    assert [fleet.variables(name)["kvm_status"] for name in ("kvm1", "kvm2", "kvm3")] == ["unreachable", "unreachable", "ok"]
    assert fleet.variables("kvm1")["kvm_zone"] == "a" and "kvm_capacity" not in fleet.variables("kvm1")
    assert "guests" not in fleet.variables("kvm3")["kvm_capacity"]


def test_a_wrong_file_leaves_the_inventory_as_it_was(fleet: Fleet) -> None:
    twice: Dict[str, Any] = {"kvm1": None, "same": {"uri": "qemu+ssh://kvm1/system"}}
    for hosts, more in (({"kvm1": {"zoone": "a"}}, {}), (twice, {}), ({"kvm1": None}, {"hosts_from": "none"})):
        with pytest.raises(AnsibleParserError, match=r"fleet\.yml, line \d+: hosts"):
            fleet.parse(hosts, **more)
        assert not fleet.inventory.hosts and set(fleet.inventory.groups) <= {"all", "ungrouped"}


def test_what_guests_say_is_marked(fleet: Fleet) -> None:
    fleet.vms = {"kvm1": [vm("web", description="{{ 1 }}", labels={"a": "#{b}", "plain": "blue-1"}, group="[% x %]", image="debian:12")]}
    fleet.parse({"kvm1": {"uri": "qemu:///system"}})
    said = fleet.variables("web")
    try:
        from ansible.template import is_trusted_as_template as evaluated
    except ImportError:
        from ansible.utils.unsafe_proxy import AnsibleUnsafe

        def evaluated(value: object) -> bool:
            return not isinstance(value, AnsibleUnsafe)
    assert not any(evaluated(value) for value in (said["kvm_vm_description"], said["kvm_vm_labels"]["a"], said["kvm_vm_group"]))
    assert (said["kvm_vm_labels"]["plain"], said["kvm_vm_image"]) == ("blue-1", "debian:12")


def test_only_files_that_are_called_so(tmp_path: Path) -> None:
    made = plugin.InventoryModule()
    for name, ours in (("fleet.yml", True), ("my.fleet.yaml", True), ("fleet.ini", False), ("hosts.yml", False)):
        (tmp_path / name).write_text("")
        assert made.verify_file(str(tmp_path / name)) is ours
    assert not made.verify_file(str(tmp_path / "absent.fleet.yml"))
