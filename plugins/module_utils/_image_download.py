# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Download a large file over HTTP so that a connection that breaks costs the rest of the file only."""
from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import shutil
import socket
import time
import urllib.error
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Dict, Mapping, Optional
from urllib.parse import urljoin, urlsplit

from ansible.module_utils.urls import ConnectionError as UrlConnectionError
from ansible.module_utils.urls import NoSSLError, SSLValidationError, open_url

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, human_size

_CHUNK = 1 << 20
_LIST_LIMIT = 4 << 20
# Attempts in a row that brought not a single byte; one that brought some does not count.
_FRUITLESS_ATTEMPTS = 4
_MOVED = (301, 302, 303, 307, 308)
_REDIRECTS = 10
_PORTS = {"http": 80, "https": 443}
_HEADER_NAME = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_HEADER_VALUE = re.compile(r"^[\t\x20-\x7e]*\Z")
_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)$")
_BROKEN = (http.client.HTTPException, socket.timeout, TimeoutError, ConnectionError, urllib.error.URLError, UrlConnectionError)


def origin_of(url: str) -> str:
    """Scheme, host and port of an address: what a server is known by. Empty for an address that has no server of ours to ask."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in _PORTS or not parts.hostname:
        return ""
    return "{0}://{1}:{2}".format(parts.scheme, "[{0}]".format(parts.hostname) if ":" in parts.hostname else parts.hostname, port or _PORTS[parts.scheme])


def _checked_headers(option: str, raw: Mapping[str, Any]) -> Dict[str, str]:
    for name, value in raw.items():
        if not _HEADER_NAME.match(str(name)):
            raise SpecError(option, name, "is neither the name of a header nor the address of a server",
                            "Write names and values, or https://server and then names and values")
        if isinstance(value, (Mapping, list)) or value is None or not _HEADER_VALUE.match(str(value)):
            raise SpecError("{0}.{1}".format(option, name), None, "is not one line of plain text", "Write the value of the header, in quotation marks")
    return {str(name): str(value) for name, value in raw.items()}


def headers_by_origin(option: str, raw: Mapping[str, Any], url: Optional[str]) -> Dict[str, Dict[str, str]]:
    """Which server gets which headers. Raises SpecError, which shows no value.

    :param raw: names and values, which are for the server of C(url); or addresses of servers, and what each of them gets
    """
    servers = {key: value for key, value in raw.items() if "://" in str(key)}
    found: Dict[str, Dict[str, str]] = {}
    here = origin_of(url or "")
    plain = _checked_headers(option, {key: value for key, value in raw.items() if key not in servers})
    if plain and here:
        found[here] = plain
    for server, headers in servers.items():
        if not origin_of(str(server)) or urlsplit(str(server)).path not in ("", "/") or "@" in str(server):
            raise SpecError(option, server, "is not the address of a server", "Write it without a path, such as https://images.example.com")
        if not isinstance(headers, Mapping):
            raise SpecError("{0}.{1}".format(option, server), None, "has no names and values of headers", "Write them, such as Authorization: Bearer ...")
        origin = origin_of(str(server))
        found[origin] = dict(found.get(origin, {}), **_checked_headers("{0}.{1}".format(option, server), headers))
    return found


@dataclass(frozen=True)
class Access:
    """How servers are talked to. C(headers): what is sent to the server of that origin (L(origin_of)) and to no other."""

    timeout_s: int = 30
    validate_certs: bool = True
    headers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass
class Outcome:
    """What a download did."""

    size: int = 0
    resumed_from: int = 0
    attempts: int = 0


class _Broken(Exception):
    """The connection ended before the file did."""


class _StartAgain(Exception):
    """What is there is no beginning of what the server has."""


def _open_once(url: str, access: Access, headers: Dict[str, str]) -> Any:
    own = access.headers.get(origin_of(url), {})
    # Compression would make lengths and ranges those of other bytes than the file's. An authorization that is given goes before that of ~/.netrc.
    return open_url(url, headers=dict(own, **headers), timeout=access.timeout_s, validate_certs=access.validate_certs, follow_redirects="none",
                    decompress=False, http_agent="kvmfleet", use_netrc="authorization" not in (name.lower() for name in own))


def _open(url: str, access: Access, headers: Dict[str, str]) -> Any:
    """Ask for a file, also where it has moved to. Each server gets its own headers only: a redirect must not carry secrets elsewhere."""
    here = url
    for _hop in range(_REDIRECTS + 1):
        try:
            return _open_once(here, access, headers)
        except urllib.error.HTTPError as exc:
            target = exc.headers.get("Location") if exc.code in _MOVED else None
            if not target:
                raise
            exc.close()
            there = urljoin(here, target.strip().replace(" ", "%20"))
            if not origin_of(there):
                raise FleetError("Cannot download {0}: the server points to {1}, which is no http or https address. Correct the url of the image".format(
                    url, there), "download_failed") from None
            if urlsplit(here).scheme == "https" and urlsplit(there).scheme != "https":
                raise FleetError("Cannot download {0}: the server points to {1}, which is not encrypted. Write that address as the url of the image if "
                                 "it is to be trusted".format(url, there), "download_failed") from None
            here = there
    raise FleetError("Cannot download {0}: the server points from one address to the next, more than {1} times. Correct the url of the image".format(
        url, _REDIRECTS), "download_failed")


def _refused(url: str, exc: urllib.error.HTTPError) -> FleetError:
    return FleetError("Cannot download {0}: the server says {1} {2}. Correct the url of the image, or its access rights".format(url, exc.code, exc.reason),
                      "download_failed", http_status=exc.code)


def read_text(url: str, access: Access) -> str:
    """A small text, such as a list of checksums. Raises FleetError."""
    try:
        with _open(url, access, {}) as response:
            data = response.read(_LIST_LIMIT + 1)
    except urllib.error.HTTPError as exc:
        raise _refused(url, exc) from None
    except (SSLValidationError, NoSSLError) as exc:
        raise FleetError("Cannot download {0}: {1}".format(url, exc), "download_failed") from None
    except _BROKEN as exc:
        raise FleetError("Cannot download {0}: {1}".format(url, exc), "download_failed") from None
    if len(data) > _LIST_LIMIT:
        raise FleetError("{0} has more than {1}, which no list of checksums has".format(url, human_size(_LIST_LIMIT)), "download_failed")
    return str(data.decode("utf-8", "replace"))


def hash_file(handle: BinaryIO, algorithm: str) -> str:
    """Hexadecimal digest of a whole file."""
    digest = hashlib.new(algorithm)
    handle.seek(0)
    for chunk in iter(lambda: handle.read(_CHUNK), b""):
        digest.update(chunk)
    return digest.hexdigest()


class Download:
    """One file on its way into an open file, whose present content may be the beginning of it.

    :param handle: opened for reading and writing; what it holds is resumed from
    """

    def __init__(self, url: str, handle: BinaryIO, access: Access) -> None:
        self.url, self.handle, self.access = url, handle, access
        self.validator: Optional[str] = None
        self.expected: Optional[int] = None
        self.outcome = Outcome(resumed_from=os.fstat(handle.fileno()).st_size)

    def _have(self) -> int:
        return os.fstat(self.handle.fileno()).st_size

    def progress(self) -> str:
        """How far it is."""
        received = human_size(self._have())
        return "downloading, {0} of {1}".format(received, human_size(self.expected)) if self.expected else "downloading, {0}".format(received)

    def _restart(self) -> None:
        self.handle.truncate(0)
        self.expected, self.outcome.resumed_from = None, 0

    def run(self) -> Outcome:
        """Download the rest. Raises FleetError C(download_failed) or C(no_space)."""
        fruitless = 0
        while True:
            before = self._have()
            self.outcome.attempts += 1
            try:
                self._attempt(before)
                self.outcome.size = self._have()
                return self.outcome
            except _StartAgain:
                self._restart()
                fruitless += 1
                reason: object = "the server has another file now"
            except urllib.error.HTTPError as exc:
                if exc.code < 500 and exc.code != 429:
                    raise _refused(self.url, exc) from None
                fruitless += 1
                reason = "the server says {0} {1}".format(exc.code, exc.reason)
            except (SSLValidationError, NoSSLError) as exc:
                raise FleetError("Cannot download {0}: {1}".format(self.url, exc), "download_failed") from None
            except (_Broken,) + _BROKEN as exc:
                fruitless = 0 if self._have() > before else fruitless + 1
                reason = exc
            if fruitless >= _FRUITLESS_ATTEMPTS:
                raise FleetError("Cannot download {0}: {1} ({2} attempts, {3} received). What was received is kept, and the next run goes on from there".format(
                    self.url, reason, self.outcome.attempts, human_size(self._have())), "download_failed")
            time.sleep(0.5 * fruitless)

    def _attempt(self, have: int) -> None:
        headers = {}
        if have:
            headers["Range"] = "bytes={0}-".format(have)
            if self.validator:
                headers["If-Range"] = self.validator
        try:
            response = _open(self.url, self.access, headers)
        except urllib.error.HTTPError as exc:
            if exc.code == 416 and have:
                total = re.search(r"\*/(\d+)$", exc.headers.get("Content-Range") or "")
                if total and int(total.group(1)) == have:
                    return
                raise _StartAgain from None
            raise
        with response:
            self._receive(response, have)

    def _receive(self, response: Any, have: int) -> None:
        length = response.headers.get("Content-Length")
        etag = response.headers.get("ETag") or ""
        # A weak ETag does not promise equal bytes, and may not be used here.
        self.validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
        if response.status == 206:
            match = _CONTENT_RANGE.match(response.headers.get("Content-Range") or "")
            if not match or int(match.group(1)) != have:
                raise _StartAgain
            end = int(match.group(3)) if match.group(3) != "*" else int(match.group(2)) + 1
            if self.expected is not None and end != self.expected:
                raise _StartAgain
        else:
            if have:
                self._restart()
            have, end = 0, int(length) if length else -1
        self.expected = end if end >= 0 else None
        self._check_room(have)
        self.handle.seek(have)
        received = have
        while True:
            chunk = response.read(_CHUNK)
            if not chunk:
                break
            self._write(chunk)
            received += len(chunk)
        if self.expected is not None and received < self.expected:
            raise _Broken("the connection ended after {0} of {1} bytes".format(received, self.expected))
        if self.expected is not None and received > self.expected:
            raise _StartAgain

    def _check_room(self, have: int) -> None:
        free = shutil.disk_usage(os.path.dirname(self.handle.name)).free
        if self.expected is not None and self.expected - have > free:
            raise self._no_space("it needs {0} more and {1} are free".format(human_size(self.expected - have), human_size(free)))

    def _no_space(self, why: str) -> FleetError:
        return FleetError("Cannot download {0} to {1}: the disk is full ({2}). Free some room or choose another pool".format(
            self.url, os.path.dirname(self.handle.name), why), "no_space")

    def _write(self, chunk: bytes) -> None:
        try:
            self.handle.write(chunk)
            self.handle.flush()
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._no_space(str(exc.strerror)) from None
            raise
