# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules write into the host's log: what they were called for, and no part of a secret."""
from __future__ import annotations

import importlib
import json
import pkgutil

import pytest
from ansible.module_utils import basic

from ansible_collections.kvmfleet.core.plugins import modules
from ansible_collections.kvmfleet.core.plugins.module_utils import _module

PACKAGE = modules.__name__
SECRETS = ("SecretLine", "it's", "back\\slash")
USER_DATA = "#cloud-config\npassword: SecretLine\nother: it's\n"
FILES = [{"path": "/etc/key", "content": "-----BEGIN KEY-----\nSecretLine\n"}]
USERS = [{"name": "deploy", "password": "it's back\\slash"}]


def logged(monkeypatch, module, params):
    """What a module logs before it does its work."""
    lines = []
    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": params}).encode())
    monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
    monkeypatch.setattr(basic.AnsibleModule, "log", lambda self, msg, log_args=None: lines.append("{0} {1}".format(msg, log_args)))
    loaded = importlib.import_module("{0}.{1}".format(PACKAGE, module))
    for work in ("run", "run_one", "run_module"):
        if hasattr(loaded, work):
            monkeypatch.setattr(loaded, work, lambda *args, **kwargs: None)
    loaded.main()
    return "\n".join(lines)


@pytest.mark.parametrize("module, params", [
    ("vm_set", {"vms": [{"name": "web-1", "seed": {"user_data": USER_DATA}}, {"name": "web-2", "seed": {"write_files": FILES, "users": USERS}}]}),
    ("cloudinit_seed", {"pool": "default", "name": "web-1 web-2", "write_files": FILES, "users": USERS, "user_data": USER_DATA}),
    ("vm_domain", {"name": "web-1 web-2", "graphics": {"type": "vnc", "password": "it's"}}),
])
def test_secrets_of_several_lines_stay_out_of_the_log(monkeypatch, module, params):
    text = logged(monkeypatch, module, params)
    assert text.startswith("Invoked for web-1")
    assert "web-2" in text
    assert [secret for secret in SECRETS if secret in text or repr(secret)[1:-1] in text] == []


@pytest.mark.parametrize("module", sorted(info.name for info in pkgutil.iter_modules(modules.__path__)))
def test_every_module_that_runs_on_a_host_logs_that_way(module):
    loaded = importlib.import_module("{0}.{1}".format(PACKAGE, module))
    assert not hasattr(loaded, "main") or loaded.FleetModule is _module.FleetModule
