# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Failures in words: no JSON, nothing that no_log hides, and a heading only for what takes long."""
from __future__ import annotations

import os
import threading
import types

import pytest
from ansible.utils.display import Display
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.callback import plain

OWN = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(plain.__file__)))), "roles/vm/tasks/create.yml:3")


@pytest.mark.parametrize("data, text", [
    ({"msg": "Task failed: Action failed: vm_memory = '7': has\n no unit."}, "vm_memory = '7': has no unit."),
    ({"msg": "non-zero return code", "stderr": "trying\nE: no such package\n", "rc": 100}, "non-zero return code: E: no such package"),
    ({"msg": "MODULE FAILURE\nSee stdout/stderr for the exact error", "module_stderr": "Traceback\nKeyError: 'x'\n"},
     "MODULE FAILURE See stdout/stderr for the exact error: KeyError: 'x'"),
    ({"msg": "E: no such package", "stderr": "E: no such package"}, "E: no such package"),
    ({"censored": "the output has been hidden", "msg": "hunter2"}, "the output has been hidden"),
    ({"msg": "One or more items failed", "results": [{"changed": True}, {"failed": True, "msg": "full"}, {"failed": True, "msg": "full"}]},
     "full (and 1 more like this)"),
    ({"msg": "One or more items failed", "results": [{"failed": True, "censored": "hidden", "msg": "hunter2"}]}, "hidden"),
    ({}, "failed without a message"),
])
def test_the_text_of_a_failure(data, text) -> None:
    assert plain.failure_text(data) == text


def test_hosts_that_failed_alike_are_told_together() -> None:
    hosts = {"kvm{0}".format(number): "refused" for number in range(50)}
    assert plain.last_words([*hosts.items(), ("other", "burnt")]) == ["FAILED: kvm0, kvm1, kvm2 and 47 more: refused", "other: burnt"]
    assert plain.last_words([("", "vm_name: is missing."), ("", "full")]) == ["FAILED: vm_name: is missing.", "full"]
    assert plain.last_words([(str(number), str(number)) for number in range(40)])[-1] == "... and 30 more like these"
    assert plain.last_words([]) == []


@given(st.lists(st.tuples(st.text("ab1", max_size=4), st.text("word \u0430.", min_size=1, max_size=300)), min_size=1, max_size=15), st.integers(20, 200))
def test_wrapping_loses_no_word(failed, columns) -> None:
    wrapped = plain.last_words(failed, columns)
    assert [text.split() for text in wrapped] == [text.split() for text in plain.last_words(failed)]
    assert all(len(line) <= columns or " " not in line for text in wrapped for line in text.splitlines())


class Task(types.SimpleNamespace):
    """What the plugin looks at in a task."""

    def __init__(self, path=OWN, name="kvmfleet.core.vm : Wait", **given):
        super().__init__(**dict(dict(_uuid=name, action="kvmfleet.core.vm_set", run_once=False, loop=None, ignore_unreachable=False, ignore_errors=None,
                                     no_log=False, check_mode=False, delegate_to=None, args={}), **given))
        self.path, self.name = path, name

    def get_path(self):
        return self.path

    def get_name(self):
        return self.name


@pytest.fixture
def screen(monkeypatch):
    """The plugin, and what it prints."""
    lines = []
    monkeypatch.setattr(Display, "display", lambda self, text, *args, **kwargs: lines.append(text.strip().rstrip("* ")))
    callback = plain.CallbackModule()
    callback._display.verbosity = 0
    callback._play = types.SimpleNamespace(strategy="linear")
    callback.get_option = lambda name: name in ("display_skipped_hosts", "display_ok_hosts")
    return callback, lines


def result(task, host="kvm1", **data):
    return types.SimpleNamespace(_task=task, _host=types.SimpleNamespace(get_name=lambda: host), _result=data, task=task, result=data,
                                 host=types.SimpleNamespace(get_name=lambda: host, name=host))


def stats(**failures):
    return types.SimpleNamespace(processed=dict(failures), custom={}, summarize=lambda host: dict(
        dict.fromkeys(("ok", "changed", "unreachable", "skipped", "rescued", "ignored"), 0), failures=failures[host]))


def end(screen, monkeypatch, **failures):
    """The end of the run; what is printed there, less the recap."""
    callback, lines = screen
    monkeypatch.setattr(plain.Default, "v2_playbook_on_stats", lambda self, of_all: lines.append("RECAP"))
    del lines[:]
    callback.v2_playbook_on_stats(stats(**failures))
    return lines


def test_a_task_that_takes_long_has_a_heading_before_it_ends(screen) -> None:
    callback, lines = screen
    callback.heading_after_s = 0.01
    callback.v2_playbook_on_task_start(Task(), False)
    timer = callback._timer
    timer.join(60)
    assert lines == ["TASK [kvmfleet.core.vm : Wait]"]
    callback.v2_runner_on_ok(result(Task(), changed=True))
    assert lines == ["TASK [kvmfleet.core.vm : Wait]", "changed: [kvm1]"]
    callback.heading_after_s = 3600.0
    callback.v2_playbook_on_task_start(Task(name="quick"), False)
    late = callback._timer
    callback.v2_runner_on_ok(result(Task(name="quick")))
    callback.v2_runner_on_skipped(result(Task(name="quick")))
    callback.v2_playbook_on_task_start(Task(name="next"), False)
    late.join(60)
    assert len(lines) == 2 and late is not callback._timer
    callback._end_of_task()
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer) and thread is late]


def test_others_tasks_are_shown_as_usual(screen) -> None:
    callback, lines = screen
    task = Task("/home/me/site.yml:3", "Mine")
    callback.v2_playbook_on_task_start(task, False)
    callback.v2_runner_on_ok(result(task))
    callback.v2_runner_on_skipped(result(task))
    assert lines == ["TASK [Mine]", "ok: [kvm1]", "skipping: [kvm1]"]


def test_failures_have_a_line_each_and_the_last_word(screen, monkeypatch) -> None:
    callback, lines = screen
    task = Task("/home/me/site.yml:3", "Mine")
    callback.v2_playbook_on_task_start(task, False)
    for number in range(30):
        callback.v2_runner_on_failed(result(task, "kvm{0}".format(number), msg="burnt\n" + "x" * 500, exception="Traceback ..."))
    callback.v2_playbook_on_task_start(Task("/home/me/site.yml:9", "Next"), False)
    assert lines[1].startswith("kvm0: FAILED: burnt x") and lines[1].endswith(" ...") and len(lines[1]) == 300
    assert len(lines) == 1 + 10 + 1 + 1 and lines[-2] == "... and 20 more"
    assert not [line for line in lines if "{" in line or "Traceback" in line]
    last = end(screen, monkeypatch, **{"kvm{0}".format(number): 1 for number in range(30)})
    assert last == ["RECAP", "FAILED: kvm0, kvm1, kvm2 and 27 more: burnt " + "x" * 500]


def test_what_is_ignored_or_rescued_is_no_last_word(screen, monkeypatch) -> None:
    callback, lines = screen
    task = Task("/home/me/site.yml:3", "Mine")
    callback.v2_runner_on_failed(result(task, msg="maybe"), ignore_errors=True)
    assert lines[-1] == "kvm1: FAILED: maybe (ignored)"
    callback.v2_runner_item_on_failed(result(Task("/home/me/site.yml:3", "Mine", ignore_errors=True), msg="maybe", item="a"))
    assert lines[-1] == "kvm1: FAILED with a: maybe (ignored)"
    callback.v2_runner_on_failed(result(task, msg="rescued"))
    callback.v2_runner_on_failed(result(task, "kvm2", msg="burnt"))
    assert end(screen, monkeypatch, kvm1=0, kvm2=1) == ["RECAP", "FAILED: kvm2: burnt"]


@pytest.mark.parametrize("reported", [True, False])
def test_hosts_that_do_not_answer_are_named_once(screen, monkeypatch, reported) -> None:
    """By the report, or by the plugin where no report came."""
    callback, lines = screen
    callback.v2_runner_on_unreachable(result(Task(ignore_unreachable=True), msg="Task failed: Failed to connect", unreachable=True))
    assert lines == []
    if reported:
        callback.v2_runner_on_failed(result(Task(action="kvmfleet.core.vm_report", run_once=True), msg="kvm1: Failed to connect."))
        assert lines == [] and end(screen, monkeypatch, kvm1=1) == ["RECAP", "FAILED: kvm1: Failed to connect."]
    else:
        assert end(screen, monkeypatch, kvm1=0) == ["kvm1: unreachable: Failed to connect", "RECAP"]


def test_verbose_is_as_usual_with_the_same_last_word(screen, monkeypatch) -> None:
    callback, lines = screen
    callback._display.verbosity = 1
    monkeypatch.setattr(plain.Default, "v2_runner_on_failed", lambda self, of_task, ignore_errors=False: lines.append("JSON"))
    callback.v2_runner_on_failed(result(Task(run_once=True), msg="vm_name: is missing."))
    callback._display.verbosity = 0
    assert lines == ["JSON"] and end(screen, monkeypatch, kvm1=1) == ["RECAP", "FAILED: vm_name: is missing."]
