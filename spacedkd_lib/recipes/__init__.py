"""A run described: the `Recipe`, functions that derive one from another, and the registry of deviations. No torch here."""

from .recipe import *  # noqa: F403
