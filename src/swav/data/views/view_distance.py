"""How alike the views of different pictures are: whether a training has anything to go by."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from swav.data.sources.decode import UnreadablePicture
from swav.data.sources.pictures import Pictures
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.data.views.multicrop import PictureBatch, make_byte_views, reduction

# coarse: what a network could tell by colour and light alone, which is how runs collapsed
CELLS = 4
# with 128 pictures three seeds are within 0.02 of their mean (docs/log.md)
VIEWS = 8


def distance_within(
    pictures: Pictures, group: CropGroup, *, seed: int = 0, num_images: int = 128
) -> float:
    """Return how far apart views of a picture are, in units of views of two pictures.

    The mean squared distance between views averaged over 4 x 4 cells: near 0 when a picture is
    known by its colours whatever the crop, 1 when two views of it have no more in common than
    those of two pictures. Of eight views as ``group`` has them of each of ``num_images`` pictures,
    evenly through the set.
    """
    views = ViewsConfig(groups=(replace(group, count=VIEWS),))
    # evenly, as sets are often sorted by what is in their pictures
    rows = np.unique(np.linspace(0, len(pictures) - 1, num_images).round().astype(np.int64))
    kept, decoded = [], []
    for row in rows.tolist():
        try:
            decoded.append(pictures.reduced(row, partial(reduction, views)))
        except UnreadablePicture:
            continue
        kept.append(row)
    if len(kept) < 2:
        return 0.0
    batch = PictureBatch(decoded)
    crops = make_byte_views(batch, np.array(kept), views, seed=seed, epoch=0).views
    # in double, as cdist takes differences of large products
    cells = torch.cat([F.adaptive_avg_pool2d(view.double(), CELLS).flatten(1) for view in crops])
    distances = torch.cdist(cells, cells).square()
    owner = torch.arange(len(kept)).repeat(VIEWS)
    same = owner[:, None] == owner
    between = distances[~same].mean()
    within = distances[same & ~torch.eye(len(owner), dtype=torch.bool)].mean()
    # all pictures are the same one: nothing can be learnt
    return 1.0 if between == 0 else float(within / between)
