# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As much of AWX's REST API as awx.awx needs to configure it, with AWX's rules for surveys, credential types and schedules."""
from __future__ import annotations

import functools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from ansible_collections.kvmfleet.core.tests.awx import awx_rules

TOKEN = "of-the-test"
RULES = {"credential_types": awx_rules.check_credential_type, "schedules": lambda data: awx_rules.check_rrule(data["rrule"])}
SECRETS = ("ssh_key", "root_password", "users")
# Where AWX itself fills in what a request left out.
DEFAULTS = {"projects": {"scm_revision": ""}, "inventories": {"kind": "", "host_filter": None}}
JOBS = ("job_templates", "projects", "inventory_sources")


class FakeAwx:
    """AWX on a port of its own.

    C(objects) are its objects by collection and number, C(links) what is associated with what, C(writes) counts changes, C(updates) are the names of projects
    and inventory sources that were read anew, and C(revision) is what a project would find.
    """

    def __init__(self):
        self.objects, self.links, self.surveys, self.writes, self.number = {}, {}, {}, 0, 0
        self.updates, self.revision = [], "r1"
        self.add("credentials", {"name": "Ansible Galaxy", "credential_type": 0})
        awx = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def answer(self, method):
                size = int(self.headers.get("Content-Length") or 0)
                data = json.loads(self.rfile.read(size) or b"{}") if size else {}
                parts = urlsplit(self.path)
                if self.headers.get("Authorization") != "Bearer " + TOKEN:
                    status, body = 401, {"detail": "who are you"}
                else:
                    status, body = awx.handle(method, parts.path.strip("/").split("/")[2:], dict(parse_qsl(parts.query)), data)
                text = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = functools.partialmethod(answer, "GET")
            do_POST = functools.partialmethod(answer, "POST")
            do_PATCH = functools.partialmethod(answer, "PATCH")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:{0}".format(self.server.server_port)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        """Close the port."""
        self.server.shutdown()
        self.server.server_close()

    def named(self, collection):
        """The objects of a collection by name."""
        return {item["name"]: item for item in self.objects.get(collection, {}).values()}

    def add(self, collection, data):
        """A new object."""
        self.number += 1
        url = "/api/v2/{0}/{1}/".format(collection, self.number)
        roles = {role: {"id": "{0}.{1}".format(self.number, role)} for role in ("execute_role", "admin_role", "read_role")}
        item = dict(DEFAULTS.get(collection, {}), id=self.number, url=url, type=collection, **data)
        item.update(related={"survey_spec": url + "survey_spec/", "update": url + "update/"}, summary_fields={"object_roles": roles})
        if collection == "job_templates":
            item["organization"] = self.objects["projects"][data["project"]]["organization"]  # that of the project, whatever was asked
        if collection == "inventory_sources":
            item["organization"] = self.objects["inventories"][data["inventory"]]["organization"]
        self.objects.setdefault(collection, {})[self.number] = item
        return item

    def shown(self, collection, item):
        """An object as AWX tells it: without secrets."""
        if collection == "notification_templates":
            settings = item["notification_configuration"]
            return dict(item, notification_configuration=dict(settings, password="$encrypted$") if settings.get("password") else settings)
        if collection != "credentials":
            return item
        return dict(item, inputs={key: "$encrypted$" if key in SECRETS else value for key, value in item.get("inputs", {}).items()})

    def found(self, collection, query):
        """The objects that a list shows."""
        kinds = JOBS if collection == "unified_job_templates" else (collection,)
        return [self.shown(kind, item) for kind in kinds for item in self.objects.get(kind, {}).values()
                if all(str(item.get(key)) == value for key, value in query.items())]

    def handle(self, method, path, query, data):
        """Status and body of the answer."""
        collection = path[0]
        try:
            if len(path) > 2:
                return self.related(method, collection, path[1], path[2], data)
            if method == "GET" and len(path) == 1:
                found = self.found(collection, query)
                return 200, {"count": len(found), "results": found, "next": None}
            item = self.objects[collection].get(int(path[1])) if len(path) == 2 else None
            if method != "GET":
                self.writes += 1
                if collection in RULES:
                    RULES[collection](dict(item or {}, **data))
                if item is None:
                    return 201, self.shown(collection, self.add(collection, data))
                item.update(data)
            return 200, self.shown(collection, item)
        except awx_rules.Refused as exc:
            return 400, {"error": str(exc), "__all__": [str(exc)]}

    def related(self, method, collection, number, what, data):
        """What belongs to an object: its survey, or other objects."""
        if what == "update":
            item = self.objects[collection][int(number)]
            self.updates.append(item["name"])
            if collection == "projects":
                item["scm_revision"] = self.revision
            done = {"status": "successful", "failed": False, "finished": "now", "event_processing_finished": True, "scm_revision": self.revision}
            return 202, self.add(collection + "_updates", done)
        if what == "survey_spec":
            if method == "POST":
                self.writes += 1
                awx_rules.check_survey(data)
                self.surveys[int(number)] = data
            return 200, self.surveys.get(int(number), {})
        links = self.links.setdefault((collection, number, what), set())
        if method == "POST":
            self.writes += 1
            (links.discard if data.get("disassociate") else links.add)(data["id"])
            return 204, None
        return 200, {"count": len(links), "results": [{"id": link} for link in sorted(links)], "next": None}
