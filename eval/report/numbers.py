"""Numbers as text for readers."""

NOTHING = "–"
LONGEST = 1e9  # from here on exponents are easier to read


def rounded(value: float | None, digits: int = 3) -> str:
    """A number of so many significant digits: 0.0312, 1.28, 19,100; a dash for None."""
    if value is None:
        return NOTHING
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e+" in text and abs(value) < LONGEST else text
