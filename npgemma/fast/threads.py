"""Work split over the processor's cores, with the standard library's threads: NumPy lets others run while it works."""

import collections
import concurrent.futures
import functools
import os
from contextvars import ContextVar, copy_context

import numpy as np

from npgemma.fast import blas

# True in a thread that does a piece of a split: the other cores have pieces of their own.
_splitting = ContextVar("splitting", default=False)


@functools.cache
def count():
    """Return how many threads to use: as many as this process may use cores, or fewer by ``OMP_NUM_THREADS``."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(int(asked), allowed) if asked.isdecimal() and int(asked) else allowed


@functools.cache
def _pool():
    return concurrent.futures.ThreadPoolExecutor(count() - 1, thread_name_prefix="npgemma")


# A process that is forked has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def splitting():
    """Return whether the calling thread does a piece of a `split`."""
    return _splitting.get()


def split(work, total, step):
    """Call ``work(start, stop)`` for the whole of ``range(total)``, in pieces of at most ``step``, on all cores.

    It may only write to what belongs to its piece. What it splits again, its own thread does, piece after piece.
    """
    pieces = collections.deque((start, min(start + step, total)) for start in range(0, total, step))
    helpers = 0 if splitting() else min(count(), len(pieces)) - 1

    def run():
        _splitting.set(True)
        while pieces:
            try:
                piece = pieces.popleft()
            except IndexError:  # another thread was faster
                return
            work(*piece)

    with blas.on_one_thread():
        # Settings such as np.errstate belong to a context; each thread gets a copy of the caller's.
        running = [_pool().submit(copy_context().run, run) for _ in range(helpers)]
        try:
            # The calling thread works too: it is awake already.
            copy_context().run(run)
        finally:
            # After an error, or an interrupt, nothing more is begun.
            pieces.clear()
            concurrent.futures.wait(running)
    for helper in running:
        helper.result()


def even(total, most):
    """Return a size of pieces, at most ``most``, of which every core gets equally many.

    On two cores ``even(2048, 4096)`` is 1024, and ``even(4304, 1024)`` is 718.
    """
    pieces = -(-total // most)
    pieces = -(-pieces // count()) * count()
    return -(-total // pieces)


# Fewer numbers than these are done before another thread has begun; a piece of so many fits a core's cache.
SMALL, PIECE = 2**17, 2**17


def in_pieces(function):
    """Let a function that treats every row of its first argument by itself take a large one in pieces, on all cores.

    A piece and what is made of it on the way stay in a core's cache, so that an expression of ten operations reads and
    writes memory once and not ten times.
    """

    @functools.wraps(function)
    def wrapped(x, *others):
        if x.size < SMALL or splitting():
            return function(x, *others)
        rows = x.reshape(-1, x.shape[-1])
        found = np.empty_like(rows, order="C")

        def work(start, stop):
            found[start:stop] = function(rows[start:stop], *others)

        split(work, len(rows), even(len(rows), max(1, PIECE // rows.shape[1])))
        return found.reshape(x.shape)

    return wrapped


def elementwise(function):
    """Let a function that treats every number of its first argument by itself take a large one as `in_pieces` does.

    Numbers are taken, and come out, in the order that they have in memory: an MLP's hidden channels may lie one after
    the other there (`npgemma.fast.products.HIDDEN`).
    """

    @functools.wraps(function)
    def wrapped(x, *others):
        if x.size < SMALL or splitting():
            return function(x, *others)
        found = np.empty_like(x)
        flat, flat_found = x.ravel(order="K"), found.ravel(order="K")

        def work(start, stop):
            flat_found[start:stop] = function(flat[start:stop], *others)

        split(work, x.size, even(x.size, PIECE))
        return found

    return wrapped
