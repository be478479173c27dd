"""What a verdict and the planning of a study assume of scores, in points: hundredths of the best possible score."""

SMALLEST = 2.0  # the smallest effect of interest
SEED_SPREAD = 2.0  # standard deviation of a score between seeds; what a user knows better goes in its place
