"""The weights that timm publishes for a network: from the cache, or fetched once."""

import urllib.error
import urllib.request
from pathlib import Path

import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from timm.models import PretrainedCfg, get_pretrained_cfg, is_model

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm looks for, in its order."""
PROBE_SECONDS = 4


def published_settings(name: str) -> PretrainedCfg | None:
    """Return what timm knows of the weights it publishes under a name, None without any."""
    settings = get_pretrained_cfg(name) if is_model(name) else None
    return settings if settings is not None and settings.has_weights else None


def published_file(name: str) -> Path:
    """Return the file with the published weights of a timm network.

    Raises:
        ValueError: at once if there are none, or they are not in the cache and there is no
            network connection.
    """
    settings = published_settings(name)
    if settings is None:
        raise ValueError(
            f"--init timm: there are no published weights of {name}; `timm.list_models("
            "pretrained=True)` names the networks that have some, resnet18 is one"
        )
    if settings.hf_hub_id is None:
        return _of_url(name, str(settings.url))
    files = (settings.hf_hub_filename,) if settings.hf_hub_filename else HUB_FILES
    for file in files:
        cached = try_to_load_from_cache(settings.hf_hub_id, file)
        if isinstance(cached, str):
            return Path(cached)
    where = f"{constants.ENDPOINT}/{settings.hf_hub_id}"
    _check_connection(name, where, constants.ENDPOINT)
    for file in files:
        try:
            return Path(hf_hub_download(settings.hf_hub_id, file))
        except EntryNotFoundError:
            continue
        except Exception as error:  # of several libraries below the hub's
            raise _unreachable(name, where, error) from error
    raise ValueError(f"--init timm: {where} has none of {', '.join(files)}: give --init FILE")


def _of_url(name: str, url: str) -> Path:
    """Return the file of weights that are on no hub, as torch caches it."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.exists():
        return path
    _check_connection(name, url, url)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path))
    except OSError as error:
        raise _unreachable(name, url, error) from error
    return path


def _check_connection(name: str, where: str, url: str) -> None:
    """Refuse at once what the libraries would try for a minute."""
    if constants.HF_HUB_OFFLINE:
        raise _unreachable(name, where, "HF_HUB_OFFLINE is set")
    try:
        urllib.request.urlopen(
            urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS
        ).close()
    except urllib.error.HTTPError:
        return  # it answered
    except OSError as error:
        raise _unreachable(name, where, error) from error


def _unreachable(name: str, where: str, reason: object) -> ValueError:
    return ValueError(
        f"--init timm: the published weights of {name} are not in the cache and {where} cannot be "
        f"reached ({reason}). Fetch the file {HUB_FILES[0]} from there on a machine with a "
        "connection and give it as --init FILE; --init lite0 needs no hub, only pip"
    )
