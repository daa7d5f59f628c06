# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let cloud-init's own code read a seed, and print as JSON what a guest would make of it.

Run by test_seed_cloud_init.py with the system's Python, whose PYTHONPATH names an unpacked cloud-init:
C(cloud_init_probe.py DATASOURCE DIRECTORY MACS), where DIRECTORY/cloud/seed/... holds the documents. Nothing outside DIRECTORY is written.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
from unittest import mock

from cloudinit import net, sources, stages, util
from cloudinit.config import schema
from cloudinit.distros import rhel, ug_util
from cloudinit.net import eni, netplan, network_manager, network_state, networkd, sysconfig

RENDERERS = {
    "eni": eni.Renderer,
    "netplan": netplan.Renderer,
    "networkd": networkd.Renderer,
    "sysconfig": sysconfig.Renderer,
    "network-manager": network_manager.Renderer,
}


def tree(top):
    """All files below a directory, path to text."""
    found = {}
    for where, _dirs, names in os.walk(top):
        for name in names:
            path = os.path.join(where, name)
            with open(path, encoding="utf-8") as stream:
                found[os.path.relpath(path, top)] = stream.read()
    return found


def render(config, top):
    """The files that each of cloud-init's network renderers writes."""
    rendered = {}
    for name, renderer in RENDERERS.items():
        target = os.path.join(top, "net-" + name)
        os.makedirs(target)
        # The renderers' own default paths are relative; those of the distributions are not, and would be written to this machine.
        settings = dict(rhel.Distro.renderer_configs["sysconfig"]) if name == "sysconfig" else {}
        with mock.patch.object(netplan.Renderer, "_netplan_generate"), mock.patch.object(netplan.Renderer, "_net_setup_link"):
            renderer(settings).render_network_state(network_state.parse_net_config_data(copy.deepcopy(config)), target=target)
        rendered[name] = tree(target)
    return rendered


def main(datasource, top, macs):
    """Fetch, consume and render, as cloud-init's stages do."""
    records = []
    keeper = logging.Handler(logging.WARNING)
    keeper.emit = lambda record: records.append(record.getMessage())
    logging.getLogger().addHandler(keeper)
    logging.getLogger().setLevel(logging.WARNING)
    paths = {"cloud_dir": os.path.join(top, "cloud"), "run_dir": os.path.join(top, "run"), "templates_dir": os.path.join(top, "templates")}
    init = stages.Init(ds_deps=[sources.DEP_FILESYSTEM])
    config = {
        "datasource_list": [datasource],
        "datasource": {datasource: {"fs_label": None}},
        "users": ["default"],
        "system_info": {"distro": "debian", "default_user": {"name": "debian"}, "paths": paths},
    }
    by_mac = {mac: "enp{0}s0".format(number + 1) for number, mac in enumerate(macs)}
    with mock.patch.object(init, "_read_cfg", return_value=config), mock.patch.object(
        net, "get_interfaces_by_mac", return_value=by_mac
    ), mock.patch.object(network_state, "get_interfaces_by_mac", return_value=by_mac), mock.patch.object(
        network_state, "find_interface_name_from_mac", by_mac.get, create=True
    ), mock.patch("cloudinit.dmi.read_dmi_data", return_value=None):
        init._initialize_filesystem()
        source = init.fetch(existing="check")
        init.instancify()
        init.consume_data()
        merged = os.path.join(init.paths.get_ipath_cur(), "cloud-config.txt")
        config = util.load_yaml(util.load_file(merged), default={}) if os.path.exists(merged) else {}
        network = source.network_config
        rendered = render(network, top) if network else {}
    users, _groups = ug_util.normalize_users_groups(dict({"users": ["default"]}, **copy.deepcopy(config)), init.distro)
    problems = []
    try:
        schema.validate_cloudconfig_schema(config, schema.get_schema(), strict=True)
    except schema.SchemaValidationError as exc:
        problems.append(str(exc))
    json.dump(
        {
            "instance_id": source.get_instance_id(),
            "hostname": source.get_hostname().hostname,
            "fqdn": source.get_hostname(fqdn=True).hostname,
            "keys": source.get_public_ssh_keys(),
            "config": config,
            "users": users,
            "scripts": tree(init.paths.get_ipath("scripts")),
            "network": network,
            "rendered": rendered,
            "schema_errors": problems,
            "warnings": records,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
