"""Reference texts and TF-IDF statistics, which consistency compares generated texts with.

The published layout is a folder of three files: `attribute_snippets.json`, a list of {"relation_id", "target_id",
"samples": [{"text", ...}]}; `tfidf_vocab.json`, each term's number; `idf.npy`, each term's inverse document frequency
(Meng et al. 2022). Nothing in it is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np
from jaxtyping import Float

from errata.errors import SettingsError
from errata.facts import Fact
from errata.runtime import atomic_folder

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

SNIPPETS, VOCABULARY, IDF = "attribute_snippets.json", "tfidf_vocab.json", "idf.npy"
LAYOUT = f"A folder of references holds {SNIPPETS}, {VOCABULARY} and {IDF} (docs/evaluation.md)."
Key = tuple[str, str]


class _Sparse(Protocol):
    """What is used of scipy's sparse matrices."""

    def toarray(self) -> Float[np.ndarray, "text term"]: ...


@dataclass(frozen=True, eq=False)
class References:
    """Texts about subjects of each (relation, object), and how rare each term is."""

    texts: Mapping[Key, Sequence[str]]
    vocabulary: Mapping[str, int]
    idf: Float[np.ndarray, " term"]

    def of(self, fact: Fact) -> Sequence[str]:
        """Texts about subjects of which the new object is true; the fact's own reference_texts go before."""
        if fact.reference_texts or fact.relation_id is None:
            return fact.reference_texts
        return self.texts.get((fact.relation_id, fact.target_id or fact.target_new), ())

    def similarity(self, fact: Fact, texts: Sequence[str]) -> float | None:
        """The cosine between the texts and the fact's references, each joined to one; None without references."""
        references = self.of(fact)
        if not references:
            return None
        rows = cast("_Sparse", self._vectorizer.transform([" ".join(texts), " ".join(references)])).toarray()
        # Each row has length 1 (or 0: no known term), so their product is the cosine.
        return float(rows[0] @ rows[1])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the published layout into a new folder.

        Raises:
            OutputExists: something is there already.
        """
        snippets = [
            {"relation_id": relation, "target_id": target, "samples": [{"text": text} for text in texts]}
            for (relation, target), texts in self.texts.items()
        ]
        with atomic_folder(Path(folder)) as aside:
            (aside / SNIPPETS).write_text(json.dumps(snippets, ensure_ascii=False), encoding="utf-8")
            vocabulary = json.dumps(dict(self.vocabulary), ensure_ascii=False)
            (aside / VOCABULARY).write_text(vocabulary, encoding="utf-8")
            np.save(aside / IDF, self.idf, allow_pickle=False)

    @cached_property
    def _vectorizer(self) -> TfidfVectorizer:
        made = _new_vectorizer(dict(self.vocabulary))
        made.idf_ = self.idf
        return made


def load_references(folder: str | os.PathLike[str]) -> References:
    """Read a folder of the published layout.

    Raises:
        SettingsError: a file is missing, damaged, or does not fit the others; the message names it.
    """
    path = Path(folder)
    vocabulary = cast("dict[str, int]", _json(path / VOCABULARY, "object"))
    idf = _idf(path / IDF)
    if sorted(vocabulary.values()) != list(range(len(idf))):
        raise SettingsError(
            f"{path / VOCABULARY} numbers {len(vocabulary)} terms, and {IDF} has {len(idf)} values: they do not belong "
            "together. Download both again."
        )
    texts: dict[Key, list[str]] = {}
    for number, row in enumerate(cast("list[object]", _json(path / SNIPPETS, "list"))):
        try:
            item = cast("dict[str, object]", row)
            samples = cast("list[dict[str, str]]", item["samples"])
            key = (str(item["relation_id"]), str(item["target_id"]))
            texts.setdefault(key, []).extend(str(sample["text"]) for sample in samples)
        except (KeyError, TypeError) as error:
            raise SettingsError(
                f"{path / SNIPPETS}, entry {number}: it must have relation_id, target_id and samples with a text each "
                f"({error!r}). {LAYOUT}"
            ) from error
    return References(texts, vocabulary, idf)


def fit_references(texts: Mapping[Key, Sequence[str]]) -> References:
    """References with statistics of their own: the inverse document frequencies of these very texts.

    Raises:
        SettingsError: there is no text with a word in it, or scikit-learn is not installed.
    """
    made = _new_vectorizer(None)
    try:
        made.fit(list(dict.fromkeys(text for each in texts.values() for text in each)))
    except ValueError as error:
        raise SettingsError(f"The reference texts hold no word ({error}). Give longer ones.") from error
    vocabulary = {str(term): int(number) for term, number in cast("dict[str, int]", made.vocabulary_).items()}
    return References(texts, vocabulary, np.asarray(made.idf_, dtype=np.float64))


def references_of(facts: Sequence[Fact]) -> References | None:
    """References from the facts' own reference_texts, and statistics of them; None where no fact has any.

    Raises:
        SettingsError: scikit-learn is not installed.
    """
    texts = {
        (str(fact.relation_id), fact.target_new): fact.reference_texts
        for fact in facts
        if fact.reference_texts
    }
    return fit_references(texts) if texts else None


def _new_vectorizer(vocabulary: dict[str, int] | None) -> TfidfVectorizer:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise SettingsError(
            "Consistency takes the package scikit-learn, which is not installed. `pip install 'errata[eval]'`."
        ) from error
    return TfidfVectorizer(vocabulary=vocabulary)


def _json(path: Path, kind: Literal["list", "object"]) -> object:
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"There is no file {path}. {LAYOUT}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}. {LAYOUT}") from error
    if not isinstance(value, list if kind == "list" else dict):
        raise SettingsError(f"{path} is not a JSON {kind}. {LAYOUT}")
    return cast("object", value)


def _idf(path: Path) -> Float[np.ndarray, " term"]:
    try:
        values = cast("Float[np.ndarray, '...']", np.load(path, allow_pickle=False))
    except FileNotFoundError:
        raise SettingsError(f"There is no file {path}. {LAYOUT}") from None
    except (OSError, ValueError) as error:  # also a file of pickled objects
        raise SettingsError(f"{path} cannot be read without unpickling: {error}. {LAYOUT}") from error
    if values.ndim != 1:
        raise SettingsError(f"{path} is not one list of numbers. {LAYOUT}")
    return values.astype(np.float64)
