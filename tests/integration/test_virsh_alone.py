# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Without us: whatever is made here can be listed, started, stopped and removed by virsh alone."""
from __future__ import annotations

import subprocess

import pytest

from ansible_collections.kvmfleet.core.tests.integration.killpoints import Site


@pytest.fixture
def site(private_libvirt):
    """A place of its own on a libvirtd of its own."""
    made = Site(private_libvirt.conn, private_libvirt.uri, private_libvirt.root)
    yield made
    made.clean()


@pytest.fixture
def virsh(site):
    """Output of a virsh command, as lines."""
    def run(*command):
        done = subprocess.run(["virsh", "-q", "-c", site.uri] + list(command), check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              universal_newlines=True)
        assert done.returncode == 0, done.stdout
        return [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return run


@pytest.mark.parametrize("options", [{}, {"firmware": "efi", "tpm": True}], ids=["bios", "efi"])
def test_a_life_by_virsh(site, virsh, options):
    """From its list to its end; we are not missed, and find nothing left."""
    name = site.name()
    site.run([site.vm(seed={"hostname": "a"}, nics=[{"network": site.network}], **options)])
    site.uuids.add(site.domain().UUIDString())
    assert name in virsh("list", "--all", "--name")
    assert "State:          shut off" in virsh("dominfo", name)
    virsh("start", name)
    assert virsh("domstate", name) == ["running"]
    assert len(virsh("domblklist", name)) == 2 and len(virsh("domiflist", name)) == 1
    virsh("suspend", name)
    virsh("resume", name)
    virsh("destroy", name)
    assert virsh("domstate", name) == ["shut off"]
    volumes = site.made()
    assert {line.split()[0] for line in virsh("vol-list", site.pool)} == set(volumes) | site.files
    virsh("undefine", name, "--nvram") if options else virsh("undefine", name)
    for volume in volumes:
        virsh("vol-delete", volume, "--pool", site.pool)
    site.assert_clean()
    assert not site.run(site.absent())["changed"]


def test_we_see_what_virsh_did(site, virsh):
    """A VM that virsh started, stopped or marked for autostart is what it is now; the next run brings it to what is asked for."""
    vm = site.vm(state="stopped", autostart=False)
    site.run([vm])
    virsh("autostart", site.name())
    result = site.run([vm])
    assert result["changed"] and not site.domain().autostart()
    site.run([dict(vm, state="running")])
    virsh("destroy", site.name())
    assert site.run([dict(vm, state="running")])["vms"][0]["actions"] == ["start"]
    virsh("undefine", site.name())
    virsh("destroy", site.name())
    assert site.domain() is None and len(site.made()) == 1
    # What virsh forgets is no longer ours: a new VM of that name has volumes of its own, and the old one stays.
    old = site.made()
    site.run([vm])
    assert len(site.made()) == 2
    site.run(site.absent())
    assert site.made() == old
