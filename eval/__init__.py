"""Commands that evaluate policies, their measurements and their reports."""
