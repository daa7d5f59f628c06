# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our metadata element: there and back, beside what others keep, and what older and newer versions wrote."""
from __future__ import annotations

import datetime
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import _metadata
from ansible_collections.kvmfleet.core.plugins.module_utils._metadata import Scaling, VmMetadata, VolumeRef

# What XML can carry; a carriage return would come back as a line end.
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), max_size=20)
ATTRIBUTE = TEXT
MAYBE = st.none() | TEXT
COUNT = st.none() | st.integers(0, 1 << 50)
VOLUMES = st.builds(VolumeRef, disk=ATTRIBUTE, pool=ATTRIBUTE, name=ATTRIBUTE, size=st.integers(0, 1 << 60), reserve=COUNT,
                    planned=st.booleans(), given=st.booleans())
SCALINGS = st.builds(Scaling, ticket=ATTRIBUTE, at=ATTRIBUTE, open=st.booleans(), acting=st.lists(TEXT, max_size=2).map(tuple),
                     alerts=st.lists(TEXT, max_size=3).map(tuple))


@st.composite
def metadata(draw):
    meta = VmMetadata(
        phase=draw(st.sampled_from(_metadata.PHASES)), reason=draw(MAYBE), ticket=draw(MAYBE), claimed=draw(MAYBE), group=draw(MAYBE),
        namespace=draw(MAYBE), set=draw(MAYBE), index=draw(COUNT), image=draw(MAYBE), flavor=draw(MAYBE), key_name=draw(MAYBE),
        labels=draw(st.dictionaries(ATTRIBUTE, TEXT, max_size=3)),
        vcpus_request_milli=draw(COUNT), memory_request_mib=draw(COUNT),
        addresses=draw(st.lists(TEXT, max_size=3)), volumes=draw(st.lists(VOLUMES, max_size=3)),
        scaling=draw(st.none() | SCALINGS), hopeless=draw(st.lists(TEXT, max_size=2)))
    if draw(st.booleans()):
        meta.seed_instance_id, meta.seed_format = draw(ATTRIBUTE), draw(st.sampled_from(["nocloud", "config_drive"]))
        meta.seed_hash = draw(st.none() | st.from_regex("[0-9a-f]{64}", fullmatch=True))
    return meta


@given(metadata(), st.booleans())
def test_there_and_back(meta, namespaced):
    """Through the text of XML, with our namespace or without, nothing is lost."""
    text = ET.tostring(_metadata.to_element(meta, namespaced), encoding="unicode")
    assert (_metadata.NAMESPACE in text) is namespaced
    assert _metadata.from_element(ET.fromstring(text)) == meta


@given(metadata(), metadata())
def test_beside_what_others_keep(first, second):
    """Storing replaces ours and nothing else; it is found again; a domain without it is not ours."""
    domain = ET.fromstring("<domain><name>x</name><metadata><o:note xmlns:o='urn:other'>theirs</o:note></metadata></domain>")
    assert _metadata.find(domain) is None
    for meta in (first, second):
        _metadata.store(domain, meta)
        domain = ET.fromstring(ET.tostring(domain))
        assert _metadata.find(domain) == meta
        assert domain.findtext("metadata/{urn:other}note") == "theirs" and len(domain.findall("metadata/*")) == 2
    bare = ET.fromstring("<domain/>")
    _metadata.store(bare, first)
    assert _metadata.find(bare) == first


def test_what_newer_versions_wrote_is_passed_over():
    """And what is broken does not break the reading."""
    text = ("<vm xmlns='urn:kvmfleet:vm:1'><phase>ready</phase><future a='1'><x/></future><index>no</index><request vcpus_request_milli='x'/>"
            "<volume disk='root' pool='p' name='n' bytes='12' shade='green'/><label/></vm>")
    meta = _metadata.from_element(ET.fromstring(text))
    assert (meta.phase, meta.index, meta.vcpus_request_milli, meta.labels) == ("ready", None, None, {"": ""})
    assert meta.volumes == [VolumeRef("root", "p", "n", 12)] and meta.volume("root") is meta.volumes[0] and meta.volume("data") is None


@given(st.sampled_from(["--5", "\u00b2", "9" * 5000, "-7", "1e3", "", " "]) | st.text("0123456789-+ .\u0661e", max_size=30))
def test_a_number_that_is_none_makes_no_host_unreadable(text):
    """Nor do negative ones make room."""
    root = ET.Element("{urn:kvmfleet:vm:1}vm")
    ET.SubElement(root, "index").text = text
    ET.SubElement(root, "request", vcpus_request_milli=text, memory_request_mib=text)
    ET.SubElement(root, "volume", disk="root", pool="p", name="n", bytes=text, reserve=text)
    meta = _metadata.from_element(root)
    for number in (meta.index, meta.vcpus_request_milli, meta.memory_request_mib, meta.volumes[0].reserve, meta.volumes[0].size):
        assert number is None or number >= 0


@given(st.integers(0, 10 ** 8))
def test_ages(seconds):
    """Of our own timestamps; what cannot be read is infinitely old, so that its claim is stale."""
    now = datetime.datetime(2033, 5, 18, 3, 33, 20, tzinfo=datetime.timezone.utc)
    then = (now - datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert _metadata.age_seconds(then, now) == seconds
    assert -1 <= _metadata.age_seconds(_metadata.utc_now()) < 60
    for bad in ("", "yesterday", "2033-05-18", "2033-05-18T03:33:20+01:00"):
        assert _metadata.age_seconds(bad, now) == float("inf")


@given(st.integers(0, 1 << 50), COUNT)
def test_booked(size, reserve):
    """The reserve where there is one, even none at all."""
    assert VolumeRef("d", "p", "n", size, reserve).booked == (size if reserve is None else reserve)
