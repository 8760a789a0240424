"""Where the parts of a checkpoint lie: its weights, an adapter over them, its sizes and its tokenizer."""

import os
import pathlib
from dataclasses import dataclass

from conversion.hub_cache import cache_of, locate
from npgemma.errors import InputError
from npgemma.files.reading import read_json

ADAPTER = "adapter_config.json"
# The most bytes of a file of settings; the index of 28 billion weights has 0.2 MB.
SMALL = 2_000_000


@dataclass(frozen=True)
class Source:
    """The places of a checkpoint's parts.

    Parameters
    ----------
    weights : pathlib.Path
        The folder with the weights, or big_vision's ``.npz``.
    adapter : pathlib.Path or None
        A folder with a LoRA adapter, to be merged into the weights.
    config : str, os.PathLike or None
        A ``config.json`` for an ``.npz``.
    tokenizer : str, os.PathLike or None
        A tokenizer file in place of the folder's.
    """

    weights: pathlib.Path
    adapter: pathlib.Path | None = None
    config: str | os.PathLike[str] | None = None
    tokenizer: str | os.PathLike[str] | None = None

    @property
    def is_npz(self) -> bool:
        """Whether the weights are big_vision's file."""
        return self.weights.suffix == ".npz" and os.path.isfile(self.weights)

    @property
    def path(self) -> pathlib.Path:
        """What was asked for: the adapter if there is one."""
        return self.adapter or self.weights

    def file(self, name: str) -> pathlib.Path:
        """Return the path of a small file: the adapter's own, or that of the folder of the weights."""
        own = self.adapter and self.adapter / name
        return own if own and os.path.lexists(own) else self.weights / name

    @classmethod
    def of(
        cls,
        path: "str | os.PathLike[str] | Source",
        base: str | os.PathLike[str] | None = None,
        config: str | os.PathLike[str] | None = None,
        tokenizer: str | os.PathLike[str] | None = None,
    ) -> "Source":
        """Find the parts of a checkpoint.

        Parameters
        ----------
        path : str, os.PathLike or Source
            A checkpoint folder, an adapter folder, the hub's id of one that its cache holds, or big_vision's ``.npz``.
        base : str or os.PathLike, optional
            The checkpoint that the adapter was trained on; by default the one that lies beside it, or that its
            configuration names.
        config, tokenizer : str or os.PathLike, optional
            Files that an ``.npz`` does not carry.

        Returns
        -------
        Source

        Raises
        ------
        InputError
            If there is an adapter but no base, or a base but no adapter.
        """
        if isinstance(path, Source):
            return path
        found = locate(path)
        if not os.path.exists(found / ADAPTER):
            if base is not None:
                raise InputError(f"--base is for a LoRA adapter, but '{found}' holds no {ADAPTER}: leave it out")
            source = cls(found, None, config, tokenizer)
        else:
            source = cls(locate(base) if base is not None else _base_of(found), found, config, tokenizer)
        if config is not None and not source.is_npz:
            raise InputError(f"--config is for npz files, but '{source.weights}' has its own config.json: leave it out")
        return source


def _base_of(folder: pathlib.Path) -> pathlib.Path:
    """Return the checkpoint that an adapter was trained on, where it can be found."""
    name = read_json(folder / ADAPTER, {"base_model_name_or_path": (str, None)}, SMALL).get("base_model_name_or_path")
    # Beside it: in the same folder, or in the next one.
    places = [folder]
    if name and "\0" not in name:
        last = pathlib.PurePath(name.replace("\\", "/")).name
        places += [pathlib.Path(name), folder / name, folder.parent / last, cache_of(name)]
    for place in places:
        if place and place != pathlib.Path() and os.path.isfile(place / "config.json"):
            return place
    raise InputError(
        f"'{folder}' is a LoRA adapter for {name or 'a base model that it does not name'}, which was not found: pass "
        "the folder of that checkpoint with --base"
    )
