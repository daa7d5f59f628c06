# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real ansible-rulebook with the collection's rulebooks, a KVM host for its playbooks, and somebody who answers like AWX."""
from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.server
import json
import os
import random
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import pytest
import yaml

from ansible_collections.kvmfleet.core.plugins.plugin_utils import _awx
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, Host
from ansible_collections.kvmfleet.core.tests.awx import awx_rules
from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import MARK, FleetPlaybooks, Lab, kill_all
from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import BIN, ROOT

# Of digits only, as somebody may choose them: ansible-rulebook would make numbers of them
TOKEN, SECRET = "31415926", "27182818"
# What is on no machine is its private half
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@laptop"
# As awx_configure names them
SCALE, CREATE, DELETE = "kvmfleet: Scale a set of VMs", "kvmfleet: Create VMs", "kvmfleet: Delete VMs"
CATALOGS = {"kvmfleet_images": {"debian:12": {}}, "kvmfleet_flavors": {"small": {"vcpus": 1, "memory": "1GiB"}}, "kvmfleet_networks": {"default": {}},
            "kvmfleet_groups": {"blue": {}}, "kvmfleet_storage_classes": {"ssd": {"pool": "fast"}}}
DEADLINE_S = 300
RULEBOOKS = os.path.join(ROOT, "extensions", "eda", "rulebooks")


def until(wanted, why, alive=lambda: True):
    """Wait until something is so; its value."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found = wanted()
        if found:
            return found
        assert alive(), "it has ended: " + why()
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)


def free_port():
    """A port that nobody has at this moment, and that nobody is given by chance in the next."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = random.randrange(20000, 32000)
            probe.bind(("127.0.0.1", port))
            return port


class Answer:
    """What came of a request."""

    def __init__(self, status, text):
        self.status, self.text = status, text

    def __repr__(self):
        return "{0}: {1}".format(self.status, self.text)


def send(port, body, headers=None, method="POST"):
    """Send a body (JSON where it is no bytes) to a webhook; the answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request("http://127.0.0.1:{0}/endpoint".format(port), data=data, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
            return Answer(response.status, response.read().decode())
    except urllib.error.HTTPError as exc:
        return Answer(exc.code, exc.read().decode())


def post(port, body, token=TOKEN):
    """The same with a token."""
    return send(port, body, {"Authorization": "Bearer " + token})


def post_signed(port, body, secret=SECRET):
    """The same, signed."""
    data = json.dumps(body).encode()
    return send(port, data, {"X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()})


class Rulebook:
    """An ansible-rulebook that runs. It and all that it starts, which has sessions of its own, bear a mark in their environment.

    :param rulebook: a name in the collection, or a path
    :param ports: on which it is to answer
    """

    def __init__(self, rulebook, folder, inventory, ports, environment=None, **variables):
        self.ports, self.path, mark = ports, folder / "rulebook.log", uuid.uuid4().hex
        self.mark = "{0}={1}".format(MARK, mark).encode()
        (folder / "vars.yml").write_text(yaml.safe_dump(dict({"webhook_token": TOKEN, "webhook_secret": SECRET, "webhook_operations": [
            "create", "delete", "power", "scale"]}, **variables)))
        env = dict(os.environ, PATH=BIN + os.pathsep + os.environ["PATH"], ANSIBLE_COLLECTIONS_PATH=os.path.join(ROOT, ".ansible", "collections"),
                   ANSIBLE_NOCOLOR="1", EDA_JOB_TEMPLATE_REFRESH_DELAY="0.2", PYTHONUNBUFFERED="1", **dict(environment or {}, **{MARK: mark}))
        with open(self.path, "wb") as log:
            self.process = subprocess.Popen(
                [os.path.join(BIN, "ansible-rulebook"), "--rulebook", rulebook, "--inventory", str(inventory), "--vars", str(folder / "vars.yml"), "-v"],
                env=env, cwd=str(folder), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def output(self):
        """What it has said so far."""
        return self.path.read_text(errors="replace")

    @property
    def alive(self):
        return self.process.poll() is None

    def _answers(self):
        with contextlib.suppress(OSError):
            for port in self.ports:
                socket.create_connection(("127.0.0.1", port), 5).close()
            return True
        return False

    def ready(self):
        """Itself, as soon as all its ports answer."""
        until(self._answers, lambda: self.output, lambda: self.alive)
        return self

    def until(self, wanted):
        """Wait until something is so that it brings about."""
        return until(wanted, lambda: self.output, lambda: self.alive)

    def stop(self):
        """End it with all that it has started."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        kill_all(self.mark)
        self.process.wait()


def job_templates():
    """All that awx_configure makes, by name."""
    hosts = [Host("kvm1", zone="east", region="eu"), Host("kvm2", zone="west", region="us")]
    settings = _awx.Settings("https://git.example.org/fleet.git", "ee:1", hosts=hosts)
    made = _awx.objects(settings, Catalogs(CATALOGS), CATALOGS)
    return {template["name"]: template for template in made["controller_templates"]}


class _AwxHandler(http.server.BaseHTTPRequestHandler):
    """As much of AWX's API as run_job_template uses, with AWX's rules for what a job is launched with."""

    def log_message(self, *arguments):
        pass

    def _say(self, status, data):
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path, _mark, query = self.path.partition("?")
        asked = dict(urllib.parse.parse_qsl(query))
        if self.headers.get("Authorization") != "Bearer awx":
            self._say(401, {"detail": "no"})
        elif path == "/api/v2/config/":
            self._say(200, {"version": "24.6.1"})
        elif path == "/api/v2/unified_job_templates/":
            self._say(200, {"count": 1, "next": None, "results": [dict(
                {key: value for key, value in template.items() if key.startswith("ask_")}, id=number, type="job_template", name=name,
                summary_fields={"organization": {"name": template["organization"]}}, related={"launch": "/api/v2/job_templates/{0}/launch/".format(number)})
                for number, (name, template) in enumerate(self.server.templates.items()) if name == asked["name"]]})
        else:
            numbers = [int(number) for number in asked["id__in"].split(",")]
            self._say(200, {"count": len(numbers), "next": None, "results": [
                {"id": number, "status": self.server.outcome, "created": "2026-01-01T00:00:00Z", "artifacts": {}} for number in numbers]})

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name, template = list(self.server.templates.items())[int(self.path.split("/")[4])]
        try:
            _variables, ignored = awx_rules.launch(template, sent["extra_vars"])
        except awx_rules.Refused as exc:
            self.server.refused.append((name, str(exc)))
            self._say(400, {"variables_needed_to_start": [str(exc)]})
            return
        self.server.launched.append((name, sent["extra_vars"], ignored))
        self._say(201, {"id": len(self.server.launched), "url": "/api/v2/jobs/{0}/".format(len(self.server.launched))})


@pytest.fixture(scope="session")
def awx():
    """Somebody who answers like AWX: C(launched) are template, variables and ignored variables of each job, C(outcome) what becomes of them; C(refused)
    are template and reason of each launch that was refused. There is no template that deletes VMs.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _AwxHandler)
    server.launched, server.refused, server.outcome = [], [], "successful"
    server.templates = {name: template for name, template in job_templates().items() if name != DELETE}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def lab():
    """One KVM host, see L(Lab)."""
    made = Lab(1)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def fleet(lab, tmp_path_factory):
    """Playbooks on it, with plenty of room; its inventory is that of the rulebooks."""
    return FleetPlaybooks(lab, tmp_path_factory.mktemp("fleet"), vcpus=(100,))


def _queue(name, bad, good, said):
    """A ruleset with an event filter, and a source behind which nobody waits for an answer, as with the event streams of the EDA controller."""
    return {"name": "A queue with {0}".format(name), "hosts": "all",
            "sources": [{"eda.builtin.generic": {"payload": [{"payload": bad}, {"payload": good}], "shutdown_after": 86400},
                         "filters": [{"kvmfleet.core." + name: {}}]}],
            "rules": [{"name": "say it", "condition": said + " is defined", "action": {"debug": {"msg": "from the queue: {{ %s }}" % said}}}]}


@pytest.fixture(scope="session")
def rulebooks(fleet, awx, tmp_path_factory):
    """All rulebooks, started at once: name -> L(Rulebook). Those that need no file of their own are put into one process, each with a port of its own."""
    inventory = fleet.folder / "inventory.yml"
    folder = tmp_path_factory.mktemp("together")
    ports = {name: free_port() for name in ("webhook", "autoscale", "webhook_hmac", "webhook_awx", "autoscale_awx")}
    together = []
    for name in ("webhook_hmac", "webhook_awx", "autoscale_awx"):
        with open(os.path.join(RULEBOOKS, name + ".yml"), encoding="utf-8") as stream:
            rulesets = yaml.safe_load(stream)
        rulesets[0]["sources"][0]["eda.builtin.webhook"]["port"] = ports[name]
        together += rulesets
    alert = {"labels": {"kvmfleet_set": "queued", "kvmfleet_scale": "up"}, "fingerprint": "1", "startsAt": "2026-01-01T00:00:00Z"}
    together += [_queue("vm_request", {"operation": "drop"}, {"operation": "delete", "vm_name": "queued"}, "event.request.vm_name"),
                 _queue("alerts", {"alerts": [1]}, {"alerts": [alert]}, "event.scale.set")]
    (folder / "together.yml").write_text(yaml.safe_dump(together))
    sets = {"web": {"vm_min": 1, "vm_max": 4, "vm_cooldown": 600, "vm_ssh_key": KEY}, "1e3": {"vm_max": 3, "vm_cooldown": 0}}
    controller = {"EDA_CONTROLLER_URL": "http://127.0.0.1:{0}".format(awx.server_address[1]), "EDA_CONTROLLER_TOKEN": "awx"}
    started = {}
    try:
        started["webhook"] = Rulebook("kvmfleet.core.webhook", tmp_path_factory.mktemp("webhook"), inventory, [ports["webhook"]], webhook_port=ports["webhook"])
        started["autoscale"] = Rulebook("kvmfleet.core.autoscale", tmp_path_factory.mktemp("autoscale"), inventory, [ports["autoscale"]],
                                        webhook_port=ports["autoscale"], autoscale_sets=sets)
        started["together"] = Rulebook(str(folder / "together.yml"), folder, inventory, [ports[name] for name in (
            "webhook_hmac", "webhook_awx", "autoscale_awx")], controller, autoscale_sets=sets, webhook_group="blue",
            webhook_operations=["create", "delete", "scale"])
        for rulebook in started.values():
            rulebook.ready()
        yield dict(started, ports=ports)
    finally:
        for rulebook in started.values():
            rulebook.stop()
