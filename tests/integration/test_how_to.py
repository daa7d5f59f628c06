# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of docs/how-to.md and docs/maintenance.md, run one after another as they stand over three hosts, whose guests never boot."""
from __future__ import annotations

import os
import shlex
import subprocess

import pytest
import yaml

from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import FleetPlaybooks
from ansible_collections.kvmfleet.core.tests.unit import doc_pages

# Guests that are no guests: nobody waits for them, and they obey no power button
ADDED = {"create_vm": ["-e", "vm_wait=none", "-e", "vm_shutdown_timeout=1", "-e", "vm_force=true"], "power_vm": ["-e", "vm_shutdown_timeout=1"]}
FOREIGN = ("<domain type='qemu'><name>Win_Server</name><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>")


class Reader:
    """Somebody who reads a page and types what it says."""

    def __init__(self, lab, folder):
        self.lab, self.folder = lab, folder
        self.fleet = FleetPlaybooks(lab, folder, (16, 16, 16))
        self.fleet.catalogs["kvmfleet_flavors"] = {"small": {"vcpus": 1, "memory": "128MiB", "disk": "1GiB"}}
        self.home = folder / "home"
        (self.home / ".ssh").mkdir(parents=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.home / ".ssh/id_ed25519")], check=True)

    def furnish(self, page):
        """What the page takes for granted: files and catalogs that it shows, and an inventory."""
        for block in page.blocks:
            if block.language == "yaml" and block.text.startswith("# secrets.yml"):
                (self.folder / "secrets.yml").write_text(block.text)
            elif block.language == "yaml" and block.text.startswith("kvmfleet_groups:"):
                self.fleet.catalogs.update(yaml.safe_load(block.text))
        self.fleet.room((16, 16, 16), **{host.host: {"kvm_networks": {"default": {"network": "default"}, "red-net": {"network": "default"}}}
                                         for host in self.lab.hosts})
        os.replace(self.folder / "inventory.yml", self.folder / "fleet.yml")

    def types(self, command):
        """Type a command, and see it succeed."""
        words = shlex.split(command.text)
        playbook = next(word for word in words if word.startswith("kvmfleet.core.")).split(".")[-1]
        ansible, env = self.fleet.command("kvmfleet.core." + playbook)
        done = subprocess.run([os.path.expanduser(word) if word.startswith("~") else word for word in words] + ADDED.get(playbook, []), check=False,
                              env=dict(env, HOME=str(self.home), PATH=os.path.dirname(ansible[0]) + ":" + env["PATH"]), cwd=str(self.folder),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
        assert done.returncode == 0, "line {0}: {1}\n{2}".format(command.line, command.text, done.stdout)
        return done.stdout


@pytest.fixture
def reader(lab, tmp_path):
    lab["kvm1"].conn.defineXML(FOREIGN)
    return Reader(lab, tmp_path)


def commands(name, *sections):
    """The page, and its commands that are playbooks; of some sections only where any are named."""
    page = next(page for page in doc_pages.pages() if page.name == name)
    found = [command for command in page.commands() if command.text.startswith("ansible-playbook -i fleet.yml")]
    assert set(sections) <= {command.section for command in found}
    return page, [command for command in found if not sections or command.section in sections]


def test_the_beginning_of_the_how_to_page(reader, lab):
    page, typed = commands("docs/how-to.md", "Create", "Grow a VM")
    reader.furnish(page)
    for command in typed:
        reader.types(command)
    assert sorted(name for names in lab.where().values() for name in names) == ["Win_Server", "db", "db2", "test1", "test2", "web-1", "web-2", "web-3"]


@pytest.mark.long
def test_the_whole_how_to_page(reader, lab):
    page, typed = commands("docs/how-to.md")
    assert len(typed) > 20
    reader.furnish(page)
    for command in typed:
        reader.types(command)
    left = {name for names in lab.where().values() for name in names}
    assert {"web.default.red", "safe", "Win_Server", "dns", "key1", "key2"} <= left and not {"db", "test1", "test2"} & left


@pytest.mark.long
def test_the_maintenance_page(reader, lab):
    page, typed = commands("docs/maintenance.md")
    reader.furnish(page)
    reader.types(commands("docs/how-to.md", "Create")[1][1])
    for command in typed:
        reader.types(command)
    assert {name for names in lab.where().values() for name in names} == {"Win_Server", "web-1", "web-2", "web-3"}
