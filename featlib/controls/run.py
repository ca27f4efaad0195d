"""The controls that train nothing: each holds one thing fixed, from a run's files to numbers."""

from __future__ import annotations

import json
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
from featlib.estimate import Estimate, document_weights, proportion
from featlib.family import BASE, CHILDREN, DOMAINS, MERGE_OF, MERGED, MODELS, PAIRS, STEPS
from featlib.matching import nulls, transfer
from featlib.matching.correlation import paired_pearson, pearson_dense
from featlib.matching.fates import Fates, Rule, compare, fate_table
from featlib.models.merging import merge_models
from featlib.models.mistral import load_checkpoint, load_tokenizer
from featlib.params import derive_seed
from featlib.run import Run
from featlib.text.labels import TOKEN_CLASSES, token_class
from featlib.text.stream import Stream, load_stream
from featlib.text.tokens import token_strings

Pair = tuple[str, str]  # parent, child
SHUFFLES = {
    "shifted within documents": nulls.shift_within_documents,
    "documents permuted": nulls.permute_documents,
}
RANDOM = "random dictionary"
NULLS = (*SHUFFLES, RANDOM)
PARTS = (1 / 64, 1 / 8, 1)  # of the text: on less of it features fire less often
LEAST = 20  # features in a bin that is shown
FORMATTING = ("punctuation", "whitespace", "special")  # classes of punctuation and layout


@dataclass(frozen=True)
class ControlRun:
    """All that the controls work on. `rng` is drawn from in the order of the chapter."""

    run: Run
    p: SimpleNamespace
    stream: Stream  # the common text
    texts: Sequence[str]  # of every token id
    models: dict[str, PreTrainedModel]
    saes: dict[str, SparseAutoencoder]  # the first seed's, as chapter 06 read with them
    scales: dict[str, float]  # of each model's activations over the common text
    acts: dict[str, list[FeatureActivations]]  # by model, one for each seed
    pairs: pd.DataFrame  # chapter 06's shares, by (parent, child)
    weights: np.ndarray  # [n_boot, documents], the same for all intervals
    rng: np.random.Generator

    @property
    def rule(self) -> Rule:
        return Rule(self.p.threshold, self.p.min_firings)

    @property
    def firings(self) -> np.ndarray:
        """[d_sae] of the base's first autoencoder, which most controls follow."""
        return self.acts[BASE][0].firings

    @property
    def testable(self) -> np.ndarray:
        return self.firings >= self.p.min_firings

    def compare(self, parent: str, i: int, child: str, j: int) -> Fates:
        """Fates of seed `i`'s features of the parent among seed `j`'s of the child."""
        return compare(self.acts[parent][i].matrix, self.acts[child][j].matrix, self.rule)

    def share(self, pair: Pair, kind: str = "persist") -> Estimate:
        """A share of chapter 06 with its interval: persist, ceiling or calibrated."""
        row = self.pairs.loc[pair]
        return Estimate(row[kind], row[f"{kind}_low"], row[f"{kind}_high"])


def open_run(run: Run, p: SimpleNamespace) -> ControlRun:
    """Read what chapters 02 to 06 left in the run's folder."""
    rng = np.random.default_rng(derive_seed(p.seed, "controls"))
    pairs = run.read_table("pairs").set_index(["parent", "child"])
    stream = load_stream(run.folder / "features")
    models = {m: load_checkpoint(run.model(m)) for m in MODELS}
    saes = {m: load_autoencoder(run.autoencoder(m, 0)) for m in MODELS}
    thresholds = json.loads((run.folder / "features" / "thresholds.json").read_text())
    for m, sae in saes.items():
        sae.set_threshold(thresholds[m][0])
    vocabulary = range(models[BASE].config.vocab_size)
    return ControlRun(
        run=run,
        p=p,
        stream=stream,
        texts=token_strings(load_tokenizer(run.tokenizer), vocabulary),
        models=models,
        saes=saes,
        scales={m: activation_scale(models[m], stream.ids) for m in MODELS},
        acts={m: [load_features(run.features(m, n)) for n in range(p.sae_seeds)] for m in MODELS},
        pairs=pairs,
        weights=document_weights(stream.documents, p.bootstrap, rng),
        rng=rng,
    )


def read_fates(c: ControlRun) -> dict[Pair, Fates]:
    """What chapter 06 found for every pair, with seeds 0 and 1; it keeps no candidates."""
    found = {}
    matches = c.run.read_table("matches").groupby(["parent", "child", "side"])
    for pair in PAIRS:
        sides = []
        for side, lost in (("parent", "disappears"), ("child", "emerges")):
            table = matches.get_group((*pair, side))
            best = {column: table[column].to_numpy() for column in ("best", "r", "mutual")}
            sides.append(fate_table(best, table["firings"].to_numpy(), lost, c.rule))
        parents, children = sides
        found[pair] = Fates(parents, children, np.empty((len(parents), 0), np.int32), c.rule)
    return found


# --- sparsity, nulls, neurons ---------------------------------------------------------------------


def compare_dictionaries(c: ControlRun) -> pd.DataFrame:
    """Per autoencoder: model, seed, own_l0 and own_fvu (its own text), l0 (the common text)."""
    keys = [(m, n) for m in MODELS for n in range(c.p.sae_seeds)]
    cards = c.run.read_table("autoencoder_cards").set_index(["model", "seed"]).loc[keys]
    own = cards[["l0", "fvu"]].add_prefix("own_")
    return own.assign(l0=[c.acts[m][n].l0 for m, n in keys]).reset_index()


@dataclass(frozen=True)
class Nulls:
    """Comparisons in which nothing can rightly match.

    `found`, one row per parent feature and comparison: null, parent, child, whole (all of the
    text), firings, r, fate, passes. `by_step`: share of testable features that pass on all of the
    text, by (null, parent, child).
    """

    found: pd.DataFrame
    by_step: pd.Series

    @property
    def shuffled(self) -> float:
        """The most that pass in any comparison whose tokens are out of step."""
        return float(self.by_step.drop(RANDOM, level="null").max())

    @property
    def random(self) -> float:
        """Share that passes against random directions, on average."""
        return float(self.by_step[RANDOM].mean())

    def easy(self, child: str) -> np.ndarray:
        """[d_sae] whether random directions in a child match each feature of the base."""
        drawn = (self.found["null"] == RANDOM) & (self.found["child"] == child)
        return self.found.loc[drawn, "passes"].to_numpy()

    def by_firings(self) -> pd.DataFrame:
        """null, firings (lower edge of a bin of a factor of two), features, share that passes."""
        alive = self.found[self.found["firings"] > 0]
        level = 2.0 ** np.floor(np.log2(alive["firings"].to_numpy(float)))
        table = alive.groupby(["null", level], sort=False)["passes"].agg(["size", "mean"])
        table = table.reset_index().set_axis(["null", "firings", "features", "share"], axis=1)
        return table[table["features"] >= LEAST].sort_values(["null", "firings"])


def run_nulls(c: ControlRun) -> Nulls:
    """Shift and permute on all and on parts of the text, and compare with random directions."""
    part = c.rng.permutation(len(c.stream))
    found = []
    for share in PARTS:
        chosen = np.sort(part[: max(2, round(share * len(c.stream)))])
        row = (chosen[:, None] * c.stream.context + np.arange(c.stream.context)).reshape(-1)
        documents = c.stream.documents[chosen].reshape(-1)
        if len(np.unique(documents)) < 2:
            continue
        for parent, child in STEPS:
            if share < 1 and parent != BASE:
                continue
            a = c.acts[parent][0].matrix[row]
            b = c.acts[child][1].matrix[row]
            for name, shuffle in SHUFFLES.items():
                f = compare(a, shuffle(b, documents, c.rng), c.rule).parents
                found.append(f.assign(null=name, parent=parent, child=child, whole=share == 1))
    for child in CHILDREN:
        raw = transfer.read_neurons(c.models[child], c.stream.ids)
        random = nulls.random_dictionary(raw, c.acts[child][0].firings, c.rng)
        f = compare(c.acts[BASE][0].matrix, random, c.rule).parents
        found.append(f.assign(null=RANDOM, parent=BASE, child=child, whole=True))
        del raw, random
    table = pd.concat(found, ignore_index=True)
    table["passes"] = table["r"] >= c.p.threshold
    whole = table[table["whole"] & (table["fate"] != "untestable")]
    by_step = whole.groupby(["null", "parent", "child"], sort=False)["passes"].mean()
    return Nulls(table, by_step)


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


# --- transfer and the way through the merge -------------------------------------------------------


@dataclass(frozen=True)
class Transfers:
    """Each parent's own autoencoder read in its children: fates and shares, by (parent, child)."""

    fates: dict[Pair, Fates]
    shares: dict[Pair, Estimate]

    def own_r(self, child: str) -> np.ndarray:
        """[d_sae] correlation of each of the base's features with itself in `child`."""
        return self.fates[BASE, child].parents["r"].to_numpy()


def carried(c: ControlRun, parent: str, child: PreTrainedModel) -> FeatureActivations:
    """What the parent's first autoencoder finds in `child` on the common text."""
    sae, scale, l0 = c.saes[parent], c.scales[parent], c.acts[parent][0].l0
    return transfer.carry(sae, scale, child, c.stream.ids, l0=l0)[1]


def run_transfers(c: ControlRun) -> Transfers:
    fates, shares = {}, {}
    for parent, child in PAIRS:
        after = carried(c, parent, c.models[child])
        fates[parent, child], shares[parent, child] = transfer.transfer_share(
            c.acts[parent][0].matrix, after.matrix, c.stream.documents, c.weights, c.rule
        )
    return Transfers(fates, shares)


def follow_through_merge(c: ControlRun, moved: Transfers) -> pd.DataFrame:
    """The base's features in the merge at every `control_step` of t: columns of `share_by_t`."""
    along = {float(t): moved.own_r(end) for t, end in enumerate(MERGE_OF)}
    for t in map(float, np.arange(c.p.control_step, 1 - 1e-9, c.p.control_step)):
        models = (c.models[name] for name in (*MERGE_OF, BASE))
        merged = merge_models(*models, t=t, method=c.p.merge_method)
        after = carried(c, BASE, merged)
        along[t] = paired_pearson(c.acts[BASE][0].matrix, after.matrix)
    along[c.p.merge_t] = moved.own_r(MERGED)
    return transfer.share_by_t(along, c.firings, c.rule)


def find_recovered(c: ControlRun, moved: Transfers) -> pd.DataFrame:
    """Columns of `transfer.recovered_features` for the base's testable features."""
    r = {model: moved.own_r(model) for model in (*MERGE_OF, MERGED)}
    return transfer.recovered_features(r, c.firings, c.rule)


def moves_in_weights(c: ControlRun) -> dict[str, float]:
    """How far merge and merged lie from the base in the space of weights, and how they moved.

    Keys: the models (Euclidean distances over all weights), and cosine, between the moves of the
    two that are merged.
    """
    base = c.models[BASE].state_dict()

    def dot(a: str, b: str) -> float:
        x, y = c.models[a].state_dict(), c.models[b].state_dict()
        return float(
            sum(((x[k] - v).double() * (y[k] - v).double()).sum() for k, v in base.items())
        )

    far = {m: dot(m, m) ** 0.5 for m in (*MERGE_OF, MERGED)}
    return far | {"cosine": dot(*MERGE_OF) / (far[MERGE_OF[0]] * far[MERGE_OF[1]])}


# --- what features are about ----------------------------------------------------------------------


def classes_of_features(c: ControlRun) -> np.ndarray:
    """[d_sae] token class on which most of each feature of the base lies; NaN if it is silent."""
    base = c.acts[BASE][0]
    class_of = np.array(
        [[TOKEN_CLASSES.index(token_class(t, d)) for t in c.texts] for d in DOMAINS]
    )
    classes = class_of[c.stream.kinds, c.stream.ids].reshape(-1)
    one_hot = sparse.csr_array((np.ones(len(classes), np.float32), (range(len(classes)), classes)))
    mass = (base.matrix.T @ one_hot).toarray()
    about = np.array(TOKEN_CLASSES, dtype=object)[mass.argmax(axis=1)]
    about[mass.sum(axis=1) == 0] = np.nan
    return about


def share_formatting(about: np.ndarray, chosen: np.ndarray) -> Estimate:
    """Which share of the `chosen` features [d_sae] are about punctuation and layout."""
    formatting = np.isin(about.astype(str), FORMATTING)
    return proportion(int((formatting & chosen).sum()), int(chosen.sum()))


def persisting(*fates: Fates) -> np.ndarray:
    """[d_parent] whether a feature persists in at least one of several comparisons."""
    return np.any([(f.parents["fate"] == "persists").to_numpy() for f in fates], axis=0)
