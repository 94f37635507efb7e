"""Open the network of a run with timm alone: `python open_with_timm.py RUN/model PICTURE`."""

import sys

import timm
from PIL import Image

folder, picture = sys.argv[1:]
model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
settings = timm.data.resolve_data_config({}, model=model)
transform = timm.data.create_transform(**settings, is_training=False)
features = model(transform(Image.open(picture).convert("RGB"))[None])
print(f"{features.shape[1]} features, the first of them {features[0, :3].tolist()}")
