"""Which documents make up a budget of tokens: arithmetic on (hash, tokens) pairs, without any files.

A document is chosen by a hash of its text and the seed. Sorted by that hash, the documents of a domain are in a random
order that depends on nothing else, not on files, tasks or machines, and a sample is a beginning of it: the shortest
that holds the domain's share of the budget, so that epochs over it never run out early. A larger one contains a
smaller one.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from inheritune_lit.base.errors import InheritError

SPACE = 2**64  # of the hashes
MARGIN = 1.25  # how much more than wanted is taken as candidates, because sizes of domains are estimates


def sample_hash(text: str, seed: int, person: bytes = b"sample") -> int:
    """Where a document stands in the random order of its domain, 0 to SPACE - 1; another `person`, another order."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode(), person=person).digest()
    return int.from_bytes(digest, "big")


def split_of(text: str, seed: int, val_share: float) -> str:
    """train or val, by what the document says and not by where it stands: it stays when the corpus grows.

    `val_share`, 0 to 1, is val's of all documents. Independent of the order above, in which val would else come first.
    """
    return "val" if sample_hash(text, seed, b"") < val_share * SPACE else "train"


@dataclass(frozen=True)
class Cut:
    """What is taken of a domain: `copies` times all of it, and once the documents whose hash is below `bound`."""

    copies: int
    bound: int
    tokens: int


@dataclass(frozen=True)
class Budget:
    """How many training tokens are wanted, of which domains, and what may be done where there are too few."""

    tokens: int
    proportions: Mapping[str, float]
    """Each domain's share of the tokens; they add up to 1."""
    allow_repeat: bool = False
    """A domain that is too small is taken several times."""
    renormalize: bool = False
    """What a domain lacks is shared out among the others, in proportion."""

    def wanted(self, available: Mapping[str, int | None]) -> dict[str, int]:
        """Tokens to take of each domain.

        Args:
            available: How many each domain has; None where there are enough.

        Raises:
            InheritError: with `renormalize`, all domains together have not enough.
        """
        limits = {d: n for d, n in available.items() if n is not None and not (self.allow_repeat and n)}
        full: dict[str, int] = {}
        while True:
            rest = self.tokens - sum(full.values())
            shares = {d: share for d, share in self.proportions.items() if d not in full}
            if not shares:
                raise InheritError(
                    f"All domains together have {self.tokens - rest:,} tokens, the budget is {self.tokens:,}. "
                    "Lower it, or add text."
                )
            wanted = _divide(rest, shares)
            short = {d: limits[d] for d in wanted if d in limits and limits[d] < wanted[d]}
            if not short or not self.renormalize:
                return full | wanted
            full |= short

    def check(self, wanted: Mapping[str, int], available: Mapping[str, int | None]) -> None:
        """Refuses domains with too little text.

        Raises:
            InheritError: naming each, with the tokens that are missing and the epochs the budget would need.
        """
        lines = []
        for domain, want in wanted.items():
            have = available[domain]
            if have is None or have >= want or (self.allow_repeat and have):
                continue
            epochs = f"{want / have:.2f} epochs over it" if have else "no text at all"
            lines.append(f"{domain}: {have:,} tokens of {want:,} wanted, {want - have:,} are missing ({epochs})")
        if lines:
            raise InheritError.listing(
                "Too little text for the budget",
                lines,
                "Add text, lower the budget, or choose: --allow_repeat takes a domain several times, --renormalize "
                "shares out what is missing among the other domains. The manifest records the choice.",
            )


def _divide(tokens: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Shares of a whole number that add up to it exactly."""
    exact = {domain: Fraction(str(share)) for domain, share in shares.items()}
    whole, done, result, before = sum(exact.values()), Fraction(0), {}, 0
    for domain, share in exact.items():
        done += share
        end = round(tokens * done / whole)
        result[domain], before = end - before, end
    return result


def cut(hashes: np.ndarray, lengths: np.ndarray, wanted: int, *, repeat: bool) -> Cut:
    """The shortest beginning of a domain's order that holds `wanted` tokens; all of it if there are fewer.

    Args:
        hashes: Of each document, uint64. Documents that are equal have equal ones: all are taken or none.
        lengths: Tokens of each document, int64.
        wanted: Tokens.
        repeat: Whether these are all documents of the domain, to be taken several times if that is too few.
    """
    total = int(lengths.sum())
    copies, rest = divmod(wanted, total) if repeat and total else (0, wanted)
    order = np.argsort(hashes, kind="stable")
    values, first = np.unique(hashes[order], return_index=True)
    sums = np.concatenate([[0], np.cumsum(lengths[order])])
    ends = np.append(sums[first], total)  # tokens before each distinct hash, and all
    last = min(int(np.searchsorted(ends, rest)), len(values))
    # not the hash of the next document, which may be none of the candidates: the same bound for any candidates
    bound = int(values[last - 1]) + 1 if last else 0
    return Cut(copies, bound, copies * total + int(ends[last]))


def rate_for(wanted: int, available: float) -> float:
    """The share of a domain's documents to take as candidates, given about how many tokens it has."""
    return min(1.0, MARGIN * wanted / available) if available > 0 else 1.0
