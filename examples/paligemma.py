"""PaliGemma 1 and 2 in one file, with NumPy: python paligemma.py DIR IMAGE PROMPT.

DIR is a folder as the hub has it: config.json, model.safetensors or its shards, and tokenizer.model. Names of arrays
end in their axes: B batch, T new tokens, S all tokens, D width, N query heads, K key/value heads, G = N / K, H head
width, h half of it, F hidden width, V vocabulary, L layers, P image tokens, E vision width; Y, X, C rows, columns and
channels of an image, y, x those of a patch, U, W of patches. npgemma/ has the same functions with their reasons.
"""

import json
import math
import pathlib
import re
import sys
from types import SimpleNamespace

import numpy as np
import sentencepiece
from PIL import Image, ImageOps

# generated: from npgemma/, by reports/readme.py

# ---- ops.py: The operations that torch has as primitives, spelt out in a few lines each; the layers only compose them.
def einsum(formula, *operands):
    """Multiply, then sum over the axes that the result does not have."""
    return np.einsum(formula, *operands, optimize=True)

def softmax(x):
    """Softmax: map numbers to positive weights that sum to one along the last axis: ``exp(x) / sum(exp(x))``."""
    exponential = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)

def gelu(x):
    """Gaussian error linear unit, in the tanh form that both towers were trained with."""
    # x * x * x and not x ** 3: NumPy's power takes the general, far slower road.
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
    return 0.5 * x * (1 + np.tanh(inner))

def soft_cap(x, cap):
    """Soft-cap: keep numbers between -cap and cap, and small ones almost as they are: ``cap * tanh(x / cap)``."""
    return cap * np.tanh(x / cap)

def layer_norm(x, p, epsilon):
    """LayerNorm: shift and scale every token to mean 0 and variance 1, then apply a learned scale and bias."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + epsilon) * p.scale + p.bias

def rms_norm(x, scale, epsilon):
    """RMSNorm: scale every token to a root mean square of 1, then multiply each channel by a learned gain."""
    mean_square = (x * x).mean(axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + epsilon) * (1 + scale)

# ---- attention.py: Attention: the one operation in which tokens read from each other. Both towers use this formula.
def attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS=None):
    """For each query, average the values, weighted by the softmax of query-key similarity."""
    (B, T, N, H), K = q_BTNH.shape, k_BSKH.shape[2]
    # Query head n reads key/value head n // G. Splitting the axis N into (K, G) lines them up: with N = 6 and K = 2,
    # query heads 0, 1, 2 become row 0 and share key/value head 0; query heads 3, 4, 5 become row 1 and share head 1.
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) / math.sqrt(H)
    score_BKGTS = einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH)
    # (B, 1, 1, T, S) against (B, K, G, T, S): all heads have the same mask. exp(-inf) is 0.
    masked_BKGTS = score_BKGTS if mask_BTS is None else np.where(mask_BTS[:, None, None], score_BKGTS, -math.inf)
    weight_BKGTS = softmax(masked_BKGTS)
    mixed_BTKGH = einsum("BKGTS,BSKH->BTKGH", weight_BKGTS, v_BSKH)
    return mixed_BTKGH.reshape(B, T, N, H)

# ---- siglip.py: SigLIP's vision tower: encodes an image as one vector for each of its patches.
def siglip_encode(pixels_BYXC, p, config):
    """Run the whole tower."""
    stream_BTD = embed_patches(patchify(pixels_BYXC, config.patch_size), p)
    for block_params in p.blocks:
        stream_BTD = siglip_block(stream_BTD, block_params, config)
    return layer_norm(stream_BTD, p.norm, config.epsilon)

def patchify(pixels_BYXC, patch_size):
    """Cut images into square patches, in reading order; what is left at the right and below is dropped."""
    B, Y, X, C = pixels_BYXC.shape
    U, W = Y // patch_size, X // patch_size
    whole = pixels_BYXC[:, : U * patch_size, : W * patch_size]
    grid_BUyWxC = whole.reshape(B, U, patch_size, W, patch_size, C)
    return grid_BUyWxC.transpose(0, 1, 3, 5, 2, 4).reshape(B, U * W, C, patch_size, patch_size)

def embed_patches(patch_BTCyx, p):
    """Map each patch to a vector and add the learned position embedding."""
    projected_BTD = einsum("BTCyx,CyxD->BTD", patch_BTCyx, p.patch_embedding) + p.patch_embedding_bias
    return projected_BTD + p.position_embedding

def siglip_block(x_BTD, p, config):
    """Pre-norm transformer block: residual self-attention, then residual MLP."""
    attn_out_BTD = self_attention(layer_norm(x_BTD, p.attn_norm, config.epsilon), p.attn)
    mid_BTD = x_BTD + attn_out_BTD
    mlp_out_BTD = mlp(layer_norm(mid_BTD, p.mlp_norm, config.epsilon), p.mlp)
    return mid_BTD + mlp_out_BTD

def self_attention(x_BTD, p):
    """Self-attention: every patch gathers values from all patches, with several heads."""
    q_BTNH = einsum("BTD,DNH->BTNH", x_BTD, p.q) + p.q_bias
    k_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.k) + p.k_bias
    v_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.v) + p.v_bias
    mixed_BTNH = attend(q_BTNH, k_BTKH, v_BTKH)
    return einsum("BTNH,NHD->BTD", mixed_BTNH, p.o) + p.o_bias

def mlp(x_BTD, p):
    """MLP: transform each patch by itself, ``gelu(x @ up) @ down``, with biases."""
    hidden_BTF = gelu(einsum("BTD,DF->BTF", x_BTD, p.up) + p.up_bias)
    return einsum("BTF,FD->BTD", hidden_BTF, p.down) + p.down_bias

# ---- projector.py: The projector, the bridge between the towers: one matrix and a bias.
def project(features_BPE, p):
    """Map each patch vector from the vision tower's width to the decoder's."""
    return einsum("BPE,ED->BPD", features_BPE, p.linear) + p.bias

# ---- rope.py: Rotary position embedding: rotates queries and keys by angles proportional to their token's position.
def angles(position_BT, head_width, rope_theta):
    """Return the angle by which each pair of channels is rotated at each position."""
    half = head_width // 2
    frequency_h = rope_theta ** (-np.arange(half, dtype=np.float64) / half)
    return position_BT[:, :, None] * frequency_h

def rotate(x_BTNH, angle_BTh):
    """Rotate channel h of every head together with channel h + H / 2 by its token's angle."""
    first_BTNh, second_BTNh = np.split(x_BTNH, 2, axis=-1)
    # All heads rotate alike: an axis of length one stands for them.
    cos = np.cos(angle_BTh)[:, :, None].astype(x_BTNH.dtype)
    sin = np.sin(angle_BTh)[:, :, None].astype(x_BTNH.dtype)
    halves = [first_BTNh * cos - second_BTNh * sin, second_BTNh * cos + first_BTNh * sin]
    return np.concatenate(halves, axis=-1)

# ---- mask.py: Which token may attend to which: the prefix-LM mask, and the positions that go with it.
def prefix_lm(prefix_BS, valid_BS, new):
    """Return the mask of a prefix language model (prefix-LM): which tokens each of the newest tokens may attend to."""
    total = valid_BS.shape[1]
    key_S = np.arange(total)
    query_T = key_S[total - new :]
    causal_TS = key_S <= query_T[:, None]
    both_prefix_BTS = prefix_BS[:, total - new :, None] & prefix_BS[:, None, :]
    return valid_BS[:, None, :] & (causal_TS | both_prefix_BTS)

def sliding_window(prefix_BS, valid_BS, new, window):
    """Return the mask of Gemma 2's blocks with a sliding window: outside the prefix, only the last tokens are seen."""
    total = valid_BS.shape[1]
    position_BS = positions(valid_BS, total)
    distance_BTS = position_BS[:, total - new :, None] - position_BS[:, None, :]
    both_prefix_BTS = prefix_BS[:, total - new :, None] & prefix_BS[:, None, :]
    return prefix_lm(prefix_BS, valid_BS, new) & ((distance_BTS < window) | both_prefix_BTS)

def positions(valid_BS, new):
    """Return the position of each of the newest tokens: the number of real tokens before that token."""
    position_BS = np.maximum(np.cumsum(valid_BS, axis=1) - 1, 0)
    return position_BS[:, valid_BS.shape[1] - new :]

# ---- gemma.py: Gemma, the decoder: maps image and text tokens to logits for the next token at each position.
def embed_tokens(ids_BT, p):
    """Look up each text token's vector and scale it by the square root of the width."""
    vector_BTD = p.embedding[ids_BT]
    return vector_BTD * math.sqrt(p.embedding.shape[1])

def gemma_run_blocks(x_BTD, prefix_BS, valid_BS, p, config, cache=None):
    """Run all blocks and the final norm."""
    new = x_BTD.shape[1]
    angle_BTh = angles(positions(valid_BS, new), config.head_width, config.rope_theta)
    mask_BTS = prefix_lm(prefix_BS, valid_BS, new)
    stream_BTD = x_BTD
    for i, block_params in enumerate(p.blocks):
        layer_cache = None if cache is None else cache.layer(i)
        stream_BTD = gemma_block(stream_BTD, angle_BTh, mask_BTS, block_params, config, layer_cache)
    if cache is not None:
        cache.advance(new)
    return rms_norm(stream_BTD, p.norm, config.epsilon)

def gemma_block(x_BTD, angle_BTh, mask_BTS, p, config, cache=None):
    """Pre-norm transformer block: residual self-attention, then residual GeGLU MLP."""
    normed_BTD = rms_norm(x_BTD, p.attn_norm, config.epsilon)
    attn_out_BTD = gemma_grouped_query_attention(normed_BTD, angle_BTh, mask_BTS, p.attn, cache)
    mid_BTD = x_BTD + attn_out_BTD
    mlp_out_BTD = geglu(rms_norm(mid_BTD, p.mlp_norm, config.epsilon), p.mlp)
    return mid_BTD + mlp_out_BTD

def gemma_grouped_query_attention(x_BTD, angle_BTh, mask_BTS, p, cache=None):
    """Self-attention: every token gathers values from the tokens that its mask allows."""
    q_BTNH = rotate(einsum("BTD,DNH->BTNH", x_BTD, p.q), angle_BTh)
    k_BTKH = rotate(einsum("BTD,DKH->BTKH", x_BTD, p.k), angle_BTh)
    v_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.v)
    k_BSKH, v_BSKH = (k_BTKH, v_BTKH) if cache is None else cache.extend(k_BTKH, v_BTKH)
    mixed_BTNH = attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS)
    return einsum("BTNH,NHD->BTD", mixed_BTNH, p.o)

def geglu(x_BTD, p):
    """Gated MLP (GeGLU, a GELU-gated linear unit): ``(gelu(x @ gate) * (x @ up)) @ down``, for each token by itself."""
    gate_BTF = gelu(einsum("BTD,DF->BTF", x_BTD, p.gate))
    hidden_BTF = gate_BTF * einsum("BTD,DF->BTF", x_BTD, p.up)
    return einsum("BTF,FD->BTD", hidden_BTF, p.down)

def gemma_unembed(final_BTD, p, config):
    """Return the logit of every vocabulary row as the next token: its product with the embedding table."""
    return einsum("BTD,VD->BTV", final_BTD, p.embedding)

# ---- gemma2.py: Gemma 2, the decoder of PaliGemma 2: what differs from ``gemma.py``, to be read after it.
def gemma2_run_blocks(x_BTD, prefix_BS, valid_BS, p, config, cache=None):
    """Run all blocks, each with its own kind of mask, and the final norm."""
    new = x_BTD.shape[1]
    angle_BTh = angles(positions(valid_BS, new), config.head_width, config.rope_theta)
    full_BTS = prefix_lm(prefix_BS, valid_BS, new)
    near_BTS = sliding_window(prefix_BS, valid_BS, new, config.sliding_window)
    stream_BTD = x_BTD
    for i, block_params in enumerate(p.blocks):
        layer_cache = None if cache is None else cache.layer(i)
        mask_BTS = near_BTS if config.layer_types[i] == SLIDING else full_BTS
        stream_BTD = gemma2_block(stream_BTD, angle_BTh, mask_BTS, block_params, config, layer_cache)
    if cache is not None:
        cache.advance(new)
    return rms_norm(stream_BTD, p.norm, config.epsilon)

def gemma2_block(x_BTD, angle_BTh, mask_BTS, p, config, cache=None):
    """Transformer block with norms before and after: residual self-attention, then residual GeGLU MLP."""
    normed_BTD = rms_norm(x_BTD, p.attn_norm, config.epsilon)
    attn_out_BTD = gemma2_grouped_query_attention(normed_BTD, angle_BTh, mask_BTS, p.attn, config, cache)
    mid_BTD = x_BTD + rms_norm(attn_out_BTD, p.attn_out_norm, config.epsilon)
    mlp_out_BTD = geglu(rms_norm(mid_BTD, p.mlp_norm, config.epsilon), p.mlp)
    return mid_BTD + rms_norm(mlp_out_BTD, p.mlp_out_norm, config.epsilon)

def gemma2_grouped_query_attention(x_BTD, angle_BTh, mask_BTS, p, config, cache=None):
    """Self-attention: every token gathers values from the tokens that its mask allows."""
    q_BTNH = rotate(einsum("BTD,DNH->BTNH", x_BTD, p.q), angle_BTh)
    k_BTKH = rotate(einsum("BTD,DKH->BTKH", x_BTD, p.k), angle_BTh)
    v_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.v)
    k_BSKH, v_BSKH = (k_BTKH, v_BTKH) if cache is None else cache.extend(k_BTKH, v_BTKH)
    mixed_BTNH = gemma2_attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS, config)
    return einsum("BTNH,NHD->BTD", mixed_BTNH, p.o)

def gemma2_attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS, config):
    """For each query, average the values, weighted by the softmax of soft-capped query-key similarity."""
    (B, T, N, H), K = q_BTNH.shape, k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) / math.sqrt(config.query_pre_attn_scalar)
    score_BKGTS = einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH)
    capped_BKGTS = soft_cap(score_BKGTS, config.attention_softcap)
    masked_BKGTS = np.where(mask_BTS[:, None, None], capped_BKGTS, -math.inf)
    weight_BKGTS = softmax(masked_BKGTS)
    mixed_BTKGH = einsum("BKGTS,BSKH->BTKGH", weight_BKGTS, v_BSKH)
    return mixed_BTKGH.reshape(B, T, N, H)

def gemma2_unembed(final_BTD, p, config):
    """Return the logit of every vocabulary row as the next token: its soft-capped product with the embedding table."""
    return soft_cap(einsum("BTD,VD->BTV", final_BTD, p.embedding), config.final_softcap)

# ---- cache.py: The key/value cache: the keys and values of past tokens, kept so that none is computed twice.
class KVCache:
    """Keys and values of all layers, filled from the left to one common level."""

    def __init__(self, config, batch, capacity, like):
        shape = (config.layers, batch, capacity, config.key_value_heads, config.head_width)
        self.k_LBSKH = np.zeros(shape, dtype=like.dtype)
        self.v_LBSKH = np.zeros(shape, dtype=like.dtype)
        self.length = 0

    def layer(self, i):
        """Return layer i's part, which its attention extends."""
        return LayerCache(self, i)

    def advance(self, new):
        """Raise the fill level by ``new`` tokens, once all layers have stored theirs."""
        self.length += new

class LayerCache:
    """One layer's view of a `KVCache`."""

    def __init__(self, cache, i):
        self.cache, self.i = cache, i

    def extend(self, k_BTKH, v_BTKH):
        """Store the keys and values of new tokens after the old ones, and return all of them."""
        start = self.cache.length
        end = start + k_BTKH.shape[1]
        self.cache.k_LBSKH[self.i, :, start:end] = k_BTKH
        self.cache.v_LBSKH[self.i, :, start:end] = v_BTKH
        k_BSKH = self.cache.k_LBSKH[self.i, :, :end]
        v_BSKH = self.cache.v_LBSKH[self.i, :, :end]
        return k_BSKH, v_BSKH

# ---- paligemma.py: PaliGemma: maps an image and a prompt to the logits of the next token. Here the parts are joined.
def encode_image(pixels_BYXC, p, config):
    """Encode images as tokens of the decoder's width."""
    features_BPE = siglip_encode(pixels_BYXC, p.vision, config.vision)
    return project(features_BPE, p.projector)

def decoder_of(config):
    """Return the decoder: ``gemma.py`` in PaliGemma 1, ``gemma2.py`` in PaliGemma 2; both have the same functions."""
    return gemma2 if isinstance(config.text, Gemma2Config) else gemma

def with_image(flag_BT, image_BPD):
    """Prepend True for every image token to a per-text-token flag: the image is all real and all prefix."""
    image_BP = np.ones(image_BPD.shape[:2], dtype=bool)
    return np.concatenate([image_BP, flag_BT], axis=1)

def prefill(image_BPD, ids_BT, valid_BT, p, config, cache):
    """Read image and prompt into an empty cache; return the logits of the answer's first token."""
    decoder = decoder_of(config)
    valid_BS = with_image(valid_BT, image_BPD)
    x_BSD = np.concatenate([image_BPD, decoder.embed_tokens(ids_BT, p.text)], axis=1)
    # Every real token so far belongs to the prefix: the two flags are the same.
    final_BSD = decoder.run_blocks(x_BSD, valid_BS, valid_BS, p.text, config.text, cache)
    return decoder.unembed(final_BSD[:, -1:], p.text, config.text)[:, 0]

def step(ids_BT, valid_BS, p, config, cache):
    """Take one more token of each answer; return the logits of the one after it."""
    decoder = decoder_of(config)
    x_BTD = decoder.embed_tokens(ids_BT, p.text)
    # A token of the answer only looks back, on the prefix as on the answer: who belongs to which no longer matters.
    final_BTD = decoder.run_blocks(x_BTD, np.zeros_like(valid_BS), valid_BS, p.text, config.text, cache)
    return decoder.unembed(final_BTD, p.text, config.text)[:, 0]

# end

# The decoders of the two families, and what tells them apart.
gemma = SimpleNamespace(embed_tokens=embed_tokens, run_blocks=gemma_run_blocks, unembed=gemma_unembed)
gemma2 = SimpleNamespace(embed_tokens=embed_tokens, run_blocks=gemma2_run_blocks, unembed=gemma2_unembed)
SLIDING, FULL = "sliding_attention", "full_attention"

class Gemma2Config(SimpleNamespace):
    """Sizes of PaliGemma 2's decoder."""

# Our name of each size of the decoder, the hub's, and what it is in Gemma and Gemma 2 where config.json does not say.
SIZES = {
    "layers": ("num_hidden_layers", 28, 26), "key_value_heads": ("num_key_value_heads", 16, 4),
    "head_width": ("head_dim", 256, 256), "context_length": ("max_position_embeddings", 8192, 8192),
    "epsilon": ("rms_norm_eps", 1e-6, 1e-6), "rope_theta": ("rope_theta", 10000.0, 10000.0),
    "query_pre_attn_scalar": ("query_pre_attn_scalar", None, 256), "sliding_window": ("sliding_window", None, 4096),
    "attention_softcap": ("attn_logit_softcapping", None, 50.0), "layer_types": ("layer_types", None, None),
    "final_softcap": ("final_logit_softcapping", None, 30.0),
}
# Replacements that make our names of the hub's: model.language_model.layers.3.self_attn.q_proj.weight becomes
# text.blocks.3.attn.q. In Gemma 1 the norm before the MLP has the name of Gemma 2's norm after attention.
NAMES = [
    (r"\b(model|vision_model|encoder|embeddings)\.", ""), ("vision_tower", "vision"), ("language_model", "text"),
    ("multi_modal_projector", "projector"), (r"(layer_norm\d|post_layernorm)\.weight", r"\1.scale"), (r"\.weight", ""),
    (r"(proj|fc\d|patch_embedding)\.bias", r"\1_bias"), ("linear.bias", "bias"), ("layers", "blocks"), ("fc1", "up"),
    ("fc2", "down"), (r"self_attn\.out_proj", "attn.o"), ("self_attn", "attn"), (r"\b(\w+)_proj", r"\1"),
    ("embed_tokens", "embedding"), ("layer_norm1|input_layernorm", "attn_norm"), ("layer_norm2", "mlp_norm"),
    ("pre_feedforward_layernorm", "mlp_norm"), ("post_feedforward_layernorm", "mlp_out_norm"),
    ("post_attention_layernorm", "attn_out_norm"), ("post_layernorm", "norm"),
]
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

def read_json(path):
    """Return what a JSON file holds, or an empty object where there is no file."""
    return json.loads(path.read_text()) if path.exists() else {}

def read_config(folder):
    """Read the sizes; what config.json leaves out is the default of Hugging Face's classes."""
    document = read_json(folder / "config.json")
    vision, text = document["vision_config"], document["text_config"]
    text |= text.get("rope_parameters") or {}
    is_2 = text.get("model_type") == "gemma2"
    sizes = {ours: text.get(hub) or (default, default_2)[is_2] for ours, (hub, default, default_2) in SIZES.items()}
    sizes["layer_types"] = sizes["layer_types"] or [SLIDING, FULL] * sizes["layers"]
    H = vision.get("hidden_size", 768) // vision.get("num_attention_heads", 12)
    tower = {"image_size": vision.get("image_size", 224), "patch_size": vision.get("patch_size", 16), "head_width": H}
    tower = SimpleNamespace(**tower, epsilon=vision.get("layer_norm_eps", 1e-6))
    decoder = Gemma2Config(**sizes) if is_2 else SimpleNamespace(**sizes)
    ids = [part.get("eos_token_id") for part in (read_json(folder / "generation_config.json"), document, text)]
    # A single id of the decoder is mostly a default that was written out: it counts only where there is no other.
    ids = ids if isinstance(ids[2], list) or ids[1] is None else ids[:2]
    ends = set(np.hstack([each for each in ids if each is not None] or [1]))
    return SimpleNamespace(vision=tower, text=decoder, ends=ends)

def read_weights(folder, config):
    """Read the weights as a tree: p.text.blocks[0].attn.q, with the axes D, N and H, is one of them."""
    shards, tree = read_json(folder / "model.safetensors.index.json").get("weight_map", {}), {}
    whole = folder / "model.safetensors"
    for file in [whole] if whole.exists() else {folder / name for name in shards.values()}:
        content = np.memmap(file, mode="r")
        start = 8 + int.from_bytes(content[:8].tobytes(), "little")
        for name, about in json.loads(content[8:start].tobytes()).items():
            if name != "__metadata__":
                first, end = about["data_offsets"]
                numbers = content[start + first : start + end].view(DTYPES[about["dtype"]])
                if about["dtype"] == "BF16":  # the upper half of a float32
                    numbers = np.left_shift(numbers, 16, dtype=np.uint32).view(np.float32)
                place(tree, name, numbers.astype(np.float32, copy=False).reshape(about["shape"]), config)
    return with_attributes(tree)

def place(tree, name, array, config):
    """Put an array into the tree, with its heads split and a matrix's outputs behind its inputs: (NH)D becomes DNH."""
    for theirs, ours in NAMES:
        name = re.sub(theirs, ours, name)
    if not isinstance(config.text, Gemma2Config):
        name = name.replace("attn_out_norm", "mlp_norm")
    *path, last = name.split(".")
    H = (config.vision if name.startswith("vision") else config.text).head_width
    if last in ("q", "k", "v"):
        array = array.reshape(-1, H, array.shape[1]).transpose(2, 0, 1)
    elif last == "o":
        array = array.reshape(len(array), -1, H).transpose(1, 2, 0)
    elif last in ("q_bias", "k_bias", "v_bias"):
        array = array.reshape(-1, H)
    elif last not in ("embedding", "position_embedding"):
        array = np.moveaxis(array, 0, -1)
    for part in path:
        tree = tree.setdefault(part, {})
    tree[last] = array

def with_attributes(tree):
    """Turn dictionaries into objects with attributes, and those of numbered blocks into lists."""
    parts = {name: with_attributes(part) if isinstance(part, dict) else part for name, part in tree.items()}
    return [parts[str(i)] for i in range(len(parts))] if "0" in parts else SimpleNamespace(**parts)

def read_pixels(path, folder, side):
    """Read an image of 8 bits as the model takes it: upright, on white, squashed to a square, from -1 to 1."""
    said = read_json(folder / "processor_config.json").get("image_processor")
    said = said or read_json(folder / "preprocessor_config.json")
    image = ImageOps.exif_transpose(Image.open(path))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    values_YXC = np.asarray(image.convert("RGB").resize((side, side), said.get("resample", Image.Resampling.BICUBIC)))
    scaled_YXC = (values_YXC * said.get("rescale_factor", 1 / 255)).astype(np.float32)
    mean, deviation = np.float32(said.get("image_mean", 0.5)), np.float32(said.get("image_std", 0.5))
    return ((scaled_YXC - mean) / deviation)[None]

def answer(folder, image, prompt, max_new_tokens=100):
    """Return the tokens of an answer, and its text."""
    folder = pathlib.Path(folder)
    config, pieces = read_config(folder), sentencepiece.SentencePieceProcessor(model_file=f"{folder}/tokenizer.model")
    p = read_weights(folder, config)
    image_BPD = encode_image(read_pixels(image, folder, config.vision.image_size), p, config)
    # The newline ends the prompt; in training it stood before every answer.
    ids_BT = np.array([[pieces.piece_to_id("<bos>"), *pieces.encode(prompt), *pieces.encode("\n")]])
    before, token_ids = image_BPD.shape[1] + ids_BT.shape[1], []
    most = min(max_new_tokens, config.text.context_length - before)
    cache = KVCache(config.text, 1, before + most, image_BPD)
    logit_BV = prefill(image_BPD, ids_BT, ids_BT >= 0, p, config, cache)
    while len(token_ids) < most and not config.ends.intersection(token_ids):
        # Rows of the table past the last piece belong to no token.
        token_ids.append(int(logit_BV[0, : pieces.get_piece_size()].argmax()))
        valid_BS = np.ones((1, before + len(token_ids)), dtype=bool)
        logit_BV = step(np.array([token_ids[-1:]]), valid_BS, p, config, cache)
    return token_ids, pieces.decode(token_ids)

if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python paligemma.py DIR IMAGE PROMPT")
    print(answer(*sys.argv[1:])[1])
