"""The reader's own files: every record has its chance, and what is damaged is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import zstandard
from small_texts import program, prose

from featlib import FeatlibError
from featlib.text.files import find_files
from featlib.text.sources import check_corpus, read_corpus


def write_jsonl(path: Path, texts: list[str], key: str = "text") -> Path:
    raw = "".join(json.dumps({key: text, "source": f"s{i}"}) + "\n" for i, text in enumerate(texts))
    data = raw.encode()
    path.write_bytes(zstandard.ZstdCompressor().compress(data) if path.suffix == ".zst" else data)
    return path


def load_files(folder: Path, domain: str = "babylm", megabytes: float = 1.0, seed: int = 0):
    return read_corpus(domain, "files", folder, megabytes, seed)[0]


def load_texts(folder: Path, domain: str = "babylm", megabytes: float = 1.0) -> list[str]:
    return sorted(one.text for one in load_files(folder, domain, megabytes))


@pytest.mark.parametrize("key", ["text", "content"])
def test_jsonl_gives_every_record(tmp_path, key) -> None:
    texts = [prose(i) for i in range(50)]
    write_jsonl(tmp_path / "babylm.jsonl", texts, key)
    taken = load_files(tmp_path)
    assert sorted(one.text for one in taken) == sorted(texts)
    assert [one.text for one in taken] != texts  # shuffled
    assert {one.license for one in taken} == {"unknown"}
    assert taken[0].source == f"s{texts.index(taken[0].text)}"


def test_several_frames_in_small_blocks_and_damaged_ones(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("featlib.text.files.BLOCK", 64)
    texts = [prose(i) for i in range(40)]
    path = tmp_path / "babylm.jsonl.zst"
    two = write_jsonl(path, texts[20:]).read_bytes()
    one = write_jsonl(path, texts[:20]).read_bytes()
    path.write_bytes(one + two)
    assert load_texts(tmp_path) == sorted(texts)
    for cut in (len(two) // 2, len(two) - 1):  # read_across_frames would take it for the end
        path.write_bytes(one + two[:cut])
        with pytest.raises(FeatlibError, match=r"babylm\.jsonl\.zst is cut off"):
            load_files(tmp_path)
    path.write_bytes(b"not zstd at all")
    with pytest.raises(FeatlibError, match=r"babylm\.jsonl\.zst is damaged or no zstd"):
        check_corpus("babylm", "files", tmp_path)


def test_sample_reaches_the_whole_file_with_equal_chances(tmp_path) -> None:
    texts = [f"{i:05d} " + prose(i, 30) for i in range(400)]
    write_jsonl(tmp_path / "babylm.jsonl", texts)
    samples = [load_files(tmp_path, megabytes=0.008, seed=seed) for seed in range(25)]
    drawn = np.array([int(one.text[:5]) for sample in samples for one in sample])
    assert 900 <= len(drawn) <= 1500  # about a tenth of 400 each time
    assert abs((drawn < 200).mean() - 0.5) < 4 * 0.5 / len(drawn) ** 0.5
    assert 8_000 <= sum(len(one.text) for one in samples[0]) < 8_000 + max(map(len, texts))


def test_text_files_become_pieces_and_stories(tmp_path) -> None:
    lines = [prose(i, 30) + "\n" for i in range(300)]
    (tmp_path / "babylm.txt").write_text("".join(lines))
    taken = load_files(tmp_path)
    by_number = sorted(taken, key=lambda one: int(one.name.split()[1]))
    assert "".join(one.text for one in by_number) == "".join(lines)
    assert len(taken) > 2

    stories = [prose(i, 40) + "\n\n" + prose(-i, 40) for i in range(1, 31)]
    end = "<|endoftext|>"
    text = f"\n{end}\n".join(stories[:15]) + end + end.join(stories[15:])
    (tmp_path / "tinystories.txt").write_text(text)
    assert sorted(map(str.strip, load_texts(tmp_path, "tinystories"))) == sorted(stories)


def test_long_prose_is_cut_and_long_code_refused_in_a_small_corpus(tmp_path) -> None:
    write_jsonl(tmp_path / "babylm.jsonl", [prose(1, 5_000), prose(2)])
    texts = load_texts(tmp_path, megabytes=0.1)
    assert max(map(len, texts)) <= 4_000 and prose(1, 5_000).startswith(max(texts, key=len))
    (tmp_path / "python").mkdir()
    (tmp_path / "python/a.py").write_text(program(1, 500))
    text = "\ufeff" + program(2).replace("\n", "\r\n")
    (tmp_path / "python/b.py").write_bytes(text.encode())
    assert load_texts(tmp_path, "python", 0.1) == [program(2)]


def test_hostile_text_survives_and_what_no_utf8_can_hold_is_counted(tmp_path) -> None:
    texts = [
        "<script>alert('x')</script><b>bold</b> &amp; {{ jinja }} <|endoftext|> </s> [INST]",
        "right \u202eto left\u202c, zero\u200bwidth, \u2066isolate\u2069, \ufeff inside",
        "e\u0301 and \U0001f9d1\u200d\U0001f680 and \x1b[31m red \x7f",
    ]
    lines = [
        b'{"text": "lone \\ud800 surrogate"}',
        b'{"text": "nul \\u0000 byte"}',
        b'{"text": "  "}',
        b'{"text": 7}',
        b'["text"]',
        b"{broken",
        b'{"text": "\xff"}',
        b"[" * 100_000,
        *(json.dumps({"text": text}).encode() for text in texts),
    ]
    (tmp_path / "babylm.jsonl").write_bytes(b"\n".join(lines))
    read, skipped = read_corpus("babylm", "files", tmp_path, megabytes=1, seed=0)
    assert {one.text for one in read} == set(texts)
    assert skipped.set_index("reason")["count"].to_dict() == {
        "lone surrogates": 1,
        "NUL bytes": 1,
        "empty": 1,
        "no key text or content": 2,
        "not JSON": 2,
        "not UTF-8": 1,
    }


@pytest.mark.parametrize(
    ("tree", "domain", "expected"),
    [
        (["lua/a.lua", "lua/b/c.lua.zst", "lua/no.csv"], "lua", "a.lua c.lua.zst"),
        (["python.jsonl.zst", "python-old.py"], "python", "python.jsonl.zst"),
        (["tinystories.a.txt"], "tinystories", "tinystories.a.txt"),
        (["lua/a.lua"], "babylm", "! nothing of that name"),
        (["lua/a.lua", "lua.jsonl"], "lua", "! it holds lua, lua.jsonl"),
        (["lua/a.py"], "lua", "! put .lua[.zst]"),
        (["lua/empty.lua"], "lua", "! no text for domain lua"),
    ],
)
def test_files_of_a_domain(tmp_path, tree, domain, expected) -> None:
    for name in tree:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        data = b"" if "empty" in name else b"x = 1\n"
        packed = zstandard.ZstdCompressor().compress(data) if name.endswith("zst") else data
        (tmp_path / name).write_bytes(packed)
    if expected.startswith("! "):
        with pytest.raises(FeatlibError, match=re.escape(expected[2:])):
            check_corpus(domain, "files", tmp_path)
    else:
        assert " ".join(path.name for path in find_files(domain, tmp_path)) == expected
    for folder in ("", "no/such/folder"):
        with pytest.raises(FeatlibError, match="is no folder"):
            check_corpus(domain, "files", folder)
