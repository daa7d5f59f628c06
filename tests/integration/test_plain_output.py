# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees of a run with the callback plugin kvmfleet.core.plain, by a real ansible-playbook."""
from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess

import pytest

from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import IMAGE, Playbooks

PLAIN = {"ANSIBLE_STDOUT_CALLBACK": "kvmfleet.core.plain", "ANSIBLE_SHOW_CUSTOM_STATS": "0"}
NOISE = ("fatal:", "skipping:", "included:", "ok: [", "{", "[ERROR]", "Origin:", "...ignoring", "Task failed", "Traceback")


@pytest.fixture
def playbooks(place, tmp_path):
    return Playbooks(place, tmp_path)


@pytest.fixture
def dead():
    """Variables of a host at which nobody listens: a port that is taken, and closed."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield {"ansible_host": "127.0.0.1", "ansible_port": taken.getsockname()[1], "ansible_connection": "ssh"}


@pytest.fixture
def small(place):
    return {"vm_name": place.name("web"), "vm_image": IMAGE, "vm_memory": "64MiB", "vm_vcpus": "1", "vm_state": "stopped", "vm_wait": "none"}


def seen(playbooks, playbook, *options, **given):
    """Exit code and the lines of a run that are not empty, of which none is noise."""
    environment = dict(PLAIN, **given.pop("environment", {}))
    command, env = playbooks.command(playbook, *options, **given)
    env.update(environment)
    done = subprocess.run(command, env=env, cwd=str(playbooks.folder), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300)
    lines = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
    assert done.stderr == "" and "\x1b" not in done.stdout, done.stdout + done.stderr
    return done.returncode, lines


def test_dead_hosts_are_told_once_and_last(playbooks, dead, small):
    playbooks.inventory({"kvm1": dead, "kvm2": dead})
    code, lines = seen(playbooks, "create_vm", **small)
    assert code != 0 and not [line for line in lines if any(noise in line for noise in NOISE)], lines
    assert re.match(r"FAILED: kvm_hosts: no host answered: kvm1, kvm2: Failed to connect .*refused\. .*ansible kvm_hosts -m ping\.$", lines[-1]), lines
    assert "libvirt runs" not in lines[-1] and len([line for line in lines if "refused" in line]) == 1, lines
    code, lines = seen(playbooks, "capacity")
    assert code != 0 and lines[-1].startswith("FAILED: kvm1, kvm2: The host is unreachable: Failed to connect") and "Task failed" not in lines[-1]
    assert [line for line in lines if line.split()[:2] == ["kvm1", "unreachable"]], "the table stays"


def test_without_a_report_each_dead_host_has_a_line(playbooks, dead):
    playbooks.inventory({"kvm1": dead, "kvm2": dead})
    code, lines = seen(playbooks, "setup_hosts")
    assert code != 0 and not [line for line in lines if any(noise in line for noise in NOISE)], lines
    assert len([line for line in lines if re.match(r"kvm[12]: unreachable: Failed to connect", line)]) == 2
    assert lines[-1].startswith("FAILED: kvm1, kvm2: The host is unreachable: Failed to connect")


def test_a_success_is_a_table_and_a_refusal_a_paragraph(playbooks, place, dead, small):
    playbooks.inventory({"local": playbooks.host, "kvm2": dead})
    code, lines = seen(playbooks, "create_vm", **small)
    assert code == 0 and not [line for line in lines if any(noise in line for noise in NOISE)], lines
    heading, row = (next(line for line in lines if line.startswith(begin)) for begin in ("name ", place.name("web")))
    assert heading.split()[:4] == ["name", "host", "state", "result"] and row.split()[1:4] == ["local", "stopped", "created"]
    assert [line for line in lines if line.startswith("changed: [local]")] and "FAILED" not in "".join(lines)
    assert len([line for line in lines if "refused" in line]) == 1, "the host that was left out is named once"
    code, lines = seen(playbooks, "create_vm", **small)
    assert code == 0 and not [line for line in lines if line.startswith("changed:") or any(noise in line for noise in NOISE)], lines
    assert re.search(r"^local +: ok=\d+ +changed=0 ", "\n".join(lines), re.MULTILINE)
    code, lines = seen(playbooks, "create_vm", **dict(small, vm_memory="64"))
    assert code != 0 and lines[-1] == "FAILED: vm_memory = '64': has no unit, and both MiB and GiB are in use. Write 64GiB or 64MiB.", lines
    assert len([line for line in lines if "has no unit" in line]) == 1


def test_verbose_gives_the_json(playbooks, small):
    code, lines = seen(playbooks, "create_vm", "-v", **dict(small, vm_memory="64"))
    fatal = [line for line in lines if line.startswith("fatal: [local]: FAILED! => ")]
    assert code != 0 and json.loads(fatal[0].partition(" => ")[2])["reason"] == "invalid_value"
    assert lines[-1].startswith("FAILED: vm_memory = '64': has no unit")


def test_a_terminal_wraps_the_last_words(playbooks, dead, small):
    playbooks.inventory({"kvm1": dead, "kvm2": dead})
    command, env = playbooks.command("create_vm", **small)
    env.update(PLAIN)
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        process = subprocess.Popen(command, env=env, cwd=str(playbooks.folder), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while True:
                read = screen.read(65536)
                if not read:
                    break
                shown += read
        except OSError:
            pass  # what a terminal says at its end
        assert process.wait(300) != 0
    last = shown.decode().replace("\r", "").partition("FAILED: ")[2].strip().splitlines()
    assert len(last) > 1 and all(len(line) <= 80 for line in last) and " ".join(last).endswith("-m ping."), shown.decode()
