# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports: what happened, in a table, in data, and in one paragraph where it failed."""
from __future__ import annotations

from typing import Any, Dict

import pytest
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _report
from ansible_collections.kvmfleet.core.plugins.plugin_utils._report import Context


def vm(name: str = "web-1", **more: Any) -> Dict[str, Any]:
    return dict({"name": name, "uuid": "7e1c", "state": "running", "vcpus": 1, "memory_mib": 768, "key_name": "web", "image": "debian:12", "changed": False,
                 "actions": [], "volumes": [{"name": "{0}-root-7e1c.qcow2".format(name)}]}, **more)


CREATE = Context("create", users={"debian:12": "debian"}, key_path=lambda name: "/home/me/.ssh/kvmfleet/" + name, home="/home/me")


def test_the_table_of_create() -> None:
    made = [vm(changed=True, actions=["define the domain: 1 vcpus, 768 MiB"]), vm("web-2", changed=True), vm("web-3")]
    report = _report.compose(CREATE, {"kvm1": {"vms": made}},
                             {"kvm1": {"vms": [{"name": "web-1", "state": "running", "address": "10.0.0.5", "addresses": [{"address": "10.0.0.5"}]}]}})
    assert report.lines[:5] == [
        "name   host  state    result     vcpus   memory  address   uuid  key  ssh",
        "web-1  kvm1  running  created        1  768 MiB  10.0.0.5  7e1c  web  ssh -i ~/.ssh/kvmfleet/web debian@10.0.0.5",
        "web-2  kvm1  running  changed        1  768 MiB  -         7e1c  web  -",
        "web-3  kvm1  running  unchanged      1  768 MiB  -         7e1c  web  -",
        "",
    ]
    assert report.lines[5] == "3 VMs: 1 created, 1 changed, 1 unchanged"
    assert report.failure is None
    assert report.data["changed"] == 2
    first = report.data["vms"][0]
    assert (first["name"], first["host"], first["address"], first["ssh"]) == ("web-1", "kvm1", "10.0.0.5", "ssh -i ~/.ssh/kvmfleet/web debian@10.0.0.5")


NAT = {"type": "network", "source": "default", "forward": "nat", "addresses": ["192.168.122.5"]}
LAN = {"type": "bridge", "source": "br0", "forward": None, "addresses": ["10.0.0.5"]}


@pytest.mark.parametrize("nics, address, sources, jump", [
    ([NAT], "192.168.122.5", {}, True), ([dict(NAT, addresses=[])], "192.168.122.5", {}, True), ([LAN], "10.0.0.5", {}, False),
    ([LAN, NAT], "192.168.122.5", {}, True), ([NAT, LAN], "10.0.0.5", {}, False), ([NAT], "192.168.122.5", {"network default": True}, False),
    ([LAN], "10.0.0.5", {"bridge br0": False}, True), ([], "10.0.0.5", {}, False), ([dict(NAT, forward="route")], "192.168.122.5", {}, False),
])
def test_the_command_to_log_in_goes_through_the_host_where_it_has_to(nics: Any, address: str, sources: Any, jump: bool) -> None:
    far = Context("list", users=CREATE.users, jumps={"kvm1": {"arguments": "-o ProxyJump=root@kvm1", "sources": sources}, "here": {
        "arguments": None, "sources": sources}})
    lines = {host: _report.ssh_line(far, vm(host=host, address=address, nics=nics)) for host in ("kvm1", "here", "unknown")}
    assert lines == {"kvm1": "ssh {0}debian@{1}".format("-o ProxyJump=root@kvm1 " if jump else "", address), "here": "ssh debian@" + address,
                     "unknown": "ssh debian@" + address}


def test_check_mode_says_would() -> None:
    made = [vm("web-{0}".format(i), changed=True, uuid=None, actions=["define the domain", "create disk root: web-{0}-root-7e1c.qcow2".format(i)])
            for i in range(1, 6)]
    report = _report.compose(Context("create", check=True), {"kvm1": {"vms": made}})
    text = "\n".join(report.lines)
    assert "would be created" in text and "5 VMs: 5 would be created" in text
    assert "web-1, web-2, web-3 and 2 more: would define the domain, create disk root:" in text, "VMs of which the same is to be said share a line"


def test_notes_are_told_once_for_many() -> None:
    made = [vm("web-{0}".format(i), restart_required=["memory"], takes_effect="next_instance") for i in range(100)]
    report = _report.compose(CREATE, {"kvm1": {"vms": made}})
    after = report.lines[103:]
    assert len(after) == 2
    assert "memory will change with the next restart" in after[0] and "97 more" in after[0]
    assert "does not read it again" in after[1]


def test_many_different_notes_are_cut() -> None:
    report = _report.compose(CREATE, {"kvm1": {"vms": [vm("web-{0}".format(i), notes=["note {0}".format(i)]) for i in range(30)]}})
    assert report.lines[-1] == "... and 20 more like these"


def test_a_failure_is_one_paragraph() -> None:
    error = SpecError("disks[0].size", "1GiB", "would shrink it", "Ask for more", "shrink")
    result = {"msg": "web-1: {0}".format(error), "reason": "shrink", "error": error.as_result(), "vms": [vm(failed=True, msg=str(error))]}
    report = _report.compose(CREATE, {"kvm1": result})
    assert report.failure == "web-1: vm_disk = '1GiB': would shrink it. Ask for more."
    assert report.reason == "shrink" and report.data["failed"] is True
    assert "failed" in report.lines[1]


def test_a_failure_for_a_host_variable_names_it() -> None:
    error = SpecError("ratios.vcpus", 0, "is not positive", "Write 1.0")
    report = _report.compose(CREATE, {"kvm1": {"msg": str(error), "reason": error.code, "error": error.as_result()}})
    assert report.failure == "kvm_ratios.vcpus = 0: is not positive. Write 1.0."


def test_failures_of_several_hosts_name_them() -> None:
    report = _report.compose(CREATE, {"kvm1": {"vms": [vm()]}, "kvm2": {"msg": "no room\n at all", "reason": "no_capacity"},
                                      "kvm3": {"unreachable": True, "msg": "timed out"}, "kvm4": {"msg": "no room at all", "reason": "no_capacity"}})
    assert report.failure == "kvm2, kvm4: no room at all. kvm3: The host is unreachable: timed out"
    assert report.reason == "no_capacity"


@pytest.mark.parametrize("raw", ["Task failed: Failed to connect", "Task failed: Action failed: Failed\n to connect",
                                 "Failed to connect\n\nThe error appears to be in '/x.yml': line 18, column 7", "Failed to connect"])
def test_a_message_is_without_what_ansible_puts_before_it(raw: str) -> None:
    assert _report.user_message({"msg": raw}) == "Failed to connect"
    assert _report.failures({"kvm1": {"unreachable": True, "msg": raw}}) == {"kvm1": "The host is unreachable: Failed to connect"}


def test_the_remedy_follows_the_cause() -> None:
    away, hung = {"unreachable": True, "msg": "refused"}, {"msg": "libvirt did not answer", "reason": "host_unreachable"}
    assert "-m ping" in _report.where_to_look([away]) and "libvirt" not in _report.where_to_look([away])
    assert "libvirt" in _report.where_to_look([hung]) and "ping" not in _report.where_to_look([hung])
    assert all(word in _report.where_to_look([away, hung]) for word in ("ping", "libvirt"))


def test_hosts_that_do_not_answer_are_told_together() -> None:
    assert _report.nobody_answered({"kvm{0}".format(i): "refused." for i in range(9)}) == "kvm0, kvm1, kvm2 and 6 more: refused"
    assert _report.nobody_answered({str(i): str(i) for i in range(5)}) == "0: 0; 1: 1; 2: 2; and 2 more like these"


@pytest.mark.parametrize("count", [3, 4])
def test_silent_hosts_are_not_told_twice(count: int) -> None:
    silent = {"kvm{0}".format(i): "refused" for i in range(count)}
    dead = Context("create", silent=silent, failure={"msg": "kvm_hosts: no host answered", "reason": "host_unreachable"})
    assert [line for line in _report.compose(dead, {}).lines if "refused" in line] == ([] if count == 3 else ["{0}: refused".format(h) for h in silent])


@pytest.mark.parametrize("result", [{"failed": True}, {"msg": "module crashed"}, {"changed": False}])
def test_a_result_without_vms_is_a_failure(result: Dict[str, Any]) -> None:
    report = _report.compose(CREATE, {"kvm1": result})
    assert report.failure and not any("0 VMs" in line for line in report.lines)


def test_waiting_in_vain_is_a_failure_with_a_table() -> None:
    report = _report.compose(CREATE, {"kvm1": {"vms": [vm()]}}, {"kvm1": {"msg": "web-1 did not answer", "reason": "wait_timeout", "vms": []}})
    assert report.failure == "web-1 did not answer" and report.reason == "wait_timeout"
    assert report.lines[1].startswith("web-1")


def test_the_table_of_list() -> None:
    report = _report.compose(Context("list"), {
        "kvm2": {"vms": [vm("b")]}, "kvm1": {"vms": [vm("a", state="stopped", address="10.0.0.9", image=None, key_name=None)]}})
    assert report.lines == [
        "name  host  state    vcpus   memory  address   uuid  key  ssh",
        "a     kvm1  stopped      1  768 MiB  10.0.0.9  7e1c  -    ssh 10.0.0.9",
        "b     kvm2  running      1  768 MiB  -         7e1c  web  -",
        "",
        "2 VMs: 1 stopped, 1 running",
    ]


def test_the_tables_of_delete_and_power() -> None:
    gone = [{"name": "a", "state": "absent", "changed": True}, {"name": "b", "state": "absent", "changed": False}]
    assert _report.compose(Context("delete"), {"kvm1": {"vms": gone}}).lines == [
        "name  host  result", "a     kvm1  deleted", "b     kvm1  not there", "", "2 VMs: 1 deleted, 1 not there"]
    assert "would be deleted" in _report.compose(Context("delete", check=True), {"kvm1": {"vms": [dict(gone[0], state="running")]}}).lines[1]
    powered = [{"name": "a", "state": "running", "state_before": "stopped", "changed": True},
               {"name": "b", "state": "running", "state_before": "running", "changed": True}]
    assert _report.compose(Context("power", action="start"), {"kvm1": {"vms": powered}}).lines[1:3] == [
        "a     kvm1  running  running, was stopped", "b     kvm1  running  done"]
    assert "would force off" in _report.compose(Context("power", check=True, action="force_off"), {"kvm1": {"vms": powered}}).lines[1]


def test_a_list_goes_on_without_a_dead_host() -> None:
    dead = {"unreachable": True, "msg": "timed out"}
    report = _report.compose(Context("list"), {"kvm1": {"vms": [vm()]}, "kvm2": dead})
    assert report.failure is None and report.data["unreachable"] == ["kvm2"]
    assert report.lines[-1] == "kvm2: The host is unreachable: timed out"
    assert _report.compose(Context("list"), {"kvm2": dead}).failure
    assert _report.compose(CREATE, {"kvm1": {"vms": [vm()]}, "kvm2": dead}).failure


def test_check_mode_with_an_image_to_be_fetched() -> None:
    result = {"msg": "no image", "reason": "unknown_image", "vms": [
        {"name": "web", "state": "absent", "failed": True, "msg": "no image", "reason": "unknown_image"}]}
    report = _report.compose(Context("create", check=True, image="debian:12"), {"kvm1": result})
    assert report.failure is None and report.data["changed"] == 1
    assert "would be created" in report.lines[1] and "debian:12 would be made available first on kvm1" in report.lines[-1]
    assert _report.compose(Context("create", image="debian:12"), {"kvm1": result}).failure
    assert _report.compose(Context("create", check=True), {"kvm1": result}).failure


def test_nothing_is_said_plainly() -> None:
    assert _report.compose(Context("list"), {"kvm1": {"vms": []}}).lines == ["0 VMs"]


def test_a_failure_as_data_has_each_hosts_reason() -> None:
    """What AWX keeps of a job that failed: of every host that failed, was silent, or was refused by placement."""
    results = {"kvm1": {"reason": "no_capacity", "msg": "no room", "vms": [vm()]}, "kvm2": {"unreachable": True, "msg": "timed out"}, "kvm3": {"vms": [vm()]}}
    data = _report.compose(CREATE, results).data
    assert data["failed"] is True and data["reason"] == "no_capacity" and data["msg"]
    assert {host: told["reason"] for host, told in data["hosts"].items()} == {"kvm1": "no_capacity", "kvm2": "host_unreachable"}
    refused = {"vms": [{"name": "web", "refused": [{"host": "kvm1", "code": "no_vcpus", "reason": "kvm1 has 0 left"}]}]}
    report = _report.compose(Context("create", failure={"msg": "no host fits", "reason": "no_capacity"}, placement=refused, silent={"kvm2": "no answer"}), {})
    assert report.data["hosts"] == {"kvm1": {"reason": "no_vcpus", "msg": "kvm1 has 0 left"}, "kvm2": {"reason": "host_unreachable", "msg": "no answer"}}
    assert report.failure == "no host fits" and report.data["vms"] == [] and not any("0 VMs" in line for line in report.lines)
    assert "hosts" not in _report.compose(CREATE, {"kvm3": {"vms": [vm()]}}).data


def test_how_a_set_was_scaled_is_told_first() -> None:
    scaling = {"set": "web", "from": 2, "to": 3, "reason": "scaled_up", "words": "from 2 to 3", "direction": "up"}
    report = _report.compose(Context("scale", scaling=scaling), {"kvm1": {"vms": [vm("web-3", changed=True, created=True)]}})
    assert report.lines[-2:] == ["web: scaled from 2 to 3", "1 VM: 1 created"]
    assert report.data["scaling"] == {"set": "web", "from": 2, "to": 3, "reason": "scaled_up", "direction": "up", "msg": "web: scaled from 2 to 3"}
    assert _report.compose(Context("scale", check=True, scaling=scaling), {}).lines == ["web: would be scaled from 2 to 3"]
    idle = dict(scaling, to=2, reason="cooldown", words="the set was scaled 5 s ago, and vm_cooldown is 300 s")
    assert _report.compose(Context("scale", scaling=idle), {}).lines == ["web: 2 VMs, nothing to do: the set was scaled 5 s ago, and vm_cooldown is 300 s"]
    failed = _report.compose(Context("scale", scaling=scaling, failure={"msg": "no room", "reason": "no_capacity"}), {})
    assert (failed.lines, failed.reason, failed.failure) == (["web: could not be scaled from 2 to 3"], "no_capacity", "no room")
