"""What the tests of fast/ share."""

import functools

import pytest

from npgemma.fast import threads


@pytest.fixture(params=[1, 3])
def cores(request, monkeypatch):
    monkeypatch.setattr(threads, "count", lambda: request.param)
    monkeypatch.setattr(threads, "_pool", functools.cache(threads._pool.__wrapped__))
    return request.param
