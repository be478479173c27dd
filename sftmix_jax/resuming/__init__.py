"""Kill and resume a shortened copy of an experiment, and compare it with one that was not interrupted."""
