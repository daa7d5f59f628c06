# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told while a task takes long, by a real ansible-playbook."""
from __future__ import annotations

import contextlib
import json
import subprocess
import threading

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _admission
from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import Playbooks

PATIENCE_S = 240


@pytest.fixture
def told(place, tmp_path):
    """A function: run one task on the place, and call back at the first line that begins as given; all lines with that beginning, and the exit code."""
    playbooks = Playbooks(place, tmp_path)

    def run(module, beginning, then=lambda: None, **params):
        play = {"hosts": "kvm_hosts", "gather_facts": False, "tasks": [{"kvmfleet.core." + module: place.params(module, params)}]}
        (tmp_path / "play.yml").write_text(json.dumps([play]))
        command, env = playbooks.command(str(tmp_path / "play.yml"))
        lines = []
        with subprocess.Popen(command, env=env, cwd=str(tmp_path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              universal_newlines=True) as process:
            overdue = threading.Timer(PATIENCE_S, process.kill)
            overdue.start()
            try:
                for line in process.stdout:
                    if line.startswith(beginning):
                        lines.append(line)
                        then()
            finally:
                overdue.cancel()
        return lines, process.wait()
    return run


def test_another_run_that_holds_the_host(place, told):
    with contextlib.ExitStack() as held:
        held.enter_context(_admission.host_lock(place.uri))
        lines, code = told("vm_disk", "this host's lock on local: ", held.close, name="d.qcow2", pool=place.pool, size="16MiB")
    assert code == 0 and "waiting for another run, " in lines[0], lines
    assert place.files() == ["d.qcow2"]


@pytest.mark.parametrize("state", ["stopped", pytest.param("absent", marks=pytest.mark.long)])
def test_another_run_that_works_on_the_vm(place, told, state):
    params = {"name": place.name(), "memory": "64MiB", "vcpus": 1, "virt_type": "qemu", "state": "stopped"}
    if state == "absent":
        place.run("vm_domain", **params)
        params = {"name": place.name(), "state": "absent"}
    with contextlib.ExitStack() as held:
        held.enter_context(_admission.vm_locks(place.uri, [place.name()], 30))
        lines, code = told("vm_domain", place.name() + " on local: ", held.close, **params)
    assert code == 0 and "waiting for another run, " in lines[0], lines
    assert [d.name() for d in place.domains()] == ([] if state == "absent" else [place.name()])


def test_a_guest_that_does_not_shut_down(place, told):
    place.run("vm_domain", name=place.name(), memory="64MiB", vcpus=1, virt_type="qemu", state="running")
    lines, code = told("vm_power", place.name() + " on local: ", name=place.name(), action="shutdown", shutdown_timeout=8, force=True)
    assert code == 0 and "waiting for the guest to shut down, 8 s at most" in lines[0], lines
    assert not place.domain().isActive()
