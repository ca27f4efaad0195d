"""Parts of the book's own Sphinx extension."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import featbook
import pytest


def test_parameters_stand_with_the_first_chapter_that_declares_them(tmp_path: Path) -> None:
    tag = '# %% tags=["parameters"]'
    for name, title, code in (
        ("01_text", "Text", 'run: str = "mini"  # where\nseed: int = 0\nvocab_size: int = 5'),
        ("02_model", "A model", "vocab_size: int = 5\nheads: int = 6"),
    ):
        (tmp_path / f"{name}.py").write_text(f"# %% [markdown]\n# # {title}\n\n{tag}\n{code}\n")
    said = featbook.tabulate_parameters({"vocab_size": 32_000, "seed": 3}, tmp_path)
    parts = dict(re.findall(r"\*\*(.+?)\*\*\n\n(.+?)(?=\n\n\*\*|$)", said, re.DOTALL))
    assert list(parts)[:1] == ["The run"] and "| `seed` | 3 |" in parts["The run"]
    assert "| `vocab_size` | 32_000 |" in parts["[Text](../notebooks/01_text)"]
    assert "`heads`" in parts["[A model](../notebooks/02_model)"]
    assert "`vocab_size`" not in parts["[A model](../notebooks/02_model)"]
    for key in featbook.Params.model_fields:
        assert said.count(f"| `{key}` |") == 1


def test_formatters() -> None:
    assert featbook.pct(0.28612) == "28.6%" and featbook.pct(-1, 0) == "\u2212100%"
    assert featbook.num(16384.2) == "16,384" and featbook.num(0.126, 2) == "0.13"


def test_numbers_explain_a_missing_key_and_survive_a_copy() -> None:
    numbers = featbook.Numbers("p", "book/_data/params.yaml", {"d_sae": 2048, "k": 16})
    assert "k" in numbers and "l" not in numbers
    again = copy.deepcopy(numbers)  # as Sphinx does with its settings
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
