"""Second moments of keys, E[k k^T]: measured on a corpus once, kept in a store, and resumed when interrupted."""

import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from functools import cache
from pathlib import Path
from typing import TypedDict, cast

from typing_extensions import Required, Unpack

from errata.errors import CovarianceError, CovarianceMismatch, OutputExists, SettingsError
from errata.models import ALMANAC, EditableModel, Site
from errata.moments.corpora import AMONG, EMBEDDED, TEXTS, WIKIPEDIA, WRITTEN, corpus_identity, corpus_texts
from errata.moments.folder import FORMAT_VERSION, moment_path, write_moment
from errata.moments.hub import hub_answers
from errata.moments.key_sums import STAGE, Limits, Sums, in_main, measure
from errata.moments.written import written_texts
from errata.runtime import (
    DAMAGED,
    Progress,
    cache_root,
    digest_of,
    locked,
    open_tensors,
    processes,
    remove_parts,
    save_tensors,
    silent,
)

logger = logging.getLogger(__name__)

SAVE_SECONDS = 20.0
SAVE_SHARE = 0.05
"""Of the time, at most this part goes into saving (the sums of a large model are gigabytes)."""
TOKENS_PER_INPUT = 25
SHIPPED_TOKENS = 55_000
"""Tokens that the texts that ship are enough for, with as many of short statements."""
EMBEDDED_TEXTS = 2000
"""All of the embedded corpus."""


@dataclass(frozen=True, kw_only=True)
class CovarianceRecipe:
    """Which text second moments are measured on, and how much of it."""

    corpus: str = WIKIPEDIA
    column: str = "text"
    """The field that holds the text, in a JSONL file or a data set."""
    samples: int = 100_000
    """How many texts, at most."""
    max_length: int = 1024
    """How many tokens of each text, at most; never more than the model's context."""
    tokens: int | None = None
    """How many tokens of all texts together: the text in which they are reached is the last one."""

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        counts = {"samples": self.samples, "max_length": self.max_length, "tokens": self.tokens}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise SettingsError(f"Setting {name!r} of the covariance must be at least 1: {value}.")


def default_recipe(
    model: EditableModel, published: bool = False, sites: Sequence[Site] = ()
) -> CovarianceRecipe:
    """All of the embedded corpus for the embedded model; for every other one `enough_tokens` of text and statements.

    The text is Wikipedia's; where there is no way to the hub it is what ships, and for a large model what the model
    writes itself. Among it stand as many short statements: without these, what is written into some models
    spills over to other subjects (decision 0014). `published`: Wikipedia alone, on which the papers' settings were
    chosen. What has been measured for all `sites` before is used again, online or not.
    """
    if model.name == ALMANAC:
        return CovarianceRecipe(corpus=EMBEDDED, samples=EMBEDDED_TEXTS)
    wikipedia = CovarianceRecipe(
        corpus=WIKIPEDIA if published else WIKIPEDIA + AMONG, tokens=enough_tokens(model)
    )
    text = TEXTS if enough_tokens(model) <= SHIPPED_TOKENS else WRITTEN
    offline = replace_fields(wikipedia, corpus=text + AMONG)
    measured = [one for one in (wikipedia, offline) if sites and not missing_moments(model, sites, one)]
    if measured or hub_answers():
        return measured[0] if measured else wikipedia
    _tell_of_no_hub(
        "texts that ship with Errata" if text == TEXTS else f"{model.name}'s own writing, which takes long,"
    )
    return offline


@cache
def _tell_of_no_hub(corpus: str) -> None:
    """Warn, once: a recipe is asked for again and again."""
    logger.warning(
        "The Hugging Face hub does not answer, so second moments are measured on %s in place of Wikipedia. Name "
        "another corpus with `errata covariance collect --corpus`.",
        corpus,
    )


def recipe_texts(model: EditableModel, recipe: CovarianceRecipe) -> Iterator[str]:
    """The texts of a recipe, in their order.

    Raises:
        CovarianceMissing, CovarianceError: as `corpora.corpus_texts`.
    """
    return corpus_texts(recipe.corpus, recipe.column, lambda: written_texts(model))


def enough_tokens(model: EditableModel) -> int:
    """Tokens that second moments of the FFN's output maps are measured on: 25 for each of their inputs.

    On Almanac MEMIT's edits are as good with that as with five times as many (docs/speed.md, decision 0014); the
    published programs read 100,000 articles whatever the model.
    """
    return TOKENS_PER_INPUT * model.site("ffn", 0).d_in


def default_folder(model: EditableModel, recipe: CovarianceRecipe) -> Path:
    """Where Errata keeps the second moments of this model and recipe: in the user's cache, or under $ERRATA_CACHE.

    The folder's name begins with words for people and ends in a digest of everything that changes the moments.

    Raises:
        CovarianceMissing: the corpus is a file that is not there.
    """
    length = min(recipe.max_length, model.max_length)
    limits = Limits(samples=recipe.samples, max_length=length, tokens=recipe.tokens)
    details = _details(model, corpus_identity(recipe.corpus, recipe.column), limits)
    identity = {
        **details,
        "format": str(FORMAT_VERSION),
        "fingerprint": model.fingerprint,
        "revision": model.revision or "",
    }
    digest = digest_of(identity, 16)
    corpus = _word(recipe.corpus.partition(":")[0])
    amount = f"{recipe.samples}x{length}" if recipe.tokens is None else f"{recipe.tokens}tokens"
    words = [_word(model.name), corpus, amount, details["dtype"], digest]
    return cache_root() / STAGE / "-".join(words)


def missing_moments(model: EditableModel, sites: Sequence[Site], recipe: CovarianceRecipe) -> list[Site]:
    """The sites whose second moments are not in the default folder yet."""
    return _missing(default_folder(model, recipe), sites)


def ensure(
    model: EditableModel,
    sites: Sequence[Site],
    recipe: CovarianceRecipe,
    on_progress: Progress = silent,
) -> Path:
    """The default folder, with the second moments of every site in it: those that are missing are measured now.

    Raises:
        CovarianceError: the corpus cannot be read, or what was measured is not finite.
    """
    folder = default_folder(model, recipe)
    if not processes.agreed([site.path for site in _missing(folder, sites)]):
        return folder
    with _alone_in(folder):
        # Another run may have measured them meanwhile.
        asked = processes.agreed([site.path for site in _missing(folder, sites)])
        missing = [site for site in sites if site.path in asked]
        if missing:
            limits = Limits(samples=recipe.samples, max_length=recipe.max_length, tokens=recipe.tokens)
            corpus = corpus_identity(recipe.corpus, recipe.column)
            measurement = _Measurement(model, missing, folder, corpus, limits)
            measurement.run(recipe_texts(model, recipe), on_progress)
    return folder


def _alone_in(folder: Path) -> AbstractContextManager[None]:
    """The folder's lock; of a run of several processes the main one holds it."""
    return locked(folder) if processes.is_main() else nullcontext()


def _missing(folder: Path, sites: Sequence[Site]) -> list[Site]:
    return [site for site in sites if not moment_path(folder, site.path).is_file()]


class LimitWords(TypedDict, total=False):
    """How much text is read, by keyword: the fields of `Limits`."""

    samples: Required[int]
    max_length: int
    tokens: int | None
    batch_tokens: int


def collect(
    model: EditableModel,
    sites: Sequence[Site],
    texts: Iterable[str],
    *,
    folder: str | os.PathLike[str],
    corpus: str,
    replace: bool = False,
    on_progress: Progress = silent,
    **limits: Unpack[LimitWords],
) -> list[Path]:
    """Measure E[k k^T] of all sites in one pass over the texts, and store each in `folder`.

    A run that is killed goes on where it last saved when it is called again with the same arguments, and ends with
    the same numbers. `corpus` says what the texts are (`corpora.corpus_identity`), `samples`, `max_length`,
    `tokens` and `batch_tokens` how much of them is read (`Limits`). Of two processes on one folder the second waits.

    Raises:
        OutputExists: the folder has one of the sites already, and `replace` is false.
        CovarianceMismatch: an unfinished run with other arguments, or over other texts, lies in the folder.
        CovarianceError: the model is edited, there is no text, or the keys are not finite.
    """
    measurement = _Measurement(model, sites, Path(folder), corpus, Limits(**limits))
    with _alone_in(measurement.folder):
        return measurement.run(texts, on_progress, replace=replace)


@dataclass(frozen=True)
class _Measurement:
    """Which sites' moments are measured, over how much of which corpus, and where they are stored."""

    model: EditableModel
    sites: Sequence[Site]
    folder: Path
    corpus: str
    """What the texts are (`corpora.corpus_identity`)."""
    limits: Limits

    def run(self, texts: Iterable[str], on_progress: Progress, *, replace: bool = True) -> list[Path]:
        """`collect` for one who holds the folder's lock."""
        if processes.is_main():
            remove_parts(self.folder)
        length = min(self.limits.max_length, self.model.max_length)
        details = _details(self.model, self.corpus, replace_fields(self.limits, max_length=length))
        recipe = {**details, "batch_tokens": str(self.limits.batch_tokens)}
        partial = _Partial.of(self.folder, self.model, self.sites, recipe)
        if not replace and not partial.path.exists():
            _refuse_stored(self.folder, self.sites)
        sums = measure(
            self.model, self.sites, texts, self.limits, _start(partial), partial.save_when_due, on_progress
        )
        sums = in_main(self.model, self.sites, sums)
        self._write(sums, {**details, "texts": str(sums.texts), "texts_sha256": sums.digest})
        if processes.is_main():
            partial.path.unlink(missing_ok=True)
        processes.barrier()
        return [moment_path(self.folder, site.path) for site in self.sites]

    def _write(self, sums: Sums, details: Mapping[str, str]) -> None:
        """Store the moments; of several processes the main one does."""
        if processes.is_main():
            for site in self.sites:
                write_moment(self.folder, self.model, site, sums.moment(site.path), sums.tokens, details)


def _start(partial: "_Partial") -> Sums | None:
    """What an unfinished run left: all of it in the main process, in the others which texts that was."""
    sums = partial.load() if processes.is_main() else None
    told = processes.agreed(None if sums is None else [sums.texts, sums.digest])
    if sums is None and told is not None:
        return Sums(texts=cast(int, told[0]), digest=cast(str, told[1]))
    return sums


def _details(model: EditableModel, corpus: str, limits: Limits) -> dict[str, str]:
    """How a moment was measured, as its file's header says it."""
    dtype = str(model.dtype).removeprefix("torch.")
    counts = {"samples": str(limits.samples), "max_length": str(limits.max_length)}
    if limits.tokens is not None:  # so that what was measured without this limit keeps its name
        counts["tokens_asked"] = str(limits.tokens)
    return {"corpus": corpus, **counts, "dtype": dtype}


@dataclass
class _Partial:
    """The file beside the results that an unfinished run goes on from. Runs for other sites have other files."""

    path: Path
    recipe: Mapping[str, str]
    due: float
    model: EditableModel
    sites: tuple[Site, ...]

    @classmethod
    def of(
        cls,
        folder: str | os.PathLike[str],
        model: EditableModel,
        sites: Sequence[Site],
        details: Mapping[str, str],
    ) -> "_Partial":
        names = " ".join(site.path for site in sites)
        name = digest_of(names, 8)
        recipe = {**details, "format": str(FORMAT_VERSION), "fingerprint": model.fingerprint, "sites": names}
        return cls(
            Path(folder) / f"{name}.partial", recipe, time.monotonic() + SAVE_SECONDS, model, tuple(sites)
        )

    def load(self) -> Sums | None:
        """What an earlier run with these very arguments left behind."""
        if not self.path.is_file():
            return None
        try:
            with open_tensors(self.path) as kept:
                totals, header = kept.part(), kept.header
            recipe = cast("dict[str, str]", json.loads(header["recipe"]))
            sums = Sums(totals, int(header["tokens"]), int(header["texts"]), header["digest"])
        except DAMAGED as error:
            raise CovarianceError(
                f"{self.path}, left by an unfinished run, cannot be read ({error}). Remove it to start over."
            ) from error
        self._refuse_other(recipe)
        return sums

    def save_when_due(self, sums: Sums) -> None:
        """Save, unless that was done a short while ago."""
        begun = time.monotonic()
        if not processes.agreed(begun >= self.due):
            return
        sums = in_main(self.model, self.sites, sums)
        if not processes.is_main():
            return
        header = {
            "recipe": json.dumps(dict(self.recipe)),
            "tokens": str(sums.tokens),
            "texts": str(sums.texts),
            "digest": sums.digest,
        }
        save_tensors(self.path, sums.totals, header)
        ended = time.monotonic()
        self.due = ended + max(SAVE_SECONDS, (ended - begun) / SAVE_SHARE)

    def _refuse_other(self, recipe: Mapping[str, str]) -> None:
        other = [name for name, value in self.recipe.items() if recipe.get(name) != value]
        if other:
            differences = "; ".join(
                f"{name} was {recipe.get(name)}, is now {self.recipe[name]}" for name in other
            )
            raise CovarianceMismatch(
                f"{self.path.parent} holds an unfinished run with other arguments ({differences}). Finish that one, "
                f"choose another folder, or remove {self.path.name} to start over."
            )


def _refuse_stored(folder: str | os.PathLike[str], sites: Sequence[Site]) -> None:
    """What was measured once is not replaced unasked."""
    stored = [path for path in (moment_path(folder, site.path) for site in sites) if path.exists()]
    if stored:
        more = f", and {len(stored) - 1} more" if stored[1:] else ""
        raise OutputExists(
            f"{stored[0]} exists already{more}. Name another folder, or remove what is to be measured again."
        )


def _word(name: str) -> str:
    """The last part of a name or path, in characters that every file system takes."""
    return re.sub(r"[^\w.]+", "_", Path(name).name or "model")[:40]
