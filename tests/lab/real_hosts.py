# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Labs of real hosts (scripts/lab.sh) for tests: made fresh, spoken to by SSH and by playbooks, removed."""
from __future__ import annotations

import os
import shlex
import subprocess

import yaml

from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import BIN, ROOT, Run


def lab_script(*arguments, check=True):
    """Run scripts/lab.sh."""
    done = subprocess.run([os.path.join(ROOT, "scripts", "lab.sh"), *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                          timeout=1500)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


class RealHosts:
    """A lab. C(hosts) has the variables of each host by its name, C(inventory) is what ansible-playbook gets."""

    def __init__(self, name, folder, *options):
        self.name, self.options = name, options
        self.folder = str(folder)
        self.hosts = {}

    def up(self):
        """Make it, or what is missing of it."""
        done = lab_script("up", "--name", self.name, "--folder", self.folder, *self.options)
        with open(os.path.join(self.folder, "hosts.yml"), encoding="utf-8") as file:
            self.hosts = yaml.safe_load(file)["kvm_hosts"]["hosts"]
        return done

    def down(self):
        """Remove it, and what an earlier session that was killed has left under its name."""
        return lab_script("down", "--name", self.name, "--folder", self.folder)

    def stop(self, *hosts):
        """Switch hosts off."""
        lab_script("stop", *hosts, "--name", self.name, "--folder", self.folder)

    def start(self, *hosts):
        """Switch hosts on, and wait for them."""
        lab_script("start", *hosts, "--name", self.name, "--folder", self.folder)

    def container(self, host):
        """What podman calls a host."""
        return "{0}-{1}".format(self.name, host)

    def console(self, host, *argv, check=True):
        """Run a command on a host past its network."""
        return _finished(["podman", "--log-level=error", "exec", self.container(host), *argv], check)

    def ssh(self, host, *argv, check=True, text=None):
        """Run a command on a host by SSH: C(ssh("kvm1", "ip", "address")), or one string for its shell."""
        command = argv[0] if len(argv) == 1 else " ".join(shlex.quote(a) for a in argv)
        return _finished(["ssh", "-F", os.path.join(self.folder, ".ssh", "config"), "-o", "ConnectTimeout=10", host, command], check, text)

    def play(self, playbook, *options, variables=None, inventory=None, timeout=900):
        """Run a playbook of ours (by name) or any other (by path) against the lab.

        :param variables: go by a file, as structures have to
        :param inventory: instead of the lab's own
        """
        path = playbook if os.path.sep in playbook else os.path.join(ROOT, "playbooks", playbook + ".yml")
        command = [os.path.join(BIN, "ansible-playbook"), "-i", inventory or self.folder, path, *options]
        if variables:
            file = os.path.join(self.folder, ".variables.yml")
            with open(file, "w", encoding="utf-8") as handle:
                yaml.safe_dump(variables, handle)
            command += ["-e", "@" + file]
        env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=os.path.join(ROOT, ".ansible", "collections"), ANSIBLE_SHOW_CUSTOM_STATS="1", ANSIBLE_NOCOLOR="1",
                   ANSIBLE_LOCALHOST_WARNING="0", ANSIBLE_RETRY_FILES_ENABLED="0", ANSIBLE_HOST_KEY_CHECKING="1")
        done = subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=timeout)
        return Run(done.returncode, done.stdout + done.stderr)

    def does(self, playbook, *options, **given):
        """The same where it has to succeed."""
        run = self.play(playbook, *options, **given)
        assert run.code == 0, run.output
        return run


def _finished(command, check, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=300, stdin=None if text is not None else subprocess.DEVNULL)
    assert not check or done.returncode == 0, "{0}: exit code {1}\n{2}{3}".format(command, done.returncode, done.stdout, done.stderr)
    return done
