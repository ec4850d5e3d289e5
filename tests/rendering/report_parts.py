"""Parts of a report by kind and by title: `from report_parts import section`."""

from __future__ import annotations

from archbench.rendering.content import Block, Code, Fold, Paragraph, Report, Section, Table


def tables(*blocks: Block) -> list[Table]:
    """All tables in reading order."""
    found = []
    for block in blocks:
        if isinstance(block, Table):
            found.append(block)
        elif isinstance(block, Section | Fold):
            found += tables(*block.blocks)
    return found


def records(table: Table) -> list[dict[str, str]]:
    """A table's rows by heading, with what all of them share."""
    return [dict([*table.shared, *zip(table.headings, row, strict=True)]) for row in table.rows]


def section(report: Report, title: str) -> Section:
    return next(one for one in report.sections if isinstance(one, Section) and one.title == title)


def part(of: Section, title: str) -> Section:
    return next(one for one in of.blocks if isinstance(one, Section) and one.title == title)


def texts(*blocks: Block) -> str:
    found = []
    for block in blocks:
        if isinstance(block, Section | Fold):
            found.append(texts(*block.blocks))
        elif isinstance(block, Paragraph | Code):
            found.append(block.text)
        elif isinstance(block, Table):
            found += [" | ".join(row) for row in block.rows]
        else:
            found += block.items
    return "\n".join(found)
