"""Merging: slerp's algebra, scipy as an oracle, mergekit's rule for lengths and near parallels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import geometric_slerp
from small_models import small_model, weights_of

from featlib import FeatlibError
from featlib.models import merging
from featlib.models.merging import METHODS, linear, merge_models, slerp, tensor_angles

seeds = st.integers(0, 2**32 - 1)
NO_BASE = torch.zeros(1)  # none of these methods asks for it


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(0, 1), st.sampled_from(list(METHODS.values())))
def test_the_ends_are_the_two_models_and_swapping_them_mirrors_t(seed, t, method):
    for shape in ((5, 7), (7,)):
        a, b = draw(seed, *shape), 3 * draw(seed + 1, *shape)
        for end, expected in ((0, a), (1, b)):
            torch.testing.assert_close(method(a, b, end, NO_BASE), expected)
        torch.testing.assert_close(method(a, b, t, NO_BASE), method(b, a, 1 - t, NO_BASE))


@settings(max_examples=50, deadline=None)
@given(seeds, st.floats(0, 1), st.floats(0.01, 100))
def test_slerp_of_equally_long_tensors_is_scipys(seed, t, length):
    a, b = (v / v.norm() for v in (draw(seed, 5, 7), draw(seed + 1, 5, 7)))
    expected = length * geometric_slerp(a.flatten().numpy(), b.flatten().numpy(), t)
    found = slerp(length * a, length * b, t, NO_BASE).flatten().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-9 * length)


def test_lengths_are_kept_and_a_tensor_is_one_vector():
    # By hand: 3 along x and 4 along y are at 90 degrees; at t = 1/3 the weights are sin 60, sin 30.
    merged = slerp(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0]), 1 / 3, NO_BASE)
    torch.testing.assert_close(merged, torch.tensor([3 * 3**0.5 / 2, 2.0]))
    # Row 0 turns by 90 degrees, row 1 not at all: the whole turns by 60, cosine 1/2.
    a, b = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    weight = np.sin(np.pi / 6) / np.sin(np.pi / 3)
    expected = torch.tensor([[weight, weight], [2 * weight, 0.0]]).float()
    torch.testing.assert_close(slerp(a, b, 0.5, NO_BASE), expected)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("cosine", "same"), [(0.9996, True), (0.9994, False)])
def test_near_parallels_fall_back_to_linear(sign, cosine, same):
    a = torch.tensor([1.0, 0.0]).double()
    b = sign * torch.tensor([2 * cosine, 2 * (1 - cosine**2) ** 0.5]).double()
    on_arc, on_line = slerp(a, b, 0.4, NO_BASE), linear(a, b, 0.4, NO_BASE)
    assert torch.allclose(on_arc, on_line, atol=1e-12, rtol=0) is same
    assert tensor_angles({"w": a}, {"w": b})["fallback"].tolist() == [same]


def test_merging_leaves_its_models_alone_and_keeps_dtypes():
    models = [small_model(seed) for seed in (0, 1, 2)]
    before = [weights_of(model) for model in models]
    merged = merge_models(*models, t=0.5, method="slerp")
    # Two independent draws are all but orthogonal: linear shrinks them, slerp does not.
    line = merge_models(*models, t=0.5, method="linear")
    assert line.lm_head.weight.norm() < 0.8 * merged.lm_head.weight.norm()
    for tensor in merged.parameters():
        assert tensor.dtype == torch.float32
        tensor.data.zero_()
    for model, weights in zip(models, before, strict=True):
        torch.testing.assert_close(weights_of(model), weights, rtol=0, atol=0)


def test_a_method_of_ones_own_is_one_function(monkeypatch):
    """Task arithmetic (Ilharco et al. 2023), which needs the base that both come from."""

    def add_tasks(a, b, t, base):
        return base + 0.5 * (a - base) + 0.5 * (b - base)

    monkeypatch.setitem(merging.METHODS, "add_tasks", add_tasks)
    a, b, base = (small_model(seed) for seed in (0, 1, 2))
    merged = merge_models(a, b, base, t=0.3, method="add_tasks")
    expected = (a.lm_head.weight + b.lm_head.weight) / 2
    torch.testing.assert_close(merged.lm_head.weight, expected)
    with pytest.raises(FeatlibError, match="add_tasks"):
        merge_models(a, b, base, t=0.5, method="ties")


def test_angles_by_hand():
    # The last angle is one that an arccos would lose to rounding.
    a, b = (
        {name: torch.tensor(values).double() for name, values in zip("wvu", model, strict=True)}
        for model in (([[3, 0]], [1, 1], [1, 0]), ([[2, 2]], [1, 1], [1, 1e-9]))
    )
    table = tensor_angles(a, b)
    assert table["cosine"].to_numpy() == pytest.approx([0.5**0.5, 1, 1])
    assert table["angle_degrees"].to_numpy() == pytest.approx([45, 0, np.rad2deg(1e-9)], rel=1e-6)
    assert table["fallback"].tolist() == [False, True, True]
    nothing, ones = torch.zeros(3), torch.ones(3)  # a tensor of zeros counts as orthogonal
    torch.testing.assert_close(slerp(nothing, ones, 0.5, NO_BASE), torch.full((3,), 0.5**0.5))
    angles = tensor_angles({"w": nothing}, {"w": ones}).iloc[0]
    assert (angles["cosine"], angles["angle_degrees"]) == (0, 90)
