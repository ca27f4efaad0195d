"""Merging: slerp's algebra, scipy as an oracle, mergekit's rule for lengths and near parallels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import geometric_slerp

from featlib import FeatlibError
from featlib.models.merging import METHODS, merge_models, merge_weights, sweep_merges, tensor_angles
from featlib.models.mistral import build_model

fractions = st.floats(0, 1)
seeds = st.integers(0, 2**32 - 1)


def random_weights(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "matrix": scale * torch.randn(5, 7, generator=draw, dtype=torch.float64),
        "gain": scale * torch.randn(7, generator=draw, dtype=torch.float64),
    }


def small_model(seed: int):
    return build_model(
        vocab_size=40,
        hidden_size=8,
        intermediate_size=12,
        heads=2,
        kv_heads=1,
        context=8,
        seed=seed,
    )


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(METHODS))
def test_the_ends_are_the_two_models(seed, method):
    a, b = random_weights(seed), random_weights(seed + 1, scale=3.0)
    for t, expected in ((0, a), (1, b)):
        merged = merge_weights(a, b, t=t, method=method)
        for name in a:
            torch.testing.assert_close(merged[name], expected[name])


@settings(max_examples=50, deadline=None)
@given(seeds, fractions)
def test_slerp_on_unit_vectors_is_scipys(seed, t):
    a, b = (random_weights(seed + i)["gain"] for i in range(2))
    a, b = a / a.norm(), b / b.norm()
    merged = merge_weights({"w": a}, {"w": b}, t=t)["w"]
    np.testing.assert_allclose(merged.numpy(), geometric_slerp(a.numpy(), b.numpy(), t), atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds, fractions, st.floats(0.01, 100))
def test_slerp_keeps_the_length_of_equally_long_tensors(seed, t, length):
    a, b = ({k: length * v / v.norm() for k, v in random_weights(seed + i).items()} for i in (0, 1))
    for tensor in merge_weights(a, b, t=t).values():
        assert tensor.norm().item() == pytest.approx(length, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds, fractions)
def test_swapping_the_models_mirrors_t(seed, t):
    a, b = random_weights(seed), random_weights(seed + 1, scale=2.0)
    for method in METHODS:
        there, back = (
            merge_weights(a, b, t=t, method=method),
            merge_weights(b, a, t=1 - t, method=method),
        )
        for name in a:
            torch.testing.assert_close(there[name], back[name])


def test_unequal_lengths_keep_their_lengths_and_only_the_angle_is_normalised():
    # By hand: 3 along x and 4 along y are at 90 degrees; at t = 1/3 the weights are sin 60, sin 30.
    a, b = {"w": torch.tensor([3.0, 0.0])}, {"w": torch.tensor([0.0, 4.0])}
    merged = merge_weights(a, b, t=1 / 3)["w"]
    torch.testing.assert_close(merged, torch.tensor([3 * 3**0.5 / 2, 2.0]))


def test_a_tensor_is_one_vector_and_rows_are_many():
    # Row 0 turns by 90 degrees, row 1 not at all; the whole tensor turns by 60 degrees less.
    a = {"w": torch.tensor([[1.0, 0.0], [1.0, 0.0]])}
    b = {"w": torch.tensor([[0.0, 1.0], [1.0, 0.0]])}
    whole, rows = (merge_weights(a, b, t=0.5, method=m)["w"] for m in ("slerp", "slerp_rows"))
    weight = np.sin(np.pi / 6) / np.sin(np.pi / 3)  # cosine 1/2
    torch.testing.assert_close(whole, torch.tensor([[weight, weight], [2 * weight, 0.0]]).float())
    torch.testing.assert_close(rows, torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0]]))


@pytest.mark.parametrize("sign", [1, -1])
def test_near_parallels_fall_back_to_linear(sign):
    a = {"w": torch.tensor([1.0, 0.0], dtype=torch.float64)}

    def at(cosine):
        return {"w": sign * torch.tensor([2 * cosine, 2 * (1 - cosine**2) ** 0.5]).double()}

    inside, outside = at(0.9996), at(0.9994)
    for b, same in ((inside, True), (outside, False)):
        slerp, linear = (merge_weights(a, b, t=0.4, method=m)["w"] for m in ("slerp", "linear"))
        assert torch.allclose(slerp, linear, atol=1e-12, rtol=0) is same
        assert tensor_angles(a, b)["fallback"].tolist() == [same]
    moved = merge_weights(a, inside, t=0.4, dot_threshold=0.9999)["w"]
    assert not torch.allclose(moved, merge_weights(a, inside, t=0.4)["w"], atol=1e-7)


def test_a_tensor_of_zeros_counts_as_orthogonal():
    a, b = {"w": torch.zeros(3)}, {"w": torch.ones(3)}
    torch.testing.assert_close(merge_weights(a, b, t=0.5)["w"], torch.full((3,), 0.5**0.5))
    angles = tensor_angles(a, b).iloc[0]
    assert (angles["cosine"], angles["angle_degrees"]) == (0, 90)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_merged_with_itself_is_itself(method):
    model = small_model(0)
    merged = merge_models(model, small_model(0), t=0.58, method=method)
    ids = torch.arange(16).view(2, 8)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(merged.state_dict()[name], tensor)
    torch.testing.assert_close(merged(ids).logits, model(ids).logits)


def test_merging_leaves_its_models_alone_and_keeps_dtypes():
    models = [small_model(seed) for seed in (0, 1)]
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in models]
    merged = merge_models(*models, t=0.5)
    with torch.no_grad():
        for tensor in merged.parameters():
            assert tensor.dtype == torch.float32
            tensor.zero_()
    for model, weights in zip(models, before, strict=True):
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, weights[name])
    half = merge_weights({"w": torch.ones(2).half()}, {"w": torch.ones(2)}, t=0.5)["w"]
    assert half.dtype == torch.float16


def test_angles_by_hand():
    a = {"w": torch.tensor([[3.0, 0.0]]), "v": torch.tensor([1.0, 1.0])}
    b = {"w": torch.tensor([[2.0, 2.0]]), "v": torch.tensor([1.0, 1.0])}
    origin = {"w": torch.tensor([[2.0, 0.0]]), "v": torch.tensor([0.0, 1.0])}
    table = tensor_angles(a, b, origin).set_index("tensor")
    assert table.loc["w", "shape"] == "1×2"
    assert table.loc["w", "cosine"] == pytest.approx(0.5**0.5)
    assert table.loc["w", "angle_degrees"] == pytest.approx(45)
    assert table.loc["w", "norm_b"] == pytest.approx(8**0.5)
    assert table.loc["w", "cosine_update"] == pytest.approx(0, abs=1e-12)
    assert table.loc["v", "cosine_update"] == pytest.approx(1)
    assert table["fallback"].tolist() == [False, True]


def test_small_angles_are_not_lost_to_rounding():
    a = {"w": torch.tensor([1.0, 0.0], dtype=torch.float64)}
    b = {"w": torch.tensor([1.0, 1e-9], dtype=torch.float64)}
    assert tensor_angles(a, b)["angle_degrees"][0] == pytest.approx(np.rad2deg(1e-9), rel=1e-6)


def test_the_sweep_scores_every_method_t_and_domain():
    a, b = small_model(0), small_model(1)
    scored = []

    def evaluate(model):
        scored.append(model)
        loss = float(model.lm_head.weight.detach().norm())
        return {d: SimpleNamespace(loss=loss, accuracy=0.5) for d in ("lua", "tinystories")}

    table = sweep_merges(a, b, [0, 0.5, 1], ["slerp", "linear"], evaluate)
    assert list(table.columns) == ["method", "t", "domain", "loss", "accuracy"]
    assert len(table) == 2 * 3 * 2
    assert len(scored) == 4  # both ends once, the middle for each method
    lua = table[table["domain"] == "lua"].set_index(["method", "t"])["loss"]
    assert lua["slerp", 0] == pytest.approx(float(a.lm_head.weight.norm()))
    assert lua["linear", 1] == pytest.approx(float(b.lm_head.weight.norm()))
    # Two independent draws are all but orthogonal: linear shrinks them, slerp does not.
    assert lua["linear", 0.5] < 0.8 * lua["slerp", 0.5]


def test_mistakes_are_named():
    a = {"w": torch.ones(2)}
    with pytest.raises(FeatlibError, match=r"t is 1\.2"):
        merge_weights(a, a, t=1.2)
    with pytest.raises(FeatlibError, match="slerp_rows"):
        merge_weights(a, a, t=0.5, method="ties")
    with pytest.raises(FeatlibError, match=r"only one .* has extra"):
        merge_weights(a, {**a, "extra": torch.ones(1)}, t=0.5)
    with pytest.raises(FeatlibError, match=r"w is \(2,\) in one model and \(3,\)"):
        tensor_angles(a, {"w": torch.ones(3)})
    with pytest.raises(FeatlibError, match="w holds values that are not finite"):
        merge_weights(a, {"w": torch.tensor([1.0, float("nan")])}, t=0.5)
