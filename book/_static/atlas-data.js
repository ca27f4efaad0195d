/* Reads the shards of the feature atlas, and shows tokens. Shards are scripts that call
   featlibAtlas(), for a page opened from disk may load scripts and nothing else. All text of the
   corpora goes in as text nodes, never as HTML. */
"use strict";
window.featlibData ??= (() => {
  const base = document.currentScript.src.replace(/atlas-data\.js.*$/, "atlas/");

  const shards = new Map(); // name -> {promise, resolve, reject}
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
      script.onerror = () => {
        shards.delete(name); // the next reader of it tries again
        script.remove();
        entry.reject(new Error(`${name}.js is not there`));
      };
      document.head.append(script);
    }
    return entry.promise;
  }

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

  const count = (n) => n.toLocaleString("en");
  const percent = (share) => (share === 0 ? "0\u00a0%" : `${(100 * share).toPrecision(share < 0.001 ? 1 : 2)}\u00a0%`);
  /* A correlation, in two places unless that would lift it over the threshold. */
  function corr(thousandths, threshold) {
    const lifted = thousandths < 1000 * threshold && Math.round(thousandths / 10) >= 100 * threshold;
    return (thousandths / 1000).toFixed(lifted ? 3 : 2).replace(/^-(?=0\.0+$)/, "").replace("-", "−");
  }

  const marks = { " ": "·", "\t": "⇥", "\n": "↵" };
  const hidden = /[\p{C}\p{Z}\p{DI}]/u; // controls, direction overrides, odd spaces, what has no ink
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
  /* One token inside a line of text. */
  const inline = (text) => make("code.at-token", null, visible(text).filter((n) => n.nodeName !== "BR"));

  return { load, make, count, percent, corr, visible, inline };
})();
