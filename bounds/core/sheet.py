"""Tables of a report as terminal text, as Markdown and as a self-contained HTML fragment."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from icq.display import Fact, Shown

Cells = tuple[str, ...]


@dataclass(frozen=True)
class SheetTable(Shown):
    """A caption, a header, and rows of as many cells."""

    caption: str
    header: Cells
    rows: tuple[Cells, ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"table {self.caption!r}: a row of {len(row)} cells under {len(self.header)} columns")

    def _facts_(self) -> list[Fact]:
        return [Fact("", self.caption), Fact("rows", len(self.rows)), Fact("columns", ", ".join(self.header))]


@dataclass(frozen=True)
class Sheet(Shown):
    """A title, a sentence, and tables."""

    title: str
    statement: str
    tables: tuple[SheetTable, ...]

    def text(self, width: int = 118) -> str:
        """For a terminal."""
        out = StringIO()
        console = Console(file=out, width=width, color_system=None, markup=False, highlight=False, emoji=False)
        console.print(self.title, soft_wrap=True)  # often a file, which nobody wants in two lines
        console.print(self.statement)
        for table in self.tables:
            console.print()
            grid = RichTable(title=table.caption, box=box.SIMPLE_HEAD, title_justify="left", title_style="")
            for name in table.header:
                grid.add_column(name, overflow="fold")
            for row in table.rows:
                grid.add_row(*row)
            console.print(grid)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    def markdown(self) -> str:
        """For a document."""
        parts = [f"{self.title}", self.statement]
        for table in self.tables:
            lines = [table.header, tuple("---" for _ in table.header), *table.rows]
            grid = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
            parts += [table.caption, grid]
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """For a notebook: no outside style or script."""
        cell = 'style="text-align:left;padding:2px 10px;vertical-align:top"'
        parts = [f"<div><h4>{escape(self.title)}</h4><p>{escape(self.statement)}</p>"]
        for table in self.tables:
            head = "".join(f"<th {cell}>{escape(name)}</th>" for name in table.header)
            body = "".join(
                "<tr>" + "".join(f"<td {cell}>{escape(text)}</td>" for text in row) + "</tr>" for row in table.rows
            )
            caption = f'<caption style="text-align:left">{escape(table.caption)}</caption>'
            parts.append(f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        return "".join(parts) + "</div>"

    def _facts_(self) -> list[Fact]:
        return [Fact("", self.title), Fact("tables", ", ".join(t.caption for t in self.tables) or "none")]
