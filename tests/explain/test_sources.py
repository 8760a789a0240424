"""sources.py and thumbnails.py: a function's code is all of it but its docstring, and arrays are laid out as said."""

import ast
import inspect

import numpy as np
import pytest

import npgemma
from npgemma import gemma, generate, rope
from npgemma.explain.sources import _source
from npgemma.explain.thumbnails import COLUMNS, ROWS, thumbnail


@pytest.mark.parametrize("function", [gemma.block, rope.rotate, generate.generate, npgemma.siglip.gelu])
def test_code_is_all_of_a_function_but_its_docstring(function):
    file = function.__module__.rpartition(".")[2]
    found, whole = _source("npgemma", file, function.__name__), ast.parse(inspect.getsource(function)).body[0]
    assert found["doc"] == inspect.getdoc(function)
    assert found["line"] == inspect.getsourcelines(function)[1]
    del whole.body[0]
    assert ast.unparse(ast.parse("\n".join(found["code"]))) == ast.unparse(whole)
    assert found["code"][0].startswith(("def ", "@"))


def test_what_is_not_there_has_no_source():
    assert _source("npgemma", "rope", "nothing") is None
    assert _source("npgemma", "nothing", "rotate") is None


def test_a_thumbnail_has_rows_for_tokens_and_queries():
    x = np.arange(24.0)
    assert thumbnail(x.reshape(1, 2, 3, 4), "BYXC").tolist() == [[0, 51, 102], [153, 204, 255]]
    assert thumbnail(x.reshape(2, 3, 4), "BTD").tolist() == thumbnail(x[:12].reshape(3, 4), "TD").tolist()
    assert thumbnail(x.reshape(1, 2, 3, 4), "BKTS").shape == (6, 4)
    assert thumbnail(x.reshape(1, 2, 3, 4), "BTNH").shape == (2, 12)
    assert thumbnail(x, "D").shape == (1, 24)
    assert thumbnail(np.array([1.0, np.nan, 3.0, -np.inf]), "D").tolist() == [[0, 0, 255, 0]]
    assert thumbnail(np.full((2, 2), np.inf), "TD").tolist() == [[0, 0], [0, 0]]


def test_a_thumbnail_has_means_of_neighbours():
    x = np.repeat(np.arange(ROWS), 2)[:, None] * np.ones(COLUMNS)
    assert thumbnail(x, "TD")[:, 0].tolist() == np.round(np.arange(ROWS) * 255 / (ROWS - 1)).tolist()
    assert thumbnail(np.ones((ROWS, COLUMNS)), "TD").shape == (ROWS, COLUMNS)
    ramp = thumbnail(np.array([np.arange(COLUMNS + 1.0)]), "TD")[0]
    assert (len(ramp), ramp[0], ramp[-1]) == (COLUMNS, 0, 255)
    assert ramp[1] == round(255 / (COLUMNS - 0.5))
