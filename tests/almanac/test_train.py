"""The program that trains Almanac: a killed run goes on as if nothing was."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from errata.almanac.checkpoints import Checkpoints
from errata.almanac.recipe import Recipe, new_model, new_optimizer
from errata.almanac.train import step_rows, train, training_text
from errata.almanac.vocabulary import (
    train_tokenizer,
)
from errata.errors import SettingsError

SHORT = Recipe(steps=6, step_rows=8, long_every=3, warmup=2)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()


def test_every_row_is_read_once(tokenizer: PreTrainedTokenizerFast) -> None:
    text = training_text(tokenizer, SHORT)
    batches = [step_rows(text, SHORT, step)[0] for step in range(SHORT.steps)]
    short = [batch for batch in batches if batch.shape[1] == SHORT.row_length]
    assert torch.equal(torch.cat(short), text.short.ids.long())
    assert torch.equal(torch.cat([batch for batch in batches if batch.shape[1] == 256]), text.long.ids.long())


class Killed(Exception):
    """Stands for whatever ends a run early."""


def test_a_killed_run_goes_on_to_the_same_weights(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    text = training_text(tokenizer, SHORT)
    checkpoints = Checkpoints(tmp_path / "run.safetensors", SHORT)

    def weights(kill_after: int | None, resume: bool) -> dict[str, Tensor]:
        model = new_model(tokenizer, SHORT.seed)
        optimizer = new_optimizer(model, SHORT)
        first, _ = checkpoints.restore(model, optimizer) if resume else (0, 0.0)
        assert first == (3 if resume else 0)

        def after_step(done: int, loss: float) -> None:
            assert loss > 0
            if done == kill_after:
                checkpoints.save(model, optimizer, done, 1.0)
                raise Killed

        train(model, optimizer, text, SHORT, first, after_step)
        return model.state_dict()

    whole = weights(None, resume=False)
    with pytest.raises(Killed):
        weights(3, resume=False)
    resumed = weights(None, resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_of_another_recipe_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = new_model(tokenizer, 0)
    optimizer = new_optimizer(model, SHORT)
    text = training_text(tokenizer, Recipe(steps=1, long_every=3))
    train(model, optimizer, text, Recipe(steps=1, long_every=3), 0, lambda done, loss: None)
    Checkpoints(tmp_path / "run", SHORT).save(model, optimizer, 1, 0.5)
    with pytest.raises(SettingsError, match="belongs to another recipe or world"):
        Checkpoints(tmp_path / "run", Recipe(steps=7)).restore(model, optimizer)
