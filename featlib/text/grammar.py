"""A grammar of weighted rules, word lists and tables that writes English text at random.

A grammar file is a list of sections:

    == name = a, b, c          a list: one item is drawn
    == name                    a rule: one line is drawn, `3* line` three times as often
    == name: adj use           a table: one row is drawn, columns parted by `;` (the first is the
                               name), the items of a column by `,`

and in a line (an indented line continues the one before it):

    [a|b|]                     one of the alternatives, the last one empty
    [?moral:a|b]               a if the flag `moral` is set, else b
    {rule} {rule.ed}           a fresh draw, and its past tense (`.ing` gerund, `.s` plural)
    {x=rule} {!x=rule}         a draw that is kept as x, and the same without being written
    {x} {x.adj} {x.use.ed}     what was kept, a column of it, the past tense of a column
    //                         a new paragraph
    ^                          the next letter is a capital (most sentence starts need no mark)

Tables named `irregular_verb` (column `ed`) and `irregular_plural` (column `s`) teach the forms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import Any

Draw = Callable[[], float]  # gives numbers in [0, 1), such as `random.Random(seed).random`
Row = dict[str, Any]  # column: text, or a function of (kept, draw) that writes it; "" is the name
Kept = dict[str, Row]
_ALTERNATIVES = re.compile(r"\[(?:\?(\w+):)?([^\[\]]*)\]")  # the innermost
_SLOT = re.compile(r"\{(!?)(?:(\w+)=)?(\w+)(?:\.(\w+))?(?:\.(\w+))?\}")


class Grammar:
    """A grammar: `sections[name]` has its rows, as often as they weigh; a line is a row's name.

    Alternatives are sections that have a number for a name. `flags` are the words that
    `[?flag:...]` may ask for; a flag is set by keeping `?flag`.
    """

    def __init__(self, text: str, flags: Collection[str] = ()) -> None:
        self.flags = frozenset(flags)
        self.sections: dict[str, list[Row]] = {}
        self.columns: dict[str, list[str]] = {}  # of the tables
        self.asked: dict[str, tuple[str, str]] = {}  # section: a flag, and the text if that is set
        text, found = re.sub(r"\n[ \t]+", " ", re.sub(r"(?m)^#.*\n", "", text)), 1
        while found:
            text, found = _ALTERNATIVES.subn(self._alternatives, text)
        for block in re.split(r"(?m)^== ", text)[1:]:
            head, _, body = block.partition("\n")
            name, mark, listed = map(str.strip, re.split("([=:]|$)", head, maxsplit=1))
            lines = []
            for line in map(str.strip, listed.split(",") if mark == "=" else body.split("\n")):
                ((weight, words),) = re.findall(r"^(?:(\d+)\* )?(.*)$", line)
                lines += [words] * int(weight or 1) if words else []
            if mark == ":":
                self.columns[name] = listed.split()
                self.sections[name] = [self._row(line, self.columns[name]) for line in lines]
            else:
                self._add(lines, name)
        self.past = {row[""]: row["ed"] for row in self.sections["irregular_verb"]}
        self.plurals = {row[""]: row["s"] for row in self.sections["irregular_plural"]}
        self.inflect = cache(self._inflect)

    def _add(self, lines: Iterable[str], name: str = "") -> str:
        """Add a section; returns the slot that draws from it."""
        name = name or str(len(self.sections))
        self.sections[name] = [{"": line} for line in lines]
        return f"{{{name}}}"

    def _alternatives(self, match: re.Match[str]) -> str:
        flag, options = match[1], match[2].split("|")
        if not flag:
            return self._add(options)
        assert flag in self.flags, flag
        slot = self._add(options[1:] or [""])
        self.asked[slot[1:-1]] = f"?{flag}", options[0]
        return slot

    def _row(self, line: str, columns: list[str]) -> Row:
        name, *cells = map(str.strip, line.split(";"))
        row: Row = {"": name}
        for column, cell in zip(columns, cells, strict=True):
            items = [item.strip() for item in cell.split(",")]
            row[column] = cell if len(items) == 1 and "{" not in cell else self._add(items)
        return row

    def write(self, text: str | Callable[[Kept, Draw], str], kept: Kept, draw: Draw) -> str:
        """`text`, or a row's value, its slots filled by draws and by what has been kept so far."""
        if not isinstance(text, str):
            return text(kept, draw)
        if "{" not in text:
            return text
        out = []
        for plain, silent, key, name, column, form in _parts(text):
            out.append(plain)
            if key:
                row = self._keep(key, name, column, form, kept, draw)
                out.append("" if silent else row[""])
            elif name:
                out.append(self._value(name, column, form, kept, draw))
        return "".join(out)

    def draw_row(self, section: str, draw: Draw) -> Row:
        """Draw one row of a section."""
        rows = self.sections[section]
        return rows[int(draw() * len(rows))]

    def _keep(self, key: str, name: str, column: str, form: str, kept: Kept, draw: Draw) -> Row:
        taken = {row.get("") for row in kept.values()}
        for _ in range(9):  # two things of one text should differ; the ninth is taken anyway
            if name in self.columns and not column:  # the row itself, with all its columns
                row = self.draw_row(name, draw)
            else:
                row = {"": self._value(name, column, form, kept, draw)}
            if row[""] not in taken:
                break
        kept[key] = row
        return row

    def _value(self, name: str, column: str, form: str, kept: Kept, draw: Draw) -> str:
        """A column of a fresh draw from section `name`, or of what was kept under that name."""
        flag, text = self.asked.get(name, ("", ""))
        if flag in kept:
            return self.write(text, kept, draw)
        row = self.draw_row(name, draw) if name in self.sections else kept[name]
        if column not in row:  # a form of the name itself
            column, form = "", column
        text = self.write(row[column], kept, draw)
        return self.inflect(text, form) if form else text

    def _inflect(self, phrase: str, form: str) -> str:
        """`ed` (past) and `ing` change the first word of a phrase, `s` (plural) its last one."""
        if form == "s":
            head, _, noun = phrase.rpartition(" ")
            return f"{head} {self.plurals.get(noun) or _plural(noun)}".strip()
        assert form in ("ed", "ing"), f"{phrase!r} has no column or form {form!r}"
        verb, _, rest = phrase.partition(" ")
        regular = _stem(verb, form) + form
        return f"{self.past.get(verb, regular) if form == 'ed' else regular} {rest}".strip()


@cache
def _parts(text: str) -> list[list[str]]:
    """Pieces of plain text, each with the five parts of the slot behind it; empty at the end."""
    assert not re.search(r"[{}\[\]|]", _SLOT.sub("", text)), f"a stray bracket in {text!r}"
    parts = [part or "" for part in (*_SLOT.split(text), *[""] * 5)]
    return [parts[i : i + 6] for i in range(0, len(parts), 6)]


def _stem(verb: str, ending: str) -> str:
    if verb.endswith("ie") and ending == "ing":
        return verb[:-2] + "y"
    if verb.endswith("e") and not (verb.endswith("ee") and ending == "ing"):
        return verb[:-1]
    if ending == "ed" and re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "i"
    if re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb):  # one short syllable: hop, hopped
        return verb + verb[-1]
    return verb


def _plural(noun: str) -> str:
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return noun + "es"
    return noun[:-1] + "ies" if re.search(r"[^aeiou]y$", noun) else noun + "s"


_SPACES = re.compile(r" +(?=[ ,.!?\n]|$)|(?<=\n) +|,(?=[,.!?'])")
_AN = re.compile(r"\b([Aa]) (?=[aeiou]|hour|honest)(?!uni|use|one\b|once)")
_QUESTION = re.compile(
    r'("(?:(?:oh )?please, )?(?:what(?! an? | bad )|who|whose|why|where|since when|'
    r"how (?:can|would|was)|is|are|am I|can|may|shall|do you|did|will (?:you|it)|have you)\b"
    r'[^"?!.]*)[,!.](?=")',
    re.IGNORECASE,
)
_START = re.compile(r'(?:^|\n|[.!?] |\." |(?:(?<=\s)|^)"|\^)[a-z]')
# After "...!" comes a new sentence, unless the words that follow say who spoke.
_SPOKEN = re.compile(
    r'[!?]" (?=(?:they|the|his|her|he|she|it|an?|then|but|so|tears|two|one|there|everyone|nobody|'
    r"in|on|at|when|soon|even|all|that|together|never|another)\b)"
    r"(?!(?:[\w'-]+ ){1,7}?(?:said|asked|called|cried|shouted|whispered|explained|told|"
    r"grumbled|mumbled|sighed|yelled|thought|begged)\b)[a-z]"
)


def tidy(text: str, paragraph: str = "\n\n") -> str:
    """Set paragraphs, spaces, commas, question marks, a or an, and the capitals of sentences.

    >>> tidy('a owl sat. "look!" it said. // the end', " ")
    'An owl sat. "Look!" it said. The end'
    """
    text = _SPACES.sub("", re.sub(r" *// *", "\n", text)).strip()
    text = _QUESTION.sub(r"\1?", _AN.sub(r"\1n ", text))
    for start in (_START, _SPOKEN):
        text = start.sub(lambda match: match.group().upper(), text)
    return text.replace("^", "").replace("\n", paragraph)
