# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NAT of networks with the gateway on the bridge: one nftables table of ours, so that libvirt's and the site's rules stay as they are."""
from __future__ import annotations

import ipaddress
from typing import Dict, List, NamedTuple, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import HEADER, File, Network, Plan
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_plan import moved_links

TABLE = "kvmfleet"
RULES = "/etc/kvmfleet/nat.nft"
UNIT = "/etc/systemd/system/kvmfleet-nat.service"
SYSCTL = "/etc/sysctl.d/60-kvmfleet-nat.conf"
_NEVER = {4: ("224.0.0.0/24", "255.255.255.255"), 6: ("ff00::/8",)}


class Chain(NamedTuple):
    """A base chain: its hook and its rules, each a list of words."""

    name: str
    kind: str
    hook: str
    priority: int
    rules: List[List[str]]


def _set(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else "{{ {0} }}".format(", ".join(items))


def _name(device: str) -> str:
    return '"{0}"'.format(device)


def exits(plan: Plan, network: Network) -> List[str]:
    """The devices through which a network's traffic leaves: where a link is in a bridge, packets go out by the bridge."""
    moved = moved_links(plan.networks)
    own = {n.bond.name: n for n in plan.networks if n.bond}
    return sorted({moved[link].bridge if link in moved else own[link].bridge if link in own else link for link in network.out})


def chains(plan: Plan) -> List[Chain]:
    """The rules for all NAT networks of the plan. Every rule names a bridge of ours, so no other traffic meets them."""
    nat: List[List[str]] = []
    forward: List[List[str]] = []
    for network in plan.networks:
        if network.type != "nat":
            continue
        bridge, leaving = _name(network.bridge), [_name(d) for d in exits(plan, network)]
        out = ["oifname", _set(leaving)] if leaving else ["oifname", "!=", bridge]
        for subnet in network.subnets:
            family = "ip" if subnet.version == 4 else "ip6"
            nat.append([family, "saddr", str(subnet), family, "daddr", _set(_NEVER[subnet.version]), "return"])
            nat.append([family, "saddr", str(subnet), family, "daddr", "!=", str(subnet)] + out + ["masquerade"])
        into = ["iifname", "!=", bridge, "oifname", bridge]
        # Answers come in, and what the site forwards to a guest on purpose; nothing else, as with libvirt's own NAT networks.
        forward.append(into + ["ct", "state", _set(("established", "related")), "accept"])
        forward.append(into + ["ct", "status", "dnat", "accept"])
        forward.append(into + ["drop"])
        if leaving:
            forward.append(["iifname", bridge, "oifname", "!=", _set([bridge] + leaving), "drop"])
    if not nat:
        return []
    return [Chain("postrouting", "nat", "postrouting", 100, nat), Chain("forward", "filter", "forward", 0, forward)]


def ruleset(found: Sequence[Chain]) -> str:
    """The text for C(nft -f): replaces the table in one transaction, whether or not it is there; with no chains it only removes it."""
    lines = ["# {0}".format(HEADER), "table inet {0}".format(TABLE), "delete table inet {0}".format(TABLE)]
    if found:
        lines += ["", "table inet {0} {{".format(TABLE)]
        for number, chain in enumerate(found):
            lines += [""] if number else []
            lines += ["\tchain {0} {{".format(chain.name), "\t\ttype {0} hook {1} priority {2}; policy accept;".format(chain.kind, chain.hook, chain.priority)]
            lines += ["\t\t" + " ".join(rule) for rule in chain.rules] + ["\t}"]
        lines.append("}")
    return "\n".join(lines) + "\n"


def sysctls(plan: Plan) -> List[Tuple[str, str]]:
    """The kernel settings without which a host does not forward."""
    versions = {ipaddress.ip_interface(a).version for n in plan.networks if n.type == "nat" for a in n.addresses}
    values = [("net.ipv4.ip_forward", "1")] if 4 in versions else []
    if 6 in versions:
        values.append(("net.ipv6.conf.all.forwarding", "1"))
        # A router ignores router advertisements unless told otherwise, and a host that has its default route from one would lose it. A slash parts
        # the name where the device has a dot in it.
        asking = {link.name for link in plan.links if any(ipaddress.ip_address(g).version == 6 for g in link.gateways)}
        asking = {moved_links(plan.networks)[name].bridge if name in moved_links(plan.networks) else name for name in asking}
        values += [("net/ipv6/conf/{0}/accept_ra".format(name), "2") for name in sorted(asking)]
    return values


def render(plan: Plan) -> Dict[str, File]:
    """The ruleset, the unit that loads it at boot, and the sysctls; nothing where the plan has no NAT network."""
    found = chains(plan)
    if not found:
        return {}
    # nftables.service begins with "flush ruleset" where it is the distribution's, so ours comes after it, also when that one is started anew.
    unit = "\n".join((
        "# {0}".format(HEADER), "[Unit]", "Description=NAT of kvmfleet's networks", "After=nftables.service", "PartOf=nftables.service",
        "ReloadPropagatedFrom=nftables.service", "Before=libvirtd.service virtnetworkd.service", "", "[Service]", "Type=oneshot", "RemainAfterExit=yes",
        "ExecStart=/usr/sbin/nft -f {0}".format(RULES), "ExecReload=/usr/sbin/nft -f {0}".format(RULES), "ExecStop=/usr/sbin/nft delete table inet {0}".format(
            TABLE), "", "[Install]", "WantedBy=multi-user.target", ""))
    sysctl = "# {0}\n".format(HEADER) + "".join("{0} = {1}\n".format(key, value) for key, value in sysctls(plan))
    return {RULES: (0o644, ruleset(found)), SYSCTL: (0o644, sysctl), UNIT: (0o644, unit)}
