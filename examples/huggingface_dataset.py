"""Train on a data set of Hugging Face: `python huggingface_dataset.py NAME_OR_FOLDER`."""

import sys

import datasets

import swav

data = datasets.load_dataset(sys.argv[1], split="train")  # with a column "image"
run = swav.train(data, out="runs/huggingface")
features = run.embed(data)
data = data.add_column("embedding", list(features.values.numpy()))
data = data.add_column("cluster", run.encoder.assign(data).numpy())
print(data)
