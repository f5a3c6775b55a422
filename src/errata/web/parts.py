"""What the page is put together from: places for fragments, the theme, and the part that shows a stored run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import gradio as gr
from gradio.themes import Base, Default

from errata.web import fragments
from errata.web.stored import Stored

CSS = Path(__file__).with_name("page.css")
SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO_FONTS = ["ui-monospace", "Menlo", "Consolas", "monospace"]


def theme() -> Base:
    """Gradio's plain theme with the fonts of the person's own system: nothing is fetched."""
    return Default(font=SYSTEM_FONTS, font_mono=MONO_FONTS, primary_hue="blue", secondary_hue="blue")


def html(value: str = "", *, visible: bool = True, classes: str | None = None) -> gr.HTML:
    """A place for a fragment, with no style or script of Gradio's own."""
    return gr.HTML(value, visible=visible, elem_classes=classes, js_on_load=None, apply_default_css=False)


def slot() -> gr.HTML:
    """The place of an error, beside its field."""
    return html(visible=False, classes="er-slot")


def shown(text: str) -> Any:
    """A fragment to be seen, or nothing."""
    return gr.update(value=text, visible=bool(text))


def file_of(path: Path | None) -> Any:
    """What a download button gives; without a file it cannot be pressed."""
    return gr.update(value=None if path is None else cast(Any, str(path)), interactive=path is not None)


def stored_run(stored: Stored) -> None:
    """Scores and answers of an evaluation, or the table of a recipe, with the figures."""
    gr.Markdown("# Stored run", elem_classes="er-head")
    html(fragments.note(f"{stored.title}: {stored.about}"))
    if stored.results is not None:
        gr.Markdown("## Scores")
        html(fragments.scores(stored.results))
        gr.Markdown("## Before and after")
        html(fragments.lines(stored.lines))
    else:
        gr.Markdown("## Table")
        html(fragments.grid(stored.columns, stored.rows))
    for name, svg in stored.figures:
        html(fragments.figure(name, svg))
