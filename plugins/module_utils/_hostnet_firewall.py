# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the site's own firewall lets NAT networks work: what we accept in a table of our own, a chain of others may still drop. Touches nothing."""
from __future__ import annotations

import json
from typing import Any, Dict, Iterable, List, Set, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_guard import Runner
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import Network, Plan
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_nft import TABLE

_OPEN_ZONES = ("libvirt", "trusted")


def _words(value: Any) -> Iterable[str]:
    """Every text and number in a rule of C(nft -j)."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _words(item)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)
    else:
        yield str(value)


def closed_chains(text: str) -> Dict[str, List[Tuple[str, Set[str]]]]:
    """The base chains of others that drop what no rule of theirs accepts, by hook, out of C(nft -j list ruleset): name, and the words of what they accept.

    A chain's rules include those of the chains to which it jumps.
    """
    chains: Dict[Tuple[str, str, str], Dict[str, Any]] = {}
    rules: Dict[Tuple[str, str, str], List[Any]] = {}
    for item in json.loads(text or "{}").get("nftables", []):
        if "chain" in item:
            chain = item["chain"]
            chains[chain["family"], chain["table"], chain["name"]] = chain
        if "rule" in item:
            rule = item["rule"]
            rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule.get("expr", []))
    found: Dict[str, List[Tuple[str, Set[str]]]] = {"input": [], "forward": []}
    for (family, table, name), chain in sorted(chains.items()):
        closed = chain.get("policy") == "drop" or any(_drops_all(rule) for rule in rules.get((family, table, name), []))
        if chain.get("hook") not in found or chain.get("type") != "filter" or table == TABLE or not closed or family not in ("ip", "inet"):
            continue
        seen: Set[str] = set()
        words: Set[str] = set()
        ahead = [name]
        while ahead:
            one = ahead.pop()
            if one in seen:
                continue
            seen.add(one)
            for rule in rules.get((family, table, one), []):
                words.update(_words(rule))
                ahead += [target["target"] for part in rule if isinstance(part, dict) for verb, target in part.items() if verb in ("jump", "goto")]
        found[chain["hook"]].append(("{0} {1} {2}".format(family, table, name), words))
    return found


def _drops_all(rule: Any) -> bool:
    """Whether a rule ends all that comes to it, as the last one of a chain does in many rulesets."""
    verdicts = [part for part in rule if isinstance(part, dict) and set(part) & {"drop", "reject"}]
    return bool(verdicts) and all(set(part) & {"drop", "reject", "counter", "log"} for part in rule if isinstance(part, dict))


def warnings(plan: Plan, runner: Runner) -> List[str]:
    """What is likely to keep the plan's NAT networks from working, each with what to do about it."""
    networks = [network for network in plan.networks if network.type == "nat"]
    if not networks:
        return []
    if runner(["firewall-cmd", "--state"], 20.0)[0] == 0:
        return [text for network in networks for text in _firewalld(network, runner)]
    code, text = runner(["nft", "-j", "list", "ruleset"], 20.0)
    if code:
        return []
    found = []
    closed = closed_chains(text)
    for network in networks:
        for name, words in closed["input"] if network.by_libvirt else []:
            if network.bridge not in words and not {"67", "53"} <= words:
                found.append("network {0}: the chain {1} drops what is not accepted there, so that guests get no DHCP and no DNS. Accept UDP 67 and 53 and "
                             "TCP 53 from {2} in it (with ufw: ufw allow in on {2})".format(network.name, name, network.bridge))
        for name, words in closed["forward"]:
            if network.bridge not in words:
                found.append("network {0}: the chain {1} drops what is not accepted there, so that guests do not get out. Accept what comes from {2} and the "
                             "answers to it in it (with ufw: ufw route allow in on {2})".format(network.name, name, network.bridge))
    return found


def _firewalld(network: Network, runner: Runner) -> List[str]:
    code, zone = runner(["firewall-cmd", "--get-zone-of-interface={0}".format(network.bridge)], 20.0)
    if code == 0 and zone.strip() in _OPEN_ZONES:
        return []
    return ["network {0}: firewalld does not have {1} in its zone libvirt, so that guests get no DHCP, no DNS and no way out. Run firewall-cmd --permanent "
            "--zone=libvirt --add-interface={1} and firewall-cmd --reload".format(network.name, network.bridge)]
