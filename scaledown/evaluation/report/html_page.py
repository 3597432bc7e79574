"""``report.html``: ``report.md`` as one self-contained file, for the browser of a computer or a phone.

Figures are embedded as data; there are no scripts and no links to elsewhere. On a narrow screen each table row becomes
a card, with its cells named by the table's header, and a figure fits the width until a tap enlarges it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 0 auto; padding: 1rem;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.figure { overflow-x: auto; }
.figure img { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .9rem; }
p, li, td { unicode-bidi: plaintext; }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; }
th { color: #666; font-weight: 600; overflow-wrap: normal; }
td:first-child { font-weight: 600; }
pre { overflow-x: auto; background: #f5f5f5; padding: .75rem; }
@media (max-width: 48rem) {
  thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
  table, tbody, tr, td { display: block; width: auto; }
  tr { border: 1px solid #ccc; border-radius: .4rem; margin: .75rem 0; padding: .25rem 0; }
  td { display: grid; grid-template-columns: 38% 1fr; gap: .5rem; border: 0; }
  td[data-label=""] { display: block; }
  .figure img { cursor: zoom-in; }
  .figure img:focus { width: 56rem; cursor: zoom-out; outline: 0; }
  td::before { content: attr(data-label); color: #666; font-weight: 400; }
}
"""


def html_page(markdown: str, folder: Path) -> str:
    """Return ``report.md``'s text as a page, with the pictures that it names taken from ``folder``.

    HTML inside the markdown is shown as text.
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(markdown)
    _label_cells(tokens)

    title = ""
    # Each block opens with a token that has its tag, before the token with its content.
    for opening, token in zip([None, *tokens], tokens, strict=False):
        if opening is not None and opening.tag == "h1":
            title = title or token.content
        for child in token.children or ():
            if child.type == "image":
                child.attrSet("src", _as_data(folder / str(child.attrs["src"])))
                child.attrSet("tabindex", "0")  # What can have the focus can be tapped.
                opening.attrSet("class", "figure")

    body = reader.renderer.render(tokens, reader.options, {})
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style>\n'
            f"</head>\n<body>\n{body}</body>\n</html>\n")


def _label_cells(tokens: Sequence[Token]) -> None:
    """Give each table cell its column's heading as ``data-label``, which the cards of narrow screens show."""
    headings: list[str] = []
    column = 0
    for token, content in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "table_open":
            headings = []
        elif token.type == "th_open":
            headings.append("".join(child.content for child in content.children))
        elif token.type == "tr_open":
            column = 0  # of the new row
        elif token.type == "td_open":
            token.attrSet("data-label", headings[column])
            column += 1


def _as_data(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode('ascii')}"
