"""The files of a workdir, and what each of them holds."""
