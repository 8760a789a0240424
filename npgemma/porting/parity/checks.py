"""The checks themselves: each measures one thing, keeps the measurement, and says what is wrong if something is."""

import time
from dataclasses import dataclass

import numpy as np

import npgemma
from conversion.folder import open_folder
from conversion.source import Source
from npgemma.errors import InputError
from npgemma.image import load_pixels
from npgemma.machinery.backend import to_numpy
from npgemma.porting import given_tokens, own_errors
from npgemma.porting.backends import Comparison
from npgemma.porting.bounds import TOKEN_MARGIN
from npgemma.porting.difference import relative_l2
from npgemma.porting.parity import published
from npgemma.porting.parity.models import Skipped, load
from npgemma.porting.parity.questions import IMAGES, LONG, PAIRS, SHORT
from npgemma.porting.tokens import passes
from torch_ref.backend import check_device


@dataclass(frozen=True)
class Answer:
    """One image and prompt in both backends."""

    report: dict  # of the Comparison
    ids: list  # the reference's tokens, with which both went on
    logits: dict  # by backend: array (step, V)


class Parity:
    """A checkpoint, its ``measurements`` so far, and its ``tests``: each check with its outcome and the reason."""

    def __init__(self, path):
        self.source, self.measurements, self.tests = Source.of(path), [], []
        self.config, _ = open_folder(self.source)
        self._loaded, self._both, self._answers = None, None, {}

    def run(self, name):
        """Make one of `CHECKS`; return ``passed``, ``failed`` or ``skipped``, and why."""
        check, *arguments = CHECKS[name]
        try:
            problem = check(self, *arguments)
            outcome = "failed" if problem else "passed"
        except Skipped as reason:
            outcome, problem = "skipped", str(reason)
        except ValueError as error:
            outcome, problem = "failed", str(error).replace(str(self.source.path), "DIR")
        self.tests.append({"test": name, "outcome": outcome, "reason": problem})
        return outcome, problem

    def note(self, measurement, dtype, **values):
        """Keep a measurement."""
        self.measurements.append({"measurement": measurement, "dtype": dtype} | values)

    def both(self, dtype, device="cpu"):
        """Return the checkpoint in both backends; what was loaded in another dtype is forgotten."""
        if self._loaded != (dtype, device):
            self._loaded, self._both, self._answers = None, None, {}
            self._both, self._loaded = load(self.source, dtype, device), (dtype, device)
        return self._both

    def answer(self, dtype, image, prompt, device="cpu"):
        """Return the `Answer`, made once, every named array of both backends compared on the way."""
        both = self.both(dtype, device)
        if (image, prompt) not in self._answers:
            # Whatever is asked about an image, it is encoded alike.
            only = "[!e]*" if image in {seen for seen, _ in self._answers} else "*"
            self._answers[image, prompt] = _answer(both, image, prompt, only)
        return self._answers[image, prompt]

    def asked(self, dtype):
        """Return which of `PAIRS` to ask, so that the largest model takes minutes; the first tells how long."""
        seconds = self.answer(dtype, *PAIRS[0]).report["seconds"]
        return PAIRS if seconds < 15 else PAIRS[:3] if seconds < 120 else PAIRS[:1]

    def check_asked(self, dtype, *pairs):
        """Skip what would take too long."""
        asked = self.asked(dtype)
        if not set(pairs) <= set(asked):
            seconds = self.answer(dtype, *PAIRS[0]).report["seconds"]
            raise Skipped(f"an answer in {dtype} takes {seconds:.0f} s: {len(asked)} of {len(PAIRS)} questions asked")


def _answer(both, image, prompt, only):
    start, size = time.perf_counter(), both.numpy.tokenizer.size
    pixels, prompt_ids = pixels_of(both, image), both.numpy.tokenizer.prompt(prompt)
    # Only the first trace is held; each array of the second is compared as it comes.
    with npgemma.record(only) as trace:
        ids = given_tokens.most_probable(both.numpy, pixels, prompt_ids, both.tokens)
    comparison = Comparison(trace, both.bound)
    with npgemma.record(only, comparison.sink):
        found = given_tokens.run(both.torch, pixels, prompt_ids, ids)[:, :size]
    expected = np.concatenate([trace[f"{name}/logit_BV"] for name in passes(len(ids))])[:, :size]
    report = comparison.report(ids, found.argmax(axis=-1).tolist()) | {
        "trace_bytes": sum(array.nbytes for array in trace.values()),
        "seconds": time.perf_counter() - start,
    }
    return Answer(report, ids, {"numpy": expected, "torch": found})


def pixels_of(both, image):
    """Return the pixels of one of `IMAGES`."""
    return load_pixels(IMAGES[image](), both.numpy.config.vision.image_size)


def every_named_array(parity, dtype, image, prompt, device="cpu"):
    """Compare place by place; both backends go on with the tokens of the reference."""
    if (image, prompt) != PAIRS[0]:
        parity.check_asked(dtype, (image, prompt))
    report = parity.answer(dtype, image, prompt, device).report
    both = parity.both(dtype, device)
    name = "every named array" + " on CUDA" * (device == "cuda")
    parity.note(name, dtype, image=image, prompt=prompt, **both.about, **report)
    if report["missing"] or report["unexpected"] or report["arrays"] <= 100:
        return f"{report['arrays']} arrays in both backends, in one only: {report['missing'] + report['unexpected']}"
    if not report["first_past_bound"]:
        return None
    worst = max(report["places"], key=lambda place: place["percent_of_bound"])
    # In bfloat16 rounding adds up over the layers as the weights will have it: a little past the bound, each operation
    # is judged by itself.
    if dtype == "bfloat16" and worst["percent_of_bound"] < 200:
        return _own_errors(parity, both, image, prompt)
    return f"past the bound first in {report['first_past_bound']}, most in {worst['worst']}: {worst}"


def _own_errors(parity, both, image, prompt):
    dtype, pixels = both.numpy.backend.dtype, pixels_of(both, image)
    ids = parity.answer(dtype, image, prompt).ids
    with npgemma.record() as found:
        given_tokens.run(both.torch, pixels, both.torch.tokenizer.prompt(prompt), ids)
    told = own_errors.of_twin(both.numpy, pixels, prompt, found, ids)
    for row in told["own_errors"]:
        about = {"image": image, "prompt": prompt, "worst": row["worst"], "percent_of_bound": row["percent_of_limit"]}
        parity.note(f"own error, {row['kind']}", dtype, **about)
    return f"past the limit of its operation: {told['past_limit'][0]}" if told["past_limit"] else None


def same_tokens(parity, dtype, image, prompt):
    """Compare the tokens chosen: the same, or logits closer than the measured rounding can tell apart."""
    parity.check_asked(dtype, (image, prompt))
    answer = parity.answer(dtype, image, prompt)
    for step, (expected_V, found_V) in enumerate(zip(answer.logits["numpy"], answer.logits["torch"], strict=True)):
        ours, theirs = int(expected_V.argmax()), int(found_V.argmax())
        margin, allowed = float(expected_V[ours] - expected_V[theirs]), largest_margin(expected_V, found_V)
        if ours != theirs:
            about = {"image": image, "prompt": prompt, "step": step, "tokens": [ours, theirs]}
            parity.note("tokens differ", dtype, **about, margin=margin, rounding=allowed)
        if not margin <= allowed:
            return f"step {step}: tokens {ours} and {theirs} are {margin} apart, rounding {allowed}"
    return None


def largest_margin(expected_V, found_V):
    """Return how close two logits must be for rounding of the measured size to exchange them."""
    return TOKEN_MARGIN * float(np.sqrt(np.mean((found_V.astype(np.float64) - expected_V) ** 2)))


def one_pass_of_padded_rows(parity, dtype, backend):
    """Compare the logits of each token, calculated alone through the cache, and together in one pass without.

    The longer row has no padding in front of its prompt: if it fails too, look at the cache, otherwise at the padding.
    A model that takes long is asked for the padded row only.
    """
    parity.check_asked(dtype, SHORT, LONG)
    rows = {"padded": SHORT, "not padded": LONG}
    if parity.asked(dtype) != PAIRS:
        del rows["not padded"]
    used = {}
    for (name, pair), found in zip(rows.items(), one_pass(parity, dtype, rows.values(), backend), strict=True):
        expected, bound = parity.answer(dtype, *pair).logits[backend], parity.both(dtype).bound
        used[name] = 100 * relative_l2(expected, found) / bound
        about = {"backend": backend, "image": pair[0], "prompt": pair[1], "percent_of_bound": used[name]}
        parity.note(f"one pass against the cache, {name}", dtype, **about)
    return None if max(used.values()) <= 100 else f"percent of the bound used: {used}"


def one_pass(parity, dtype, pairs, backend):
    """Return for each pair the logits (step, V) of the reference's answer, from one pass of all without a cache.

    Prompts are padded to the length of `LONG`'s, answers to that of the longest.
    """
    both, answers = parity.both(dtype), [parity.answer(dtype, *pair).ids for pair in pairs]
    model = getattr(both, backend)
    prompts = [model.tokenizer.prompt(prompt) for _, prompt in pairs]
    # Padding on the left and on the right, so that prompts end together: what comes after them looks back only.
    prefix, longest = max(map(len, [*prompts, model.tokenizer.prompt(LONG[1])])), max(map(len, answers))
    rows, valid = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        left, row, right = prefix - len(prompt), prompt + answer[:-1], longest - len(answer)
        rows.append([0] * left + row + [0] * right)
        valid.append([False] * left + [True] * len(row) + [False] * right)
    pixels = np.concatenate([pixels_of(both, image) for image, _ in pairs])
    logit_BSV = model.logits(pixels, rows, prefix, valid)
    start = model.config.image_tokens + prefix - 1
    return [
        to_numpy(logit_SV[start : start + len(answer), : model.tokenizer.size])
        for logit_SV, answer in zip(logit_BSV, answers, strict=True)
    ]


def published_numbers(parity):
    """Compare with the numbers published of the pt and mix models of 3B at 224 pixels, whichever of the two this is.

    That it is one of that size is read from the config and from the tokenizer's ids. Whether it is pt, mix or a model
    fine-tuned from them can be told by its numbers only. mix: five channels that Keras Hub's tests state. pt: two
    answers that Hugging Face's tests state, about an image that is not ours to ship. If mix is not matched and the
    image is not in the folder, nothing is proved, and this check is skipped with the distance in the reason: our
    mistake and other weights would look alike. With the image, the numbers of one of the two must be matched.
    """
    folder = parity.source.weights
    if published.size_of(parity.config) != "paligemma-3b-224" or not published.has_published_tokenizer(folder):
        raise Skipped("needs a published PaliGemma 3B at 224 pixels: pass --checkpoint DIR")
    both, errors, answers = parity.both("float32"), [], {}
    # Keras Hub changed what zeros mean as pixels while the numbers stayed; one of the two must give them.
    for value in (-1.0, 0.0):
        with npgemma.record(only="logits.0/final_BSD") as trace:
            both.numpy.logits(np.full((1, 224, 224, 3), value, np.float32), [published.MIX_IDS], len(published.MIX_IDS))
        errors.append(float(np.abs(trace["logits.0/final_BSD"][0, 0, :5] - published.MIX_CHANNELS).max()))
    image = folder / published.PT_IMAGE
    for backend in ("numpy", "torch") if image.exists() else ():
        ask = getattr(both, backend).generate
        answers[backend] = {prompt: ask(image, prompt, max_new_tokens=10).text for prompt in published.PT_ANSWERS}
    ours, theirs = (published.variant(min(errors), answers.get(backend)) for backend in ("numpy", "torch"))
    parity.note("published numbers", "float32", variant=ours, largest_error_of_mix=min(errors), answers_of_pt=answers)
    if None in (ours, theirs):
        raise Skipped(
            f"not proved which model this is: its numbers are not those of mix (off by {min(errors):.3g}, tolerance "
            f"{published.MIX_TOLERANCE}), and pt is known by {published.PT_IMAGE} only, which is not in the folder"
        )
    return None if ours == theirs else f"{ours} by the reference, {theirs} by the twin"


def on_cuda(parity):
    """Compare the reference with the twin on a CUDA device."""
    try:
        check_device("cuda")
    except InputError:
        raise Skipped("needs a CUDA device") from None
    return every_named_array(parity, "float32", *SHORT, "cuda")


def _checks():
    """Yield names and checks with their arguments: float64 first, while memory is free, then dtype after dtype."""
    yield "every named array, float64", (every_named_array, "float64", *SHORT)
    for dtype in ("float32", "bfloat16"):
        for check in (every_named_array, same_tokens):
            for pair in PAIRS:
                yield ", ".join((check.__name__.replace("_", " "), dtype, *pair)), (check, dtype, *pair)
        for backend in ("numpy", "torch"):
            yield f"one pass of padded rows, {dtype}, {backend}", (one_pass_of_padded_rows, dtype, backend)
        if dtype == "float32":
            yield "published numbers, float32", (published_numbers,)
    yield "every named array on CUDA, float32", (on_cuda,)


CHECKS = dict(_checks())
