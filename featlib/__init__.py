"""The library behind a companion to Horn & Elliott, *Tracking Universal Features* (2024).

    text -> models -> dictionaries -> matching -> cases -> controls
                                              `-> describe          show
    ------------------------------------------------------------------
    family  params  estimate  run  chapter  verdicts       (the ground)

Data flows along the arrows; a room imports from the rooms before it and from the ground, `show`
from the ground alone, and notebooks use them all. Importing the package imports nothing else.
"""


class FeatlibError(ValueError):
    """An error meant for the person at the keyboard: what was wrong, where, and what to do."""
