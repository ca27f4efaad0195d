"""Every number of a run, checked before anything starts.

`Params` holds the defaults (the `mini` profile) with a sentence and limits for each; a YAML file in
`params/` overrides them.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, create_model, model_validator

from featlib import FeatlibError
from featlib.family import DOMAINS, KINDS, MODELS


def _field(default: Any, sentence: str, **limits: Any) -> Any:
    return Field(default, description=sentence, **limits)


# How much of each kind of text is read: `babylm_mb` and so on, as many as the family has.
Sizes = create_model(
    "Sizes",
    __config__=ConfigDict(extra="forbid", strict=True, frozen=True),
    **{
        f"{kind.name}_mb": (
            float,
            _field(kind.megabytes, f"Megabytes of {kind.print} to read.", gt=0),
        )
        for kind in KINDS
    },  # type: ignore[call-overload]
)


class Params(Sizes):  # type: ignore[valid-type, misc]
    """Every number of a run. The defaults are the `mini` profile; a YAML file overrides them."""

    run_name: str = _field(
        "mini", "Name of the run; its folder is runs/<run_name>.", pattern=r"^[A-Za-z0-9][\w.-]*$"
    )
    seed: int = _field(0, "Every random choice of the run follows from this number.", ge=0)

    # 01 corpora
    source: Literal["embedded", "files"] = _field(
        "embedded", "Where text comes from: pinned public packages, or your own files."
    )
    corpora_folder: str = _field(
        "", f"With source files: a folder holding {', '.join(DOMAINS)}, each a folder or a file "
        "(.txt .jsonl or the language's own, or any of these with .zst)."
    )  # fmt: skip
    validation_share: float = _field(0.08, "Share of documents kept for validation.", gt=0, lt=0.5)
    test_share: float = _field(0.08, "Share of documents kept for the test split.", gt=0, lt=0.5)
    vocab_size: int = _field(4096, "Entries of the byte-level BPE vocabulary.", ge=300)
    context: int = _field(128, "Tokens in one block.", ge=8)

    # 02 and 03: language models
    hidden_size: int = _field(192, "Width of the residual stream.", ge=8)
    intermediate_size: int = _field(384, "Width of the MLP, where features are looked for.", ge=8)
    heads: int = _field(6, "Attention heads.", ge=1)
    kv_heads: int = _field(3, "Key-value heads; divides `heads`.", ge=1)
    batch_size: int = _field(8, "Blocks in one training batch.", ge=1)
    embedding_std: float = _field(
        0.1, "Standard deviation of fresh embeddings; Mistral's own is 0.02.", gt=0
    )
    adam_beta2: float = _field(0.99, "Second decay rate of AdamW.", gt=0, lt=1)
    base_tokens: int = _field(3_000_000, "Tokens the base model is trained on.", ge=1)
    base_lr: float = _field(3e-3, "Highest learning rate of the base model.", gt=0)
    base_warmup_steps: int = _field(200, "Steps of linear warm-up for the base model.", ge=0)
    base_weight_decay: float = _field(0.1, "Weight decay of the base model.", ge=0)
    fine_tune_tokens: int = _field(700_000, "Tokens each fine-tune sees.", ge=1)
    fine_tune_lr: float = _field(3e-4, "Highest learning rate of a fine-tune.", gt=0)
    fine_tune_warmup_steps: int = _field(40, "Steps of linear warm-up for a fine-tune.", ge=0)
    fine_tune_weight_decay: float = _field(0.01, "Weight decay of a fine-tune.", ge=0)
    snapshots: int = _field(8, "Checkpoints kept along each fine-tune.", ge=1)
    evaluation_tokens: int = _field(30_000, "Validation tokens scored per model and domain.", ge=1)

    # 04 merging
    merge_method: str = _field(
        "slerp", "How the two children are merged: a name in featlib.models.merging; slerp, whole "
        "tensors, is the paper's."
    )  # fmt: skip
    merge_t: float = _field(0.58, "Where the merge lies: 0 is Lua, 1 is TinyStories.", ge=0, le=1)
    sweep_step: float = _field(0.05, "Step of t in the sweep.", gt=0, le=1)
    sweep_tokens: int = _field(6_000, "Validation tokens scored per point of the sweep.", ge=1)

    # 05 autoencoders
    sae_architecture: Literal["batchtopk", "relu", "topk", "jumprelu"] = _field(
        "batchtopk",
        "batchtopk, topk and jumprelu hold L0 at k; relu with an L1 penalty is the paper's.",
    )
    d_sae: int = _field(2048, "Features of an autoencoder.", ge=2)
    k: int = _field(16, "Features active per token, on average (all but relu).", ge=1)
    l1: float = _field(
        4.0, "Weight of the L1 penalty (relu), on scaled activations; the paper's 3e-4 is about 1 "
        "here.", ge=0,
    )  # fmt: skip
    sae_lr: float = _field(6e-3, "Learning rate of the autoencoders.", gt=0)
    sae_adam_beta2: float = _field(
        0.99, "Second decay rate of the autoencoders' Adam; the paper's is 0.9999.", gt=0, lt=1
    )
    sae_tokens: int = _field(800_000, "Activations each autoencoder is trained on.", ge=1)
    sae_batch_size: int = _field(1024, "Activations in one batch.", ge=2)
    sae_seeds: int = _field(3, "Autoencoders per model, differing in their seed only.", ge=2)
    card_tokens: int = _field(20_000, "Validation tokens per domain for an SAE's card.", ge=1)

    # 06 and 07: matching
    stream_tokens: int = _field(
        40_000, "Test tokens per domain in the common stream that all models read.", ge=1
    )
    threshold: float = _field(0.8, "Correlation from which two features count as one.", gt=0, lt=1)
    min_firings: int = _field(
        30, "Tokens a feature must fire on to be testable; below, chance alone matches.", ge=2
    )
    bootstrap: int = _field(200, "Bootstrap resamples of documents for an interval.", ge=20)

    # 08 and 09: case studies
    label: str = _field(
        "exception_header", "What the feature of chapter 09 detects; a name in featlib.text.labels."
    )
    model: Literal[MODELS] = _field(  # type: ignore[valid-type]
        "base", "The model in which the feature of chapter 09 is found; the others are searched."
    )
    case_tokens: int = _field(
        120_000, "Held-out tokens of code that a case reads, those with the label first; a tenth "
        "as many of each kind of English.", ge=1,
    )  # fmt: skip
    case_sweep_tokens: int = _field(
        40_000, "Tokens of code read in each model along the merge.", ge=1
    )
    case_step: float = _field(0.05, "Step of t along the merge.", gt=0, le=1)
    case_random: int = _field(20, "Random directions beside a feature that is taken out.", ge=2)

    # 10: explanations
    explain_features: int = _field(
        500, "Features of each model that are explained, drawn at random.", ge=2
    )
    explain_cues: int = _field(10, "Cues that an explanation may name at most.", ge=1)
    explain_window: int = _field(16, "Tokens in a window on which explanations are tested.", ge=2)
    explain_windows: int = _field(
        20, "Windows with the feature, and as many without it, on which each is scored.", ge=4
    )
    chat_features: int = _field(
        0, "Features of each group that a chat model explains too; 0 asks none.", ge=0
    )
    chat_requests: int = _field(500, "Requests that the chat model may cost at most.", ge=1)
    chat_tokens: int = _field(500_000, "Tokens that the chat model may cost at most.", ge=1)

    # 11: controls
    control_step: float = _field(
        0.25, "Step of t at which features are followed through the merge.", gt=0, le=1
    )

    # 12 atlas
    atlas_top: int = _field(8, "Strongest examples that the atlas shows of a feature.", ge=1)
    atlas_per_quantile: int = _field(
        2, "Random examples it shows from each quarter of a feature's firings.", ge=1
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Params:
        block = self.batch_size * self.context
        width, odd = divmod(self.hidden_size, self.heads)
        one_block = f"at least one block ({self.context})"
        one_batch = f"at least one batch of {block:,} tokens (batch_size x context)"
        one_sae_batch = f"at least one batch ({self.sae_batch_size})"
        shares = self.validation_share + self.test_share
        rules = [
            (not odd, "heads", f"a divisor of hidden_size ({self.hidden_size})"),
            (
                width % 2 == 0, "heads", "a number that leaves an even head width (rotary "
                f"embedding turns pairs); hidden_size / heads is {width}",
            ),
            (self.heads % self.kv_heads == 0, "kv_heads", f"a divisor of heads ({self.heads})"),
            (self.k <= self.d_sae, "k", f"at most d_sae ({self.d_sae})"),
            (self.base_tokens >= block, "base_tokens", one_batch),
            (self.fine_tune_tokens >= block, "fine_tune_tokens", one_batch),
            (self.evaluation_tokens >= self.context, "evaluation_tokens", one_block),
            (self.sweep_tokens >= self.context, "sweep_tokens", one_block),
            (self.card_tokens >= self.context, "card_tokens", one_block),
            (self.stream_tokens >= self.context, "stream_tokens", one_block),
            (
                self.explain_window <= self.context, "explain_window",
                f"at most one block ({self.context})",
            ),
            (
                shares < 0.6, "test_share", "with validation_share, less than 0.6 together (the "
                "rest is for training)",
            ),
            (self.sae_tokens >= self.sae_batch_size, "sae_tokens", one_sae_batch),
            (
                (self.source == "files") == bool(self.corpora_folder), "corpora_folder",
                "a folder when source is files, and empty when it is embedded",
            ),
        ]  # fmt: skip
        for ok, key, allowed in rules:
            if not ok:
                raise ValueError(
                    f"{key} = {getattr(self, key)!r} is not possible: it must be {allowed}"
                )
        return self


def check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a value that is none of `choices`: for those that a room, not this file, offers."""
    if value not in (known := list(choices)):
        near = difflib.get_close_matches(value, known, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise FeatlibError(f"{key} = {value!r} is not one of: {', '.join(known)}.{hint}")


def check_params(values: Mapping[str, Any], where: str = "parameters") -> Params:
    """Turn a flat mapping into `Params`, or say for each bad key what is allowed.

    Raises `FeatlibError` naming `where` (a file, a command line), every key at fault, its value,
    what is allowed, and for an unknown key the nearest valid one.
    """
    # YAML 1.1 reads 3e-4 as text, command lines give integers where a float is meant.
    floats = {n for n, f in Params.model_fields.items() if f.annotation is float}
    cleaned = {k: _as_float(v) if k in floats else v for k, v in values.items()}
    try:
        return Params(**cleaned)
    except ValidationError as error:
        lines = [_explain(e, cleaned) for e in error.errors()]
    raise FeatlibError(f"{where}: " + "\n  ".join(["nothing was started.", *lines]))


def _as_float(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | str):
        with contextlib.suppress(ValueError):
            value = float(value)
    # nan and inf pass every comparison the wrong way: leave them as text, which is refused
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _explain(error: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, Params.model_fields, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "the keys stand in params/mini.yaml"
        return f"unknown parameter {key!r} (value {values[key]!r}): {hint}"
    if not key:  # from _fits_together: its message says everything
        return error["msg"].removeprefix("Value error, ")
    said = error["msg"][0].lower() + error["msg"][1:]
    return f"{key} = {values[key]!r}: {said}. {Params.model_fields[key].description}"


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed of its own for each purpose, so that no two stages share a stream of randomness."""
    text = "/".join([str(seed), *map(str, purpose)])
    return zlib.crc32(text.encode()) & 0x7FFFFFFF
