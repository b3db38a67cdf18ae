"""One suite of expectations, over every way in which a job can be run."""
