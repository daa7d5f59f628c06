# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook awx_configure with the real modules of awx.awx, against an AWX of which only the REST API is there."""
from __future__ import annotations

import ast
import json
import os
import re
import subprocess

import pytest
import yaml

from ansible_collections.kvmfleet.core.plugins.plugin_utils import _awx
from ansible_collections.kvmfleet.core.tests.awx.fake_awx import TOKEN, FakeAwx
from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import BIN, ROOT

INVENTORY = {"kvm_hosts": {"hosts": {"kvm1": {"kvm_zone": "east"}, "kvm2": {"kvm_zone": "west"}}, "vars": {
    "kvmfleet_images": {"debian:12": {"default_user": "debian"}}, "kvmfleet_shipped_images": False,
    "kvmfleet_flavors": {"small": {"vcpus": 1, "memory": "1GiB"}},
    "kvmfleet_networks": {"default": {}}, "kvmfleet_groups": {"red": {}}}}}
GIVEN = {"awx_configure_project_url": "https://git.example.org/fleet.git", "awx_configure_ee_image": "registry.example.org/ee:1",
         "awx_configure_ssh_key": "PRIVATE KEY", "awx_configure_known_hosts": "kvm1 ssh-ed25519 AAAA",
         "controller_notifications": [{"name": "ops mail", "organization": "kvmfleet", "notification_type": "email", "notification_configuration": {
             "host": "mail", "sender": "awx@example.org", "recipients": ["ops@example.org"], "port": 25, "timeout": 30, "use_tls": False, "use_ssl": False,
             "username": "", "password": ""}}]}


@pytest.fixture
def awx():
    made = FakeAwx()
    yield made
    made.stop()


@pytest.fixture
def configure(awx, tmp_path):
    """A function: run the playbook with these variables; its recap's count of changes, or its output where it fails."""
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(INVENTORY))

    def run(*options, fails=False, **given):
        (tmp_path / "given.yml").write_text(yaml.safe_dump(given))
        env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=os.path.join(ROOT, ".ansible", "collections"), ANSIBLE_NOCOLOR="1", CONTROLLER_HOST=awx.url,
                   CONTROLLER_OAUTH_TOKEN=TOKEN, no_proxy="*")
        done = subprocess.run([os.path.join(BIN, "ansible-playbook"), "-i", str(tmp_path / "inventory.yml"), os.path.join(ROOT, "playbooks/awx_configure.yml"),
                               "-e", "@{0}".format(tmp_path / "given.yml"), *options], env=env, cwd=str(tmp_path), capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=600)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        assert "PRIVATE KEY" not in done.stdout + done.stderr
        return done.stdout if fails else int(re.search(r"changed=(\d+)", done.stdout).group(1))
    return run


@pytest.mark.long
def test_awx_is_made_so_once(awx, configure):
    assert configure(**GIVEN) > 0
    objects = _awx.objects(_awx.Settings("u", "e", ssh_key="x", known_hosts="y"), _awx.Catalogs(INVENTORY["kvm_hosts"]["vars"]), INVENTORY["kvm_hosts"]["vars"])
    templates = awx.named("job_templates")
    assert sorted(templates) == sorted(t["name"] for t in objects["controller_templates"])
    assert awx.named("credentials")["kvmfleet hosts"]["inputs"]["ssh_key"] == "PRIVATE KEY"
    team = awx.named("teams")["kvmfleet red"]["id"]
    allowed = {number for (kind, number, what), links in awx.links.items() if (kind, what) == ("roles", "teams") and team in links}
    assert allowed == {"{0}.execute_role".format(t["id"]) for t in templates.values() if "vm_group" in json.loads(t["extra_vars"])}
    mail = awx.named("notification_templates")["ops mail"]["id"]
    told = {number for (kind, number, what), links in awx.links.items() if (kind, what) == ("job_templates", "notification_templates_error") and mail in links}
    assert told == {str(t["id"]) for t in templates.values() if "vm_group" not in json.loads(t["extra_vars"])}
    assert awx.updates == ["kvmfleet", "kvmfleet hosts"], "hosts are there without waiting for a schedule"
    writes = awx.writes
    assert configure(**GIVEN) == 0
    assert awx.writes == writes and awx.updates[2:] == ["kvmfleet"], "a second run writes nothing"


def test_files_are_enough(awx, configure, tmp_path):
    """The variable files alone make AWX so: with our role, or with any tool that reads such files."""
    folder = tmp_path / "awx"
    configure("-v", awx_configure_apply=False, awx_configure_dir=str(folder), **GIVEN)
    assert awx.writes == 0 and sorted(path.stem for path in folder.iterdir()) == sorted(_awx.KINDS)
    assert "PRIVATE" not in "".join(path.read_text() for path in folder.iterdir())
    # Two templates stand for all of them: each takes awx.awx a second.
    few = folder / "controller_templates.yml"
    listed = yaml.load(few.read_text(), Loader=yaml.SafeLoader)["controller_templates"]
    few.write_text(yaml.safe_dump({"controller_templates": [t for t in listed if t["playbook"].endswith("/create_vm.yml")]}))
    (folder / "controller_roles.yml").write_text(yaml.safe_dump({"controller_roles": [
        {"team": "kvmfleet red", "role": "execute", "job_templates": ["red: Create VMs"]}]}))
    (folder / "controller_credentials.yml").write_text(yaml.safe_dump({"controller_credentials": [
        {"name": "kvmfleet hosts", "organization": "kvmfleet", "credential_type": "kvmfleet hosts", "inputs": {"ssh_key": "k", "known_hosts": "h"},
         "update_secrets": False}]}))
    options = [word for path in sorted(folder.iterdir()) for word in ("-e", "@{0}".format(path))]
    assert configure(*options) > 0
    templates = awx.named("job_templates")
    assert sorted(templates) == ["kvmfleet: Create VMs", "red: Create VMs"]
    create = templates["red: Create VMs"]
    assert json.loads(create["extra_vars"]) == {"vm_group": "red"} and create["ask_variables_on_launch"] is False
    survey = awx.surveys[create["id"]]["spec"]
    assert [item["choices"] for item in survey if item["variable"] in ("vm_image", "vm_flavor", "vm_zone")] == [["debian:12"], ["small"], ["-", "east", "west"]]
    assert awx.named("credential_types")["kvmfleet hosts"]["injectors"]["env"]["KVMFLEET_SSH_KEY_FILE"] == "{{ tower.filename.ssh_key }}"
    assert awx.links[("roles", "{0}.execute_role".format(create["id"]), "teams")] == {awx.named("teams")["kvmfleet red"]["id"]}
    mail = awx.named("notification_templates")["ops mail"]["id"]
    assert awx.links[("job_templates", str(templates["kvmfleet: Create VMs"]["id"]), "notification_templates_error")] == {mail}
    assert awx.updates == ["kvmfleet", "kvmfleet hosts"]
    writes = awx.writes
    assert configure(*options) == 0
    assert awx.writes == writes and awx.updates[2:] == ["kvmfleet"], "a second run writes nothing, and reads the inventory for nothing"
    awx.revision = "r2"
    assert configure(*options) == 2 and awx.writes == writes
    assert awx.updates[3:] == ["kvmfleet", "kvmfleet hosts"], "what has changed in the repository is there at once"


def test_what_is_missing_is_told_before_awx_is_asked(awx, configure):
    assert "awx_configure_ee_image" in configure(fails=True, awx_configure_project_url="https://git.example.org/x.git")
    assert "awx_configure_known_hosts" in configure(fails=True, **{k: v for k, v in GIVEN.items() if k != "awx_configure_known_hosts"})
    assert awx.writes == 0


def test_each_task_hands_on_every_option_of_its_module():
    """Of a configuration-as-code list nothing may get lost on the way; but for what only a one-off call needs."""
    import ansible_collections.awx.awx as awx_collection
    tasks = yaml.safe_load(open(os.path.join(ROOT, "roles/awx_configure/tasks/apply.yml"), encoding="utf-8"))[0]["block"]
    update = tasks.pop()
    assert update["awx.awx.inventory_source_update"]["wait"] is True and len(tasks) == len(_awx.KINDS)
    kinds = []
    for task in tasks:
        module = next(key for key in task if key.startswith("awx.awx."))
        path = os.path.join(list(awx_collection.__path__)[0], "plugins/modules", module.rpartition(".")[2] + ".py")
        calls = [node for node in ast.walk(ast.parse(open(path, encoding="utf-8").read())) if isinstance(node, ast.Assign)
                 and getattr(node.targets[0], "id", "") == "argument_spec"]
        known = {keyword.arg for keyword in calls[0].value.keywords}
        assert set(task[module]) <= known
        left_out = {"new_name", "copy_from", "custom_virtualenv", "interval", "vault_credential"}
        if module == "awx.awx.job_template":
            left_out.add("credential")  # there is credentials
        assert known - set(task[module]) <= left_out, module
        kinds.append(task["loop"])
    assert kinds == ["{{{{ awx_configure_made.objects.{0} }}}}".format(kind) for kind in _awx.KINDS], "in this order"
