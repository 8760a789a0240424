"""The reference asked what a port was asked, with the vocabulary rows that the port has."""

import dataclasses

from npgemma.porting import given_tokens
from npgemma.porting.coverage import Coverage, cover
from npgemma.porting.reference import Reference, traced
from npgemma.porting.tokens import other_prompt


def same_question(reference: Reference, port, rules=(), told=True) -> tuple[Reference, Coverage, dict | None]:
    """Cover a port, as `cover` does; trace the reference anew, if it has its model, where the port read another prompt,
    has fewer rows of the vocabulary, which are enough for the tokenizer, or took other tokens in its steps, if it has
    not ``told`` its tokens otherwise.

    Return the reference, the coverage and what `other_prompt` says of the first prompt.
    """
    coverage = cover(reference, port, rules)
    other, model, pixels = other_prompt(coverage.pairs), reference.model, reference.pixels
    if model is None or pixels is None:
        return reference, coverage, other
    sizes = {size for pair in coverage.pairs.values() if pair.misfit for size in pair.raw.shape}
    fewer = [size for size in sizes if model.tokenizer.size <= size < model.config.text.vocabulary]
    tokens = reference.token_ids if told else _tokens_of_steps(coverage.shown) or reference.token_ids
    if other or fewer or tokens != reference.token_ids:
        model = _with_rows(model, min(fewer)) if fewer else model
        prompt = other["found"] if other else reference.about["ids"]
        given_tokens.check_room(tokens, prompt, pixels, model)
        reference = traced(model, pixels, prompt, tokens)
        coverage = cover(reference, port, rules)
    return reference, coverage, other


def _tokens_of_steps(shown):
    """Return the tokens that a port's steps took, if it shows those of all."""
    steps = {name.partition("/")[0] for name in shown if name.startswith("step.")}
    return given_tokens.ids_of_trace(shown) if all(f"step.{i}/ids_BT" in shown for i in range(len(steps))) else None


def _with_rows(model, rows):
    """Return a model with the first rows of its embedding table."""
    text = dataclasses.replace(model.params.text, embedding=model.params.text.embedding[:rows])
    config = dataclasses.replace(model.config, text=dataclasses.replace(model.config.text, vocabulary=rows))
    return dataclasses.replace(model, params=dataclasses.replace(model.params, text=text), config=config)
