"""Two models into one: linear and spherical interpolation of weights, and angles between models.

t = 0 is the first model (the paper's base of the merge, Lua), t = 1 the second (TinyStories). A
method is a function in `METHODS`, of one tensor of each model; whoever adds one there has it in
the parameters, in chapter 04's sweep and wherever features are followed along t.
"""

from __future__ import annotations

import copy
import math
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
    cosine = _cosine(a, b)
    if abs(cosine) > DOT_THRESHOLD:
        return linear(a, b, t, base)
    angle = math.acos(cosine)
    weight_a, weight_b = (math.sin(part * angle) / math.sin(angle) for part in (1 - t, t))
    return weight_a * a + weight_b * b


def linear(a: Tensor, b: Tensor, t: float, base: Tensor) -> Tensor:
    """Along the straight line: (1 - t) w_0 + t w_1."""
    return (1 - t) * a + t * b


# method(a, b, t, base) -> merged, all tensors float64 of one shape; `base` is the model that both
# come from, for methods that add up what each has learned.
METHODS = {"slerp": slerp, "linear": linear}


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
    states = [model.state_dict() for model in (a, b, base)]
    weights = {}
    for name, tensor in states[0].items():
        w_0, w_1, start = (state[name].to(tensor.device).double() for state in states)
        weights[name] = METHODS[method](w_0, w_1, t, start).to(tensor.dtype)
    merged = copy.deepcopy(a)
    merged.load_state_dict(weights)
    return merged.eval()


def tensor_angles(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> pd.DataFrame:
    """Angle between two models' weights, tensor by tensor, each taken as one vector.

    Columns: tensor, cosine, angle_degrees, fallback (slerp is linear here).
    """
    rows = []
    for name, tensor in a.items():
        w_0, w_1 = (w.detach().to(tensor.device).double() for w in (tensor, b[name]))
        cosine = _cosine(w_0, w_1)
        angle = 90.0
        if _directed(w_0, w_1):  # by its half-angle tangent: exact near 0, where arccos is not
            u_0, u_1 = w_0 / w_0.norm(), w_1 / w_1.norm()
            angle = math.degrees(2 * math.atan2((u_0 - u_1).norm(), (u_0 + u_1).norm()))
        rows.append((name, cosine, angle, abs(cosine) > DOT_THRESHOLD))
    return pd.DataFrame(rows, columns=["tensor", "cosine", "angle_degrees", "fallback"])


def _directed(a: Tensor, b: Tensor) -> bool:
    return bool(a.norm() > SMALLEST_NORM and b.norm() > SMALLEST_NORM)


def _cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two tensors; 0 where one of them has no length."""
    return float((a * b).sum() / (a.norm() * b.norm())) if _directed(a, b) else 0.0
