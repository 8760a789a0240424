"""SigLIP's vision tower: an image becomes one vector for each of its patches.

A vision transformer (Dosovitskiy et al., arXiv 2010.11929) of pre-norm blocks, trained with the sigmoid loss of
``contrastive.py``. PaliGemma uses all patch vectors after the last norm: there is no class token and no pooling head.
Official code: ``big_vision/models/vit.py`` (variant So400m/14).
"""

from torch_ref.attention import attend
from torch_ref.ops import einsum, gelu, layer_norm


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
    hidden_BTD = embed_patches(patchify(pixels_BYXC, config.patch_size), p)
    for block_params in p.blocks:
        hidden_BTD = block(hidden_BTD, block_params, config)
    features_BTD = layer_norm(hidden_BTD, p.norm, config.epsilon)
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
    rows, columns = Y // patch_size, X // patch_size
    whole = pixels_BYXC[:, : rows * patch_size, : columns * patch_size]
    grid = whole.reshape(B, rows, patch_size, columns, patch_size, C)
    patch_BTCyx = grid.permute(0, 1, 3, 5, 2, 4).reshape(B, rows * columns, C, patch_size, patch_size)
    return patch_BTCyx


def embed_patches(patch_BTCyx, p):
    """Map each patch to a vector and add the learned position embedding.

    A convolution whose stride is its kernel's size sees every patch once and apart from the others: it is a matrix
    product.

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
    """Transform each patch by itself: ``gelu(x up) down``, with biases.

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
