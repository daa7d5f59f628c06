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
        pinned = true;
        card.classList.add("pinned");
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
    var buttons = Array.from(button.parentNode.querySelectorAll("button:not(.dim)")), at = buttons.indexOf(button);
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

  // -- search ------------------------------------------------------------------------------------------------------------------------------

  var texts = null, blocks = [], cards = [];

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

  function find() {
    if (texts === null) { prepare(); }
    var words = query.value.toLowerCase().split(/\s+/).filter(Boolean), count = 0, on = {}, hits = {};
    function fits(text) { return words.every(function (word) { return text.includes(word); }); }
    texts.hosts.forEach(function (text, host) { if (fits(text)) { on[host] = true; } });
    texts.vms.forEach(function (text, number) {
      var hit = fits(text);
      if (hit) {
        count += 1;
        on[texts.host[number]] = true;
        hits[texts.host[number]] = true;
      }
      blocks[number].forEach(function (element) {
        if (element.tagName === "TR") { element.hidden = !hit; } else { element.classList.toggle("dim", !hit); }
      });
    });
    cards.forEach(function (element, host) {
      element.hidden = !on[host];
      var list = element.querySelector(".vms"), buttons = Array.from(element.querySelectorAll("button"));
      if (list) {
        list.hidden = words.length > 0 && !hits[host];
        list.open = words.length > 0 && Boolean(hits[host]) && count <= 50;
      }
      // One stop for the tab key, on a VM that is found
      buttons.forEach(function (button) { button.tabIndex = -1; });
      var first = buttons.find(function (button) { return !button.classList.contains("dim"); });
      if (first) { first.tabIndex = 0; }
    });
    document.querySelectorAll(".zone").forEach(function (zone) { zone.hidden = !zone.querySelector(".host:not([hidden])"); });
    var number = Object.keys(on).length;
    document.getElementById("nothing").hidden = number > 0;
    found.textContent = words.length ? count + (count === 1 ? " VM" : " VMs") + " on " + Object.keys(hits).length + (Object.keys(hits).length === 1 ? " host" : " hosts") : "";
    hide();
  }

  query.addEventListener("input", find);
  if (query.value) { find(); }
}());
