# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way with a real guest: image, create, cloud-init, SSH, changes while it runs, power, delete. One boot serves all of it."""
from __future__ import annotations

import subprocess
import uuid

import pytest
from test_playbooks import Playbooks

ADDRESS = "192.168.203.10"
USER_DATA = """#cloud-config
write_files:
  - path: /etc/kfit-marker
    content: by user data
"""


@pytest.fixture
def nat(conn):
    """A NAT network of this test's own."""
    token = uuid.uuid4().hex[:6]
    handle = conn.networkCreateXML(
        "<network><name>kfit-nat-{0}</name><forward mode='nat'/><bridge name='kfn{0}'/><ip address='192.168.203.1' netmask='255.255.255.0'>"
        "<dhcp><range start='192.168.203.100' end='192.168.203.200'/></dhcp></ip></network>".format(token))
    yield handle.name()
    handle.destroy()


@pytest.fixture
def real(place, nat, tmp_path):
    """Playbooks over a place with the network and the image of the demo."""
    playbooks = Playbooks(place, tmp_path)
    playbooks.host["kvm_networks"] = {"lan": {"network": nat}}
    playbooks.catalogs = {
        "kvmfleet_images": {"debian:12": {"source": "build", "suite": "bookworm", "min_disk": "2GiB", "default_user": "debian"}},
        "kvmfleet_networks": {"lan": {"cidr": "192.168.203.0/24", "gateway": "192.168.203.1", "nameservers": ["192.168.203.1"]}},
    }
    playbooks.inventory({"local": playbooks.host})
    return playbooks


def test_a_guest_from_image_to_delete(real, place, converge):
    name = place.name("guest")
    user_data = real.folder / "user-data.yml"
    user_data.write_text(USER_DATA)
    request = {"vm_name": name, "vm_image": "debian:12", "vm_memory": "768MiB", "vm_max_memory": "1GiB", "vm_vcpus": "1", "vm_max_vcpus": "2",
               "vm_disk": "4GiB",
               "vm_network": "lan", "vm_ip": ADDRESS, "vm_user_data": user_data, "vm_timezone": "Asia/Tokyo", "vm_wait": "cloud_init", "vm_wait_timeout": "600"}
    created = real.does("create_vm", **request)
    assert created.vms[name]["address"] == ADDRESS
    assert created.vms[name]["state"] == "running"
    assert "ssh -i" in created.output and ADDRESS in created.output
    key = real.keys / name
    assert (key.stat().st_mode & 0o777) == 0o600
    assert "PRIVATE KEY" not in created.output

    def ssh(command):
        done = subprocess.run(["ssh", "-i", str(key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes",
                               "-o", "ConnectTimeout=60", "debian@" + ADDRESS, command], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert ssh("hostname") == name
    assert ssh("cat /etc/kfit-marker") == "by user data"
    assert ssh("cat /etc/timezone") == "Asia/Tokyo"  # options and user data are both followed
    assert int(ssh("df --output=size -B1 / | tail -n 1")) > 3.5 * 2 ** 30  # the root disk has grown to what was asked for
    assert ADDRESS in ssh("hostname -I")

    again = real.does("create_vm", **request)
    assert again.changed == 0
    assert again.vms[name]["uuid"] == created.vms[name]["uuid"]

    # In the running guest: a CPU more, a larger disk, a second disk that comes and goes.
    vm = {"name": name, "vcpus": 2, "disks": [{"name": "root", "size": "5GiB"}, {"name": "data", "pool": place.pool, "size": "64MiB", "serial": "kfitdata"}]}
    changed = converge("vm_set", vms=[vm])["vms"][0]
    assert changed["restart_required"] == []
    assert int(ssh("lsblk -bdno SIZE /dev/vda")) == 5 << 30
    assert "kfitdata" in ssh("lsblk -dno SERIAL")
    assert ssh("nproc --all") == "2"
    kept = place.run("vm_set", vms=[{"name": name, "purge_disks": True, "disks": [{"name": "root", "size": "5GiB"}]}])["vms"][0]
    assert kept["restart_required"] == []  # the guest lets go of the disk
    assert "kfitdata" not in ssh("lsblk -dno SERIAL")

    stopped = real.does("power_vm", vm_name=name, vm_action="shutdown", vm_shutdown_timeout="240")
    assert stopped.vms[name]["state"] == "stopped"
    real.does("delete_vm", vm_name=name)
    assert place.domains() == []
    assert [f for f in place.files() if not f.startswith("base-")] == []
