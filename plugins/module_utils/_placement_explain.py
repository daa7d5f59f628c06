# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentences about requests that found no host: what was asked, how much of it would fit, what is missing and where the nearest miss is."""
from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._placement_filters import CAPACITY_CODES, amount_text, memory_text, vcpus_text
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_ledger import MEMORY, VCPUS, Ledger
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_model import Refusal, Request
from ansible_collections.kvmfleet.core.plugins.module_utils._placement_search import Kind
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import human_size


def sizes_text(requests: Sequence[Request]) -> str:
    """What a unit asks for."""
    parts = ["{0} vcpus".format(vcpus_text(sum(request.vcpus_milli for request in requests))),
             memory_text(sum(request.memory_mib for request in requests))]
    disk = sum(request.disk_bytes for request in requests)
    return ", ".join(parts + ["{0} of disk".format(human_size(disk))] if disk else parts)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else "{0} to {1}".format(names[0], names[-1])


def room_for(kind: Kind, free: Sequence[Sequence[int]]) -> int:
    """How many units of the kind alone would fit."""
    total = 0
    for host, ask in enumerate(kind.asks):
        if ask is not None and all(free[host][at] >= amount for at, amount in ask):
            total += min(free[host][at] // amount for at, amount in ask if amount)
    return total


def _largest_hole(kind: Kind, ledger: Ledger, free: Sequence[Sequence[int]]) -> str:
    """The most that one of the hosts in question has left of the resource that is scarcest for this kind."""
    scarcest: Optional[Tuple[float, int, int]] = None
    for at in (MEMORY, VCPUS):
        best: Optional[Tuple[float, int, int]] = None
        for host, ask in enumerate(kind.asks):
            amount = dict(ask or ()).get(at, 0)
            if amount and (best is None or free[host][at] / amount > best[0]):
                best = (free[host][at] / amount, at, host)
        if best is not None and (scarcest is None or best[0] < scarcest[0]):
            scarcest = best
    if scarcest is None:
        return ""
    _share, at, host = scarcest
    return "the largest hole is {0} on {1}".format(amount_text(at, free[host][at]), ledger.hosts[host].name)


def _nearest_miss(kind: Kind, ledger: Ledger, free: Sequence[Sequence[int]], refusals: Mapping[str, Refusal]) -> str:
    """The host that lacks least."""
    best: Optional[Tuple[float, str]] = None
    for host, ask in enumerate(kind.asks):
        refusal = refusals.get(ledger.hosts[host].name)
        if ask is None or refusal is None or refusal.code not in CAPACITY_CODES:
            continue
        lack = sum((amount - free[host][at]) / max(1, amount) for at, amount in ask if free[host][at] < amount)
        if best is None or lack < best[0]:
            best = (lack, refusal.sentence)
    return "" if best is None else "nearest miss: " + best[1]


def _counted(refusals: Mapping[str, Refusal]) -> str:
    """Reasons with their counts, the most frequent first; one sentence where there is one host."""
    if len(refusals) == 1:
        return next(iter(refusals.values())).sentence
    counts: Dict[str, List[str]] = {}
    for refusal in refusals.values():
        counts.setdefault(refusal.code, []).append(refusal.sentence)
    ranked = sorted(counts.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return ", ".join("{0} x {1} ({2})".format(len(sentences), code, sorted(sentences)[0]) for code, sentences in ranked)


def no_host(kind: Kind, names: Sequence[str], ledger: Ledger, free: Sequence[Sequence[int]], refusals: Mapping[str, Refusal]) -> Refusal:
    """Why units of this kind are without a host. C(free) is the room before the batch, C(names) are all VMs of the kind."""
    asked = "{0} ({1})".format(_names(names), sizes_text(kind.requests))
    codes = {refusal.code for refusal in refusals.values()}
    pinned = kind.requests[0].host
    if pinned and pinned in refusals:
        return Refusal(refusals[pinned].code, "{0} cannot go to {1}: {2}".format(asked, pinned, refusals[pinned].sentence))
    if not ledger.hosts:
        return Refusal("no_host", "{0} finds no host: the fleet has none".format(asked))
    if "failover" in codes:
        return Refusal("failover", "{0} fits, but not with the loss of a host in reserve: {1}".format(
            asked, next(refusal.sentence for _host, refusal in sorted(refusals.items()) if refusal.code == "failover")))
    if all(ask is None for ask in kind.asks):
        code = codes.pop() if len(codes) == 1 else "no_host"
        return Refusal(code, "no host for {0}: {1}".format(asked, _counted(refusals)))
    room, wanted = room_for(kind, free), len(kind.units)
    if room == 0:
        parts = ["no host has room for {0}".format(asked), _nearest_miss(kind, ledger, free, refusals)]
        if wanted > 1:
            parts[0] = "{0} x {1} asked ({2}), none fits".format(wanted, sizes_text(kind.requests), _names(names))
            parts.append(_largest_hole(kind, ledger, free))
        others = {host: refusal for host, refusal in refusals.items() if refusal.code not in CAPACITY_CODES}
        if others:
            parts.append("other hosts: " + _counted(others))
        return Refusal("no_capacity", "; ".join(part for part in parts if part))
    if "max_per_host" in codes or kind.counters or kind.conflicts:
        return Refusal("anti_affinity" if kind.conflicts else "max_per_host", "{0} x {1} asked ({2}); there is room, but not on enough "
                       "different hosts: {3} could take them".format(wanted, sizes_text(kind.requests), _names(names), len(kind.hosts)))
    together = "" if room < wanted else " of their own, but not together with the rest of the batch"
    return Refusal("no_capacity", "{0} x {1} asked ({2}); there is room for {3}{4}; {5}".format(
        wanted, sizes_text(kind.requests), _names(names), min(room, wanted), together, _largest_hole(kind, ledger, free)))
