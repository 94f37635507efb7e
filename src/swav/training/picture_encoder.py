"""A trained network as a module that takes pictures as programs have them."""

from jaxtyping import Float, Int64
from torch import Tensor, nn

from swav.data.eval_transform import EvalTransform
from swav.data.sources.open import Data, SourceConfig, opened_as
from swav.engine import Objective
from swav.evals import extract
from swav.training.clusters import clusters_of_method


class PictureEncoder(nn.Module):
    """The network of a run with its preprocessing: pictures in, features or clusters out.

    Pictures are a path, a list of paths, a Pillow image, a list of images, an array
    (images, height, width, channels): what ``swav.train`` takes.
    """

    def __init__(self, objective: Objective, transform: EvalTransform, source: SourceConfig):
        super().__init__()
        self.objective = objective
        self.transform = transform
        self.source = source

    def forward(
        self, batch: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features"]:
        """Return the features of what ``transform`` makes of decoded pictures, with gradient."""
        features: Tensor = self.objective.encoder(batch)
        return features

    def encode(self, images: Data) -> Float[Tensor, "images features"]:
        """Return the features of pictures, one row each in their order, not normalised, on the CPU.

        Raises:
            ValueError: if one of them cannot be read.
        """
        pictures = opened_as(images, self.source)
        listed = len(pictures)
        device = next(self.objective.encoder.parameters()).device
        found = extract(self.objective.encoder, pictures.load(), self.transform, device=device)
        if len(found.names) < listed:
            missing = sorted({*pictures.names} - {*found.names})
            raise ValueError(f"pictures that cannot be read: {', '.join(missing[:5])}")
        return found.values

    def assign(self, images: Data) -> Int64[Tensor, " images"]:
        """Return the cluster of each picture: the number of its most probable prototype.

        Raises:
            ValueError: if the method has no clusters, or a picture cannot be read.
        """
        clusters = clusters_of_method(self.objective)
        if clusters is None:
            raise ValueError("the method of this run has no clusters: swav cluster makes k-means")
        return clusters.probabilities(self.encode(images)).argmax(dim=1)
