"""``report.html``: ``report.md`` as one self-contained file, for the browser of a computer or a phone, light or dark.

Figures are embedded as data; there are no scripts and no links to elsewhere. On a narrow screen a figure's panels stand
one below another, in a drawing of their own, and a wide table scrolls in its frame while its first column stays.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from scaledown.evaluation.report.markdown_text import anchor

RenderRule = Callable[..., str]
NARROW = "max-width: 48rem"
LIGHT = {"page": "#ffffff", "text": "#222222", "quiet": "#5c5c5c", "line": "#dddddd", "code": "#f5f5f5",
         "link": "#005a92"}
DARK = {"page": "#16181b", "text": "#e6e6e6", "quiet": "#a9adb3", "line": "#3a3e44", "code": "#23262b",
        "link": "#7cc4f2"}
"""Colours by what they are for. Figures are drawn on white, so on a dark page each stands on a white card."""

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 72rem;
  margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h1 + p { font-size: 1.15rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
a { color: var(--link); }
.figure img { display: block; width: 100%; height: auto; background: #fff; border-radius: .4rem; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
p, li, td { unicode-bidi: plaintext; }
th, td { min-width: 5.5rem; padding: .35rem .6rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { color: var(--quiet); font-weight: 600; vertical-align: bottom; overflow-wrap: normal; }
td:first-child { font-weight: 600; }
pre { overflow-x: auto; background: var(--code); padding: .75rem; }
@media (NARROW) {
  th, td { overflow-wrap: break-word; }
  th:first-child, td:first-child { position: sticky; left: 0; min-width: 6rem; max-width: 7.5rem;
    background: var(--page); border-right: 1px solid var(--line); }
}
""".replace("NARROW", NARROW)


def html_page(markdown: str, folder: Path, narrow_folder: Path | None = None) -> str:
    """Return ``report.md``'s text as a page; HTML inside the markdown is shown as text.

    Args:
        markdown: the text.
        folder: holds the pictures that it names.
        narrow_folder: holds pictures of the same names for narrow screens; one that is missing is shown as it is.
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.add_render_rule("image", _picture_rule(folder, narrow_folder))
    reader.add_render_rule("table_open", lambda *_: '<div class="table" role="region" tabindex="0">\n<table>\n')
    reader.add_render_rule("table_close", lambda *_: "</table>\n</div>\n")
    tokens = reader.parse(markdown)

    title = ""
    # Each block opens with a token that has its tag, before the token with its content.
    for opening, token in zip([None, *tokens], tokens, strict=False):
        if opening is None:
            continue
        if opening.tag == "h1":
            title = title or token.content
        if opening.type == "heading_open":
            opening.attrSet("id", anchor(token.content))  # for the links of the contents
        if any(child.type == "image" for child in token.children or ()):
            opening.attrSet("class", "figure")

    body = reader.renderer.render(tokens, reader.options, {})
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<style>{_colours()}{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n")


def _colours() -> str:
    def variables(colours: dict[str, str]) -> str:
        return " ".join(f"--{name}: {colour};" for name, colour in colours.items())

    return (f"\n:root {{ color-scheme: light dark; {variables(LIGHT)} }}\n"
            f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}")


def _picture_rule(folder: Path, narrow_folder: Path | None) -> RenderRule:
    """Return how an image is shown: beside the one that narrow screens show instead, if there is one."""

    def picture(renderer: RendererHTML, tokens: Sequence[Token], place: int, options: Any, environment: Any) -> str:
        token = tokens[place]
        name = str(token.attrs["src"])
        token.attrSet("src", _as_data(folder / name))
        image = renderer.image(tokens, place, options, environment)

        if narrow_folder is None or not (narrow_folder / name).is_file():
            return image
        source = f'<source media="({NARROW})" srcset="{_as_data(narrow_folder / name)}">'
        return f"<picture>{source}{image}</picture>"

    return picture


def _as_data(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode('ascii')}"
