"""Small networks of others, and their tensors in the layouts of others, key by key."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from swav.nn.heads import HeadConfig

PICTURES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
Named = dict[str, Tensor]


def resnet(**args: Any) -> ResNet:
    network = ResNet(BasicBlock, (1, 1, 1, 1), channels=(8, 16, 24, 32), num_classes=7, **args)
    return randomised(network)


def randomised(module: Any) -> Any:
    """Give every tensor a value of its own, statistics of BatchNorm and counters too."""
    for name, value in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            value.fill_(3)
        else:
            value.copy_(torch.rand_like(value) * 0.2 + (0.5 if value.ndim == 1 else -0.1))
    return module.eval()


def below(prefix: str, tensors: Named) -> Named:
    return {f"{prefix}{key}": value for key, value in tensors.items()}


class Theirs:
    """A small network of others with a head and prototypes of two heads."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = resnet()
        self.head = randomised(HeadConfig(hidden_dim=12, embed_dim=6).build(32))
        self.prototypes = [torch.randn(5, 6), torch.randn(4, 6)]
        tensors = self.network.state_dict()
        self.fc = {key: value for key, value in tensors.items() if key.startswith("fc.")}
        self.backbone = {key: value for key, value in tensors.items() if key not in self.fc}

    def children(self) -> Named:
        """Return the backbone as children in a row, named by their numbers."""
        row = nn.Sequential(*list(self.network.children())[:-1])
        return row.state_dict()

    def head_without_bias(self) -> Named:
        with torch.no_grad():
            self.head[0].bias.zero_()
        return {key: value for key, value in self.head.state_dict().items() if key != "0.bias"}


def official(theirs: Theirs) -> tuple[Any, set[str]]:
    tensors = below("projection_head.", theirs.head.state_dict())
    prototypes = {f"prototypes.prototypes{i}.weight": p for i, p in enumerate(theirs.prototypes)}
    return below("module.", {**theirs.backbone, **tensors, **prototypes}), set()


def official_one_head(theirs: Theirs) -> tuple[Any, set[str]]:
    theirs.prototypes = theirs.prototypes[:1]
    tensors, _ = official(theirs)
    tensors["module.prototypes.weight"] = tensors.pop("module.prototypes.prototypes0.weight")
    return {"epoch": 9, "state_dict": tensors, "optimizer": {"state": {}}, "amp": None}, {
        "epoch",
        "optimizer",
        "amp",
    }


def vissl(theirs: Theirs) -> tuple[Any, set[str]]:
    prototypes = {f"prototypes{i}.weight": p for i, p in enumerate(theirs.prototypes)}
    heads = {**below("projection_head.", theirs.head.state_dict()), **prototypes}
    model = {"trunk": below("_feature_blocks.", theirs.backbone), "heads": below("0.", heads)}
    state = {"base_model": {"model": model, "meta": {}}, "optimizer": {}}
    return {"classy_state_dict": state, "iteration": 5}, set()


def vissl_flat(theirs: Theirs) -> tuple[Any, set[str]]:
    tree, ignored = vissl(theirs)
    model = tree["classy_state_dict"]["base_model"]["model"]
    return {**below("trunk.", model["trunk"]), **below("heads.", model["heads"])}, ignored


def lightly(theirs: Theirs) -> tuple[Any, set[str]]:
    heads = {f"prototypes.heads.{i}.weight": p for i, p in enumerate(theirs.prototypes)}
    return {
        **below("backbone.", theirs.children()),
        **below("projection_head.layers.", theirs.head_without_bias()),
        **heads,
        "prototypes.heads.0.bias": torch.zeros(5),
    }, {"prototypes.heads.0.bias"}


def lightly_lightning(theirs: Theirs) -> tuple[Any, set[str]]:
    tensors, _ = lightly(theirs)
    tensors = {key: value for key, value in tensors.items() if not key.startswith("backbone.")}
    tensors |= below("backbone.", theirs.backbone)
    tensors["online_classifier.linear.weight"] = torch.zeros(7, 32)
    return {"state_dict": tensors, "epoch": 1, "hyper_parameters": {"num_classes": 7}}, {
        "prototypes.heads.0.bias",
        "online_classifier.linear.weight",
        "epoch",
        "hyper_parameters",
    }


def solo(theirs: Theirs, prefix: str = "backbone.") -> tuple[Any, set[str]]:
    theirs.prototypes = theirs.prototypes[:1]
    lengths = torch.full((5, 1), 2.0)
    directions = theirs.prototypes[0]
    theirs.prototypes = [2 * F.normalize(directions, dim=1)]
    return {
        "state_dict": {
            **below(prefix, theirs.backbone),
            **below("projector.", theirs.head.state_dict()),
            "prototypes.weight_g": lengths,
            "prototypes.weight_v": directions,
            "classifier.weight": torch.zeros(7, 32),
            "classifier.bias": torch.zeros(7),
            "queue": torch.zeros(2, 8, 6),
        }
    }, {"classifier.weight", "classifier.bias", "queue"}


def solo_of_old(theirs: Theirs) -> tuple[Any, set[str]]:
    return solo(theirs, "encoder.")


def as_dinov2(tensors: Named, *, registers: bool) -> Named:
    """Return the tensors of timm's network by the names of DINOv2."""
    tensors = dict(tensors, mask_token=torch.zeros(1, 192))
    if registers:
        tensors["register_tokens"] = tensors.pop("reg_token")
        first = torch.randn(1, 1, 192)
        tensors["cls_token"] = tensors["cls_token"] - first
        tensors["pos_embed"] = torch.cat([first, tensors["pos_embed"]], dim=1)
        tensors = {
            key.replace("fc1", "w12").replace("fc2", "w3"): value for key, value in tensors.items()
        }
    return tensors


def dinov2_features(tensors: Named, pictures: Tensor) -> Tensor:
    """Return the class token of DINOv2's network, written out with its names of tensors."""
    weight, bias = tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"]
    patches = F.conv2d(pictures, weight, bias, stride=16).flatten(2).transpose(1, 2)
    class_token = tensors["cls_token"].expand(len(pictures), -1, -1)
    x = torch.cat([class_token, patches], dim=1) + tensors["pos_embed"]
    if "register_tokens" in tensors:
        registers = tensors["register_tokens"].expand(len(pictures), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (192,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-6)

    for block in ("blocks.0", "blocks.1"):
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        query, key, value = qkv.unflatten(2, (3, 3, 64)).permute(2, 0, 3, 1, 4)
        attended = (query @ key.transpose(2, 3) / 8).softmax(dim=3) @ value
        attended = linear(attended.transpose(1, 2).flatten(2), f"{block}.attn.proj")
        x = x + attended * tensors[f"{block}.ls1.gamma"]
        hidden = norm(x, f"{block}.norm2")
        if f"{block}.mlp.w12.weight" in tensors:
            gate, hidden = linear(hidden, f"{block}.mlp.w12").chunk(2, dim=2)
            hidden = linear(F.silu(gate) * hidden, f"{block}.mlp.w3")
        else:
            hidden = linear(F.gelu(linear(hidden, f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
        x = x + hidden * tensors[f"{block}.ls2.gamma"]
    return norm(x, "norm")[:, 0]
