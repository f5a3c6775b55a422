"""The folder that `errata locate` writes: numbers as JSON, figures, a preset with the critical layers, one HTML page.

results.json           what was run, the averages, the layers suggested, what was left out
facts/001.json         each traced fact: tokens and the probability for every kind, layer and token
figures/*.svg, *.png   the average, the curves, the first facts
critical-layers.toml   for `errata edit --preset`
index.html             all of it to look at; needs no network
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from errata.analysis.effects import DECISIVE, GROUPS, KINDS, TITLES, average, critical_layers
from errata.analysis.locating import Located
from errata.errors import MissingExtra
from errata.results import Score, mean_score
from errata.runtime import atomic_folder, to_json
from errata.settings import load_presets, method_names

RESULTS, PRESET, PAGE = "results.json", "critical-layers.toml", "index.html"
SCHEMA = 1
FIGURES_OF_FACTS = 20
EXTRA = ("matplotlib", "jinja2")


def check_extra() -> None:
    """Raise now where drawing would fail after hours of work.

    Raises:
        MissingExtra: a package is missing.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"The figures and the page need {' and '.join(missing)}: pip install 'errata[report]'. "
            "Without --output nothing is drawn."
        )


def write_located(located: Located, path: str | os.PathLike[str], figures: int = FIGURES_OF_FACTS) -> Path:
    """Write the folder, with figures of the first so many facts; it appears when it is whole.

    Raises:
        OutputExists: something is there already.
        MissingExtra: matplotlib or jinja2 is missing.
    """
    check_extra()
    from errata.analysis.drawing import draw_all

    with atomic_folder(path) as folder:
        _write_json(folder / RESULTS, summary(located))
        (folder / "facts").mkdir()
        for number, one in enumerate(located.effects, start=1):
            _write_json(folder / "facts" / f"{number:03d}.json", to_json(one))
        names = draw_all(located, folder / "figures", figures)
        (folder / PRESET).write_text(preset_text(located), encoding="utf-8")
        (folder / PAGE).write_text(_page(located, folder / "figures", names), encoding="utf-8")
    return Path(path)


def summary(located: Located) -> dict[str, object]:
    """All but the facts' own numbers, as a JSON object."""
    several, one = critical_layers(located.effects)
    return {
        "kind": "errata causal tracing",
        "schema": SCHEMA,
        "model": located.model,
        "revision": located.revision,
        "fingerprint": located.fingerprint,
        "layers": located.layers,
        "noise_samples": located.samples,
        "window": located.window,
        "noise": located.noise,
        "sigma": located.sigma,
        "seed": located.seed,
        "facts": len(located.effects),
        "left_out": [
            {"question": each.fact.question, "target_true": each.fact.target_true, "reason": each.reason}
            for each in located.left_out
        ],
        "clean": to_json(mean_score(effects.clean for effects in located.effects)),
        "noised": to_json(mean_score(effects.noised for effects in located.effects)),
        "total_effect": to_json(mean_score(effects.total_effect for effects in located.effects)),
        "average_indirect_effect": {
            kind: {group: to_json(average(located.effects, kind, group)) for group in GROUPS}
            for kind in KINDS
        },
        "critical_layers": list(several),
        "critical_layer": one,
    }


def preset_text(located: Located) -> str:
    """The critical layers as a file for `--preset`."""
    several, one = critical_layers(located.effects)
    source = (
        f"causal tracing of {len(located.effects)} facts, {located.samples} draws of noise, seed {located.seed}: up to "
        "the largest average indirect effect of a state at the subject's last token"
    )
    head = (
        f"# Written by `errata locate`. All other settings are those of the model's own preset.\n"
        f'name = "critical-layers"\nsource = {json.dumps(source)}\nmodels = [{json.dumps(located.model)}]\n'
    )
    return head + "".join(_table(method, several, one) for method in method_names())


def _table(method: str, several: Sequence[int], one: int) -> str:
    """The layers of one method; where answers are read out lies above what is traced here."""
    lines = [
        f"{setting} = {json.dumps(str(one) if rule == 'one' else span(several))}\n"
        for setting, rule in load_presets(method).layer_rules.items()
        if rule != "read_out"
    ]
    return f"\n[{method}]\n{''.join(lines)}"


def span(layers: Sequence[int]) -> str:
    """3-7, or 5."""
    return f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else str(layers[0])


def _page(located: Located, figures: Path, names: Iterable[str]) -> str:
    import jinja2

    template = resources.files("errata.analysis").joinpath("locating_page.html.j2").read_text("utf-8")
    several, one = critical_layers(located.effects)
    drawn = [_image(figures / f"{name}.svg") for name in names]
    page: str = (
        jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        .from_string(template)
        .render(
            located=located,
            shown=_shown,
            clean=mean_score(effects.clean for effects in located.effects),
            noised=mean_score(effects.noised for effects in located.effects),
            total=mean_score(effects.total_effect for effects in located.effects),
            several=span(several),
            one=one,
            preset=PRESET,
            images={name: _image(figures / f"{name}.svg") for name in ("average", "curves")},
            rows=[(TITLES[kind], average(located.effects, kind, DECISIVE)) for kind in KINDS],
            facts=list(zip(located.effects, drawn, strict=False)),
            hidden=len(located.effects) - len(drawn),
        )
    )
    return page


def _image(path: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _shown(score: Score | None) -> str:
    if score is None:
        return ""
    return f"{score.mean:.3f}" + ("" if score.margin is None else f" ± {score.margin:.3f}")


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
