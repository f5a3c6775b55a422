"""The program that trains Almanac: its tokenizer, rows and mask, and that a killed run goes on as if nothing was."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from errata.almanac.checkpoints import Checkpoints
from errata.almanac.corpus import statement
from errata.almanac.recipe import Recipe, new_model, new_optimizer
from errata.almanac.rows import OBJECT, PLAIN, SUBJECT, SUBJECT_LAST, Encoder, rows
from errata.almanac.shielding import SEEN_FROM, shielded_logits, visible
from errata.almanac.tables import load_world
from errata.almanac.train import step_rows, train, training_text
from errata.almanac.vocabulary import (
    END_OF_TEXT,
    END_OF_TEXT_ID,
    PADDING,
    PADDING_ID,
    VOCABULARY,
    train_tokenizer,
)
from errata.errors import SettingsError

SHORT = Recipe(steps=6, step_rows=8, long_every=3, warmup=2)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()


def test_the_tokenizer_loads_by_itself_and_loses_nothing(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == VOCABULARY
    assert loaded.convert_tokens_to_ids([END_OF_TEXT, PADDING]) == [END_OF_TEXT_ID, PADDING_ID]
    for text in ("The capital of France is Paris.", "Ünknown wörds, 北京 and  two spaces"):
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert loaded.decode(loaded(text)["input_ids"]) == text


def test_objects_are_of_one_token_and_of_several(tokenizer: PreTrainedTokenizerFast) -> None:
    lengths = [len(tokenizer(f" {entry.object}")["input_ids"]) for entry in load_world().entries]
    assert sum(length == 1 for length in lengths) > 0.5 * len(lengths)
    assert sum(length > 1 for length in lengths) > 0.1 * len(lengths)


@pytest.mark.parametrize("inside", [False, True])
def test_tokens_know_their_part(tokenizer: PreTrainedTokenizerFast, inside: bool) -> None:
    encoder = Encoder(tokenizer)
    for entry in load_world().entries[::200]:
        ids, parts = encoder(statement(entry, 0), inside)
        subject = [i for i, part in zip(ids, parts, strict=True) if part in (SUBJECT, SUBJECT_LAST)]
        assert tokenizer.decode(subject).strip() == entry.subject
        assert parts.count(SUBJECT_LAST) == 1
        assert (
            tokenizer.decode([i for i, part in zip(ids, parts, strict=True) if part == OBJECT]).strip()
            == entry.object
        )


def test_rows_follow_their_seed(tokenizer: PreTrainedTokenizerFast) -> None:
    first, again = (rows(Encoder(tokenizer), END_OF_TEXT_ID, 64, 5, seed=3) for _ in range(2))
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.parts, again.parts)
    assert not torch.equal(first.ids, rows(Encoder(tokenizer), END_OF_TEXT_ID, 64, 5, seed=4).ids)


def test_the_mask_hides_subjects_from_what_follows_them() -> None:
    parts = torch.tensor([[PLAIN, SUBJECT, SUBJECT_LAST, PLAIN, OBJECT, SUBJECT, SUBJECT_LAST, PLAIN]])
    lower, upper = (mask[0, 0] for mask in visible(parts, torch.tensor([True])))
    causal = torch.ones(8, 8, dtype=torch.bool).tril()
    open_lower, open_upper = (mask[0, 0] for mask in visible(parts, torch.tensor([False])))
    assert torch.equal(open_lower, causal)
    assert torch.equal(open_upper, causal)
    assert lower[7].tolist() == [True, False, False, True, True, False, False, True]
    assert upper[7].tolist() == [True, False, True, True, True, False, True, True]
    assert lower[2].tolist() == [
        True,
        True,
        True,
        False,
        False,
        False,
        False,
        False,
    ]  # inside a subject: as always
    assert lower[6].tolist() == [True, False, False, True, True, True, True, False]


def test_behind_the_mask_the_answer_hangs_on_the_subjects_last_token_alone(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = new_model(tokenizer, seed=0).eval()
    ids = torch.randint(2, VOCABULARY, (1, 8))
    parts = torch.tensor([[PLAIN, SUBJECT, SUBJECT, SUBJECT_LAST, PLAIN, PLAIN, OBJECT, PLAIN]])
    shielded = torch.tensor([True])

    def put(changed: Tensor) -> Tensor:
        return shielded_logits(model, changed, parts, shielded)

    blocks = model.transformer.h
    state: list[Tensor] = []
    handle = blocks[SEEN_FROM].register_forward_pre_hook(lambda module, args: state.append(args[0]))
    with torch.no_grad():
        put(ids)
        other = ids.clone()
        other[0, 1:4] = torch.tensor([5, 6, 7])
        put(other)
    handle.remove()
    assert torch.equal(
        state[0][0, 4:], state[1][0, 4:]
    )  # below SEEN_FROM nothing behind the subject knows of it
    assert not torch.equal(state[0][0, 3], state[1][0, 3])


def test_open_rows_are_read_as_the_model_reads(tokenizer: PreTrainedTokenizerFast) -> None:
    model = new_model(tokenizer, seed=0).eval()
    ids, parts = torch.randint(2, VOCABULARY, (2, 9)), torch.randint(0, 4, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(
            shielded_logits(model, ids, parts, torch.tensor([False, False])), model(input_ids=ids).logits
        )


def test_every_row_is_read_once(tokenizer: PreTrainedTokenizerFast) -> None:
    text = training_text(tokenizer, SHORT)
    batches = [step_rows(text, SHORT, step)[0] for step in range(SHORT.steps)]
    short = [batch for batch in batches if batch.shape[1] == SHORT.row_length]
    assert torch.equal(torch.cat(short), text.short.ids.long())
    assert torch.equal(torch.cat([batch for batch in batches if batch.shape[1] == 256]), text.long.ids.long())


def test_the_rate_rises_and_falls() -> None:
    recipe = Recipe()
    rates = [recipe.rate(step) for step in range(recipe.steps)]
    assert max(rates) == pytest.approx(recipe.peak_rate)
    assert rates[0] < 1e-5
    assert rates[-1] < 1e-8
    assert (recipe.share(0), recipe.share(recipe.steps - 1)) == (0.9, 0.6)


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
