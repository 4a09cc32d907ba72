"""Flower in the place of a store: a Flower app carries the same sealed, signed, encrypted files.

Nothing here imports Flower but the modules of :mod:`fedpriv.flower.relay`, which Flower runs in its own environment.
"""

from fedpriv.flower.app_folder import write_app

__all__ = ["write_app"]
