"""compare: a port's own names and layouts, its conventions, and the first wrong operation of ports that are wrong."""

import contextlib
import dataclasses
import fnmatch
import functools

import numpy as np
import pytest

import npgemma
from npgemma.errors import InputError
from npgemma.image import load_image
from npgemma.porting.arrange import Misfit, arrange, layouts
from npgemma.porting.comparing import compare
from npgemma.porting.coverage import cover
from npgemma.porting.mistakes import MISTAKES, inject
from npgemma.porting.name_map import Rule, read_map
from npgemma.porting.reference import from_model
from npgemma.porting.suggestions import as_toml, suggest
from npgemma.rope import rotate

PROMPT = "detect red circle ; blue square"
ATTENTION = "run_blocks.0/block.0/grouped_query_attention.0/"


def traced(token_ids=None):
    """A run of the embedded checkpoint, with whatever mistake is being made."""
    model = npgemma.load()
    image = load_image(npgemma.example_image(), model.config.vision.image_size)
    return from_model(model, image, model.tokenizer.prompt(PROMPT), token_ids, most=2)


@functools.cache
def reference():
    return traced()


def port():
    """Our own arrays, as a port that is right would write them."""
    return {name: array.copy() for name, array in reference().arrays.items()}


LAYER = "{pass}/run_blocks.0/block.{i}/grouped_query_attention.0/"
RULES = [
    Rule("layer{i}.q@{pass}", "{pass}/run_blocks.0/block.{i}/grouped_query_attention.0/rotate.0/x_BTNH", "T(NH)"),
    Rule(
        "layer{i}.att@{pass}", "{pass}/run_blocks.0/block.{i}/grouped_query_attention.0/attend.0/weight_BKGTS", "S(GK)T"
    ),
    Rule("x", "{pass}/run_blocks.0/x_BTD", scale=0.5, offset=1, take={"T": "last"}),
    Rule("patches", "encode_image.0/encode.0/embed_patches.0/projected_BTD", "DTT"),
    Rule("mask", "{pass}/run_blocks.0/mask_BTS", "TS", true_where=0),
]


def foreign():
    """Some of our arrays under other names and in other layouts."""
    ours, found = reference().arrays, {}
    for count, where in enumerate(("prefill.0", "step.0")):
        q = ours[f"{where}/{ATTENTION}rotate.0/x_BTNH"]
        found[f"layer00.q@{count}"] = q[0].reshape(q.shape[1], -1)
        weight = ours[f"{where}/{ATTENTION}attend.0/weight_BKGTS"]
        K, G, T, S = weight.shape[1:]
        found[f"layer00.att@{count}"] = weight[0].transpose(3, 1, 0, 2).reshape(S, G * K, T)
    x = ours["prefill.0/run_blocks.0/x_BTD"]
    found["prefill.0/x"] = np.concatenate([x[:, :3], x], axis=1) * 2 - 2
    found["patches"] = ours["encode_image.0/encode.0/embed_patches.0/projected_BTD"][0].T.reshape(-1, 8, 8)
    found["mask"] = np.where(ours["prefill.0/run_blocks.0/mask_BTS"][0], 0, np.finfo(np.float32).min)
    return found


def test_names_and_layouts_of_another_program():
    report = compare(reference(), foreign(), RULES)
    assert report["passed"]
    assert report["coverage"]["compared"] == len(foreign()) == 7
    assert report["coverage"]["unknown"] == 0


@pytest.mark.parametrize("name", ["layer00.q@1", "layer00.att@0", "prefill.0/x", "patches", "mask"])
def test_a_wrong_array_of_another_program_is_found_under_its_name(name):
    arrays = foreign()
    arrays[name] = arrays[name].copy()
    arrays[name].flat[-1] += 1
    report = compare(reference(), arrays, RULES)
    assert (report["passed"], report["first"]["port"]) == (False, name)
    if name == "mask":
        assert report["first"]["says"] == [
            "1 of 5184 entries differ, the first at [0, 71, 71]: expected True, found False"
        ]


def test_without_a_map_our_names_serve_and_the_batch_may_be_left_out():
    arrays = {name: array[0] for name, array in port().items() if name.rpartition("_")[2].startswith("B")}
    report = compare(reference(), arrays)
    assert report["passed"]
    assert report["coverage"]["compared"] == len(arrays) > 400


@pytest.mark.parametrize("arrays", [{}, {"foreign": np.zeros(3)}, {"token_ids": np.array([5])}])
def test_nothing_to_compare_is_no_verdict(arrays):
    with pytest.raises(InputError, match="nothing to compare"):
        compare(reference(), arrays)


# What the embedded checkpoint's arrays show; the smaller ones are invisible in float32, as docs/metrics.md says.
SEEN = [
    "pixels-bgr", "patch-weights-bfloat16", "vision-exact-gelu", "image-scaled", "text-unscaled", "exact-gelu",
    "query-scale-missing", "kv-heads-tiled", "no-final-norm",
]  # fmt: skip


@pytest.mark.parametrize("id", SEEN)
def test_the_first_wrong_array_is_where_the_mistake_is_made(id):
    fed = reference().token_ids
    with inject(id, "npgemma"):
        arrays = traced(fed).arrays
    report = compare(reference(), dict(arrays))
    assert not report["passed"]
    assert fnmatch.fnmatch(report["first"]["name"], MISTAKES[id].place)


def test_a_factor_is_named_after_the_size_it_comes_from():
    arrays = port()
    arrays["prefill.0/run_blocks.0/x_BTD"][:, :64] *= np.sqrt(144)
    first = compare(reference(), arrays)["first"]
    assert first["says"] == [
        "rows 0 to 63 along T are 12 = sqrt(D) times what is expected",
        "rows 64 to 71 along T are right",
    ]
    assert list(first["inputs"]) == ["prefill.0/x_BSD"]


def test_what_lies_between_right_inputs_and_a_wrong_array_is_told():
    names = ["rotate.0/x_BTNH", "k_BSKH", "attend.0/weight_BKGTS"]
    arrays = {name: port()[name] for name in (f"prefill.0/{ATTENTION}{name}" for name in names)}
    arrays[f"prefill.0/{ATTENTION}attend.0/weight_BKGTS"] *= 2
    first = compare(reference(), arrays)["first"]
    assert list(first["inputs"]) == [f"prefill.0/{ATTENTION}{name}" for name in names[:2]]
    between = [step["name"].rpartition("/")[2] for step in first["between"]]
    assert "masked_BKGTS" in between
    assert "angle_BTh" in between
    assert "normed_BTD" not in between


def test_a_right_layout_that_the_map_has_wrong_is_suggested():
    arrays = foreign()
    swapped = [dataclasses.replace(RULES[0], axes="T(HN)"), *RULES[1:]]
    report = compare(reference(), arrays, swapped)
    assert report["first"]["says"] == ['the numbers are right in another layout: axes = "T(NH)" would fit']


def counted_from(first):
    """What a port shows of its positions, queries and keys that counts from another number."""
    angle_BTh = np.full((1, 1, 1), first) * reference().arrays["prefill.0/run_blocks.0/angles.0/angle_BTh"][0, 1]
    arrays = {}
    for name, array in port().items():
        if name.endswith("position_BT"):
            arrays[name] = array + first
        elif "grouped" in name and name.endswith(("rotated_BTNH", "k_BSKH", "k_BTKH", "attention.0/q_BTNH")):
            arrays[name] = rotate(array, angle_BTh)
        elif name.endswith("weight_BKGTS"):
            arrays[name] = array
    return arrays


def test_positions_may_be_counted_from_1():
    assert compare(reference(), counted_from(1))["passed"]
    queries = {name: array for name, array in counted_from(1).items() if "q_BTNH" in name}
    report = compare(reference(), counted_from(0) | queries)
    assert report["first"]["name"] == f"prefill.0/{ATTENTION}q_BTNH"


def test_but_from_the_same_number_in_every_pass():
    arrays = {name: array for name, array in port().items() if name.endswith("positions.0/position_BT")}
    arrays["step.0/run_blocks.0/positions.0/position_BT"] += 1
    assert compare(reference(), arrays)["first"]["name"] == "step.0/run_blocks.0/positions.0/position_BT"


def test_a_masked_score_may_be_any_low_number():
    arrays = port()
    for name in arrays:
        if name.endswith("masked_BKGTS"):
            arrays[name] = np.maximum(arrays[name], np.finfo(np.float32).min)
    assert compare(reference(), arrays)["passed"]


def test_tokens_that_part_by_less_than_rounding_moves_logits():
    row = reference().arrays["prefill.0/logit_BV"][0]
    near, far = np.argsort(row)[-2], np.argsort(row)[0]
    close = dataclasses.replace(reference(), arrays=dict(reference().arrays), model=None)
    close.arrays["prefill.0/logit_BV"] = close.arrays["prefill.0/logit_BV"].copy()
    close.arrays["prefill.0/logit_BV"][0, near] = row.max() - 1e-6
    for token, verdict in ((near, "rounding"), (far, "defect")):
        arrays = {"token_ids": np.array([token]), "prefill.0/logit_BV": close.arrays["prefill.0/logit_BV"]}
        report = compare(close, arrays)
        assert report["tokens"]["parted"]["verdict"] == verdict
        assert report["passed"] == (verdict == "rounding")


def test_steps_after_different_tokens_are_not_compared():
    arrays = port() | {"token_ids": np.array([reference().token_ids[0] + 1, 0])}
    counts = compare(reference(), arrays)["coverage"]
    assert counts["compared"] == sum(not name.startswith("step") for name in port()) < counts["arrays"]


def test_unknown_arrays_are_recognized_by_their_values():
    name = f"prefill.0/{ATTENTION}v_BTKH"
    v = reference().arrays[name]
    arrays = {"values": v[0].transpose(1, 0, 2).copy(), "prefill.0/logit_BV": reference().arrays["prefill.0/logit_BV"]}
    coverage = cover(reference(), arrays)
    ours = name.replace("prefill.0", "{pass}")
    rule = {"port": "values", "ours": ours, "axes": "KTH", "error": 0, "by": "value"}
    assert suggest(reference(), coverage) == [rule]
    # In the blocks after the first, others are nearer.
    names = [f"prefill.0/run_blocks.0/block.{i}/{'mid' if i else 'out'}_BTD" for i in range(3)]
    outs = {f"prefill.0/layers.{i}": reference().arrays[name] for i, name in enumerate(names)}
    assert suggest(reference(), cover(reference(), outs))[0]["ours"] == "{pass}/run_blocks.0/block.{i}/out_BTD"
    assert "prefill.0/unembed.0/logit_BTV" in coverage.unseen
    assert "prefill.0/run_blocks.0/valid_BS" in coverage.unseen


def test_what_a_map_does_not_reach_is_counted_and_said():
    rules = [dataclasses.replace(RULES[0], axes="TH"), Rule("q{i}", RULES[0].ours), Rule("x", "a/y_BTD"), *RULES[1:]]
    coverage = cover(reference(), foreign(), rules)
    assert any(why.endswith('axes = "T(NH)" would fit') for why in coverage.misfits.values())
    assert coverage.idle == ["q{i}: the port has no such array", "x: there is no a/y_BTD here"]
    counts = {"arrays": 5, "misfits": 2, "idle_rules": 2, "port_arrays": 7, "unknown": 0}
    assert counts.items() <= coverage.counts().items()
    assert compare(reference(), foreign(), rules)["coverage"] == coverage.counts() | {"compared": 5}


def renamed(arrays):
    """Arrays under names of another program, which pads the numbers of layers and keeps heads in one axis."""
    found = {}
    for name, array in arrays.items():
        where, _, rest = name.partition("/")
        name = rest.replace("block.", "layers.0").replace("/", "-")
        flat = array.reshape(*array.shape[:2], -1) if rest.endswith("_BTNH") else array
        found[name if where == "encode_image.0" else f"{where}/{name}"] = flat
    return found


@pytest.mark.parametrize(
    "id",
    [None, *(pytest.param(id, marks=pytest.mark.slow) for id in ("image-scaled", "exact-gelu", "rms-no-plus-one"))],
)
def test_the_map_suggested_for_any_port_fits_a_right_one_and_guesses_are_comments(tmp_path, id):
    tokens = reference().token_ids  # made before the mistake is
    with inject(id, "npgemma") if id else contextlib.nullcontext():
        arrays = traced(tokens).arrays
    found = suggest(reference(), cover(reference(), renamed(arrays)))
    (tmp_path / "map.toml").write_text(as_toml(found))
    rules = read_map(tmp_path / "map.toml")
    assert [rule.port for rule in rules] == [each["port"] for each in found if each["by"] == "value"]
    report = compare(reference(), renamed(port()), rules)
    counts = report["coverage"]
    assert (report["passed"], counts["misfits"], counts["idle_rules"]) == (True, 0, 0)
    assert id or counts["kinds"] > 60


def test_arrange_splits_merges_takes_and_orders():
    x = np.arange(24)
    whole = x.reshape(1, 2, 3, 4)
    assert (arrange(x.reshape(2, 12), "T(NH)", "BTNH", (1, 2, 3, 4)) == whole).all()
    assert (arrange(whole.transpose(2, 0, 1, 3), "NBTH", "BTNH", (1, 2, 3, 4)) == whole).all()
    assert (arrange(x.reshape(4, 2, 3), "DTT", "BTD", (1, 6, 4))[0] == x.reshape(4, 6).T).all()
    assert (arrange(x.reshape(4, 6), "TD", "BTD", (1, 2, 6), {"T": "last"})[0] == x.reshape(4, 6)[2:]).all()
    assert (arrange(x.reshape(1, 4, 6), "BTV", "BV", (1, 5), {"T": "last", "V": "first"})[0] == x[18:23]).all()
    assert (arrange(x.reshape(4, 6), "TD", "TD", (2, 6), {"T": "1:3"}) == x.reshape(4, 6)[1:3]).all()
    qkv = np.concatenate([x.reshape(2, 12) + 100, x.reshape(2, 12)], axis=1)
    assert (arrange(qkv, "T(CNH)", "BTNH", (1, 2, 3, 4), {"C": "1:2"}) == whole).all()
    assert (arrange(qkv, "T(NH)", "BTNH", (1, 2, 3, 4), {"N": "last"}) == whole).all()


@pytest.mark.parametrize(
    ("shape", "axes", "take", "says"),
    [
        ((2, 12), "BTNH", None, "4 axes, but the array has the shape"),
        ((2, 13), "T(NH)", None, r"\(NH\) should be N = 3 x H = 4, 12 in all, found 13"),
        ((3, 12), "T(NH)", None, r"expected the shape \(1, 2, 3, 4\)"),
        ((2, 12), "TD", None, "cannot become"),
        ((2, 12), "T(NH)", {"S": "last"}, "has the letter S"),
    ],
)
def test_what_does_not_fit_is_told(shape, axes, take, says):
    with pytest.raises(Misfit, match=says):
        arrange(np.zeros(shape), axes, "BTNH", (1, 2, 3, 4), take)


def test_all_layouts_of_a_shape():
    assert list(layouts((2, 12), "BTNH", (1, 2, 3, 4)))[:2] == ["T(NH)", "T(HN)"]
    assert next(layouts((1, 3, 2, 4), "BTNH", (1, 2, 3, 4))) == "BNTH"
    assert list(layouts((5, 5), "BTNH", (1, 2, 3, 4))) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "double brackets"),
        ("# no rule\n", "has no rule"),
        ('[["x"]]', "lacks ours"),
        ('[["x"]]\nours = "a/x"', "should end in axes"),
        ('[["x"]]\nours = "a.{i}/x_BTD"', r"no \{i\}"),
        ('[["x"]]\nours = "a/x_BTD"\naxes = "B(TD"', "axes should be letters"),
        ('[["x"]]\nours = "a/x_BTD"\nscale = "2"', "scale should be a finite number"),
        ('[["x"]]\nours = "a/x_BTD"\nnorm = 2', "should be one of"),
        ("[[x", "is not a map"),
        ('[["{i}.{i}"]]\nours = "a/x_BTD"', r"each once, found \{i\}"),
        ('[["{1}"]]\nours = "a/x_BTD"', r"found \{1\}"),
        ('[["x"]]\nours = "a.{j}/x_BTD"', r"no \{j\}"),
        (f'[["{501 * "x"}"]]\nours = "a/x_BTD"', "more than 500 letters"),
        ('[["x"]]\nours = "a/x_BTD"\naxes = "BTB"', "each once"),
        ('[["x"]]\nours = "a/x_BTD"\naxes = "(BTSDNKGHFVLPEIYXC)"', "each once"),
        (f'[["x"]]\nours = "a/x_BTD"\nscale = 1{400 * "0"}', "finite number"),
        ('[["x"]]\nours = "a/x_BTD"\noffset = nan', "finite number, found nan"),
        (f'[["x"]]\nours = "a/x_BTD"\ntake = {{T = "{30 * "9"}:"}}', "first, last or start:stop"),
        ("a" + 1000 * ".a" + " = 1", "a line of more than 2000 letters"),
        ('extends = "llama"\n[["x"]]\nours = "a/x_BTD"', r"no map '.*llama', which '.*map.toml' extends: give"),
        (
            'extends = "map.toml"\n[["x"]]\nours = "a/x_BTD"',
            r"map.toml' extends itself, or nine others: leave out one 'extends'",
        ),
    ],
)
def test_a_map_that_is_no_map(tmp_path, text, says):
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(InputError, match=says):
        read_map(tmp_path / "map.toml")


def test_a_map_that_extends_another(tmp_path):
    (tmp_path / "base.toml").write_text(
        '[["x"]]\nours = "a/x_BTD"\n[["y"]]\nours = "a/y_BTD"\n[["z"]]\nours = "a/y_BTD"'
    )
    (tmp_path / "map.toml").write_text('extends = "base.toml"\n[["other"]]\nours = "a/y_BTD"')
    assert read_map(tmp_path / "map.toml") == [Rule("x", "a/x_BTD"), Rule("other", "a/y_BTD")]
    inherited = {rule.port for rule in read_map("transformers")} - {
        rule.port for rule in read_map("transformers_gemma2")
    }
    assert inherited == {"lm_head", "model.language_model.layers.{i}.post_attention_layernorm.in"}


def test_a_map_that_is_not_there():
    with pytest.raises(InputError, match=r"one of gemma_cpp, transformers, transformers_gemma2"):
        read_map("llama")


@pytest.mark.parametrize("name", ["transformers", "transformers_gemma2", "gemma_cpp"])
def test_every_rule_of_a_shipped_map_leads_to_an_array_of_ours(name):
    known = {
        n.replace("step.0", "{pass}").replace("prefill.0", "{pass}").replace("block.0", "block.{i}") for n in port()
    }
    for rule in read_map(name):
        assert rule.ours in known | {n.replace("{pass}", "prefill.0") for n in known}, rule.ours
