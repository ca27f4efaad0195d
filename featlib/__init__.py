"""Library behind the companion to Horn & Elliott, *Tracking Universal Features* (2024).

Modules stand on floors, in the order in which data flows; one may import those before it, never the
reverse (a test holds them to it).

1. params, runs, chapters: a run's numbers, its folder, the frame of a notebook.
2. archives, documents, textfiles, grammar, stories, embedded, corpora, tokens: text, and text as
   token ids.
3. next_token, training, checkpoints, language_model, merging: the four models.
4. activations, sparse_codes, sae_model, sae_gradients, sae_training, autoencoder: what goes on in
   their MLP, and dictionaries for it.
5. features, correlation, intervals, matching, nulls, controls, transfer, crosscoder, claims:
   features of two models as one, and how much of that is noise.
6. syntax, labels, detectors, baselines, cases, interventions, effects, verdicts, case_text,
   case_study, case_sweeps, case_run: what a feature detects, what it causes, whether it survives.
   crosscoder_verdicts, planted_features, control_run, control_tables, control_text,
   trained_controls, crosscoder_run: what the controls of one run say.
7. explanations, explanation_scores, chat, chat_explanations, atlas: features in words.
8. figures, strips, charts, case_tables and the other modules of charts: how it is shown.

Importing the package imports nothing else: each notebook names the modules that it uses.
"""
