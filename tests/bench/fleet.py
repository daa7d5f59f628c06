# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a fleet: the inventory of twenty hosts with a hundred VMs each, and a hundred VMs created over three hosts."""
from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List

import yaml

from ansible_collections.kvmfleet.core.plugins.module_utils import _metadata
from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import PYTHON, FleetPlaybooks, Lab, LabHost
from single_host import KEY, seed_iso

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BIN = Path(sys.executable).parent
HOSTS, VMS = 20, 100
DEADLINE_S = 5
IMAGE = "kfbench-base.qcow2"
FOLDER = "/var/lib/libvirt/images/"
DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>1024</memory><vcpu>2</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os>
<features><acpi/></features><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{folder}{name}-root.qcow2'/><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{folder}{name}-seed.iso'/><target dev='vdb' bus='virtio'/><readonly/></disk>
<interface type='network'><source network='default'/><model type='virtio'/></interface><serial type='pty'/></devices></domain>"""


def _timed(command: List[Any], **environment: str) -> float:
    """Seconds of a command; raises where it fails."""
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".ansible" / "collections"), ANSIBLE_NOCOLOR="1", ANSIBLE_LOCALHOST_WARNING="0", **environment)
    start = time.monotonic()
    done = subprocess.run([str(word) for word in command], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                          stdin=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    if done.returncode:
        raise RuntimeError("{0} failed:\n{1}".format(command, (done.stdout + done.stderr)[-4000:]))
    return seconds


def populate(host: LabHost, count: int) -> None:
    """Define VMs as ours are, with their volumes in the pool."""
    with open(host.path("image.qcow2"), "rb") as stream:
        content = stream.read()
    for number in range(count):
        name = "{0}-vm{1:03}".format(host.host, number)
        volumes = [_metadata.VolumeRef("root", "default", name + "-root.qcow2", 8 << 20), _metadata.VolumeRef("seed", "default", name + "-seed.iso", 65536)]
        for volume, data in zip(volumes, (content, b"\0" * 65536)):
            with open(host.path(volume.name), "wb") as stream:
                stream.write(data)
        domain = ET.fromstring(DOMAIN.format(name=name, folder=FOLDER))
        _metadata.store(domain, _metadata.VmMetadata(image="debian:12", labels={"tier": "front"}, group="acme", namespace="default", volumes=volumes))
        host.conn.defineXML(ET.tostring(domain, encoding="unicode"))
    host.handle.refresh()


class Inventories:
    """Inventory sources over a lab, in a folder."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.uris = [host.uri for host in lab.hosts]
        self.empty, self.ours, self.hurried = folder / "empty.yml", folder / "bench.fleet.yml", folder / "hurried.fleet.yml"
        self.empty.write_text(yaml.safe_dump({"kvm_hosts": {"hosts": {}}}), encoding="utf-8")
        hosts = {host.host: {"uri": host.uri, "zone": "a"} for host in lab.hosts}
        self.ours.write_text(yaml.safe_dump({"plugin": "kvmfleet.core.fleet", "hosts": hosts, "timeout": 60}), encoding="utf-8")
        self.hurried.write_text(yaml.safe_dump({"plugin": "kvmfleet.core.fleet", "hosts": hosts, "timeout": DEADLINE_S}), encoding="utf-8")
        self.theirs = []
        for host in lab.hosts:
            self.theirs.append(folder / (host.host + ".libvirt.yml"))
            self.theirs[-1].write_text(yaml.safe_dump({"plugin": "community.libvirt.libvirt", "uri": host.uri}), encoding="utf-8")
        self.output = folder / "list.json"

    def read(self, *sources: Path) -> float:
        """Seconds of ansible-inventory --list."""
        return _timed([BIN / "ansible-inventory", "--list", "--output", self.output] + [word for source in sources for word in ("-i", source)],
                      ANSIBLE_INVENTORY_ENABLED="kvmfleet.core.fleet,community.libvirt.libvirt,yaml")

    def hosts(self) -> int:
        """How many hosts the last one had."""
        return len(json.loads(self.output.read_text(encoding="utf-8"))["_meta"]["hostvars"])

    def bare(self) -> float:
        """Seconds of the yardstick."""
        return _timed([sys.executable, HERE / "bare_inventory.py", *self.uris])


def _inventory(runs: int) -> List[Dict[str, float]]:
    rounds = []
    with tempfile.TemporaryDirectory(prefix="kfbench-") as folder:
        lab = Lab(HOSTS)
        try:
            with ThreadPoolExecutor(HOSTS) as pool:
                list(pool.map(lambda host: populate(host, VMS), lab.hosts))
            sources = Inventories(lab, Path(folder))
            sources.read(sources.empty)
            for number in range(runs):
                r = {"empty": sources.read(sources.empty), "bare": sources.bare(), "ours": sources.read(sources.ours)}
                if sources.hosts() != HOSTS * (VMS + 1):
                    raise RuntimeError("{0} hosts in our inventory".format(sources.hosts()))
                r["community"] = sum(sources.read(source) for source in sources.theirs)
                with lab.hosts[HOSTS // 2].hung():
                    r["hung"] = sources.read(sources.hurried)
                if sources.hosts() != HOSTS * (VMS + 1) - VMS:
                    raise RuntimeError("{0} hosts in our inventory where one hung".format(sources.hosts()))
                rounds.append(r)
                print("round {0}: {1}".format(number + 1, ", ".join("{0} {1:.2f} s".format(k, v) for k, v in r.items())), flush=True)
        finally:
            lab.stop()
    return rounds


def _create(runs: int) -> List[Dict[str, float]]:
    rounds = []
    with tempfile.TemporaryDirectory(prefix="kfbench-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        lab = Lab(3)
        try:
            iso = seed_iso(path)
            books = FleetPlaybooks(lab, path, vcpus=(1000, 1000, 1000))
            books.catalogs["kvmfleet_images"]["bench:1"] = {"volume": IMAGE, "min_disk": "1GiB", "default_user": "debian", "format": "qcow2"}
            books.room((1000, 1000, 1000))
            for host in lab.hosts:
                host.make_volume(IMAGE, 1 << 30)
            tasks = [{"name": "Ping {0}".format(n), "ansible.builtin.ping": {}} for n in range(8)]
            (path / "noop.yml").write_text(yaml.safe_dump([{"name": "Noop", "hosts": "kvm_hosts", "gather_facts": False, "tasks": tasks}]), encoding="utf-8")

            def playbook(book: str, **given: Any) -> float:
                start = time.monotonic()
                books.does(book, **given)
                return time.monotonic() - start

            playbook(str(path / "noop.yml"))
            for number in range(runs):
                r = {"noop": playbook(str(path / "noop.yml"))}
                r["create"] = playbook("create_vm", vm_name="v", vm_count=100, vm_image="bench:1", vm_memory="64MiB", vm_vcpus=1, vm_disk="10GiB",
                                       vm_state="stopped", vm_wait="none", vm_network="default", vm_ssh_key=KEY)
                share = {name: len(found) for name, found in lab.where().items()}
                playbook("delete_vm", vm_name="v", vm_count=100, vm_confirm=100)
                fullest = max(share, key=lambda name: share[name])
                done = lab[fullest].libvirt.inside(PYTHON, str(HERE / "bare_libvirt.py"), str(share[fullest]), "default", FOLDER + IMAGE, str(iso))
                r["bare"] = float(done.split()[1])
                r["noop"] = (r["noop"] + playbook(str(path / "noop.yml"))) / 2
                rounds.append(r)
                print("round {0}: {1}; share of the hosts {2}".format(number + 1, ", ".join("{0} {1:.2f} s".format(k, v) for k, v in r.items()),
                                                                      sorted(share.values())), flush=True)
        finally:
            lab.stop()
    return rounds


def figures(runs: int = 5) -> List[Dict[str, Any]]:
    """All figures of this part: medians, each value out of one round in which the parts ran in turn."""
    inventory, create = _inventory(runs), _create(runs)
    table = (
        ("inventory_vs_community_libvirt", "ratio", ">= 10", "community.libvirt, 20 times", inventory, lambda r: r["community"] / r["ours"]),
        ("inventory_vs_bare", "ratio", "<= 2", "bare_inventory.py + empty", inventory, lambda r: r["ours"] / (r["bare"] + r["empty"])),
        ("inventory_one_hung_s", "s", "<= 1", "deadline + empty", inventory, lambda r: r["hung"] - DEADLINE_S - r["empty"]),
        ("create_100_on_3_hosts_vs_floor", "ratio", "<= 1.5", "bare_libvirt.py + 8 pings", create, lambda r: r["create"] / (r["bare"] + r["noop"])),
    )
    return [{"name": name, "value": round(statistics.median(value(r) for r in rounds), 3), "unit": unit, "bound": bound, "peer": peer}
            for name, unit, bound, peer, rounds, value in table]
