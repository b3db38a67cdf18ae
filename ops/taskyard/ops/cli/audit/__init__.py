"""`taskyard audit`: who did what, and whether the log was changed."""
