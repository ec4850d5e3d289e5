"""`archbench schema`: the JSON Schema of a suite file, for editors."""

from __future__ import annotations

import json

from archbench.suite import json_schema


def command() -> None:
    """Print the JSON Schema of a suite file, so that an editor completes and checks suites."""
    print(json.dumps(json_schema(), indent=2))
