"""Suggestions for misspelt names, after difflib's similarity of texts."""

from collections.abc import Iterable
from difflib import get_close_matches

LEAST_SIMILARITY = 0.6


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the known name that is most like the given one, else ''.

    The module of a known name, as in module:Name, counts only if the given name has one.
    """
    names = {each if ":" in name else each.rpartition(":")[2]: each for each in reversed([*known])}
    found = get_close_matches(name, names, 1, LEAST_SIMILARITY)
    return f"; did you mean {names[found[0]]}?" if found else ""
