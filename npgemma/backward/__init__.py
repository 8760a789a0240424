"""How the model learns: the forward pass backwards, from the loss to the gradient of every weight, in NumPy alone.

Every function through which a gradient flows has one beside it here, in a file of the same name (but for CLIP's
``softmax_loss``, and what the masks are made by), and all have one contract: ``f_backward(d_result, *arguments of f)``
takes the gradient of the result, then what f took, calculates again what it needs, and returns the gradients of the
arrays and weights among the arguments, in their order: a tuple, or the one alone. Those of weights are the same
dataclass, with None for what f does not use, but for the embedding table, which comes alone; masks, angles, ids and
numbers have none. There is no cache: training reads the whole answer at once. ``dq_BTNH`` is the gradient of
``q_BTNH``.
"""
