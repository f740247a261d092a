"""Every wrong setting is one line that names the key, the value and what is allowed, before any job starts."""

from dataclasses import replace

import pytest

from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError
from registers.settings.load import SCALES, load_settings
from registers.settings.paths import check_paths


@pytest.mark.parametrize(
    "params, words",
    [
        ({"scale": "lapto"}, ["scale", "'lapto'", "laptop"]),
        ({"registers": [0, -1]}, ["registers", "-1", "from 0"]),
        ({"registers": [4, 4]}, ["registers", "[4, 4]", "different"]),
        ({"registers": ["four"]}, ["registers", "'four'", "whole number"]),
        ({"registers": [True]}, ["registers", "True", "whole number"]),
        ({"methods": ["dinv2"]}, ["methods", "dinv2", "dinov2"]),
        ({"methods": []}, ["methods", "at least one"]),
        ({"regsters": [4]}, ["regsters", "unknown key", "registers"]),
        ({"device": "gpu"}, ["device", "'gpu'", "cuda"]),
        ({"data": {"use": "photos"}}, ["data.use", "photos", "folder:PATH"]),
        ({"data": {"roots": "x"}}, ["data.roots", "unknown key", "root"]),
        (
            {"overrides": {"recipes.dinov2.steps": "many"}},
            ["recipes.dinov2.steps", "'many'", "whole number"],
        ),
        (
            {"overrides": {"recipes.dinov2.step": 3}},
            ["recipes.dinov2.step", "unknown key", "steps"],
        ),
        ({"overrides": {"recipes.dinov3.steps": 3}}, ["overrides.recipes.dinov3.steps", "dinov3"]),
        ({"overrides": {"recipes.dinov2.patch": 5}}, ["image_size", "multiples", "5"]),
        ({"overrides": {"recipes.deit3.warmup": 10**6}}, ["recipes.deit3.warmup", "at most"]),
        ({"overrides": {"sizes.base.heads": 7}}, ["sizes.base.heads", "7", "divisors"]),
        ({"overrides": {"bank.sample": 10**6}}, ["bank.sample", "at most"]),
        ({"overrides": {"discovery.facets": ["keys"]}}, ["discovery.facets", "'keys'", "k, q, v"]),
        (
            {"overrides": {"discovery.normalisations": ["l1"]}},
            ["discovery.normalisations", "'l1'", "centre+l2"],
        ),
        ({"overrides": {"discovery.layers": [-1, -9]}}, ["discovery.layers", "-9", "-1", "to -6"]),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(params, words):
    with pytest.raises(ConfigError) as caught:
        load_settings(params)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("given", [{"linear.iterations": 6}, {"linear": {"iterations": 6}}])
def test_an_override_changes_nothing_beside_it(given):
    """The second is what `dvc exp run -S +overrides.linear.iterations=6` writes."""
    shipped, changed = (
        load_settings({"scale": "smoke"}),
        load_settings({"scale": "smoke", "overrides": given}),
    )
    assert (
        changed.linear == replace(shipped.linear, iterations=6)
        and replace(changed, linear=shipped.linear) == shipped
    )
    nested = load_settings({"scale": "smoke", "overrides": {"recipes": {"dinov2": {"steps": 7}}}})
    assert (
        nested.recipes["dinov2"] == replace(shipped.recipes["dinov2"], steps=7)
        and nested.recipes["mae"] == shipped.recipes["mae"]
    )


def test_a_missing_data_folder_is_named(tmp_path):
    settings = load_settings({"data": {"root": str(tmp_path), "use": "folder:photos"}})
    with pytest.raises(ConfigError, match=r"data\.use\.labels.*folder:photos.*no such folder"):
        check_paths(settings)


@pytest.mark.parametrize("text", ["- a list", "a: [1", "3"])
def test_a_broken_params_file_is_one_line(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", sorted(p.stem for p in SCALES.glob("*.yaml")))
def test_every_scale_loads(scale):
    settings = load_settings({"scale": scale})
    assert set(settings.methods) <= set(settings.recipes)


def test_the_paper_scale_has_the_papers_settings():
    """Section 3.1 and the official recipes: ViT-B/16, ViT-B/16, ViT-L/14 with SwiGLU, 625,000 steps of 3072."""
    settings = load_settings({"scale": "paper"})
    deit3, openclip, dinov2 = (settings.recipes[m] for m in ("deit3", "openclip", "dinov2"))
    assert (deit3.size, deit3.patch, deit3.batch, deit3.lr) == ("base", 16, 2048, 1e-3)
    assert deit3.steps == pytest.approx(240 * 14_197_122 / 2048, rel=1e-3)
    assert (openclip.size, openclip.patch, openclip.context, openclip.lr) == ("base", 16, 77, 5e-4)
    assert (dinov2.size, dinov2.patch, dinov2.steps, dinov2.batch, dinov2.prototypes) == (
        "large",
        14,
        625_000,
        3072,
        131_072,
    )
    assert dinov2.lr == pytest.approx(2e-4 * (3072 / 1024) ** 0.5, rel=1e-3)
    base, large = settings.sizes["base"], settings.sizes["large"]
    assert (
        base.width,
        base.depth,
        base.heads,
        large.width,
        large.depth,
        large.heads,
        large.ffn,
    ) == (768, 12, 12, 1024, 24, 16, "swiglu")


def test_the_world_is_replaced_by_a_data_set_and_the_results_folder_says_so(tmp_path):
    settings = load_settings(
        {"scale": "smoke", "data": {"use": "folder:cifar10", "root": str(tmp_path)}}
    )
    assert settings.data.labels == settings.data.eval == "folder:cifar10"
    assert settings.results.name == "smoke-cifar10"
    assert load_settings({"scale": "smoke"}).results.name == "smoke"


@pytest.mark.parametrize(
    "name",
    [
        "dinov2-r4-s0",
        "dinov2-giant-r0-s1",
        "deit3-r16-s0-noaa",
        "dinov2-r0-s0-at050",
        "dinov2-tiny-r0-s2-noaa-at000",
    ],
)
def test_backbone_names_read_back_as_written(name):
    assert str(BackboneId.parse(name)) == name


@pytest.mark.parametrize("name", ["dinov2", "dinov2-r-s0", "DINOV2-r0-s0", "dinov2-r0-s0-at5", ""])
def test_other_backbone_names_are_refused(name):
    with pytest.raises(ConfigError, match="allowed are names like"):
        BackboneId.parse(name)


def test_a_scale_may_be_like_another_but_for_some_keys(tmp_path):
    (tmp_path / "one.yaml").write_text((SCALES / "smoke.yaml").read_text())
    (tmp_path / "two.yaml").write_text("like: one\nrecipes:\n  deit3: {steps: 77}\nlog_every: 3\n")
    one, two = (load_settings({}, name, scales=tmp_path) for name in ("one", "two"))
    assert (
        (two.recipes["deit3"].steps, two.log_every)
        == (77, 3)
        != (one.recipes["deit3"].steps, one.log_every)
    )
    assert (
        two.recipes["deit3"].lr == one.recipes["deit3"].lr
        and two.recipes["dinov2"] == one.recipes["dinov2"]
    )
