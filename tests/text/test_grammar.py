"""The grammar engine against hand-written expectations."""

import random
import re

import pytest

from featlib.text.grammar import Grammar, tidy

GRAMMAR = Grammar(
    """
# a comment
== start
{!x=pet}a {x.adj} {x} [?loud:barked|slept]. {x.s} {act.ed} and {act.ing}
== pair
{a=pet} {b=pet}
== pet: adj
dog ; big, small
mouse ; gray
== act = run home,
  hop
== rare
9* common
seldom
== irregular_verb: ed
run ; ran
== irregular_plural: s
mouse ; mice
""",
    flags=["loud"],
)


def write(section: str, seed: int = 0, **kept: dict) -> str:
    return GRAMMAR.write(f"{{{section}}}", kept, random.Random(seed).random)


def test_a_draw_is_kept_with_its_columns() -> None:
    texts = {write("start", seed) for seed in range(60)}
    assert all(" slept. " in text for text in texts)
    assert " barked. " in write("start", **{"?loud": {}})  # the flag's alternative
    for text in texts:
        first, plural = text.split()[2], text.split(". ")[1].split()[0]
        assert (first, plural) in {("dog", "dogs"), ("mouse", "mice")}
        assert not (first == "mouse" and "gray" not in text)
        assert re.search(r"\b(ran home|hopped) and (running home|hopping)$", text)


def test_weights_are_shares_and_two_kept_things_differ() -> None:
    draws = [write("rare", seed) for seed in range(600)]
    assert 0.85 < draws.count("common") / len(draws) < 0.95
    assert {write("pair", seed) for seed in range(30)} == {"dog mouse", "mouse dog"}


def test_forms_of_words() -> None:
    for form in (
        """
        run home>ed>ran home,run home>ing>running home,hop>ed>hopped,knit a sock>ing>knitting a sock
        hide>ing>hiding,lie down>ing>lying down,carry it>ed>carried it,play>ed>played,mix>ed>mixed
        see>ing>seeing,listen>ed>listened,look>ing>looking,mouse>s>mice,berry bush>s>berry bushes
        toy>s>toys,pony>s>ponies,fox>s>foxes
    """.strip()
        .replace("\n", ",")
        .split(",")
    ):
        phrase, ending, expected = form.strip().split(">")
        assert GRAMMAR.inflect(phrase, ending) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a owl and a unicorn saw an ant.", "An owl and a unicorn saw an ant."),
        ('"oh no!" said Tom. he ran .', '"Oh no!" said Tom. He ran.'),
        ('"oh no!" his big sister said. "go."', '"Oh no!" his big sister said. "Go."'),
        ('"oh no!" his sister ran home.', '"Oh no!" His sister ran home.'),
        ('"can I come," asked Ann.', '"Can I come?" asked Ann.'),
        ('"what a day," said Ann.', '"What a day," said Ann.'),
        ("Nora, in boots,, sat // then  stood", "Nora, in boots, sat\nThen stood"),
        ('he said "stop." ^then he left', 'He said "Stop." Then he left'),
    ],
)
def test_tidy(raw: str, expected: str) -> None:
    assert tidy(raw, "\n") == expected
