# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs as hosts of an inventory: their names, groups, variables and the way to them. Pure."""
from __future__ import annotations

import ipaddress
import re
import shlex
from typing import Any, Collection, Dict, Iterable, List, Mapping, Optional, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Host

# Names that mean something to Ansible already.
_TAKEN = ("all", "ungrouped", "localhost", "127.0.0.1", "::1")
_SAID = ("uuid", "phase", "group", "namespace", "set", "index", "image", "flavor", "description")


def safe_group(name: str) -> str:
    """A group's name that Ansible takes without a word: letters, digits and underscores."""
    text = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return "_" + text if text[:1].isdigit() else text


def safe_host(name: str) -> str:
    """A domain's name as the name of an inventory host: without what patterns, templates and shells would read something into."""
    text = re.sub(r"[^\w.-]", "_", name)
    return "_" + text[1:] if text.startswith(("-", ".")) else text or "_"


def groups_of(vm: Mapping[str, Any], host: Host) -> List[str]:
    """The groups of a VM: where it is, how it is, whose it is, what it runs, what it is labelled."""
    words = [("region", host.region), ("zone", host.zone), ("state", vm.get("state")), ("group", vm.get("group")), ("image", vm.get("image"))]
    names = [safe_group("{0}_{1}".format(word, value)) for word, value in words if value]
    names.extend(safe_group("label_{0}_{1}".format(key, value) if value != "" else "label_{0}".format(key)) for key, value in (vm.get("labels") or {}).items())
    return list(dict.fromkeys(names))


def inventory_names(vms: Iterable[Tuple[str, str]], taken: Collection[str]) -> Tuple[Dict[Tuple[str, str], str], List[str]]:
    """(host, domain name) -> name in the inventory, and the sentences for those that could not have their own.

    A VM never takes the name of another host or group: whoever may name VMs could else have plays run on them that are meant for others.

    :param taken: names of other hosts, and of all groups
    """
    pairs = list(vms)
    counts: Dict[str, int] = {}
    for _host, name in pairs:
        counts[safe_host(name)] = counts.get(safe_host(name), 0) + 1
    taken_names = {name.lower() for name in taken} | set(_TAKEN)
    used = {name.lower() for name in counts} | taken_names
    names: Dict[Tuple[str, str], str] = {}
    sentences: List[str] = []
    for host, name in pairs:
        wanted = safe_host(name)
        if counts[wanted] == 1 and wanted.lower() not in taken_names:
            names[host, name] = wanted
            continue
        stem = choice = "{0}-on-{1}".format(wanted, host)
        number = 2
        while choice.lower() in used:
            choice, number = "{0}-{1}".format(stem, number), number + 1
        used.add(choice.lower())
        names[host, name] = choice
        sentences.append("{0} on {1} is {2}".format(wanted, host, choice))
    return names, sentences


def _nic_of(vm: Mapping[str, Any], entry: Mapping[str, Any], networks: Mapping[str, Mapping[str, Any]]) -> Optional[Mapping[str, Any]]:
    """The NIC that an address belongs to: by its MAC, else by the subnet of its network, else the first."""
    nics: List[Mapping[str, Any]] = list(vm.get("nics") or [])
    by_mac = next((nic for nic in nics if entry.get("mac") and nic["mac"] == entry["mac"]), None)
    if by_mac is not None:
        return by_mac
    for nic in nics:
        if nic["type"] == "network" and any(_inside(entry["address"], subnet) for subnet in networks.get(nic["source"], {}).get("subnets") or ()):
            return nic
    return nics[0] if nics else None


def _inside(address: str, subnet: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(subnet, strict=False)
    except ValueError:
        return False


def _said(nic: Mapping[str, Any], host: Host, reachable: Mapping[str, bool]) -> Optional[bool]:
    """What the catalog kvmfleet_networks says of the network that a NIC is on; None where it says nothing."""
    for name, said in reachable.items():
        try:
            target = host.network(name)
        except SpecError:
            continue  # told where somebody uses that network
        if target.get(nic["type"]) == nic["source"]:
            return said
    return None


def needs_jump(vm: Mapping[str, Any], entry: Mapping[str, Any], host: Host, networks: Iterable[Mapping[str, Any]],
               reachable: Mapping[str, bool]) -> bool:
    """Whether an address of a VM on a remote host can only be reached from that host.

    :param entry: the address, with the MAC it was seen with
    :param networks: libvirt's networks as host_capacity tells them
    :param reachable: what the catalog says of networks; of the others, those with NAT and isolated ones are not reachable
    """
    by_name = {str(network["name"]): network for network in networks}
    nic = _nic_of(vm, entry, by_name)
    if nic is None:
        return False
    said = _said(nic, host, reachable)
    if said is not None:
        return not said
    return nic["type"] == "network" and by_name.get(nic["source"], {}).get("forward") in ("nat", "isolated")


def jump_arguments(address: str, user: Optional[str] = None, port: Optional[Any] = None, key: Optional[str] = None, verify: bool = True) -> str:
    """SSH arguments to get to a VM through its host, for C(ansible_ssh_common_args).

    ProxyJump takes no key and no options for the host in between, ProxyCommand does.
    """
    if not key and verify:
        machine = "[{0}]".format(address) if ":" in address else address
        jump = "{0}{1}{2}".format(user + "@" if user else "", machine, ":{0}".format(port) if port else "")
        return "-o " + shlex.quote("ProxyJump=" + jump)
    words = ["ssh", "-W", "[%h]:%p"]
    words += [] if verify else ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    words += ["-i", key] if key else []
    words += ["-p", str(port)] if port else []
    words += ["-l", user] if user else []
    command = " ".join(word if word == "[%h]:%p" else shlex.quote(word.replace("%", "%%")) for word in [*words, address])
    return "-o " + shlex.quote("ProxyCommand=" + command)


def best_address(vm: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
    """The address to reach a VM by, with the MAC it was seen with; what is no address is passed over."""
    for entry in vm.get("found_addresses") or []:
        text = str(entry["address"])
        try:
            # A zone index may be any text
            parsed = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            continue
        if not (parsed.is_loopback or parsed.is_unspecified or "%" in text):
            return dict(entry, address=str(parsed))
    return None


def variables_of(vm: Mapping[str, Any], host: Host) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """The C(kvm_vm_*) variables of a VM: those that its definition or its guest says, and those that are ours.

    What has no value is left out. Nothing in them is secret.
    """
    said: Dict[str, Any] = {"kvm_vm_" + key: vm.get(key) for key in _SAID}
    said.update(
        kvm_vm_name=vm["name"], kvm_vm_labels=dict(vm.get("labels") or {}), kvm_vm_networks=list(vm.get("networks") or ()),
        kvm_vm_addresses=[entry["address"] for entry in vm.get("found_addresses") or ()])
    ours = {"kvm_vm_host": host.name, "kvm_vm_region": host.region, "kvm_vm_zone": host.zone, "kvm_vm_state": vm.get("state"),
            "kvm_vm_managed": bool(vm.get("managed")), "kvm_vm_vcpus": vm.get("vcpus"), "kvm_vm_memory_mib": vm.get("memory_configured_mib")}
    return {key: value for key, value in said.items() if value not in (None, "", [], {})}, {key: value for key, value in ours.items() if value is not None}
