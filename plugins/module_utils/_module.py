# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The AnsibleModule of this collection, which keeps option values out of the host's log."""
from __future__ import annotations

from typing import Any, Dict, List, Mapping, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kvmfleet.core.plugins.module_utils import _progress

PROGRESS_ARGUMENT_SPEC: Dict[str, Any] = {"progress": {"type": "path"}}


def _subjects(params: Mapping[str, Any]) -> List[str]:
    """The names of what a module was called for."""
    if isinstance(params.get("vms"), list):
        return [str(vm["name"]) for vm in params["vms"]]
    if params.get("names"):
        return [str(name) for name in params["names"]]
    return [str(params["name"])] if params.get("name") else []


class FleetModule(AnsibleModule):
    """An AnsibleModule that logs what it was called for and no option besides, and tells how far it is where it is asked to.

    Ansible writes the options to the host's log and masks secrets afterwards. It looks for the secret's text, but an option that is a list or a
    dict is logged as its Python representation, where line ends, quotes and backslashes are escaped: a multi-line secret in there is not found.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _progress.start(self.params.get("progress"))

    def exit_json(self, **kwargs: Any) -> NoReturn:
        _progress.stop()
        super().exit_json(**kwargs)
        raise AssertionError("exit_json returned")

    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn:
        _progress.stop()
        super().fail_json(msg, **kwargs)
        raise AssertionError("fail_json returned")

    def _log_invocation(self) -> None:
        self.log("Invoked for {0}".format(", ".join(_subjects(self.params)) or self.params.get("uri", "this host")))
