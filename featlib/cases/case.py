"""A case study of one run: a label's feature in one model, and what became of it in the others.

Models are read one after the other: what one computes on the text is let go before the next is
read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd

from featlib import FeatlibError
from featlib.cases.answers import (
    Match,
    Trace,
    answer_questions,
    coactive_costs,
    coactive_features,
    token_rule_draws,
    trace_feature,
)
from featlib.cases.counterparts import Home, compare_routes, find_matches, settle
from featlib.cases.detectors import (
    Draws,
    LabelledStream,
)
from featlib.cases.edits import loss_changes
from featlib.cases.fit import LabelFit, fit_label
from featlib.cases.peers import Peers, find_peers
from featlib.cases.subjects import Subject, read_sites, read_with
from featlib.cases.text import CaseText, gather_text, split_halves
from featlib.dictionaries.features import load_features
from featlib.dictionaries.sae import load_autoencoder
from featlib.family import BASE, CODE, DOMAINS, MODELS, PLACEBO
from featlib.models.mistral import load_checkpoint, load_tokenizer
from featlib.params import check_choice, derive_seed
from featlib.run import Run, needed
from featlib.text.labels import Label
from featlib.text.stream import load_stream

OTHER = 0.1  # tokens of each other domain, as a share of those of code


@dataclass(frozen=True)
class Case:
    """A label studied in a run: what was found, and all that is needed to go on."""

    label: str
    home: Home
    draws: Draws
    text: CaseText
    streams: dict[str, LabelledStream]  # by label
    peers: Peers
    fits: dict[tuple[str, str], LabelFit]  # by label and model
    costs: dict[tuple[str, str], tuple[float, float]]  # nats that ablating costs: on, off the label
    traces: dict[str, Trace]  # by model, the placebo too
    matches: list[Match]
    scores: dict[str, np.ndarray]  # by model: its best match's activations [tokens] on the text
    counterparts: pd.DataFrame  # model, route, again, feature, measures with intervals
    coactive: pd.DataFrame  # model, feature, fires_on, nats with interval
    answers: pd.DataFrame  # see `answer_questions`

    @property
    def stream(self) -> LabelledStream:
        return self.streams[self.label]

    @property
    def own(self) -> LabelFit:
        return self.fits[self.label, self.home.model]

    @property
    def detectors(self) -> pd.DataFrame:
        """Every detector of every fit: label, model, detector, index, threshold, measures."""
        return pd.concat(
            [fit.test.assign(label=label, model=name) for (label, name), fit in self.fits.items()],
            ignore_index=True,
        )

    def best_match(self, model: str) -> Match:
        """The feature of the model's own autoencoders that goes best with the case's."""
        found = [m for m in self.matches if m.model == model and not m.text]
        return max(found, key=lambda match: match.r.value)


def study_label(
    run: Run,
    p: SimpleNamespace,
    label: str,
    labels: Mapping[str, Label],
    *,
    languages: Sequence[str],
    reference: str,
) -> Case:
    """Find the feature of `label` in the reference, and ask what became of it in the other models.

    `labels`: those that are fitted; `label` is one of them, and the one that is followed.
    `languages`: the kinds of code in the text. `p`: seed, sae_seeds, case_tokens, case_random,
    bootstrap, threshold.
    """
    check_choice("label", label, labels)
    draws = Draws(derive_seed(p.seed, "case", label), p.bootstrap, p.case_random)
    labels = {label: labels[label], **labels}  # its blocks come first
    text = read_text(run, p, labels, languages)
    streams = split_halves(text, list(labels), seed=draws.seed)
    if label not in streams:
        raise FeatlibError(
            f"{int(text.masks[label].sum())} tokens of the held-out text have the label {label!r}, "
            "in too few documents for two halves: raise case_tokens, or choose another label"
        )
    stream, common = streams[label], load_stream(run.folder / "features")
    fits, costs, traces, matches, scores = {}, {}, {}, [], {}
    counterparts, coactive, taken = [], [], -1
    for name in (reference, *(m for m in MODELS if m != reference)):
        model = load_checkpoint(needed(run.model(name)))
        sites = read_sites(model, text.ids)
        # Equal seeds find equal features (chapter 11), so nobody else's autoencoder has the seed of
        # the one that holds the feature.
        seeds = [s for s in range(p.sae_seeds) if s != taken]
        saes = {seed: load_autoencoder(needed(run.autoencoder(name, seed))) for seed in seeds}
        subjects = [read_with(model, sae, sites, seed) for seed, sae in saes.items()]
        for each, part in streams.items():
            if fit := fit_label(subjects, part, draws, rivals=each == label):
                fits[each, name] = fit
                costs[each, name] = _cost(subjects, fit, text, each)
        if name == reference:
            home = settle(run, fits.get((label, name)), name, saes, model, common)
            taken = home.seed
        here = read_with(model, home.carry_into(model), sites)
        if name == reference:
            peers = find_peers(here.features, stream, home.feature)
            together = coactive_features(here, home.feature, stream, text)
            mine = load_features(needed(run.features(name, home.seed))).matrix
            mine = mine[:, [home.feature, *peers.features]]
        traces[name] = trace_feature(here, home.feature, peers, stream, text, draws)
        cost = coactive_costs(here, together["feature"], stream, text, draws)
        coactive.append(together.drop(columns="nats").merge(cost).assign(model=name))
        others = [s for s in subjects if name != reference or s.seed != home.seed]
        new = find_matches(run, home, mine, name, [s.seed for s in others], common, draws)
        matches += new
        found, rows = compare_routes(home, here, others, new, stream, draws)
        scores[name] = traces[name].scores if name == reference else found
        counterparts.append(rows.assign(model=name, again=name == reference))
        del model, sites, subjects, here, others  # before the next model is read
    placebo = None
    if reference == BASE:
        model = load_checkpoint(needed(run.model(PLACEBO)))
        here = read_with(model, home.carry_into(model), read_sites(model, text.ids))
        placebo = trace_feature(here, home.feature, peers, stream, text, draws)
    probes = {m: float(fits[label, m].row("probe")["f1"]) for m in traces if (label, m) in fits}
    answers = answer_questions(
        traces, matches, token_rule_draws(stream, draws), probes, reference=reference,
        placebo=placebo, labelled=int(text.inside(stream.mask & stream.test).sum()),
        firings=int((mine[:, [0]] > 0).sum()), same=p.threshold,
    )  # fmt: skip
    return Case(
        label, home, draws, text, streams, peers, fits, costs, traces, matches, scores,
        pd.concat(counterparts, ignore_index=True), pd.concat(coactive, ignore_index=True), answers,
    )  # fmt: skip


def read_text(
    run: Run, p: SimpleNamespace, labels: Mapping[str, Label], languages: Sequence[str]
) -> CaseText:
    """Held-out blocks of the `languages` and of both kinds of English, with all `labels`.

    `p.case_tokens` of code, and a tenth as many of each kind of English.
    """
    ids = np.load(needed(run.tokens / f"{CODE[0]}.test.ids.npy"), mmap_mode="r")
    few, each = int(OTHER * p.case_tokens), p.case_tokens // len(languages)
    return gather_text(
        pd.read_parquet(needed(run.tokens / "documents.parquet")),
        load_tokenizer(run.tokenizer),
        labels,
        {d: each if d in languages else few for d in DOMAINS if d in languages or d not in CODE},
        context=ids.shape[1],
        seed=derive_seed(p.seed, "case text"),
    )


def _cost(
    subjects: Sequence[Subject], fit: LabelFit, text: CaseText, label: str
) -> tuple[float, float]:
    """Nats that ablating a label's best feature costs at labelled tokens, and everywhere else."""
    subject = next(s for s in subjects if s.seed == fit.seed)
    change = np.pad(loss_changes(subject, fit.feature), ((0, 0), (0, 1))).reshape(-1)
    weights = np.repeat(text.weights, text.ids.shape[1])
    mask = text.masks[label].reshape(-1)
    regions = [text.inside(where) * weights for where in (mask, ~mask)]
    on, off = (float(region @ change / max(region.sum(), 1e-9)) for region in regions)
    return on, off


def case_metrics(case: Case, label: str, prefix: str) -> dict[str, float]:
    """`<prefix>.<model>.f1|precision|recall|auroc|loss_delta_on|loss_delta_off` of a label.

    Of the model's best feature. The last two are nats that ablating it costs where it acts
    (predictions made at labelled tokens), and everywhere else. A model without a feature that
    fires, or a label too rare to judge, gets what a detector has that never says yes.
    """
    silent = {"f1": 0.0, "precision": 0.0, "recall": 0.0, "auroc": 0.5}
    found: dict[str, float] = {}
    for model in case.traces:
        fit, values = case.fits.get((label, model)), dict(silent)
        if fit is not None:
            values = {key: float(fit.row()[key]) for key in silent}
        on, off = case.costs.get((label, model), (0.0, 0.0))
        values |= {"loss_delta_on": on, "loss_delta_off": off}
        found |= {f"{prefix}.{model}.{key}": value for key, value in values.items()}
    return found


def answer_metrics(case: Case) -> dict[str, float]:
    """`answer.<question>.<model>.value|low|high|base_rate|percentile|ceiling`."""
    keys = ("value", "low", "high", "base_rate", "percentile", "ceiling")
    rows = case.answers.to_dict("records")
    return {
        f"answer.{r['question']}.{r['model']}.{key}": float(r[key]) for r in rows for key in keys
    }
