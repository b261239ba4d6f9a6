"""Numbers with their units."""


def gib(size: float) -> str:
    """Bytes as people read them: `1,234.5 GiB`, or whole `MiB` below a quarter of one."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**28 else f"{size / 2**20:,.0f} MiB"
