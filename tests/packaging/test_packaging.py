# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tarball as a user gets it: built, installed and run in a virtual environment that holds ansible-core and nothing else."""
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What a user's machine must not be sent
NOT_SHIPPED = (".venv", ".ansible", ".demo", ".bench", ".git", ".github", ".cache", ".ci", "build", "docs/_build")


def run(command, **kwargs):
    """Run a command that has to succeed; its output is what a failure shows."""
    process = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                             stdin=subprocess.DEVNULL, **kwargs)
    assert process.returncode == 0, process.stdout
    return process.stdout


def own_modules():
    """Names of the modules in the checkout."""
    return sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))


@pytest.fixture(scope="module", name="tarball")
def _tarball(tmp_path_factory):
    """The built collection."""
    out = tmp_path_factory.mktemp("build")
    run([Path(sys.executable).with_name("ansible-galaxy"), "collection", "build", "--output-path", out, ROOT])
    (tarball,) = out.glob("kvmfleet-core-*.tar.gz")
    return tarball


@pytest.fixture(scope="module", name="user")
def _user(tarball, tmp_path_factory):
    """A user's environment: ansible-core alone, the collection, an empty home."""
    home = tmp_path_factory.mktemp("home")
    venv = home / "venv"
    run([sys.executable, "-m", "venv", venv])
    (core,) = [line for line in (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8").splitlines() if line.startswith("ansible-core==")]
    run([venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", core])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_") and name != "PYTHONPATH"}
    environment.update(HOME=str(home), PATH="{0}:{1}".format(venv / "bin", os.environ["PATH"]), ANSIBLE_NOCOLOR="1",
                       ANSIBLE_COLLECTIONS_PATH=str(home / "collections"))
    run(["ansible-galaxy", "collection", "install", "--offline", "-p", home / "collections", tarball], env=environment, cwd=str(home))

    def as_user(*command):
        return run(command, env=environment, cwd=str(home))

    return as_user


def test_the_tarball_holds_the_collection_and_no_leftovers(tarball):
    with tarfile.open(str(tarball)) as archive:
        names = [member.name.rstrip("/") for member in archive.getmembers()]
    for wanted in ("LICENSE", "README.md", "meta/runtime.yml", "meta/execution-environment.yml", "playbooks/create_vm.yml",
                   "roles/vm/tasks/main.yml", "plugins/module_utils/_spec.py"):
        assert wanted in names
    assert [name for name in names if any(name == bad or name.startswith(bad + "/") for bad in NOT_SHIPPED)] == []
    assert [name for name in names if re.search(r"(^|/)__pycache__(/|$)|\.pyc$|\.tar\.gz$|\.qcow2$|^\.venv", name)] == []


def test_every_module_is_documented_in_an_empty_venv(user):
    documents = json.loads(user("ansible-doc", "--json", "-t", "module", *["kvmfleet.core." + name for name in own_modules()]))
    assert sorted(documents) == ["kvmfleet.core." + name for name in own_modules()]
    for name, document in documents.items():
        assert document["doc"]["short_description"], name
        assert document["examples"], name
    assert "vm_domain" in user("ansible-doc", "-t", "module", "kvmfleet.core.vm_domain")


def test_the_action_group_has_every_module_that_takes_a_uri(user):
    documents = json.loads(user("ansible-doc", "--json", "-t", "module", *["kvmfleet.core." + name for name in own_modules()]))
    with_uri = sorted(name.rpartition(".")[2] for name, document in documents.items() if "uri" in document["doc"].get("options", {}))
    runtime = (ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^    - (\w+)$", runtime, re.MULTILINE)) == with_uri


def test_a_module_runs(user):
    """libvirt's own test driver is enough to go through imports, connection and result; the host's Python brings libvirt."""
    output = user("ansible", "localhost", "-c", "local", "-e", "ansible_python_interpreter=/usr/bin/python3", "-m", "kvmfleet.core.vm_info",
                  "-a", "uri=test:///default")
    assert "localhost | SUCCESS" in output
    assert '"name": "test"' in output


@pytest.mark.parametrize("playbook", ["create_vm", "delete_vm", "power_vm", "list_vms", "capacity", "list_hosts", "list_images", "list_flavors",
                                      "list_networks", "awx_configure"])  # which needs awx.awx only when it runs
def test_playbooks_are_found_by_name(user, playbook):
    user("ansible-playbook", "--syntax-check", "-i", "localhost,", "kvmfleet.core." + playbook)


def test_module_defaults_reach_the_group(user, tmp_path):
    play = tmp_path / "play.yml"
    play.write_text(json.dumps([{
        "hosts": "localhost", "connection": "local", "gather_facts": False, "vars": {"ansible_python_interpreter": "/usr/bin/python3"},
        "module_defaults": {"group/kvmfleet.core.kvmfleet": {"uri": "test:///default"}},
        "tasks": [{"kvmfleet.core.vm_info": {}, "register": "seen"},
                  {"ansible.builtin.assert": {"that": "seen.vms | map(attribute='name') | list == ['test']"}}],
    }]), encoding="utf-8")
    user("ansible-playbook", "-i", "localhost,", play)


def test_the_repository_installs_as_an_awx_project_does_it(tmp_path):
    environment = dict(os.environ, HOME=str(tmp_path), ANSIBLE_COLLECTIONS_PATH=str(tmp_path / "collections"))
    run([Path(sys.executable).with_name("ansible-galaxy"), "collection", "install", "--offline", "-r", "requirements.yml", "-p", tmp_path / "collections"],
        cwd=str(ROOT), env=environment)
    installed = tmp_path / "collections" / "ansible_collections" / "kvmfleet" / "core"
    assert (installed / "playbooks" / "create_vm.yml").exists()
    assert [name for name in NOT_SHIPPED if (installed / name).exists()] == []
