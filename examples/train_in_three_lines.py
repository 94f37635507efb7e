"""Train on the digits of scikit-learn from Python, and use the features."""

import sys
from pathlib import Path

import swav

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")
run = swav.train("digits", out=out / "run")
features = swav.embed(run, "digits", to=out / "digits.npz")
print(f"{len(features.names)} pictures, {features.values.shape[1]} features each")
