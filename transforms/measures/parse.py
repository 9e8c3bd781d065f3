"""The text form of a measure: `function`, `function(argument)`, either with `AS name`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fabric_beam.errors import UsageError

_CALL = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(?:\((.*)\))?\s*(?:\bAS\s+(\S+))?\s*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Call:
    """A measure as it was written.

    Attributes:
        text: the whole text.
        function: the function's name in lower case, such as `sum` or `p99.9`.
        argument: what stood between the parentheses, a column's name or an expression; empty for none.
        name: the output column.
    """

    text: str
    function: str
    argument: str
    name: str


def parse(text: str) -> Call:
    """Read one measure.

    Args:
        text: such as `count`, `sum(http.response.body.size) AS bytes`, `p99.9(duration)`.

    Returns:
        The call; without `AS` its name is `<argument>.<function>`, or the function's own where there is no argument.

    Raises:
        UsageError: the text is not of that form.

    Example:
        >>> parse("p99(http.response.body.size)").name
        'http.response.body.size.p99'
    """
    match = _CALL.fullmatch(text)
    if match is None:
        raise UsageError(
            f"measure {text!r}: expected function, function(column) or function(column) AS name, "
            "such as 'count' or 'sum(http.response.body.size) AS bytes'"
        )
    function, argument = match[1].lower(), (match[2] or "").strip()
    return Call(text, function, argument, match[3] or (f"{argument}.{function}" if argument else function))
