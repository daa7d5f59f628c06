# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins share: the variables of the run, the hosts of the inventory, the catalogs, the keys."""
from __future__ import annotations

import copy
import dataclasses
import functools
import os
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _keys, _request, _scaling, _variables
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import HOST_SCHEMA, SCHEMAS, SHIPPED, Catalogs, Host, read_host, with_shipped
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet_file import FleetFile, read_fleet_file
from ansible_collections.kvmfleet.core.plugins.plugin_utils._planning import Wish, wish_of

_WAITS = ("none", "address", "ssh", "cloud_init")


def hand_on(result: Mapping[str, Any], data: Mapping[str, Any]) -> Dict[str, Any]:
    """A result that sets the custom statistic C(kvmfleet), as ansible.builtin.set_stats does it, without one more task."""
    return dict(result, ansible_stats={"data": {"kvmfleet": data}, "per_host": False, "aggregate": False})


class FleetAction(ActionBase):
    """An action that runs once on the control node for all hosts of the play. C(start) has to be called first."""

    _file: Optional[FleetFile] = None
    no_keys = _keys.Keys()
    last_keys = no_keys  # of the request that was read last

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def start(self, task_vars: Mapping[str, Any]) -> None:
        """Keep the variables of the run. Raises SpecError where the play does not take all of its hosts through each task together."""
        self._vars = task_vars
        if set(task_vars.get("ansible_play_batch") or []) != set(task_vars.get("ansible_play_hosts") or []):
            raise SpecError("serial", None, "splits the hosts of the play, and a request is for all of them at once", "Leave serial out", "unsupported")
        strategy = str(getattr(getattr(self._task, "play", None), "strategy", None) or "linear")
        if strategy.rpartition(".")[2] in ("free", "host_pinned"):
            raise SpecError("strategy", strategy, "lets hosts run ahead of each other, and a request has to hear all of them first", "Use strategy: linear",
                            "unsupported")

    def value(self, name: str) -> Any:
        """A variable's value with its templates resolved."""
        return self._templar.template(self._vars[name])

    def values(self, entry: str) -> Dict[str, Any]:
        """The converted variables of an entry point of the role. Raises SpecError."""
        values = _variables.read(entry, {
            name: self.value(name) for name in _variables.option_file()[entry] if name.startswith(_variables.PREFIXES) and name in self._vars})
        if _keys.under_awx(self._vars, os.environ):
            _request.refuse_files(values)
        return values

    def catalogs(self) -> Catalogs:
        """The catalogs that the run sees, with the images that come with the collection."""
        return Catalogs(with_shipped(self._own_catalogs(), self.value(SHIPPED) if SHIPPED in self._vars else None))

    def own_catalogs(self) -> Catalogs:
        """The site's own."""
        return Catalogs(self._own_catalogs())

    def _own_catalogs(self) -> Dict[str, Any]:
        return {name: self.value(name) for name in SCHEMAS if name in self._vars}

    def hosts(self) -> List[Host]:
        """The hosts of the play, those among them that did not answer. Raises SpecError where there is none."""
        found = [self._read(name) for name in self._vars.get("ansible_play_hosts_all") or []]
        if not found:
            raise SpecError("kvm_hosts", None, "no host of this group can be used", "Give an inventory with hosts in the group kvm_hosts", "no_host")
        return found

    def left_out(self) -> List[str]:
        """Hosts of the inventory that C(--limit) keeps out of the play."""
        played = set(self._vars.get("ansible_play_hosts_all") or [])
        return sorted(set((self._vars.get("groups") or {}).get("kvm_hosts") or []) - played) if "kvm_hosts" in (self._vars.get("groups") or {}) else []

    def _read(self, name: str) -> Host:
        variables = self._vars["hostvars"][name]
        return read_host(name, {key: variables[key] for key in HOST_SCHEMA if key in variables})

    def registered(self, host: str, variable: str) -> Mapping[str, Any]:
        """What a host registered; empty where it skipped the task."""
        value = self._vars["hostvars"][host].get(variable)
        return value if isinstance(value, Mapping) and not value.get("skipped") else {}

    def keys(self, values: Mapping[str, Any], image: Mapping[str, Any]) -> _keys.Keys:
        """The SSH keys of a request; a pair is made where one is needed and none was given."""
        if not _request.wants_seed(values, image):
            return _keys.Keys()
        return _keys.keys_for(values, _request.full_name(values, str(values["vm_name"])), self._task.check_mode, _keys.under_awx(self._vars, os.environ))

    def requested(self, verb: str, scaling: Optional[Mapping[str, Any]] = None) -> List[Dict[str, Any]]:
        """The converted variables of each request: the one of create_vm or scale_vm, or those that the fleet file declares. Raises SpecError.

        :param scaling: for C(scale), what was decided: C(add), the numbers of new members, and C(like), the variables that they have from the first one
        """
        if verb == "scale" and scaling is not None:
            return [dict(_scaling.filled(self.values("scale"), scaling["like"]), numbers=scaling["add"])]
        if verb != "converge":
            return [self.values("create")]
        own = {name: value for name, value in self.values("converge_fleet").items() if name.startswith("vm_") and name in self._vars
               and _variables.is_given(self.value(name))}
        path = self.value("kvmfleet_file") if self._vars.get("kvmfleet_file") else None
        if not path:
            raise SpecError("kvmfleet_file", None, "is missing: nothing says which VMs are declared", "Use the inventory plugin kvmfleet.core.fleet, or "
                            "give the path of its file: -e kvmfleet_file=fleet.yml", "missing_variable")
        path = os.path.abspath(os.path.expanduser(str(path)))
        try:
            content, _plain = self._loader._get_file_contents(path)  # the only way in all versions of Ansible that decrypts
            file = read_fleet_file(path, content.decode("utf-8"), self._decrypt)
        except (AnsibleError, UnicodeDecodeError) as exc:
            raise SpecError("kvmfleet_file", path, "cannot be read ({0})".format(" ".join(str(exc).split())), "Give the path of a fleet file, and the password "
                            "of Ansible Vault where it is encrypted") from None
        self._file = file
        return [self._placed(number, functools.partial(_variables.read, "create", dict(raw, **own))) for number, raw in enumerate(file.vms)]

    def _placed(self, number: int, work: Callable[[], Any]) -> Any:
        """The same, with errors telling where in the fleet file the request is, if it is from there."""
        try:
            return work()
        except SpecError as exc:
            if self._file is None:
                raise
            option = exc.option[len("vm_"):] if exc.option.startswith("vm_") else exc.option
            raise self._file.placed(SpecError(option, exc.value, exc.reason, exc.remedy, exc.code), "vms[{0}].".format(number)) from None

    def _decrypt(self, _option: str, text: str) -> str:
        return str(self._loader._vault.decrypt(text.encode("utf-8")), "utf-8")

    def creation(self, verb: str, wishes: Sequence[Wish], hosts: Sequence[Host]) -> Dict[str, Any]:
        """What the tasks that make VMs have to know of a request, but for who goes where."""
        images: List[Dict[str, Any]] = [{"name": str(w.values["vm_image"]), "entry": dict(w.image)} for w in wishes if w.image]
        images = [image for number, image in enumerate(images) if image not in images[:number]]
        first = wishes[0].values
        plan: Dict[str, Any] = {
            "verb": "create", "source": verb, "names": [r.name for w in wishes for r in w.requests],
            "wait": max((_request.default_wait(w.values) for w in wishes), key=_WAITS.index),
            "wait_timeout": max(w.values["vm_wait_timeout"] for w in wishes), "key": dataclasses.asdict(self.last_keys),
            "image": ", ".join(i["name"] for i in images if i["entry"].get("source")), "vms": {}, "waits": {}, "step": "all",
            "capacity_timeout": first["vm_capacity_timeout"], "claim_ttl": first["vm_claim_ttl"],
            "fetch": {host.name: [dict(i, pool=i["entry"].get("pool") or host.image_pool or host.pool) for i in images if i["entry"].get("source")]
                      for host in hosts}}
        if any(_request.has_secrets(w.values) for w in wishes):
            plan.update(_ansible_no_log=True, secret=True)
        return plan

    @staticmethod
    def _check(values: Mapping[str, Any], catalogs: Catalogs, hosts: List[Host]) -> None:
        _request.default_wait(values)
        _request.check_items(_request.sample_items(wish_of(values, catalogs, hosts).requests, hosts, catalogs))

    def wishes(self, all_values: List[Dict[str, Any]], catalogs: Catalogs, hosts: List[Host]) -> List[Wish]:
        """The requests with their keys, checked. Raises SpecError before a key is made."""
        for number, values in enumerate(all_values):
            self._placed(number, functools.partial(self._check, values, catalogs, hosts))
        # Once more, because a key pair is made only for a request that is right in all else.
        made = []
        for values in all_values:
            self.last_keys = self.keys(values, _request.image_of(values, catalogs))
            made.append(wish_of(values, catalogs, hosts, self.last_keys))
        return made


class CheckedAction(FleetAction):
    """The frame of most of them: arguments are checked, a refusal becomes the task's failure, and nothing counts as changed unless C(work) says so."""

    ARGUMENTS: Dict[str, Any] = {}

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = dict(super().run(tmp, task_vars), changed=False)
        checked, args = self.validate_argument_spec(argument_spec=self.ARGUMENTS)
        try:
            self.start(task_vars or {})
            result.update(self.work(args))
        except SpecError as exc:
            result.update(failed=True, msg=str(exc), reason=exc.code)
        return result

    def work(self, args: Mapping[str, Any]) -> Dict[str, Any]:
        """The result's keys. Raises SpecError."""
        raise NotImplementedError


class PlanAction(CheckedAction):
    """An action that takes the plan of the run one C(step) further. The plan is a variable that is named by the argument C(plan)."""

    def work(self, args: Mapping[str, Any]) -> Dict[str, Any]:
        self.args = args
        plan = copy.deepcopy({k: v for k, v in self._vars[args["plan"]].items() if k not in ("failed", "changed", "skipped", "warnings")})
        done = self.step(str(args["step"]), plan)
        return dict(done, _ansible_no_log=True) if plan.get("secret") else done

    def step(self, name: str, plan: Dict[str, Any]) -> Dict[str, Any]:
        """What the next tasks are to see as the plan, or what the step is asked for. Raises SpecError."""
        raise NotImplementedError
