import numpy as np
import pytest
from PIL import Image

from lightning_metakd.data.sources.synthetic import Synthetic


@pytest.fixture(scope="session")
def source():
    return Synthetic(per_class=8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def draw_class(tmp_path):
    """Writes a class folder of n random images, and returns the folder of folders."""

    def draw(name, n, size=(32, 32), suffix=".png", below="images"):
        folder = tmp_path / below / name
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(name))
        for i in range(n):
            image = Image.fromarray(pixels.integers(0, 256, (*size, 3), dtype=np.uint8))
            image.save(folder / f"{name}_{i:03d}{suffix}", lossless=True)
        return tmp_path / below

    return draw
