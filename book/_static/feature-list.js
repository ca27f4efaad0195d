/* The features behind a part of a chart. A chart whose specification says in `usermeta.features`
   which steps and choices it has gets two lists to choose from, which the keyboard reaches, and
   beneath them the features themselves, read from the shards of the atlas once one is chosen.
   A click on a mark whose datum has `step` and `choice` chooses the same. */
"use strict";
window.featlibFeatureList = (figure, { steps, choices, note }) => {
  const { load, make, count, percent, inline } = window.featlibData;
  const atlas = document.querySelector('script[src*="featlib.js"]').src.replace(/_static\/featlib\.js.*$/, "book/atlas.html");
  const page = 8; // rows added at a time
  const state = { step: "", choice: "", sort: "", shown: 0, rows: [] };

  const select = (name, first, options) =>
    make("select", { "aria-label": name }, make("option", { value: "" }, first), Object.entries(options).map(([value, text]) => make("option", { value }, text)));
  const step = select("Step", "a step …", steps);
  const choice = select("Features", "features that …", Object.fromEntries(Object.entries(choices).map(([key, c]) => [key, c.text])));
  const clear = make("button", { type: "button", hidden: true }, "clear");
  const said = make("p.fl-list-said", { role: "status" });
  const place = make("div.fl-list-table");
  const panel = make("div.fl-list", null, make("p.fl-list-ask", null, "See the features: ", step, " ", choice, " ", clear), said, place);
  figure.querySelector("figcaption").before(panel);
  const api = { choose, onChoice: () => {}, picked: "" };

  /* Features of one step: the parent's, or, for what emerges, the child's. */
  function find(list, { fates, r, firings }) {
    const letters = list.fates[state.step] ?? "";
    const inside = (value, [low, high]) => value >= low && value < high;
    return [...letters]
      .map((letter, feature) => ({ feature, letter, r: list.r[state.step][feature], firings: list.firings[feature] }))
      .filter((row) => fates.includes(row.letter) && (!r || inside(row.r ?? 0, r)) && (!firings || inside(row.firings, firings)));
  }

  const orders = {
    feature: ["feature", (a, b) => a.feature - b.feature],
    firings: ["fires on", (a, b) => b.firings - a.firings],
    r: ["best r", (a, b) => (b.r ?? -2000) - (a.r ?? -2000)],
  };

  async function show() {
    api.picked = state.step && state.choice ? state.step + state.choice : "";
    api.onChoice();
    clear.hidden = !state.step && !state.choice;
    if (!api.picked) {
      said.textContent = "";
      return place.replaceChildren();
    }
    const chosen = choices[state.choice];
    const [parent, child] = state.step.split(">");
    const model = chosen.side === "child" ? child : parent;
    const picked = api.picked;
    try {
      const [index, list] = await Promise.all([load("index"), load(`list-${model}`)]);
      if (picked !== api.picked) return;
      const { print } = index.models[model];
      state.rows = find(list, chosen);
      state.sort ||= chosen.sort ?? "r";
      said.replaceChildren(
        make("strong", null, `${steps[state.step]}: ${count(state.rows.length)} of ${print}’s features ${chosen.text}`),
        note ? `. ${note} ` : ". ",
        chosen.filter && state.rows.length
          ? make("a", { href: address(sorted()[0].feature) }, "All of them in the atlas")
          : "",
      );
      state.shown = page;
      table(index, list, model);
    } catch (error) {
      if (picked !== api.picked) return;
      said.textContent = `The features cannot be listed: the atlas of this run is not there (${error.message}).`;
      place.replaceChildren();
    }
  }

  /* In the atlas the list beside a feature is the same, where its filters can say so. */
  function address(feature) {
    const [parent, child] = state.step.split(">");
    const { side, fates, filter } = choices[state.choice];
    const model = side === "child" ? child : parent;
    return `${atlas}#${model}/${feature}${filter ? `?in=${model}&fate=${parent}-${child}/${fates}` : ""}`;
  }

  const sorted = () => state.rows.toSorted((a, b) => orders[state.sort][1](a, b) || a.feature - b.feature);

  function table(index, list, model) {
    const head = Object.entries({ feature: "feature", about: "fires most on", firings: "fires on", r: "best r" }).map(([key, text]) => {
      if (!(key in orders)) return make("th", { scope: "col" }, text);
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => {
        state.sort = key;
        table(index, list, model);
        place.querySelector("th[aria-sort] button").focus();
      });
      const side = key === "feature" ? "th" : "th.fl-num";
      return make(side, { scope: "col", "aria-sort": state.sort === key && (key === "feature" ? "ascending" : "descending") }, button);
    });
    const name = index.models[model].print;
    const body = sorted().slice(0, state.shown).map(({ feature, firings, r }) => {
      const label = list.labels[feature][0];
      return make(
        "tr",
        null,
        make("td", null, make("a", { href: address(feature), "aria-label": `${name} s0/${feature}` }, `s0/${feature}`)),
        make("td.fl-list-about", null, list.on[feature].slice(0, 4).flatMap((id) => [inline(index.vocabulary[id]), " "]),
          label ? make("span.fl-list-label", null, `fits ${index.labels[label[0]].replaceAll("_", " ")}`) : null),
        make("td.fl-num", null, percent(firings / index.tokens)),
        make("td.fl-num", null, r === null ? "none" : (r / 1000).toFixed(3).replace("-", "−")),
      );
    });
    const rest = state.rows.length - state.shown;
    const more = make("button", { type: "button" }, `${count(Math.min(rest, 5 * page))} more`);
    more.addEventListener("click", () => {
      const first = state.shown;
      state.shown += 5 * page;
      table(index, list, model);
      place.querySelectorAll("tbody a")[first]?.focus();
    });
    const scroll = make("div.fl-scroll", null, make("table", null, make("thead", null, make("tr", null, head)), make("tbody", null, body)));
    place.replaceChildren(...(state.rows.length ? [scroll] : []), ...(rest > 0 ? [more] : []));
    window.featlib.markWide();
  }

  function choose(newStep, newChoice) {
    [step.value, choice.value] = [newStep, newChoice];
    return take();
  }
  function take() {
    Object.assign(state, { step: step.value, choice: choice.value, sort: "" });
    // Whoever comes back from the atlas finds the list again.
    history.replaceState({ ...history.state, [figure.id]: [state.step, state.choice] }, "");
    return show();
  }
  step.addEventListener("change", take);
  choice.addEventListener("change", take);
  clear.addEventListener("click", () => (choose("", ""), step.focus()));
  const [oldStep, oldChoice] = history.state?.[figure.id] ?? [];
  if (oldStep in steps && oldChoice in choices) choose(oldStep, oldChoice);
  return api;
};
