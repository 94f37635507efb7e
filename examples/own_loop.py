"""Sinkhorn and the swapped prediction in a loop of your own, on random pictures."""

import torch
import torch.nn.functional as F

from swav.nn.heads import HeadConfig
from swav.nn.prototypes import Prototypes
from swav.ops import sinkhorn, swapped_pairs, swapped_prediction

torch.manual_seed(0)
backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 64))
head = HeadConfig(hidden_dim=64, embed_dim=32).build(64)
prototypes = Prototypes(32, (10,))
parameters = [*backbone.parameters(), *head.parameters(), *prototypes.parameters()]
optimizer = torch.optim.AdamW(parameters, lr=1e-3)
pictures = torch.rand(256, 3, 16, 16)

for step in range(30):
    views = [pictures + 0.1 * torch.randn_like(pictures) for _ in range(3)]
    prototypes.normalise()
    scores = [prototypes(F.normalize(head(backbone(view)), dim=1))[0] for view in views]
    codes = [sinkhorn(target, epsilon=0.05) for target in scores[:2]]
    losses = [
        swapped_prediction(scores[prediction], codes[target], temperature=0.1)
        for target, prediction in swapped_pairs(num_targets=2, num_views=len(views))
    ]
    loss = torch.stack(losses).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 9:
        print(f"step {step + 1}: loss {loss.item():.3f}, ln K {torch.tensor(10.0).log():.3f}")
