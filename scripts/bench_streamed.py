"""Measure how fast image files of ImageNet's size are read, by ways to decode and to augment.

    python scripts/bench_streamed.py [--images 60] [--rounds 3] [--root DIR]

One core, images a second, medians of interleaved rounds, and as a ratio to what the loader does.
The images are made up (noise with the spectrum of photographs, 500×375, about 110 KiB), or those
below DIR. Then: the loader's share of a training step, and what it would take to feed a device.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.dataset.jitter import jitter, sample
from nasrun.dataset.streamed import Transforms
from nasrun.values import MapSize, Problem

WIDTH, HEIGHT, QUALITY = 500, 375, 90
"""Shape and quality of the made-up photographs: the most frequent ones of ImageNet."""

JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}
"""Colour jitter of conf/dataset/imagenet.yaml."""


def photograph(rng: np.random.Generator) -> bytes:
    """Make a JPEG whose spectrum falls as those of photographs do, in three related colours."""
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    frequency[0, 0] = 1.0
    planes = []
    for _ in range(3):
        waves = np.fft.rfft2(rng.standard_normal((HEIGHT, WIDTH))) / frequency**1.1
        waves[0, 0] = 0
        plane = np.fft.irfft2(waves, (HEIGHT, WIDTH))
        planes.append(plane / plane.std())
    mixed = np.stack([planes[0] + 0.25 * plane for plane in planes], axis=2)
    pixels = np.clip(128 + 50 * mixed, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def images(count: int, root: Path | None, scratch: Path) -> list[Path]:
    """Return the files to read: those of ``root``, or made-up ones."""
    if root is not None:
        return sorted(p for p in root.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))[:count]
    rng = np.random.default_rng(0)
    paths = [scratch / f"{number:04}.jpg" for number in range(count)]
    for path in paths:
        path.write_bytes(photograph(rng))
    return paths


def rate(paths: list[Path], read: Callable[[Path], object]) -> float:
    """Images a second of one pass over the files."""
    began = time.process_time()
    for path in paths:
        read(path)
    return len(paths) / (time.process_time() - began)


def ways_to_decode(size: MapSize) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Yield ways to turn a file into pixels."""
    loader = transforms(size)
    yield "as the loader does (Pillow)", lambda path: loader.open(str(path))
    yield "bytes alone", lambda path: path.read_bytes()

    def draft(path: Path) -> object:
        with Image.open(path) as image:
            image.draft("RGB", (2 * size.width, 2 * size.height))
            return image.convert("RGB")

    yield "Pillow, draft mode for twice the size", draft
    with suppress(ImportError, RuntimeError):
        from torchvision.io import ImageReadMode, decode_jpeg, read_file

        def tensors(path: Path) -> torch.Tensor:
            return decode_jpeg(read_file(str(path)), mode=ImageReadMode.RGB)

        yield "torchvision.io.decode_jpeg", tensors
    with suppress(ImportError):
        import simplejpeg

        yield "simplejpeg", lambda path: simplejpeg.decode_jpeg(path.read_bytes())


def transforms(size: MapSize, **changes: Any) -> Transforms:
    """The transforms of conf/dataset/imagenet.yaml."""
    return Transforms(size, 3, **{"crop_area": 0.08, "flip": True, **JITTER, **changes})


def ways_to_augment(size: MapSize) -> Iterator[tuple[str, Callable[[Any, Any], object]]]:
    """Yield ways to turn a picture and its pixels uint8 [3, H, W] into an augmented image."""
    from torchvision.transforms import v2

    for name, changes in {
        "as the loader does (v2 on pictures)": {},
        "without hue": {"hue": 0.0},
        "jitter_on=device, or none": {"jitter_on": "device"},
    }.items():
        transform = transforms(size, **changes).training()
        yield name, lambda picture, _, transform=transform: transform(picture)
    shape = (size.height, size.width)
    for name, colours in {
        "v2 on tensors uint8": JITTER,
        "v2 on tensors uint8, without hue": {**JITTER, "hue": 0.0},
        "v2 on tensors uint8, without colour jitter": None,
    }.items():
        steps = [v2.RandomResizedCrop(shape, (0.08, 1.0)), v2.RandomHorizontalFlip()]
        steps += [v2.ColorJitter(**colours)] if colours else []
        augment = v2.Compose(steps)
        yield name, lambda _, pixels, augment=augment: augment(pixels)


def jittered(size: MapSize, device: torch.device) -> float:
    """Images a second that the device jitters, in batches of 64."""
    images = torch.randint(0, 256, (64, *size.shape(3)), dtype=torch.uint8, device=device)
    sampled = torch.stack([sample(tuple(JITTER.values())) for _ in images])
    seconds = []
    for _ in range(4):
        began = time.monotonic()
        jitter(images, sampled, tuple(JITTER.values())).sum().item()  # waits for the device
        seconds.append(time.monotonic() - began)
    return len(images) / min(seconds)


def show(title: str, found: Mapping[str, list[float]], console: Console) -> None:
    """Show the medians of some rates, and their ratios to the first."""
    table = Table(title, "images a second", "ratio")
    first = statistics.median(next(iter(found.values())))
    for name, rates in found.items():
        middle = statistics.median(rates)
        table.add_row(name, f"{middle:,.0f}", f"{middle / first:.2f}")
    console.print(table)


def step_seconds(batch: int, size: MapSize) -> float:
    """Seconds of CPU of a training step of SPOS' supernet on images of ``size``."""
    setup = build_setup(compose(["task=search", "experiment=spos_imagenet"]))
    space, problem = setup.search_space, Problem(3, size, 1000)
    network = space.network(
        space.sample(np.random.default_rng(0)), problem, "final", auxiliary=False
    ).to(memory_format=torch.channels_last)
    inputs = torch.randn(batch, 3, size.height, size.width)
    labels = torch.arange(batch)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        torch.nn.functional.cross_entropy(network(inputs), labels).backward()
        seconds.append(time.process_time() - began)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    console, size = Console(width=100), MapSize.of(wanted.size)
    with tempfile.TemporaryDirectory() as scratch:
        paths = images(wanted.images, wanted.root, Path(scratch))
        if not paths:
            sys.exit(f"there is no JPEG below {wanted.root}")
        mean = statistics.fmean(path.stat().st_size for path in paths) / 1024
        console.print(f"{len(paths)} files of {mean:.0f} KiB on average, one core")
        loader = transforms(size)
        pictures = [loader.open(str(path)) for path in paths]
        pixels = [torch.from_numpy(np.array(p).transpose(2, 0, 1).copy()) for p in pictures]
        decoded: dict[str, list[float]] = {}
        augmented: dict[str, list[float]] = {}
        whole: list[float] = []
        pairs = dict(zip(paths, zip(pictures, pixels, strict=True), strict=True))
        training = loader.training()
        for _ in range(wanted.rounds):
            for name, decode in ways_to_decode(size):
                decoded.setdefault(name, []).append(rate(paths, decode))
            for name, augment in ways_to_augment(size):
                found = rate(paths, lambda path, augment=augment: augment(*pairs[path]))
                augmented.setdefault(name, []).append(found)
            whole.append(rate(paths, lambda path: training(loader.open(str(path)))))
        show("decoding", decoded, console)
        show("augmentation of decoded images", augmented, console)
    console.print(
        f"jitter_on=device on {wanted.device}: {jittered(size, wanted.device):,.0f} a second"
    )
    together = statistics.median(whole)
    step = step_seconds(16, size) / 16
    console.print(
        f"together {together:,.0f} images a second and core; an image of a training step of "
        f"spos_imagenet takes {1000 * step:.0f} ms of CPU, its reading {1000 / together:.1f} ms: "
        f"{100 / (1 + together * step):.0f} % of both"
    )


if __name__ == "__main__":
    main()
