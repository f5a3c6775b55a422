"""Second moments of keys, E[k k^T]: corpora, one pass over all layers, the folders on disk, Cholesky factors."""

from errata.moments.collection import (
    CovarianceRecipe,
    collect,
    default_recipe,
    enough_tokens,
    ensure,
    missing_moments,
    recipe_texts,
)
from errata.moments.corpora import EMBEDDED, corpus_identity, corpus_texts, embedded_corpus
from errata.moments.factors import Factors, ridged
from errata.moments.folder import moment_path, moments_of, read_moment, write_moment
from errata.moments.key_sums import STAGE, Limits, Sums, measure
from errata.moments.published import import_npz

__all__ = [
    "EMBEDDED",
    "STAGE",
    "CovarianceRecipe",
    "Factors",
    "Limits",
    "Sums",
    "collect",
    "corpus_identity",
    "corpus_texts",
    "default_recipe",
    "embedded_corpus",
    "enough_tokens",
    "ensure",
    "import_npz",
    "measure",
    "missing_moments",
    "moment_path",
    "moments_of",
    "read_moment",
    "recipe_texts",
    "ridged",
    "write_moment",
]
