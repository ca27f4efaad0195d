"""Chapter 11's controls: each holds one thing fixed, from what chapter 06 kept to numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy import sparse
from transformers import PreTrainedModel

from featlib.dictionaries.activations import activation_scale
from featlib.dictionaries.features import FeatureActivations, load_features
from featlib.dictionaries.sae import SparseAutoencoder, load_autoencoder
from featlib.estimate import Estimate, proportion
from featlib.family import BASE, DOMAINS, MERGE_OF, MERGED, MODELS, PLACEBO
from featlib.matching import transfer
from featlib.matching.correlation import paired_pearson, pearson_dense
from featlib.matching.fates import Rule
from featlib.models.merging import merge_models
from featlib.models.mistral import load_checkpoint, load_tokenizer
from featlib.run import Run
from featlib.text.labels import TOKEN_CLASSES, token_class
from featlib.text.stream import Stream, load_stream
from featlib.text.tokens import token_strings

Pair = tuple[str, str]  # parent, child
TO_PLACEBO = (BASE, PLACEBO)
FORMATTING = ("punctuation", "whitespace", "special")  # classes of punctuation and layout


@dataclass(frozen=True)
class ControlRun:
    """All that the controls work on. Tables are indexed by (parent, child)."""

    run: Run
    p: SimpleNamespace
    stream: Stream  # the common text
    texts: Sequence[str]  # of every token id
    models: Mapping[str, PreTrainedModel]  # the placebo among them
    sae: SparseAutoencoder  # the base's first, which most controls follow,
    base: FeatureActivations  # and what it finds
    pairs: pd.DataFrame  # shares by matching, one row a step
    matches: pd.DataFrame  # each parent feature's best partner in the child
    moved: pd.DataFrame  # each parent feature's r with itself in the child
    transfers: pd.DataFrame  # shares by transfer, one row a step and the placebo

    @property
    def rule(self) -> Rule:
        return Rule(self.p.threshold, self.p.min_firings)

    @property
    def testable(self) -> np.ndarray:
        """[d_sae] whether a feature of the base fires often enough to tell."""
        return self.base.firings >= self.p.min_firings

    def share(self, pair: Pair, kind: str) -> Estimate:
        """A share of chapter 06 with its interval, or "transfer"."""
        if kind == "transfer":
            return Estimate.read(self.transfers.loc[pair], "persist")
        return Estimate.read(self.pairs.loc[pair], kind)

    def matched_r(self, child: str, column: str = "r") -> np.ndarray:
        """[d_sae] of the base's features: best r in `child`, or another column of `matches`."""
        return self.matches.loc[(BASE, child), column].to_numpy()

    def own_r(self, child: str) -> np.ndarray:
        """[d_sae] correlation of each of the base's features with itself in `child`."""
        return self.moved.loc[(BASE, child), "r"].to_numpy()

    def kept(self, r: np.ndarray) -> np.ndarray:
        """[d_sae] which testable features pass."""
        return self.testable & (r >= self.p.threshold)


def open_run(run: Run, p: SimpleNamespace) -> ControlRun:
    """Read what chapters 02 to 06 left in the run's folder."""

    def by_pair(name: str) -> pd.DataFrame:
        return run.read_table(name).set_index(["parent", "child"]).sort_index()

    models = {m: load_checkpoint(run.model(m)) for m in (*MODELS, PLACEBO)}
    return ControlRun(
        run=run,
        p=p,
        stream=load_stream(run.folder / "features"),
        texts=token_strings(load_tokenizer(run.tokenizer), range(models[BASE].config.vocab_size)),
        models=models,
        sae=load_autoencoder(run.autoencoder(BASE, 0)),
        base=load_features(run.features(BASE, 0)),
        pairs=by_pair("pairs"),
        matches=by_pair("matches").loc[lambda table: table["side"] == "parent"],
        moved=by_pair("transfers"),
        transfers=by_pair("transfer_shares"),
    )


def compare_neurons(
    c: ControlRun, models: Mapping[str, PreTrainedModel], pairs: Iterable[Pair]
) -> dict[Pair, float]:
    """Shares of a parent's neurons whose best correlation with a neuron of the child passes.

    Each model is read once, to disk: all of them at once would not fit beside the rest.
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            np.save(Path(folder) / name, transfer.read_neurons(model, c.stream.ids))
        read = {m: np.load(Path(folder) / f"{m}.npy", mmap_mode="r") for m in models}
        for a, b in pairs:
            best = pearson_dense(read[a], read[b]).max(axis=1)
            found[a, b] = float((best >= c.p.threshold).mean())
    return found


def follow_through_merge(c: ControlRun) -> pd.DataFrame:
    """The base's features in the merge at every `control_step` of t: columns of `share_by_t`."""
    along = {float(t): c.own_r(end) for t, end in enumerate(MERGE_OF)}
    scale = activation_scale(c.models[BASE], c.stream.ids)
    for t in map(float, np.arange(c.p.control_step, 1 - 1e-9, c.p.control_step)):
        models = (c.models[name] for name in (*MERGE_OF, BASE))
        merged = merge_models(*models, t=t, method=c.p.merge_method)
        _, after = transfer.carry(c.sae, scale, merged, c.stream.ids, l0=c.base.l0)
        along[t] = paired_pearson(c.base.matrix, after.matrix)
    along[c.p.merge_t] = c.own_r(MERGED)
    return transfer.share_by_t(along, c.base.firings, c.rule)


def find_recovered(c: ControlRun) -> pd.DataFrame:
    """Columns of `transfer.recovered_features` for the base's testable features."""
    r = {model: c.own_r(model) for model in (*MERGE_OF, MERGED)}
    return transfer.recovered_features(r, c.base.firings, c.rule)


def classes_of_features(c: ControlRun) -> np.ndarray:
    """[d_sae] token class on which most of each feature of the base lies; NaN if it is silent."""
    number = [[TOKEN_CLASSES.index(token_class(t, d)) for t in c.texts] for d in DOMAINS]
    classes = np.array(number)[c.stream.kinds, c.stream.ids].reshape(-1)
    one_hot = sparse.csr_array((np.ones(len(classes), np.float32), (range(len(classes)), classes)))
    mass = (c.base.matrix.T @ one_hot).toarray()
    about = np.array(TOKEN_CLASSES, dtype=object)[mass.argmax(axis=1)]
    about[mass.sum(axis=1) == 0] = np.nan
    return about


def share_formatting(about: np.ndarray, chosen: np.ndarray) -> Estimate:
    """Which share of the `chosen` features [d_sae] are about punctuation and layout."""
    formatting = np.isin(about.astype(str), FORMATTING)
    return proportion(int((formatting & chosen).sum()), int(chosen.sum()))
