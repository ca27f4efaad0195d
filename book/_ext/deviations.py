"""The departures from the paper, gathered from the marks that the code itself carries.

A mark stands in a docstring or a comment of featlib, where the departure is made:

    Deviation: the paper merges in float16; we keep float32, because that is exact.

One sentence: what they do, `; we` what we do, `, because` why. A mark of another form stops the
build, so the page of deviations can neither miss one nor show half of one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from featlib import FeatlibError

# In the order in which data flows; what lies elsewhere comes last.
ROOMS = ("text", "models", "dictionaries", "matching", "cases", "controls", "describe")
# Up to the next mark, an empty line or the end of the docstring.
MARK = re.compile(r'Deviation:((?:(?!Deviation:|"""|\n[ #]*\n).)+)', re.DOTALL)
SENTENCE = re.compile(r"(?P<paper>.+?); we (?P<ours>.+?), because (?P<why>.+?)\.(?=\s|$)")


class Deviation(NamedTuple):
    module: str  # path below featlib
    line: int
    paper: str  # begins with who does it, such as "the paper"
    ours: str  # goes on after "we"
    why: str  # goes on after "because"


def find_deviations(folder: Path) -> list[Deviation]:
    """Every mark in the modules of `folder`. Raises FeatlibError where one is not of the form."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        module, text = path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")
        for mark in MARK.finditer(text):
            line = text.count("\n", 0, mark.start()) + 1
            said = " ".join(re.sub(r"\n\s*#", "\n", mark[1]).split())
            match = SENTENCE.match(said)
            if match is None:
                raise FeatlibError(
                    f"featlib/{module}:{line}: a mark must read 'Deviation: the paper does this; "
                    f"we do that, because of this.', one sentence; it reads {said[:200]!r}"
                )
            found.append(Deviation(module, line, *match.groups()))
    rank = {name: place for place, name in enumerate(ROOMS)}
    return sorted(found, key=lambda d: (rank.get(d.module.split("/")[0], len(rank)), d.module))


def tabulate_deviations(folder: Path) -> str:
    """The marks as a Markdown table; under each reason, where the mark stands."""
    rows = ["| the paper … | we … | because … |", "|---|---|---|"]
    for d in find_deviations(folder):
        cells = [_plain(d.paper.removeprefix("the paper ")), _plain(d.ours), _plain(d.why)]
        rows.append(f"| {' | '.join(cells)}<br><small>`{d.module}:{d.line}`</small> |")
    return "\n".join(rows)


def _plain(text: str) -> str:
    """Text with what Markdown would read as markup escaped, except `code`."""
    return re.sub(r"(`[^`]*`)|([\\*_{}\[\]<>|$^~])", lambda m: m[1] or f"\\{m[2]}", text)
