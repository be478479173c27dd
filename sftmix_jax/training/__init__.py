"""Loss, optimiser, step, checkpoints and the loop over them."""
