"""A picture reaches each kind of logger as the pixels that are in the file."""

from pathlib import Path

import numpy as np
import pytest
from command_line import FIT, run_cli
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from PIL import Image

from lightning_priors.callbacks.logged_picture import log_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "panel.png")
    return tmp_path / "panel.png"


class Client:
    """The documented method of an MLflow client: log_image(run_id, image, artifact_file)."""

    def __init__(self) -> None:
        self.logged: list[tuple[str, np.ndarray, str]] = []

    def log_image(self, run_id: str, image: np.ndarray, artifact_file: str) -> None:
        self.logged.append((run_id, image, artifact_file))


class OfflineMLFlow(MLFlowLogger):
    """Lightning's logger with a client that keeps what it is given; the package is heavy."""

    client = Client()
    run_id = "run7"
    experiment = client

    def __init__(self) -> None:
        pass


def test_mlflow_gets_an_artifact(picture: Path) -> None:
    log_picture(OfflineMLFlow(), "val/panel", picture, step=12)
    ((run, image, file),) = OfflineMLFlow.client.logged
    assert (run, file) == ("run7", "val/panel/step_12.png")
    assert np.array_equal(image, PIXELS)


def _images(folder: Path) -> dict[str, list[tuple[int, np.ndarray]]]:
    """What TensorBoard itself reads from a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    import io

    return {
        tag: [
            (event.step, np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))) for event in events.Images(tag)
        ]
        for tag in events.Tags()["images"]
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_the_pixels(picture: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logger = TensorBoardLogger(str(tmp_path), name="", version="tb")
    log_picture(logger, "val/panel", picture, step=12)
    logger.finalize("success")
    ((step, image),) = _images(tmp_path / "tb")["val/panel"]
    assert step == 12
    assert np.array_equal(image, PIXELS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_sends_its_panels_to_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    options = ("--trainer.logger.save_dir=tb", "--trainer.logger.name=a", "--trainer.logger.version=b")
    assert run_cli(*FIT, "--trainer.logger=TensorBoardLogger", *options) == 0
    found = _images(tmp_path / "tb" / "a" / "b")
    assert set(found) == {"val/panel", "val/confusion"}
    with Image.open("runs/Pretrained/version_0/panels/epoch_000.png") as panel:
        assert np.array_equal(found["val/panel"][-1][1], np.asarray(panel.convert("RGB")))
