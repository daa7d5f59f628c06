# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks of a host on their way to what is declared: observe, plan, refuse, set the guard to work, confirm. What the module host_links does."""
from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional

from ansible_collections.kvmfleet.core.plugins.module_utils import (
    _hostnet,
    _hostnet_change,
    _hostnet_firewall,
    _hostnet_guard as guard,
    _hostnet_libvirt,
    _hostnet_nft,
    _hostnet_observe,
    _hostnet_ovs,
    _hostnet_record,
    _hostnet_steps,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import HEADER
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_plan import VARIABLE, make_plan
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, check_label

NAT_LINK = "/etc/systemd/system/multi-user.target.wants/" + _hostnet_nft.UNIT.rpartition("/")[2]
# What has to be on the host, and the Debian package that has it.
_TOOLS = {"netplan": (("netplan", "netplan.io"),), "networkd": (("networkctl", "systemd"),), "networkmanager": (("nmcli", "network-manager"),),
          "ifupdown": (("ifup", "ifupdown"), ("brctl", "bridge-utils"))}


class HostLinks:
    """One run of the module on its host.

    :param params: its options
    :param runner: runs commands
    :param connect: opens the connection to libvirt, or says None where the host has none
    """

    def __init__(self, params: Mapping[str, Any], connect: Callable[[], Any], runner: guard.Runner = guard.run) -> None:
        self.params, self.connect, self.runner = params, connect, runner
        self.absent: List[str] = []
        self.declared: List[Mapping[str, Any]] = []
        for index, item in enumerate(params["networks"] or []):
            state = item.get("state") or "present" if isinstance(item, Mapping) else "present"
            if state not in ("present", "absent"):
                raise SpecError("{0}[{1}].state".format(VARIABLE, index), state, "is neither present nor absent", "Write present, or absent to remove it")
            if state == "absent":
                self.absent.append(check_label("{0}[{1}].name".format(VARIABLE, index), item.get("name")))
            else:
                self.declared.append({k: v for k, v in item.items() if k != "state"} if isinstance(item, Mapping) else item)

    # --- what there is, and what is to be

    def look(self) -> None:
        """Observe the host and plan. Raises SpecError for whatever cannot be, or must not be."""
        params = self.params
        seen = _hostnet_observe.observe(self.runner, params["management_address"] or "")
        self.seen = seen
        system = _hostnet.choose_system(seen.systems, params["system"] or "")
        self.plan = make_plan(self.declared, seen.model(), system, seen.files, seen.renderer, bool(params["allow_management_change"]),
                              params["ovs_datapath"] or "")
        self.recorded = _hostnet_record.read(seen.files)
        self._require_declared()
        self._require_tools()
        kept = {device.name for device in self.plan.devices}
        self.gone = sorted({name for old in self.recorded.values() for name in old.devices} - kept)
        self.released = sorted({name for old in self.recorded.values() for name in old.links if name in seen.links} - self.plan.owned)
        self.switches: Dict[str, List[str]] = {}
        for old in self.recorded.values():
            if old.switch:
                self.switches.setdefault(old.switch, []).extend(old.ports)
        self._files()
        self._runtime()
        self._require_unused()

    def _require_declared(self) -> None:
        names = {network.name for network in self.plan.networks}
        for name in self.absent:
            if name in names:
                raise SpecError(VARIABLE, name, "is declared both present and absent", "Keep one of the two")
        left = sorted(set(self.recorded) - names - set(self.absent))
        if left and not self.params["prune"]:
            raise SpecError(VARIABLE, ", ".join(left), "is on this host, made by an earlier run, and is declared no more",
                            "Declare it, remove it with state: absent, or set host_network_prune: true to remove all such networks", "undeclared")

    def _require_tools(self) -> None:
        plan = self.plan
        missing = _hostnet_observe.missing_modules(
            [name for name in _hostnet.kernel_modules(plan) if not (name == "openvswitch" and (plan.datapath == "netdev"))], self.runner)
        if missing:
            raise SpecError(VARIABLE, None, "the running kernel has no module {0}, which these networks need".format(", ".join(missing)),
                            "Install the package with the kernel's modules, or use networks of another type or backend", "no_kernel_module")
        needed = list(_TOOLS[plan.system]) + [("systemd-run", "systemd")]
        needed += [("nft", "nftables")] if any(network.type == "nat" for network in plan.networks) else []
        needed += [("ovs-vsctl", "openvswitch-switch")] if any(network.openvswitch for network in plan.networks) else []
        needed += [("ifenslave", "ifenslave")] if plan.system == "ifupdown" and any(d.kind == "bond" for d in plan.devices) else []
        lacking = sorted({package for tool, package in needed if not any(
            os.access(os.path.join(folder, tool), os.X_OK) for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"))})
        if lacking:
            raise SpecError(VARIABLE, None, "this host lacks {0}".format(", ".join(lacking)), "Install it, or let the role kvmfleet.core.host_network do it "
                            "(host_network_install_packages)", "missing_tool")
        if not os.path.isdir("/run/systemd/system"):
            raise SpecError(VARIABLE, None, "this host is not run by systemd, whose unit takes a change back that cuts the host off",
                            "Use a host with systemd", "unsupported")

    def _files(self) -> None:
        plan, seen = self.plan, self.seen
        # mode and text, or the target of a link
        wanted: Dict[str, Any] = dict(_hostnet.render(plan)) if plan.networks else {}
        wanted.update(_hostnet_record.render(plan, _hostnet_ovs.ports(plan)))
        if _hostnet_nft.UNIT in wanted:
            wanted[NAT_LINK] = _hostnet_nft.UNIT
        self.parked = _hostnet.parked(plan)
        after = replace(plan, files=dict(plan.files, **self.parked))
        left = _hostnet.conflicts(after)
        if left:
            raise SpecError(VARIABLE, None, "; ".join("{0}: {1} {2}".format(*conflict) for conflict in left[:5]),
                            "Take that out of the file (the running configuration stays until this change), or write it in block style under the device's "
                            "own name", "conflict")
        self.files: Dict[str, Any] = {path: content for path, content in wanted.items() if not _same(path, content)}
        self.files.update((path, (_mode(path), text)) for path, text in self.parked.items())
        ours = {path for path, text in seen.files.items() if HEADER in text[:400]} - set(wanted)
        ours |= {NAT_LINK} if os.path.islink(NAT_LINK) and NAT_LINK not in wanted else set()
        self.files.update((path, None) for path in sorted(ours))
        self.texts_before = dict(seen.files)
        self.texts_after = {path: text for path, text in seen.files.items() if path not in ours}
        self.texts_after.update(self.parked)
        self.texts_after.update((path, content[1]) for path, content in wanted.items() if not isinstance(content, str))

    def _runtime(self) -> None:
        """What of the running links is not so, though the files may be."""
        plan, seen = self.plan, self.seen
        self.expected = _hostnet_steps.expected(plan, self.released)
        self.wrong = guard.unmet(self.expected, seen.links, seen.routes) + _hostnet_ovs.unmet(plan, seen.database)
        self.wrong += ["{0} is still there".format(name) for name in self.gone if name in seen.links]
        bridges = {str(row["name"]) for row in seen.database.get("Bridge", ())}
        kept = set(_hostnet_ovs.switches(plan))
        self.wrong += ["switch {0} is still there".format(name) for name in sorted(self.switches) if name not in kept and name in bridges]
        nat = any(network.type == "nat" for network in plan.networks)
        self.nat_lost = nat and self.runner(["nft", "list", "table", "inet", _hostnet_nft.TABLE], 20.0)[0] != 0
        self.wrong += ["the rules for NAT are not loaded"] if self.nat_lost else []
        self.sysctls: Dict[str, str] = {}
        self.sysctls_before: Dict[str, str] = {}
        for key, value in _hostnet_nft.sysctls(plan) if nat else []:
            path = "/proc/sys/" + (key if "/" in key else key.replace(".", "/"))
            present = _read(path)
            if present is not None and present != value:
                self.sysctls[path], self.sysctls_before[path] = value, present
        self.wrong += ["{0} is {1}".format(path[len("/proc/sys/"):], value) for path, value in self.sysctls_before.items()]

    def _require_unused(self) -> None:
        """Nobody may be on what is about to go."""
        names = {network.name: network for network in self.plan.networks}
        going = {old.bridge: old for old in self.recorded.values() if old.bridge in self.gone or old.name not in names or (
            old.switch and old.switch != names[old.name].switch)}
        if not going:
            return
        ports = {p["switch"]: p["port"] for p in guard.vm_ports(self.runner)} if self.switches else {}
        planned = {device.name for device in self.plan.devices}
        for bridge, old in sorted(going.items()):
            own = planned | set(old.devices) | set(old.links)
            port = next((name for name, link in sorted(self.seen.links.items()) if link["master"] == bridge and name not in own), None)
            port = port or (ports.get(old.switch) if old.switch == bridge else None)
            if port:
                raise SpecError(VARIABLE, old.name, "would lose its bridge {0}, and {1} is attached to it".format(bridge, port),
                                "Stop or move that VM first", "network_in_use")
            if bridge in self.seen.management and not self.params["allow_management_change"] and bridge not in planned:
                raise SpecError(VARIABLE, old.name, "would be removed, and the host is reached by its bridge {0}".format(bridge),
                                "Set host_network_allow_management_change: true if the host is to be reached in another way from then on", "would_cut_off")
        conn = self.connect() if self._has_libvirt() else None
        if conn is None:
            return
        for domain, kind, name in _hostnet_libvirt.users(conn):
            hit = next((old for old in going.values() if (name == old.bridge if kind == "bridge" else name == old.name and name not in names)), None)
            if hit:
                raise SpecError(VARIABLE, hit.name, "would be removed, and the VM {0} is attached to it".format(domain),
                                "Delete that VM or its NIC first", "network_in_use")

    @staticmethod
    def _has_libvirt() -> bool:
        return any(os.path.exists("/usr/sbin/" + name) for name in ("libvirtd", "virtqemud"))

    # --- steps

    def apply(self, check: bool) -> Dict[str, Any]:
        """The first step: everything up to the guard at work; the second step is C(confirm)."""
        params = self.params
        settled = ""
        with self._alone(check):
            if check and _hostnet_change.pending():
                raise FleetError("A change of this host's links is under way or was left half-way by an earlier run; a run without --check finishes it",
                                 "host_busy")
            if not check:
                settled = _hostnet_change.settle_pending()
            self.look()
            networks = self._libvirt()
            actions = self.actions()
            result: Dict[str, Any] = {
                "changed": bool(actions or (networks and networks.steps)), "actions": actions + [text for text, _step in (networks.steps if networks else [])],
                "diff": self.diff(), "system": self.plan.system, "armed": False, "settled": settled,
                "affected": self.affected(), "management": list(self.seen.management),
                "networks": {n.name: {"type": n.type, "bridge": n.switch or n.bridge, "vlan": n.vlan} for n in self.plan.networks},
                "warnings": _hostnet_firewall.warnings(self.plan, self.runner)}
            if check:
                return result
            if not actions:
                if networks:
                    networks.apply()
                return result
            change = self.change()
            try:
                _hostnet_change.write_down(change, params["token"], params["deadline"], runner=self.runner)
                _hostnet_change.arm_boot()
            except OSError as exc:
                raise FleetError("What takes the change back cannot be written down, so nothing was changed: {0}. Make room on that file system".format(exc),
                                 "no_guard") from exc
            _hostnet_change.start(params["token"], runner=self.runner)
            result.update(armed=True, deadline=params["deadline"])
            return result

    def confirm(self) -> Dict[str, Any]:
        """The second step, by a new connection: the change stays. Where it is not that far yet, or it has been taken back, the result says so.

        With a connection that is none of the network (C(local)) nobody comes in anew: then the change stays if a router answers by which the host is to go out.
        """
        state = guard.read_json(guard.FOLDER, "state.json")
        if state.get("token") != self.params["token"]:
            return {"phase": "unknown", "changed": False}
        if state.get("phase") == "applied":
            trouble = self._no_way_out() if self.params.get("proof") == "gateway" else self._no_new_connection(float(state["at"]))
            if trouble:
                return {"phase": "applied", "fresh": False, "changed": False, "trouble": trouble}
            state = _hostnet_change.confirm(self.params["token"])
        result: Dict[str, Any] = {"phase": state["phase"], "changed": False, "reason": state.get("reason", ""), "left": state.get("left", [])}
        if state["phase"] == "undone":
            result["log"] = _hostnet_change.log_tail()
        return result

    @staticmethod
    def _no_new_connection(applied_at: float) -> str:
        age = _hostnet_observe.session_age()
        old = age is not None and guard.clock() - age < applied_at
        return "this connection is older than the change" if old else ""

    def _no_way_out(self) -> str:
        """Why the host does not go out any more as it did; empty where it does, or did not before."""
        before = guard.read_json(guard.FOLDER, "change.json")["before"].get("gateways", [])
        now = _hostnet_observe.default_gateways(guard.routes(self.runner))
        ways = sorted((name, gateway) for name, gateways in now.items() for gateway in gateways)
        if not before or any(_hostnet_observe.answers(name, gateway, self.runner) for name, gateway in ways):
            return ""
        return "no router answers: {0}".format(", ".join("{1} on {0}".format(*way) for way in ways) or "there is no default route")

    def networks(self) -> Dict[str, Any]:
        """The third step: libvirt's networks on top of what is confirmed."""
        self.look()
        networks = self._libvirt()
        done = networks.apply() if networks else []
        return {"changed": bool(done), "actions": done, "wrong": self.wrong + sorted(self.files)}

    @contextlib.contextmanager
    def _alone(self, check: bool) -> Iterator[None]:
        if check:
            yield
            return
        os.makedirs(guard.FOLDER, mode=0o700, exist_ok=True)
        with guard.locked(guard.FOLDER, "arm"):
            yield

    def _libvirt(self) -> Optional[_hostnet_libvirt.NetworksConverger]:
        if not self.params["libvirt"]:
            return None
        return _hostnet_libvirt.NetworksConverger(self.connect(), self.plan)

    def actions(self) -> List[str]:
        """What the guard is to do, in words; nothing where there is nothing to do."""
        told = ["{0} {1}".format("remove" if content is None else "write", path) for path, content in sorted(self.files.items())]
        # With new files most of it is just not there yet
        return told or ["mend: {0}".format(text) for text in self.wrong]

    def affected(self) -> List[str]:
        """The networks that are not yet what they are to be, and those that go."""
        late = {item["name"] for item in self.expected if guard.unmet([item], self.seen.links, self.seen.routes)}
        found = {d.network.name for d in self.plan.devices if d.network is not None and d.name in late}
        now = _hostnet_record.read({_hostnet_record.RECORD: self.texts_after.get(_hostnet_record.RECORD, "{}")})
        return sorted(found | {name for name in set(now) | set(self.recorded) if now.get(name) != self.recorded.get(name)})

    def diff(self) -> List[Dict[str, str]]:
        """The files before and after. Of other people's files only what changes is shown: there may be secrets in them."""
        result = []
        for path, content in sorted(self.files.items()):
            before = os.readlink(path) if os.path.islink(path) else self.texts_before.get(path, "")
            after = "" if content is None else content if isinstance(content, str) else content[1]
            if path in self.parked:
                old, new = before.splitlines(True), after.splitlines(True)
                before, after = "".join(line for line in old if line not in new), "".join(line for line in new if line not in old)
            result.append({"before_header": path, "after_header": path, "before": before, "after": after})
        if self.wrong and not self.files:
            result.append({"before_header": "links", "after_header": "links", "before": "".join(text + "\n" for text in self.wrong), "after": ""})
        return result

    def change(self) -> _hostnet_change.Change:
        """The change with all that takes it back."""
        plan, seen = self.plan, self.seen
        planned = {device.name for device in plan.devices}
        concerned = (planned | set(self.gone) | set(seen.management) | {n for d in self.recorded.values() for n in d.devices}) & set(seen.links)
        concerned |= {name for name, link in seen.links.items() if link["master"] in concerned and link["kind"] in ("physical", "veth")}
        steps = _hostnet_steps.steps(_hostnet_steps.Context(
            plan, self.texts_before, self.texts_after, seen.links, self.gone, self.switches, self._active(), self.sysctls, self.sysctls_before, self.nat_lost,
            self.released, self._lost_routes()))
        ways = [(name, gateway) for name, gateways in _hostnet_observe.default_gateways(seen.routes).items() for gateway in gateways]
        before = {"gateways": [way for way in ways if self.params.get("proof") == "gateway" and _hostnet_observe.answers(*way, self.runner)],
                  "links": {name: seen.links[name] for name in sorted(concerned)},
                  "routes": {family: [line for line in lines if guard.device_of(line) in concerned] for family, lines in seen.routes.items()}}
        switched = bool(_hostnet_ovs.switches(plan) or self.switches)
        # Ports that are neither ours nor links of the host that come and go: those of VMs
        own = planned | set(self.gone) | {name for old in self.recorded.values() for name in old.links}
        ports = [(name, link["master"]) for name, link in sorted(seen.links.items()) if link["master"] in planned and name not in own]
        made = [device.name for device in plan.devices if device.kind not in ("link", "internal") and device.name not in seen.links]
        return _hostnet_change.Change(self.files, steps, self.expected, before, made, ports, guard.vm_ports(self.runner) if switched else [], switched)

    def _lost_routes(self) -> List[List[str]]:
        """Routes that are declared and have gone, though no file has changed that would bring them again."""
        if self.files:
            return []
        present = {item["name"] for item in self.expected if item["name"] in self.seen.links}
        return [["-6" if ":" in route else "-4", "route", "replace"] + route.split() + ["dev", item["name"]] for item in self.expected
                if item["name"] in present for route in item.get("routes", ()) if guard.unmet([dict(item, routes=[route])], self.seen.links, self.seen.routes)]

    def _active(self) -> Dict[str, str]:
        """NetworkManager's active connections: the UUID of each by device."""
        if "networkmanager" not in self.seen.systems:
            return {}
        code, text = self.runner(["nmcli", "-t", "-f", "UUID,DEVICE", "connection", "show", "--active"], 20.0)
        return {name: uuid for uuid, _sep, name in (line.partition(":") for line in text.splitlines()) if name} if code == 0 else {}


def _read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None


def _mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def _same(path: str, content: Any) -> bool:
    """Whether a path has this content already: mode and text, or the target of a link."""
    if isinstance(content, str):
        return os.path.islink(path) and os.readlink(path) == content
    mode, text = content
    try:
        with open(path, encoding="utf-8") as file:
            return file.read() == text and _mode(path) == mode and not os.path.islink(path)
    except (OSError, UnicodeDecodeError):
        return False
