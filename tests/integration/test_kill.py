# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL at any call of libvirt, whatever the run was doing: the next one finishes it, and nothing is leaked or hurt.

`make test` kills at every so many calls, beginning anywhere; `make test-long` at every single one, before it and right after it.
"""
from __future__ import annotations

import dataclasses
import itertools
import os
import random
import subprocess

import pytest

from ansible_collections.kvmfleet.core.tests.integration.killpoints import MIB, Site

TICKET = "kfkill-ticket"
SEED = int(os.environ.get("KVMFLEET_KILL_SEED", "20261120"))


@pytest.fixture
def site(private_libvirt):
    """A place of its own on a libvirtd where nobody else's calls are counted."""
    made = Site(private_libvirt.conn, private_libvirt.uri, private_libvirt.root)
    yield made
    made.clean()


def rich(site, state="present"):
    """Two VMs with all that can be left behind: an overlay, an empty disk, a full copy, a seed, NVRAM; and with a NIC and an ISO image of the user's.

    :param state: of the first; the other one is never started
    """
    disks = [{"name": "root", "pool": site.pool, "image": site.IMAGE, "size": "16MiB"}, {"name": "extra", "pool": site.pool, "size": "4MiB"},
             {"name": "copy", "pool": site.pool, "image": site.IMAGE, "clone": "full", "size": "12MiB"},
             {"name": "tools", "device": "cdrom", "path": site.path(site.ISO)}]
    return [site.vm(name, state=state if name == "a" else "present", firmware="efi", disks=disks, nics=[{"network": site.network}], seed={"hostname": name})
            for name in "ab"]


def assert_owned(site):
    """Whatever lies in the pool is listed in the metadata of a domain: it is so at every moment."""
    listed = set()
    for short in "ab":
        if site.domain(short) is not None:
            site.uuids.add(site.domain(short).UUIDString())
            listed |= {v.name for v in site.metadata(short).volumes}
    assert set(site.made()) <= listed


def assert_whole(site, running="", shorts="ab", volumes=4):
    """The VMs are complete."""
    for short in shorts:
        meta = site.metadata(short)
        assert (meta.phase, meta.ticket, [v.planned for v in meta.volumes]) == ("ready", None, [False] * volumes)
        assert {v.name for v in meta.volumes} <= set(site.made())
        assert bool(site.domain(short).isActive()) is (short in running)
        assert dataclasses.replace(site.live_metadata(short), hopeless=[]) == meta


def converged(site, vms, **params):
    """The next normal run finishes what was begun; the one after it finds nothing to do."""
    site.run(vms, **params)
    again = site.run(vms, **params)
    assert (again["changed"], [vm["actions"] for vm in again["vms"]]) == (False, [[] for _vm in vms])


class Sweep:
    """The calls at which a run is killed: C(step) apart, from a random one on; with C(step) 1 every call, before and after."""

    def __init__(self, site, step):
        self.site, self.step, self.kills = site, step, 0

    def over(self, total, vms, **params):
        """Kill a run of C(vms) at each of the points in turn; yields the number of the round, after which all has to be as it was before."""
        modes = (False, True) if self.step == 1 else (random.Random(SEED).random() < 0.5,)
        first = random.Random(SEED).randrange(self.step)
        points = list(itertools.product(modes, range(first, total, self.step)))
        for number, (after, point) in enumerate(points):
            ended = self.site.start(vms, point, after, **params).wait()
            if ended is None:
                self.kills += 1
            else:  # threads made it a few calls shorter than the run that was counted
                assert point > total * 0.8 and not ended[1].get("failed"), (point, ended)
            assert_owned(self.site)
            yield number
        print("{0} points out of {1} calls".format(self.kills, total))
        assert self.kills >= len(points) * 0.7 - 1  # a stopped VM takes fewer calls than the running one that was counted


SAMPLE_AND_ALL = pytest.mark.parametrize("step", [pytest.param(23, id="sample"), pytest.param(1, id="all", marks=pytest.mark.long)])


@SAMPLE_AND_ALL
def test_create(site, step):
    """Finished by the next run, or deleted as it is."""
    vms = rich(site, "running")
    total = site.calls(vms)
    site.run(site.absent("a", "b"))
    assert total > 60
    for number in Sweep(site, step).over(total, vms):
        if number % 2:
            converged(site, vms)
            assert_whole(site, "a")
            assert_owned(site)
        site.run(site.absent("a", "b"))
        site.assert_clean()


@SAMPLE_AND_ALL
def test_delete(site, step):
    """Finished by the next delete, or by the next create, whose VMs are new ones."""
    site.run(rich(site, "running"))
    total = site.calls(site.absent("a", "b"))
    running = ["a"]
    site.run(rich(site, "running"))
    for number in Sweep(site, step).over(total, site.absent("a", "b")):
        if number % 2:
            before = {short: (site.domain(short).UUIDString(), site.metadata(short).phase) for short in "ab" if site.domain(short)}
            converged(site, rich(site))
            for short, (old, phase) in before.items():
                assert (old == site.domain(short).UUIDString()) is (phase == "ready")
            assert_whole(site, [short for short in running if short in before and before[short][1] == "ready"])
            assert_owned(site)
        converged(site, site.absent("a", "b"))
        site.assert_clean()
        running = [] if number % 3 else ["a"]
        site.run(rich(site, "running" if running else "present"))


@SAMPLE_AND_ALL
@pytest.mark.parametrize("state", ["running", "stopped"])
def test_update(site, step, state):
    """Adding disks, growing another and changing vcpus and the seed of a VM that exists."""
    old = site.vm(state=state, max_vcpus=2, seed={"hostname": "a"})
    disks = [{"name": "root", "pool": site.pool, "size": "16MiB"}, {"name": "more", "pool": site.pool, "size": "4MiB"},
             {"name": "copy", "pool": site.pool, "image": site.IMAGE, "clone": "full"}]
    new = dict(old, vcpus=2, disks=disks, seed={"hostname": "b"})
    site.run([old])
    total = site.calls([new])
    site.run(site.absent())
    for number in Sweep(site, step).over(total, [new]) if site.run([old]) else ():
        assert site.domain() is not None
        if number % 4 != 3:
            converged(site, [new])
            assert_whole(site, "a" if state == "running" else "", "a")
            assert {v.disk: v.size for v in site.metadata().volumes if v.disk != "seed"} == {"root": 16 * MIB, "more": 4 * MIB, "copy": 8 * MIB}
            assert site.domain().vcpusFlags() == 2 if state == "running" else True
        site.run(site.absent())
        site.assert_clean()
        site.run([old])


@SAMPLE_AND_ALL
def test_claim(site, step):
    """Claimed again by the same run, taken back by it, or removed by anybody when it is stale."""
    vms, mine = rich(site), {"step": "claim", "ticket": TICKET}
    total = site.calls(vms, **mine)
    site.run(vms, step="withdraw", ticket=TICKET)
    site.assert_clean()
    for number in Sweep(site, step).over(total, vms, **mine):
        if number % 3 == 0:
            converged(site, vms, **mine)
            assert {site.metadata(short).phase for short in "ab"} == {"pending"}
        if number % 3 == 1:
            site.run(vms, step="claim", ticket="other", claim_ttl=-1)
            assert {site.metadata(short).ticket for short in "ab"} == {"other"}
            site.run(vms, step="withdraw", ticket="other")
        else:
            converged(site, vms, step="withdraw", ticket=TICKET)
        site.assert_clean()


@SAMPLE_AND_ALL
def test_build(site, step):
    """Built again by the same run, or taken back by it, or finished by anybody."""
    vms = rich(site)
    site.run(vms, step="claim", ticket=TICKET)
    total = site.calls(vms, step="build", ticket=TICKET)
    site.run(site.absent("a", "b"))
    site.run(vms, step="claim", ticket=TICKET)
    for number in Sweep(site, step).over(total, vms, step="build", ticket=TICKET):
        if number % 3 == 0:
            converged(site, vms, step="build", ticket=TICKET)
            assert_whole(site)
        elif number % 3 == 1:
            converged(site, vms, claim_ttl=-1)
            assert_whole(site)
        else:
            ready = [short for short in "ab" if site.metadata(short).phase == "ready"]
            converged(site, vms, step="withdraw", ticket=TICKET)
            assert [short for short in "ab" if site.domain(short)] == ready
        site.run(site.absent("a", "b"))
        site.assert_clean()
        site.run(vms, step="claim", ticket=TICKET)


@SAMPLE_AND_ALL
def test_withdraw(site, step):
    """Taken back by the next try of the same run."""
    vms, mine = rich(site), {"step": "withdraw", "ticket": TICKET}
    site.run(vms, step="claim", ticket=TICKET)
    total = site.calls(vms, **mine)
    for _number in Sweep(site, step).over(total, vms, **mine) if site.run(vms, step="claim", ticket=TICKET) else ():
        converged(site, vms, **mine)
        site.assert_clean()
        site.run(vms, step="claim", ticket=TICKET)


@SAMPLE_AND_ALL
@pytest.mark.parametrize("change", ["copy", "overlay", "grow", "delete"])
def test_disk(site, step, change):
    """A stand-alone volume."""
    wanted = {"pool": site.pool, "name": site.name("disk.qcow2"), "size": "16MiB", "image": site.IMAGE, "clone": "full" if change == "copy" else "overlay"}
    gone = {"pool": site.pool, "name": wanted["name"], "state": "absent"}
    request, before = gone if change == "delete" else wanted, dict(wanted, size="8MiB") if change in ("grow", "delete") else gone
    disk(site, before)
    total = site.process("vm_disk", **request).wait()[0]
    disk(site, gone)
    assert total > 8
    for after, point in itertools.product((False, True), range(0, total, min(step, 4))):
        disk(site, before)
        assert site.process("vm_disk", point, after, **request).wait() is None
        disk(site, request)
        assert not disk(site, request)["changed"]
        assert site.made() == ([] if change == "delete" else [wanted["name"]])
        if change != "delete":
            assert site.conn.storageVolLookupByPath(site.path(wanted["name"])).info()[1] == 16 * MIB
        disk(site, gone)
        site.assert_clean()
    print("{0} points".format(2 * total))


def disk(site, request):
    """The result of vm_disk, which has to succeed."""
    _calls, result = site.process("vm_disk", **request).wait()
    assert not result.get("failed"), result
    return result


def test_in_the_middle_of_the_copy_of_a_disk(site):
    """It is not said to be there before it is whole."""
    image = site.image("large.qcow2", 256 * MIB, 192 * MIB)
    site.handle.refresh()
    site.files.add("large.qcow2")
    site.before = site.foreign()
    wanted = {"pool": site.pool, "name": site.name("disk.qcow2"), "size": "256MiB", "image": "large.qcow2", "clone": "full"}
    process = site.process("vm_disk", **wanted)
    site.until(lambda: any(os.stat(site.path(name)).st_size > MIB for name in site.made()))
    process.kill()
    assert process.wait() is None
    disk(site, wanted)
    assert subprocess.run(["qemu-img", "compare", "-q", image, site.path(wanted["name"])], check=False).returncode == 0
    disk(site, {"pool": site.pool, "name": wanted["name"], "state": "absent"})
    site.assert_clean()


def test_in_the_middle_of_a_copy(site):
    """libvirt goes on copying for a run that has died; what it has copied so far is not taken for a disk."""
    image = site.image("large.qcow2", 256 * MIB, 192 * MIB)
    site.handle.refresh()
    site.files.add("large.qcow2")
    site.before = site.foreign()
    vms = [site.vm(disks=[{"name": "root", "pool": site.pool, "image": "large.qcow2", "clone": "full"}])]
    for end in ("finish", "delete"):
        process = site.start(vms)
        site.until(lambda: any(os.stat(site.path(name)).st_size > MIB for name in site.made()))
        process.kill()
        assert process.wait() is None
        assert_owned(site)
        if end == "finish":
            converged(site, vms)
            copied = [site.path(name) for name in site.made()]
            assert len(copied) == 1
            assert subprocess.run(["qemu-img", "compare", "-q", image, copied[0]], check=False).returncode == 0
        site.run(site.absent())
        site.assert_clean()
