# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of the modules' documentation, run as they stand but for names, pools and networks, which become this test's own."""
from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest
import yaml

from ansible_collections.kvmfleet.core.tests.integration.places import IMAGE, MODULES, PLENTY

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA me@laptop"
VARIABLES = {"image_volume": IMAGE, "public_key": KEY, "vault_deploy_password_hash": "$6$salt$hash"}
# Those that change the host itself, in check mode
CHECKED = ("virt_probe", "host_check", "host_kernel", "host_network", "host_pool", "host_tls_files")


def adapted(value, place, key=None):
    """A value of an example with this test's own pool and network; guests that obey nobody are not waited for."""
    if isinstance(value, dict):
        return {k: adapted(v, place, k) for k, v in value.items()}
    if isinstance(value, list):
        return [adapted(item, place) for item in value]
    if key in ("pool", "image_pool"):
        return place.pool
    if key == "network" and isinstance(value, str):
        return place.network
    if key == "shutdown_timeout":
        return 1
    return value


def examples(module, place):
    """The tasks of a module's EXAMPLES."""
    tasks = adapted(yaml.safe_load(importlib.import_module(MODULES + module).EXAMPLES), place)
    for task in tasks:
        name = next((k for k in task if k.startswith("kvmfleet.core.")), None)
        if name is None:
            continue
        arguments = task[name] = task[name] or {}
        if name.endswith(".vm_set"):
            for vm in arguments["vms"]:
                vm["name"] = place.name(vm["name"])
        elif name.endswith(".vm_domain"):
            arguments["name"] = place.name(arguments["name"])
        elif name.endswith((".vm_info", ".vm_power")) and "names" in arguments:
            names = arguments["names"]
            arguments["names"] = [place.name(n) for n in names] if isinstance(names, list) else place.name(names)
        elif name.endswith(".cloudinit_seed") and "domain" in arguments:
            arguments["domain"] = place.name(arguments["domain"])
        if arguments.get("wait"):
            arguments["timeout"] = 1  # an empty guest never answers: the example has to say so
            task.update(register="waited", failed_when="waited.reason | default('') != 'wait_timeout'")
    return tasks


def tiny(place, *shorts, **more):
    """VMs that examples speak of."""
    place.run("vm_set", vms=[dict({"name": place.name(s), "memory": "64MiB", "virt_type": "qemu", "disks": [{"pool": place.pool, "size": "1MiB"}],
                                   "nics": [{"network": place.network}]}, **more) for s in shorts])


def prepare(module, place):
    """What the examples of a module take for granted."""
    if module == "vm_domain":
        place.make_volume("db1-root.qcow2", 1 << 20)
        place.run("cloudinit_seed", pool=place.pool, name="db1-seed.iso", hostname="db1")
    elif module == "vm_info":
        tiny(place, "web1", "web2", state="running")
    elif module == "vm_power":
        tiny(place, "web1", "web2")
        tiny(place, "db.prod.blue", state="running", group="blue", namespace="prod")
    elif module == "cloudinit_seed":
        place.make_volume("debian-12.qcow2", 1 << 20)
        tiny(place, "db1")


@pytest.mark.parametrize("module", ["cloudinit_seed", "fleet_report", "host_capacity", "vm_disk", "vm_domain", "vm_info", "vm_power", "vm_set"] + list(CHECKED))
def test_examples_do_what_they_say(module, place, tmp_path):
    prepare(module, place)
    ours = {"totals": PLENTY}
    variables = dict(VARIABLES, seed={"instance_id": "5a1e0f6c-0d5f-4d0e-9b0b-1f2e3d4c5b6a"})
    if module == "cloudinit_seed":
        del variables["seed"]  # registered by the example itself
    play = {
        "hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": examples(module, place),
        "module_defaults": {"group/kvmfleet.core.kvmfleet": {"uri": place.uri}, "kvmfleet.core.vm_set": ours,
                            "kvmfleet.core.vm_domain": dict(ours, virt_type="qemu"), "kvmfleet.core.vm_disk": ours}}
    for task in play["tasks"]:
        for vm in task.get("kvmfleet.core.vm_set", {}).get("vms", []):
            if vm.get("state") != "absent":
                vm.update(virt_type="qemu", memory="64MiB")
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "localhost,", "-c", "local", "-e",
               json.dumps({"ansible_python_interpreter": sys.executable}), str(tmp_path / "play.yml")]
    environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=os.path.join(ROOT, ".ansible", "collections"), ANSIBLE_NOCOLOR="1")
    done = subprocess.run(command + (["--check"] if module in CHECKED else []), env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
                          timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed=0" in done.stdout
