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
from collections.abc import Callable, Collection
from functools import cache

Draw = Callable[[], float]  # gives numbers in [0, 1), such as `random.Random(seed).random`
# A compiled piece of text appends strings to `out`, given what has been kept so far.
Node = Callable[["Kept", list[str], Draw], None]
Row = dict[str, str | Node]  # column: text; the column "" is the name
Kept = dict[str, Row]


class Grammar:
    """A compiled grammar: `nodes[name]` writes a draw of a section, `tables[name]` has its rows.

    `flags` are the words that `[?flag:...]` may ask for; a flag is set by keeping `?flag`.
    """

    def __init__(self, text: str, flags: Collection[str] = ()) -> None:
        self.flags = frozenset(flags)
        self.nodes: dict[str, Node] = {}
        self.tables: dict[str, list[Row]] = {}
        sections = _read_sections(text)
        self.names = {name for name, _, _ in sections}
        self.columns = {name: columns for name, columns, _ in sections if columns}
        for name, columns, lines in sections:
            if columns:
                self.tables[name] = [self._row(line, columns) for line in lines]
                self.nodes[name] = _choose([_join([row[""]]) for row in self.tables[name]])
            else:
                self.nodes[name] = _choose([self._compile(line) for line in lines])
        self.past = self._forms("irregular_verb", "ed")
        self.plurals = self._forms("irregular_plural", "s")
        self.inflect = cache(self._inflect)

    def write(self, section: str, kept: Kept, draw: Draw) -> str:
        """Text of one draw from a section. Raises KeyError where there is no such section."""
        return text_of(self.nodes[section], kept, draw)

    def draw_row(self, table: str, draw: Draw) -> Row:
        """Draw one row of a table."""
        rows = self.tables[table]
        return rows[int(draw() * len(rows))]

    def _forms(self, table: str, column: str) -> dict[str, str]:
        return {str(row[""]): str(row[column]) for row in self.tables.get(table, [])}

    # ------------------------------------------------------------------------------- compiling

    def _row(self, line: str, columns: list[str]) -> Row:
        cells = [cell.strip() for cell in line.split(";")]
        assert len(cells) == len(columns) + 1, f"cells of the row {line!r}"
        row: Row = {"": cells[0]}
        for column, cell in zip(columns, cells[1:], strict=True):
            items = [item.strip() for item in cell.split(",")]
            plain = len(items) == 1 and not re.search(r"[\[{]", cell)
            row[column] = cell if plain else _choose([self._compile(item) for item in items])
        return row

    def _compile(self, text: str) -> Node:
        node, end = self._sequence(text, 0, "")
        assert end == len(text), f"a stray {text[end]!r} in {text!r}"
        return node

    def _sequence(self, text: str, at: int, stops: str) -> tuple[Node, int]:
        """Compile from `at` up to one of `stops`; also give where that one stands."""
        parts: list[str | Node] = []
        while at < len(text) and text[at] not in stops:
            if text[at] == "[":
                node, at = self._alternatives(text, at + 1)
                parts.append(node)
            elif text[at] == "{":
                end = text.find("}", at)
                parts.append(self._slot(text[at + 1 : end]))
                at = end + 1
            else:
                plain = re.compile(r"[^\[\]{}|]+").match(text, at)
                assert plain, f"a stray {text[at]!r} in {text!r}"
                parts.append(plain.group())
                at = plain.end()
        return _join(parts), at

    def _alternatives(self, text: str, at: int) -> tuple[Node, int]:
        asked = re.compile(r"\?(\w+):").match(text, at)
        at = asked.end() if asked else at
        nodes: list[Node] = []
        while not nodes or text[at - 1] == "|":
            node, at = self._sequence(text, at, "|]")
            nodes.append(node)
            assert at < len(text), f"a '[' without its ']' in {text!r}"
            at += 1
        if not asked:
            return _choose(nodes), at
        assert asked[1] in self.flags, asked[1]
        yes, no, flag = nodes[0], _choose(nodes[1:] or [_join([])]), f"?{asked[1]}"
        return lambda kept, out, draw: (yes if flag in kept else no)(kept, out, draw), at

    def _slot(self, slot: str) -> Node:
        match = re.fullmatch(r"(!?)(?:(\w+)=)?(\w+)(?:\.(\w+))?(?:\.(\w+))?", slot)
        assert match, f"the slot {slot!r}"
        silent, key, name, column, form = match.groups()
        node = self._value(name, column or "", form)
        return self._keep(key, name, column, node, bool(silent)) if key else node

    def _value(self, name: str, column: str, form: str | None) -> Node:
        """A column of a fresh draw from section `name`, or of what was kept under that name."""

        def write(kept: Kept, out: list[str], draw: Draw) -> None:
            if name in self.tables:
                row = self.draw_row(name, draw)
            else:
                row = {"": self.nodes[name]} if name in self.names else kept[name]
            value, inflected = row.get(column), form
            if value is None:  # not a column: a form of the name itself
                value, inflected = row[""], column
            text = text_of(value, kept, draw)
            out.append(self.inflect(text, inflected) if inflected else text)

        return write

    def _keep(self, key: str, rule: str, column: str | None, node: Node, silent: bool) -> Node:
        whole = rule in self.columns and not column  # the row itself, with all its columns

        def write(kept: Kept, out: list[str], draw: Draw) -> None:
            taken = {value.get("") for value in kept.values()}
            for _ in range(9):  # two things of one text should differ; the ninth is taken anyway
                row: Row = self.draw_row(rule, draw) if whole else {"": text_of(node, kept, draw)}
                if row[""] not in taken:
                    break
            kept[key] = row
            if not silent:
                out.append(str(row[""]))

        return write

    def _inflect(self, phrase: str, form: str) -> str:
        """`ed` (past) and `ing` change the first word of a phrase, `s` (plural) its last one."""
        if form == "s":
            head, _, noun = phrase.rpartition(" ")
            return f"{head} {self.plurals.get(noun) or _plural(noun)}".strip()
        assert form in ("ed", "ing"), f"{phrase!r} has no column or form {form!r}"
        verb, _, rest = phrase.partition(" ")
        regular = _stem(verb, form) + form
        return f"{self.past.get(verb, regular) if form == 'ed' else regular} {rest}".strip()


def _read_sections(text: str) -> list[tuple[str, list[str], list[str]]]:
    """Cut a grammar file into (name, columns of a table, lines as often as they weigh)."""
    text = re.sub(r"\n[ \t]+", " ", re.sub(r"(?m)^#.*\n", "", text))
    sections: list[tuple[str, list[str], list[str]]] = []
    for block in re.split(r"(?m)^== ", text)[1:]:
        head, _, body = block.partition("\n")
        if "=" in head:
            name, _, items = head.partition("=")
            sections.append((name.strip(), [], [item.strip() for item in items.split(",")]))
            continue
        name, _, columns = head.partition(":")
        lines = []
        for line in filter(None, map(str.strip, body.split("\n"))):
            weight = re.match(r"(\d+)\* ", line)
            lines += [line[weight.end() :]] * int(weight[1]) if weight else [line]
        sections.append((name.strip(), columns.split(), lines))
    return sections


def text_of(node: str | Node, kept: Kept, draw: Draw) -> str:
    """Text of a node or of a row's value."""
    if isinstance(node, str):
        return node
    out: list[str] = []
    node(kept, out, draw)
    return "".join(out)


def _join(parts: list[str | Node]) -> Node:
    def write(kept: Kept, out: list[str], draw: Draw) -> None:
        for part in parts:
            if isinstance(part, str):
                out.append(part)
            else:
                part(kept, out, draw)

    return write


def _choose(nodes: list[Node]) -> Node:
    count = len(nodes)
    return lambda kept, out, draw: nodes[int(draw() * count)](kept, out, draw)


# ----------------------------------------------------------------------------------- the language


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
