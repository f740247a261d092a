"""What a job asks of a machine: memory and minutes, as upper bounds for a scheduler.

Rules of thumb on the formulas of `exact.flops`, without torch: Snakemake's rules ask for them, and
every executor passes them on. `registers plan` prints the memory and measures the time instead. A
job that needs more gets it with the next attempt (`retries` in a profile), and a training that ran
out of time resumes from its last saved step.
"""

import math

from registers.exact import flops
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings

MB = 1e6
PROCESS_MB = 2500  # torch, timm and a batch of small images; laptop's largest process took 1950
CUDA_MB = 4000  # what a process with a GPU takes of the host's memory besides
WORKER_MB = 1000  # a loader process
STATES = 16  # bytes of a trained parameter: weight, gradient and two moments in float32
TEACHER = 4  # bytes more where a teacher follows
ACTIVATIONS = 34  # bytes a token, channel and block keep in bfloat16 until the backward pass
CPU_FLOPS = 5e9  # of one thread, small matrices: a modest laptop's
GPU_FLOPS = 1e14  # of one GPU in bfloat16, a third of an A100's peak
START_MINUTES = 30  # imports from a slow network file system, opening a data set, a busy node
MARGIN = 3  # the machine may be slower, or shared

# images of published sets, train and val: bounds for "at most" settings
PUBLISHED = {
    "ade20k": (20210, 2000),
    "nyud": (24231, 654),
    "voc2007": (5011, 5011),
    "voc2012": (11540, 11540),
    "coco20k": (19817, 19817),
    "photos": (0, 8),  # readers.photos
}
PHOTO = 433  # side of a square with the pixels of a VOC or COCO photo
NYU = 554  # of one of 480 x 640


# --- memory ---------------------------------------------------------------------------------------


def training_memory(settings: Settings, id: BackboneId, on_gpu: bool, processes: int = 1) -> float:
    """MB of a training's weights, states and activations in one process; on a GPU in its memory."""
    recipe = settings.recipes[id.method]
    blocks = flops.backbone_blocks(settings, id)
    per_parameter = STATES + TEACHER * flops.has_teacher(id)
    weights = per_parameter * flops.trained_parameters(settings, id)
    kept = ACTIVATIONS * (1 if on_gpu else 2) * blocks.width * blocks.depth
    tokens = _tokens_of_views(settings, id)
    logits = 4 * 4 * getattr(recipe, "prototypes", 0) * (4 + getattr(recipe, "local_crops", 0))
    return (weights + recipe.batch / processes * (tokens * kept + logits)) / MB


def train_mb(settings: Settings, id: BackboneId, on_gpu: bool) -> int:
    """Memory of the host that a training asks for."""
    memory = PROCESS_MB + WORKER_MB * settings.workers
    if not on_gpu:
        return math.ceil(memory + training_memory(settings, id, on_gpu))
    state = STATES * flops.trained_parameters(settings, id) / MB  # as it is saved
    return math.ceil(memory + CUDA_MB + 2 * state)


def measure_mb(settings: Settings, id: BackboneId, on_gpu: bool) -> int:
    """Memory of the host for token banks and questions: a backbone, a batch, or a bank's arrays."""
    blocks = flops.backbone_blocks(settings, id)
    tokens = 1 + id.registers + (settings.image_size // settings.recipes[id.method].patch) ** 2
    bank = 2 * 4 * settings.bank.sample * tokens * blocks.width
    weights = 2 * 4 * flops.backbone_parameters(settings, id)
    return math.ceil(PROCESS_MB + CUDA_MB * on_gpu + (bank + weights) / MB)


def _tokens_of_views(settings: Settings, id: BackboneId) -> int:
    """Tokens of all crops of one image that a backward pass goes through."""
    recipe = settings.recipes[id.method]
    prefix = 1 + id.registers
    patches = (settings.image_size // recipe.patch) ** 2
    if id.method == "mae":
        return prefix + patches  # a quarter in the encoder, all of them in the narrow decoder
    if not flops.has_teacher(id):
        return prefix + patches
    local = (recipe.local_size // recipe.patch) ** 2
    return 2 * (prefix + patches) + recipe.local_crops * (prefix + local)


# --- time -----------------------------------------------------------------------------------------


def train_minutes(settings: Settings, id: BackboneId, on_gpu: bool) -> int:
    """Minutes that a training asks for, on one GPU or on the settings' threads."""
    recipe = settings.recipes[id.method]
    work = recipe.steps * recipe.batch * flops.training_flops(settings, id)
    return _minutes(settings, work, on_gpu)


def measure_minutes(settings: Settings, id: BackboneId, question: str, on_gpu: bool) -> int:
    """Minutes that a token bank (question "tokens") or a question asks for."""
    return _minutes(settings, question_flops(settings, id, question), on_gpu)


def question_flops(settings: Settings, id: BackboneId, question: str) -> float:
    """FLOPs of the forward passes behind a question; 0 where it reads a bank."""
    return sum(
        images * flops.forward_flops(settings, id, side)
        for images, side in question_images(settings, question)
    )


def question_images(settings: Settings, question: str) -> list[tuple[int, int]]:
    """How many images of which side in pixels pass the backbone for a question."""
    size = settings.image_size
    dense = {"segmentation": settings.segmentation, "depth": settings.depth}
    match question:
        case "tokens":
            return [(settings.bank.images, size)]
        case "linear":
            return [(settings.linear.train_images + settings.linear.val_images, size)]
        case "zeroshot":
            return [(settings.linear.val_images, size)]
        case "maps":
            return [(settings.maps.images, settings.maps.size)]
        case "segmentation" | "depth":
            return [_dense_images(settings, question, dense[question])]
        case "discovery":
            images = settings.discovery.images
            sizes = [_images(settings, spec) for spec in _specs(settings, question)]
            measured = sum(min(images, val) for _, val in sizes)
            tuned = sum(min(settings.discovery.tune_images, train) for train, _ in sizes)
            return [(measured + tuned, settings.discovery.size or _side(settings))]
    return []


def _dense_images(settings: Settings, question: str, dense) -> tuple[int, int]:
    (spec,) = _specs(settings, question)
    train, val = _images(settings, spec)
    seen = dense.iterations * dense.batch if dense.augment else min(dense.train_images, train)
    windows = 2 if question == "segmentation" and dense.stride < dense.crop else 1
    side = getattr(dense, "crop", 0) if question == "segmentation" else dense.size or NYU
    return seen + windows * min(dense.val_images, val), side


def _specs(settings: Settings, role: str) -> list[str]:
    return settings.data.specs(role)


def _images(settings: Settings, spec: str) -> tuple[int, int]:
    """Images of a data set, train and val; a folder of one's own counts as without a bound."""
    if spec == "world":
        return settings.world.train, settings.world.val
    return PUBLISHED.get(spec.partition(":")[0], (10**6, 10**6))


def _side(settings: Settings) -> int:
    """Side of the images that objects are sought in, at their original size."""
    return settings.world.pixels if "world" in _specs(settings, "discovery") else PHOTO


def _minutes(settings: Settings, work: float, on_gpu: bool) -> int:
    speed = GPU_FLOPS if on_gpu else CPU_FLOPS * settings.threads
    return math.ceil(START_MINUTES + MARGIN * work / speed / 60)
