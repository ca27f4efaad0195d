"""The departures from the paper, gathered from the marks that the code itself carries.

A mark stands in a docstring or a comment of featlib, where the departure is made:

    Deviation: the paper merges in float16; we keep float32, because that is exact.

One sentence: what they do, `; we` what we do, `, because` why. A mark of another form stops the
build, so the page of deviations can neither miss one nor show half of one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from featlib import FeatlibError

MARK = "Deviation:"
# In the order in which data flows; what lies elsewhere comes last.
ROOMS = ("text", "models", "dictionaries", "matching", "cases", "controls", "describe")
SENTENCE = re.compile(r"(?P<paper>.+?); we (?P<ours>.+?), because (?P<why>.+?)\.(?=\s|$)")


@dataclass(frozen=True)
class Deviation:
    module: str  # path below featlib
    line: int
    paper: str  # begins with who does it, such as "the paper"
    ours: str  # goes on after "we"
    why: str  # goes on after "because"


def find_deviations(folder: Path) -> list[Deviation]:
    """Every mark in the modules of `folder`. Raises FeatlibError where one is not of the form."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        module = path.relative_to(folder).as_posix()
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            for part in range(line.count(MARK)):
                text = _sentence(lines[number - 1 :], part)
                match = SENTENCE.match(text)
                if match is None:
                    raise FeatlibError(
                        f"featlib/{module}:{number}: a mark must read '{MARK} the paper does "
                        f"this; we do that, because of this.', one sentence; it reads {text!r}"
                    )
                found.append(Deviation(module, number, *match.groups()))
    rank = {name: place for place, name in enumerate(ROOMS)}
    return sorted(
        found, key=lambda d: (rank.get(d.module.split("/")[0], len(ROOMS)), d.module, d.line)
    )


def _sentence(lines: list[str], part: int) -> str:
    """What follows the mark number `part` of the first line, up to the next mark or empty line."""
    text = lines[0].split(MARK)[part + 1]
    if part + 1 == lines[0].count(MARK):
        for line in lines[1:]:
            plain = line.strip().lstrip("#").strip()
            if not plain or plain == '"""':
                break
            text += " " + plain.split(MARK)[0]
            if MARK in plain:
                break
    return " ".join(text.split())


def tabulate_deviations(folder: Path) -> str:
    """The marks as a Markdown table; under each reason, where the mark stands."""
    rows = ["| the paper … | we … | because … |", "|---|---|---|"]
    for d in find_deviations(folder):
        cells = [_plain(d.paper.removeprefix("the paper ")), _plain(d.ours), _plain(d.why)]
        where = f"<small>`{d.module}:{d.line}`</small>"
        rows.append(f"| {' | '.join(cells)}<br>{where} |")
    return "\n".join(rows)


def _plain(text: str) -> str:
    """Text with what Markdown would read as markup escaped, except `code`."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        piece if piece.startswith("`") else re.sub(r"([\\*_{}\[\]<>|$^~])", r"\\\1", piece)
        for piece in pieces
    )
