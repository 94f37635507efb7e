"""The parts of SwAV in a loop of your own: no run folder, no config file, any backbone."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.data.views.multicrop import MultiCrop
from swav.nn.heads import HeadConfig
from swav.nn.prototypes import Prototypes
from swav.nn.queue import Queue
from swav.ops import sinkhorn, swapped_pairs, swapped_prediction

BATCH, EPOCHS = 32, 4
torch.manual_seed(0)
pictures = torch.from_numpy(load_digits().images * 15).byte()[:320, None]  # 320 x 1 x 8 x 8
augment = AugmentConfig(flip=0, blur=0)
large = CropGroup(count=2, size=(16, 16), scale=(0.4, 1.0), augment=augment)
small = CropGroup(count=2, size=(8, 8), scale=(0.2, 0.4), augment=augment)
multi_crop = MultiCrop(ViewsConfig(groups=(large, small), mean=(0.3,), std=(0.3,)))

backbone = torch.nn.Sequential(
    torch.nn.Conv2d(1, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
    torch.nn.Conv2d(32, 64, 3, padding=1), torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
)  # fmt: skip
head = HeadConfig(hidden_dim=64, embed_dim=32).build(64)
prototypes = Prototypes(32, (20,))
queue = Queue(4 * BATCH)
parameters = [*backbone.parameters(), *head.parameters(), *prototypes.parameters()]
optimizer = torch.optim.AdamW(parameters, lr=1e-3)

for epoch in range(EPOCHS):
    losses = []
    for rows in torch.randperm(len(pictures)).split(BATCH):
        batch = multi_crop(list(pictures[rows]), rows.tolist(), epoch=epoch)
        prototypes.normalise()
        features = torch.cat([backbone(view) for view in batch.views])
        embeddings = F.normalize(head(features), dim=1).chunk(len(batch.views))
        scores = [prototypes(view)[0] for view in embeddings]
        targets = torch.stack(embeddings[: batch.num_targets]).detach()
        codes = [  # of the batch, assigned together with the earlier embeddings of the queue
            sinkhorn(prototypes(queue.joined_to(view, number))[0], epsilon=0.05)[:BATCH]
            for number, view in enumerate(targets)
        ]
        terms = [
            swapped_prediction(scores[prediction], codes[target], temperature=0.1)
            for target, prediction in swapped_pairs(batch.num_targets, len(batch.views))
        ]
        loss = torch.stack(terms).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if epoch:  # earlier ones are of a network that still changes fast
            queue.enqueue(targets)
        losses.append(loss.item())
    mean = sum(losses) / len(losses)
    print(f"epoch {epoch + 1}: loss {mean:.3f}, ln K {torch.tensor(20.0).log():.3f}")
