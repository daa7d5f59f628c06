# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the gates: two at a time, each into a log that is shown when it fails, and one line for each."""
from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Dict, List, NamedTuple, Set, Tuple

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".ansible" / "logs"
SLOTS = 2
# pytest's closing line, without and with its frame
CLOSING = re.compile(r"^=* ?((?:\d+ (?:passed|failed|errors?|skipped|xfailed|xpassed|deselected|warnings?)(?:, )?)+) in [\d.:]+s.*$", re.MULTILINE)
COUNT = re.compile(r"(\d+) (passed|failed|error|skipped)")


class Stage(NamedTuple):
    """A make target, and the stages that have to be over before it starts."""

    target: str
    after: Tuple[str, ...] = ()


# In the order of their worth as a start: what others wait for and what takes long comes first.
CHECK = [Stage("mypy"), Stage("unit"), Stage("ruff"), Stage("vermin"), Stage("shellcheck")]
TEST = [
    Stage("packages-test"),
    Stage("venv", ("packages-test",)),
    Stage("test-image", ("packages-test",)),
    Stage("integration", ("venv", "test-image")),
    Stage("molecule-fleet", ("venv", "test-image")),
    Stage("lab-tests", ("venv", "test-image")),
    Stage("awx", ("venv", "test-image")),
    Stage("events", ("venv", "test-image")),
    Stage("browser", ("venv",)),
    Stage("sanity", ("venv",)),
    Stage("units", ("venv",)),
    Stage("units-2.17", ("venv",)),
    Stage("units-2.18", ("venv",)),
    Stage("lint", ("venv",)),
    Stage("packaging", ("venv",)),
    Stage("docs", ("venv",)),
    Stage("mypy", ("venv",)),
    Stage("ruff", ("venv",)),
    Stage("vermin", ("venv",)),
    Stage("shellcheck", ("packages-test",)),
]
SETS = {"check": CHECK, "test": TEST}


class Outcome(NamedTuple):
    """How a stage ended."""

    returncode: int
    seconds: float
    passed: int
    failed: int


class Runner:
    """Runs stages as process groups of their own, so that all of a stage can be ended."""

    def __init__(self, stages: List[Stage]) -> None:
        self.waiting = list(stages)
        self.running: Dict[str, Tuple[subprocess.Popen[bytes], IO[str], float]] = {}
        self.done: Dict[str, Outcome] = {}
        self.skipped: List[str] = []
        self.selector = selectors.DefaultSelector()

    def start(self, stage: Stage) -> None:
        """Start a stage; that its pidfd becomes readable says that it is over."""
        path = LOGS / (stage.target + ".log")
        path.unlink(missing_ok=True)  # another run of us may still be writing to its own
        log = open(path, "w+", encoding="utf-8", errors="replace")  # closed in finish()
        process = subprocess.Popen(["make", "--no-print-directory", stage.target], cwd=ROOT, stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self.running[stage.target] = (process, log, time.monotonic())
        self.selector.register(os.pidfd_open(process.pid), selectors.EVENT_READ, stage.target)

    def startable(self) -> List[Stage]:
        """The stages that wait for no other one."""
        return [stage for stage in self.waiting if set(stage.after) <= set(self.done)]

    def drop_doomed(self) -> None:
        """Give up the stages whose forerunner failed."""
        bad: Set[str] = {target for target, outcome in self.done.items() if outcome.returncode} | set(self.skipped)
        for stage in [stage for stage in self.waiting if set(stage.after) & bad]:
            self.waiting.remove(stage)
            self.skipped.append(stage.target)
            print("{0:<16} not run: {1} failed".format(stage.target, ", ".join(sorted(set(stage.after) & bad))), flush=True)

    def finish(self, target: str) -> None:
        """Note how a stage ended and tell of it."""
        process, log, started = self.running.pop(target)
        returncode = process.wait()
        with log:
            log.seek(0)
            text = log.read()
        closings = [match.group(0) for match in CLOSING.finditer(text)]
        counts = [(int(number), kind) for line in closings for number, kind in COUNT.findall(line)]
        outcome = Outcome(returncode, time.monotonic() - started,
                          sum(number for number, kind in counts if kind == "passed"),
                          sum(number for number, kind in counts if kind in ("failed", "error")))
        self.done[target] = outcome
        print("\n".join(["{0:<16} {1:<6} {2:>6.1f} s".format(target, "FAILED" if returncode else "ok", outcome.seconds)] + closings), flush=True)
        if returncode:
            print("---- {0}: the end of {1}".format(target, LOGS / (target + ".log")))
            print("\n".join(text.splitlines()[-80:]))
            print("----", flush=True)

    def run(self) -> None:
        """Run all of them."""
        while self.waiting or self.running:
            self.drop_doomed()
            for stage in self.startable()[:SLOTS - len(self.running)]:
                self.waiting.remove(stage)
                self.start(stage)
            if self.waiting and not self.running and not self.startable():
                raise SystemExit("stages that wait for each other: {0}".format([stage.target for stage in self.waiting]))
            for key, _mask in self.selector.select() if self.running else []:
                self.selector.unregister(key.fd)
                os.close(key.fd)
                self.finish(key.data)

    def stop(self) -> None:
        """End what still runs: pytest undoes what its fixtures made on an interrupt, not on a termination."""
        for number, patience in ((signal.SIGINT, 90), (signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            alive = [process for process, _log, _started in self.running.values() if process.poll() is None]
            for process in alive:
                os.killpg(process.pid, number)
            deadline = time.monotonic() + patience
            for process in alive:
                try:
                    process.wait(timeout=max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    print("process {0} does not end by {1}".format(process.pid, number.name), flush=True)
        for process, _log, _started in self.running.values():
            with contextlib.suppress(ProcessLookupError):  # usually nothing of the group is left
                os.killpg(process.pid, signal.SIGKILL)


def main(arguments: List[str]) -> int:
    """Run a set of stages."""
    if len(arguments) != 1 or arguments[0] not in SETS:
        print("usage: stages.py {0}".format("|".join(sorted(SETS))), file=sys.stderr)
        return 2
    LOGS.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    runner = Runner(SETS[arguments[0]])

    def on_signal(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    # A shell that put us into the background made us, and so all stages, deaf to interrupts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGHUP, on_signal)
    try:
        runner.run()
    finally:
        runner.stop()
    bad = [target for target, outcome in runner.done.items() if outcome.returncode] + runner.skipped
    print("{0} stages in {1:.0f} s{2}".format(len(runner.done), time.monotonic() - began, "; bad: " + ", ".join(bad) if bad else ""))
    # A stage that failed outside pytest (a linter, a build) counts as one failure
    failed = sum(outcome.failed or int(outcome.returncode != 0) for outcome in runner.done.values()) + len(runner.skipped)
    summary = "{0} passed, {1} failed".format(sum(outcome.passed for outcome in runner.done.values()), failed)
    (LOGS / "summary").write_text(summary + "\n", encoding="utf-8")
    print(summary)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
