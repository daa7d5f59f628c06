#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's TLS files on a host."""
from __future__ import annotations

DOCUMENTATION = r"""
module: host_tls_files
short_description: Write or remove the certificates that libvirt listens for TLS with
version_added: 0.1.0
description:
  - Writes the certificate of the authority, the server's certificate and its key to where libvirt looks for them
    (C(/etc/pki/CA/cacert.pem), C(/etc/pki/libvirt/servercert.pem), C(/etc/pki/libvirt/private/serverkey.pem)).
  - Files that others have put there are neither replaced, unless O(replace) is set, nor removed.
  - M(kvmfleet.core.host_tls) issues certificates and calls it. libvirt reads them when it starts, see M(kvmfleet.core.host_daemons).
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes
options:
  ca:
    description: Certificate of the authority, in PEM form.
    type: str
  certificate:
    description: Certificate of the host, in PEM form.
    type: str
  key:
    description: Key of the certificate, in PEM form, without a password.
    type: str
  replace:
    description: Whether files that others have put there are replaced.
    type: bool
    default: false
  state:
    description:
      - V(present) writes the files, for which O(ca), O(certificate) and O(key) are needed.
      - V(absent) removes them, if they are from here.
      - V(query) tells what there is, and changes nothing.
    type: str
    choices: [present, absent, query]
    default: present
seealso:
  - module: kvmfleet.core.host_tls
"""

EXAMPLES = r"""
- name: Look which certificates libvirt has
  kvmfleet.core.host_tls_files:
    state: query
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [write /etc/pki/libvirt/servercert.pem]
ca:
  description: The authority's certificate that is there.
  returned: for O(state=query)
  type: str
certificate:
  description: The host's certificate that is there.
  returned: for O(state=query)
  type: str
key_fits:
  description: Whether the key that is there is the certificate's.
  returned: for O(state=query)
  type: bool
foreign:
  description: Files that others have put there.
  returned: for O(state=query)
  type: list
  elements: str
reason:
  description: Stable key of the failure, such as V(foreign_certificate).
  returned: on failure
  type: str
"""

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import fail_from
from ansible_collections.kvmfleet.core.plugins.module_utils._host_tls import FILES, TlsFiles
from ansible_collections.kvmfleet.core.plugins.module_utils._module import FleetModule
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError


def main() -> None:
    """Entry point."""
    module = FleetModule(supports_check_mode=True, required_if=[("state", "present", ("ca", "certificate", "key"))], argument_spec=dict(
        ca={"type": "str"},
        certificate={"type": "str"},
        key={"type": "str", "no_log": True},
        replace={"type": "bool", "default": False},
        state={"type": "str", "choices": ["present", "absent", "query"], "default": "present"},
    ))
    params = module.params
    try:
        files = TlsFiles()
        if params["state"] == "query":
            result = files.query()
        elif params["state"] == "absent":
            result = files.absent(module.check_mode)
        else:
            result = files.present({name: params[name] for name in FILES}, params["replace"], module.check_mode)
    except SpecError as exc:
        fail_from(module, exc)
    if not module._diff:
        result.pop("diff", None)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
