# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet page in a real browser: read, searched, walked through by keys, printed, and fed with what ought not to run."""
from __future__ import annotations

import re

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from ansible_collections.kvmfleet.core.plugins.plugin_utils._page_html import data_of
from ansible_collections.kvmfleet.core.tests.browser import axe
from ansible_collections.kvmfleet.core.tests.browser.page_fleets import example, host, info, page, vm

HOSTILE = ("</script><script>window.owned=1</script>", "\"><img src=x onerror=window.owned=1>", "' onfocus='window.owned=1", "{{ 7 * 7 }}{% raw %}",
           "\u2028window.owned=1\u2029", "<!--<script>", "javascript:window.owned=1", "</style><svg onload=window.owned=1>", "\u202egpj.exe", "&lt;b&gt;")


def one(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def shown(browser, selector):
    """Texts of the elements that are seen."""
    return browser.execute_script("""
        return Array.from(document.querySelectorAll(arguments[0])).filter(element => element.checkVisibility()).map(element => element.textContent.trim())
        """, selector)


def settle(browser):
    """Wait until what has been scrolled or drawn has had its events."""
    browser.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))")


def search(browser, text):
    field = one(browser, "#q")
    field.clear()
    field.send_keys(text)


def press(browser, *keys):
    ActionChains(browser).send_keys(*keys).perform()


def card(browser):
    """What the card of a VM says, None while there is none."""
    found = one(browser, "#card")
    if not found.is_displayed():
        return None
    terms, values = ([element.text for element in found.find_elements(By.CSS_SELECTOR, tag)] for tag in ("dt", "dd"))
    return dict(zip(terms, values), name=found.find_element(By.CSS_SELECTOR, "h5").text)


def colour(browser, selector="body"):
    return browser.execute_script("return getComputedStyle(document.querySelector(arguments[0])).backgroundColor", selector)


def overflow(browser):
    """By how much the page is wider than its window."""
    return browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_what_is_on_the_page(browser, pages):
    browser.get(pages["small"])
    assert browser.title == "Fleet" and one(browser, "time").get_attribute("datetime") == "2026-11-29T16:30:00Z"
    assert "2026-11-29 16:30:00 UTC" in one(browser, ".when").text
    assert shown(browser, "h3") == ["berlin / hall-a", "berlin / hall-b"] and shown(browser, "h4") == ["kvm1", "kvm2", "kvm3", "kvm4", "kvm5"]
    assert [text.split(" ", 1)[1] for text in shown(browser, ".chip")] == ["up", "up", "up", "unreachable", "no new VMs"]
    assert "No route to host" in one(browser, ".host.unreachable").text and "kvm4" in one(browser, ".warn").text
    assert [heading.text for heading in browser.find_elements(By.CSS_SELECTOR, ".flavors tbody th")] == ["small", "medium", "large", "huge"]
    assert "web-9, web-10" in one(browser, "[aria-labelledby=t-run]").text and "59.4 GiB of memory left" in one(browser, "[aria-labelledby=t-run]").text
    assert one(browser, ".big").text.startswith("4") and "18 running, 3 stopped, 1 building, 1 failed, 1 paused" in one(browser, ".sum").text
    # Blocks are as wide as what is counted for their VMs, and bars as long as what is given out
    bars = browser.execute_script("""
        return Array.from(document.querySelectorAll("[data-h='0'] .bar")).map(bar => Array.from(bar.children).map(
            block => [block.className.split(" ")[1], block.dataset.v || null, block.getBoundingClientRect().width / bar.getBoundingClientRect().width]))""")
    vms = data_of(page(**example()))["vms"]
    vcpus = {vms[int(number)]["name"]: width for _kind, number, width in bars[0] if number}
    assert vcpus["db-1"] == pytest.approx(16 / 64, abs=0.01) and vcpus["web-1"] == pytest.approx(2 / 64, abs=0.01)
    assert [kind for kind, _number, _width in bars[0]] == ["run"] * 5 + ["stop", "kept"]
    assert bars[0][-1][2] == pytest.approx(4 / 64, abs=0.01), "reserved, times the ratio"
    assert [kind for kind, number, _width in bars[2] if not number] == ["rest"], "images in the pool"


@pytest.mark.parametrize("name", ["small", "troubled"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(browser, pages, axe_script, width, scheme, name):
    # As high as the page is: what is not drawn cannot be judged
    browser.size(width, 6000)
    browser.media(scheme)
    browser.get(pages[name])
    settle(browser)
    browser.execute_script("document.querySelectorAll('details').forEach(list => { list.open = list.closest('[data-h]')?.dataset.h !== '0'; })")
    settle(browser)
    found = axe.check(browser, axe_script)
    assert axe.told(found["violations"]) == []
    # What is text is judged; open are the signs beside "up", which are no text, names in patterned blocks (their contrast is reckoned in
    # test_fleet_page.py of the unit tests), and what has to be scrolled to within a table that is wider than a phone
    assert len(found["passes"]["color-contrast"]) > 100
    unsure = browser.execute_script("""
        const wide = element => Array.from(document.querySelectorAll(".scroll")).some(area => area.contains(element) && area.scrollWidth > area.clientWidth);
        return arguments[0].filter(target => !wide(document.querySelector(target)) && !document.querySelector(target).matches(".b, .chip > span"));
        """, [node["target"][0] for node in found["incomplete"].get("color-contrast", [])])
    assert unsure == []
    browser.execute_script("document.querySelector('button.b').focus()")
    press(browser, Keys.ENTER)
    assert card(browser)
    assert axe.told(axe.check(browser, axe_script)["violations"]) == [], "with the card of a VM"
    assert overflow(browser) == 0


def test_without_axe_the_check_fails_and_says_why(tmp_path, monkeypatch):
    with pytest.raises(axe.AxeMissing, match=r"npm could not fetch file:.*no-such-package .* for the check of accessibility .*ENOENT"):
        axe.fetch(tmp_path, "file:" + str(tmp_path / "kvmfleet-no-such-package"))
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "npm"
    fake.write_text("#!/bin/sh\necho other > axe.tgz\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(axe.AxeMissing, match="npm is not there"):
        axe.fetch(tmp_path)
    fake.chmod(0o755)
    fake.write_text("#!/bin/sh\nfor last in \"$@\"; do :; done\nwhile [ $# -gt 0 ]; do [ $1 = --pack-destination ] && to=$2; shift; done\n"
                    "echo \"$last\" > \"$to/x.tgz\"\n")
    with pytest.raises(axe.AxeMissing, match="has another hash"):
        axe.fetch(tmp_path)
    assert not list(tmp_path.glob("*.tgz"))


def test_a_search_leaves_what_is_looked_for(browser, pages):
    browser.get(pages["large"])
    vms = data_of(browser.page_source)["vms"]
    press(browser, "/")
    assert browser.switch_to.active_element.get_attribute("id") == "q"
    press(browser, "group:shop state:stopped WEB")
    wanted = [one for one in vms if one.get("group") == "shop" and one["state"] == "stopped" and "web" in one["name"]]
    assert one(browser, "#found").text == "{0} VMs on {1} hosts".format(len(wanted), len({found["host"] for found in wanted}))
    assert set(shown(browser, "h4")) == {found["host"] for found in wanted}
    bright = browser.execute_script("return Array.from(document.querySelectorAll('.host:not([hidden]) button:not(.dim)')).map(b => b.textContent)")
    assert sorted(bright) == sorted(found["name"] for found in wanted)
    assert sorted(text.split()[0] for text in shown(browser, ".vms tbody th")) == sorted(bright), "their lists are open"
    search(browser, "kvm41")
    assert shown(browser, "h4") == ["kvm41"] and one(browser, "#found").text == "No VM, 1 host"
    search(browser, "no-such-thing")
    assert shown(browser, "h4") == [] and one(browser, "#nothing").is_displayed() and one(browser, "#found").text == "Nothing"
    one(browser, "#q").send_keys(Keys.ESCAPE)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".host:not([hidden])")) == 100 and not browser.find_elements(By.CSS_SELECTOR, ".dim")


def test_a_search_keeps_the_lists_that_the_reader_has_opened(browser, pages):
    def open_lists():
        return browser.execute_script("return Array.from(document.querySelectorAll('.vms[open]')).map(list => list.closest('.host').dataset.h)")
    browser.get(pages["large"])
    browser.execute_script("document.querySelectorAll('.vms')[7].open = true")
    (mine,) = open_lists()
    search(browser, "state:running")
    running = [vm for vm in data_of(browser.page_source)["vms"] if vm["state"] == "running"]
    listed = re.fullmatch("{0:,} VMs on {1} hosts; ([0-9]+) of them are listed".format(len(running), len({vm["host"] for vm in running})), one(
        browser, "#found").text)
    assert listed and 0 < int(listed.group(1)) <= 50 <= len(running), "some lists are open, not all of them"
    assert mine in open_lists() and 1 < len(open_lists()) < 5
    search(browser, "kvm41")
    one(browser, "#q").send_keys(Keys.ESCAPE)
    assert open_lists() == [mine]


def test_only_what_needs_attention(browser, pages):
    browser.get(pages["large"])
    wanted = browser.execute_script("return document.querySelectorAll('.host.look').length")
    assert 2 < wanted < 60 and one(browser, ".only").text.endswith(str(wanted))
    one(browser, "#only").click()
    found = shown(browser, "h4")
    assert len(found) == wanted and {"kvm41", "kvm42"} < set(found) and one(browser, "#found").text == "{0} hosts".format(wanted)
    assert all(browser.execute_script("""return Array.from(document.querySelectorAll(".host:not([hidden])")).map(
        host => Boolean(host.querySelector(".flags, .why")))"""))
    search(browser, "state:failed")
    failed = [vm for vm in data_of(browser.page_source)["vms"] if vm["state"] == "failed"]
    assert one(browser, "#found").text.startswith("{0} VMs on ".format(len(failed))) and set(shown(browser, "h4")) == {vm["host"] for vm in failed}
    one(browser, "#only").click()
    one(browser, "#q").send_keys(Keys.ESCAPE)
    assert len(shown(browser, "h4")) == 100
    one(browser, "#sort option[value=full]").click()
    for grid in browser.execute_script("return Array.from(document.querySelectorAll('.grid')).map(grid => Array.from(grid.children).map(h => +h.dataset.f))"):
        assert grid == sorted(grid, reverse=True)
    one(browser, "#sort option[value=name]").click()
    numbers = browser.execute_script("return Array.from(document.querySelectorAll('.grid')).map(grid => Array.from(grid.children).map(h => +h.dataset.h))")
    assert all(grid == sorted(grid) for grid in numbers)


def test_what_is_wrong_is_named_and_leads_there(browser, pages):
    browser.get(pages["troubled"])
    panel = one(browser, ".warn")
    told = {item.find_element(By.CSS_SELECTOR, "b").text: [link.text for link in item.find_elements(By.CSS_SELECTOR, "a")]
            for item in panel.find_elements(By.CSS_SELECTOR, "li")}
    assert told == {"1 VM failed": ["tiny-120 on kvm1"], "1 VM crashed": ["mail on kvm3"], "1 VM paused": ["db-1 on kvm2"],
                    "Over-booked": ["kvm2: vCPUs 143 %, Memory 269 %"], "Pools with nothing left to give out": ["kvm2: Pool default 164 %"],
                    "Pools almost full of what is written": ["kvm4: Pool default"]}
    search(browser, "nothing-like-that")
    panel.find_element(By.LINK_TEXT, "db-1 on kvm2").click()
    settle(browser)
    assert card(browser)["name"] == "db-1" and one(browser, "#card.pinned") and browser.switch_to.active_element.text == "db-1"
    assert one(browser, "[data-h='1']").rect["y"] < browser.execute_script("return scrollY + innerHeight") and one(browser, "#q").get_attribute("value") == ""
    press(browser, Keys.ESCAPE)
    looks = {kind: browser.execute_script("return getComputedStyle(document.querySelector(arguments[0])).backgroundImage", "[data-h='1'] .b." + kind)
             for kind in ("run", "hold", "stop")}
    assert len(set(looks.values())) == 3, "paused looks like nothing else"
    # The zones lead to theirs, with totals of the regions
    rows = [row.text.split()[0] for row in browser.find_elements(By.CSS_SELECTOR, ".zones tbody tr")]
    assert rows == ["berlin", "a", "munich", "a", "b"]
    browser.find_elements(By.CSS_SELECTOR, ".zones a")[2].click()
    settle(browser)
    assert browser.switch_to.active_element.text == "munich / b" or browser.current_url.endswith("#z-3")
    # Over-booked is orange in the small bars as well
    orange = browser.execute_script("return getComputedStyle(document.querySelector('.flags li')).color")
    assert colour(browser, ".zones .over .excess") == orange != colour(browser, ".b.run")


def test_300_small_vms_are_as_wide_as_what_is_booked(browser, pages):
    for width in (1280, 390):
        browser.size(width, 900)
        browser.get(pages["troubled"])
        drawing = one(browser, "[data-h='0'] .bar")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", drawing)
        settle(browser)
        drawn = browser.execute_script("""
            const bar = arguments[0], box = bar.getBoundingClientRect(), buttons = Array.from(bar.querySelectorAll("button"));
            const boxes = buttons.map(button => button.getBoundingClientRect());
            return {whole: box.width, vms: boxes.reduce((sum, each) => sum + each.width, 0), end: Math.max(...boxes.map(each => each.right)) - box.left,
                    count: buttons.length, kept: bar.querySelector(".kept").getBoundingClientRect().width,
                    pointed: new Set(Array.from({length: 2000}, (_none, at) => document.elementFromPoint(box.left + box.width * at / 2000, box.top + 9)).map(
                        element => element.dataset.v).filter(Boolean)).size}""", drawing)
        assert drawn["count"] == 300 and drawn["vms"] / drawn["whole"] == pytest.approx(300 / 512, abs=0.005)
        assert drawn["end"] / drawn["whole"] == pytest.approx(300 / 512, abs=0.005), "none is pushed out"
        assert drawn["kept"] / drawn["whole"] == pytest.approx(8 / 512, abs=0.005)
        assert drawn["pointed"] > drawn["vms"] / 2, "those that a pixel is there for can be pointed at"
    press(browser, "/", "state:failed", Keys.TAB, Keys.TAB, Keys.TAB)
    assert card(browser)["name"] == "tiny-120", "a failed one among the others, as they are drawn"


def test_colours_that_the_system_chooses(browser, pages):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [{"name": "forced-colors", "value": "active"}]})
    browser.get(pages["small"])
    canvas = colour(browser)
    for selector in (".use i", ".legend .line", ".theme input:checked + span", ".b.run", ".host .bar"):
        assert colour(browser, selector) not in (canvas, "rgba(0, 0, 0, 0)"), selector
    assert browser.execute_script("return getComputedStyle(document.querySelector('.host .bar')).borderTopWidth") == "1px"


def test_everything_can_be_reached_by_keys(browser, pages):
    browser.get(pages["small"])
    press(browser, Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the hosts"
    press(browser, Keys.ENTER, Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "q"
    press(browser, Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "only"
    press(browser, Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "sort"
    press(browser, Keys.TAB)
    first = browser.switch_to.active_element
    assert (first.tag_name, card(browser)["name"], card(browser)["Host"]) == ("button", "build-1", "kvm1")
    assert first.get_attribute("aria-describedby") == "card"
    press(browser, Keys.ARROW_RIGHT)
    assert card(browser)["name"] == "cache-1"
    press(browser, Keys.END)
    assert card(browser) == dict(card(browser), name="old-web", State="stopped", Size="2 vCPUs, 4 GiB", Disk="40 GiB in default")
    press(browser, Keys.ENTER)
    assert one(browser, "#card.pinned")
    press(browser, Keys.ESCAPE)
    assert card(browser) is None
    press(browser, Keys.HOME, Keys.TAB)
    assert browser.switch_to.active_element.tag_name == "summary", "one stop for all VMs of a host, then their list"
    press(browser, Keys.SPACE)
    assert [text.split()[0] for text in shown(browser, ".vms tbody th")][:3] == ["build-1", "cache-1", "db-1"]
    assert card(browser) is None


def test_a_block_tells_of_its_vm_when_pointed_at(browser, pages):
    browser.get(pages["small"])
    block = one(browser, "[data-h='0'] .res:nth-of-type(3) i[data-v]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", block)
    settle(browser)
    ActionChains(browser).move_to_element(block).perform()
    told = card(browser)
    assert told["name"] == "build-1" and told["Flavor"] == "large" and told["Addresses"].startswith("10.20.")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".b.on")) == 3, "in each bar of its host"
    ActionChains(browser).move_to_element(one(browser, "#card h5")).perform()
    assert card(browser), "one may go there and read on"
    ActionChains(browser).move_to_element(one(browser, "h4")).perform()
    assert card(browser) is None
    block.click()
    ActionChains(browser).move_to_element(one(browser, "h4")).perform()
    assert card(browser) and one(browser, "#card.pinned")
    one(browser, "h4").click()
    assert card(browser) is None


def test_light_and_dark(browser, pages):
    browser.get(pages["small"])
    light = colour(browser)
    browser.media("dark")
    dark = colour(browser)
    assert light != dark
    one(browser, "input[value=light]").send_keys(Keys.SPACE)
    assert colour(browser) == light
    browser.refresh()
    assert colour(browser) == light and one(browser, "input[value=light]").is_selected(), "it is kept"
    one(browser, "input[value=dark]").send_keys(Keys.SPACE)
    browser.media("light")
    assert colour(browser) == dark
    browser.media("light", "print")
    assert colour(browser, ".host") == "rgb(255, 255, 255)", "paper is white"
    browser.media("light")
    one(browser, "input[value=auto]").send_keys(Keys.SPACE)
    assert colour(browser) == light


def test_on_paper(browser, pages):
    browser.get(pages["small"])
    browser.media("dark", "print")
    assert not one(browser, "#q").is_displayed() and not one(browser, ".theme").is_displayed() and one(browser, ".legend").is_displayed()
    assert browser.execute_script("return getComputedStyle(document.querySelector('.b.run')).printColorAdjust") == "exact"
    browser.media("light")
    made = browser.pdf()
    assert made.startswith(b"%PDF-") and made.count(b"/Type /Page\n") in (2, 3)
    # Lists are open on paper and on it only
    browser.execute_script("window.seen = []; addEventListener('beforeprint', () => seen.push(document.querySelectorAll('details:not([open])').length))")
    browser.pdf()
    assert browser.execute_script("return seen") == [0] and shown(browser, ".vms tbody th") == []
    browser.get(pages["large"])
    made = browser.pdf()
    assert 10 < made.count(b"/Type /Page\n") < 27, "3,000 VMs by name on fewer sheets than it was without them"


def test_without_colours_states_can_be_told_apart(browser, pages):
    browser.get(pages["small"])
    looks = browser.execute_script("""
        const shape = text => text.replace(/(rgba?|color)\\([^)]*\\)/g, "a colour");
        return Array.from(document.querySelectorAll(".legend li > .b, .legend .excess")).map(block => getComputedStyle(block)).map(
            style => [shape(style.backgroundImage), shape(style.boxShadow), style.height].join(" "))""")
    assert len(set(looks)) == len(looks) == 12


def test_hostile_texts_are_texts(browser, tmp_path):
    vms = [vm("vm-{0}{1}".format(number, text), group=text, image=text, flavor_name=text, labels={text: text}, addresses=[text], networks=[text])
           for number, text in enumerate(HOSTILE)]
    for number, text in enumerate(HOSTILE):
        vms[number].update(uuid=text + str(number), flavor=text)
    name = "kvm" + HOSTILE[0]
    told = info([dict(one, uuid="0" * 32) for one in vms])
    for number, found in enumerate(told["vms"]):
        found.update(uuid=vms[number]["uuid"], description=HOSTILE[number], state="running")
    results = {name: host(vms, pools=(("default", 2048), (HOSTILE[1], 10))), "kvm2" + HOSTILE[7]: {"unreachable": True, "msg": " ".join(HOSTILE)}}
    run = {"verb": HOSTILE[0], "msg": HOSTILE[7], "time": HOSTILE[1], "failed": True, "placement": {"vms": [{"name": HOSTILE[2], "refused": [
        {"host": HOSTILE[1], "code": HOSTILE[7], "reason": HOSTILE[0]}]}]}}
    catalogs = {"kvmfleet_flavors": {HOSTILE[0]: {"vcpus": 1, "memory": "1GiB", "disk": "1GiB", "description": HOSTILE[1]}}}
    text = page(results, {name: {"kvm_zone": HOSTILE[7], "kvm_region": HOSTILE[0]}}, {name: told}, title=HOSTILE[0], last_run=run, catalogs=catalogs)
    (tmp_path / "hostile.html").write_text(text, encoding="utf-8")
    browser.get((tmp_path / "hostile.html").as_uri())
    assert browser.title == HOSTILE[0] and one(browser, "h1").text == HOSTILE[0]
    assert len(browser.find_elements(By.CSS_SELECTOR, "script")) == 2 and not browser.find_elements(By.CSS_SELECTOR, "img, svg, [onfocus], [onerror]")
    search(browser, "{{ 7 * 7 }}{% raw %}")
    assert one(browser, "#found").text == "1 VM on 1 host, 1 more host"
    browser.execute_script("document.querySelector('button.b:not(.dim)').focus()")
    press(browser, Keys.ENTER)
    assert card(browser)["name"] == "vm-3" + HOSTILE[3] and card(browser)["Description"] == HOSTILE[3]
    search(browser, "")
    for block in browser.find_elements(By.CSS_SELECTOR, "button.b"):
        browser.execute_script("arguments[0].click()", block)
        assert card(browser)["name"].startswith("vm-")
    assert browser.execute_script("return typeof window.owned") == "undefined"
    # The policy holds even for what would get into the page some other way
    browser.execute_script("const s = document.createElement('script'); s.textContent = 'window.owned = 1'; document.body.append(s)")
    assert browser.execute_script("return typeof window.owned") == "undefined"
    refused = [entry["message"] for entry in browser.get_log("browser")]
    assert len(refused) == 1 and "Content Security Policy" in refused[0]
