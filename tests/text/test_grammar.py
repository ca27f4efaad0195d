"""The grammar engine against hand-written expectations."""

import random
import re

import pytest

from featlib.text.grammar import Grammar, tidy

TOY = """
# a comment
== start
{!x=pet}a {x.adj} {x} [?loud:barked|slept]. {x.s} {act.ed} and {act.ing}

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
"""


def write(text: str, rule: str, seed: int = 0, kept: dict | None = None) -> str:
    grammar = Grammar(text, flags=["loud"])
    return grammar.write(rule, kept if kept is not None else {}, random.Random(seed).random)


def test_a_draw_is_kept_with_its_columns() -> None:
    texts = {write(TOY, "start", seed) for seed in range(60)}
    assert all(" slept. " in text for text in texts)
    assert " barked. " in write(TOY, "start", kept={"?loud": {}})  # the flag's alternative
    for text in texts:
        first, plural = text.split()[2], text.split(". ")[1].split()[0]
        assert (first, plural) in {("dog", "dogs"), ("mouse", "mice")}
        assert not (first == "mouse" and "gray" not in text)
        assert re.search(r"\b(ran home|hopped) and (running home|hopping)$", text)


def test_weights_are_shares() -> None:
    draws = [write(TOY, "rare", seed) for seed in range(600)]
    assert 0.85 < draws.count("common") / len(draws) < 0.95


def test_two_kept_things_differ() -> None:
    text = TOY + "\n== pair\n{a=pet} {b=pet}\n"
    assert {write(text, "pair", seed) for seed in range(30)} == {"dog mouse", "mouse dog"}


FORMS = """
    run home>ed>ran home, run home>ing>running home, hop>ed>hopped, knit a sock>ing>knitting a sock,
    hide>ing>hiding, lie down>ing>lying down, carry it>ed>carried it, play>ed>played,
    see>ing>seeing, mix>ed>mixed, listen>ed>listened, look>ing>looking,
    mouse>s>mice, berry bush>s>berry bushes, toy>s>toys, pony>s>ponies, fox>s>foxes
"""


@pytest.mark.parametrize("form", [form.strip() for form in FORMS.split(",")])
def test_forms_of_words(form) -> None:
    phrase, ending, expected = form.split(">")
    assert Grammar(TOY, ["loud"]).inflect(phrase, ending) == expected


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
