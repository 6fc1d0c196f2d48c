"""Values to values: the capability format, its compilation, requests and results. No I/O, no await, no clock."""
