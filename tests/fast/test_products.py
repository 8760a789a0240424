"""products.py and threads.py: the fast ways give what the plain way gives, on any number of cores."""

import multiprocessing
import os
import threading

import numpy as np
import pytest
from support import assert_close, random, tensor

import torch_ref.ops as twin
from npgemma import ops
from npgemma.fast import products, threads
from npgemma.fast.bfloat16 import BFloat16Weight, narrow, widen
from npgemma.params import LayerNormParams
from npgemma.porting.bounds import OPERATION

# Formula, shape of the activations, shape of the weight as stored, and the order that makes the weight's axes of it.
WEIGHTS = [
    ("BTD,DNH->BTNH", (2, 5, 12), (3, 4, 12), (2, 0, 1)),
    ("BTNH,NHD->BTD", (2, 5, 3, 4), (7, 3, 4), (1, 2, 0)),
    ("BTD,VD->BTV", (1, 1, 12), (9, 12), (0, 1)),
    ("BTCyx,CyxD->BTD", (2, 5, 3, 4, 6), (7, 3, 4, 6), (1, 2, 3, 0)),
    ("BTF,FD->BTD", (1, 40, 6), (8, 6), (1, 0)),
    ("BTF,FD->BTD", (3, 1, 7), (8, 7), (1, 0)),
]


@pytest.fixture(params=[2**21, 30])
def block(request, monkeypatch):
    """Blocks larger than everything here, and such that every product takes several."""
    for limit in ("WIDENED", "PLAIN", "LARGE", "SMALL"):
        monkeypatch.setattr(products, limit, request.param)


@pytest.fixture(params=["few rows", "more rows", "many rows"])
def rows_are(request, monkeypatch):
    """Each way of multiplying a block of weights, by the same activations."""
    if request.param != "few rows":
        monkeypatch.setattr(products, "FEW", 1)
        monkeypatch.setattr(products, "MANY", 2 if request.param == "many rows" else 100)


@pytest.mark.parametrize(("formula", "activations", "stored", "order"), WEIGHTS)
def test_products_are_einsums(formula, activations, stored, order, dtype):
    x, weight = random(activations, 0, dtype), random(stored, 1, dtype).transpose(order)
    expected = np.einsum(formula, x.astype("f8"), weight.astype("f8")).astype(dtype)
    assert_close(expected, ops.einsum(formula, x, weight), OPERATION[dtype])


@pytest.mark.parametrize(("formula", "activations", "stored", "order"), WEIGHTS)
def test_bfloat16_weights_give_what_their_float32_values_give(
    formula, activations, stored, order, cores, block, rows_are
):
    x, bits = random(activations, 0, "float32"), narrow(random(stored, 1, "float32"))
    expected = np.einsum(formula, x.astype("f8"), widen(bits).transpose(order).astype("f8")).astype("float32")
    assert_close(expected, ops.einsum(formula, x, BFloat16Weight(bits.transpose(order))), OPERATION["float32"])
    # Also where the weight does not lie in memory as a checkpoint stores it.
    copied = BFloat16Weight(np.array(bits.transpose(order)))
    assert_close(expected, ops.einsum(formula, x, copied), OPERATION["float32"])


@pytest.mark.parametrize("rows", [2, 5, 32, 33, 41])
@pytest.mark.parametrize(("channels", "out"), [(6, 3), (6, 130), (500, 9)])
@pytest.mark.parametrize("tile", [products.TILE, 1500])
def test_few_rows_and_many(rows, channels, out, tile, cores, block, dtype, monkeypatch):
    """In one tile, in several with weights left over, in several parts of the channels; more rows than few; many."""
    monkeypatch.setattr(products, "TILE", tile)
    monkeypatch.setattr(products, "MANY", 40)
    x, weight = random((1, rows, channels), 0, dtype), random((out, channels), 1, dtype)
    # Sums of many terms: more exact than float64, where the machine has it.
    expected = np.einsum("BTD,VD->BTV", x.astype(np.longdouble), weight.astype(np.longdouble)).astype(dtype)
    assert_close(expected, ops.einsum("BTD,VD->BTV", x, weight), OPERATION[dtype])


@pytest.mark.parametrize("narrowed", [False, True])
def test_hidden_channels_stay_turned(narrowed, cores, block, rows_are):
    """From the product that makes them, through GELU, to the product that ends the MLP."""
    x, up, down = (random(shape, i, "float32") for i, shape in enumerate([(2, 20, 6), (44, 6), (8, 44)]))
    if narrowed:
        up, down = (widen(narrow(weight)) for weight in (up, down))
    hidden = np.einsum("BTD,FD->BTF", x.astype("f8"), up)
    expected = np.einsum("BTF,DF->BTD", ops.gelu(hidden), down).astype("float32")
    kind = (lambda weight: BFloat16Weight(narrow(weight))) if narrowed else (lambda weight: weight)
    found = ops.einsum("BTD,FD->BTF", x, kind(up))
    assert found.reshape(40, 44).T.flags.c_contiguous
    gated = ops.gelu(found)
    assert gated.strides == found.strides
    assert_close(expected, ops.einsum("BTF,DF->BTD", gated, kind(down)), OPERATION["float32"])


def test_tiles_of_long_rows():
    """Where rounding could make a tile of less than four rows."""
    x, weight = np.ones((1, 32, 15625), np.float32), np.ones((9, 15625), np.float32)
    np.testing.assert_array_equal(ops.einsum("BTD,VD->BTV", x, weight), np.full((1, 32, 9), 15625))


@pytest.mark.parametrize("formula", ["BTKGH,BSKH->BKGTS", "BKGTS,BSKH->BTKGH"])
def test_products_of_attention_are_einsums(formula, cores, block, dtype):
    sizes = {"B": 2, "T": 35, "K": 3, "G": 4, "H": 5, "S": 6}
    x, other = (random([sizes[axis] for axis in axes], i, dtype) for i, axes in enumerate(formula[:-7].split(",")))
    expected = np.einsum(formula, x.astype("f8"), other.astype("f8")).astype(dtype)
    assert_close(expected, ops.einsum(formula, x, other), OPERATION[dtype])


@pytest.mark.parametrize(
    ("formula", "shapes"),
    [
        ("BND,BMD->BNM", [(2, 3, 4), (2, 5, 4)]),
        ("BTD,BTE->BDE", [(2, 5, 3), (2, 5, 4)]),
        ("BTD,BTD->BT", [(2, 5, 3), (2, 5, 3)]),
        ("BD,FD", [(2, 3), (4, 3)]),
        ("BTD->BD", [(2, 5, 3)]),
        ("TT,T->T", [(3, 3), (3,)]),
        ("BT,TD,DF->BF", [(2, 5), (5, 3), (3, 4)]),
        ("...d,dF->...F", [(2, 5, 3), (3, 4)]),
        ("T,D->TD", [(5,), (3,)]),
    ],
)
def test_any_other_formula_is_einsums_own(formula, shapes, dtype):
    arrays = [random(shape, i, dtype) for i, shape in enumerate(shapes)]
    expected = np.einsum(formula, *arrays)
    assert_close(expected, ops.einsum(formula, *arrays), OPERATION[dtype])
    assert_close(expected, twin.einsum(formula, *map(tensor, arrays)), OPERATION[dtype])


def test_formulas_of_attention_are_no_such_products():
    assert products.layout("BTKGH,BSKH->BKGTS") is None
    assert products.layout("BKGTS,BSKH->BTKGH") is None
    assert products.layout("BTD,DNH->BTNH") == (2, (1, 2, 0))


@pytest.mark.parametrize("total", [1, 7, 100])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_work_is_split_into_all_of_its_pieces(cores, total, step):
    seen, lock = [], threading.Lock()

    def work(start, stop):
        assert stop - start <= step
        with lock:
            seen.extend(range(start, stop))

    threads.split(work, total, step)
    assert sorted(seen) == list(range(total))


def test_after_an_error_nothing_more_is_begun(cores):
    begun = []

    def work(start, stop):
        begun.append(start)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        threads.split(work, 100, 1)
    assert len(begun) <= cores


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_process_starts_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(threads, "count", lambda: 2)
    threads._pool.cache_clear()
    threads.split(lambda start, stop: None, 2, 1)
    child = multiprocessing.get_context("fork").Process(target=threads.split, args=(lambda start, stop: None, 2, 1))
    child.start()
    child.join(20)
    child.kill()
    threads._pool.cache_clear()
    assert child.exitcode == 0


def test_an_error_in_a_thread_is_an_error_here(cores):
    with pytest.raises(ZeroDivisionError):
        threads.split(lambda start, stop: 1 // (start - 4), 9, 1)


@pytest.mark.parametrize(
    ("said", "expected"), [("1", 1), ("1,2", 1), ("", None), ("many", None), ("0", None), ("999", None)]
)
def test_the_usual_variable_sets_the_number_of_threads(monkeypatch, said, expected):
    import os

    monkeypatch.setenv("OMP_NUM_THREADS", said)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert threads.count.__wrapped__() == (expected or allowed)


@pytest.mark.parametrize("name", ["softmax", "gelu", "soft_cap", "layer_norm", "rms_norm"])
def test_operations_in_pieces_give_the_same_numbers(name, dtype, cores, monkeypatch):
    """Bit for bit: a row's result does not depend on its neighbours."""
    x = random((5, 7, 12), 0, dtype)
    others = {
        "layer_norm": (LayerNormParams(random(12, 1, dtype), random(12, 2, dtype)), 1e-6),
        "rms_norm": (random(12, 1, dtype), 1e-6),
        "soft_cap": (0.5,),
    }.get(name, ())
    whole = getattr(ops, name)(x, *others)
    monkeypatch.setattr(threads, "SMALL", 0)
    monkeypatch.setattr(threads, "PIECE", 50)
    np.testing.assert_array_equal(getattr(ops, name)(x, *others), whole)
    turned = np.asfortranarray(x)
    np.testing.assert_array_equal(getattr(ops, name)(turned, *others), whole)
    np.testing.assert_array_equal(getattr(ops, name)(turned[:, ::2], *others), whole[:, ::2])
