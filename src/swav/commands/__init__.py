"""The verbs of the command line, as plain functions."""

HELP = """Pre-train a backbone on unlabelled pictures: embeddings, clusters, and the evidence.

`swav VERB --help` names the options of a verb, `swav --version` the version; `swav
--install-completion` has the Tab key complete verbs and options."""

VERBS = {
    "demo": "Train on built-in photos, from published weights and from scratch, in minutes.",
    "train": "Train on DATA, then export, embed, cluster, evaluate (if labelled) and report.",
    "evaluate": "Measure trained backbones on pictures; print a table and keep the results.",
    "embed": "Write the embedding of every picture, in a stable order.",
    "cluster": "Write the cluster of every picture, and its probability, to a file.",
    "search": "Find the pictures nearest to one, those like no other, or duplicates.",
    "compare": "Put runs side by side: settings, curves, scores with their spread over seeds.",
    "ablate": "Train a grid over settings and seeds; a table and a figure with their spread.",
    "report": "Write the page of a run anew, with as many pictures on its map as asked for.",
    "view": "Open the page of a run in a browser; names and selections are kept in its folder.",
    "import": "Make a run folder of the weights of others, which all verbs take.",
    "export": "Write the network for timm, torchvision, Transformers, ONNX or torch.export.",
    "list": "Name the methods, backbones, recipes or evaluation tasks there are.",
    "bench": "Measure how fast this machine makes views, beside Pillow and torchvision.",
}
"""In words of their own: to read their functions would import torch, for seconds."""
MOVED = {
    **{f"--data.{name}": f"--views.{name}" for name in ("pipeline", "group", "time-window")},
    "--init-from": "--init (--init RUN)",
    "--backbone.pretrained": "--init (--init timm)",
}
"""Options of an earlier name, and the one they have now."""

TYPICAL_DEFAULTS = """

The defaults shown are for 10,000 photographs; the recipe auto chooses them by your pictures.
`--recipe NAME --help` shows those of a recipe, `--method NAME --help` the options of a method."""
