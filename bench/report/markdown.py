"""Pages as Markdown: report.md, tuning.md, the README's first screen, and tables anywhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from bench.report.blocks import TIED, Block, Cell, Figure, Grid, Items, Page, Section, Terms, Text


def page(shown: Page) -> str:
    """The whole page."""
    head = [f"# {shown.title}", shown.about, *(f"**{line}**" for line in shown.answers)]
    return "\n\n".join(filter(None, [*head, blocks([*shown.first, *shown.sections[1:]])])) + "\n"


def blocks(shown: Sequence[Block]) -> str:
    """Blocks one below the other, without a newline at the end."""
    return "\n\n".join(filter(None, (_block(block) for block in shown if block.medium != "html")))


def _block(shown: Block) -> str:
    match shown:
        case Text(text, style):
            return f"**{text}**" if style == "strong" else text
        case Items(lines):
            return "\n".join(f"- {line}" for line in lines)
        case Terms(terms, style):
            mark = "**" if style == "meanings" else ""
            return "\n".join(f"- {mark}{name}{mark}: {text}" for name, text in terms.items())
        case Figure(name, title, caption):
            return "\n\n".join(filter(None, [f"![{title}](figures/{name}.png)", _escaped(caption)]))
        case Grid():
            return "\n\n".join(filter(None, [f"**{shown.title}**" if shown.title else "", grid(shown)]))
        case Section(title, inner):
            return "\n\n".join(filter(None, ["#" * shown.level + f" {title}" if title else "", blocks(inner)]))
    raise TypeError(f"no block: {shown!r}")


def grid(shown: Grid) -> str:
    """One table, without its title and captions."""
    name, *others = shown.columns.values()
    right = [column.heading for column in others if not column.is_text]
    rows = [[_marked(cell) for cell in row] for row in shown.rows]
    return _lines([name.heading, *(column.heading for column in others)], rows, right)


def _marked(cell: Cell) -> str:
    text = _escaped(cell.text)
    return f"**{text}**" if cell.strong else f"{text} {TIED}" if cell.tied else text


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()) -> str:
    """A table of plain texts; right: headings of the columns that stand on the right."""
    return _lines(heads, ([_escaped(cell) for cell in row] for row in rows), right)


def _lines(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str]) -> str:
    rule = ["--:" if head in right else ":--" for head in heads]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, rule, *rows])


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("*", "\\*")
