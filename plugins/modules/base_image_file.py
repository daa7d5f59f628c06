#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One image of the catalog as a volume of a pool."""
from __future__ import annotations

DOCUMENTATION = r"""
module: base_image_file
short_description: Make an image present in a storage pool
version_added: 0.1.0
description:
  - Builds, downloads or copies an image and publishes it as a volume that VMs can be made from.
  - What is under the volume's name is always a whole image whose checksum has been compared. Work goes on under a temporary name in the same folder.
  - The volume's name tells what the image is made of. An image that is present is neither read nor fetched again, and never replaced, because
    disks of VMs are overlays on it.
  - The role P(kvmfleet.core.base_image#role) takes an entry of the catalog C(kvmfleet_images) and calls this module.
author:
  - kvmfleet contributors (@kvmfleet)
extends_documentation_fragment:
  - kvmfleet.core.attributes
  - kvmfleet.core.connection
  - kvmfleet.core.progress
options:
  name:
    description: Name of the image in the catalog, C(name:tag).
    type: str
    required: true
  pool:
    description: Storage pool for the volume. It has to be a folder (type C(dir), C(fs) or C(netfs)).
    type: str
  folder:
    description: Folder for the file instead of a pool, on a machine without libvirt such as the control node. With O(state=present) and O(state=query).
    type: path
  state:
    description:
      - V(present) makes the image present.
      - V(query) only tells whether it is.
      - V(absent) removes it. It is refused while anything needs it, a domain (running or not) or an overlay in any pool, whether a domain has it or not.
      - V(exported) makes the file O(export_to) of it, to be carried to another host.
    type: str
    choices: [present, query, absent, exported]
    default: present
  export_to:
    description: Path of the file for O(state=exported). Whoever gets at its folder can read it. It may be another name of the volume's own file.
    type: path
  source:
    description:
      - V(build) builds a Debian cloud image out of Debian's packages, without downloading any image. Needs root.
      - V(url) downloads an image, V(path) copies a file of the host.
    type: str
    required: true
    choices: [build, url, path]
  url:
    description: Address of the image, with O(source=url). HTTP and HTTPS.
    type: str
  path:
    description: Absolute path of the image on the host, with O(source=path).
    type: str
  checksum:
    description:
      - C(sha256:) or C(sha512:) followed by the digits, or by the URL or absolute path of a list of checksums such as C(SHA256SUMS).
      - Lists of the GNU and the BSD form are understood, also signed ones (C(CHECKSUM) of Fedora). Signatures are not checked.
      - Compared before the image gets its name. Without it a download that breaks off starts from the beginning in the next run.
    type: str
  suite:
    description: Debian release to build, with O(source=build). Default is V(bookworm).
    type: str
  packages:
    description: Packages to put into the image beyond those of a cloud image, with O(source=build).
    type: list
    elements: str
  format:
    description: Format of the volume. An image in the other format is converted.
    type: str
    choices: [qcow2, raw]
    default: qcow2
  volume:
    description: Name of the volume. Default is a name that tells what the image is made of.
    type: str
  mirror:
    description: Debian mirror to build from. Default is that of mmdebstrap.
    type: str
    default: ''
  cache_dir:
    description: Folder on the host that keeps built images, so that one build serves several pools.
    type: path
    default: /var/cache/kvmfleet/images
  timeout:
    description: Seconds that a server may be silent before the download is tried again.
    type: int
    default: 30
  validate_certs:
    description: Whether the certificates of HTTPS servers are checked.
    type: bool
    default: true
  headers:
    description:
      - HTTP headers, such as an authorization. Not shown.
      - Names and values are for the server of O(url). The address of a server (C(https://images.example.com)) with names and values is for that server,
        one that a list of checksums is on, or that O(url) redirects to.
      - No other server gets them, by redirects neither.
    type: dict
notes:
  - Several runs at once for one image wait for each other, and the first one does the work.
seealso:
  - module: kvmfleet.core.vm_disk
"""

EXAMPLES = r"""
- name: Build Debian 12
  kvmfleet.core.base_image_file:
    name: debian:12
    pool: default
    source: build
    suite: bookworm

- name: Download an image and compare it with the list beside it
  kvmfleet.core.base_image_file:
    name: debian:12-official
    pool: default
    source: url
    url: https://images.example.com/debian-12-genericcloud-amd64.qcow2
    checksum: sha512:https://images.example.com/SHA512SUMS

- name: Take an image that was carried to the host
  kvmfleet.core.base_image_file:
    name: rocky:9
    pool: default
    source: path
    path: /srv/images/rocky-9.qcow2

- name: Remove an image that no disk lies on
  kvmfleet.core.base_image_file:
    name: debian:12
    pool: default
    source: build
    suite: bookworm
    state: absent
"""

RETURN = r"""
volume:
  description: Name of the volume.
  returned: success
  type: str
  sample: base-debian-12-0a1b2c3d4e5f.qcow2
pool:
  description: Pool of the volume; null with O(folder).
  returned: success
  type: str
  sample: default
volume_path:
  description: Path of the volume.
  returned: success
  type: str
  sample: /var/lib/libvirt/images/base-debian-12-0a1b2c3d4e5f.qcow2
present:
  description: Whether the image is present after this run.
  returned: success
  type: bool
  sample: true
actions:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: ["build image debian:12 as volume base-debian-12-0a1b2c3d4e5f.qcow2"]
checksum:
  description: The checksum that was compared, null without one; with O(state=exported) that of the file that was made.
  returned: when the image was made, or exported
  type: str
  sample: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
downloaded:
  description: Bytes of the file, bytes that an earlier run had received, and how often the server was asked.
  returned: when the image was made
  type: dict
  sample: {size_bytes: 333447168, resumed_from_bytes: 0, attempts: 1}
format:
  description: Format of the volume.
  returned: when present
  type: str
  sample: qcow2
virtual_size_bytes:
  description: Size of the disk that a VM sees.
  returned: when present
  type: int
  sample: 2147483648
size_bytes:
  description: Size of the file.
  returned: when present
  type: int
  sample: 143785984
seconds:
  description: How long it took.
  returned: success
  type: float
  sample: 61.2
reason:
  description: Stable key of the failure, such as V(download_failed), V(checksum_mismatch), V(no_space), V(unreadable_file),
    V(missing_tool) or V(image_in_use).
  returned: on failure
  type: str
"""

from typing import Any, Dict

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import COMMON_ARGUMENT_SPEC, run_module, run_plain
from ansible_collections.kvmfleet.core.plugins.module_utils._image_download import Access, headers_by_origin
from ansible_collections.kvmfleet.core.plugins.module_utils._image_files import Folder
from ansible_collections.kvmfleet.core.plugins.module_utils._image_publish import Publisher, Settings, Target, image_pool
from ansible_collections.kvmfleet.core.plugins.module_utils._image_stock import remove
from ansible_collections.kvmfleet.core.plugins.module_utils._images import DEFAULT_CACHE, Image, image_from_entry
from ansible_collections.kvmfleet.core.plugins.module_utils._module import PROGRESS_ARGUMENT_SPEC, FleetModule


def _made(module: FleetModule, target: Target, image: Image) -> Dict[str, Any]:
    params = module.params
    access = Access(params["timeout"], params["validate_certs"], headers_by_origin("headers", params["headers"] or {}, image.url))
    publisher = Publisher(target, image, Settings(params["cache_dir"], params["mirror"], access))
    if params["state"] == "exported":
        return publisher.export(params["export_to"], module.check_mode)
    return publisher.run(module.check_mode, query=params["state"] == "query")


def _shown(module: FleetModule, result: Dict[str, Any]) -> Dict[str, Any]:
    if not module._diff:
        del result["diff"]
    return result


def main() -> None:
    """Entry point."""
    module = FleetModule(supports_check_mode=True, argument_spec=dict(
        COMMON_ARGUMENT_SPEC, **PROGRESS_ARGUMENT_SPEC,
        name={"type": "str", "required": True},
        pool={"type": "str"},
        folder={"type": "path"},
        state={"type": "str", "choices": ["present", "query", "absent", "exported"], "default": "present"},
        export_to={"type": "path"},
        source={"type": "str", "required": True, "choices": ["build", "url", "path"]},
        url={"type": "str"},
        path={"type": "str"},
        checksum={"type": "str"},
        suite={"type": "str"},
        packages={"type": "list", "elements": "str"},
        format={"type": "str", "choices": ["qcow2", "raw"], "default": "qcow2"},
        volume={"type": "str"},
        mirror={"type": "str", "default": ""},
        cache_dir={"type": "path", "default": DEFAULT_CACHE},
        timeout={"type": "int", "default": 30},
        validate_certs={"type": "bool", "default": True},
        headers={"type": "dict", "no_log": True},
    ), mutually_exclusive=[("pool", "folder")], required_one_of=[("pool", "folder")], required_if=[
        ("state", "absent", ["pool"]), ("state", "exported", ["pool", "export_to"])])
    params = module.params

    def work(conn: Any) -> Dict[str, Any]:
        image, pool = image_from_entry(params["name"], params), image_pool(conn, params["pool"])
        return _shown(module, remove(conn, params["uri"], pool, image, module.check_mode) if params["state"] == "absent" else _made(module, pool, image))
    if params["folder"]:
        run_plain(module, lambda: _shown(module, _made(module, Folder(params["folder"]), image_from_entry(params["name"], params))))
    else:
        run_module(module, work)


if __name__ == "__main__":
    main()
