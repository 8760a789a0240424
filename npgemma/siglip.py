"""SigLIP's vision tower: encodes an image as one vector for each of its patches.

A vision transformer (Dosovitskiy et al., arXiv 2010.11929). Every patch has a vector of D channels, its place in the
*residual stream*, and every block only adds to that vector: first what attention gathered from all patches, then what
an MLP made of the patch itself. Adding keeps a direct path from the first block to the last: what an early block found
out stays unless a later one takes it away, and in training the gradient has a path to the early blocks on which
nothing makes it smaller.

The tower was trained to tell which caption belongs to which image (``contrastive.py``). For that, a pooling head on top
of it, an attention with one learned query, gathered all patches in one vector, which was compared with a caption's
vector from a tower for text. Why are the vectors of single patches of use, then? What is pooled is a weighted mean of
what the patches hold, so it can speak of a red cat only if patches hold the signs of one. Nothing is masked there, and
so no weight of the softmax is exactly zero: each patch has its share in the mean, and is trained in proportion to that
share. PaliGemma drops that head and takes all patch vectors after the last norm: one pooled vector says *what* is in an
image, while the decoder must also be told *where*. Matching captions teaches little about where; PaliGemma's own
training, in which tower and decoder learned together, teaches more. Other vision transformers pool with a *class
token*, an extra token among the patches; beside a pooling head none is needed.

Official code: ``big_vision/models/vit.py`` (variant So400m/14: about 400 million weights, patches of 14 x 14 pixels).

*Next:* ``contrastive.py``.
"""

from npgemma.attention import attend
from npgemma.ops import einsum, gelu, layer_norm


def encode(pixels_BYXC, p, config):
    """Run the whole tower.

    Parameters
    ----------
    pixels_BYXC : array
        Square images, RGB, from -1 (black) to 1 (white); Y and X are ``config.image_size``.
    p : VisionParams
    config : VisionConfig

    Returns
    -------
    features_BTD : array
        One vector for each patch, in reading order: left to right, then top to bottom.
    """
    stream_BTD = embed_patches(patchify(pixels_BYXC, config.patch_size), p)
    for block_params in p.blocks:
        stream_BTD = block(stream_BTD, block_params, config)
    features_BTD = layer_norm(stream_BTD, p.norm, config.epsilon)
    return features_BTD


def patchify(pixels_BYXC, patch_size):
    """Cut images into square patches, in reading order; what is left at the right and below is dropped.

    Parameters
    ----------
    pixels_BYXC : array
    patch_size : int
        14 in every published PaliGemma.

    Returns
    -------
    patch_BTCyx : array
        Patch t with its channels first: the order of a convolution's kernel.
    """
    B, Y, X, C = pixels_BYXC.shape
    U, W = Y // patch_size, X // patch_size
    whole = pixels_BYXC[:, : U * patch_size, : W * patch_size]
    grid_BUyWxC = whole.reshape(B, U, patch_size, W, patch_size, C)
    patch_BTCyx = grid_BUyWxC.transpose(0, 1, 3, 5, 2, 4).reshape(B, U * W, C, patch_size, patch_size)
    return patch_BTCyx


def embed_patches(patch_BTCyx, p):
    """Map each patch to a vector and add the learned position embedding.

    588 numbers (14 x 14 pixels of 3 channels) go through one matrix and become a vector of the tower's width. Why
    patches and not pixels: attention compares every token with every other. 224 x 224 pixels would have 2.5 billion
    scores in each head of each block, 256 patches have 65,536. Published code writes the product as a convolution,
    which applies one small matrix, its kernel, at place after place (`npgemma.ops.convolve`); here it moves on by a
    whole patch each time, and so sees every patch once. To attention the patches are a set without order, so a learned
    vector for each place is added. (An image has the same places every time; text has no fixed length, so the decoder
    uses rotations, ``rope.py``, and there image tokens are simply numbered in reading order.)

    Parameters
    ----------
    patch_BTCyx : array
    p : VisionParams

    Returns
    -------
    embedded_BTD : array
        The residual stream.
    """
    projected_BTD = einsum("BTCyx,CyxD->BTD", patch_BTCyx, p.patch_embedding) + p.patch_embedding_bias
    embedded_BTD = projected_BTD + p.position_embedding
    return embedded_BTD


def block(x_BTD, p, config):
    """Pre-norm transformer block: residual self-attention, then residual MLP.

    ``mid = x + attention(norm(x)); out = mid + mlp(norm(mid))``

    The norm stands before each of the two ("pre-norm") and not after it. However far the residual stream has grown,
    attention and MLP then see numbers of the size for which their weights were learned, while the stream itself passes
    unchanged.

    Parameters
    ----------
    x_BTD : array
    p : VisionBlockParams
    config : VisionConfig

    Returns
    -------
    out_BTD : array
    """
    attn_out_BTD = self_attention(layer_norm(x_BTD, p.attn_norm, config.epsilon), p.attn)
    mid_BTD = x_BTD + attn_out_BTD
    mlp_out_BTD = mlp(layer_norm(mid_BTD, p.mlp_norm, config.epsilon), p.mlp)
    out_BTD = mid_BTD + mlp_out_BTD
    return out_BTD


def self_attention(x_BTD, p):
    """Self-attention: every patch gathers values from all patches, with several heads.

    Each head has its own H rows of the matrix ``o``, which make D channels of what the head gathered; the vectors of
    all heads are added. So each writes in directions of its own, and as far as these differ, later blocks can tell
    apart what different heads brought. What one head has averaged stays mixed.

    Parameters
    ----------
    x_BTD : array
        Normalised residual stream.
    p : VisionAttentionParams

    Returns
    -------
    out_BTD : array
    """
    q_BTNH = einsum("BTD,DNH->BTNH", x_BTD, p.q) + p.q_bias
    k_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.k) + p.k_bias
    v_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.v) + p.v_bias
    mixed_BTNH = attend(q_BTNH, k_BTKH, v_BTKH)
    out_BTD = einsum("BTNH,NHD->BTD", mixed_BTNH, p.o) + p.o_bias
    return out_BTD


def mlp(x_BTD, p):
    """MLP: transform each patch by itself, ``gelu(x @ up) @ down``, with biases.

    Attention moves information between patches; the MLP is where the features of one patch are combined into new ones:
    "reddish" and "round edge" into "apple", say.

    Parameters
    ----------
    x_BTD : array
        Normalised residual stream.
    p : VisionMLPParams

    Returns
    -------
    out_BTD : array
    """
    hidden_BTF = gelu(einsum("BTD,DF->BTF", x_BTD, p.up) + p.up_bias)
    out_BTD = einsum("BTF,FD->BTD", hidden_BTF, p.down) + p.down_bias
    return out_BTD
