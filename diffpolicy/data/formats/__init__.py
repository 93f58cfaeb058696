"""Foreign data formats, one file each.

A module of this room has `matches(path) -> bool`, which looks at names and first bytes only, and
`open_source(path, options) -> Source`. One that also exports has `write(demonstrations, facts,
out)`. Packages of a format are imported where they are used; an absent one is named with its extra.
"""
