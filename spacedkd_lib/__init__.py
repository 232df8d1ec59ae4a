"""Spaced Knowledge Distillation: the helper library behind the numbered notebooks.

Data flows one way: data -> batches -> schedule -> teacher and student -> losses -> record -> table or figure.
Import the module you need (``from spacedkd_lib import recipes, schedule``); torch is not imported here, so that
code that only reads records never pays for it.
"""

from . import exact

__version__ = "0.1.0"

exact.cap()
