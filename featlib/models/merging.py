"""Two models into one: linear and spherical interpolation of weights, angles, sweeps over t.

t = 0 is the first model (the paper's base of the merge, Lua), t = 1 the second (TinyStories).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from featlib import FeatlibError

METHODS = ("slerp", "linear", "slerp_rows")
DOT_THRESHOLD = 0.9995  # mergekit's: above it two directions count as one
SMALLEST_NORM = 1e-8  # mergekit's: a shorter vector has no direction
SAME_KIND = "the two models must be of one architecture, with one tokenizer"


def merge_weights(
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    *,
    t: float,
    method: str = "slerp",
    dot_threshold: float = DOT_THRESHOLD,
) -> dict[str, Tensor]:
    """Interpolate two state dicts tensor by tensor; t = 0 gives `a`, t = 1 gives `b`.

    With w_0, w_1 the two vectors and theta the angle between them,
      linear: (1 - t) w_0 + t w_1
      slerp:  (sin((1 - t) theta) w_0 + sin(t theta) w_1) / sin(theta)
    The angle is that of the directions, the weights keep their lengths (Shoemake 1985; for
    vectors of unequal length the result is no longer on an arc, but that is the rule in use).
    `slerp` takes each tensor as one vector, as mergekit does, the paper's tool; `slerp_rows` each
    row of a matrix. Where |cos theta| > `dot_threshold` the two are all but parallel, the sine
    says little, and linear interpolation takes over; a vector of no length counts as orthogonal.

    Arithmetic is float64, the result has `a`'s dtype and device.
    Deviation: the paper merges in float16; we keep float32, because rounding would move the merged
    weights off the arc.
    """
    if method not in METHODS:
        raise FeatlibError(f"unknown merge method {method!r}; choose one of {', '.join(METHODS)}")
    if not 0 <= t <= 1:
        raise FeatlibError(f"t is {t}; it must be from 0 (the first model) to 1 (the second)")
    _check_same(a, b)
    merged = {}
    for name, tensor in a.items():
        if not tensor.is_floating_point():
            merged[name] = tensor.clone()
            continue
        flat_a, flat_b = _vectors(tensor, method), _vectors(b[name], method).to(tensor.device)
        if not (flat_a.isfinite().all() and flat_b.isfinite().all()):
            raise FeatlibError(
                f"{name} holds values that are not finite; train that model again with a lower lr"
            )
        weight_a, weight_b = _coefficients(flat_a, flat_b, t, method, dot_threshold)
        merged[name] = (weight_a * flat_a + weight_b * flat_b).view(tensor.shape).to(tensor.dtype)
    return merged


def merge_models(
    model_a: PreTrainedModel, model_b: PreTrainedModel, *, t: float, method: str = "slerp"
) -> Any:
    """A new model, in eval mode, with the merged weights of the two; see `merge_weights`."""
    weights = merge_weights(model_a.state_dict(), model_b.state_dict(), t=t, method=method)
    merged = copy.deepcopy(model_a)
    merged.load_state_dict(weights)
    return merged.eval()


def tensor_angles(
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    origin: Mapping[str, Tensor] | None = None,
    dot_threshold: float = DOT_THRESHOLD,
) -> pd.DataFrame:
    """Angle between the two models, tensor by tensor, each taken as one vector.

    Columns: tensor, shape, cosine, angle_degrees, norm_a, norm_b (Euclidean), fallback (slerp
    is linear here, |cosine| > `dot_threshold`). Given the model that both come from (`origin`),
    also cosine_update: cosine of the two updates, a - origin and b - origin. Two fine-tunes of
    one base point almost the same way; it is their updates that tell them apart.
    """
    _check_same(a, b)
    if origin is not None:
        _check_same(a, origin)
    rows = []
    for name, tensor in a.items():
        flat_a, flat_b = _vectors(tensor, "slerp"), _vectors(b[name], "slerp").to(tensor.device)
        cosine = float(_cosine(flat_a, flat_b))
        row = {
            "tensor": name,
            "shape": "×".join(str(size) for size in tensor.shape),
            "cosine": cosine,
            "angle_degrees": float(_angle_degrees(flat_a, flat_b)),
            "norm_a": float(flat_a.norm()),
            "norm_b": float(flat_b.norm()),
            "fallback": abs(cosine) > dot_threshold,
        }
        if origin is not None:
            start = _vectors(origin[name], "slerp").to(tensor.device)
            row["cosine_update"] = float(_cosine(flat_a - start, flat_b - start))
        rows.append(row)
    return pd.DataFrame(rows)


def sweep_merges(
    model_a: PreTrainedModel,
    model_b: PreTrainedModel,
    ts: Sequence[float],
    methods: Sequence[str],
    evaluate: Callable[[Any], Mapping[str, Any]],
) -> pd.DataFrame:
    """Scores of the merged model for every method and t (the paper's Figure 5).

    `evaluate(model)` returns {domain: something with .loss and .accuracy}. Columns: method, t,
    domain, loss, accuracy. At t = 0 and t = 1 all methods give the same model: scored once.
    """
    rows = []
    ends: dict[float, Mapping[str, Any]] = {}
    for method in methods:
        for t in ts:
            scores = ends.get(t)
            if scores is None:
                scores = evaluate(merge_models(model_a, model_b, t=t, method=method))
            if t in (0, 1):
                ends[t] = scores
            rows += [
                {
                    "method": method,
                    "t": float(t),
                    "domain": domain,
                    "loss": score.loss,
                    "accuracy": score.accuracy,
                }
                for domain, score in scores.items()
            ]
    return pd.DataFrame(rows, columns=["method", "t", "domain", "loss", "accuracy"])


def _vectors(tensor: Tensor, method: str) -> Tensor:
    """The vectors that turn as one, [n_vectors, length] float64: rows, or the whole tensor."""
    by_rows = method == "slerp_rows" and tensor.ndim > 1
    return tensor.detach().double().reshape(-1, tensor.shape[-1] if by_rows else tensor.numel())


def _coefficients(
    a: Tensor, b: Tensor, t: float, method: str, dot_threshold: float
) -> tuple[Tensor, Tensor]:
    """Weights of `a` and of `b`, each [n_vectors, 1], for vectors [n_vectors, length]."""
    cosine = _cosine(a, b)[:, None]
    linear = (cosine.abs() > dot_threshold) | (method == "linear")
    angle = torch.where(linear, torch.ones_like(cosine), cosine.clamp(-1, 1).arccos())
    weight_a = torch.where(linear, 1 - t, ((1 - t) * angle).sin() / angle.sin())
    weight_b = torch.where(linear, t, (t * angle).sin() / angle.sin())
    return weight_a, weight_b


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each pair of rows, [n_vectors]; 0 where one of the two has no length."""
    norm_a, norm_b = a.norm(dim=1), b.norm(dim=1)
    directed = (norm_a > SMALLEST_NORM) & (norm_b > SMALLEST_NORM)
    return torch.where(directed, (a * b).sum(1) / (norm_a * norm_b).clamp_min(1e-300), 0.0)


def _angle_degrees(a: Tensor, b: Tensor) -> Tensor:
    """Angle of each pair of rows by its half-angle tangent: exact near 0, where arccos is not."""
    norm_a, norm_b = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    directed = ((norm_a > SMALLEST_NORM) & (norm_b > SMALLEST_NORM))[:, 0]
    unit_a, unit_b = a / norm_a.clamp_min(1e-300), b / norm_b.clamp_min(1e-300)
    half = torch.atan2((unit_a - unit_b).norm(dim=1), (unit_a + unit_b).norm(dim=1))
    return torch.where(directed, torch.rad2deg(2 * half), 90.0)


def _check_same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    if different := sorted(set(a) ^ set(b)):
        raise FeatlibError(f"only one of the two models has {different[0]}: {SAME_KIND}")
    for name, tensor in a.items():
        if tensor.shape != b[name].shape:
            raise FeatlibError(
                f"{name} is {tuple(tensor.shape)} in one model and {tuple(b[name].shape)} in the "
                f"other: {SAME_KIND}"
            )
