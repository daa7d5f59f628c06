# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Output of playbooks for people: what takes long, what changed, the table, and at the very end what failed."""
from __future__ import annotations

DOCUMENTATION = r"""
name: plain
type: stdout
short_description: Failures in words, at the end of the output
version_added: 0.1.0
author: kvmfleet contributors (@kvmfleet)
description:
  - The output of P(ansible.builtin.default#callback), with failures as words instead of JSON and excerpts of source. A host that fails or is unreachable has
    one line, and what failed is the last thing that is printed, wrapped to the width of the terminal if there is one.
  - Of the tasks in this collection's own playbooks and roles only those are shown that change something, fail, print something of their own, or take longer
    than a second. Other tasks are shown as usual.
  - With C(-v) everything is shown as by P(ansible.builtin.default#callback), and the last words are the same.
  - Colours are used where Ansible uses them, which is not without a terminal, with C(NO_COLOR) or with C(ANSIBLE_NOCOLOR).
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - Set it as C(stdout_callback) in C(ansible.cfg), or the environment variable C(ANSIBLE_STDOUT_CALLBACK=kvmfleet.core.plain).
"""

import os
import sys
import textwrap
import threading
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as Default

from ansible_collections.kvmfleet.core.plugins.plugin_utils._report import user_message
from ansible_collections.kvmfleet.core.plugins.plugin_utils._table import plain, who

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
_OWN = tuple(os.path.join(_ROOT, folder, "") for folder in ("playbooks", "roles"))
_REPORTS = ("vm_report", "fleet_report", "image_report")  # they name the hosts that did not answer
_LONGEST_LINE = 300
_MOST_LINES = 10
_MOST_TEXTS = 10
_FREE = ("free", "host_pinned")


def failure_text(data: Mapping[str, Any]) -> str:
    """Why a task failed, in one line: of a loop the first item that did, of a command the last line that it wrote to stderr."""
    if "censored" in data:
        return plain(data["censored"])
    failed = [item for item in data.get("results") or [] if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable"))]
    if failed:
        more = " (and {0} more like this)".format(len(failed) - 1) if len(failed) > 1 else ""
        return failure_text(failed[0]) + more
    text = user_message(data)
    said = str(data.get("stderr") or data.get("module_stderr") or "").strip().splitlines()
    if said and " ".join(said[-1].split()) not in text:
        text = "{0}: {1}".format(text.rstrip("."), said[-1].strip())
    return plain(text)


def last_words(failed: Iterable[Tuple[str, str]], columns: Optional[int] = None) -> List[str]:
    """Paragraphs that say what failed where, one for all hosts of which the same is to be said.

    :param failed: hosts and texts; with an empty name what was said for all hosts at once
    :param columns: the width of the terminal; None where there is none, so that whoever reads a log can search in it
    """
    texts: Dict[str, List[str]] = {}
    for host, text in failed:
        texts.setdefault(text, []).append(host)
    paragraphs = [text if hosts == [""] else "{0}: {1}".format(who([host for host in hosts if host]), text) for text, hosts in texts.items()]
    if len(paragraphs) > _MOST_TEXTS:
        paragraphs = paragraphs[:_MOST_TEXTS] + ["... and {0} more like these".format(len(paragraphs) - _MOST_TEXTS)]
    paragraphs[:1] = ["FAILED: " + text for text in paragraphs[:1]]
    if columns is None:
        return paragraphs
    return [textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False) for text in paragraphs]


def _is_ours(task: Any) -> bool:
    return os.path.realpath(str(task.get_path() or "")).startswith(_OWN)


class CallbackModule(Default):
    """See DOCUMENTATION."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "kvmfleet.core.plain"

    heading_after_s = 1.0

    def __init__(self) -> None:
        super().__init__()
        self._failed: Dict[str, Tuple[str, str]] = {}  # by host how it is called in the last words, and why
        self._unsaid: Dict[str, str] = {}  # hosts that did not answer, as long as no report of ours has named them
        self._lines = 0                    # of failures of the present task
        self._lock = threading.RLock()
        self._timer: Optional[threading.Timer] = None

    # -- what is shown -------------------------------------------------------------------------------------------------------------------

    def _quiet(self, task: Any) -> bool:
        """Whether a task is an inner one of ours, of which only what helps is shown."""
        return not self._display.verbosity and _is_ours(task)

    def _says_something(self, result: Any) -> bool:
        return not self._quiet(result._task) or bool(result._result.get("changed")) or bool(result._result.get("_ansible_verbose_always"))

    def _task_start(self, task: Any, prefix: Optional[str] = None) -> None:
        self._end_of_task()
        if not self._quiet(task):
            super()._task_start(task, prefix)
            return
        self._task_type_cache[task._uuid] = prefix or "TASK"
        free = str(getattr(self._play, "strategy", None)).rpartition(".")[2] in _FREE
        self._last_task_name = None if free else task.get_name().strip()
        if not free:
            # Not at once: most of them are over before anybody could read it. The first line that tells how far one is comes later.
            self._timer = threading.Timer(self.heading_after_s, self._late_heading, [task])
            self._timer.daemon = True
            self._timer.start()

    def _late_heading(self, task: Any) -> None:
        with self._lock:
            if self._timer is threading.current_thread():
                self._print_task_banner(task)
                sys.stdout.flush()

    def _print_task_banner(self, task: Any) -> None:
        with self._lock:
            if self._last_task_banner != task._uuid:
                super()._print_task_banner(task)

    def _end_of_task(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._lines > _MOST_LINES:
                self._display.display("... and {0} more".format(self._lines - _MOST_LINES), color=C.COLOR_ERROR)
            self._lines = 0

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._end_of_task()
        super().v2_playbook_on_play_start(play)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if not self._quiet(included_file._task):
            super().v2_playbook_on_include(included_file)

    def v2_runner_on_ok(self, result: Any) -> None:
        if result._task.action.rpartition(".")[2] in _REPORTS:
            self._unsaid.clear()
        if self._says_something(result):
            super().v2_runner_on_ok(result)
        else:
            self._handle_warnings(result._result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if self._says_something(result):
            super().v2_runner_item_on_ok(result)
        else:
            self._handle_warnings(result._result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        if not self._quiet(result._task):
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if not self._quiet(result._task):
            super().v2_runner_item_on_skipped(result)

    # -- failures ------------------------------------------------------------------------------------------------------------------------

    def _line(self, result: Any, word: str, text: str, ignored: bool, color: Optional[str]) -> None:
        """One line for one host."""
        self._print_task_banner(result._task)
        self._lines += 1
        if self._lines > _MOST_LINES:
            return
        line = "{0}: {1}: {2}".format(self.host_label(result), word, text)
        if len(line) > _LONGEST_LINE:
            line = line[:_LONGEST_LINE - 4].rstrip() + " ..."
        self._display.display(line + (" (ignored)" if ignored else ""), color=C.COLOR_SKIP if ignored else color,
                              stderr=bool(self.get_option("display_failed_stderr")))

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        text, task = failure_text(result._result), result._task
        for_all = bool(task.run_once) and _is_ours(task)
        if not ignore_errors:
            if task.action.rpartition(".")[2] in _REPORTS:
                # It tells what has become of all hosts.
                self._failed.clear()
                self._unsaid.clear()
            self._failed[result._host.get_name()] = ("" if for_all else self.host_label(result), text)
        if self._display.verbosity:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        self._handle_warnings(result._result)
        items_told = bool(task.loop) and "results" in result._result
        if not items_told and (ignore_errors or not for_all):
            self._line(result, "FAILED", text, ignore_errors, C.COLOR_ERROR)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        if self._display.verbosity:
            super().v2_runner_item_on_failed(result)
            return
        self._handle_warnings(result._result)
        self._line(result, "FAILED with {0}".format(plain(self._get_item_label(result._result))), failure_text(result._result),
                   result._task.ignore_errors is True, C.COLOR_ERROR)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        text, ignored = failure_text(result._result), bool(result._task.ignore_unreachable)
        if not ignored:
            self._failed[result._host.get_name()] = (self.host_label(result), "The host is unreachable: " + text)
        if self._display.verbosity:
            super().v2_runner_on_unreachable(result)
        elif ignored and _is_ours(result._task):
            self._unsaid[self.host_label(result)] = text
        else:
            self._line(result, "unreachable", text, ignored, C.COLOR_UNREACHABLE)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end_of_task()
        for host, text in self._unsaid.items():
            self._display.display("{0}: unreachable: {1}".format(host, text), color=C.COLOR_UNREACHABLE)
        super().v2_playbook_on_stats(stats)
        summaries = {host: stats.summarize(host) for host in self._failed}
        # What was rescued has not failed.
        failed = [self._failed[host] for host, summary in summaries.items() if summary["failures"] or summary["unreachable"]]
        for paragraph in last_words(failed, self._display.columns if sys.stdout.isatty() else None):
            self._display.display(paragraph, color=C.COLOR_ERROR)
