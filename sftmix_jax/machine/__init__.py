"""What the rest stands on: files, processes, the terminal, compiled programs."""
