# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs at the same time on one host: one VM is worked on by one, room is given out once, and who waits does not wait for ever."""
from __future__ import annotations

import multiprocessing
import os
import signal

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _admission, _capacity
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._host import Host
from ansible_collections.kvmfleet.core.plugins.module_utils._overhead import qemu_overhead_mib
from ansible_collections.kvmfleet.core.tests.integration.killpoints import MIB, Site


@pytest.fixture
def site(private_libvirt):
    """A place of its own on a libvirtd where nobody else takes room."""
    made = Site(private_libvirt.conn, private_libvirt.uri, private_libvirt.root)
    yield made
    made.clean()


@pytest.fixture
def slow(site):
    """A VM whose copy takes a while."""
    site.image("large.qcow2", 512 * MIB, 384 * MIB)
    site.handle.refresh()
    site.files.add("large.qcow2")
    site.before = site.foreign()
    return site.vm(disks=[{"name": "root", "pool": site.pool, "image": "large.qcow2", "clone": "full"}])


def copying(site):
    """Whether a copy is under way."""
    return any(os.stat(site.path(name)).st_size > MIB for name in site.made())


def test_the_same_vm(site):
    """One makes it, the other finds it made."""
    for _round in range(5):
        runs = [site.start([site.vm(seed={"hostname": "a"})]) for _run in range(3)]
        results = [run.wait()[1] for run in runs]
        assert [result.get("msg") for result in results] == [None] * 3
        assert sorted(result["changed"] for result in results) == [False, False, True]
        assert sorted(site.made()) == sorted(v.name for v in site.metadata().volumes)
        runs = [site.start(site.absent()) for _run in range(3)]
        results = [run.wait()[1] for run in runs]
        assert [result.get("msg") for result in results] == [None] * 3
        assert sorted(result["changed"] for result in results) == [False, False, True]
        site.assert_clean()


def test_creating_and_deleting_the_same_vm(site):
    """Whoever comes last wins; in between there is a VM or there is none."""
    for _round in range(5):
        runs = [site.start([site.vm()]), site.start(site.absent()), site.start([site.vm()]), site.start(site.absent())]
        assert [run.wait()[1].get("msg") for run in runs] == [None] * 4
        assert bool(site.made()) is (site.domain() is not None)
        site.run(site.absent())
        site.assert_clean()


@pytest.mark.parametrize("check", [True, False])
def test_a_vm_that_is_deleted_while_one_looks_at_it(site, monkeypatch, check):
    """It was there, and when its disks are looked for they are gone: that is no fault of anybody's, and the VM is made anew."""
    site.run([site.vm()])
    look, first = Host.look, []

    def look_and_lose(host):
        look(host)
        if not first:
            first.append(host)
            site.run(site.absent())
    monkeypatch.setattr(Host, "look", look_and_lose)  # in the process that is forked too
    result = site.run([site.vm()], _ansible_check_mode=check)
    monkeypatch.undo()
    assert (result["vms"][0]["created"], bool(site.made())) == (True, not check)
    assert site.run([site.vm()])["changed"] is check
    os.unlink(site.path(site.made()[0]))
    gone = site.run([site.vm()], fails=True)
    assert gone["reason"] == "disk_missing" and "gone from pool" in gone["msg"], "that one is somebody's fault"
    site.run(site.absent())
    site.assert_clean()


def test_busy(site, slow):
    """Another run works on the VM for longer than one wants to wait."""
    first = site.start([slow])
    site.until(lambda: copying(site))
    os.kill(first.pid, signal.SIGSTOP)  # or the copy could be done before the second one asks
    try:
        for vms in ([slow], site.absent()):
            result = site.run(vms, fails=True, lock_timeout=0)
            assert (result["reason"], site.name() in result["msg"], result.get("changed", False)) == ("busy", True, False)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.wait()[1]["changed"]
    assert not site.run([slow])["changed"]
    site.run(site.absent())
    site.assert_clean()


def test_a_copy_holds_up_nobody_else(site, slow):
    """Other VMs in the same pool are made and deleted meanwhile."""
    site.run([site.vm("b")])
    first = site.start([slow])
    site.until(lambda: copying(site))
    os.kill(first.pid, signal.SIGSTOP)
    try:
        assert site.run([site.vm("c")])["changed"]
        assert site.run(site.absent("b", "c"))["changed"]
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.wait()[1]["changed"]
    site.run(site.absent())
    site.assert_clean()


@pytest.mark.parametrize("scarce", ["vcpus", "memory", "disk"])
def test_room_for_one(site, scarce):
    """Exactly one of three gets it."""
    # Another one's VM has one vcpu; its volume and the images take some of the pool, and an overlay is counted with its virtual size.
    taken = _capacity.compute(site.conn, _capacity.records(site.conn), _capacity.Policy())["memory"].allocated + 32 + qemu_overhead_mib(32, 1, nics=0)
    totals = {"vcpus": dict(site.ROOM, vcpus=2), "memory": dict(site.ROOM, memory="{0}MiB".format(taken)), "disk": dict(site.ROOM, disk="20MiB")}[scarce]
    for _round in range(4):
        runs = [site.start([site.vm(short)], totals=totals, ratios={"vcpus": 1.0}) for short in "abc"]
        results = [run.wait()[1] for run in runs]
        assert sorted(str(result.get("reason")) for result in results) == ["None", "no_capacity", "no_capacity"]
        assert len(site.made()) == 1
        site.run(site.absent("a", "b", "c"))
        site.assert_clean()


def _hold(folder, held, done):
    _admission.LOCK_DIR = folder
    with _admission.host_lock("qemu:///system"):
        held.set()
        done.wait()


def test_the_hosts_lock_is_held(site, monkeypatch, tmp_path):
    """Whoever needs it gives up after its time with a reason of its own, having touched nothing; who does not need it is not held up."""
    site.run([site.vm("b")])
    before = site.made()
    monkeypatch.setattr(_admission, "LOCK_DIR", str(tmp_path))
    # The same, with less patience.
    monkeypatch.setattr(_admission.host_lock.__wrapped__, "__defaults__", (0.2,))
    fork = multiprocessing.get_context("fork")
    held, done = fork.Event(), fork.Event()
    holder = fork.Process(target=_hold, args=(str(tmp_path), held, done))
    holder.start()
    assert held.wait(30)
    try:
        with pytest.raises(FleetError) as caught, _admission.host_lock(site.uri, 0.1):
            raise AssertionError("two have it")
        assert caught.value.code == "host_busy"
        for vms in ([site.vm()], site.absent("b")):
            result = site.run(vms, fails=True)
            assert (result["reason"], result.get("changed", False), site.made()) == ("host_busy", False, before)
        assert not site.run([site.vm("b")])["changed"]
        holder.kill()
        holder.join()
        assert site.run(site.absent("b"))["changed"]
    finally:
        holder.kill()
        holder.join()
    site.assert_clean()
