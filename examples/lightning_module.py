"""SwAV as a module of Lightning: `python lightning_module.py FOLDER_OF_PICTURES`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import lightning
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader

from swav.data.batch import Batch
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.data.views.multicrop import MultiCrop
from swav.nn.heads import HeadConfig, embed_views
from swav.nn.prototypes import Prototypes
from swav.ops import sinkhorn, swapped_pairs, swapped_prediction

GROUPS = (
    CropGroup(count=2, size=(64, 64), scale=(0.3, 1.0)),
    CropGroup(count=4, size=(32, 32), scale=(0.05, 0.3)),
)


class SwAV(lightning.LightningModule):
    """The loss and its networks; Lightning has the loop, the devices and the checkpoints."""

    def __init__(self, num_prototypes: int = 30) -> None:
        super().__init__()
        self.backbone = timm.create_model("resnet18", num_classes=0)
        self.head = HeadConfig(hidden_dim=512).build(512)
        self.prototypes = Prototypes(128, (num_prototypes,))

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.prototypes.normalise()
        embeddings = F.normalize(embed_views(self.backbone, self.head, batch.views), dim=2)
        scores = [self.prototypes(view)[0] for view in embeddings]
        codes = [sinkhorn(view, epsilon=0.05) for view in scores[: batch.num_targets]]
        losses = [
            swapped_prediction(scores[prediction], codes[target], temperature=0.1)
            for target, prediction in swapped_pairs(batch.num_targets, len(batch.views))
        ]
        loss = torch.stack(losses).mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Pictures(torch.utils.data.Dataset):
    """Numbered pictures of a folder."""

    def __init__(self, folder: str) -> None:
        self.paths = sorted(Path(folder).rglob("*.png")) + sorted(Path(folder).rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[int, Image.Image]:
        return index, Image.open(self.paths[index]).convert("RGB")


class Views:
    """Makes the views of a batch; every call of a worker draws others."""

    def __init__(self) -> None:
        self.multi_crop, self.calls = MultiCrop(ViewsConfig(groups=GROUPS)), 0

    def __call__(self, items: Sequence[tuple[int, Image.Image]]) -> Batch:
        self.calls += 1
        indices, pictures = zip(*items, strict=True)
        return self.multi_crop(pictures, indices, epoch=self.calls)


if __name__ == "__main__":
    pictures = Pictures(sys.argv[1])
    loader = DataLoader(pictures, 32, shuffle=True, drop_last=True, collate_fn=Views())
    trainer = lightning.Trainer(max_epochs=1, logger=False, enable_checkpointing=False)
    trainer.fit(SwAV(), loader)
    print(f"loss {trainer.callback_metrics['loss']:.3f}")
