/* Charts and token strips of the book. Plain script: a page opened from disk loads no modules. */
"use strict";
(() => {
  const base = document.currentScript.src.replace(/featlib\.js.*$/, "");
  const narrow = 480; // pixels below which legends go into columns and labels shrink
  const mode = () => (document.documentElement.dataset.theme === "dark" ? "dark" : "light");

  const scripts = new Map();
  function loadScript(name) {
    if (!scripts.has(name)) {
      const loading = new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = base + name;
        script.onload = resolve;
        script.onerror = () => reject(new Error(`${name} did not load`));
        document.head.append(script);
      });
      scripts.set(name, loading);
    }
    return scripts.get(name);
  }

  /* The chart library is large, so a page without figures never asks for it. */
  async function loadLibrary() {
    if (!window.vegaEmbed) await loadScript("featlib-vega.js"); // unless the page holds it itself
    return window.vegaEmbed;
  }

  function withWidth(spec, width) {
    const gutter = spec.usermeta?.gutter ?? 0;
    if (spec.vconcat) {
      return { ...spec, vconcat: spec.vconcat.map((v) => ({ ...v, width: width - gutter })) };
    }
    return { ...spec, width, autosize: { type: "fit-x", contains: "padding" } };
  }

  function themeFor(width) {
    const theme = structuredClone(window.featlibThemes[mode()]);
    if (width < narrow) {
      theme.legend.columns = 2;
      for (const part of [theme.axis, theme.legend]) part.labelFontSize = part.titleFontSize = 11;
    }
    return theme;
  }

  class Chart {
    constructor(figure, spec) {
      this.figure = figure;
      this.slot = figure.querySelector(".fl-live");
      this.spec = spec;
      this.turn = 0;
      this.width = 0;
      this.drawn = false;
      if (spec.usermeta?.features) this.listFeatures(spec.usermeta.features);
    }

    /* The list of features beneath the chart, and the mark that it shows, follow one another. */
    async listFeatures(features) {
      await loadScript("atlas-data.js");
      await loadScript("feature-list.js");
      this.list = window.featlibFeatureList(this.figure, features);
      this.list.onChoice = () => this.result?.view.signal("picked", this.list.picked).run();
    }

    clicked(datum) {
      if (datum?.choice) this.list?.choose(datum.step, datum.choice);
      if (datum?.atlas) location.href = `${base}../book/atlas.html#${datum.atlas}`;
    }

    async draw() {
      const turn = ++this.turn; // a later call overtakes this one
      const embed = await loadLibrary();
      const width = Math.floor(this.figure.querySelector(".fl-chart").clientWidth);
      if (turn !== this.turn || width === 0) return;
      const place = document.createElement("div");
      const result = await embed(place, withWidth(this.spec, width), {
        actions: false,
        config: themeFor(width),
        renderer: "svg",
        tooltip: { theme: mode() },
        loader: { http: { credentials: "omit" } },
      });
      if (turn !== this.turn) return result.finalize();
      place.querySelector("svg").setAttribute("aria-hidden", "true"); // the slot says what it shows
      this.result?.finalize();
      this.result = result;
      this.width = width;
      this.drawn = true;
      if (this.list?.picked) this.list.onChoice();
      result.view.addEventListener("click", (_, item) => this.clicked(item?.datum));
      this.slot.replaceChildren(place);
      this.slot.hidden = false;
      this.figure.classList.add("fl-is-live");
      this.figure.dataset.drawn = mode();
    }

    safeDraw() {
      return this.draw().catch((error) => {
        // The static drawing stays; say why the live one does not come.
        this.figure.dataset.drawn = "failed";
        console.error(`figure ${this.figure.id}: ${error.message}`);
      });
    }
  }

  function startCharts() {
    const charts = new Map();
    for (const block of document.querySelectorAll("script.fl-spec")) {
      const figure = block.closest(".fl-figure");
      charts.set(figure, new Chart(figure, JSON.parse(block.textContent)));
    }
    if (charts.size === 0) return;
    const near = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          if (!entry.isIntersecting) continue;
          near.unobserve(entry.target);
          charts.get(entry.target).safeDraw();
        }
      },
      { rootMargin: "600px" },
    );
    for (const figure of charts.keys()) near.observe(figure);

    const drawn = () => [...charts.values()].filter((chart) => chart.turn > 0);
    new MutationObserver(() => drawn().forEach((chart) => chart.safeDraw())).observe(
      document.documentElement,
      { attributes: true, attributeFilter: ["data-theme"] },
    );
    let timer = 0;
    new ResizeObserver(() => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        for (const chart of drawn()) {
          const width = Math.floor(chart.figure.querySelector(".fl-chart").clientWidth);
          if (chart.drawn && width > 0 && Math.abs(width - chart.width) > 4) chart.safeDraw();
        }
      }, 120);
    }).observe(document.querySelector("main") ?? document.body);
  }

  /* Token strips: hovering a token, or walking with the arrow keys, reads it out below. */
  function startStrip(strip) {
    const group = strip.querySelector(".fl-tokens");
    const readout = strip.querySelector(".fl-readout");
    const tokens = [...group.querySelectorAll(".fl-tok")];
    if (tokens.length === 0) return;
    let current = -1;
    const show = (index) => {
      tokens[current]?.classList.remove("fl-current");
      current = index;
      tokens[current]?.classList.add("fl-current");
      readout.textContent = tokens[current]?.title ?? "";
    };
    const strongest = tokens.reduce((best, token, index) => {
      const value = (t) => Number(t.style.getPropertyValue("--a") || 0);
      return value(token) > value(tokens[best]) ? index : best;
    }, 0);
    const moves = { ArrowRight: 1, ArrowLeft: -1, Home: -tokens.length, End: tokens.length };
    group.addEventListener("keydown", (event) => {
      const step = moves[event.key];
      if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation(); // the theme turns pages with the arrow keys
      show(Math.min(Math.max(current + step, 0), tokens.length - 1));
      tokens[current].scrollIntoView({ block: "nearest" });
    });
    group.addEventListener("focus", () => current < 0 && show(strongest));
    group.addEventListener("pointerover", (event) => {
      const index = tokens.indexOf(event.target.closest(".fl-tok"));
      if (index >= 0) show(index);
    });
  }

  /* A table or an equation wider than the page can be scrolled by keyboard, and says that it can. */
  function markWide() {
    for (const box of document.querySelectorAll(".fl-scroll, .fl-equation, .cell_output .output.text_html")) {
      const what = box.matches(".fl-equation") ? "Equation" : box.querySelector("table") && "Table";
      if (!what) continue;
      const wide = box.scrollWidth > box.clientWidth + 1;
      box.classList.toggle("fl-wide", wide);
      if (wide && !box.hasAttribute("tabindex")) {
        const name = box.getAttribute("aria-label") ?? `${what}, wider than the page`;
        for (const [key, value] of Object.entries({ tabindex: 0, role: "region", "aria-label": name })) {
          box.setAttribute(key, value);
        }
      }
    }
  }

  /* One switch for all the code of a page; the reader's choice holds on the other pages too. */
  function addCodeSwitch() {
    const folds = document.querySelectorAll("div.cell details.hide");
    const place = document.querySelector(".article-header-buttons");
    if (folds.length === 0 || !place) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn btn-sm fl-code-switch";
    let open = false;
    const show = () => {
      for (const fold of folds) fold.open = open;
      button.textContent = open ? "Hide all code" : "Show all code";
    };
    button.addEventListener("click", () => {
      open = !open;
      show();
      try { localStorage.setItem("featlib-code", open ? "open" : ""); } catch { /* none kept */ }
    });
    try { open = localStorage.getItem("featlib-code") === "open"; } catch { /* none kept */ }
    show();
    place.prepend(button);
  }

  /* The part of the sidebar that scrolls begins at the page that is open. */
  function showCurrentPage() {
    const list = document.querySelector(".sidebar-primary-item:has(> .bd-docs-nav)");
    const here = [...(list?.querySelectorAll(".current.active > a") ?? [])].at(-1);
    if (!here) return;
    const below = here.getBoundingClientRect().bottom - list.getBoundingClientRect().bottom;
    if (below > 0) list.scrollTop += below + list.clientHeight / 2;
  }

  /* Hits of the search: a term of the glossary by its name, and no row twice. */
  function nameHits() {
    if (typeof Search === "undefined") return;
    const find = Search._performSearch;
    Search._performSearch = (...asked) => {
      const { docnames, indexentries, titles } = Search._index;
      const names = new Map();
      for (const [entry, places] of Object.entries(indexentries)) {
        for (const [file, id] of places) {
          names.set(`${docnames[file]}#${id}`, `${titles[file]} > ${entry}`);
        }
      }
      const rows = new Map(); // the best hit comes last
      for (const [page, title, anchor, ...more] of find(...asked)) {
        const name = names.get(page + anchor) ?? title;
        rows.delete(page + name);
        rows.set(page + name, [page, name, anchor, ...more]);
      }
      return [...rows.values()];
    };
  }
  window.featlib = { startStrip, markWide }; // for what a page makes itself

  const start = () => {
    nameHits();
    showCurrentPage();
    addCodeSwitch();
    startCharts();
    document.querySelectorAll(".fl-strip").forEach(startStrip);
    markWide();
    window.addEventListener("resize", markWide);
    document.addEventListener("toggle", markWide, true); // a table in details has no width before
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
