"""Short stories in the words of a small child: the embedded stand-in for TinyStories.

It follows the recipe of that data set (Eldan & Li 2023, section 2): each story must use one noun,
one verb and one adjective drawn at random, and some of six features (dialogue, a moral, a conflict,
foreshadowing, a twist, a bad ending). There a large language model wrote the story; here a grammar
does, whose words, scenes and plots stand in `stories.txt`.

The grammar file is a list of sections:

    == name = a, b, c          a list: one item is drawn
    == name                    a rule: one line is drawn, `3* line` three times as often
    == name: adj use           a table: one row is drawn, columns parted by `;` (the first is the
                               name), the items of a column by `,`

and in a line (an indented line continues the one before it):

    [a|b|]                     one of the alternatives, the last one empty
    [?moral:a|b]               a if the story has the feature `moral`, else b
    {rule} {rule.ed}           a fresh draw, and its past tense (`.ing` gerund, `.s` plural)
    {x=rule} {!x=rule}         a draw that is kept as x, and the same without being written
    {x} {x.adj} {x.use.ed}     what was kept, a column of it, the past tense of a column
    //                         a new paragraph
    ^                          the next letter is a capital (sentence starts are found without it)

Deviation: the paper fine-tunes on TinyStories itself; its text cannot be shipped here, so that the
default run learns from these stories, and the run at the paper's size from the real ones.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources

from featlib.runs import FeatlibError

FEATURES = {  # feature: share of the stories that are asked to have it
    "dialogue": 0.7,
    "moral": 0.4,
    "conflict": 0.3,
    "foreshadowing": 0.25,
    "twist": 0.25,
    "bad_ending": 0.12,
}
PRONOUNS = {
    True: {"he": "he", "him": "him", "his": "his", "himself": "himself", "child": "son"},
    False: {"he": "she", "him": "her", "his": "her", "himself": "herself", "child": "daughter"},
}

# What a slot of the grammar may do: write pieces to `out`, given what the story has kept so far.
Kept = dict[str, dict[str, "str | Node"]]
Node = Callable[[Kept, list[str], Callable[[], float]], None]


@dataclass(frozen=True)
class Recipe:
    """What a story is asked to contain."""

    noun: str  # a thing, by its name in the grammar
    verb: str  # something to do: a verb in its base form with what belongs to it
    adjective: str  # one that can be said of the noun
    features: frozenset[str]  # of FEATURES


def write_stories(*, megabytes: float, seed: int) -> list[str]:
    """Write stories until they hold `megabytes` (10^6 bytes of UTF-8); equal seeds, equal stories.

    A smaller request gives the first stories of a larger one. Raises FeatlibError where
    `megabytes` is not a positive number.
    """
    if not 0 < megabytes < float("inf"):
        raise FeatlibError(
            f"write_stories: megabytes is {megabytes}; it must be a number above 0, such as 3."
        )
    rng = random.Random(seed)
    stories, left = [], megabytes * 1e6
    while left > 0:
        stories.append(write_story(draw_recipe(rng), rng))
        left -= len(stories[-1].encode())
    return stories


def draw_recipe(rng: random.Random) -> Recipe:
    """Draw the noun, the verb, an adjective that suits the noun, and the features of one story."""
    grammar = load_grammar()
    noun = grammar.draw_row("thing", rng.random)
    out: list[str] = []
    grammar.nodes["activity"]({}, out, rng.random)
    verb = "".join(out)
    adjective = _write(noun["adj"], {}, rng.random)
    features = frozenset(name for name, share in FEATURES.items() if rng.random() < share)
    return Recipe(_write(noun[""], {}, rng.random), verb, adjective, features)


def write_story(recipe: Recipe, rng: random.Random) -> str:
    """Write one story that uses the noun, the verb and the adjective of `recipe`.

    A feature is asked of the plot that is drawn: a plot without room for, say, a twist has none.
    """
    grammar, draw = load_grammar(), rng.random
    child = draw() < 0.62
    kept = _cast(grammar, child, draw)
    kept["o"] = grammar.rows_by_name("thing")[recipe.noun]
    kept["q"] = {"": recipe.adjective}
    kept["v"] = {"": recipe.verb}
    kept.update({f"?{feature}": {} for feature in recipe.features})
    out: list[str] = []
    grammar.nodes["child_plot" if child else "animal_plot"](kept, out, draw)
    shape = draw()
    paragraph = "\n\n" if shape < 0.55 else "\n" if shape < 0.85 else " "
    return tidy("".join(out), paragraph)


def _cast(grammar: Grammar, child: bool, draw: Callable[[], float]) -> Kept:
    """Draw the hero h, a friend f, the grown-up g, a wild animal a, the place p, the food d."""
    kept: Kept = {}
    for key in ("h", "f", "k"):  # k: a third one, where a plot needs it
        male = draw() < 0.5
        names = "pet_name" if not child else "boy_name" if male else "girl_name"
        row = grammar.draw_row("human" if child else "animal", draw)
        while not child and any(row is other.get("row") for other in kept.values()):
            row = grammar.draw_row("animal", draw)
        name = grammar.draw_other(names, kept, draw)
        kind = ("boy" if male else "girl") if child else row[""]
        kept[key] = {**row, **PRONOUNS[male], "": name, "kind": kind, "row": row}  # type: ignore
    male = draw() < 0.5
    elder = grammar.draw_row("father" if male else "mother", draw)
    elder = {**elder, **PRONOUNS[male]}
    elder[""] = f"{kept['h']['his']} {_write(elder[''], kept, draw)}"
    kept["g"] = elder
    wild = grammar.draw_row("animal", draw)
    while any(wild is other.get("row") for other in kept.values()):
        wild = grammar.draw_row("animal", draw)
    kept["a"] = {**wild, **PRONOUNS[draw() < 0.5]}
    kept["p"] = grammar.draw_row("place", draw)
    kept["d"] = grammar.draw_row("food", draw)
    return kept


# ---------------------------------------------------------------------------------- the grammar


class Grammar:
    """The compiled sections of a grammar file: `nodes` write a draw, `tables` hold the rows."""

    def __init__(self, text: str) -> None:
        self.nodes: dict[str, Node] = {}
        self.tables: dict[str, list[dict[str, str | Node]]] = {}
        sections = list(_read_sections(text))
        self.names = {name for name, _, _, _ in sections}
        self.columns = {name: columns for name, kind, columns, _ in sections if kind == "table"}
        for name, kind, columns, lines in sections:
            if kind == "table":
                self.tables[name] = [self._row(line, columns, name) for line in lines]
                self.nodes[name] = _choose([_field(row[""]) for row in self.tables[name]])
            else:
                self.nodes[name] = _choose([self._compile(line) for line in lines])

    def draw_row(self, table: str, draw: Callable[[], float]) -> dict[str, str | Node]:
        rows = self.tables[table]
        return rows[int(draw() * len(rows))]

    @cache  # noqa: B019 - the only grammar lives as long as the process
    def rows_by_name(self, table: str) -> dict[str, dict[str, str | Node]]:
        return {str(row[""]): row for row in self.tables[table]}

    def draw_other(self, rule: str, kept: Kept, draw: Callable[[], float]) -> str:
        """Draw from `rule` what the story has not kept yet (the ninth draw is taken anyway)."""
        taken = {value.get("") for value in kept.values()}
        for _ in range(9):
            text = _write(self.nodes[rule], kept, draw)
            if text not in taken:
                break
        return text

    def _row(self, line: str, columns: list[str], table: str) -> dict[str, str | Node]:
        cells = [cell.strip() for cell in line.split(";")]
        if len(cells) != len(columns) + 1:
            raise FeatlibError(
                f"stories.txt: the row {line!r} of {table} has {len(cells)} cells, "
                f"not {len(columns) + 1}; part the cells by ';'."
            )
        row: dict[str, str | Node] = {"": cells[0]}
        for column, cell in zip(columns, cells[1:], strict=True):
            items = [item.strip() for item in cell.split(",")]
            plain = len(items) == 1 and not re.search(r"[\[{]", cell)
            row[column] = cell if plain else _choose([self._compile(item) for item in items])
        return row

    def _compile(self, text: str) -> Node:
        node, end = self._sequence(text, 0, "")
        if end != len(text):
            raise FeatlibError(f"stories.txt: a stray {text[end]!r} in {text!r}.")
        return node

    def _sequence(self, text: str, at: int, stops: str) -> tuple[Node, int]:
        """Compile from `at` up to one of `stops`; also give where that one stands."""
        parts: list[str | Node] = []
        while at < len(text) and text[at] not in stops:
            if text[at] == "[":
                node, at = self._alternatives(text, at + 1)
                parts.append(node)
            elif text[at] == "{":
                end = text.index("}", at)
                parts.append(self._slot(text[at + 1 : end]))
                at = end + 1
            else:
                end = re.compile(r"[\[\]{|]|$").search(text, at + 1).start()  # type: ignore
                parts.append(text[at:end])
                at = end
        return _join(parts), at

    def _alternatives(self, text: str, at: int) -> tuple[Node, int]:
        asked = re.compile(r"\?(\w+):").match(text, at)
        at = asked.end() if asked else at
        nodes = []
        while True:
            node, at = self._sequence(text, at, "|]")
            nodes.append(node)
            if at == len(text):
                raise FeatlibError(f"stories.txt: a '[' without its ']' in {text!r}.")
            at += 1
            if text[at - 1] == "]":
                break
        if not asked:
            return _choose(nodes), at
        if asked[1] not in FEATURES:
            raise FeatlibError(f"stories.txt: no feature {asked[1]!r}; there are {[*FEATURES]}.")
        return _if_asked(f"?{asked[1]}", nodes[0], _choose(nodes[1:] or [_join([])])), at

    def _slot(self, text: str) -> Node:
        match = re.fullmatch(r"(!?)(?:(\w+)=)?(\w+)(?:\.(\w+))?(?:\.(\w+))?", text)
        if not match:
            raise FeatlibError(f"stories.txt: the slot {{{text}}} cannot be read.")
        silent, key, name, column, form = match.groups()
        if name not in self.names:
            node = _kept(name, column or "", form)
        else:
            node = self._draw_of(name, column)
        return self._keep(key, name, node, bool(silent)) if key else node

    def _draw_of(self, rule: str, column: str | None) -> Node:
        def write(kept: Kept, out: list[str], draw: Callable[[], float]) -> None:
            if not column:
                self.nodes[rule](kept, out, draw)
            elif column in self.columns.get(rule, ()):
                out.append(_write(self.draw_row(rule, draw)[column], kept, draw))
            else:
                out.append(inflect(_write(self.nodes[rule], kept, draw), column))

        return write

    def _keep(self, key: str, rule: str, node: Node, silent: bool) -> Node:
        def write(kept: Kept, out: list[str], draw: Callable[[], float]) -> None:
            taken = {value.get("") for value in kept.values()}
            for _ in range(9):  # two things of one story should not be the same
                if rule in self.tables:
                    row = self.draw_row(rule, draw)
                else:
                    row = {"": _write(node, kept, draw)}
                if row[""] not in taken:
                    break
            kept[key] = row
            if not silent:
                out.append(row[""])  # type: ignore[arg-type]

        return write


@cache
def load_grammar() -> Grammar:
    """Read and compile the grammar that is part of the package."""
    return Grammar(resources.files("featlib").joinpath("stories.txt").read_text("utf-8"))


def _read_sections(text: str) -> list[tuple[str, str, list[str], list[str]]]:
    """Cut a grammar file into (name, kind, columns, lines), lines as often as they weigh."""
    text = re.sub(r"\n[ \t]+", " ", re.sub(r"(?m)^#.*\n", "", text))
    sections = []
    for block in re.split(r"(?m)^== ", text)[1:]:
        head, _, body = block.partition("\n")
        lines = [line.strip() for line in body.split("\n") if line.strip()]
        if "=" in head:
            name, _, items = head.partition("=")
            lines = [item.strip() for item in items.split(",")] + lines
            sections.append((name.strip(), "list", [], lines))
            continue
        name, colon, columns = head.partition(":")
        weighed = []
        for line in lines:
            weight = re.match(r"(\d+)\* ", line)
            times = int(weight[1]) if weight else 1
            weighed += [line[weight.end() :] if weight else line] * times
        sections.append((name.strip(), "table" if colon else "rule", columns.split(), weighed))
    return sections


# Below, the small closures that the grammar compiles to. `draw` gives numbers in [0, 1).


def _write(node: str | Node, kept: Kept, draw: Callable[[], float]) -> str:
    if isinstance(node, str):
        return node
    out: list[str] = []
    node(kept, out, draw)
    return "".join(out)


def _field(value: str | Node) -> Node:
    return value if callable(value) else _join([value])


def _join(parts: list[str | Node]) -> Node:
    if len(parts) == 1 and callable(parts[0]):
        return parts[0]

    def write(kept: Kept, out: list[str], draw: Callable[[], float]) -> None:
        for part in parts:
            if part.__class__ is str:
                out.append(part)  # type: ignore[arg-type]
            else:
                part(kept, out, draw)  # type: ignore[operator]

    return write


def _choose(nodes: list[Node]) -> Node:
    count = len(nodes)
    if count == 1:
        return nodes[0]
    return lambda kept, out, draw: nodes[int(draw() * count)](kept, out, draw)


def _if_asked(feature: str, yes: Node, no: Node) -> Node:
    return lambda kept, out, draw: (yes if feature in kept else no)(kept, out, draw)


def _kept(key: str, column: str, form: str | None) -> Node:
    def write(kept: Kept, out: list[str], draw: Callable[[], float]) -> None:
        row = kept[key]
        value = row.get(column)
        if value is None:  # not a column: a form of the name itself
            out.append(inflect(row[""], column))  # type: ignore[arg-type]
        elif form:
            out.append(inflect(_write(value, kept, draw), form))
        elif value.__class__ is str:
            out.append(value)  # type: ignore[arg-type]
        else:
            value(kept, out, draw)  # type: ignore[operator]

    return write


# ----------------------------------------------------------------------------------- the language


@cache
def inflect(phrase: str, form: str) -> str:
    """Put a phrase into a form: `ed` and `ing` change its first word, `s` its last one.

    >>> inflect("run up the hill", "ed"), inflect("hide", "ing"), inflect("tiny mouse", "s")
    ('ran up the hill', 'hiding', 'tiny mice')
    """
    if form == "s":
        head, _, word = phrase.rpartition(" ")
        return f"{head} {_plural(word)}".strip()
    if form not in ("ed", "ing"):
        raise FeatlibError(f"stories.txt: {phrase!r} has no column or form {form!r}.")
    verb, _, rest = phrase.partition(" ")
    past, gerund = _irregular_verbs().get(verb, (None, None))
    if form == "ed":
        word = past or _stem(verb, "ed") + "ed"
    else:
        word = gerund or _stem(verb, "ing") + "ing"
    return f"{word} {rest}".strip()


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


@cache
def _irregular_verbs() -> dict[str, tuple[str, str | None]]:
    forms = (row for row in load_grammar().tables["irregular_verb"])
    return {str(row[""]): (str(row["ed"]), None) for row in forms}


@cache
def _irregular_plurals() -> dict[str, str]:
    return {str(row[""]): str(row["s"]) for row in load_grammar().tables["irregular_plural"]}


def _plural(noun: str) -> str:
    if irregular := _irregular_plurals().get(noun):
        return irregular
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return noun + "es"
    return noun[:-1] + "ies" if re.search(r"[^aeiou]y$", noun) else noun + "s"


_SPACES = re.compile(r" +(?=[ ,.!?\n]|$)|(?<=\n) +")
_AN = re.compile(r"\b([Aa]) (?=[aeiou]|hour|honest)(?!uni|use|one\b|once)")
_START = re.compile(r'(?:^|\n|[.!?] |\." |(?:(?<=\s)|^)"|\^)[a-z]')


def tidy(text: str, paragraph: str = "\n\n") -> str:
    """Set paragraphs, spaces, a or an, and the capitals of sentences.

    >>> tidy('a owl sat. "look!" it said. // the end', " ")
    'An owl sat. "Look!" it said. The end'
    """
    text = _SPACES.sub("", text).strip()
    text = _AN.sub(r"\1n ", re.sub(r" ?// ?", "\n", text))
    text = _START.sub(lambda match: match.group().upper(), text).replace("^", "")
    return text if paragraph == "\n" else text.replace("\n", paragraph)
