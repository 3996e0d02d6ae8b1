"""The report's page: escaping, tables, sections and the style sheet. No numbers are made here.

One file that needs no network: styles inside, figures as inline SVG or images in the page. The one script there can be (``judged_map.py``) is
inline and only adds to what stands without it. Readable at 400 and 1280 pixels and on paper.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

CSS = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --box: #f6f8fa; --blue: #0072B2; --warn: #8a4600; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem; border-bottom: 2px solid var(--line); }
h4 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; overflow-wrap: anywhere; }
p, li { max-width: 46rem; }
.soft, caption, figcaption { color: var(--soft); font-size: .9rem; }
.lead { font-size: 1.05rem; padding: .7rem 1rem; background: var(--box); border-left: 4px solid var(--blue); max-width: none; }
.warn { padding: .6rem 1rem; background: #fff4e5; border-left: 4px solid var(--warn); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; list-style: none; }
a { color: var(--blue); }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; margin: .4rem 0 1rem; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; white-space: nowrap; }
td.n { white-space: nowrap; }
table.matrix td { text-align: right; padding: .25rem .5rem; border: 1px solid #fff; }
table.matrix th { padding: .25rem .5rem; }
tr.own td { font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
figure { margin: 0; break-inside: avoid; }
figure svg { width: 100%; height: auto; max-width: 36rem; display: block; }
.cases { display: grid; gap: 1rem; }
.cases figure { min-width: 0; }
.cases svg { max-width: none; }
.map { max-width: 44rem; }
.map svg { max-width: none; }
.stage { border: 1px solid var(--line); border-radius: .3rem; touch-action: manipulation; }
.stage:focus { outline: 3px solid var(--blue); outline-offset: 2px; }
.trace text { font: 16px system-ui, sans-serif; }
.map .said { margin: .4rem 0; min-height: 1.5em; font-weight: 600; }
.map .soft { margin: 0 0 .4rem; }
.keys { display: flex; flex-wrap: wrap; gap: .2rem .9rem; list-style: none; padding: 0; margin: .4rem 0; font-size: .92rem; }
.keys svg { display: inline-block; width: 14px; margin-right: .3rem; vertical-align: -2px; }
.flow { list-style: none; padding: 0; margin: .6rem 0; display: flex; flex-wrap: wrap; gap: .6rem; }
.flow li { flex: 1 1 11rem; background: var(--box); border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .7rem; position: relative; }
.flow b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.flow .out { display: block; color: var(--warn); font-size: .88rem; }
pre { background: var(--box); border: 1px solid var(--line); padding: .7rem; overflow-x: auto; font-size: .82rem; line-height: 1.35; }
summary { cursor: pointer; color: var(--blue); margin: .3rem 0; }
code { font-size: .9em; overflow-wrap: anywhere; }
@media (max-width: 480px) { body { padding: .7rem; font-size: 15px; } .figures { gap: .6rem; } }
@media print {
  body { max-width: none; font-size: 10pt; padding: 0; } nav { display: none; } h2 { break-after: avoid; }
  .wide, pre { overflow: visible; } pre { white-space: pre-wrap; } table, .flow li { break-inside: avoid; }
  .cases svg { max-width: 100%; } .live { display: none; }
  .lead, .warn, .flow li, pre { background: none; border: 1px solid #999; }
}
"""


def page(title: str, sections: Sequence[tuple[str, str, str]], lead: str) -> str:
    """A whole page: ``sections`` are (anchor, heading, inner HTML), ``lead`` inner HTML under the title."""
    links = "".join(f'<li><a href="#{a}">{esc(h)}</a></li>' for a, h, _ in sections)
    body = "".join(f'<section id="{a}"><h2>{esc(h)}</h2>{inner}</section>\n' for a, h, inner in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{esc(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f'<header><h1>{esc(title)}</h1>{lead}<nav aria-label="sections"><ul>{links}</ul></nav></header>\n'
        f"<main>\n{body}</main>\n</body>\n</html>\n"
    )


def esc(text: object) -> str:
    """Text that is safe in HTML."""
    return html.escape(str(text), quote=True)


def para(text: str, kind: str = "") -> str:
    """A paragraph of plain text; ``kind`` is a CSS class."""
    return f"<p{_class(kind)}>{esc(text)}</p>"


def table(rows: Sequence[Sequence[object]], *, caption: str = "", strong: Sequence[int] = ()) -> str:
    """A table of plain cells: the first row is the header; ``strong`` names body rows to stress. Scrolls sideways by itself."""
    head = "".join(f'<th scope="col">{esc(c)}</th>' for c in rows[0])
    body = ""
    for i, row in enumerate(rows[1:]):
        cells = "".join(f"<td{_class('n' if _numeric(c) else '')}>{esc(c)}</td>" for c in row)
        body += f"<tr{_class('own' if i in strong else '')}>{cells}</tr>"
    name = f"<caption>{esc(caption)}</caption>" if caption else ""
    return f'<div class="wide" tabindex="0"><table>{name}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(rows: dict[str, object]) -> str:
    """A two-column table of names and values."""
    body = "".join(f'<tr><th scope="row">{esc(k)}</th><td>{esc(v)}</td></tr>' for k, v in rows.items())
    return f'<div class="wide" tabindex="0"><table><tbody>{body}</tbody></table></div>'


def matrix(names: Sequence[str], counts: Sequence[Sequence[int]], *, caption: str) -> str:
    """A confusion matrix, shaded by share of the row; every number is printed, so colour carries nothing alone."""
    head = "<th></th>" + "".join(f'<th scope="col">{esc(n)}</th>' for n in names)
    body = ""
    for name, row in zip(names, counts, strict=True):
        total = max(sum(row), 1)
        cells = "".join(f'<td style="background:rgba(0,114,178,{0.55 * v / total:.2f})">{v:,}</td>' for v in row)
        body += f'<tr><th scope="row">{esc(name)}</th>{cells}</tr>'
    return (
        f'<div class="wide" tabindex="0"><table class="matrix"><caption>{esc(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def details(summary: str, inner: str, *, opened: bool = False) -> str:
    """Something that is folded away until it is asked for, or ``opened``; ``inner`` is HTML."""
    return f"<details{' open' if opened else ''}><summary>{esc(summary)}</summary>{inner}</details>" if inner else ""


def flow(boxes: Sequence[tuple[str, str, Sequence[str]]]) -> str:
    """Boxes of a cohort flow in order: (count, what, lines on what was left out)."""
    items = ""
    for count, what, out in boxes:
        left = "".join(f'<span class="out">{esc(line)}</span>' for line in out)
        items += f"<li><b>{esc(count)}</b>{esc(what)}{left}</li>"
    return f'<ol class="flow">{items}</ol>'


def figures(svgs: Sequence[tuple[str, str]]) -> str:
    """Figures side by side where there is room: (SVG, caption)."""
    inner = "".join(f"<figure>{svg}<figcaption>{esc(caption)}</figcaption></figure>" for svg, caption in svgs)
    return f'<div class="figures">{inner}</div>' if svgs else ""


def notes(lines: Sequence[str]) -> str:
    """A list of plain lines."""
    return f"<ul>{''.join(f'<li>{esc(line)}</li>' for line in lines)}</ul>" if lines else ""


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _numeric(cell: object) -> bool:
    return str(cell)[:1] in "+-0123456789" and len(str(cell)) < 30
