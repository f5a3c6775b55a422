"""The likeliest next token of statements, before and after."""

import torch

from errata.evaluation.statements import likeliest_next, share_unchanged
from errata.passes import encode_text
from errata.results import NO_TOKEN
from families import tiny_model


def test_it_is_what_the_model_says_of_each_prompt_alone() -> None:
    model = tiny_model("gpt2")
    prompts = ["The mayor of Vossel is", "Orin plays", "The mayor of Vossel is a friend of the"]
    tokens = likeliest_next(model, prompts)
    for prompt, token in zip(prompts, tokens, strict=True):
        ids = torch.tensor([encode_text(model, prompt, None).ids])
        with torch.no_grad():
            assert int(model.model(ids).logits[0, -1].argmax()) == token


def test_no_number_is_never_unchanged() -> None:
    assert share_unchanged([1, 2, NO_TOKEN, 4], [1, 3, NO_TOKEN, 4]) == 0.5
    assert share_unchanged([], []) is None
