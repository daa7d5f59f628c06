# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt itself takes to tell all domains of many hosts: a thread for each opens a connection and reads the XML of every domain.

usage: bare_inventory.py URI...   (prints how many domains and how many characters of XML)
"""
import sys
from concurrent.futures import ThreadPoolExecutor

import libvirt


def read(uri):
    conn = libvirt.open(uri)
    found = [domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) for domain in conn.listAllDomains()]
    conn.close()
    return found


uris = sys.argv[1:]
with ThreadPoolExecutor(len(uris)) as pool:
    documents = [xml for found in pool.map(read, uris) for xml in found]
print(len(documents), sum(map(len, documents)))
