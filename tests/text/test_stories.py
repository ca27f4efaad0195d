"""The stories' bounds, their recipe, and the grammar's promises to itself."""

import random
import re
from collections import Counter
from importlib import resources

import pytest
import zstandard

from featlib.text import stories
from featlib.text.stories import FEATURES, Recipe, draw_recipe, load_grammar, write_stories

# Past tenses that a regular ending would get wrong, from general knowledge.
IRREGULAR = """
    run:ran swim:swam sing:sang dig:dug tell:told ride:rode go:went build:built draw:drew
    make:made fly:flew catch:caught feed:fed write:wrote throw:threw slide:slid cut:cut
    sweep:swept do:did swing:swung blow:blew shake:shook spin:spun buy:bought eat:ate lie:lay
    win:won hide:hid keep:kept hold:held wear:wore put:put drink:drank sleep:slept wind:wound
    spread:spread read:read sit:sat ring:rang say:said find:found give:gave take:took get:got
    see:saw think:thought leave:left bring:brought send:sent stick:stuck let:let hang:hung
    bend:bent tear:tore fall:fell stand:stood light:lit fight:fought lose:lost forget:forgot
    speak:spoke grow:grew hear:heard sell:sold set:set shut:shut teach:taught weave:wove
    meet:met bite:bit choose:chose creep:crept leap:leaped pay:paid hit:hit
"""
CAST = {"h", "f", "k", "g", "a", "p", "d", "sky", "o", "q", "v"}
CAST_COLUMNS = {
    *("he", "him", "his", "kind", "name", "met", "word", "home", "sound", "move", "eats", "doing"),
}

SOURCE = resources.files("featlib.text").joinpath("stories.txt").read_text("utf-8")


@pytest.fixture(scope="module")
def two_megabytes() -> list[str]:
    return write_stories(megabytes=2, seed=0)


@pytest.fixture(scope="module")
def recipes_and_stories() -> list[tuple[Recipe, str]]:
    rng = random.Random(3)
    return [(recipe := draw_recipe(rng), stories.write_story(recipe, rng)) for _ in range(600)]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def sentences(texts: list[str]) -> list[str]:
    return [part for text in texts for part in re.split(r"(?<=[.!?])\s+|\n+", text)]


def test_stories_are_not_a_template_toy(two_megabytes) -> None:
    text = "\n\n".join(two_megabytes).encode()[:2_000_000]
    assert len(text) / len(zstandard.compress(text, 19)) <= 5.5
    tokens = words(text.decode())
    assert len(set(tokens)) >= 1_500
    _, most = Counter(zip(*(tokens[i:] for i in range(8)), strict=False)).most_common(1)[0]
    assert most / len(tokens) <= 0.0005


def test_lengths_are_varied_and_the_size_is_what_was_asked(two_megabytes) -> None:
    lengths = sorted(len(story.split()) for story in two_megabytes)
    assert lengths[0] >= 60 and lengths[-1] <= 300
    assert lengths[len(lengths) * 9 // 10] - lengths[len(lengths) // 10] >= 40
    assert 2e6 <= sum(len(story.encode()) for story in two_megabytes) < 2e6 + 3_000


def test_same_seed_same_stories_and_a_smaller_request_is_a_beginning(two_megabytes) -> None:
    short = write_stories(megabytes=0.03, seed=0)
    assert two_megabytes[: len(short)] == short == write_stories(megabytes=0.03, seed=0)


def test_other_seeds_share_few_sentences(two_megabytes) -> None:
    others = write_stories(megabytes=2, seed=1)
    assert not set(others) & set(two_megabytes)
    known = set(sentences(others))
    long = [text for text in sentences(two_megabytes) if len(text.split()) >= 8]
    assert sum(text in known for text in long) / len(long) < 0.05


def test_each_story_uses_its_noun_verb_and_adjective(recipes_and_stories) -> None:
    inflect = load_grammar().inflect
    for recipe, story in recipes_and_stories:
        verbs = [recipe.verb, inflect(recipe.verb, "ed"), inflect(recipe.verb, "ing")]
        for asked in ([recipe.noun], [recipe.adjective], verbs):
            assert any(words in story.lower() for words in asked), (recipe, story)


def test_recipes_ask_for_features_at_their_shares(recipes_and_stories) -> None:
    asked = [recipe.features for recipe, _ in recipes_and_stories]
    for feature, share in FEATURES.items():
        expected = share * (1 - FEATURES["bad_ending"]) if feature == "twist" else share
        # Four standard errors of a share of 600 draws.
        assert abs(sum(feature in each for each in asked) / 600 - expected) < 0.08, feature
    assert not any({"twist", "bad_ending"} <= each for each in asked)


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_changes_the_stories_that_have_room_for_it(feature: str) -> None:
    def tell(seed: int, *features: str) -> str:
        recipe = Recipe("kite", "swim", "red", frozenset(features))
        return stories.write_story(recipe, random.Random(seed))

    assert sum(tell(seed, feature) != tell(seed) for seed in range(200)) >= 0.2 * 200


FAULTS = re.compile(
    r"[{}\[\]|;^_]|  |\.\.|,,| [.,!?]|//|[.?!] [a-z]"
    r"|\ban? (?:an?|the|his|her)\b|\b(\w{2,}) \1\b(?<!had had)|\ba [aeio]\w|\ban [^aeiouh]"
)


def test_text_is_well_formed(two_megabytes) -> None:
    for story in two_megabytes:
        assert not FAULTS.search(story), story
        assert story.count('"') % 2 == 0, story
        assert re.fullmatch(r'[A-Z"].*[.!?]"?', story, re.DOTALL), story


def test_no_pronoun_is_hard_wired(monkeypatch) -> None:
    monkeypatch.setitem(stories.PRONOUNS, "female", stories.PRONOUNS["male"])
    text = " ".join(write_stories(megabytes=0.5, seed=2))
    assert not re.findall(r"\b(?:she|her|hers|herself)\b", text, re.IGNORECASE)


def test_past_tenses_are_irregular_where_english_is() -> None:
    grammar, past = load_grammar(), dict(pair.split(":") for pair in IRREGULAR.split())
    for name in ("activity", "thing", "place"):
        body = re.search(rf"(?ms)^== {name}\b.*?(?=^== )", SOURCE)
        assert body
        for verb in set(words(body[0])) & set(past):
            assert grammar.inflect(verb, "ed") == past[verb]


def test_every_slot_of_the_grammar_is_known_and_every_section_is_used() -> None:
    grammar = load_grammar()
    slots = re.findall(r"\{!?(?:(\w+)=)?(\w+)(?:\.(\w+))?(?:\.(\w+))?\}", SOURCE)
    kept = {key for key, *_ in slots if key}
    assert not kept & (grammar.names | CAST), "a kept name hides a section or one of the cast"
    columns = {column for table in grammar.columns.values() for column in table}
    for _, name, column, form in slots:
        assert name in grammar.names | kept | CAST, name
        assert column in columns | CAST_COLUMNS | {"", "ed", "ing", "s"}, f"{name}.{column}"
        assert form in {"", "ed", "ing", "s"}, f"{name}.{column}.{form}"
    by_code = {"child_plot", "animal_plot", "thing", "activity", "human", "animal", "place", "food"}
    by_code |= {"boy_name", "girl_name", "pet_name", "mother", "father"}
    by_code |= {"irregular_verb", "irregular_plural"}
    by_code |= {f"{who}_{role}" for who in ("child", "animal") for role in ("friend", "third")}
    assert grammar.names - {name for _, name, *_ in slots} <= by_code
