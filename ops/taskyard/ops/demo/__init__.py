"""`taskyard demo`: a job, its failure, the repair and the replay, on real servers."""
