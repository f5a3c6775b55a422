"""Copy what the tests read of the recorded arrays: `python tests/goldens/copy_from.py FOLDER`.

FOLDER holds the recordings of the published programs with their README. What is left out: gradients, logits, float64
second moments.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
PER_REQUEST = ("input_ids", "attention_mask", "lookup_idxs", "step.loss", "step.nll_loss", "step.kl_loss")
PER_REQUEST += ("step.weight_decay", "step.nll_factor", "step.nll_each", "step.delta", "step.delta_mlp")
PER_REQUEST += ("step.delta_attn", "target", "target_mlp", "target_attn")
PER_REQUEST += ("target_init", "target_init_mlp", "target_init_attn")
PER_SITE = ("K", "cur_zs", "residual", "upd_matrix")
PER_SITE += ("k_mean", "u", "cur_input", "cur_output", "denom", "right_vector")  # ROME's


def copy_run(source: Path, target: Path) -> None:
    """One method on one model: the arrays that tests compare, and the settings they were made with."""
    arrays = np.load(source / "trace.npz")
    kept: dict[str, torch.Tensor] = {}
    for name in arrays.files:
        owner, _, rest = name.partition(".")
        wanted = rest in PER_REQUEST if owner.startswith("req") else name.rpartition(".")[2] in PER_SITE
        if wanted and not name.startswith("logits"):
            kept[name] = torch.from_numpy(np.ascontiguousarray(arrays[name]))
    target.mkdir(parents=True)
    save_file(kept, target / "trace.safetensors")
    meta = json.loads((source / "meta.json").read_text())
    about = {"hparams": meta["hparams"], "stops": [request["stop"] for request in meta["requests"]]}
    (target / "about.json").write_text(json.dumps(about, indent=1))
    shutil.copy(source / "weights.safetensors", target)


def main(source: Path) -> None:
    """Copy every model and every run."""
    for model in sorted(path.name for path in (source / "models").iterdir()):
        shutil.rmtree(HERE / model, ignore_errors=True)
        shutil.copytree(source / "models" / model, HERE / model / "model")
        moments = load_file(source / model / "stats.safetensors")
        save_file(
            {k: v for k, v in moments.items() if not k.endswith(".f64")}, HERE / model / "moments.safetensors"
        )
        for run in sorted(path.parent for path in (source / model).glob("**/trace.npz")):
            copy_run(run, HERE / run.relative_to(source))
    inputs = json.loads((source / "inputs.json").read_text())
    kept = {
        name: inputs[name] for name in ("requests", "early_requests", "context_templates", "stat_sentences")
    }
    (HERE / "inputs.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
