# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Open vSwitch part of a plan as argument lists of ovs-vsctl, one transaction for each switch. Open vSwitch keeps in its database what it was told."""
from __future__ import annotations

import hashlib
from typing import Any, Dict, List, Mapping, Sequence

from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import Network, Plan
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_plan import moved_links

MARK = "external_ids:kvmfleet=yes"


def _text(value: str) -> str:
    """A value of the database in quotes: colons and leading digits mean something without."""
    return '"{0}"'.format(value)


def peer_port(vni: int, peer: str) -> str:
    """The name of the tunnel port to a peer; the same on every run, at most 15 characters."""
    return "vx{0:x}-{1}".format(vni, hashlib.sha256(peer.encode()).hexdigest()[:6])


def switches(plan: Plan) -> Dict[str, List[Network]]:
    """The Open vSwitch bridges of the plan, by name, with the networks on them."""
    result: Dict[str, List[Network]] = {}
    for network in plan.networks:
        if network.openvswitch:
            result.setdefault(network.switch, []).append(network)
    return dict(sorted(result.items()))


def _bond(switch: str, network: Network) -> List[List[str]]:
    bond = network.bond
    if bond is None:
        return []
    mode = "balance-tcp" if bond.mode == "802.3ad" else bond.mode
    settings = ["bond_mode={0}".format(mode), "lacp={0}".format("active" if bond.mode == "802.3ad" else "off"),
                "other_config:bond-miimon-interval={0}".format(bond.miimon or 100),
                "other_config:bond-detect-mode={0}".format("miimon" if bond.miimon else "carrier")]
    settings += ["other_config:lacp-time={0}".format(bond.lacp_rate)] if bond.lacp_rate else []
    settings += ["other_config:bond-primary={0}".format(bond.primary)] if bond.primary else []
    if len(network.links) == 1:
        # add-bond wants two at least; a bond of one is a port until a second link is named
        return [["--may-exist", "add-port", switch, network.links[0]]]
    return [["--may-exist", "add-bond", switch, bond.name] + sorted(network.links), ["set", "port", bond.name] + settings]


def _parts(plan: Plan, switch: str, networks: Sequence[Network]) -> List[List[str]]:
    """What a switch is to be, as commands of ovs-vsctl, each once."""
    moved = moved_links(plan.networks)
    macs = {link.name: link.mac for link in plan.links}
    parts = [["--may-exist", "add-br", switch]]
    base = next((n for n in networks if n.bridge == switch), None)
    settings = ["stp_enable={0}".format("true" if base is not None and base.stp else "false"), MARK]
    settings += ["datapath_type={0}".format(plan.datapath)] if plan.datapath else []
    uplinks = sorted({link for n in networks for link in n.links if link in moved and n.type != "vxlan"})
    if uplinks and macs.get(uplinks[0]):
        # the host keeps the MAC address that switches and DHCP servers know it by
        settings.append("other_config:hwaddr={0}".format(_text(macs[uplinks[0]])))
    parts.append(["set", "bridge", switch] + settings)
    if base is not None and base.mtu:
        parts.append(["set", "interface", switch, "mtu_request={0}".format(base.mtu)])
    for network in networks:
        if network.type == "bond":
            parts += _bond(switch, network)
        elif network.type in ("bridge", "vlan"):
            parts += [["--may-exist", "add-port", switch, link] for link in network.links if link in moved and moved[link].bond is None]
        if network.type == "vlan" and network.has_address:
            parts += [["--may-exist", "add-port", switch, network.bridge], ["set", "port", network.bridge, "tag={0}".format(network.vlan)],
                      ["set", "interface", network.bridge, "type=internal"] + (["mtu_request={0}".format(network.mtu)] if network.mtu else [])]
        for peer in network.peers:
            port = peer_port(network.vni, peer)
            options = ["options:remote_ip={0}".format(_text(peer)), "options:key={0}".format(network.vni), "options:dst_port={0}".format(network.port)]
            options += ["options:local_ip={0}".format(_text(network.local))] if network.local else []
            # Each host has a tunnel to each other, so what comes out of one must not go into the next: broadcasts would circle for ever.
            parts += [["--may-exist", "add-port", switch, port], ["set", "port", port, "protected=true"],
                      ["set", "interface", port, "type=vxlan"] + options]
    unique: List[List[str]] = []
    for part in parts:
        if part not in unique:
            unique.append(part)
    return unique


def transaction(plan: Plan, switch: str, networks: Sequence[Network]) -> List[str]:
    """One ovs-vsctl call that makes a switch what it is to be: all of it, or nothing. Running it again changes nothing."""
    return ["ovs-vsctl", "--timeout=30"] + [word for part in _parts(plan, switch, networks) for word in ["--"] + part]


def ports(plan: Plan) -> Dict[str, List[str]]:
    """The ports that each network has in Open vSwitch, by network."""
    result = {}
    for switch, networks in switches(plan).items():
        for network in networks:
            added = {part[3] for part in _parts(plan, switch, [network]) if part[1] in ("add-port", "add-bond")}
            result[network.name] = sorted(added)
    return result


def unmet(plan: Plan, database: Mapping[str, Sequence[Mapping[str, Any]]]) -> List[str]:
    """What of the plan Open vSwitch does not have yet, in words. C(database) are the rows of its tables Bridge, Port and Interface."""
    rows = {table: {str(row["name"]): row for row in database.get(table, ())} for table in ("Bridge", "Port", "Interface")}
    names = {table: {str(row["_uuid"]): name for name, row in found.items()} for table, found in rows.items()}
    wrong: List[str] = []
    for switch, networks in switches(plan).items():
        for part in _parts(plan, switch, networks):
            if part[0] == "set":
                table, record = part[1].capitalize(), part[2]
                wrong += ["{0} {1} does not have {2}".format(part[1], record, setting) for setting in part[3:]
                          if not _is_set(rows[table].get(record, {}), setting)]
            elif part[1] == "add-br":
                wrong += [] if switch in rows["Bridge"] else ["switch {0} is not there".format(switch)]
            else:
                held = {names["Port"].get(str(ref)) for ref in _list(rows["Bridge"].get(switch, {}).get("ports"))}
                members = {names["Interface"].get(str(ref)) for ref in _list(rows["Port"].get(part[3], {}).get("interfaces"))}
                if part[3] not in held or (part[1] == "add-bond" and not set(part[4:]) <= members):
                    wrong.append("{0} is not a port of {1}".format(part[3], switch))
    return wrong


def _list(value: Any) -> List[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _is_set(row: Mapping[str, Any], setting: str) -> bool:
    where, value = setting.split("=", 1)
    column, _sep, key = where.partition(":")
    found = row.get(column)
    if key:
        found = found.get(key) if isinstance(found, dict) else None
    shown = {True: "true", False: "false"}.get(found) if isinstance(found, bool) else str(found)
    return shown == value.strip('"')


def commands(plan: Plan) -> List[List[str]]:
    """The calls for a whole plan, one for each switch."""
    return [transaction(plan, switch, networks) for switch, networks in switches(plan).items()]


def removals(plan: Plan, ours: Mapping[str, Sequence[str]]) -> List[List[str]]:
    """Calls for the bridges of ours that the plan has no more, and for ports of ours in the others; C(ours) are the recorded ports by bridge.

    That no VM is attached is for the caller to see to.
    """
    kept = switches(plan)
    calls = []
    for switch in sorted(ours):
        if switch not in kept:
            calls.append(["ovs-vsctl", "--timeout=30", "--", "--if-exists", "del-br", switch])
            continue
        wanted = {part[3] for part in _parts(plan, switch, kept[switch]) if part[1] in ("add-port", "add-bond")}
        calls += [["ovs-vsctl", "--timeout=30", "--", "--if-exists", "del-port", switch, port] for port in sorted(ours[switch]) if port not in wanted]
    return calls
