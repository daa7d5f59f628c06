# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of one host: create, delete, list and re-run many VMs, as ratios to peers measured in turn in the same run."""
from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import libvirt
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
POOL = "kfbench"
IMAGE = "kfbench-base.qcow2"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHd9cF3b0CkcAqTQW1nBoWyMpMgMlCBbNx+d5y4yYyJd bench"


def seed_iso(folder: Path) -> Path:
    """A cloud-init seed as the yardstick script uploads it."""
    for name in ("user-data", "meta-data"):
        (folder / name).write_text("#cloud-config\n{}\n" if name == "user-data" else "instance-id: bench\n", encoding="ascii")
    iso = folder / "seed.iso"
    subprocess.run(["genisoimage", "-quiet", "-output", str(iso), "-volid", "cidata", "-joliet", "-rock", str(folder / "user-data"),
                    str(folder / "meta-data")], check=True)
    return iso


class Bench:
    """A pool, an image, an inventory and peers of our own on this machine's libvirtd; all of it is gone when the block ends."""

    def __enter__(self) -> Bench:
        self.dir = tempfile.TemporaryDirectory(prefix="kfbench-", dir="/var/tmp")
        self.path = Path(self.dir.name)
        self.conn = libvirt.open("qemu:///system")
        target = self.path / "pool"
        target.mkdir()
        os.chmod(self.path, 0o755)
        self.image = target / IMAGE
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(self.image), "1G"], check=True)
        self.pool = self.conn.storagePoolCreateXML("<pool type='dir'><name>{0}</name><target><path>{1}</path></target></pool>".format(POOL, target))
        self.iso = seed_iso(self.path)
        self._inventory()
        return self

    def __exit__(self, *_exc: object) -> None:
        for domain in self.conn.listAllDomains():
            if domain.name().startswith(("kfbench-", "kfpeer-")):
                domain.undefine()
        self.pool.destroy()
        self.conn.close()
        self.dir.cleanup()

    def _inventory(self) -> None:
        host = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3", "kvm_pool": POOL, "kvm_virt_type": "qemu",
                "kvm_totals": {"vcpus": 1000, "memory": "1000GiB", "disk": "100TiB"}}
        catalog = {"kvmfleet_images": {"bench:1": {"volume": IMAGE, "min_disk": "1GiB", "default_user": "debian", "format": "qcow2"}}}
        self.inventory = self.path / "hosts.yml"
        self.inventory.write_text(yaml.safe_dump({"kvm_hosts": {"hosts": {"bench": host}, "vars": catalog}}), encoding="utf-8")
        ping = [{"name": "Ping {0}".format(n), "ansible.builtin.ping": {}} for n in range(4)]
        self.noop_play = self.path / "noop.yml"
        self.noop_play.write_text(yaml.safe_dump([{"name": "Noop", "hosts": "kvm_hosts", "gather_facts": False, "tasks": ping}]), encoding="utf-8")

    def playbook(self, book: Path, **extra: Any) -> float:
        """Seconds of one ansible-playbook run; raises where it fails."""
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(self.inventory), str(book)]
        for key, value in extra.items():
            command.extend(["-e", "{0}={1}".format(key, value)])
        environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".ansible" / "collections"), ANSIBLE_NOCOLOR="1")
        start = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        seconds = time.monotonic() - start
        if done.returncode:
            raise RuntimeError("{0} failed:\n{1}".format(" ".join(command), done.stdout[-4000:]))
        return seconds

    def noop(self) -> float:
        """Four pings."""
        return self.playbook(self.noop_play)

    def create(self, count: int) -> float:
        """Our create_vm.yml; called again it is the re-run."""
        return self.playbook(ROOT / "playbooks" / "create_vm.yml", vm_name="kfbench-v", vm_count=count, vm_image="bench:1", vm_memory="64MiB", vm_vcpus=1,
                             vm_disk="10GiB", vm_state="stopped", vm_wait="none", vm_network="default", vm_ssh_key="'{0}'".format(KEY))

    def delete(self, count: int) -> float:
        """Our delete_vm.yml over the set, named as it was created."""
        return self.playbook(ROOT / "playbooks" / "delete_vm.yml", vm_name="kfbench-v", vm_count=count, vm_confirm=count)

    def list(self) -> float:
        """Our list_vms.yml."""
        return self.playbook(ROOT / "playbooks" / "list_vms.yml")

    def bare(self, count: int) -> Tuple[float, float]:
        """The yardstick script: seconds for create and for delete."""
        done = subprocess.run([sys.executable, str(HERE / "bare_libvirt.py"), str(count), POOL, str(self.image), str(self.iso)], check=True,
                              stdout=subprocess.PIPE, text=True)
        words = done.stdout.split()
        return float(words[1]), float(words[3])

    def community(self, count: int) -> float:
        """The same work by community.libvirt: overlay volume, seed, define, VM by VM; what it made is removed untimed."""
        seconds = self.playbook(HERE / "community_libvirt.yml", count=count, pool=POOL, base=self.image, seed=self.iso)
        for domain in self.conn.listAllDomains():
            if domain.name().startswith("kfpeer-"):
                domain.undefine()
        self.pool.refresh()
        for volume in self.pool.listAllVolumes():
            if volume.name().startswith("kfpeer-"):
                volume.delete()
        return seconds


def _median(rounds: List[Dict[str, float]], value: Callable[[Dict[str, float]], float]) -> float:
    return statistics.median(value(r) for r in rounds)


def figures(runs: int = 5) -> List[Dict[str, Any]]:
    """All figures of this part: medians of ratios, each ratio out of one round in which the parts ran in turn."""
    rounds: List[Dict[str, float]] = []
    with Bench() as bench:
        bench.noop()
        for number in range(runs):
            r: Dict[str, float] = {"noop": bench.noop()}
            r["bare_create"], r["bare_delete"] = bench.bare(100)
            r["create_100"] = bench.create(100)
            r["rerun_100"] = bench.create(100)
            r["list_100"] = bench.list()
            r["delete_100"] = bench.delete(100)
            r["noop"] = (r["noop"] + bench.noop()) / 2
            for count in (20, 50, 200):
                r["create_{0}".format(count)] = bench.create(count)
                bench.delete(count)
            r["community_20"] = bench.community(20)
            rounds.append(r)
            print("round {0}: {1}".format(number + 1, ", ".join("{0} {1:.2f} s".format(k, v) for k, v in r.items())), flush=True)
    bare = "bare_libvirt.py + noop"
    table = (
        ("create_100_vs_floor", "<= 1.5", bare, lambda r: r["create_100"] / (r["bare_create"] + r["noop"])),
        ("delete_100_vs_floor", "<= 1.5", bare, lambda r: r["delete_100"] / (r["bare_delete"] + r["noop"])),
        ("create_20_vs_community_libvirt", ">= 8", "community.libvirt", lambda r: r["community_20"] / r["create_20"]),
        ("rerun_100_vs_noop", "<= 2", "noop", lambda r: r["rerun_100"] / r["noop"]),
        ("list_100_vs_noop", "<= 1.5", "noop", lambda r: r["list_100"] / r["noop"]),
        ("create_growth", "<= 4.4", "create of 50", lambda r: (r["create_200"] - r["noop"]) / (r["create_50"] - r["noop"])),
    )
    return [{"name": name, "value": round(_median(rounds, value), 3), "unit": "ratio", "bound": bound, "peer": peer} for name, bound, peer, value in table]
