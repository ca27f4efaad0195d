"""Two models into one: linear and spherical interpolation of weights, and angles between models.

t = 0 is the first model (the paper's base of the merge, Lua), t = 1 the second (TinyStories). A
method is a function in `METHODS`, of one tensor of each model; whoever adds one there has it in
the parameters, in chapter 04's sweep and wherever features are followed along t.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from featlib.params import check_choice

if TYPE_CHECKING:  # light to import: names of methods are checked before anything starts
    from torch import Tensor
    from transformers import PreTrainedModel

DOT_THRESHOLD = 0.9995  # mergekit's: above it two directions count as one
SMALLEST_NORM = 1e-8  # mergekit's: a shorter vector has no direction


def slerp(a: Tensor, b: Tensor, t: float, base: Tensor) -> Tensor:
    """Along the arc, each tensor taken as one vector, as mergekit does, the paper's tool.

    With w_0, w_1 the two vectors and theta the angle between them,
      (sin((1 - t) theta) w_0 + sin(t theta) w_1) / sin(theta)
    The angle is that of the directions, the weights keep their lengths (Shoemake 1985; for
    vectors of unequal length the result is no longer on an arc, but that is the rule in use).
    Where |cos theta| > `DOT_THRESHOLD` the two are all but parallel, the sine says little, and
    linear interpolation takes over; a vector of no length counts as orthogonal.
    """
    return _along_arcs(a.reshape(1, -1), b.reshape(1, -1), t).view(a.shape)


def linear(a: Tensor, b: Tensor, t: float, base: Tensor) -> Tensor:
    """Along the straight line: (1 - t) w_0 + t w_1."""
    return (1 - t) * a + t * b


def slerp_rows(a: Tensor, b: Tensor, t: float, base: Tensor) -> Tensor:
    """As `slerp`, but each row of a matrix is a vector of its own."""
    width = a.shape[-1]
    return _along_arcs(a.reshape(-1, width), b.reshape(-1, width), t).view(a.shape)


# method(a, b, t, base) -> merged, all tensors float64 of one shape; `base` is the model that both
# come from, for methods that add up what each has learned.
METHODS = {"slerp": slerp, "linear": linear, "slerp_rows": slerp_rows}


def merge_models(
    a: PreTrainedModel, b: PreTrainedModel, base: PreTrainedModel, *, t: float, method: str
) -> Any:
    """A new model, in eval mode: tensor by tensor between `a` (t = 0) and `b` (t = 1).

    `base`: the model that both were fine-tuned from. Arithmetic is float64, the result has `a`'s
    dtype and device.
    Deviation: the paper merges in float16; we keep float32, because rounding would move the merged
    weights off the arc.
    """
    check_choice("merge_method", method, METHODS)
    others = b.state_dict(), base.state_dict()
    weights = {}
    for name, tensor in a.state_dict().items():
        w_0, w_1, start = (
            w.to(tensor.device).double() for w in (tensor, *(o[name] for o in others))
        )
        weights[name] = METHODS[method](w_0, w_1, t, start).to(tensor.dtype)
    merged = copy.deepcopy(a)
    merged.load_state_dict(weights)
    return merged.eval()


def tensor_angles(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], base: Mapping[str, Tensor]
) -> pd.DataFrame:
    """Angle between two models' weights, tensor by tensor, each taken as one vector.

    Columns: tensor, shape, cosine, angle_degrees, norm_a, norm_b (Euclidean), fallback (slerp is
    linear here, |cosine| > `DOT_THRESHOLD`), cosine_update: cosine of the two updates, a - base and
    b - base. Two fine-tunes of one base point almost the same way; it is their updates that tell
    them apart.
    """
    rows = []
    for name, tensor in a.items():
        flat_a, flat_b, start = (
            w.detach().to(tensor.device).double().reshape(1, -1)
            for w in (tensor, b[name], base[name])
        )
        cosine = float(_cosine(flat_a, flat_b))
        rows.append(
            {
                "tensor": name,
                "shape": "×".join(str(size) for size in tensor.shape),
                "cosine": cosine,
                "angle_degrees": float(_angle_degrees(flat_a, flat_b)),
                "norm_a": float(flat_a.norm()),
                "norm_b": float(flat_b.norm()),
                "fallback": abs(cosine) > DOT_THRESHOLD,
                "cosine_update": float(_cosine(flat_a - start, flat_b - start)),
            }
        )
    return pd.DataFrame(rows)


def _along_arcs(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Slerp of each pair of rows of `a` and `b` [n_vectors, length]; see `slerp`."""
    cosine = _cosine(a, b)[:, None]
    bent = cosine.abs() <= DOT_THRESHOLD
    angle = cosine.clamp(-1, 1).arccos().where(bent, 1.0)
    weight_a = (((1 - t) * angle).sin() / angle.sin()).where(bent, 1 - t)
    weight_b = ((t * angle).sin() / angle.sin()).where(bent, t)
    return weight_a * a + weight_b * b


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each pair of rows, [n_vectors]; 0 where one of the two has no length."""
    norm_a, norm_b = a.norm(dim=1), b.norm(dim=1)
    directed = (norm_a > SMALLEST_NORM) & (norm_b > SMALLEST_NORM)
    return ((a * b).sum(1) / (norm_a * norm_b).clamp_min(1e-300)).where(directed, 0.0)


def _angle_degrees(a: Tensor, b: Tensor) -> Tensor:
    """Angle of each pair of rows by its half-angle tangent: exact near 0, where arccos is not."""
    norm_a, norm_b = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    directed = ((norm_a > SMALLEST_NORM) & (norm_b > SMALLEST_NORM))[:, 0]
    unit_a, unit_b = a / norm_a.clamp_min(1e-300), b / norm_b.clamp_min(1e-300)
    half = (unit_a - unit_b).norm(dim=1).atan2((unit_a + unit_b).norm(dim=1))
    return (2 * half).rad2deg().where(directed, 90.0)
