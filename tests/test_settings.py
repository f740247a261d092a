"""Every wrong setting is one line before any job starts: key, value and what it must be."""

import ast
import json
import random
import subprocess
import sys

import pytest

from registers.settings.errors import ConfigError
from registers.settings.load import SCALES, load_settings
from registers.settings.paths import check_paths
from registers.settings.read import read_yaml
from registers.settings.run import Settings

SCALE_NAMES = sorted(path.stem for path in SCALES.glob("*.yaml"))
NAN, INFINITY = float("nan"), float("inf")


def message_of(params) -> str:
    """The line that refuses these settings."""
    with pytest.raises(ConfigError) as caught:
        load_settings(params)
    message = str(caught.value)
    assert message and "\n" not in message and len(message) < 1000
    return message


@pytest.mark.parametrize(
    "params, words",
    [
        ({"scale": "lapto"}, ["scale", "'lapto'", "did you mean laptop?"]),
        ({"scale": None}, ["scale", "None", "a string"]),
        ({"registers": [0, -1]}, ["registers: -1", "an integer from 0"]),
        ({"registers": [4, 4]}, ["registers: [4, 4]", "different"]),
        ({"registers": ["four"]}, ["registers: 'four'", "integer"]),
        ({"registers": [True]}, ["registers: True", "integer"]),
        ({"registers": [1e30]}, ["registers: 1e+30", "integer from 0 to 1024"]),
        ({"registers": [9**5000]}, ["registers", "too many digits", "integer"]),
        ({"registers": []}, ["registers: []", "at least one"]),
        ({"methods": ["dinv2"]}, ["methods: 'dinv2'", "did you mean dinov2?"]),
        ({"methods": []}, ["methods", "at least one"]),
        ({"regsters": [4]}, ["regsters: unknown key", "did you mean registers?"]),
        ({5: 3}, ["5: unknown key"]),
        ({"device": "gpu"}, ["device: 'gpu'", "one of auto, cpu, cuda, mps"]),
        ({"stale": "yes"}, ["stale: 'yes'", "one of keep, retrain"]),
        ({"mlflow_uri": "x" * 200_000}, ["mlflow_uri", "at most 4096 characters"]),
        ({"mlflow_uri": "ftp://x"}, ["mlflow_uri: 'ftp://x'", "begins with sqlite"]),
        ({"mlflow_uri": "/x/m.db"}, ["mlflow_uri: '/x/m.db'", "sqlite:////x/m.db"]),
        # --- data
        ({"data": 5}, ["data: 5", "a mapping of root, use"]),
        ({"data": True}, ["data: True", "a mapping"]),
        ({"data": [1]}, ["data: [1]", "a mapping"]),
        ({"data": {"use": 5}}, ["data.use: 5", "one data set or a mapping of roles"]),
        ({"data": {"use": "pictures"}}, ["data.use", "'pictures'", "folder:PATH"]),
        ({"data": {"use": {"lables": "world"}}}, ["data.use.lables", "did you mean labels?"]),
        ({"data": {"use": {"depth": "folder:x"}}}, ["data.use.depth", "nyud:PATH"]),
        ({"data": {"use": {"discovery": []}}}, ["data.use.discovery: []", "at least one"]),
        ({"data": {"roots": "x"}}, ["data.roots", "did you mean root?"]),
        ({"data": {"root": "~nosuch"}}, ["data.root: '~nosuch'", "a known user"]),
        ({"data": "folder:~nosuch/x"}, ["data.use.labels: 'folder:~nosuch/x'", "a known user"]),
        ({"data": "folder:/"}, ["data.use.labels: 'folder:/'", "below the root"]),
        ({"data": "folder:" + "x" * 200_000}, ["data.use.labels", "at most 4096 characters"]),
        ({"data": "folder:a\nb"}, ["data.use.labels", r"'folder:a\nb'", "control characters"]),
        # --- overrides
        ({"overrides": ["a"]}, ["overrides: ['a']", "a mapping"]),
        ({"overrides": "x"}, ["overrides: 'x'", "a mapping"]),
        ({"overrides": 5}, ["overrides: 5", "a mapping"]),
        ({"overrides": True}, ["overrides: True", "a mapping"]),
        ({"overrides": {5: 5}}, ["overrides: 5", "a string"]),
        ({"overrides": {"data": "world"}}, ["data: 'world'", "a mapping"]),
        ({"overrides": {"data": 5}}, ["data: 5", "a mapping"]),
        ({"overrides": {"recipes": 5}}, ["recipes: 5", "a mapping of deit3"]),
        ({"overrides": {"scale": "x"}}, ["scale: 'x'", "params.yaml"]),
        ({"overrides": {"like": "paper"}}, ["like: unknown key"]),
        ({"overrides": {"recipes.dinov3.steps": 3}}, ["recipes.dinov3.steps", "dinov2"]),
    ],
)
def test_a_wrong_choice_is_named_in_one_line(params, words):
    message = message_of(params)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("recipes.dinov2.steps", "many", ["'many'", "an integer of at least 1"]),
        ("recipes.dinov2.step", 3, ["unknown key", "did you mean steps?"]),
        ("recipes.mae.patch", 5, ["image_size: 32", "a multiple of recipes.mae.patch 5"]),
        ("recipes.dinov2.local_size", 15, ["15", "a multiple of patch 4"]),
        ("recipes.dinov2.lr", NAN, ["nan", "a finite number"]),
        ("recipes.dinov2.momentum", INFINITY, ["inf", "a finite number from 0 to 1"]),
        ("recipes.dinov2.layer_scale", "inf", ["inf", "a finite number"]),
        ("recipes.deit3.warmup", 10**6, ["1000000", "at most its 400 steps"]),
        ("recipes.deit3.batch", 7, ["7", "a multiple of 2"]),
        ("recipes.openclip.text_heads", 3, ["3", "a divisor of text_width 64"]),
        ("recipes.mae.decoder_heads", 5, ["5", "a divisor of decoder_width 48"]),
        ("recipes.mae.decoder_width", 50, ["50", "a multiple of 4"]),
        ("recipes.mae.size", "x", ["'x'", "one of tiny, small"]),
        ("sizes.base.heads", 7, ["7", "a divisor of width 64"]),
        ("recipes.deit3.drop_path", {"base": 2}, ["2", "a number from 0 to below 1"]),
        ("size_study", ["tinny"], ["'tinny'", "did you mean tiny?"]),
        ("image_size", 0, ["0", "an integer of at least 1"]),
        ("image_size", -16, ["-16", "an integer of at least 1"]),
        ("image_size", 10**30, ["an integer of at most 1000000000"]),
        ("fractions", [0.5, 1.0], ["1.0", "a number from 0 to below 1"]),
        ("fractions", [0.999], ["0.999", "below 0.995"]),
        ("fractions", [0.1, 0.101], ["0.101", "at least one per cent away"]),
        ("checkpoint_every", 0, ["0", "an integer of at least 1"]),
        ("log_every", 0, ["0", "an integer of at least 1"]),
        ("threads", -1, ["-1", "an integer of at least 1"]),
        ("workers", -1, ["-1", "an integer of at least 0"]),
        ("cutoff", {"dinov2": -5}, ["cutoff.dinov2: -5", "a number above 0"]),
        ("cutoff", {"dinv2": 150}, ["'dinv2'", "did you mean dinov2?"]),
        ("bank.sample", 10**6, ["1000000", "at most bank.images 512"]),
        ("maps.size", 30, ["30", "a multiple of recipes.deit3.patch 4"]),
        ("discovery.facets", ["keys"], ["'keys'", "k, q, v"]),
        ("discovery.normalisations", ["l1"], ["'l1'", "centre+l2"]),
        ("discovery.layers", [-1, -9], ["-9", "from -1 (the last block) to -6"]),
        ("discovery.layers", [], ["[]", "at least one"]),
        ("discovery.biases", [], ["[]", "at least one"]),
        ("segmentation.augment", "yes", ["'yes'", "true or false"]),
        ("segmentation.stride", 64, ["64", "at most crop 32"]),
        ("depth.max_depth", INFINITY, ["inf", "a finite number above 0.001"]),
        ("depth.crop", "eigen", ["'eigen'", "built-in world"]),
    ],
)
def test_a_wrong_value_of_the_scale_is_named_in_one_line(key, value, words):
    message = message_of({"overrides": {key: value}})
    named = key.split(".")[-1] if "image_size: 32" not in words else "image_size"
    assert f"{named}" in message.split(" is not allowed")[0]
    for word in words:
        assert word in message


def test_no_random_settings_end_in_a_traceback():
    """400 runs with a few odd values each: settings that can be used, or one line."""
    draw = random.Random(0)
    known = {name: dotted(load_settings({"scale": name})) for name in SCALE_NAMES}
    used = 0
    for _ in range(400):
        params = {"scale": draw.choice(SCALE_NAMES), "overrides": {}}
        values = known[params["scale"]]
        for _ in range(draw.randint(1, 3)):
            key = draw.choice(list(values))
            nasty = draw.random() < 0.5
            params["overrides"][key] = draw.choice(NASTY) if nasty else values[key]
        if draw.random() < 0.3:
            name = draw.choice(("scale", "registers", "methods", "seeds", "data", "overrides"))
            params[name] = draw.choice(NASTY)
        if draw.random() < 0.3:
            role = draw.choice(("labels", "discovery", "depth", "nosuch", 5, None))
            params["data"] = {"use": {role: draw.choice(NASTY)}}
        try:
            settings = load_settings(params)
        except ConfigError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, params
        else:
            used += 1
            json.dumps(settings.model_dump(mode="json"), allow_nan=False)
            assert len(settings.results.name) < 100
    assert 20 < used < 380  # both ends are tried, whatever scales there are


NASTY = [
    *(None, True, False, 0, 1, 2, -1, 3, 7, 64, 0.5, -0.5, 1e-300, 1e300, 10**30, -(10**400)),
    *(NAN, INFINITY, -INFINITY, "nan", "-inf", "1e999", "3", "0.5", "", " ", "x", "x" * 200_000),
    *("9" * 10_000, "world", "world:", "folder:", "folder:/", "folder:.", "folder:~nosuch"),
    *("shards:{0..99}/*.tar", "own", "\x00", "a\nb", "\ud800", "\u2028", "写真", "tiny", "k"),
    *([], [0], [1, 1], ["x"], [[]], [None], [NAN], ["4", "1"], [{}], (), (1, 2), set(), b"x"),
    *({}, {"x": 1}, {5: 5}, {None: None}, {"": ""}, {"steps": 3}, {"x": {"y": []}}, object()),
]  # fmt: skip


def dotted(settings: Settings) -> dict:
    """Dotted names of all settings and sections with their values, and some that do not exist."""
    missing = ("", ".", "nosuch", "recipes.nosuch.steps", "sizes.nosuch", "cutoff.dinov2", 5)
    values = dict.fromkeys(missing, 1)

    def walk(tree: dict, before: str) -> None:
        for key, value in tree.items():
            values[f"{before}{key}"] = value
            if isinstance(value, dict):
                walk(value, f"{before}{key}.")

    walk(settings.model_dump(), "")
    return values


# --- files


@pytest.mark.parametrize(
    "text, words",
    [
        ("- a list", "must be a mapping"),
        ("3", "must be a mapping"),
        ("", "must be a mapping"),
        ("a: [1", "not readable YAML"),
        ("a:\tb: c", "not readable YAML"),
        ("seeds: [0]\nseeds: [1]", "the key seeds appears twice"),
        ("overrides: {log_every: 1, log_every: 2}", "line 1: the key log_every appears twice"),
        ("a: " + "9" * 5000, "not readable YAML"),
        ("a: 2026-99-99", "not readable YAML"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: &a [*a]", "unknown key"),
        ("a: " + "x" * 2**21, "smaller than"),
        ("a: !!python/object/apply:os.system [true]", "not readable YAML"),
    ],
)
def test_a_broken_params_file_is_one_line(tmp_path, text, words):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert words in message_of(path)


def test_a_params_file_that_cannot_be_read_is_one_line(tmp_path):
    assert "no such file" in message_of(tmp_path / "params.yaml")
    assert "cannot be read" in message_of(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_bytes(b"scale: \xff\xfe")
    assert "not readable YAML" in message_of(path)


def test_merge_keys_are_no_duplicates(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n")
    assert read_yaml(path)["b"] == {"x": 3, "y": 2}


# --- what is tolerated


def test_numbers_may_be_texts_and_one_value_a_list_of_one():
    """Snakemake passes the numbers inside the lists of --config on as texts."""
    settings = load_settings(
        {
            "registers": ["0", "4"],
            "seeds": 3,
            "methods": "dinov2",
            "overrides": {"recipes.dinov2.lr": 1, "depth.max_depth": "1e1", "fractions": "0.5"},
        }
    )
    assert (settings.registers, settings.seeds, settings.methods) == ((0, 4), (3,), ("dinov2",))
    assert (settings.recipes["dinov2"].lr, settings.depth.max_depth) == (1.0, 10.0)
    assert isinstance(settings.recipes["dinov2"].lr, float) and settings.fractions == (0.5,)


@pytest.mark.parametrize("counts", [["0", "1", "4"], [0, 1, 4]])
def test_a_scale_keeps_the_run_small_however_the_counts_are_written(counts):
    assert load_settings({"scale": "smoke", "registers": counts}).registers == (0, 4)
    assert load_settings({"scale": "smoke", "registers": [2]}).registers == (2,)  # never none
    assert load_settings({"scale": "laptop", "registers": counts}).registers == (0, 1, 4)


@pytest.mark.parametrize("override", [{"linear.iterations": 6}, {"linear": {"iterations": 6}}])
def test_an_override_changes_nothing_beside_it(override):
    """The second is what `dvc exp run -S +overrides.linear.iterations=6` writes."""
    shipped = load_settings({"scale": "smoke"})
    changed = load_settings({"scale": "smoke", "overrides": override})
    assert changed.linear == shipped.linear.model_copy(update={"iterations": 6})
    assert changed.model_copy(update={"linear": shipped.linear}) == shipped


def test_an_override_reaches_recipes_and_sections_that_the_scale_leaves_out():
    shipped = load_settings({"scale": "smoke"})
    overrides = {"recipes": {"dinov2": {"steps": 7}}, "cutoff.dinov2": 150}
    changed = load_settings({"scale": "smoke", "overrides": overrides})
    assert changed.recipes["dinov2"] == shipped.recipes["dinov2"].model_copy(update={"steps": 7})
    assert changed.recipes["mae"] == shipped.recipes["mae"]
    assert changed.cutoff_of("dinov2-tiny-r0-s0-at050") == 150
    assert changed.cutoff_of("deit3-r0-s0") is None


def test_nothing_means_the_default(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    empty = {"data": None, "overrides": None, "mlflow_uri": None}
    assert load_settings(empty) == load_settings({})
    assert load_settings(empty).mlflow_uri == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://x")
    assert load_settings(empty).mlflow_uri == "http://x"


# --- data


def test_a_missing_data_folder_is_named(tmp_path):
    settings = load_settings({"data": {"root": str(tmp_path), "use": "folder:photos"}})
    with pytest.raises(ConfigError, match=r"data\.use\.labels: 'folder:photos' does not exist"):
        check_paths(settings)


@pytest.mark.parametrize("pattern", ["a/{0..3}.tar", "*/1.tar", "{a,b}/{00..01}.tar", "a/[01].tar"])
def test_shards_may_be_named_by_braces_and_stars(tmp_path, pattern):
    for name in ("a/1.tar", "b/01.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    use = {"text": f"shards:{pattern}"}
    check_paths(load_settings({"data": {"root": str(tmp_path), "use": use}}))
    with pytest.raises(ConfigError, match="does not exist"):
        check_paths(load_settings({"data": {"root": str(tmp_path / "a"), "use": use}}))


def test_the_world_is_replaced_by_a_data_set_and_the_results_folder_says_so(tmp_path):
    data = {"use": "folder:cifar10", "root": str(tmp_path)}
    settings = load_settings({"scale": "smoke", "data": data})
    assert settings.data.labels == settings.data.eval == "folder:cifar10"
    assert settings.results.name == "smoke-cifar10"
    assert settings.layout.results == settings.results
    assert load_settings({"scale": "smoke"}).results.name == "smoke"
    masks = {"use": {"segmentation": "ade20k:ade"}}
    assert load_settings({"scale": "smoke", "data": masks}).results.name == "smoke"


def test_data_sets_of_other_letters_do_not_share_a_results_folder():
    names = [
        load_settings({"data": f"folder:{place}"}).results.name
        for place in ("写真", "画像", ".", "x" * 300, "x" * 301)
    ]
    assert len(set(names)) == len(names) and all(
        name.isascii() and len(name) < 90 for name in names
    )


# --- scales


@pytest.mark.parametrize("scale", SCALE_NAMES)
def test_every_scale_loads(scale):
    settings = load_settings({"scale": scale})
    assert set(settings.methods) <= set(settings.recipes)
    assert settings == load_settings({"scale": scale, **{"stale": "keep"}})


def test_the_paper_scale_has_the_papers_settings():
    """Section 3.1 and the official recipes: ViT-B/16, ViT-B/16, ViT-L/14 with SwiGLU."""
    settings = load_settings({"scale": "paper"})
    deit3, openclip, dinov2 = (settings.recipes[m] for m in ("deit3", "openclip", "dinov2"))
    assert (deit3.size, deit3.patch, deit3.batch, deit3.lr) == ("base", 16, 2048, 1e-3)
    assert deit3.steps == pytest.approx(240 * 14_197_122 / 2048, rel=1e-3)
    assert (openclip.size, openclip.patch, openclip.context, openclip.lr) == ("base", 16, 77, 5e-4)
    assert (dinov2.size, dinov2.patch, dinov2.prototypes) == ("large", 14, 131_072)
    assert (dinov2.steps, dinov2.batch) == (625_000, 3072)
    assert dinov2.lr == pytest.approx(2e-4 * (3072 / 1024) ** 0.5, rel=1e-3)
    base = settings.sizes["base"]
    large = settings.sizes["large"]
    assert (base.width, base.depth, base.heads) == (768, 12, 12)
    assert (large.width, large.depth, large.heads) == (1024, 24, 16)


def test_a_scale_may_be_like_another_but_for_some_keys(tmp_path):
    (tmp_path / "one.yaml").write_text((SCALES / "smoke.yaml").read_text())
    (tmp_path / "two.yaml").write_text("like: one\nrecipes:\n  deit3: {steps: 77}\nlog_every: 3\n")
    (tmp_path / "three.yaml").write_text("like: two\nthreads: 2\n")
    one, two, three = (load_settings({}, name, scales=tmp_path) for name in ("one", "two", "three"))
    assert (two.recipes["deit3"].steps, two.log_every) == (77, 3)
    assert (one.recipes["deit3"].steps, one.log_every) != (77, 3)
    assert two.recipes["deit3"].lr == one.recipes["deit3"].lr
    assert two.recipes["dinov2"] == one.recipes["dinov2"]
    assert (three.threads, three.log_every) == (2, 3)


def test_an_unknown_key_of_a_scale_names_the_scales_file(tmp_path):
    (tmp_path / "mine.yaml").write_text((SCALES / "smoke.yaml").read_text() + "lkie: smoke\n")
    with pytest.raises(ConfigError, match=r"^mine.yaml: lkie: unknown key"):
        load_settings({}, "mine", scales=tmp_path)
    with pytest.raises(ConfigError, match=r"^lkie: unknown key"):
        load_settings({"overrides": {"lkie": 1}})


@pytest.mark.parametrize("like", ["one", "nosuch", "5", "[a]"])
def test_a_scale_like_itself_or_like_none_is_one_line(tmp_path, like):
    (tmp_path / "one.yaml").write_text(f"like: {like}\n")
    with pytest.raises(ConfigError, match=r"^one.yaml"):
        load_settings({}, "one", scales=tmp_path)


def test_loading_settings_imports_nothing_heavy():
    code = "import sys, registers.settings.load; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "pandas", "numpy", "mlflow", "jsonschema"}
    assert not heavy & set(ast.literal_eval(done.stdout))
