"""Pictures in, larger pictures out: files, encoded bytes, PIL images, arrays and tensors."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast, get_args

import numpy as np
from PIL import Image

from tddsr.engines.engine import Engine, Sampler
from tddsr.engines.load import load_engine
from tddsr.enlarge import Enlarger, Progress, Sampling, Tile, as_made
from tddsr.errors import UsageError
from tddsr.pictures.arrays import from_array
from tddsr.pictures.files import (
    check_writable,
    encode_bands,
    kind_of,
    read_picture,
    stored_dtype,
    write_bands,
)
from tddsr.pictures.frames import Frames, encode_frames, find_frames, write_frames
from tddsr.pictures.metadata import Metadata
from tddsr.pictures.opening import allowed
from tddsr.pictures.picture import (
    SOFT_EDGE,
    Layout,
    Picture,
    Pixels,
    hard_edges,
    largest,
    same_channels,
    spread_colours,
    used_range,
)
from tddsr.pictures.pil import from_pil, to_pil
from tddsr.pictures.rows import Floats, resized
from tddsr.pictures.sequences import Made
from tddsr.pictures.sizes import Size, output_path
from tddsr.pictures.stored import Store

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T", str, Path, bytes, Image.Image, Pixels, "Tensor")

_ROUNDING = 1e-6
"""Of a float32 in [0,1] that has been interpolated; far less than a step of 16 bit."""


def _is_tensor(picture: object) -> TypeGuard[Tensor]:
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    return torch is not None and isinstance(picture, torch.Tensor)


class Upscaler:
    """Enlarges pictures with one model on one device, by one engine.

    The same picture, model and seed give the same pixels; those of the embedded models within 1 of 255 whatever the
    tile size. Networks that see the whole picture (``engine.halo`` is None), or so far that exact tiles do not fit
    into memory, are blended from overlapping tiles, whose size changes pixels.

    16-bit and floating-point pictures of which all values lie within less than half of their range (12 bits in 16,
    measurements, a photograph that is dark everywhere) are stretched to the full range for the network, and their
    result is brought back: it stays between their least and their largest value, so that one value alone stays as
    it is. One bright pixel is enough for a picture not to be stretched.
    """

    def __init__(self, engine: Engine, tile: Tile = "auto") -> None:
        self.engine = engine
        self.enlarger = Enlarger(engine, tile)
        self._made_of: tuple[str | Path, tuple[tuple[str, Any], ...]] | None = None

    @classmethod
    def load(
        cls,
        model: str | Path = "compact",
        *,
        strength: float = 1,
        faithful: str | Path | None = None,
        engine: str = "auto",
        device: str = "auto",
        dtype: str | None = None,
        fast: bool = False,
        tile: Tile = "auto",
        compiled: bool = False,
        threads: int | None = None,
    ) -> Upscaler:
        """Load a model by name or from a file.

        Args:
            model: a name: ``compact`` and the faster ``compact-small`` come with the package; ``resshift``, ``sinsr``
                and others of ``tddsr.weights.registry.MODELS`` are downloaded the first time, under their own
                licences. Or a file: of ``tddsr train`` or ``tddsr convert``, or a graph of ``tddsr export`` (.onnx).
            strength: 0 (faithful) to 1 (as sharp as the model is): how much of the weights is the model's, the rest
                being its faithful partner's.
            faithful: that partner, by name or file, a model of the same network and from the same line, such as one
                from before its discriminator; None: the one that comes with the model.
            engine: ``onnx``, which is for the shipped models and for graphs, and does without PyTorch; ``torch``, for
                all but graphs; ``auto``: ``onnx`` where it can do what is asked for, unless PyTorch is installed and
                reaches an accelerator that it does not. On a CPU both give the same pixels, within 1/255.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``; ``mps`` for ``torch``; ``directml``, ``coreml``,
                ``openvino`` for ``onnx``, where the installed ONNX Runtime has it.
            dtype: of the network: ``float32``, which is the default, ``bfloat16`` or ``float16``. Half precision needs
                ``torch``, and an accelerator: a CPU is slow in it. Where it gives infinities, it goes on in float32.
            fast: bfloat16 where PyTorch is installed and the device computes in it: pixels differ by a third of a level
                of 255 on average. Elsewhere the same as without.
            tile: largest side of a tile in lr pixels; None for the whole picture at once; ``auto`` fits it to memory
                where tiles are exact, and is 256 elsewhere. Where memory runs out it is halved.
            compiled: run the network through ``torch.compile``: the first picture of each size takes a minute more.
            threads: of a CPU; None: what OMP_NUM_THREADS says, else as many as the process may use. With ``torch`` for
                all that PyTorch does in the process.

        Raises:
            ModelError: no such model, the file cannot be used, or it needs PyTorch, which is not installed; or the
                partner is of another network.
            UsageError: no such strength, or no partner for it; no such engine, device or type; options that do not go
                together; or an impossible tile.
        """
        options: dict[str, Any] = {
            "strength": strength,
            "faithful": faithful,
            "engine": engine,
            "device": device,
            "dtype": dtype,
            "fast": fast,
            "compiled": compiled,
        }
        upscaler = cls(load_engine(model, **options, threads=threads), tile)
        upscaler._made_of = (model, (*options.items(), ("tile", tile), ("threads", threads)))
        return upscaler

    def __reduce__(self) -> tuple[Callable[..., Upscaler], tuple[Any, ...]]:
        """For other processes: how it was loaded, which is done once in each; a model file must be there too."""
        if self._made_of is None:
            raise UsageError("only an upscaler that was made by load can be sent to another process")
        return _loaded_once, self._made_of

    def __call__(
        self,
        picture: T,
        *,
        scale: float = 4,
        width: int | None = None,
        height: int | None = None,
        max_side: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        sampler: Sampler = "deterministic",
        output: str | Path | None = None,
        strip_metadata: bool = False,
        largest_input: float | None = None,
        progress: Progress | None = None,
    ) -> T:
        """Enlarge a picture and return the same kind of thing.

        Args:
            picture: a path (the result is written, and its path returned); an encoded file as bytes (so is the result,
                of the same kind, or PNG, or WebP of an animation); of both, every frame or page. A PIL image; an array
                (H,W), (H,W,1), (H,W,3) or (H,W,4), uint8, uint16 or floating point in [0,1]; a tensor (C,H,W) or
                (B,C,H,W) with 1, 3 or 4 channels, uint8 or floating point in [0,1]. The fourth channel is transparency.
            scale: 1 to 8; other than 4 by one final resize.
            width: of the result, in pixels, instead of ``scale``; the height follows. At most 8 times the picture's;
                a picture that is larger is enlarged all the same, and then reduced to it.
            height: as ``width``.
            max_side: of the result, its longer side, as ``width``.
            seed: whole number >= 0 that chooses the noise.
            steps: evaluations of the network; None is the model's own number, 1 for a student.
            sampler: with many steps, Eq. 5 (``deterministic``) or Eq. 2 (``stochastic``).
            output: for a path, where to write, by default beside it, ``photo_x4.jpg``; for bytes, a file to write
                to, whose path is returned instead of bytes.
            strip_metadata: keep nothing of the metadata but the colour profile.
            largest_input: million pixels of a file or bytes; what claims more is refused. None: 178, which is twice
                ``PIL.Image.MAX_IMAGE_PIXELS``; other numbers change that for all threads until the call ends.
            progress: called with (tiles done, tiles in all); of several pictures as if all had the tiles of this one.

        Raises:
            ImageError: the file cannot be read or written.
            ModelError: the network gives values that are no numbers.
            UsageError: an option out of range, or an array or tensor of another shape or type.
        """
        size = Size(scale, width, height, max_side)
        job = _Job(self.enlarger, size, self._sampling(seed, steps, sampler), strip_metadata, progress)
        if isinstance(picture, str | Path):
            if not str(picture) or output == "":
                raise UsageError("a path is empty")
            with allowed(largest_input):
                target = output_path(Path(picture), size) if output is None else Path(output)
                job.write(Path(picture), target)
            written: Any = str(target) if isinstance(picture, str) else target
            return cast("T", written)
        if isinstance(picture, bytes):
            with allowed(largest_input):
                if output is None:
                    return job.encode(picture)
                job.write(picture, Path(output))
            return cast("T", output)
        if output is not None:
            raise UsageError("output is only for a path or bytes; save the returned picture yourself")
        if isinstance(picture, Image.Image):
            source = from_pil(picture)
            large = job.enlarge(source)
            return to_pil(Picture.of(large, job.metadata(source, large.shape[1])))
        if isinstance(picture, np.ndarray):
            large = job.enlarge(from_array(picture))
            return large[..., 0] if picture.ndim == 2 else large
        if _is_tensor(picture):
            from tddsr.pictures.tensors import like_tensor, to_arrays

            return like_tensor(np.stack([job.enlarge(from_array(array)) for array in to_arrays(picture)]), picture)
        raise UsageError(f"cannot enlarge a {type(picture).__name__}; give a path, bytes, PIL image, array or tensor")

    def _sampling(self, seed: int, steps: int | None, sampler: Sampler) -> Sampling:
        if seed < 0:
            raise UsageError(f"seed is {seed}; it must be 0 or more")
        if sampler not in get_args(Sampler):
            raise UsageError(f"sampler is '{sampler}'; it must be one of {', '.join(get_args(Sampler))}")
        steps = self.engine.default_steps if steps is None else steps
        self.engine.check_steps(steps)
        return Sampling(seed, steps, sampler)


@functools.cache
def _loaded_once(model: str | Path, options: tuple[tuple[str, Any], ...]) -> Upscaler:
    return Upscaler.load(model, **dict(options))


@dataclass(frozen=True)
class _Job:
    """What is asked for, for any picture: floating point from the network to the one rounding at the end."""

    enlarger: Enlarger
    size: Size
    sampling: Sampling
    strip_metadata: bool
    progress: Progress | None

    def write(self, source: Path | bytes, target: Path) -> None:
        """From a file, or its content, to a file, in bands of rows."""
        check_writable(target)
        if frames := find_frames(source, target.suffix):
            write_frames(target, *self._several(frames, target.suffix), frames.timing)
            return
        picture = read_picture(source, in_rows=True)
        layout = self._layout(picture.layout, target.suffix)
        write_bands(target, self._bands(picture, layout), layout, self.metadata(picture, layout.width))

    def encode(self, data: bytes) -> bytes:
        """From the content of a file to that of a file of its kind, or of a PNG file."""
        kind = kind_of(data)
        if frames := find_frames(data, kind):
            return encode_frames(kind, *self._several(frames, kind), frames.timing)
        picture = read_picture(data, in_rows=True)
        layout = self._layout(picture.layout, kind)
        return encode_bands(kind, self._bands(picture, layout), layout, self.metadata(picture, layout.width))

    def enlarge(self, picture: Picture) -> Pixels:
        """In memory: (height, width, channels)."""
        layout = self._layout(picture.layout)
        pixels = np.empty((layout.height, layout.width, layout.channels), layout.dtype)
        row = 0
        for band in self._bands(picture, layout):
            pixels[row : row + len(band)] = band
            row += len(band)
        return pixels

    def _several(self, frames: Frames, suffix: str) -> tuple[list[Layout], Made]:
        """What becomes of the pictures of a file, and they themselves, each made when it is asked for."""
        layouts = [self._layout(layout, suffix) for layout in frames.layouts]

        tell = _shared(self.progress, len(frames))

        def made() -> Made:
            for number, (picture, layout) in enumerate(zip(frames, layouts, strict=True)):
                one = replace(self, progress=tell(number))
                yield one._bands(picture, layout), self.metadata(picture, layout.width)

        return layouts, made()

    def _layout(self, small: Layout, suffix: str | None = None) -> Layout:
        """Of the large picture, in memory or in a file with ``suffix``."""
        dtype = small.dtype if suffix is None else stored_dtype(suffix, small.dtype)
        return Layout(*self.size.of(*small.size), small.channels, dtype)

    def metadata(self, picture: Picture, width: int) -> Metadata:
        told = picture.metadata.enlarged(width / picture.size[0])
        return Metadata(icc=told.icc, lossless=told.lossless) if self.strip_metadata else told

    def _bands(self, picture: Picture, layout: Layout) -> Iterator[Pixels]:
        """(rows, width, channels) of the large picture, as ``layout`` says."""
        alpha = picture.alpha
        source = picture.rgb if alpha is None else spread_colours(picture.rgb, alpha)
        one_channel = picture.grey or same_channels(source)
        masked = alpha is not None and bool((alpha != alpha[0, 0]).any())
        tell = _shared(self.progress, 2 if masked else 1)
        span = used_range(source)
        store = Store(layout, span, largest(source.dtype), None if masked or alpha is None else float(alpha[0, 0]))
        (width, height), scale = picture.size, self.enlarger.engine.scale
        large = scale * width, scale * height
        finished = large == layout.size and not masked
        bands = self.enlarger.bands(
            source,
            self.sampling,
            span,
            grey=one_channel,
            keep=store if finished else as_made,
            progress=tell(0),
        )
        if finished:
            yield from resized(bands, large, large)
            return
        if masked and alpha is not None:
            masks = self._masks(alpha, large, tell(1))
            pairs = zip(resized(bands, large, large), masks, strict=True)
            bands = (np.concatenate(pair, axis=2) for pair in pairs)
        yield from map(store, resized(bands, large, layout.size, "both" if masked else "colours"))

    def _masks(self, alpha: Pixels, large: tuple[int, int], progress: Progress | None) -> Iterator[Floats]:
        """Transparency: hard edges by the network, soft ones, which it would sharpen, by bicubic interpolation.

        What that makes fully clear or opaque stays so: it has one lobe, overshoots at an edge and never comes back.
        """
        white = largest(alpha.dtype)
        by_network = self.enlarger.bands(
            alpha[..., None], self.sampling, (0, white), grey=True, contrast=SOFT_EDGE - 0.01, progress=progress
        )
        small = (alpha.shape[1], alpha.shape[0])
        planes = ((alpha / white).astype(np.float32), hard_edges(alpha))
        plain, hard = (resized([plane[..., None]], small, large, "mask") for plane in planes)
        for network, soft, share in zip(resized(by_network, large, large), plain, hard, strict=True):
            whole = soft.round()
            yield np.where(abs(soft - whole) < _ROUNDING, whole, soft + share * (network - soft))


def _shared(progress: Progress | None, parts: int) -> Callable[[int], Progress | None]:
    """For work in parts that count alike: what each of them calls, so that all of it is told."""
    shares = [0.0] * parts

    def of(part: int) -> Progress | None:
        def tell(count: int, total: int) -> None:
            shares[part] = count / total
            if progress is not None:
                progress(round(sum(shares) * total), parts * total)

        return None if progress is None else tell

    return of
