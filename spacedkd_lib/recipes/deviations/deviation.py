"""What a deviation is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Deviation:
    """One difference between what the text describes and what a program does.

    severity: "high" changes what is compared, "medium" changes numbers. title: in a few words. where: files and lines.
    expected: from abstract, README or the usual definition. program: what the program does. consequence: for a reader
    of its numbers. released: method -> recipe fields as the program sets them; their clean values are the recipe's
    defaults. in_preset: False for what only another command line or other hardware brings, or what the preset sets at
    s = 0 alone (V11). elsewhere: where the switch is, if it is none of the recipe's; code by its name in `skd`. origin:
    "" for this release, "BYOT" for what its self-KD program inherits, unchanged, from the published code of "Be your
    own teacher".
    """

    id: str
    severity: str
    title: str
    where: str
    expected: str
    program: str
    consequence: str
    released: dict[str, dict] = dataclasses.field(default_factory=dict)
    in_preset: bool = True
    elsewhere: str = ""
    origin: str = ""
