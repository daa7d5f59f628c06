# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest's network side without a guest: a veth in a network namespace, under a domain's MAC, on a libvirt network's bridge.

As a script it runs inside that namespace: C(dhcp MAC) leases an address as a guest does, C(serve PORT GREETING) listens.
"""
from __future__ import annotations

import ipaddress
import os
import socket
import struct
import subprocess
import sys
import uuid

_COOKIE = b"\x63\x82\x53\x63"
DEVICE = "eth0"


def _ip(*arguments):
    subprocess.run(["ip"] + list(arguments), check=True, stdout=subprocess.PIPE)


class FakeNic:
    """A link on a bridge, with a namespace behind it."""

    def __init__(self, bridge, mac):
        self.namespace = "kfpow-" + uuid.uuid4().hex[:8]
        self.link = "kfp" + uuid.uuid4().hex[:8]
        self.mac, self.servers = mac, []
        _ip("netns", "add", self.namespace)
        _ip("link", "add", self.link, "type", "veth", "peer", "name", DEVICE, "netns", self.namespace)
        _ip("link", "set", self.link, "master", bridge, "up")
        _ip("-n", self.namespace, "link", "set", DEVICE, "address", mac, "up")

    def _inside(self, *arguments):
        return ["ip", "netns", "exec", self.namespace, sys.executable, os.path.abspath(__file__)] + list(arguments)

    def lease(self):
        """Take an address by DHCP, with its prefix, and use it."""
        done = subprocess.run(self._inside("dhcp", self.mac), check=True, stdout=subprocess.PIPE, timeout=60)
        address = done.stdout.decode().strip()
        self.use(address)
        return address

    def use(self, address):
        """Use an address."""
        _ip("-n", self.namespace, "addr", "add", address, "dev", DEVICE)

    def serve(self, port, greeting):
        """Listen and greet each connection; an empty greeting stays silent."""
        server = subprocess.Popen(self._inside("serve", str(port), greeting), stdout=subprocess.PIPE)
        self.servers.append(server)
        assert server.stdout.readline() == b"ready\n"
        return server

    def hush(self):
        """End all servers."""
        for server in self.servers:
            server.kill()
            server.wait()
            server.stdout.close()
        self.servers = []

    def remove(self):
        """Remove all of it."""
        self.hush()
        _ip("netns", "del", self.namespace)


def _message(kind, mac, extra=b""):
    head = struct.pack("!BBBBIHHIIII", 1, 1, 6, 0, 0x6b667077, 0, 0x8000, 0, 0, 0, 0)
    return head + bytes.fromhex(mac.replace(":", "")).ljust(16, b"\0") + bytes(192) + _COOKIE + bytes([53, 1, kind]) + extra + b"\xff"


def _options(answer):
    found, position = {}, 240
    while position < len(answer) and answer[position] != 255:
        if answer[position] == 0:
            position += 1
            continue
        length = answer[position + 1]
        found[answer[position]] = answer[position + 2:position + 2 + length]
        position += 2 + length
    return found


def _exchange(sock, message, kind):
    """Send until the answer of that kind comes: a bridge port may not forward yet."""
    for _attempt in range(50):
        sock.sendto(message, ("255.255.255.255", 67))
        try:
            answer = sock.recv(2048)
        except socket.timeout:
            continue
        if _options(answer).get(53) == bytes([kind]):
            return answer
    raise SystemExit("no DHCP answer")


def dhcp(mac):
    """Lease an address; print it with its prefix."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, DEVICE.encode())
        sock.bind(("", 68))
        sock.settimeout(0.5)
        offer = _exchange(sock, _message(1, mac), 2)
        wanted = offer[16:20]
        answer = _exchange(sock, _message(3, mac, bytes([50, 4]) + wanted + bytes([54, 4]) + _options(offer)[54]), 5)
    mask = ipaddress.ip_address(_options(answer)[1])
    print("{0}/{1}".format(ipaddress.ip_address(wanted), bin(int(mask)).count("1")))


def serve(port, greeting):
    """Listen for ever."""
    held = []
    with socket.create_server(("0.0.0.0", int(port))) as server:
        print("ready", flush=True)
        while True:
            held.append(server.accept()[0])
            if greeting:
                held.pop().sendall(greeting.encode() + b"\r\n")


if __name__ == "__main__":
    {"dhcp": dhcp, "serve": serve}[sys.argv[1]](*sys.argv[2:])
