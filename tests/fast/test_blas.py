"""blas.py: the threads and the kernel of NumPy's matrix library."""

import subprocess
import sys

import numpy as np
import pytest

from npgemma.fast import blas

pytestmark = pytest.mark.skipif(blas.kernel() is None, reason="needs NumPy's own OpenBLAS")


def test_the_matrix_library_gets_its_threads_back():
    get, set_ = blas._function("get_num_threads"), blas._function("set_num_threads")
    before = get()
    try:
        set_(2)
        with blas.on_one_thread():
            assert get() == 1
        assert get() == 2
        with pytest.raises(ValueError, match="inside"), blas.on_one_thread():
            raise ValueError("inside")
        assert get() == 2
    finally:
        set_(before)


def test_the_kernel_is_the_one_that_the_environment_chooses(monkeypatch):
    """Asked from OpenBLAS, which reads the environment when it is loaded."""
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    code = "from npgemma.fast import blas; print(blas.kernel(), blas.held_back_by())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "Nehalem {'OPENBLAS_CORETYPE': 'Nehalem'}"


def test_nothing_holds_it_back_unless_a_variable_is_set(monkeypatch):
    for name in blas.HOLDING_BACK:
        monkeypatch.delenv(name, raising=False)
    assert blas.held_back_by() == {}
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "0x400")
    assert blas.held_back_by() == {"OPENBLAS_L2_SIZE": "0x400"}


def test_another_library_has_neither(monkeypatch):
    monkeypatch.setattr(blas, "_function", lambda name, returns=None: None)
    assert blas.kernel() is None
    with blas.on_one_thread():
        assert np.eye(2).sum() == 2
