"""Short stories in the words of a small child: the embedded stand-in for TinyStories.

They follow the recipe of that data set (Eldan & Li 2023, section 2): each story must use one noun,
one verb and one adjective drawn at random, and some of six features (dialogue, a moral, a conflict,
foreshadowing, a twist, a bad ending). There a large language model wrote the story; here a grammar
does: its words, scenes and plots stand in `stories.txt`, its syntax in `featlib.text.grammar`.

Deviation: the paper fine-tunes on TinyStories itself; we write stories after its recipe for runs
that bring no text of their own, because a first run should need no account and no large download.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from importlib import resources

from featlib.text.grammar import Draw, Grammar, Kept, Row, tidy

FEATURES = {  # feature: share of the stories that are asked to have it
    "dialogue": 0.7,
    "moral": 0.4,
    "conflict": 0.3,
    "foreshadowing": 0.25,
    "twist": 0.25,
    "bad_ending": 0.12,
}
PARAGRAPHS = {"\n\n": 0.55, "\n": 0.3, " ": 0.15}  # what parts the paragraphs: share of stories
CHILDREN = 0.62  # share of the stories whose hero is a child; the others are about animals
PRONOUNS = {
    "male": {"he": "he", "him": "him", "his": "his"},
    "female": {"he": "she", "him": "her", "his": "her"},
}


@dataclass(frozen=True)
class Recipe:
    """What a story is asked to contain."""

    noun: str  # a thing, by its name in the grammar
    verb: str  # something to do: a verb in its base form with what belongs to it
    adjective: str  # one that can be said of the noun
    features: frozenset[str]  # of FEATURES


def write_stories(*, megabytes: float, seed: int) -> list[str]:
    """Write stories until they hold `megabytes` (10^6 bytes of UTF-8); equal seeds, equal stories.

    A smaller request gives the first stories of a larger one.
    """
    rng = random.Random(seed)
    stories, left = [], megabytes * 1e6
    while left > 0:
        stories.append(write_story(draw_recipe(rng), rng))
        left -= len(stories[-1].encode())
    return stories


def draw_recipe(rng: random.Random) -> Recipe:
    """Draw the noun, the verb, an adjective that suits the noun, and the features of one story."""
    grammar, draw = load_grammar(), rng.random
    thing = grammar.draw_row("thing", draw)
    verb, adjective = (grammar.write(text, {}, draw) for text in ("{activity}", thing["adj"]))
    features = {name for name, share in FEATURES.items() if draw() < share}
    if "bad_ending" in features:  # the twists of the plots are happy ones
        features.discard("twist")
    return Recipe(thing[""], verb, adjective, frozenset(features))


def write_story(recipe: Recipe, rng: random.Random) -> str:
    """Write one story that uses the noun, the verb and the adjective of `recipe`.

    The features are asked of the plot that is drawn: one without room for, say, a twist has none.
    """
    grammar, draw = load_grammar(), rng.random
    child = draw() < CHILDREN
    kept = _cast(grammar, child, draw)
    kept["o"] = next(row for row in grammar.sections["thing"] if row[""] == recipe.noun)
    kept |= {"q": {"": recipe.adjective}, "v": {"": recipe.verb}}
    kept |= {f"?{feature}": {} for feature in recipe.features}
    text = grammar.write("{child_plot}" if child else "{animal_plot}", kept, draw)
    (paragraph,) = rng.choices(list(PARAGRAPHS), list(PARAGRAPHS.values()))
    return tidy(text, paragraph)


@cache
def load_grammar() -> Grammar:
    """Read and compile the grammar that is part of the package."""
    text = resources.files("featlib.text").joinpath("stories.txt").read_text("utf-8")
    return Grammar(text, flags=FEATURES)


def _cast(grammar: Grammar, child: bool, draw: Draw) -> Kept:
    """Draw who and what a plot may speak of, under the names by which the grammar calls them.

    h: the hero, f: a friend, k: a third one, g: the grown-up, a: a wild animal, p: the place,
    d: the food, sky: the weather. No two characters share a name, and no two animals a kind.
    """
    kept: Kept = {}
    who = "child" if child else "animal"
    animals = list(grammar.sections["animal"])
    for key, role in (("h", None), ("f", "friend"), ("k", "third")):
        sex = "male" if draw() < 0.5 else "female"
        row = grammar.sections["human"][0] if child else animals.pop(int(draw() * len(animals)))
        kind = {"male": "boy", "female": "girl"}[sex]
        names = f"{{{kind}_name}}" if child else "{pet_name}"
        name = grammar.write(names, {}, draw)
        while name in {one["name"] for one in kept.values()}:
            name = grammar.write(names, {}, draw)
        kept[key] = {**row, **PRONOUNS[sex], "kind": kind if child else row[""], "name": name}
        kept[key] |= _introduction(grammar, f"{{{who}_{role}}}", name) if role else {"": name}
    sex = "male" if draw() < 0.5 else "female"
    elder = grammar.draw_row("father" if sex == "male" else "mother", draw)
    title = f"{kept['h']['his']} {elder['']}"
    kept["g"] = {**elder, **PRONOUNS[sex], "word": elder[""], "": title}
    sex = "male" if draw() < 0.5 else "female"
    kept["a"] = {**animals[int(draw() * len(animals))], **PRONOUNS[sex]}
    for key, table in (("p", "place"), ("d", "food"), ("sky", "weather")):
        kept[key] = grammar.draw_row(table, draw)
    return kept


def _introduction(grammar: Grammar, words: str, name: str) -> Row:
    """Name a character with some words the first time, and plainly once it was named or met."""
    known: list[bool] = []

    def named(kept: Kept, draw: Draw) -> str:
        return name if known else met(kept, draw) and grammar.write(words, kept, draw)

    def met(kept: Kept, draw: Draw) -> str:
        known.append(True)
        return name

    return {"": named, "met": met}
