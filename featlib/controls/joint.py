"""The crosscoder of one run: trained on its models, kept in its folder, and judged by plants."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
import torch

from featlib.controls.run import STEPS, ControlRun, named
from featlib.controls.trained import recipe
from featlib.dictionaries import crosscoder as cross
from featlib.dictionaries import features, recipes
from featlib.family import DOMAINS, MODELS
from featlib.matching import owners as verdicts
from featlib.matching.owners import Plants, judge_plants, plant_features
from featlib.models.recipes import training_text
from featlib.params import derive_seed


@dataclass(frozen=True)
class Joint:
    """The crosscoder over all four models, and what it says of the common text."""

    crosscoder: cross.Crosscoder
    read: features.FeatureActivations
    fvu: dict[str, float]  # by model
    own_fvu: dict[str, float]  # of each model's own autoencoder, on the same text
    testable: np.ndarray  # [d_sae] fires on `min_firings` tokens or more
    planted: pd.DataFrame  # `judge_plants`: what it made of features of known owners
    seconds: float

    @property
    def l0(self) -> float:
        return self.read.l0

    def metrics(self) -> dict[str, float]:
        """What `metrics.json` keeps of it."""
        found = {"crosscoder.l0": self.l0}
        for own, part in self.planted.groupby("own"):
            counts = part[["planted", "found", "exclusive", "shared"]].sum()
            name = f"crosscoder.planted.{'own' if own else 'all'}"
            found |= {f"{name}.{key}": float(n) for key, n in counts.items()}
        found |= {f"crosscoder.{model}.fvu": value for model, value in self.fvu.items()}
        found |= {f"crosscoder.{kind}": float(share) for kind, share in self.overall().items()}
        return {key: value for key, value in found.items() if np.isfinite(value)}

    def norms(self) -> pd.DataFrame:
        """Per step and testable feature: label, relative (the child's part of two lengths)."""
        return pd.concat(
            [
                pd.DataFrame(
                    {
                        "label": named(*pair),
                        "relative": verdicts.relative_norm(self.crosscoder, *pair)[self.testable],
                    }
                )
                for pair in STEPS
            ],
            ignore_index=True,
        )

    def kinds(self) -> pd.DataFrame:
        """Shares of testable features by step (index: label) and kind (`verdicts.classify`)."""
        norms = self.norms()
        norms = norms.assign(kind=verdicts.classify(norms["relative"]))
        return norms.groupby("label", sort=False)["kind"].value_counts(normalize=True).unstack()

    def overall(self) -> pd.Series:
        """Shares of testable features that are shared by all, exclusive to one, or partial."""
        spread = verdicts.spread_over_models(self.crosscoder)[self.testable]
        return spread["kind"].value_counts(normalize=True)


def train_joint(c: ControlRun) -> Joint:
    """Train the crosscoder on equal parts of all four kinds of text, and keep it in the run.

    It gets the autoencoders' number of features, k and learning rate, and a few planted features of
    known owners to be judged by. `Run.crosscoder` and `Run.crosscoder_features` hold what chapter
    09 needs of it; on real text the planted features are silent.
    """
    started = time.monotonic()
    own = recipes.autoencoder_config(recipe(c, "05_autoencoders"), c.saes["base"].d_in)
    config = replace(
        own,
        architecture="batchtopk",
        d_in=own.d_in * len(MODELS),
        n_tokens=c.p.crosscoder_tokens,
        # As many activations in a batch, since a token brings those of all models. More and smaller
        # steps are what unlearning takes: a row of W_dec starts equally long in every model.
        batch_size=max(1, own.batch_size // len(MODELS)),
    )
    blocks = training_text(c.run, DOMAINS, c.p.seed, "crosscoder")
    scales = {m: recipes.training_scale(model, blocks) for m, model in c.models.items()}
    rng = np.random.default_rng(derive_seed(c.p.seed, "plants"))
    strength = float(c.acts["base"][0].matrix.data.mean())
    plants = plant_features(len(MODELS), own.d_in, strength, rng)
    seed = derive_seed(c.p.seed, "crosscoder")
    batches = cross.joint_batches(c.models, blocks.ids, scales, config, seed)
    crosscoder = cross.train_crosscoder(plants.add_to(batches, rng), scales, config, seed=0)
    ids = recipes.calibration_ids(c.stream, c.p.seed)
    rows = cross.side_by_side(crosscoder, c.models, ids)
    features.calibrate(crosscoder.sae, rows, config.k)
    read, fvu = read_common(c, crosscoder)
    cross.save_crosscoder(crosscoder, c.run.crosscoder, {"training": asdict(config)})
    features.save_features(read, c.run.crosscoder_features)
    own_fvu = {
        m: read_common(c, cross.Crosscoder((m,), sae, (sae.scale,)))[1][m]
        for m, sae in c.saes.items()
    }
    return Joint(
        crosscoder=crosscoder,
        read=read,
        fvu=fvu,
        own_fvu=own_fvu,
        testable=read.firings >= c.p.min_firings,
        planted=find_plants(c, crosscoder, plants, rng),
        seconds=time.monotonic() - started,
    )


def read_common(
    c: ControlRun, crosscoder: cross.Crosscoder
) -> tuple[features.FeatureActivations, dict[str, float]]:
    """Features on the common text, and each model's FVU there."""
    return cross.encode_joint(crosscoder, cross.side_by_side(crosscoder, c.models, c.stream.ids))


def find_plants(
    c: ControlRun, crosscoder: cross.Crosscoder, plants: Plants, rng: np.random.Generator
) -> pd.DataFrame:
    """`judge_plants` on the common text, with the plants' activations drawn anew."""
    truth = plants.draw(c.stream.n_tokens, rng)

    def rows() -> Iterator[torch.Tensor]:
        start = 0
        for x in cross.side_by_side(crosscoder, c.models, c.stream.ids):
            yield plants.add(x, truth[start : start + len(x)])
            start += len(x)

    read = cross.encode_joint(crosscoder, rows())[0]
    return judge_plants(crosscoder, plants, read, truth, c.p.threshold)
