# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of a VM's options, written once for vm_domain and for the items of vm_set."""
from __future__ import annotations

import textwrap

from ansible_collections.kvmfleet.core.plugins.doc_fragments.seed import SEED_OPTIONS_DOC

DISK_DOC = r"""
name:
  description:
    - Name of the disk within the VM, by which a later run recognises it.
    - Default is C(root) for the first one, else C(disk1), C(disk2) and so on.
  type: str
pool:
  description: Storage pool of the volume.
  type: str
volume:
  description: Name of an existing volume in the pool, which stays the user's own.
  type: str
path:
  description: Absolute path of an existing file or block device on the host; empty for a drive without a medium.
  type: str
format:
  description: Format of the disk. Default is what the pool says of the volume.
  type: str
  choices: [qcow2, raw]
device:
  description: Kind of device.
  type: str
  choices: [disk, cdrom, floppy]
  default: disk
bus:
  description: Bus of the device. Default is C(virtio) for disks, and what the machine type has for other drives.
  type: str
  choices: [virtio, scsi, sata, ide, usb, fdc]
readonly:
  description: Whether the guest can only read it.
  type: bool
serial:
  description: Serial number that the guest sees.
  type: str
cache:
  description: Cache mode of QEMU.
  type: str
  choices: [default, none, writethrough, writeback, directsync, unsafe]
discard:
  description: Whether the guest's discards free room on the host.
  type: str
  choices: [ignore, unmap]
io:
  description: How QEMU does the I/O.
  type: str
  choices: [native, threads, io_uring]
delete_with_vm:
  description: Whether an existing volume given by O(ignore:volume) is deleted with the VM.
  type: bool
  default: false
"""

NEW_DISK_DOC = r"""
size:
  description:
    - Virtual size of a volume that is made with the VM and deleted with it, such as V(20GiB). It only ever grows.
    - Default with an image is the image's size.
  type: str
default_size:
  description:
    - Virtual size of a volume that is made with a new VM, where O(ignore:size) is not given.
    - A volume that exists keeps its size, and a VM that exists without this disk does not get it.
  type: str
image:
  description: Volume (or absolute path) of the image that the new volume is made from.
  type: str
image_pool:
  description: Storage pool of the image. Default is the disk's own.
  type: str
clone:
  description: Whether the new volume is an overlay on the image, or its full copy.
  type: str
  choices: [overlay, full]
  default: overlay
reserve:
  description: What is counted for the disk in the pool's capacity. Default is its virtual size.
  type: str
"""

NIC_DOC = r"""
network:
  description: libvirt network to attach to.
  type: str
bridge:
  description: Bridge of the host to attach to; an Open vSwitch bridge is recognised by itself.
  type: str
direct:
  description: Network device of the host to attach to by macvtap.
  type: str
mode:
  description: Mode of macvtap. Default is V(bridge).
  type: str
  choices: [bridge, vepa, private, passthrough]
model:
  description: Model of the NIC. Default for a new one is V(virtio).
  type: str
  choices: [virtio, e1000e, e1000, rtl8139]
mac:
  description: MAC address. Default for a new NIC is one made of the VM's name, so that it is the same each time.
  type: str
vlan:
  description: VLAN tag; works on Open vSwitch bridges and networks, which libvirt can tag on.
  type: int
mtu:
  description: MTU in bytes.
  type: int
filter:
  description: libvirt network filter; empty removes it.
  type: str
queues:
  description: Number of virtio queues.
  type: int
link:
  description: State of the link.
  type: str
  choices: [up, down]
"""

ADDRESS_DOC = r"""
addresses:
  description: Static addresses with prefix length, such as V(192.0.2.10/24). They reach the guest by its seed. Without any it uses DHCP.
  type: list
  elements: str
gateway:
  description: Default gateway, inside the subnet of one of the addresses.
  type: str
nameservers:
  description: Addresses of name servers.
  type: list
  elements: str
search:
  description: Domains to search for short names.
  type: list
  elements: str
routes:
  description: Further routes.
  type: list
  elements: dict
  suboptions:
    to:
      description: Destination network.
      type: str
      required: true
    via:
      description: Address of the router.
      type: str
      required: true
    metric:
      description: Metric of the route.
      type: int
"""

VM_DOC = r"""
name:
  description:
    - Name of the domain.
    - For a new one a host name label (RFC 1123) in lower case, or C(name.namespace.group).
  type: str
  required: true
uuid:
  description: UUID of a new domain; it never changes later. Default is a random one.
  type: str
state:
  description:
    - V(present) defines the VM and leaves its power state as it is.
    - V(running), V(stopped) and V(paused) also bring it into that state; V(restarted) shuts it down and starts it each time.
    - V(absent) stops it by pulling the plug, deletes exactly the volumes that its metadata lists, and undefines it.
  type: str
  choices: [present, running, stopped, paused, restarted, absent]
  default: present
description:
  description: A text for people.
  type: str
anti_affinity:
  description:
    - VMs, by name or by label as C(key=value), that must not be on the same host. Kept in the metadata for placement; this module itself places nothing.
  type: list
  elements: str
labels:
  description: Labels of the VM, kept in its metadata.
  type: dict
vcpus:
  description: Number of virtual CPUs. Default for a new VM is 1.
  type: int
max_vcpus:
  description: How many virtual CPUs it can have without a restart.
  type: int
topology:
  description: CPU topology; the product is O(ignore:max_vcpus).
  type: dict
  suboptions:
    sockets:
      description: Number of sockets.
      type: int
      default: 1
    cores:
      description: Cores per socket.
      type: int
      default: 1
    threads:
      description: Threads per core.
      type: int
      default: 1
memory:
  description: Memory with its unit, such as V(2GiB). Default for a new VM is C(1GiB).
  type: str
max_memory:
  description: How much memory it can have without a restart.
  type: str
cpu:
  description: CPU model. Default for a new VM is V(host-model) with KVM and V(maximum) without.
  type: dict
  suboptions:
    mode:
      description: How the model is chosen.
      type: str
      choices: [host-passthrough, host-model, maximum, custom]
    model:
      description: Name of the model with V(custom).
      type: str
    features:
      description: Features to add or to take away.
      type: list
      elements: dict
      suboptions:
        name:
          description: Name of the feature.
          type: str
          required: true
        policy:
          description: What becomes of it.
          type: str
          choices: [require, optional, disable, forbid, force]
          default: require
machine:
  description: Machine type. Default for a new VM is C(q35), C(virt) on aarch64.
  type: str
arch:
  description: Architecture of the guest. Default is C(x86_64).
  type: str
  choices: [x86_64, i686, aarch64]
virt_type:
  description:
    - Virtualisation type. V(auto) takes what M(kvmfleet.core.virt_probe) found to work, else what libvirt offers.
    - Default for a new VM is V(auto).
  type: str
  choices: [auto, kvm, qemu]
firmware:
  description: Firmware. Default for a new VM is V(bios), V(efi) on aarch64.
  type: str
  choices: [bios, efi]
secure_boot:
  description: Whether UEFI checks signatures.
  type: bool
tpm:
  description: Whether the VM has an emulated TPM 2.0.
  type: bool
boot:
  description: Order in which devices are tried. Default for a new VM is V(hd).
  type: list
  elements: str
  choices: [hd, cdrom, network, floppy]
graphics:
  description: Graphical console. Default for a new VM is none.
  type: dict
  suboptions:
    type:
      description: Protocol.
      type: str
      choices: [none, vnc, spice]
      default: none
    listen:
      description: Address the console listens on.
      type: str
      default: 127.0.0.1
    port:
      description: Port; default is a free one.
      type: int
    password:
      description: Password of the console.
      type: str
serial_console:
  description: Whether the VM has a serial console. Default for a new VM is true.
  type: bool
agent:
  description: Whether the VM has a channel for the QEMU guest agent. Default for a new VM is true.
  type: bool
rng:
  description: Whether the VM has a virtio random number generator. Default for a new VM is true.
  type: bool
autostart:
  description: Whether the VM starts with the host.
  type: bool
purge_disks:
  description: Whether disks that O(ignore:disks) does not name are detached. Volumes made with the VM stay listed as its own, and go with it.
  type: bool
  default: false
purge_nics:
  description: Whether NICs that O(ignore:nics) does not name are detached.
  type: bool
  default: false
adopt:
  description: Whether an existing domain without our metadata may be taken over.
  type: bool
  default: false
allow_restart:
  description: Whether the VM may be restarted for changes that cannot be made in the running guest.
  type: bool
  default: false
force:
  description: Whether the plug is pulled where the guest does not shut down in time.
  type: bool
  default: false
delete_disks:
  description: Whether V(absent) also deletes the disks that are listed in the VM's metadata. The seed is deleted in any case.
  type: bool
  default: true
shutdown_timeout:
  description: Seconds a guest may take to shut down.
  type: int
  default: 120
timeout:
  description:
    - Seconds a guest may take to follow a change while it runs, such as letting go of a disk.
    - What it has not followed by then waits for its restart, is returned as C(restart_required) by every run, and is not tried again.
  type: int
  default: 60
"""

SET_DOC = r"""
group:
  description: Tenant group the VM belongs to.
  type: str
namespace:
  description: Subdivision of the group.
  type: str
set:
  description: Name of the set of VMs it was made with.
  type: str
index:
  description: Its number in the set.
  type: int
image:
  description: Name of its image in the catalog; for information only.
  type: str
flavor:
  description: Name of its flavor; for information only.
  type: str
key_name:
  description: Name of the SSH key it was made with; for information only.
  type: str
vcpus_request:
  description: Virtual CPUs counted for it, such as V(500m). Default is what it may use.
  type: str
memory_request:
  description: Memory counted for it. Default is what it may use.
  type: str
scaling:
  description:
    - What is to be kept of an act of scaling the set that the VM is the first member of; the playbook C(scale_vm) writes it.
    - A compare-and-set under the VM's lock - where the last act kept is not O(ignore:scaling.expect), the VM is refused with C(scaled_meanwhile).
  type: dict
  suboptions:
    expect:
      description: Ticket of the last act kept; empty where none is.
      type: str
      default: ""
    ticket:
      description: Random value of the run that acts, in hexadecimal digits. Empty, nothing is kept any more.
      type: str
      default: ""
    at:
      description: When it acted, such as C(2026-01-31T12:00:00Z). Default is now, by the host's clock.
      type: str
    open:
      description: Whether the run has not ended yet.
      type: bool
      default: false
    acting:
      description: Digests of the alerts that it acts on.
      type: list
      elements: str
      default: []
    alerts:
      description: Digests of the alerts that were acted on.
      type: list
      elements: str
      default: []
default_vcpus:
  description: Virtual CPUs of a VM that does not exist yet, where O(ignore:vcpus) is not given. One that exists keeps what it has.
  type: int
default_memory:
  description: Memory of a VM that does not exist yet, where O(ignore:memory) is not given. One that exists keeps what it has.
  type: str
"""


def _suboptions(name: str, description: str, *parts: str, **extra: str) -> str:
    """One option of list or dict type with its suboptions."""
    lines = ["{0}:".format(name), "  description: {0}".format(description)]
    lines.extend("  {0}: {1}".format(key, value) for key, value in extra.items())
    lines.append("  suboptions:")
    return "\n".join(lines) + "\n" + "".join(textwrap.indent(part.strip("\n") + "\n", "    ") for part in parts)


def _document(*parts: str) -> str:
    return "options:\n" + "".join(textwrap.indent(part.strip("\n") + "\n", "  ") for part in parts)


class ModuleDocFragment:
    """The options of one VM."""

    DOCUMENTATION: str = _document(
        VM_DOC,
        _suboptions("disks", "Disks of the VM, the one to boot from first.", DISK_DOC, type="list", elements="dict"),
        _suboptions("nics", "Network interfaces of the VM.", NIC_DOC, type="list", elements="dict"))

    SET: str = _document(_suboptions(
        "vms", "The VMs.", VM_DOC, SET_DOC,
        _suboptions("disks", "Disks of the VM, the one to boot from first.", DISK_DOC, NEW_DISK_DOC, type="list", elements="dict"),
        _suboptions("nics", "Network interfaces of the VM.", NIC_DOC, ADDRESS_DOC, type="list", elements="dict"),
        _suboptions("default_nics", "Network interfaces of a VM that does not exist yet, where O(ignore:nics) is not given. One that exists keeps its own.",
                    NIC_DOC, ADDRESS_DOC, type="list", elements="dict"),
        _suboptions("seed", "The cloud-init seed that configures the guest at its first boot.", SEED_OPTIONS_DOC.replace("O(", "O(ignore:"), type="dict"),
        type="list", elements="dict", required="true"))
