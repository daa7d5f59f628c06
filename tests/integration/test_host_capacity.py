# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module host_capacity on a libvirtd of its own, where every figure can be foretold."""
from __future__ import annotations

import json
import os
import platform
import subprocess

from ansible_collections.kvmfleet.core.plugins.module_utils._overhead import qemu_overhead_mib

MIB = 1 << 20


def claim(where, short, **more):
    """A claim with a disk in the pool."""
    vm = {"name": where.name(short), "virt_type": "qemu", "vcpus": 2, "memory": "64MiB", "disks": [{"pool": where.pool, "size": "16MiB"}]}
    vm.update(more)
    return where.run("vm_set", step="claim", ticket="t", vms=[vm])


def test_what_the_host_is(lonely):
    """Facts agree with the machine's own tools."""
    seen = lonely.run("host_capacity")
    assert seen["changed"] is False and seen["arch"] == platform.machine() and "x86_64" in seen["archs"] and "qemu" in seen["virt_types"]
    assert seen["hostname"] and "efi" in seen["firmware"] and "bios" in seen["firmware"] and any(m.startswith("pc-q35") for m in seen["machines"])
    version = subprocess.run(["libvirtd", "--version"], check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout.split()[-1]
    assert seen["libvirt_version"] == version
    version = subprocess.run(["qemu-system-x86_64", "--version"], check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout
    assert "version {0} ".format(seen["qemu_version"]) in version
    assert seen["numa_cells"][0]["cpus"] >= 1 and sum(c["cpus"] for c in seen["numa_cells"]) == os.cpu_count()
    assert seen["vcpus"]["total"] == os.cpu_count() and seen["memory"]["total_mib"] == lonely.conn.getInfo()[1]
    pool = seen["pools"][lonely.pool]
    filesystem = os.statvfs(lonely.target)
    assert pool["active"] is True and pool["path"] == lonely.target and pool["total_bytes"] == filesystem.f_blocks * filesystem.f_frsize
    assert "volumes" not in pool
    less = lonely.run("host_capacity", facts=False, volumes=True)
    assert "arch" not in less and less["pools"][lonely.pool]["volumes"] == ["image.qcow2"]


def test_everything_defined_counts(lonely):
    """Claims in full, foreign domains with their maximum, stopped ones by the factor, running ones as used."""
    def reckoned(**params):
        seen = lonely.run("host_capacity", facts=False, **params)
        return seen["vcpus"]["allocated"], seen["memory"]["allocated_mib"], seen["pools"][lonely.pool]["allocated_bytes"], seen["domains"]
    image = os.stat(lonely.path("image.qcow2")).st_blocks * 512
    assert reckoned() == (0, 0, image, {"defined": 0, "running": 0, "ours": 0, "pending": 0})
    claim(lonely, "a")
    counted = 64 + qemu_overhead_mib(64, 2, nics=0)
    assert reckoned() == (2, counted, image + 16 * MIB, {"defined": 1, "running": 0, "ours": 1, "pending": 1})
    assert reckoned(stopped_factor=0)[:2] == (2, counted)
    lonely.run("vm_set", step="build", ticket="t", vms=[{"name": lonely.name("a"), "vcpus": 2, "memory": "64MiB",
                                                         "disks": [{"pool": lonely.pool, "size": "16MiB"}]}])
    assert reckoned() == (2, counted, image + 16 * MIB, {"defined": 1, "running": 0, "ours": 1, "pending": 0})
    assert reckoned(stopped_factor=0)[:2] == (0, 0) and reckoned(stopped_factor="0.5")[:2] == (1, counted // 2)
    lonely.conn.defineXML("<domain type='qemu'><name>{0}</name><memory unit='MiB'>100</memory><currentMemory unit='MiB'>10</currentMemory>"
                          "<vcpu current='1'>4</vcpu><os><type>hvm</type></os></domain>".format(lonely.name("foreign")))
    assert reckoned()[:2] == (6, counted + 100 + qemu_overhead_mib(100, 4, disks=0, nics=0)) and reckoned()[3]["ours"] == 1
    lonely.run("vm_set", vms=[{"name": lonely.name("a"), "state": "running"}])
    seen = lonely.run("host_capacity", facts=False, stopped_factor=0)
    assert (seen["vcpus"]["allocated"], seen["vcpus"]["used"], seen["memory"]["used_mib"]) == (2, 2, counted)
    lonely.run("vm_set", vms=[{"name": lonely.name("a"), "vcpus": 2, "memory": "64MiB", "disks": [{"reserve": "1MiB", "size": "16MiB"}]}])
    assert reckoned()[2] == image + MIB


def test_ratios_reserves_and_totals(lonely):
    """Available is (total - reserved) x ratio - allocated, and may be negative; integers stay integers."""
    claim(lonely, "a")
    counted = 64 + qemu_overhead_mib(64, 2, nics=0)
    seen = lonely.run("host_capacity", facts=False, totals={"vcpus": 4, "memory": "200MiB", "disk": "40MiB"},
                      reserved={"vcpus": "1", "memory": "50MiB", "disk": "0"},
                      ratios={"vcpus": "0.5", "memory": 1.5, "disk": 1})
    assert seen["vcpus"] == {"total": 4, "reserved": 1, "ratio": 0.5, "allocated": 2, "used": 0, "available": -0.5}
    assert seen["memory"] == {"total_mib": 200, "reserved_mib": 50, "ratio": 1.5, "allocated_mib": counted, "used_mib": 0,
                              "available_mib": 225 - counted}
    image = os.stat(lonely.path("image.qcow2")).st_blocks * 512
    assert seen["pools"][lonely.pool]["available_bytes"] == 24 * MIB - image
    json.dumps(seen)
    for params, option in (({"ratios": {"vcpus": 0}}, "ratios.vcpus"), ({"reserved": {"memory": "2"}}, "reserved.memory"),
                           ({"totals": {"disk": "x"}}, "totals.disk"),
                           ({"stopped_factor": 2}, "stopped_factor")):
        assert lonely.run("host_capacity", fails=True, **params)["error"]["option"] == option


def test_the_vms_that_are_counted(lonely):
    """As placement needs them: what is counted, whose it is and what it holds."""
    claim(lonely, "a", group="blue", labels={"tier": "front"}, name="{0}.default.blue".format(lonely.name("a")))
    lonely.define("foreign", "<interface type='ethernet'><mac address='52:54:00:00:00:01'/></interface>")
    seen = {vm["name"]: vm for vm in lonely.run("host_capacity", facts=False, vms=True)["vms"]}
    ours, foreign = seen["{0}.default.blue".format(lonely.name("a"))], seen[lonely.name("foreign")]
    assert ours["managed"] is True and ours["phase"] == "pending" and ours["ticket"] == "t" and 0 <= ours["claim_age_s"] < 600
    assert (ours["vcpus_milli"], ours["memory_mib"]) == (2000, 64 + qemu_overhead_mib(64, 2, nics=0))
    assert ours["disks"] == [{"name": "root", "pool": lonely.pool, "bytes": 16 * MIB}] and (ours["group"], ours["labels"]) == ("blue", {"tier": "front"})
    assert foreign["managed"] is False and foreign["macs"] == ["52:54:00:00:00:01"] and foreign["phase"] is None and foreign["stopped"] is True


def test_an_inactive_pool_and_a_libvirt_without_qemu(lonely, run_module):
    """A pool that is not active is told as such; other drivers are read as far as they tell."""
    handle = lonely.conn.storagePoolDefineXML("<pool type='dir'><name>{0}-off</name><target><path>/nonexistent</path></target></pool>".format(lonely.prefix))
    assert lonely.run("host_capacity", facts=False)["pools"][lonely.prefix + "-off"] == {"active": False}
    handle.undefine()
    seen = run_module("host_capacity", uri="test:///default")
    assert seen["domains"]["defined"] == 1 and seen["domains"]["ours"] == 0 and seen["vcpus"]["allocated"] == 2
    assert seen["memory"]["allocated_mib"] == 8192 + qemu_overhead_mib(8192, 2)
