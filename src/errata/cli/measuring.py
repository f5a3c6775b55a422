"""The work behind `errata covariance`. Unlike the commands' own files this one imports torch as it is loaded."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from errata.methods import method_named, settings_for
from errata.models import EditableModel, Site
from errata.moments import (
    CovarianceRecipe,
    corpus_identity,
    default_recipe,
    enough_tokens,
    ensure,
    recipe_texts,
)
from errata.moments import collect as collect_moments
from errata.moments import import_npz as import_published
from errata.runtime import Progress, cache_root
from errata.settings import DEFAULT_METHOD, load_presets


@dataclass(frozen=True)
class Amount:
    """How much text is asked for."""

    samples: int | None = None
    tokens: int | None = None


def recipe_for(
    model: EditableModel, corpus: str | None, column: str, length: int, amount: Amount
) -> CovarianceRecipe:
    """The recipe of the options; without a corpus the model's usual one, without an amount as much as it takes."""
    if corpus is None:
        preset = settings_for(model, DEFAULT_METHOD, {})[1]
        usual = default_recipe(model, load_presets(DEFAULT_METHOD).publishes(preset))
        corpus, amount = usual.corpus, amount if amount != Amount() else Amount(usual.samples, usual.tokens)
    elif amount == Amount():
        amount = Amount(tokens=enough_tokens(model))
    return CovarianceRecipe(
        corpus=corpus,
        column=column,
        samples=CovarianceRecipe().samples if amount.samples is None else amount.samples,
        max_length=length,
        tokens=amount.tokens,
    )


def sites_of(model: EditableModel, kind: str, layers: Sequence[int] | None) -> list[Site]:
    """The sites of those layers; without any those that the default method would write."""
    if layers is None:
        layers = method_named(DEFAULT_METHOD).layers(settings_for(model, DEFAULT_METHOD, {})[0])
    return [model.site(kind, layer) for layer in layers]


def collect(
    model: EditableModel,
    sites: Sequence[Site],
    recipe: CovarianceRecipe,
    output: Path | None,
    on_progress: Progress,
) -> Path:
    """Measure into `output`, or into the cache where `errata edit` looks; returns the folder."""
    if output is None:
        return ensure(model, sites, recipe, on_progress)
    collect_moments(
        model,
        sites,
        recipe_texts(model, recipe),
        folder=output,
        corpus=corpus_identity(recipe.corpus, recipe.column),
        samples=recipe.samples,
        max_length=recipe.max_length,
        tokens=recipe.tokens,
        on_progress=on_progress,
    )
    return output


def import_npz(file: Path, model: EditableModel, kind: str, layer: int, output: Path | None) -> Path:
    """Store a published file; by default in a folder of the cache that belongs to the model. Returns the folder."""
    name = re.sub(r"[^\w.]+", "_", os.path.basename(model.name.rstrip("/")))
    folder = output or cache_root() / "covariance" / f"imported-{name}-{model.fingerprint[:12]}"
    import_published(file, model, model.site(kind, layer), folder)
    return folder
