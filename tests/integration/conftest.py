# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests on a real libvirtd share."""
from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import uuid

import libvirt
import pytest

from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import Lab, PrivateLibvirt
from ansible_collections.kvmfleet.core.tests.integration.places import Place, run

URI = "qemu:///system"
# Files that take minutes, for one of several workers each: begun late they would keep all others waiting at the end.
LONGEST = ("test_boot.py", "test_fleet_race.py", "test_fleet.py", "test_playbooks.py")


def pytest_collection_modifyitems(items):
    """The longest files first; see the option --no-loadscope-reorder in the Makefile."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def conn():
    """The real libvirtd."""
    libvirt.registerErrorHandler(lambda context, error: None, None)
    opened = libvirt.open(URI)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def network(conn):
    """An isolated network of this session's own: its name and its bridge."""
    token = uuid.uuid4().hex[:6]
    name, bridge = "kfit-net-" + token, "kfit" + token
    handle = conn.networkCreateXML("<network><name>{0}</name><bridge name='{1}' stp='off'/></network>".format(name, bridge))
    yield name, bridge
    handle.destroy()


@pytest.fixture
def place(conn, network):
    """A place on the real libvirtd."""
    made = Place(conn, URI, "kfit" + uuid.uuid4().hex[:6], *network)
    yield made
    made.clean()


@pytest.fixture(scope="session")
def run_module():
    """A function: run a module on the real libvirtd, see L(run)."""
    return run


class Converge:
    """Runs a step three times: in check mode, for real, for real again."""

    def __init__(self, place):
        self.place = place

    def __call__(self, module, again=True, guest=True, **params):
        """The result of the real run, after these have been asserted: check mode said just what it did, and touched nothing; a second run changes nothing.

        :param again: False for what happens each time, such as a restart
        :param guest: False where a guest would have to follow and there is none, which check mode cannot know
        """
        before = self.place.snapshot()
        foretold = self.place.run(module, check=True, **params)
        assert self.place.snapshot() == before, "check mode touched something"
        done = self.place.run(module, **params)
        assert _promise(foretold, guest) == _promise(done, guest)
        if not done["changed"]:
            assert self.place.snapshot() == before, "changed something and did not say so"
        if again:
            after = self.place.snapshot()
            second = self.place.run(module, **params)
            assert second["changed"] is False, second
            assert [actions for actions in _actions(second) if actions] == [], second
            assert self.place.snapshot() == after
        return done

    def refused(self, module, **params):
        """The failure of a step that must be refused, in check mode as for real, by one and the same message, with nothing touched."""
        before = self.place.snapshot()
        foretold = self.place.run(module, check=True, fails=True, **params)
        real = self.place.run(module, fails=True, **params)
        assert self.place.snapshot() == before, "a refusal touched something"
        assert foretold["msg"] == real["msg"]
        return real


def _items(result):
    return result["vms"] if "vms" in result else [result["vm"]] if "vm" in result else [result]


def _actions(result):
    return [item.get("actions", []) for item in _items(result)]


def _promise(result, guest):
    """What check mode has to say rightly."""
    keys = ["name", "changed", "actions", "takes_effect", "state", "volume", "vcpus", "memory_mib", "disks", "nics"][:None if guest else 5]
    keys += ["restart_required"] if guest else []
    items = [{key: item.get(key) for key in keys} for item in _items(result)]
    for item in items:
        # The names of volumes hold the UUID, which is made up for a new VM
        item["disks"] = [{k: re.sub("-[0-9a-f]{8}[.]", "-UUID.", v) if isinstance(v, str) else v for k, v in disk.items()} for disk in item.get("disks") or []]
        item["disks"] = sorted(item["disks"], key=lambda disk: disk["name"])  # libvirt orders them by bus
        item["nics"] = [dict(nic, target=None) for nic in item.get("nics") or []]  # the tap device is made at the start
    return {"changed": result["changed"], "diff": result.get("diff"), "items": items}


@pytest.fixture
def converge(place):
    """See L(Converge)."""
    return Converge(place)


@pytest.fixture(scope="session")
def private_libvirt_class():
    """L(PrivateLibvirt), for a test that stops its own."""
    return PrivateLibvirt


@pytest.fixture(scope="session")
def private_libvirt(tmp_path_factory):
    """A running L(PrivateLibvirt)."""
    root = tempfile.mkdtemp(prefix="kfit-libvirt")
    os.chmod(root, 0o755)
    libvirt.registerErrorHandler(lambda context, error: None, None)
    private = PrivateLibvirt(root)
    yield private
    with contextlib.suppress(libvirt.libvirtError):
        private.conn.close()
    private.stop()
    shutil.rmtree(root)


@pytest.fixture
def lonely(private_libvirt):
    """A place on a libvirtd that nobody else uses, where capacity can be told exactly."""
    made = Place(private_libvirt.conn, private_libvirt.uri, "kfit" + uuid.uuid4().hex[:6], None, None)
    yield made
    made.clean()


@pytest.fixture(scope="session")
def running_lab():
    """Three KVM hosts, see L(Lab)."""
    lab = Lab(3)
    yield lab
    lab.stop()


@pytest.fixture
def lab(running_lab):
    """The same, empty."""
    running_lab.clean()
    yield running_lab
    running_lab.clean()
