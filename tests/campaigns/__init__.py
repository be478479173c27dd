"""Campaigns: many injected faults each, too many for CI. `make campaigns` runs every module of this folder.

One of them: `python -m tests.campaigns.NAME [--count N] [--seed S]`, from the repository's root. The last line on
stdout is its verdict; the exit code is 0 if no fault went unnoticed, else 1.
"""
