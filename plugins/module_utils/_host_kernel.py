# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a KVM host asks of its kernel: parameters, options of KVM's modules, huge pages. Kept in files of ours; set now where that disturbs nobody."""
from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._own_files import read_text, replace
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import KIB, SpecError, format_size, parse_int, parse_size

SYSCTL_FILE = "etc/sysctl.d/90-kvmfleet.conf"
MODPROBE_FILE = "etc/modprobe.d/kvmfleet.conf"
HUGEPAGES_FILE = "etc/tmpfiles.d/kvmfleet-hugepages.conf"
UNIT_FOLDER = "etc/systemd/system"
_HEADER = "# Written by kvmfleet.core (role kvm_host); changes are lost.\n"
_NAME = re.compile(r"^[a-z0-9_]+\Z")
_SYSCTL = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_./:-]*\Z")
_VALUE = re.compile(r"^[^\x00-\x1f]*\Z")
_FLAG_OF = {"kvm_intel": "vmx", "kvm_amd": "svm"}
_YES_NO = {"Y": "1", "N": "0", "y": "1", "n": "0", "True": "1", "False": "0", "true": "1", "false": "0"}


@dataclass(frozen=True)
class KernelSpec:
    """What is wanted. C(flags) are the CPU's virtualisation flags. C(hugepages) is a number of pages by their size in bytes."""

    flags: Tuple[str, ...] = ()
    nested: Optional[bool] = None
    module_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    hugepages: Mapping[int, int] = field(default_factory=dict)


def spec_from_params(params: Mapping[str, Any], flags: List[str]) -> KernelSpec:
    """A KernelSpec out of module parameters. Raises SpecError."""
    modules: Dict[str, Dict[str, str]] = {}
    for module, options in (params.get("module_options") or {}).items():
        where = "module_options.{0}".format(module)
        if not _NAME.match(str(module)) or not isinstance(options, Mapping):
            raise SpecError(where, None, "is not a kernel module with a mapping of options", "Write it as kvm: {ignore_msrs: 1}")
        for option, value in options.items():
            if not _NAME.match(str(option)) or not _VALUE.match(_text(value)) or " " in _text(value):
                raise SpecError("{0}.{1}".format(where, option), value, "is not an option of a kernel module", "Write it as kvm: {ignore_msrs: 1}")
            modules.setdefault(module, {})[option] = _text(value)
    sysctls = {}
    for key, value in (params.get("sysctls") or {}).items():
        if not _SYSCTL.match(str(key)) or ".." in str(key) or not _VALUE.match(_text(value)):
            raise SpecError("sysctls.{0}".format(key), value, "is not a kernel parameter and its value", "Write it as net.ipv4.ip_forward: 1")
        sysctls[str(key)] = _text(value)
    pages = {}
    for size, count in (params.get("hugepages") or {}).items():
        pages[parse_size("hugepages", size)] = parse_int("hugepages.{0}".format(size), count, 0)
    return KernelSpec(tuple(flags), params.get("nested"), modules, sysctls, pages)


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else " ".join(str(value).split())


def same_value(one: str, other: str) -> bool:
    """Whether the kernel means the same by two values of a parameter: spaces do not matter, and Y is 1."""
    first, second = (" ".join(value.split()) for value in (one, other))
    return _YES_NO.get(first, first) == _YES_NO.get(second, second)


def module_options(spec: KernelSpec) -> Tuple[Dict[str, Dict[str, str]], List[str]]:
    """The options of modules that this hardware has, and a sentence for each that is left out."""
    wanted: Dict[str, Dict[str, str]] = {}
    notes = []
    fitting = [module for module, flag in _FLAG_OF.items() if flag in spec.flags]
    if spec.nested is not None:
        for module in fitting:
            wanted[module] = {"nested": str(int(spec.nested))}
    for module, options in spec.module_options.items():
        if module in _FLAG_OF and module not in fitting:
            notes.append("{0}: this CPU does not use that module".format(module))
            continue
        wanted.setdefault(module, {}).update(options)
    return wanted, notes


def mount_unit(size: int) -> Tuple[str, str]:
    """Name and content of the systemd unit that mounts huge pages of a size."""
    short = format_size(size).replace("iB", "")
    return "dev-hugepages{0}.mount".format(short), _HEADER + (
        "[Unit]\nDescription=Huge pages of {0} for VMs\nDefaultDependencies=no\nBefore=sysinit.target libvirtd.service virtqemud.service\n\n"
        "[Mount]\nWhat=hugetlbfs\nWhere=/dev/hugepages{1}\nType=hugetlbfs\nOptions=mode=1770,pagesize={1}\n\n"
        "[Install]\nWantedBy=sysinit.target\n").format(format_size(size), short)


class KernelConverger:
    """The kernel of a host on its way to what is wanted. Raises SpecError and FleetError.

    :param root: where the file system begins, for tests
    """

    def __init__(self, spec: KernelSpec, root: str = "/") -> None:
        self.spec, self.root = spec, root
        self.actions: List[str] = []
        self.steps: List[Callable[[], Any]] = []
        self.next_boot: List[str] = []
        self.notes: List[str] = []
        self.before: Dict[str, Any] = {}
        self.after: Dict[str, Any] = {}
        self.units: List[str] = []

    def converge(self, check: bool) -> Dict[str, Any]:
        """Write and set what differs; the module's result."""
        self._sysctls()
        self._modules()
        self._hugepages()
        if not check:
            for step in self.steps:
                step()
        return {"changed": bool(self.actions), "actions": self.actions, "next_boot": self.next_boot, "notes": self.notes, "mount_units": self.units,
                "diff": {"before": self.before, "after": self.after}}

    def _path(self, path: str) -> str:
        return os.path.join(self.root, path)

    def _do(self, action: str, step: Callable[[], Any]) -> None:
        self.actions.append(action)
        self.steps.append(step)

    def _file(self, path: str, content: str) -> bool:
        """Have a file with this content, or none for no content; whether that is a change."""
        full = self._path(path)
        there = read_text(full)
        wanted = _HEADER + content if content and not content.startswith("#") else content or None
        if there == wanted:
            return False
        self.before["/" + path], self.after["/" + path] = there or "", wanted or ""
        if wanted is None:
            self._do("remove /{0}".format(path), lambda: os.unlink(full))
        else:
            text = wanted
            self._do("write /{0}".format(path), lambda: replace(full, text))
        return True

    def _set(self, path: str, value: str, what: str) -> None:
        try:
            with open(self._path(path), "w", encoding="ascii") as file:
                file.write(value)
        except OSError as exc:
            raise FleetError("The kernel does not take {0} = {1}: {2}".format(what, value, exc.strerror), "kernel_refused") from None

    def _sysctls(self) -> None:
        for key, value in self.spec.sysctls.items():
            path = "proc/sys/" + (key if "/" in key else key.replace(".", "/"))
            there = read_text(self._path(path)) if not os.path.isdir(self._path(path)) else None
            if there is None:
                raise SpecError("sysctls.{0}".format(key), value, "this kernel has no such parameter", "Correct its name, or load the module that brings it "
                                "(/etc/modules-load.d)", "unknown_parameter")
            if not same_value(there, value):
                self.before[key], self.after[key] = " ".join(there.split()), value
                self._do("set {0} to {1}".format(key, value), lambda path=path, value=value, key=key: self._set(path, value, key))  # type: ignore[misc]
        # What a parameter was before, nobody has noted, and another file of the system may have a say in it
        for line in (read_text(self._path(SYSCTL_FILE)) or "").splitlines():
            key, _sep, value = (part.strip() for part in line.partition("="))
            if _sep and not key.startswith("#") and key not in self.spec.sysctls:
                self.notes.append("{0} is set no more; it stays {1} until the next boot".format(key, value))
        self._file(SYSCTL_FILE, "".join("{0} = {1}\n".format(key, value) for key, value in sorted(self.spec.sysctls.items())))

    def _modules(self) -> None:
        """Options are read when a module is loaded. One that VMs may be using is never reloaded."""
        wanted, notes = module_options(self.spec)
        self.notes += notes
        self._file(MODPROBE_FILE, "".join("options {0} {1}\n".format(module, " ".join("{0}={1}".format(*pair) for pair in sorted(options.items())))
                                          for module, options in sorted(wanted.items())))
        for module, options in sorted(wanted.items()):
            if not os.path.isdir(self._path("sys/module/" + module)):
                self.notes.append("{0} is not loaded; its options hold when it is".format(module))
                continue
            for option, value in sorted(options.items()):
                there = read_text(self._path("sys/module/{0}/parameters/{1}".format(module, option)))
                if there is None:
                    self.notes.append("{0} shows no parameter {1}".format(module, option))
                elif not same_value(there, value):
                    self.next_boot.append("{0}.{1} = {2} (now {3})".format(module, option, value, there.strip()))

    def _hugepages(self) -> None:
        lines = []
        folder = "sys/kernel/mm/hugepages"
        for size, count in sorted(self.spec.hugepages.items()):
            path = "{0}/hugepages-{1}kB/nr_hugepages".format(folder, size // KIB)
            there = read_text(self._path(path))
            if there is None:
                known = sorted(int(name[len("hugepages-"):-2]) * KIB for name in os.listdir(self._path(folder))) if os.path.isdir(self._path(folder)) else []
                raise SpecError("hugepages", format_size(size), "this kernel has no huge pages of that size",
                                "It has {0}".format(", ".join(map(format_size, known)) or "none"), "unsupported")
            lines.append("w /{0} - - - - {1}\n".format(path, count))
            if int(there) != count:
                what = "huge pages of {0}".format(format_size(size))
                self.before[what], self.after[what] = int(there), count
                self._do("set {0} to {1}".format(what, count), lambda path=path, count=count, what=what: self._reserve(path, count, what))  # type: ignore[misc]
        self._free_hugepages()
        self._file(HUGEPAGES_FILE, "".join(lines))
        usual = re.search(r"^Hugepagesize:\s*(\d+) kB", read_text(self._path("proc/meminfo")) or "", re.MULTILINE)
        for size in sorted(self.spec.hugepages):
            # systemd mounts those of the usual size itself
            if usual is None or size != int(usual.group(1)) * KIB:
                name, content = mount_unit(size)
                self._file("{0}/{1}".format(UNIT_FOLDER, name), content)
                self.units.append(name)
        self._remove_mounts()

    def _free_hugepages(self) -> None:
        """Pages of sizes that are wanted no more are given back. Those that a VM has it keeps, and the kernel takes them when it ends."""
        for path in re.findall(r"^w /(\S+) - - - - \d+$", read_text(self._path(HUGEPAGES_FILE)) or "", re.MULTILINE):
            match = re.search(r"hugepages-(\d+)kB/", path)
            size = int(match.group(1)) * KIB if match else 0
            there = int(read_text(self._path(path)) or 0)
            if size and size not in self.spec.hugepages and there:
                what = "huge pages of {0}".format(format_size(size))
                self.before[what], self.after[what] = there, 0
                self._do("set {0} to 0".format(what), lambda path=path, what=what: self._set(path, "0", what))  # type: ignore[misc]

    def _remove_mounts(self) -> None:
        """Our units for sizes that are wanted no more, with the link by which they are started. A VM may have pages open: what is mounted stays so."""
        for full in sorted(glob.glob(os.path.join(glob.escape(self._path(UNIT_FOLDER)), "dev-hugepages*.mount"))):
            name = os.path.basename(full)
            if name in self.units or not (read_text(full) or "").startswith(_HEADER):
                continue
            self._file("{0}/{1}".format(UNIT_FOLDER, name), "")
            link = self._path("{0}/sysinit.target.wants/{1}".format(UNIT_FOLDER, name))
            if os.path.lexists(link):
                self.steps.append(lambda link=link: os.unlink(link))  # type: ignore[misc]
            self.notes.append("{0} is removed; the pages stay mounted until the next boot".format(name))

    def _reserve(self, path: str, count: int, what: str) -> None:
        """The kernel gives as many as it finds in one piece, which is the fewer the longer it has been running."""
        self._set(path, str(count), what)
        got = int(read_text(self._path(path)) or 0)
        if got < count:
            self.next_boot.append("{0}: {1} of {2} were to be had now".format(what, got, count))
