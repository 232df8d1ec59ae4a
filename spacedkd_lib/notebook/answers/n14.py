"""Exercises of notebook 14, The register of claims."""

from ..exercises import Exercise

EXERCISES: dict[str, Exercise] = {}
