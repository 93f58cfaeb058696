"""Control periods of data, policies and environments, compared."""

ROUNDING = 1e-3  # relative


def same_period(a_s: float, b_s: float) -> bool:
    """True if two control periods in seconds differ by rounding at most."""
    return abs(a_s / b_s - 1) <= ROUNDING
