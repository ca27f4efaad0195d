"""The feature atlas: its data against numpy, its page in a browser with the network cut."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_figures import HOSTILE

from featlib import FeatlibError
from featlib.describe import atlas, atlas_labels
from featlib.describe.atlas_files import SEARCHED, SHARD, write_atlas
from featlib.dictionaries import features
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.family import MODELS
from featlib.models.mistral import build_model
from featlib.text import tokens

ROOT = Path(__file__).resolve().parents[2]
N_FEATURES, CONTEXT, BLOCKS, VOCAB = 70, 16, 40, 50


def read(path: Path) -> Any:
    found = re.fullmatch(r'featlibAtlas\("([^"]+)",(.*)\);\n', path.read_text(), re.DOTALL)
    assert found is not None and found.group(1) == path.stem
    return json.loads(found.group(2))


def random_features(rng: np.random.Generator) -> features.FeatureActivations:
    dense = rng.exponential(3, (BLOCKS * CONTEXT, N_FEATURES))
    dense *= rng.random(dense.shape) < np.geomspace(0.005, 0.4, N_FEATURES)
    dense[:, 7] = 0  # silent
    dense[:, 8] = 0
    dense[100, 8] = 2.5  # fires once
    return features.feature_activations(dense)


class Made:
    """A small atlas of random features, and what it was made of."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(3)
        self.folder = folder
        self.ids = rng.integers(0, VOCAB, (BLOCKS, CONTEXT)).astype(np.uint16)
        self.documents = np.sort(rng.integers(0, 25, BLOCKS * CONTEXT)).reshape(BLOCKS, CONTEXT)
        self.domains = rng.integers(0, 4, (BLOCKS, CONTEXT))
        self.acts = {m: random_features(rng) for m in MODELS}
        self.masks = {f"label {n}": rng.random(BLOCKS * CONTEXT) < 0.1 for n in range(3)}
        tokens_, values = self.acts["base"].of(69)
        planted = np.zeros(BLOCKS * CONTEXT, dtype=bool)
        planted[tokens_[values > 0.5 * values.max()]] = True
        self.masks["exception"] = planted
        self.effects = {m: rng.normal(size=(N_FEATURES, VOCAB)) for m in MODELS}
        self.r = {
            (a, b): rng.random((N_FEATURES, N_FEATURES)) for a in MODELS for b in MODELS if a != b
        }
        self.matches = {
            a: {b: atlas.nearest(self.r[a, b]) for b in MODELS if b != a} for a in MODELS
        }
        levels = {m: atlas.Levels(self.acts[m]) for m in MODELS}
        self.fits = {m: atlas_labels.best_fits(self.acts[m], self.masks, floor=0.3) for m in MODELS}
        self.pages = {
            m: atlas.describe_features(
                self.acts[m],
                self.ids,
                self.documents,
                self.effects[m],
                matches=self.matches[m],
                others=levels,
                domains=self.domains,
                fits=self.fits[m],
                top=5,
                per_quantile=2,
                rng=np.random.default_rng(0),
            )
            for m in MODELS
        }
        words = [
            "try",
            ":",
            "\n",
            " raise",
            HOSTILE,
            "</script><script>alert(2)</script>",
            "\u202e",
        ]
        self.vocabulary = words + [f" word{n}" for n in range(VOCAB - len(words))]
        fate = {
            "fate": ["persists", "disappears", "untestable"] * 24,
            "r": [0.9, 0.3, 0.0] * 24,
            "best": [4, 5, -1] * 24,
        }
        fate = {key: column[:N_FEATURES] for key, column in fate.items()}
        steps = {"base": ["base>lua"], "lua": ["base>lua", "lua>merged"]}
        self.size = write_atlas(
            folder,
            about={
                "run": "tiny",
                "tokens": BLOCKS * CONTEXT,
                "vocabulary": self.vocabulary,
                "domains": ["BabyLM", "Python", "Lua", "TinyStories"],
                "labels": list(self.masks),
                "threshold": 0.8,
                "min_firings": 3,
            },
            ids=self.ids,
            models=self.pages,
            fates={m: dict.fromkeys(steps.get(m, []), fate) for m in MODELS},
            twins={m: np.linspace(0, 1, N_FEATURES) for m in MODELS},
            explanations={"base": {3: {"explanation": HOSTILE, "correlation": 0.5}}},
        )

    def dense(self, model: str) -> np.ndarray:
        return self.acts[model].matrix.toarray()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("atlas") / "atlas")


# --- the data ---------------------------------------------------------------------------------


def test_the_files_hold_every_feature_once(made: Made) -> None:
    index, stream = read(made.folder / "index.js"), read(made.folder / "stream.js")
    assert made.size == sum(p.stat().st_size for p in made.folder.iterdir())
    assert [m["features"] for m in index["models"]] == [N_FEATURES] * 4
    ids = np.frombuffer(base64.b64decode(stream["ids"]), dtype="<u2")
    assert np.array_equal(ids, made.ids.reshape(-1)) and stream["bytes"] == 2
    for m in MODELS:
        shards = [read(made.folder / f"{m}-{n}.js") for n in range(-(-N_FEATURES // SHARD))]
        assert sum(map(len, shards)) == N_FEATURES
        column = read(made.folder / f"list-{m}.js")
        assert column["firings"] == (made.dense(m) > 0).sum(0).tolist()
        assert all(len(tokens_) <= SEARCHED for tokens_ in column["on"] + column["up"])
    assert read(made.folder / "list-base.js")["why"]["3"]["explanation"] == HOSTILE
    known = read(made.folder / "list-lua.js")
    assert known["fates"]["lua>merged"][:4] == "pdup"
    assert known["r"]["lua>merged"][:4] == [900, 300, None, 900], "no best feature, no correlation"


def test_numbers_of_a_feature_equal_those_of_the_dense_matrix(made: Made) -> None:
    dense, flat = made.dense("base"), made.ids.reshape(-1)
    for n, page in enumerate(made.pages["base"]):
        x = dense[:, n]
        assert page["firings"] == (x > 0).sum() == sum(page["hist"]) == sum(page["mix"])
        assert page["peak"] == pytest.approx(x.max(), rel=1e-3)
        assert page["mix"] == [int(((x > 0) & (made.domains.ravel() == d)).sum()) for d in range(4)]
        mass = np.bincount(flat, weights=x, minlength=VOCAB)
        for token, share in page["on"]:
            assert share == pytest.approx(1000 * mass[token] / mass.sum(), abs=0.51)
        if page["on"]:
            assert page["on"][0][1] == pytest.approx(1000 * mass.max() / mass.sum(), abs=0.51)
        for key, order in (("up", -made.effects["base"][n]), ("down", made.effects["base"][n])):
            assert [t for t, _ in page[key]] == np.argsort(order, kind="stable")[:10].tolist()


def windows_equal(window: list[int], x: np.ndarray, fires: list[int] | None = None) -> bool:
    """Whether the levels of a window are those of activations x, to a thousandth of the peak."""
    token, before, after, *own = window
    pairs = own if fires is None else fires
    told = np.zeros(before + after + 1)
    told[pairs[::2]] = np.array(pairs[1::2]) / 1000
    true = x[token - before : token + after + 1] / max(x.max(), 1e-9)
    return bool(np.abs(told - true).max() <= 0.00101 and ((told > 0) == (true > 0)).all())


def strongest(x: np.ndarray, documents: np.ndarray, n: int) -> list[int]:
    """The n tokens of largest x, but no more of one document than the atlas shows."""
    chosen: list[int] = []
    for token in np.argsort(-x, kind="stable"):
        earlier = sum(documents[t] == documents[token] for t in chosen)
        if x[token] > 0 and earlier < atlas.PER_DOCUMENT and len(chosen) < n:
            chosen.append(int(token))
    return chosen


def test_examples_are_the_strongest_and_shaded_right(made: Made) -> None:
    f, dense = made.acts["base"], made.dense("base")
    for n, page in enumerate(made.pages["base"]):
        wanted = strongest(dense[:, n], made.documents.reshape(-1), 5)
        start, stop = features.token_windows(
            made.documents, np.array(wanted, int), atlas.BEFORE, atlas.AFTER
        )
        assert [w[0] for w in page["top"]] == wanted
        assert [w[0] - w[1] for w in page["top"]] == start.tolist()
        assert [w[0] + w[2] + 1 for w in page["top"]] == stop.tolist()
        assert all(windows_equal(w, dense[:, n]) for w in page["top"])
        ranked = np.array_split(np.lexsort((-f.of(n)[0], f.of(n)[1])), 4)
        for quarter, chosen in zip(ranked, page["quantiles"], strict=True):
            assert len(chosen) == min(2, len(quarter))
            assert {w[0] for w in chosen} <= set(f.of(n)[0][quarter].tolist())
            assert all(windows_equal(w, dense[:, n]) for w in chosen)
    assert made.pages["base"][7]["top"] == [] and len(made.pages["base"][8]["top"]) == 1


def test_the_same_text_under_the_best_match(made: Made) -> None:
    for n, page in enumerate(made.pages["base"]):
        for other in ("lua", "tinystories", "merged"):
            row = made.r["base", other][n]
            best = np.argsort(-row)[:3]
            assert [g for g, _ in page["matches"][other]] == best.tolist()
            assert page["matches"][other][0][1] == atlas.thousandths(row.max())
            x = made.dense(other)[:, best[0]]
            assert len(page["compared"][other]) == min(3, len(page["top"]))
            for window, fires in zip(page["top"], page["compared"][other], strict=False):
                assert windows_equal(window, x, fires)


def test_thousandths_never_lift_a_correlation_over_a_threshold() -> None:
    for threshold in range(0, 1001, 10):
        at = np.float32(threshold / 1000)
        assert atlas.thousandths(at) == threshold
        assert atlas.thousandths(threshold / 1000 - 1e-5) == threshold - 1


def test_direct_effects_are_what_the_weights_do_to_the_logits() -> None:
    torch.manual_seed(0)
    model = build_model(
        vocab_size=40, hidden_size=16, intermediate_size=24, heads=2, kv_heads=1, context=8, seed=0
    )
    with torch.no_grad():
        model.model.norm.weight.uniform_(0.5, 2)
    d = torch.randn(5, 24)
    sae = SparseAutoencoder(d.T.clone(), torch.zeros(5), d, torch.zeros(24))
    effects = atlas.token_effects(model, sae)
    # Oracle: along a feature's direction, the logits of a residual stream of fixed length move so.
    with torch.no_grad():
        x = torch.randn(16)
        for n in range(5):
            pushed = x + 1e-2 * model.model.layers[0].mlp.down_proj(d[n])
            norm = model.model.norm.weight / x.square().mean().sqrt()
            moved = model.lm_head((pushed - x) * norm)
            moved = (moved - moved.mean()) / moved.std()
            np.testing.assert_allclose(effects[n], moved.numpy(), atol=2e-3)


def test_labels_are_found_with_their_precision_and_recall(made: Made) -> None:
    fit = made.fits["base"][69][0]
    assert list(made.masks)[fit[0]] == "exception" and fit[1:] == [100, 100, 100, 50]
    dense = made.dense("base")
    for n, fits in enumerate(made.fits["base"]):
        for label, precision, recall, f1, cut in fits:
            said = dense[:, n] > cut / 100 * dense[:, n].max()
            mask = list(made.masks.values())[label]
            hits = (said & mask).sum()
            assert precision == pytest.approx(100 * hits / said.sum(), abs=0.51)
            assert recall == pytest.approx(100 * hits / mask.sum(), abs=0.51)
            assert f1 == pytest.approx(200 * hits / (said.sum() + mask.sum()), abs=0.51)


def test_tokens_of_the_stream_are_traced_to_their_source() -> None:
    source = "try:\n    x = 1\nexcept ValueError:\n    raise\n"
    stories = "Once upon a time there was a small dog."
    tokenizer = tokens.train_tokenizer([source, stories], 300)
    texts = {"babylm": [stories] * 8, "python": [source] * 8, "lua": ["x = 1\n"] * 40}
    texts["tinystories"] = [stories] * 9
    parts = [tokens.tokenize_documents(tokenizer, t, 16) for t in texts.values()]
    stream = tokens.mix_blocks(parts, seed=5)
    part_of, place = atlas_labels.trace_stream(parts, stream, seed=5)
    for number, part in enumerate(parts):
        here = part_of == number
        assert np.array_equal(part.ids.reshape(-1)[place[here]], stream.ids[here])
    with pytest.raises(FeatlibError, match="chapter 06"):
        atlas_labels.trace_stream(parts, stream, seed=6)
    masks = atlas_labels.label_stream(tokenizer, stream, (part_of, place), texts)
    text = np.array(tokens.token_strings(tokenizer, stream.ids.reshape(-1)))
    said = {t.strip() for t in text[masks["exception_keyword"]]}  # words, or pieces of words
    assert said and all(any(t in word for word in ("try", "except", "raise")) for t in said)
    assert {t.strip() for t in text[masks["assignment"]]} == {"="}
    assert masks["Lua"].sum() == (part_of == 2).sum()
    assert not masks["keyword"][part_of.reshape(-1) == 0].any()


# --- the page ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def html(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The atlas page with the book's own style and scripts, without the theme around it."""
    folder = tmp_path_factory.mktemp("html")
    static = folder / "_static"
    static.mkdir()
    for name in ("featlib.css", "featlib.js", "atlas.css", "atlas-data.js", "atlas.js"):
        (static / name).write_bytes((ROOT / "book" / "_static" / name).read_bytes())
    (static / "atlas").symlink_to(made.folder)
    source = (ROOT / "book" / "atlas.md").read_text()
    body = re.search(r"```\{raw\} html\n(.*?)```", source, re.DOTALL)
    assert body is not None
    theme = (
        "<script>document.documentElement.dataset.theme = localStorage.theme</script><style>"
        "html{--pst-color-background:#fff;--pst-color-text-base:#222832;--pst-color-primary:#0a7d91;"
        "--pst-font-family-monospace:monospace}html[data-theme=dark]{--pst-color-background:#14181e;"
        "--pst-color-text-base:#ced6dd;--pst-color-primary:#3fb1c5}body{margin:1rem;"
        "background:var(--pst-color-background);color:var(--pst-color-text-base)}"
        "a{color:var(--pst-color-primary)}</style>"
    )
    (folder / "book").mkdir()
    (folder / "book" / "atlas.html").write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Feature atlas</title>'
        '<meta name="viewport" content="width=device-width">'
        f'{theme}<link rel="stylesheet" href="../_static/featlib.css">'
        '<script src="../_static/featlib.js" defer></script></head>'
        f"<body><main class='bd-article'><h1>Feature atlas</h1>{body.group(1)}</main></body></html>"
    )
    return folder / "book" / "atlas.html"


def shows(page: Any, feature: str) -> None:
    page.wait_for_function(
        "f => document.getElementById('fl-atlas').dataset.complete === f", arg=feature
    )


@pytest.mark.browser
@pytest.mark.parametrize(
    ("mode", "size"), [("light", (1280, 900)), ("dark", (1280, 900)), ("light", (360, 780))]
)
def test_page_is_sound_and_accessible(html: Path, browser: Any, mode: str, size: tuple) -> None:
    from axe import check_axe
    from browser import visit

    with visit(browser, f"{html.as_uri()}#base/69", size=size, mode=mode) as seen:
        shows(seen.page, "base/69")
        assert seen.page.title() == "BabyPython 69 · Feature atlas"
        wide = seen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 1 and seen.errors == [] and seen.requests == []
        assert check_axe(seen.page) == []
        seen.page.locator("details > summary").first.click()
        assert seen.page.locator("details .fl-strip").count() == 8


@pytest.mark.browser
def test_hostile_text_stays_text(html: Path, browser: Any, made: Made) -> None:
    from browser import visit

    with visit(browser, f"{html.as_uri()}#base/3") as seen:
        shows(seen.page, "base/3")
        assert seen.page.locator(".at-why q").inner_text() == HOSTILE
        seen.page.locator("#at-query").fill("alert(2)")
        seen.page.wait_for_function("/^[1-9]/.test(document.querySelector('.at-found').innerText)")
        assert seen.page.locator("#fl-atlas :is(script, img, iframe, b)").count() == 0
        assert "\\u202e" in seen.page.evaluate("document.body.textContent")
        assert "\u202e" not in seen.page.evaluate("document.body.textContent")
        assert seen.errors == [] and seen.requests == []


ROWS = "[...document.querySelectorAll('.at-row')].map(a => a.hash.slice(1).split('?')[0])"


def found(page: Any, text: str) -> None:
    page.wait_for_function(
        "t => document.querySelector('.at-found').innerText.startsWith(t)", arg=text
    )


@pytest.mark.browser
def test_it_is_worked_by_keyboard_and_by_address(html: Path, browser: Any) -> None:
    from browser import visit

    with visit(browser, f"{html.as_uri()}#lua/66") as seen:
        page = seen.page
        shows(page, "lua/66")
        assert page.locator("[aria-current] .at-number").inner_text() == "66"
        assert page.evaluate("scrollY") == 0, "marking the row moves the list, not the page"
        page.keyboard.press("j")
        shows(page, "lua/67")
        assert page.url.endswith("#lua/67")
        page.keyboard.press("k")
        shows(page, "lua/66")
        page.keyboard.press("/")
        page.keyboard.type("exception")
        page.wait_for_function(f"{ROWS}[0] === 'base/69'")  # the best fit comes first
        assert "Lua 66, shown here, is not among them" in page.inner_text(".at-side")
        page.keyboard.press("Enter")
        shows(page, "base/69")
        assert page.evaluate("document.activeElement.hash") == "#base/69?q=exception"
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "at-query"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.hash") == "#base/69?q=exception"
        page.evaluate("location.hash = '#merged/12'")
        shows(page, "merged/12")
        assert page.locator("#at-query").input_value() == ""
        page.evaluate("location.hash = '#merged/9999'")
        page.wait_for_function("document.body.innerText.includes('no feature merged 9999')")
        assert seen.errors == []


@pytest.mark.browser
def test_all_models_are_searched_at_once(html: Path, browser: Any, made: Made) -> None:
    from browser import visit

    with visit(browser, f"{html.as_uri()}#base/0?q=12") as seen:
        page = seen.page
        shows(page, "base/0")
        assert page.evaluate(ROWS)[:4] == [f"{m}/12" for m in MODELS]
        page.evaluate("location.hash = '#merged/60?q=word'")
        shows(page, "merged/60")
        page.locator("#at-query").fill("wor")
        page.wait_for_function("document.querySelector('.at-scroll').scrollTop === 0")
        page.wait_for_function(f"!{ROWS}.includes('merged/60') && {ROWS}.length === 80")
        page.locator("#at-query").fill("LuaStories 12")
        page.wait_for_function(f"{ROWS}[0] === 'merged/12'")
        page.locator("#at-query").fill("word9")
        word = made.vocabulary.index(" word9")
        known = {m: read(made.folder / f"list-{m}.js") for m in MODELS}
        wanted = {
            f"{m}/{n}"
            for m in MODELS
            for n in range(N_FEATURES)
            if word in known[m]["on"][n] + known[m]["up"][n]
        }
        found(page, f"{len(wanted)} features of all models")
        page.locator(".at-scroll").evaluate("e => e.scrollTo(0, 1e6)")
        page.wait_for_function(f"{ROWS}.length === {len(wanted)}")
        assert set(page.evaluate(ROWS)) == wanted
        assert len({m.split("/")[0] for m in wanted}) == 4
        assert seen.errors == []


@pytest.mark.browser
def test_filters_and_orders(html: Path, browser: Any, made: Made) -> None:
    from browser import visit

    firings = (made.dense("base") > 0).sum(0)

    def numbers(order: Any) -> list[str]:
        return [f"base/{n}" for n in np.asarray(order).tolist()]

    with visit(browser, f"{html.as_uri()}#base/0?in=base") as seen:
        page = seen.page
        shows(page, "base/0")
        page.locator("#at-sort").select_option("firings")
        assert page.evaluate(ROWS) == numbers(np.lexsort((np.arange(70), -firings)))
        page.locator("#at-sort").select_option("")
        page.locator("#at-density").select_option("silent")
        assert page.evaluate(ROWS) == numbers(np.flatnonzero(firings == 0))
        page.locator("#at-density").select_option("")
        page.locator("#at-fate").select_option("base>lua/d")
        assert page.evaluate(ROWS) == numbers(range(1, N_FEATURES, 3))
        page.locator("#at-fate").select_option("")
        page.locator("#at-label").select_option("exception")
        fits = [n for n, f in enumerate(made.fits["base"]) if any(fit[0] == 3 for fit in f)]
        assert 69 in fits and page.evaluate(ROWS) == numbers(fits)
        page.evaluate("location.hash = '#base/69'")
        shows(page, "base/69")
        page.get_by_role("link", name="exception", exact=True).click()
        page.wait_for_function("document.querySelector('#at-label').value === 'exception'")
        assert page.evaluate(ROWS)[0] == "base/69", "its best fit first, in all models"
        page.locator(".at-chips a").click()
        page.wait_for_function("document.querySelector('#at-fate').value === 'base>lua/p'")
        assert page.evaluate(ROWS) == numbers(range(0, N_FEATURES, 3))
        assert seen.errors == []


@pytest.mark.browser
def test_a_link_to_elsewhere_keeps_the_list_and_back_leads_back(html: Path, browser: Any) -> None:
    from browser import visit

    with visit(browser, f"{html.as_uri()}#base/1?in=base&fate=base-lua/d") as seen:
        page = seen.page
        shows(page, "base/1")
        wanted = [f"base/{n}" for n in range(1, N_FEATURES, 3)]
        assert page.evaluate(ROWS) == wanted
        page.evaluate("scrollTo(0, 1e6)")
        link = page.locator(".at-relative h4 a").first
        other = link.get_attribute("data-to")
        link.click()
        shows(page, other)
        assert page.evaluate(ROWS) == wanted, "the reader's list stays"
        assert "is not among them" in page.inner_text(".at-side")
        assert page.evaluate("document.activeElement.id") == "at-name", "where the new page begins"
        assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
        page.go_back()
        shows(page, "base/1")
        assert page.evaluate(ROWS) == wanted and page.url.endswith("in=base&fate=base-lua/d")
        page.locator(".at-reset").click()
        found(page, f"{4 * N_FEATURES} features of all models")
        assert page.url.endswith("#base/1") and seen.errors == []


@pytest.mark.browser
def test_a_feature_far_down_the_list_has_its_neighbours(html: Path, browser: Any) -> None:
    from browser import visit

    with visit(browser, f"{html.as_uri()}#merged/30") as seen:
        shows(seen.page, "merged/30")
        drawn = seen.page.evaluate(ROWS)
        assert len(drawn) < 4 * N_FEATURES, "the rows before it are not all drawn"
        assert {"merged/28", "merged/29", "merged/31"} <= set(drawn)
        up = "document.querySelector('.at-scroll').scrollTo(0, 0)"
        seen.page.wait_for_function(f"() => ({up}, {ROWS}[0] === 'base/0')")
        assert seen.page.evaluate(ROWS) == sorted(
            seen.page.evaluate(ROWS),
            key=lambda name: (MODELS.index(name.split("/")[0]), int(name.split("/")[1])),
        )


@pytest.mark.browser
def test_a_shard_that_does_not_come_is_named_and_can_be_asked_for_again(
    html: Path, browser: Any, made: Made
) -> None:
    from browser import visit

    with visit(browser, f"{html.as_uri()}#base/0") as seen:
        page = seen.page
        shows(page, "base/0")
        shard, away = made.folder / "lua-1.js", made.folder.parent / "away"
        shard.rename(away)
        try:
            page.evaluate("location.hash = '#lua/66'")
            page.wait_for_selector("[role=alert]")
            assert "Lua 66 cannot be shown: lua-1.js" in page.inner_text(".at-detail")
        finally:
            away.rename(shard)
        page.locator(".at-again").click()
        shows(page, "lua/66")


@pytest.mark.browser
def test_a_list_that_does_not_come_leaves_the_feature_to_be_read(
    html: Path, browser: Any, made: Made
) -> None:
    from browser import visit

    part, away = made.folder / "list-merged.js", made.folder.parent / "away-list"
    part.rename(away)
    try:
        with visit(browser, f"{html.as_uri()}#base/0") as seen:
            seen.page.wait_for_function(
                "document.body.innerText.includes('cannot be shown: list-merged.js')"
            )
            seen.page.wait_for_selector("#at-name")
            assert seen.page.inner_text("#at-name") == "BabyPython 0"
            seen.page.locator("button[value=base]").click()
            found(seen.page, f"{N_FEATURES} features of BabyPython")
    finally:
        away.rename(part)


@pytest.mark.browser
def test_where_there_is_no_data_the_page_says_so(html: Path, browser: Any, tmp_path: Path) -> None:
    from browser import visit

    (tmp_path / "book").mkdir()
    (tmp_path / "_static").mkdir()
    (tmp_path / "book" / "atlas.html").write_text(html.read_text())
    for path in (html.parents[1] / "_static").glob("*.*s"):
        (tmp_path / "_static" / path.name).write_bytes(path.read_bytes())
    with visit(browser, tmp_path / "book" / "atlas.html") as seen:
        seen.page.wait_for_selector("[role=alert]")
        assert "index.js is not there" in seen.page.inner_text("#fl-atlas")


# --- the checkers -----------------------------------------------------------------------------


@pytest.mark.browser
def test_axe_sees_faults(browser: Any, tmp_path: Path) -> None:
    from axe import check_axe
    from browser import visit

    (tmp_path / "bad.html").write_text(
        "<html><title>x</title><p style='color:#bbb;background:#fff'>too pale to read</p>"
        "<img src=''>"
    )
    with visit(browser, tmp_path / "bad.html") as seen:
        found = " ".join(check_axe(seen.page))
    assert "color-contrast" in found and "image-alt" in found and "html-has-lang" in found


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    from links import broken_links

    (tmp_path / "sub").mkdir()
    (tmp_path / "a b.html").write_text("<p id='there'></p><p data-deep-links='^m/[0-9]+$'>")
    (tmp_path / "sub" / "page.html").write_text(
        "<a href='../a%20b.html#there'></a><a href='../a%20b.html#m/12'></a><a href='#top'></a>"
        "<p id='top'><a href='https://example.org/none'></a><img src='data:,'>"
        "<a href='../a%20b.html#gone'></a><a href='none.html'></a><img src='none.png'>"
        "<a href='#m/12'></a><a href='../../out.html'></a>"
    )
    (tmp_path / "s.css").write_text("a{background:url(x.png)} b{background:url('data:,')}")
    assert broken_links(tmp_path) == [
        "sub/page.html: ../a%20b.html#gone has no such anchor",
        "sub/page.html: none.html is no file",
        "sub/page.html: #m/12 has no such anchor",
        "sub/page.html: ../../out.html leaves the book",
        "sub/page.html: none.png is no file",
        "s.css: x.png is no file",
    ]
