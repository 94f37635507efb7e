"""A run as a Python object: trained, opened again, taken for its folder, shown in a notebook."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY_METHODS, drawn, tiny_config, write_pictures

import swav
from swav.methods import SimCLRConfig
from swav.run_folder import layout
from swav.run_folder.readers import read_embeddings
from swav.training.trained_run import TrainedRun


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    folder = tmp_path_factory.mktemp("python")
    data = write_pictures(folder)
    return swav.train(data, config=tiny_config(data, epochs=1), out=folder / "run")


def test_a_run_stands_for_its_folder(run: TrainedRun) -> None:
    assert Path(run) == run.folder == Path(str(run)) == Path(os.fspath(run))
    assert (run / layout.REPORT).exists()
    assert repr(run) == f"TrainedRun({str(run.folder)!r})"
    with open(run / layout.METRICS) as file:
        assert len(list(file)) == 4


def test_what_was_trained_is_what_is_opened_again(run: TrainedRun) -> None:
    opened = swav.load(run)
    torch.testing.assert_close(opened.embed().values, run.embed().values)
    assert opened.model is opened.backbone
    assert opened.checkpoint == run.checkpoint
    assert opened.num_images == run.num_images


def test_verbs_take_a_run(run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = [Image.fromarray(picture) for picture in drawn()[0][:3]]
    assert swav.embed(run, images).values.shape[0] == 3
    assert swav.cluster(run, images, to="three.csv").path.exists()
    assert swav.search(run, images[0], top=1)[0].cosine == pytest.approx(1)
    assert swav.evaluate(run, tasks=["knn"], out=tmp_path)[0].task == "knn"
    assert swav.write_report(run) == run / layout.REPORT


def test_scores_stand_beside_their_baselines(run: TrainedRun) -> None:
    knn = run.scores["knn"]
    assert knn.lead in knn.metrics
    assert knn.baselines["random"].keys() == knn.metrics.keys()


def test_a_run_of_arrays_knows_its_pictures(tmp_path: Path) -> None:
    pictures, _ = drawn()
    settings = tiny_config(epochs=1, evaluate_at_end=False)
    run = swav.train(swav.from_arrays(pictures), config=settings, out=tmp_path / "run")
    clustered = run.cluster(k=3)
    assert sum(each.pictures for each in clustered.clusters) == len(pictures)
    assert run.scores == {}


def test_the_encoder_takes_pictures_in_any_form(run: TrainedRun, tmp_path: Path) -> None:
    pictures = drawn()[0][:4]
    images = [Image.fromarray(picture) for picture in pictures]
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    encoder = swav.load(run).encoder
    expected = torch.from_numpy(read_embeddings(run.folder).values[:4])
    for form in (images, paths, [str(path) for path in paths], pictures, tmp_path):
        torch.testing.assert_close(encoder.encode(form), expected)
    torch.testing.assert_close(encoder.encode(images[0]), expected[:1])
    torch.testing.assert_close(encoder.encode(paths[0]), expected[:1])
    batch = encoder.transform([torch.from_numpy(each).permute(2, 0, 1) for each in pictures])
    features = encoder(batch)
    torch.testing.assert_close(features.detach(), expected)
    assert features.requires_grad


def test_the_encoder_assigns_as_the_table_of_clusters_says(run: TrainedRun, tmp_path: Path) -> None:
    pictures, _ = drawn()
    run.cluster(pictures, to=tmp_path / "clusters.csv")
    rows = np.genfromtxt(tmp_path / "clusters.csv", delimiter=",", names=True, dtype=None)
    assert run.encoder.assign(pictures).tolist() == rows["cluster"].tolist()


def test_a_picture_that_cannot_be_read_moves_no_row(run: TrainedRun, tmp_path: Path) -> None:
    pictures, _ = drawn(3)
    for number in range(150):
        Image.fromarray(pictures[number % 3]).save(tmp_path / f"{number:03}.png")
    (tmp_path / "100.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cannot be read: 100\.png"):
        run.encoder.encode(tmp_path)


def test_a_method_without_clusters_assigns_nothing(tmp_path: Path) -> None:
    data = write_pictures(tmp_path)
    method = TINY_METHODS[SimCLRConfig]
    config = tiny_config(data, method=method, epochs=1, evaluate_at_end=False)
    run = swav.train(data, config=config, out=tmp_path / "run")
    with pytest.raises(ValueError, match="has no clusters"):
        run.encoder.assign(drawn(2)[0])


def test_a_notebook_shows_the_map_and_the_scores(run: TrainedRun) -> None:
    page = run._repr_html_()
    assert "trained with SwAV on 64 pictures" in page
    assert run.scores["knn"].title in page
    assert '<img alt="Map of the pictures" src="data:image/png;base64,iVBOR' in page
    assert "<script" not in page


def test_a_notebook_shows_what_there_is(tmp_path: Path) -> None:
    data = write_pictures(tmp_path)
    config = tiny_config(data, epochs=1, evaluate_at_end=False)
    run = swav.train(data, config=config, out=tmp_path / "<b>run")
    for name in (layout.EMBEDDINGS, layout.RECORD):
        (run / name).unlink()
    page = run._repr_html_()
    assert "<img" not in page
    assert "<b>run" not in page


def test_a_plan_trains_nothing(tmp_path: Path) -> None:
    data = write_pictures(tmp_path)
    config = tiny_config(data, epochs=1)
    assert swav.train(data, config=config, out=tmp_path / "run", dry_run=True) is None
    assert not (tmp_path / "run").exists()
