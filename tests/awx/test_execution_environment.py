# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The execution environment: that ansible-builder can make it, that nothing is missing in it, and that it runs the fleet with nothing but what it lists."""
from __future__ import annotations

import ast
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from ansible_collections.kvmfleet.core.plugins.plugin_utils import _awx
from ansible_collections.kvmfleet.core.tests.awx import awx_rules
from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import BIN, ROOT
from ansible_collections.kvmfleet.core.tests.unit import doc_pages

ENVIRONMENT = yaml.safe_load(Path(ROOT, "execution-environment.yml").read_text(encoding="utf-8"))
# What a module is imported by, and what ansible-core brings along; numpy is an optional speed-up.
IMPORTED = {"libvirt": "libvirt-python", "libvirt_qemu": "libvirt-python", "netaddr": "netaddr"}
WITH_CORE = {"ansible", "ansible_collections", "yaml", "jinja2", "markupsafe", "cryptography", "packaging"}
OPTIONAL = {"numpy", "scipy"}
LAB = "kfawxee"
UNSHARE = "/usr/bin/unshare"  # not on the PATH that is inside


def packages(profile=None):
    """The Debian packages of the environment: those to run with, or those to build with."""
    found = []
    for line in Path(ROOT, "meta/ee-bindep.txt").read_text(encoding="utf-8").splitlines():
        name, _bracket, conditions = line.partition(" [")
        words = conditions.rstrip("]").split()
        if name and not name.startswith("#") and "platform:rpm" not in words and ("compile" in words) == (profile == "compile"):
            found.append(name)
    return found


def run(*command, **options):
    """A command that has to succeed; what it says."""
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.stderr.write(done.stderr)  # which pytest shows when the test fails
    return done.stdout


def run_inside(root, *command, **options):
    """The same in the environment, with a /proc of its own as in a container."""
    return run(UNSHARE, "--mount", "--pid", "--fork", "--kill-child", "--root={0}".format(root), "--mount-proc", *command, **options)


def test_ansible_builder_makes_a_context(tmp_path):
    run(os.path.join(BIN, "ansible-builder"), "create", "-f", os.path.join(ROOT, "execution-environment.yml"), "-c", tmp_path, cwd=ROOT)
    container = (tmp_path / "Containerfile").read_text()
    assert "FROM $EE_BASE_IMAGE AS base" in container and ENVIRONMENT["images"]["base_image"]["name"] in container
    for name, source in (("requirements.txt", "meta/ee-requirements.txt"), ("bindep.txt", "meta/ee-bindep.txt")):
        assert (tmp_path / "_build" / name).read_text() == Path(ROOT, source).read_text()


def test_introspection_of_the_collection_finds_the_same(tmp_path):
    """Who puts the collection into an environment of his own gets the same packages."""
    written = {name: tmp_path / name for name in ("pip", "bindep")}
    run(os.path.join(BIN, "ansible-builder"), "introspect", "--write-pip", written["pip"], "--write-bindep", written["bindep"],
        os.path.join(ROOT, ".ansible", "collections"))
    assert {line.split("#")[0].strip() for line in written["pip"].read_text().splitlines() if line.strip()} >= set(
        Path(ROOT, "meta/ee-requirements.txt").read_text().split())
    assert {line.split(" ")[0] for line in written["bindep"].read_text().splitlines()} >= {*packages(), *packages("compile")}


def test_whatever_the_control_side_imports_is_in_the_environment():
    listed = Path(ROOT, "meta/ee-requirements.txt").read_text()
    seen = set()
    for path in Path(ROOT, "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            seen.update(name.partition(".")[0] for name in names)
    foreign = {name for name in seen if name and name not in sys.stdlib_module_names} - WITH_CORE - OPTIONAL
    assert foreign == foreign & set(IMPORTED), "say which package brings it, and list that"
    assert all(IMPORTED[name] in listed for name in foreign)


def test_the_command_of_the_page_finds_the_collection(tmp_path):
    """What podman would run, with its mounts and its environment and nothing else, only without the image."""
    page = next(page for page in doc_pages.pages() if page.name == "docs/execution-environment.md")
    install, inside = (next(shlex.split(command.text) for command in page.commands() if command.text.startswith(program))
                       for program in ("ansible-galaxy collection install", "podman run"))
    (tmp_path / "fleet.yml").write_text(yaml.safe_dump({"plugin": "kvmfleet.core.fleet", "hosts": {"kvm1": {"uri": "qemu:///system"}}}))
    env = {"HOME": str(tmp_path), "PATH": "{0}:{1}".format(BIN, os.environ["PATH"]), "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True", "ANSIBLE_NOCOLOR": "1"}
    install[install.index("kvmfleet.core")] = ROOT  # instead of Galaxy's
    run(*install, "--offline", env=env, cwd=tmp_path)
    mounts = {target: source.replace("$PWD", str(tmp_path)) for source, target in (
        inside[i + 1].removesuffix(":ro").rsplit(":", 1) for i, word in enumerate(inside) if word == "-v")}

    def outside(text):
        for target, source in mounts.items():
            text = text.replace(target, source) if text == target or text.startswith(target + "/") else text
        return text
    given = dict(inside[i + 1].split("=", 1) for i, word in enumerate(inside) if word == "-e")
    # A key is of no use for a URI that is not qemu+ssh
    env.update({name: outside(value) for name, value in given.items() if not name.startswith("KVMFLEET_SSH_")})
    command = [outside(word) for word in inside[inside.index("ansible-inventory"):]]
    assert "kvm1" in run(*command, env=env, cwd="/")


@pytest.fixture(scope="module")
def root():
    """An empty Debian with what the environment lists, and nothing else: packages to run with, ansible-core, ansible-runner, the Python packages.

    The build of libvirt-python is done outside, with the packages to build with, as ansible-builder does it in a stage of its own.
    """
    folder = Path(tempfile.mkdtemp(prefix="kfawx-ee-"))
    try:
        included = ["python3", "python3-venv", "ca-certificates", *packages()]
        run("mmdebstrap", "--variant=minbase", "--include=" + ",".join(included), "bookworm", folder / "root")
        wheels = folder / "wheels"
        listed = Path(ROOT, "meta/ee-requirements.txt").read_text().split()
        tools = [ENVIRONMENT["dependencies"][name]["package_pip"] for name in ("ansible_core", "ansible_runner")]
        run(sys.executable, "-m", "pip", "wheel", "--wheel-dir", wheels, *tools, *listed)
        shutil.copytree(wheels, folder / "root" / "wheels")
        run_inside(folder / "root", "python3", "-m", "venv", "/opt/ee")
        run_inside(folder / "root", "/opt/ee/bin/pip", "install", "--no-index", "--find-links", "/wheels", *tools, *listed)
        yield folder / "root"
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def real_lab():
    """One real host, reached by SSH, with libvirt on it."""
    lab = Path(ROOT, ".ansible", "labs", LAB)
    run(os.path.join(ROOT, "scripts", "lab.sh"), "up", "--name", LAB, "--hosts", "1", cwd=ROOT)
    try:
        env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=os.path.join(ROOT, ".ansible", "collections"))
        run(os.path.join(BIN, "ansible-playbook"), "-i", lab / "hosts.yml", os.path.join(ROOT, "playbooks", "setup_hosts.yml"), "-e", "kvm_virt_type=qemu",
            env=env, cwd=ROOT)
        yield lab
    finally:
        run(os.path.join(ROOT, "scripts", "lab.sh"), "down", "--name", LAB, cwd=ROOT)


@pytest.mark.long
def test_the_fleet_runs_from_it(root, real_lab):
    """By SSH alone, with the credential that AWX injects: the inventory over qemu+ssh, then a VM, then none."""
    host, variables = next(iter(yaml.safe_load((real_lab / "hosts.yml").read_text())["kvm_hosts"]["hosts"].items()))
    project = root / "runner" / "project"
    shutil.copytree(ROOT, project, ignore=lambda _folder, names: [n for n in names if n.startswith((".", "tests", "docs", "lab"))], symlinks=True)
    paths = {"PATH": "/opt/ee/bin:/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
    install = "cd /runner/project && exec ansible-galaxy collection install --offline -r requirements.yml -p /runner/collections"
    run_inside(root, "sh", "-c", install, env=paths)
    (root / "runner" / "fleet.yml").write_text(yaml.safe_dump({"plugin": "kvmfleet.core.fleet", "timeout": 60, "hosts": {
        host: {"uri": "qemu+ssh://root@{0}/system".format(variables["ansible_host"]), "virt_type": "qemu"}}}))
    key = {"ssh_key": (real_lab / ".ssh" / "id_ed25519").read_text(), "known_hosts": (real_lab / ".ssh" / "known_hosts").read_text()}
    environment, injected = awx_rules.inject(_awx.CREDENTIAL_TYPES[0], key, root / "tmp")
    environment, injected = ({name: value.replace(str(root), "") for name, value in given.items()} for given in (environment, injected))
    env = dict(environment, **paths, ANSIBLE_COLLECTIONS_PATH="/runner/collections", ANSIBLE_HOST_KEY_CHECKING="False",
               ANSIBLE_INVENTORY_UNPARSED_FAILED="True", ANSIBLE_NOCOLOR="1")
    frozen = json.loads(run_inside(root, "ansible-inventory", "-i", "/runner/fleet.yml", "--list", "--export", env=env))
    assert frozen["_meta"]["hostvars"][host]["kvm_status"] == "ok", json.dumps(frozen)
    stranger = dict(env, KVMFLEET_SSH_KNOWN_HOSTS="/dev/null")
    refused = json.loads(run_inside(root, "ansible-inventory", "-i", "/runner/fleet.yml", "--list", "--export", env=stranger))
    assert refused["_meta"]["hostvars"][host]["kvm_status"] == "unreachable", "a host whose key is not known"
    (root / "runner" / "hosts").write_text("#!/usr/bin/python3\nprint({0!r})\n".format(json.dumps(frozen)))
    (root / "runner" / "hosts").chmod(0o755)
    given = dict(injected, vm_name="web", vm_memory="64MiB", vm_disk="16MiB", vm_ssh_key="none", vm_wait="none", ansible_python_interpreter="/usr/bin/python3")
    for playbook, word in (("create_vm", "created"), ("create_vm", "unchanged"), ("delete_vm", "deleted")):
        variables = {name: value for name, value in given.items() if playbook == "create_vm" or not name.startswith("vm_") or name == "vm_name"}
        (root / "runner" / "extravars").write_text(json.dumps(variables))
        said = run_inside(root, "ansible-playbook", "-i", "/runner/hosts", "/runner/project/playbooks/{0}.yml".format(playbook), "-e", "@/runner/extravars",
                          env=env)
        assert "1 VM: 1 " + word in said, said
