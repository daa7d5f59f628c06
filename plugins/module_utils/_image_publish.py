# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make one image present as a volume of a pool: whole, verified and under its final name, or not at all."""
from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from typing import Any, BinaryIO, Dict, Iterator, List, Optional, Union

from ansible_collections.kvmfleet.core.plugins.module_utils import _image_build, _progress
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._image_download import Access, Download, Outcome, hash_file, read_text
from ansible_collections.kvmfleet.core.plugins.module_utils._image_files import (
    Folder, ImageError, copy_sparse, lend, part_file, publish, room, scratch_file,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._image_format import examine, packing_of, read_header, unpack
from ansible_collections.kvmfleet.core.plugins.module_utils._images import DEFAULT_CACHE, Checksum, Image, find_digest
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, human_size
from ansible_collections.kvmfleet.core.plugins.module_utils._volumes import Pool, Pools

Target = Union[Pool, Folder]

_FOLDER_TYPES = ("dir", "fs", "netfs")


@dataclass(frozen=True)
class Settings:
    """How images are made available, whichever it is."""

    cache_dir: str = DEFAULT_CACHE
    mirror: str = ""
    access: Access = Access()


def image_pool(conn: Any, name: str) -> Pool:
    """The pool of that name. Raises SpecError for one that images cannot be in."""
    pool = Pools(conn).get(name)
    if pool.type not in _FOLDER_TYPES:
        raise SpecError("pool", name, "is a pool of type {0}, and images are files".format(pool.type), "Use a pool of type {0}".format(
            ", ".join(_FOLDER_TYPES)))
    return pool


class Publisher:
    """One image on its way into a pool or folder. Raises SpecError or FleetError."""

    def __init__(self, target: Target, image: Image, settings: Settings) -> None:
        self.target, self.image, self.settings = target, image, settings
        self.volume = image.volume_name()
        self.final = target.path_of(self.volume)
        self.outcome = Outcome()
        self.checksum: Optional[str] = None

    def run(self, check: bool, query: bool = False) -> Dict[str, Any]:
        """Make the image present, unless C(check) or C(query); the module's result."""
        started = time.monotonic()
        present = os.path.exists(self.final)
        changed = not present and not query
        result: Dict[str, Any] = {
            "name": self.image.name, "volume": self.volume, "pool": self.target.name, "volume_path": self.final, "source": self.image.source,
            "present": present, "changed": changed, "actions": self._plan() if changed else [],
            "diff": {"before": {"volume": self.volume if present else None}, "after": {"volume": self.volume if present or changed else None}},
        }
        if changed and self.image.source == "path":
            self._source_file()
        if changed and not check:
            try:
                self._make()
            except ImageError as exc:
                raise FleetError(str(exc), exc.code) from exc
            result.update(present=True, checksum=self.checksum, downloaded={
                "size_bytes": self.outcome.size, "resumed_from_bytes": self.outcome.resumed_from, "attempts": self.outcome.attempts})
        if result["present"]:
            # Also where the file was there already: libvirt may not have looked since it came.
            if self.target.lookup(self.volume, refresh=True) is None:
                raise FleetError("{0} is there, and libvirt does not see it as a volume of pool {1}".format(self.final, self.target.name), "image_invisible")
            header = read_header(self.final)
            result.update(format=header.format, virtual_size_bytes=header.size, size_bytes=os.path.getsize(self.final))
        result["seconds"] = round(time.monotonic() - started, 3)
        return result

    def export(self, path: str, check: bool) -> Dict[str, Any]:
        """Make a file of the image to be carried elsewhere; the module's result, with the digest of that file."""
        if self.target.lookup(self.volume, refresh=True) is None:
            raise SpecError("name", self.image.name, "is not in pool {0}".format(self.target.name), "Make it present first", "unknown_image")
        result: Dict[str, Any] = {"name": self.image.name, "volume": self.volume, "pool": self.target.name, "volume_path": self.final, "changed": True,
                                  "present": True, "diff": {}, "actions": ["export image {0}".format(self.image.name)]}
        if not check:
            lend(self.final, path)
            with open(path, "rb") as handle:
                result.update(checksum="sha256:" + hash_file(handle, "sha256"), size_bytes=os.path.getsize(path))
        return result

    def _plan(self) -> List[str]:
        verb = {"build": "build", "url": "download", "path": "copy"}[self.image.source]
        return ["{0} image {1} as volume {2}".format(verb, self.image.name, self.volume)]

    def _source_file(self) -> str:
        path = str(self.image.path)
        if not os.path.isfile(path):
            raise SpecError("path", path, "is not a file on this host", "Correct it, or put the image there", "unreadable_file")
        if not os.access(path, os.R_OK):
            raise SpecError("path", path, "cannot be read", "Run with become: true, or change its mode", "unreadable_file")
        return path

    def _make(self) -> None:
        _progress.say(self.image.name, "waiting for another run that makes it")
        with part_file(self.final) as part:
            if os.path.exists(self.final):
                return  # another run made it while this one waited
            keep = False
            try:
                getattr(self, "_from_" + self.image.source)(part)
            except FleetError as exc:
                # Only a broken connection leaves something worth keeping: the beginning of the image.
                keep = exc.code == "download_failed" and self.image.checksum is not None and os.path.getsize(part.name) > 0
                raise
            finally:
                if not keep:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(part.name)

    def _from_build(self, part: BinaryIO) -> None:
        self._take(_image_build.cached(self.image, self.settings.cache_dir, self.settings.mirror), part, "source")

    def _from_path(self, part: BinaryIO) -> None:
        source = self._source_file()
        self._verify(source, "path")
        self._take(source, part, "path")

    def _from_url(self, part: BinaryIO) -> None:
        url = str(self.image.url)
        expected = self._digest(os.path.basename(url.partition("?")[0]), "url")
        if self.image.checksum is None:
            part.truncate(0)  # nothing could tell whether the beginning belongs to the rest
        for again in (True, False):
            with room("download {0}".format(url), self.final):
                download = Download(url, part, self.settings.access)
                _progress.say(self.image.name, download.progress)
                self.outcome = download.run()
            try:
                self._compare(part, expected, url)
                break
            except FleetError:
                # The beginning came from an earlier run and may be that of another file: once more, from the start.
                if not again or not self.outcome.resumed_from:
                    raise
                part.truncate(0)
        self._take(part.name, part, "url", url)

    def _take(self, source: str, part: BinaryIO, option: str, shown: Optional[str] = None) -> None:
        """Publish a file that has been verified: unpacked, and converted where the catalog asks for another format.

        :param source: the file, which may be C(part) itself
        :param shown: what to call it in messages
        """
        with self._unpacked(source, option, shown or source) as plain:
            header = examine(plain, option, shown or source)
            if header.format != self.image.format:
                self._convert(plain, header.format)
            elif plain == source != part.name:
                self._copy(source, part)
                self._publish(part)
            else:
                with open(plain, "r+b") as handle:
                    self._publish(handle)

    def _publish(self, handle: BinaryIO) -> None:
        _progress.say(self.image.name, "writing it to disk")
        with room("write {0}".format(self.final), self.final):
            publish(handle, self.final)

    def _copy(self, source: str, part: BinaryIO) -> None:
        whole = human_size(os.path.getsize(source))
        _progress.say(self.image.name, lambda: "copying, {0} of {1}".format(human_size(part.tell()), whole))
        with room("copy {0}".format(source), self.final):
            copy_sparse(source, part)

    @contextlib.contextmanager
    def _unpacked(self, source: str, option: str, shown: str) -> Iterator[str]:
        """The path of what is in a packed file, of any other file its own path."""
        packing = packing_of(source)
        if packing is None:
            yield source
            return
        with scratch_file(self.final, "unpacked") as target, open(source, "rb") as packed:
            whole = human_size(os.path.getsize(source))
            _progress.say(self.image.name, lambda: "unpacking, {0} of {1}".format(human_size(packed.tell()), whole))
            with room("unpack {0}".format(shown), self.final):
                unpack(packing, packed, target, option, shown)
            yield target.name

    def _convert(self, source: str, kind: str) -> None:
        _progress.say(self.image.name, "converting from {0} to {1}".format(kind, self.image.format))
        with scratch_file(self.final, "converted") as converted:
            done = subprocess.run(["qemu-img", "convert", "-f", kind, "-O", self.image.format, source, converted.name],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            if done.returncode:
                raise FleetError("Cannot convert image {0} from {1} to {2}: {3}".format(
                    self.image.name, kind, self.image.format, done.stdout.decode("utf-8", "replace").strip()), "convert_failed")
            self._publish(converted)

    def _digest(self, file_name: str, option: str) -> Optional[str]:
        """The digest that the image must have, looked up in a list where the checksum names one."""
        checksum = self.image.checksum
        if checksum is None or checksum.digest:
            return checksum.digest if checksum else None
        digest = find_digest(self._read_list(checksum), file_name, checksum.algorithm)
        if digest is None:
            raise SpecError("checksum", checksum.list_at, "has no {0} line for {1}".format(checksum.algorithm, file_name),
                            "Correct checksum or {0}, or write the digest itself".format(option))
        return digest

    def _read_list(self, checksum: Checksum) -> str:
        where = str(checksum.list_at)
        if not where.startswith("/"):
            return read_text(where, self.settings.access)
        try:
            with open(where, encoding="utf-8", errors="replace") as handle:
                return handle.read()
        except OSError as exc:
            raise SpecError("checksum", where, "cannot be read on this host: {0}".format(exc.strerror), "Correct the path", "unreadable_file") from None

    def _verify(self, path: str, option: str) -> None:
        with open(path, "rb") as handle:
            self._compare(handle, self._digest(os.path.basename(path), option), path)

    def _compare(self, handle: BinaryIO, expected: Optional[str], what: str) -> None:
        if self.image.checksum is None:
            return
        algorithm = self.image.checksum.algorithm
        _progress.say(self.image.name, "comparing its {0}".format(algorithm))
        found = hash_file(handle, algorithm)
        if found != expected:
            raise FleetError("{0} is not image {1}: its {2} is {3}, not {4}. Correct the checksum of the catalog's entry if the image has been replaced "
                             "on purpose".format(what, self.image.name, algorithm, found, expected), "checksum_mismatch")
        self.checksum = "{0}:{1}".format(algorithm, found)
