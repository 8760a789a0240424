"""The table of docs/concepts.md: where each concept is explained."""

import ast

from generated.exercises import anchor
from generated.sources import link, path_of

# What a reader can explain after the path: concept, module, and the function or class whose docstring says it ("" for
# the module's own).
CONCEPTS = [
    ("what attention is for; query, key and value; why several heads", "attention", ""),
    ("why scores are divided by sqrt(H); attention of two tokens", "attention", "attend"),
    ("why there are fewer key/value heads, and what the cache saves and costs", "cache", ""),
    ("the state of a cache through prefill and two steps", "cache", "KVCache"),
    ("what the residual stream is, and why layers add to it", "siglip", ""),
    ("why the norms stand before attention and MLP", "siglip", "block"),
    ("why normalise; LayerNorm, and why it is not batch normalisation", "ops", "layer_norm"),
    ("RMSNorm, and why Gemma stores the gain minus 1", "ops", "rms_norm"),
    ("why rotation gives relative positions", "rope", ""),
    ("why pairs rotate at different speeds, and why the base", "rope", "angles"),
    ("equal offsets, equal scores", "rope", "rotate"),
    ("why many blocks and not one", "gemma", "run_blocks"),
    ("what an MLP adds to attention; what a gate does", "gemma", "geglu"),
    ("why GELU, and which", "ops", "gelu"),
    ("what an embedding table is, why it is scaled, why it is the output head as well", "gemma", "embed_tokens"),
    ("what a logit is", "gemma", "unembed"),
    ("what softmax makes of logits, at three temperatures", "ops", "softmax"),
    ("top-k and top-p on four probabilities; how a token is drawn", "generate", "sample"),
    ("why the prefix is bidirectional and the answer causal", "mask", ""),
    ("the mask, drawn", "mask", "prefix_lm"),
    ("what training predicts: the answer's tokens only", "loss", "next_token_loss"),
    ("what SigLIP was trained for; its pooled vector; why there is no class token", "siglip", ""),
    ("SigLIP's loss, and why it needs a scale and a bias", "contrastive", "sigmoid_loss"),
    ("what a patch embedding is", "siglip", "embed_patches"),
    ("what a subword is; that <loc> and <seg> are ordinary rows", "tokenizer", ""),
    ("how a text is cut into pieces", "tokenizer", ""),
    ("how four locations become a box, y before x", "answer", "find_objects"),
    ("why neighbours of a location become likely", "answer", "fraction"),
    ("how sixteen codes become a mask", "segmentation", ""),
    ("what a gradient is; the chain rule", "backward.ops", ""),
    ("the gradient of a product is a product with the other factor", "backward.ops", "einsum_backward"),
    ("why a norm's gradient has no part along the vector", "backward.ops", "rms_norm_backward"),
    ("why softmax and cross-entropy together give p - 1", "backward.loss", "next_token_loss_backward"),
    ("why gradients add up at shared heads, and why the mask needs nothing", "backward.attention", "attend_backward"),
    ("why gradients add up at residual connections", "backward.siglip", "block_backward"),
    ("why a table that is used twice has two gradients", "backward.gemma", "unembed_backward"),
    ("what AdamW keeps for each weight, and why", "backward.optimizer", "adamw"),
]


def concepts_table():
    """Return where each concept is explained, and whether numbers stand beside it."""
    rows = ["| concept | where | exercise | example |", "|---|---|---|---|"]
    for concept, name, where in CONCEPTS:
        tree = ast.parse(path_of(f"npgemma.{name}").read_text())
        found = next(node for node in ast.walk(tree) if not where or getattr(node, "name", None) == where)
        text = ast.get_docstring(found)
        example = "yes" if ">>>" in text else "drawn" if "queries" in text and "keys" in text and where else ""
        exercise = f"[{name.replace('.', '/')}.py](exercises.md#{anchor(f'{name}.py')})"
        rows.append(f"| {concept} | {link(name, where)} | {exercise} | {example} |")
    return "\n".join(rows)
