"""What a user can mend."""

from collections.abc import Sequence


def first_few(lines: Sequence[str], most: int | None = 5) -> list[str]:
    """What a message shows of a list: the first `most` lines, and how many more there are."""
    rest = len(lines) - len(lines[:most])
    return [*lines[:most], *([f"and {rest:,} more"] if rest else [])]


class InheritError(ValueError):
    """A mistake that the user can mend: the message says what, where, expected, got and what to do."""

    @classmethod
    def listing(cls, what: str, lines: Sequence[str], remedy: str, most: int | None = None) -> "InheritError":
        """One error of several lines, the first `most` of which are shown."""
        return cls("\n  ".join([f"{what}:", *first_few(lines, most)]) + f"\n{remedy}")


class InUse(InheritError):
    """Another process holds the lock on a folder."""


class NotInPlace(InheritError):
    """A folder is whole, and can't be renamed to where it belongs."""
