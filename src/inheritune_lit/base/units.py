"""Numbers with their units."""


def gib(size: float) -> str:
    """Bytes as people read them: `1,234.5 GiB`, or whole `MiB` below a quarter of one."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**28 else f"{size / 2**20:,.0f} MiB"


def duration(seconds: float) -> str:
    """3725 → 1 h 02 min"""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"
