# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/tutorial.md, typed line by line into one shell, in a clean copy of the checkout and against a lab of its own name."""
from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from ansible_collections.kvmfleet.core.tests.unit import doc_pages

ROOT = doc_pages.ROOT
LAB = "tutorial-{0}".format(os.getpid() % 10000)


class Session:
    """What a reader has: a clean checkout, a home, and a shell."""

    def __init__(self, folder):
        self.checkout, self.home = folder / "checkout", folder / "home"
        self.home.mkdir()
        names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=str(ROOT), check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(ROOT / name), str(self.checkout / name))
        # Making one takes two minutes, and `make demo` of a clean clone has shown it
        (self.checkout / ".venv").symlink_to((ROOT / ".venv").resolve())
        self.said = {}

    def types(self, commands, timeout_s):
        """Type commands into one shell, until one fails, and write the files at their places. Keeps what each said, by its line in the page."""
        script = ["set -eu -o pipefail"]
        for command in sorted(commands):
            script += ["printf '\\n@@ line %s\\n' {0}".format(command.line), command.text]
        env = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "KVMFLEET_", "PYTEST_")) and key != "VIRTUAL_ENV"}
        # The page's lab is called `lab`, which may be somebody's on this machine
        env.update(HOME=str(self.home), ANSIBLE_NOCOLOR="1", KVMFLEET_LAB=LAB)
        done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=str(self.checkout), env=env, check=False, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s)
        for part in done.stdout.split("\n@@ line ")[1:]:
            line, _newline, said = part.partition("\n")
            self.said[int(line)] = said
        assert done.returncode == 0, "exit code {0}\n{1}".format(done.returncode, done.stdout[-20000:])

    def close(self):
        """Remove the lab, whatever has become of it."""
        subprocess.run([str(self.checkout / "scripts" / "lab.sh"), "down", "--name", LAB, "--folder", str(self.checkout / "lab")], check=True,
                       stdin=subprocess.DEVNULL, timeout=300)


@pytest.fixture
def session(tmp_path):
    opened = Session(tmp_path)
    status = subprocess.run([str(opened.checkout / "scripts" / "lab.sh"), "status"], env=dict(os.environ, KVMFLEET_LAB=LAB), stdin=subprocess.DEVNULL,
                            check=False, capture_output=True, text=True, timeout=300)
    assert status.stdout == "There is no lab '{0}'\n".format(LAB), "what the page says would be done to a lab of somebody else"
    yield opened
    opened.close()


TUTORIAL = next(page for page in doc_pages.pages() if page.name == "docs/tutorial.md")
COMMANDS = [command for command in TUTORIAL.commands() if any(block.language == "console" and block.line <= command.line <= block.line +
                                                              block.text.count("\n") for block in TUTORIAL.blocks)]


# A file that the page shows, with its path in the first line, as the command that writes it
FILES = [doc_pages.Command(block.line, "cat >{0} <<'END'\n{1}END".format(block.text.splitlines()[0].lstrip("# "), block.text))
         for block in TUTORIAL.blocks if block.language == "yaml"]


def test_the_first_steps_of_the_tutorial(session):
    first = [command for command in COMMANDS if command.section.startswith(("1.", "2."))]
    session.types(first + COMMANDS[-1:], 800)
    assert len(re.findall(r"^kvm[123] \| SUCCESS", session.said[first[-1].line], re.MULTILINE)) == 3
    assert COMMANDS[-1].text == "make lab-clean" and not (session.checkout / "lab" / "hosts.yml").exists()


@pytest.mark.long
def test_the_tutorial(session):
    session.types(COMMANDS + FILES, 3600)
    by_text = {command.text: session.said[command.line] for command in COMMANDS}

    def said(*parts):
        return next(output for text, output in by_text.items() if all(part in text for part in parts))

    made = said("create_vm.yml", "vm_wait=cloud_init")
    assert {host for _name, host in re.findall(r"^(web-[123]) +(kvm[123]) +running ", made, re.MULTILINE)} == {"kvm1", "kvm2", "kvm3"}
    assert said("uname -n").strip().splitlines()[-1] == "web-1" and " 0% packet loss" in said("ping -c 3")
    extra = re.findall(r"^extra +(kvm[123]) +stopped ", said("vm_name=extra", "create_vm"), re.MULTILINE)
    assert extra and extra[0] != "kvm3"
    last = [session.said[command.line] for command in COMMANDS if "list_vms.yml" in command.text][-1]
    assert not re.search(r"^(?:web-|extra)", last, re.MULTILINE)
