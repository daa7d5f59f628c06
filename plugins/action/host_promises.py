# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host has what the inventory promises of it."""
from __future__ import annotations

from typing import Any, Dict, List, Optional

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _promises
from ansible_collections.kvmfleet.core.plugins.plugin_utils._action import FleetAction


class ActionModule(FleetAction):
    """Reads the catalogs and asks the host; see plugins/modules/host_promises.py for its documentation."""

    _requires_connection = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        names: Dict[str, Any] = {kind: {"type": "list", "elements": "str"} for kind in ("images", "networks", "storage_classes")}
        checked, args = self.validate_argument_spec(argument_spec=dict(
            names, step={"type": "str", "choices": ["declared", "kept"], "default": "kept"}, images_present={"type": "bool", "default": False}))
        try:
            catalogs, host = self.catalogs(), self._read(self._vars["inventory_hostname"])
            host.policy()
            promises = _promises.promised(host, catalogs, *(args[kind] for kind in names))
            result.update(changed=False, images=promises.images, networks=promises.networks, storage_classes=promises.storage_classes)
            devices = _promises.devices_of(host, promises)
            if args["step"] == "declared":
                return result
            facts = self._module("kvmfleet.core.host_capacity", volumes=True, **({"uri": host.uri} if host.uri else {}))
            if facts.get("failed"):
                return facts
            broken = _promises.broken(host, catalogs, promises, facts, self._present(devices), args["images_present"])
        except SpecError as exc:
            result.update(failed=True, msg=str(exc), reason=exc.code, error=exc.as_result())
            return result
        if broken:
            text = "{0} does not have what the inventory promises of it: {1}".format(host.name, "; ".join(broken))
            if self._task.check_mode:
                # What tasks before this one would make is not there
                result.update(broken=broken, msg=text + ". Whether that is so after a real run cannot be told in check mode")
            else:
                result.update(failed=True, reason="broken_promise", broken=broken,
                              msg=text + ". Set that up, or say what it offers (kvm_host_promises)")
        return result

    def _module(self, name: str, **arguments: Any) -> Dict[str, Any]:
        done: Dict[str, Any] = self._execute_module(module_name=name, module_args=arguments, task_vars=self._vars)
        return done

    def _present(self, devices: List[str]) -> List[str]:
        """Which of these network devices the host has."""
        return [d for d in devices if self._module("ansible.builtin.stat", path="/sys/class/net/{0}".format(d)).get("stat", {}).get("exists")]
