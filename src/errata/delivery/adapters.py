"""Changes of weights as a LoRA adapter that plain PEFT loads, or as plain differences of parameters; and back.

With Delta = U S V^T, an adapter of LoRA (Hu et al. 2021, eq. 3: h = W x + (alpha / r) B A x) with

    B = U S^(1/2),  A = S^(1/2) V^T,  alpha = r

adds Delta exactly. Its rank is the number of singular values that are not zero: at most one a fact and write. A dense
Delta, whose rank is more than half of its smaller side, becomes A = Delta, B = I (or the other way round): it stands in
the adapter as it is.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from errata.edits import Delta
from errata.errors import EditError, MissingExtra, SettingsError
from errata.models import Site

if TYPE_CHECKING:
    from peft import LoraConfig

CONFIG, WEIGHTS, DIFF = "adapter_config.json", "adapter_model.safetensors", "weight_diff.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts before a module's path."""


@dataclass(frozen=True)
class Cut:
    """What is left of the change of one weight in an adapter."""

    delta: Delta
    full_rank: int
    """Singular values that are not zero."""
    norm: float
    lost: float
    """The Frobenius norm of what was cut off."""
    dense: bool = False
    """Whether the change is too dense for thin factors and stands in the adapter as it is."""


def check_peft() -> None:
    """Raise where adapters can be neither written nor read.

    Raises:
        MissingExtra: PEFT is not installed.
    """
    if find_spec("peft") is None:
        raise MissingExtra("LoRA adapters are written and read with PEFT: pip install 'errata[export]'.")


def cut(delta: Delta, rank: int | None = None) -> Cut:
    """The best factors of a change: exact, or at most `rank` of them (Eckart and Young 1936).

    Raises:
        SettingsError: the rank is not at least 1.
    """
    if rank is not None and rank < 1:
        raise SettingsError(f"The rank of an adapter is {rank}. It must be at least 1.")
    left, sizes, right = _svd(delta)
    # What rounding leaves in place of zeros, as numpy.linalg.matrix_rank tells it.
    nothing = float(sizes[0]) * max(delta.shape) * torch.finfo(delta.matrix.dtype).eps if len(sizes) else 0.0
    full = int((sizes > nothing).sum())
    norm = float(sizes.square().sum().sqrt())
    dtype = torch.promote_types(delta.matrix.dtype, torch.float32)
    if rank is None and full > min(delta.shape) / 2:
        return Cut(_as_it_is(delta.matrix.cpu().to(dtype)), full, norm, 0.0, dense=True)
    kept = full if rank is None else min(rank, full)
    roots = sizes[:kept].sqrt()
    thin = Delta(
        (left[:, :kept] * roots).to(dtype).contiguous(),
        (roots[:, None] * right[:kept]).to(dtype).contiguous(),
    )
    return Cut(thin, full, norm, float(sizes[kept:full].square().sum().sqrt()))


def _as_it_is(matrix: Float[Tensor, "d_out d_in"]) -> Delta:
    """Two factors of which one is the matrix itself and the other the identity."""
    unit = torch.eye(min(matrix.shape), dtype=matrix.dtype)
    wide = matrix.shape[0] <= matrix.shape[1]
    return Delta(unit, matrix.contiguous()) if wide else Delta(matrix.contiguous(), unit)


def cut_notes(cuts: Mapping[str, Cut]) -> tuple[str, ...]:
    """What a card says of changes that were cut, or that are dense; nothing where the adapter is thin and exact."""
    notes: list[str] = []
    lost = share_lost(cuts.values())
    dense = sum(one.dense for one in cuts.values())
    if lost:
        rank = max(one.delta.rank for one in cuts.values())
        notes.append(f"The change was cut to rank {rank}: {lost:.2%} of its norm is lost.")
    if dense:
        notes.append(
            f"The change of {dense} of {len(cuts)} weights is dense, and stands in the adapter as it is. Plain "
            "differences of weights (`errata export --format safetensors`) are smaller."
        )
    return tuple(notes)


def share_lost(cuts: Iterable[Cut]) -> float:
    """The norm of what was cut off, over the norm of the whole change."""
    every = list(cuts)
    whole = sum(one.norm**2 for one in every)
    return (sum(one.lost**2 for one in every) / whole) ** 0.5 if whole else 0.0


def _svd(delta: Delta) -> tuple[Tensor, Tensor, Tensor]:
    """U [d_out, r], S [r], V^T [r, d_in] in float64; of thin factors without ever making the matrix."""
    if delta.dense is not None:
        return _thin_svd(delta.dense.cpu().double())
    outer, upper = _qr(delta.tensors["left"].cpu().double())
    inner, lower = _qr(delta.tensors["right"].cpu().double().T)
    left, sizes, right = _thin_svd(upper @ lower.T)
    return outer @ left, sizes, right @ inner.T


def _qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    return cast("tuple[Tensor, Tensor]", torch.linalg.qr(matrix))


def _thin_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return cast("tuple[Tensor, Tensor, Tensor]", torch.linalg.svd(matrix, full_matrices=False))


def write_adapter(
    folder: Path, cuts: Mapping[str, Cut], sites: Mapping[str, Site], base: str, revision: str | None
) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` into a folder that is there.

    Raises:
        MissingExtra: PEFT is not installed.
        EditError: something other than linear maps is changed, or nothing at all.
    """
    check_peft()
    ranks = _ranks(cuts, sites)
    config = _lora_config(ranks, base, revision, transposed=any(sites[path].transposed for path in ranks))
    config.save_pretrained(str(folder))
    tensors: dict[str, Tensor] = {}
    for path in ranks:
        factors = cuts[path].delta.tensors
        tensors[f"{PREFIX}{path}.lora_A.weight"] = factors["right"]
        tensors[f"{PREFIX}{path}.lora_B.weight"] = factors["left"]
    _save(tensors, folder / WEIGHTS)


def _ranks(cuts: Mapping[str, Cut], sites: Mapping[str, Site]) -> dict[str, int]:
    """The rank of each weight's change, of those that are changed.

    Raises:
        EditError: something other than linear maps is changed, or nothing at all.
    """
    other = [path for path, site in sites.items() if not _is_linear(site)]
    if other:
        raise EditError(
            f"The edit changes {', '.join(other[:3])}{' ...' if len(other) > 3 else ''}, which no LoRA adapter can: "
            "they are no linear maps. Export it with --format safetensors."
        )
    ranks = {path: one.delta.rank for path, one in cuts.items() if one.delta.rank}
    if not ranks:
        raise EditError("The edit changes nothing, so there is no adapter to write.")
    return ranks


def _lora_config(ranks: Mapping[str, int], base: str, revision: str | None, transposed: bool) -> "LoraConfig":
    """The settings of an adapter with these ranks; alpha is the rank everywhere, so B A is added as it is."""
    from peft import LoraConfig, TaskType

    most = max(ranks.values())
    patterns = {path: rank for path, rank in ranks.items() if rank != most}
    config = LoraConfig(
        r=most,
        lora_alpha=most,
        rank_pattern=patterns,
        alpha_pattern=dict(patterns),
        target_modules=sorted(ranks),
        fan_in_fan_out=transposed,
        bias="none",
        lora_dropout=0.0,
        task_type=TaskType.CAUSAL_LM,
        base_model_name_or_path=base,
        revision=revision,
        inference_mode=True,
    )
    config.target_modules = sorted(ranks)  # PEFT keeps a set, whose order changes from run to run
    return config


def write_diff(folder: Path, deltas: Mapping[str, Delta], sites: Mapping[str, Site]) -> None:
    """Write `weight_diff.safetensors`: by parameter name what is to be added to it, as the model stores it."""
    tensors: dict[str, Tensor] = {}
    for path, delta in deltas.items():
        site, matrix = sites[path], delta.matrix.cpu()
        stored = matrix.T if site.transposed else matrix
        name = f"{path}.{site.parameter}" if _is_linear(site) else path
        tensors[name] = stored.reshape(site.weight.shape).contiguous()
    _save(tensors, folder / DIFF)


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    save_file(tensors, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors writes for its owner alone; what is shipped is read by others


def _is_linear(site: Site) -> bool:
    return isinstance(site.module, nn.Linear | Conv1D) and site.parameter == "weight"


def read_adapter(folder: Path) -> dict[str, Delta]:
    """The changes that a LoRA adapter adds to a model, by module path.

    Raises:
        MissingExtra: PEFT is not installed.
        EditError: no adapter, a damaged one, or one that is more than a plain LoRA of linear maps.
    """
    check_peft()
    config = _read_config(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        raise EditError(f"{folder} has no {WEIGHTS}. Adapters in pickle files (.bin) are not read.")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise EditError(f"{file} is cut off or damaged: {error}. Copy or make the adapter again.") from error
    deltas: dict[str, Delta] = {}
    for name in sorted(name for name in tensors if name.endswith(".lora_A.weight")):
        path = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        inner, outer = tensors.pop(name), tensors.pop(name.replace(".lora_A.", ".lora_B."), None)
        deltas[path] = _read_factors(file, path, outer, inner, config)
    if tensors or not deltas:
        what = f"holds {next(iter(tensors))!r}" if tensors else "holds no LoRA factors"
        raise EditError(f"{file} {what}. Errata reads plain LoRA adapters of linear maps.")
    return deltas


def _read_factors(file: Path, path: str, outer: Tensor | None, inner: Tensor, config: "LoraConfig") -> Delta:
    """(alpha / r) B A as factors; of the square root of r where the adapter is rank-stabilised."""
    from peft.utils.other import get_pattern_key

    if outer is None or outer.ndim != 2 or inner.ndim != 2 or outer.shape[1] != inner.shape[0]:
        raise EditError(f"{file} does not hold two factors of {path} that fit each other.")
    if not all(part.is_floating_point() and bool(part.isfinite().all()) for part in (outer, inner)):
        raise EditError(f"{file} holds numbers for {path} that are infinite or not a number.")
    alphas = cast("dict[str, float]", config.alpha_pattern or {})
    alpha = alphas.get(get_pattern_key(list(alphas), path), config.lora_alpha)
    rank = inner.shape[0]
    dtype = torch.promote_types(outer.dtype, torch.float32)
    scaled = outer.double() * (alpha / (rank**0.5 if config.use_rslora else rank))
    return Delta.from_factors(scaled, inner.double(), dtype)


PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin a training that leave the base model's weights alone."""
NEVER = (
    "use_dora lora_bias modules_to_save target_parameters trainable_token_indices layer_replication "
    "alora_invocation_tokens use_qalora use_bdlora arrow_config kasa_config velora_config monteclora_config"
).split()
"""What makes an adapter more than B A: refused wherever it is set."""


def _read_config(folder: Path) -> "LoraConfig":
    from peft import LoraConfig

    file = folder / CONFIG
    if not file.is_file():
        raise EditError(f"{folder} is not an adapter: it has no {CONFIG}. Give a folder that PEFT wrote.")
    try:
        given = cast("dict[str, Any]", json.loads(file.read_text(encoding="utf-8")))
        if given.get("peft_type") != "LORA":
            raise EditError(f"{file} is of type {given.get('peft_type')}. Errata reads LoRA adapters.")
        config = cast(LoraConfig, LoraConfig.from_pretrained(str(folder)))
    except EditError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise EditError(f"{file} cannot be read: {error}. Copy or make the adapter again.") from error
    alphas: object = given.get("alpha_pattern") or {}
    each = cast("dict[str, object]", alphas).values() if isinstance(alphas, dict) else [None]
    if not all(isinstance(alpha, int | float) for alpha in (config.lora_alpha, *each)):
        raise EditError(
            f"{file} cannot be read: lora_alpha or alpha_pattern holds something else than numbers."
        )
    unusual = [name for name in NEVER if given.get(name)]
    if given.get("bias", "none") != "none":
        unusual.append("bias")
    if given.get("init_lora_weights", True) not in PLAIN_STARTS:
        unusual.append("init_lora_weights")
    if unusual:
        raise EditError(
            f"{file} sets {', '.join(unusual)}: such an adapter is more than a sum of thin matrices, and cannot be an "
            "edit."
        )
    return config
