# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates for libvirt's TLS: issued here, or given, and brought to a host."""
from __future__ import annotations

from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import missing_required_lib
from ansible.plugins.action import ActionBase

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _certificates, _keys

_GIVEN = ("ca", "certificate", "key")


class ActionModule(ActionBase):
    """Issues what is needed and calls the module host_tls_files; see plugins/modules/host_tls.py for its documentation."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        self._variables = task_vars or {}
        checked, args = self.validate_argument_spec(argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "directory": {"type": "path", "default": "~/.config/kvmfleet/tls"},
            "ca": {"type": "path"},
            "certificate": {"type": "path"},
            "key": {"type": "path"},
            "names": {"type": "list", "elements": "str", "default": []},
            "replace": {"type": "bool", "default": False},
        }, required_together=[_GIVEN])
        if args["state"] == "present" and not _certificates.HAS_CRYPTOGRAPHY:
            result.update(failed=True, msg=missing_required_lib("cryptography", reason="on the control node"), reason="missing_library")
            return result
        try:
            if args["state"] == "absent":
                result.update(self._files(state="absent"))
            elif args["key"]:
                result.update(self._given(args))
            else:
                result.update(self._issued(args))
        except SpecError as exc:
            result.update(failed=True, msg=str(exc), reason=exc.code, error=exc.as_result())
        return result

    def _files(self, **arguments: Any) -> Dict[str, Any]:
        done: Dict[str, Any] = self._execute_module(module_name="kvmfleet.core.host_tls_files", module_args=arguments, task_vars=self._variables)
        done.pop("invocation", None)
        return done

    def _given(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Files of the control node that somebody else has issued."""
        texts = {name: _keys.read_text(name, args[name]) for name in _GIVEN}
        _certificates.require_match(texts["ca"], _certificates.Pair(texts["certificate"], texts["key"]))
        return self._files(replace=args["replace"], **texts)

    def _issued(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """What the authority of the folder issues, unless the host has it already. A host's key is made anew with each certificate."""
        there = self._files(state="query")
        if there.get("failed"):
            return there
        names: List[str] = args["names"]
        if not names:
            raise SpecError("names", None, "is missing: it is not said what clients call the host", "Give its names and addresses", "missing_variable")
        check = bool(self._task.check_mode)
        folder = _certificates.Folder(args["directory"])
        actions = folder.make(check)
        # In check mode there may be none yet; one that is made for this moment stands for it
        authority = folder.authority() or _certificates.new_authority()
        why = "there is none"
        if there["certificate"] is not None:
            why = _certificates.why_anew(there["certificate"], authority.certificate, names) or ("" if there["key_fits"] else "its key is another")
        if not why and there["ca"] == authority.certificate:
            return {"changed": bool(actions), "actions": actions}
        pair = _certificates.issue(authority, names)
        # What this authority has signed is not foreign, wherever the note of that has gone
        done = self._files(ca=authority.certificate, certificate=pair.certificate, key=pair.key,
                           replace=args["replace"] or there["ca"] == authority.certificate)
        if not done.get("failed"):
            done["actions"] = actions + ["issue a certificate for {0}: {1}".format(", ".join(names), why or "the authority's is another")] + done["actions"]
        return done
