(function () {
  "use strict";
  var root = document.documentElement, data = JSON.parse(document.getElementById("data").textContent);
  var card = document.getElementById("card"), query = document.getElementById("q"), found = document.getElementById("found");
  var LABELS = [["state", "State"], ["host", "Host"], ["size", "Size"], ["disk", "Disk"], ["counted", "Counted as"], ["addresses", "Addresses"],
    ["networks", "Networks"], ["image", "Image"], ["flavor", "Flavor"], ["group", "Group"], ["namespace", "Namespace"], ["set", "Set"], ["labels", "Labels"],
    ["description", "Description"], ["uuid", "UUID"]];
  root.classList.add("scripted");

  // -- colours ---------------------------------------------------------------------------------------------------------------------------

  function store(value) {
    try {
      if (value === undefined) { return localStorage.getItem("kvmfleet-theme"); }
      localStorage.setItem("kvmfleet-theme", value);
    } catch (error) {
      // Some browsers keep nothing for a page from a file
    }
    return value;
  }

  function paint(theme) {
    if (theme === "light" || theme === "dark") {
      root.dataset.theme = theme;
    } else {
      delete root.dataset.theme;
    }
  }

  document.querySelectorAll("input[name=theme]").forEach(function (input) {
    if (input.value === store()) { input.checked = true; }
    input.addEventListener("change", function () { paint(store(input.value)); });
  });
  paint(store());

  // -- the card of a VM --------------------------------------------------------------------------------------------------------------------

  var shown = null, pinned = false;

  function elements(number) {
    return document.querySelectorAll('[data-v="' + number + '"]');
  }

  function fill(vm) {
    var title = document.createElement("h5"), list = document.createElement("dl");
    title.textContent = vm.name;
    LABELS.forEach(function (label) {
      var value = vm[label[0]];
      if (value === undefined) { return; }
      var term = document.createElement("dt"), said = document.createElement("dd");
      term.textContent = label[1];
      said.textContent = Array.isArray(value) ? value.join(", ") : value;
      list.append(term, said);
    });
    if (vm.managed === false) {
      var note = document.createElement("p");
      note.textContent = "Not made by this collection";
      card.replaceChildren(title, note, list);
    } else {
      card.replaceChildren(title, list);
    }
  }

  function place(target) {
    var box = target.getBoundingClientRect(), gap = 8;
    var width = card.offsetWidth, height = card.offsetHeight;
    var left = Math.min(Math.max(gap, box.left + box.width / 2 - width / 2), root.clientWidth - width - gap);
    var top = box.bottom + gap;
    if (top + height > root.clientHeight - gap) { top = Math.max(gap, box.top - height - gap); }
    card.style.left = left + "px";
    card.style.top = top + "px";
  }

  function hide() {
    if (shown === null) { return; }
    elements(shown).forEach(function (element) {
      element.classList.remove("on");
      element.removeAttribute("aria-describedby");
    });
    card.hidden = true;
    card.classList.remove("pinned");
    shown = null;
    pinned = false;
  }

  function show(target) {
    var number = target.dataset.v;
    if (shown !== number) {
      hide();
      shown = number;
      fill(data.vms[number]);
      elements(number).forEach(function (element) { element.classList.add("on"); });
    }
    if (target.tagName === "BUTTON") { target.setAttribute("aria-describedby", "card"); }
    card.hidden = false;
    place(target);
  }

  function pin() {
    pinned = true;
    card.classList.add("pinned");
  }

  function vmOf(event) {
    return event.target instanceof Element ? event.target.closest(".b[data-v], .vms tr[data-v]") : null;
  }

  document.addEventListener("pointerover", function (event) {
    var target = vmOf(event);
    if (pinned || event.pointerType === "touch") { return; }
    if (target) { show(target); } else if (!card.contains(event.target)) { hide(); }
  });
  document.addEventListener("click", function (event) {
    var target = vmOf(event);
    if (target) {
      var again = pinned && shown === target.dataset.v;
      hide();
      if (!again) {
        show(target);
        pin();
      }
    } else if (!card.contains(event.target)) {
      hide();
    }
  });
  document.addEventListener("focusin", function (event) {
    var target = vmOf(event);
    if (target && target.tagName === "BUTTON" && target.matches(":focus-visible")) {
      hide();
      show(target);
    } else if (!target && !card.contains(event.target)) {
      hide();
    }
  });
  window.addEventListener("scroll", function () {
    if (!pinned && shown !== null && !(document.activeElement && document.activeElement.dataset.v === shown)) { hide(); }
  }, {passive: true});
  window.addEventListener("resize", hide);

  // -- keys --------------------------------------------------------------------------------------------------------------------------------

  function step(button, key) {
    var buttons = Array.from(button.closest(".bar").querySelectorAll("button:not(.dim)")), at = buttons.indexOf(button);
    var to = {ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1}[key];
    if (to === undefined || !buttons[to]) { return to !== undefined; }
    button.tabIndex = -1;
    buttons[to].tabIndex = 0;
    buttons[to].focus();
    return true;
  }

  document.addEventListener("keydown", function (event) {
    var target = event.target;
    if (event.key === "Escape") {
      if (shown !== null) { hide(); } else if (query.value) { query.value = ""; find(); }
    } else if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && target !== query) {
      event.preventDefault();
      query.focus();
    } else if (target.tagName === "BUTTON" && target.dataset.v && step(target, event.key)) {
      event.preventDefault();
    }
  });

  // -- search, filter, order ----------------------------------------------------------------------------------------------------------------

  var texts = null, blocks = [], cards = [], opened = null, MOST_LISTED = 50;
  var only = document.getElementById("only"), sort = document.getElementById("sort");

  function textOf(thing, more) {
    var words = [];
    Object.keys(thing).forEach(function (key) {
      [].concat(thing[key]).forEach(function (value) {
        if (typeof value !== "object") { words.push(key + ":" + value); }
      });
    });
    return (words.join("\n") + "\n" + more).toLowerCase();
  }

  function prepare() {
    var hosts = Object.create(null);
    texts = {hosts: data.hosts.map(function (host) { return textOf(host, "host:" + host.name); })};
    data.hosts.forEach(function (host, number) { hosts[host.name] = number; });
    texts.vms = data.vms.map(function (vm) {
      var host = data.hosts[hosts[vm.host]];
      return textOf(vm, "region:" + host.region + "\nzone:" + host.zone + (vm.managed === false ? "" : "\nmanaged:true"));
    });
    texts.host = data.vms.map(function (vm) { return hosts[vm.host]; });
    data.vms.forEach(function () { blocks.push([]); });
    document.querySelectorAll("[data-v]").forEach(function (element) { blocks[element.dataset.v].push(element); });
    document.querySelectorAll("[data-h]").forEach(function (element) { cards[element.dataset.h] = element; });
  }

  function count(number, word) {
    return number.toLocaleString("en") + " " + word + (number === 1 ? "" : "s");
  }

  // What the reader has opened is open again once the search is over
  function keepLists(searching) {
    var lists = Array.from(document.querySelectorAll(".vms"));
    if (searching && opened === null) {
      opened = lists.filter(function (list) { return list.open; });
    } else if (!searching && opened !== null) {
      lists.forEach(function (list) { list.open = opened.includes(list); });
      opened = null;
    }
  }

  function find() {
    if (texts === null) { prepare(); }
    var words = query.value.toLowerCase().split(/\s+/).filter(Boolean), vms = 0, hosts = 0, shownHosts = 0, listed = 0, enough = false, on = {}, hits = {};
    function fits(text) { return words.every(function (word) { return text.includes(word); }); }
    function looked(host) { return !only || !only.checked || cards[host].classList.contains("look"); }
    keepLists(words.length > 0);
    texts.hosts.forEach(function (text, host) { if (fits(text)) { on[host] = true; } });
    texts.vms.forEach(function (text, number) {
      var hit = fits(text), host = texts.host[number];
      if (hit) {
        on[host] = true;
        hits[host] = (hits[host] || 0) + 1;
        if (looked(host)) { vms += 1; }
      }
      blocks[number].forEach(function (element) {
        if (element.tagName === "TR") { element.hidden = !hit; } else { element.classList.toggle("dim", !hit); }
      });
    });
    cards.forEach(function (element, host) {
      element.hidden = !on[host] || !looked(host);
      var list = element.querySelector(".vms"), buttons = Array.from(element.querySelectorAll("button"));
      if (!element.hidden) {
        shownHosts += 1;
        if (hits[host]) { hosts += 1; }
      }
      if (list) {
        list.hidden = words.length > 0 && !hits[host];
        if (words.length) {
          // The first of them, as many as one can read; the others stay as they are
          var counts = !element.hidden && hits[host] > 0;
          enough = enough || (counts && listed > 0 && listed + hits[host] > MOST_LISTED);
          if (counts && !enough) { listed += hits[host]; }
          list.open = (counts && !enough) || opened.includes(list);
        }
      }
      // One stop for the tab key, on a VM that is found
      buttons.forEach(function (button) { button.tabIndex = -1; });
      var first = buttons.find(function (button) { return !button.classList.contains("dim"); });
      if (first) { first.tabIndex = 0; }
    });
    document.querySelectorAll(".zone").forEach(function (zone) { zone.hidden = !zone.querySelector(".host:not([hidden])"); });
    document.getElementById("nothing").hidden = shownHosts > 0;
    if (words.length) {
      found.textContent = !shownHosts ? "Nothing" : !vms ? "No VM, " + count(shownHosts, "host") : count(vms, "VM") + " on " + count(hosts, "host")
        + (shownHosts > hosts ? ", " + count(shownHosts - hosts, "more host") : "") + (listed < vms ? "; " + listed + " of them are listed" : "");
    } else {
      found.textContent = only && only.checked ? count(shownHosts, "host") : "";
    }
    hide();
  }

  function order() {
    var full = sort.value === "full";
    document.querySelectorAll(".grid").forEach(function (grid) {
      var key = full ? function (card) { return -card.dataset.f; } : function (card) { return Number(card.dataset.h); };
      grid.append.apply(grid, Array.from(grid.children).sort(function (one, other) { return key(one) - key(other) || one.dataset.h - other.dataset.h; }));
    });
    hide();
  }

  query.addEventListener("input", find);
  if (query.value) { find(); }
  if (only) {
    only.addEventListener("change", find);
    if (only.checked) { find(); }
  }
  if (sort) {
    sort.addEventListener("change", order);
    if (sort.value !== "name") { order(); }
  }

  // -- links to hosts and VMs ---------------------------------------------------------------------------------------------------------------

  document.addEventListener("click", function (event) {
    var link = event.target instanceof Element ? event.target.closest("a[href^='#h-'], a[href^='#z-']") : null;
    if (!link) { return; }
    var target = document.getElementById(link.hash.slice(1));
    if (target.closest("[hidden]")) {
      // What is looked for may be filtered out
      query.value = "";
      if (only) { only.checked = false; }
      find();
    }
    if (link.dataset.go === undefined) { return; }
    event.preventDefault();
    target.scrollIntoView({block: "start"});
    var block = target.closest(".host").querySelector('button[data-v="' + link.dataset.go + '"]');
    block.focus();
    hide();
    show(block);
    pin();
  });

  // -- paper --------------------------------------------------------------------------------------------------------------------------------

  var unfolded = [];
  window.addEventListener("beforeprint", function () {
    unfolded = Array.from(document.querySelectorAll("details:not([open])"));
    unfolded.forEach(function (list) { list.open = true; });
  });
  window.addEventListener("afterprint", function () {
    unfolded.forEach(function (list) { list.open = false; });
    unfolded = [];
  });
}());
