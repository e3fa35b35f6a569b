"""Chips are cut hundreds of times, and each split is the best of many draws. What holds for 30 draws holds for more."""

import pytest

from landscribe.data.splits import groups


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch):
    monkeypatch.setattr(groups, "_DRAWS", 30)
