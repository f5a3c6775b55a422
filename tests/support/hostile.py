"""Folders of edits made to do harm, and inputs that nobody would write: for tests and `benchmarks/faults.py`.

What reads them may refuse with an error of Errata's own, and nothing else.
"""

import copy
import gzip
import json
import logging
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from errata.edits.deltas import Delta
from errata.edits.edit import Edit, EditOrigin, load_edit
from errata.errors import ErrataError
from errata.facts.fact import Fact
from errata.facts.reading import check_facts, read_facts
from errata.runtime import to_json

MODULE = "transformer.h.1.mlp.c_proj"
FACT = Fact("The capital of {} is", "France", "Cairo", "Paris", ["In {} they meet in"])
ODD: tuple[object, ...] = (
    *(None, True, False, 0, -1, 2**70, -(10**400), 1e308, float("inf"), float("nan"), "", " ", "{}", "{} {}"),
    *("\ud800", "\0", "²", "..", "a.b", "../../etc/passwd", "x" * 3000, "é", "\u2028", [], {}, [[]], [None]),
    *({"a": {}}, {"": ""}, ["{}"], [{"prompt": "{}"}], {"str": 3}, {"shape": [32, 128]}, "[" * 500),
)
"""Values that do not belong where they are put."""


def small_edit() -> Edit:
    """An edit of one matrix, of no model that there is."""
    origin = EditOrigin("pmet", {"layers": (1,)}, ("",), 0, "none", None, "0" * 64, "float32", "", "", {}, "")
    return Edit({MODULE: Delta(torch.ones(32, 2), torch.ones(2, 128))}, (FACT,), origin)


# --- folders -----------------------------------------------------------------------------------------


def about(folder: Path, **values: object) -> None:
    """Put values into `edit.json`."""
    file = folder / "edit.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def moved_to(path: str) -> Callable[[Path], None]:
    """The change made one of another module."""

    def make(folder: Path) -> None:
        tensors = load_file(folder / "edit.safetensors")
        save_file(
            {name.replace(MODULE, path): part for name, part in tensors.items()}, folder / "edit.safetensors"
        )
        about(folder, changes={path: {"shape": [32, 128], "rank": 2}})

    return make


def tensors(**parts: torch.Tensor) -> Callable[[Path], None]:
    """Other tensors than `edit.json` promises."""

    def make(folder: Path) -> None:
        save_file({f"{MODULE}.{name}": part for name, part in parts.items()}, folder / "edit.safetensors")

    return make


def declared(shape: list[int], size: int, told: list[int] | None = None) -> Callable[[Path], None]:
    """A header that declares a dense matrix of a shape, in a sparse file that has (or lacks) its bytes."""

    def make(folder: Path) -> None:
        count = 4 * shape[0] * shape[1]
        header = {f"{MODULE}.dense": {"dtype": "F32", "shape": shape, "data_offsets": [0, count]}}
        text = json.dumps(header).encode()
        with (folder / "edit.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + size)
        about(folder, changes={MODULE: {"shape": told or shape, "rank": 1}})

    return make


def header_length(length: int) -> Callable[[Path], None]:
    """A header that says it is so long."""
    return lambda folder: (
        (folder / "edit.safetensors").write_bytes(struct.pack("<Q", length) + b"{}" * 50) and None
    )


def linked(name: str) -> Callable[[Path], None]:
    """A file of the folder lies elsewhere."""

    def make(folder: Path) -> None:
        (folder / name).rename(folder.parent / f"elsewhere-{name}")
        (folder / name).symlink_to(folder.parent / f"elsewhere-{name}")

    return make


def sparse_json(folder: Path) -> None:
    """An `edit.json` of 10 GB that takes no room on the disk."""
    with (folder / "edit.json").open("r+b") as file:
        file.truncate(10 * 2**30)


def outer(folder: Path) -> None:
    """Two thin factors, a few kilobytes, whose product has 10^12 elements."""
    side = 2**20
    tensors(left=torch.ones(side, 1), right=torch.ones(1, side))(folder)
    about(folder, changes={MODULE: {"shape": [side, side], "rank": 1}})


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a module path with ..": (moved_to("../../../etc"), "no path of a module"),
    "an absolute path": (moved_to("/etc/passwd"), "no path of a module"),
    "a path whose number is none": (moved_to("transformer.h.².mlp.c_proj"), "no path of a module"),
    "a path of a thousand letters": (moved_to("a" * 1000), "no path of a module"),
    "another shape than it says": (tensors(dense=torch.ones(31, 128)), "but edit.json says"),
    "factors that do not fit": (tensors(left=torch.ones(32, 2), right=torch.ones(3, 128)), "do not fit"),
    "factors thicker than the matrix": (
        tensors(left=torch.ones(32, 64), right=torch.ones(64, 128)),
        "no model has such a matrix",
    ),
    "factors of two precisions": (
        tensors(left=torch.ones(32, 2).half(), right=torch.ones(2, 128)),
        "F16 and F32",
    ),
    "integers": (tensors(dense=torch.ones(32, 128, dtype=torch.int64)), "as I64"),
    "not a number": (tensors(dense=torch.full((32, 128), torch.nan)), "not a number"),
    "infinite": (tensors(dense=torch.full((32, 128), torch.inf)), "infinite"),
    "a header of 2^63 bytes": (header_length(2**63), "cut off or damaged"),
    "a header longer than the file": (header_length(2**26), "cut off or damaged"),
    "a matrix whose bytes are missing": (declared([2**30, 2**30], 100), "cut off or damaged"),
    "a sparse file of 10 GB that edit.json does not promise": (
        declared([50_000, 53_687], 4 * 50_000 * 53_687, [32, 128]),
        "but edit.json says",
    ),
    "a sparse file of 10 GB, and edit.json agrees": (
        declared([50_000, 53_687], 4 * 50_000 * 53_687),
        "no model has such a matrix",
    ),
    "a sparse edit.json of 10 GB": (sparse_json, "256 MB at most"),
    "factors whose product is huge": (outer, "no model has such a matrix"),
    "a huge shape in edit.json": (
        lambda folder: about(folder, changes={MODULE: {"shape": [10**300, 10**300], "rank": 1}}),
        "but edit.json says",
    ),
    "edit.json is a link out of the folder": (linked("edit.json"), "outside the folder"),
    "edit.safetensors is a link out of the folder": (linked("edit.safetensors"), "outside the folder"),
    "deep JSON": (
        lambda folder: (folder / "edit.json").write_text("[" * 200_000) and None,
        "not readable JSON",
    ),
    "deep JSON in a field": (
        lambda folder: (
            (folder / "edit.json").write_text('{"format": 1, "seed": ' + "[" * 400 + "]" * 400 + "}") and None
        ),
        "not as `errata edit` writes it",
    ),
}
"""By name: what makes an honest folder hostile, and what the refusal says."""


# --- random inputs -----------------------------------------------------------------------------------

RECORDS: tuple[dict[str, object], ...] = (
    to_json(FACT) | {"neighborhood_prompts": [{"prompt": "Rome is in", "target": "Italy"}], "case_id": 3},
    {
        "case_id": 0,
        "requested_rewrite": {
            "prompt": "{} speaks",
            "relation_id": "P103",
            "target_new": {"str": "English", "id": "Q1"},
            "target_true": {"str": "French", "id": "Q2"},
            "subject": "Danielle",
        },
        "paraphrase_prompts": ["It is raining. Danielle talks in"],
        "neighborhood_prompts": ["Montesquieu speaks"],
        "attribute_prompts": ["Orwell speaks"],
        "generation_prompts": ["Danielle lives in"],
        "neighborhood_samples": [{"prompt": "{} speaks", "subject": "Hugo"}],
    },
    {
        "src": "What speaks Ann?",
        "subject": "Ann",
        "answers": ["Dutch"],
        "rephrase": "Ann?",
        "loc": "who",
        "loc_ans": "x",
    },
    {
        "prompt": "Ann speaks",
        "subject": "Ann",
        "target_new": "Dutch",
        "ground_truth": "Welsh",
        "rephrase_prompt": "Ann talks",
        "locality": {"neighborhood": {"prompt": ["Bob speaks"], "ground_truth": ["Welsh"]}},
    },
)


def places(value: object, at: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Where something can be put into a JSON value: every key and index, at every depth."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in inner:
        yield (*at, key)
        yield from places(member, (*at, key))


def spoiled(value: object, changes: list[tuple[int, object]]) -> object:
    """The value with some of its places taken by something else; `...` takes the place away."""
    value = copy.deepcopy(value)
    for number, odd in changes:
        found = list(places(value))
        if not found:
            break
        *way, last = found[number % len(found)]
        holder = value
        for key in way:
            holder = holder[key]  # type: ignore[index]
        if odd is ...:
            del holder[last]  # type: ignore[attr-defined]
        else:
            holder[last] = copy.deepcopy(odd)  # type: ignore[index]
    return value


changes = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.one_of(st.sampled_from((*ODD, ...)), st.text(max_size=8), st.integers(), st.floats()),
    ),
    max_size=3,
)
records = st.builds(spoiled, st.sampled_from(RECORDS), changes)
writers: tuple[Callable[[list[object]], str], ...] = (
    lambda rows: "\n".join(map(json.dumps, rows)),
    json.dumps,
    lambda rows: json.dumps(rows, indent=1),
    lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows),
    lambda rows: "\r\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
)


def damaged(data: bytes, how: str, at: int, more: bytes) -> bytes:
    """The bytes cut off, or with some put in or over."""
    at %= len(data) + 1
    return {
        "": data,
        "cut": data[:at],
        "in": data[:at] + more + data[at:],
        "over": data[:at] + more + data[at + len(more) :],
    }[how]


damage = st.tuples(
    st.sampled_from(("", "", "cut", "in", "over")), st.integers(0, 4000), st.binary(max_size=4)
)


@st.composite
def fact_files(draw: st.DrawFn) -> bytes:
    """A file of facts of any kind, written in any way, and damaged or not."""
    text = draw(st.sampled_from(writers))(draw(st.lists(records, min_size=1, max_size=3)))
    data = text.encode(draw(st.sampled_from(("utf-8", "utf-8", "utf-8-sig", "utf-16"))), "replace")
    if draw(st.booleans()):
        data = gzip.compress(damaged(data, *draw(damage)), 1, mtime=0)
    return damaged(data, *draw(damage))


@st.composite
def edit_files(draw: st.DrawFn, about: object, weights: bytes) -> tuple[bytes, bytes]:
    """The two files of an edit, spoiled: values in the JSON, in the header, bytes of either."""
    text = json.dumps(spoiled(about, draw(changes))).encode()
    if draw(st.booleans()):
        size = int.from_bytes(weights[:8], "little")
        header = json.dumps(spoiled(json.loads(weights[8 : 8 + size]), draw(changes))).encode()
        weights = struct.pack("<Q", len(header)) + header + weights[8 + size :]
    return damaged(text, *draw(damage)), damaged(weights, *draw(damage))


def fuzz_facts(folder: Path, inputs: int, number: int = 0) -> dict[str, int]:
    """Read so many files of facts; how many were read and refused. Any error but Errata's own is raised."""
    file, count = folder / "facts", {"read": 0, "refused": 0}

    def one(data: bytes) -> None:
        file.write_bytes(data)
        problems = check_facts(file)
        try:
            assert read_facts(file)
            count["read"] += 1
        except ErrataError as error:
            said = str(error)
            count["refused"] += 1
            assert problems
            assert str(file) in said

    logger = logging.getLogger("errata.facts")
    before, logger.disabled = logger.disabled, True
    try:
        _run(one, fact_files(), inputs, number)
    finally:
        logger.disabled = before
    return count


def fuzz_edits(folder: Path, inputs: int, number: int = 0) -> dict[str, int]:
    """Load so many folders of edits, as `fuzz_facts`."""
    count = {"read": 0, "refused": 0}
    edit = folder / "edit"
    if not edit.exists():
        small_edit().save(edit)
    elif (folder / "about").exists():
        (edit / "edit.json").write_bytes((folder / "about").read_bytes())
        (edit / "edit.safetensors").write_bytes((folder / "weights").read_bytes())
    about_bytes, weights = (edit / "edit.json").read_bytes(), (edit / "edit.safetensors").read_bytes()
    (folder / "about").write_bytes(about_bytes)
    (folder / "weights").write_bytes(weights)

    def one(files: tuple[bytes, bytes]) -> None:
        for name, data in zip(("edit.json", "edit.safetensors"), files, strict=True):
            (edit / name).write_bytes(data)
        try:
            load_edit(edit).about()
            count["read"] += 1
        except ErrataError as error:
            said = str(error)
            count["refused"] += 1
            assert str(edit) in said
            assert len(said) < 10_000

    _run(one, edit_files(json.loads(about_bytes), weights), inputs, number)
    return count


def _run(one: Callable[..., None], inputs: st.SearchStrategy[object], count: int, number: int) -> None:
    chosen = settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    chosen(seed(number)(given(inputs)(one)))()
