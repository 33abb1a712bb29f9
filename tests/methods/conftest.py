from __future__ import annotations

import sys
from typing import Any


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """`pytest -m golden -v` ends with how near each loss came to its reference."""
    golden = sys.modules.get("tests.methods.golden")
    if golden is None or config.option.verbose < 0 or not golden.WORST:
        return
    terminalreporter.section("largest difference to the reference, relative to its largest entry")
    for name in sorted(golden.SEEN):
        parts = [f"{what} {max(w):.1e}" for what in ("value", "gradient") if (w := golden.WORST.get((name, what)))]
        terminalreporter.write_line(f"{name:18} {'  '.join(parts)}")
