from __future__ import annotations

import doctest

import secateur
from secateur import api


def test_every_word_is_documented_with_a_runnable_example() -> None:
    for name in secateur.__all__:
        assert ">>>" in (getattr(api, name).__doc__ or ""), name
    result = doctest.testmod(api, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted >= 10
    assert result.failed == 0
