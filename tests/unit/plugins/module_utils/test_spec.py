# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units, names, addresses: what is read, and what is refused by name."""
from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import _spec
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import GIB, KIB, MIB, TIB, SpecError, VmSpec

SIZES = st.integers(min_value=1, max_value=1 << 60)
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@given(SIZES)
def test_what_is_written_is_read_back(size):
    """format_size shows a size exactly."""
    assert _spec.parse_size("size", _spec.format_size(size)) == size


@given(st.integers(1, 1 << 20), st.sampled_from([("B", 1), ("KiB", KIB), ("K", KIB), ("MiB", MIB), ("m", MIB), ("GiB", GIB), ("g", GIB), ("TiB", TIB),
                                                 ("KB", 1000), ("MB", 10 ** 6), ("gb", 10 ** 9)]), st.sampled_from(["", " ", "  "]))
def test_units(number, unit, blank):
    """As libvirt reads them, in any case."""
    assert _spec.parse_size("size", "{0}{1}{2}".format(number, blank, unit[0])) == number * unit[1]


@given(st.integers(0, 99), st.integers(0, 3))
def test_fractions(whole, quarters):
    """Exact ones are taken, others refused."""
    text = "{0}.{1:02d}GiB".format(whole, quarters * 25)
    if whole or quarters:
        assert _spec.parse_size("size", text) == whole * GIB + quarters * GIB // 4
    with pytest.raises(SpecError, match="whole number of bytes"):
        _spec.parse_size("size", "{0}.3KiB".format(whole))


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.none(), st.booleans(), st.text(), st.from_regex(r"[0-9]+", fullmatch=True)))
def test_what_is_no_size(value):
    """Anything else is a SpecError that shows option and value, never another exception."""
    try:
        size = _spec.parse_size("memory", value)
    except SpecError as exc:
        assert exc.option == "memory" and exc.value == value and str(exc).startswith("memory") and exc.remedy.rstrip(".") in str(exc)
    else:
        assert size >= 1 and any(c.isalpha() for c in str(value))


@given(st.integers(1, 10 ** 6))
def test_mib(number):
    """Memory is counted in whole MiB."""
    assert _spec.parse_mib("memory", "{0}MiB".format(number)) == number
    with pytest.raises(SpecError, match="whole number of MiB"):
        _spec.parse_mib("memory", "{0}B".format(number * MIB + 1))


@given(st.integers(1, 10 ** 6))
def test_milli(number):
    """Thousandths, as a number or with m."""
    assert _spec.parse_milli("r", "{0}m".format(number)) == number == _spec.parse_milli("r", "{0}.{1:03d}".format(number // 1000, number % 1000))
    for bad in ("0", "0m", "-1", "1.2345", "x", "", "1e3"):
        with pytest.raises(SpecError):
            _spec.parse_milli("r", bad)


@given(st.integers(-100, 100), st.integers(-50, 50), st.integers(0, 50))
def test_integers(value, low, span):
    """As number or as string of digits; bounds are inclusive; no booleans."""
    for given_as in (value, str(value), " {0} ".format(value)):
        if low <= value <= low + span:
            assert _spec.parse_int("n", given_as, low, low + span) == value
        else:
            with pytest.raises(SpecError, match="between"):
                _spec.parse_int("n", given_as, low, low + span)
    for bad in (True, "1.0", "", None, "0x1"):
        with pytest.raises(SpecError):
            _spec.parse_int("n", bad, low)


@given(LABELS)
def test_labels_are_names(label):
    """RFC 1123 labels, alone or three of them."""
    assert _spec.check_label("name", label) == label == _spec.check_domain_name("name", label)
    assert _spec.check_domain_name("name", label + ".dev.team1") == label + ".dev.team1"
    for bad in (label + ".dev", label + "\n", label + "_", "-" + label, label + "-", label.upper() + "A", label + ".a.b.c",
                "." + label, label + ".", label + "ü"):
        with pytest.raises(SpecError) as caught:
            _spec.check_domain_name("name", bad)
        assert caught.value.value == bad


@given(st.text())
def test_any_text_as_a_name(text):
    """Is a good name, or a SpecError."""
    try:
        assert _spec.check_label("name", text) == text
    except SpecError as exc:
        assert exc.option == "name"
    else:
        assert 1 <= len(text) <= 63 and set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and text.strip("-") == text


@given(st.text(), st.from_regex(r"[0-9a-f]{8}", fullmatch=True))
def test_any_text_as_the_name_of_a_vm_that_exists(text, token):
    """Is taken as it is, or a SpecError; a volume that is made for it is one path component that every tool takes."""
    try:
        assert _spec.check_existing_name("name", text) == text
    except SpecError as exc:
        assert exc.option == "name"
        return
    assert "/" not in text and not set(text) & set("*?[") and text.isprintable() and text.strip() == text != ""
    name = _spec.volume_name(text, "data", token, "qcow2")
    assert _spec.check_volume_name("volume", name) == name or len(name) > 200
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") and name.endswith("-data-" + token + ".qcow2")


@given(LABELS)
def test_every_new_name_is_one_that_can_exist(label):
    """So what was made here can be named everywhere."""
    for name in (label, label + ".dev.team1"):
        assert _spec.check_existing_name("name", name) == name
        assert _spec.volume_name(name, "root", "0a1b2c3d", "qcow2") == name + "-root-0a1b2c3d.qcow2"


@given(st.binary(min_size=6, max_size=6), st.sampled_from([":", "-"]), st.booleans())
def test_macs(raw, separator, upper):
    """Unicast ones in one form; multicast ones are refused."""
    text = separator.join("{0:02x}".format(b) for b in raw)
    text = text.upper() if upper else text
    if raw[0] & 1:
        with pytest.raises(SpecError, match="multicast"):
            _spec.check_mac("mac", text)
    else:
        assert _spec.check_mac("mac", text) == ":".join("{0:02x}".format(b) for b in raw)


@given(LABELS, st.integers(0, 10), st.integers(0, 5))
def test_made_up_macs(name, nic, attempt):
    """Always the same, valid, and another at each attempt."""
    mac = _spec.mac_for(name, nic, attempt)
    assert mac == _spec.mac_for(name, nic, attempt) == _spec.check_mac("mac", mac) and mac.startswith("52:54:00:")
    assert mac != _spec.mac_for(name, nic, attempt + 1) and mac != _spec.mac_for(name, nic + 1, attempt)


@given(st.ip_addresses(v=4), st.integers(1, 32))
def test_interfaces(address, prefix):
    """What a guest can have is taken in canonical form; the rest is refused."""
    text = "{0}/{1}".format(address, prefix)
    network = ipaddress.ip_interface(text).network
    usable = prefix >= 31 or address not in (network.network_address, network.broadcast_address)
    if usable and not (address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local):
        assert _spec.check_interface("addresses", text) == text
        other = next((h for h in (network.broadcast_address, network.network_address) if h != address), None)
        if other is not None:
            assert _spec.check_gateway("gateway", str(other), [text]) == str(other)
        with pytest.raises(SpecError, match="own address"):
            _spec.check_gateway("gateway", str(address), [text])
    else:
        with pytest.raises(SpecError):
            _spec.check_interface("addresses", text)


@pytest.mark.parametrize("params, option", [
    ({"size": "1GiB", "volume": "v", "pool": "p"}, "volume"), ({"size": "1GiB", "path": "/x"}, "path"), ({}, "size"), ({"volume": "v"}, "pool"),
    ({"path": "x"}, "path"), ({"size": "1025KiB", "device": "cdrom"}, "device"), ({"size": "1GiB", "clone": "full"}, "clone"),
    ({"image": "i", "format": "raw"}, "format"), ({"path": "/x", "delete_with_vm": True}, "delete_with_vm"), ({"size": "1GiB", "bus": "nvme"}, "bus"),
    ({"size": "1048577B"}, "size"), ({"size": "1KiB"}, "size"), ({"name": "A b", "size": "1GiB"}, "name"), ({"size": "1GiB", "serial": "a/b"}, "serial"),
    ({"volume": "a/b", "pool": "p"}, "volume"), ({"size": "1GiB", "pool": "a\0b"}, "pool"), ({"image": "a\ud800"}, "image"), ({"path": "/a\nb"}, "path"),
    ({"size": "9" * 5000 + "GiB"}, "size"),
])
def test_disks_that_cannot_be(params, option):
    """Each by the option that is wrong."""
    with pytest.raises(SpecError) as caught:
        _spec.vm_from_params({"name": "web", "disks": [params]})
    assert caught.value.option == "disks[0]." + option


@pytest.mark.parametrize("params, option", [
    ({"vcpus": 2, "max_vcpus": 1}, "max_vcpus"), ({"memory": "2GiB", "max_memory": "1GiB"}, "max_memory"),
    ({"secure_boot": True, "firmware": "bios"}, "secure_boot"),
    ({"boot": ["hd", "hd"]}, "boot"), ({"vcpus": 4, "topology": {"sockets": 3}}, "topology"),
    ({"graphics": {"type": "vnc", "password": "123456789"}}, "graphics.password"),
    ({"graphics": {"type": "vnc", "port": 80}}, "graphics.port"), ({"labels": {"": "x"}}, "labels."), ({"state": "gone"}, "state"), ({"name": ""}, "name"),
    ({"state": "absent", "memory": "1GiB"}, "memory"), ({"group": "A"}, "group"), ({"description": "\x01"}, "description"), ({"index": "-1"}, "index"),
    ({"disks": [{"size": "1GiB"}, {"name": "root", "size": "1GiB"}]}, "disks"), ({"disks": [{"name": "seed", "size": "1GiB"}]}, "disks"),
    ({"nics": [{"network": "a", "bridge": "b"}]}, "nics[0].bridge"), ({"nics": [{"network": "a", "mac": "x"}]}, "nics[0].mac"),
    ({"nics": [{"network": "a", "vlan": 0}]}, "nics[0].vlan"), ({"nics": [{"network": "a", "mode": "vepa"}]}, "nics[0].mode"),
    ({"nics": [{"network": "a", "addresses": ["10.0.0.1/8", "10.0.0.1/8"]}]}, "nics[0].addresses"),
    ({"nics": [{"network": "a", "model": "e1000", "queues": 2}]}, "nics[0].queues"), ({"nics": [{"network": "a", "routes": "x"}]}, "nics[0].routes"),
    ({"nics": [{"network": "a\x01"}]}, "nics[0].network"), ({"boot": []}, "boot"), ({"labels": {"a": "b\0"}}, "labels.a"),
    ({"labels": {"a": None}}, "labels.a"),
    ({"labels": {"a": ["b"]}}, "labels.a"), ({"labels": {"a": "b\n"}}, "labels.a"), ({"anti_affinity": ["a=\x02"]}, "anti_affinity"),
    ({"description": "\ud800"}, "description"), ({"image": "a\r\nb"}, "image"), ({"cpu": {"mode": "custom", "model": "a\ufffe"}}, "cpu.model"),
    ({"cpu": {"features": [{"name": "\x01"}]}}, "cpu.features"), ({"vcpus": "1" * 5000}, "vcpus"), ({"vcpus_request": "1" * 5000}, "vcpus_request"),
    ({"graphics": {"type": "spice", "password": "123456789\n"}}, "graphics.password"),
    ({"disks": [{"volume": "v", "pool": "p"}, {"volume": "v", "pool": "p"}]}, "disks"),
])
def test_vms_that_cannot_be(params, option):
    """Each by the option that is wrong, and no password in it."""
    with pytest.raises(SpecError) as caught:
        _spec.vm_from_params(dict({"name": "web"}, **params))
    assert caught.value.option == option and "123456789" not in str(caught.value) + str(caught.value.as_result())


def test_line_ends_of_a_description_are_those_that_xml_keeps():
    assert _spec.vm_from_params({"name": "web", "description": "a\r\nb\rc\n"}).description == "a\nb\nc\n"


def test_what_yaml_takes_for_a_number_is_a_serial_number_too():
    assert _spec.vm_from_params({"name": "web", "disks": [{"size": "1GiB", "serial": 12345}]}).disks[0].serial == "12345"


def test_batches():
    """What is given twice is named with both that want it."""
    nic = _spec.NicSpec(network="n", mac="52:54:00:00:00:01", addresses=["10.0.0.1/24"])
    one, two = VmSpec("a", nics=[nic]), VmSpec("b", nics=[_spec.NicSpec(network="n", addresses=["10.0.0.1/25"])])
    _spec.check_batch([one, VmSpec("b"), VmSpec("c")])
    for pair, code in (([one, VmSpec("a")], "name_in_use"), ([one, two], "ip_in_use"), ([VmSpec("x", uuid="u"), VmSpec("y", uuid="u")], "uuid_in_use")):
        with pytest.raises(SpecError) as caught:
            _spec.check_batch(pair)
        assert caught.value.code == code and pair[0].name in str(caught.value)
