"""A published work, citable as BibTeX."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """What a report needs to cite a method; `key` is the BibTeX key (`authorYEARword`)."""

    key: str
    title: str
    authors: str
    year: int
    venue: str
    arxiv: str | None = None

    def bibtex(self) -> str:
        """The entry as BibTeX (`@inproceedings`, or `@misc` for a preprint)."""
        kind, place = ("misc", "howpublished") if self.venue.startswith("arXiv") else ("inproceedings", "booktitle")
        lines = [
            f"  title = {{{self.title}}},",
            f"  author = {{{self.authors}}},",
            f"  year = {{{self.year}}},",
        ]
        lines.append(f"  {place} = {{{self.venue}}},")
        if self.arxiv:
            lines.append(f"  eprint = {{{self.arxiv}}}, archivePrefix = {{arXiv}},")
        return "\n".join([f"@{kind}{{{self.key},", *lines, "}"])

    def short(self) -> str:
        """`First-author et al. (year)` for tables."""
        authors = self.authors.split(" and ")
        first = authors[0].split(",")[0] if "," in authors[0] else authors[0].split()[-1]
        first = authors[0].strip("{}") if authors[0].startswith("{") else first  # a group, in BibTeX's braces
        return f"{first} et al. ({self.year})" if len(authors) > 1 else f"{first} ({self.year})"


INVERTIGO = Paper(
    key="invertigo",
    title="Invertigo: an auditor for gradient inversion in federated learning",
    authors="{The Invertigo authors}",
    year=2026,
    venue="software",
)
