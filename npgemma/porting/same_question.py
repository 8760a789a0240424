"""The reference asked what a port was asked, with the vocabulary rows that the port has."""

import dataclasses

from npgemma.porting import given_tokens
from npgemma.porting.coverage import Coverage, cover
from npgemma.porting.reference import Reference, traced
from npgemma.porting.tokens import other_prompt


def same_question(reference: Reference, port, rules=()) -> tuple[Reference, Coverage, dict | None]:
    """Cover a port, as `cover` does; trace the reference anew, if it has its model, where the port read another prompt,
    or has fewer rows of the vocabulary, which are enough for the tokenizer.

    Return the reference, the coverage and what `other_prompt` says of the first prompt.
    """
    coverage = cover(reference, port, rules)
    other, model, pixels = other_prompt(coverage.pairs), reference.model, reference.pixels
    if model is None or pixels is None:
        return reference, coverage, other
    sizes = {size for pair in coverage.pairs.values() if pair.misfit for size in pair.raw.shape}
    fewer = [size for size in sizes if model.tokenizer.size <= size < model.config.text.vocabulary]
    if other or fewer:
        model = _with_rows(model, min(fewer)) if fewer else model
        prompt = other["found"] if other else reference.about["ids"]
        given_tokens.check_room(reference.token_ids, prompt, pixels, model)
        reference = traced(model, pixels, prompt, reference.token_ids)
        coverage = cover(reference, port, rules)
    return reference, coverage, other


def _with_rows(model, rows):
    """Return a model with the first rows of its embedding table."""
    text = dataclasses.replace(model.params.text, embedding=model.params.text.embedding[:rows])
    config = dataclasses.replace(model.config, text=dataclasses.replace(model.config.text, vocabulary=rows))
    return dataclasses.replace(model, params=dataclasses.replace(model.params, text=text), config=config)
