"""One pass of a model over texts that sums k k^T of many sites at once: the work behind `covariance.py`."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from errata.errors import CovarianceError, CovarianceMismatch
from errata.models import Change, EditableModel, Site, StopForward, Tokens, solving_device
from errata.passes import TOKENS_IN_CACHE, pad
from errata.runtime import Progress, processes, silent

STAGE = "covariance"
BATCH_TOKENS = 8192
"""Tokens of a batch, its padding included. On a GPU with room to spare, more is a little faster."""
BLOCKS, LEAST_BLOCK = 8, 256
"""A product is computed in so many blocks of rows, none with fewer rows than that."""
WINDOW_BATCHES = 4
"""Texts are sorted by length among so many batches' worth; a run can be resumed only between such windows."""
TOKENISED_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much text is read, and how much of it at once."""

    samples: int
    max_length: int = 1024
    tokens: int | None = None
    """No further text is read once so many tokens were; None: only `samples` counts."""
    batch_tokens: int = BATCH_TOKENS


@dataclass
class Sums:
    """Sums of k k^T by module path, over the tokens so far, and which texts those were."""

    totals: dict[str, Float[Tensor, "d_in d_in"]] = field(default_factory=dict[str, Tensor])
    """The lower triangle counts; nothing is said about what lies above it."""
    tokens: int = 0
    texts: int = 0
    digest: str = ""
    """SHA-256 over the texts so far, each hashed together with the digest before it."""

    def add_texts(self, texts: Sequence[str]) -> None:
        """Note that these are in the sums now."""
        self.texts += len(texts)
        for text in texts:
            self.digest = _chained(self.digest, text)

    def moment(self, path: str) -> Float[Tensor, "d_in d_in"]:
        """E[k k^T], exactly symmetric."""
        lower = self.totals[path].tril()
        return (lower + lower.tril(-1).T).div_(self.tokens)


def measure(
    model: EditableModel,
    sites: Sequence[Site],
    texts: Iterable[str],
    limits: Limits,
    start: Sums | None = None,
    after_window: Callable[[Sums], None] | None = None,
    on_progress: Progress = silent,
) -> Sums:
    """Sum k k^T of all sites over the first texts that are not empty; `start` is what was summed before.

    Of several processes each runs its share of the batches. What it sums is its own, `start` too, until `in_main`.

    Raises:
        CovarianceError: the model is edited, there is no text, or the keys are not finite.
        CovarianceMismatch: the first texts are not those that `start` was summed over.
    """
    _refuse_edited(model)
    sums = start or Sums()
    source = islice((text for text in texts if text.strip()), limits.samples)
    _pass_over(source, sums)
    products: dict[str, Tensor] = {}
    for window in _windows(model, source, limits, processes.agreed(sums.tokens)):
        done = sums.texts
        batches = list(_batches([document.ids for document in window], limits.batch_tokens))
        for batch in processes.share(batches):
            _add_batch(model, sites, batch, sums, products)
            done += len(batch) * processes.count()
            on_progress(STAGE, *_so_far(limits, done, sums.tokens * processes.count()))
        sums.add_texts([document.text for document in window])
        _check_finite(model, sums)
        if after_window is not None:
            after_window(sums)
    if not sums.texts:
        raise CovarianceError("The corpus holds no text, so there is nothing to measure. Give another one.")
    finished = sums.texts if limits.tokens is None else limits.tokens
    on_progress(STAGE, finished, finished)
    return sums


def _so_far(limits: Limits, texts: int, tokens: int) -> tuple[int, int]:
    """How much has been read, and of how much: in tokens where those are limited, else in texts."""
    if limits.tokens is None:
        return min(texts, limits.samples), limits.samples
    return min(tokens, limits.tokens), limits.tokens


def in_main(model: EditableModel, sites: Sequence[Site], sums: Sums) -> Sums:
    """The sums of all processes in the main one; the others begin again with none. One process's are as they were."""
    if processes.count() == 1:
        return sums
    for site in sites:
        if site.path not in sums.totals:
            device = solving_device(site.device)
            precise = (
                torch.float64 if device.type == "cpu" else torch.promote_types(model.dtype, torch.float32)
            )
            sums.totals[site.path] = torch.zeros(site.d_in, site.d_in, dtype=precise, device=device)
        processes.sum_in_main(sums.totals[site.path])
    tokens = sum(processes.gather(sums.tokens))
    sums.tokens = tokens if processes.is_main() else 0
    return sums


@dataclass(frozen=True)
class _Document:
    text: str
    ids: Sequence[int]


def _windows(
    model: EditableModel, texts: Iterator[str], limits: Limits, read: int
) -> Iterator[list[_Document]]:
    """Documents in groups of some batches' tokens: where they are cut depends on the texts alone.

    `read` tokens were read before. The text in which the limit on tokens is reached is read whole.
    """
    length = min(limits.max_length, model.max_length)
    size = WINDOW_BATCHES * limits.batch_tokens * processes.count()
    window: list[_Document] = []
    held = 0
    left = float("inf") if limits.tokens is None else limits.tokens - read
    while left > 0 and (chunk := list(islice(texts, TOKENISED_AT_ONCE))):
        ids = cast("list[list[int]]", model.tokenizer(chunk, verbose=False)["input_ids"])
        for text, row in zip(chunk, ids, strict=True):
            window.append(_Document(text, row[:length]))
            held += min(len(row), length)
            left -= min(len(row), length)
            if held >= size or left <= 0:
                yield window
                window, held = [], 0
            if left <= 0:
                return
    if window:
        yield window


def _batches(rows: Sequence[Sequence[int]], size: int) -> Iterator[list[Sequence[int]]]:
    """Rows of like length together, longest first, at most `size` tokens with padding (or a single row)."""
    batch: list[Sequence[int]] = []
    for row in sorted(filter(len, rows), key=len, reverse=True):
        if batch and (len(batch) + 1) * len(batch[0]) > size:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _add_batch(
    model: EditableModel,
    sites: Sequence[Site],
    batch: Sequence[Sequence[int]],
    sums: Sums,
    products: dict[str, Float[Tensor, "d_in d_in"]],
) -> None:
    """Add k k^T of every token of a batch, in pieces that fit the device's cache."""
    at_once = TOKENS_IN_CACHE.get(model.device.type)
    for piece in [batch] if at_once is None else _batches(batch, at_once):
        _add_piece(model, sites, pad(piece, model), sums, products)
    _add_products(sums, products)


def _add_piece(
    model: EditableModel,
    sites: Sequence[Site],
    tokens: Tokens,
    sums: Sums,
    products: dict[str, Float[Tensor, "d_in d_in"]],
) -> None:
    """Run the model up to the last site that is needed, adding k k^T of every token that is not padding."""
    seen: set[str] = set()

    def reader(path: str) -> Change:
        def read(value: Tensor) -> None:
            keys = value[tokens.mask.to(value.device)]
            keys = keys.to(torch.promote_types(keys.dtype, torch.float32))
            _add_product(_sum_for(keys, path, sums, products), keys)
            seen.add(path)
            if len(seen) == len(readers):
                raise StopForward

        return read

    readers = {site.path: reader(site.path) for site in sites}
    with torch.no_grad(), model.hooked(readers, "input"):
        model.forward(tokens)
    sums.tokens += int(tokens.mask.sum())


def _sum_for(
    keys: Float[Tensor, "token d_in"], path: str, sums: Sums, products: dict[str, Tensor]
) -> Float[Tensor, "d_in d_in"]:
    """What the keys' product is added to: the total, or where that is more precise than they are, a batch's own sum.

    The totals are float64 on a CPU, where that costs little, and as precise as the keys elsewhere.
    """
    precise = torch.float64 if keys.device.type == "cpu" else keys.dtype
    size = keys.shape[1]
    total = sums.totals.get(path)
    if total is None:
        total = torch.zeros(size, size, dtype=precise, device=keys.device)
    sums.totals[path] = total = total.to(device=keys.device, dtype=precise)
    if precise == keys.dtype:
        return total
    if path not in products:
        products[path] = torch.zeros(size, size, dtype=keys.dtype, device=keys.device)
    return products[path]


def _add_product(total: Float[Tensor, "d_in d_in"], keys: Float[Tensor, "token d_in"]) -> None:
    """Add the lower triangle of K^T K, block by block: little more than half of the work."""
    size = len(total)
    rows = max(LEAST_BLOCK, -(-size // BLOCKS))
    for start in range(0, size, rows):
        end = min(start + rows, size)
        total[start:end, :end].addmm_(keys[:, start:end].T, keys[:, :end])


def _add_products(sums: Sums, products: Mapping[str, Float[Tensor, "d_in d_in"]]) -> None:
    """Move the sums of a batch into the totals."""
    for path, product in products.items():
        sums.totals[path].add_(product)
        product.zero_()


def _refuse_edited(model: EditableModel) -> None:
    if model.ledger.changed:
        raise CovarianceError(
            f"{model.name} has an edit in its weights; second moments belong to the unedited model. Revert it first."
        )


def _check_finite(model: EditableModel, sums: Sums) -> None:
    for path, total in sums.totals.items():
        if not bool(total.diagonal().isfinite().all()):
            raise CovarianceError(
                f"The keys of {path} of {model.name} are infinite or not a number within the first {sums.texts} texts. "
                f"In {model.dtype} they may overflow: load the model with --dtype bfloat16 or float32."
            )


def _pass_over(texts: Iterator[str], sums: Sums) -> None:
    """Skip the texts that `sums` has in it, and make sure that it was these."""
    digest = ""
    for text in islice(texts, sums.texts):
        digest = _chained(digest, text)
    if digest != sums.digest:
        raise CovarianceMismatch(
            f"The corpus is no longer what the unfinished run was measured on: its first {sums.texts} texts differ. "
            "Remove the .partial file to start over."
        )


def _chained(digest: str, text: str) -> str:
    return hashlib.sha256(f"{digest}\n{text}".encode("utf-8", "replace")).hexdigest()
