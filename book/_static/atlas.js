/* The feature atlas. Its address says everything: #base/152?q=raise&fate=p is a feature and what its
   list is filtered by, so that Back, Reload and a link passed on all lead to the same view.
   #base/152 is of the autoencoder with seed 0, #base/s1/1702 of that with seed 1. */
"use strict";
(() => {
  const root = document.getElementById("fl-atlas");
  if (!root) return;
  const page = 80; // rows added to the list at a time

  const { load, make, count, percent, visible } = window.featlibData;
  const svgNode = (tag, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };

  let index = null; // models, dictionaries, vocabulary, domains, labels
  let ids = null; // the common stream
  const lists = {}; // by dictionary, what the list needs
  // A dictionary is called like its model where its seed is 0, else like "base-s1".
  const dictionary = (name) => index.dictionaries.find((d) => d.name === name);
  const modelOf = (name) => dictionary(name)?.model ?? name;
  const print = (name) => index.models[modelOf(name)].print;
  const named = (name, feature) => `${print(name)} s${dictionary(name).seed}/${feature}`;
  const placeOf = ({ numbers, features }, feature) => (numbers ? numbers.indexOf(feature) : feature < features ? feature : -1);
  const colored = (name) => ({ "data-model": modelOf(name), "--at-model": index.models[modelOf(name)]?.color }); // none of "all"
  const places = { q: "query", in: "model", fate: "fate", label: "label", density: "density", sort: "sort" };
  const address = (name, feature, wanted = state) => {
    const set = Object.entries(places).filter(([, key]) => wanted[key]).map(([short, key]) => [short, wanted[key]]);
    const filters = String(new URLSearchParams(set)).replaceAll("%2F", "/").replaceAll("%3E", "-");
    const { model, seed } = dictionary(name);
    return `#${model}/${seed ? `s${seed}/` : ""}${feature}${filters && `?${filters}`}`;
  };

  const corr = (thousandths) => window.featlibData.corr(thousandths, index.threshold);
  const token = (id) => index.vocabulary[id] ?? `<${id}>`;
  const spaced = (name) => name.replaceAll("_", " ");
  const inline = (id) => window.featlibData.inline(token(id));

  /* --- the list ------------------------------------------------------------------------------- */

  // Empty means any: all models, any fate, in the order of their numbers.
  const state = { query: "", model: "", fate: "", label: "", density: "", sort: "", hits: [], from: 0, to: 0 };
  const parts = {};
  const searched = () => index.dictionaries.filter((d) => !state.model || d.model === state.model);

  const fateNames = { p: "persists", d: "disappears", e: "emerges", u: "untestable" };
  function stepText(model, step, letter) {
    const [parent, child] = step.split(">");
    if (letter === "p") return model === parent ? `persists in ${print(child)}` : `persists from ${print(parent)}`;
    if (letter === "d") return `disappears in ${print(child)}`;
    if (letter === "e") return `emerges, seen from ${print(parent)}`;
    return `untestable, ${print(parent)} to ${print(child)}`;
  }
  const foundAgain = (list, feature) => list.twin[feature] >= 1000 * index.threshold;
  /* Its fate at a step; of a feature that its own second autoencoder does not find, no match is no evidence. */
  const fateOf = (list, feature, letter) => ("de".includes(letter) && !foundAgain(list, feature) ? "no match" : fateNames[letter]);
  const fateClass = (fate) => `span.at-fate.at-${fate.replace(" ", "-")}`;
  /* Whether a fate, "p" at any step or "base>lua/p" at one, is that of a feature. */
  function hasFate(list, feature, fate) {
    const [step, letter] = fate.includes("/") ? fate.split("/") : [null, fate];
    if (step) return list.fates[step]?.[feature] === letter;
    return Object.values(list.fates).some((letters) => letters[feature] === letter);
  }

  const densities = {
    common: ["fires on over 1 %", (d) => d > 0.01],
    middle: ["on 0.1 to 1 %", (d) => d <= 0.01 && d > 0.001],
    rare: ["on under 0.1 %", (d) => d <= 0.001 && d > 0],
    silent: ["never fires", (d) => d === 0],
  };
  const orders = {
    "": ["number; best hit first", null],
    firings: ["fires most often", (l, i) => l.firings[i]],
    rare: ["fires least often", (l, i) => -(l.firings[i] || Infinity)],
    peak: ["strongest activation", (l, i) => l.peak[i]],
    match: ["best match in another model", (l, i) => l.match[i]],
    alone: ["no match in other models", (l, i) => (l.firings[i] === 0 ? -2e3 : -l.match[i])],
    twin: ["found again by another autoencoder", (l, i) => l.twin[i]],
    label: ["fits a label", (l, i) => (fit(l, i, state.label) ?? l.labels[i][0])?.[1] ?? 0],
  };
  const inBook = "named in the book"; // stands among the labels, though none of them
  const whyNamed = (name, feature) => index.named.find(([d, n]) => d === name && n === feature)?.[2] ?? "";
  const fit = (list, feature, label) => list.labels[feature].find(([n]) => index.labels[n] === label);

  function search() {
    const query = state.query.trim().toLowerCase();
    const words = query ? query.split(/\s+/) : [];
    // 152, lua 152, LuaStories/152, base s1/1702
    const [, whose = "", seed, number] = query.match(/^(\D*?)[\s/#]*(?:\bs(\d+)[\s/])?(\d+)$/) ?? [];
    const means = (d) => (!whose || [d.model, print(d.name).toLowerCase()].includes(whose)) && (!seed || Number(seed) === d.seed);
    const inside = densities[state.density]?.[1];
    const hits = [];
    for (const d of searched()) {
      const list = lists[d.name];
      const wanted = number && means(d) ? placeOf(d, Number(number)) : -1;
      for (let at = 0; at < d.features; at++) {
        const hit = { model: d.name, feature: d.numbers?.[at] ?? at, at, why: "", rank: 0 };
        if (at === wanted) Object.assign(hit, { why: "this number", rank: -9 });
        else if (words.length && !byWords(list, words, hit)) continue;
        if (state.fate && !hasFate(list, at, state.fate)) continue;
        if (inside && !inside(list.firings[at] / index.tokens)) continue;
        if (state.label === inBook) {
          hit.why ||= whyNamed(d.name, hit.feature);
          if (!hit.why) continue;
        } else if (state.label) {
          const found = fit(list, at, state.label);
          if (!found) continue;
          hit.why ||= `F1 ${(found[1] / 100).toFixed(2)}`;
        }
        hits.push(hit);
      }
    }
    // Sorting keeps the order of models and numbers where nothing else decides.
    const key = orders[state.sort]?.[1];
    if (key) {
      const value = new Map(hits.map((hit) => [hit, key(lists[hit.model], hit.at)]));
      hits.sort((a, b) => value.get(b) - value.get(a));
    } else if (query) hits.sort((a, b) => a.rank - b.rank);
    return hits;
  }

  /* All words of a search have to be matched, each by whatever it is. */
  const wordCache = new Map();
  function known(word) {
    if (wordCache.has(word)) return wordCache.get(word);
    const tokens = new Map();
    index.vocabulary.forEach((text, id) => {
      const plain = text.toLowerCase();
      if (plain.includes(word)) tokens.set(id, plain.trim() === word ? 0 : 1);
    });
    const means = (name) => spaced(name).toLowerCase().includes(spaced(word));
    const labels = new Set(index.labels.flatMap((name, n) => (means(name) ? [n] : [])));
    wordCache.set(word, { tokens, labels });
    return wordCache.get(word);
  }

  function byWord(list, word, { model, feature: number, at: feature }) {
    const { tokens, labels } = known(word);
    const why = whyNamed(model, number);
    if (why.toLowerCase().includes(word)) return [`named: ${why}`, -9];
    const best = (ids) => Math.min(...ids.map((id, n) => (tokens.has(id) ? 10 * tokens.get(id) + n : 99)));
    const label = list.labels[feature].find(([n]) => labels.has(n));
    if (label) return [`fits ${spaced(index.labels[label[0]])}`, -1 - label[1] / 100];
    const on = best(list.on[feature]);
    if (on < 99) return ["fires on it", on];
    if (list.why[number]?.explanation.toLowerCase().includes(word)) return ["explained with it", 19];
    const up = best(list.up[feature]);
    return up < 99 ? ["promotes it", 20 + up] : null;
  }

  function byWords(list, words, hit) {
    const reasons = [];
    for (const word of words) {
      const reason = byWord(list, word, hit);
      if (!reason) return false;
      reasons.push(reason);
    }
    const texts = reasons.map(([text]) => text);
    const kinds = [...new Set(texts)];
    if (words.length === 1) hit.why = texts[0];
    else hit.why = kinds.length === 1 ? kinds[0].replace(/ it$/, " all") : [...new Set(texts.map((text) => text.split(" ")[0]))].join(", ");
    hit.each = words.map((word, n) => `${word}: ${texts[n]}`).join("; ");
    hit.rank = reasons.reduce((sum, [, rank]) => sum + rank, 0);
    return true;
  }

  function row(hit) {
    const list = lists[hit.model];
    const density = list.firings[hit.at] / index.tokens;
    const tokens = list.on[hit.at].slice(0, 3).flatMap((id) => [inline(id), " "]);
    const link = make(
      "a.at-row",
      { href: address(hit.model, hit.feature), tabindex: -1, ...colored(hit.model), "aria-current": isCurrent(hit) && "true" },
      make("span.at-of", null, print(hit.model)), " ",
      make("span.at-number", null, `s${dictionary(hit.model).seed}/${hit.feature}`),
      make("span.at-tokens", null, tokens.length ? tokens : "silent"),
      make("span.at-density", { title: hit.each }, hit.why || percent(density)),
    );
    return make("li", null, link);
  }

  function later() {
    const next = state.hits.slice(state.to, state.to + page);
    parts.list.append(...next.map(row));
    state.to += next.length;
  }

  function earlier() {
    const from = Math.max(state.from - page, 0);
    const before = parts.scroll.scrollHeight;
    parts.list.prepend(...state.hits.slice(from, state.from).map(row));
    state.from = from;
    parts.scroll.scrollTop += parts.scroll.scrollHeight - before;
  }

  /* Draws the list from some rows above `place` on; the rest follows when it is scrolled to. */
  function drawFrom(place) {
    state.from = state.to = Math.max(place - 10, 0);
    parts.list.replaceChildren();
    later();
    parts.scroll.scrollTop = 0;
    if (state.from) earlier();
  }

  /* Anew: from the top for a reader who has just asked, else around the feature shown. */
  function showList(top) {
    state.hits = search();
    parts.list.classList.toggle("at-mixed", !state.model);
    drawFrom(top ? 0 : Math.max(currentPlace(), 0));
    markCurrent(!top);
    sayFound();
  }

  function sayFound() {
    const n = state.hits.length;
    const of = state.model ? index.models[state.model].print : "all models";
    parts.found.textContent = `${count(n)} ${n === 1 ? "feature" : "features"} of ${of}`;
    const filtered = state.query || state.fate || state.label || state.density;
    parts.reset.hidden = !filtered && !state.model;
    parts.apart.hidden = current.model === null || currentPlace() >= 0;
    if (!parts.apart.hidden) parts.apart.textContent = `${named(current.model, current.feature)}, shown here, is not among them.`;
  }

  const isCurrent = (hit) => hit.model === current.model && hit.feature === current.feature;
  const currentPlace = () => state.hits.findIndex(isCurrent);

  function markCurrent(scroll) {
    for (const old of parts.list.querySelectorAll("[tabindex='0'], [aria-current]")) {
      old.removeAttribute("aria-current");
      old.tabIndex = -1;
    }
    const place = currentPlace();
    if (scroll && place >= 0 && (place < state.from || place >= state.to)) drawFrom(place);
    const drawn = place >= state.from && place < state.to;
    const link = parts.list.children[drawn ? place - state.from : 0]?.firstChild;
    if (!link) return null;
    link.tabIndex = 0; // one stop of the tab key for the whole list
    if (drawn) {
      link.setAttribute("aria-current", "true");
      if (scroll) {
        // Of the list only: scrollIntoView would move the page as well.
        const [box, own] = [parts.scroll.getBoundingClientRect(), link.getBoundingClientRect()];
        if (own.top < box.top) parts.scroll.scrollTop -= box.top - own.top;
        if (own.bottom > box.bottom) parts.scroll.scrollTop += own.bottom - box.bottom;
      }
    }
    return link;
  }

  async function step(by) {
    if (!state.hits.length) return;
    const place = currentPlace();
    const next = state.hits[Math.min(Math.max(place + by, 0), state.hits.length - 1)];
    const inList = parts.list.contains(document.activeElement);
    history.replaceState(null, "", address(next.model, next.feature));
    const shown = route();
    if (inList) markCurrent(true)?.focus({ preventScroll: true });
    await shown;
  }

  /* --- one feature ---------------------------------------------------------------------------- */

  const current = { model: null, feature: null };

  /* Under a counterpart (`fires`) the shades are shares of its own maximum, and so is what is read out. */
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
      const value = fires ? `${Math.round(level / 10)} % of its maximum` : Number(((level / 1000) * peak).toPrecision(3));
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

  function bars(values, { name, title, mark, left, right, log }) {
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
      make("figcaption.at-axis", null, name),
      svgNode("svg", frame, svgNode("title", {}, title), ...drawn),
      make("div.at-axis", { "aria-hidden": "true" }, make("span", null, left), make("span", null, right)),
    );
  }

  const bins = 30; // of log10 density, from -5 to 0
  const binOf = (density) => Math.min(Math.max(Math.floor(((Math.log10(density) + 5) / 5) * bins), 0), bins - 1);
  function densityChart(model, firings) {
    const values = new Array(bins).fill(0);
    for (const n of lists[modelOf(model)].firings) if (n) values[binOf(n / index.tokens)]++;
    const title = `Density: fires on ${percent(firings / index.tokens)} of tokens; the bars are all features of ${print(model)}`;
    const mark = firings ? binOf(firings / index.tokens) : -1;
    const name = `How often it fires, and ${print(model)}’s others`;
    return bars(values, { name, title, mark, left: "0.001 % of tokens", right: "100 %" });
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
    const d = dictionary(model);
    if (!d || placeOf(d, feature) < 0) return document.createTextNode(text ?? `${print(model)} ${feature}`);
    return make("a", { href: address(model, feature), "data-to": `${model}/${feature}` }, text ?? named(model, feature));
  }

  const otherSeed = (name) => `s${(dictionary(name).seed + 1) % index.seeds}`;

  function steps(name, at, told) {
    const list = lists[name];
    const model = modelOf(name);
    const again = foundAgain(list, at);
    const row = (step, fate, kind, evidence) => make("tr", null, make("td", null, step), make("td", null, make(`span.at-fate.at-${kind}`, null, fate)), make("td", null, evidence));
    const rows = Object.entries(list.fates).map(([step, letters]) => {
      const [parent, child] = step.split(">");
      const fate = fateOf(list, at, letters[at]);
      const r = list.r[step][at];
      const where = r === null ? "nothing correlates" : `best r ${corr(r)}`;
      return row(`${print(parent)} → ${print(child)}`, fate, fate.replace(" ", "-"), `${where} in ${print(model === parent ? child : parent)}’s second autoencoder`);
    });
    const carried = told.beside.filter(([route]) => route === "transfer").map(([, child, , r]) => {
      const stays = r >= 1000 * index.threshold;
      return row(`carried into ${print(child)}`, stays ? "stays itself" : "changes", stays ? "persists" : "no-match", `r ${corr(r)} with itself`);
    });
    const twin = row(`${print(model)} itself`, again ? "found again" : "not found again", again ? "persists" : "untestable", `best r ${corr(list.twin[at])} in its autoencoder ${otherSeed(name)}`);
    return make("table", null, make("thead", null, make("tr", null, ["Step", "Fate", "Evidence"].map((t) => make("th", { scope: "col" }, t)))), make("tbody", null, twin, rows, carried));
  }

  /* The strongest examples under the feature and under its counterpart by every route. */
  function sideBySide(name, feature, told) {
    const lines = told.beside.map(([route, where, other, r, under]) => {
      const carried = route === "transfer";
      const label = carried ? `${print(where)}, carried over` : named(where, other);
      const same = r >= 1000 * index.threshold;
      return { under, label, where, head: () => [carried ? label : link(where, other), " ", make("span.at-r", { "data-same": same }, `r ${corr(r)}`)] };
    });
    return told.top.slice(0, 3).map((window_, n) =>
      make(
        "div.at-beside",
        null,
        make("h4", null, `Example ${n + 1}`),
        make("div.at-line", colored(name), make("span.at-whose", null, named(name, feature)), strip(window_, `Example ${n + 1}`, told.peak)),
        lines.map(({ under, label, where, head }) =>
          make("div.at-line", colored(where), make("span.at-whose", null, head()), strip(window_, `Example ${n + 1} under ${label}`, null, under[n]))),
      ));
  }

  /* Of a feature that the book names: one feature in each autoencoder of each model, by two routes. */
  function seedsByModels(name, feature, told) {
    const rows = index.relatives[`${name}/${feature}`] ?? [];
    const models = [...new Set(index.dictionaries.map((d) => d.model))];
    const seeds = Array.from({ length: index.seeds }, (_, seed) => seed);
    const titles = { alike: "Fires most alike (r)", label: told.labels.length ? `Fits ${spaced(index.labels[told.labels[0][0]])} best (F1)` : "" };
    return Object.entries(titles).map(([route, title]) => {
      const own = new Map(rows.filter(([of]) => of === route).map(([, where, other, value]) => [where, [other, value]]));
      if (!own.size) return null;
      const cell = (model, seed) => {
        const where = seed ? `${model}-s${seed}` : model;
        if (where === name) return make("td", null, make("strong", null, "this feature"));
        const [other, value] = own.get(where) ?? [];
        if (value === undefined) return make("td.at-note", null, "none");
        const said = make("span.at-r", { "data-same": route === "alike" && value >= 1000 * index.threshold }, corr(value));
        return make("td", colored(model), link(where, other, `s${seed}/${other}`), " ", said);
      };
      const carried = new Map(told.beside.filter(([of]) => of === "transfer").map(([, model, , r]) => [model, r]));
      const head = [...seeds.map((seed) => `s${seed}`), ...(route === "alike" && carried.size ? ["carried over"] : [])];
      const body = models.map((m) =>
        make("tr", null, make("th", { scope: "row", ...colored(m) }, print(m)), seeds.map((seed) => cell(m, seed)),
          head.length > seeds.length ? make("td", null, carried.has(m) ? corr(carried.get(m)) : "") : null));
      return make("table.at-seeds", null, make("caption", null, title), make("thead", null, make("tr", null, make("td"), head.map((h) => make("th", { scope: "col" }, h)))), make("tbody", null, body));
    });
  }

  function section(title, ...content) {
    return make("section.at-section", null, make("h3", null, title), ...content);
  }

  async function showFeature(model, feature) {
    Object.assign(current, { model, feature });
    const still = () => current.model === model && current.feature === feature;
    const at = placeOf(dictionary(model), feature);
    const shard = load(`${model}-${Math.floor(at / index.shard)}`);
    const [told] = await Promise.all([shard.then((s) => s[at % index.shard]), load("stream").then(unpack), loadList(model), loadList(modelOf(model))]);
    if (!still()) return;
    const list = lists[model];
    const why = list.why[feature];
    const name = named(model, feature);
    const inWords = whyNamed(model, feature);
    const density = told.firings / index.tokens;
    const fires = told.firings
      ? `Fires on ${count(told.firings)} of ${count(index.tokens)} tokens (${percent(density)}), at most with ${told.peak}.`
      : "Never fires on the common stream.";
    const where = told.firings
      ? told.mix.map((n, d) => [index.domains[d], n / told.firings]).filter(([, s]) => s >= 0.005).sort((a, b) => b[1] - a[1])
      : [];
    const scores = why && Object.entries(why).filter(([key, v]) => key !== "explanation" && typeof v === "number");
    const chips = Object.entries(list.fates).map(([step, letters]) => {
      const [r, letter] = [list.r[step][at], letters[at]];
      const fate = fateOf(list, at, letter);
      const alike = address(model, feature, { model, fate: `${step}/${letter}` });
      const text = fate === "no match" ? `no match in ${print(step.split(">").find((m) => m !== model))}` : stepText(model, step, letter);
      return make(fateClass(fate).replace("span", "a"), { href: alike, title: `List all features that are counted as: ${stepText(model, step, letter)}` }, text, r === null || letter === "u" ? "" : make("span.at-share", null, ` r ${corr(r)}`));
    });
    if (chips.some((chip) => chip.matches(".at-no-match"))) {
      const doubt = "Cannot tell: not found again in its own second autoencoder";
      chips.unshift(make("span.at-doubt", null, doubt, make("span.at-share", null, ` r ${corr(list.twin[at])}`)));
    }
    const family = seedsByModels(model, feature, told);
    const body = make(
      "article",
      { ...colored(model), "aria-labelledby": "at-name" },
      make("button.at-back", { type: "button" }, "↑ Back to the list"),
      make("h2", { id: "at-name", tabindex: -1 }, name),
      make("p.at-facts", null, fires, where.length ? ` Where: ${where.map(([d, s]) => `${d} ${Math.round(100 * s)}\u00a0%`).join(", ")}.` : ""),
      inWords ? make("p.at-named", null, `Named in the book: ${inWords}.`) : null,
      chips.length ? make("p.at-chips", null, chips) : null,
      why ? make("p.at-why", null, make("q", null, why.explanation), scores.length ? ` (${scores.map(([k, v]) => `${k} ${v.toFixed(2)}`).join(", ")})` : "") : null,
      told.on.length ? make("p.at-on", null, "Fires on ", told.on.slice(0, 8).flatMap(([id, s]) => [inline(id), make("span.at-share", null, ` ${(s / 10).toFixed(s < 100 ? 1 : 0)} % `)])) : null,
      told.labels.length
        ? make("p.at-labels", null, "Fits ", told.labels.map(([label, precision, recall, f1], n) => [n ? "; " : "", make("a", { href: address(model, feature, { label: index.labels[label], sort: "label" }), title: "List all features that fit it" }, spaced(index.labels[label])), ` (F1 ${(f1 / 100).toFixed(2)}, precision ${precision} %, recall ${recall} %)`]).flat())
        : make("p.at-labels.at-note", null, "Fits none of the labels."),
      told.firings
        ? make("div.at-charts", null, densityChart(model, told.firings), bars(told.hist, { name: "How strongly it fires (tokens, logarithmic)", title: `Activations between 0 and ${told.peak}, number of tokens on a logarithmic scale`, left: "activation 0", right: String(told.peak), log: true }))
        : null,
      section("Fate", make("div.at-wide", { tabindex: 0, role: "region", "aria-label": "Fate of this feature" }, steps(model, at, told))),
      family.some(Boolean) ? section("In every autoencoder", make("p.at-note", null, `One feature of each of the ${index.seeds} autoencoders of every model. From r ≥ ${index.threshold} it counts as the same.`), family) : null,
      told.top.length
        ? section("Strongest examples", told.top.map((w, n) => strip(w, `Example ${n + 1}`, told.peak)), legend(told.peak))
        : null,
      told.typical.length
        ? make("details.at-section", null, make("summary", null, make("h3", null, "Typical examples"), " drawn evenly from the quarters of its firings, strongest first"), told.typical.map((w, n) => strip(w, `Typical example ${n + 1}`, told.peak)))
        : null,
      told.top.length && told.beside.length
        ? section("Side by side", make("p.at-note", null, "The same text under its counterparts: the feature itself, carried over into other models, and the best match in each other model’s first autoencoder. Fates are decided against second ones. All models started from one seed, so an equal number is no evidence. Each strip is shaded up to its own maximum."), sideBySide(model, feature, told))
        : null,
      section("Effect on the next token", make("p.at-note", null, "Direct effect on the logits, in standard deviations over the vocabulary; the final norm’s division is left out."), make("div.at-two", null, effectTable("Promotes", told.up), effectTable("Suppresses", told.down))),
    );
    const held = parts.detail.contains(document.activeElement);
    parts.detail.replaceChildren(body);
    performance.mark("atlas-feature"); // for whoever measures how soon there is something to read
    // Who followed a link far down a page begins the next one at its head.
    if (parts.detail.getBoundingClientRect().top < 0) parts.detail.scrollIntoView({ behavior: "instant" });
    if (held) body.querySelector("h2").focus({ preventScroll: true });
    parts.said.textContent = `${name}. ${fires}`;
    document.title = `${name} · Feature atlas`;
    root.dataset.shown = address(model, feature, {}).slice(1);
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

  function fill(box, groups) {
    const kept = box.value;
    const option = ([value, text]) => make("option", { value }, text);
    box.replaceChildren(...groups.map(([name, options]) => (name ? make("optgroup", { label: name }, options.map(option)) : options.map(option))).flat());
    box.value = kept;
  }

  function fillFilters() {
    const known = searched().map((d) => lists[d.name]);
    const tally = (has) => known.reduce((sum, list) => sum + list.firings.reduce((n, _, i) => n + has(list, i), 0), 0);
    const options = (letters, value, text) =>
      [...letters].map((letter) => [value(letter), text(letter)])
        .map(([value, text]) => [value, text, tally((list, i) => hasFate(list, i, value))])
        .filter(([, , n]) => n)
        .map(([value, text, n]) => [value, `${text} (${count(n)})`]);
    const stepsKnown = [...new Set(known.flatMap((list) => Object.keys(list.fates)))];
    const groups = stepsKnown.map((step) => {
      const [parent, child] = step.split(">");
      const told = (letter) => (state.model ? stepText(state.model, step, letter) : fateNames[letter]);
      return [`${print(parent)} → ${print(child)}`, options("pdeu", (letter) => `${step}/${letter}`, told)];
    });
    fill(parts.fate, [[null, [["", "any"]]], ["At some step", options("pdeu", (letter) => letter, (letter) => fateNames[letter])], ...groups]);
    const labels = index.labels.map((name) => [name, tally((list, i) => Boolean(fit(list, i, name)))]).filter(([, n]) => n);
    const ofBook = index.named.filter(([d]) => searched().includes(dictionary(d))).length;
    if (ofBook) labels.unshift([inBook, ofBook]);
    fill(parts.label, [[null, [["", "any"], ...labels.map(([name, n]) => [name, `${spaced(name)} (${count(n)})`])]]]);
    for (const box of [parts.fate, parts.label]) {
      const key = box === parts.fate ? "fate" : "label";
      box.value = state[key];
      if (box.value !== state[key]) box.value = state[key] = ""; // no feature of this model has it
    }
  }

  const loadList = async (model) => (lists[model] ??= await load(`list-${model}`));

  /* The reader has changed a filter: the list follows, and the first of it is shown where it was searched for
     or what was shown is no longer in it. A choice is a step to come back from; a letter typed is none. */
  async function changed(changes) {
    Object.assign(state, changes);
    if ("model" in changes && !(await listModels())) return;
    showList(true);
    const first = state.hits[0];
    const typed = "query" in changes && state.query.trim();
    if (first && !typed && currentPlace() < 0) location.hash = address(first.model, first.feature);
    else if (first && typed && !isCurrent(first)) {
      history.replaceState(null, "", address(first.model, first.feature));
      return route();
    } else history.replaceState(null, "", address(current.model, current.feature));
    for (const link of parts.detail.querySelectorAll("[data-to]")) link.href = address(link.dataset.to.split("/")[0], Number(link.dataset.to.split("/")[1]));
  }

  async function listModels() {
    for (const button of parts.models.children) button.setAttribute("aria-pressed", button.value === state.model);
    try {
      await Promise.all(searched().map((d) => loadList(d.name)));
    } catch (error) {
      say(`The list cannot be shown: ${error.message}.`);
      return false;
    }
    fillFilters();
    return true;
  }

  function readAddress() {
    const [, model, seed, number, filters] = location.hash.match(/^#(?:([^/?]+)(?:\/s(\d+))?\/(\d+))?(?:\?(.*))?$/) ?? [];
    const given = new URLSearchParams(filters ?? "");
    const wanted = Object.fromEntries(Object.entries(places).map(([short, key]) => [key, given.get(short) ?? ""]));
    wanted.fate = wanted.fate.replace("-", ">"); // base-lua/p in an address is base>lua/p here
    if (!index.dictionaries.some((d) => d.model === wanted.model)) wanted.model = "";
    if (!(wanted.density in densities)) wanted.density = "";
    if (!(wanted.sort in orders)) wanted.sort = "";
    const d = index.dictionaries.find((d) => d.model === model && d.seed === Number(seed ?? 0));
    return { asked: number && `${model} ${seed ? `s${seed}/` : ""}${number}`, known: d && placeOf(d, Number(number)) >= 0 ? d.name : null, feature: Number(number), wanted };
  }

  async function route() {
    const { asked, known, feature, wanted } = readAddress();
    if (asked && !known) {
      say(`There is no page of a feature ${asked}.`);
      if (current.model !== null) return;
    }
    const differs = Object.keys(wanted).some((key) => wanted[key] !== state[key]);
    if (known) Object.assign(current, { model: known, feature });
    let shown = known ? showSafely(known, feature) : null; // first, as it is what was asked for
    if (differs || parts.list.childElementCount === 0) {
      Object.assign(state, wanted);
      for (const key of ["query", "density", "sort"]) parts[key].value = state[key];
      if (await listModels()) showList();
    }
    if (!known && current.model === null) {
      const [model, first] = index.named[0] ?? [index.dictionaries[0].name, 0];
      shown = showSafely(model, first);
    }
    markCurrent(true);
    sayFound();
    await shown;
  }

  async function showSafely(model, feature) {
    try {
      await showFeature(model, feature);
    } catch (error) {
      if (current.model !== model || current.feature !== feature) return;
      const again = make("button.at-again", { type: "button" }, "Try again");
      again.addEventListener("click", () => showSafely(model, feature));
      parts.detail.replaceChildren(make("p", { role: "alert" }, `${named(model, feature)} cannot be shown: ${error.message}. `, again));
    }
  }

  function say(text) {
    parts.said.textContent = text;
    parts.note.textContent = text;
    parts.note.hidden = false;
  }

  function frame() {
    parts.query = make("input", { id: "at-query", type: "search", autocomplete: "off", spellcheck: "false", placeholder: "token, label, words or number" });
    const models = [...new Set(index.dictionaries.map((d) => d.model))];
    const choices = [{ name: "", print: "All models" }, ...models.map((name) => ({ name, print: print(name) }))];
    parts.models = make("div.at-models", { role: "group", "aria-label": "Model" }, choices.map((m) => make("button", { type: "button", value: m.name, ...colored(m.name), "aria-pressed": "false" }, m.print)));
    const [density, densityBox] = select("Density", "at-density", [["", "any"], ...Object.entries(densities).map(([k, v]) => [k, v[0]])]);
    const [fate, fateBox] = select("Fate", "at-fate", [["", "any"]]);
    const [label, labelBox] = select("Label", "at-label", [["", "any"]]);
    const [sort, sortBox] = select("Sort by", "at-sort", Object.entries(orders).map(([k, v]) => [k, v[0]]));
    Object.assign(parts, { density: densityBox, fate: fateBox, label: labelBox, sort: sortBox });
    parts.found = make("span", { role: "status" });
    parts.reset = make("button.at-reset", { type: "button", hidden: true }, "show all");
    parts.apart = make("p.at-found", { hidden: true });
    parts.list = make("ol.at-list", { "aria-label": "Features" });
    parts.scroll = make("div.at-scroll", null, make("div.at-end"), parts.list, make("div.at-end"));
    parts.detail = make("div.at-detail");
    parts.said = make("p.at-said", { "aria-live": "polite" });
    parts.note = make("p.at-note", { hidden: true });
    const controls = make(
      "form.at-controls",
      { role: "search", "aria-label": "Features" },
      parts.models,
      make("label.at-field.at-query", { for: "at-query" }, make("span", null, "Search"), parts.query),
      fate, label, density, sort,
    );
    const keys = make("p.at-keys", null, make("kbd", null, "j"), " ", make("kbd", null, "k"), " next, previous  ", make("kbd", null, "/"), " search  ", make("kbd", null, "Esc"), " back to the list");
    const side = parts.side = make("nav.at-side", { "aria-label": "List of features" }, make("p.at-found", null, parts.found, " ", parts.reset), parts.apart, parts.scroll, keys);
    root.replaceChildren(controls, parts.note, make("div.at-columns", null, side, parts.detail), parts.said);

    controls.addEventListener("submit", (event) => event.preventDefault());
    parts.models.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) changed({ model: button.value });
    });
    parts.reset.addEventListener("click", () => {
      for (const key of ["query", "density"]) parts[key].value = "";
      changed({ query: "", fate: "", label: "", density: "", model: "" });
      parts.query.focus();
    });
    let timer = 0;
    parts.query.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => parts.query.value !== state.query && changed({ query: parts.query.value }), 80);
    });
    for (const name of ["fate", "label", "density", "sort"]) {
      parts[name].addEventListener("change", () => changed({ [name]: parts[name].value }));
    }
    const [above, , below] = parts.scroll.children;
    const ends = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        if (target === above && state.from) earlier();
        else if (target === below && state.to < state.hits.length) later();
        else continue;
        ends.unobserve(target); // observed anew, it tells at once whether there is still room
        ends.observe(target);
      }
    }, { root: parts.scroll, rootMargin: "400px" });
    for (const end of [above, below]) ends.observe(end);
    parts.list.addEventListener("click", (event) => {
      if (event.target.closest("a") && matchMedia("(max-width: 60rem)").matches) {
        setTimeout(() => parts.detail.scrollIntoView(), 50);
      }
    });
    parts.detail.addEventListener("click", (event) => {
      if (!event.target.closest(".at-back")) return;
      parts.side.scrollIntoView();
      markCurrent(true)?.focus({ preventScroll: true });
    });
    window.addEventListener("hashchange", () => ((parts.note.hidden = true), route()));
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
      if (parts.query.value !== state.query) changed({ query: parts.query.value });
      const first = state.hits[0];
      if (!first) return;
      drawFrom(0);
      parts.list.querySelector("a").focus({ preventScroll: true });
      location.hash = address(first.model, first.feature);
    } else if ((!typing && ["j", "k"].includes(event.key)) || (inList && ["ArrowDown", "ArrowUp"].includes(event.key))) {
      taken();
      step(["j", "ArrowDown"].includes(event.key) ? 1 : -1);
    }
  }

  load("index")
    .then(async (data) => {
      index = data;
      frame();
      await route();
      for (const d of index.dictionaries) loadList(d.name).catch(() => {}); // whoever needs it asks again
    })
    .catch((error) => {
      root.replaceChildren(
        make("p", { role: "alert" }, `The atlas cannot be shown (${error.message}). Its data is made by the chapter before it, for each run: `, make("code", null, "make book"), "."),
      );
      if (index) console.error(error);
    });
})();
