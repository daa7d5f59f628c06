# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel parameters, module options and huge pages on a machine made of files; whether a machine is fit at all."""
from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._host_check import Machine, examine, require_fit
from ansible_collections.kvmfleet.core.plugins.module_utils._host_kernel import KernelConverger, mount_unit, same_value, spec_from_params
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError


@pytest.fixture
def machine(tmp_path):
    """An Intel machine whose module has nested VMs switched off."""
    for path, content in {
            "proc/meminfo": "MemTotal:       16300000 kB\nHugepagesize:       2048 kB\n",
            "proc/cpuinfo": "processor : 0\nflags\t\t: fpu vmx ept\n\nprocessor : 1\nflags\t\t: fpu vmx ept\n",
            "proc/sys/net/ipv4/ip_forward": "0\n", "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
            "sys/module/kvm_intel/parameters/nested": "N\n", "sys/module/kvm/parameters/ignore_msrs": "N\n",
            "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "0\n", "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "0\n"}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content, encoding="ascii")
    return tmp_path


def content(folder):
    return {str(path.relative_to(folder)): path.read_text(encoding="ascii") for path in folder.rglob("*") if path.is_file()}


def converge(machine, **params):
    """Check mode says what is then done, and touches nothing; a second run does nothing."""
    def work(check):
        return KernelConverger(spec_from_params(params, examine(str(machine)).flags), str(machine)).converge(check)
    before = content(machine)
    foretold = work(True)
    assert content(machine) == before
    done = work(False)
    assert (foretold["actions"], foretold["diff"], foretold["changed"]) == (done["actions"], done["diff"], done["changed"])
    again = work(False)
    assert (again["changed"], again["actions"]) == (False, []) and again["next_boot"] == done["next_boot"]
    return done


def test_parameters_are_kept_and_set(machine):
    done = converge(machine, sysctls={"net.ipv4.ip_forward": True, "net.ipv4.ip_local_port_range": "32768 60999"})
    assert done["actions"] == ["set net.ipv4.ip_forward to 1", "write /etc/sysctl.d/90-kvmfleet.conf"]
    files = content(machine)
    assert files["proc/sys/net/ipv4/ip_forward"] == "1"
    assert files["etc/sysctl.d/90-kvmfleet.conf"].splitlines()[1:] == ["net.ipv4.ip_forward = 1", "net.ipv4.ip_local_port_range = 32768 60999"]
    assert converge(machine, sysctls={})["actions"] == ["remove /etc/sysctl.d/90-kvmfleet.conf"]
    assert content(machine)["proc/sys/net/ipv4/ip_forward"] == "1"


def test_what_the_kernel_does_not_know_is_refused_before_anything_is_written(machine):
    before = content(machine)
    with pytest.raises(SpecError) as caught:
        KernelConverger(spec_from_params({"sysctls": {"net.ipv4.ip_forward": 1, "net.bridge.none": 1}}, []), str(machine)).converge(False)
    assert caught.value.option == "sysctls.net.bridge.none"
    with pytest.raises(SpecError, match="It has 2MiB, 1GiB"):
        KernelConverger(spec_from_params({"hugepages": {"16MiB": 1}}, []), str(machine)).converge(False)
    assert content(machine) == before


def test_what_the_kernel_refuses_is_told(machine):
    (machine / "proc/sys/net/ipv4/ip_forward").unlink()
    (machine / "proc/sys/net/ipv4/ip_forward").mkdir()
    with pytest.raises(SpecError, match="no such parameter"):
        KernelConverger(spec_from_params({"sysctls": {"net.ipv4.ip_forward": 1}}, []), str(machine)).converge(False)
    with pytest.raises(FleetError, match="does not take x = 1"):
        KernelConverger(spec_from_params({}, []), str(machine))._set("proc/sys/net/ipv4/ip_forward", "1", "x")


def test_module_options_wait_for_the_next_boot(machine):
    done = converge(machine, nested=True, module_options={"kvm": {"ignore_msrs": True}, "kvm_amd": {"avic": 1}, "vfio_pci": {"ids": "10de:1b80"}})
    assert done["actions"] == ["write /etc/modprobe.d/kvmfleet.conf"]
    assert content(machine)["etc/modprobe.d/kvmfleet.conf"].splitlines()[1:] == [
        "options kvm ignore_msrs=1", "options kvm_intel nested=1", "options vfio_pci ids=10de:1b80"]
    assert done["next_boot"] == ["kvm.ignore_msrs = 1 (now N)", "kvm_intel.nested = 1 (now N)"]
    assert done["notes"] == ["kvm_amd: this CPU does not use that module", "vfio_pci is not loaded; its options hold when it is"]
    (machine / "sys/module/kvm_intel/parameters/nested").write_text("Y\n", encoding="ascii")
    assert converge(machine, nested=True)["next_boot"] == []


def test_a_cpu_without_such_an_option_has_no_file(machine):
    (machine / "proc/cpuinfo").write_text("flags : fpu\n", encoding="ascii")
    assert converge(machine, nested=True)["changed"] is False


def test_huge_pages(machine):
    done = converge(machine, hugepages={"2MiB": 512, "1GiB": "2"})
    assert done["mount_units"] == ["dev-hugepages1G.mount"]
    files = content(machine)
    assert files["sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"] == "512"
    assert files["etc/tmpfiles.d/kvmfleet-hugepages.conf"].splitlines()[1:] == [
        "w /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages - - - - 512", "w /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages - - - - 2"]
    assert "Where=/dev/hugepages1G" in files["etc/systemd/system/dev-hugepages1G.mount"]
    assert mount_unit(1 << 24)[0] == "dev-hugepages16M.mount"


def test_what_is_declared_no_more_is_given_back(machine):
    """A VM's pages and mounts stay until it ends; what a parameter was before is not known."""
    converge(machine, hugepages={"2MiB": 8, "1GiB": 2}, sysctls={"net.ipv4.ip_forward": 1})
    wants = machine / "etc/systemd/system/sysinit.target.wants"
    wants.mkdir()
    (wants / "dev-hugepages1G.mount").symlink_to("../dev-hugepages1G.mount")
    (machine / "etc/systemd/system/dev-hugepages16M.mount").write_text("[Mount]\n# the site's own\n", encoding="ascii")
    done = converge(machine, hugepages={"2MiB": 8})
    assert done["actions"] == ["remove /etc/sysctl.d/90-kvmfleet.conf", "set huge pages of 1GiB to 0", "write /etc/tmpfiles.d/kvmfleet-hugepages.conf",
                               "remove /etc/systemd/system/dev-hugepages1G.mount"]
    assert done["notes"] == ["net.ipv4.ip_forward is set no more; it stays 1 until the next boot",
                             "dev-hugepages1G.mount is removed; the pages stay mounted until the next boot"]
    files = content(machine)
    assert files["sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"] == "0" and files["sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"] == "8"
    assert not list(wants.iterdir()) and "etc/systemd/system/dev-hugepages16M.mount" in files
    assert converge(machine)["actions"] == ["set huge pages of 2MiB to 0", "remove /etc/tmpfiles.d/kvmfleet-hugepages.conf"]


@pytest.mark.parametrize("params, option", [
    ({"hugepages": {"2": 1}}, "hugepages"), ({"hugepages": {"2MiB": "many"}}, "hugepages.2MiB"), ({"sysctls": {"../etc": 1}}, "sysctls.../etc"),
    ({"sysctls": {"a.b": "1\nc.d = 2"}}, None), ({"module_options": {"kvm": "x=1"}}, "module_options.kvm"),
    ({"module_options": {"kvm": {"x": "1 y=2"}}}, "module_options.kvm.x"), ({"module_options": {"kvm;": {}}}, "module_options.kvm;"),
])
def test_what_would_write_something_else(params, option):
    if option is None:  # a line end is a space to the kernel
        assert list(spec_from_params(params, []).sysctls.values()) == ["1 c.d = 2"]
        return
    with pytest.raises(SpecError) as caught:
        spec_from_params(params, [])
    assert caught.value.option == option


@given(st.text("YN01 \t23ab", max_size=4))
def test_a_value_is_the_same_as_itself(value):
    assert same_value(value, " {0}\n".format(value))
    assert same_value("Y", value) == (value.strip() in ("Y", "1"))


def test_a_machine_is_looked_at(machine):
    assert examine(str(machine)) == Machine(15917, False, ["vmx"], False)
    (machine / "dev").mkdir()
    (machine / "dev/kvm").touch()
    (machine / "run").mkdir()
    (machine / "run/.containerenv").touch()
    assert examine(str(machine)) == Machine(15917, True, ["vmx"], True)


@pytest.mark.parametrize("machine, wanted, code, text", [
    (Machine(900, True, [], False), ("1GiB", False), "too_little_memory", "900 MiB"),
    (Machine(4000, False, ["svm"], False), ("1GiB", False), "no_virtualisation", "modprobe kvm_amd"),
    (Machine(4000, False, [], False), ("1GiB", False), "no_virtualisation", "firmware"),
    (Machine(4000, False, [], True), ("1GiB", False), "no_virtualisation", "container"),
    (Machine(4000, True, [], False), ("4", False), "invalid_value", "unit"),
])
def test_unfit_machines(machine, wanted, code, text):
    with pytest.raises(SpecError) as caught:
        require_fit(machine, *wanted)
    assert caught.value.code == code and text in str(caught.value)


@pytest.mark.parametrize("machine, emulation", [(Machine(4000, True, [], False), False), (Machine(4000, False, [], False), True)])
def test_fit_machines(machine, emulation):
    require_fit(machine, "1GiB", emulation)
