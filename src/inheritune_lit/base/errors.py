"""What a user can mend."""


class InheritError(ValueError):
    """A mistake that the user can mend: the message says what, where, expected, got and what to do."""


class InUse(InheritError):
    """Another process holds the lock on a folder."""


class NotInPlace(InheritError):
    """A folder is whole, and can't be renamed to where it belongs."""
