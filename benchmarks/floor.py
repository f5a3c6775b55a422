"""The floor of a stage: the floating-point operations that its algorithm needs, at the machine's measured rate.

A product of [m, k] and [k, n] counts 2 m k n. Norms, softmax, activations and everything that is not a matrix product
count nothing, and nothing is padded, so the floor cannot be reached. D is the width of the residual stream, F that of
the FFN's hidden layer, V the vocabulary. One token at position p (from 0) costs in one block

    keys and values 4 D^2 | query and output map 4 D^2 | scores and their sum 4 D (p + 1) | FFN up 2 D F, down 2 D F
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from errata.models import EditableModel
from errata.passes import EncodedRow
from errata.solve import KeyPrompts

SMALLEST = 0.15
"""Seconds for which a matrix product is repeated to measure its rate."""


@dataclass(frozen=True)
class Size:
    """The sizes that the counts need."""

    blocks: int
    d: int
    f: int
    words: int
    parallel: bool

    @classmethod
    def of(cls, model: EditableModel) -> "Size":
        """Read off a model."""
        site = model.site("ffn", 0)
        words = int(model.model.config.vocab_size)
        return cls(model.layers, site.d_out, site.d_in, words, model.parallel)

    def stored(self) -> float:
        """Keys and values of one token in one block: 4 D^2."""
        return 4.0 * self.d**2

    def asked(self, position: int) -> float:
        """What attention costs beyond keys and values: 4 D^2 + 4 D (p + 1)."""
        return 4.0 * self.d**2 + 4.0 * self.d * (position + 1)

    def token(self, position: int) -> float:
        """One token in one block: 8 D^2 + 4 D (p + 1) + 4 D F."""
        return self.stored() + self.asked(position) + 4.0 * self.d * self.f

    def read(self) -> float:
        """The head at one place: 2 D V."""
        return 2.0 * self.d * self.words


@dataclass(frozen=True)
class Work:
    """Floating-point operations by kind: each kind is measured on products of its own shape and dtype."""

    blocks: float = 0.0
    head: float = 0.0
    moments: float = 0.0
    solve: float = 0.0
    """In float64."""

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.blocks + other.blocks,
            self.head + other.head,
            self.moments + other.moments,
            self.solve + other.solve,
        )

    @property
    def total(self) -> float:
        """Operations of every kind."""
        return self.blocks + self.head + self.moments + self.solve


def optimization(size: Size, rows: Sequence[EncodedRow], layer: int, steps: int) -> Work:
    """One fact's S = `steps` passes and S - 1 gradients (both deltas of PMET, L = `layer`).

    Once: blocks 0 to L over every token; above, keys and values of the tokens before the lookup position.
    Each pass: the FFN of block L at the lookup position (4 D F; nothing in parallel blocks), the blocks above L over
    the tokens from there to the last one read, and the head at the places read. The last block is needed whole only
    where it is read, and for keys and values elsewhere.
    Each gradient: as much again, with the scores twice; no weight has a gradient.
    """
    once, forward, scores, reads = 0.0, 0.0, 0.0, 0
    above = size.blocks - layer - 1
    for row in rows:
        read = set(row.text.predicted_at) if row.text.target else {row.lookup}
        end = max(read)
        once += sum((layer + 1) * size.token(position) for position in range(end + 1))
        once += sum(
            max(0, above - 1) * size.token(position) + size.stored() for position in range(row.lookup)
        )
        forward += 0.0 if size.parallel else 4.0 * size.d * size.f
        for position in range(row.lookup, end + 1):
            whole = above if position in read else above - 1
            forward += whole * size.token(position) + (above - whole) * size.stored()
            scores += whole * 4.0 * size.d * (position + 1)
        reads += len(read)
    blocks = once + steps * forward + (steps - 1) * (forward + scores)
    return Work(blocks=blocks, head=(2 * steps - 1) * reads * size.read())


def spread(size: Size, prompts: KeyPrompts, layers: Sequence[int], written: int) -> Work:
    """The keys and values of every layer in R = `layers`, and `written` facts' share of each solve.

    Every distinct beginning of a prompt up to the subject's last token is run once (contexts are the same for all
    facts): blocks 0 to L, of block L only what leads to the key at the lookup position. The bare prompts run again
    from each written layer on, for the current values. Solve in float64, with n = F: K K^T (n^2 a fact, as it is
    symmetric), Cholesky n^3 / 3, two triangular solves (2 n^2 a fact). Write: 2 D F a fact.
    """
    last, every = layers[-1], list(prompts.rows)
    bare = every[:: len(prompts.contexts)]
    blocks = _to_key(size, every, range(last + 1))
    for layer in layers:
        blocks += _to_key(size, bare, range(layer + 1, last + 1))
    blocks += 2.0 * size.d * size.f * len(bare) * len(layers)  # from the key at block L to the value there
    blocks += 2.0 * size.d * size.f * written * len(layers)
    return Work(blocks=blocks, solve=len(layers) * (size.f**3 / 3 + 3.0 * written * size.f**2))


def _to_key(size: Size, rows: Sequence[EncodedRow], layers: range) -> float:
    """Blocks over the distinct beginnings of the rows, the last block of them only as far as the key."""
    texts = [row.text.ids[: row.lookup + 1] for row in rows]
    if not layers:
        return 0.0
    places = list(beginnings(texts))
    inner = (len(layers) - 1) * sum(size.token(position) for position in places)
    ends = sum(size.asked(row.lookup) + 2.0 * size.d * size.f for row in rows)
    return inner + len(places) * size.stored() + ends


def covariance(size: Size, lengths: Iterable[int], layers: Sequence[int]) -> Work:
    """One pass over texts for all layers: blocks below the last of them, that one up to its key, and k k^T.

    Each k k^T is symmetric, so it needs F^2 a token and layer.
    """
    last, blocks, tokens = layers[-1], 0.0, 0
    for length in lengths:
        tokens += length
        for position in range(length):
            blocks += (last + 1) * size.token(position) - 2.0 * size.d * size.f
    return Work(blocks=blocks, moments=float(tokens) * len(layers) * size.f**2)


def evaluation(
    size: Size, texts: Sequence[tuple[tuple[int, ...], range]], written: Sequence[tuple[int, int]]
) -> Work:
    """Answers' probabilities, and free-running generation.

    `texts`: ids with the places read. Every distinct beginning of a text is run once; the last block is needed whole
    only where it is read. `written`: for each continuation the prompt's length and the number of tokens written; the
    prompt itself is among the texts, so every token but the last one written is run and read once.
    """
    reads = {ids[: place + 1] for ids, places in texts for place in places}
    seen: set[tuple[int, ...]] = set()
    blocks, heads = 0.0, float(len(reads))
    for ids, _ in texts:
        for end in range(len(ids), 0, -1):
            start = ids[:end]
            if start in seen:
                break
            seen.add(start)
            whole = size.blocks if start in reads else size.blocks - 1
            blocks += whole * size.token(end - 1) + (size.blocks - whole) * size.stored()
    for prompt, tokens in written:
        for position in range(prompt, prompt + max(0, tokens - 1)):
            blocks += size.blocks * size.token(position)
            heads += 1
    return Work(blocks=blocks, head=heads * size.read())


def beginnings(texts: Sequence[tuple[int, ...]]) -> Iterator[int]:
    """The position of the last token of each distinct beginning of the texts."""
    seen: set[tuple[int, ...]] = set()
    for ids in texts:
        for end in range(len(ids), 0, -1):
            if ids[:end] in seen:
                break
            seen.add(ids[:end])
            yield end - 1


class Rates:
    """The machine's rate in operations a second, for products of the shapes of each kind, each measured once."""

    def __init__(self, size: Size, device: torch.device, dtype: torch.dtype) -> None:
        self.size, self.device, self.dtype = size, device, dtype
        self.seconds: dict[str, float] = {}

    def seconds_for(self, work: Work) -> float:
        """The least time for the work: every kind at its own rate."""
        kinds = {"blocks": work.blocks, "head": work.head, "moments": work.moments, "solve": work.solve}
        return sum(count / self.rate(kind) for kind, count in kinds.items() if count)

    def rate(self, kind: str) -> float:
        """Operations a second of the products of that kind."""
        if kind not in self.seconds:
            self.seconds[kind] = self._measure(kind)
        return self.seconds[kind]

    def _measure(self, kind: str) -> float:
        d, f, words = self.size.d, self.size.f, self.size.words
        m, k, n = {
            "blocks": (1024, d, f),
            "head": (64, d, words),
            "moments": (f, 4096, f),
            "solve": (f, 512, f),
        }[kind]
        dtype = {"moments": torch.promote_types(self.dtype, torch.float32), "solve": torch.float64}
        options = {"device": self.device, "dtype": dtype.get(kind, self.dtype)}
        left, right = torch.randn(m, k, **options), torch.randn(k, n, **options)
        best, spent = float("inf"), 0.0
        while spent < SMALLEST or best == float("inf"):
            start = self._now()
            left @ right
            taken = max(1e-9, self._now() - start)
            best, spent = min(best, taken), spent + taken
        return 2.0 * m * k * n / best

    def _now(self) -> float:
        """On a CPU the process's own time, so that other programs do not count; elsewhere the clock."""
        if self.device.type == "cpu":
            return time.process_time() / torch.get_num_threads()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()
