# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The typed model of what a user asks for: units, names, validation. Knows nothing of libvirt."""
from __future__ import annotations

import hashlib
import ipaddress
import re
import uuid as uuid_lib
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

# libvirt's own reading of suffixes (virScaleInteger): K and KiB are 1024, KB is 1000.
_UNITS = {
    "B": 1, "K": KIB, "KIB": KIB, "KB": 10 ** 3, "M": MIB, "MIB": MIB, "MB": 10 ** 6,
    "G": GIB, "GIB": GIB, "GB": 10 ** 9, "T": TIB, "TIB": TIB, "TB": 10 ** 12,
}
_SIZE = re.compile(r"^\s*([+-]?[0-9]{1,19}(?:\.[0-9]{1,18})?)\s*([A-Za-z]*)\s*$")
_LABEL = re.compile(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
_MAC = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_LABEL_KEY = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?\Z")
_SERIAL = re.compile(r"^[A-Za-z0-9_.+ -]{1,36}\Z")  # libvirt's own schema; guests see 20 characters of a virtio disk's
_TOKEN = re.compile(r"^[0-9a-f]{1,64}\Z")
_TIMESTAMP = re.compile(r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z\Z")
WILDCARDS = "*?["  # what makes a name a pattern
_LONGEST_NAME = 191  # three labels
_VOLUME_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._:+@-]{0,199}\Z")

POWER_STATES = ("present", "running", "stopped", "paused", "restarted")
STATES = POWER_STATES + ("absent",)


class SpecError(Exception):
    """A wish that cannot be carried out; nothing has been touched.

    :param option: name of the option as the user wrote it, such as C(memory) or C(disks[0].size)
    :param value: the offending value; never a secret
    :param reason: what is wrong with it
    :param remedy: what to write or do instead
    :param code: stable key for programs, such as C(invalid_value) or C(no_capacity)
    """

    def __init__(self, option: str, value: Any, reason: str, remedy: str, code: str = "invalid_value") -> None:
        self.option, self.value, self.reason, self.remedy, self.code = option, value, reason, remedy, code
        super().__init__(str(self))

    def __str__(self) -> str:
        shown = "" if self.value is None else " = {0!r}".format(self.value)
        return "{0}{1}: {2}. {3}".format(self.option, shown, self.reason.rstrip("."), self.remedy.rstrip(".") + ".")

    def as_result(self) -> Dict[str, Any]:
        """The same as data, for a module's C(error) return value."""
        return {"option": self.option, "value": self.value, "reason": self.reason, "remedy": self.remedy, "code": self.code}

    def within(self, prefix: str) -> SpecError:
        """The same error seen from outside: C(size) becomes C(disks[0].size)."""
        return SpecError(prefix + self.option, self.value, self.reason, self.remedy, self.code)


def parse_size(option: str, value: Any, minimum: int = 1) -> int:
    """Bytes of a size with a unit (C(2GiB), C(512MiB), C(10G)).

    Raises SpecError for a bare number, an unknown unit, a fraction of a byte or less than C(minimum) bytes.
    """
    match = _SIZE.match(str(value))
    if not match:
        raise SpecError(option, value, "not a size", "Write a number with a unit, such as 2GiB or 512MiB")
    number, unit = match.group(1), match.group(2).upper()
    if not unit:
        raise SpecError(option, value, "has no unit, and both MiB and GiB are in use",
                        "Write {0}GiB or {0}MiB".format(number.lstrip("+-")))
    if unit not in _UNITS:
        raise SpecError(option, value, "unknown unit {0!r}".format(match.group(2)), "Use one of B, KiB, MiB, GiB, TiB (or K, M, G, T)")
    if "." in number:
        whole, fraction = number.split(".")
        scaled = int(whole + fraction) * _UNITS[unit]
        if scaled % 10 ** len(fraction):
            raise SpecError(option, value, "is not a whole number of bytes", "Use a smaller unit without a fraction")
        size = scaled // 10 ** len(fraction)
    else:
        size = int(number) * _UNITS[unit]
    if size < minimum:
        raise SpecError(option, value, "is below the smallest possible value, {0}".format(format_size(minimum)), "Ask for more")
    return size


def parse_mib(option: str, value: Any, minimum_mib: int = 1) -> int:
    """MiB of a size with a unit; raises SpecError where it is not a whole number of MiB."""
    size = parse_size(option, value, 1)
    if size % MIB:
        raise SpecError(option, value, "is not a whole number of MiB", "Round it, for example to {0}MiB".format(max(1, -(-size // MIB))))
    if size < minimum_mib * MIB:
        raise SpecError(option, value, "is below the smallest possible value, {0}MiB".format(minimum_mib), "Ask for more")
    return size // MIB


def format_size(size: int) -> str:
    """A size in bytes with the largest unit that shows it exactly."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= factor and size % factor == 0:
            return "{0}{1}".format(size // factor, unit)
    return "{0}B".format(size)


def human_size(size: int) -> str:
    """A size in bytes for people: one decimal, no exactness promised."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= factor:
            return ("{0:.1f}".format(size / factor)).rstrip("0").rstrip(".") + " " + unit
    return "{0} B".format(size)


def parse_milli(option: str, value: Any) -> int:
    """Thousandths of a count: C(500m) is 500, C(2) is 2000, C(1.5) is 1500."""
    text = str(value).strip()
    match = re.match(r"^([0-9]{1,12})m$", text)
    if match:
        milli = int(match.group(1))
    else:
        match = re.match(r"^([0-9]{1,12})(?:\.([0-9]{1,3}))?$", text)
        if not match:
            raise SpecError(option, value, "is not a number of vcpus", "Write 2, 1.5 or 500m (thousandths)")
        milli = int(match.group(1)) * 1000 + int((match.group(2) or "0").ljust(3, "0"))
    if milli < 1:
        raise SpecError(option, value, "must be more than nothing", "Leave it out to count what the VM may use")
    return milli


def parse_int(option: str, value: Any, minimum: int, maximum: Optional[int] = None, what: str = "a whole number") -> int:
    """An integer within bounds out of a number or a string of digits (C(-e k=v) makes strings)."""
    if isinstance(value, bool) or not re.match(r"^\s*[+-]?[0-9]{1,18}\s*$", str(value)):
        raise SpecError(option, value, "is not {0}".format(what), "Write digits only, at least {0}".format(minimum))
    number = int(str(value))
    if number < minimum or (maximum is not None and number > maximum):
        bounds = "at least {0}".format(minimum) if maximum is None else "between {0} and {1}".format(minimum, maximum)
        raise SpecError(option, value, "is out of range", "It has to be {0}".format(bounds))
    return number


def check_label(option: str, value: Any, what: str = "name") -> str:
    """A host name label after RFC 1123, in lower case; what VM, group and namespace names have to be."""
    text = "" if value is None else str(value)
    if not text:
        raise SpecError(option, text, "is empty", "Give a {0} of 1 to 63 characters".format(what))
    if len(text) > 63:
        raise SpecError(option, text, "has {0} characters, 63 are possible".format(len(text)), "Shorten it")
    if not _LABEL.match(text):
        raise SpecError(option, text, "is not a host name label (RFC 1123)",
                        "Use a-z, 0-9 and '-' only, beginning and ending with a letter or a digit")
    return text


def check_domain_name(option: str, value: Any) -> str:
    """A domain name: one label, or C(vm.namespace.group); each part an RFC 1123 label, so that guests can bear it."""
    text = "" if value is None else str(value)
    if text.count(".") not in (0, 2):
        if "." in text:
            raise SpecError(option, text, "has {0} dots; a domain name is NAME or NAME.NAMESPACE.GROUP".format(text.count(".")),
                            "Use a name without dots")
    for part in text.split("."):
        try:
            check_label(option, part)
        except SpecError as exc:
            raise SpecError(option, text, exc.reason, exc.remedy) from None
    return text


def check_existing_name(option: str, value: Any) -> str:
    """The name of a domain that others may have made: all that libvirt takes, less what a selection of VMs would read as a pattern."""
    text = "" if value is None else str(value)
    if not text.strip():
        raise SpecError(option, text, "is empty", "Give the name of a VM")
    rename = "Rename the domain first: virsh domrename OLD NEW, while it is off"
    if "/" in text or not text.isprintable() or text != text.strip():
        raise SpecError(option, text, "is no name of a domain: it has a slash, a control character, or a blank at its end", "Look at list_vms.yml")
    if any(character in text for character in WILDCARDS):
        raise SpecError(option, text, "has a character that patterns of names are made of ({0})".format(" ".join(WILDCARDS)), rename)
    if len(text) > _LONGEST_NAME:
        raise SpecError(option, text, "has {0} characters, {1} are possible".format(len(text), _LONGEST_NAME), rename)
    return text


def check_mac(option: str, value: Any) -> str:
    """A unicast MAC address in lower case with colons."""
    mac = str(value).strip().lower().replace("-", ":")
    if not _MAC.match(mac):
        raise SpecError(option, value, "is not a MAC address",
                        "Write six pairs of hexadecimal digits such as 52:54:00:12:34:56, in YAML with quotes around (it can be read as a number)")
    if int(mac[:2], 16) & 1:
        raise SpecError(option, value, "is a multicast address; a NIC needs a unicast one", "Use an even second digit, such as 52:54:00:...")
    return mac


def mac_for(name: str, nic: int, attempt: int = 0) -> str:
    """The MAC that NIC number C(nic) of domain C(name) gets when none is asked for: stable by name, in QEMU's 52:54:00 range.

    C(attempt) gives further candidates where a MAC is taken (24 bits: among 5,000 NICs a clash is likelier than not).
    """
    digest = hashlib.sha256("kvmfleet:{0}:{1}:{2}".format(name, nic, attempt).encode()).digest()
    return "52:54:00:{0:02x}:{1:02x}:{2:02x}".format(*digest[:3])


def told_name(name: str, owner: Optional[str], reader: Optional[str]) -> str:
    """What a VM is called in what somebody of group C(reader) reads; without a group that is an operator, who may read everything."""
    return name if not reader or owner == reader else "of another group"


def check_uuid(option: str, value: Any) -> str:
    """A UUID in its canonical form."""
    try:
        return str(uuid_lib.UUID(str(value)))
    except ValueError:
        raise SpecError(option, value, "is not a UUID", "Leave it out, or write it as 8-4-4-4-12 hexadecimal digits") from None


def check_interface(option: str, value: Any) -> str:
    """An IP address with prefix (C(10.0.0.5/24), C(fd00::5/64)) that a guest can have; returned in canonical form."""
    if "/" not in str(value):
        raise SpecError(option, value, "has no prefix length", "Write it as 192.0.2.10/24")
    try:
        interface = ipaddress.ip_interface(str(value))
    except ValueError as exc:
        raise SpecError(option, value, str(exc), "Write address and prefix length, such as 192.0.2.10/24") from None
    address, network = interface.ip, interface.network
    if address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local:
        raise SpecError(option, value, "is a loopback, link-local, multicast or unspecified address", "Use an address of the VM's network")
    if interface.version == 4 and network.prefixlen < 31 and address in (network.network_address, network.broadcast_address):
        raise SpecError(option, value, "is the network or broadcast address of {0}".format(network), "Use an address in between")
    return str(interface)


def check_address(option: str, value: Any) -> str:
    """An IP address without prefix, in canonical form."""
    try:
        return str(ipaddress.ip_address(str(value)))
    except ValueError as exc:
        raise SpecError(option, value, str(exc), "Write an address such as 192.0.2.1") from None


def check_gateway(option: str, value: Any, addresses: Sequence[str]) -> str:
    """A gateway that lies in the subnet of one of C(addresses) (with prefix) and is none of them."""
    gateway = ipaddress.ip_address(check_address(option, value))
    interfaces = [ipaddress.ip_interface(a) for a in addresses]
    if any(gateway == i.ip for i in interfaces):
        raise SpecError(option, value, "is the VM's own address", "Give the router's address")
    if not any(gateway in i.network for i in interfaces) and not gateway.is_link_local:
        subnets = ", ".join(str(i.network) for i in interfaces) or "none"
        raise SpecError(option, value, "is outside the VM's subnet ({0})".format(subnets), "Use a gateway inside it")
    return str(gateway)


def check_selector(option: str, value: Any) -> str:
    """What other VMs are meant by: the name of one, or a label as C(key=value)."""
    check_line(option, str(value))
    if not re.match(r"^[A-Za-z0-9][A-Za-z0-9._/-]*(=[^=]*)?$", str(value)):
        raise SpecError(option, value, "is neither the name of a VM nor a label", "Write web1, or tier=front")
    return str(value)


def check_labels(option: str, value: Optional[Mapping[str, Any]]) -> Dict[str, str]:
    """Labels: short string keys and string values."""
    labels = {}
    for key, text in (value or {}).items():
        where = "{0}.{1}".format(option, key)
        if not _LABEL_KEY.match(str(key)):
            raise SpecError(where, text, "is not a label name", "Use letters, digits, '.', '_', '/' and '-', at most 63 characters")
        if text is None or isinstance(text, (list, dict, tuple)):
            raise SpecError(where, text, "is not a text", "Give a text, or '' for a label without a value")
        labels[str(key)] = check_line(where, str(text)) or ""
    return labels


def check_printable(option: str, value: Optional[str]) -> Optional[str]:
    """Text that can stand in XML: no control characters but tab and line end. Line ends become plain ones, as XML makes them."""
    if value is not None and re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", value):
        raise SpecError(option, ascii(value), "has control characters", "Remove them")
    return None if value is None else value.replace("\r\n", "\n").replace("\r", "\n")


def check_line(option: str, value: Optional[str], secret: bool = False) -> Optional[str]:
    """The same for text of one line, without blanks around it: XML and those who read it would not keep them.

    :param secret: whether messages must not show it
    """
    if value is not None and (re.search("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]", value) or value != value.strip()):
        raise SpecError(option, None if secret else ascii(value), "has control characters, line ends or blanks around it", "Remove them")
    return value


def one_of(option: str, value: Any, choices: Iterable[str]) -> str:
    """A value out of a fixed list."""
    choices = list(choices)
    if value not in choices:
        raise SpecError(option, value, "is not possible", "Use one of {0}".format(", ".join(choices)))
    return str(value)


def volume_name(domain: str, disk: str, uuid: str, extension: str) -> str:
    """The name of a volume of ours: never reused, because the domain's UUID is in it."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", domain)  # of a domain that others have named
    return "{0}-{1}-{2}.{3}".format("_" + stem[1:] if stem[0] in ".-" else stem, disk, uuid[:8], extension)


@dataclass
class DiskSpec:
    """One disk of a VM. Sizes in bytes; C(None) means "as it is, or the default at creation"."""

    name: str
    pool: Optional[str] = None
    volume: Optional[str] = None          # an existing volume of the user's, in pool
    path: Optional[str] = None            # an existing file or block device of the user's; "" = an empty drive
    size: Optional[int] = None            # > 0: a volume of ours of that virtual size
    default_size: Optional[int] = None    # the same for a new volume only; one that exists keeps its size
    image: Optional[str] = None           # backing volume (in image_pool) or absolute path
    image_pool: Optional[str] = None
    image_format: Optional[str] = None
    clone: str = "overlay"
    format: Optional[str] = None
    reserve: Optional[int] = None
    device: str = "disk"
    bus: Optional[str] = None
    readonly: Optional[bool] = None
    serial: Optional[str] = None
    cache: Optional[str] = None
    discard: Optional[str] = None
    io: Optional[str] = None
    delete_with_vm: bool = False

    @property
    def managed(self) -> bool:
        """Whether the volume is ours: made with the VM and deleted with it."""
        return self.size is not None or self.default_size is not None or self.image is not None


@dataclass
class NicSpec:
    """One network interface of a VM and, for its seed, the addresses of the guest on it."""

    network: Optional[str] = None
    bridge: Optional[str] = None
    direct: Optional[str] = None
    mode: Optional[str] = None
    model: Optional[str] = None
    mac: Optional[str] = None
    vlan: Optional[int] = None
    mtu: Optional[int] = None
    filter: Optional[str] = None
    queues: Optional[int] = None
    link: Optional[str] = None
    addresses: List[str] = field(default_factory=list)
    gateway: Optional[str] = None
    nameservers: List[str] = field(default_factory=list)
    search: List[str] = field(default_factory=list)
    routes: List[Dict[str, Any]] = field(default_factory=list)

    @property
    def source(self) -> Tuple[str, str]:
        """Interface type of libvirt and the name it is attached to."""
        for kind in ("network", "bridge", "direct"):
            name = getattr(self, kind)
            if name:
                return kind, name
        raise SpecError("nics", None, "a NIC needs one of network, bridge, direct", "Name what it is attached to")


@dataclass
class GraphicsSpec:
    """Graphical console."""

    type: str = "none"
    listen: str = "127.0.0.1"
    password: Optional[str] = None
    port: Optional[int] = None


@dataclass
class ScalingSpec:
    """What is to be kept of an act of scaling, provided that the last one kept is C(expect) (empty: there is none). See _metadata.Scaling."""

    expect: str
    ticket: str  # empty: nothing is kept any more
    at: Optional[str] = None  # C(None): now
    open: bool = False
    acting: Tuple[str, ...] = ()
    alerts: Tuple[str, ...] = ()


@dataclass
class VmSpec:
    """One VM as wanted. C(None) means "as it is, or the default at creation"."""

    name: str
    state: str = "present"
    uuid: Optional[str] = None
    description: Optional[str] = None
    labels: Optional[Dict[str, str]] = None
    anti_affinity: Optional[List[str]] = None
    group: Optional[str] = None
    namespace: Optional[str] = None
    set: Optional[str] = None
    index: Optional[int] = None
    image: Optional[str] = None
    flavor: Optional[str] = None
    key_name: Optional[str] = None
    vcpus: Optional[int] = None
    max_vcpus: Optional[int] = None
    vcpus_request_milli: Optional[int] = None
    topology: Optional[Dict[str, int]] = None
    memory_mib: Optional[int] = None
    max_memory_mib: Optional[int] = None
    memory_request_mib: Optional[int] = None
    default_vcpus: Optional[int] = None       # for a new VM only; one that exists keeps what it has
    default_memory_mib: Optional[int] = None
    cpu_mode: Optional[str] = None
    cpu_model: Optional[str] = None
    cpu_features: Optional[Dict[str, str]] = None
    machine: Optional[str] = None
    arch: Optional[str] = None
    virt_type: Optional[str] = None
    firmware: Optional[str] = None
    secure_boot: Optional[bool] = None
    tpm: Optional[bool] = None
    boot: Optional[List[str]] = None
    disks: Optional[List[DiskSpec]] = None
    nics: Optional[List[NicSpec]] = None
    default_nics: Optional[List[NicSpec]] = None
    seed: Optional[Dict[str, Any]] = None  # options of _seed_spec, checked there
    graphics: Optional[GraphicsSpec] = None
    serial_console: Optional[bool] = None
    agent: Optional[bool] = None
    rng: Optional[bool] = None
    autostart: Optional[bool] = None
    scaling: Optional[ScalingSpec] = None
    purge_disks: bool = False
    purge_nics: bool = False
    adopt: bool = False
    delete_given: bool = True  # with state absent: whether the user's volumes that were said to go with the VM go; not where a creation is taken back
    allow_restart: bool = False
    force: bool = False
    delete_disks: bool = True
    shutdown_timeout: int = 120
    timeout: int = 60

    @property
    def hostname(self) -> str:
        """The guest's host name: the VM's own label."""
        return self.name.split(".")[0]


_DISK_CHOICES = {
    "device": ("disk", "cdrom", "floppy"), "bus": ("virtio", "scsi", "sata", "ide", "usb", "fdc"), "clone": ("overlay", "full"),
    "format": ("qcow2", "raw"), "image_format": ("qcow2", "raw"),
    "cache": ("default", "none", "writethrough", "writeback", "directsync", "unsafe"),
    "discard": ("ignore", "unmap"), "io": ("native", "threads", "io_uring"),
}
_NIC_CHOICES = {"mode": ("bridge", "vepa", "private", "passthrough"), "model": ("virtio", "e1000e", "e1000", "rtl8139"), "link": ("up", "down")}


def _choices(item: Mapping[str, Any], table: Mapping[str, Sequence[str]]) -> None:
    for key, choices in table.items():
        if item.get(key) is not None:
            one_of(key, item[key], choices)


def disk_from_params(params: Mapping[str, Any], index: int) -> DiskSpec:
    """A DiskSpec out of module parameters; raises SpecError with options relative to the disk."""
    _choices(params, _DISK_CHOICES)
    name = params.get("name") or ("root" if index == 0 else "disk{0}".format(index))
    disk = DiskSpec(name=check_label("name", name, "disk name"))
    for key in ("pool", "volume", "path", "image", "image_pool", "image_format", "format", "bus", "readonly", "serial", "cache", "discard", "io"):
        setattr(disk, key, params.get(key))
    disk.serial = None if disk.serial is None else str(disk.serial)
    for key in ("pool", "path", "image", "image_pool"):
        check_line(key, getattr(disk, key))
    disk.clone = params.get("clone") or "overlay"
    disk.device = params.get("device") or "disk"
    disk.delete_with_vm = bool(params.get("delete_with_vm"))
    for key in ("size", "default_size"):
        if params.get(key) is not None:
            size = parse_size(key, params[key], minimum=MIB)
            if size % 512:
                raise SpecError(key, params[key], "is not a whole number of 512-byte sectors", "Use MiB or GiB")
            setattr(disk, key, size)
    if params.get("reserve") is not None:
        disk.reserve = parse_size("reserve", params["reserve"], minimum=0)
    sources = [k for k, given in (("volume", disk.volume), ("path", disk.path is not None), ("size or image", disk.managed)) if given]
    if len(sources) > 1:
        raise SpecError("volume" if disk.volume else "path", disk.volume or disk.path, "is given together with {0}".format(sources[-1]),
                        "A disk has one source: volume, path, or a new volume by size and image")
    if not sources and disk.device == "disk":
        raise SpecError("size", None, "disk {0!r} has no source".format(disk.name), "Give size (and image), or volume, or path")
    if not sources:
        disk.path = ""
    if disk.volume is not None:
        check_volume_name("volume", disk.volume)
        if not disk.pool:
            raise SpecError("pool", None, "volume {0!r} is given without its pool".format(disk.volume), "Give the pool")
    if disk.serial is not None and not _SERIAL.match(disk.serial):
        raise SpecError("serial", disk.serial, "is not a serial number", "Use letters, digits, blanks and . _ + - only, at most 36 characters")
    if disk.path and not disk.path.startswith("/"):
        raise SpecError("path", disk.path, "is not an absolute path", "Begin it with /")
    if disk.managed and disk.device != "disk":
        raise SpecError("device", disk.device, "a new volume can be a disk only", "Give an existing volume or path")
    if disk.image is None and disk.clone == "full":
        raise SpecError("clone", disk.clone, "there is no image to clone", "Give image, or leave clone out")
    if disk.clone == "overlay" and disk.image is not None and disk.format == "raw":
        raise SpecError("format", "raw", "an overlay is always qcow2", "Use clone: full, or format: qcow2")
    if disk.path and disk.delete_with_vm:
        raise SpecError("delete_with_vm", True, "a path outside a pool is never deleted", "Give the disk as pool and volume")
    return disk


def check_volume_name(option: str, value: Any) -> str:
    """A volume name that is one path component."""
    if not _VOLUME_NAME.match(str(value)):
        raise SpecError(option, value, "is not a volume name", "Use letters, digits and . _ - only, no slash, at most 200 characters")
    return str(value)


def nic_from_params(params: Mapping[str, Any]) -> NicSpec:
    """A NicSpec out of module parameters; raises SpecError with options relative to the NIC."""
    _choices(params, _NIC_CHOICES)
    nic = NicSpec()
    for key in ("network", "bridge", "direct", "mode", "model", "filter", "link"):
        setattr(nic, key, params.get(key))
    given = [k for k in ("network", "bridge", "direct") if getattr(nic, k)]
    if len(given) != 1:
        raise SpecError(given[1] if given else "network", getattr(nic, given[1]) if given else None,
                        "a NIC is attached to exactly one of network, bridge, direct", "Give one of them")
    if nic.mode and not nic.direct:
        raise SpecError("mode", nic.mode, "is for direct (macvtap) NICs", "Leave it out, or use direct")
    if params.get("mac"):
        nic.mac = check_mac("mac", params["mac"])
    for key, low, high in (("vlan", 1, 4094), ("mtu", 68, 65535), ("queues", 1, 256)):
        if params.get(key) is not None:
            setattr(nic, key, parse_int(key, params[key], low, high))
    for key in ("network", "bridge", "direct", "filter"):
        check_line(key, getattr(nic, key))
    if nic.queues is not None and nic.model not in (None, "virtio"):
        raise SpecError("queues", nic.queues, "is for virtio, and the model is {0}".format(nic.model), "Leave it out, or use model: virtio")
    nic.addresses = [check_interface("addresses", a) for a in params.get("addresses") or []]
    if len(set(nic.addresses)) != len(nic.addresses):
        raise SpecError("addresses", ", ".join(nic.addresses), "an address is given twice", "Remove one")
    if params.get("gateway"):
        nic.gateway = check_gateway("gateway", params["gateway"], nic.addresses)
    nic.nameservers = [check_address("nameservers", a) for a in params.get("nameservers") or []]
    nic.search = [str(s) for s in params.get("search") or []]
    routes = params.get("routes") or []
    if not isinstance(routes, (list, tuple)) or not all(isinstance(route, Mapping) for route in routes):
        raise SpecError("routes", routes, "is not a list of routes", "Write each as {to: 10.0.0.0/8, via: 192.0.2.1}")
    nic.routes = [dict(route) for route in routes]
    return nic


def each(option: str, items: Optional[Sequence[Any]], build: Callable[[Any, int], Any]) -> List[Any]:
    """What C(build(item, index)) makes of each item; a SpecError of it names the item, as in C(disks[0].size)."""
    result = []
    for index, item in enumerate(items or []):
        try:
            result.append(build(item, index))
        except SpecError as exc:
            raise exc.within("{0}[{1}].".format(option, index)) from None
    return result


def _check_topology(spec: VmSpec, topology: Mapping[str, Any]) -> Dict[str, int]:
    parts = {k: parse_int("topology.{0}".format(k), topology.get(k) or 1, 1) for k in ("sockets", "cores", "threads")}
    product = parts["sockets"] * parts["cores"] * parts["threads"]
    limit = spec.max_vcpus or spec.vcpus
    if limit is not None and product != limit:
        raise SpecError("topology", "{sockets}x{cores}x{threads}".format(**parts), "makes {0} vcpus, not {1}".format(product, limit),
                        "sockets x cores x threads has to be max_vcpus (or vcpus)")
    return parts


def _check_nics(nics: Sequence[NicSpec]) -> None:
    macs: Dict[str, int] = {}
    addresses: Dict[str, int] = {}
    for number, nic in enumerate(nics):
        if nic.mac:
            if nic.mac in macs:
                raise SpecError("nics[{0}].mac".format(number), nic.mac, "is also that of nics[{0}]".format(macs[nic.mac]), "Give each NIC its own, or none",
                                "mac_in_use")
            macs[nic.mac] = number
        for address in nic.addresses:
            bare = address.split("/")[0]
            if bare in addresses:
                raise SpecError("nics[{0}].addresses".format(number), bare, "is also on nics[{0}]".format(addresses[bare]), "Give each NIC its own address",
                                "ip_in_use")
            addresses[bare] = number


_PLAIN = ("description", "group", "namespace", "set", "index", "image", "flavor", "key_name", "machine", "arch", "virt_type", "firmware", "secure_boot", "tpm",
          "serial_console", "agent", "rng", "autostart", "seed")
_FLAGS = ("purge_disks", "purge_nics", "adopt", "allow_restart", "force")


def _scaling(params: Mapping[str, Any]) -> ScalingSpec:
    tokens = [("expect", params.get("expect")), ("ticket", params.get("ticket"))]
    listed = {key: tuple(str(alert) for alert in params.get(key) or []) for key in ("acting", "alerts")}
    for key, token in tokens + [("{0}[{1}]".format(key, i), alert) for key, alerts in listed.items() for i, alert in enumerate(alerts)]:
        if token and not _TOKEN.match(str(token)):
            raise SpecError("scaling." + key, token, "is not a ticket or the digest of an alert", "Use 1 to 64 hexadecimal digits")
    if params.get("at") and not _TIMESTAMP.match(str(params["at"])):
        raise SpecError("scaling.at", params["at"], "is not a time", "Write it as 2026-01-31T12:00:00Z, or leave it out for now")
    return ScalingSpec(str(params.get("expect") or ""), str(params.get("ticket") or ""), params.get("at") or None, bool(params.get("open")),
                       listed["acting"], listed["alerts"])


def vm_from_params(params: Mapping[str, Any]) -> VmSpec:
    """A VmSpec out of the parameters of vm_domain, or of one item of vm_set's C(vms). Raises SpecError."""
    state = params.get("state") or "present"
    one_of("state", state, STATES)
    name = params.get("name")
    if name is None or name == "":
        raise SpecError("name", "", "is empty", "Give the VM a name")
    spec = VmSpec(name=str(name), state=state)
    for key in _PLAIN:
        setattr(spec, key, params.get(key))
    for key in _FLAGS:
        setattr(spec, key, bool(params.get(key)))
    if params.get("delete_disks") is not None:
        spec.delete_disks = bool(params["delete_disks"])
    for key in ("shutdown_timeout", "timeout"):
        if params.get(key) is not None:
            setattr(spec, key, parse_int(key, params[key], 0))
    if params.get("uuid"):
        spec.uuid = check_uuid("uuid", params["uuid"])
    if params.get("labels") is not None:
        spec.labels = check_labels("labels", params["labels"])
    if params.get("anti_affinity") is not None:
        spec.anti_affinity = [check_selector("anti_affinity", text) for text in params["anti_affinity"]]
    spec.description = check_printable("description", spec.description)
    for key in ("image", "flavor", "key_name"):
        check_line(key, getattr(spec, key))
    for key in ("group", "namespace", "set"):
        if getattr(spec, key):
            check_label(key, getattr(spec, key), key)
    if spec.index is not None:
        spec.index = parse_int("index", spec.index, 0)
    for key in ("vcpus", "max_vcpus", "default_vcpus"):
        if params.get(key) is not None:
            setattr(spec, key, parse_int(key, params[key], 1, 4096, "a number of vcpus"))
    if spec.vcpus and spec.max_vcpus and spec.max_vcpus < spec.vcpus:
        raise SpecError("max_vcpus", spec.max_vcpus, "is less than vcpus ({0})".format(spec.vcpus), "Raise max_vcpus or lower vcpus")
    for source, target in (("memory", "memory_mib"), ("max_memory", "max_memory_mib"), ("memory_request", "memory_request_mib"),
                           ("default_memory", "default_memory_mib")):
        if params.get(source) is not None:
            setattr(spec, target, parse_mib(source, params[source]))
    if spec.memory_mib and spec.max_memory_mib and spec.max_memory_mib < spec.memory_mib:
        raise SpecError("max_memory", params["max_memory"], "is less than memory ({0})".format(params["memory"]), "Raise max_memory or lower memory")
    if params.get("vcpus_request") is not None:
        spec.vcpus_request_milli = parse_milli("vcpus_request", params["vcpus_request"])
    if params.get("topology"):
        spec.topology = _check_topology(spec, params["topology"])
    cpu = params.get("cpu") or {}
    spec.cpu_mode, spec.cpu_model = cpu.get("mode"), cpu.get("model")
    check_line("cpu.model", spec.cpu_model)
    if spec.cpu_model and spec.cpu_mode not in (None, "custom"):
        raise SpecError("cpu.model", spec.cpu_model, "does not go with cpu.mode {0}".format(spec.cpu_mode), "Use mode: custom, or leave the model out")
    if spec.cpu_mode == "custom" and not spec.cpu_model:
        raise SpecError("cpu.mode", "custom", "needs a model", "Give cpu.model, such as qemu64 or Skylake-Server")
    if cpu.get("features") is not None:
        spec.cpu_features = {check_line("cpu.features", str(f["name"])) or "": f.get("policy") or "require" for f in cpu["features"]}
    if spec.secure_boot and spec.firmware == "bios":
        raise SpecError("secure_boot", True, "needs UEFI firmware", "Set firmware: efi")
    if params.get("boot") is not None:
        spec.boot = [one_of("boot", b, ("hd", "cdrom", "network", "floppy")) for b in params["boot"]]
        if not spec.boot:
            raise SpecError("boot", "[]", "names no device", "Leave it out, or name hd, cdrom, network or floppy")
        if len(set(spec.boot)) != len(spec.boot):
            raise SpecError("boot", ",".join(spec.boot), "names a device twice", "Name each at most once")
    if params.get("disks") is not None:
        disks = spec.disks = each("disks", params["disks"], disk_from_params)
        if len({d.name for d in disks}) != len(disks):
            raise SpecError("disks", [d.name for d in disks], "two disks have one name", "Give each its own name")
        sources = [(d.pool, d.volume) if d.volume else d.path for d in disks if d.volume or d.path]
        if len(set(sources)) != len(sources):
            raise SpecError("disks", ", ".join(str(d.volume or d.path) for d in disks if d.volume or d.path), "one source is given to two disks",
                            "Name each once")
        if any(d.name == "seed" for d in disks):
            raise SpecError("disks", "seed", "is the name of the cloud-init seed's disk", "Call the disk something else")
    if params.get("nics") is not None:
        spec.nics = each("nics", params["nics"], lambda item, index: nic_from_params(item))
        _check_nics(spec.nics or [])
    if params.get("default_nics") is not None:
        spec.default_nics = each("nics", params["default_nics"], lambda item, index: nic_from_params(item))
        _check_nics(spec.default_nics or [])
    if params.get("scaling") is not None:
        spec.scaling = _scaling(params["scaling"])
    if params.get("graphics") is not None:
        graphics = params["graphics"]
        spec.graphics = GraphicsSpec(type=one_of("graphics.type", graphics.get("type") or "none", ("none", "vnc", "spice")),
                                     listen=check_address("graphics.listen", graphics.get("listen") or "127.0.0.1"), password=graphics.get("password"),
                                     port=None if graphics.get("port") is None else parse_int("graphics.port", graphics["port"], 5900, 65535))
        check_line("graphics.password", spec.graphics.password, secret=True)
        if spec.graphics.type == "vnc" and len(spec.graphics.password or "") > 8:
            raise SpecError("graphics.password", None, "is longer than the 8 characters that VNC knows", "Shorten it, or use type: spice")
    if state == "absent":
        sized = [k for k in ("vcpus", "memory", "disks", "nics", "seed") if params.get(k)]
        if sized:
            raise SpecError(sized[0], params[sized[0]] if sized[0] in ("vcpus", "memory") else None, "is given together with state=absent",
                            "To delete, give the name only")
    return spec


def check_batch(specs: Sequence[VmSpec]) -> None:
    """What must hold between the VMs of one request: names, UUIDs, MACs and addresses are given once. Raises SpecError."""
    seen: Dict[Tuple[str, str], str] = {}
    for spec in specs:
        given = [("name", spec.name, "name_in_use")]
        if spec.uuid:
            given.append(("uuid", spec.uuid, "uuid_in_use"))
        for nic in spec.nics or []:
            if nic.mac:
                given.append(("mac", nic.mac, "mac_in_use"))
            given.extend(("address", a.split("/")[0], "ip_in_use") for a in nic.addresses)
        for option, value, code in given:
            if (option, value) in seen:
                raise SpecError(option, value, "is asked for by {0} and by {1}".format(seen[option, value], spec.name), "Give each VM its own", code)
            seen[option, value] = spec.name
