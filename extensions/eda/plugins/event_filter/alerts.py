# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An event filter for ansible-rulebook: out of a body of Alertmanager, one event for each set that its alerts want scaled.

A body that is refused is answered with 400 and why. What passes has no character that Ansible, AWX or a shell could read anything into.
Runs in ansible-rulebook, where collections cannot be imported.
"""
from __future__ import annotations

import importlib.util
import os
import re
from typing import Any, Dict, List, Tuple

DOCUMENTATION = r"""
short_description: Read alerts that want sets of VMs scaled out of a body of Alertmanager
description:
  - An alert whose rule sets the labels C(kvmfleet_set) (V(web), or V(web.NAMESPACE.GROUP)) and C(kvmfleet_scale) (V(up) or V(down)) is for this.
    Others, and those that are resolved, are passed over. See docs/events.md.
  - All alerts for one set and direction become one event with C(event.scale.set), and in C(event.scale.given) C(vm_name), C(vm_namespace) and C(vm_group)
    if there are any, C(vm_direction) and C(vm_alert), start and fingerprint of each.
  - Any other body is answered with 400 and why. Where no request waits for an answer (event streams of the EDA controller), it is dropped, and the log
    says so.
"""

EXAMPLES = r"""
- eda.builtin.webhook:
    port: 5001
    token: "{{ webhook_token }}"
  filters:
    - kvmfleet.core.alerts:
"""

_SET = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?){0,2}")
_FINGERPRINT = re.compile(r"[0-9a-f]{1,64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")
_MOST_ALERTS = 50  # of one set: the oldest
_SPEC: Any = importlib.util.spec_from_file_location("_refusal", os.path.join(os.path.dirname(os.path.abspath(__file__)), "_refusal.py"))
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
_REFUSAL = vars(_MODULE)
Refusal = _REFUSAL["Refusal"]


def _alert(number: int, alert: Any) -> Tuple[str, str, str]:
    """Set, direction and identity of an alert; empty texts where it is not for this. Raises Refusal."""
    labels = alert.get("labels") if isinstance(alert, dict) else None
    if not isinstance(labels, dict):
        raise Refusal("alerts[{0}] has no labels".format(number))
    if "kvmfleet_set" not in labels or alert.get("status") == "resolved":
        return "", "", ""
    where = "alerts[{0}].labels.".format(number)
    wanted, direction = labels["kvmfleet_set"], labels.get("kvmfleet_scale")
    if not isinstance(wanted, str) or not _SET.fullmatch(wanted) or wanted.count(".") == 1:
        raise Refusal(where + "kvmfleet_set is not the name of a set, NAME or NAME.NAMESPACE.GROUP")
    if direction not in ("up", "down"):
        raise Refusal(where + "kvmfleet_scale is neither up nor down")
    fingerprint, start = alert.get("fingerprint"), alert.get("startsAt")
    if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint) or not isinstance(start, str) or not _TIME.fullmatch(start):
        raise Refusal("alerts[{0}] has no fingerprint or startsAt as Alertmanager writes them".format(number))
    return wanted, direction, "{1}@{0}".format(fingerprint, start)


def read(payload: Any) -> List[Dict[str, Any]]:
    """What the alerts of a body ask for, in a stable order; nothing where none of them is for this. Raises Refusal."""
    alerts = payload.get("alerts") if isinstance(payload, dict) else None
    if not isinstance(alerts, list):
        raise Refusal("The body has no list of alerts; it is not one of Alertmanager")
    found: Dict[Tuple[str, str], List[str]] = {}
    for number, alert in enumerate(alerts):
        wanted, direction, identity = _alert(number, alert)
        if wanted:
            found.setdefault((wanted, direction), []).append(identity)
    requests = []
    # More VMs are wanted sooner than fewer: where a set is asked both, up comes first and the cooldown holds back the other.
    for wanted, direction in sorted(found, key=lambda key: (key[0], key[1] != "up")):
        given = dict(zip(("vm_name", "vm_namespace", "vm_group"), wanted.split(".")))
        given.update(vm_direction=direction, vm_alert=",".join(sorted(set(found[wanted, direction]))[:_MOST_ALERTS]))
        requests.append({"set": wanted, "given": given})
    return requests


def main(event: Dict[str, Any]) -> List[Dict[str, Any]]:
    """What the rules get to see of an event."""
    try:
        return [{"scale": request} for request in read(event.get("payload"))]
    except Refusal as exc:
        refused: List[Dict[str, Any]] = _REFUSAL["refuse"]("kvmfleet.core.alerts", exc)
        return refused
