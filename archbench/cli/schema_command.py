"""`archbench schema`: the JSON Schema of a suite file, for editors."""

from __future__ import annotations

import json


def command() -> None:
    """Print the JSON Schema of a suite file, so that an editor completes and checks suites."""
    from archbench.suite import json_schema

    print(json.dumps(json_schema(), indent=2))
