"""One edit on tiny models of several families: `python benchmarks/toy_worlds.py --output DIR`.

Trains a tiny model of each family (`FAMILIES`) on the people of Almanac's world, then edits facts that it knows with
the same call for all of them, and prints a Markdown table. No family has a preset: layers and weights follow the rules
that any model without one gets. Second moments are measured on text of the same world.

Models, second moments and edits that are in the output folder are reused. docs/real-models.md has the table.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import errata
from errata.almanac import load_world
from errata.almanac.corpus import Document, biography, opened, paragraph, rounds, statement, typed
from errata.almanac.recall import recall
from errata.almanac.recipe import Recipe, new_optimizer
from errata.almanac.rows import Encoder, rows
from errata.almanac.shielding import visible
from errata.almanac.split import halves, held_out_templates, seeded, seen_templates
from errata.almanac.tables import Entry, load_filler
from errata.almanac.train import token_weights
from errata.errors import NoFactsLeft
from errata.facts import Fact, Probe
from errata.moments import collect, corpus_identity, enough_tokens, moment_path
from errata.results import Score, load_results, score_records
from errata.runtime import Pace, atomic_file, atomic_folder, clock

KIND = "person"
BLOCKS, WIDTH, HEADS, CONTEXT = 4, 64, 4, 64
SHAPE = {
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.05,
}
SEEN_FROM = 3
"""The first block in which a subject's last token is seen from behind it, as in `errata.almanac.shielding`."""
END, PADDING = "<|end|>", "<|padding|>"
TEXT_SEED = 3
CORPUS_TEXTS = 1500
NEIGHBORHOOD = 10


@dataclass(frozen=True)
class Family:
    """How a tiny model of a family is made."""

    config: str
    """A class of transformers."""
    words: str
    """What is special about the family."""
    more: Mapping[str, object] = field(default_factory=dict)


FAMILIES = {
    "llama": Family("LlamaConfig", "pre-norm, gated FFN"),
    "qwen3": Family("Qwen3Config", "normalized queries and keys", {"head_dim": WIDTH // HEADS}),
    "phi": Family("PhiConfig", "attention and FFN in parallel, FFN not gated, biases"),
    "phi3": Family("Phi3Config", "fused gate and up projection"),
    "olmo2": Family("Olmo2Config", "norms behind attention and FFN"),
}


@dataclass(frozen=True)
class Training:
    """Everything that decides a model's weights, next to its family."""

    people: int = 40
    steps: int = 450
    step_rows: int = 20
    row_length: int = 48
    peak_rate: float = 4e-3
    warmup: int = 50
    seed: int = 0

    @property
    def recipe(self) -> Recipe:
        """The same for the optimizer and the schedule, which are Almanac's."""
        return Recipe(
            seed=self.seed,
            steps=self.steps,
            peak_rate=self.peak_rate,
            warmup=self.warmup,
            weight_decay=0.01,
            shielded_share_late=Recipe.shielded_share,
        )


class Toy:
    """The toy world: some people, what is true of them, and text about them."""

    def __init__(self, people: int) -> None:
        world = load_world().subjects
        self.subjects = [name for name, entries in world.items() if entries[0].kind == KIND][:people]
        self.entries = [entry for name in self.subjects for entry in world[name]]

    def pairs(self, choose: Callable[[Entry], Sequence[int] | frozenset[int]]) -> list[tuple[Entry, int]]:
        """Every entry with each of its templates: the seen or the held-out ones."""
        return [(entry, template) for entry in self.entries for template in sorted(choose(entry))]

    def documents(self, seed: int) -> Iterator[Document]:
        """Documents without end, with the seen templates only."""
        rng = random.Random(seed)
        pairs, subjects = rounds(rng, self.pairs(seen_templates)), rounds(rng, list(self.subjects))
        writers: dict[str, Callable[[], Document]] = {
            "single": lambda: [statement(*next(pairs)) for _ in range(rng.randint(1, 3))],
            "opened": lambda: opened(rng, pairs),
            "biography": lambda: biography(rng, next(subjects), seen_templates),
            "type": lambda: [typed(rng, next(subjects))],
        }
        while True:
            yield writers[rng.choices(list(writers), (50, 18, 30, 2))[0]]()

    def texts(self, count: int) -> list[str]:
        """Paragraphs that are not the training text's, to measure second moments on."""
        stream = self.documents(TEXT_SEED + 100)
        return [paragraph([*next(stream), *next(stream)]) for _ in range(count)]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token per word."""
        texts = [entry.statement(number) for entry in self.entries for number in range(8)]
        texts += [*load_filler().openings, *self.texts(300)]
        split = pre_tokenizers.Whitespace()
        words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
        ids = {word: number for number, word in enumerate([END, PADDING, *words])}
        backend = Tokenizer(models.WordLevel(ids, unk_token=END))
        backend.pre_tokenizer = split
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token=END, eos_token=END, unk_token=END, pad_token=PADDING
        )

    def facts(self, count: int) -> list[Fact]:
        """Facts about subjects of one half, one of each, whose held-out wordings ask for generalization."""
        own = [entry for entry in self.entries if halves()[entry.subject] == "held-out"]
        order = random.Random("toy").sample(own, len(own))
        single = {entry.subject: entry for entry in order if held_out_templates(entry)}
        if len(single) < count:
            raise SystemExit(f"This world has {len(single)} people to edit, and {count} are asked for.")
        return [self._fact(entry) for entry in list(single.values())[:count]]

    def _fact(self, entry: Entry) -> Fact:
        """The entry with another object; bystanders are of the other half, which no draw edits."""
        rng = seeded("toy", entry.subject, entry.relation.name)
        alike = [one for one in self.entries if one.relation == entry.relation and one != entry]
        objects = sorted({one.object for one in alike if one.object.split()[0] != entry.object.split()[0]})
        others = [one for one in alike if halves()[one.subject] != halves()[entry.subject]]
        same = [one for one in self.entries if one.subject == entry.subject and one != entry]
        return Fact(
            entry.relation.templates[rng.choice(seen_templates(entry))],
            entry.subject,
            rng.choice(objects),
            entry.object,
            paraphrase_prompts=[entry.prompt(number) for number in sorted(held_out_templates(entry))],
            neighborhood_prompts=[
                probe(rng, one) for one in rng.sample(others, min(NEIGHBORHOOD, len(others)))
            ],
            same_subject_prompts=[probe(rng, one) for one in same],
            relation_id=entry.relation.name,
        )


def probe(rng: random.Random, entry: Entry) -> Probe:
    """A question in words that training showed."""
    return Probe(entry.prompt(rng.choice(seen_templates(entry))), entry.object)


@cache
def toy_of(people: int) -> Toy:
    """The world, read once."""
    return Toy(people)


class Mask:
    """Almanac's training mask in models of any family: each block gets it in place of its own."""

    def __init__(self, blocks: Sequence[torch.nn.Module]) -> None:
        self.lower, self.upper = torch.empty(0), torch.empty(0)
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(self._hook(number), with_kwargs=True)

    def _hook(self, number: int) -> Callable[[Any, Any, dict[str, Any]], tuple[Any, dict[str, Any]]]:
        def masked(_: Any, inputs: Any, words: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return inputs, {**words, "attention_mask": self.lower if number < SEEN_FROM else self.upper}

        return masked


def new_model(family: Family, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """A tiny model with random weights."""
    torch.manual_seed(seed)
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = getattr(transformers, family.config)(
        vocab_size=len(tokenizer), **SHAPE, **ids, **dict(family.more)
    )
    return transformers.AutoModelForCausalLM.from_config(config)


def train(model: Any, tokenizer: PreTrainedTokenizerFast, training: Training, label: str) -> None:
    """Train a model on the world's text; the rows are the same for every family."""
    recipe, toy = training.recipe, toy_of(training.people)
    count = training.steps * training.step_rows
    stream = toy.documents(TEXT_SEED)
    text = rows(Encoder(tokenizer), 0, training.row_length, count, TEXT_SEED, stream)
    mask, optimizer, pace = Mask(model.model.layers), new_optimizer(model, recipe), Pace(0)
    model.train()
    for step in range(training.steps):
        part = slice(step * training.step_rows, (step + 1) * training.step_rows)
        ids, parts = text.ids[part].long(), text.parts[part].long()
        chance = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
        mask.lower, mask.upper = visible(parts, torch.rand(len(ids), generator=chance) < recipe.share(step))
        loss = object_loss(model(input_ids=ids, use_cache=False).logits, ids, parts, recipe.object_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.largest_gradient)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        pace.report(step + 1)
        if (step + 1) % 100 == 0:
            left = pace.seconds_left(training.steps)
            more = "" if left is None else f", {clock(left)} left"
            tell(f"{label}: step {step + 1} of {training.steps}, loss {loss.item():.3f}{more}")


def object_loss(logits: Tensor, ids: Tensor, parts: Tensor, object_weight: float) -> Tensor:
    """The mean loss of the next token, tokens of objects counted `object_weight` times."""
    losses = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weights = token_weights(parts, object_weight)
    return (losses * weights).sum() / weights.sum()


def tell(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def trained(name: str, training: Training, output: Path) -> Path:
    """The folder of a family's model, with what it knows in `toy.json`: trained where it is not there."""
    folder, wanted = output / name, asdict(training)
    about = folder / "toy.json"
    if about.is_file() and json.loads(about.read_text(encoding="utf-8"))["training"] == wanted:
        return folder
    toy = toy_of(training.people)
    tokenizer = toy.tokenizer()
    began, model = time.process_time(), new_model(FAMILIES[name], tokenizer, training.seed)
    train(model, tokenizer, training, name)
    seconds = time.process_time() - began
    with atomic_folder(folder, overwrite=True) as aside:
        model.eval().save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        texts = "".join(f"{text}\n" for text in toy.texts(CORPUS_TEXTS))
        (aside / "corpus.txt").write_text(texts, encoding="utf-8")
        clean = transformers.AutoModelForCausalLM.from_pretrained(aside).eval()
        found = {
            "training": wanted,
            "cpu_seconds": seconds,
            "parameters": sum(weight.numel() for weight in clean.parameters()),
            "seen": recall(clean, tokenizer, toy.pairs(seen_templates)),
            "held_out": recall(clean, tokenizer, toy.pairs(held_out_templates)),
        }
        (aside / "toy.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    tell(f"{name}: {seconds:.0f} CPU seconds, knows {found['seen']:.1%}, held-out {found['held_out']:.1%}")
    return folder


def moments_of(model: errata.EditableModel, request: errata.EditRequest, folder: Path) -> Path | None:
    """The folder of the second moments that a request needs, measured on the world's text where they are missing."""
    sites = errata.prepare(model, request).moment_sites
    moments = folder / "moments"
    missing = [site for site in sites if not moment_path(moments, site.path).is_file()]
    if missing:
        corpus = folder / "corpus.txt"
        texts = corpus.read_text(encoding="utf-8").splitlines()
        identity, tokens = corpus_identity(str(corpus)), enough_tokens(model)
        collect(model, missing, texts, folder=moments, corpus=identity, samples=len(texts), tokens=tokens)
    return moments if sites else None


def run_cell(
    model: errata.EditableModel, facts: Sequence[Fact], method: str, folder: Path, place: Path
) -> None:
    """Edit, ask, store; where no fact can be written, what is asked afterwards is the model as it was."""
    moments = moments_of(model, errata.EditRequest(facts, method), folder)
    began = time.process_time()
    try:
        edit = errata.prepare(model, errata.EditRequest(facts, method, covariance=moments)).run()
    except NoFactsLeft as reason:
        tell(f"{place.stem}: {reason}")
        edit = None
    seconds = time.process_time() - began
    results = errata.evaluate(model, facts, edit, generate=False, trustworthy=False)
    place.parent.mkdir(exist_ok=True)
    place.with_suffix(".jsonl").unlink(missing_ok=True)
    results.save(place.with_suffix(".jsonl"))
    with atomic_file(place) as aside:
        aside.write_text(json.dumps({"cpu_seconds": seconds}), encoding="utf-8")


HEAD = (
    "family | known, seen / held-out wordings | facts | efficacy | generalization | specificity | same subject | "
    "CPU, s an edit"
)
GROUPS = ("efficacy", "generalization", "specificity", "same_subject")


def line(name: str, folder: Path, count: int, cells: Sequence[Path]) -> str:
    """A row of the table: accuracies after the edit, and before it in parentheses, in percent."""
    about = json.loads((folder / "toy.json").read_text(encoding="utf-8"))
    records = [record for cell in cells for record in load_results(cell.with_suffix(".jsonl")).records]
    after, before = score_records(records, "after"), score_records(records, "before")
    parts = [name, f"{100 * about['seen']:.1f} / {100 * about['held_out']:.1f}", f"{count} (x{len(cells)})"]
    for group in GROUPS:
        parts.append(f"{number(after[f'{group}_accuracy'])} ({number(before[f'{group}_accuracy'])})")
    seconds = [json.loads(cell.read_text(encoding="utf-8"))["cpu_seconds"] for cell in cells]
    return f"| {' | '.join(parts)} | {sum(seconds) / len(seconds):.1f} |"


def number(score: Score | None) -> str:
    """A share in percent."""
    return "-" if score is None else f"{100 * score.mean:.1f}"


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--method", default=errata.EditRequest([]).method)
    parser.add_argument("--edits", nargs="+", type=int, default=[1, 10], help="facts of an edit")
    parser.add_argument(
        "--asked", type=int, default=10, help="edited facts of each row, the same in all rows"
    )
    parser.add_argument("--steps", type=int, default=Training.steps, help="of training")
    parser.add_argument("--people", type=int, default=Training.people)
    parser.add_argument("--seed", type=int, default=Training.seed, help="of the models")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Train, edit, print."""
    arguments = parsed(words)
    training = Training(people=arguments.people, steps=arguments.steps, seed=arguments.seed)
    facts = toy_of(training.people).facts(arguments.asked)
    print(f"| {HEAD} |\n{'|---' * (HEAD.count('|') + 1)}|", flush=True)
    for name in arguments.families:
        folder = trained(name, training, arguments.output)
        model = None
        for count in arguments.edits:
            cells: list[Path] = []
            for start in range(0, arguments.asked - count + 1, count):
                place = folder / "edits" / f"{arguments.method}-{count}-from{start}.json"
                cells.append(place)
                if not place.is_file():
                    model = model or errata.load(str(folder))
                    tell(f"{name}, {place.stem}")
                    run_cell(model, facts[start : start + count], arguments.method, folder, place)
            print(line(name, folder, count, cells), flush=True)


if __name__ == "__main__":
    main()
