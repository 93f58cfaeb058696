"""Suggestions for misspelt names, after difflib's similarity of texts."""

from collections.abc import Iterable
from difflib import get_close_matches

LEAST_SIMILARITY = 0.6


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the known name that is most like the given one, else ''.

    A name of a module, as in module:Name, counts only if the given name has one.
    """
    names = list(known)
    by_end = {_end(each): each for each in reversed(names)}
    nearest = get_close_matches(name, names, 1, LEAST_SIMILARITY)
    ends = get_close_matches(_end(name), by_end, 1, LEAST_SIMILARITY)
    found = nearest[0] if nearest else by_end[ends[0]] if ends else None
    return f"; did you mean {found}?" if found else ""


def _end(name: str) -> str:
    return name.rpartition(":")[2]
