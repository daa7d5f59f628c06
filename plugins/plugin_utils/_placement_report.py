# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A placement for people: which VM goes where, with what score, and why not elsewhere. Pure."""
from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import Decision, Plan
from ansible_collections.kvmfleet.core.plugins.plugin_utils._table import drop_empty, table, who

_MOST_HOSTS = 20   # beyond that, refused hosts are counted by reason, with an example of each
_MOST_VMS = 50
_COLUMNS = (("name", "left"), ("host", "left"), ("why", "left"), ("score", "right"), ("next best", "left"), ("its score", "right"))


def _why(decision: Decision) -> str:
    if decision.sticky:
        return "is there already"
    return "" if decision.host else decision.code


def _row(decision: Decision) -> List[Any]:
    return [decision.name, decision.host, _why(decision), decision.score, decision.runner_up, decision.runner_up_score]


def _refusals(decisions: Sequence[Decision]) -> List[str]:
    """Why hosts were refused, once for all VMs of which the same is to be said."""
    groups: Dict[Tuple[Tuple[str, str], ...], Tuple[Decision, List[str]]] = {}
    for decision in decisions:
        key = tuple(sorted((host, why.code) for host, why in decision.refusals.items()))
        if key:
            groups.setdefault(key, (decision, []))[1].append(decision.name)
    lines = []
    for decision, names in groups.values():
        lines.append("Not considered for {0}:".format(who(names)))
        if len(decision.refusals) > _MOST_HOSTS:
            examples = decision.examples
            lines += ["  {0}: {1}, such as: {2}".format("1 host" if count == 1 else "{0} hosts".format(count), code, examples[code]["reason"])
                      for code, count in decision.reasons.items()]
        else:
            lines += ["  " + line for line in table([("host", "left"), ("reason", "left"), ("in words", "left")], [
                [host, why.code, why.sentence] for host, why in sorted(decision.refusals.items())])[1:]]
    return lines


def lines(plan: Plan, silent: Mapping[str, str]) -> List[str]:
    """The plan as a table with its reasons.

    :param silent: host -> why it did not answer
    """
    shown = ["Placement ({0})".format(plan.strategy)]
    rows = [_row(decision) for decision in plan.decisions[:_MOST_VMS]]
    shown += table(*drop_empty(list(_COLUMNS), rows, ["name", "host"])) if rows else ["nothing to place"]
    if len(plan.decisions) > _MOST_VMS:
        shown.append("... and {0} more".format(len(plan.decisions) - _MOST_VMS))
    shown += _refusals(plan.decisions)
    shown += ["{0}: {1}".format(host, why) for host, why in sorted(silent.items())]
    return shown + list(plan.warnings)
