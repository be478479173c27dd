"""An experiment: its config, its stages, and what is done with them."""
