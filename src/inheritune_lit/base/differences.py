"""What differs between two mappings, in a line each."""

import json
from collections.abc import Mapping
from typing import Any


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for each value that differs, nested ones by their dotted name."""
    lines = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += [f"{name}.{line}" for line in differences(old, new)]
        elif old != new:
            lines.append(f"{name}: {_shown(name in before, old)} before, {_shown(name in now, new)} now")
    return lines


def _shown(present: bool, value: Any) -> str:
    return json.dumps(value) if present else "absent"
