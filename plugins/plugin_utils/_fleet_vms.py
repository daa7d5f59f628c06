# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs as hosts of an inventory: their names, groups, variables and the way to them. Pure."""
from __future__ import annotations

import ipaddress
import re
import shlex
from typing import Any, Collection, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Host

# Modes of forwarding of libvirt networks whose guests are reached from their host only; where the site does the NAT itself libvirt says open.
_BEHIND = ("nat", "isolated", "open")
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


def reachable_sources(host: Host, reachable: Mapping[str, bool]) -> Dict[str, bool]:
    """What the catalog kvmfleet_networks says of being reachable, by what a NIC is attached to on a host: C("bridge br0"), C("network default").

    :param reachable: what it says, by the name of the network
    """
    found: Dict[str, bool] = {}
    for name, said in reachable.items():
        try:
            target = host.network(name)
        except SpecError:
            continue  # told where somebody uses that network
        found.update({"{0} {1}".format(kind, target[kind]): said for kind in ("network", "bridge", "direct") if target.get(kind)})
    return found


def is_behind(nic: Mapping[str, Any], forward: Optional[str], sources: Mapping[str, bool]) -> bool:
    """Whether the addresses of a NIC can only be reached from the VM's host.

    :param forward: how its libvirt network forwards
    :param sources: see L(reachable_sources); of those not in there, networks with NAT, isolated and open ones (host_network's NAT) are not reachable
    """
    said = sources.get("{0} {1}".format(nic["type"], nic["source"]))
    if said is not None:
        return not said
    return nic["type"] == "network" and forward in _BEHIND


def needs_jump(vm: Mapping[str, Any], entry: Mapping[str, Any], networks: Iterable[Mapping[str, Any]], sources: Mapping[str, bool]) -> bool:
    """Whether an address of a VM on a remote host can only be reached from that host.

    :param entry: the address, with the MAC it was seen with
    :param networks: libvirt's networks as host_capacity tells them
    :param sources: see L(reachable_sources)
    """
    by_name = {str(network["name"]): network for network in networks}
    nic = _nic_of(vm, entry, by_name)
    return nic is not None and is_behind(nic, by_name.get(nic["source"], {}).get("forward"), sources)


def _words(host: str, name: str, value: str) -> List[str]:
    try:
        return shlex.split(value)
    except ValueError as exc:
        raise SpecError("{0} of host {1}".format(name, host), value, "cannot be split into words ({0})".format(exc), "Close its quotes") from None


def jump_through(host: str, connection: Mapping[str, Any], verify: bool = True) -> Optional[str]:
    """SSH arguments to get to the VMs of a host by the way that Ansible goes to the host itself; None where that is this machine.

    :param connection: C(ansible_*) of the host. Raises SpecError where the arguments for SSH among them cannot be split
    """
    if str(connection.get("ansible_connection") or "").rpartition(".")[2] == "local":
        return None
    key = connection.get("ansible_ssh_private_key_file")
    options = [word for name in ("ansible_ssh_common_args", "ansible_ssh_extra_args") for word in _words(host, name, str(connection.get(name) or ""))]
    return jump_arguments(str(connection.get("ansible_host") or host), connection.get("ansible_user"), connection.get("ansible_port"),
                          str(key) if key else None, verify, options)


def jump_arguments(address: str, user: Optional[str] = None, port: Optional[Any] = None, key: Optional[str] = None, verify: bool = True,
                   options: Sequence[str] = ()) -> str:
    """SSH arguments to get to a VM through its host, for C(ansible_ssh_common_args).

    ProxyJump takes no key and no options for the host in between, ProxyCommand does.

    :param options: words that the SSH to the host itself needs
    """
    if not key and verify and not options:
        machine = "[{0}]".format(address) if ":" in address else address
        jump = "{0}{1}{2}".format(user + "@" if user else "", machine, ":{0}".format(port) if port else "")
        return "-o " + shlex.quote("ProxyJump=" + jump)
    words = ["ssh", "-W", "[%h]:%p", *options]
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
