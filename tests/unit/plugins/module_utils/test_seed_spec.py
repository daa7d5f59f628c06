# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Validation of seed options: what is refused, by which option, and that no secret is in the message."""

from __future__ import annotations

import base64
import struct

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import _seed_spec
from ansible_collections.kvmfleet.core.plugins.module_utils._seed_spec import (
    MULTIPART,
    SEED_OPTIONS,
    check_ssh_key,
    check_user_data,
    is_crypt_hash,
    seed_from_params,
    user_data_type,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

MAC = "52:54:00:00:00:01"


def wire(*fields):
    """Fields of an SSH key body, each with its length."""
    return base64.b64encode(b"".join(struct.pack(">I", len(f)) + f for f in fields)).decode()


ED25519 = "ssh-ed25519 " + wire(b"ssh-ed25519", b"k" * 32) + " alice@example.org"
RSA = "ssh-rsa " + wire(b"ssh-rsa", b"\1\0\1", b"\0" + b"m" * 256)
ECDSA = "ecdsa-sha2-nistp256 " + wire(b"ecdsa-sha2-nistp256", b"nistp256", b"\4" + b"p" * 64)


@pytest.mark.parametrize("key", [ED25519, RSA, ECDSA, 'from="192.0.2.0/24,*.example.org",no-pty ' + ED25519, 'command="echo a b" ' + RSA])
def test_good_keys_pass_unchanged(key):
    """Types, comments and options as OpenSSH has them."""
    assert check_ssh_key("ssh_keys[0]", "  " + key + "\n") == key


@pytest.mark.parametrize(
    "key, reason",
    [
        ("", "not an OpenSSH public key"),
        ("ssh-ed25519", "not an OpenSSH public key"),
        ("/root/.ssh/id_ed25519.pub", "not an OpenSSH public key"),
        ("ssh-ed25519 " + ED25519.split()[1][:-3], "cut off"),
        ("ssh-ed25519 " + ED25519.split()[1][:-8], "ends too early"),
        ("ssh-ed25519 " + RSA.split()[1], "not of type ssh-ed25519"),
        ("ssh-ed25519 " + wire(b"ssh-ed25519", b"k" * 31), "does not make a key"),
        ("ssh-rsa " + wire(b"ssh-rsa", b"m" * 256), "does not make a key"),
        ("ssh-ed25519 AAAA", "ends too early"),
        (ED25519 + "\n" + RSA, "more than one line"),
    ],
)
def test_bad_keys_are_refused_with_a_reason(key, reason):
    """A key that sshd would ignore never reaches a guest."""
    with pytest.raises(SpecError, match=reason) as caught:
        check_ssh_key("ssh_keys[0]", key)
    assert caught.value.option == "ssh_keys[0]"


def test_a_private_key_is_refused_and_not_shown():
    """The error must not print it either."""
    text = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"
    with pytest.raises(SpecError) as caught:
        seed_from_params({"ssh_keys": [text]})
    assert "private key" in str(caught.value) and "c2VjcmV0" not in str(caught.value)


def test_a_whole_authorized_keys_file_is_several_keys():
    """Blank lines, comments and repetitions are dropped."""
    spec = seed_from_params({"ssh_keys": ["# mine\n{0}\n\n{1}\n".format(ED25519, RSA), ED25519]})
    assert spec.ssh_keys == [ED25519, RSA]


@given(st.integers(0, len(ED25519.split()[1]) - 1))
def test_every_shortened_key_is_refused(length):
    """Copying mistakes cut keys off anywhere."""
    with pytest.raises(SpecError):
        check_ssh_key("ssh_keys[0]", "ssh-ed25519 " + ED25519.split()[1][:length])


@pytest.mark.parametrize(
    "text, kind",
    [
        ("#cloud-config\na: 1", "text/cloud-config"),
        ("\n  #cloud-config # mine\n", "text/cloud-config"),
        ("#Cloud-Config\r\na: 1", "text/cloud-config"),
        ("#cloud-config-archive\n- a", "text/cloud-config-archive"),
        ("#!/bin/sh\n", "text/x-shellscript"),
        ("#include http://192.0.2.1/a", "text/x-include-url"),
        ("#include-once\nhttp://192.0.2.1/a", "text/x-include-once-url"),
        ("#cloud-boothook\n", "text/cloud-boothook"),
        ("## template: jinja\n#cloud-config\n", "text/jinja2"),
        ("#part-handler\n", "text/part-handler"),
        ("Content-Type: multipart/mixed; boundary=x\nMIME-Version: 1.0\n\n", MULTIPART),
        ("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n", MULTIPART),
    ],
)
def test_beginnings_of_user_data(text, kind):
    """What cloud-init acts on."""
    assert user_data_type("user_data", text) == kind


@pytest.mark.parametrize(
    "text", ["packages: [a]\n", "# cloud-config\n", "#cloud-configs\n", "{'a': 1}", "Content-Type: multipart/mixed\n\n", "echo hi"]
)
def test_user_data_that_cloud_init_would_ignore_is_refused(text):
    """It is ignored silently there, so it has to be loud here, without quoting it."""
    with pytest.raises(SpecError) as caught:
        user_data_type("user_data", text)
    assert caught.value.option == "user_data" and caught.value.value is None


@pytest.mark.parametrize(
    "body, where",
    [
        ("a: [1\nb: 2", "line 3"),
        ("a: 'secret-word\n", "not valid YAML"),
        ("- secret-word\n", "a list"),
        ("", "holds nothing"),
        ("\tsecret-word: 1\n", "line 2"),
        ("a: *secret-word\n", "not valid YAML"),
    ],
)
def test_cloud_config_has_to_be_a_yaml_mapping(body, where):
    """The message says where, and quotes nothing."""
    with pytest.raises(SpecError, match=where) as caught:
        check_user_data("user_data", "#cloud-config\n" + body)
    assert "secret" not in str(caught.value)


def test_without_pyyaml_only_the_beginning_is_checked(monkeypatch):
    """Hosts need not have PyYAML; the control side checks there."""
    monkeypatch.setattr(_seed_spec, "HAS_YAML", False)
    assert check_user_data("user_data", "#cloud-config\na: [") == "#cloud-config\na: ["
    with pytest.raises(SpecError):
        check_user_data("user_data", "a: [")


@pytest.mark.parametrize(
    "params, option",
    [
        ({"hostname": "web_1"}, "seed.hostname"),
        ({"hostname": "web.example.org"}, "seed.hostname"),
        ({"fqdn": "web..org"}, "seed.fqdn"),
        ({"fqdn": "a." * 130 + "b"}, "seed.fqdn"),
        ({"hostname": "a", "fqdn": "b.example.org"}, "seed.fqdn"),
        ({"instance_id": "a b"}, "seed.instance_id"),
        ({"instance_id": "a" * 54}, "seed.instance_id"),
        ({"instance_id": "a", "meta_data": {"instance-id": "b"}}, "seed.meta_data.instance-id"),
        ({"format": "iso"}, "seed.format"),
        ({"timezone": "../etc/shadow"}, "seed.timezone"),
        ({"timezone": "Europe/"}, "seed.timezone"),
        ({"locale": "en US"}, "seed.locale"),
        ({"ssh_keys": [ED25519, "x"]}, "seed.ssh_keys[1]"),
        ({"ssh_keys": [ED25519], "default_user": False}, "seed.ssh_keys"),
        ({"users": [{"name": "Bob"}]}, "seed.users[0].name"),
        ({"users": [{"name": "default"}]}, "seed.users[0].name"),
        ({"users": [{"name": "bob"}, {"name": "bob"}]}, "seed.users[1].name"),
        ({"users": [{"name": "bob", "groups": ["a b"]}]}, "seed.users[0].groups"),
        ({"users": [{"name": "bob", "shell": "bash"}]}, "seed.users[0].shell"),
        ({"users": [{"name": "bob", "gecos": "a:b"}]}, "seed.users[0].gecos"),
        ({"users": [{"name": "bob", "sudo": ["a\nb"]}]}, "seed.users[0].sudo"),
        ({"users": [{"name": "bob", "uid": -1}]}, "seed.users[0].uid"),
        ({"users": [{"name": "bob", "ssh_authorized_keys": ["x"]}]}, "seed.users[0].ssh_authorized_keys[0]"),
        ({"write_files": [{"path": "etc/motd"}]}, "seed.write_files[0].path"),
        ({"write_files": [{"path": "/etc/../x"}]}, "seed.write_files[0].path"),
        ({"write_files": [{"path": "/etc/"}]}, "seed.write_files[0].path"),
        ({"write_files": [{"path": "/a", "permissions": "420"}]}, "seed.write_files[0].permissions"),
        ({"write_files": [{"path": "/a", "permissions": "0888"}]}, "seed.write_files[0].permissions"),
        ({"write_files": [{"path": "/a", "owner": "a b"}]}, "seed.write_files[0].owner"),
        ({"write_files": [{"path": "/a", "append": True}, {"path": "/a"}, {"path": "/a"}]}, "seed.write_files[2].path"),
        ({"packages": ["a b"]}, "seed.packages[0]"),
        ({"packages": ["-o=x"]}, "seed.packages[0]"),
        ({"runcmd": [True]}, "seed.runcmd[0]"),
        ({"bootcmd": ["a", {"b": "c"}]}, "seed.bootcmd[1]"),
        ({"network": [{"mac": "52:54:00"}]}, "seed.network[0].mac"),
        ({"network": [{"mac": MAC}, {"mac": MAC.upper()}]}, "seed.network[1].mac"),
        ({"network": [{"mac": MAC, "addresses": ["192.0.2.300/24"]}]}, "seed.network[0].addresses"),
        ({"network": [{"mac": MAC, "addresses": ["192.0.2.3/24", "192.0.2.3/24"]}]}, "seed.network[0].addresses"),
        ({"network": [{"mac": MAC, "addresses": ["192.0.2.3/24"], "gateway": "198.51.100.1"}]}, "seed.network[0].gateway"),
        ({"network": [{"mac": MAC, "nameservers": ["ns1"]}]}, "seed.network[0].nameservers"),
        ({"network": [{"mac": MAC, "search": ["a_b"]}]}, "seed.network[0].search"),
        ({"network": [{"mac": MAC, "routes": [{"to": "10.0.0.1/8", "via": "192.0.2.1"}]}]}, "seed.network[0].routes[0].to"),
        ({"network": [{"mac": MAC, "routes": [{"to": "fd00::/8", "via": "192.0.2.1"}]}]}, "seed.network[0].routes[0].via"),
        ({"network": [{"mac": MAC, "mtu": 10}]}, "seed.network[0].mtu"),
        ({"network": [{"mac": MAC, "name": "eth 0"}]}, "seed.network[0].name"),
        ({"network": [{"mac": MAC}], "network_config": {"version": 2}}, "seed.network_config"),
        ({"network_config": {"ethernets": {}}}, "seed.network_config"),
        ({"network_config": {"version": 2}, "format": "config_drive"}, "seed.network_config"),
        ({"user_data": "hello"}, "seed.user_data"),
    ],
)
def test_bad_options_are_named(params, option):
    """Each refusal names the option as the user wrote it."""
    with pytest.raises(SpecError) as caught:
        seed_from_params(params)
    assert caught.value.option == option
    assert caught.value.reason and caught.value.remedy


@pytest.mark.parametrize(
    "params, option",
    [
        ({"root_password": "hush\nhush"}, "root_password"),
        ({"root_password": ""}, "root_password"),
        ({"root_password": "hush", "users": [{"name": "root"}]}, "root_password"),
        ({"users": [{"name": "bob", "password": "hu\0sh"}]}, "users[0].password"),
        ({"users": [{"name": "bob", "password_hash": "hush"}]}, "users[0].password_hash"),
        ({"users": [{"name": "bob", "password_hash": "$6$a$b", "password": "hush"}]}, "users[0].password_hash"),
        ({"write_files": [{"path": "/a", "content": "hush!", "encoding": "base64"}]}, "write_files[0].content"),
        ({"write_files": [{"path": "/a", "content": "aHVzaA==", "encoding": "gzip+base64"}]}, "write_files[0].content"),
        ({"user_data": "hush"}, "user_data"),
    ],
)
def test_secrets_are_in_no_message(params, option):
    """Neither in the text nor in the data of the error."""
    with pytest.raises(SpecError) as caught:
        seed_from_params(params, "")
    assert caught.value.option == option
    assert "hush" not in str(caught.value) and "hu\\x00sh" not in str(caught.value) and caught.value.value is None


@pytest.mark.parametrize(
    "text, expected",
    [("$6$salt$hash./", True), ("$y$j9T$abc$def", True), ("$2b$12$abcdef", True), ("plain", False), ("$6$", False), ("$x$a$b", False)],
)
def test_crypt_hashes_are_told_from_passwords(text, expected):
    """root_password takes both."""
    assert is_crypt_hash(text) is expected


@pytest.mark.parametrize(
    "given_value, expected",
    [
        (None, None),
        (True, ["ALL=(ALL) NOPASSWD:ALL"]),
        ("yes", ["ALL=(ALL) NOPASSWD:ALL"]),
        (False, []),
        ("False", []),
        ("ALL=(ALL) ALL", ["ALL=(ALL) ALL"]),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_sudo_in_all_its_forms(given_value, expected):
    """Booleans also as strings, which -e k=v makes of them."""
    assert seed_from_params({"users": [{"name": "bob", "sudo": given_value}]}).users[0].sudo == expected


def test_the_instance_id_is_taken_from_raw_meta_data():
    """One identity, wherever it is written."""
    assert seed_from_params({"meta_data": {"instance-id": "i-1"}}).instance_id == "i-1"
    assert seed_from_params({"meta_data": {"uuid": "i-2"}, "format": "config_drive"}).instance_id == "i-2"
    assert seed_from_params({"meta_data": {"uuid": "i-2"}}).instance_id is None


def test_network_config_may_have_its_usual_wrapper():
    """As in /etc/netplan; older cloud-init takes the bare form only."""
    assert seed_from_params({"network_config": {"network": {"version": 2, "ethernets": {}}}}).network_config == {
        "version": 2,
        "ethernets": {},
    }


def _leaves(options, prefix=""):
    for name, option in options.items():
        yield prefix + name, option
        yield from _leaves(option.get("options", {}), prefix + name + ".")


def test_secrets_are_masked_on_leaves_only():
    """A masked container would mask every value in it wherever it appears in the output."""
    masked = {name for name, option in _leaves(SEED_OPTIONS) if option.get("no_log")}
    assert masked == {"user_data", "root_password", "users.password", "users.password_hash", "write_files.content"}
    assert not any(option.get("no_log") and option["type"] in ("dict", "list", "raw") for _name, option in _leaves(SEED_OPTIONS))


def test_values_given_as_strings_are_converted():
    """-e k=v makes strings of everything."""
    result = ArgumentSpecValidator(SEED_OPTIONS).validate(
        {
            "ssh_pwauth": "true",
            "growpart": "no",
            "packages": "a,b",
            "users": [{"name": "bob", "uid": "1000", "lock_passwd": "false"}],
            "network": [{"mac": MAC, "mtu": "1400", "dhcp4": "yes"}],
        }
    )
    assert result.error_messages == []
    spec = seed_from_params(result.validated_parameters)
    assert (spec.ssh_pwauth, spec.growpart, spec.packages) == (True, False, ["a", "b"])
    assert (spec.users[0].uid, spec.users[0].lock_passwd) == (1000, False)
    assert (spec.network[0].mtu, spec.network[0].dhcp4) == (1400, True)
