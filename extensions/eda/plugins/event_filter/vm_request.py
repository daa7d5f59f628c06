# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An event filter for ansible-rulebook: lets pass what a webhook may ask for, checked, and nothing else of the body.

A body that is refused is answered with 400 and why. What passes has no character that Ansible, AWX or a shell could read anything into, so that no rule
and no playbook ever sees what an outsider wrote. Runs in ansible-rulebook, where collections cannot be imported.
"""
from __future__ import annotations

import importlib.util
import os
import re
from typing import Any, Callable, Dict, List, Tuple

DOCUMENTATION = r"""
short_description: Check the body of a webhook that asks for an operation on VMs
description:
  - The body is one JSON object with C(operation) (V(create), V(delete), V(power) or V(scale)) and the C(vm_*) variables of that playbook, as far as they
    may come from outside. See docs/events.md.
  - The event becomes C(event.request), with C(operation), an empty text for each variable that was not given, and in C(given) those that were.
  - Any other body is answered with 400 and why. Where no request waits for an answer (event streams of the EDA controller), it is dropped, and the log
    says so.
options:
  operations:
    description: The operations that may be asked for.
    type: list
    elements: str
    default: [create, delete, power, scale]
  awx:
    description:
      - Whether a job template of AWX carries it out, as C(awx_configure) makes them. What its survey requires has to be given then, and what no survey asks,
        and a group's template drops without a word, is refused.
    type: bool
    default: false
"""

EXAMPLES = r"""
- eda.builtin.webhook:
    port: 5000
    token: "{{ webhook_token }}"
  filters:
    - kvmfleet.core.vm_request:
        operations: [power, scale]
"""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
_SIZE = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?[KMGT](i?B)?")
_KEY = re.compile(r"none|(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)|sk-[a-z0-9-]{1,40}@openssh\.com) "
                  r"[A-Za-z0-9+/]{16,2000}={0,3}( [A-Za-z0-9@._+-]{1,100})?")
_MOST_NAMES = 100
_SPEC: Any = importlib.util.spec_from_file_location("_refusal", os.path.join(os.path.dirname(os.path.abspath(__file__)), "_refusal.py"))
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
_REFUSAL = vars(_MODULE)
Refusal = _REFUSAL["Refusal"]

Reader = Callable[[Any], Any]


def _text(pattern: "re.Pattern[str]", what: str) -> Reader:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise Refusal("is not {0}".format(what))
        return value
    return read


def _number(low: int, high: int) -> Reader:
    def read(value: Any) -> int:
        text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
        if not re.fullmatch("[0-9]{1,6}", text, re.ASCII) or not low <= int(text) <= high:
            raise Refusal("is not a number from {0} to {1}".format(low, high))
        return int(text)
    return read


def _choice(*choices: str) -> Reader:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise Refusal("is none of {0}".format(", ".join(choices)))
        return value
    return read


def _names(value: Any) -> str:
    items = value if isinstance(value, list) else value.split(",") if isinstance(value, str) else []
    if not 0 < len(items) <= _MOST_NAMES or not all(isinstance(item, str) and _LABEL.fullmatch(item) for item in items):
        raise Refusal("is not a name or a list of at most {0} names".format(_MOST_NAMES))
    return ",".join(items)


def _labels(value: Any) -> str:
    if not isinstance(value, dict) or not 0 < len(value) <= 20 or not all(
            isinstance(text, str) and _WORD.fullmatch(key) and _WORD.fullmatch(text) for key, text in value.items()):
        raise Refusal("is not an object with at most 20 names and plain texts")
    return ",".join("{0}={1}".format(key, value[key]) for key in sorted(value))


_label, _word, _size = _text(_LABEL, "a name of a-z, 0-9 and '-'"), _text(_WORD, "a plain word"), _text(_SIZE, "a size such as 2GiB")
_count = _number(1, 1000)
_key = _text(_KEY, "an SSH public key, one line, or none")
_OWNER: Dict[str, Reader] = {"vm_group": _label, "vm_namespace": _label}
OPERATIONS: Dict[str, Dict[str, Reader]] = {
    "create": dict(_OWNER, vm_name=_label, vm_count=_count, vm_image=_word, vm_flavor=_word, vm_vcpus=_number(1, 1024), vm_memory=_size, vm_disk=_size,
                   vm_storage_class=_word, vm_network=_word, vm_ssh_key=_key, vm_host=_word, vm_zone=_word,
                   vm_region=_word, vm_spread=_choice("host", "zone", "region"), vm_labels=_labels, vm_state=_choice("running", "stopped")),
    "delete": dict(_OWNER, vm_name=_names, vm_count=_count, vm_confirm=_number(1, 100000)),
    "power": dict(_OWNER, vm_name=_names, vm_count=_count,
                  vm_action=_choice("start", "shutdown", "force_off", "reboot", "reset", "pause", "resume")),
    "scale": dict(_OWNER, vm_name=_label, vm_count=_count, vm_direction=_choice("up", "down"), vm_min=_count, vm_max=_count, vm_step=_count,
                  vm_cooldown=_number(0, 604800), vm_alert=_word, vm_ssh_key=_key),
}
REQUIRES: Dict[str, Tuple[str, ...]] = {"create": (), "delete": (), "power": ("vm_action",), "scale": ()}
# What the surveys of AWX's job templates want besides, and what those of a group do not ask.
AWX_REQUIRES: Dict[str, Tuple[str, ...]] = {"create": ("vm_image", "vm_flavor", "vm_ssh_key")}
AWX_DROPS: Dict[str, Tuple[str, ...]] = {"create": ("vm_vcpus", "vm_memory", "vm_labels", "vm_state")}


def read(payload: Any, operations: List[str], awx: bool = False) -> Dict[str, Any]:
    """The request in a body: the operation, every variable (an empty text for those that were not given), and in C(given) those that were. Raises Refusal."""
    if not isinstance(payload, dict):
        raise Refusal("The body is not a JSON object")
    operation = payload.get("operation")
    if not isinstance(operation, str) or operation not in OPERATIONS or operation not in operations:
        raise Refusal("operation is none of {0}".format(", ".join(o for o in OPERATIONS if o in operations)))
    dropped = AWX_DROPS.get(operation, ()) if awx else ()
    known = {name: reader for name, reader in OPERATIONS[operation].items() if name not in dropped}
    strange = sorted(repr(key)[:60] for key in payload if key != "operation" and key not in known)
    if strange:
        raise Refusal("{0} cannot be given from outside for {1}. Known: {2}".format(", ".join(strange[:3]), operation, ", ".join(known)))
    given: Dict[str, Any] = {}
    for name, reader in known.items():
        if payload.get(name) in (None, ""):
            continue
        try:
            given[name] = reader(payload[name])
        except Refusal as exc:
            raise Refusal("{0} {1}".format(name, exc)) from None
    required = ("vm_name", *REQUIRES[operation], *(AWX_REQUIRES.get(operation, ()) if awx else ()))
    missing = [name for name in required if name not in given]
    if missing:
        raise Refusal("{0} is missing".format(missing[0]))
    return dict(dict.fromkeys((name for variables in OPERATIONS.values() for name in variables), ""), operation=operation, given=given, **given)


def main(event: Dict[str, Any], operations: Any = tuple(OPERATIONS), awx: bool = False) -> Any:
    """What the rules get to see of an event; an empty list where that is nothing."""
    try:
        return {"request": read(event.get("payload"), list(operations), awx)}
    except Refusal as exc:
        return _REFUSAL["refuse"]("kvmfleet.core.vm_request", exc)
