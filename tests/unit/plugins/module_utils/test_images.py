# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What images are called, and what a catalog entry may say."""
from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import _image_build, _images
from ansible_collections.kvmfleet.core.plugins.module_utils._images import (
    Checksum, find_digest, image_from_entry, image_volume_name, is_image_volume, may_hold, parse_checksum,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, check_volume_name

BUILD = {"source": "build", "suite": "bookworm"}
HEX = "0123456789abcdef" * 4
URL = {"source": "url", "url": "https://images.example.com/a.qcow2"}

# (RECIPE_VERSION, what the recipe's code is): a change of the code without a new version would serve old images under the new recipe's name.
RECIPE = (_images.RECIPE_VERSION, "9432fc2edae4d904")


def test_the_recipe_version_goes_with_the_recipe():
    source = Path(_image_build.__file__).read_text(encoding="utf-8")
    start, end = source.index("BASE_PACKAGES"), source.index("def missing_tools")
    recipe = source[start:end] + source[source.index("def _overlay"):source.index("def build")]
    assert hashlib.sha256(recipe.encode()).hexdigest()[:16] == RECIPE[1], "raise RECIPE_VERSION in _images.py, then correct RECIPE here"


def test_the_name_tells_the_image_and_what_it_is_made_of():
    name = image_volume_name("debian:12", BUILD)
    assert name.startswith("base-debian-12-")
    assert name.endswith(".qcow2")
    check_volume_name("name", name)


@pytest.mark.parametrize("other", [
    {"suite": "trixie"}, {"packages": ["vim"]}, {"format": "raw"},
])
def test_another_recipe_is_another_volume(other):
    assert image_volume_name("debian:12", dict(BUILD, **other)) != image_volume_name("debian:12", BUILD)


@pytest.mark.parametrize("same", [
    {"packages": []}, {"format": "qcow2"}, {"min_disk": "3GiB", "default_user": "debian", "description": "x"}, {"checksum": None, "url": None},
])
def test_what_does_not_change_the_image_does_not_change_the_name(same):
    assert image_volume_name("debian:12", dict(BUILD, **same)) == image_volume_name("debian:12", BUILD)


def test_the_order_of_packages_does_not_matter():
    assert image_volume_name("a:1", dict(BUILD, packages=["vim", "curl", "vim"])) == image_volume_name("a:1", dict(BUILD, packages=["curl", "vim"]))


def test_a_mirror_of_a_known_image_is_the_same_image():
    entry = dict(URL, checksum="sha256:" + HEX)
    assert image_volume_name("a:1", entry) == image_volume_name("a:1", dict(entry, url="https://mirror.example.com/b.qcow2"))
    assert image_volume_name("a:1", URL) != image_volume_name("a:1", dict(URL, url="https://mirror.example.com/b.qcow2"))


def test_which_volumes_may_hold_an_image():
    now, before = image_volume_name("debian:12", BUILD), image_volume_name("debian:12", dict(BUILD, packages=["vim"]))
    assert may_hold(now, "debian:12") and may_hold(before, "debian:12")
    assert not may_hold(image_volume_name("debian:12-official", URL), "debian:12")
    assert not may_hold(now, "debian:1") and not may_hold("mine.qcow2", "debian:12")


def test_a_given_volume_name_wins():
    assert image_volume_name("a:1", {"volume": "mine.qcow2"}) == "mine.qcow2"
    assert image_volume_name("a:1", dict(BUILD, volume="mine.qcow2")) == "mine.qcow2"


@pytest.mark.parametrize("volume", ["../x.qcow2", "/etc/x", "a/b", ".."])
@pytest.mark.parametrize("rest", [{}, BUILD, URL])
def test_a_volume_is_a_file_in_the_pool(volume, rest):
    with pytest.raises(SpecError) as caught:
        image_volume_name("a:1", dict(rest, volume=volume))
    assert caught.value.option == "volume"


@pytest.mark.parametrize("entry, option", [
    ({}, "source"), ({"source": "ftp"}, "source"), ({"source": "url"}, "url"), ({"source": "url", "url": "ftp://x/y"}, "url"),
    ({"source": "url", "url": "file:///etc/shadow"}, "url"), ({"source": "path"}, "path"), ({"source": "build", "suite": "sid"}, "suite"),
    ({"source": "build", "url": "https://x/y"}, "url"), (dict(URL, suite="bookworm"), "suite"), (dict(URL, packages=["vim"]), "packages"),
    ({"source": "build", "checksum": "sha256:" + HEX}, "checksum"), ({"source": "build", "packages": ["--evil"]}, "packages"),
    ({"source": "build", "packages": ["a,b"]}, "packages"), (dict(URL, format="vmdk"), "format"), (dict(URL, checksum="md5:" + HEX[:32]), "checksum"),
])
def test_faults_are_named(entry, option):
    with pytest.raises(SpecError) as caught:
        image_from_entry("debian:12", entry)
    assert caught.value.option == option
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["", "a b", "../x:1", "a:b:c", "a/b", "ü:1"])
def test_names_of_images_are_checked(name):
    with pytest.raises(SpecError):
        image_from_entry(name, BUILD)


@pytest.mark.parametrize("value, expected", [
    ("sha256:" + HEX, Checksum("sha256", HEX)), ("sha256:" + HEX.upper(), Checksum("sha256", HEX)), ("sha512:" + HEX * 2, Checksum("sha512", HEX * 2)),
    ("sha256:https://x.example/SHA256SUMS", Checksum("sha256", list_at="https://x.example/SHA256SUMS")),
    ("sha512:/srv/SUMS", Checksum("sha512", list_at="/srv/SUMS")), (None, None), ("", None),
])
def test_checksums(value, expected):
    assert parse_checksum("checksum", value) == expected


@pytest.mark.parametrize("value", ["sha256", "sha256:", HEX, "sha256:" + HEX[:-1], "sha512:" + HEX, "sha256:" + "g" * 64,
                                   "sha1:" + HEX[:40], "sha256:SHA256SUMS"])
def test_what_is_no_checksum(value):
    with pytest.raises(SpecError):
        parse_checksum("checksum", value)


@given(st.sampled_from(["sha256", "sha512"]), st.binary(max_size=8), st.lists(st.binary(max_size=8), max_size=4), st.booleans(), st.booleans())
def test_a_digest_is_found_in_either_form_of_a_list(algorithm, content, others, bsd, binary):
    digest = hashlib.new(algorithm, content).hexdigest()
    lines = ["# a comment", ""]
    for number, other in enumerate(others):
        lines.append("{0}  other-{1}.qcow2".format(hashlib.new(algorithm, other).hexdigest(), number))
    lines.append("{0} (image.qcow2) = {1}".format(algorithm.upper(), digest) if bsd else "{0} {1}image.qcow2".format(digest, "*" if binary else " "))
    assert find_digest("\n".join(lines), "image.qcow2", algorithm) == digest
    assert find_digest("\n".join(lines), "mage.qcow2", algorithm) is None


def test_a_digest_of_another_kind_is_not_taken():
    assert find_digest("{0}  image.qcow2".format(HEX), "image.qcow2", "sha512") is None


@pytest.mark.parametrize("line", ["{0}  ./image.qcow2", "{0} */srv/x/image.qcow2"])
def test_folders_in_a_list_do_not_matter(line):
    assert find_digest(line.format(HEX), "image.qcow2", "sha256") == HEX


FEDORA = """\
-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

# Fedora-Cloud-Base-Generic-43-1.6.x86_64.qcow2: 583729152 bytes
SHA256 (Fedora-Cloud-Base-Generic-43-1.6.x86_64.qcow2) = {0}
# Fedora-Cloud-Base-UEFI-UKI-43-1.6.x86_64.qcow2: 523108352 bytes
SHA256 (Fedora-Cloud-Base-UEFI-UKI-43-1.6.x86_64.qcow2) = {1}
-----BEGIN PGP SIGNATURE-----

iQIzBAEBCAAdFiEEsFafWr5SgxTvRIfqgpxjFTHJF1cFAmj6sVcACgkQgpxjFTHJ
=abcd
-----END PGP SIGNATURE-----
"""
ROCKY = """\
# Rocky-9-GenericCloud-Base.latest.x86_64.qcow2: 645988352 bytes
SHA256 (Rocky-9-GenericCloud-Base.latest.x86_64.qcow2) = {0}
# Rocky-9-GenericCloud-LVM.latest.x86_64.qcow2: 645988352 bytes
SHA256 (Rocky-9-GenericCloud-LVM.latest.x86_64.qcow2) = {1}
"""
ALMA = "{1}  AlmaLinux-9-GenericCloud-9.7-20251118.x86_64.qcow2\n{0}  AlmaLinux-9-GenericCloud-latest.x86_64.qcow2\n"
UBUNTU = "{1} *noble-server-cloudimg-amd64-root.tar.xz\n{0} *noble-server-cloudimg-amd64.img\n"


@pytest.mark.parametrize("text, name", [
    (FEDORA, "Fedora-Cloud-Base-Generic-43-1.6.x86_64.qcow2"), (ROCKY, "Rocky-9-GenericCloud-Base.latest.x86_64.qcow2"),
    (ALMA, "AlmaLinux-9-GenericCloud-latest.x86_64.qcow2"), (UBUNTU, "noble-server-cloudimg-amd64.img"),
    ("SHA2-256(image.qcow2)= {0}\n", "image.qcow2"), ("\ufeff{0}  image.qcow2\r\n", "image.qcow2"), ("# of the image\n{0}\n", "image.qcow2"),
])
def test_the_lists_that_distributions_publish_are_understood(text, name):
    text = text.format(HEX, "f" * 64)
    assert find_digest(text, name, "sha256") == HEX
    assert find_digest(text, name, "sha512") is None


def test_a_list_of_debian_is_understood():
    text = "{0}  debian-12-genericcloud-amd64.json\n{1}  debian-12-genericcloud-amd64.qcow2\n".format("f" * 128, HEX * 2)
    assert find_digest(text, "debian-12-genericcloud-amd64.qcow2", "sha512") == HEX * 2


def test_two_digests_for_one_name_are_no_answer():
    with pytest.raises(SpecError) as caught:
        find_digest("{0}  8.3/image.qcow2\n{1}  8.4/image.qcow2\n".format(HEX, "f" * 64), "image.qcow2", "sha256")
    assert caught.value.option == "checksum"


def test_an_escaped_line_of_a_signed_list_is_not_taken():
    assert find_digest("- SHA256 (image.qcow2) = {0}\n".format(HEX), "image.qcow2", "sha256") is None


@given(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}(:[A-Za-z0-9][A-Za-z0-9._-]{0,10})?", fullmatch=True), st.sampled_from(["qcow2", "raw"]))
def test_volumes_of_images_are_known_by_their_names(name, kind):
    assert is_image_volume(image_volume_name(name, dict(BUILD, format=kind)))


@pytest.mark.parametrize("name", ["debian-12.iso", "base-debian-12.qcow2", "web-root-0a1b2c3d.qcow2", "base-x-0a1b2c3d4e5f.iso",
                                  ".base-x-0a1b2c3d4e5f.qcow2.part"])
def test_other_volumes_are_not_taken_for_images(name):
    assert not is_image_volume(name)


def test_building_needs_the_keys_of_the_archive(monkeypatch):
    monkeypatch.setattr(_image_build, "_KEYRINGS", ("/nowhere/debian-archive-keyring.gpg",))
    assert "debian-archive-keyring" in _image_build.missing_tools()
    with pytest.raises(_image_build.ImageError, match="apt-get install .*debian-archive-keyring"):
        _image_build.build(_images.Recipe(), "/nowhere/image")


def test_systems_that_cannot_build_are_told_what_can_be_done(monkeypatch):
    monkeypatch.setattr(_image_build.shutil, "which", lambda tool, path: None)
    with pytest.raises(_image_build.ImageError, match="Debian and Ubuntu only") as caught:
        _image_build.build(_images.Recipe(), "/nowhere/image")
    assert caught.value.code == "missing_tool" and "apt-get" not in str(caught.value)


def test_the_role_installs_what_the_build_asks_for():
    """Under the names of Debian 12 and 13 and of Ubuntu 22.04 and 24.04, which are the same."""
    defaults = yaml.safe_load((Path(_images.__file__).resolve().parents[2] / "roles/base_image/defaults/main/main.yml").read_text(encoding="utf-8"))
    assert set(defaults["base_image_packages"]) == set(_image_build.TOOLS.values()) | {"grub-pc-bin", "grub-efi-amd64-bin", "debian-archive-keyring"}
