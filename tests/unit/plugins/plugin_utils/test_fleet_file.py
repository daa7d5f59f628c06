# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet file: what it may hold, and that every fault is named with its line."""
from __future__ import annotations

import json
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _fleet_file
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet_file import FleetFile, identity, line_of, read_fleet_file, without_password

GOOD = """\
plugin: kvmfleet.core.fleet
timeout: 2.5
workers: "8"
defaults: &all
  region: eu
  ratios: {vcpus: 4, memory: 1.0}
hosts:
  kvm1:
    uri: qemu+ssh://root@kvm1/system
    zone: 1:30
    labels: {rack: 07}
    schedulable: no
    groups: red,blue
  kvm2:
    <<: *all
    region: us
  kvm3:
vms:
  - name: web
    count: 3
    spread: zone
"""


def read(text: str) -> FleetFile:
    return read_fleet_file("my.fleet.yml", textwrap.dedent(text))


def refused(body: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read("plugin: kvmfleet.core.fleet\n" + textwrap.dedent(body))
    assert caught.value.code == "invalid_fleet_file"
    return caught.value


def test_what_a_file_says() -> None:
    file = read(GOOD)
    assert (file.timeout_s, file.workers, file.vms_as_hosts, file.managed_only, file.hosts_from) == (2.5, 8, True, False, None)
    assert file.hosts["kvm1"] == {"uri": "qemu+ssh://root@kvm1/system", "zone": "1:30", "labels": {"rack": "07"}, "schedulable": False,
                                  "groups": ["red", "blue"]}
    assert file.hosts["kvm2"] == {"region": "us", "ratios": {"vcpus": 4.0, "memory": 1.0}}
    assert file.hosts["kvm3"] == {}
    assert file.defaults == {"region": "eu", "ratios": {"vcpus": 4.0, "memory": 1.0}}
    assert file.vms == [{"vm_name": "web", "vm_count": 3, "vm_spread": "zone"}]


@pytest.mark.parametrize("body, line, option, words", [
    ("hoosts: {}", 2, "hoosts", "Perhaps hosts was meant"),
    ("hosts: [kvm1]", 2, "hosts", "is not a mapping"),
    ("hosts:\n  kvm1: up", 3, "hosts.kvm1", "is not a mapping"),
    ("hosts:\n  kvm1:\n    zone: a\n    zoone: b", 5, "hosts.kvm1.zoone", "Perhaps zone was meant"),
    ("hosts:\n  kvm1:\n    kvm_zone: b", 4, "hosts.kvm1.kvm_zone", "Perhaps zone was meant"),
    ("hosts:\n  kvm1: {}\n  kvm2: {}\n  kvm1: {}", 5, "hosts.kvm1", "is there twice, in line 3 as well"),
    ("hosts:\n  kvm1:\n    ratios:\n      vcpus: 4\n      cpu: 3", 6, "hosts.kvm1.ratios.cpu", "Perhaps vcpus was meant"),
    ("hosts:\n  kvm1:\n    ratios:\n      vcpus: 0", 5, "hosts.kvm1.ratios.vcpus", "is not positive"),
    ("hosts:\n  kvm1:\n    reserved:\n      memory: 2", 5, "hosts.kvm1.reserved.memory", "has no unit"),
    ("hosts:\n  kvm1:\n    stopped_factor: 2", 4, "hosts.kvm1.stopped_factor", "is not between 0 and 1"),
    ("hosts:\n  kvm1:\n    schedulable: perhaps", 4, "hosts.kvm1.schedulable", "neither true nor false"),
    ("hosts:\n  kvm1:\n    max_vms: -1", 4, "hosts.kvm1.max_vms", "out of range"),
    ("hosts:\n  kvm1:\n    virt_type: xen", 4, "hosts.kvm1.virt_type", "qemu"),
    ("hosts:\n  kvm1:\n    networks:\n      lan: {bridge: a, direct: b}", 5, "hosts.kvm1.networks.lan", "exactly one of"),
    ("hosts:\n  kvm1:\n    pools:\n      ssd: {floor: 20}", 5, "hosts.kvm1.pools.ssd.floor", "has no unit"),
    ("hosts:\n  kvm1:\n    zone: '{{ here }}'", 4, "hosts.kvm1.zone", "is a template"),
    ("hosts:\n  kvm1:\n    zone: [a]", 4, "hosts.kvm1.zone", "is a structure"),
    ("hosts:\n  kvm1:\n    uri: xen:///system", 4, "hosts.kvm1.uri", "is not a libvirt URI"),
    ("hosts:\n  kvm1:\n    uri: qemu+ssh:///system", 4, "hosts.kvm1.uri", "names no machine"),
    ("hosts:\n  kvm1:\n    uri: qemu+ssh://kvm1:x/system", 4, "hosts.kvm1.uri", "is not a libvirt URI"),
    ("hosts:\n  kvm1:\n    uri: qemu+smoke://kvm1/system", 4, "hosts.kvm1.uri", "unknown transport"),
    ("hosts:\n  kvm1: {uri: 'qemu:///system'}\n  kvm2: {uri: 'qemu:///system'}", 4, "hosts.kvm2", "kvm1 and kvm2 are the same host"),
    ("hosts:\n  'kvm[1:3]': {}", 3, "hosts.kvm[1:3]", "cannot be the name of a host"),
    ("hosts:\n  all: {}", 3, "hosts.all", "cannot be the name of a host"),
    ("hosts: {}", 2, "hosts", "names no host"),
    ("hosts: {a: {}}\ndefaults:\n  uri: qemu:///system", 4, "defaults.uri", "cannot be the same"),
    ("hosts: {a: {}}\ntimeout: soon", 3, "timeout", "is not a number of seconds"),
    ("hosts: {a: {}}\ntimeout: 0", 3, "timeout", "is not a number of seconds"),
    ("hosts: {a: {}}\nworkers: none", 3, "workers", "is not a whole number"),
    ("hosts: {a: {}}\nstrict: maybe", 3, "strict", "neither true nor false"),
    ("hosts: {a: {}}\nvms: web", 3, "vms", "is not a list"),
    ("hosts: {a: {}}\nvms:\n  - web", 4, "vms[0]", "is not a mapping"),
    ("hosts: {a: {}}\nvms:\n  - name: a\n  - name: b\n    cont: 3", 6, "vms[1].cont", "Perhaps count was meant"),
    ("hosts: {a: {}}\nvms:\n  - name: a\n    vm_count: 3", 5, "vms[0].vm_count", "Perhaps count was meant"),
    ("hosts: {a: {}}\nvms:\n  - name: a\n    count: 0", 5, "vms[0].count", "out of range"),
    ("hosts: {a: {}}\nvms:\n  - count: 2", 4, "vms[0].name", "is missing"),
    ("hosts: {a: {}}\nvms:\n  - name: a\n  - name: a", 5, "vms[1].name", "declared twice"),
    ("hosts: {a: &x {labels: *x}}", 2, "hosts.a.labels", "refers to itself"),
    ("hosts: {a: {zone: !vault x}}", 2, "hosts.a.zone", "is encrypted"),
    ("hosts: {a: {zone: !!python/name:os.system x}}", 2, "hosts.a.zone", "cannot be read"),
    ("hosts: {a: {<<: 3}}", 2, "hosts.a", "merges something"),
    ("hosts:\n  ? [a, b]\n  : {}", 3, "hosts", "has a key that is no text"),
])
def test_every_fault_is_named_with_its_line(body: str, line: int, option: str, words: str) -> None:
    error = refused(body)
    assert error.option == "my.fleet.yml, line {0}: {1}".format(line if option != "hosts" or "?" not in body else 2, option)
    assert words in str(error)


@pytest.mark.parametrize("text, words", [
    ("", "line 1: is not a mapping"), ("- a", "line 1: is not a mapping"), ("plugin: other\nhosts: {a: {}}", "line 1: plugin = 'other'"),
    ("hosts: {a: {}}", "plugin"), ("plugin: kvmfleet.core.fleet\nhosts: {a: [", "is not valid YAML"), ("a: \tb\n b: c", "is not valid YAML"),
])
def test_what_is_no_fleet_file(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_fleet_file("my.fleet.yml", text)
    assert words in str(caught.value)


def test_aliases_that_grow_without_end_are_refused() -> None:
    lines = ["plugin: kvmfleet.core.fleet", "hosts:", "  a:", "    labels:", "      l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += ["      l{0}: &l{0} [{1}]".format(i, ", ".join(["*l{0}".format(i - 1)] * 10)) for i in range(1, 10)]
    with pytest.raises(SpecError, match="grow without end"):
        read_fleet_file("my.fleet.yml", "\n".join(lines))


def test_encrypted_values() -> None:
    text = "plugin: kvmfleet.core.fleet\nhosts: {a: {}}\nvms:\n  - name: web\n    root_password: !vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      6162\n"
    file = read_fleet_file("my.fleet.yml", text, lambda option, cipher: option + " is " + cipher.split("\n")[1])
    assert file.vms == [{"vm_name": "web", "vm_root_password": "vms[0].root_password is 6162"}]


def test_secrets_are_in_no_message() -> None:
    for key in ("root_password", "users", "user_data"):
        with pytest.raises(SpecError) as caught:
            read("plugin: kvmfleet.core.fleet\nhosts: {a: {}}\nvms:\n  - {name: a, " + key + ": {secret: s3cr3t}, cont: s3cr3t}\n")
        assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("one, other, same", [
    ("qemu:///system", "qemu+unix:///system", True),
    ("qemu:///system", "qemu:///session", False),
    ("qemu+unix:///system?socket=/a", "qemu+unix:///system?socket=/b", False),
    ("qemu+ssh://root@kvm1/system", "qemu+ssh://me@KVM1:22/system?keyfile=/k", True),
    ("qemu+ssh://kvm1/system", "qemu+libssh2://kvm1/system", True),
    ("qemu+ssh://kvm1/system", "qemu+ssh://kvm1:2222/system", False),
    ("qemu+ssh://kvm1/system", "qemu+ssh://kvm2/system", False),
    ("qemu+ssh://kvm1/system", "qemu:///system", False),
])
def test_which_uris_are_the_same_host(one: str, other: str, same: bool) -> None:
    assert (identity(one) == identity(other)) is same


def test_passwords_in_uris_are_not_shown() -> None:
    assert without_password("qemu+ssh://root:geheim@kvm1/system") == "qemu+ssh://root@kvm1/system"
    assert without_password("qemu+ssh://root@kvm1:22/system") == "qemu+ssh://root@kvm1:22/system"
    assert without_password("qemu+unix:///system?socket=/a:b@c") == "qemu+unix:///system?socket=/a:b@c"


def test_the_line_of_what_has_none_of_its_own() -> None:
    lines = {"": 1, "hosts": 2, "hosts.a": 3, "vms[1]": 9}
    assert [line_of(lines, option) for option in ("hosts.a.zone", "hosts.b", "vms[1].name", "vms[0].name", "x")] == [3, 2, 9, 1, 1]


_VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3)
                       | st.dictionaries(st.sampled_from(["uri", "zone", "labels", "ratios", "vcpus", "memory", "pools", "ssd", "floor", "name", "count", "x"]),
                                         inner, max_size=4), max_leaves=12)


@given(st.dictionaries(st.sampled_from(sorted(_fleet_file._OPTIONS)), _VALUES, max_size=5))
def test_any_content_is_read_or_refused_with_a_line(data: Any) -> None:
    text = json.dumps(dict(data, plugin="kvmfleet.core.fleet"), indent=1)
    try:
        read_fleet_file("f", text)
    except SpecError as exc:
        assert exc.option.startswith("f, line ")
