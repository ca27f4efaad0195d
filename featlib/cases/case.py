"""A case study of one run: a label's feature in one model, and what became of it in the others.

Models are read one after the other: what one computes on the text is let go before the next is
read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd

from featlib import FeatlibError
from featlib.cases import answers
from featlib.cases.answers import Match, Trace
from featlib.cases.detectors import Draws, evaluate_detector, f1_draws, feature_scores
from featlib.cases.edits import Subject, read_sites
from featlib.cases.fit import LabelFit, find_best, fit_label, token_rule
from featlib.cases.peers import find_peers
from featlib.cases.text import CaseText, LabelledStream, gather_text
from featlib.dictionaries.activations import activation_scale
from featlib.dictionaries.features import FeatureActivations, load_features
from featlib.dictionaries.recipes import TEXT_SEEDS
from featlib.dictionaries.sae import SparseAutoencoder, load_autoencoder
from featlib.family import BASE, CODE, DOMAINS, MODELS, PLACEBO, PRINT_NAMES, on_text
from featlib.matching.transfer import carry
from featlib.models.mistral import load_checkpoint, load_tokenizer
from featlib.params import derive_seed
from featlib.run import Run, needed
from featlib.text.labels import Label
from featlib.text.stream import load_stream

OTHER = 0.1  # tokens of each other domain, as a share of those of code
COMMON = 16_000  # tokens of the common stream on which scales and thresholds are set


@dataclass(frozen=True)
class Case:
    """A label studied in a run: what was found, and all that is needed to go on."""

    label: str
    model: str  # in which the feature was found
    carry: Callable[..., tuple[SparseAutoencoder, FeatureActivations]]  # its autoencoder into one
    draws: Draws
    text: CaseText
    stream: LabelledStream
    peers: pd.DataFrame  # of `find_peers`
    fits: dict[tuple[str, str], LabelFit]  # by label and model
    traces: dict[str, Trace]  # by model
    matches: list[Match]
    scores: dict[str, np.ndarray]  # by model: its best match's activations [tokens] on the text
    counterparts: pd.DataFrame  # model, route, again, feature, measures with intervals
    coactive: pd.DataFrame  # model, feature, fires_on, nats with interval
    answers: pd.DataFrame  # see `answer_questions`

    @property
    def own(self) -> LabelFit:
        return self.fits[self.label, self.model]

    @property
    def detectors(self) -> pd.DataFrame:
        """Every detector of every fit: label, model, detector, index, threshold, measures."""
        parts = [fit.test.assign(label=of, model=name) for (of, name), fit in self.fits.items()]
        return pd.concat(parts, ignore_index=True)

    def best_match(self, model: str) -> Match:
        """The feature of the model's own autoencoders that goes best with the case's."""
        return answers.best_of(self.matches, model)


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
    draws = Draws(derive_seed(p.seed, "case", label), p.bootstrap, p.case_random)
    labels = {label: labels[label], **labels}  # its blocks come first
    text = read_text(run, p, labels, languages)
    streams = {each: part for each in labels if (part := text.halves(each, draws.seed))}
    if label not in streams:
        raise FeatlibError(
            f"{int(text.masks[label].sum())} tokens of the held-out text have the label {label!r}, "
            "in too few documents for two halves: raise case_tokens, or choose another label"
        )
    stream, common = streams[label], load_stream(run.folder / "features")
    fits, traces, matches, scores, counterparts, coactive, home = {}, {}, [], {}, [], [], None
    for name in (reference, *(m for m in MODELS if m != reference)):
        model = load_checkpoint(run.model(name))
        sites = read_sites(model, text.ids)
        # Equal seeds find equal features (chapter 11), so nobody else's autoencoder has the seed of
        # the one that holds the feature.
        seeds = [s for s in range(p.sae_seeds) if home is None or s != home.seed]
        saes = {seed: load_autoencoder(run.autoencoder(name, seed)) for seed in seeds}
        subjects = [Subject(model, sae, sites, seed) for seed, sae in saes.items()]
        for each, part in streams.items():
            if fit := fit_label(subjects, part, draws, rivals=each == label):
                fits[each, name] = fit
        if home is None:  # this is the reference
            if (home := fits.get((label, name))) is None:
                raise FeatlibError(f"no feature of {PRINT_NAMES[name]} fires where {label!r} is")
            sae, some = saes[home.seed], common.ids[: max(1, COMMON // common.context)]
            read = load_features(run.features(name, home.seed)).matrix
            scale, l0 = activation_scale(model, some), read[: some.size].nnz / some.size
            into = partial(carry, sae, scale, ids=some, l0=l0)
        here = Subject(model, into(model)[0], sites, home.seed)
        if name == reference:
            peers = find_peers(here.features, stream, home.feature)
            together = answers.coactive_features(here, home.feature, stream)
            mine = read[:, [home.feature, *peers.index]]
        traces[name] = answers.trace_feature(here, home.feature, peers, stream, draws)
        coactive.append(answers.coactive_costs(here, together, stream, draws).assign(model=name))
        others = [s for s in subjects if name != reference or s.seed != home.seed]
        through, row = on_text(reference, name), sae.W_dec.detach()[home.feature]
        read_too = [s for s in TEXT_SEEDS if s != home.seed and run.features(through, s).exists()]
        searched = [(name, "", s.seed) for s in others] + [(through, name, s) for s in read_too]
        for whose, learned_from, seed in searched:
            other = load_features(run.features(whose, seed)).matrix
            decoder = load_autoencoder(run.autoencoder(whose, seed)).W_dec.detach()
            found = answers.best_match(mine, other, row, decoder, common.documents, draws)
            matches.append(Match(name, learned_from, seed, *found))
        match, scores[name] = answers.best_of(matches, name), traces[name].scores
        matched = next(s for s in others if s.seed == match.seed)
        if name != reference:
            scores[name] = feature_scores(matched.features, match.feature)
        routes = {"transfer": (here, home.feature), "correlation": (matched, match.feature)}
        if best := find_best(others, stream):
            routes["labels"] = best[:2]
        for route, (subject, feature) in routes.items():
            score = feature_scores(subject.features, feature)
            measured = evaluate_detector(score, None, stream, draws)
            where = {"route": route, "seed": subject.seed, "feature": feature}
            counterparts.append({**where, **measured, "model": name, "again": name == reference})
        # All that was read is let go before the next model is.
        del model, sites, subjects, here, others, matched, routes, subject, best
    placebo = None
    if reference == BASE:
        model = load_checkpoint(run.model(PLACEBO))
        here = Subject(model, into(model)[0], read_sites(model, text.ids))
        placebo = answers.trace_feature(here, fits[label, BASE].feature, peers, stream, draws)
    answered = answers.answer_questions(
        traces, matches, f1_draws(token_rule(stream), stream, draws),
        {m: float(fits[label, m].row("probe")["f1"]) for m in traces}, reference=reference,
        placebo=placebo, labelled=len(stream.labelled(stream.test)),
        firings=int((mine[:, [0]] > 0).sum()), same=p.threshold,
    )  # fmt: skip
    return Case(
        label, reference, into, draws, text, stream, peers, fits, traces, matches, scores,
        pd.DataFrame(counterparts), pd.concat(coactive, ignore_index=True), answered,
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


def case_metrics(case: Case, label: str, prefix: str) -> dict[str, float]:
    """`<prefix>.<model>.f1|precision|recall|auroc|loss_delta_on|loss_delta_off` of a label.

    Of the model's best feature. The last two are nats that ablating it costs where it acts
    (predictions made at labelled tokens), and everywhere else. A model without a feature that
    fires, or a label too rare to judge, gets what a detector has that never says yes.
    """
    keys = ("f1", "precision", "recall", "auroc", "loss_delta_on", "loss_delta_off")
    found: dict[str, float] = {}
    for model in case.traces:
        values = [0.0, 0.0, 0.0, 0.5, 0.0, 0.0]
        if fit := case.fits.get((label, model)):
            values = [*fit.row()[list(keys[:4])], *fit.costs]
        found |= {f"{prefix}.{model}.{k}": float(v) for k, v in zip(keys, values, strict=True)}
    return found


def answer_metrics(case: Case) -> dict[str, float]:
    """`answer.<question>.<model>.value|low|high|base_rate|percentile|ceiling`."""
    keys = ("value", "low", "high", "base_rate", "percentile", "ceiling")
    rows = case.answers.to_dict("records")
    return {
        f"answer.{r['question']}.{r['model']}.{key}": float(r[key]) for r in rows for key in keys
    }
