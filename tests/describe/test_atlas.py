"""The feature atlas: its data against numpy, its files."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch
from made_atlas import HOSTILE, N_FEATURES, VOCAB, Made, read

from featlib.describe import atlas
from featlib.describe.atlas_files import SEARCHED, SHARD
from featlib.dictionaries.features import token_windows
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.family import MODEL_COLORS, MODELS
from featlib.models.mistral import build_model


def test_the_files_hold_every_page_once(made: Made) -> None:
    index, stream = read(made.folder / "index.js"), read(made.folder / "stream.js")
    assert made.size == sum(p.stat().st_size for p in made.folder.iterdir())
    assert {m: known["color"] for m, known in index["models"].items()} == MODEL_COLORS
    ids = np.frombuffer(base64.b64decode(stream["ids"]), dtype="<u2")
    assert np.array_equal(ids, made.stream.ids.reshape(-1)) and stream["bytes"] == 2
    assert [d["name"] for d in index["dictionaries"]] == [*MODELS, "merged-s1"]
    for d in index["dictionaries"]:
        numbers = made.shown[d["model"], d["seed"]]
        assert d.get("numbers", list(range(N_FEATURES))) == numbers.tolist()
        shards = [
            read(made.folder / f"{d['name']}-{n}.js") for n in range(-(-len(numbers) // SHARD))
        ]
        assert sum(map(len, shards)) == d["features"] == len(numbers)
        column = read(made.folder / f"list-{d['name']}.js")
        fired = (made.dense(d["model"], d["seed"]) > 0).sum(0)
        assert column["firings"] == fired[numbers].tolist()
        assert all(len(known) <= SEARCHED for known in column["on"] + column["up"])
    assert index["named"] == [["merged-s1", 66, "the case"], ["base", 69, HOSTILE]]
    assert read(made.folder / "list-base.js")["why"]["3"]["explanation"] == HOSTILE
    known = read(made.folder / "list-lua.js")
    assert known["fates"]["lua>merged"][:4] == "pdup"
    assert known["r"]["lua>merged"][:4] == [900, 300, None, 900], "no best feature, no correlation"


def test_every_autoencoder_has_a_relative_of_each_named_feature(made: Made) -> None:
    told = read(made.folder / "index.js")["relatives"]
    own = made.dense("merged", 1)[:, 66]
    alike = {where: (n, r) for route, where, n, r in told["merged-s1/66"] if route == "alike"}
    assert set(alike) == set(MODELS)
    for m, (feature, r) in alike.items():
        with np.errstate(invalid="ignore"):
            every = np.nan_to_num([np.corrcoef(own, x)[0, 1] for x in made.dense(m).T])
        assert feature == every.argmax() and r == atlas.thousandths(every.max())
    exception = list(made.masks).index("exception")
    for route, where, feature, f1 in told["base/69"]:
        if route == "label":
            key = ("merged", 1) if where == "merged-s1" else (where, 0)
            fits = [[10 * f for n, _, _, f, _ in own if n == exception] for own in made.fits[key]]
            assert [f1] == fits[feature] == max(fits)


def test_numbers_of_a_feature_equal_those_of_the_dense_matrix(made: Made) -> None:
    dense, flat = made.dense("base"), made.stream.ids.reshape(-1)
    kinds = made.stream.kinds.reshape(-1)
    for n, page in enumerate(made.pages["base", 0]):
        x = dense[:, n]
        assert page["firings"] == (x > 0).sum() == sum(page["hist"]) == sum(page["mix"])
        assert page["peak"] == pytest.approx(x.max(), rel=1e-3)
        assert page["mix"] == [int(((x > 0) & (kinds == d)).sum()) for d in range(4)]
        mass = np.bincount(flat, weights=x, minlength=VOCAB)
        for token, share in page["on"]:
            assert share == pytest.approx(1000 * mass[token] / mass.sum(), abs=0.51)
        if page["on"]:
            assert page["on"][0][1] == pytest.approx(1000 * mass.max() / mass.sum(), abs=0.51)
        effects = made.effects["base", 0][n]
        for key, order in (("up", -effects), ("down", effects)):
            assert [t for t, _ in page[key]] == np.argsort(order, kind="stable")[:10].tolist()


def windows_equal(window: list[int], x: np.ndarray, fires: list[int] | None = None) -> bool:
    """Whether the levels of a window are those of activations x, to a thousandth of the peak."""
    token, before, after, *own = window
    pairs = own if fires is None else fires
    told = np.zeros(before + after + 1)
    told[pairs[::2]] = np.array(pairs[1::2]) / 1000
    true = x[token - before : token + after + 1] / max(x.max(), 1e-9)
    return bool(np.abs(told - true).max() <= 0.00101 and ((told > 0) == (true > 0)).all())


def strongest(x: np.ndarray, documents: np.ndarray, n: int) -> list[int]:
    """The n tokens of largest x, but no more of one document than the atlas shows."""
    chosen: list[int] = []
    for token in np.argsort(-x, kind="stable"):
        earlier = sum(documents[t] == documents[token] for t in chosen)
        if x[token] > 0 and earlier < atlas.PER_DOCUMENT and len(chosen) < n:
            chosen.append(int(token))
    return chosen


def test_examples_are_the_strongest_and_shaded_right(made: Made) -> None:
    documents = made.stream.documents
    for key in (("base", 0), ("merged", 1)):
        f, dense = made.acts[key], made.dense(*key)
        for n, page in zip(made.shown[key], made.pages[key], strict=True):
            wanted = strongest(dense[:, n], documents.reshape(-1), 5)
            start, stop = token_windows(documents, np.array(wanted, int), atlas.BEFORE, atlas.AFTER)
            assert [w[0] for w in page["top"]] == wanted
            assert [w[0] - w[1] for w in page["top"]] == start.tolist()
            assert [w[0] + w[2] + 1 for w in page["top"]] == stop.tolist()
            assert all(windows_equal(w, dense[:, n]) for w in page["top"] + page["typical"])
            ranked = np.array_split(np.argsort(f.of(n)[1], kind="stable"), 4)
            typical = {w[0] for w in page["typical"]}
            for quarter in ranked:
                assert len(typical & {*f.of(n)[0][quarter]}) == min(2, len(quarter))
    assert made.pages["base", 0][7]["top"] == [] and len(made.pages["base", 0][8]["top"]) == 1


def test_the_same_text_under_each_counterpart(made: Made) -> None:
    for n, page in enumerate(made.pages["base", 0]):
        *matches, carried = page["beside"]
        assert carried[:3] == ["transfer", "lua", n] and len(matches) == 3
        for _, other, best, r, under in page["beside"]:
            x = made.dense(other)[:, best]
            if made.dense("base")[:, n].any() and other != "lua":
                assert r == atlas.thousandths(np.corrcoef(made.dense("base")[:, n], x)[0, 1])
            assert len(under) == min(3, len(page["top"]))
            for window, fires in zip(page["top"], under, strict=False):
                assert windows_equal(window, x, fires)


def test_thousandths_never_lift_a_correlation_over_a_threshold() -> None:
    for threshold in range(0, 1001, 10):
        at = np.float32(threshold / 1000)
        assert atlas.thousandths(at) == threshold
        assert atlas.thousandths(threshold / 1000 - 1e-5) == threshold - 1


def test_direct_effects_are_what_the_weights_do_to_the_logits() -> None:
    torch.manual_seed(0)
    model = build_model(
        vocab_size=40, hidden_size=16, intermediate_size=24, heads=2, kv_heads=1, context=8, seed=0
    )
    with torch.no_grad():
        model.model.norm.weight.uniform_(0.5, 2)
    d = torch.randn(5, 24)
    sae = SparseAutoencoder(d.T.clone(), torch.zeros(5), d, torch.zeros(24))
    effects = atlas.token_effects(model, sae)
    # Oracle: along a feature's direction, the logits of a residual stream of fixed length move so.
    with torch.no_grad():
        x = torch.randn(16)
        for n in range(5):
            pushed = x + 1e-2 * model.model.layers[0].mlp.down_proj(d[n])
            norm = model.model.norm.weight / x.square().mean().sqrt()
            moved = model.lm_head((pushed - x) * norm)
            moved = (moved - moved.mean()) / moved.std()
            np.testing.assert_allclose(effects[n], moved.numpy(), atol=2e-3)


def test_labels_are_found_with_their_precision_and_recall(made: Made) -> None:
    fit = made.fits["base", 0][69][0]
    assert list(made.masks)[fit[0]] == "exception" and fit[1:] == [100, 100, 100, 50]
    dense = made.dense("base")
    for n, fits in enumerate(made.fits["base", 0]):
        for label, precision, recall, f1, cut in fits:
            said = dense[:, n] > cut / 100 * dense[:, n].max()
            mask = list(made.masks.values())[label]
            hits = (said & mask).sum()
            assert precision == pytest.approx(100 * hits / said.sum(), abs=0.51)
            assert recall == pytest.approx(100 * hits / mask.sum(), abs=0.51)
            assert f1 == pytest.approx(200 * hits / (said.sum() + mask.sum()), abs=0.51)
