"""big_vision's PaliGemma restated in NumPy, for both families: its formulas, its layout of weights, nothing of ours.

Of ``models/vit.py`` (So400m/14, no pooling), ``models/ppp/gemma.py`` and ``models/proj/paligemma/paligemma.py``, as
read at commit 0127fb6: weights stacked as flax has them, queries scaled before the dot product, variance as
``E[x^2] - E[x]^2``, masked scores of -2.4e38, the prefix by a cumulative sum. It has no sliding window; the final
soft-cap, which its configurations switch off, is switched on.
"""

import numpy as np

MASKED = -2.3819763e38


def from_hub(tensors, config):
    """Turn the hub's tensors into flax's tree, by the rules of Hugging Face's conversion script, reversed.

    Parameters
    ----------
    tensors : dict of str to float64 array
        By the hub's names.
    config : dict
        The hub's ``config.json``.
    """
    vision, text = config["vision_config"], config["text_config"]
    tower, layers = "vision_tower.vision_model.", "language_model.model.layers."

    def stack(pattern, count, change=lambda x: x):
        return np.stack([change(tensors[pattern.format(i)]) for i in range(count)])

    def of_vision(name, change=lambda x: x):
        return stack(tower + "encoder.layers.{}." + name, vision["num_hidden_layers"], change)

    def of_text(name, change=lambda x: x):
        return stack(layers + "{}." + name, text["num_hidden_layers"], change)

    heads, width = vision["num_attention_heads"], vision["hidden_size"]
    head = text.get("head_dim", 256)

    def split(x):  # (N H, D) to (N, D, H)
        return x.reshape(-1, head, x.shape[1]).transpose(0, 2, 1)

    is_2 = text["model_type"] == "gemma2"
    before_mlp = "pre_feedforward_layernorm" if is_2 else "post_attention_layernorm"
    llm = {
        "embedder/input_embedding": tensors["language_model.model.embed_tokens.weight"],
        "layers/attn/q_einsum/w": of_text("self_attn.q_proj.weight", split),
        "layers/attn/kv_einsum/w": np.stack(
            [of_text("self_attn.k_proj.weight", split), of_text("self_attn.v_proj.weight", split)], axis=1
        ),
        "layers/attn/attn_vec_einsum/w": of_text(
            "self_attn.o_proj.weight", lambda x: x.reshape(x.shape[0], -1, head).transpose(1, 2, 0)
        ),
        "layers/mlp/gating_einsum": np.stack(
            [of_text("mlp.gate_proj.weight", np.transpose), of_text("mlp.up_proj.weight", np.transpose)], axis=1
        ),
        "layers/mlp/linear": of_text("mlp.down_proj.weight", np.transpose),
        "layers/pre_attention_norm/scale": of_text("input_layernorm.weight"),
        "layers/pre_ffw_norm/scale": of_text(before_mlp + ".weight"),
        "final_norm/scale": tensors["language_model.model.norm.weight"],
    }
    if is_2:
        llm["layers/post_attention_norm/scale"] = of_text("post_attention_layernorm.weight")
        llm["layers/post_ffw_norm/scale"] = of_text("post_feedforward_layernorm.weight")
    attention, block = "MultiHeadDotProductAttention_0/", "Transformer/encoderblock/"
    img = {
        "embedding/kernel": tensors[tower + "embeddings.patch_embedding.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": tensors[tower + "embeddings.patch_embedding.bias"],
        "pos_embedding": tensors[tower + "embeddings.position_embedding.weight"][None],
        "Transformer/encoder_norm/scale": tensors[tower + "post_layernorm.weight"],
        "Transformer/encoder_norm/bias": tensors[tower + "post_layernorm.bias"],
        "head/kernel": tensors["multi_modal_projector.linear.weight"].T,
        "head/bias": tensors["multi_modal_projector.linear.bias"],
        block + attention + "out/kernel": of_vision(
            "self_attn.out_proj.weight", lambda x: x.T.reshape(heads, -1, width)
        ),
        block + attention + "out/bias": of_vision("self_attn.out_proj.bias"),
    }
    for flax, hub in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        name = block + attention + flax
        img[name + "/kernel"] = of_vision(f"self_attn.{hub}.weight", lambda x: x.T.reshape(width, heads, -1))
        img[name + "/bias"] = of_vision(f"self_attn.{hub}.bias", lambda x: x.reshape(heads, -1))
    for i in (0, 1):
        img[f"{block}LayerNorm_{i}/scale"] = of_vision(f"layer_norm{i + 1}.weight")
        img[f"{block}LayerNorm_{i}/bias"] = of_vision(f"layer_norm{i + 1}.bias")
        img[f"{block}MlpBlock_0/Dense_{i}/kernel"] = of_vision(f"mlp.fc{i + 1}.weight", np.transpose)
        img[f"{block}MlpBlock_0/Dense_{i}/bias"] = of_vision(f"mlp.fc{i + 1}.bias")
    return {"img": img, "llm": llm}


def logits(flax, config, images, text, mask_ar, input_mask):
    """Return the logits of every position.

    Parameters
    ----------
    flax : dict
        From `from_hub`.
    config : dict
        The hub's, for what no shape tells.
    images : array (B, images, height, width, 3)
    text : int array (B, length)
    mask_ar : array (B, length)
        1 where a token is causal, 0 in the prefix.
    input_mask : bool array (B, length)
    """
    batch, count = images.shape[:2]
    encoded = vit(flax["img"], images.reshape(-1, *images.shape[2:]))
    encoded = encoded.reshape(batch, count * encoded.shape[1], -1)
    embedding = flax["llm"]["embedder/input_embedding"]
    x = np.concatenate([encoded, embedding[text] * np.sqrt(embedding.shape[1])], axis=1)
    image = np.zeros(encoded.shape[:2], int)
    mask_ar = np.concatenate([image, mask_ar], axis=1)
    input_mask = np.concatenate([image == 0, input_mask], axis=1)
    cumulative = np.cumsum(mask_ar, axis=1)
    mask = (cumulative[:, None, :] <= cumulative[:, :, None]) & (input_mask[:, None, :] & input_mask[:, :, None])
    return gemma(flax["llm"], config["text_config"], x, np.cumsum(input_mask, axis=1) - 1, mask)


def vit(p, image):
    kernel = p["embedding/kernel"]
    size = kernel.shape[0]
    n, h, w, c = image.shape
    patches = image.reshape(n, h // size, size, w // size, size, c)
    x = np.einsum("nhpwqc,pqcd->nhwd", patches, kernel) + p["embedding/bias"]
    x = x.reshape(n, -1, x.shape[-1]) + p["pos_embedding"]
    block = "Transformer/encoderblock/"
    layers = {name.removeprefix(block): stacked for name, stacked in p.items() if name.startswith(block)}
    for i in range(len(layers["LayerNorm_0/scale"])):
        layer = {name: stacked[i] for name, stacked in layers.items()}
        y = layer_norm(x, layer["LayerNorm_0/scale"], layer["LayerNorm_0/bias"])
        query, key, value = (
            np.einsum("ntd,dhk->nthk", y, layer[f"MultiHeadDotProductAttention_0/{name}/kernel"])
            + layer[f"MultiHeadDotProductAttention_0/{name}/bias"]
            for name in ("query", "key", "value")
        )
        query = query / np.sqrt(query.shape[-1])
        weights = softmax(np.einsum("nqhd,nkhd->nhqk", query, key))
        y = np.einsum("nhqk,nkhd->nqhd", weights, value)
        y = np.einsum("nqhd,hdm->nqm", y, layer["MultiHeadDotProductAttention_0/out/kernel"])
        x = x + y + layer["MultiHeadDotProductAttention_0/out/bias"]
        y = layer_norm(x, layer["LayerNorm_1/scale"], layer["LayerNorm_1/bias"])
        y = gelu(y @ layer["MlpBlock_0/Dense_0/kernel"] + layer["MlpBlock_0/Dense_0/bias"])
        x = x + (y @ layer["MlpBlock_0/Dense_1/kernel"] + layer["MlpBlock_0/Dense_1/bias"])
    x = layer_norm(x, p["Transformer/encoder_norm/scale"], p["Transformer/encoder_norm/bias"])
    return x @ p["head/kernel"] + p["head/bias"]


def gemma(p, config, x, positions, mask):
    is_2 = config["model_type"] == "gemma2"
    layers = {name.removeprefix("layers/"): stacked for name, stacked in p.items() if name.startswith("layers/")}
    for i in range(len(layers["mlp/linear"])):
        layer = {name: stacked[i] for name, stacked in layers.items()}
        y = attention(layer, config, rms_norm(x, layer["pre_attention_norm/scale"]), positions, mask)
        x = x + (rms_norm(y, layer["post_attention_norm/scale"]) if is_2 else y)
        y = rms_norm(x, layer["pre_ffw_norm/scale"])
        gate, up = (np.einsum("btd,df->btf", y, w) for w in layer["mlp/gating_einsum"])
        y = (gelu(gate) * up) @ layer["mlp/linear"]
        x = x + (rms_norm(y, layer["post_ffw_norm/scale"]) if is_2 else y)
    x = rms_norm(x, p["final_norm/scale"]) @ p["embedder/input_embedding"].T
    return soft_cap(x, config["final_logit_softcapping"]) if is_2 else x


def attention(layer, config, x, positions, mask):
    is_2 = config["model_type"] == "gemma2"
    q = np.einsum("BTD,NDH->BTNH", x, layer["attn/q_einsum/w"])
    k, v = np.einsum("BSD,cKDH->cBSKH", x, layer["attn/kv_einsum/w"])
    q, k = rope(q, positions), rope(k, positions)
    q = q * (config["query_pre_attn_scalar"] if is_2 else q.shape[-1]) ** -0.5
    B, T, N, H = q.shape
    K = k.shape[2]
    q = q.reshape(B, T, K, N // K, H)
    scores = np.einsum("BTKGH,BSKH->BKGTS", q, k)
    if is_2:
        scores = soft_cap(scores, config["attn_logit_softcapping"])
    weights = softmax(np.where(mask[:, None, None], scores, MASKED))
    encoded = np.einsum("BKGTS,BSKH->BTKGH", weights, v).reshape(B, T, N, H)
    return np.einsum("BTNH,NHD->BTD", encoded, layer["attn/attn_vec_einsum/w"])


def rope(x, positions):
    half = x.shape[-1] // 2
    timescale = 10000.0 ** ((2.0 / x.shape[-1]) * np.arange(half))
    radians = positions[..., None] / timescale
    sin, cos = np.sin(radians)[:, :, None], np.cos(radians)[:, :, None]
    x1, x2 = x[..., :half], x[..., half:]
    return np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)


def layer_norm(x, scale, bias):
    mean = x.mean(-1, keepdims=True)
    variance = (x * x).mean(-1, keepdims=True) - mean * mean
    return (x - mean) * (1 / np.sqrt(variance + 1e-6) * scale) + bias


def rms_norm(x, scale):
    return x * np.reciprocal(np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)) * (1 + scale)


def gelu(x):
    return x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def soft_cap(x, cap):
    return np.tanh(x / cap) * cap
