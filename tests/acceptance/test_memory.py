"""Memory does not grow with the input."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Script

Start = Callable[..., Script]

MOST = 30_000
"""Kilobytes that a hundred times as many items may cost."""


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize(
    "options",
    [{"executor": "inline"}, {"executor": "processes", "workers": 2}],
    ids=["inline", "processes"],
)
def test_a_million_items(start: Start, options: dict[str, object]) -> None:
    """The caller's peak for 1,000,000 generated items is within 30 MB of that for 10,000."""
    text = """
        import resource

        def nothing(row):
            pass

        if __name__ == "__main__":
            rows = ({{"number": n, "name": f"name {{n}}"}} for n in range({number}))
            report = carpool.run(nothing, rows, progress=False, **{options})
            assert report.succeeded == {number}
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        """
    few, many = (
        int(start(text.format(number=number, options=options)).wait().out)
        for number in (10_000, 1_000_000)
    )
    assert many - few < MOST
