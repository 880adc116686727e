"""Frames to H.264 and back, through the ffmpeg that `imageio-ffmpeg` brings. Owns: every call of it, and its files.

Frame i of a file is shown at second i / fps: no B-frames, no edit list, so that readers find it by its time. Every
second frame is a key frame, as in LeRobot's own recordings, because training reads frames in random order.
"""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from embodichain.export.layout import VIDEO, indices, next_file, place

CRF = 18  # x264's quality, 0 (lossless) to 51
_EXACT = "area+accurate_rnd+full_chroma_int+full_chroma_inp"  # a third less error than ffmpeg's default conversion


class VideoWriter:
    """One growing mp4.

    Args:
        path: of the file; its folder is created.
        height: pixels, even (the format halves its colours).
        width: pixels, even.
        fps: frames per second.
    """

    def __init__(self, path: Path, *, height: int, width: int, fps: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.frames = path, 0
        self._shape = (height, width, 3)
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process that writes it
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
        coded = ["-c:v", "libx264", "-preset", "veryfast", "-crf", str(CRF), "-g", "2", "-bf", "0"]
        command = [get_ffmpeg_exe(), "-v", "error", "-y", *raw, *coded, "-pix_fmt", "yuv420p", "-threads", "1"]
        self._process = subprocess.Popen([*command, str(path)], stdin=subprocess.PIPE, stderr=self._said)

    def write(self, frames: np.ndarray) -> None:
        """Append u8[n, H, W, 3]. Raises `OSError` if they cannot be written."""
        assert frames.dtype == np.uint8
        assert frames.shape[1:] == self._shape
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(frames).data)
        except OSError as error:
            raise OSError(f"{self.path}: {self._complaint() or error}") from error
        self.frames += len(frames)

    def close(self) -> None:
        """Finish the file. Raises `OSError` if it is not whole."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        finally:
            code = self._process.wait()
            complaint = self._complaint()
            self._said.close()
        # ffmpeg says so, but may still end with 0, when the last bytes found no room.
        if code or complaint:
            raise OSError(f"{self.path}: {complaint or f'ffmpeg ended with code {code}'}")

    def abandon(self) -> None:
        """Stop at once and leave whatever there is."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(OSError):  # what it had not read yet
            self._process.stdin.close()
        self._said.close()

    def _complaint(self) -> str:
        self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


class VideoTrack:
    """The videos of one camera, many episodes to a file. `size` is height, width."""

    def __init__(self, root: Path, key: str, fps: int, size: tuple[int, int], limit_mb: float) -> None:
        self.size = size
        self._root, self._key, self._fps, self._limit = root, key, fps, limit_mb * 2**20
        self._chunk, self._file = 0, 0
        self._writer: VideoWriter | None = None

    def append(self, frames: np.ndarray) -> dict[str, object]:
        """Write u8[n+1, H, W, 3]; returns the columns that tell where the first n are. Raises `OSError`."""
        if self._writer is None:
            path = place(self._root, VIDEO, self._chunk, self._file, self._key)
            self._writer = VideoWriter(path, height=self.size[0], width=self.size[1], fps=self._fps)
        first, prefix = self._writer.frames, f"videos/{self._key}"
        where: dict[str, object] = {
            **indices(prefix, (self._chunk, self._file)),
            f"{prefix}/from_timestamp": first / self._fps,
            f"{prefix}/to_timestamp": (first + len(frames) - 1) / self._fps,
        }
        self._writer.write(frames)
        if self._writer.path.exists() and self._writer.path.stat().st_size >= self._limit:
            self.close()
            self._chunk, self._file = next_file(self._chunk, self._file)
        return where

    def close(self) -> None:
        """Finish the file that is open. Raises `OSError` if it is not whole."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def abandon(self) -> None:
        """Stop writing, whatever was written."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None


def read_frames(
    path: Path, *, start_s: float, frames: int, every: int, fps: float, size: tuple[int, int]
) -> np.ndarray:
    """Every `every`-th of the frames from second `start_s` on, `frames` of them, stretched to `size`.

    Args:
        path: of a video that ffmpeg can decode.
        start_s: when the first one is shown.
        frames: how many to return, n.
        every: 1 returns neighbours.
        fps: frames per second.
        size: height, width, pixels.

    Returns:
        u8[n, H, W, 3].

    Raises:
        ValueError: the file cannot be decoded, or ends too early.
    """
    height, width = size
    seek = ["-ss", f"{max(0.0, start_s - 0.5 / fps):.6f}"]  # half a frame early: times are rounded in the file
    filters = f"select='not(mod(n\\,{every}))',scale={width}:{height}:flags={_EXACT}"
    out = ["-fps_mode", "passthrough", "-frames:v", str(frames), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    command = [get_ffmpeg_exe(), "-v", "error", "-threads", "1", *seek, "-i", str(path), "-vf", filters, *out]
    done = subprocess.run(command, capture_output=True, check=False)
    expected = frames * height * width * 3
    if done.returncode or len(done.stdout) != expected:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        found = len(done.stdout) // (height * width * 3)
        raise ValueError(
            f"{path}: {said[-1] if said else f'{found} frames from second {start_s:g} on'}, expected {frames}"
        )
    return np.frombuffer(done.stdout, dtype=np.uint8).reshape(frames, height, width, 3)
