# %% [markdown]
# # What is too slow for every run
#
# Each section measures one thing on a finished run and keeps a table of it. Chapters show these
# tables; without a run of their own they show those that were published with the book.

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # name of a finished run, on which all is measured
sections: str = "curve instrument warm_start crosscoder rates"  # those to make now
curve_shares: list = [0.25, 0.5, 1.0, 2.0]  # lengths of training, in the run's `sae_tokens`
curve_settings: list = [[0.003, 0.9999, 2048], [0.006, 0.99, 1024]]  # sae_lr, beta2, batch size
crosscoder_share: float = 1.0  # tokens the crosscoder is trained on, in the run's `sae_tokens`

# %%
from types import SimpleNamespace

from IPython.display import display

from featlib.chapter import start_chapter
from featlib.controls import slow
from featlib.controls.rates import sweep_rates
from featlib.controls.run import open_run

chapter = start_chapter("controls", globals())
p, run_folder = chapter.params, chapter.run
finished = slow.Finished(run_folder)

# %% [markdown]
# ## How training decides the ceiling

# %%
if "curve" in p.sections.split():
    curve = slow.training_curve(finished, p.curve_shares, p.curve_settings)
    display(chapter.keep("training_curve", curve))

# %% [markdown]
# ## The paper's own instrument

# %%
if "instrument" in p.sections.split():
    display(chapter.keep("paper_instrument", slow.paper_instrument(finished)))

# %% [markdown]
# ## A warm start

# %%
if "warm_start" in p.sections.split():
    display(chapter.keep("warm_start", slow.warm_starts(finished)))

# %% [markdown]
# ## One dictionary for all models

# %%
if "crosscoder" in p.sections.split():
    display(chapter.keep("crosscoder", slow.crosscoder(finished, p.crosscoder_share)))

# %% [markdown]
# ## What a fine-tune's rate buys
#
# Each child is trained anew at four learning rates.

# %%
if "rates" in p.sections.split():
    of_run = SimpleNamespace(**run_folder.recorded_params())
    display(chapter.keep("rates", sweep_rates(open_run(run_folder, of_run), of_run)))
