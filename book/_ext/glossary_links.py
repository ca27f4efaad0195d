"""Sphinx extension: each page links a term of the glossary where its prose first uses it.

Prose is what stands in paragraphs: not headings, captions, tables, quotations, cards, titles in
italics, code, maths, links or raw HTML.
The glossary links nothing to itself. A term may stand in the plural; of two that overlap the longer
one counts. The link says the definition when it is pointed at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

# Where a word is no prose, or is a link already.
CLOSED = (
    nodes.title, nodes.caption, nodes.table, nodes.literal, nodes.literal_block, nodes.raw,
    nodes.math, nodes.math_block, nodes.reference, nodes.rubric, nodes.citation, nodes.footnote,
    nodes.block_quote, addnodes.glossary, addnodes.pending_xref, addnodes.toctree,
    addnodes.compact_paragraph,
)  # fmt: skip


TITLE = 4  # words: what is longer and in italics is the title of something


@dataclass(frozen=True)
class Term:
    name: str
    anchor: str
    definition: str


def read_glossary(document: nodes.document) -> list[Term]:
    """The terms of a page's glossaries, with their definitions as plain text."""
    found = []
    for item in document.findall(nodes.definition_list_item):
        if not isinstance(item.parent.parent, addnodes.glossary):
            continue
        body = item[-1].deepcopy()
        for citation in list(body.findall(addnodes.pending_xref)):
            citation.parent.remove(citation)
        said = re.sub(r"\s+([.,;)])", r"\1", " ".join(body.astext().split()))
        found += [Term(term.astext(), term["ids"][0], said) for term in item.findall(nodes.term)]
    return found


def pattern_of(terms: list[Term]) -> re.Pattern[str]:
    """Matches any of the terms, in the singular or plural, the longest first."""
    names = sorted((term.name for term in terms), key=len, reverse=True)
    each = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in names)
    return re.compile(rf"(?<![\w-])({each})(?:e?s)?(?![\w-])", re.IGNORECASE)


def prose(document: nodes.document) -> Iterator[nodes.Text]:
    """The pieces of text in which a term may be linked, in reading order."""
    for text in list(document.findall(nodes.Text)):
        node: nodes.Node | None = text.parent
        paragraph = False
        while node is not None and not isinstance(node, CLOSED) and not _is_whole(node):
            paragraph = paragraph or isinstance(node, nodes.paragraph)
            node = node.parent
        if node is None and paragraph:
            yield text


def _is_whole(node: nodes.Node) -> bool:
    """A card, all of which is a link, or a title in italics."""
    if isinstance(node, nodes.emphasis):
        return len(node.astext().split()) > TITLE
    return isinstance(node, nodes.Element) and "sd-card" in node["classes"]


class LinkTerms(SphinxPostTransform):
    default_priority = 700  # after references are resolved and outputs of notebooks are chosen
    formats = ("html",)

    def run(self, **_: Any) -> None:
        known = self.env.get_domain("std").data.get("terms", {})
        for page in sorted({docname for docname, _ in known.values()} - {self.env.docname}):
            self.link(page, read_glossary(self.env.get_doctree(page)))

    def link(self, page: str, terms: list[Term]) -> None:
        if not terms:
            return
        pattern = pattern_of(terms)
        by_name = {" ".join(term.name.lower().split()): term for term in terms}
        address = self.app.builder.get_relative_uri(self.env.docname, page)
        left = set(by_name)
        for text in prose(self.document):
            made: list[nodes.Node] = []
            end = 0
            for match in pattern.finditer(text):
                name = " ".join(match[1].lower().split())
                if name not in left:
                    continue
                left.remove(name)
                term = by_name[name]
                link = nodes.reference("", match[0], internal=True, classes=["fl-term"])
                link["refuri"] = f"{address}#{term.anchor}"
                link["reftitle"] = f"{term.name}: {term.definition}"
                made += [nodes.Text(text[end : match.start()]), link]
                end = match.end()
            if made:
                text.parent.replace(text, [*made, nodes.Text(text[end:])])
            if not left:
                return


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_post_transform(LinkTerms)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
