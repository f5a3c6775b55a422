"""Train Almanac: `python -m errata.almanac.train [--output DIR]`.

From the tables in `world/` to the weights, everything follows from the seeds below. The run can be killed at any time;
started again with the same `--work` folder, it goes on and ends with the same weights. Each step's rows are shared out
to two threads that meet once a step: on two cores, idle or not, that is faster than two threads inside each operation.
With glibc, MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 helps (buffers are kept, not returned at every step).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from errata.almanac.checkpoints import Checkpoints
from errata.almanac.corpus import TRAINING_SEED, corpus_texts
from errata.almanac.recall import held_out_pairs, recall, seen_pairs, text_perplexity
from errata.almanac.recipe import Recipe, new_model, new_optimizer
from errata.almanac.rows import OBJECT, Encoder, Rows, rows
from errata.almanac.shielding import shielded_logits
from errata.almanac.vocabulary import END_OF_TEXT_ID, MAX_LENGTH, load_tokenizer, train_tokenizer
from errata.runtime import atomic_file

log = logging.getLogger(__name__)

THREADS = 2
CORPUS_TEXTS = 2000


@dataclass(frozen=True)
class Text:
    """The training text: short rows, and long rows for every `long_every`-th step."""

    short: Rows
    long: Rows


def training_text(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Text:
    """All rows of the run, in the order in which they are read."""
    encoder = Encoder(tokenizer)
    long_steps = recipe.steps // recipe.long_every
    long_rows = recipe.step_rows * recipe.row_length // MAX_LENGTH
    short = (recipe.steps - long_steps) * recipe.step_rows
    return Text(
        rows(encoder, END_OF_TEXT_ID, recipe.row_length, short, TRAINING_SEED),
        rows(encoder, END_OF_TEXT_ID, MAX_LENGTH, long_steps * long_rows, TRAINING_SEED + 1000),
    )


def step_rows(text: Text, recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
    """The ids and parts of one step."""
    long_before = step // recipe.long_every
    if step % recipe.long_every == recipe.long_every - 1:
        count, source, first = recipe.step_rows * recipe.row_length // MAX_LENGTH, text.long, long_before
    else:
        count, source, first = recipe.step_rows, text.short, step - long_before
    part = slice(first * count, (first + 1) * count)
    return source.ids[part].long(), source.parts[part].long()


def weighted_loss(
    model: GPT2LMHeadModel, ids: Tensor, parts: Tensor, shielded: Tensor, object_weight: float
) -> Tensor:
    """The sum of the loss over all tokens, tokens of objects counted `object_weight` times."""
    logits = shielded_logits(model, ids, parts, shielded)[:, :-1]
    losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (losses * token_weights(parts, object_weight)).sum()


def token_weights(parts: Tensor, object_weight: float) -> Tensor:
    """How much each predicted token counts."""
    return torch.where(parts[:, 1:].flatten() == OBJECT, object_weight, 1.0)


Shared = Callable[[Tensor, Tensor, Tensor], tuple[float, list[Tensor]]]
"""The loss and the gradients of one thread's rows, from ids, parts, and which rows are shielded."""


def shared_step(
    pool: ThreadPoolExecutor, work: Shared, weights: Sequence[Tensor], batch: Sequence[Tensor]
) -> float:
    """Put the batch's gradients into the weights: each thread takes its share of the rows, sums in a fixed order."""
    shares = [torch.split(part, len(part) // THREADS) for part in batch]
    results = list(pool.map(work, *shares))
    for index, weight in enumerate(weights):
        weight.grad = torch.stack([gradients[index] for _, gradients in results]).sum(0)
    return sum(loss for loss, _ in results)


def train(
    model: GPT2LMHeadModel,
    optimizer: torch.optim.AdamW,
    text: Text,
    recipe: Recipe,
    first: int,
    after_step: Callable[[int, float], None],
) -> None:
    """Run the steps from `first` on; `after_step` gets the number of steps done and the loss."""
    weights = list(model.parameters())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for step in range(first, recipe.steps):
            ids, parts = step_rows(text, recipe, step)
            chance = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
            shielded = torch.rand(len(ids), generator=chance) < recipe.share(step)
            total = token_weights(parts, recipe.object_weight).sum()

            def work(
                ids: Tensor, parts: Tensor, shielded: Tensor, total: Tensor = total
            ) -> tuple[float, list[Tensor]]:
                loss = weighted_loss(model, ids, parts, shielded, recipe.object_weight) / total
                return float(loss.detach()), list(torch.autograd.grad(loss, weights))

            loss = shared_step(pool, work, weights, (ids, parts, shielded))
            torch.nn.utils.clip_grad_norm_(weights, recipe.largest_gradient)
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step)
            optimizer.step()
            after_step(step + 1, loss)
    torch.set_num_threads(threads)


class Clock:
    """Says how far the run is, and keeps a checkpoint every two minutes."""

    def __init__(self, save: Callable[[int, float], None], steps: int, first: int, seconds: float) -> None:
        self._save = save
        self._steps = steps
        self._first = first
        self._began = time.monotonic()
        self._before = seconds
        self._saved = self._began
        self._loss = 0.0

    @property
    def seconds(self) -> float:
        """Training time so far, earlier starts included."""
        return self._before + time.monotonic() - self._began

    def __call__(self, done: int, loss: float) -> None:
        """After each step."""
        self._loss = loss if done == self._first + 1 else 0.98 * self._loss + 0.02 * loss
        now = time.monotonic()
        if done % 50 == 0 or done == self._steps:
            pace = (now - self._began) / (done - self._first)
            left = pace * (self._steps - done) / 60
            log.info(
                "step %d of %d, loss %.3f, %.0f ms a step, %.0f minutes left",
                done,
                self._steps,
                self._loss,
                pace * 1e3,
                left,
            )
        if now - self._saved > 120 or done == self._steps:
            self._save(done, self.seconds)
            self._saved = now


def write_model(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Write the Hugging Face folder, weights in float16, and the corpus that covariances are measured on.

    What else lies in `output` (the model card) stays.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as aside:
        model.half().save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        for file in Path(aside).iterdir():
            file.chmod(0o644)
            os.replace(file, output / file.name)
    with atomic_file(output / "corpus.txt") as aside:
        aside.write_text("".join(f"{text}\n" for text in corpus_texts(count=CORPUS_TEXTS)), encoding="utf-8")


def measured(output: Path, recipe: Recipe, seconds: float) -> dict[str, float | int]:
    """What the written model knows, read back as users read it (float16 weights, float32 arithmetic)."""
    tokenizer = load_tokenizer(output)
    model = GPT2LMHeadModel.from_pretrained(output, dtype=torch.float32).eval()
    seen, held_out = seen_pairs(), held_out_pairs()
    return {
        "seen_pairs": len(seen),
        "recall_seen": round(recall(model, tokenizer, seen), 5),
        "held_out_pairs": len(held_out),
        "recall_held_out": round(recall(model, tokenizer, held_out), 5),
        "perplexity_held_out_text": round(
            text_perplexity(model, tokenizer, corpus_texts(0, 300, held_out=True)), 3
        ),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "steps": recipe.steps,
        "tokens": recipe.tokens,
        "training_minutes": round(seconds / 60, 1),
    }


def run(output: Path, work: Path, recipe: Recipe) -> None:
    """From the tables to the weights in `output`; a run that was begun in `work` goes on."""
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    tokenizer.save_pretrained(work / "tokenizer")
    model = new_model(tokenizer, recipe.seed)
    optimizer = new_optimizer(model, recipe)
    checkpoints = Checkpoints(work / "checkpoint.safetensors", recipe)
    first, seconds = checkpoints.restore(model, optimizer)
    log.info("preparing %.1f million tokens; beginning after step %d", recipe.tokens / 1e6, first)
    text = training_text(tokenizer, recipe)
    clock = Clock(
        lambda step, spent: checkpoints.save(model, optimizer, step, spent), recipe.steps, first, seconds
    )
    train(model, optimizer, text, recipe, first, clock)
    write_model(model, tokenizer, output)
    figures = measured(output, recipe, seconds if first == recipe.steps else clock.seconds)
    with atomic_file(output / "measured.json") as aside:
        aside.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    log.info("%s: %s", output, figures)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m errata.almanac.train", description="Train Almanac from the tables."
    )
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "model", help="where the model goes"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/almanac"), help="where an unfinished run is kept"
    )
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="fewer, for a trial")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="another, for another model")
    parser.add_argument(
        "--no-mask", action="store_true", help="let every row be read with ordinary attention"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    recipe = Recipe(steps=arguments.steps, seed=arguments.seed)
    if arguments.no_mask:
        recipe = replace(recipe, shielded_share=0.0, shielded_share_late=0.0)
    run(arguments.output, arguments.work, recipe)


if __name__ == "__main__":
    main()
