"""Read YAML files as plain values, by libyaml where PyYAML has it: some ten times as fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

YAMLError: type[Exception] = yaml.YAMLError

PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file as it stands; {} if it is absent, empty or no mapping."""
    if not path.is_file():
        return {}
    content = PARSER(path.read_text(encoding="utf-8")).get_single_data()
    return content if isinstance(content, dict) else {}
