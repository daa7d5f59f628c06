# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry an image between the control node and a host, over the connection that Ansible has anyway."""
from __future__ import annotations

import os
import re
from typing import Any, Dict, Mapping, Optional

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.kvmfleet.core.plugins.module_utils._image_download import hash_file
from ansible_collections.kvmfleet.core.plugins.module_utils._image_files import (
    Folder, ImageError, part_file, publish, remove_stale_folders, room,
)
from ansible_collections.kvmfleet.core.plugins.module_utils._images import image_volume_name
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, human_size
from ansible_collections.kvmfleet.core.plugins.plugin_utils._progress import SecondLook, States, Watch, host_name

MODULE = "kvmfleet.core.base_image_file"

# Folders of the role for what is on its way from one host to the others; each run has its own and removes it at its end.
_CARRIED = re.compile(r"^carried-[0-9]+\Z")


def _on_the_way(path: str) -> bool:
    return bool(_CARRIED.match(os.path.basename(os.path.dirname(path))))


class ActionModule(ActionBase):
    """See plugins/modules/base_image_carry.py for its documentation."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        checked, args = self.validate_argument_spec(argument_spec={
            "state": {"type": "str", "required": True, "choices": ["fetched", "brought"]},
            "path": {"type": "path", "required": True},
            "image": {"type": "dict", "required": True},
            "checksum": {"type": "str"},
        })
        self._vars = task_vars or {}
        self._host = host_name(self, self._vars)
        args["image"] = {key: value for key, value in args["image"].items() if value not in (None, "")}  # what a template leaves open is either
        try:
            result.update(self._fetch(args) if args["state"] == "fetched" else self._bring(args))
        except (ImageError, SpecError) as exc:
            result.update(failed=True, msg=str(exc), reason=exc.code)
        except AnsibleError as exc:
            result.update(failed=True, reason="carry_failed", msg="Carrying image {0} {1} {2} failed: {3}. Run it again, or let the host get it "
                          "itself: base_image_transfer=direct".format(args["image"].get("name"), "from" if args["state"] == "fetched" else "to", self._host,
                                                                      " ".join(str(exc).split())))
        return result

    def _module(self, options: Mapping[str, Any], **more: Any) -> Dict[str, Any]:
        return dict(self._execute_module(module_name=MODULE, module_args=dict(options, **more), task_vars=self._vars))

    def _remote(self, name: str) -> str:
        """Path of a file in the task's own folder on the host, which the user that logs in there can read and write."""
        return str(self._connection._shell.join_path(self._connection._shell.tmpdir, name))

    def _fetch(self, args: Mapping[str, Any]) -> Dict[str, Any]:
        image, path = args["image"], args["path"]
        actions = ["fetch image {0} from {1}".format(image["name"], self._host)]
        if os.path.exists(path):
            return {"changed": False, "actions": []}
        if self._task.check_mode:
            return {"changed": True, "actions": actions}
        Folder(os.path.dirname(path))
        if _on_the_way(path):
            remove_stale_folders(os.path.dirname(os.path.dirname(path)), _CARRIED)
        with part_file(path) as part:
            if os.path.exists(path):
                return {"changed": False, "actions": []}  # fetched for another host meanwhile
            try:
                lent = self._module(image, state="exported", export_to=self._remote("image"))
                if lent.get("failed"):
                    return lent

                def look() -> States:
                    return self._state(image, os.path.getsize(part.name), lent["size_bytes"])
                with room("fetch image {0}".format(image["name"]), path), Watch(look, self._host):
                    self._connection.fetch_file(self._remote("image"), part.name)
                if "sha256:" + hash_file(part, "sha256") != lent["checksum"]:
                    raise ImageError("Image {0} arrived from {1} with another checksum than it left with. Run it again".format(image["name"], self._host),
                                     "checksum_mismatch")
                publish(part, path)
            finally:
                if os.path.exists(part.name):
                    os.unlink(part.name)
        return {"changed": True, "actions": actions, "checksum": lent["checksum"], "size_bytes": lent["size_bytes"]}

    def _bring(self, args: Mapping[str, Any]) -> Dict[str, Any]:
        image, path = args["image"], args["path"]
        actions = ["copy image {0} from the control node".format(image["name"])]
        if not os.path.isfile(path) and not (self._task.check_mode and image["source"] != "path"):
            raise SpecError("path", path, "is not a file on the control node", "Correct it, or say base_image_remote_src: true where it is on the host",
                            "unreadable_file")
        if self._task.check_mode:
            return {"changed": True, "actions": actions}
        if _on_the_way(path):
            os.utime(os.path.dirname(path))  # so that nobody takes it for one of a run that was killed
        size = os.path.getsize(path)
        checksum = args["checksum"]
        if not checksum:
            with open(path, "rb") as handle:
                checksum = "sha256:" + hash_file(handle, "sha256")
        remote = self._remote(os.path.basename(path))  # by its own name, which lists of checksums know
        second = SecondLook(self)

        def look() -> Optional[States]:
            there = (second.output("stat", "-c", "%s", remote) or "").strip()
            return self._state(image, int(there), size) if there.isdigit() else None
        with Watch(look, self._host):
            self._connection.put_file(path, remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote), execute=False)
        done = self._module({key: image[key] for key in ("uri", "name", "pool", "format") if key in image}, source="path", path=remote, checksum=checksum,
                            volume=image_volume_name(image["name"], image), state="present")
        return done if done.get("failed") else dict(done, actions=actions, size_bytes=size)

    @staticmethod
    def _state(image: Mapping[str, Any], done: int, whole: int) -> States:
        return {image["name"]: ("carrying, {0} of {1}".format(human_size(done), human_size(whole)), False)}
