"""The forward pass, followed: in one context alone, beside debuggers and profilers, and gone without a trace."""

import ast
import cProfile
import inspect
import sys
import threading

import numpy as np
import pytest
from support import CONFIGS, ROOT, inputs, models

import npgemma
from npgemma import gemma, siglip
from npgemma.axes import suffix
from npgemma.machinery.backend import to_numpy
from npgemma.probe import Probe, enclosing, exchanged, following, probing, record
from npgemma.probe.following import FILES, PACKAGES

CONFIG = CONFIGS["two key/value heads"]
DOUBLED = {"gemma.attend": lambda module, right: lambda *given: 2 * right(*given)}


def run(backend=0):
    return np.asarray(models(CONFIG)[backend].logits(*inputs(CONFIG)))


def inputs_of_twin():
    return models(CONFIG)[1].backend.to_activation(inputs(CONFIG)[0])


class Scaled(Probe):
    """Multiplies one array."""

    def __init__(self, name, factor):
        self.name, self.factor, self.seen = name, factor, []

    def on_bind(self, name, value, statement):
        if name != self.name:
            return value
        self.seen.append((to_numpy(value), statement))
        return value * self.factor


@pytest.mark.parametrize("backend", [0, 1], ids=["numpy", "torch"])
def test_what_a_probe_returns_is_gone_on_with(backend):
    image, right = "encode_image.0/image_BPD", run(backend)
    with probing(Scaled(image, 3)), record(only="*_BSD") as trace:
        wrong = run(backend)
    with record(only="*_BSD") as plain:
        run(backend)
    text = plain[x := "logits.0/x_BSD"].shape[1] - CONFIG.image_tokens
    assert np.array_equal(trace[x][:, :-text], 3 * plain[x][:, :-text])
    assert not np.allclose(wrong, right)


def test_of_two_probes_the_inner_one_is_asked_first():
    outer, inner = Scaled("encode_image.0/image_BPD", 5), Scaled("encode_image.0/image_BPD", 2)
    with probing(outer), probing(inner):
        run()
    assert np.array_equal(outer.seen[0][0], 2 * inner.seen[0][0])


def test_a_statement_says_where_it_stands():
    probe = Scaled("logits.0/run_blocks.0/block.1/mid_BTD", 1)
    with probing(probe):
        run()
    [(_, statement)] = probe.seen
    file, _, line = statement.file.partition(":")
    assert (ROOT / file).read_text().splitlines()[int(line) - 1].strip() == statement.formula
    assert statement.formula == "mid_BTD = x_BTD + attn_out_BTD"
    assert statement.source.name == "block"
    assert not statement.is_result
    assert statement.path == "logits.0/run_blocks.0/block.1"


def test_exchanges_are_nested_and_the_outer_one_is_right_for_the_inner():
    with record(only="*/block.0/grouped_query_attention.0/mixed_BTNH") as trace:
        right = run()
        with exchanged(DOUBLED):
            run()
            with exchanged(DOUBLED):
                run()
    plain, doubled, fourfold = trace.values()
    assert np.array_equal(doubled, 2 * plain)
    assert np.array_equal(fourfold, 4 * plain)
    assert np.array_equal(run(), right)


def test_another_thread_neither_sees_nor_is_seen():
    """While this thread records a mistake, another calculates what is right, and records nothing of this one."""
    right, found = run(), {}

    def other():
        found["same"] = np.array_equal(run(), right)
        with record(only="*/attend.0/*") as trace:
            run()
        found["names"], found["mine"] = len(trace), trace

    with exchanged(DOUBLED), record(only="*/attend.0/*") as trace:
        run()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        before = len(trace)
    assert found["same"]
    assert found["names"] == before == len(trace)
    last = "logits.0/run_blocks.0/block.2/grouped_query_attention.0/attend.0/mixed_BTNH"
    assert not np.allclose(found["mine"][last], trace[last])


def test_it_works_under_a_profiler_a_debugger_and_coverage():
    lines = set()

    def tracer(frame, event, argument):
        if frame.f_code.co_filename == gemma.__file__ and event == "line":
            lines.add(frame.f_lineno)
        return tracer

    profiler, before = cProfile.Profile(), sys.gettrace()
    sys.settrace(tracer)
    try:
        with record(only="*/mid_BTD") as trace:
            profiler.runcall(run)
    finally:
        sys.settrace(before)
    assert trace
    assert profiler.getstats()
    source, first = inspect.getsourcelines(gemma.block)
    place = first + next(i for i, line in enumerate(source) if "mid_BTD = x_BTD" in line)
    assert place in lines, "a breakpoint on a line of the file is reached"


@pytest.mark.parametrize("backend", [0, 1], ids=["numpy", "torch"])
def test_layers_in_blocks_and_threads_are_followed(backend, monkeypatch):
    """As at many pixels: a probe that asks for no arrays leaves the blocks, and exchanges act in every thread."""
    right = to_numpy(run(backend))
    monkeypatch.setattr("npgemma.fast.blocks.SMALL", 1)
    monkeypatch.setattr("npgemma.fast.blocks.SCORES", 50)
    monkeypatch.setattr("npgemma.fast.blocks.TOKENS", 5)
    monkeypatch.setattr("torch_ref.blocks.QUERIES", 20)
    monkeypatch.setattr("npgemma.fast.threads.count", lambda: 2)
    with probing(Probe()):
        assert np.allclose(to_numpy(run(backend)), right, atol=1e-5)
    package = PACKAGES[backend]
    with exchanged({"attention.softmax": lambda module, right: lambda x: 0 * right(x)}, package):
        nothing_read = to_numpy(run(backend))
    with (
        exchanged({"gemma.attend": lambda module, right: lambda *given: 0 * right(*given)}, package),
        exchanged({"siglip.attend": lambda module, right: lambda *given: 0 * right(*given)}, package),
    ):
        assert np.allclose(to_numpy(run(backend)), nothing_read, atol=1e-6)
    assert not np.allclose(nothing_read, right, atol=1e-2)


def test_nothing_is_left_when_it_ends():
    attend, block = siglip.attend, gemma.block
    with record():
        assert siglip.attend is not attend
        with pytest.raises(ZeroDivisionError), exchanged(DOUBLED):
            raise ZeroDivisionError
        assert siglip.attend is not attend
    assert siglip.attend is attend
    assert gemma.block is block
    with pytest.raises(AttributeError), exchanged({"gemma.nothing": lambda module, right: right}):
        pass
    assert siglip.attend is attend


def test_what_a_caller_holds_is_at_hand():
    """Exchanged functions may ask for the variables of those that called them."""
    widths = []

    def noting(module, right):
        def attend(*given):
            widths.append(enclosing("x_BTD").shape[-1])
            return right(*given)

        return attend

    with exchanged({"gemma.attend": noting}):
        run()
    assert widths == [CONFIG.text.width] * CONFIG.text.layers
    assert enclosing("x_BTD") is None


def test_every_file_that_names_arrays_is_followed():
    """But what stands before the forward pass, around it and after it; its operations take arrays of any axes."""
    around = {"image", "generate", "answer", "ops", "cache", "axes", "params", "config", "tokenizer"}
    machinery = {"autograd", "backend", "static", "blocks"}  # of the twin
    for package in PACKAGES:
        files = {path.stem for path in (ROOT / package).glob("*.py") if "def " in path.read_text()}
        assert files - around - machinery - {"errors", "__init__", "__main__"} == set(FILES)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_named_array_is_bound_where_it_is_told(package):
    """By an argument, an assignment or a loop: nothing else is rewritten."""
    for file in FILES:
        for function in ast.walk(ast.parse((ROOT / package / f"{file}.py").read_text())):
            if isinstance(function, ast.FunctionDef):
                stored = [n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
                told = [each for each in ast.walk(function) if isinstance(each, (ast.Assign, ast.For))]
                inside = {id(n) for each in told for n in ast.walk(each)}
                assert all(id(name) in inside for name in stored if suffix(name.id)), (file, function.name)


def test_importing_the_twin_while_recording_is_early_enough(monkeypatch):
    """The package says at its end that it was imported: what its files hold then is followed."""
    from torch_ref import siglip as late

    attend = late.attend
    assert "catch_up()" in (ROOT / "torch_ref" / "__init__.py").read_text()
    with record(only="encode.0/block.0/self_attention.0/attend.0/weight_BKGTS") as trace:
        late.attend = attend  # as a file that is imported now has it
        following._slots.pop((late, "attend"))
        following.catch_up()
        assert late.attend is not attend
        late.encode(inputs_of_twin(), models(CONFIG)[1].params.vision, CONFIG.vision)
    assert len(trace) == 1
    assert late.attend is attend


def test_the_model_has_no_other_way_in():
    """No profiling hook, no frames, no exchange for the whole process, nothing kept for a thread outside the probe."""
    for path in (ROOT / "npgemma").rglob("*.py"):
        text = path.read_text()
        assert not [word for word in ("setprofile", "f_locals", "unittest") if word in text], path
        assert "threading.local" not in text or path.parent.name == "fast", path
    assert npgemma.record is record
