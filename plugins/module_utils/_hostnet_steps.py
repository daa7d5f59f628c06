# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How each configuration system is told that its files have changed, there and back, and what the links look like when it has done so. Touches nothing."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Sequence, Set, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import _hostnet_ifupdown, _hostnet_nft, _hostnet_nm, _hostnet_ovs
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_guard import unmet
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import Device, Plan

Step = Dict[str, Any]
NEW_FILES: Step = {"files": "new"}
OLD_FILES: Step = {"files": "old"}
_NAT_SERVICE = _hostnet_nft.UNIT.rpartition("/")[2]


@dataclass
class Steps:
    """The steps of a change: there, back, after the links that it made are gone, and at a restart of the host."""

    apply: List[Step] = field(default_factory=list)
    undo: List[Step] = field(default_factory=list)
    reload: List[Step] = field(default_factory=list)
    boot: List[Step] = field(default_factory=list)


@dataclass(frozen=True)
class Context:
    """What the steps depend on. C(old) and C(new) are the texts of all files before and after, by path, C(active) NetworkManager's connections by device."""

    plan: Plan
    old: Mapping[str, str]
    new: Mapping[str, str]
    present: Mapping[str, Mapping[str, Any]]
    gone: Sequence[str] = ()                # devices of networks that are ours no more
    switches: Mapping[str, Sequence[str]] = field(default_factory=dict)      # ports of ours in Open vSwitch, by bridge
    active: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)                 # values to be set, by path
    sysctls_before: Mapping[str, str] = field(default_factory=dict)
    nat_lost: bool = False
    released: Sequence[str] = ()            # links that were in our bridges and are to be no more
    lost_routes: Sequence[Sequence[str]] = ()       # what C(ip) is to be told for routes that have gone, where no file has changed


def run(*argv: str, **more: Any) -> Step:
    """A step that is a command."""
    return dict({"run": list(argv)}, **more)


def expected(plan: Plan, released: Sequence[str] = ()) -> List[Dict[str, Any]]:
    """What the links look like once the plan is carried out, for C(_hostnet_guard.unmet). Addresses from DHCP come when they come."""
    bridges = [device.name for device in plan.devices if device.kind in ("bridge", "bond")]
    result: List[Dict[str, Any]] = [{"name": name, "no_master": bridges} for name in released]
    for device in plan.devices:
        network = device.network
        if network is None or not device.ours:
            continue
        item: Dict[str, Any] = {"name": device.name, "addresses": list(network.addresses) if device.addressed else [], "exact": True}
        if device.mtu:
            item["mtu"] = device.mtu
        if device.kind in ("bridge", "bond", "vlan", "vxlan"):
            item["kind"] = device.kind
        if not (device.kind == "internal" or network.openvswitch):
            item["master"] = device.master
        item["data"] = _data(device)
        if device.addressed and network.routes:
            # By way of an address from DHCP they come when that comes
            item["routes"] = [route.shown for route in network.routes if not (network.dhcp4 if route.version == 4 else network.dhcp6)]
        result.append(item)
    return result


def _data(device: Device) -> Dict[str, Any]:
    network = device.network
    if network is None:
        return {}
    if device.kind == "bridge":
        return {"stp_state": int(network.stp)}
    if device.kind == "vlan":
        return {"id": network.vlan}
    if device.kind == "vxlan":
        # neither peers nor a group: the only peer that was named is the host itself
        data: Dict[str, Any] = {"id": network.vni, "port": network.port, "peers": sorted(network.peers or filter(None, [network.group]))}
        data.update({key: value for key, value in (("local" if ":" not in network.local else "local6", network.local),) if value})
        return data
    return {"mode": network.bond.mode} if device.kind == "bond" and network.bond is not None else {}


def to_make_anew(plan: Plan, present: Mapping[str, Mapping[str, Any]]) -> List[str]:
    """Devices whose settings can be given only when they are made. A bridge is none of them: VMs are on it."""
    settings = [{"name": item["name"], "kind": item["kind"], "data": item["data"]} for item in expected(plan)
                if item.get("kind") in ("vlan", "vxlan", "bond") and item["name"] in present]
    up = {name: dict(link, up=True) for name, link in present.items()}
    return sorted(item["name"] for item in settings if unmet([item], up))


def steps(context: Context) -> Steps:
    """All steps, in order. Before C(reload) the guard puts the database of Open vSwitch back and removes the links that the change made."""
    plan = context.plan
    result = _SYSTEMS[plan.system](context)
    # Open vSwitch first, so that its ports are there when the addresses come; what goes first of all, for a port is in one bridge at a time
    before = [run(*call) for call in _hostnet_ovs.removals(plan, context.switches) + _hostnet_ovs.commands(plan)]
    at = result.apply.index(NEW_FILES) + 1
    remove = [run("ip", "link", "del", "dev", name, if_link=name) for name in list(context.gone) + to_make_anew(plan, context.present)]
    result.apply[at:at] = remove + before + _in_place(context)
    result.apply += [run("ip", *words) for words in context.lost_routes]
    _nat(context, result)
    return result


def _in_place(context: Context) -> List[Step]:
    """Settings of bridges that are there and that systems give only to bridges that they make."""
    calls = []
    for device in context.plan.devices:
        link = context.present.get(device.name)
        if device.kind == "bridge" and device.network is not None and link is not None and link["kind"] == "bridge":
            if link["data"].get("stp_state") != int(device.network.stp):
                calls.append(run("ip", "link", "set", "dev", device.name, "type", "bridge", "stp_state", str(int(device.network.stp)),
                                 "forward_delay", "1500" if device.network.stp else "0", if_link=device.name))
            if device.mac and link["mac"] != device.mac:
                calls.append(run("ip", "link", "set", "dev", device.name, "address", device.mac, if_link=device.name))
            if device.mtu and link["mtu"] != device.mtu:
                calls.append(run("ip", "link", "set", "dev", device.name, "mtu", str(device.mtu), if_link=device.name))
    return calls


def _nat(context: Context, result: Steps) -> None:
    changed = any(context.old.get(path) != context.new.get(path) for path in (_hostnet_nft.RULES, _hostnet_nft.UNIT))
    if context.sysctls:
        result.apply.append({"sysctl": dict(context.sysctls)})
        result.undo.append({"sysctl": dict(context.sysctls_before)})
    if not changed and not context.nat_lost:
        return
    drop = run("nft", "delete", "table", "inet", _hostnet_nft.TABLE, ok=[0, 1])
    loaded = [run("systemctl", "daemon-reload"), run("systemctl", "reload-or-restart", _NAT_SERVICE)]
    stop = run("systemctl", "stop", _NAT_SERVICE, ok=[0, 5])
    if _hostnet_nft.RULES in context.new or context.nat_lost:
        result.apply += loaded
    else:
        # its unit file has gone already
        result.apply += [stop, run("systemctl", "daemon-reload"), drop]
    if _hostnet_nft.RULES in context.old:
        result.reload += loaded
    elif not context.nat_lost:
        result.undo.insert(0, stop)
        result.reload += [run("systemctl", "daemon-reload"), drop]


def touched(plan: Plan, present: Mapping[str, Any], gone: Sequence[str]) -> List[str]:
    """The links that a system configures anew in a change, of those that there are: those of the plan and those that it gives back."""
    return sorted({d.name for d in plan.devices if d.ours and d.name in present} | {name for name in gone if name in present})


def _networkd(context: Context) -> Steps:
    # "reload" alone makes new devices and reconfigures links whose file has changed or is another one now.
    return Steps([NEW_FILES, run("networkctl", "reload")] + _released(context), [OLD_FILES], [_RESTART])


# A link whose file is gone is still put back into its bridge whenever somebody takes it out, until networkd has forgotten the file.
_RESTART = run("systemctl", "restart", "systemd-networkd.service")


def _released(context: Context) -> List[Step]:
    bridges = [device.name for device in context.plan.devices if device.kind in ("bridge", "bond")]
    return [_RESTART] + [{"release": name, "from": bridges} for name in context.released] if context.released else []


def _netplan(context: Context) -> Steps:
    back = [run("netplan", "apply")]
    there = [NEW_FILES, run("netplan", "apply")]
    if context.plan.renderer == "networkd":
        back.append(_RESTART)
        there += _released(context)
    else:
        back += _activate(context)
    return Steps(there, [OLD_FILES], back, [run("netplan", "generate")])


def _activate(context: Context) -> List[Step]:
    """NetworkManager's connections that were active before, of the devices concerned."""
    return [run("nmcli", "--wait", "20", "connection", "up", "uuid", uuid, "ifname", name, ok=[0, 4, 10], if_link=name)
            for name, uuid in sorted(context.active.items()) if name in touched(context.plan, context.present, context.gone)]


def _networkmanager(context: Context) -> Steps:
    plan = context.plan
    changed = {path.rpartition("/")[2][len(_hostnet_nm.PREFIX):-len(".nmconnection")] for path, text in context.new.items()
               if path.startswith("{0}/{1}".format(_hostnet_nm.DIRECTORY, _hostnet_nm.PREFIX)) and context.old.get(path) != text}
    changed |= {d.name for d in plan.devices if d.ours and d.kind != "internal" and unmet([e for e in expected(plan) if e["name"] == d.name], context.present)}
    up = []
    for device in sorted((d for d in plan.devices if d.name in changed), key=lambda d: bool(d.master)):
        # A bridge whose address comes by DHCP waits for its ports, so masters are not waited for; they bring their ports with them.
        wait = "0" if any(d.master == device.name for d in plan.devices) else "20"
        up.append(run("nmcli", "--wait", wait, "connection", "up", _hostnet_nm.PREFIX + device.name))
    back = [run("nmcli", "connection", "reload")] + _activate(context)
    return Steps([NEW_FILES, run("nmcli", "connection", "reload")] + up, [OLD_FILES], back)


def stanzas(text: str) -> Dict[str, str]:
    """What a file of ifupdown says about each device."""
    result: Dict[str, str] = {}
    inside: Tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("iface", "auto", "mapping", "source", "source-directory") or words[0].startswith("allow-"):
            inside = tuple(words[1:2]) if words[0] == "iface" else ()
        for name in inside:
            result[name] = result.get(name, "") + line + "\n"
    return result


def _ifupdown(context: Context) -> Steps:
    def told(texts: Mapping[str, str]) -> Dict[str, str]:
        found: Dict[str, str] = {}
        for path, text in sorted(texts.items()):
            if path == _hostnet_ifupdown.MAIN or path.startswith(_hostnet_ifupdown.MAIN + ".d/"):
                found.update({name: found.get(name, "") + stanza for name, stanza in stanzas(text).items()})
        return found
    old, new = told(context.old), told(context.new)
    order = [d.name for d in context.plan.devices]
    lost = {item["name"] for item in expected(context.plan) if unmet([item], context.present)}
    changed: Set[str] = {name for name in set(old) | set(new) if name != "lo" and (old.get(name) != new.get(name) or name in lost)}
    # A bridge that is made anew needs its ports, and a device that is made anew the bridge that it is in.
    changed |= {d.name for d in context.plan.devices if d.master in changed and d.ours} & (set(old) | set(new))
    down = [run("ifdown", "--force", name, ok=[0, 1], if_link=name) for name in sorted(changed & set(old), key=_rank(order), reverse=True)]
    flush = [run("ip", "address", "flush", "dev", name, "scope", "global", if_link=name) for name in sorted(changed & set(old) - {"lo"})]
    up = [run("ifup", "--force", name) for name in sorted(changed & set(new), key=_rank(order))]
    down_new = [run("ifdown", "--force", name, ok=[0, 1], if_link=name) for name in sorted(changed & set(new), key=_rank(order), reverse=True)]
    up_old = [run("ifup", "--force", name, ok=[0, 1]) for name in sorted(changed & set(old), key=_rank(order))]
    return Steps(down + flush + [NEW_FILES] + up, down_new + [OLD_FILES], up_old)


def _rank(order: Sequence[str]) -> Any:
    return lambda name: (order.index(name) if name in order else -1, name)


_SYSTEMS = {"networkd": _networkd, "netplan": _netplan, "networkmanager": _networkmanager, "ifupdown": _ifupdown}
