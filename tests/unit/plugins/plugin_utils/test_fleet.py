# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many hosts at once, their deadlines, and their URIs."""
from __future__ import annotations

import pathlib
import subprocess
import threading
import time
from typing import Any, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _fleet
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet import (
    Reading, Target, connection_variables, each_within, reading_uri, refuse_twins, ssh_parameters, uri_from)
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet_file import check_uri, identity


def test_outcomes_come_in_the_order_of_the_items() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item * 10
    found = each_within(work, [1, 2, 3], 30)
    assert [result for result, _failure in found] == [10, None, 30]
    assert isinstance(found[1][1], ValueError)
    assert each_within(work, [], 30) == []


def test_hung_items_cost_one_deadline_and_no_place() -> None:
    """More hung ones than workers would be enough to starve the others if late threads kept their place."""
    release = threading.Event()
    started: List[int] = []

    def work(item: int) -> int:
        started.append(item)
        if item < 4:
            release.wait(60)
        return item
    begin = time.monotonic()
    found = each_within(work, list(range(8)), 0.2, workers=4)
    took = time.monotonic() - begin
    release.set()
    assert [isinstance(failure, TimeoutError) for _result, failure in found] == [True] * 4 + [False] * 4
    assert [result for result, _failure in found[4:]] == [4, 5, 6, 7]
    assert took < 60 and len(started) == 8


def test_no_more_than_the_workers_at_once() -> None:
    now, most, lock = [0], [0], threading.Lock()

    def work(item: int) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        with lock:
            now[0] -= 1
    each_within(work, list(range(50)), 30, workers=3)
    assert 1 <= most[0] <= 3


def test_whatever_a_host_does_is_an_error_in_its_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def read_host(target: Target, timeout_s: float) -> Reading:
        if target.name == "hung":
            release.wait(60)
        if target.name == "dead":
            raise FleetError("Cannot connect to libvirt at {0}: no route".format(reading_uri(target.uri)))
        if target.name == "odd":
            raise RuntimeError
        return Reading({"hostname": target.name})
    monkeypatch.setattr(_fleet, "read_host", read_host)
    targets = [Target(name, "qemu+ssh://root:pw@{0}/system".format(name)) for name in ("hung", "dead", "odd", "good")]
    found = _fleet.read_fleet(targets, 0.2)
    release.set()
    assert found["good"].facts == {"hostname": "good"} and found["good"].error is None
    assert found["hung"].error == "libvirt at qemu+ssh://root@hung/system did not answer within 0.2 s"
    assert found["dead"].error == "Cannot connect to libvirt at qemu+ssh://root@dead/system: no route"
    assert found["odd"].error == "libvirt at qemu+ssh://root@odd/system: RuntimeError"


@pytest.mark.parametrize("variables, uri", [
    ({}, "qemu+ssh://kvm1/system"),
    ({"ansible_host": "192.0.2.7", "ansible_user": "root"}, "qemu+ssh://root@192.0.2.7/system"),
    ({"ansible_host": "2001:db8::7", "ansible_port": 2222}, "qemu+ssh://[2001:db8::7]:2222/system"),
    ({"ansible_ssh_user": "me", "ansible_ssh_port": "22"}, "qemu+ssh://me@kvm1:22/system"),
    ({"ansible_user": "a@b", "ansible_ssh_private_key_file": "/k/id 1"}, "qemu+ssh://a%40b@kvm1/system?keyfile=/k/id+1"),
    ({"ansible_private_key_file": "/k"}, "qemu+ssh://kvm1/system?keyfile=/k"),
    ({"kvm_uri": "qemu:///session"}, "qemu+ssh://kvm1/session"),
    ({"kvm_uri": "qemu+unix:///system?socket=/run/x"}, "qemu+ssh://kvm1/system?socket=/run/x"),
    ({"kvm_uri": "qemu+tls://elsewhere/system"}, "qemu+tls://elsewhere/system"),
    ({"ansible_connection": "local"}, "qemu:///system"),
    ({"ansible_connection": "ansible.builtin.local", "kvm_uri": "qemu+unix:///system?socket=/run/x"}, "qemu+unix:///system?socket=/run/x"),
])
def test_the_uri_of_a_host_of_ordinary_inventory(variables: Dict[str, Any], uri: str) -> None:
    assert uri_from("kvm1", variables) == uri
    assert check_uri("uri", uri) == uri


@pytest.mark.parametrize("uri, variables", [
    ("qemu:///system", {"ansible_connection": "local"}),
    ("qemu:///session", {"ansible_connection": "local", "kvm_uri": "qemu:///session"}),
    ("qemu+unix:///system?socket=/run/x", {"ansible_connection": "local", "kvm_uri": "qemu+unix:///system?socket=/run/x"}),
    ("qemu+ssh://root@kvm1/system", {"ansible_host": "kvm1", "ansible_user": "root"}),
    ("qemu+ssh://a%40b@[2001:db8::7]:2222/system?keyfile=/k/id+1",
     {"ansible_host": "2001:db8::7", "ansible_user": "a@b", "ansible_port": 2222, "ansible_ssh_private_key_file": "/k/id 1"}),
    ("qemu+ssh://kvm1/session", {"ansible_host": "kvm1", "kvm_uri": "qemu:///session"}),
    ("qemu+ssh://kvm1/system?socket=/run/x", {"ansible_host": "kvm1", "kvm_uri": "qemu+unix:///system?socket=/run/x"}),
    ("qemu+tls://kvm1:16514/system", {"ansible_host": "kvm1"}),
])
def test_how_ansible_reaches_the_host_of_a_uri(uri: str, variables: Dict[str, Any]) -> None:
    assert connection_variables(uri) == variables
    if "tls" not in uri:
        assert identity(uri_from("kvm1", variables)) == identity(uri)


def test_ssh_asks_for_nothing() -> None:
    assert reading_uri("qemu:///system") == "qemu:///system"
    assert reading_uri("qemu+unix:///system?socket=/a") == "qemu+unix:///system?socket=/a"
    assert reading_uri("qemu+ssh://root@kvm1/system") == "qemu+ssh://root@kvm1/system?no_tty=1"
    assert reading_uri("qemu+ssh://kvm1/system?no_tty=0&keyfile=/k") == "qemu+ssh://kvm1/system?no_tty=0&keyfile=/k"
    assert reading_uri("qemu+ssh://kvm1/system", verify=False) == "qemu+ssh://kvm1/system?no_tty=1&no_verify=1"
    assert reading_uri("qemu+libssh2://kvm1/system", verify=False) == "qemu+libssh2://kvm1/system?no_verify=1&known_hosts_verify=ignore"


def test_ssh_with_a_key_and_known_hosts_of_its_own(tmp_path: pathlib.Path) -> None:
    ssh = ssh_parameters("/run/key", "/run/known 'hosts'", str(tmp_path))
    command = "{0}/ssh".format(tmp_path)
    assert reading_uri("qemu+ssh://kvm1/system", ssh=ssh) == "qemu+ssh://kvm1/system?no_tty=1&keyfile=/run/key&command=" + command
    assert "keyfile=/own&" in reading_uri("qemu+ssh://kvm1/system?keyfile=/own", ssh=ssh), "the URI's own wins"
    assert "known_hosts=/run/known" in reading_uri("qemu+libssh2://kvm1/system", ssh=ssh) and command not in reading_uri("qemu+libssh://kvm1/system", ssh=ssh)
    assert reading_uri("qemu:///system", ssh=ssh) == "qemu:///system"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "bin" / "ssh").chmod(0o755)
    said = subprocess.run([command, "-T", "kvm 1"], env={"PATH": "{0}:/usr/bin:/bin".format(tmp_path / "bin")}, check=True, capture_output=True, text=True)
    assert said.stdout.splitlines() == ["-o", "UserKnownHostsFile=/run/known 'hosts'", "-o", "StrictHostKeyChecking=yes", "-T", "kvm 1"]
    assert ssh_parameters(None, None, str(tmp_path)) == {}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 3), max_size=3, unique=True)), max_size=4))
def test_two_names_of_one_host(hosts: Any) -> None:
    readings = {"kvm{0}".format(i): Reading({"hostname": name}, [{"uuid": n} for n in vms]) for i, (name, vms) in enumerate(hosts)}
    filled = [(name, frozenset(vms)) for name, vms in hosts if vms]
    if len(set(filled)) == len(filled):
        refuse_twins(readings)
    else:
        with pytest.raises(SpecError, match="are the same host"):
            refuse_twins(readings)


def test_hosts_that_did_not_answer_are_nobodys_twins() -> None:
    refuse_twins({"a": Reading(error="x"), "b": Reading(error="x")})
