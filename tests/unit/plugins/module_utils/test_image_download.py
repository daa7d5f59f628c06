# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads from servers that behave badly, on loopback."""
from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
import urllib.error
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _image_download
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._image_download import (
    Access, Download, hash_file, headers_by_origin, origin_of, read_text,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

CONTENT = bytes(range(256)) * 4096 * 3 + b"end"


class Server:
    """An HTTP server with one file; C(script) says how each request in turn is treated, the last word for all that follow.

    Words: C(good) with ranges, C(plain) without, C(cut) ends the connection half-way, C(changed) has another file, C(redirect) points to C(target), a number is
    a status.
    """

    def __init__(self, *script):
        self.script, self.requests = list(script) or ["good"], []
        self.target = "/elsewhere/image.qcow2"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format, *args):  # pylint: disable=redefined-builtin
                pass

            def do_GET(self):
                outer.requests.append(dict(self.headers))
                word = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                outer.answer(self, word)

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.thread = threading.Thread(target=self.httpd.serve_forever, daemon=True)
        self.thread.start()
        self.url = "http://127.0.0.1:{0}/image.qcow2".format(self.httpd.server_port)

    def answer(self, handler, word):
        if isinstance(word, int):
            handler.send_response(word)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if word == "redirect":
            handler.send_response(302)
            handler.send_header("Location", self.target)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        content, etag = (CONTENT[::-1], '"two"') if word == "changed" else (CONTENT, '"one"')
        wanted = handler.headers.get("Range")
        start = int(wanted[len("bytes="):-1]) if wanted and word != "plain" else 0
        if handler.headers.get("If-Range") not in (None, etag):
            start = 0
        if wanted and start >= len(content) and word != "plain":
            handler.send_response(416)
            handler.send_header("Content-Range", "bytes */{0}".format(len(content)))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", "bytes {0}-{1}/{2}".format(start, len(content) - 1, len(content)))
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if word == "cut":
            handler.wfile.write(body[:len(body) // 2])
            handler.close_connection = True
            return
        handler.wfile.write(body)

    def stop(self):
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()


@pytest.fixture
def serve():
    servers = []

    def start(*script):
        servers.append(Server(*script))
        return servers[-1]
    yield start
    for server in servers:
        server.stop()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(_image_download.time, "sleep", lambda seconds: None)


def download(url, tmp_path, beginning=b""):
    path = tmp_path / "part"
    path.write_bytes(beginning)
    with open(path, "r+b") as handle:
        outcome = Download(url, handle, Access(timeout_s=5)).run()
    return outcome, path.read_bytes()


def test_the_whole_file(serve, tmp_path):
    outcome, content = download(serve().url, tmp_path)
    assert content == CONTENT
    assert (outcome.size, outcome.resumed_from, outcome.attempts) == (len(CONTENT), 0, 1)


def test_a_beginning_is_gone_on_from(serve, tmp_path):
    server = serve()
    outcome, content = download(server.url, tmp_path, CONTENT[:1000])
    assert content == CONTENT
    assert outcome.resumed_from == 1000
    assert server.requests[0]["Range"] == "bytes=1000-"


def test_a_server_without_ranges_starts_again(serve, tmp_path):
    outcome, content = download(serve("plain").url, tmp_path, b"x" * 5000)
    assert content == CONTENT
    assert outcome.resumed_from == 0


def test_a_cut_connection_costs_only_the_rest(serve, tmp_path):
    server = serve("cut", "cut", "good")
    outcome, content = download(server.url, tmp_path)
    assert content == CONTENT
    assert outcome.attempts == 3
    half = len(CONTENT) // 2
    assert server.requests[1]["Range"] == "bytes={0}-".format(half)
    assert server.requests[1]["If-Range"] == '"one"'


def test_a_file_that_changes_meanwhile_is_not_mixed(serve, tmp_path):
    outcome, content = download(serve("cut", "changed").url, tmp_path)
    assert content == CONTENT[::-1]


def test_a_beginning_that_is_all_is_enough(serve, tmp_path):
    outcome, content = download(serve().url, tmp_path, CONTENT)
    assert content == CONTENT
    assert outcome.attempts == 1


def test_a_beginning_longer_than_the_file_is_dropped(serve, tmp_path):
    outcome, content = download(serve().url, tmp_path, CONTENT + b"more")
    assert content == CONTENT


def test_a_redirect_is_followed(serve, tmp_path):
    outcome, content = download(serve("redirect", "good").url, tmp_path)
    assert content == CONTENT


def test_a_server_that_recovers(serve, tmp_path):
    outcome, content = download(serve(503, "good").url, tmp_path)
    assert content == CONTENT
    assert outcome.attempts == 2


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_told_at_once(serve, tmp_path, status):
    server = serve(status)
    with pytest.raises(FleetError) as caught:
        download(server.url, tmp_path)
    assert caught.value.code == "download_failed"
    assert str(status) in str(caught.value)
    assert server.url in str(caught.value)
    assert len(server.requests) == 1


def test_a_server_that_never_recovers(serve, tmp_path):
    server = serve(503)
    with pytest.raises(FleetError, match="503"):
        download(server.url, tmp_path)
    assert len(server.requests) == 4


def test_nobody_there(serve, tmp_path):
    server = serve()
    server.stop()
    with pytest.raises(FleetError, match="Cannot download"):
        download(server.url, tmp_path)
    server.stop = lambda: None


def test_a_disk_that_is_too_small_is_known_beforehand(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(_image_download.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(FleetError, match="disk is full") as caught:
        download(serve().url, tmp_path)
    assert caught.value.code == "no_space"
    assert os.path.getsize(tmp_path / "part") == 0


def test_a_disk_that_gets_full(serve, tmp_path):
    class Full:
        """A file on a full disk."""

        def __init__(self, handle):
            self.handle, self.name = handle, handle.name

        def __getattr__(self, name):
            return getattr(self.handle, name)

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "part"
    path.touch()
    with open(path, "r+b") as handle, pytest.raises(FleetError, match="disk is full") as caught:
        Download(serve().url, Full(handle), Access()).run()
    assert caught.value.code == "no_space"


SECRETS = {"Authorization": "Bearer secret", "X-Token": "t"}


def sent_to(server):
    """Which of the secrets each request to a server brought."""
    return [{name: request[name] for name in SECRETS if name in request} for request in server.requests]


def fetch(server, tmp_path, headers):
    path = tmp_path / "part"
    path.touch()
    with open(path, "r+b") as handle:
        Download(server.url, handle, Access(5, headers=headers_by_origin("headers", headers, server.url))).run()
    assert path.read_bytes() == CONTENT


def test_headers_are_sent(serve, tmp_path):
    server = serve("redirect", "good")
    fetch(server, tmp_path, SECRETS)
    assert sent_to(server) == [SECRETS, SECRETS]
    assert "Accept-Encoding" not in server.requests[0] or server.requests[0]["Accept-Encoding"] == "identity"


def test_headers_are_for_one_server(serve, tmp_path):
    here, there = serve("redirect"), serve("good")
    here.target = there.url
    fetch(here, tmp_path, SECRETS)
    assert (sent_to(here), sent_to(there)) == ([SECRETS], [{}])
    read_text(there.url, Access(5, headers=headers_by_origin("headers", SECRETS, here.url)))
    assert sent_to(there)[1:] == [{}]


def test_each_server_gets_its_own_headers(serve, tmp_path):
    here, there = serve("redirect"), serve("good")
    here.target = there.url
    fetch(here, tmp_path, {"X-Token": "t", there.url.rsplit("/", 1)[0]: {"Authorization": "Bearer secret"}})
    assert (sent_to(here), sent_to(there)) == ([{"X-Token": "t"}], [{"Authorization": "Bearer secret"}])


def test_a_login_of_netrc_does_not_replace_what_is_given(serve, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n", encoding="ascii")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server = serve("good")
    fetch(server, tmp_path, {"authorization": "Bearer secret"})
    assert sent_to(server) == [{"Authorization": "Bearer secret"}]


@pytest.mark.parametrize("target, reason", [("file:///etc/passwd", "no http or https"), ("ftp://127.0.0.1/x", "no http or https"),
                                            ("/elsewhere", "more than 10 times")])
def test_redirects_that_are_not_followed(serve, tmp_path, target, reason):
    server = serve("redirect")
    server.target = target
    with pytest.raises(FleetError, match=reason) as caught:
        download(server.url, tmp_path)
    assert caught.value.code == "download_failed"
    assert len(server.requests) == (11 if target.startswith("/") else 1)


def test_a_redirect_to_an_unencrypted_address(monkeypatch):
    def moved(url, **options):
        raise urllib.error.HTTPError(url, 302, "Found", {"Location": "http://images.example.com/a"}, io.BytesIO())
    monkeypatch.setattr(_image_download, "open_url", moved)
    with pytest.raises(FleetError, match="not encrypted"):
        read_text("https://images.example.com/a", Access())


@pytest.mark.parametrize("url, origin", [
    ("https://A.example/x", "https://a.example:443"), ("http://a.example:8080/x?y", "http://a.example:8080"),
    ("https://u:p@a.example", "https://a.example:443"),
    ("https://[2001:db8::1]:1/x", "https://[2001:db8::1]:1"), ("https://a.example:x/", ""), ("file:///etc/passwd", ""), ("/x", ""), ("", ""),
])
def test_what_a_server_is_known_by(url, origin):
    assert origin_of(url) == origin


@pytest.mark.parametrize("raw, option", [
    ({"X Token": "s3cret"}, "headers"), ({"X-Token": "s3cret\r\nX-Other: 1"}, "headers.X-Token"), ({"X-Token": ["s3cret"]}, "headers.X-Token"),
    ({"https://a.example/path": {"X-Token": "s3cret"}}, "headers"), ({"ftp://a.example": {"X-Token": "s3cret"}}, "headers"),
    ({"https://a.example": "s3cret"}, "headers.https://a.example"), ({"https://a.example": {"X-Token": "s3cret\n"}}, "headers.https://a.example.X-Token"),
])
def test_faults_of_headers_are_named_and_not_shown(raw, option):
    with pytest.raises(SpecError) as caught:
        headers_by_origin("headers", raw, "https://images.example.com/a")
    assert caught.value.option == option and "s3cret" not in str(caught.value)


def test_a_list_is_read(serve):
    assert read_text(serve().url, Access()).startswith("\x00\x01")
    with pytest.raises(FleetError, match="404"):
        read_text(serve(404).url, Access())


def test_hashing(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with open(path, "rb") as handle:
        handle.read(10)
        assert hash_file(handle, "sha512") == hashlib.sha512(CONTENT).hexdigest()
