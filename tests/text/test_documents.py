"""Documents: copies go, refusals spare what is text, no text stands on both sides of a split."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_texts import documents, program, prose

from featlib import FeatlibError
from featlib.text.documents import corpus_hash, decode, describe, refuse, split_documents


@given(st.binary(max_size=200))
def test_decode_agrees_with_python(raw: bytes) -> None:
    text = decode(raw)
    try:
        expected = raw.decode("utf-8")
    except UnicodeDecodeError:
        assert text is None
    else:
        assert text == re.sub("\r\n?", "\n", expected.removeprefix("\ufeff"))


def test_code_with_few_letters_is_no_data_table() -> None:
    assert refuse(program(1), "python") is None
    assert refuse("if x[0] == 1 and not y:\n    raise ValueError(x)\n" * 20, "python") is None
    assert refuse("{1, 2, 'three', nil},\n" * 40, "lua") == "data table"
    assert refuse("{1, 2, 'three', nil},\n" * 40, "babylm") is None


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(3, 60),
    validation=st.floats(0.01, 0.4),
    test=st.floats(0.01, 0.4),
    seed=st.integers(0, 5),
)
def test_split_is_a_partition_with_nothing_empty(n, validation, test, seed) -> None:
    whole = documents(*(f"text number {i}" for i in range(n)))
    parts = split_documents(whole, validation=validation, test=test, seed=seed)
    assert list(parts) == ["train", "validation", "test"]
    assert all(parts.values()) and sum(map(len, parts.values())) == n
    assert set().union(*parts.values()) == set(whole)
    assert all(part == [one for one in whole if one in part] for part in parts.values())
    with pytest.raises(FeatlibError, match="2 documents"):
        split_documents(whole[:2], validation=validation, test=test, seed=seed)


def test_split_has_its_shares_and_stays_put() -> None:
    whole = documents(*(prose(i, 8) + str(i) for i in range(4000)))
    shares = {"validation": 0.1, "test": 0.2}
    parts = split_documents(whole, **shares, seed=0)
    for name, share in shares.items():  # binomial: four standard deviations
        assert abs(len(parts[name]) / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5
    for name, part in split_documents(whole[::-2], **shares, seed=0).items():
        assert set(part) <= set(parts[name])
    other = split_documents(whole, **shares, seed=1)
    both = len(set(other["test"]) & set(parts["test"])) / len(parts["test"])
    assert 0.1 < both < 0.3  # independent of the first: a fifth


def test_what_is_told_of_documents() -> None:
    borders = [("ab", "c"), ("a", "bc"), ("abc",), ("c", "ab"), (), ("",)]
    assert len({corpus_hash(documents(*texts)) for texts in borders}) == len(borders)
    here = [*documents("añb"), *documents("c", source="there")]
    table = describe({"python": {"train": here, "test": []}, "lua": {"train": here[:1]}})
    assert table.to_numpy().tolist() == [
        ["python", "train", 2, 4, 5e-6, 2],
        ["python", "test", 0, 0, 0.0, 0],
        ["lua", "train", 1, 3, 4e-6, 1],
    ]
