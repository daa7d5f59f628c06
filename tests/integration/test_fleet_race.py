# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sixteen runs at once for ten places and ten addresses, and runs that are killed on the way."""
from __future__ import annotations

import collections
import os
import random
import time

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _metadata
from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import FleetPlaybooks

RUNS, PLACES = 16, 10
LONG = bool(os.environ.get("KVMFLEET_LONG"))
SEED = int(os.environ.get("KVMFLEET_SEED", "1"))
# Sixteen runs share what processors there are: nothing may be taken for dead because it is slow.
VM = {"vm_image": "debian:12", "vm_memory": "64MiB", "vm_vcpus": 1, "vm_state": "stopped", "vm_wait": "none", "vm_ssh_key": "none", "vm_network": "pooled",
      "vm_capacity_timeout": 600}
SLOW_S, KILLED_S = 1800, 5
# Where runs are killed the others wait for their claims until these are out of date. That a slow one may lose its claim too is part of the test.
MORTAL_S = 60


@pytest.fixture
def fleet(lab, tmp_path):
    """Playbooks over three hosts with room for ten of C(VM), and ten addresses for them."""
    made = FleetPlaybooks(lab, tmp_path)
    made.address_pool(PLACES)
    made.room((4, 3, 3))
    return made


def start_all(fleet, ttl_s):
    """Start all runs, each for a VM of its own, with as few processes as may be."""
    return [fleet.start("create_vm", "--forks", "3", vm_name="vm{0}".format(number), vm_claim_ttl=ttl_s, **VM) for number in range(RUNS)]


def assert_nothing_is_given_twice(lab):
    """Names, addresses, MACs and room."""
    for what, values in (("name", [name for name, _meta in lab.ours()]), ("address", [a for _name, meta in lab.ours() for a in meta.addresses])):
        assert max(collections.Counter(values).values(), default=0) <= 1, (what, values)
    assert all(len(host.domains()) <= room for host, room in zip(lab.hosts, (4, 3, 3))), lab.where()


@pytest.mark.parametrize("_time", range(5 if LONG else 1))
def test_ten_of_sixteen(fleet, lab, _time):
    runs = [started.wait() for started in start_all(fleet, SLOW_S)]
    told = ["vm{0}: {1}".format(n, "made" if run.code == 0 else run.reason) for n, run in enumerate(runs)]
    assert_nothing_is_given_twice(lab)
    made = {name for run in runs if run.code == 0 for name in run.vms}
    assert len(made) == PLACES, told
    assert {run.reason for run in runs if run.code} <= {"no_capacity", "pool_exhausted"}, told
    assert made == {name for name, _meta in lab.ours()} == {name for listed in lab.where().values() for name in listed}
    assert len({a for _name, meta in lab.ours() for a in meta.addresses}) == PLACES
    assert [vm["address"] for run in runs if run.code == 0 for vm in run.vms.values()] == [
        meta.addresses[0].partition("/")[0] for n, run in enumerate(runs) if run.code == 0 for name, meta in lab.ours() if name == "vm{0}".format(n)]
    assert {meta.phase for _name, meta in lab.ours()} == {"ready"}
    assert lab.residue() == [] and len(lab.files()) == 2 * PLACES


def wait_for(condition, what, timeout_s=600):
    """Until the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def kill_some(started, lab, dice):
    """Kill half of the runs: some when they have begun a random one of their tasks and a moment later, some while their VM is being built.

    What runs on a host dies with the run, or goes on without it.
    """
    victims = {}
    for number in dice.sample(range(len(started)), len(started) // 2):
        victims[number] = (dice.choice((None, dice.randint(1, 12))), dice.uniform(0, 2), dice.random() < 0.5)
    reached = {}
    while victims:
        building = {name for name, meta in lab.ours() if meta.phase == "building"}
        for number, (task, moment, modules) in list(victims.items()):
            run = started[number]
            if task is None:
                due = "vm{0}".format(number) in building
            else:
                due = run.output.count("\nTASK [") >= task and time.monotonic() - reached.setdefault(number, time.monotonic()) >= moment
            if due:
                run.kill(modules or task is None)
            if due or run.process.poll() is not None:
                del victims[number]
        time.sleep(0.02)


@pytest.mark.parametrize("seed", range(SEED, SEED + (5 if LONG else 1)))
def test_killed_runs_leave_nothing_that_one_more_run_does_not_mend(fleet, lab, seed):
    started = start_all(fleet, MORTAL_S)
    kill_some(started, lab, random.Random(seed))
    for run in started:
        run.process.wait(900)
    for run in started:
        run.kill()  # what went on on a host where the control node was killed has had the time of all other runs
    claims = [meta for _name, meta in lab.ours() if meta.phase == "pending"]
    wait_for(lambda: all(_metadata.age_seconds(meta.claimed) > KILLED_S + 1 for meta in claims), "claims grow old")
    before = [(name, meta.phase) for name, meta in lab.ours()]
    one_more = fleet.run("create_vm", vm_name="more", vm_claim_ttl=KILLED_S, **VM)
    assert one_more.code == 0 or one_more.reason in ("no_capacity", "pool_exhausted"), one_more.output

    assert_nothing_is_given_twice(lab)
    assert [name for name, meta in lab.ours() if meta.phase == "pending"] == [], before
    assert lab.residue() == [], before
    # What a killed run had begun to build holds its room, and whoever asks for it again gets it.
    for name in [name for name, meta in lab.ours() if meta.phase != "ready"]:
        fleet.does("create_vm", vm_name=name, vm_claim_ttl=KILLED_S, **VM)
    assert_nothing_is_given_twice(lab)
    assert {meta.phase for _name, meta in lab.ours()} <= {"ready"} and len(lab.files()) == 2 * len(lab.ours())
    count = len(lab.ours())
    if count:
        fleet.does("delete_vm", vm_name="*", vm_confirm=count)
    assert (lab.where(), lab.files()) == ({}, [])
