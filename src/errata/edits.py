"""The Edit: what an edit changes, kept apart from the model it changes. Apply it, take it back, save it, load it.

`edits.py`, not `edit.py`: the public function is called `errata.edit` (docs/decisions).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from errata.errors import AlreadyApplied, EditError, NotApplied, WrongModel
from errata.facts import Fact
from errata.model import EditableModel, Site

SettingValue = bool | int | float | str | tuple[int, ...] | tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class Delta:
    """The change of one weight, [d_out, d_in]: two thin factors, or one dense matrix where thin would not be thin."""

    left: Float[Tensor, "d_out rank"] | None
    right: Float[Tensor, "rank d_in"] | None
    dense: Float[Tensor, "d_out d_in"] | None = None

    @classmethod
    def from_factors(
        cls, left: Float[Tensor, "d_out rank"], right: Float[Tensor, "rank d_in"], dtype: torch.dtype
    ) -> "Delta":
        """Keep the factors, or their product when the rank exceeds half of the smaller side."""
        if left.shape[1] > min(left.shape[0], right.shape[1]) / 2:
            return cls(None, None, (left @ right).to(dtype).contiguous())
        return cls(left.to(dtype).contiguous(), right.to(dtype).contiguous())

    @property
    def matrix(self) -> Float[Tensor, "d_out d_in"]:
        """The change as one matrix."""
        if self.dense is not None:
            return self.dense
        left, right = self.tensors["left"], self.tensors["right"]
        return left @ right

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is stored: `left` and `right`, or `dense`."""
        parts = {"left": self.left, "right": self.right, "dense": self.dense}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def rank(self) -> int:
        """At most this many directions are changed."""
        return min(self.dense.shape) if self.dense is not None else self.tensors["left"].shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        if self.dense is not None:
            return self.dense.shape[0], self.dense.shape[1]
        return self.tensors["left"].shape[0], self.tensors["right"].shape[1]


@dataclass(frozen=True)
class Dropped:
    """A fact that was asked for and left out of the edit, and why."""

    fact: Fact
    reason: str


@dataclass(frozen=True)
class EditOrigin:
    """Where an edit comes from: everything that it takes to make it again, and to know where it belongs."""

    method: str
    settings: Mapping[str, SettingValue]
    contexts: tuple[str, ...]
    seed: int
    model: str
    revision: str | None
    fingerprint: str
    """Of the weights that the edit was made for."""
    model_dtype: str
    covariance: str
    """Which second moments were used."""
    preset: str
    versions: Mapping[str, str]
    created: str


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of a few weight matrices that makes a model say new facts."""

    deltas: Mapping[str, Delta]
    """By module path."""
    facts: tuple[Fact, ...]
    origin: EditOrigin
    dropped: tuple[Dropped, ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict[str, float])
    """What was measured of it when it was made."""

    def apply(self, model: EditableModel) -> None:
        """Write the edit into the model's weights; nothing is written if anything does not fit.

        Raises:
            AlreadyApplied: this edit is in the weights.
            WrongModel: it was made for other weights.
        """
        self._check(model)
        sites = {path: _site_at(model, path) for path in self.deltas}
        backups = {path: site.weight.detach().clone() for path, site in sites.items()}
        try:
            for path, delta in self.deltas.items():
                write_delta(sites[path], delta)
                if not bool(sites[path].weight.isfinite().all()):
                    raise EditError(f"The edit makes {path} infinite or not a number in {model.dtype}; nothing written.")
        except BaseException:
            _restore(sites, backups)
            raise
        model.written.append(_Written(self, backups))

    def revert(self, model: EditableModel) -> None:
        """Put the weights back, bit for bit.

        Raises:
            NotApplied: the edit is not in the model, or a later one lies on top of it.
        """
        written = _written(model)
        if not any(entry.edit is self for entry in written):
            raise NotApplied(f"This edit of {self.origin.model} is not applied to {model.name}; nothing to revert.")
        if written[-1].edit is not self:
            raise NotApplied("Another edit was applied after this one. Revert that one first.")
        _restore({path: _site_at(model, path) for path in self.deltas}, written[-1].backups)
        model.written.pop()

    @contextmanager
    def applied(self, model: EditableModel) -> Iterator[EditableModel]:
        """`with edit.applied(model):` the edit is in the weights inside, and taken back whatever happens."""
        self.apply(model)
        try:
            yield model
        finally:
            self.revert(model)

    def _check(self, model: EditableModel) -> None:
        if any(entry.edit is self or _same_edit(entry.edit, self) for entry in _written(model)):
            raise AlreadyApplied(f"This edit is in the weights of {model.name} already. Revert it before applying again.")
        known = {model.fingerprint} if model.written else set[str]()
        if self.origin.fingerprint not in known and self.origin.fingerprint != model.measure_fingerprint():
            raise WrongModel(
                f"This edit was made for {self.origin.model} (fingerprint {self.origin.fingerprint[:12]}); "
                f"{model.name} has other weights. Load the model it was made for, or make the edit again."
            )
        for path, delta in self.deltas.items():
            shape = tuple(_site_at(model, path).matrix.shape)
            if shape != delta.shape:
                raise WrongModel(f"The edit changes {path} as {delta.shape}, but in {model.name} it is {shape}.")


@dataclass(frozen=True, eq=False)
class _Written:
    """An edit that is in the weights, with the weights as they were before."""

    edit: Edit
    backups: Mapping[str, Tensor]


def write_delta(site: Site, delta: Delta) -> None:
    """W <- W + Delta, added in the delta's precision and rounded to the weight's dtype once."""
    change = delta.matrix.to(site.weight.device)
    with torch.no_grad():
        site.matrix.copy_((site.matrix.to(change.dtype) + change).to(site.weight.dtype))


@contextmanager
def written_back(site: Site) -> Iterator[None]:
    """Whatever happens inside, the site's weight is afterwards what it was before, bit for bit."""
    backup = site.weight.detach().clone()
    try:
        yield
    finally:
        with torch.no_grad():
            site.weight.copy_(backup)


def _site_at(model: EditableModel, path: str) -> Site:
    for kind in ("ffn", "attention"):
        for layer in range(model.layers):
            if model.architecture.site_path(kind, layer) == path:
                return model.site(kind, layer)
    raise WrongModel(f"The edit changes {path!r}, which {model.name} does not have. It was made for another model.")


def _restore(sites: Mapping[str, Site], backups: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for path, site in sites.items():
            site.weight.copy_(backups[path])


def _written(model: EditableModel) -> list[_Written]:
    return [entry for entry in model.written if isinstance(entry, _Written)]


def _same_edit(one: Edit, other: Edit) -> bool:
    """Whether two edits change the same weights by the same amounts (one may have been saved and loaded)."""
    if one.deltas.keys() != other.deltas.keys():
        return False
    for path, delta in one.deltas.items():
        mine, theirs = delta.tensors, other.deltas[path].tensors
        if mine.keys() != theirs.keys() or any(not torch.equal(mine[name], theirs[name]) for name in mine):
            return False
    return True
