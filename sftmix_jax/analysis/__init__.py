"""Read what runs wrote: files to tables and pictures. Never imports jax."""
