# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seed documents as pure data: what is in them, that they are stable, and the seal. Real cloud-init reads them in the integration tests."""

from __future__ import annotations

import base64
import email
import json
import struct

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import _seed as seeds
from ansible_collections.kvmfleet.core.plugins.module_utils._seed_spec import seed_from_params
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import NicSpec, SpecError

KEY = "ssh-ed25519 " + base64.b64encode(struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", 32) + b"k" * 32).decode()
MAC1, MAC2, MAC3 = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"


def made(params, nics=(), instance_id="i-1", hostname="web1"):
    """Documents of some options."""
    return seeds.documents(seed_from_params(params), instance_id, hostname, nics)


def network(params, nics=()):
    """The network document of some options, or None."""
    files = made(params, nics)
    name = seeds.NETWORK[params.get("format", "nocloud")]
    return json.loads(files[name].decode()) if name in files else None


def nic(mac=MAC1, **values):
    """A NIC of libvirt's default network."""
    return NicSpec(network="default", mac=mac, **values)


def config(params):
    """The cloud-config mapping of typed options alone."""
    text = made(params)["user-data"].decode()
    assert text.startswith("#cloud-config\n")
    return yaml.safe_load(text)


def test_an_empty_seed_says_who_the_guest_is_and_nothing_else():
    """user-data is there nevertheless: without it NoCloud takes the image for no seed at all."""
    files = made({})
    assert sorted(files) == ["meta-data", "user-data"]
    assert json.loads(files["meta-data"].decode()) == {"instance-id": "i-1", "local-hostname": "web1"}
    assert yaml.safe_load(files["user-data"].decode()) == {}


def test_typed_options_become_cloud_config():
    """Each key as cloud-init calls it."""
    assert config(
        {
            "users": [
                {
                    "name": "bob",
                    "gecos": "Bob",
                    "groups": ["adm"],
                    "primary_group": "staff",
                    "uid": 1500,
                    "system": False,
                    "shell": "/bin/sh",
                    "homedir": "/srv/bob",
                    "sudo": True,
                    "ssh_authorized_keys": [KEY],
                    "password_hash": "$6$a$b",
                }
            ],
            "packages": ["nginx"],
            "package_update": True,
            "package_upgrade": False,
            "ssh_pwauth": False,
            "disable_root": True,
            "write_files": [{"path": "/a", "content": "b", "owner": "bob:bob", "permissions": "0600", "append": True, "defer": True}],
            "runcmd": ["a", ["b", 1]],
            "bootcmd": ["c"],
            "timezone": "UTC",
            "locale": "en_US.UTF-8",
            "growpart": False,
            "manage_etc_hosts": True,
        }
    ) == {
        "users": [
            "default",
            {
                "name": "bob",
                "gecos": "Bob",
                "groups": ["adm"],
                "primary_group": "staff",
                "uid": 1500,
                "system": False,
                "shell": "/bin/sh",
                "homedir": "/srv/bob",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": [KEY],
                "hashed_passwd": "$6$a$b",
                "lock_passwd": False,
            },
        ],
        "packages": ["nginx"],
        "package_update": True,
        "package_upgrade": False,
        "ssh_pwauth": False,
        "disable_root": True,
        "write_files": [{"path": "/a", "content": "b", "owner": "bob:bob", "permissions": "0600", "append": True, "defer": True}],
        "runcmd": ["a", ["b", "1"]],
        "bootcmd": ["c"],
        "timezone": "UTC",
        "locale": "en_US.UTF-8",
        "growpart": {"mode": "off"},
        "resize_rootfs": False,
        "manage_etc_hosts": "localhost",
    }


@pytest.mark.parametrize(
    "params, users",
    [
        ({}, None),
        ({"default_user": False}, []),
        ({"users": [{"name": "bob"}]}, ["default", {"name": "bob"}]),
        ({"users": [{"name": "bob", "sudo": False}], "default_user": False}, [{"name": "bob"}]),
        ({"root_password": "pw"}, ["default", {"name": "root", "lock_passwd": False, "plain_text_passwd": "pw"}]),
        ({"root_password": "$6$a$b"}, ["default", {"name": "root", "lock_passwd": False, "hashed_passwd": "$6$a$b"}]),
        (
            {"users": [{"name": "bob", "password": "pw", "lock_passwd": True}]},
            ["default", {"name": "bob", "lock_passwd": True, "plain_text_passwd": "pw"}],
        ),
    ],
)
def test_who_is_in_users(params, users):
    """The image's own user stays unless it is left out by name."""
    assert config(params).get("users") == users


def test_names_and_keys_are_meta_data():
    """So that a user's script alone stays as it is, and a hostname in raw user_data wins."""
    files = made({"ssh_keys": [KEY], "fqdn": "web1.example.org", "user_data": "#!/bin/sh\n"})
    assert files["user-data"] == b"#!/bin/sh\n"
    assert json.loads(files["meta-data"].decode()) == {"instance-id": "i-1", "local-hostname": "web1.example.org", "public-keys": [KEY]}
    files = made({"ssh_keys": [KEY], "format": "config_drive"})
    assert json.loads(files["openstack/latest/meta_data.json"].decode()) == {
        "uuid": "i-1",
        "hostname": "web1",
        "name": "web1",
        "public_keys": {"key-0": KEY},
    }


def test_raw_meta_data_wins_but_the_instance_id_is_one():
    """In every form in which it can be given."""
    for instance_id in ("i-1", "i-2"):
        data = json.loads(
            made({"meta_data": {"instance-id": "i-2", "local-hostname": "x", "a": [1]}}, instance_id=instance_id)["meta-data"].decode()
        )
        assert data == {"instance-id": "i-2", "local-hostname": "x", "a": [1]}
    files = made({"format": "config_drive", "meta_data": {"instance-id": "i-2", "local-hostname": "x", "meta": {"k": "v"}}})
    assert json.loads(files["openstack/latest/meta_data.json"].decode()) == {
        "uuid": "i-2",
        "hostname": "x",
        "name": "web1",
        "meta": {"k": "v"},
    }
    assert seeds.instance_id_of(files, "config_drive") == "i-2"


def test_options_and_user_data_become_two_parts_of_one_message():
    """The user's first, verbatim; ours second with the rule that joins instead of replacing."""
    script = "#!/bin/sh\necho \u00e4\n"
    message = email.message_from_bytes(made({"timezone": "UTC", "user_data": script})["user-data"])
    first, second = message.get_payload()
    assert (first.get_content_type(), second.get_content_type()) == ("text/x-shellscript", "text/cloud-config")
    assert first.get_payload(decode=True).decode() == script
    assert yaml.safe_load(second.get_payload(decode=True)) == {"timezone": "UTC", "merge_how": "list(prepend)+dict(recurse_list)+str()"}


def test_a_multipart_message_of_the_user_is_nested_as_it_is():
    """Its own parts and headers survive."""
    inner = 'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n--b--\n'
    assert made({"user_data": inner})["user-data"].decode() == inner
    first, second = email.message_from_bytes(made({"timezone": "UTC", "user_data": inner})["user-data"]).get_payload()
    assert [p.get_content_type() for p in first.get_payload()] == ["text/x-shellscript"]
    assert second.get_content_type() == "text/cloud-config"


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(TEXT.filter(lambda k: len(k) < 100), st.one_of(TEXT, st.booleans(), st.integers(), st.none(), st.lists(TEXT))))
def test_json_is_the_same_in_yaml(data):
    """cloud-init reads our JSON by PyYAML, which knows fewer characters."""
    text = seeds._json("x", data)
    assert yaml.safe_load(text) == data == json.loads(text)


def test_text_that_is_not_utf8_is_refused():
    """Ansible hands undecodable bytes on as surrogates."""
    for params in ({"write_files": [{"path": "/a", "content": "\udcff"}]}, {"user_data": "#!/bin/sh\n\udcff"}):
        with pytest.raises(SpecError, match="not UTF-8"):
            made(params)


@given(st.permutations(["timezone", "locale", "packages", "meta_data"]))
def test_the_same_input_makes_the_same_bytes(order):
    """Whatever the order of keys."""
    params = {"timezone": "UTC", "locale": "C", "packages": ["a"], "meta_data": {"b": 1, "a": 2}, "user_data": "#!/bin/sh\n"}
    shuffled = dict({key: params[key] for key in order}, user_data=params["user_data"])
    shuffled["meta_data"] = {"a": 2, "b": 1}
    assert made(shuffled) == made(params)


def test_no_network_document_where_one_nic_by_dhcp_is_all():
    """cloud-init does that by itself, on any interface name."""
    assert network({}) is None
    assert network({}, [nic()]) is None


def test_static_addresses_by_mac():
    """The interface keeps its name; the default route is written as every renderer understands it."""
    assert network(
        {},
        [
            nic(
                addresses=["192.0.2.10/24", "2001:db8::10/64"],
                gateway="192.0.2.1",
                nameservers=["192.0.2.53"],
                search=["example.org"],
                routes=[{"to": "default", "via": "2001:db8::1"}, {"to": "10.0.0.0/8", "via": "192.0.2.2", "metric": 50}],
            )
        ],
    ) == {
        "version": 2,
        "ethernets": {
            "nic0": {
                "match": {"macaddress": MAC1},
                "addresses": ["192.0.2.10/24", "2001:db8::10/64"],
                "nameservers": {"addresses": ["192.0.2.53"], "search": ["example.org"]},
                "routes": [
                    {"to": "0.0.0.0/0", "via": "192.0.2.1"},
                    {"to": "::/0", "via": "2001:db8::1"},
                    {"to": "10.0.0.0/8", "via": "192.0.2.2", "metric": 50},
                ],
            }
        },
    }


def test_several_nics_are_all_configured():
    """cloud-init alone would bring up the first only. A later one neither takes the default route nor holds up the boot."""
    assert network({}, [nic(MAC1), nic(MAC2)])["ethernets"] == {
        "nic0": {"match": {"macaddress": MAC1}, "dhcp4": True},
        "nic1": {"match": {"macaddress": MAC2}, "dhcp4": True, "dhcp4-overrides": {"route-metric": 200}, "optional": True},
    }


def test_the_network_option_wins_per_mac():
    """NICs that it does not name keep what they have; MACs that are no NIC of ours are appended."""
    ethernets = network(
        {
            "network": [
                {"mac": MAC3, "dhcp6": True},
                {"mac": MAC2, "addresses": ["192.0.2.9/24"], "name": "lan0", "mtu": 1400, "dhcp4": True},
            ]
        },
        [nic(MAC1), nic(MAC2, addresses=["192.0.2.1/24"])],
    )["ethernets"]
    assert ethernets["nic0"] == {"match": {"macaddress": MAC1}, "dhcp4": True}
    assert ethernets["nic1"] == {
        "match": {"macaddress": MAC2},
        "set-name": "lan0",
        "mtu": 1400,
        "addresses": ["192.0.2.9/24"],
        "dhcp4": True,
        "dhcp4-overrides": {"route-metric": 200},
        "optional": True,
    }
    assert ethernets["nic2"] == {"match": {"macaddress": MAC3}, "dhcp6": True, "dhcp6-overrides": {"route-metric": 300}}


def test_a_nic_without_mac_cannot_be_configured():
    """The engine has to draw MACs first."""
    with pytest.raises(SpecError, match="by MAC"):
        network({}, [nic(None, addresses=["192.0.2.1/24"])])


def test_raw_network_config_wins_over_everything():
    """Given is given."""
    raw = {"version": 2, "ethernets": {"x": {"dhcp4": True}}}
    assert network({"network_config": raw}, [nic(MAC1, addresses=["192.0.2.1/24"]), nic(MAC2)]) == raw


def test_a_config_drive_carries_network_data_json():
    """The one network document that cloud-init reads from it."""
    data = network(
        {"format": "config_drive"},
        [
            nic(
                MAC1,
                addresses=["192.0.2.10/24", "2001:db8::10/64"],
                gateway="192.0.2.1",
                nameservers=["192.0.2.53"],
                search=["example.org"],
                routes=[{"to": "::/0", "via": "2001:db8::1"}],
            ),
            nic(MAC2),
        ],
    )
    assert data["links"] == [
        {"id": "nic0", "type": "phy", "ethernet_mac_address": MAC1},
        {"id": "nic1", "type": "phy", "ethernet_mac_address": MAC2},
    ]
    assert data["services"] == [{"type": "dns", "address": "192.0.2.53"}]
    assert data["networks"] == [
        {
            "id": "nic0-0",
            "link": "nic0",
            "type": "ipv4",
            "ip_address": "192.0.2.10",
            "netmask": "255.255.255.0",
            "dns_nameservers": ["192.0.2.53"],
            "dns_search": ["example.org"],
            "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.1"}],
        },
        {
            "id": "nic0-1",
            "link": "nic0",
            "type": "ipv6",
            "ip_address": "2001:db8::10",
            "netmask": "ffff:ffff:ffff:ffff::",
            "routes": [{"network": "::", "netmask": "::", "gateway": "2001:db8::1"}],
        },
        {"id": "nic1-0", "link": "nic1", "type": "ipv4_dhcp"},
    ]


def test_the_hash_depends_on_every_document_its_name_and_the_format():
    """Two seeds of one hash are one seed."""
    files = {"a": b"1", "b": b"2"}
    digest = seeds.documents_hash(files, "nocloud")
    assert digest == seeds.documents_hash({"b": b"2", "a": b"1"}, "nocloud")
    others = [({"a": b"2", "b": b"1"}, "nocloud"), ({"a": b"1"}, "nocloud"), ({"a": b"1", "c": b"2"}, "nocloud"), (files, "config_drive")]
    assert len({digest} | {seeds.documents_hash(*other) for other in others}) == 5


@given(
    st.text("0123456789abcdef", min_size=64, max_size=64).filter(lambda h: set(h) != {"0"}),
    st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,52}\Z"),
)
def test_a_seal_is_read_back(digest, instance_id):
    """From its field, and from a whole image."""
    data = seeds.seal(digest, instance_id)
    assert len(data) == seeds.SEAL_LENGTH
    assert seeds.read_seal(data) == seeds.Seal(digest, instance_id) == seeds.read_seal(b"\0" * seeds.SEAL_OFFSET + data + b"\0" * 9)


def test_an_unfinished_seal_keeps_the_instance_id():
    """So that the next run makes the same guest of it."""
    found = seeds.read_seal(seeds.seal("", "i-1"))
    assert found == seeds.Seal("", "i-1") and not found.complete


@given(st.binary(max_size=200))
def test_anything_else_is_no_seal(data):
    """Foreign volumes are never taken for ours."""
    assert seeds.read_seal(data) is None


def test_an_image_bears_its_seal(monkeypatch):
    """Nothing else of it is changed."""
    image = bytes(range(256)) * 200
    monkeypatch.setattr(seeds, "make_iso", lambda files, volume_id: image)
    for seed_format in ("nocloud", "config_drive"):
        files = made({"format": seed_format})
        sealed = seeds.build_iso(files, seed_format)
        assert seeds.read_seal(sealed) == seeds.Seal(seeds.documents_hash(files, seed_format), "i-1")
        end = seeds.SEAL_OFFSET + seeds.SEAL_LENGTH
        assert sealed[: seeds.SEAL_OFFSET] + sealed[end:] == image[: seeds.SEAL_OFFSET] + image[end:]


def test_only_sealed_images_are_written():
    """A volume without a seal would never be recognised again."""
    with pytest.raises(ValueError):
        seeds.write_volume(None, None, "a.iso", b"\0" * 40000)
