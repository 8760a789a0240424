"""A port to start from: PaliGemma 1 in NumPy alone, which writes the arrays at which ports go wrong.

    python cli.py trace --max-new-tokens 3 --out reference.safetensors
    python examples/skeleton_port.py tiny reference.safetensors port.npz
    python cli.py compare port.npz --map examples/skeleton_port.toml --reference reference.safetensors

Put your functions in place of these, or its calls of `dump` into your port. Pixels and prompt are the reference's.
There is no axis for the batch, and no mask: the prefix sees all of itself, and a later token all before it.
"""

import json
import pathlib
import sys

import numpy as np
from read_trace import read

folder, reference, out = map(pathlib.Path, sys.argv[1:4])
given, manifest = read(reference)
weights, config = read(folder / "model.safetensors")[0], json.loads((folder / "config.json").read_text())
TOWER, DECODER = "vision_tower.vision_model.", "language_model.model."
vision, text, table = config["vision_config"], config["text_config"], weights[f"{DECODER}embed_tokens.weight"]
arrays, cache, where = {}, {}, "prefill.0"


def dump(name, array):
    """Keep an array under its name, the pass in front."""
    arrays[f"{where}/{name}"] = array
    return array


def linear(name, x):
    """Multiply x (T, D) by a weight (F, D), and add the bias, if there is one."""
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", np.float32(0))


def norm(name, x):
    """LayerNorm where there is a bias; otherwise RMSNorm, whose gain is stored minus 1."""
    gain, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    centred = x if bias is None else x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + np.float32(1e-6))
    return scaled * (1 + gain) if bias is None else scaled * gain + bias


def gelu(x):
    """GELU by its approximation with tanh."""
    return x * (1 + np.tanh(np.sqrt(2 / np.pi, dtype=np.float32) * (x + np.float32(0.044715) * x**3))) / 2


def rotate(x, position):
    """Rotate the two halves of each head of x (T, N, H)."""
    first, second = np.split(x, 2, axis=-1)
    angle = position[:, None, None] / text["rope_theta"] ** (np.arange(first.shape[-1]) / first.shape[-1])
    cos, sin = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attend(name, q, k, v):
    """Attend from q (T, N, H) to k and v (S, K, H); neighbouring query heads share a key head."""
    k, v = (np.repeat(each, q.shape[1] // k.shape[1], axis=1) for each in (k, v))
    score = np.einsum("tnh,snh->nts", q, k) / np.sqrt(np.float32(q.shape[-1]))
    share = np.exp(score - score.max(-1, keepdims=True))
    share = dump(f"{name}.weights", share / share.sum(-1, keepdims=True))
    return dump(f"{name}.mixed", np.einsum("nts,snh->tnh", share, v).reshape(len(q), -1))


def encode(pixels):
    """Return the image tokens (P, D) of pixels (Y, X, 3)."""
    side, kernel = vision["patch_size"], weights[f"{TOWER}embeddings.patch_embedding.weight"]
    patches = pixels.reshape(len(pixels) // side, side, -1, side, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3 * side**2)
    projected = patches @ kernel.reshape(len(kernel), -1).T + weights[f"{TOWER}embeddings.patch_embedding.bias"]
    x = dump("vit.patches", projected) + weights[f"{TOWER}embeddings.position_embedding.weight"]
    for i in range(vision["num_hidden_layers"]):
        at, name = f"{TOWER}encoder.layers.{i}.", f"vit.{i}"
        normed = dump(f"{name}.norm", norm(f"{at}layer_norm1", x))
        qkv = (linear(f"{at}self_attn.{each}_proj", normed) for each in "qkv")
        heads = (each.reshape(len(x), vision["num_attention_heads"], -1) for each in qkv)
        x = dump(f"{name}.mid", x + linear(f"{at}self_attn.out_proj", attend(name, *heads)))
        hidden = dump(f"{name}.gelu", gelu(linear(f"{at}mlp.fc1", norm(f"{at}layer_norm2", x))))
        x = dump(f"{name}.out", x + linear(f"{at}mlp.fc2", hidden))
    features = dump("vit.features", norm(f"{TOWER}post_layernorm", x))
    return dump("image", linear("multi_modal_projector.linear", features))


def decode(x, position):
    """Return the logits (V,) after embeddings x (T, D) and what is cached."""
    dump("embedded", x)
    for i in range(text["num_hidden_layers"]):
        at, name = f"{DECODER}layers.{i}.", f"blk.{i}"
        normed = dump(f"{name}.norm", norm(f"{at}input_layernorm", x))
        qkv = (linear(f"{at}self_attn.{each}_proj", normed) for each in "qkv")
        q, k, v = (each.reshape(len(x), -1, text["head_dim"]) for each in qkv)
        q, k = dump(f"{name}.q", rotate(q, position)), dump(f"{name}.k", rotate(k, position))
        cache[i] = [np.concatenate(pair) for pair in zip(cache.get(i, (k[:0], v[:0])), (k, v))]
        x = dump(f"{name}.mid", x + linear(f"{at}self_attn.o_proj", attend(name, q, *cache[i])))
        normed = dump(f"{name}.norm2", norm(f"{at}post_attention_layernorm", x))
        gate = dump(f"{name}.gelu", gelu(linear(f"{at}mlp.gate_proj", normed)))
        x = dump(f"{name}.out", x + linear(f"{at}mlp.down_proj", gate * linear(f"{at}mlp.up_proj", normed)))
    return dump("logits", dump("final", norm(f"{DECODER}norm", x[-1:]))[0] @ table.T)


embedded = table * np.sqrt(np.float32(table.shape[1]))  # of text alone: image tokens are not scaled
image = encode(dump("pixels", given["encode_image.0/pixels_BYXC"][0]))
x = np.concatenate([image, embedded[dump("ids", given["prefill.0/ids_BT"][0])]])
tokens = [int(decode(x, np.arange(len(x))).argmax())]
for step in range(len(manifest["answer"]) - 1):
    where = f"step.{step}"
    tokens.append(int(decode(embedded[tokens[-1:]], np.array([len(x) + step])).argmax()))
np.savez(out, token_ids=tokens, **arrays)
