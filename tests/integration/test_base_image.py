# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images brought into a pool of the real libvirtd: by module and by role, from a server on loopback, from a path, from a build."""
from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

import libvirt
import pytest

from ansible_collections.kvmfleet.core.tests.integration.image_web import Web, digest, make_image, qemu_img

ROOT = Path(__file__).resolve().parents[2]
MODULE = "ansible_collections.kvmfleet.core.plugins.modules.base_image_file"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """See L(make_image)."""
    return make_image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def web(image):
    """A server with the image."""
    made = Web(image)
    yield made
    made.stop()


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


@pytest.mark.parametrize("packing", [gzip, lzma])
def test_a_packed_image_is_unpacked(place, converge, wanted, web, image, packing):
    """Its checksum is that of the file on the server."""
    web.content = packing.compress(image.read_bytes())
    result = converge("base_image_file", **dict(wanted, checksum="sha256:" + hashlib.sha256(web.content).hexdigest()))
    assert (result["format"], result["downloaded"]["size_bytes"]) == ("qcow2", len(web.content))
    assert Path(result["volume_path"]).read_bytes() == image.read_bytes()
    assert os.stat(result["volume_path"]).st_mode & 0o777 == 0o644
    assert place.files() == [result["volume"]]


def test_a_packed_raw_disk_is_unpacked_and_converted(place, converge, image, tmp_path):
    raw, packed = tmp_path / "raw", tmp_path / "raw.bz2"
    qemu_img("convert", "-f", "qcow2", "-O", "raw", image, raw)
    packed.write_bytes(bz2.compress(raw.read_bytes()))
    result = converge("base_image_file", name="test:1", pool=place.pool, source="path", path=str(packed))
    assert subprocess.run(["qemu-img", "compare", "-q", str(image), result["volume_path"]], check=False).returncode == 0
    assert place.files() == [result["volume"]]


@pytest.mark.parametrize("content", [b"<html>Please log in</html>\n", lzma.compress(b"<html>" + b" " * (1 << 20)), lzma.compress(os.urandom(1 << 20))[:-99]])
@pytest.mark.parametrize("source", ["url", "path"])
def test_what_is_no_image_is_refused(place, run_module, wanted, web, tmp_path, source, content):
    web.content = content
    (tmp_path / "image").write_bytes(content)
    given = {"url": web.url} if source == "url" else {"url": None, "path": str(tmp_path / "image")}
    failed = run_module("base_image_file", fails=True, **dict(wanted, source=source, checksum=None, **given))
    assert (failed["reason"], failed["error"]["option"], failed["error"]["value"]) == ("invalid_image", source, given[source])
    assert place.files() == []


def test_an_image_that_refers_to_another_file_is_refused(place, run_module, tmp_path):
    trap = tmp_path / "trap.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw", trap, "1M")
    failed = run_module("base_image_file", fails=True, name="test:1", pool=place.pool, source="path", path=str(trap))
    assert failed["reason"] == "invalid_image"
    assert place.files() == []


def test_an_unknown_pool(converge):
    refused = converge.refused("base_image_file", name="test:1", pool="kfit-nowhere", source="build")
    assert refused["reason"] == "unknown_pool"


@pytest.fixture
def there(place, image):
    """Parameters of the module for an image that is in the pool."""
    params = {"name": "test:1", "pool": place.pool, "source": "path", "path": str(image)}
    place.run("base_image_file", **params)
    return params


def test_an_image_that_nothing_needs_is_removed(place, converge, there):
    volume, = place.files()
    for what in ("part", "unpacked"):
        Path(place.path(".{0}.{1}".format(volume, what))).write_bytes(b"of a run that was killed")
    assert converge("base_image_file", state="absent", **there)["changed"] is True
    assert place.files() == []


@pytest.mark.parametrize("case", ["stopped VM", "overlay of no VM", "other pool", "inactive pool", "VM outside of pools", "VM that is being made"])
def test_an_image_that_something_needs_stays(place, conn, converge, there, tmp_path, case):
    volume, = place.files()
    path, name = place.path(volume), place.name()
    other = conn.storagePoolDefineXML("<pool type='dir'><name>{0}-other</name><target><path>{1}</path></target></pool>".format(place.pool, tmp_path))
    try:
        disk = place.path("disk.qcow2") if case in ("stopped VM", "overlay of no VM") else tmp_path / "disk.qcow2"
        if case == "VM that is being made":
            place.run("vm_set", vms=[{"name": name, "image": "test:1", "vcpus": 1, "memory": "64MiB", "virt_type": "qemu",
                                      "disks": [{"name": "root", "pool": place.pool, "image": volume, "image_pool": place.pool}]}],
                      step="claim", ticket="1" * 16)
        else:
            qemu_img("create", "-q", "-f", "qcow2", "-b", path, "-F", "qcow2", disk)
        if case == "other pool":
            other.create()
        if case in ("stopped VM", "VM outside of pools"):
            place.define("web", "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{0}'/><target dev='vda'/></disk>".format(disk))
        place.handle.refresh()
        refused = converge.refused("base_image_file", state="absent", **there)
        assert refused["reason"] == "image_in_use"
        assert (name if case in ("VM outside of pools", "VM that is being made") else "disk.qcow2") in refused["msg"]
        info = place.run("base_image_info", pool=place.pool)
        assert [item["volume"] for item in info["images"]] == [volume]
        assert info["images"][0]["needed"]
        refused = place.run("vm_disk", fails=True, pool=place.pool, name=volume, state="absent")
        assert refused["reason"] == "volume_in_use"
        assert place.path(volume) and volume in place.files()
    finally:
        if other.isActive():
            other.destroy()
        other.undefine()


def test_only_images_of_ours_in_that_pool_are_listed(place, conn, run_module, there, tmp_path):
    place.make_volume("debian-12.iso", 1 << 20, "raw")
    place.make_volume("base-mine.qcow2", 1 << 20)
    other = conn.storagePoolCreateXML("<pool type='dir'><name>{0}-other</name><target><path>{1}</path></target></pool>".format(place.pool, tmp_path), 0)
    try:
        elsewhere = run_module("base_image_file", **dict(there, pool=place.pool + "-other", name="test:2"))
        found = place.run("base_image_info", pool=place.pool)["images"]
        assert [(item["pool"], item["needed"]) for item in found] == [(place.pool, None)]
        assert found[0]["volume"] != elsewhere["volume"]
    finally:
        other.destroy()


def test_an_image_in_a_folder_needs_no_libvirt(run_module, wanted, image, web, tmp_path):
    params = {key: value for key, value in wanted.items() if key not in ("pool", "uri")}
    made = run_module("base_image_file", folder=str(tmp_path), uri="qemu:///nowhere", **params)
    assert (made["changed"], made["pool"]) == (True, None)
    assert Path(made["volume_path"]).read_bytes() == image.read_bytes()
    assert run_module("base_image_file", folder=str(tmp_path), uri="qemu:///nowhere", **params)["changed"] is False
    assert len(web.starts) == 1


def test_an_image_is_exported_with_its_checksum(place, run_module, there, image, tmp_path):
    lent = place.run("base_image_file", state="exported", export_to=str(tmp_path / "image"), **there)
    assert (tmp_path / "image").read_bytes() == image.read_bytes()
    assert (lent["checksum"], lent["size_bytes"]) == (digest(image), image.stat().st_size)
    failed = place.run("base_image_file", fails=True, state="exported", export_to=str(tmp_path / "other"), **dict(there, name="test:2"))
    assert failed["reason"] == "unknown_image"


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
        with self.start(*arguments, **variables) as process:
            output = process.stdout.read()
        assert process.returncode == 0, output
        recap = [line for line in output.splitlines() if line.startswith("one ")][-1]
        return dict(field.split("=") for field in recap.split(":", 1)[1].split())

    def start(self, *arguments, **variables):
        """Start it and do not wait for it."""
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(self.inventory), str(ROOT / "playbooks" / "base_image.yml"),
                   "-e", json.dumps(dict(variables, base_image_cache_dir=str(self.cache)))] + list(arguments)
        environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".ansible" / "collections"), ANSIBLE_NOCOLOR="1",
                           ANSIBLE_LOCALHOST_WARNING="false")
        return subprocess.Popen(command, cwd=str(self.folder), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, universal_newlines=True)


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


@pytest.mark.parametrize("shipped", [True, False])
def test_headers_go_to_their_server_and_are_not_shown(place, web, image, tmp_path, shipped):
    """Those without a server are for images of the site's own catalog only."""
    play = Play(place, tmp_path, {"source": "url", "url": web.url, "checksum": "sha256:{0}SUMS".format(web.base)})
    catalog = {"test:2": {"source": "url", "url": web.base + "2/image.qcow2", "checksum": "sha256:{0}SUMS".format(web.base)}}
    secrets = {"X-Site": "of-the-site", "X-Server": "of-the-server", "X-Other": "of-another"}
    headers = {"X-Site": secrets["X-Site"], web.base: {"X-Server": secrets["X-Server"]}, "https://images.example.com": {"X-Other": secrets["X-Other"]}}
    with play.start("--diff", "-vvv", base_image_name="test:2" if shipped else "test:1", base_image_catalog=catalog, base_image_headers=headers) as process:
        output = process.stdout.read()
    assert process.returncode == 0, output
    assert len(place.files()) == 1
    assert [{name for name in secrets if name in sent} for sent in web.headers] == [{"X-Server"} if shipped else {"X-Server", "X-Site"}] * 2
    assert not [secret for secret in secrets.values() if secret in output]


def test_systems_that_cannot_build_are_refused_before_anything_is_done(place, tmp_path):
    """The facts are those of another system; there is no package manager of that name to ask."""
    play = Play(place, tmp_path, {"source": "build"})
    with play.start(ansible_facts={"os_family": "RedHat", "distribution": "Rocky"}) as process:
        output = process.stdout.read()
    assert process.returncode == 2
    assert "one runs Rocky, and images are built on Debian and Ubuntu only" in " ".join(output.split())
    assert "package_facts" not in output and place.files() == []


def test_a_long_download_tells_how_far_it_is(place, web, image, tmp_path):
    play = Play(place, tmp_path, {"source": "url", "url": web.url, "checksum": digest(image)})
    web.hold = threading.Event()
    told = []
    with play.start() as process:
        for line in process.stdout:
            if line.startswith("test:1 on one: "):
                told.append(line)
                web.hold.set()
    assert process.returncode == 0
    assert told and "downloading, " in told[0] and " of 4" in told[0]
    assert not list(Path("/run/kvmfleet").glob("progress-{0}/run-*.new".format(os.geteuid())))


def test_the_role_removes_an_image(place, image, tmp_path):
    play = Play(place, tmp_path, {"source": "path", "path": str(image)})
    play()
    assert play("--check", base_image_state="absent")["changed"] == "1"
    assert len(place.files()) == 1
    assert play(base_image_state="absent")["changed"] == "1"
    assert place.files() == []
    assert play(base_image_state="absent")["changed"] == "0"
