# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module cloudinit_seed on a real libvirtd, in a storage pool of its own."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import uuid

import libvirt
import pytest

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.kvmfleet.core.plugins.module_utils import _seed as seeds
from ansible_collections.kvmfleet.core.plugins.module_utils import _volumes as volumes
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._seed_converge import converge_seed
from ansible_collections.kvmfleet.core.plugins.module_utils._seed_spec import seed_from_params
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.modules.cloudinit_seed import ARGUMENT_SPEC

URI = "qemu:///system"
COLLECTIONS = os.path.abspath(os.path.join(os.path.dirname(seeds.__file__), "..", "..", "..", "..", ".."))


@pytest.fixture(scope="module")
def conn():
    """The real libvirtd."""
    libvirt.registerErrorHandler(lambda context, error: None, None)
    opened = libvirt.open(URI)
    yield opened
    opened.close()


@pytest.fixture
def pool(conn, tmp_path):
    """A transient pool of one test's own."""
    name = "kfseed-" + uuid.uuid4().hex[:8]
    target = tmp_path / "pool"
    target.mkdir()
    handle = conn.storagePoolCreateXML("<pool type='dir'><name>{0}</name><target><path>{1}</path></target></pool>".format(name, target), 0)
    yield volumes.Pool(conn, name)
    handle.destroy()
    shutil.rmtree(str(target))


@pytest.fixture
def domain(conn):
    """A defined domain without disks; a function that attaches one by its path."""
    name = "kfseed-" + uuid.uuid4().hex[:8]
    template = "<domain type='qemu'><name>{0}</name><uuid>{1}</uuid><memory unit='MiB'>16</memory><os><type>hvm</type></os><devices>{2}</devices></domain>"
    identity = str(uuid.uuid4())

    def define(path=None):
        disk = "" if path is None else "<disk type='file'><source file='{0}'/><target dev='vda' bus='virtio'/></disk>".format(path)
        return conn.defineXML(template.format(name, identity, disk))

    defined = define()
    defined.attach_disk = define
    yield defined
    conn.lookupByName(name).undefine()


@pytest.fixture
def seed(conn, pool):
    """A function: the module's work with these parameters."""

    def run(check_mode=False, **params):
        params = dict({"uri": URI, "pool": pool.name, "name": "a.iso"}, **params)
        result = ArgumentSpecValidator(ARGUMENT_SPEC).validate(params)
        assert result.error_messages == []
        return converge_seed(conn, result.validated_parameters, check_mode)

    return run


def seal_of(conn, pool, name="a.iso"):
    """The seal of a volume."""
    return seeds.read_volume_seal(conn, pool.handle.storageVolLookupByName(name))


def test_make_keep_change_delete(conn, pool, seed):
    """The life of a seed; each step is foretold by check mode, and the second time changes nothing."""
    steps = [
        {"hostname": "web1", "instance_id": "i-1"},
        {"hostname": "web1", "instance_id": "i-1", "packages": ["nginx"], "write_files": [{"path": "/a", "content": "x" * 300000}]},
        {"hostname": "web1", "instance_id": "i-1", "format": "config_drive"},
        {"state": "absent"},
    ]
    for number, step in enumerate(steps):
        before = sorted(os.listdir(pool.target))
        foretold = seed(check_mode=True, **step)
        assert sorted(os.listdir(pool.target)) == before
        done = seed(**step)
        assert done == foretold and done["changed"] is True
        again = seed(**step)
        assert again["changed"] is False and again["diff"]["before"] == again["diff"]["after"]
        assert ("takes_effect" in done) is (number in (1, 2)) and "takes_effect" not in again
    assert os.listdir(pool.target) == []


def test_the_volume_is_private_and_whole(conn, pool, seed):
    """Nobody but its owner reads it, and it is the image that was built."""
    result = seed(hostname="web1", instance_id="i-1", root_password="hush")
    path = result["path"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path, "rb") as stream:
        image = stream.read()
    assert len(image) < 100 * 1024 and seeds.read_seal(image) == seal_of(conn, pool)
    label = subprocess.run(["blkid", "-p", "-o", "value", "-s", "LABEL", path], check=True, stdout=subprocess.PIPE).stdout
    assert label.strip() == b"cidata"
    listing = subprocess.run(["isoinfo", "-J", "-f", "-i", path], check=True, stdout=subprocess.PIPE).stdout.split()
    assert sorted(listing) == [b"/meta-data;1", b"/user-data;1"]
    result = seed(hostname="web1", instance_id="i-1", format="config_drive")
    label = subprocess.run(["blkid", "-p", "-o", "value", "-s", "LABEL", path], check=True, stdout=subprocess.PIPE).stdout
    assert label.strip() == b"config-2"


def test_the_instance_id_comes_from_the_domain(seed, domain):
    """So that cloud-init's quick check against the machine's UUID holds as well."""
    result = seed(domain=domain.name())
    assert result["instance_id"] == domain.UUIDString()
    with pytest.raises(SpecError) as caught:
        seed(domain="kfseed-none")
    assert caught.value.code == "unknown_domain"
    with pytest.raises(SpecError):
        seed(domain=domain.name(), meta_data={"instance-id": "other"})


def test_an_existing_seed_keeps_its_instance_id(seed):
    """A new one gets a random UUID, which check mode does not make up."""
    assert seed(check_mode=True, hostname="web1")["instance_id"] is None
    first = seed(hostname="web1")
    assert str(uuid.UUID(first["instance_id"])) == first["instance_id"]
    assert seed(hostname="web1")["changed"] is False
    changed = seed(hostname="web2")
    assert changed["changed"] is True and changed["instance_id"] == first["instance_id"]
    assert seed(hostname="web2", instance_id="i-2")["instance_id"] == "i-2"
    assert seed(hostname="web2")["changed"] is False


def test_foreign_volumes_are_neither_overwritten_nor_deleted(conn, pool, seed):
    """Not even an image of the same kind that bears no seal."""
    contents = {"data.iso": b"precious" * 10000, "small": b"x", "other-seed.iso": None}
    with open(seed(hostname="a")["path"], "rb") as stream:
        image = bytearray(stream.read())
    image[seeds.SEAL_OFFSET : seeds.SEAL_OFFSET + seeds.SEAL_LENGTH] = b" " * seeds.SEAL_LENGTH
    contents["other-seed.iso"] = bytes(image)
    for name, content in contents.items():
        with open(os.path.join(pool.target, name), "wb") as stream:
            stream.write(content)
    for name, content in contents.items():
        for params in ({"state": "absent"}, {"hostname": "web1"}):
            for check_mode in (True, False):
                with pytest.raises(SpecError) as caught:
                    seed(name=name, check_mode=check_mode, **params)
                assert caught.value.code == "not_ours"
        with open(os.path.join(pool.target, name), "rb") as stream:
            assert stream.read() == content


def test_an_attached_seed_is_rewritten_but_not_deleted(seed, domain):
    """Whether the domain runs or not."""
    path = seed(hostname="web1")["path"]
    domain.attach_disk(path)
    assert seed(hostname="web2")["takes_effect"] == "next_instance"
    for check_mode in (True, False):
        with pytest.raises(SpecError, match=domain.name()) as caught:
            seed(state="absent", check_mode=check_mode)
        assert caught.value.code == "in_use"
    domain.attach_disk()
    assert seed(state="absent")["changed"] is True


VICTIM = """
import json, os, signal, sys
import libvirt
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.kvmfleet.core.plugins.module_utils._seed_converge import converge_seed
from ansible_collections.kvmfleet.core.plugins.modules.cloudinit_seed import ARGUMENT_SPEC

left = int(sys.argv[1])
conn = libvirt.open("qemu:///system")

def deadly(original):
    def call(*args):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return original(*args)
    return call

calls = ["createXML", "delete", "resize", "upload", "download", "send", "recv", "finish", "info", "storageVolLookupByName"]
for kind in (libvirt.virStoragePool, libvirt.virStorageVol, libvirt.virStream):
    for name in set(calls) & set(vars(kind)):
        setattr(kind, name, deadly(getattr(kind, name)))
params = ArgumentSpecValidator(ARGUMENT_SPEC).validate(json.load(sys.stdin)).validated_parameters
converge_seed(conn, params, False)
"""


def killed_at(call, pool, **params):
    """Whether a run of the module was killed: at its call of that number on pool, volume or stream, if it makes as many."""
    params = dict({"uri": URI, "pool": pool.name, "name": "a.iso"}, **params)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
    command = [sys.executable, "-c", VICTIM, str(call)]
    code = subprocess.run(command, check=False, env=environment, input=json.dumps(params), universal_newlines=True).returncode
    assert code in (0, -9)
    return code == -9


@pytest.mark.parametrize("life", ["create", "rewrite", "delete"])
def test_a_run_killed_at_any_libvirt_call_is_finished_by_the_next(conn, pool, seed, life):
    """Never is a half-written seed taken for a whole one or for a foreign volume, and an existing instance-id survives."""
    wanted = {"state": "absent"} if life == "delete" else {"hostname": "web2", "write_files": [{"path": "/a", "content": "x" * 400000}]}
    unfinished = 0
    for call in range(100):
        first = None if life == "create" else seed(hostname="web1")
        killed = killed_at(call, pool, **wanted)
        found = pool.lookup("a.iso")
        if killed and found is not None:
            sealed = seeds.read_volume_seal(conn, found)
            unfinished += sealed is None or not sealed.complete
        result = seed(**wanted)
        if life != "delete":
            assert first is None or result["instance_id"] == first["instance_id"]
            with open(result["path"], "rb") as stream:
                image = stream.read()
            assert seeds.read_seal(image).complete
            assert len(image) > 400000 and seeds.read_seal(image) == seal_of(conn, pool)
            assert seed(**wanted)["changed"] is False
            seed(state="absent")
        assert os.listdir(pool.target) == []
        if not killed:
            break
    assert not killed and call >= 8
    assert (unfinished > 0) is (life != "delete")


def test_a_failed_creation_leaves_nothing(conn, pool, monkeypatch):
    """A full disk, a lost connection: the volume is removed again."""
    files = seeds.documents(seed_from_params({}), "i-1", "web1")
    image = seeds.build_iso(files, "nocloud")

    def broken(self, data):
        raise libvirt.libvirtError("no space left")

    monkeypatch.setattr(libvirt.virStream, "send", broken)
    with pytest.raises(FleetError, match="no space left"):
        seeds.write_volume(conn, pool, "a.iso", image)
    assert os.listdir(pool.target) == [] and pool.lookup("a.iso") is None


def test_seeds_are_made_by_several_threads_at_once(conn, pool):
    """As vm_set does it for many VMs."""
    spec = seed_from_params({"runcmd": ["true"]})

    def make(number):
        files = seeds.documents(spec, "i-{0}".format(number), "web{0}".format(number))
        seeds.write_volume(conn, pool, "{0}.iso".format(number), seeds.build_iso(files, "nocloud"))
        return seeds.documents_hash(files, "nocloud")

    with concurrent.futures.ThreadPoolExecutor(4) as workers:
        digests = list(workers.map(make, range(20)))
    assert [seal_of(conn, pool, "{0}.iso".format(n)).hash for n in range(20)] == digests and len(set(digests)) == 20


def test_files_that_came_or_went_behind_libvirts_back(pool, seed):
    """A removed seed is made again, one that was copied here is recognised."""
    path = seed(hostname="web1", instance_id="i-1")["path"]
    shutil.copy(path, path + ".kept")
    os.unlink(path)
    assert seed(hostname="web1", instance_id="i-1")["changed"] is True
    assert seed(name="a.iso.kept", hostname="web1", instance_id="i-1")["changed"] is False
    os.unlink(path)
    assert seed(state="absent")["changed"] is False


def test_an_unknown_pool_and_a_bad_name_are_refused(seed):
    """Before anything is touched."""
    for params, option in (
        ({"pool": "kfseed-none"}, "pool"),
        ({"name": "../a.iso"}, "name"),
        ({"users": [{"name": "Bob"}]}, "users[0].name"),
    ):
        with pytest.raises(SpecError) as caught:
            seed(**params)
        assert caught.value.option == option


def play(pool, tmp_path, tasks, *arguments):
    """Output of a real ansible-playbook run over these parameters of the module."""
    book = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "connection": "local",
            "tasks": [
                {
                    "name": "Seed {0}".format(number),
                    "kvmfleet.core.cloudinit_seed": dict({"pool": pool.name, "name": "a.iso"}, **task),
                    "register": "seed",
                    "ignore_errors": True,
                }
                for number, task in enumerate(tasks)
            ],
        }
    ]
    path = tmp_path / "play.json"
    path.write_text(json.dumps(book))
    command = [
        os.path.join(os.path.dirname(sys.executable), "ansible-playbook"),
        "-i",
        "localhost,",
        "-e",
        json.dumps({"ansible_python_interpreter": sys.executable}),
        str(path),
    ] + list(arguments)
    environment = dict(
        os.environ, ANSIBLE_COLLECTIONS_PATH=COLLECTIONS, ANSIBLE_NOCOLOR="1", ANSIBLE_LOCALHOST_WARNING="0", LIBVIRT_DEFAULT_URI=URI
    )
    return subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, universal_newlines=True
    ).stdout


def test_output_shows_neither_secrets_nor_masked_names(pool, tmp_path):
    """A user debian, an image debian:12 and contents of files: names stay legible, secrets appear nowhere, even with -vvv and --diff."""
    secrets = {"root_password": "hush-root", "user_data": "#cloud-config\n# hush-user-data\nntp: {enabled: true}\n"}
    task = dict(
        secrets,
        hostname="debian",
        packages=["debian-goodies"],
        meta_data={"image": "debian:12"},
        users=[{"name": "debian", "password": "hush-plain"}, {"name": "deb", "password_hash": "$6$hush$hush"}],
        write_files=[{"path": "/etc/debian", "content": "hush-content"}],
    )
    broken = dict(task, user_data="#cloud-config\nhush-broken: [\n")
    output = play(pool, tmp_path, [task, task, broken], "-vvv", "--diff")
    assert re.search(r"changed=1 ", output), output
    # The play's own file is not ours to mask; everything the module says of it is.
    said = "\n".join(line for line in output.splitlines() if "Origin" not in line)
    assert "hush" not in said, said
    for legible in ('"debian"', "debian:12", "/etc/debian", "debian-goodies"):
        assert legible in output, output
    assert "user_data: is not valid YAML at line 3" in output, output


def test_strings_and_check_mode_from_a_playbook(pool, tmp_path):
    """Booleans and numbers as -e k=v gives them; check mode says what the real run then does."""
    task = {"hostname": "web1", "instance_id": "i-1", "ssh_pwauth": "true", "growpart": "no", "users": [{"name": "bob", "uid": "1500"}]}
    assert "changed=1 " in play(pool, tmp_path, [task], "--check") and os.listdir(pool.target) == []
    assert "changed=1 " in play(pool, tmp_path, [task]) and os.listdir(pool.target) == ["a.iso"]
    assert "changed=0 " in play(pool, tmp_path, [task, dict(task, ssh_pwauth=True, growpart=False)])
