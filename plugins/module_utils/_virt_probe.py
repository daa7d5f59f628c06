# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which virtualisation type really works on this host, found out once and kept."""
from __future__ import annotations

import contextlib
import time
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError, is_gone
from ansible_collections.kvmfleet.core.plugins.module_utils._own_files import replace

try:
    import libvirt
except ImportError:  # reported by _connection.require_libvirt
    pass

KEPT_PATH = "/var/lib/kvmfleet/virt_type"
VIRT_TYPES = ("kvm", "qemu")
# A host that offers KVM and cannot run it lets a guest die within the first instructions; two seconds are plenty.
PROBE_SECONDS = 2.0


@dataclass(frozen=True)
class Verdict:
    """An answer and why."""

    virt_type: str
    reason: str


def kept_virt_type(path: str = KEPT_PATH) -> Optional[str]:
    """The kept answer of the probe: C(kvm), C(qemu), or None where there was no probe yet."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            answer = file.read().strip()
    except FileNotFoundError:
        return None
    return answer if answer in VIRT_TYPES else None


def keep(answer: str, path: str = KEPT_PATH) -> None:
    """Keep an answer."""
    replace(path, answer + "\n")


def offered(capabilities: str) -> List[str]:
    """The virtualisation types that libvirt's capabilities list for guests of the host's own architecture, sorted."""
    root = ET.fromstring(capabilities)
    host = root.findtext("host/cpu/arch")
    found = {d.get("type", "") for arch in root.iterfind("guest/arch") if arch.get("name") == host for d in arch.iterfind("domain")}
    return sorted(t for t in found if t in VIRT_TYPES)


def domain_xml(name: str) -> str:
    """A guest without disk and network that runs its firmware and no more."""
    domain = ET.Element("domain", type="kvm")
    ET.SubElement(domain, "name").text = name
    ET.SubElement(domain, "memory", unit="MiB").text = "64"
    ET.SubElement(domain, "vcpu").text = "1"
    system = ET.SubElement(domain, "os")
    ET.SubElement(system, "type").text = "hvm"
    ET.SubElement(domain, "cpu", mode="host-passthrough")
    ET.SubElement(domain, "on_crash").text = "destroy"
    devices = ET.SubElement(domain, "devices")
    ET.SubElement(devices, "memballoon", model="none")
    ET.SubElement(devices, "controller", type="usb", model="none")
    return ET.tostring(domain, encoding="unicode")


def probe(conn: Any) -> Verdict:
    """Try it: a transient KVM guest with the host's CPU has to start and still to run two seconds later."""
    types = offered(conn.getCapabilities())
    if not types:
        raise FleetError("libvirt offers neither kvm nor qemu for this host's architecture. Install QEMU (apt: qemu-system-x86) and restart libvirtd",
                         "no_virtualisation")
    if "kvm" not in types:
        return Verdict("qemu", "libvirt does not offer kvm")
    fallback = "qemu" if "qemu" in types else "kvm"
    name = "kvmfleet-probe-{0}".format(uuid.uuid4().hex[:12])
    try:
        domain = conn.createXML(domain_xml(name), libvirt.VIR_DOMAIN_START_AUTODESTROY)
    except libvirt.libvirtError as exc:
        return Verdict(fallback, "a kvm guest does not start: {0}".format(str(exc).strip()))
    try:
        deadline = time.monotonic() + PROBE_SECONDS
        while time.monotonic() < deadline:
            why = _why_not_running(domain)
            if why:
                return Verdict(fallback, why)
            time.sleep(0.1)
        why = _why_not_running(domain)
        return Verdict(fallback, why) if why else Verdict("kvm", "a kvm guest ran for {0:.0f} seconds".format(PROBE_SECONDS))
    finally:
        with contextlib.suppress(libvirt.libvirtError):  # it died by itself
            domain.destroy()


def _why_not_running(domain: Any) -> Optional[str]:
    try:
        state = domain.state()[0]
    except libvirt.libvirtError as exc:
        if not is_gone(exc):
            raise
        return "libvirt offers kvm, but a kvm guest died at once"
    if state in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED):
        return None
    return "libvirt offers kvm, but a kvm guest stopped at once (state {0})".format(state)


def settle(conn: Any, wanted: str, force: bool, check: bool, path: str = KEPT_PATH) -> Dict[str, Any]:
    """The answer for this host, kept for the next time; the module's result.

    :param wanted: C(auto), or an answer that overrules the probe
    :param force: probe although an answer is kept
    """
    before = kept_virt_type(path)
    cached = False
    if wanted != "auto":
        verdict = Verdict(wanted, "it was given as virt_type")
    elif before is not None and not force:
        verdict, cached = Verdict(before, "kept from an earlier probe or choice"), True
    else:
        verdict = probe(conn)
    changed = verdict.virt_type != before
    if changed and not check:
        keep(verdict.virt_type, path)
    return {
        "changed": changed, "virt_type": verdict.virt_type, "reason": verdict.reason, "cached": cached, "offered": offered(conn.getCapabilities()),
        "diff": {"before": {"virt_type": before}, "after": {"virt_type": verdict.virt_type}},
    }
