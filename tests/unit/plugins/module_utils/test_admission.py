# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks between processes, and the check that a claim fits."""
from __future__ import annotations

import datetime
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import _admission
from ansible_collections.kvmfleet.core.plugins.module_utils._admission import Demand, check_room, check_unique, host_lock, stale_claims, vm_locks
from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import Policy
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._metadata import VmMetadata, VolumeRef
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

SESSION = "qemu:///session"
HOLDER = """
import sys
from ansible_collections.kvmfleet.core.plugins.module_utils import _admission
lock = {lock}
with lock:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(monkeypatch, tmp_path):
    """A function: another process that holds a lock until its input ends."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    started = []

    def start(lock):
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
        process = subprocess.Popen([sys.executable, "-c", HOLDER.format(lock=lock)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process
    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_the_host_lock_is_exclusive_and_ends_with_its_process(holder):
    """Another run waits until its deadline, and has it as soon as the holder has died."""
    process = holder("_admission.host_lock({0!r})".format(SESSION))
    with pytest.raises(FleetError, match="lock") as caught, host_lock(SESSION, 0.05):
        pass
    assert caught.value.code == "host_busy"
    process.kill()
    process.wait()
    with host_lock(SESSION, 0):
        pass
    with host_lock(SESSION, 0):
        pass


def test_vm_locks_are_per_name(holder):
    """Different VMs do not wait for each other; one that is held is named; a failed attempt leaves nothing held."""
    process = holder("_admission.vm_locks({0!r}, ['b', 'a'], 0)".format(SESSION))
    with vm_locks(SESSION, ["c", "d"], 0):
        pass
    with pytest.raises(FleetError, match="VM a") as caught, vm_locks(SESSION, ["c", "a", "d"], 0.05):
        pass
    assert caught.value.code == "busy"
    other = holder("_admission.vm_locks({0!r}, ['d', 'c'], 0)".format(SESSION))
    process.communicate(b"")
    with vm_locks(SESSION, ["a", "b"], 0):
        pass
    with pytest.raises(FleetError, match="VM [cd];"), vm_locks(SESSION, ["a", "c", "d"], 0):
        pass
    other.communicate(b"")
    with vm_locks(SESSION, [], 0), vm_locks(SESSION, ["a", "c", "d"], 0):
        pass


def test_a_lock_waits_as_long_as_it_may(holder):
    """A holder that ends in time is waited for."""
    process = holder("_admission.host_lock({0!r})".format(SESSION))
    process.stdin.close()
    with host_lock(SESSION, 30):
        assert process.wait() == 0


def test_a_lock_that_cannot_be_opened(monkeypatch, tmp_path):
    """One message with a remedy."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(blocked))
    with pytest.raises(FleetError, match="become: true") as caught, host_lock(SESSION, 0):
        pass
    assert caught.value.code == "lock_failed"
    assert _admission.lock_dir("qemu:///system") == "/run/kvmfleet"


class Connection:
    """A host of 4 CPUs and 1000 MiB."""

    def getInfo(self):
        return ["x86_64", 1000, 4, 0, 1, 1, 4, 1]


def pools(capacity):
    """One pool of that capacity, empty."""
    handle = SimpleNamespace(info=lambda: (2, capacity, 0, capacity))
    return SimpleNamespace(get=lambda name: SimpleNamespace(name=name, handle=handle, volumes=list, path_of=lambda volume: "/p/" + volume))


def record(name="other", vcpus=0, memory=0, **more):
    """A domain of the host."""
    values = {"name": name, "uuid": "uuid-" + name, "active": False, "vcpus_milli": vcpus, "memory_mib": memory, "metadata": None, "macs": [],
              "paths": [], "root": None}
    return SimpleNamespace(**dict(values, **more))


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=4), st.integers(0, 4000), st.integers(0, 1000))
def test_exact_fit_fits_and_one_more_does_not(demands, vcpus, memory):
    """Any demands, together, against any that is given out; a pool of just their size."""
    wanted = [Demand(str(i), v, m, {"p": d}) for i, (v, m, d) in enumerate(demands)]
    sums = [sum(d[k] for d in demands) for k in range(3)]
    policy = Policy(ratios={"vcpus": 1.0, "memory": 1.0, "disk": 1.0})
    fits = (not sums[0] or sums[0] <= 4000 - vcpus) and (not sums[1] or sums[1] <= 1000 - memory)

    def check(more, capacity):
        check_room(Connection(), [record(vcpus=vcpus, memory=memory)], policy, pools(capacity), wanted + more)
    if fits:
        check([], sums[2])
        for more, option in ((Demand("x", vcpus_milli=4000 - vcpus - sums[0] + 1), "vcpus"), (Demand("x", memory_mib=1000 - memory - sums[1] + 1), "memory"),
                             (Demand("x", pools={"p": 1}), "size")):
            with pytest.raises(SpecError) as caught:
                check([more], sums[2])
            assert caught.value.code == "no_capacity" and caught.value.option == option
    else:
        with pytest.raises(SpecError):
            check([], sums[2])


def test_what_asks_for_nothing_always_fits():
    """Even on a host that has given out more than it has."""
    check_room(Connection(), [record(vcpus=99000, memory=9999)], Policy(), pools(0), [Demand("a"), Demand("b", pools={"p": 0})])
    with pytest.raises(SpecError, match="0 available|-[0-9]"):
        check_room(Connection(), [record(vcpus=99000, memory=9999)], Policy(), pools(0), [Demand("a", memory_mib=1)])
    check_room(Connection(), [], Policy(), pools(0), [])


def test_stale_claims():
    """Pending ones past their time, or whose time cannot be read; never one that builds or runs."""
    def at(seconds):
        return (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    records = [record("old", metadata=VmMetadata(phase="pending", claimed=at(100))), record("new", metadata=VmMetadata(phase="pending", claimed=at(0))),
               record("unreadable", metadata=VmMetadata(phase="pending", claimed="x")), record("without", metadata=VmMetadata(phase="pending")),
               record("building", metadata=VmMetadata(phase="building", claimed=at(100))), record("foreign"),
               record("runs", active=True, metadata=VmMetadata(phase="pending", claimed=at(100)))]
    assert [r.name for r in stale_claims(records, 60)] == ["old", "unreadable", "without"]


def test_uniqueness():
    """UUID, MAC and address of others; a VM does not collide with itself."""
    records = [record("a", macs=["m1"], metadata=VmMetadata(addresses=["10.0.0.1/24"], volumes=[VolumeRef("d", "p", "v", 1)])), record("b", macs=["m2"])]
    check_unique(records, "a", "uuid-a", ["m1"], ["10.0.0.1/8"])
    check_unique(records, "c", "uuid-c", ["m3"], ["10.0.0.2/24"])
    for arguments, code in ((("uuid-b", [], []), "uuid_in_use"), ((None, ["m2"], []), "mac_in_use"), ((None, ["m1"], []), "mac_in_use"),
                            ((None, [], ["10.0.0.1/8"]), "ip_in_use")):
        with pytest.raises(SpecError) as caught:
            check_unique(records, "c", *arguments)
        assert caught.value.code == code
        with pytest.raises(SpecError, match="domain of another group"):
            check_unique(records, "c", *arguments, group="red")
