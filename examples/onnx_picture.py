"""A network exported by `swav export RUN --to onnx`, with ONNX Runtime, NumPy and Pillow alone.

`python onnx_picture.py RUN/export/onnx PICTURE`
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

folder, picture = Path(sys.argv[1]), sys.argv[2]
shown = json.loads((folder / "export.json").read_text())["input"]
channels, height, width = shown["input_size"]
image = Image.open(picture).convert("L" if channels == 1 else "RGB")
image = ImageOps.fit(image, (width, height), Image.Resampling[shown["interpolation"].upper()])
pixels = np.asarray(image, dtype=np.float32).reshape(height, width, channels) / 255
pixels = (pixels - np.float32(shown["mean"])) / np.float32(shown["std"])


def run(name: str, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: values})
    return output


features = run("model.onnx", pixels.transpose(2, 0, 1)[None])
print(f"{features.shape[1]} features, the first of them {features[0, :3].tolist()}")
if (folder / "clusters.onnx").exists():
    probabilities = run("clusters.onnx", features)[0]
    best = int(probabilities.argmax())
    print(f"cluster {best}, probability {probabilities[best]:.3f}")
