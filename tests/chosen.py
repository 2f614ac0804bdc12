"""The sample of the long tests that a date chooses."""

from __future__ import annotations

from hashlib import blake2b


def sample(names: list[str], count: int, date: str) -> set[str]:
    """Choose ``count`` test ids: of each function in turn, the least hashes with the date."""
    turns: dict[str, int] = {}
    ranked = []
    for name in sorted(names, key=lambda name: blake2b(f"{date} {name}".encode()).digest()):
        function = name.partition("[")[0]
        turns[function] = turns.get(function, 0) + 1
        ranked.append((turns[function], name))
    # A stable sort: within a turn the order stays that of the hashes.
    return {name for _, name in sorted(ranked, key=lambda pair: pair[0])[:count]}
