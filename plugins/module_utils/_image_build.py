# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a Debian cloud image from Debian's own packages, without a loop device, a mount of the image or a download of an image."""
from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from typing import Callable, Dict, List, Mapping, Sequence, cast

from ansible_collections.kvmfleet.core.plugins.module_utils import _progress
from ansible_collections.kvmfleet.core.plugins.module_utils._image_files import ImageError, part_file, publish, room
from ansible_collections.kvmfleet.core.plugins.module_utils._images import Image, Recipe
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import GIB, MIB

BASE_PACKAGES = (
    "linux-image-cloud-amd64", "initramfs-tools", "zstd", "systemd-sysv", "systemd-resolved", "dbus", "udev", "kmod", "e2fsprogs",
    "cloud-init", "cloud-guest-utils", "fdisk", "netplan.io", "openssh-server", "sudo", "qemu-guest-agent", "iproute2", "iputils-ping",
    "ca-certificates", "less", "procps", "python3",
)

# Drivers of the initial RAM disk, instead of every driver there is: a virtual machine has its root disk on one of these.
_INITRD_MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "nvme", "ext4", "crc32c_generic")

_GRUB_MODULES = ("part_gpt", "ext2", "search", "search_fs_uuid", "normal", "linux", "configfile", "echo", "test", "serial", "terminal", "gzio", "minicmd")

_KERNEL_ARGUMENTS = "ro console=tty0 console=ttyS0,115200 net.ifnames=0"

# Nothing here is needed to serve a login; each is a process or a timer that every boot would pay for.
_MASKED_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "dpkg-db-backup.timer")

_CLOUD_CFG = """\
# Written by kvmfleet.core's image recipe.
datasource_list: [NoCloud, ConfigDrive, None]
# RSA and DSA host keys take long on an emulated CPU, and every SSH client of today knows these two.
ssh_genkeytypes: [ed25519, ecdsa]
# GRUB is part of the image, not a package of the guest: there is nothing to configure.
grub_dpkg: {enabled: false}
ssh: {emit_keys_to_console: false}
locale: C.UTF-8
system_info:
  default_user:
    name: debian
    gecos: Debian
    lock_passwd: true
    groups: [adm, sudo]
    sudo: ["ALL=(ALL) NOPASSWD:ALL"]
    shell: /bin/bash
  network:
    renderers: [netplan]
"""

_FILES: Dict[str, str] = {
    "etc/cloud/cloud.cfg.d/90_kvmfleet.cfg": _CLOUD_CFG,
    "etc/hostname": "localhost\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    "etc/machine-id": "",
}

_GRUB_CFG = """\
serial --unit=0 --speed=115200
terminal_output serial console
linux /vmlinuz root=UUID={fs_uuid} {arguments}
initrd /initrd.img
boot
"""


# tool -> Debian package
TOOLS: Mapping[str, str] = {
    "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "sfdisk": "fdisk", "grub-mkimage": "grub-common", "mkfs.vfat": "dosfstools",
    "mcopy": "mtools", "qemu-img": "qemu-utils",
}
_GRUB_DIR = "/usr/lib/grub/i386-pc"
# Keys of Debian's archive. They are named to apt: on Ubuntu it does not trust them by itself.
_KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp")


def _environment() -> Dict[str, str]:
    """What tools see: the way out (proxies), and nothing of the caller's settings, which would end up in the image."""
    kept = {name: value for name, value in os.environ.items() if name.lower() in ("http_proxy", "https_proxy", "no_proxy", "tmpdir")}
    return dict(kept, LC_ALL="C.UTF-8", HOME="/root", PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")


def _run(argv: Sequence[str], what: str, text: str = "") -> None:
    done = subprocess.run(list(argv), input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment(), check=False)
    if done.returncode:
        tail = "\n".join(done.stdout.decode("utf-8", "replace").strip().splitlines()[-12:])
        raise ImageError("{0} failed (exit code {1}): {2}".format(what, done.returncode, tail), "build_failed")


def missing_tools() -> List[str]:
    """Debian packages that are not there and without which no image can be built."""
    path = _environment()["PATH"]
    missing = {package for tool, package in TOOLS.items() if not shutil.which(tool, path=path)}
    missing.update(package for package, folder in (("grub-pc-bin", _GRUB_DIR), ("grub-efi-amd64-bin", "/usr/lib/grub/x86_64-efi")) if not os.path.isdir(folder))
    if not any(os.path.exists(path) for path in _KEYRINGS):
        missing.add("debian-archive-keyring")
    return sorted(missing)


def _write(path: str, content: str, mode: int = 0o644) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.islink(path):
        os.unlink(path)
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(content)
    os.chmod(path, mode)


def _overlay(folder: str) -> None:
    """Files that have to be in place before the packages are configured: the initial RAM disk is made then."""
    _write(os.path.join(folder, "etc/initramfs-tools/conf.d/virtual-machine"), "MODULES=list\nRESUME=none\n")
    _write(os.path.join(folder, "usr/share/initramfs-tools/modules.d/virtual-machine"), "".join(m + "\n" for m in _INITRD_MODULES))


def _debootstrap(recipe: Recipe, mirror: str, work: str, root: str) -> None:
    overlay = os.path.join(work, "overlay")
    _overlay(overlay)
    argv = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory",
            "--include=" + ",".join(BASE_PACKAGES + recipe.packages),
            "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
            "--dpkgopt=path-include=/usr/share/locale/locale.alias",
            "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            "--aptopt=Acquire::Retries \"3\"", "--keyring=" + next(path for path in _KEYRINGS if os.path.exists(path)),
            "--essential-hook=copy-in {0}/etc {0}/usr /".format(overlay),
            recipe.suite, root]
    if mirror:
        argv.append(mirror)
    _run(argv, "mmdebstrap")


def _generalise(root: str, fs_uuid: str) -> None:
    """Make the tree a template: no identity of its own, no timers, a boot menu without a menu."""
    for name, content in _FILES.items():
        _write(os.path.join(root, name), content)
    _write(os.path.join(root, "etc/fstab"), "UUID={0} / ext4 rw,discard,errors=remount-ro 0 1\n".format(fs_uuid))
    ssh = os.path.join(root, "etc/ssh")
    for name in os.listdir(ssh):
        if name.startswith("ssh_host_"):
            os.unlink(os.path.join(ssh, name))
    for name in ("var/lib/dbus/machine-id", "etc/resolv.conf", "var/lib/systemd/random-seed"):
        path = os.path.join(root, name)
        if os.path.lexists(path):
            os.unlink(path)
    os.symlink("../run/systemd/resolve/stub-resolv.conf", os.path.join(root, "etc/resolv.conf"))
    for unit in _MASKED_UNITS:
        path = os.path.join(root, "etc/systemd/system", unit)
        if not os.path.lexists(path):
            os.symlink("/dev/null", path)
    _write(os.path.join(root, "boot/grub/grub.cfg"), _GRUB_CFG.format(fs_uuid=fs_uuid, arguments=_KERNEL_ARGUMENTS))


_SECTOR = 512
_SIZE = 2 * GIB
_BIOS_START, _EFI_START, _ROOT_START = 1 * MIB, 2 * MIB, 16 * MIB
_EFI_SIZE = _ROOT_START - _EFI_START


def _partition(raw: str, size: int) -> None:
    """A GPT whose last partition on the disk is the root file system, so that growpart can grow it."""
    with open(raw, "wb") as handle:
        handle.truncate(size)
    root_sectors = (size - _ROOT_START - MIB) // _SECTOR
    table = [
        "label: gpt", "unit: sectors",
        "1 : start={0} size={1} type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709".format(_ROOT_START // _SECTOR, root_sectors),
        "14 : start={0} size={1} type=21686148-6449-6E6F-744E-656564454649".format(_BIOS_START // _SECTOR, MIB // _SECTOR),
        "15 : start={0} size={1} type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B".format(_EFI_START // _SECTOR, _EFI_SIZE // _SECTOR),
    ]
    _run(["sfdisk", "--quiet", raw], "sfdisk", "\n".join(table) + "\n")


def _boot_loaders(raw: str, fs_uuid: str, work: str) -> None:
    """GRUB for BIOS (boot sector and BIOS boot partition) and for UEFI (removable-media path), both reading the root's grub.cfg."""
    config = os.path.join(work, "early.cfg")
    _write(config, "search.fs_uuid {0} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n".format(fs_uuid))
    core, efi = os.path.join(work, "core.img"), os.path.join(work, "BOOTX64.EFI")
    _run(["grub-mkimage", "-O", "i386-pc", "-p", "/boot/grub", "-c", config, "-o", core, "biosdisk"] + list(_GRUB_MODULES), "grub-mkimage for BIOS")
    _run(["grub-mkimage", "-O", "x86_64-efi", "-p", "/boot/grub", "-c", config, "-o", efi] + list(_GRUB_MODULES), "grub-mkimage for UEFI")
    with open(os.path.join(_GRUB_DIR, "boot.img"), "rb") as handle:
        boot = bytearray(handle.read(_SECTOR))
    with open(core, "rb") as handle:
        loader = bytearray(handle.read())
    if len(loader) > MIB:
        raise ImageError("GRUB's core image has {0} bytes and does not fit the BIOS boot partition".format(len(loader)), "build_failed")
    # GRUB's documented places: the boot sector holds the sector of core.img, and core.img's first sector that of its own second one.
    first = _BIOS_START // _SECTOR
    boot[0x5C:0x64] = first.to_bytes(8, "little")
    loader[0x1F4:0x1FC] = (first + 1).to_bytes(8, "little")
    with open(raw, "r+b") as handle:
        handle.write(boot[:440])
        handle.seek(_BIOS_START)
        handle.write(loader)
    fat = os.path.join(work, "esp.img")
    with open(fat, "wb") as handle:
        handle.truncate(_EFI_SIZE)
    _run(["mkfs.vfat", "-F", "16", "-n", "ESP", fat], "mkfs.vfat")
    _run(["mmd", "-i", fat, "::EFI", "::EFI/BOOT"], "mmd")
    _run(["mcopy", "-i", fat, efi, "::EFI/BOOT/BOOTX64.EFI"], "mcopy")
    with open(fat, "rb") as source, open(raw, "r+b") as target:
        target.seek(_EFI_START)
        shutil.copyfileobj(source, target)


def build(recipe: Recipe, target: str, mirror: str = "", say: Callable[[str], None] = lambda text: None) -> None:
    """Write the image of a recipe to C(target) as qcow2. Needs root and 3 GiB of room in the folder of C(target).

    :param mirror: address of a Debian mirror; empty for mmdebstrap's default
    :param say: called with each step
    Raises ImageError; whatever happens, nothing but C(target) is left behind.
    """
    missing = missing_tools()
    if missing and not shutil.which("apt-get", path=_environment()["PATH"]):
        raise ImageError("Images are built on Debian and Ubuntu only. Build it on such a host first, which then lends it to this one, "
                         "or use an image with source: url", "missing_tool")
    if missing:
        raise ImageError("To build an image, packages are missing: {0}. Run: apt-get install --no-install-recommends {1}".format(
            ", ".join(missing), " ".join(missing)), "missing_tool")
    if os.geteuid():
        raise ImageError("Building an image needs root, because it writes files of many owners. Add become: true", "not_root")
    work = tempfile.mkdtemp(prefix=".build-", dir=os.path.dirname(target))
    try:
        fs_uuid = str(uuid.uuid4())
        root, raw = os.path.join(work, "root"), os.path.join(work, "disk.raw")
        say("installing the packages")
        _debootstrap(recipe, mirror, work, root)
        say("writing the file system")
        _generalise(root, fs_uuid)
        _partition(raw, _SIZE)
        _run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "rootfs", "-U", fs_uuid, "-O", "^metadata_csum_seed", "-m", "1", "-d", root,
              "-E", "offset={0},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0".format(_ROOT_START),
              raw, "{0}k".format((_SIZE - _ROOT_START - MIB) // 1024)], "mke2fs")
        _boot_loaders(raw, fs_uuid, work)
        say("compressing it")
        _run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-W", "-m", "4", "-o", "compression_type=zstd", raw, target], "qemu-img convert")
    finally:
        shutil.rmtree(work)


def cached(image: Image, cache_dir: str, mirror: str = "") -> str:
    """The path of a built image in the cache, built now if it is not there. Raises ImageError."""
    os.makedirs(cache_dir, mode=0o755, exist_ok=True)
    path = os.path.join(cache_dir, image.volume_name())
    with part_file(path) as part:
        try:
            if not os.path.exists(path):
                with room("build image {0}".format(image.name), path):
                    build(cast(Recipe, image.recipe), part.name, mirror, lambda text: _progress.say(image.name, "building: {0}".format(text)))
                    # qemu-img has written into this very file, so that the lock has been on it all the time
                    publish(part, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part.name)
    return path
