# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX has to have for the fleet of this inventory."""
from __future__ import annotations

from typing import Any, Dict, List, Optional

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _awx
from ansible_collections.kvmfleet.core.plugins.plugin_utils._action import FleetAction
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import SHIPPED, Catalogs, with_shipped


class ActionModule(FleetAction):
    """See plugins/modules/awx_objects.py for its documentation."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        checked, args = self.validate_argument_spec(argument_spec={
            "project_url": {"type": "str"}, "ee_image": {"type": "str"}, "organization": {"type": "str", "default": "kvmfleet"},
            "project_branch": {"type": "str"}, "project_credential": {"type": "str"}, "fleet_file": {"type": "str", "default": "fleet.yml"},
            "credential": {"type": "str", "default": "kvmfleet hosts"}, "ssh_key": {"type": "str", "no_log": True}, "known_hosts": {"type": "str"},
            "guest_credential": {"type": "str"}, "vault_credential": {"type": "str"}, "galaxy_credential": {"type": "str", "default": "Ansible Galaxy"},
            "forks": {"type": "int", "default": 50}, "refresh_minutes": {"type": "int", "default": 15},
            "notifications": {"type": "list", "elements": "dict", "options": {
                "name": {"type": "str", "required": True}, "events": {"type": "list", "elements": "str", "choices": list(_awx.EVENTS), "default": ["error"]},
                "groups": {"type": "list", "elements": "str"},
                "mail": {"type": "dict", "options": {
                    "host": {"type": "str", "required": True}, "sender": {"type": "str", "required": True},
                    "recipients": {"type": "list", "elements": "str", "required": True}, "port": {"type": "int"}, "timeout": {"type": "int"},
                    "use_tls": {"type": "bool"}, "use_ssl": {"type": "bool"}, "username": {"type": "str"}, "password": {"type": "str", "no_log": True}}},
                "webhook": {"type": "dict", "options": {
                    "url": {"type": "str", "required": True}, "http_method": {"type": "str", "choices": ["POST", "PUT"]}, "headers": {"type": "dict"},
                    "disable_ssl_verification": {"type": "bool"}, "username": {"type": "str"}, "password": {"type": "str", "no_log": True}}}}},
        })
        result["changed"] = False
        try:
            objects = self._objects({key: value for key, value in args.items() if value is not None})
        except SpecError as exc:
            return dict(result, failed=True, msg=str(exc), reason=exc.code)
        # Callbacks and AWX keep whole results, whatever of them is shown.
        secret = any(item.get("inputs") for item in objects["controller_credentials"]) or any(
            item.get("notification_configuration") for item in objects["controller_notifications"])
        return dict(result, objects=objects, files={kind: _awx.as_file(kind, listed) for kind, listed in objects.items()}, _ansible_no_log=secret)

    def _objects(self, args: Dict[str, Any]) -> Dict[str, List[Dict[str, Any]]]:
        given = {kind: self.value(kind) for kind in _awx.KINDS if kind in self._vars}
        if not args.get("project_url"):
            return _awx.merged({}, given)
        if not args.get("ee_image"):
            raise SpecError("awx_configure_ee_image", None, "is missing", "Name the image of the execution environment", "missing_variable")
        if bool(args.get("ssh_key")) != bool(args.get("known_hosts")):
            raise SpecError("awx_configure_known_hosts", None, "and awx_configure_ssh_key go together", "Give both, or none if the credential is there already")
        names = (self._vars.get("groups") or {}).get("kvm_hosts") or []
        # All hosts of a fleet see the same catalogs; the group variables of kvm_hosts are not localhost's.
        known = (*_awx.CATALOGS, SHIPPED)
        seen = self._vars["hostvars"][names[0]] if names else {name: self.value(name) for name in known if name in self._vars}
        raw = {name: seen[name] for name in known if name in seen}
        settings = _awx.Settings(hosts=[self._read(name) for name in names], **args)
        objects = _awx.merged(_awx.objects(settings, Catalogs(with_shipped(raw, raw.get(SHIPPED))), raw), given)
        _awx.notify(objects, settings)
        return objects
