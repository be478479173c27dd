"""What a verdict and the planning of a study assume of scores, points being hundredths of the best possible score."""

LEVEL = 0.05  # of a wrong verdict, in all claims that are tested together
SMALLEST = 2.0  # the smallest effect of interest
SEED_SPREAD = 2.0  # standard deviation of a score between seeds; what a user knows better goes in its place
