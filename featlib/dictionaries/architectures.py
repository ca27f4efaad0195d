"""When is a feature active? All that one architecture of autoencoder has and another has not.

With pre-activations z = (x - b_dec) W_enc + b_enc, feature j is active on a token where z_j is
positive and reaches a limit; its activation is z_j there and 0 elsewhere. Architectures differ in
whose limit it is:

    relu       nobody's: all that is positive is active. The loss asks for few: + l1 sum_j f_j
    batchtopk  the batch's: its tokens * k largest stay active (Bussmann et al. 2024, arXiv
               2412.06410). To read one token alone, the limit is fixed: its running mean
    topk       the token's: its k largest stay active (Gao et al. 2024, arXiv 2406.04093)
    jumprelu   the feature's own: a threshold that is learned (Rajamanoharan et al. 2024, arXiv
               2407.14435). The loss asks for k per token: + L0_WEIGHT (L0 / k - 1)^2

To add one, write a class here and name it in `ARCHITECTURES`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from featlib.dictionaries import sparse

SLACK = 0.9  # candidates are sought down to this share of the limit that is expected
# Straight-through estimates: a threshold learns from pre-activations at most half of this away, in
# units of scaled activations. Wide, because training is short: at 0.5 a quarter of the features of
# a `mini` base model died, at 2 a tenth, and neither L0 nor FVU suffered.
BANDWIDTH = 2.0
L0_WEIGHT = 1_000.0  # of (L0 / k - 1)^2 against a squared error summed over d_in


Limit = Any  # a number, or a tensor that broadcasts to [tokens, d_sae]; None where it is unknown


class Architecture:
    """What training and reading ask. `hint` is the limit that is expected."""

    saelens: str  # what SAELens calls such an autoencoder once it is trained
    calibrated = False  # its thresholds are set anew on the common text, for k features per token
    has_l1 = False  # the loss has the L1 penalty
    learns_threshold = False  # by straight-through estimates
    ranks_tokens = False  # to read a token takes k, and all of its features

    def floor(self, pre: Tensor, k: int, hint: Limit) -> Limit:
        """What is below cannot be active, nor teach; pre [tokens, d_sae] may be of low precision.

        None: nothing can be said, so that the dense way is taken.
        """
        return 0.0

    def choose(self, found: csr_array, k: int, hint: Limit) -> np.ndarray | None:
        """Which of the candidates [n] are active; None: there may be more below the floor."""
        return found.data > 0

    def limit(self, pre: Tensor, k: int, hint: Limit) -> Limit:
        """The limit for pre-activations [tokens, d_sae], of a shape that broadcasts."""
        return 0.0


class ReLU(Architecture):
    saelens, has_l1 = "standard", True


class BatchTopK(Architecture):
    saelens, calibrated = "jumprelu", True

    def floor(self, pre: Tensor, k: int, hint: Limit) -> Limit:
        return None if hint is None else SLACK * hint

    def choose(self, found: csr_array, k: int, hint: Limit) -> np.ndarray | None:
        spare = len(found.data) - k * found.shape[0]
        if spare < 0:
            return None
        limit = np.partition(found.data, spare)[spare]
        return (found.data >= limit) & (found.data > 0)

    def limit(self, pre: Tensor, k: int, hint: Limit) -> Limit:
        """The tokens * k-th largest entry of `pre`, without sorting all of it."""
        flat, n = pre.flatten(), k * len(pre)
        if hint is not None:
            some = flat[flat > SLACK * hint]
            flat = some if len(some) >= n else flat
        if flat.device.type == "cpu":
            return torch.tensor(np.partition(flat.numpy(), len(flat) - n)[len(flat) - n])
        return flat.topk(n, sorted=False).values.min()


class TopK(Architecture):
    saelens, ranks_tokens = "topk", True

    def floor(self, pre: Tensor, k: int, hint: Limit) -> Limit:
        return SLACK * self.limit(pre, k, hint).clamp_min(0)

    def choose(self, found: csr_array, k: int, hint: Limit) -> np.ndarray | None:
        return sparse.among_largest(found, k) & (found.data > 0)

    def limit(self, pre: Tensor, k: int, hint: Limit) -> Tensor:
        return pre.topk(k, dim=-1).values[..., -1:]


class JumpReLU(Architecture):
    """`hint` is no guess here but the thresholds [d_sae] themselves."""

    saelens, calibrated, learns_threshold = "jumprelu", True, True

    def floor(self, pre: Tensor, k: int, hint: Limit) -> Limit:
        return hint - BANDWIDTH / 2

    def choose(self, found: csr_array, k: int, hint: Limit) -> np.ndarray | None:
        return found.data > hint.numpy()[found.indices]

    def limit(self, pre: Tensor, k: int, hint: Limit) -> Limit:
        return hint


ARCHITECTURES: dict[str, Architecture] = {
    "batchtopk": BatchTopK(),
    "relu": ReLU(),
    "topk": TopK(),
    "jumprelu": JumpReLU(),
}
