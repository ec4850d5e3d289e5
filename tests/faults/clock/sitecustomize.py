"""Turns the clock of every process that starts with this folder on its path, by the seconds that its environment says.

Of what Python code reads of it: `time.time`, and `datetime.now` by a class of the same name.
"""

import os
from typing import Any

if ahead := float(os.environ.get("ARCHBENCH_TEST_CLOCK", "0")):
    import datetime
    import time

    _time = time.time
    _datetime: Any = datetime.datetime
    time.time = lambda: _time() + ahead

    class Turned(_datetime):  # type: ignore[misc]
        @classmethod
        def now(cls, tz=None):
            return _datetime.now(tz) + datetime.timedelta(seconds=ahead)

    Turned.__name__ = Turned.__qualname__ = "datetime"
    setattr(datetime, "datetime", Turned)  # noqa: B010 - it is a type to whoever checks
