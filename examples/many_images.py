"""Many images on many machines, with Ray Data: python examples/many_images.py IMAGES OUT PROMPT [ACTORS [CHECKPOINT]].

IMAGES is a folder of images, or a Parquet file with a column ``bytes``, whose other columns are kept; OUT is a folder
of Parquet files with the columns ``text``, ``objects`` (JSON), and ``error`` if an image cannot be read.
"""

import json
import sys

import ray

import npgemma


class Answerer:
    """An actor: it opens the model once, by mapping its file, so that the actors of a machine share the memory."""

    def __init__(self, prompt, checkpoint):
        self.prompt, self.model = prompt, npgemma.load(checkpoint)

    def __call__(self, row):
        """Return the row with the answer about its image, or with the reason why there is none."""
        try:
            told = self.model.generate(row.pop("bytes"), self.prompt).to_dict()
            return row | {"text": told["text"], "objects": json.dumps(told["objects"]), "error": ""}
        except npgemma.InputError as problem:
            return row | {"text": "", "objects": "[]", "error": str(problem)}


def main(images, out, prompt, actors=2, checkpoint=None):
    """Read, answer and write; Ray starts an actor that dies again, and hands its images to another."""
    data, is_table = ray.data, images.endswith(".parquet")
    rows = data.read_parquet(images) if is_table else data.read_binary_files(images, include_paths=True)
    # Were the actors to take all processors, reading Parquet would wait for one for ever.
    pool = {"compute": data.ActorPoolStrategy(size=int(actors)), "num_cpus": 0.5}
    rows.map(Answerer, fn_constructor_args=[prompt, checkpoint], **pool).write_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
