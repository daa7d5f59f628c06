# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What SSH as root is to real hosts, for the lab's: a user without rights runs Python inside a host of the lab. The hosts' end is a thread of the tests."""
from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import uuid

from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import PYTHON

# Hands its arguments, its folder and its streams over, and ends as what was run has ended.
CLIENT = """#!/usr/bin/python3
import json, os, socket, sys
door = socket.socket(socket.AF_UNIX)
door.connect({0!r})
socket.send_fds(door, [json.dumps([os.getcwd(), sys.argv[1:]]).encode()], [0, 1, 2])
sys.exit(int(door.recv(8) or b"255"))
"""


class RootDoor:
    """The way into a host of the lab. C(python) is the interpreter for Ansible."""

    def __init__(self, host):
        self.enter = [*host.libvirt.enter, PYTHON]
        self.python = os.path.join(host.root, "door-" + uuid.uuid4().hex[:8])
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.python + ".sock")
        os.chmod(self.python + ".sock", 0o666)
        self.socket.listen(64)
        with open(self.python, "w", encoding="utf-8") as script:
            script.write(CLIENT.format(self.python + ".sock"))
        os.chmod(self.python, 0o755)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                caller, _address = self.socket.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._run, args=(caller,), daemon=True).start()

    def _run(self, caller):
        with caller:
            text, streams, _flags, _address = socket.recv_fds(caller, 1 << 16, 3)
            try:
                folder, arguments = json.loads(text)
                done = subprocess.run([*self.enter, *arguments], cwd=folder, check=False, stdin=streams[0], stdout=streams[1], stderr=streams[2])
            finally:
                for stream in streams:
                    os.close(stream)
            caller.send(str(done.returncode & 255).encode())

    def close(self):
        """Let nobody in any more."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
