# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs as AWX runs them: ansible-runner, a private data directory, a user without rights, no terminal, a project nobody may write to."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid

from ansible_collections.kvmfleet.core.tests.awx import awx_rules
from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import BIN, ROOT

NOBODY = 65534
PROJECT = ("playbooks", "plugins", "roles", "meta", "requirements.yml", "galaxy.yml", "ansible.cfg", "README.md", "LICENSE")
USER = ["setpriv", "--reuid={0}".format(NOBODY), "--regid={0}".format(NOBODY), "--clear-groups", "--no-new-privs"]


class Job:
    """What came of a job. C(artifacts) is what AWX keeps of it."""

    def __init__(self, folder, output):
        self.output = output
        self.status = (folder / "status").read_text()
        self.events = [json.loads(path.read_text()) for path in (folder / "job_events").glob("[0-9]*.json")]
        # Everything that whoever may see the job can read: each event as AWX keeps it, and what it prints.
        self.readable = output + "".join(path.read_text() for path in sorted((folder / "job_events").glob("[0-9]*.json")))
        self.artifacts = next((e["event_data"]["artifact_data"] for e in self.events if e["event"] == "playbook_on_stats"), {})

    @property
    def answer(self):
        """What the playbooks hand on."""
        return self.artifacts["kvmfleet"]


class Controller:
    """The part of AWX that runs jobs: an installed project, a frozen inventory (C(hosts)), credentials.

    :param folder: a folder that others may enter
    :param inventory: path of the inventory's source
    :param path: of the programs; the first ansible-playbook on it is used
    """

    def __init__(self, folder, inventory, path=BIN):
        self.folder, self.path = folder, path
        self.project, self.collections = folder / "project", folder / "requirements_collections"
        self.project.mkdir()
        for name in PROJECT:
            source = os.path.join(ROOT, name)
            (shutil.copytree if os.path.isdir(source) else shutil.copy)(source, self.project / name)
        for base, folders, files in os.walk(self.project):
            for name in [*folders, *files]:
                os.chmod(os.path.join(base, name), 0o555 if name in folders else 0o444)
        self.project.chmod(0o555)
        env = dict(os.environ, HOME=str(folder), ANSIBLE_COLLECTIONS_PATH=str(self.collections), PATH=path + os.pathsep + os.environ["PATH"])
        subprocess.run([os.path.join(path, "ansible-galaxy"), "collection", "install", "--offline", "-r", "requirements.yml", "-p", str(self.collections)],
                       cwd=self.project, env=env, check=True, stdout=subprocess.DEVNULL)
        frozen = subprocess.run([os.path.join(path, "ansible-inventory"), "-i", str(inventory), "--list", "--export"], cwd=folder, env=env, check=True,
                                stdout=subprocess.PIPE, text=True).stdout
        self.hosts = json.loads(frozen)

    def launch(self, template, answers, check=False, credentials=(), vault=None, limit=None):
        """Launch a template and wait for the job. Raises awx_rules.Refused where AWX would answer with a 400.

        :param vault: password in a credential of AWX's type Vault
        """
        variables, _ignored = awx_rules.launch(template, answers)
        words = (["--check"] if check else []) + (["--become"] if template["become_enabled"] else [])
        if limit is not None and template["ask_limit_on_launch"]:
            words += ["--limit", limit]
        return self.run(template["playbook"], variables, template["extra_vars"], words, credentials, vault)

    def run(self, playbook, variables, trusted=(), words=(), credentials=(), vault=None):
        """Run a playbook with extra variables; of those that are not C(trusted) none is a template."""
        ident = uuid.uuid4().hex[:8]
        data = self.folder / ident
        for name in ("env", "inventory", "artifacts", "home"):
            (data / name).mkdir(parents=True)
        envvars = {"ANSIBLE_COLLECTIONS_PATH": str(self.collections), "ANSIBLE_RETRY_FILES_ENABLED": "False", "ANSIBLE_FORCE_COLOR": "True",
                   "ANSIBLE_HOST_KEY_CHECKING": "False", "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True", "HOME": str(data / "home"), "JOB_ID": "7",
                   "AWX_HOST": "https://awx.example.org", "AWX_JOB_ID": "7",
                   "ANSIBLE_REMOTE_TMP": str(data / "home" / "tmp")}  # this user has no home but for HOME
        cmdline = list(words)
        if vault is not None:
            cmdline.append("--ask-vault-pass")
            (data / "env" / "passwords").write_text(json.dumps({r"Vault password:\s*?$": vault}))
        for number, (credential_type, inputs) in enumerate(credentials):
            env, injected = awx_rules.inject(credential_type, inputs, data / "env")
            envvars.update(env)
            (data / "env" / "credential{0}.yml".format(number)).write_text(awx_rules.extra_vars_file(injected, {}))
            cmdline += ["-e", "@{0}".format(data / "env" / "credential{0}.yml".format(number))]
        (data / "env" / "envvars").write_text(json.dumps(envvars))
        (data / "env" / "cmdline").write_text(" ".join(cmdline))
        variables = dict({name + "_job_id": 7 for name in ("awx", "tower")}, **variables)
        (data / "env" / "extravars").write_text(awx_rules.extra_vars_file(variables, dict(trusted)))
        (data / "inventory" / "hosts").write_text("#!/usr/bin/python3\n# -*- coding: utf-8 -*-\nprint({0!r})\n".format(json.dumps(self.hosts)))
        for base, folders, files in os.walk(data):
            for name in [".", *folders, *files]:
                os.chown(os.path.join(base, name), NOBODY, NOBODY)
                if name in files:
                    os.chmod(os.path.join(base, name), 0o700 if name == "hosts" else 0o600)
        env = {"PATH": os.pathsep.join([self.path, BIN, "/usr/sbin", "/usr/bin", "/sbin", "/bin"]), "HOME": str(data / "home"), "LANG": "C.UTF-8"}
        done = subprocess.run([*USER, os.path.join(BIN, "ansible-runner"), "run", str(data), "--project-dir", str(self.project), "-p", playbook,
                               "--ident", ident], cwd=data, env=env, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=600, start_new_session=True)
        return Job(data / "artifacts" / ident, done.stdout)
