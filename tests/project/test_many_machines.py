"""examples/many_images.py on two actors of this machine, of which one dies while it answers."""

import os
import pathlib
import shutil
import sys

import pytest
from support import ROOT

import npgemma

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'npgemma[ray]'")
dataset, parquet, pyarrow = (pytest.importorskip(f"pyarrow{part}") for part in (".dataset", ".parquet", ""))
from examples import many_images  # noqa: E402

# Ray's processes do not have this file.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Mortal(many_images.Answerer):
    def __call__(self, row):
        died = pathlib.Path(row["path"]).parents[1] / "died"
        if row["path"].endswith("text.png") and not died.exists():
            died.touch()
            os._exit(1)
        return super().__call__(row)


@pytest.mark.slow
def test_every_image_is_answered_once_and_as_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(many_images, "Answerer", Mortal)
    # Beside the images lies a table of them, which is none.
    images, table = shutil.copytree(ROOT / "tiny/gallery", tmp_path / "images"), tmp_path / "table.parquet"
    paths, model = sorted(map(str, images.iterdir())), npgemma.load()
    columns = {"path": paths, "bytes": [pathlib.Path(path).read_bytes() for path in paths]}
    parquet.write_table(pyarrow.table(columns), table)
    with ray.init(num_cpus=2, include_dashboard=False):
        for given in (images, table):
            many_images.main(str(given), f"{given} answered", "caption en")
            assert (tmp_path / "died").exists()
            found = dataset.dataset(f"{given} answered").to_table().to_pylist()
            assert sorted(row["path"] for row in found) == paths
            for path, text, error in ((row["path"], row["text"], row["error"]) for row in found):
                assert "not an image" in error if "json" in path else text == model.generate(path).text
