# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images brought into a pool of the real libvirtd: by module and by role, from a server on loopback, from a path, from a build."""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import libvirt
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = "ansible_collections.kvmfleet.core.plugins.modules.base_image_file"


def qemu_img(*arguments):
    """Run qemu-img; its output."""
    return subprocess.run(["qemu-img"] + [str(a) for a in arguments], check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A qcow2 file with some content that is not all zeros, 4 MiB of it."""
    folder = tmp_path_factory.mktemp("image")
    raw, path = folder / "raw", folder / "image.qcow2"
    raw.write_bytes(os.urandom(4 << 20))
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
        self.starts = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format, *args):  # pylint: disable=redefined-builtin
                pass

            def do_GET(self):
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
                    web.hold.wait(60)
                with contextlib.suppress(ConnectionError):  # the reader has been killed
                    self.wfile.write(body[half:])

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()
        self.base = "http://127.0.0.1:{0}/".format(self.httpd.server_port)
        self.url = self.base + "image.qcow2"


@pytest.fixture
def web(image):
    """A server with the image."""
    made = Web(image)
    yield made
    if made.hold is not None:
        made.hold.set()
    made.httpd.shutdown()
    made.httpd.server_close()


@pytest.fixture
def wanted(place, web, image):
    """Parameters of the module for the image on the server."""
    return {"name": "test:1", "pool": place.pool, "source": "url", "url": web.url, "checksum": digest(image), "uri": place.uri}


def spawn(**params):
    """The module as a process of its own."""
    process = subprocess.Popen([sys.executable, "-m", MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=dict(os.environ, PYTHONPATH=str(ROOT / ".ansible" / "collections")))
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": params}).encode())
    process.stdin.close()
    return process


def result_of(process):
    """What a spawned module said."""
    output = process.stdout.read()
    process.stdout.close()
    process.wait()
    return json.loads(output)


def test_a_download_becomes_a_volume(place, converge, wanted, web, image):
    result = converge("base_image_file", **wanted)
    assert result["changed"] is True
    assert place.files() == [result["volume"]]
    assert Path(result["volume_path"]).read_bytes() == image.read_bytes()
    assert os.stat(result["volume_path"]).st_mode & 0o777 == 0o644
    assert place.handle.storageVolLookupByName(result["volume"]).info()[1] == result["virtual_size_bytes"] == 4 << 20
    assert result["checksum"] == wanted["checksum"]
    assert web.starts == [0], "fetched more than once"


def test_a_checksum_from_a_list(place, converge, wanted, web, image):
    result = converge("base_image_file", **dict(wanted, checksum="sha256:{0}SUMS".format(web.base)))
    assert result["checksum"] == digest(image)


def test_a_wrong_checksum_leaves_nothing(place, run_module, wanted):
    failed = run_module("base_image_file", fails=True, **dict(wanted, checksum="sha256:" + "0" * 64))
    assert failed["reason"] == "checksum_mismatch"
    assert "0" * 64 in failed["msg"]
    assert place.files() == []


def test_a_broken_download_is_gone_on_with(place, run_module, wanted, web, image):
    web.limit = 1 << 20
    failed = run_module("base_image_file", fails=True, **wanted)
    assert failed["reason"] == "download_failed"
    assert [name for name in place.files() if not name.endswith(".part")] == []
    assert len(place.files()) == 1
    web.limit, web.down = None, False
    result = run_module("base_image_file", **wanted)
    assert result["downloaded"]["resumed_from_bytes"] == 1 << 20
    assert web.starts[-1] == 1 << 20
    assert Path(result["volume_path"]).read_bytes() == image.read_bytes()
    assert place.files() == [result["volume"]]


def test_a_broken_download_without_checksum_leaves_nothing(place, run_module, wanted, web):
    web.limit = 1 << 20
    run_module("base_image_file", fails=True, **dict(wanted, checksum=None))
    assert place.files() == []


def test_a_beginning_of_another_file_is_found_out(place, run_module, wanted, image):
    volume = run_module("base_image_file", check=True, **wanted)["volume"]
    Path(place.path(".{0}.part".format(volume))).write_bytes(b"x" * 100000)
    result = run_module("base_image_file", **wanted)
    assert Path(result["volume_path"]).read_bytes() == image.read_bytes()
    assert place.files() == [volume]


def test_a_run_killed_half_way_leaves_no_image_and_the_next_one_goes_on(place, run_module, wanted, web, image):
    web.hold = threading.Event()
    process = spawn(**wanted)
    assert web.half_sent.wait(60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    web.hold.set()
    web.hold = None
    assert [name for name in place.files() if not name.endswith(".part")] == []
    result = run_module("base_image_file", **wanted)
    assert Path(result["volume_path"]).read_bytes() == image.read_bytes()
    assert place.files() == [result["volume"]]


def test_two_runs_at_once_fetch_once(place, wanted, web):
    web.hold = threading.Event()
    first = spawn(**wanted)
    assert web.half_sent.wait(60)
    second = spawn(**wanted)
    web.hold.set()
    assert result_of(first)["changed"] is True
    assert result_of(second)["present"] is True
    assert len(web.starts) == 1
    assert len(place.files()) == 1


def test_a_missing_file_on_the_server(place, run_module, wanted, web):
    web.down = True
    failed = run_module("base_image_file", fails=True, **wanted)
    assert failed["reason"] == "download_failed"
    assert place.files() == []


@pytest.mark.parametrize("source, wish", [("raw", "qcow2"), ("qcow2", "raw")])
def test_an_image_in_the_other_format_is_converted(place, converge, image, tmp_path, source, wish):
    given = image
    if source == "raw":
        given = tmp_path / "given.img"
        qemu_img("convert", "-f", "qcow2", "-O", "raw", image, given)
    result = converge("base_image_file", name="test:1", pool=place.pool, source="path", path=str(given), format=wish)
    assert json.loads(qemu_img("info", "--output=json", result["volume_path"]))["format"] == wish
    assert subprocess.run(["qemu-img", "compare", "-q", str(image), result["volume_path"]], check=False).returncode == 0
    assert place.files() == [result["volume"]]


def test_a_file_of_the_host(place, converge, image):
    result = converge("base_image_file", name="test:1", pool=place.pool, source="path", path=str(image), checksum=digest(image))
    assert Path(result["volume_path"]).read_bytes() == image.read_bytes()


def test_a_file_that_is_not_there(place, converge):
    refused = converge.refused("base_image_file", name="test:1", pool=place.pool, source="path", path="/nowhere/image.qcow2")
    assert refused["error"]["option"] == "path"
    assert refused["error"]["value"] == "/nowhere/image.qcow2"


def test_an_image_that_refers_to_another_file_is_refused(place, run_module, tmp_path):
    trap = tmp_path / "trap.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw", trap, "1M")
    failed = run_module("base_image_file", fails=True, name="test:1", pool=place.pool, source="path", path=str(trap))
    assert failed["reason"] == "invalid_image"
    assert place.files() == []


def test_an_unknown_pool(converge):
    refused = converge.refused("base_image_file", name="test:1", pool="kfit-nowhere", source="build")
    assert refused["reason"] == "unknown_pool"


def test_a_query_changes_nothing(place, run_module, wanted):
    result = run_module("base_image_file", state="query", **wanted)
    assert (result["changed"], result["present"]) == (False, False)
    assert place.files() == []


def test_a_full_disk_leaves_nothing(conn, run_module, wanted, image):
    name = "kfit-full-" + uuid.uuid4().hex[:6]
    folder = tempfile.mkdtemp(prefix=name)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    pool = None
    try:
        pool = conn.storagePoolCreateXML("<pool type='dir'><name>{0}</name><target><path>{1}</path></target></pool>".format(name, folder), 0)
        failed = run_module("base_image_file", fails=True, **dict(wanted, pool=name))
        assert failed["reason"] == "no_space"
        assert os.listdir(folder) == []
        failed = run_module("base_image_file", fails=True, name="test:1", pool=name, source="path", path=str(image))
        assert failed["reason"] == "no_space"
        assert os.listdir(folder) == []
    finally:
        if pool is not None:
            with contextlib.suppress(libvirt.libvirtError):
                pool.destroy()
        subprocess.run(["umount", folder], check=True)
        os.rmdir(folder)


def test_the_built_image_is_a_template(place, converge):
    """Built once for all tests (make test-image); here it comes from the cache."""
    cache = Path(os.environ.get("KVMFLEET_CACHE") or "/var/cache/kvmfleet/images")
    subprocess.run([str(ROOT / "scripts" / "build-image.sh")], check=True, stdout=subprocess.DEVNULL)
    result = converge("base_image_file", name="debian:12", pool=place.pool, source="build", suite="bookworm", cache_dir=str(cache))
    assert Path(result["volume_path"]).read_bytes() == (cache / result["volume"]).read_bytes()
    assert (result["format"], result["virtual_size_bytes"]) == ("qcow2", 2 << 30)
    raw = place.path("raw")
    qemu_img("convert", "-O", "raw", result["volume_path"], raw)
    root = "{0}?offset={1}".format(raw, 16 << 20)
    listing = subprocess.run(["debugfs", "-R", "ls -p /etc/ssh", root], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             universal_newlines=True).stdout
    assert "sshd_config" in listing
    assert "ssh_host" not in listing, "a host key is baked in"
    machine_id = subprocess.run(["debugfs", "-R", "stat /etc/machine-id", root], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                universal_newlines=True).stdout
    assert "Size: 0" in machine_id


class Play:
    """The role by a real ansible-playbook, on an inventory of its own."""

    def __init__(self, place, folder, entry):
        self.place, self.folder = place, folder
        self.cache = folder / "cache"
        hosts = {"kvm_hosts": {"hosts": {"one": {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "kvm_pool": place.pool, "kvm_uri": place.uri}}},
            "all": {"vars": {"kvmfleet_images": {"test:1": dict({"min_disk": "1GiB", "default_user": "debian", "description": "for tests"}, **entry)}}}}
        self.inventory = folder / "hosts.json"
        self.inventory.write_text(json.dumps(hosts), encoding="utf-8")

    def __call__(self, *arguments, **variables):
        """Run playbooks/base_image.yml; the counts of its recap."""
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(self.inventory), str(ROOT / "playbooks" / "base_image.yml"),
                   "-e", json.dumps(dict(variables, base_image_cache_dir=str(self.cache)))] + list(arguments)
        environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".ansible" / "collections"), ANSIBLE_NOCOLOR="1",
                           ANSIBLE_LOCALHOST_WARNING="false")
        done = subprocess.run(command, cwd=str(self.folder), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, universal_newlines=True, check=False)
        assert done.returncode == 0, done.stdout
        recap = [line for line in done.stdout.splitlines() if line.startswith("one ")][-1]
        return dict(field.split("=") for field in recap.split(":", 1)[1].split())


@pytest.mark.parametrize("remote_src", [True, False])
def test_the_role_with_an_image_from_the_control_node(place, image, tmp_path, remote_src):
    play = Play(place, tmp_path, {"source": "path", "path": str(image), "checksum": digest(image)})
    assert play("--check", base_image_remote_src=remote_src)["changed"] != "0"
    assert place.files() == []
    assert play(base_image_remote_src=remote_src)["changed"] != "0"
    volume, = place.files()
    assert Path(place.path(volume)).read_bytes() == image.read_bytes()
    assert play(base_image_remote_src=remote_src)["changed"] == "0"
    assert not list(tmp_path.glob("cache/incoming/*")), "a carried copy was left"


def test_the_role_with_a_download_in_check_mode_for_real_and_again(place, web, image, tmp_path):
    play = Play(place, tmp_path, {"source": "url", "url": web.url, "checksum": digest(image)})
    assert play("--check")["changed"] == "1"
    assert place.files() == []
    assert play("--diff")["changed"] == "1"
    assert len(place.files()) == 1
    assert play()["changed"] == "0"
    shutil.rmtree(play.cache, ignore_errors=True)
