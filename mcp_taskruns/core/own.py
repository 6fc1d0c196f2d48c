"""The arguments that are this server's and not the provider's, by their names."""

WAIT_SECONDS = "wait_seconds"
UNTIL = "until"
ALL_PAGES = "all_pages"
LAST, SINCE, TYPES, RAW = "last", "since", "types", "raw"

DEFAULT_LAST = 100
"""Entries of a log that are told when none says how many."""
