# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules on the hosts returned, as a table for people and as data for programs. Pure."""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable, Collection, Dict, Iterable, List, Mapping, Optional, Sequence

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import MIB, SpecError, human_size
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet_vms import is_behind
from ansible_collections.kvmfleet.core.plugins.plugin_utils._request import in_variables, surplus_note
from ansible_collections.kvmfleet.core.plugins.plugin_utils._table import drop_empty, table, who

_COLUMNS = {"create": ("name", "host", "state", "result", "vcpus", "memory", "address", "uuid", "key", "ssh"),
            "scale": ("name", "host", "state", "result", "vcpus", "memory", "address", "uuid", "key", "ssh"),
            "list": ("name", "host", "state", "vcpus", "memory", "address", "uuid", "key", "ssh"),
            "delete": ("name", "host", "result"), "power": ("name", "host", "state", "result", "address")}
_RIGHT = ("vcpus", "memory")
_DATA = ("name", "uuid", "state", "address", "addresses", "vcpus", "max_vcpus", "memory_mib", "max_memory_mib", "group", "namespace", "set", "index", "image",
         "flavor", "key_name", "labels", "console", "nics", "disks", "autostart", "restart_required", "takes_effect", "actions", "state_before", "seconds",
         "managed", "reason", "msg")
_MOST_GROUPS = 10
_NAMED = 3  # of many names
_EXCERPT = " The error appears to be in '"
_WRAPPED = re.compile(r"^(?:(?:Task|Action|Module) failed: )+")


@dataclass
class Report:
    """The last word of a playbook: lines to print, data for set_stats, and the failure if there was one."""

    lines: List[str] = field(default_factory=list)
    data: Dict[str, Any] = field(default_factory=dict)
    failure: Optional[str] = None
    reason: Optional[str] = None


@dataclass
class Context:
    """What a report needs besides results.

    :param users: default user by image name
    :param image: the image that a run that is not in check mode would make available where it is missing
    :param notes: sentences of the placement
    :param placement: the placement as data
    :param failure: C(msg) and C(reason) of a request that was given up before anything was made
    :param silent: host -> why it did not answer and was left out
    :param scaling: what was decided for a set - C(set), C(from), C(to), C(reason), C(words)
    :param undone: VMs that were made and taken back, because others of their batch failed
    :param jumps: host -> C(arguments) for SSH through it, None where it is this machine, and C(sources), what the catalog says of being reachable there
    :param key_path: the private key's path by key name, or None where it is not on this machine
    """

    verb: str
    check: bool = False
    users: Mapping[str, str] = field(default_factory=dict)
    key_path: Callable[[str], Optional[str]] = lambda name: None
    home: str = ""
    key_note: Optional[str] = None
    new_key: Optional[str] = None
    action: Optional[str] = None
    image: Optional[str] = None
    notes: Sequence[str] = ()
    placement: Optional[Mapping[str, Any]] = None
    failure: Optional[Mapping[str, str]] = None
    undone: Collection[str] = ()
    silent: Mapping[str, str] = field(default_factory=dict)
    scaling: Optional[Mapping[str, Any]] = None
    jumps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _word(context: Context, vm: Mapping[str, Any]) -> str:
    """What was done to a VM, in one or two words."""
    if vm.get("failed"):
        return "failed"
    if vm["name"] in context.undone:
        return "undone"
    if context.verb == "power" and vm.get("changed"):
        before, after = vm.get("state_before"), vm.get("state")
        if context.check:
            return "would {0}".format((context.action or "change").replace("_", " "))
        return "{0}, was {1}".format(after, before) if before != after else "done"
    if not vm.get("changed"):
        return "unchanged" if vm.get("state") != "absent" else "not there"
    if vm.get("state") == "absent" or context.verb == "delete":
        return "would be deleted" if context.check else "deleted"
    created = vm.get("created") or any(str(a).startswith("define the domain") for a in vm.get("actions") or [])
    word = "created" if created and context.verb in ("create", "scale") else "changed"
    return "would be " + word if context.check else word


def addresses_of(vm: Mapping[str, Any]) -> List[str]:
    """The addresses of a VM as plain texts, the best one first."""
    found = [str(a["address"] if isinstance(a, Mapping) else a).partition("/")[0] for a in vm.get("addresses") or []]
    first = [str(vm["address"])] if vm.get("address") else []
    return first + [a for a in found if a not in first]


def ssh_line(context: Context, vm: Mapping[str, Any]) -> Optional[str]:
    """The command that logs in to a VM, or None where its address is not known."""
    addresses = addresses_of(vm)
    if not addresses:
        return None
    user = context.users.get(str(vm.get("image")))
    path = context.key_path(str(vm["key_name"])) if vm.get("key_name") else None
    if path and context.home and path.startswith(context.home.rstrip("/") + "/"):
        path = "~" + path[len(context.home.rstrip("/")):]
    words = ["ssh", "-i " + path if path else "", _jump(context, vm, addresses[0]), (user + "@" if user else "") + addresses[0]]
    return " ".join(word for word in words if word)


def _jump(context: Context, vm: Mapping[str, Any], address: str) -> str:
    """The way through the host for an address that is not to be reached from elsewhere."""
    jump = context.jumps.get(str(vm["host"])) or {}
    nics: List[Mapping[str, Any]] = list(vm.get("nics") or [])
    nic = next((n for n in nics if address in (n.get("addresses") or [])), nics[0] if nics else None)
    return str(jump["arguments"]) if jump.get("arguments") and nic is not None and is_behind(nic, nic.get("forward"), jump["sources"]) else ""


def _row(context: Context, vm: Mapping[str, Any]) -> List[Any]:
    memory = vm.get("memory_mib")
    addresses = addresses_of(vm)
    cells = {"name": vm["name"], "host": vm["host"], "state": vm.get("state"), "result": _word(context, vm), "vcpus": vm.get("vcpus"),
             "memory": human_size(memory * MIB) if memory else None, "address": addresses[0] if addresses else None, "uuid": vm.get("uuid"),
             "key": vm.get("key_name"), "ssh": ssh_line(context, vm)}
    return [cells[column] for column in _COLUMNS[context.verb]]


def sentences(texts: Iterable[str]) -> str:
    """Texts after one another, each but the last with an end."""
    *ended, last = texts
    return " ".join([text if text.endswith((".", "!", "?")) else text + "." for text in ended] + [last])


def _grouped(vms: Sequence[Mapping[str, Any]], text_of: Callable[[Mapping[str, Any]], Optional[str]]) -> List[str]:
    """One line for all VMs of which the same is to be said."""
    groups: Dict[str, List[str]] = {}
    for vm in vms:
        text = text_of(vm)
        if text:
            groups.setdefault(text, []).append(vm["name"])
    lines = ["{0}: {1}".format(who(names), text) for text, names in groups.items()]
    return lines[:_MOST_GROUPS] + (["... and {0} more like these".format(len(lines) - _MOST_GROUPS)] if len(lines) > _MOST_GROUPS else [])


def _restart(vm: Mapping[str, Any]) -> Optional[str]:
    if not vm.get("restart_required"):
        return None
    return "{0} will change with the next restart of the VM (vm_allow_restart=true restarts it)".format(", ".join(vm["restart_required"]))


def _takes_effect(vm: Mapping[str, Any]) -> Optional[str]:
    if vm.get("takes_effect") != "next_instance":
        return None
    return "the cloud-init seed changed; a guest that has booted with it does not read it again"


def _plain_action(vm: Mapping[str, Any], action: str) -> str:
    """An action without what is the VM's own, so that VMs of a set can be told together."""
    for volume in vm.get("volumes") or []:
        action = action.replace(str(volume.get("name")), "").rstrip()
    return action.replace(str(vm["name"]), "(name)")


def _notes(context: Context, vms: Sequence[Mapping[str, Any]]) -> List[str]:
    lines: List[str] = []
    if context.check:
        lines += _grouped([v for v in vms if v.get("changed")], lambda v: "would " + ", ".join(_plain_action(v, str(a)) for a in v.get("actions") or [])
                          if v.get("actions") else None)
    lines += _grouped(vms, _restart) + _grouped(vms, _takes_effect)
    lines += _grouped(vms, lambda v: "; ".join(str(n) for n in v.get("notes") or []) or None)
    return lines


def _summary(context: Context, vms: Sequence[Mapping[str, Any]]) -> str:
    count = "1 VM" if len(vms) == 1 else "{0} VMs".format(len(vms))
    words: Dict[str, int] = {}
    for vm in vms:
        word = str(vm.get("state") if context.verb == "list" else _word(context, vm))
        words[word] = words.get(word, 0) + 1
    return "{0}: {1}".format(count, ", ".join("{0} {1}".format(n, w) for w, n in words.items())) if vms else count


def _scaled(context: Context, scaling: Mapping[str, Any], failed: bool) -> str:
    """What was decided for a set, in a sentence."""
    if failed:
        return "{0}: could not be scaled {1}".format(scaling["set"], scaling["words"])
    if scaling["from"] == scaling["to"]:
        return "{0}: {1} VMs, nothing to do: {2}".format(scaling["set"], scaling["from"], scaling["words"])
    return "{0}: {1} {2}".format(scaling["set"], "would be scaled" if context.check else "scaled", scaling["words"])


def plain_message(text: Any) -> str:
    """A message in one line, without what ansible-core 2.19 puts before each, and 2.17 and 2.18 behind some."""
    return _WRAPPED.sub("", " ".join(str(text).split())).partition(_EXCERPT)[0]


def user_message(result: Mapping[str, Any]) -> str:
    """A module's failure in the user's words: options of vm_set become the variables that the user wrote."""
    message = str(result.get("msg") or "failed without a message")
    error = result.get("error")
    if isinstance(error, Mapping) and {"option", "reason", "remedy"} <= set(error):
        exc = SpecError(error["option"], error.get("value"), error["reason"], error["remedy"], error.get("code") or "invalid_value")
        message = message.replace(str(exc), str(in_variables(exc)))
    return plain_message(message)


def nobody_answered(silent: Mapping[str, str]) -> str:
    """Why none of the hosts answered, in one line for each reason, for the first three of them."""
    texts: Dict[str, List[str]] = {}
    for host, text in sorted(silent.items()):
        texts.setdefault(text, []).append(host)
    told = ["{0}: {1}".format(who(hosts), text.rstrip(".")) for text, hosts in list(texts.items())[:_NAMED]]
    return "; ".join(told + (["and {0} more like these".format(len(texts) - _NAMED)] if len(texts) > _NAMED else []))


def where_to_look(results: Iterable[Mapping[str, Any]]) -> str:
    """What to do about hosts that did not answer: Ansible could not get there, or libvirt was asked and did not answer."""
    away = {bool(result.get("unreachable")) for result in results}
    remedies = (["Look whether the hosts are on, and whether Ansible gets there: ansible kvm_hosts -m ping"] if True in away else []) + (
        ["Look whether libvirt runs there and may be used"] if False in away else [])
    return ". ".join(remedies)


def failures(results: Mapping[str, Mapping[str, Any]]) -> Dict[str, str]:
    """Per host why it failed. Tasks that are told to carry on lose C(failed), but only a failure has a message and no whole result."""
    failed = {}
    for host, result in results.items():
        if result.get("unreachable"):
            failed[host] = "The host is unreachable: {0}".format(user_message(result))
        elif result.get("failed") or result.get("msg") or "vms" not in result:
            failed[host] = user_message(result)
    return failed


def _as_if_there_were_the_image(result: Mapping[str, Any]) -> Dict[str, Any]:
    """What check mode found where only the image is missing, which a real run makes available and then goes on."""
    vms = [dict({k: v for k, v in vm.items() if k not in ("failed", "msg", "reason")}, state=None, changed=True, actions=["define the domain"])
           for vm in result.get("vms") or []]
    return {"vms": vms}


def compose(context: Context, results: Mapping[str, Mapping[str, Any]], waited: Optional[Mapping[str, Mapping[str, Any]]] = None) -> Report:
    """The report.

    :param results: per host what its module returned
    :param waited: per host what waiting returned
    """
    known = {(host, vm["name"]): vm for host, result in (waited or {}).items() for vm in result.get("vms") or []}
    vms: List[Dict[str, Any]] = []
    missing = [h for h, r in results.items() if context.check and context.image and r.get("reason") == "unknown_image"]
    results = dict(results, **{h: _as_if_there_were_the_image(results[h]) for h in missing})
    for host in sorted(results):
        for found in results[host].get("vms") or []:
            vm = dict(found, host=host)
            later = known.get((host, vm["name"]), {})
            if vm["name"] in context.undone:
                vm.update(state="absent", changed=False)
            vm.update({k: later[k] for k in ("state", "address", "addresses", "nics", "console") if later.get(k) is not None})
            vms.append(vm)
    report = Report(data={"verb": context.verb, "check_mode": context.check, "changed": len([v for v in vms if v.get("changed")]), "vms": [
        dict({k: vm[k] for k in _DATA if k in vm}, host=vm["host"], ssh=ssh_line(context, vm), result=_word(context, vm)) for vm in vms]})
    if vms:
        headings = [(name, "right" if name in _RIGHT else "left") for name in _COLUMNS[context.verb]]
        rows = [_row(context, vm) for vm in vms]
        report.lines += table(*drop_empty(headings, rows, [h for h, align in headings if context.verb != "power" or h != "address"])) + [""]
    if context.scaling is not None:
        report.data["scaling"] = {key: context.scaling.get(key) for key in ("set", "from", "to", "reason", "direction")}
        report.data["scaling"]["msg"] = _scaled(context, context.scaling, bool(context.failure or failures(results)))
        report.lines.append(report.data["scaling"]["msg"])
    if vms or not (context.scaling or context.failure or failures(results)):
        report.lines.append(_summary(context, vms))
    report.lines += _notes(context, vms) + list(context.notes)
    if not (context.failure and context.failure["reason"] == "host_unreachable" and len(context.silent) <= _NAMED):  # the failure names them
        report.lines += ["{0}: {1}".format(*pair) for pair in sorted(context.silent.items())]
    beyond = [name for result in results.values() for name in result.get("surplus") or []] if context.placement is None and context.verb == "create" else []
    if beyond:
        report.lines.append(surplus_note(beyond))
    if context.placement is not None:
        report.data["placement"] = context.placement
    if missing:
        report.lines.append("The image {0} would be made available first on {1}".format(context.image, ", ".join(sorted(missing))))
    if context.new_key and vms:
        report.lines.append("Private key: {0}".format(context.new_key))
    if context.key_note:
        report.lines.append(context.key_note)
    failed = dict(failures(waited or {}), **failures(results))
    unreachable = [h for h, r in results.items() if r.get("unreachable") or (r.get("reason") == "host_unreachable" and not r.get("vms"))]
    report.data["unreachable"] = sorted(set(unreachable) | set(context.silent))
    if context.verb == "list" and len(unreachable) < len(results):
        # A list of the others is better than none.
        report.lines += ["{0}: {1}".format(host, failed.pop(host)) for host in unreachable]
    reasons = {host: reason_of(host, results, waited or {}) for host in failed}
    if context.failure:
        report.failure, report.reason = context.failure["msg"], context.failure["reason"]
    elif failed:
        texts: Dict[str, List[str]] = {}
        for host, text in sorted(failed.items()):
            texts.setdefault(text, []).append(host)
        alone = len(results) == 1 and not unreachable
        report.failure = sentences(text if alone else "{0}: {1}".format(who(hosts), text) for text, hosts in texts.items())
        report.reason = reasons[min(failed)]
    if report.failure:
        hosts = dict(_refusals(context.placement), **{host: {"reason": reasons[host], "msg": text} for host, text in failed.items()})
        hosts.update({host: {"reason": "host_unreachable", "msg": text} for host, text in context.silent.items()})
        report.data.update(failed=True, msg=report.failure, reason=report.reason, hosts=hosts)
    return report


def refused(verb: str, msg: str, reason: str) -> Dict[str, Any]:
    """The data of a request that was refused before any host was asked."""
    return {"verb": verb, "failed": True, "msg": msg, "reason": reason, "vms": [], "hosts": {}}


def reason_of(host: str, *results: Mapping[str, Mapping[str, Any]]) -> str:
    """The stable key of a host's failure, out of the first of the results that has one."""
    found = [result.get(host) or {} for result in results]
    return "host_unreachable" if found[0].get("unreachable") else str(next((r["reason"] for r in found if r.get("reason")), "failed"))


def _refusals(placement: Optional[Mapping[str, Any]]) -> Dict[str, Dict[str, str]]:
    """Per host why placement left it out, for the first VM that it refused; a large batch has counts instead."""
    found: Dict[str, Dict[str, str]] = {}
    for decision in (placement or {}).get("vms") or []:
        for refusal in decision["refused"]:
            found.setdefault(refusal["host"], {"reason": refusal["code"], "msg": refusal["reason"]})
    return found
