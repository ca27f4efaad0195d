"""Departures from the paper: every mark in the code is well formed and in the book's table."""

from __future__ import annotations

from pathlib import Path

import pytest
from deviations import find_deviations, tabulate_deviations

from featlib import FeatlibError

ROOT = Path(__file__).resolve().parents[2]


def test_every_mark_of_the_library_is_found_and_stands_in_the_table():
    marks = {
        (path.relative_to(ROOT / "featlib").as_posix(), number)
        for path in (ROOT / "featlib").rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "deviation:" in line.lower()  # also one in small letters, which would be missed
    }
    found = find_deviations(ROOT / "featlib")
    assert len(found) > 10 and {(d.module, d.line) for d in found} == marks
    table = tabulate_deviations(ROOT / "featlib")
    for d in found:
        assert f"`{d.module}:{d.line}`" in table
        assert all(len(part) < 220 and "\n" not in part for part in (d.paper, d.ours, d.why))


def test_a_mark_is_read_across_lines_in_docstrings_and_comments(tmp_path):
    (tmp_path / "b.py").write_text(
        '"""Says it.\n\nDeviation: the paper has one | two; we have three\n_and_ more, because it '
        "is\nbetter at 0.5 than at 1. This is not part of it.\nDeviation: Doe et al. stop; we go, "
        'because we can.\n"""\nx = 1  # plain\n'
    )
    (tmp_path / "a.py").write_text(
        "y = 2\n# Why. Deviation: the paper sleeps; we\n# wake, because of `a_b`.\n\n# Else.\n"
    )
    found = find_deviations(tmp_path)
    assert [(d.module, d.line) for d in found] == [("a.py", 2), ("b.py", 3), ("b.py", 6)]
    assert (found[0].paper, found[0].ours, found[0].why) == ("the paper sleeps", "wake", "of `a_b`")
    assert found[1].why == "it is better at 0.5 than at 1"
    assert found[2].paper == "Doe et al. stop"
    rows = tabulate_deviations(tmp_path).splitlines()[2:]
    assert rows[0].startswith("| sleeps | wake | of `a_b`<br>")
    assert rows[1].startswith(r"| has one \| two | have three \_and\_ more | it is better at 0.5")


@pytest.mark.parametrize(
    "text",
    [
        "Deviation: the paper does this; we do that.",  # no reason
        "Deviation: we do that, because of this.",  # nothing of the paper
        "Deviation: the paper does this; we do that, because of this",  # no end
        "Deviation: the paper does this;\n\nwe do that, because of this.",  # torn apart
    ],
)
def test_a_mark_of_another_form_is_named_with_its_place(tmp_path, text):
    (tmp_path / "m.py").write_text(f'"""Module.\n\n{text}\n"""\n')
    with pytest.raises(FeatlibError, match=r"featlib/m\.py:3: a mark must read"):
        find_deviations(tmp_path)
