/* The feature atlas. Plain script, no server: shards are scripts that call featlibAtlas(). All text
   of the corpora goes in as text nodes, never as HTML. */
"use strict";
(() => {
  const root = document.getElementById("fl-atlas");
  if (!root) return;
  const base = document.currentScript.src.replace(/atlas\.js.*$/, "atlas/");
  const page = 80; // rows added to the list at a time

  /* --- shards --------------------------------------------------------------------------------- */

  const shards = new Map(); // name -> {promise, resolve}
  function expect(name) {
    if (!shards.has(name)) {
      const entry = {};
      entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
      shards.set(name, entry);
    }
    return shards.get(name);
  }
  window.featlibAtlas = (name, data) => expect(name).resolve(data);

  function load(name) {
    const known = shards.has(name);
    const entry = expect(name);
    if (!known) {
      const script = document.createElement("script");
      script.src = `${base}${name}.js`;
      script.onerror = () => entry.reject(new Error(`${name}.js is not there`));
      document.head.append(script);
    }
    return entry.promise;
  }

  /* --- small helpers -------------------------------------------------------------------------- */

  /* make("p.note", {title: "x"}, "text", node, ...) */
  function make(what, attributes, ...children) {
    const [tag, ...classes] = what.split(".");
    const node = document.createElement(tag);
    if (classes.length) node.className = classes.join(" ");
    for (const [key, value] of Object.entries(attributes ?? {})) {
      if (value === false || value == null) continue;
      if (key.startsWith("--")) node.style.setProperty(key, value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child != null && child !== ""));
    return node;
  }
  const svgNode = (tag, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const count = (n) => n.toLocaleString("en");
  const percent = (share) =>
    share === 0 ? "0 %" : `${(100 * share).toPrecision(share < 0.001 ? 1 : 2)} %`;
  const corr = (thousandths) => (thousandths / 1000).toFixed(2);

  let index = null; // models, vocabulary, domains, labels
  let ids = null; // the common stream
  const lists = {}; // by model, what the list needs
  const print = (model) => index.models.find((m) => m.name === model).print;
  const address = (model, feature) => `#${model}/${feature}`;

  const marks = { " ": "·", "\t": "⇥", "\n": "↵", "\r": "␍" };
  const hidden = /[\p{C}\p{Z}]/u; // controls, direction overrides, odd spaces
  function visible(token) {
    const out = [];
    for (const character of token) {
      const mark = marks[character];
      if (mark) {
        out.push(make("span.fl-ws", null, mark));
        if (character === "\n") out.push(document.createElement("br"));
      } else if (hidden.test(character)) {
        const code = character.codePointAt(0).toString(16).padStart(4, "0");
        out.push(make("span.fl-escape", null, `\\u${code}`));
      } else if (typeof out.at(-1) === "string") out.push(out.pop() + character);
      else out.push(character);
    }
    return out.length ? out : [make("span.fl-ws", null, "∅")];
  }
  const token = (id) => index.vocabulary[id] ?? `<${id}>`;
  const inline = (id) => make("code.at-token", null, visible(token(id)).filter((n) => n.nodeName !== "BR"));

  /* --- the list ------------------------------------------------------------------------------- */

  const state = { model: "base", query: "", fate: "", density: "", sort: "index", hits: [], shown: 0 };
  const parts = {};

  const fateNames = { p: "persists", d: "disappears", e: "emerges", u: "untestable" };
  function stepText(model, step, letter) {
    const [parent, child] = step.split(">");
    if (letter === "p") return model === parent ? `persists in ${print(child)}` : `persists from ${print(parent)}`;
    if (letter === "d") return `disappears in ${print(child)}`;
    if (letter === "e") return `emerges, seen from ${print(parent)}`;
    return `untestable, ${print(parent)} to ${print(child)}`;
  }

  const densities = {
    common: ["fires on over 1 %", (d) => d > 0.01],
    middle: ["on 0.1 to 1 %", (d) => d <= 0.01 && d > 0.001],
    rare: ["on under 0.1 %", (d) => d <= 0.001 && d > 0],
    silent: ["never fires", (d) => d === 0],
  };
  const orders = {
    index: ["number", null],
    firings: ["fires most often", (l, i) => l.firings[i]],
    rare: ["fires least often", (l, i) => -(l.firings[i] || Infinity)],
    peak: ["strongest activation", (l, i) => l.peak[i]],
    match: ["best match in another model", (l, i) => Math.max(...Object.values(l.match).map((r) => r[i]))],
    alone: ["no match in other models", (l, i) => l.firings[i] === 0 ? -2e3 : -Math.max(...Object.values(l.match).map((r) => r[i]))],
    twin: ["found again by a second autoencoder", (l, i) => l.twin[i]],
    label: ["fits a label", (l, i) => l.labels[i][0]?.[1] ?? 0],
  };

  function search() {
    const list = lists[state.model];
    const words = state.query.trim().toLowerCase();
    let wanted = list.firings.map((_, feature) => ({ feature, why: "" }));
    if (/^\d+$/.test(words) && Number(words) < list.firings.length) {
      const exact = Number(words);
      const others = wanted.filter((hit) => hit.feature !== exact && byWords(list, words, hit));
      wanted = [{ feature: exact, why: "this number" }, ...others];
    } else if (words) wanted = wanted.filter((hit) => byWords(list, words, hit));
    if (state.fate) {
      const [step, letter] = state.fate.split("/");
      wanted = wanted.filter((hit) => list.fates[step]?.[hit.feature] === letter);
    }
    if (state.density) {
      const inside = densities[state.density][1];
      wanted = wanted.filter((hit) => inside(list.firings[hit.feature] / index.tokens));
    }
    const key = orders[state.sort][1];
    if (key) {
      const value = new Map(wanted.map((hit) => [hit, key(list, hit.feature)]));
      wanted.sort((a, b) => value.get(b) - value.get(a) || a.feature - b.feature);
    } else if (words) wanted.sort((a, b) => a.rank - b.rank || a.feature - b.feature);
    return wanted;
  }

  let wordCache = { words: null, ids: null, labels: null };
  function byWords(list, words, hit) {
    if (wordCache.words !== words) {
      const matching = new Map();
      index.vocabulary.forEach((text, id) => {
        const plain = text.toLowerCase();
        if (plain.includes(words)) matching.set(id, plain.trim() === words ? 0 : 1);
      });
      const labels = new Set();
      index.labels.forEach((name, n) => name.replaceAll("_", " ").toLowerCase().includes(words.replaceAll("_", " ")) && labels.add(n));
      wordCache = { words, ids: matching, labels };
    }
    const feature = hit.feature;
    const best = (tokens) => Math.min(...tokens.map((id, n) => (wordCache.ids.has(id) ? 10 * wordCache.ids.get(id) + n : 99)));
    const on = best(list.on[feature]);
    const up = best(list.up[feature]);
    const label = list.labels[feature].find(([n]) => wordCache.labels.has(n));
    const said = list.why[feature]?.toLowerCase().includes(words);
    if (label) [hit.why, hit.rank] = [`fits ${index.labels[label[0]]}`, -1 - label[1] / 100];
    else if (said) [hit.why, hit.rank] = ["in its explanation", 0];
    else if (on < 99) [hit.why, hit.rank] = ["fires on it", on];
    else if (up < 99) [hit.why, hit.rank] = ["promotes it", 20 + up];
    else return false;
    return true;
  }

  function row(hit) {
    const list = lists[state.model];
    const feature = hit.feature;
    const density = list.firings[feature] / index.tokens;
    const tokens = list.on[feature].slice(0, 3).flatMap((id) => [inline(id), " "]);
    const link = make(
      "a.at-row",
      { href: address(state.model, feature), tabindex: -1, "data-feature": feature },
      make("span.at-number", null, String(feature)),
      make("span.at-tokens", null, tokens.length ? tokens : "silent"),
      make("span.at-density", null, hit.why || percent(density)),
    );
    return make("li", null, link);
  }

  function more() {
    const next = state.hits.slice(state.shown, state.shown + page);
    parts.list.append(...next.map(row));
    state.shown += next.length;
  }

  function showList() {
    state.hits = search();
    state.shown = 0;
    parts.list.replaceChildren();
    parts.scroll.scrollTop = 0;
    more();
    const n = state.hits.length;
    parts.found.textContent = `${count(n)} ${n === 1 ? "feature" : "features"} of ${print(state.model)}`;
    markCurrent(false);
  }

  function currentPlace() {
    return current.model === state.model ? state.hits.findIndex((hit) => hit.feature === current.feature) : -1;
  }

  function markCurrent(scroll) {
    for (const old of parts.list.querySelectorAll("[aria-current]")) {
      old.removeAttribute("aria-current");
      old.tabIndex = -1;
    }
    const place = currentPlace();
    while (place >= state.shown) more();
    const link = parts.list.children[Math.max(place, 0)]?.firstChild;
    if (!link) return null;
    link.tabIndex = 0; // one stop of the tab key for the whole list
    if (place >= 0) {
      link.setAttribute("aria-current", "true");
      if (scroll) link.scrollIntoView({ block: "nearest" });
    }
    return link;
  }

  function step(by) {
    if (!state.hits.length) return;
    const place = currentPlace();
    const next = Math.min(Math.max(place + by, 0), state.hits.length - 1);
    history.replaceState(null, "", address(state.model, state.hits[next].feature));
    const inList = parts.list.contains(document.activeElement);
    route();
    const link = markCurrent(true);
    if (inList) link?.focus({ preventScroll: true });
  }

  /* --- one feature ---------------------------------------------------------------------------- */

  const current = { model: null, feature: null };

  function strip(window_, label, peak, fires) {
    const [chosen, before, after, ...own] = window_;
    const levels = new Map();
    const pairs = fires ?? own;
    for (let n = 0; n < pairs.length; n += 2) levels.set(pairs[n], pairs[n + 1]);
    const spans = [];
    let best = -1;
    let strongest = 0;
    for (let offset = 0; offset <= before + after; offset++) {
      const text = token(ids[chosen - before + offset]);
      const level = levels.get(offset) ?? 0;
      if (level > strongest) [best, strongest] = [text, level];
      const value = Number(((level / 1000) * peak).toPrecision(3));
      const span = make("span.fl-tok", { title: `${JSON.stringify(text)} · ${value}` }, visible(text));
      if (level) {
        span.style.setProperty("--a", level / 1000);
        span.style.background = `rgb(var(--fl-heat) / ${((level / 1000) * 0.85).toFixed(3)})`;
      }
      if (offset === before) span.classList.add("at-chosen");
      if (/^\s/.test(text)) spans.push(document.createElement("wbr"));
      spans.push(span);
    }
    const said = strongest ? `fires most on ${JSON.stringify(best)}` : "does not fire here";
    const node = make(
      "div.fl-strip",
      null,
      make("div.fl-tokens", { tabindex: 0, role: "group", "aria-label": `${label}: ${said}` }, spans),
      make("div.fl-readout", { "aria-live": "polite" }),
    );
    window.featlib?.startStrip(node);
    return node;
  }

  function legend(peak) {
    return make(
      "div.fl-legend",
      { "aria-hidden": "true" },
      make("span", null, "activation 0"),
      make("span.fl-scale.at-scale"),
      make("span", null, String(peak)),
    );
  }

  function bars(values, { title, mark, left, right, log }) {
    const [w, h] = [260, 74];
    const height = (v) => (v <= 0 ? 0 : log ? Math.log10(1 + v) : v);
    const top = Math.max(...values.map(height), 1e-9);
    const each = w / values.length;
    const drawn = values.map((v, n) =>
      svgNode("rect", {
        x: n * each + 0.5,
        y: h - (height(v) / top) * h,
        width: Math.max(each - 1, 0.5),
        height: (height(v) / top) * h,
        class: n === mark ? "at-bar at-here" : "at-bar",
      }),
    );
    const frame = { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": title, class: "at-chart" };
    return make(
      "figure.at-figure",
      null,
      svgNode("svg", frame, svgNode("title", {}, title), ...drawn),
      make("div.at-axis", { "aria-hidden": "true" }, make("span", null, left), make("span", null, right)),
    );
  }

  const bins = 30; // of log10 density, from -5 to 0
  const binOf = (density) => Math.min(Math.max(Math.floor(((Math.log10(density) + 5) / 5) * bins), 0), bins - 1);
  function densityChart(model, firings) {
    const values = new Array(bins).fill(0);
    for (const n of lists[model].firings) if (n) values[binOf(n / index.tokens)]++;
    const title = `Density: fires on ${percent(firings / index.tokens)} of tokens; the bars are all features of ${print(model)}`;
    const mark = firings ? binOf(firings / index.tokens) : -1;
    return bars(values, { title, mark, left: "0.001 % of tokens", right: "100 %" });
  }

  function effectTable(name, rows) {
    const largest = Math.max(...rows.map(([, effect]) => Math.abs(effect)), 1);
    return make(
      "div.at-effects",
      null,
      make("h4", null, name),
      make(
        "ol",
        null,
        rows.map(([id, effect]) =>
          make(
            "li",
            { "--w": Math.abs(effect) / largest },
            inline(id),
            make("span.at-value", null, (effect / 10).toFixed(1).replace("-", "−")),
          ),
        ),
      ),
    );
  }

  function link(model, feature, text) {
    return make("a", { href: address(model, feature) }, text ?? `${print(model)} ${feature}`);
  }

  function steps(model, told) {
    const rows = Object.entries(told.steps).map(([name, [fate, r, best]]) => {
      const [parent, child] = name.split(">");
      const other = model === parent ? child : parent;
      const where = best < 0 ? "nothing correlates" : `best r ${corr(r)}`;
      return make(
        "tr",
        null,
        make("td", null, `${print(parent)} → ${print(child)}`),
        make("td", null, make(`span.at-fate.at-${fate}`, null, fate)),
        make("td", null, `${where} in ${print(other)}’s second autoencoder`),
      );
    });
    const again = told.twin >= 1000 * index.threshold;
    const twin = make(
      "tr",
      null,
      make("td", null, `${print(model)} itself`),
      make("td", null, make(`span.at-fate.at-${again ? "persists" : "untestable"}`, null, again ? "found again" : "not found again")),
      make("td", null, `best r ${corr(told.twin)} in its own second autoencoder`),
    );
    return make("table", null, make("thead", null, make("tr", null, ["Step", "Fate", "Evidence"].map((t) => make("th", { scope: "col" }, t)))), make("tbody", null, rows, twin));
  }

  async function relatives(model, told) {
    const columns = Object.entries(told.matches).map(async ([other, candidates]) => {
      const best = candidates[0];
      const theirs = (await load(`${other}-${Math.floor(best[0] / index.shard)}`))[best[0] % index.shard];
      const [r, rest] = [best[1], candidates.slice(1)];
      const same = r >= 1000 * index.threshold;
      return make(
        "section.at-relative",
        { "data-model": other },
        make("h4", null, link(other, best[0]), make("span.at-r", { "data-same": same }, `r ${corr(r)}`)),
        make("p.at-note", null, same ? "counts as the same feature" : `below ${index.threshold}: does not count as the same`, `; fires on ${percent(theirs.firings / index.tokens)}`),
        make("h5", null, "The same text"),
        told.compared[other].map((fires, n) => strip(told.top[n], `The same text under ${print(other)} ${best[0]}`, theirs.peak, fires)),
        make("h5", null, "Its own strongest examples"),
        theirs.top.slice(0, 3).map((w) => strip(w, `${print(other)} ${best[0]}`, theirs.peak)),
        legend(theirs.peak),
        make("p.at-note", null, "Promotes ", theirs.up.slice(0, 5).flatMap(([id]) => [inline(id), " "])),
        rest.length ? make("p.at-note", null, "Next: ", rest.flatMap(([g, v], n) => [n ? ", " : "", link(other, g), ` (r ${corr(v)})`])) : null,
      );
    });
    return Promise.all(columns);
  }

  function section(title, ...content) {
    return make("section.at-section", null, make("h3", null, title), ...content);
  }

  const quarters = ["weakest quarter", "second quarter", "third quarter", "strongest quarter"];

  async function showFeature(model, feature) {
    Object.assign(current, { model, feature });
    const still = () => current.model === model && current.feature === feature;
    const shard = load(`${model}-${Math.floor(feature / index.shard)}`);
    const [told] = await Promise.all([shard.then((s) => s[feature % index.shard]), load("stream").then(unpack)]);
    if (!still()) return;
    const name = `${print(model)} ${feature}`;
    const density = told.firings / index.tokens;
    const fires = told.firings
      ? `Fires on ${count(told.firings)} of ${count(index.tokens)} tokens (${percent(density)}), at most with ${told.peak}.`
      : "Never fires on the common stream.";
    const where = told.firings
      ? told.mix.map((n, d) => [index.domains[d], n / told.firings]).filter(([, s]) => s >= 0.005).sort((a, b) => b[1] - a[1])
      : [];
    const scores = told.why && Object.entries(told.why).filter(([key, v]) => key !== "explanation" && typeof v === "number");
    const slot = make("div.at-relatives", null, make("p.at-note", null, "Loading …"));
    const body = make(
      "article",
      { "data-model": model, "aria-labelledby": "at-name" },
      make("h2", { id: "at-name", tabindex: -1 }, name),
      make("p.at-facts", null, fires, where.length ? ` Where: ${where.map(([d, s]) => `${d} ${Math.round(100 * s)} %`).join(", ")}.` : ""),
      told.why ? make("p.at-why", null, make("q", null, told.why.explanation), scores.length ? ` (${scores.map(([k, v]) => `${k} ${v.toFixed(2)}`).join(", ")})` : "") : null,
      told.on.length ? make("p.at-on", null, "Fires on ", told.on.slice(0, 8).flatMap(([id, s]) => [inline(id), make("span.at-share", null, ` ${(s / 10).toFixed(s < 100 ? 1 : 0)} % `)])) : null,
      told.labels.length
        ? make("p.at-labels", null, "Fits ", told.labels.map(([label, precision, recall, f1], n) => [n ? "; " : "", make("strong", null, index.labels[label].replaceAll("_", " ")), ` (F1 ${(f1 / 100).toFixed(2)}, precision ${precision} %, recall ${recall} %)`]).flat())
        : make("p.at-labels.at-note", null, "Fits none of the labels."),
      told.firings
        ? make("div.at-charts", null, densityChart(model, told.firings), bars(told.hist, { title: `Activations between 0 and ${told.peak}, number of tokens on a logarithmic scale`, left: "activation 0", right: String(told.peak), log: true }))
        : null,
      told.top.length
        ? section("Strongest examples", told.top.map((w, n) => strip(w, `Example ${n + 1}`, told.peak)), legend(told.peak))
        : null,
      told.firings
        ? make("details.at-section", null, make("summary", null, make("h3", null, "Typical examples"), " drawn at random from each quarter of its firings"), told.quantiles.map((ws, q) => make("div", null, make("h4", null, quarters[q]), ws.map((w, n) => strip(w, `${quarters[q]}, example ${n + 1}`, told.peak)))).reverse())
        : null,
      section("Effect on the next token", make("p.at-note", null, "Direct effect on the logits, in standard deviations over the vocabulary; the final norm’s division is left out."), make("div.at-two", null, effectTable("Promotes", told.up), effectTable("Suppresses", told.down))),
      section("Fate", make("div.at-wide", { tabindex: 0, role: "region", "aria-label": "Fate of this feature" }, steps(model, told))),
      section("In the other models", make("p.at-note", null, "The best match in each other model, first autoencoder with first. All of them started from one seed, so an equal number is no evidence; the fates above are decided against second autoencoders."), slot),
    );
    parts.detail.replaceChildren(body);
    parts.detail.scrollTop = 0;
    parts.said.textContent = `${name}. ${fires}`;
    document.title = `${name} · Feature atlas`;
    root.dataset.shown = `${model}/${feature}`;
    const columns = await relatives(model, told);
    if (still()) {
      slot.replaceChildren(...columns);
      root.dataset.complete = `${model}/${feature}`;
    }
  }

  function unpack(stream) {
    if (ids) return;
    const text = atob(stream.ids);
    const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
    ids = stream.bytes === 2 ? new Uint16Array(bytes.buffer) : new Uint32Array(bytes.buffer);
  }

  /* --- frame ---------------------------------------------------------------------------------- */

  function select(label, id, options) {
    const node = make("select", { id }, options.map(([value, text]) => make("option", { value }, text)));
    return [make("label.at-field", { for: id }, make("span", null, label), node), node];
  }

  function fillFates() {
    const list = lists[state.model];
    const options = [make("option", { value: "" }, "any")];
    for (const [name, letters] of Object.entries(list.fates)) {
      for (const letter of "pdeu") {
        const n = letters.split(letter).length - 1;
        if (n) options.push(make("option", { value: `${name}/${letter}` }, `${stepText(state.model, name, letter)} (${count(n)})`));
      }
    }
    parts.fate.replaceChildren(...options);
    state.fate = "";
  }

  async function chooseModel(model) {
    lists[model] ??= await load(`list-${model}`);
    state.model = model;
    for (const button of parts.models.children) button.setAttribute("aria-pressed", button.value === model);
    fillFates();
    showList();
  }

  async function route() {
    const [, model, number] = location.hash.match(/^#([a-z]+)\/(\d+)$/) ?? [];
    const known = index.models.find((m) => m.name === model && Number(number) < m.features);
    if (!known) {
      if (number !== undefined) parts.said.textContent = `There is no feature ${model} ${number}.`;
      if (current.model === null) await showFeature(state.model, state.hits[0]?.feature ?? 0);
      else return;
    } else {
      if (model !== state.model || !lists[model]) await chooseModel(model);
      const shown = showFeature(model, Number(number));
      if (currentPlace() < 0 && (state.query || state.fate || state.density)) {
        // A link to a feature that the filters hide: the list shows all again.
        Object.assign(state, { query: "", fate: "", density: "" });
        parts.query.value = parts.fate.value = parts.density.value = "";
        showList();
      }
      await shown;
    }
    markCurrent(true);
  }

  function frame() {
    parts.query = make("input", { id: "at-query", type: "search", autocomplete: "off", spellcheck: "false", placeholder: "token, label or number" });
    parts.models = make("div.at-models", { role: "group", "aria-label": "Model" }, index.models.map((m) => make("button", { type: "button", value: m.name, "data-model": m.name, "aria-pressed": "false" }, m.print)));
    const [density, densityBox] = select("Density", "at-density", [["", "any"], ...Object.entries(densities).map(([k, v]) => [k, v[0]])]);
    const [fate, fateBox] = select("Fate", "at-fate", [["", "any"]]);
    const [sort, sortBox] = select("Sort by", "at-sort", Object.entries(orders).map(([k, v]) => [k, v[0]]));
    Object.assign(parts, { density: densityBox, fate: fateBox, sort: sortBox });
    parts.found = make("p.at-found", { role: "status" });
    parts.list = make("ol.at-list", { "aria-label": "Features" });
    parts.scroll = make("div.at-scroll", null, parts.list);
    parts.detail = make("div.at-detail");
    parts.said = make("p.at-said", { "aria-live": "polite" });
    const controls = make(
      "form.at-controls",
      { role: "search", "aria-label": "Features" },
      parts.models,
      make("label.at-field.at-query", { for: "at-query" }, make("span", null, "Search"), parts.query),
      fate, density, sort,
    );
    const keys = make("p.at-keys", null, make("kbd", null, "j"), " ", make("kbd", null, "k"), " next, previous  ", make("kbd", null, "/"), " search  ", make("kbd", null, "Esc"), " back to the list");
    root.replaceChildren(controls, make("div.at-columns", null, make("nav.at-side", { "aria-label": "List of features" }, parts.found, parts.scroll, keys), parts.detail), parts.said);

    controls.addEventListener("submit", (event) => event.preventDefault());
    parts.models.addEventListener("click", async (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      await chooseModel(button.value);
      if (state.hits.length) location.hash = address(state.model, state.hits[0].feature);
    });
    let timer = 0;
    parts.query.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => ((state.query = parts.query.value), showList()), 80);
    });
    for (const name of ["fate", "density", "sort"]) {
      parts[name].addEventListener("change", () => ((state[name] = parts[name].value), showList()));
    }
    new IntersectionObserver((entries) => entries.some((e) => e.isIntersecting) && more(), { root: parts.scroll, rootMargin: "400px" })
      .observe(parts.scroll.appendChild(make("div.at-end")));
    parts.list.addEventListener("click", (event) => {
      if (event.target.closest("a") && matchMedia("(max-width: 60rem)").matches) {
        setTimeout(() => parts.detail.scrollIntoView(), 50);
      }
    });
    window.addEventListener("hashchange", route);
    document.addEventListener("keydown", keyboard, true); // before the theme's own shortcuts
  }

  function keyboard(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const active = document.activeElement;
    const typing = active?.matches("input, select, textarea, [contenteditable]");
    const inList = parts.list.contains(active);
    const search_ = active === parts.query;
    const taken = () => (event.preventDefault(), event.stopImmediatePropagation());
    if (event.key === "/" && !typing) {
      taken();
      parts.query.focus();
      parts.query.select();
    } else if (event.key === "Escape" && root.contains(active)) {
      taken();
      markCurrent(true)?.focus({ preventScroll: true });
    } else if (search_ && ["Enter", "ArrowDown"].includes(event.key)) {
      taken();
      state.query = parts.query.value;
      showList();
      const first = parts.list.querySelector("a");
      if (first) (first.focus(), (location.hash = first.hash));
    } else if ((!typing && ["j", "k"].includes(event.key)) || (inList && ["ArrowDown", "ArrowUp"].includes(event.key))) {
      taken();
      step(["j", "ArrowDown"].includes(event.key) ? 1 : -1);
    }
  }

  load("index")
    .then(async (data) => {
      index = data;
      const model = location.hash.match(/^#([a-z]+)\//)?.[1];
      state.model = index.models.some((m) => m.name === model) ? model : index.models[0].name;
      frame();
      await chooseModel(state.model);
      await route();
      for (const m of index.models) load(`list-${m.name}`).then((list) => (lists[m.name] ??= list));
    })
    .catch((error) => {
      root.replaceChildren(
        make("p", { role: "alert" }, `The atlas cannot be shown (${error.message}). Its data is made by the chapter before it, for each run: `, make("code", null, "make book"), "."),
      );
      if (index) console.error(error);
    });
})();
