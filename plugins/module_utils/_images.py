# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries of the image catalog: what an image is made of, what it is called as a volume, its checksum. Pure."""
from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from typing import Any, Dict, Mapping, Optional, Tuple
from urllib.parse import urlsplit

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, check_volume_name, one_of

SOURCES = ("build", "url", "path")
FORMATS = ("qcow2", "raw")
DEFAULT_CACHE = "/var/cache/kvmfleet/images"
SUITES = ("bookworm", "trixie")

# Raise it whenever what _image_build.py writes into an image changes: it is part of the image's name.
RECIPE_VERSION = 1

_DIGITS = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"^[0-9a-f]+$")
_NAME_TAG = re.compile(r"^[a-z0-9][a-z0-9._-]*(:[A-Za-z0-9][A-Za-z0-9._-]*)?$")
_PACKAGE = re.compile(r"^[a-z0-9][a-z0-9+.-]+$")
_OUR_VOLUME = re.compile(r"^base-[a-z0-9.-]+-[0-9a-f]{12}[.](qcow2|img)$")
# As sha256sum --tag writes it, and (SHA2-256, fewer blanks) openssl.
_BSD_LINE = re.compile(r"^SHA(?:2-)?(?:256|512) ?\((?P<name>.+)\) ?= ?(?P<digest>[0-9a-fA-F]+)$")
_GNU_LINE = re.compile(r"^(?P<digest>[0-9a-fA-F]+)\s+[* ]?(?P<name>\S.*)$")


@dataclass(frozen=True)
class Recipe:
    """What a built image is made of; two equal recipes make interchangeable images."""

    suite: str = "bookworm"
    packages: Tuple[str, ...] = ()
    version: int = RECIPE_VERSION


@dataclass(frozen=True)
class Checksum:
    """How to know an image: by its digest, or by the place of a list of digests such as SHA256SUMS."""

    algorithm: str
    digest: Optional[str] = None
    list_at: Optional[str] = None


def _volume_prefix(name_tag: str) -> str:
    return "base-{0}-".format(re.sub(r"[^a-z0-9.]+", "-", name_tag.lower()))


@dataclass(frozen=True)
class Image:
    """One entry of the image catalog, as far as making it available goes."""

    name: str
    source: str
    url: Optional[str] = None
    path: Optional[str] = None
    recipe: Optional[Recipe] = None
    checksum: Optional[Checksum] = None
    format: str = "qcow2"
    volume: Optional[str] = None

    def identity(self) -> Dict[str, Any]:
        """What makes two images different; all of it is in the volume's name as a hash."""
        if self.recipe is not None:
            return {"recipe": asdict(self.recipe), "format": self.format}
        if self.checksum is not None and self.checksum.digest:
            return {"digest": self.checksum.digest, "format": self.format}
        return {"url": self.url, "path": self.path, "list_at": self.checksum.list_at if self.checksum else None, "format": self.format}

    def volume_name(self) -> str:
        """The name of the image's volume in every pool."""
        if self.volume:
            return self.volume
        key = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:12]
        return "{0}{1}.{2}".format(_volume_prefix(self.name), key, "qcow2" if self.format == "qcow2" else "img")


def parse_checksum(option: str, value: Optional[str]) -> Optional[Checksum]:
    """C(sha256:<digits>), C(sha512:<digits>), or either with the URL or absolute path of a list of digests. Raises SpecError."""
    if value is None or value == "":
        return None
    algorithm, _colon, rest = str(value).partition(":")
    remedy = "Write sha256:<64 digits>, sha512:<128 digits>, or sha256:<URL or absolute path of the SHA256SUMS file>"
    if algorithm not in _DIGITS or not rest:
        raise SpecError(option, value, "is not a checksum", remedy)
    if rest.startswith("/") or urlsplit(rest).scheme in ("http", "https"):
        return Checksum(algorithm, list_at=rest)
    digest = rest.lower()
    if not _HEX.match(digest) or len(digest) != _DIGITS[algorithm]:
        raise SpecError(option, value, "does not have {0} hexadecimal digits".format(_DIGITS[algorithm]), remedy)
    return Checksum(algorithm, digest=digest)


def find_digest(text: str, file_name: str, algorithm: str) -> Optional[str]:
    """The digest of a file in a list such as SHA256SUMS, or None.

    Lists may be of the GNU or the BSD form, clear-signed, with comments; a list that is one digest and nothing else is that of the file.
    Raises SpecError where the list has two digests for files of that name.
    """
    lines = [line.strip() for line in text.lstrip("\ufeff").splitlines()]
    digits, found = _DIGITS[algorithm], []
    for line in lines:
        match = _BSD_LINE.match(line) or _GNU_LINE.match(line)
        if match and os.path.basename(match.group("name")) == file_name and len(match.group("digest")) == digits:
            found.append(match.group("digest").lower())
    if len(set(found)) > 1:
        raise SpecError("checksum", file_name, "the list has several digests for files of this name", "Write the digest itself")
    alone = [line for line in lines if line and not line.startswith("#")]
    if len(alone) == 1 and len(alone[0]) == digits and _HEX.match(alone[0].lower()):
        found.append(alone[0].lower())
    return found[0] if found else None


def is_image_volume(volume: str) -> bool:
    """Whether a volume's name is one that we give to images: L(Image.volume_name) without a name of the entry's own."""
    return bool(_OUR_VOLUME.match(volume))


def may_hold(volume: str, name_tag: str) -> bool:
    """Whether a volume is called as one that we give to images, and to an image of that name: of the catalog as it is now, or as it was."""
    prefix = _volume_prefix(name_tag)
    return is_image_volume(volume) and volume.startswith(prefix) and "-" not in volume[len(prefix):]


def image_from_entry(name_tag: str, entry: Mapping[str, Any]) -> Image:
    """An entry of C(kvmfleet_images), checked. Raises SpecError with options named as the entry's keys."""
    if not _NAME_TAG.match(name_tag):
        raise SpecError("name", name_tag, "is not an image's name", "Write name:tag, such as debian:12")
    source = entry.get("source")
    if not source:
        raise SpecError("source", None, "image {0} does not say where it comes from".format(name_tag), "Set source to one of {0}".format(", ".join(SOURCES)))
    one_of("source", source, SOURCES)
    kind = one_of("format", entry.get("format") or "qcow2", FORMATS)
    checksum = parse_checksum("checksum", entry.get("checksum"))
    _refuse_others(source, entry)
    volume = _volume(entry)
    if source == "build":
        return Image(name_tag, source, recipe=_recipe(entry), format=kind, volume=volume)
    if source == "url":
        url = str(entry.get("url") or "")
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise SpecError("url", url, "is not an http or https address", "Give the address of the image, or use source: path for a file")
        return Image(name_tag, source, url=url, checksum=checksum, format=kind, volume=volume)
    path = str(entry.get("path") or "")
    if not path:
        raise SpecError("path", path, "is empty", "Give the path of the image file")
    return Image(name_tag, source, path=path, checksum=checksum, format=kind, volume=volume)


def _refuse_others(source: str, entry: Mapping[str, Any]) -> None:
    belongs = {"url": ("url",), "path": ("path",), "suite": ("build",), "packages": ("build",), "checksum": ("url", "path")}
    for key, sources in belongs.items():
        if entry.get(key) and source not in sources:
            raise SpecError(key, entry[key], "does not go with source: {0}".format(source), "Leave it out, or use source: {0}".format(" or ".join(sources)))


def _volume(entry: Mapping[str, Any]) -> Optional[str]:
    """The name that an entry gives to its volume. One with a slash would be a file outside the pool."""
    return check_volume_name("volume", entry["volume"]) if entry.get("volume") else None


def _recipe(entry: Mapping[str, Any]) -> Recipe:
    suite = one_of("suite", entry.get("suite") or "bookworm", SUITES)
    packages = tuple(sorted(set(entry.get("packages") or [])))
    for package in packages:
        if not _PACKAGE.match(package):
            raise SpecError("packages", package, "is not the name of a Debian package", "Correct it, or leave it out")
    return Recipe(suite, packages)


def image_volume_name(name_tag: str, entry: Mapping[str, Any]) -> str:
    """The name of the volume that holds an image, in any pool: the same from the catalog's side and from the host's. Raises SpecError."""
    volume = _volume(entry)
    if not entry.get("source") and volume:
        return volume
    return image_from_entry(name_tag, entry).volume_name()
