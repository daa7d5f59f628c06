# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real cloud-init, as Debian packages it, reads our images: what it understands is what was asked for.

The package is unpacked into pytest's cache, not installed: an installed cloud-init would configure the build machine itself.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import subprocess

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _seed as seeds
from ansible_collections.kvmfleet.core.plugins.module_utils._seed_spec import seed_from_params
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import NicSpec

PACKAGES = [
    "cloud-init", "python3-configobj", "python3-six", "python3-jinja2", "python3-markupsafe", "python3-jsonpatch",
    "python3-json-pointer", "python3-jsonschema", "python3-attr", "python3-pyrsistent", "python3-netifaces", "python3-certifi",
    "python3-charset-normalizer", "python3-idna", "python3-urllib3", "python3-chardet", "python3-requests", "python3-serial",
    "python3-oauthlib", "python3-yaml",
]
PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cloud_init_probe.py")
KEY = "ssh-ed25519 " + base64.b64encode(struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", 32) + b"k" * 32).decode()
MAC1, MAC2 = "52:54:00:00:00:01", "52:54:00:00:00:02"
SOURCES = {"nocloud": ("NoCloud", "nocloud"), "config_drive": ("ConfigDrive", "config_drive")}


@pytest.fixture(scope="session")
def cloud_init(pytestconfig, tmp_path_factory):
    """Folder of Python packages with cloud-init and what it needs, for the system's Python."""
    cached = pytestconfig.cache.mkdir("cloud-init") / "tree"
    if not cached.exists():
        work = tmp_path_factory.mktemp("cloud-init")
        tree = cached.with_name("tree.{0}".format(os.getpid()))
        subprocess.run(["apt-get", "download", "-q"] + PACKAGES, cwd=str(work), check=True, stdout=subprocess.DEVNULL)
        for package in sorted(work.glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(tree)], check=True)
        tree.rename(cached)
    return str(cached / "usr/lib/python3/dist-packages")


@pytest.fixture
def guest(cloud_init, tmp_path):
    """A function: what a guest with cloud-init makes of a seed with these options, by way of the ISO image."""

    def read(params, nics=()):
        spec = seed_from_params(params)
        files = seeds.documents(spec, "i-1", "web1", nics)
        image = tmp_path / "seed.iso"
        image.write_bytes(seeds.build_iso(files, spec.format))
        datasource, folder = SOURCES[spec.format]
        top = tmp_path / "guest"
        for name, content in files.items():
            target = top / "cloud" / "seed" / folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            extracted = subprocess.run(["isoinfo", "-J", "-i", str(image), "-x", "/" + name + ";1"], check=True, stdout=subprocess.PIPE).stdout
            assert extracted == content, "the image holds something else than the document " + name
            target.write_bytes(extracted)
        made = subprocess.run(
            ["/usr/bin/python3", PROBE, datasource, str(top)] + [n.mac for n in nics],
            check=True,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": cloud_init, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        shutil.rmtree(str(top))
        return json.loads(made.stdout)

    return read


EVERYTHING = {
    "fqdn": "web1.example.org",
    "ssh_keys": [KEY],
    "root_password": "$6$salt$hash",
    "ssh_pwauth": False,
    "disable_root": True,
    "users": [
        {
            "name": "bob",
            "gecos": "Bob",
            "groups": ["adm", "audio"],
            "primary_group": "staff",
            "uid": 1500,
            "shell": "/bin/sh",
            "homedir": "/srv/bob",
            "sudo": True,
            "ssh_authorized_keys": [KEY],
            "password_hash": "$6$salt$hash",
        },
        {"name": "svc", "system": True, "sudo": False, "lock_passwd": True},
    ],
    "packages": ["nginx"],
    "package_update": True,
    "package_upgrade": False,
    "write_files": [
        {"path": "/etc/motd", "content": "a: 'b' \u0085\u2028\ufeff\U0001f600\x7f\t\r\n#x\n", "owner": "root:root", "permissions": "0600"},
        {"path": "/etc/blob", "content": "AAEC", "encoding": "base64", "append": True, "defer": True},
    ],
    "bootcmd": ["echo boot"],
    "runcmd": ["echo a: b", ["touch", "/a b"]],
    "timezone": "Europe/Berlin",
    "locale": "en_US.UTF-8",
    "growpart": False,
    "manage_etc_hosts": True,
}


@pytest.mark.parametrize("seed_format", ["nocloud", "config_drive"])
def test_every_option_is_understood(guest, seed_format):
    """cloud-init's own schema accepts the document, nothing is warned about, and names, keys and texts arrive unchanged."""
    seen = guest(dict(EVERYTHING, format=seed_format))
    assert (seen["schema_errors"], seen["warnings"]) == ([], [])
    assert (seen["instance_id"], seen["hostname"], seen["fqdn"], seen["keys"]) == ("i-1", "web1", "web1.example.org", [KEY])
    assert sorted(seen["users"]) == ["bob", "debian", "root", "svc"] and seen["users"]["debian"]["default"] is True
    assert seen["users"]["bob"]["sudo"] == "ALL=(ALL) NOPASSWD:ALL" and seen["users"]["bob"]["lock_passwd"] is False
    assert [f["content"] for f in seen["config"]["write_files"]] == [f["content"] for f in EVERYTHING["write_files"]]
    assert seen["config"]["runcmd"] == EVERYTHING["runcmd"]
    assert seen["config"]["growpart"] == {"mode": "off"}


def test_an_empty_seed_is_a_seed(guest):
    """And changes nothing but the name."""
    seen = guest({})
    assert (seen["instance_id"], seen["hostname"], seen["config"], seen["network"]) == ("i-1", "web1", {}, None)
    assert seen["warnings"] == []


@pytest.mark.parametrize("seed_format", ["nocloud", "config_drive"])
def test_options_and_cloud_config_of_the_user_merge(guest, seed_format):
    """No list of either side is lost, mappings merge, and of a single value the user's stays."""
    seen = guest(
        {
            "format": seed_format,
            "users": [{"name": "bob"}],
            "runcmd": ["ours"],
            "timezone": "UTC",
            "ssh_pwauth": False,
            "growpart": False,
            "user_data": "#cloud-config\nusers: [default, {name: eve}]\nruncmd: [theirs]\npackages: [vim]\ntimezone: Asia/Tokyo\n"
            "ssh_pwauth: true\n"
            "growpart: {devices: [/]}\n",
        }
    )
    assert (seen["schema_errors"], seen["warnings"]) == ([], [])
    assert sorted(seen["users"]) == ["bob", "debian", "eve"]
    assert seen["config"]["runcmd"] == ["ours", "theirs"] and seen["config"]["packages"] == ["vim"]
    assert (seen["config"]["timezone"], seen["config"]["ssh_pwauth"]) == ("Asia/Tokyo", True)
    assert seen["config"]["growpart"] == {"mode": "off", "devices": ["/"]}


def test_a_rule_of_the_users_own_does_not_drop_our_lists(guest):
    """merge_how in the first part says how that part merges, not how ours does."""
    seen = guest({"runcmd": ["ours"], "user_data": "#cloud-config\nmerge_how: 'dict(replace)+list(replace)'\nruncmd: [theirs]\n"})
    assert seen["config"]["runcmd"] == ["ours", "theirs"]


SCRIPT = "#!/bin/sh\necho \u00e4: 'hi'\n"


@pytest.mark.parametrize("options", [{}, {"timezone": "UTC"}])
def test_a_script_of_the_user_runs_as_it_is(guest, options):
    """Alone, and next to options."""
    seen = guest(dict(options, user_data=SCRIPT))
    assert list(seen["scripts"].values()) == [SCRIPT]
    assert seen["config"].get("timezone") == options.get("timezone") and seen["warnings"] == []


def test_a_template_of_the_user_is_rendered(guest):
    """With what the meta-data says."""
    seen = guest(
        {
            "timezone": "UTC",
            "runcmd": ["ours"],
            "meta_data": {"colour": "blue"},
            "user_data": "## template: jinja\n#cloud-config\nruncmd: ['echo {{ v1.local_hostname }} {{ ds.meta_data.colour }}']\n",
        }
    )
    assert seen["config"]["runcmd"] == ["ours", "echo web1 blue"] and seen["config"]["timezone"] == "UTC"


def test_a_multipart_message_of_the_user_keeps_its_parts(guest):
    """Nested in ours."""
    inner = (
        'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/x-shellscript\n\n'
        + SCRIPT.replace("\u00e4", "a")
        + "\n--b\nContent-Type: text/cloud-config\n\n#cloud-config\nruncmd: [theirs]\n--b--\n"
    )
    seen = guest({"runcmd": ["ours"], "user_data": inner})
    assert [text.strip() for text in seen["scripts"].values()] == [SCRIPT.replace("\u00e4", "a").strip()]
    assert seen["config"]["runcmd"] == ["ours", "theirs"]


def test_an_archive_of_the_user_keeps_its_parts(guest):
    """#cloud-config-archive is a list of documents."""
    seen = guest(
        {"runcmd": ["ours"], "user_data": "#cloud-config-archive\n- type: text/cloud-config\n  content: |\n    runcmd: [theirs]\n"}
    )
    assert seen["config"]["runcmd"] == ["ours", "theirs"]


def test_raw_meta_data_arrives(guest):
    """Ours and the user's."""
    seen = guest({"meta_data": {"instance-id": "i-2", "local-hostname": "other.example.net"}})
    assert (seen["instance_id"], seen["fqdn"]) == ("i-2", "other.example.net")
    seen = guest({"format": "config_drive", "meta_data": {"instance-id": "i-2", "local-hostname": "other.example.net"}})
    assert (seen["instance_id"], seen["fqdn"]) == ("i-2", "other.example.net")


NICS = (
    NicSpec(
        network="default",
        mac=MAC1,
        addresses=["192.0.2.10/24", "2001:db8::10/64"],
        gateway="192.0.2.1",
        nameservers=["192.0.2.53"],
        search=["example.org"],
        routes=[{"to": "10.0.0.0/8", "via": "192.0.2.2"}, {"to": "default", "via": "2001:db8::1"}],
    ),
    NicSpec(network="default", mac=MAC2),
)


@pytest.mark.parametrize("seed_format", ["nocloud", "config_drive"])
def test_addresses_reach_every_kind_of_guest(guest, seed_format):
    """All renderers of cloud-init write them: for Debian with ifupdown or netplan, for networkd, Red Hat's scripts and NetworkManager."""
    seen = guest({"format": seed_format}, NICS)
    assert seen["warnings"] == []
    text = {name: "\n".join("{0}\n{1}".format(path, files[path]) for path in sorted(files)) for name, files in seen["rendered"].items()}
    assert sorted(text) == ["eni", "netplan", "network-manager", "networkd", "sysconfig"]
    for name, rendered in text.items():
        for wanted in ("192.0.2.10", "2001:db8::10/64", "192.0.2.1", "192.0.2.53", "example.org", "192.0.2.2", "2001:db8::1"):
            assert wanted in rendered, "{0} lost {1}:\n{2}".format(name, wanted, rendered)
    assert (
        "inet static\n    address 192.0.2.10/24" in text["eni"]
        and "add default gw 192.0.2.1" in text["eni"]
        and "iface enp2s0 inet dhcp" in text["eni"]
    )
    assert "to: 0.0.0.0/0\n                via: 192.0.2.1" in text["netplan"] and "dhcp4: true" in text["netplan"]
    assert "GATEWAY=192.0.2.1\n" in text["sysconfig"] and "BOOTPROTO=dhcp" in text["sysconfig"]
    assert "MACAddress=" + MAC1 in text["networkd"] and "DHCP=ipv4" in text["networkd"]
    assert "address1=192.0.2.10/24" in text["network-manager"] and "method=auto" in text["network-manager"]


def test_raw_network_config_arrives(guest):
    """Version 1, and wrapped."""
    raw = {"version": 1, "config": [{"type": "physical", "name": "eth0", "subnets": [{"type": "dhcp"}]}]}
    assert guest({"network_config": {"network": raw}})["network"] == raw
