"""What evaluations share: who is evaluated on what, features, splits, baselines."""
