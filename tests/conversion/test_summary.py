"""inspect on one screen: what each kind of folder is said to be."""

import json
import pathlib

import pytest
from support import CONFIGS, rewrite
from test_conversion import GENERATIONS, renamed

import cli
import conversion
import conversion.convert
import npgemma
from conversion.hub_config import to_hub
from conversion.summary import summarize

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"


def test_everything_stands_on_one_screen(capsys):
    assert cli.main(["inspect"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) < 160
    for word in ("family", "size", "resolution", "dtype", "layout", "names", "tokenizer", "end tokens", "adapter",
                 "--dtype float32", "--dtype int8"):  # fmt: skip
        assert any(word in line for line in lines), word
    assert any("PaliGemma 1" in line for line in lines)


@pytest.mark.parametrize(
    ("generation", "said"),
    [("hub, 4.41 to 4.51", "4.41 to 4.51"), ("4.52 to 4.57", "4.52 to 4.57"), ("5, in memory", "5 in memory"),
     ("5, saved", "saved by transformers 5")],
)  # fmt: skip
def test_the_generation_of_names(tmp_path, generation, said):
    config = CONFIGS["two key/value heads"]
    conversion.save(tmp_path, conversion.random_params(config, 0), config)
    rewrite(tmp_path, lambda name, dtype, array: [(renamed(name, generation), dtype, array)])
    assert generation in GENERATIONS
    assert said in summarize(tmp_path)["names"]


def test_family_npz_and_adapter(tmp_path):
    config = CONFIGS["Gemma 2"]
    conversion.save(tmp_path / "hub", conversion.random_params(config, 0), config, "bfloat16")
    found = summarize(tmp_path / "hub")
    assert (found["family"], found["dtype"], found["end_tokens"]) == ("PaliGemma 2", "BF16", [1, 3])
    assert found["tokenizer"].startswith("none")
    assert found["memory"]["float32"] > 1.9 * found["memory"]["bfloat16"]
    (tmp_path / "config.json").write_text(json.dumps(to_hub(config)))
    conversion.convert.convert(tmp_path / "hub", tmp_path / "a.npz")
    found = summarize(conversion.Source.of(tmp_path / "a.npz", config=tmp_path / "config.json"))
    assert (found["layout"], found["names"]) == ("big_vision's npz", "big_vision's")
    found = summarize(conversion.Source.of(GOLDEN / "lora" / "plain", GOLDEN / "hub"))
    assert "merged at load" in found["adapter"]
    assert "ids" in summarize(npgemma.embedded_checkpoint())["tokenizer"]
