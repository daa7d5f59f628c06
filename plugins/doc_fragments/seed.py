# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the seed options, written once for cloudinit_seed and for C(vms[].seed) of vm_set."""
from __future__ import annotations

import textwrap

SEED_OPTIONS_DOC = r"""
format:
  description:
    - V(nocloud) makes an image with volume label C(cidata) that cloud-init's NoCloud datasource reads.
    - V(config_drive) makes OpenStack's config drive, volume label C(config-2).
  type: str
  choices: [nocloud, config_drive]
  default: nocloud
instance_id:
  description:
    - What cloud-init knows the guest by. A guest that sees a new one configures itself from scratch.
    - At most 53 letters, digits and C(. _ -).
  type: str
hostname:
  description: Host name of the guest, one label.
  type: str
fqdn:
  description: Host name of the guest with its domain. Its first label has to be C(hostname), where that is given.
  type: str
default_user:
  description: Whether the image's own user (C(debian), C(ubuntu), C(cloud-user), ...) is there too.
  type: bool
  default: true
ssh_keys:
  description:
    - OpenSSH public keys for the image's own user.
    - An item may be the content of a whole C(authorized_keys) file. Each key's type and body are checked.
  type: list
  elements: str
users:
  description: Accounts that the guest gets.
  type: list
  elements: dict
  suboptions:
    name:
      description: Login name.
      type: str
      required: true
    gecos:
      description: Full name.
      type: str
    groups:
      description: Additional groups, which are made where they do not exist.
      type: list
      elements: str
    primary_group:
      description: Primary group instead of one of the user's own name.
      type: str
    uid:
      description: Numeric user ID.
      type: int
    system:
      description: Whether it is a system account (without a home directory).
      type: bool
    shell:
      description: Login shell, an absolute path.
      type: str
    homedir:
      description: Home directory, an absolute path.
      type: str
    sudo:
      description:
        - V(true) for everything without a password, V(false) for none, or one or more rules as in C(/etc/sudoers).
      type: raw
    ssh_authorized_keys:
      description: OpenSSH public keys that may log in.
      type: list
      elements: str
    password:
      description:
        - Password in plain text. It stands in the seed and, until the guest's first boot is over, in the guest.
          Prefer the hash.
      type: str
    password_hash:
      description: Password as a crypt(5) hash, such as C(mkpasswd -m sha-512) prints.
      type: str
    lock_passwd:
      description: Whether logging in by password is impossible. By default it is, unless a password is given.
      type: bool
root_password:
  description: Password of C(root), in plain text or as a crypt(5) hash such as C($6$...).
  type: str
ssh_pwauth:
  description: Whether the SSH server accepts passwords. By default it is left as the image has it.
  type: bool
disable_root:
  description: Whether C(root) is kept from logging in by the SSH keys given. cloud-init's default is V(true).
  type: bool
packages:
  description: Packages to install at first boot, each a name (or what the guest's package manager takes for one).
  type: list
  elements: str
package_update:
  description: Whether the guest's package lists are updated first.
  type: bool
package_upgrade:
  description: Whether all packages are upgraded at first boot.
  type: bool
write_files:
  description: Files that the guest writes at first boot.
  type: list
  elements: dict
  suboptions:
    path:
      description: Absolute path in the guest.
      type: str
      required: true
    content:
      description: Content, encoded as C(encoding) says.
      type: str
    encoding:
      description: How C(content) is encoded.
      type: str
      choices: [plain, base64, gzip+base64]
      default: plain
    owner:
      description: Owner as C(user) or C(user:group). By default C(root:root).
      type: str
    permissions:
      description: Octal mode in quotes with a leading zero, such as V('0600'). By default C(0644).
      type: str
    append:
      description: Whether the content is appended to an existing file.
      type: bool
    defer:
      description: Whether the file is written only after users and packages are there.
      type: bool
bootcmd:
  description: Commands that run early at B(every) boot, each a shell line or a list of words.
  type: list
  elements: raw
runcmd:
  description: Commands that run once, late in the first boot, each a shell line or a list of words.
  type: list
  elements: raw
timezone:
  description: Time zone name, such as V(Europe/Berlin).
  type: str
locale:
  description: Locale, such as V(en_US.UTF-8).
  type: str
growpart:
  description: Whether root partition and file system grow to the disk's size. cloud-init's default is to grow them.
  type: bool
manage_etc_hosts:
  description: Whether cloud-init keeps the guest's own names in its C(/etc/hosts).
  type: bool
network:
  description:
    - Addresses of the guest per MAC.
    - On a config drive this becomes OpenStack's C(network_data.json), which has no metrics and only the first NIC's name servers apart.
  type: list
  elements: dict
  suboptions:
    mac:
      description: MAC address of the NIC.
      type: str
      required: true
    name:
      description: Name that the interface gets in the guest. By default it keeps its own.
      type: str
    dhcp4:
      description: Whether an IPv4 address is asked for by DHCP. By default it is where neither addresses nor DHCPv6 are given.
      type: bool
    dhcp6:
      description: Whether an IPv6 address is asked for by DHCP.
      type: bool
    addresses:
      description: Addresses with prefix length, such as V(192.0.2.10/24).
      type: list
      elements: str
    gateway:
      description: Default gateway, which has to be within the subnet of one of the addresses.
      type: str
    nameservers:
      description: Addresses of name servers.
      type: list
      elements: str
    search:
      description: Domains to search for names.
      type: list
      elements: str
    routes:
      description: Further routes.
      type: list
      elements: dict
      suboptions:
        to:
          description: Destination network, or V(default).
          type: str
          required: true
        via:
          description: Address of the router.
          type: str
          required: true
        metric:
          description: Metric of the route.
          type: int
    mtu:
      description: MTU of the interface.
      type: int
network_config:
  description:
    - The network document itself instead of C(network), network configuration version 1 or 2.
    - With C(format=config_drive) it has to be the content of OpenStack's C(network_data.json).
  type: dict
meta_data:
  description:
    - Further meta-data. Its keys win over those that the options make.
    - An C(instance-id) (or C(uuid), on a config drive) in it is the same as C(instance_id).
  type: dict
user_data:
  description:
    - User data as cloud-init takes it, beginning with V(#cloud-config), V(#!) and the path of an interpreter, V(#include),
      V(#cloud-boothook), C(## template:) jinja or the like, or a MIME multipart message. Anything else is refused.
    - Given together with options that need a cloud-config document of their own, both become parts of one MIME message. Lists
      of both then join (the options' items come first), mappings merge, and of a single value that both give, that of C(user_data) stays.
    - A cloud-config document has to be a YAML mapping. It is parsed where PyYAML is at hand.
  type: str
"""


class ModuleDocFragment:
    """Options of a cloud-init seed."""

    DOCUMENTATION: str = "options:\n" + textwrap.indent(SEED_OPTIONS_DOC.strip("\n"), "  ") + "\n"
