#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action of this name, which runs on the control node."""
from __future__ import annotations

DOCUMENTATION = r"""
module: host_tls
short_description: Give a host the certificates that libvirt listens for TLS with
version_added: 0.1.0
author: kvmfleet contributors (@kvmfleet)
description:
  - Brings the certificate of an authority, a certificate for the host and its key to where libvirt looks for them.
  - Without O(ca), O(certificate) and O(key), a small authority is made in O(directory) on the control node, the first time, which issues the host's certificate
    and one for clients. Certificates are issued anew when they have less than 60 days left, and when O(names) change.
  - Clients say where theirs are, such as C(qemu+tls://kvm1/system?pkipath=/home/me/.config/kvmfleet/tls). Who has that certificate may do what root may
    on all hosts.
  - Files that others have put on the host are refused, unless O(replace) is set.
  - libvirt reads certificates when it starts, see M(kvmfleet.core.host_daemons).
options:
  state:
    description: V(absent) removes the files from the host if they are from here. The O(directory) stays.
    type: str
    choices: [present, absent]
    default: present
  directory:
    description: Folder on the control node with the authority (C(cacert.pem), C(cakey.pem)) and the clients' certificate (C(clientcert.pem), C(clientkey.pem)).
    type: path
    default: ~/.config/kvmfleet/tls
  ca:
    description: Certificate of an authority on the control node, to use that one's instead.
    type: path
  certificate:
    description: Certificate of the host on the control node, which that authority has issued.
    type: path
  key:
    description: Key of that certificate on the control node.
    type: path
  names:
    description: Names and addresses by which clients know the host. Needed without O(certificate).
    type: list
    elements: str
    default: []
  replace:
    description: Whether files that others have put on the host are replaced.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says what would be done.
  diff_mode:
    support: full
    description: Shows digests of the files, never a key.
  platform:
    support: full
    description: Runs on the control node, and a module on the host.
    platforms: posix
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
seealso:
  - module: kvmfleet.core.host_tls_files
  - module: kvmfleet.core.host_daemons
"""

EXAMPLES = r"""
- name: Certificates of our own authority
  kvmfleet.core.host_tls:
    names: ["{{ inventory_hostname }}", "{{ ansible_host }}"]

- name: Certificates that the company's authority has issued
  kvmfleet.core.host_tls:
    ca: certificates/ca.pem
    certificate: certificates/{{ inventory_hostname }}.pem
    key: certificates/{{ inventory_hostname }}.key
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: ["issue a certificate for kvm1: there is none"]
reason:
  description: Stable key of the failure, such as V(foreign_certificate) or V(invalid_certificate).
  returned: on failure
  type: str
"""
