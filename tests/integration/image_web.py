# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tiny image, and a server on loopback that has it."""
from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def qemu_img(*arguments):
    """Run qemu-img; its output."""
    return subprocess.run(["qemu-img"] + [str(a) for a in arguments], check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout


def make_image(folder):
    """A qcow2 file with some content that is not all zeros, 4 MiB of it; its path."""
    raw, path = folder / "raw", folder / "image.qcow2"
    raw.write_bytes(os.urandom(510) + b"\x55\xaa" + os.urandom((4 << 20) - 512))  # with what makes it a disk
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, path)
    return path


def digest(path):
    """A checksum as the catalog writes it."""
    return "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Web:
    """One file on a server with ranges. C(limit): bytes after which a connection is cut; C(hold): an event that half an answer waits for."""

    def __init__(self, path):
        self.content, self.limit, self.hold, self.down = Path(path).read_bytes(), None, None, False
        self.half_sent = threading.Event()
        self.starts, self.headers = [], []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format, *args):  # pylint: disable=redefined-builtin
                pass

            def do_GET(self):
                web.headers.append(dict(self.headers))
                if self.path.endswith("SUMS"):
                    body = "{0}  image.qcow2\n".format(hashlib.sha256(web.content).hexdigest()).encode()
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    return
                if web.down:
                    self.send_error(503)
                    return
                start = int((self.headers.get("Range") or "bytes=0-")[len("bytes="):-1])
                web.starts.append(start)
                body = web.content[start:]
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", "bytes {0}-{1}/{2}".format(start, len(web.content) - 1, len(web.content)))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if web.limit is not None:
                    self.wfile.write(body[:web.limit])
                    web.down = True
                    return
                half = len(body) // 2
                self.wfile.write(body[:half])
                if web.hold is not None:
                    web.half_sent.set()
                    web.hold.wait(300)
                with contextlib.suppress(ConnectionError):  # the reader has been killed
                    self.wfile.write(body[half:])

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()
        self.base = "http://127.0.0.1:{0}/".format(self.httpd.server_port)
        self.url = self.base + "image.qcow2"

    def stop(self):
        """End it, whoever waits for it."""
        if self.hold is not None:
            self.hold.set()
        self.httpd.shutdown()
        self.httpd.server_close()
