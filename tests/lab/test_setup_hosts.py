# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""setup_hosts on bare hosts with systemd: they become KVM hosts, stay so, and are refused what would hurt them."""
from __future__ import annotations

import json
import os
import stat
import subprocess

import libvirt
import pytest
import yaml

from ansible_collections.kvmfleet.core.plugins.plugin_utils import _certificates
from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import BIN, ROOT

HOSTS = ("kvm1", "kvm2")
GUEST = "<domain type='qemu'><name>survivor</name><memory unit='MiB'>32</memory><os><type machine='q35'>hvm</type></os></domain>"
# mount -t nfs calls it: the server is this host, and an export a folder of its own
MOUNT_NFS = '#!/bin/sh\nexec mount --bind "${1#*:}" "$2"\n'


class Prepared:
    """The lab after its first setup_hosts, with what that and the check before it said."""

    def __init__(self, lab, foretold, tools, first):
        self.lab, self.foretold, self.tools, self.first = lab, foretold, tools, first

    def does(self, *options, host=None, **variables):
        """A run of setup_hosts that succeeds."""
        return self.lab.does("setup_hosts", *options, *(["--limit", host] if host else []), variables=variables)

    def refusal(self, host, *options, **variables):
        """The output of one that is refused in check mode as well, with nothing changed."""
        for more in (["--check"], []):
            run = self.lab.play("setup_hosts", "--limit", host, *options, *more, variables=variables)
            assert run.code == 2 and (run.changed, run.failed) == (0, 1), run.output
        return " ".join(run.output.split())

    def daemon(self, host):
        """Which run of libvirtd it is; nothing while it is idle."""
        return self.lab.ssh(host, "virsh -c qemu:///system -q list >/dev/null && systemctl show --property=MainPID --value libvirtd").stdout.strip()

    def survivor(self, host):
        """The process of a VM, which is started where it does not run."""
        if "survivor" not in self.lab.ssh(host, "virsh -q list --name").stdout:
            self.lab.ssh(host, "virsh -q create /dev/stdin", text=GUEST)
        return self.lab.ssh(host, "cat /run/libvirt/qemu/survivor.pid").stdout

    def uri(self, host, user="root"):
        """How libvirt reaches a host from here, with the lab's key and known hosts."""
        path = os.path.join(self.lab.folder, ".ssh", "wrapper")
        if not os.path.exists(path):
            with open(path, "w", encoding="ascii") as file:
                file.write('#!/bin/sh\nexec ssh -F "{0}" "$@"\n'.format(os.path.join(self.lab.folder, ".ssh", "config")))
            os.chmod(path, stat.S_IRWXU)
        return "qemu+ssh://{0}@{1}/system?command={2}&no_tty=1".format(user, self.lab.hosts[host]["ansible_host"], path)


@pytest.fixture(scope="module")
def hosts(make_lab):
    lab = make_lab("setup", "--hosts", "2")
    # Networks too: they want libvirt, which a bare host does not have yet
    foretold = lab.does("setup_hosts", "--check", "--diff", variables={"host_network_networks": [{"name": "iso", "type": "isolated"}]})
    tools = [lab.ssh(host, "command -v virsh qemu-img; ls -d /run/kvmfleet /etc/tmpfiles.d/kvmfleet.conf", check=False).stdout for host in HOSTS]
    return Prepared(lab, foretold, tools, lab.does("setup_hosts"))


def test_bare_hosts_become_kvm_hosts(hosts):
    """Check mode says so on a bare host, too; the second run changes nothing; the inventory plugin reads them over SSH."""
    assert hosts.foretold.changed > 0 and "would install" in hosts.foretold.output and "libvirt would be started" in hosts.foretold.output
    assert "00-kvmfleet-br-iso.netdev" in hosts.foretold.output
    assert hosts.tools == ["", ""], "check mode touched something"
    assert hosts.first.changed > 0
    assert hosts.does().changed == 0
    fleet = {"plugin": "kvmfleet.core.fleet", "hosts": {host: {"uri": hosts.uri(host)} for host in HOSTS}}
    path = os.path.join(hosts.lab.folder, ".ssh", "read.fleet.yml")
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump(fleet, file)
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=os.path.join(ROOT, ".ansible", "collections"), ANSIBLE_INVENTORY_UNPARSED_FAILED="true")
    try:
        done = subprocess.run([os.path.join(BIN, "ansible-inventory"), "-i", path, "--list"], env=env, capture_output=True, text=True, check=False, timeout=120)
    finally:
        os.unlink(path)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)["_meta"]["hostvars"]
    for host in HOSTS:
        assert seen[host]["kvm_status"] == "ok", done.stderr
        assert seen[host]["kvm_capacity"]["memory"]["total_mib"] > 0 and seen[host]["kvm_capacity"]["pools"]["default"]["active"]


@pytest.mark.long
def test_a_restart_that_a_run_owed_is_made_up_for_and_vms_live_on(hosts):
    guest = hosts.survivor("kvm1")
    hosts.does(host="kvm1")
    before = hosts.daemon("kvm1")
    hosts.lab.ssh("kvm1", "echo 'max_clients = 4999' >>/etc/libvirt/libvirtd.conf")
    foretold = hosts.does("--check", host="kvm1")
    assert foretold.changed == 1 and hosts.daemon("kvm1") == before
    assert hosts.does(host="kvm1").changed == 1
    assert hosts.daemon("kvm1") != before
    assert hosts.does(host="kvm1").changed == 0
    assert hosts.survivor("kvm1") == guest


@pytest.mark.long
def test_a_host_that_was_switched_off_needs_nothing(hosts):
    hosts.does(host="kvm2")
    hosts.lab.stop("kvm2")
    hosts.lab.start("kvm2")
    assert hosts.lab.ssh("kvm2", "virsh -q net-list --name; virsh -q pool-list --name").stdout.split() == ["default", "default"]
    assert hosts.does(host="kvm2").changed == 0


@pytest.mark.long
def test_tls_goes_on_and_off(hosts, tmp_path):
    """VMs live on, certificates open the door, others' do not, and afterwards nobody listens."""
    folder = tmp_path / "tls"
    wanted = {"kvm_host_tls": True, "kvm_host_tls_directory": str(folder)}
    guests = [hosts.survivor(host) for host in HOSTS]
    assert hosts.does("--check", **wanted).changed == 4 and not folder.exists()
    assert hosts.does(**wanted).changed == 4
    assert hosts.does(**wanted).changed == 0

    def uri(host, path=folder):
        return "qemu+tls://{0}/system?pkipath={1}".format(hosts.lab.hosts[host]["ansible_host"], path)
    for host in HOSTS:
        conn = libvirt.open(uri(host))
        assert "survivor" in [d.name() for d in conn.listAllDomains()]
        conn.close()
    other = tmp_path / "other"
    _certificates.Folder(str(other)).make(False)
    (other / "cacert.pem").write_bytes((folder / "cacert.pem").read_bytes())
    with pytest.raises(libvirt.libvirtError):
        libvirt.open(uri("kvm1", other))
    assert hosts.does().changed == 0, "what is not said stays as it is"
    off = hosts.does(kvm_host_tls=False)
    assert off.changed == 4 and hosts.does(kvm_host_tls=False).changed == 0
    for host in HOSTS:
        # 16514 in hexadecimal
        assert hosts.lab.ssh(host, "grep -c ':4082 ' /proc/net/tcp6", check=False).stdout.strip() == "0"
        assert hosts.lab.ssh(host, "ls /etc/pki/libvirt/private /etc/pki/CA").stdout.split() == ["/etc/pki/CA:", "/etc/pki/libvirt/private:"]
        with pytest.raises(libvirt.libvirtError):
            libvirt.open(uri(host))
    assert [hosts.survivor(host) for host in HOSTS] == guests


@pytest.mark.long
def test_certificates_of_others_are_refused_or_replaced_as_told(hosts, tmp_path):
    own, theirs = str(tmp_path / "own"), _certificates.new_authority()
    pair = _certificates.issue(theirs, ["kvm1", hosts.lab.hosts["kvm1"]["ansible_host"]])
    for name, text in (("ca", theirs.certificate), ("certificate", pair.certificate), ("key", pair.key)):
        (tmp_path / name).write_text(text, encoding="ascii")
    hosts.lab.ssh("kvm1", "mkdir -p /etc/pki/CA && cat >/etc/pki/CA/cacert.pem", text=theirs.certificate)
    wanted = {"kvm_host_tls": True, "kvm_host_tls_directory": own}
    said = hosts.refusal("kvm1", **wanted)
    assert "/etc/pki/CA/cacert.pem" in said and pair.key not in said
    assert hosts.lab.ssh("kvm1", "cat /etc/pki/CA/cacert.pem").stdout == theirs.certificate
    # The same ones, given
    given = {"kvm_host_tls": True, **{"kvm_host_tls_" + name: str(tmp_path / name) for name in ("ca", "certificate", "key")}}
    assert hosts.does(host="kvm1", **given).changed > 0
    assert hosts.does(host="kvm1", **given).changed == 0
    hosts.lab.ssh("kvm1", "echo >>/etc/pki/libvirt/servercert.pem")
    assert "servercert.pem" in hosts.refusal("kvm1", **wanted)
    assert hosts.does(host="kvm1", kvm_host_tls_replace=True, **wanted).changed > 0
    assert hosts.does(host="kvm1", **wanted).changed == 0
    hosts.does(host="kvm1", kvm_host_tls=False)


@pytest.mark.long
def test_a_certificate_that_libvirt_does_not_take_leaves_it_running(hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(_certificates, "_usage", lambda signs: _certificates.x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False))
    authority = _certificates.new_authority()
    pair = _certificates.issue(authority, ["kvm1"])
    for name, text in (("ca", authority.certificate), ("certificate", pair.certificate), ("key", pair.key)):
        (tmp_path / name).write_text(text, encoding="ascii")
    given = {"kvm_host_tls_" + name: str(tmp_path / name) for name in ("ca", "certificate", "key")}
    run = hosts.lab.play("setup_hosts", "--limit", "kvm1", variables=dict(given, kvm_host_tls=True))
    assert run.code == 2 and "started without it again" in run.output and "key encipherment" in run.output, run.output
    assert hosts.daemon("kvm1")
    assert hosts.does(host="kvm1", kvm_host_tls=False).changed == 1, "the certificates go"


@pytest.mark.long
def test_users_may_use_libvirt_and_set_hosts_up_by_sudo(hosts):
    lab = hosts.lab
    assert "no such user" in hosts.refusal("kvm1", kvm_host_users=["fleet"])
    lab.ssh("kvm1", "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends sudo && useradd -m -s /bin/sh fleet && "
            "echo 'fleet ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/fleet && cp -r /root/.ssh /home/fleet/ && chown -R fleet: /home/fleet/.ssh")
    with pytest.raises(libvirt.libvirtError):
        libvirt.open(hosts.uri("kvm1", "fleet"))
    assert hosts.does("--become", "-e", "ansible_user=fleet", host="kvm1", kvm_host_users=["fleet"]).changed == 1
    conn = libvirt.open(hosts.uri("kvm1", "fleet"))
    assert conn.listAllStoragePools()
    conn.close()
    assert hosts.does("--become", "-e", "ansible_user=fleet", host="kvm1", kvm_host_users=["fleet"]).changed == 0


@pytest.mark.long
@pytest.mark.parametrize("variables, words", [
    ({"kvm_host_min_memory": "100TiB"}, ["kvm_host_min_memory", "memory only"]),
    ({"kvm_pools": {"ssd": {"typ": "dir"}}}, ["kvm_pools.ssd.typ of host kvm1", "type"]),
    ({"kvm_pools": {"ssd": {"max_capacity": "5"}}}, ["kvm_pools.ssd.max_capacity", "unit"]),
    ({"kvmfleet_networks": {"lan": {"cidrr": "x"}}}, ["kvmfleet_networks.lan.cidrr"]),
    ({"kvm_host_promises": {"networks": ["lann"]}, "kvmfleet_networks": {"lan": {}}}, ["lann", "lan"]),
    ({"kvm_pools": {"fast": {"volume_group": "vg_none"}}, "kvm_host_install_packages": False}, ["vg_none"]),
    ({"kvm_pools": {"default": {"path": "/elsewhere"}}}, ["/var/lib/libvirt/images", "not moved"]),
    ({"kvm_host_sysctls": {"net.ipv4.no_such": 1}}, ["net.ipv4.no_such"]),
])
def test_what_is_refused(hosts, variables, words):
    said = hosts.refusal("kvm1", **variables)
    for word in words:
        assert word in said


@pytest.mark.long
def test_all_that_a_host_does_not_keep_is_named(hosts):
    promised = {"kvmfleet_networks": {"lan": {}}, "kvm_networks": {"wan": {"bridge": "br-none"}}, "kvm_storage_classes": {"nvme": "none"},
                "kvmfleet_images": {"own:1": {"volume": "own.qcow2"}}}
    clauses = ["network lan: libvirt's network lan does not exist", "network wan: there is no bridge br-none", "storage class nvme: there is no pool none",
               "image own:1: there is no volume own.qcow2"]
    foretold = hosts.does("--check", host="kvm1", **promised)
    done = hosts.lab.play("setup_hosts", "--limit", "kvm1", variables=promised)
    assert (done.code, done.changed, done.failed) == (2, 0, 1), done.output
    for clause in clauses:
        assert clause in done.output and clause in foretold.output
    fewer = dict(promised, kvm_host_promises={"images": [], "networks": [], "storage_classes": []})
    assert hosts.does(host="kvm1", **fewer).changed == 0


@pytest.mark.long
def test_a_host_without_kvm_is_refused_unless_told(hosts):
    hosts.lab.ssh("kvm1", "mv /dev/kvm /dev/kvm-away")
    try:
        assert "kvm_host_allow_emulation" in hosts.refusal("kvm1", kvm_virt_type="auto")
        assert hosts.does(host="kvm1").changed == 0, "the lab says that it wants emulation"
    finally:
        hosts.lab.ssh("kvm1", "mv /dev/kvm-away /dev/kvm")


@pytest.mark.long
def test_pools_networks_and_parameters_come_and_go(hosts):
    lab = hosts.lab
    lab.ssh("kvm2", "mkdir -p /srv/export && cat >/sbin/mount.nfs && chmod 755 /sbin/mount.nfs", text=MOUNT_NFS)
    wanted = {
        "kvm_host_install_packages": False, "kvm_host_sysctls": {"net.ipv4.ip_forward": 1, "net.ipv4.conf.all.log_martians": 1},
        "kvm_pools": {"ssd": {"path": "/srv/ssd", "max_capacity": "1GiB", "admin_only": True}, "shared": {"server": "kvm2", "export": "/srv/export"}},
        "kvm_storage_classes": {"ssd": "ssd"}, "kvm_host_networks": [{"name": "lab", "forward": "none", "address": "10.99.0.1/24"}],
        "kvm_host_default_network": "remove", "kvmfleet_networks": {"lab": {}}}
    foretold, done = hosts.does("--check", host="kvm2", **wanted), hosts.does(host="kvm2", **wanted)
    assert foretold.changed == done.changed > 0
    assert hosts.does(host="kvm2", **wanted).changed == 0
    assert lab.ssh("kvm2", "virsh -q net-list --all --name").stdout.split() == ["lab"]
    assert lab.ssh("kvm2", "findmnt -n -o FSROOT /var/lib/libvirt/images/shared").stdout.strip().endswith("/srv/export")
    assert lab.ssh("kvm2", "cat /proc/sys/net/ipv4/conf/all/log_martians").stdout.strip() == "1"
    assert "server" in hosts.refusal("kvm2", **dict(wanted, kvm_pools={"shared": {"server": "kvm1", "export": "/srv/export"}}))
    back = dict(wanted, kvm_pools={}, kvm_storage_classes={}, kvm_host_sysctls={}, kvm_host_networks=[{"name": "lab", "state": "absent"}],
                kvm_host_default_network="define", kvmfleet_networks={"default": {}})
    assert hosts.does(host="kvm2", **back).changed > 0
    assert hosts.does(host="kvm2", **back).changed == 0
    assert lab.ssh("kvm2", "virsh -q net-list --all --name").stdout.split() == ["default"]
    assert hosts.does(host="kvm2", kvm_host_default_network="keep").changed == 0
