"""Errors for bad input, each told in one sentence."""

from __future__ import annotations

import difflib


class InputError(ValueError):
    """Bad input, in one sentence: the value given, the values allowed, the way to mend it."""

    def _render_traceback_(self) -> list[str]:
        """Show the sentence in a notebook, in place of a traceback."""
        return [f"InputError: {self}"]


def nearest(kind: str, given: object, allowed) -> str:
    """Return a sentence that refuses a name and offers the nearest allowed one.

    >>> nearest("data set", "glyfs", ["digits", "glyphs"])
    '"glyfs" is not a data set; did you mean "glyphs"? Allowed: digits, glyphs.'
    """
    allowed = [str(name) for name in allowed]
    close = difflib.get_close_matches(str(given), allowed, n=1, cutoff=0.4)
    hint = f'; did you mean "{close[0]}"?' if close else "."
    article = "an" if kind[0] in "aeiou" else "a"
    return f'"{given}" is not {article} {kind}{hint} Allowed: {", ".join(allowed)}.'
