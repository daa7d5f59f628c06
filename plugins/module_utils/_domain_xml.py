# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VM spec <-> domain XML: one normal form to compare by (observe) and one way to write (render)."""
from __future__ import annotations

import copy
import dataclasses
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from ansible_collections.kvmfleet.core.plugins.module_utils import _metadata
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import KIB, MIB, DiskSpec, GraphicsSpec, NicSpec, SpecError, VmSpec

# Devices get user aliases (kept by libvirt since 3.9), so that a disk or NIC is recognised whatever its path or MAC has become.
ALIAS = "ua-"
SPARE_PORTS = 8

_UNIT_BYTES = {"b": 1, "bytes": 1, "k": KIB, "kib": KIB, "kb": 1000, "m": MIB, "mib": MIB, "mb": 10 ** 6, "g": 1 << 30, "gib": 1 << 30, "gb": 10 ** 9,
               "t": 1 << 40, "tib": 1 << 40, "tb": 10 ** 12}
_BUS_PREFIX = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd", "fdc": "fd"}
_BOOT_DEVICES = {"hd": "hd", "cdrom": "cdrom", "network": "network", "floppy": "fd"}
_AGENT_CHANNEL = "org.qemu.guest_agent.0"
_SOURCE_ATTRIBUTE = {"network": "network", "bridge": "bridge", "direct": "dev"}


@dataclass
class DiskSource:
    """Where a disk's data is. C(kind) is libvirt's disk type; C(path) is "" for an empty drive."""

    kind: str
    path: str
    format: str


@dataclass
class Context:
    """What rendering needs to know about the host and the resolved volumes."""

    virt_type: str = "qemu"
    lib_version: int = 9000000
    sources: Mapping[str, DiskSource] = field(default_factory=dict)
    openvswitch: Callable[[str], bool] = lambda name: False


@dataclass
class ObservedDisk:
    """A disk of a domain in normal form."""

    key: str
    target: str
    bus: str
    device: str
    kind: str
    path: str
    format: str
    readonly: bool
    serial: Optional[str]
    cache: str
    discard: str
    io: str
    pool: Optional[str] = None
    volume: Optional[str] = None
    ours: bool = False


@dataclass
class ObservedNic:
    """A NIC of a domain in normal form."""

    key: str
    mac: str
    type: str
    source: str
    mode: Optional[str]
    model: str
    vlan: Optional[int]
    mtu: Optional[int]
    filter: Optional[str]
    queues: Optional[int]
    link: str
    target: Optional[str] = None
    ours: bool = False


@dataclass
class ObservedVm:
    """A domain in normal form: what two definitions are compared by. Memory in MiB."""

    name: str
    uuid: str
    description: str
    vcpus: int
    max_vcpus: int
    memory_mib: int
    max_memory_mib: int
    topology: Optional[Dict[str, int]]
    cpu: Dict[str, Any]
    machine: str
    arch: str
    virt_type: str
    firmware: str
    secure_boot: bool
    tpm: bool
    boot: List[str]
    graphics: Dict[str, Any]
    serial_console: bool
    agent: bool
    rng: bool
    disks: Dict[str, ObservedDisk]
    nics: Dict[str, ObservedNic]
    metadata: Optional[_metadata.VmMetadata]
    serial_path: Optional[str] = None


def _mib(element: Optional[ET.Element]) -> Optional[int]:
    if element is None or not (element.text or "").strip():
        return None
    return int(element.text or 0) * _UNIT_BYTES[element.get("unit", "KiB").lower()] // MIB


def _key(device: ET.Element, fallback: str) -> Tuple[str, bool]:
    """The name of a device, and whether it bears our alias. Without one it is known by what libvirt calls it."""
    name = _attribute(device, "alias", "name") or ""
    return (name[len(ALIAS):], True) if name.startswith(ALIAS) else (fallback, False)


def _attribute(element: ET.Element, path: str, attribute: str) -> Optional[str]:
    found = element.find(path)
    return None if found is None else found.get(attribute)


def _observe_disk(disk: ET.Element) -> ObservedDisk:
    source, driver, target = disk.find("source"), disk.find("driver"), disk.find("target")
    kind = disk.get("type", "file")
    pool = volume = None
    path = ""
    if source is not None:
        pool, volume = source.get("pool"), source.get("volume")
        path = source.get("file") or source.get("dev") or source.get("dir") or source.get("name") or ""
    name = target.get("dev", "") if target is not None else ""
    get = driver.get if driver is not None else (lambda key, default="": default)
    key, ours = _key(disk, name)
    return ObservedDisk(
        key=key, ours=ours, target=name, bus=target.get("bus", "") if target is not None else "", device=disk.get("device", "disk"), kind=kind, path=path,
        format=get("type", "raw"), readonly=disk.find("readonly") is not None or disk.get("device") == "cdrom", serial=disk.findtext("serial"),
        cache=get("cache", "default"), discard=get("discard", "ignore"), io=get("io", ""), pool=pool, volume=volume)


def _observe_nic(nic: ET.Element) -> ObservedNic:
    source = nic.find("source")
    # On a network that only stands for a bridge or a link, the XML of a running domain has the type of that
    kind = "network" if source is not None and source.get("network") else nic.get("type", "")
    vlan, queues = _attribute(nic, "vlan/tag", "id"), _attribute(nic, "driver", "queues")
    mtu = _attribute(nic, "mtu", "size")
    mac = (_attribute(nic, "mac", "address") or "").lower()
    key, ours = _key(nic, mac)
    return ObservedNic(
        key=key, ours=ours, mac=mac, type=kind, source=(source.get(_SOURCE_ATTRIBUTE.get(kind, "dev"), "") if source is not None else ""),
        mode=source.get("mode", "vepa") if kind == "direct" and source is not None else None, model=_attribute(nic, "model", "type") or "",
        vlan=int(vlan) if vlan else None, mtu=int(mtu) if mtu else None, filter=_attribute(nic, "filterref", "filter"), queues=int(queues) if queues else None,
        link=_attribute(nic, "link", "state") or "up", target=_attribute(nic, "target", "dev"))


def observe_device(device: ET.Element) -> Union[ObservedDisk, ObservedNic]:
    """The normal form of a <disk> or an <interface>."""
    return _observe_disk(device) if device.tag == "disk" else _observe_nic(device)


def _observe_boot(root: ET.Element) -> List[str]:
    names = {v: k for k, v in _BOOT_DEVICES.items()}
    listed = [names.get(b.get("dev", ""), b.get("dev", "")) for b in root.findall("os/boot")]
    if listed:
        return listed
    ordered = []
    for device in root.findall("devices/*"):
        order = _attribute(device, "boot", "order")
        if order:
            kind = {"disk": "hd", "cdrom": "cdrom", "floppy": "floppy"}.get(device.get("device", "disk"), "hd") if device.tag == "disk" else "network"
            ordered.append((int(order), kind))
    result: List[str] = []
    for item in sorted(ordered):
        if item[1] not in result:
            result.append(item[1])
    return result


def _observe_graphics(root: ET.Element) -> Dict[str, Any]:
    element = root.find("devices/graphics")
    if element is None:
        return {"type": "none"}
    port = element.get("port")
    return {"type": element.get("type", "vnc"), "listen": element.get("listen") or _attribute(element, "listen", "address"),
            "port": int(port) if port and port.lstrip("-").isdigit() and int(port) > 0 and element.get("autoport") != "yes" else None,
            "live_port": int(port) if port and port.lstrip("-").isdigit() and int(port) > 0 else None,
            "password": element.get("passwd")}


def _observe_firmware(root: ET.Element) -> Tuple[str, bool]:
    loader = root.find("os/loader")
    efi = root.find("os").get("firmware") == "efi" if root.find("os") is not None else False  # type: ignore[union-attr]
    if loader is not None and (loader.get("type") == "pflash" or re.search(r"(OVMF|AAVMF|edk2)", loader.text or "")):
        efi = True
    secure = (loader is not None and loader.get("secure") == "yes") or any(
        f.get("name") == "secure-boot" and f.get("enabled") == "yes" for f in root.findall("os/firmware/feature"))
    return ("efi" if efi else "bios"), secure


def observe(root: ET.Element) -> ObservedVm:
    """The normal form of a domain's XML (persistent or live)."""
    vcpu = root.find("vcpu")
    max_vcpus = int((vcpu.text if vcpu is not None else None) or 1)
    vcpus = int((vcpu.get("current") if vcpu is not None else None) or max_vcpus)
    max_memory = _mib(root.find("memory")) or 0
    memory = _mib(root.find("currentMemory"))
    topology = root.find("cpu/topology")
    cpu = root.find("cpu")
    os_type = root.find("os/type")
    firmware, secure_boot = _observe_firmware(root)
    disks = {d.key: d for d in map(_observe_disk, root.findall("devices/disk"))}
    nics = {n.key: n for n in map(_observe_nic, root.findall("devices/interface"))}
    serial = root.find("devices/serial")
    return ObservedVm(
        name=root.findtext("name") or "", uuid=root.findtext("uuid") or "", description=root.findtext("description") or "",
        vcpus=vcpus, max_vcpus=max_vcpus, memory_mib=max_memory if memory is None else memory, max_memory_mib=max_memory,
        topology={k: int(topology.get(k, "1")) for k in ("sockets", "cores", "threads")} if topology is not None else None,
        cpu={"mode": cpu.get("mode", "custom") if cpu is not None and (cpu.get("mode") or cpu.find("model") is not None) else None,
             "model": root.findtext("cpu/model"), "features": {f.get("name", ""): f.get("policy", "require") for f in root.findall("cpu/feature")}},
        machine=os_type.get("machine", "") if os_type is not None else "", arch=os_type.get("arch", "") if os_type is not None else "",
        virt_type=root.get("type", ""), firmware=firmware, secure_boot=secure_boot, tpm=root.find("devices/tpm") is not None, boot=_observe_boot(root),
        graphics=_observe_graphics(root), serial_console=serial is not None or root.find("devices/console") is not None,
        agent=any(t.get("name") == _AGENT_CHANNEL for t in root.findall("devices/channel/target")), rng=root.find("devices/rng") is not None,
        disks=disks, nics=nics, metadata=_metadata.find(root), serial_path=_attribute(root, "devices/serial/source", "path"))


def same_machine(wanted: str, actual: str) -> bool:
    """Whether an actual machine type is the wanted one, or a version of the wanted alias (C(q35) is C(pc-q35-7.2))."""
    if wanted == actual:
        return True
    stem = {"q35": "pc-q35-", "pc": "pc-i440fx-", "virt": "virt-"}.get(wanted)
    return stem is not None and actual.startswith(stem)


def _align_disks(disks: Dict[str, ObservedDisk], others: Dict[str, ObservedDisk]) -> Dict[str, ObservedDisk]:
    """A disk is its name, or where that is none of ours, its target."""
    found = {}
    for key, disk in disks.items():
        if key not in others:
            key = next((k for k, other in others.items() if k not in disks and other.target == disk.target), key)
        found[key] = disk
    return found


def _align_nics(nics: Dict[str, ObservedNic], others: Dict[str, ObservedNic]) -> Dict[str, ObservedNic]:
    """A NIC is its MAC: numbers move up when one before it goes."""
    by_mac = {other.mac: key for key, other in others.items()}
    macs = {nic.mac for nic in nics.values()}
    found = {}
    for key, nic in nics.items():
        if nic.mac not in by_mac and key in others and others[key].mac in macs:
            key = nic.mac  # its number is another's there
        found[by_mac.get(nic.mac, key)] = nic
    return found


def aligned(vm: ObservedVm, other: ObservedVm) -> ObservedVm:
    """C(vm) with its devices under the names that C(other) has for them.

    A domain bears our aliases from its adoption on, and runs with them from its next start.
    """
    return dataclasses.replace(vm, disks=_align_disks(vm.disks, other.disks), nics=_align_nics(vm.nics, other.nics))


def _plain(value: Any) -> Any:
    if isinstance(value, (ObservedDisk, ObservedNic)):
        return {k: v for k, v in vars(value).items() if k not in ("key", "target", "ours") and v not in (None, "")}
    return value


def differences(before: ObservedVm, after: ObservedVm) -> Dict[str, Tuple[Any, Any]]:
    """Option -> (before, after) where two normal forms differ. Disks and NICs appear as C(disks[name]), C(nics[name]).

    A password is shown as whether it is set, never as such; libvirt's own additions (ports, tap devices, versions of a machine alias) are no difference.
    """
    found: Dict[str, Tuple[Any, Any]] = {}
    for option in ("description", "vcpus", "max_vcpus", "memory_mib", "max_memory_mib", "topology", "cpu", "arch", "virt_type", "firmware", "secure_boot",
                   "tpm",
                   "boot", "serial_console", "agent", "rng"):
        old, new = getattr(before, option), getattr(after, option)
        if old != new:
            found[option] = (old, new)
    if not same_machine(after.machine, before.machine) and not same_machine(before.machine, after.machine):
        found["machine"] = (before.machine, after.machine)
    for key in ("type", "listen", "port"):
        if before.graphics.get(key) != after.graphics.get(key):
            found["graphics.{0}".format(key)] = (before.graphics.get(key), after.graphics.get(key))
    if before.graphics.get("password") != after.graphics.get("password"):
        found["graphics.password"] = ("set" if before.graphics.get("password") else None, "set anew" if after.graphics.get("password") else None)
    for kind in ("disks", "nics"):
        old_items, new_items = getattr(before, kind), getattr(after, kind)
        for key in list(old_items) + [k for k in new_items if k not in old_items]:
            old, new = _plain(old_items.get(key)), _plain(new_items.get(key))
            if old != new:
                found["{0}[{1}]".format(kind, key)] = (old, new)
    old_meta = _metadata.summary(before.metadata) if before.metadata else None
    new_meta = _metadata.summary(after.metadata) if after.metadata else None
    if old_meta != new_meta:
        found["metadata"] = (old_meta, new_meta)
    return found


def _set(parent: ET.Element, tag: str, text: Optional[str] = None, **attributes: Optional[str]) -> ET.Element:
    """The child of that tag, made if need be, with this text and these attributes (None removes an attribute)."""
    element = parent.find(tag)
    if element is None:
        element = ET.SubElement(parent, tag)
    if text is not None:
        element.text = text
    for key, value in attributes.items():
        if value is None:
            element.attrib.pop(key, None)
        else:
            element.set(key, value)
    return element


def _remove(parent: ET.Element, tag: str) -> None:
    for element in parent.findall(tag):
        parent.remove(element)


def _devices(root: ET.Element) -> ET.Element:
    return _set(root, "devices")


def _skeleton(spec: VmSpec, context: Context) -> ET.Element:
    """The parts of a new domain that no option changes later."""
    arch = spec.arch or "x86_64"
    root = ET.Element("domain", type=context.virt_type)
    ET.SubElement(root, "name").text = spec.name
    ET.SubElement(root, "uuid").text = spec.uuid
    os_element = ET.SubElement(root, "os")
    ET.SubElement(os_element, "type", arch=arch, machine=spec.machine or ("virt" if arch == "aarch64" else "q35")).text = "hvm"
    features = ET.SubElement(root, "features")
    if arch != "aarch64" or spec.firmware != "bios":
        ET.SubElement(features, "acpi")
    if arch != "aarch64":
        ET.SubElement(features, "apic")
    ET.SubElement(root, "clock", offset="utc")
    ET.SubElement(root, "on_poweroff").text = "destroy"
    ET.SubElement(root, "on_reboot").text = "restart"
    ET.SubElement(root, "on_crash").text = "destroy"
    devices = ET.SubElement(root, "devices")
    ET.SubElement(devices, "controller", type="usb", model="qemu-xhci")
    ET.SubElement(devices, "memballoon", model="virtio")
    return root


def _with_defaults(spec: VmSpec, context: Context) -> VmSpec:
    """A copy of the spec of a new VM in which what was left open has its default."""
    spec = copy.copy(spec)
    arch = spec.arch or "x86_64"
    spec.vcpus = spec.vcpus or 1
    spec.max_vcpus = spec.max_vcpus or spec.vcpus
    spec.memory_mib = spec.memory_mib or 1024
    spec.max_memory_mib = spec.max_memory_mib or spec.memory_mib
    if spec.firmware is None:
        spec.firmware = "efi" if arch == "aarch64" or spec.secure_boot else "bios"
    if spec.cpu_mode is None and spec.cpu_model is None:
        # TCG's default model lacks what current distributions need (x86-64-v2); "maximum" came with libvirt 7.1.
        spec.cpu_mode = "host-model" if context.virt_type == "kvm" else ("maximum" if context.lib_version >= 7001000 else None)
    for option in ("serial_console", "agent", "rng"):
        if getattr(spec, option) is None:
            setattr(spec, option, True)
    spec.boot = spec.boot or ["hd"]
    spec.graphics = spec.graphics or GraphicsSpec()
    spec.disks, spec.nics = spec.disks or [], spec.nics or []
    return spec


def _write_memory(root: ET.Element, spec: VmSpec) -> None:
    if spec.memory_mib is None and spec.max_memory_mib is None:
        return
    old_max, old = _mib(root.find("memory")), _mib(root.find("currentMemory"))
    memory = spec.memory_mib or old or old_max or 0
    if spec.max_memory_mib is not None:
        maximum = spec.max_memory_mib
    else:
        # A maximum that was never set apart from the memory follows it; one that was set only ever grows.
        maximum = memory if old_max is None or old is None or old_max == old else max(old_max, memory)
    for tag, mib in (("memory", maximum), ("currentMemory", min(memory, maximum))):
        _set(root, tag, str(mib * 1024), unit="KiB")


def _write_vcpus(root: ET.Element, spec: VmSpec) -> None:
    if spec.vcpus is None and spec.max_vcpus is None:
        return
    element = root.find("vcpu")
    old_max = int(element.text or 1) if element is not None else None
    old = int(element.get("current") or old_max or 1) if element is not None else None
    vcpus = spec.vcpus or old or 1
    if spec.max_vcpus is not None:
        maximum = spec.max_vcpus
    else:
        maximum = vcpus if old_max is None or old_max == old else max(old_max, vcpus)
    vcpus = min(vcpus, maximum)
    element = _set(root, "vcpu", str(maximum), current=str(vcpus) if vcpus != maximum else None)
    element.set("placement", element.get("placement", "static"))
    # Per-vcpu hot-plug state of an earlier count would contradict the new one; libvirt makes it anew.
    _remove(root, "vcpus")
    topology = root.find("cpu/topology")
    if topology is not None and spec.topology is None and old_max != maximum:
        root.find("cpu").remove(topology)  # type: ignore[union-attr]


def _write_cpu(root: ET.Element, spec: VmSpec) -> None:
    if spec.cpu_mode or spec.cpu_model:
        old = root.find("cpu")
        mode = spec.cpu_mode or "custom"
        if old is None or old.get("mode") != mode or (spec.cpu_model and root.findtext("cpu/model") != spec.cpu_model):
            topology = root.find("cpu/topology")
            _remove(root, "cpu")
            cpu = ET.SubElement(root, "cpu", mode=mode)
            if mode == "custom":
                cpu.set("match", "exact")
                cpu.set("check", "none" if root.get("type") == "qemu" else "partial")
                ET.SubElement(cpu, "model", fallback="forbid").text = spec.cpu_model
            elif mode == "host-model":
                cpu.set("check", "partial")
            if topology is not None:
                cpu.append(topology)
            if old is not None and spec.cpu_features is None:
                cpu.extend(old.findall("feature"))
    if spec.cpu_features is not None:
        cpu = _set(root, "cpu")
        _remove(cpu, "feature")
        for name in sorted(spec.cpu_features):
            ET.SubElement(cpu, "feature", policy=spec.cpu_features[name], name=name)
    if spec.topology is not None:
        _set(_set(root, "cpu"), "topology", **{k: str(v) for k, v in spec.topology.items()})


def _write_firmware(root: ET.Element, spec: VmSpec) -> None:
    if spec.firmware is None and spec.secure_boot is None:
        return
    now, secure_now = _observe_firmware(root)
    firmware = spec.firmware or ("efi" if spec.secure_boot else now)
    secure = bool(spec.secure_boot) if spec.secure_boot is not None else (secure_now and firmware == "efi")
    if (firmware, secure) == (now, secure_now):
        return
    os_element = _set(root, "os")
    for tag in ("loader", "nvram", "firmware"):
        _remove(os_element, tag)
    os_element.attrib.pop("firmware", None)
    features = _set(root, "features")
    if firmware == "efi":
        os_element.set("firmware", "efi")
        details = ET.SubElement(os_element, "firmware")
        ET.SubElement(details, "feature", enabled="yes" if secure else "no", name="enrolled-keys")
        ET.SubElement(details, "feature", enabled="yes" if secure else "no", name="secure-boot")
        if secure:
            ET.SubElement(os_element, "loader", secure="yes")
            _set(features, "smm", state="on")


def _write_boot(root: ET.Element, spec: VmSpec) -> None:
    if spec.boot is None or _observe_boot(root) == spec.boot:
        return
    os_element = _set(root, "os")
    _remove(os_element, "boot")
    for device in root.findall("devices/*"):
        _remove(device, "boot")
    for name in spec.boot:
        ET.SubElement(os_element, "boot", dev=_BOOT_DEVICES[name])


def _write_graphics(root: ET.Element, spec: VmSpec) -> None:
    wanted = spec.graphics
    if wanted is None:
        return
    devices = _devices(root)
    if wanted.type == "none":
        for tag in ("graphics", "video", "input"):
            _remove(devices, tag)
        for channel in devices.findall("channel"):
            if channel.get("type") == "spicevmc":
                devices.remove(channel)
        return
    now = _observe_graphics(root)
    password = wanted.password if wanted.password is not None else now.get("password")
    if (now["type"], now.get("listen"), now.get("port"), now.get("password")) == (wanted.type, wanted.listen, wanted.port, password):
        return
    _remove(devices, "graphics")
    element = ET.SubElement(devices, "graphics", type=wanted.type, listen=wanted.listen, autoport="no" if wanted.port else "yes")
    if wanted.port:
        element.set("port", str(wanted.port))
    if password:
        element.set("passwd", password)
    ET.SubElement(element, "listen", type="address", address=wanted.listen)
    if devices.find("video") is None:
        arch = _attribute(root, "os/type", "arch")
        ET.SubElement(ET.SubElement(devices, "video"), "model", type="virtio" if arch == "aarch64" else "vga")
    if not any(i.get("type") == "tablet" for i in devices.findall("input")):
        ET.SubElement(devices, "input", type="tablet", bus="usb")


def _write_switches(root: ET.Element, spec: VmSpec) -> None:
    """Devices that are there or not: TPM, serial console, guest-agent channel, random number generator."""
    devices = _devices(root)
    if spec.tpm is not None:
        if not spec.tpm:
            _remove(devices, "tpm")
        elif devices.find("tpm") is None:
            tpm = ET.SubElement(devices, "tpm", model="tpm-tis" if _attribute(root, "os/type", "arch") == "aarch64" else "tpm-crb")
            ET.SubElement(tpm, "backend", type="emulator", version="2.0")
    if spec.serial_console is not None:
        if not spec.serial_console:
            _remove(devices, "serial")
            _remove(devices, "console")
        elif devices.find("serial") is None:
            serial = ET.SubElement(devices, "serial", type="pty")
            ET.SubElement(serial, "target", port="0")
            console = ET.SubElement(devices, "console", type="pty")
            ET.SubElement(console, "target", type="serial", port="0")
    if spec.agent is not None:
        channels = [c for c in devices.findall("channel") if _attribute(c, "target", "name") == _AGENT_CHANNEL]
        if not spec.agent:
            for channel in channels:
                devices.remove(channel)
        elif not channels:
            channel = ET.SubElement(devices, "channel", type="unix")
            ET.SubElement(channel, "target", type="virtio", name=_AGENT_CHANNEL)
    if spec.rng is not None:
        if not spec.rng:
            _remove(devices, "rng")
        elif devices.find("rng") is None:
            rng = ET.SubElement(devices, "rng", model="virtio")
            ET.SubElement(rng, "backend", model="random").text = "/dev/urandom"


def find_disk(root: ET.Element, name: str, path: str = "") -> Optional[ET.Element]:
    """The disk of that name (our alias), else the one with that path and no alias of ours (an adopted domain)."""
    by_path = None
    for disk in root.findall("devices/disk"):
        seen = _observe_disk(disk)
        if seen.ours and seen.key == name:
            return disk
        if path and seen.path == path and not seen.ours:
            by_path = disk
    return by_path


def find_nic(root: ET.Element, number: int, mac: Optional[str]) -> Optional[ET.Element]:
    """NIC C(number): by MAC, else by our alias, else the NIC at that place that has no alias of ours."""
    nics = [(nic, _observe_nic(nic)) for nic in root.findall("devices/interface")]
    for nic, seen in nics:
        if mac and seen.mac == mac:
            return nic
    for nic, seen in nics:
        if seen.ours and seen.key == nic_key(number):
            return nic
    return nics[number][0] if not mac and number < len(nics) and not any(seen.ours for _nic, seen in nics) else None


def _number_nic(root: ET.Element, nic: ET.Element, number: int) -> None:
    """Give a NIC its number; one that has it already, and another MAC, takes over the number that this one had."""
    name, former = ALIAS + nic_key(number), _attribute(nic, "alias", "name")
    for other in root.findall("devices/interface"):
        if other is not nic and _attribute(other, "alias", "name") == name:
            _remove(other, "alias")
            if former and former.startswith(ALIAS):
                ET.SubElement(other, "alias", name=former)
    _set(nic, "alias", name=name)


def nic_key(number: int) -> str:
    """The name of NIC C(number) in aliases and results."""
    return "nic{0}".format(number)


def _next_target(root: ET.Element, bus: str) -> str:
    prefix = _BUS_PREFIX[bus]
    taken = {_attribute(d, "target", "dev") for d in root.findall("devices/disk")}
    for number in range(26 * 27):
        letters = chr(97 + number % 26) if number < 26 else chr(96 + number // 26) + chr(97 + number % 26)
        if prefix + letters not in taken:
            return prefix + letters
    raise SpecError("disks", bus, "has no free device name left", "Use another bus")


def default_bus(device: str, machine: str) -> str:
    """The bus of a disk for which none is asked."""
    if device == "floppy":
        return "fdc"
    if device == "cdrom":
        return "ide" if machine.startswith("pc-i440fx") or machine == "pc" else ("scsi" if machine.startswith("virt") else "sata")
    return "virtio"


def _write_source(disk: ET.Element, source: DiskSource) -> None:
    _remove(disk, "source")
    _remove(disk, "backingStore")
    disk.set("type", source.kind)
    if source.path:
        element = ET.Element("source")
        element.set({"file": "file", "block": "dev"}.get(source.kind, "file"), source.path)
        disk.insert(1, element)


def disk_element(spec: DiskSpec, source: DiskSource, target: str, bus: str) -> ET.Element:
    """A new disk."""
    disk = ET.Element("disk", type=source.kind, device=spec.device)
    ET.SubElement(disk, "driver", name="qemu", type=source.format)
    _write_source(disk, source)
    ET.SubElement(disk, "target", dev=target, bus=bus)
    ET.SubElement(disk, "alias", name=ALIAS + spec.name)
    return disk


def _write_disk(root: ET.Element, spec: DiskSpec, source: DiskSource) -> None:
    disk = find_disk(root, spec.name, source.path)
    if disk is None:
        bus = spec.bus or default_bus(spec.device, _attribute(root, "os/type", "machine") or "q35")
        disk = disk_element(spec, source, _next_target(root, bus), bus)
        _insert_device(root, disk)
        if bus == "scsi" and not any(c.get("type") == "scsi" for c in root.findall("devices/controller")):
            ET.SubElement(_devices(root), "controller", type="scsi", index="0", model="virtio-scsi")
    else:
        now = _observe_disk(disk)
        if now.path != source.path or (source.path and now.kind != source.kind):
            _write_source(disk, source)
        if source.path:
            _set(disk, "driver", type=source.format)
        _set(disk, "alias", name=ALIAS + spec.name)
        if now.device != spec.device:
            disk.set("device", spec.device)
        if spec.bus and spec.bus != now.bus:
            _set(disk, "target", dev=_next_target(root, spec.bus), bus=spec.bus)
            _remove(disk, "address")
    if spec.readonly is not None and spec.device != "cdrom":
        if spec.readonly and disk.find("readonly") is None:
            ET.SubElement(disk, "readonly")
        elif not spec.readonly:
            _remove(disk, "readonly")
    if spec.serial is not None:
        _set(disk, "serial", spec.serial)
    for key in ("cache", "discard", "io"):
        value = getattr(spec, key)
        if value is not None:
            _set(disk, "driver", **{"name": "qemu", key: value})


def _insert_device(root: ET.Element, device: ET.Element) -> None:
    """Add a device behind the last of its kind, so that disks keep their order."""
    devices = _devices(root)
    position = 0
    for index, item in enumerate(devices):
        if item.tag == device.tag:
            position = index + 1
    devices.insert(position, device)


def nic_element(spec: NicSpec, number: int, mac: str) -> ET.Element:
    """A new NIC, without what _write_nic adds."""
    kind, name = spec.source
    nic = ET.Element("interface", type=kind)
    ET.SubElement(nic, "mac", address=mac)
    source = ET.SubElement(nic, "source")
    source.set(_SOURCE_ATTRIBUTE[kind], name)
    if kind == "direct":
        source.set("mode", spec.mode or "bridge")
    ET.SubElement(nic, "model", type=spec.model or "virtio")
    ET.SubElement(nic, "alias", name=ALIAS + nic_key(number))
    return nic


def _write_nic(root: ET.Element, spec: NicSpec, number: int, context: Context) -> None:
    kind, name = spec.source
    nic = find_nic(root, number, spec.mac)
    if nic is None:
        if not spec.mac:
            raise ValueError("a new NIC without MAC reached rendering")
        nic = nic_element(spec, number, spec.mac)
        _insert_device(root, nic)
    else:
        now = _observe_nic(nic)
        if (now.type, now.source) != (kind, name) or (spec.mode and now.mode != spec.mode):
            _remove(nic, "source")
            nic.set("type", kind)
            source = ET.Element("source")
            source.set(_SOURCE_ATTRIBUTE[kind], name)
            if kind == "direct":
                source.set("mode", spec.mode or "bridge")
            nic.insert(1, source)
            for tag in ("virtualport", "target"):
                _remove(nic, tag)
        if spec.mac and spec.mac != now.mac:
            _set(nic, "mac", address=spec.mac)
        if spec.model:
            _set(nic, "model", type=spec.model)
        _number_nic(root, nic, number)
    if kind == "bridge" and nic.find("virtualport") is None and context.openvswitch(name):
        ET.SubElement(nic, "virtualport", type="openvswitch")
    if spec.vlan is not None:
        vlan = nic.find("vlan")
        if vlan is None or _attribute(nic, "vlan/tag", "id") != str(spec.vlan):
            _remove(nic, "vlan")
            ET.SubElement(ET.SubElement(nic, "vlan"), "tag", id=str(spec.vlan))
    if spec.mtu is not None:
        _set(nic, "mtu", size=str(spec.mtu))
    if spec.filter is not None and _attribute(nic, "filterref", "filter") != spec.filter:
        _remove(nic, "filterref")
        if spec.filter:
            ET.SubElement(nic, "filterref", filter=spec.filter)
    if spec.queues is not None:
        _set(nic, "driver", name="vhost" if root.get("type") == "kvm" else "qemu", queues=str(spec.queues))
    if spec.link is not None and (_attribute(nic, "link", "state") or "up") != spec.link:
        _set(nic, "link", state=spec.link)


def _purge(root: ET.Element, tag: str, keep: Sequence[Optional[ET.Element]]) -> None:
    devices = _devices(root)
    for device in devices.findall(tag):
        if not any(device is kept for kept in keep):
            devices.remove(device)


def _write_ports(root: ET.Element) -> None:
    """Spare PCIe root ports for hot-plug: each takes one device, and q35 has none to spare by itself."""
    devices = _devices(root)
    needed = 3 + len(devices.findall("interface")) + len(devices.findall("rng")) + len(devices.findall("controller"))
    needed += sum(1 for d in devices.findall("disk") if _attribute(d, "target", "bus") == "virtio")
    ET.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    for _port in range(needed + SPARE_PORTS):
        ET.SubElement(devices, "controller", type="pci", model="pcie-root-port")


def render(spec: VmSpec, root: Optional[ET.Element], context: Context) -> ET.Element:
    """The XML of a domain as wanted: a new one, or a changed copy of C(root) (its persistent XML).

    Only options that the spec gives are written; everything else, unknown elements and device addresses included, stays as it is.
    New NICs need their MAC, new disks their source in C(context.sources). Raises SpecError.
    """
    new = root is None
    if root is None:
        spec = _with_defaults(spec, context)
        root = _skeleton(spec, context)
    else:
        root = copy.deepcopy(root)
        if spec.virt_type not in (None, "auto"):
            root.set("type", context.virt_type)
        os_type = root.find("os/type")
        if os_type is not None:
            if spec.machine and not same_machine(spec.machine, os_type.get("machine", "")):
                os_type.set("machine", spec.machine)
            if spec.arch:
                os_type.set("arch", spec.arch)
    if spec.description is not None:
        _set(root, "description", spec.description)
    _write_memory(root, spec)
    _write_vcpus(root, spec)
    _write_cpu(root, spec)
    _write_firmware(root, spec)
    for disk in spec.disks or []:
        _write_disk(root, disk, context.sources[disk.name])
    if spec.purge_disks and spec.disks is not None:
        _purge(root, "disk", [find_disk(root, d.name) for d in spec.disks] + [find_disk(root, "seed")])
    for number, nic in enumerate(spec.nics or []):
        _write_nic(root, nic, number, context)
    if spec.purge_nics and spec.nics is not None:
        _purge(root, "interface", [find_nic(root, number, nic.mac) for number, nic in enumerate(spec.nics)])
    _write_boot(root, spec)
    _write_graphics(root, spec)
    _write_switches(root, spec)
    if new and (_attribute(root, "os/type", "machine") or "").startswith(("q35", "pc-q35", "virt")):
        _write_ports(root)
    return root


def to_string(root: ET.Element) -> str:
    """The XML text libvirt takes."""
    return ET.tostring(root, encoding="unicode")


def parse(text: str) -> ET.Element:
    """XML of libvirt's into a tree."""
    return ET.fromstring(text)
