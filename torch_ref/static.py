"""A decoding step with static shapes, so that CUDA can compile and capture the step once and replay it.

A step of the 3B model launches about a thousand small kernels, and Python takes longer to launch them than a GPU to
run them. Compiled, what stands between two matrix products is one kernel or two, 300 in all; a captured graph launches
all of them at once, on the same memory each time. So here everything that differs from step to step is kept in arrays
of one shape: the newest token, how far the cache is filled, and who may be seen. The layers are those of the twin; what
comes out is the same but for the order of sums, and for bfloat16 that is rounded less often. The reference has no
such file.

Attention is the twin's formula, here too: compiled, it is three kernels. Torch's own
(``scaled_dot_product_attention``) differs by as much as it rounds, and took longer in bfloat16, on a processor: 0.5
against 0.2 ms for a token's layer of the 3B model. On CUDA neither was measured.
"""

import functools
import warnings

import torch

from npgemma.errors import InputError
from npgemma.probe.following import sees_arrays
from torch_ref import cache as growing
from torch_ref import paligemma


class KVCache(growing.KVCache):
    """A `torch_ref.cache.KVCache` that also keeps the inputs of a step, at fixed places in memory.

    Parameters
    ----------
    config, batch, capacity, like
        As there.
    """

    def __init__(self, config, batch, capacity, like):
        super().__init__(config, batch, capacity, like)
        self.ids_BT = torch.zeros((batch, 1), dtype=torch.long, device=like.device)
        # All places of the cache, and behind them the newest token.
        self.valid_BS = torch.zeros((batch, capacity + 1), dtype=torch.bool, device=like.device)
        self.filled = torch.zeros(1, dtype=torch.long, device=like.device)
        self.graph = self.logit_BV = None

    def memory(self):
        """Return the arrays that `one_shape` reads, and the two that it writes to."""
        return self.ids_BT, self.valid_BS, self.filled, self.k_LBSKH, self.v_LBSKH


class StepCache:
    """One step's view of a `KVCache`: its whole length, whether filled or not."""

    def __init__(self, filled, k_LBSKH, v_LBSKH):
        self.filled, self.k_LBSKH, self.v_LBSKH = filled, k_LBSKH, v_LBSKH

    def layer(self, i):
        """Return layer i's part."""
        return StepLayerCache(self, i)

    def advance(self, new):
        """Leave the fill level to `step`: a captured graph runs no Python."""


class StepLayerCache(growing.LayerCache):
    """One layer's view of a `StepCache`."""

    def extend(self, k_BTKH, v_BTKH):
        """Return the whole cache with one new token's keys and values behind it, then store these at their place."""
        found = []
        for cached_LBSKH, new_BTKH in ((self.cache.k_LBSKH, k_BTKH), (self.cache.v_LBSKH, v_BTKH)):
            found.append(torch.cat([cached_LBSKH[self.i], new_BTKH], dim=1))
            cached_LBSKH[self.i].index_copy_(1, self.cache.filled, new_BTKH)
        return found


def step(ids_BT, valid_BS, p, config, cache):
    """Take one more token of each answer, as `torch_ref.paligemma.step` does.

    Parameters
    ----------
    ids_BT : int array
    valid_BS : bool array
    p : Params
    config : Config
    cache : KVCache
        Of this file. It keeps the captured graph.

    Returns
    -------
    logit_BV : array
        Written over by the next step.

    Raises
    ------
    InputError
        While `npgemma.record` records.
    """
    if sees_arrays():
        raise InputError("a step of static shapes runs no Python that record() could follow: load without static")
    length = cache.length
    cache.ids_BT.copy_(ids_BT)
    cache.valid_BS[:, :length].copy_(valid_BS[:, :-1])
    cache.valid_BS[:, -1].copy_(valid_BS[:, -1])
    cache.filled.fill_(length)
    if cache.graph:
        cache.graph.replay()
    elif ids_BT.is_cuda:
        _capture(p, config, cache)
    else:
        cache.logit_BV = one_shape(*cache.memory(), p, config)
    cache.length = length + 1
    return cache.logit_BV


def one_shape(ids_BT, valid_BS, filled, k_LBSKH, v_LBSKH, p, config):
    """Take a step with static shapes: everything that changes between steps is in tensors, so the step can be captured.

    Parameters
    ----------
    ids_BT, valid_BS, filled, k_LBSKH, v_LBSKH : arrays
        `KVCache.memory`.
    p : Params
    config : Config

    Returns
    -------
    logit_BV : array
    """
    return paligemma.step(ids_BT, valid_BS, p, config, StepCache(filled, k_LBSKH, v_LBSKH))


@functools.cache
def compiled(backend="inductor"):
    """Return `one_shape` as torch compiles it when it is first called: a minute for the 3B model.

    Parameters
    ----------
    backend : str
        Of ``torch.compile``.

    Returns
    -------
    callable
    """
    return torch.compile(one_shape, fullgraph=True, backend=backend)


def fastest(p, config, cache):
    """Take a step, compiled where torch can compile; taken twice, it writes the same values to the same places.

    Parameters
    ----------
    p, config, cache
        As for `step`.

    Returns
    -------
    callable
        What took it: `compiled` or `one_shape`.

    Warns
    -----
    UserWarning
        If torch cannot compile here.
    """
    for array, axis in zip(cache.memory(), (None, 1, None, 2, 2)):
        # Answers of another length need not be compiled for anew.
        if axis is not None:
            torch._dynamo.mark_dynamic(array, axis)
    try:
        with warnings.catch_warnings():
            # It looks through functools.cache, as it may: what is cached here depends on its arguments only.
            warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
            compiled()(*cache.memory(), p, config)
        return compiled()
    except torch._dynamo.exc.TorchDynamoException as problem:
        reason = " ".join(str(problem).partition("Set TORCH")[0].split())
        warnings.warn(f"torch cannot compile here, so each step takes longer: {reason}", stacklevel=2)
    one_shape(*cache.memory(), p, config)
    return one_shape


def _capture(p, config, cache):
    with torch.cuda.device(cache.ids_BT.device):
        # The first runs choose kernels and take memory, which a capture may not do; they need a stream of their own.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run = fastest(p, config, cache)
            run(*cache.memory(), p, config)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            cache.logit_BV = run(*cache.memory(), p, config)
        cache.graph = graph
        # What is captured has not run yet.
        graph.replay()
