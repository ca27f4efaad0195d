"""The book: built from executed notebooks, opened in a browser with the network cut."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pickle
import re
import shutil
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup
from examples import every_chart
from test_figures import HOSTILE

from featlib import FeatlibError
from featlib.show.figure import Figure, figure
from featlib.show.strips import token_strip

ROOT = Path(__file__).resolve().parents[2]


sys.path.insert(0, str(ROOT / "book" / "_ext"))  # as Jupyter Book does


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that its objects can be pickled
    spec.loader.exec_module(module)
    return module


build, featbook = load("build"), load("featbook")

PAGES = {
    "index": """# Do features survive?

BabyPython predicts **{{ pct(m["lm.base.python.accuracy"]) }}** of Python's tokens, with
{{ num(p.d_sae) }} features, on {{ hardware.cpu }}, at `{{ commit }}`.

{{ figure("01_gallery", "flow") }}
""",
    "maths": r"""# Maths

Reconstruction $\hat{x} = W_{\text{dec}} f + b$ with $f \in \mathbb{R}^{d}$, see {eq}`loss`.

$$
\mathcal{L} = \lVert x - \hat{x} \rVert_2^2 + \lambda \sum_i |f_i|
$$ (loss)

\begin{align}
\theta &= \arccos \frac{a \cdot b}{\lVert a \rVert \lVert b \rVert} \\
c &= \frac{\sin((1-t)\theta)}{\sin\theta} a + \frac{\sin(t\theta)}{\sin\theta} b
\end{align}

Shown by {cite:t}`horn2025tracking`.
""",
    "words": """# A feature, an SAE and the seed ceiling

Not `a feature`, [a feature that is a link](maths) or a featured one; but **Features** are, once.
Another feature, and *seed  ceilings* before every other ceiling.

> A quoted match.

*The Density of Things in a Title*.

| feature | L0 |
|---|---|
| feature | 3 |

- An **FVU** in a list, by BatchTopK; not an SAE-like thing, and not $L0$ in maths.
""",
}
TOC = """format: jb-book
root: book/index
parts:
  - caption: All
    numbered: true
    chapters:
      - file: book/maths
      - file: book/words
      - file: book/glossary
      - file: book/parameters
      - file: notebooks/01_gallery
      - file: notebooks/02_strips
      - file: book/references
"""


def cell(shown: Any) -> Any:
    bundle = (
        shown._repr_mimebundle_()
        if isinstance(shown, Figure)
        else {"text/html": shown._repr_html_(), "text/plain": "strip"}
    )
    made = nbformat.v4.new_code_cell("charts.figure(...)", execution_count=1)
    made.outputs = [nbformat.v4.new_output("execute_result", data=bundle, execution_count=1)]
    return made


def write_notebook(path: Path, title: str, cells: list[Any]) -> None:
    head = nbformat.v4.new_markdown_cell(f"# {title}\n\nA persimmon, to be found by search.")
    notebook = nbformat.v4.new_notebook(cells=[head, *cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


def test_a_page_prints_what_a_tagged_cell_says(tmp_path: Path) -> None:
    said = nbformat.v4.new_code_cell("Markdown(answer)", metadata={"tags": ["answer"]})
    data = {"text/markdown": "Yes: it *survives*.", "text/plain": "<Markdown object>"}
    said.outputs = [nbformat.v4.new_output("execute_result", data=data, execution_count=1)]
    write_notebook(tmp_path / "09_case.ipynb", "A case", [said])
    output = featbook.OutputFinder(str(tmp_path))
    assert output("09_case", "answer") == "Yes: it *survives*."
    with pytest.raises(featbook.UnknownKey, match="no cell tagged 'reply'"):
        output("09_case", "reply")
    with pytest.raises(featbook.UnknownKey, match="no chapter '10_case'"):
        output("10_case", "answer")


def test_a_cell_that_was_edited_since_the_published_run_says_so(tmp_path: Path) -> None:
    edited = nbformat.v4.new_code_cell('figure(name="flow")', metadata={"tags": ["answer"]})
    silent = nbformat.v4.new_code_cell('"fate"', metadata={"tags": ["said"]}, execution_count=1)
    write_notebook(tmp_path / "07_flow.ipynb", "Flow", [edited, silent])
    figure_of = featbook.FigureFinder(str(tmp_path))
    output = featbook.OutputFinder(str(tmp_path))
    assert "make book" in figure_of("07_flow", "flow") and "make book" in output(
        "07_flow", "answer"
    )
    with pytest.raises(featbook.UnknownKey, match="no figure 'fate'"):
        figure_of("07_flow", "fate")
    with pytest.raises(featbook.UnknownKey, match="tagged 'said' that says something"):
        output("07_flow", "said")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as small as can be, with the real configuration, and a finished run in it."""
    folder = tmp_path_factory.mktemp("project")
    run = folder / "runs" / "tiny"
    (run / "notebooks").mkdir(parents=True)
    (folder / "book").mkdir()
    shutil.copyfile(ROOT / "_config.yml", folder / "_config.yml")
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, folder / "book" / name)
    for name in ("references.bib", "references.md", "glossary.md", "parameters.md"):
        shutil.copyfile(ROOT / "book" / name, folder / "book" / name)
    (folder / "_toc.yml").write_text(TOC)
    for name, text in PAGES.items():
        (folder / "book" / f"{name}.md").write_text(text)
    figures = [
        cell(figure(chart, name=name, caption=f"This is {name}.", alt=f"The finding of {name}."))
        for name, chart in every_chart().items()
    ]
    write_notebook(run / "notebooks" / "01_gallery.ipynb", "Gallery", figures)
    strip = token_strip(["try", ":", "\n", " raise", HOSTILE], [0, 1, 0, 4, 2], label="BabyPython")
    write_notebook(run / "notebooks" / "02_strips.ipynb", "Strips", [cell(strip)])
    (run / "notebooks" / "03_half.failed.ipynb").write_text("not a notebook")
    (run / "metrics.json").write_text(json.dumps({"lm.base.python.accuracy": 0.28612}))
    (run / "params.yaml").write_text("d_sae: 2048\nk: 16\n")
    provenance = {
        "commit": "abc1234",
        "run": "tiny",
        "hardware": {"cpu": "Abacus 3000", "cores": 2, "gpu": None},
        "versions": {"torch": "2.13.0"},
        "chapters": {"01_gallery": {"seconds": 60.0}, "02_strips": {"seconds": 31.0}},
    }
    (run / "provenance.json").write_text(json.dumps(provenance))
    return folder


@pytest.fixture(scope="module")
def html(project: Path) -> Path:
    return build.build(project / "runs" / "tiny", project).parent


# --- the pages in a browser -------------------------------------------------------------------

PAGE_FILES = ("book/index", "book/maths", "notebooks/01_gallery", "notebooks/02_strips")
VIEWS = [("light", (1280, 900)), ("dark", (1280, 900)), ("light", (360, 780))]


@pytest.mark.browser
@pytest.mark.parametrize(("mode", "size"), VIEWS)
@pytest.mark.parametrize("page", PAGE_FILES)
def test_page_is_sound(html: Path, browser: Any, page: str, mode: str, size: tuple) -> None:
    from browser import check_page

    assert check_page(browser, html / f"{page}.html", size=size, mode=mode) == []


@pytest.mark.browser
def test_every_chart_is_drawn_live(html: Path, browser: Any) -> None:
    from browser import draw_charts, visit

    with visit(browser, html / "notebooks" / "01_gallery.html") as seen:
        assert draw_charts(seen.page) == len(every_chart())
        assert seen.page.locator(".fl-live svg").count() == len(every_chart())


@pytest.mark.browser
def test_charts_follow_the_theme_button_and_the_width(html: Path, browser: Any) -> None:
    from browser import check_theme_switch, draw_charts, visit

    gallery = html / "notebooks" / "01_gallery.html"
    assert check_theme_switch(browser, gallery) == []
    with visit(browser, gallery) as seen:
        draw_charts(seen.page)
        seen.page.set_viewport_size({"width": 500, "height": 800})
        seen.page.wait_for_function(
            "() => [...document.querySelectorAll('.fl-live svg')]"
            ".every(s => s.getBoundingClientRect().right <= 501)"
        )


@pytest.mark.browser
def test_paper_and_no_script_show_the_static_drawings(html: Path, browser: Any) -> None:
    from browser import check_print

    gallery = html / "notebooks" / "01_gallery.html"
    assert check_print(browser, gallery) == []
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(gallery.as_uri())
    assert page.locator(".fl-static svg:visible").count() == len(every_chart())
    assert page.locator(".fl-live:visible").count() == 0
    context.close()


@pytest.mark.browser
def test_search_finds_words_of_notebooks(html: Path, browser: Any) -> None:
    from browser import check_search

    titles, faults = check_search(browser, html, "persimmon")
    assert faults == []
    assert any("Gallery" in title for title in titles)
    assert check_search(browser, html, "xylophone") == ([], [])


@pytest.mark.browser
def test_strip_is_walked_with_one_stop_of_the_tab_key(html: Path, browser: Any) -> None:
    from browser import visit

    with visit(browser, html / "notebooks" / "02_strips.html") as seen:
        page = seen.page
        strip, readout = page.locator(".fl-tokens"), page.locator(".fl-readout")
        strip.focus()
        assert readout.inner_text() == "' raise' · 4", "the strongest token is read out first"
        page.keyboard.press("ArrowRight")
        assert "alert(1)" in readout.inner_text()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Home")
        assert readout.inner_text() == "'try' · 0"
        assert page.url.endswith("02_strips.html"), "arrow keys must not turn the page"
        page.locator(".fl-tok").nth(1).hover()
        assert readout.inner_text() == "':' · 1"
        assert "alert(1)" in strip.inner_text()
        assert page.evaluate("document.querySelectorAll('.fl-strip :is(img, script)').length") == 0
        page.keyboard.press("Tab")
        assert not page.evaluate("document.activeElement.closest('.fl-tokens')")


@pytest.mark.browser
def test_pictures_are_taken_of_each_page_wide_and_narrow_light_and_dark(
    html: Path, project: Path, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import screenshots

    run = project / "runs" / "tiny"
    monkeypatch.setattr(screenshots, "open_browser", lambda: contextlib.nullcontext(browser))
    sheet = screenshots.take_screenshots(run, ["book/maths"])
    sizes, taken = {}, sorted(sheet.parent.glob("*.png"))
    for path in taken:
        sizes[path.name] = struct.unpack(">II", path.read_bytes()[16:24])
        assert path.name in sheet.read_text()
    assert [name.split("-")[1:] for name in sizes] == [
        ["1280", "dark.png"], ["1280", "light.png"], ["390", "dark.png"], ["390", "light.png"],
    ]  # fmt: skip
    assert [width for width, _ in sizes.values()] == [1280, 1280, 390, 390]
    assert all(height >= 900 for _, height in sizes.values())
    assert len({path.read_bytes() for path in taken}) == 4
    with pytest.raises(FeatlibError, match=r"no page book/none in the book; .* book/maths"):
        screenshots.take_screenshots(run, ["book/none"])
    with pytest.raises(FeatlibError, match="make book RUN=tiny2"):
        screenshots.take_screenshots(project / "runs" / "tiny2", ["book/none"])
    monkeypatch.setenv("CHROMIUM", "/nowhere")
    with pytest.raises(FeatlibError, match="no Chromium to take pictures with"):
        screenshots.take_screenshots(run, ["book/maths"])


@pytest.mark.browser
def test_the_checks_see_faults(tmp_path: Path, browser: Any) -> None:
    """A page with every fault that check_page looks for: a check that cannot fail is no check."""
    from browser import check_page, check_print

    (tmp_path / "bad.html").write_text(
        "<main style='width:2000px'><p id=a></p><p id=a></p><span class=math>x</span>"
        "<img src=none.png><script src='https://example.org/x.js'></script>"
        "<script>console.error('oh')</script><figure class=fl-figure id=fig-lost>"
        "<div class=fl-static hidden><svg width=200 height=100></svg></div></figure></main>"
    )
    assert "fig-lost: printed still False" in check_print(browser, tmp_path / "bad.html")[0]
    found = "\n".join(check_page(browser, tmp_path / "bad.html"))
    for fault in ("id a used twice", "maths not shown", "none.png: broken", "px wider"):
        assert fault in found
    assert "request left: https://example.org/x.js" in found and "console: oh" in found


@pytest.mark.browser
@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("page", [*PAGE_FILES, "book/references", "book/words"])
def test_page_is_accessible(html: Path, browser: Any, page: str, mode: str) -> None:
    from axe import check_axe
    from browser import draw_charts, visit

    with visit(browser, html / f"{page}.html", mode=mode) as seen:
        draw_charts(seen.page, mode)
        assert check_axe(seen.page) == []


# --- the files --------------------------------------------------------------------------------


def test_numbers_of_the_run_stand_in_the_prose(html: Path) -> None:
    text = (html / "book" / "index.html").read_text()
    words = " ".join(re.sub(r"<[^>]+>", "", text).split())
    assert "<strong>28.6%</strong>" in text
    assert "2,048 features, on Abacus 3000, at abc1234." in words
    assert 'id="fig-flow"' in text, "the chapter's figure stands on the front page too"


def test_a_page_links_each_term_of_the_glossary_once_where_its_prose_first_uses_it(
    html: Path,
) -> None:
    page = BeautifulSoup((html / "book" / "words.html").read_text(), "html.parser")
    links = page.select("a.fl-term")
    assert [" ".join(link.text.split()) for link in links] == [
        "Features", "seed ceilings", "FVU", "BatchTopK",
    ]  # fmt: skip
    assert [link["href"] for link in links] == [
        f"glossary.html#term-{name}" for name in ("feature", "seed-ceiling", "FVU", "BatchTopK")
    ]
    assert links[2]["title"].startswith("FVU: Fraction of variance unexplained")
    glossary = BeautifulSoup((html / "book" / "glossary.html").read_text(), "html.parser")
    assert glossary.select("dt#term-FVU") and not glossary.select("a.fl-term")
    assert links[3]["title"].endswith("not a by-product."), "no citation in a tooltip"


def test_a_page_of_prose_says_how_it_was_made(html: Path) -> None:
    page = BeautifulSoup((html / "book" / "words.html").read_text(), "html.parser")
    (said,) = page.select("article .fl-provenance")
    words = " ".join(said.get_text(" ").split())
    for fact in ("Run tiny", "abc1234", "1.5 minutes", "Abacus 3000, 2 cores", "torch 2.13.0"):
        assert fact in words
    assert "make book RUN=tiny" in said.select_one("pre").text
    assert said.select_one("a")["href"] == "parameters.html"
    chapter = BeautifulSoup((html / "notebooks" / "01_gallery.html").read_text(), "html.parser")
    assert not chapter.select(".fl-provenance"), "a chapter says it itself"


def test_every_link_leads_somewhere(html: Path) -> None:
    from links import broken_links

    assert broken_links(html) == []


def test_pages_name_no_address_outside(html: Path) -> None:
    loads = re.compile(
        r"<(?:script|img|iframe|source)[^>]*\ssrc=\"([^\"]+)|<link[^>]*\shref=\"([^\"]+)"
    )
    for path in html.rglob("*.html"):
        for found in loads.finditer(path.read_text()):
            assert not re.match(r"(https?:)?//", found.group(1) or found.group(2)), path
    for path in [*html.rglob("*.css")]:
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", path.read_text()), path


def test_the_bundle_is_one_file_and_pages_are_light(html: Path) -> None:
    bundle = html / "_static" / "featlib-vega.js"
    assert 200_000 < bundle.stat().st_size < 1_500_000
    for path in html.rglob("*.html"):
        assert path.stat().st_size < 1_500_000, path
        assert "featlib-vega.js" not in path.read_text(), "fetched only where a figure is"


def test_an_unknown_number_stops_the_build_and_keeps_the_former_book(
    html: Path, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page, former = project / "book" / "maths.md", (html / "index.html").read_text()
    before = page.read_text()
    page.write_text(
        '# Maths\n\n{{ pct(m["lm.base.python.acuracy"]) }} and $\\foo{x}$ `{{ p.kk }}`\n'
        "\nA function that nobody documents, {py:func}`nowhere`.\n"
    )
    try:
        with pytest.raises(FeatlibError, match="former book"):
            build.build(project / "runs" / "tiny", project)
    finally:
        page.write_text(before)
    said = capfd.readouterr().err
    assert "book/maths.md:3" in said
    assert "the nearest is 'lm.base.python.accuracy'" in said
    assert r"unknown command \foo" in said
    assert "the nearest is 'k'" in said, "in code type too"
    assert "reference target not found: nowhere" in said, "references are held to account as well"
    assert (html / "index.html").read_text() == former
    assert (html / "_static" / "featlib-vega.js").exists()


def test_a_chapter_that_was_not_run_is_named_before_anything_is_built(
    project: Path, tmp_path: Path
) -> None:
    shutil.copytree(project, tmp_path / "p")
    (tmp_path / "p" / "runs" / "tiny" / "notebooks" / "02_strips.ipynb").unlink()
    with pytest.raises(FeatlibError, match=r"_toc.yml lists .*: notebooks/02_strips\. A page"):
        build.build(tmp_path / "p" / "runs" / "tiny", tmp_path / "p")
    with pytest.raises(FeatlibError, match=r"metrics.json is missing"):
        (tmp_path / "p" / "runs" / "tiny" / "metrics.json").unlink()
        build.build(tmp_path / "p" / "runs" / "tiny", tmp_path / "p")
    with pytest.raises(FeatlibError, match="is no folder"):
        build.build(tmp_path / "p" / "runs" / "none", tmp_path / "p")


# --- parts of the extension -------------------------------------------------------------------


def test_parameters_stand_with_the_first_chapter_that_declares_them(tmp_path: Path) -> None:
    tags = {"tags": ["parameters"]}
    for name, title, code in (
        ("01_text", "Text", 'run: str = "mini"  # where\nseed: int = 0\nvocab_size: int = 5'),
        ("02_model", "A model", "vocab_size: int = 5\nheads: int = 6"),
    ):
        cells = [nbformat.v4.new_code_cell(code, metadata=tags)]
        write_notebook(tmp_path / f"{name}.ipynb", title, cells)
    said = featbook.tabulate_parameters({"vocab_size": 32_000, "seed": 3}, tmp_path)
    parts = dict(re.findall(r"\*\*(.+?)\*\*\n\n(.+?)(?=\n\n\*\*|$)", said, re.DOTALL))
    assert list(parts)[:1] == ["The run"] and "| `seed` | 3 |" in parts["The run"]
    assert "| `vocab_size` | 32_000 |" in parts["[Text](../notebooks/01_text)"]
    assert "`heads`" in parts["[A model](../notebooks/02_model)"]
    assert "`vocab_size`" not in parts["[A model](../notebooks/02_model)"]
    for key in featbook.Params.model_fields:
        assert said.count(f"| `{key}` |") == 1


def test_formatters() -> None:
    assert featbook.pct(0.28612) == "28.6%" and featbook.pct(1, 0) == "100%"
    assert featbook.points(0.0312) == "+3.1" and featbook.points(-0.0312, 2) == "\u22123.12"
    assert featbook.num(16384.2) == "16,384" and featbook.num(0.126, 2) == "0.13"


def test_numbers_explain_a_missing_key_and_survive_a_copy() -> None:
    numbers = featbook.Numbers("p", "book/_data/params.yaml", {"d_sae": 2048, "k": 16})
    assert "k" in numbers and "l" not in numbers
    again = pickle.loads(pickle.dumps(numbers))
    assert again.d_sae == numbers["d_sae"] == 2048 and list(again) == ["d_sae", "k"]
    with pytest.raises(featbook.UnknownKey, match="nearest is 'd_sae'"):
        _ = again.d_sea
    with pytest.raises(featbook.UnknownKey, match="missing or empty"):
        _ = featbook.Numbers("m", "book/_data/metrics.json", {})["x"]


@pytest.mark.parametrize(
    "latex",
    [
        r"\hat{x} = W_{\text{dec}} f",
        r"\lVert x \rVert_2^2",
        r"\operatorname{FVU} \le 0.18",
        r"\begin{aligned} a &= b \\ c &= d \end{aligned}",
        r"\begin{cases} 0 & x < 0 \\ x & \text{else} \end{cases}",
        r"\frac{\sin((1-t)\theta)}{\sin\theta}",
        r"r_{ij} = \frac{\sum_n a_{ni} b_{nj}}{\sqrt{\sum_n a_{ni}^2}}",
        r"\mathrm{CE} \approx \mathbb{E}_{x \sim \mathcal{D}}[-\log p(x)]",
    ],
)
def test_maths_of_the_chapters_is_understood(latex: str) -> None:
    found = featbook.mathml(latex, block=True)
    assert found.startswith("<math") and "\\" not in found and "&amp;" not in found


@pytest.mark.parametrize("latex", [r"\foo", r"x_1 + \bar", r"\left( x", r"r \ge {{ p.k }}"])
def test_maths_that_is_not_understood_is_an_error(latex: str) -> None:
    with pytest.raises(ValueError):
        featbook.mathml(latex, block=False)
