"""What is measured: models of given shapes with random weights, and facts and texts for them."""

import gzip
import itertools
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPTJConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from errata.almanac import almanac_path, corpus_texts, world_facts
from errata.facts import Fact, read_facts
from errata.methods import SiteSettings, settings_for
from errata.models import EditableModel, from_parts, load
from errata.solve import KeySettings, LeastSquaresSettings, SpreadSettings
from errata.values import Place, ValueSettings

Shape = Literal["gpt2-small", "gpt-j"]
SHAPES: tuple[Shape, ...] = ("gpt2-small", "gpt-j")
LAYERS: dict[tuple[Shape, bool], tuple[int, ...]] = {
    ("gpt2-small", False): (3, 4, 5, 6, 7),
    ("gpt-j", False): (3, 4, 5, 6, 7, 8),
    ("gpt2-small", True): (1, 2, 3),
    ("gpt-j", True): (1, 2, 3),
}
"""The critical layers: those of the papers for GPT-J, five in the middle for GPT-2 small."""
CONTEXTS = (
    "",
    "The house was built in the last century.",
    "Therefore the council has to meet once more.",
    "Because it rained all day, they stayed inside.",
    "I think that this is a good idea.",
    "You can see the river from the old bridge.",
)
"""As many, and about as long, as the published programs sample; fixed, as random weights write no words."""
MEDIAN_WORDS, SPREAD_OF_WORDS = 180, 0.9
"""Texts have log-normal lengths, about as Wikipedia's articles have."""


@dataclass(frozen=True)
class Bench:
    """One model, what to write into it, and how."""

    model: EditableModel
    shape: str
    """Its name, or that of the checkpoint's folder."""
    facts: tuple[Fact, ...]
    contexts: tuple[str, ...]
    settings: SiteSettings
    tiny: bool
    method: str = "pmet"

    @property
    def relax(self) -> bool:
        """Whether PMET's rule for phi is in force."""
        return self.method == "pmet"

    @property
    def place(self) -> Place:
        """Whose value is written."""
        return "ffn" if self.method == "pmet" else "block"

    @property
    def layers(self) -> tuple[int, ...]:
        """The critical layers."""
        return self.settings.layers


def make_bench(
    shape: Shape,
    tiny: bool,
    facts: int,
    steps: int,
    device: str,
    dtype: str,
    data: Path,
) -> Bench:
    """A model with seeded random weights, its tokenizer, and the first `facts` facts that fit together.

    Raises:
        FileNotFoundError: the data lie somewhere else.
    """
    tokenizer = _tokenizer(tiny, data)
    model = from_parts(_random_model(_config(shape, tiny, len(tokenizer)), device, dtype), tokenizer, shape)
    chosen = world_facts("held-out", facts) if tiny else counterfact(data, facts)
    settings = SiteSettings(
        layers=LAYERS[shape, tiny],
        values=ValueSettings(
            steps=steps,
            learning_rate=0.5,
            clamp=0.75,
            decay=0.5,
            kl_weight=0.0625,
            nll_weight=1.0,
            kl_position="subject",
            optimize=("attention", "ffn"),
        ),
        keys=KeySettings(average="half"),
        spread=SpreadSettings(share="sqrt", write=("ffn",)),
        solve=LeastSquaresSettings(covariance_weight=20000.0),
    )
    return Bench(model, shape, tuple(chosen), CONTEXTS, settings, tiny)


PUBLISHED: dict[str, dict[str, object]] = {
    "memit": {
        "values.optimizer": "adam",
        "values.learning_rate": 0.5,
        "values.clamp": 0.75,
        "values.kl_weight": 0.0625,
        "values.stop_probability": None,
        "keys.average": "half",
    }
}
"""The published numbers, where a model without a preset gets others."""


def checkpoint_bench(folder: Path, method: str, facts: int, steps: int, data: Path) -> Bench:
    """The model of a folder with a method's settings; lambda is a number, as the published programs have it.

    Raises:
        FileNotFoundError: the data lie somewhere else.
    """
    model = load(folder)
    settings, _ = settings_for(model, method, {**PUBLISHED.get(method, {}), "values.steps": steps}, None)
    assert isinstance(settings, SiteSettings), "a method with one site"
    settings = replace(settings, solve=LeastSquaresSettings(covariance_weight=15000.0))
    chosen = tuple(counterfact(data, facts))
    return Bench(model, folder.name, chosen, CONTEXTS, settings, tiny=False, method=method)


def _config(shape: Shape, tiny: bool, words: int) -> PretrainedConfig:
    """The configuration of the shape, or of a small model of the same family."""
    small = {"n_embd": 32, "n_layer": 6, "n_head": 4, "n_positions": 256, "vocab_size": words}
    dropout = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    if shape == "gpt2-small":
        return GPT2Config(**(small if tiny else {}), **dropout, bos_token_id=0, eos_token_id=0)
    own = {"rotary_dim": 4} if tiny else {}
    return GPTJConfig(**(small if tiny else {}), **own, **dropout, bos_token_id=0, eos_token_id=0)


def _random_model(config: PretrainedConfig, device: str, dtype: str) -> PreTrainedModel:
    """Seeded random weights, made on the device itself.

    Larger than a fresh model's, so that every block has a say and the gradients are far above rounding.
    """
    config.initializer_range = 0.04 if cast(int, config.hidden_size) > 64 else 0.15
    torch.manual_seed(7)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return cast(PreTrainedModel, model)


def _tokenizer(tiny: bool, data: Path) -> PreTrainedTokenizerBase:
    folder = almanac_path() if tiny else _needed(data / "tokenizers" / "gpt2")
    return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(folder))


def counterfact(data: Path, count: int) -> list[Fact]:
    """The first `count` facts of CounterFact of which no two contradict each other."""
    chosen: dict[tuple[str, str], Fact] = {}
    for fact in read_lines(_needed(data / "data" / "counterfact.jsonl.gz"), count + count // 50):
        chosen.setdefault(fact.key, fact)
    return list(chosen.values())[:count]


def read_lines(path: Path, count: int) -> list[Fact]:
    """The facts of the first lines of a file: reading all of CounterFact takes longer than some stages."""
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "facts.jsonl"
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            part.write_text("".join(itertools.islice(lines, count)), encoding="utf-8")
        return read_facts(part)


def _needed(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is not there. Name the folder that holds tokenizers/gpt2 and data/counterfact.jsonl.gz with "
            "--data-dir, or measure a tiny model with --tiny."
        )
    return path


def make_texts(bench: Bench, data: Path, count: int) -> list[str]:
    """Texts to measure second moments on: sentences joined to seeded log-normal lengths."""
    sentences = _sentences(bench, data)
    draw = random.Random(5)
    texts: list[str] = []
    for _ in range(count):
        words = (20 if bench.tiny else MEDIAN_WORDS) * draw.lognormvariate(0, SPREAD_OF_WORDS)
        text: list[str] = []
        while sum(sentence.count(" ") + 1 for sentence in text) < words:
            text.append(next(sentences))
        texts.append(" ".join(text))
    return texts


def _sentences(bench: Bench, data: Path) -> Iterator[str]:
    """The embedded corpus, or prompts of CounterFact with their answers, for ever."""
    if bench.tiny:
        return itertools.cycle(itertools.islice(corpus_texts(), 200))
    facts = read_lines(_needed(data / "data" / "counterfact.jsonl.gz"), 300)
    return itertools.cycle(sentence for fact in facts for sentence in _said(fact))


def _said(fact: Fact) -> Sequence[str]:
    return (
        *(f"{probe.prompt} {probe.target}." for probe in fact.neighborhood),
        *(f"{prompt} {fact.target_true}." for prompt in fact.paraphrase_prompts),
    )


def describe(bench: Bench) -> dict[str, object]:
    """What tells one run from another; nothing of the machine but its number of threads."""
    config = bench.model.model.config
    return {
        "shape": bench.shape,
        "tiny": bench.tiny,
        "blocks": bench.model.layers,
        "d_model": int(config.hidden_size),
        "d_ffn": bench.model.site("ffn", 0).d_in,
        "vocabulary": int(config.vocab_size),
        "layers": list(bench.layers),
        "facts": len(bench.facts),
        "steps": bench.settings.values.steps,
        "contexts": len(bench.contexts),
        "dtype": str(bench.model.dtype).removeprefix("torch."),
        "device": str(bench.model.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def save_json(path: Path, row: object) -> None:
    """Write one JSON document."""
    path.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
