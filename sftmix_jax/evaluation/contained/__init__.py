"""What runs inside of the sandbox's processes: standard library alone, imports nothing of the package."""
