"""A few of the fuzzer's cases; `make fuzz` tries more."""

import fuzz
import pytest

from spacedkd_lib.errors import InputError


@pytest.mark.parametrize("case", fuzz.CASES)
def test_a_random_case_ends_in_numbers_or_in_one_sentence(case, monkeypatch, tmp_path):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))  # put back afterwards
    monkeypatch.setattr(fuzz, "CASES", (case,))
    numbers, ended = f"{case.__name__}: numbers", []
    while len(ended) < 2 or numbers not in ended and len(ended) < 30:
        ended.append(fuzz.run_case(len(ended)))
    assert {numbers} <= set(ended) <= {numbers, f"{case.__name__}: one sentence"}


def test_minutes_that_never_end_are_refused():
    with pytest.raises(InputError, match="minutes = nan"):
        fuzz.main(float("nan"), 0)


def test_a_case_that_ends_otherwise_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))

    def broken(draw, folder):
        raise ZeroDivisionError
    monkeypatch.setattr(fuzz, "CASES", (broken,))
    assert fuzz.main(0, 7) == 1 and "seed 7:" in capsys.readouterr().out
