# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host during one run: its connection, and what of it is looked up once for all VMs."""
from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from typing import Dict, List, Optional, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import DomainRecord, Policy, record, records
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import is_gone
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import NicSpec, SpecError, VmSpec, mac_for
from ansible_collections.kvmfleet.core.plugins.module_utils._virt_probe import kept_virt_type
from ansible_collections.kvmfleet.core.plugins.module_utils._volumes import Pools, Volume, find_image, overlays

try:
    import libvirt
except ImportError:  # reported by _connection.require_libvirt
    pass

_SYS_NET = "/sys/class/net"


class Host:
    """The host a module works on.

    :param conn: an open connection
    :param uri: its URI, which says where the locks are
    :param policy: how capacity is reckoned
    """

    def __init__(self, conn: libvirt.virConnect, uri: str, policy: Optional[Policy] = None) -> None:
        self.conn, self.uri, self.policy = conn, uri, policy or Policy()
        self.pools = Pools(conn)
        self.lib_version = conn.getLibVersion()
        self.domains: Dict[str, DomainRecord] = {}
        self._images: Dict[Tuple[str, Optional[str]], Volume] = {}
        self._networks: Optional[Dict[str, bool]] = None
        self._guests: Optional[Dict[str, List[str]]] = None
        self._machines: Dict[str, List[str]] = {}
        self.macs: Dict[str, str] = {}
        self._overlays: Optional[Dict[str, List[str]]] = None

    def look(self) -> None:
        """Read every domain anew."""
        self._overlays = None
        self.domains = {r.name: r for r in records(self.conn)}
        self.macs = {mac: r.name for r in self.domains.values() for mac in r.macs}

    def look_at(self, name: str) -> Optional[DomainRecord]:
        """Read one domain anew; None where there is none of that name."""
        try:
            found = record(self.conn.lookupByName(name))
        except libvirt.libvirtError as exc:
            if not is_gone(exc):
                raise
            found = None
        if found is None:
            self.domains.pop(name, None)
        else:
            self.domains[name] = found
        return found

    def overlays(self) -> Dict[str, List[str]]:
        """The paths of overlays by that of what they lie on; looked for once after each look."""
        if self._overlays is None:
            self._overlays = overlays(self.conn)
        return self._overlays

    def image(self, image: str, pool: Optional[str]) -> Volume:
        """The volume of a base image, looked up once for all VMs. Raises SpecError."""
        if (image, pool) not in self._images:
            self._images[image, pool] = find_image(self.pools, image, pool)
        return self._images[image, pool]

    def _archs(self) -> Dict[str, List[str]]:
        if self._guests is None:
            root = ET.fromstring(self.conn.getCapabilities())
            self._guests = {}
            for arch in root.findall("guest/arch"):
                self._guests.setdefault(arch.get("name", ""), []).extend(d.get("type", "") for d in arch.findall("domain"))
                # Both an alias (q35) and what it stands for (pc-q35-7.2) will do
                names = {m.text or "" for m in arch.iter("machine")} | {m.get("canonical") or "" for m in arch.iter("machine")}
                self._machines.setdefault(arch.get("name", ""), []).extend(sorted(names - {""}))
        return self._guests

    def virt_type(self, spec: VmSpec) -> str:
        """The virtualisation type of a new VM: what is asked for, else what the probe found to work, else what libvirt offers. Raises SpecError."""
        arch = spec.arch or "x86_64"
        archs = self._archs()
        if arch not in archs:
            raise SpecError("arch", arch, "this host cannot run such guests", "It offers {0}".format(", ".join(sorted(archs)) or "none"), "unsupported")
        offered = archs[arch]
        wanted = spec.virt_type
        if wanted in (None, "auto"):
            kept = kept_virt_type()
            wanted = kept if kept in offered else ("kvm" if "kvm" in offered else offered[0])
        if wanted not in offered:
            raise SpecError("virt_type", wanted, "libvirt does not offer it for {0} on this host".format(arch),
                            "It offers {0}; kvm needs /dev/kvm".format(", ".join(sorted(set(offered)))), "unsupported")
        return str(wanted)

    def check_machine(self, machine: str, arch: str) -> None:
        """Raises SpecError where this host has no such machine type."""
        self._archs()
        if machine not in self._machines.get(arch, [machine]):
            raise SpecError("machine", machine, "this host has no such machine type for {0} guests".format(arch),
                            "Leave it out, or use one of its types, such as {0}".format(", ".join(m for m in self._machines[arch] if "-" not in m) or "q35"),
                            "unsupported")

    def check_nic(self, nic: NicSpec, option: str, will_run: bool) -> None:
        """Raises SpecError where what a NIC is to be attached to does not exist here."""
        kind, name = nic.source
        if kind == "network":
            if self._networks is None:
                # Networks come and go: what is listed as active is not asked again.
                active = {n.name() for n in self.conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)}
                self._networks = {n.name(): n.name() in active for n in self.conn.listAllNetworks()}
            if name not in self._networks:
                raise SpecError(option + ".network", name, "there is no such libvirt network on this host",
                                "Use one of: {0}".format(", ".join(sorted(self._networks)) or "(none is defined)"), "unknown_network")
            if will_run and not self._networks[name]:
                raise SpecError(option + ".network", name, "the network is not active", "Start it: virsh net-start {0}".format(name), "network_inactive")
        elif not os.path.isdir(os.path.join(_SYS_NET, name)):
            what = "bridge" if kind == "bridge" else "network device"
            raise SpecError("{0}.{1}".format(option, kind), name, "there is no such {0} on this host".format(what),
                            "Create it (role kvmfleet.core.host_network), or name an existing one", "unknown_network")
        if nic.vlan is not None and kind == "bridge" and not self.openvswitch(name):
            raise SpecError(option + ".vlan", nic.vlan, "{0} is a Linux bridge, on which libvirt cannot tag".format(name),
                            "Use an Open vSwitch bridge, or a bridge over that VLAN")
        if nic.filter and nic.filter not in [f.name() for f in self.conn.listAllNWFilters()]:
            raise SpecError(option + ".filter", nic.filter, "there is no such network filter on this host", "See virsh nwfilter-list")

    @staticmethod
    def openvswitch(bridge: str) -> bool:
        """Whether a bridge is one of Open vSwitch: a network device that is no Linux bridge."""
        path = os.path.join(_SYS_NET, bridge)
        return os.path.isdir(path) and not os.path.isdir(os.path.join(path, "bridge"))

    def mac(self, domain: str, number: int) -> str:
        """A free MAC for a NIC of a domain: the same at every call unless another domain has taken it."""
        for attempt in range(1000):
            mac = mac_for(domain, number, attempt)
            if self.macs.get(mac, domain) == domain:
                self.macs[mac] = domain
                return mac
        raise SpecError("nics[{0}].mac".format(number), None, "no free MAC was found", "Give one", "mac_in_use")
