"""Documents: copies go, refusals spare what is text, no text stands on both sides of a split."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_texts import document, program, prose

from featlib import FeatlibError
from featlib.text.documents import (
    corpus_hash,
    decode,
    deduplicate,
    describe,
    refuse,
    split_documents,
)


@given(st.binary(max_size=200))
def test_decode_agrees_with_python(raw: bytes) -> None:
    text = decode(raw)
    try:
        expected = raw.decode("utf-8")
    except UnicodeDecodeError:
        assert text is None
    else:
        assert text is not None and "\r" not in text
        assert text.split("\n") == expected.removeprefix("\ufeff").replace("\r\n", "\n").replace(
            "\r", "\n"
        ).split("\n")


def test_code_with_few_letters_is_no_data_table() -> None:
    assert refuse(program(1), "python") is None
    assert refuse("if x[0] == 1 and not y:\n    raise ValueError(x)\n" * 20, "python") is None
    assert refuse("{1, 2, 'three', nil},\n" * 40, "lua") == "data table"
    assert refuse("{1, 2, 'three', nil},\n" * 40, "babylm") is None


def test_duplicates_go_and_the_rest_stays_in_order() -> None:
    long = prose(1, 400)
    words = long.split()
    near = " ".join([*words[:200], "changed", *words[201:]])  # 5 of 396 shingles differ
    part = " ".join(words[50:250])  # wholly inside
    half = " ".join([*words[:100], *prose(2, 100).split()])  # half inside: its own document
    others = [prose(i) for i in range(10, 30)]
    texts = [part, others[0], "  " + others[0].replace(" ", "\n\t"), near, half, long, *others[1:]]
    kept, removed = deduplicate([document(text) for text in texts])
    assert removed == len(texts) - len(kept) == 3
    expected = {near if len(near) > len(long) else long, half}
    assert [one.text for one in kept if " ".join(one.text.split()) not in others] == [
        text for text in texts if text in expected
    ]
    assert sum(one.text.split() == others[0].split() for one in kept) == 1
    assert {one.text for one in kept} >= set(others[1:])


def test_threshold_is_of_shared_runs_of_words() -> None:
    """Against the exact share of distinct five-word runs, counted with plain sets."""
    words = prose(1, 600).split()

    def share(text: str) -> float:
        mine, theirs = (
            {tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in (text.split(), words)
        )
        return len(mine & theirs) / len(mine)

    for fresh in range(0, 200, 10):
        text = " ".join([*words[: 300 - fresh], *prose(fresh + 5, fresh).split()])
        _, removed = deduplicate([document(" ".join(words)), document(text)])
        assert removed == (share(text) >= 0.8), (fresh, share(text))


def test_short_and_empty_texts_are_compared_whole() -> None:
    kept, removed = deduplicate([document(t) for t in ("a b", "a  b", "", " ", "a c", "a b c d")])
    assert [one.text for one in kept] == ["a  b", " ", "a c", "a b c d"] and removed == 2


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(3, 60),
    validation=st.floats(0.01, 0.4),
    test=st.floats(0.01, 0.4),
    seed=st.integers(0, 5),
)
def test_split_is_a_partition_with_nothing_empty(n, validation, test, seed) -> None:
    documents = [document(f"text number {i}") for i in range(n)]
    parts = split_documents(documents, validation=validation, test=test, seed=seed)
    assert list(parts) == ["train", "validation", "test"]
    assert min(map(len, parts.values())) >= 1
    assert sorted(one.text for part in parts.values() for one in part) == sorted(
        one.text for one in documents
    )
    assert all(part == [one for one in documents if one in part] for part in parts.values())


def test_split_has_its_shares_and_stays_put() -> None:
    documents = [document(prose(i, 8) + str(i)) for i in range(4000)]
    parts = split_documents(documents, validation=0.1, test=0.2, seed=0)
    # Binomial: four standard deviations.
    assert abs(len(parts["validation"]) / 4000 - 0.1) < 4 * (0.1 * 0.9 / 4000) ** 0.5
    assert abs(len(parts["test"]) / 4000 - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5
    fewer = split_documents(documents[::-2], validation=0.1, test=0.2, seed=0)
    for name, part in fewer.items():
        assert set(part) <= set(parts[name])
    other = split_documents(documents, validation=0.1, test=0.2, seed=1)
    both = len(set(other["test"]) & set(parts["test"])) / len(parts["test"])
    assert 0.1 < both < 0.3  # independent of the first: a fifth


def test_too_few_documents_to_split_is_an_error_for_people() -> None:
    with pytest.raises(FeatlibError, match="2 documents cannot be split"):
        split_documents([document("a"), document("b")], validation=0.1, test=0.1, seed=0)


def test_hash_sees_every_border() -> None:
    def of(*texts: str) -> str:
        return corpus_hash([document(text) for text in texts])

    assert len({of("ab", "c"), of("a", "bc"), of("abc"), of("c", "ab"), of(), of("")}) == 6


def test_describe_counts() -> None:
    here = [document("añb"), document("c", "there")]
    table = describe({"python": {"train": here, "test": []}, "lua": {"train": here[:1]}})
    assert table.drop(columns="sha256").to_numpy().tolist() == [
        ["python", "train", 2, 4, 5e-6, 2, "MIT"],
        ["python", "test", 0, 0, 0.0, 0, ""],
        ["lua", "train", 1, 3, 4e-6, 1, "MIT"],
    ]
    assert table["sha256"].tolist() == [corpus_hash(here), corpus_hash([]), corpus_hash(here[:1])]
