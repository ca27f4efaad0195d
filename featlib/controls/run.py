"""The controls of one run, from its files to their numbers: what chapter 11 shows.

Nothing here trains anything; what does is in `trained_controls`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy import sparse
from transformers import PreTrainedModel

from featlib.claims import FORMATTING
from featlib.dictionaries import features
from featlib.dictionaries.activations import activation_scale
from featlib.dictionaries.sae import SparseAutoencoder, load_autoencoder
from featlib.estimate import Estimate, document_weights, proportion
from featlib.family import BASE, DOMAINS, MERGE_OF, MODELS, PAIRS, PRINT_NAMES
from featlib.matching import fates as matching
from featlib.matching import nulls, transfer
from featlib.matching.correlation import paired_pearson, pearson_dense
from featlib.models import mistral as lm
from featlib.models.merging import merge_models
from featlib.params import derive_seed
from featlib.run import Run, atomic_path, needed
from featlib.text import tokens
from featlib.text.labels import TOKEN_CLASSES, token_class
from featlib.text.stream import Stream, load_stream

STEPS = [pair for pair in PAIRS if pair != ("base", "merged")]  # parent to child, no grandchild
CHILDREN = ("lua", "tinystories")  # the base's own
SHUFFLES = {
    "shifted within documents": nulls.shift_within_documents,
    "documents permuted": nulls.permute_documents,
}
RANDOM = "random dictionary"


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
    acts: dict[str, list[features.FeatureActivations]]  # by model, one for each seed
    pairs: pd.DataFrame  # chapter 06's shares, by (parent, child)
    weights: np.ndarray  # [n_boot, documents], the same for all intervals
    rng: np.random.Generator

    @property
    def rule(self) -> matching.Rule:
        return matching.Rule(self.p.threshold, self.p.min_firings)

    @property
    def firings(self) -> np.ndarray:
        """[d_sae] of the base's first autoencoder, which most controls follow."""
        return self.acts["base"][0].firings

    @property
    def testable(self) -> np.ndarray:
        return self.firings >= self.p.min_firings

    def fates(self, parent: str, i: int, child: str, j: int) -> matching.Fates:
        """Fates of seed `i`'s features of the parent among seed `j`'s of the child."""
        a, b = self.acts[parent][i].matrix, self.acts[child][j].matrix
        return matching.compare(a, b, self.rule)

    def share(self, pair: tuple[str, str], kind: str = "persist") -> Estimate:
        """A share of chapter 06 with its interval: persist, ceiling or calibrated."""
        row = self.pairs.loc[pair]
        return Estimate(row[kind], row[f"{kind}_low"], row[f"{kind}_high"])

    def save(self, name: str, table: pd.DataFrame) -> pd.DataFrame:
        with atomic_path(self.run.table(name)) as path:
            table.to_parquet(path)
        return table


def open_run(run: Run, p: SimpleNamespace) -> ControlRun:
    """Read what chapters 02 to 06 left in the run's folder."""
    rng = np.random.default_rng(derive_seed(p.seed, "controls"))
    pairs = pd.read_parquet(needed(run.table("pairs")))
    stream = load_stream(run.folder / "features")
    acts = {
        m: [features.load_features(run.features(m, n)) for n in range(p.sae_seeds)] for m in MODELS
    }
    models = {m: lm.load_checkpoint(run.model(m)) for m in MODELS}
    saes = {m: load_autoencoder(run.autoencoder(m, 0)) for m in MODELS}
    thresholds = json.loads((run.folder / "features" / "thresholds.json").read_text())
    for m, sae in saes.items():
        sae.set_threshold(thresholds[m][0])
    return ControlRun(
        run=run,
        p=p,
        stream=stream,
        texts=tokens.token_strings(
            lm.load_tokenizer(run.tokenizer), range(models["base"].config.vocab_size)
        ),
        models=models,
        saes=saes,
        scales={m: activation_scale(models[m], stream.ids) for m in MODELS},
        acts=acts,
        pairs=pairs.set_index(["parent", "child"]),
        weights=document_weights(stream.documents, p.bootstrap, rng),
        rng=rng,
    )


def named(parent: str, child: str) -> str:
    return f"{PRINT_NAMES[parent]} → {PRINT_NAMES[child]}"


# --- sparsity, nulls, neurons ---------------------------------------------------------------------


def compare_dictionaries(c: ControlRun) -> pd.DataFrame:
    """Per autoencoder: model, seed, own_l0, own_fvu (own text), l0, ratio, equal (common text)."""
    keys = [(m, n) for m in MODELS for n in range(c.p.sae_seeds)]
    l0 = np.array([c.acts[m][n].l0 for m, n in keys])
    ratio = l0 / l0.min()
    cards = pd.read_parquet(c.run.table("autoencoder_cards")).set_index(["model", "seed"])
    own = cards.loc[keys, ["l0", "fvu"]].set_axis(["own_l0", "own_fvu"], axis=1).reset_index()
    return own.assign(l0=l0, ratio=ratio, equal=ratio <= 1.1)


@dataclass(frozen=True)
class Nulls:
    """Comparisons in which nothing can rightly match.

    `found`, one row per parent feature and comparison: null, parent, child, whole (all of the
    text), firings, r, fate, passes. `by_step`: share of testable features that pass on all of the
    text, by (null, parent, child). `easy` [d_sae]: features of the base that random directions
    match in Lua.
    """

    found: pd.DataFrame
    by_step: pd.Series
    easy: np.ndarray

    @property
    def shuffled(self) -> float:
        """The most that pass in any comparison whose tokens are out of step."""
        return float(self.by_step.drop(RANDOM, level="null").max())

    @property
    def random(self) -> float:
        """Share that passes against random directions, on average."""
        return float(self.by_step[RANDOM].mean())

    def by_firings(self, least: int = 20) -> pd.DataFrame:
        """null, firings (lower edge of a bin of a factor of two), features, share that passes."""
        alive = self.found[self.found["firings"] > 0]
        level = 2.0 ** np.floor(np.log2(alive["firings"].to_numpy(float)))
        table = alive.groupby(["null", level], sort=False)["passes"].agg(["size", "mean"])
        table = table.reset_index().set_axis(["null", "firings", "features", "share"], axis=1)
        return table[table["features"] >= least].sort_values(["null", "firings"])


def run_nulls(c: ControlRun) -> Nulls:
    """Shift and permute on all and on parts of the text, and compare with random directions."""
    part = c.rng.permutation(len(c.stream))
    found = []
    for share in (1 / 64, 1 / 8, 1):  # on less text features fire less often
        chosen = np.sort(part[: max(2, round(share * len(c.stream)))])
        row = (chosen[:, None] * c.stream.context + np.arange(c.stream.context)).reshape(-1)
        documents = c.stream.documents[chosen].reshape(-1)
        if len(np.unique(documents)) < 2:
            continue
        for parent, child in STEPS if share == 1 else STEPS[:2]:
            a = c.acts[parent][0].matrix[row]
            b = c.acts[child][min(1, c.p.sae_seeds - 1)].matrix[row]
            for name, shuffle in SHUFFLES.items():
                f = matching.compare(a, shuffle(b, documents, c.rng), c.rule).parents
                found.append(f.assign(null=name, parent=parent, child=child, whole=share == 1))
    for child in CHILDREN:
        raw = transfer.read_neurons(c.models[child], c.stream.ids)
        random = nulls.random_dictionary(raw, c.acts[child][0].firings, c.rng)
        f = matching.compare(c.acts["base"][0].matrix, random, c.rule).parents
        found.append(f.assign(null=RANDOM, parent="base", child=child, whole=True))
        del raw, random
    found = pd.concat(found, ignore_index=True)
    found["passes"] = found["r"] >= c.p.threshold
    whole = found[found["whole"] & (found["fate"] != "untestable")]
    by_step = whole.groupby(["null", "parent", "child"], sort=False)["passes"].mean()
    easy = found[(found["null"] == RANDOM) & found["passes"] & (found["child"] == "lua")]
    return Nulls(found, by_step, np.isin(np.arange(len(c.firings)), easy["feature"]))


def compare_neurons(c: ControlRun, a: PreTrainedModel, b: PreTrainedModel) -> float:
    """Share of `a`'s neurons whose best correlation with a neuron of `b` passes."""
    r = pearson_dense(*(transfer.read_neurons(m, c.stream.ids) for m in (a, b)))
    return float((r.max(axis=1) >= c.p.threshold).mean())


# --- transfer and the way through the merge -------------------------------------------------------


@dataclass(frozen=True)
class Transfers:
    """Each parent's own autoencoder read in its children: fates and shares, by (parent, child)."""

    fates: dict[tuple[str, str], matching.Fates]
    shares: dict[tuple[str, str], Estimate]

    def own_r(self, child: str) -> np.ndarray:
        """[d_sae] correlation of each of the base's features with itself in `child`."""
        return self.fates["base", child].parents["r"].to_numpy()


def run_transfers(c: ControlRun) -> Transfers:
    fates, shares = {}, {}
    for parent, child in PAIRS:
        after = transfer.read_with(
            c.saes[parent], c.scales[parent], c.models[child], c.stream.ids, c.scales[child]
        )
        before = c.acts[parent][0].matrix
        fates[parent, child], shares[parent, child] = transfer.transfer_share(
            before, after.matrix, c.stream.documents, c.weights, c.rule
        )
    return Transfers(fates, shares)


def follow_through_merge(c: ControlRun, moved: Transfers) -> pd.DataFrame:
    """The base's features in the merge at every `control_step` of t: columns of `share_by_t`."""
    inner = np.arange(c.p.control_step, 1 - 1e-9, c.p.control_step)
    models = [c.models[name] for name in (*MERGE_OF, BASE)]
    along = {}
    for t in map(float, inner):
        merged = merge_models(*models, t=t, method=c.p.merge_method)
        after = transfer.read_with(c.saes[BASE], c.scales[BASE], merged, c.stream.ids)
        along[t] = paired_pearson(c.acts[BASE][0].matrix, after.matrix)
    ends = {0.0: moved.own_r("lua"), 1.0: moved.own_r("tinystories")}
    along |= ends | {c.p.merge_t: moved.own_r("merged")}
    return transfer.share_by_t(along, c.firings, c.rule)


def find_recovered(c: ControlRun, moved: Transfers) -> pd.DataFrame:
    """Columns of `transfer.recovered_features` for the base's testable features."""
    r = {child: moved.own_r(child) for child in MODELS[1:]}
    return transfer.recovered_features(r, c.firings, c.rule)


def moves_in_weights(c: ControlRun) -> dict[str, float]:
    """How far each model lies from the base in the space of weights, and the moves' cosine.

    Keys: the children and the merge (Euclidean distances over all weights), and cosine, between
    the moves of the two children.
    """
    base = c.models["base"].state_dict()

    def dot(a: str, b: str) -> float:
        x, y = c.models[a].state_dict(), c.models[b].state_dict()
        return float(
            sum(((x[k] - v).double() * (y[k] - v).double()).sum() for k, v in base.items())
        )

    far = {m: dot(m, m) ** 0.5 for m in MODELS[1:]}
    return far | {"cosine": dot(*CHILDREN) / (far["lua"] * far["tinystories"])}


# --- what features are about ----------------------------------------------------------------------


def classes_of_features(c: ControlRun) -> np.ndarray:
    """[d_sae] token class on which most of each feature of the base lies; NaN if it is silent."""
    base = c.acts["base"][0]
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


def persisting(*fates: matching.Fates) -> np.ndarray:
    """[d_parent] whether a feature persists in at least one of several comparisons."""
    return np.any([(f.parents["fate"] == "persists").to_numpy() for f in fates], axis=0)
