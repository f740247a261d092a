"""How fast this machine trains: steps on random images, against a measured matrix product.

`registers plan` and benchmarks/throughput.py measure with it. FLOPs are those of `exact.flops`.
"""

import io
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from registers.data.order import seed_example, seed_step
from registers.data.sample import Sample
from registers.exact import demands, flops
from registers.methods.method import Method, Progress, build
from registers.models.machine import launch
from registers.registry import METHODS
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings

STEP = 8  # of the training, past what happens only at its start


class RandomImages:
    """Smooth random images with label and caption, of any number, made when asked for.

    pixels: a side, for images at hand; (width, height) for photos that are decoded from JPEG.
    """

    attributes: dict[str, tuple[str, ...]] = {}
    fingerprint = "random"

    def __init__(self, images: int, pixels: int | tuple[int, int], classes: int = 1000) -> None:
        self.images = images
        self.classes = tuple(f"class {i}" for i in range(classes))
        self.captions = [f"a photo of a {name}" for name in self.classes]
        self.is_photo = isinstance(pixels, tuple)
        size = pixels if self.is_photo else (pixels, pixels)
        noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        self.image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        file = io.BytesIO()
        self.image.save(file, "JPEG", quality=90)
        self.file = file.getvalue()

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> Sample:
        label = index % len(self.classes)
        image = self.image
        if self.is_photo:
            image = Image.open(io.BytesIO(self.file), formats=["JPEG"]).convert("RGB")
        return Sample(image, str(index), label, self.captions[label])


@dataclass(frozen=True)
class TrainingSpeed:
    """What steps of one training took.

    seconds: of a step, its batch being at hand. update: of these, what the optimizer and the
    teacher take, whatever the batch. sample: seconds of one core to make one example.
    flops: of a step. memory: peak MB of the GPU, 0 on a CPU.
    """

    id: BackboneId
    batch: int
    seconds: float
    update: float
    sample: float
    flops: float
    memory: float = 0.0

    @property
    def images_per_second(self) -> float:
        return self.batch / self.seconds

    @property
    def achieved(self) -> float:
        """FLOP/s of a whole step."""
        return self.flops / self.seconds

    @property
    def achieved_by_batch(self) -> float:
        """FLOP/s of forward and backward alone."""
        return self.flops / (self.seconds - self.update)


# --- the machine ----------------------------------------------------------------------------------


def matrix_product(device: torch.device, is_half: bool, seconds: float = 1.0) -> float:
    """FLOP/s of large square matrix products, the best of several: what a step could reach."""
    dtype = torch.bfloat16 if is_half else torch.float32
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device, dtype=dtype)
    b = torch.randn(side, side, device=device, dtype=dtype)
    times = []
    end = _clock(device) + seconds
    while len(times) < 4 or _clock(device) < end:
        start = _clock(device)
        a @ b
        _wait(device)
        times.append(_clock(device) - start)
    return 2 * side**3 / min(times)


def _clock(device: torch.device) -> float:
    """Seconds: of the processor where one thread works, so that other work beside it counts not."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- training -------------------------------------------------------------------------------------


def smaller(settings: Settings, id: BackboneId, size: dict, recipe: dict) -> Settings:
    """The settings with other values of this backbone's size and recipe."""
    old = settings.recipes[id.method]
    name = id.size or old.size
    recipes = {**settings.recipes, id.method: old.model_copy(update=recipe)}
    sizes = {**settings.sizes, name: settings.sizes[name].model_copy(update=size)}
    return settings.model_copy(update={"recipes": recipes, "sizes": sizes})


def that_fits(settings: Settings, id: BackboneId, work: float, memory: float) -> Settings:
    """The settings, made smaller until a step takes at most `work` FLOPs and `memory` MB.

    In this order: the batch down to four images, prototypes, text tower and decoder, blocks to
    two, then the width to that of the smallest size. What still does not fit is returned.
    """
    candidate = settings
    for size, recipe in _smaller_and_smaller(settings, id):
        candidate = smaller(settings, id, size, recipe)
        step = candidate.recipes[id.method].batch * flops.training_flops(candidate, id)
        if step <= work and demands.training_memory(candidate, id, on_gpu=False) <= memory:
            break
    return candidate


def _smaller_and_smaller(settings: Settings, id: BackboneId) -> Iterator[tuple[dict, dict]]:
    """Changes of size and recipe, each smaller than the one before."""
    recipe = {"batch": settings.recipes[id.method].batch}
    size = {"depth": flops.backbone_blocks(settings, id).depth}
    yield size, recipe
    while recipe["batch"] > 4:
        recipe["batch"] = max(4, recipe["batch"] // 4 * 2)
        yield size, recipe
    recipe |= _short(settings, id)
    yield size, recipe
    while size["depth"] > 2:
        size["depth"] = max(2, size["depth"] // 2)
        yield size, recipe
    smallest = min(settings.sizes.values(), key=lambda other: other.width)
    yield size | {"width": smallest.width, "heads": smallest.heads}, recipe


def _short(settings: Settings, id: BackboneId) -> dict[str, int]:
    """Fewer prototypes and blocks beside the backbone's."""
    recipe = settings.recipes[id.method]
    most = {"prototypes": 4096, "text_depth": 2, "decoder_depth": 2}
    return {
        key: min(top, getattr(recipe, key)) for key, top in most.items() if hasattr(recipe, key)
    }


def measure_training(
    settings: Settings,
    id: BackboneId,
    pixels: int | tuple[int, int],
    steps: int = 3,
    limit: float = math.inf,
) -> TrainingSpeed:
    """Medians over `steps` steps of the training loop's own kind, after one that warms up.

    settings: as they are to be measured, see `that_fits`. Device and precision are the settings'.
    limit: seconds after which no further step begins; the first one then counts as well.
    """
    fabric = launch(settings)
    device = fabric.device
    samples = RandomImages(1024, pixels)
    method = build(settings, id, samples)
    batch, sample = _batch(method, samples, torch.device("cpu"))
    model, optimizer = fabric.setup(method, method.optimizer())
    model.train()
    batch = fabric.to_device(batch)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    # --- steps as train.py takes them
    progress = Progress(min(STEP, method.recipe.steps - 1), method.recipe.steps)
    seconds = []
    updates = []
    for _ in range(1 + steps):
        start = _clock(device)
        seed_step(id.seed, progress.step)
        method.schedule(optimizer, progress)
        loss = model(batch, progress)["loss"]
        optimizer.zero_grad()
        fabric.backward(loss)
        _wait(device)
        between = _clock(device)
        method.before_update(progress)
        optimizer.step()
        method.after_step(progress)
        _wait(device)
        end = _clock(device)
        seconds.append(end - start)
        updates.append(end - between)
        if sum(seconds) > limit:
            break

    is_cuda = device.type == "cuda"
    return TrainingSpeed(
        id=id,
        batch=method.recipe.batch,
        seconds=statistics.median(seconds[1:] or seconds),
        update=statistics.median(updates[1:] or updates),
        sample=sample,
        flops=method.recipe.batch * flops.training_flops(settings, id),
        memory=torch.cuda.max_memory_allocated(device) / 1e6 if is_cuda else 0.0,
    )


def _batch(
    method: Method, samples: RandomImages, device: torch.device
) -> tuple[dict[str, torch.Tensor], float]:
    """One batch and the seconds of one of its examples; large batches repeat a few examples."""
    times = []
    examples = []
    for number in range(min(method.recipe.batch, 16)):
        seed_example(method.id.seed, number)
        start = _clock(device)
        examples.append(method.augment(samples[number]))
        times.append(_clock(device) - start)
    repeated = [examples[i % len(examples)] for i in range(method.recipe.batch)]
    batch = {name: torch.stack([e[name] for e in repeated]) for name in examples[0]}
    return batch, statistics.median(times)


@torch.no_grad()
def measure_forward(settings: Settings, id: BackboneId, work: float) -> float:
    """FLOP/s of a backbone's forward pass, in float32, as questions use it. work: FLOPs a pass."""
    fabric = launch(settings)
    device = fabric.device
    depth = min(2, flops.backbone_blocks(settings, id).depth)
    settings = smaller(settings, id, {"depth": depth}, {"batch": 4, **_short(settings, id)})
    backbone = build(settings, id, RandomImages(16, 32)).backbone.to(device).eval()
    side = settings.image_size
    each = flops.forward_flops(settings, id, side)
    images = torch.randn(max(1, min(64, int(work / each))), 3, side, side, device=device)
    times = []
    for _ in range(3):
        start = _clock(device)
        backbone(images)
        _wait(device)
        times.append(_clock(device) - start)
    return len(images) * each / min(times)


def photo_size(settings: Settings, id: BackboneId) -> int | tuple[int, int]:
    """What a training image is before it is augmented: the world's side, or a typical photo's."""
    spec = settings.data.specs(METHODS[id.method].role)[0]
    return settings.world.pixels if spec == "world" else (500, 375)
