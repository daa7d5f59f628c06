# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who keeps a name, an address, a MAC: what a run that has claimed decides after it has read every host. Pure.

The second phase of the claim (DESIGN.md, "How a VM is created", step 4; tests/unit/protocol checks all interleavings). Whoever is C(building) or
later wins; of claims that are C(pending) the smaller ticket wins; the winner commits only when no larger one is pending any more.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import told_name
from ansible_collections.kvmfleet.core.plugins.plugin_utils._planning import Context, State, bare, holders, is_stale

# A host that refuses for one of these may be right a moment later, or another host may do.
ELSEWHERE = ("no_capacity", "host_busy", "unsupported", "unknown_network", "network_inactive", "unknown_pool", "pool_inactive", "image_too_big",
             "host_unreachable", "libvirt_error", "no_space", "unknown_image")
# ... and these are about a rival on the host itself: look again.
AGAIN = ("name_in_use", "ip_in_use", "mac_in_use", "busy", "uuid_in_use")


@dataclass
class Verdict:
    """What to do next.

    :param withdraw: VM -> why its claim is given up; it is placed again or converged where it is
    :param lost: VM -> addresses that belong to somebody else; the claim is kept and gets another address
    :param wait: VM -> why one has to look again before it is decided
    :param avoid: VM -> host -> the host's own words for not taking it
    :param fetch: host -> names of images that are missing there
    :param fatal: why all of it has to be given up; C(reason) is its code
    """

    withdraw: Dict[str, str] = field(default_factory=dict)
    lost: Dict[str, List[str]] = field(default_factory=dict)
    wait: Dict[str, str] = field(default_factory=dict)
    avoid: Dict[str, Dict[str, str]] = field(default_factory=dict)
    fetch: Dict[str, List[str]] = field(default_factory=dict)
    fatal: Optional[str] = None
    reason: Optional[str] = None

    @property
    def decided(self) -> bool:
        """Whether every claim is good, so that building may begin."""
        return not (self.withdraw or self.lost or self.wait or self.avoid or self.fetch or self.fatal)


def _wins(rival: Mapping[str, Any], ticket: str) -> bool:
    """Whether another's domain keeps what both want."""
    return rival.get("phase") != "pending" or str(rival.get("ticket") or "") < ticket


def _on(host: str, rival: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    return "VM {0} on {1}".format(told_name(str(rival["name"]), rival.get("group"), mine.get("group")), host)


def settle(fresh: Mapping[str, str], states: Mapping[str, State], context: Context, drawn: Mapping[str, List[str]], asked_macs: Mapping[str, List[str]],
           ) -> Verdict:
    """What the claims of this run have come to.

    :param fresh: VM -> host, of the claims of this run; those that a host refused are not among them
    :param states: what every host said after the claims had been made
    :param drawn: VM -> addresses out of pools that it got by this run, for which others can be had
    :param asked_macs: VM -> MACs that the user asked for
    """
    verdict = Verdict()
    ticket = str(context.ticket)
    mine: Dict[str, Mapping[str, Any]] = {}
    for host, vm in holders(states):
        if vm.get("ticket") == ticket and vm.get("phase") == "pending" and fresh.get(str(vm["name"])) == host:
            mine[str(vm["name"])] = vm
    by_name: Dict[str, List[Any]] = {}
    by_mac: Dict[str, List[Any]] = {}
    by_address: Dict[str, List[Any]] = {}
    for host, vm in holders(states):
        if vm.get("ticket") == ticket and vm.get("phase") == "pending":
            continue
        by_name.setdefault(str(vm["name"]), []).append((host, vm))
        for mac in vm.get("macs") or []:
            by_mac.setdefault(mac, []).append((host, vm))
        for address in vm.get("addresses") or []:
            by_address.setdefault(bare(address), []).append((host, vm))
    for name, host in fresh.items():
        if name not in mine:
            silent = states.get(host) is None
            verdict.avoid.setdefault(name, {})[host] = "{0} did not answer after the claim".format(host) if silent else "the claim on {0} is gone".format(host)
            continue
        for where, rival in by_name.get(name, []):
            if _wins(rival, ticket):
                verdict.withdraw[name] = "{0} exists on {1}".format(name, where)
            else:
                verdict.wait[name] = _stale_or_not(name, where, rival, context)
        if name in verdict.withdraw:
            continue
        _addresses(name, mine[name], by_address, context, drawn, verdict)
        for mac in mine[name].get("macs") or []:
            for where, rival in by_mac.get(mac, []):
                if rival["name"] == name:
                    continue
                if not _wins(rival, ticket):
                    verdict.wait[name] = "MAC {0} is claimed by {1} too".format(mac, _on(where, rival, mine[name]))
                elif mac in asked_macs.get(name, []):
                    verdict.fatal, verdict.reason = "MAC {0} of {1} belongs to {2}".format(mac, name, _on(where, rival, mine[name])), "mac_in_use"
                else:
                    verdict.withdraw[name] = "its MAC {0} belongs to {1}".format(mac, _on(where, rival, mine[name]))
    return verdict


def _stale_or_not(name: str, where: str, rival: Mapping[str, Any], context: Context) -> str:
    words = "{0} is claimed on {1} by another run too".format(name, where)
    return words + ", which is gone" if is_stale(rival, context) else words


def _addresses(name: str, vm: Mapping[str, Any], by_address: Mapping[str, List[Any]], context: Context, drawn: Mapping[str, List[str]],
               verdict: Verdict) -> None:
    for address in vm.get("addresses") or []:
        for where, rival in by_address.get(bare(address), []):
            if rival["name"] == name:
                continue
            if not _wins(rival, str(context.ticket)):
                verdict.wait[name] = "address {0} is claimed by {1} too".format(bare(address), _on(where, rival, vm))
            elif bare(address) in [bare(a) for a in drawn.get(name, [])]:
                verdict.lost.setdefault(name, []).append(bare(address))
            else:
                verdict.fatal = "address {0} of {1} belongs to {2}. Use another address".format(bare(address), name, _on(where, rival, vm))
                verdict.reason = "ip_in_use"
