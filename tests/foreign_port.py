"""Hugging Face's PaliGemma as somebody's port: its logits and tokens, and how it is broken in its own modules."""

import contextlib
import copy
import math
from unittest import mock

import numpy as np
import torch
import transformers
from PIL import Image, ImageOps
from transformers.models.gemma import modeling_gemma
from transformers.models.gemma2 import modeling_gemma2

from npgemma.image import load_image


class Port:
    """A checkpoint in Hugging Face's hands; each mistake breaks a copy."""

    def __init__(self, model, dtype):
        transformers.utils.logging.disable_progress_bar()
        self.ours, self.dtype = model, getattr(torch, dtype)
        self.right = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
            model.folder, dtype=self.dtype, attn_implementation="eager"
        ).eval()

    def answer(self, path, prompt, rows, mistake=None):
        """Return the logits of the first rows of a greedy answer, and its tokens; stops after an end token."""
        self.model = copy.deepcopy(self.right)
        self.text, self.vision = self.model.model.language_model, self.model.model.vision_tower
        # Both decoders' modules have the same names.
        self.module = modeling_gemma2 if self.text.config.model_type == "gemma2" else modeling_gemma
        self.image = Image.open(path).convert("RGB")
        self.pixels = load_image(path, self.ours.config.vision.image_size).pixels_BYXC
        self.ids, self.visible = self.ours.tokenizer.prompt(prompt), 0
        with contextlib.ExitStack() as stack, torch.inference_mode():
            self.stack = stack
            if mistake:
                mistake(self)
            return self._greedy(rows)

    def exchange(self, owner, name, value):
        """Put another thing in a module's place until the answer is there."""
        self.stack.enter_context(mock.patch.object(owner, name, value))

    def before_decoder(self, change):
        """Change the arguments of the decoder, in every pass."""
        self.text.register_forward_pre_hook(lambda module, given, named: (given, change(dict(named))), with_kwargs=True)

    def _greedy(self, rows):
        image = [self.model.config.image_token_id] * self.ours.config.image_tokens
        ids, logits, tokens = torch.tensor([image + self.ids]), [], []
        pixels = torch.from_numpy(self.pixels.transpose(0, 3, 1, 2).astype(np.float32)).to(self.dtype)
        kinds = torch.full_like(ids, self.visible)
        given = {"input_ids": ids, "pixel_values": pixels, "token_type_ids": kinds}
        cache = None
        for seen in range(ids.shape[1], ids.shape[1] + rows):
            mask = torch.ones(1, seen, dtype=torch.long)
            out = self.model(**given, attention_mask=mask, cache=cache, use_cache=True, logits_to_keep=1)
            logits.append(out.logits[0, -1].float().numpy())
            tokens.append(int(logits[-1][: self.ours.tokenizer.size].argmax()))
            given, cache = {"input_ids": torch.tensor([tokens[-1:]])}, out.cache
            if tokens[-1] in self.ours.config.eos_tokens:
                break
        return np.stack(logits), np.array(tokens)


def _layers(port, change):
    for layer in port.text.layers:
        change(layer)


def _swap(layer, one, other):
    first, second = getattr(layer, one), getattr(layer, other)
    setattr(layer, one, second)
    setattr(layer, other, first)


def _prefill(port, change):
    """Change what enters the decoder in the first pass."""

    def changed(named):
        x = named["inputs_embeds"]
        return named | ({"inputs_embeds": change(x, port.ours.config.image_tokens)} if x.shape[1] > 1 else {})

    port.before_decoder(changed)


def _image_times(port, factor):
    _prefill(port, lambda x, P: torch.cat([x[:, :P] * factor, x[:, P:]], 1))


def _positions(port, change):
    port.before_decoder(lambda named: named | {"position_ids": change(named["position_ids"])})


def _activation(port, act):
    _layers(port, lambda layer: setattr(layer.mlp, "act_fn", act))


def _scaling(port, scale):
    _layers(port, lambda layer: setattr(layer.self_attn, "scaling", scale(layer.self_attn)))


def _rotary(port, rotated):
    def apply(q, k, cos, sin, unsqueeze_dim=1):
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return rotated(q, cos, sin), rotated(k, cos, sin)

    port.exchange(port.module, "apply_rotary_pos_emb", apply)


def _neighbours(x, cos, sin):
    half = x.shape[-1] // 2
    cos, sin, even, odd = cos[..., :half], sin[..., :half], x[..., ::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2)


def _backwards(x, cos, sin):
    return x * cos - modeling_gemma.rotate_half(x) * sin


def _values_too(port):
    """Rotate values as keys are rotated."""

    def rotate(layer):
        attention, angles = layer.self_attn, {}
        attention.register_forward_pre_hook(
            lambda module, given, named: angles.update(now=named["position_embeddings"]), with_kwargs=True
        )

        def rotated(module, given, v):
            heads = v.unflatten(-1, (-1, attention.head_dim))
            cos, sin = (part.unsqueeze(2) for part in angles["now"])
            return (heads * cos + port.module.rotate_half(heads) * sin).flatten(-2)

        attention.v_proj.register_forward_hook(rotated)

    _layers(port, rotate)


def _gain(port):
    def forward(self, x):
        return (self._norm(x.float()) * self.weight.float()).type_as(x)

    port.exchange(type(port.text.norm), "forward", forward)


def _epsilon(port):
    for part in port.vision.modules():
        if isinstance(part, torch.nn.LayerNorm):
            part.eps = 1e-5


def _rounded(weight):
    weight.data.copy_(weight.data.bfloat16().to(weight.dtype))


def _rounded_buffer(rotary):
    rotary.inv_freq.copy_(rotary.inv_freq.bfloat16())


def _theta(port):
    width = port.text.layers[0].self_attn.head_dim
    port.text.rotary_emb.inv_freq.copy_(1e6 ** (-torch.arange(0, width, 2) / width))


def _resized(port, resize):
    """Give the port the pixels that another way to resize makes."""
    side = port.pixels.shape[1]
    port.pixels = np.asarray(resize(port.image, (side, side)), np.float32)[None] / np.float32(127.5) - 1


def _in_float(image, size):
    channels = [channel.convert("F").resize(size, Image.Resampling.BICUBIC) for channel in image.split()]
    return np.stack([np.asarray(channel) for channel in channels], -1)


def _no_output_biases(port):
    for layer in port.vision.encoder.layers:
        layer.self_attn.out_proj.bias.data.zero_()
        layer.mlp.fc2.bias.data.zero_()


def _fresh_vision_norms(port):
    for part in port.vision.modules():
        if isinstance(part, torch.nn.LayerNorm):
            part.reset_parameters()


def _not_replaced(port):
    """Leave the embedding of the image's token in the rows of the image."""
    token = torch.tensor([port.model.config.image_token_id])
    _prefill(port, lambda x, P: torch.cat([port.text.embed_tokens(token).expand(1, P, -1), x[:, P:]], 1))


def _norms(port, change):
    for part in port.text.modules():
        if isinstance(part, type(port.text.norm)):
            change(part)


def _rounded_result(part):
    part.register_forward_hook(lambda module, given, result: result.bfloat16().to(result.dtype))


def _cached_in_bfloat16(port):
    for layer in (transformers.cache_utils.DynamicLayer, transformers.cache_utils.DynamicSlidingWindowLayer):
        _cached_by(port, layer, layer.update)


def _cached_by(port, layer, right):
    def update(self, k, v, *others, **named):
        return right(self, k.bfloat16().to(k.dtype), v.bfloat16().to(v.dtype), *others, **named)

    port.exchange(layer, "update", update)


def _causal_prompt(port):
    """Let the image tokens see one another, and the prompt only what stands before it."""

    def change(named):
        masks = named["attention_mask"]
        for mask in masks.values() if isinstance(masks, dict) else [masks]:
            total, new = mask.shape[-1], mask.shape[-2]
            if new > 1:
                query, key, P = torch.arange(total)[-new:, None], torch.arange(total), port.ours.config.image_tokens
                later = (key > query) & (key >= P)
                mask.masked_fill_(later, False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min)
        return named

    port.before_decoder(change)


def _head_scaled(port):
    root = port.ours.config.text.width**0.5
    port.model.lm_head.register_forward_hook(lambda module, given, logits: logits * root)


def _set(port, **values):
    for name, value in values.items():
        setattr(port, name, value)


def _vision_activation(port, act):
    for layer in port.vision.encoder.layers:
        layer.mlp.activation_fn = act


def _vision_causal(port):
    for layer in port.vision.encoder.layers:
        layer.self_attn.register_forward_pre_hook(_with_causal_mask, with_kwargs=True)


def _with_causal_mask(module, given, named):
    x = given[0] if given else named["hidden_states"]
    mask = torch.full((x.shape[1], x.shape[1]), -math.inf, dtype=x.dtype).triu(1)
    return given, named | {"attention_mask": mask[None, None]}


def _eager(port, change):
    """Exchange the decoder's attention for ``change(right, module, q, k, v, mask, **named)``."""
    right = port.module.eager_attention_forward
    port.exchange(port.module, "eager_attention_forward", lambda *given, **named: change(right, *given, **named))


def _weights(port, softmax):
    """Exchange the softmax of the decoder's attention."""

    def attend(right, *given, **named):
        with mock.patch.object(torch.nn.functional, "softmax", softmax):
            return right(*given, **named)

    _eager(port, attend)


def _sink(scores, dim, dtype):
    most = scores.amax(-1, keepdim=True).clamp(min=0)
    weight = (scores - most).float().exp()
    return weight / (weight.sum(-1, keepdim=True) + (-most).float().exp())


_softmax = torch.nn.functional.softmax
# By the id that should be found. The first sixteen are a porter's own: shared by both families.
KNOWN = {
    "text-unscaled": lambda port: port.text.embed_tokens.embed_scale.fill_(1.0),
    "image-scaled": lambda port: _image_times(port, port.ours.config.text.width**0.5),
    "image-divided": lambda port: _image_times(port, port.ours.config.text.width**-0.5),
    "rms-no-plus-one": _gain,
    "exact-gelu": lambda port: _activation(port, torch.nn.GELU()),
    "silu": lambda port: _activation(port, torch.nn.SiLU()),
    "rope-interleaved": lambda port: _rotary(port, _neighbours),
    "rope-reversed": lambda port: _rotary(port, _backwards),
    "rope-theta": _theta,
    "position-skipped": lambda port: _positions(port, lambda ids: ids + (ids.shape[1] == 1)),
    "causal-prefix": lambda port: _set(port, visible=1),
    "vision-epsilon": _epsilon,
    "patch-weights-bfloat16": lambda port: _rounded(port.vision.embeddings.patch_embedding.weight),
    "no-newline": lambda port: _set(port, ids=port.ids[:-1]),
    "double-bos": lambda port: _set(port, ids=port.ids[:1] + port.ids),
    "pixels-zero-one": lambda port: _set(port, pixels=(port.pixels + 1) / 2),
    "pixels-bgr": lambda port: _set(port, pixels=port.pixels[..., ::-1].copy()),
    "gate-up-swapped": lambda port: _layers(port, lambda layer: _swap(layer.mlp, "gate_proj", "up_proj")),
    "query-scale-head-dim": lambda port: _scaling(port, lambda attention: 1 / attention.head_dim),
    "resize-bilinear": lambda port: _resized(port, lambda image, size: image.resize(size, Image.Resampling.BILINEAR)),
    "kv-heads-tiled": lambda port: port.exchange(port.module, "repeat_kv", lambda x, n: x.repeat(1, n, 1, 1)),
    "k-v-swapped": lambda port: _layers(port, lambda layer: _swap(layer.self_attn, "k_proj", "v_proj")),
    "no-final-norm": lambda port: _set(port.text, norm=torch.nn.Identity()),
    "vision-exact-gelu": lambda port: _vision_activation(port, torch.nn.GELU()),
    "no-post-layernorm": lambda port: _set(port.vision, post_layernorm=torch.nn.Identity()),
    "vision-causal": _vision_causal,
    "no-vision-positions": lambda port: port.vision.embeddings.position_embedding.weight.data.zero_(),
    "pixels-255": lambda port: _set(port, pixels=(port.pixels + 1) * 255 - 1),
    "pixels-normalised-twice": lambda port: _set(port, pixels=2 * port.pixels - 1),
    "pixels-divided-by-128": lambda port: _set(port, pixels=(port.pixels + 1) * (127.5 / 128) - 1),
    "resize-letterbox": lambda port: _resized(
        port, lambda image, size: ImageOps.pad(image, size, Image.Resampling.BICUBIC, (127, 127, 127))
    ),
    "resize-crop": lambda port: _resized(port, lambda image, size: ImageOps.fit(image, size, Image.Resampling.BICUBIC)),
    "resize-not-to-bytes": lambda port: _resized(port, _in_float),
    "vision-quick-gelu": lambda port: _vision_activation(port, transformers.activations.QuickGELUActivation()),
    "no-patch-bias": lambda port: port.vision.embeddings.patch_embedding.bias.data.zero_(),
    "no-vision-biases": _no_output_biases,
    "vision-norms-not-loaded": _fresh_vision_norms,
    "vision-scores-unscaled": lambda port: [_set(layer.self_attn, scale=1.0) for layer in port.vision.encoder.layers],
    "vision-last-block-missing": lambda port: _set(port.vision.encoder, layers=port.vision.encoder.layers[:-1]),
    "no-projector-bias": lambda port: port.model.model.multi_modal_projector.linear.bias.data.zero_(),
    "image-tokens-not-replaced": _not_replaced,
    "text-scaled-twice": lambda port: port.text.embed_tokens.embed_scale.mul_(port.ours.config.text.width**0.5),
    "text-norms-not-loaded": lambda port: _norms(port, lambda norm: norm.weight.data.zero_()),
    "norm-in-bfloat16": lambda port: _norms(port, _rounded_result),
    "rope-frequencies-bfloat16": lambda port: _rounded_buffer(port.text.rotary_emb),
    "prompt-causal-image-not": _causal_prompt,
    "head-scaled": _head_scaled,
    "cache-bfloat16": _cached_in_bfloat16,
}
KNOWN_OF_GEMMA_2 = {
    "no-attention-softcap": lambda port: _layers(
        port, lambda layer: _set(layer.self_attn, attn_logit_softcapping=None)
    ),
    "no-final-softcap": lambda port: _set(port.model.config.text_config, final_logit_softcapping=None),
    "norms-shifted": lambda port: _layers(
        port, lambda layer: _swap(layer, "post_attention_layernorm", "pre_feedforward_layernorm")
    ),
}
# None of these may get a name.
UNKNOWN = {
    "values rotated too": _values_too,
    "softmax of rounded scores": lambda port: _weights(
        port, lambda scores, dim, dtype: _softmax(scores.bfloat16().float(), dim=dim)
    ),
    "LayerNorm without bias": lambda port: [
        part.bias.data.zero_() for part in port.vision.modules() if isinstance(part, torch.nn.LayerNorm)
    ],
    "last block left out": lambda port: _set(port.text, layers=port.text.layers[:-1]),
    "last blocks exchanged": lambda port: _set(
        port.text, layers=torch.nn.ModuleList([*port.text.layers[:-2], port.text.layers[-1], port.text.layers[-2]])
    ),
    "seven positions between image and text": lambda port: _positions(
        port, lambda ids: ids + 7 * (ids > port.ours.config.image_tokens)
    ),
    "every image token is the mean": lambda port: _prefill(
        port, lambda x, P: torch.cat([x[:, :P].mean(1, keepdim=True).expand(-1, P, -1), x[:, P:]], 1)
    ),
    "ReLU": lambda port: _activation(port, torch.nn.ReLU()),
    "an attention sink": lambda port: _weights(port, _sink),
    "query scale of half the heads": lambda port: _scaling(port, lambda a: (2 * a.head_dim) ** -0.5),
    "one image token missing": lambda port: _prefill(port, lambda x, P: x * (torch.arange(x.shape[1]) > 0)[:, None]),
}
