# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-playbook as a user runs it, and what came of it."""
from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
BIN = os.path.dirname(sys.executable)
IMAGE = "debian:12"


class Run:
    """What came of one ansible-playbook: exit code, output, the data of set_stats, the recap."""

    def __init__(self, code, output):
        self.code, self.output = code, output
        found = re.search(r"^\tRUN: (\{.*\})$", self.output, re.MULTILINE)
        self.data = json.loads(found.group(1))["kvmfleet"] if found else {}
        recap = re.findall(r"changed=(\d+) +unreachable=(\d+) +failed=(\d+)", self.output)
        self.changed, self.unreachable, self.failed = (sum(int(n) for n in column) for column in zip(*recap)) if recap else (None, None, None)

    @property
    def vms(self):
        return {vm["name"]: vm for vm in self.data["vms"]}

    @property
    def failure(self):
        """The result of the one failure that a user sees."""
        fatal = re.findall(r"^fatal: \[[^\]]*\]: FAILED! => (\{.*\})$", self.output, re.MULTILINE)
        assert len(fatal) == 1, self.output
        return json.loads(fatal[0])

    @property
    def message(self):
        """Its message."""
        return self.failure["msg"]

    @property
    def reason(self):
        """Its code."""
        return self.failure.get("reason")


class Playbooks:
    """Runs playbooks against a place's own pool and network."""

    def __init__(self, place, folder):
        self.place, self.folder = place, folder
        self.keys = folder / "keys"
        self.host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "kvm_pool": place.pool, "kvm_virt_type": "qemu",
                     "kvm_networks": {"default": {"network": place.network}, "lost": {"network": "kfit-no-such-net"}},
                     "kvm_storage_classes": {"gone": "kfit-no-such-pool"}, "kvm_totals": {"vcpus": 1000, "memory": "1TiB"}}
        self.catalogs = {
            "kvmfleet_images": {IMAGE: {"volume": "image.qcow2", "min_disk": "16MiB", "default_user": "debian"}},
            "kvmfleet_flavors": {"tiny": {"vcpus": 1, "memory": "64MiB", "disk": "16MiB"}},
            "kvmfleet_networks": {"default": {"cidr": "192.0.2.0/24", "gateway": "192.0.2.1"}, "lost": {}},
        }
        self.inventory({"local": self.host})

    def inventory(self, hosts):
        """Write the inventory."""
        data = {"kvm_hosts": {"hosts": hosts, "vars": self.catalogs}}
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(data))

    def command(self, playbook, *options, variables=None, environment=None, **given):
        """Command line and environment of a run; see L(run)."""
        path = playbook if "." in playbook else os.path.join(ROOT, "playbooks", playbook + ".yml")
        command = [os.path.join(BIN, "ansible-playbook"), "-i", str(self.folder / "inventory.yml"), path] + list(options)
        if playbook.endswith("create_vm"):
            given.setdefault("vm_key_dir", self.keys)
        for name, value in given.items():
            command += ["-e", "{0}='{1}'".format(name, value) if " " in str(value) else "{0}={1}".format(name, value)]
        if variables:
            (self.folder / "variables.yml").write_text(yaml.safe_dump(variables))
            command += ["-e", "@{0}".format(self.folder / "variables.yml")]
        env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=os.path.join(ROOT, ".ansible", "collections"), ANSIBLE_SHOW_CUSTOM_STATS="1", ANSIBLE_NOCOLOR="1",
                   ANSIBLE_LOCALHOST_WARNING="0", ANSIBLE_RETRY_FILES_ENABLED="0", ANSIBLE_TIMEOUT="3", **(environment or {}))
        return command, env

    def run(self, playbook, *options, **given):
        """Run a playbook; C(given) by -e name=value, C(variables) by a file, as it is done with structures."""
        command, env = self.command(playbook, *options, **given)
        done = subprocess.run(command, env=env, cwd=str(self.folder), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300)
        return Run(done.returncode, done.stdout + done.stderr)

    def does(self, playbook, *options, **given):
        """The same where it has to succeed."""
        run = self.run(playbook, *options, **given)
        assert run.code == 0, run.output
        return run

    def refuses(self, playbook, *options, **given):
        """The message of a run that has to fail by one message, with nothing touched."""
        return self.refusal(playbook, *options, **given).message

    def refusal(self, playbook, *options, **given):
        """A run that has to fail by one message, with nothing touched."""
        before = self.place.snapshot()
        run = self.run(playbook, *options, **given)
        assert run.code != 0, run.output
        assert self.place.snapshot() == before
        assert "Traceback" not in run.output and run.message
        return run
