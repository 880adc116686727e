"""How a scene looks, as frozen data: lights, surfaces, cameras, the sensor, and things that are only there to be seen.

Owns no renderer and touches no physics: `envs.build` and `envs.camera` apply it. The default is the plain look. What
changes during an episode is a function of the control step alone, so that a frame does not depend on which others
were taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

Vec3 = tuple[float, float, float]

NEUTRAL_MIRED = 1e6 / 6500.0  # of the light that the cameras show as white
LUMINANCE: Vec3 = (0.2126, 0.7152, 0.0722)  # of linear sRGB (ITU-R BT.709)
SHAPES = ("box", "ball", "cylinder")


@dataclass(frozen=True, kw_only=True)
class Wave:
    """A smooth process of the control step: a mean and a sum of sinusoids.

    Attributes:
        mean: what it swings about.
        terms: amplitude, period (control steps) and phase (rad) of each sinusoid.
    """

    mean: float = 0.0
    terms: tuple[Vec3, ...] = ()

    def at(self, step: int) -> float:
        """The value at a control step."""
        return self.mean + sum(a * math.sin(2.0 * math.pi * step / period + phase) for a, period, phase in self.terms)

    @property
    def span(self) -> tuple[float, float]:
        """An interval that it never leaves."""
        swing = sum(abs(amplitude) for amplitude, _, _ in self.terms)
        return self.mean - swing, self.mean + swing


def _planckian(mired: float) -> Vec3:
    """Linear sRGB of a black body of luminance 1, by the cubic fit of Kim et al. (US patent 7,024,034, 2002)."""
    t = 1e6 / min(max(1e6 / mired, 1667.0), 25000.0) / 1e3  # 1000 / kelvin, within the range of the fit
    if t > 0.25:  # below 4000 K
        x = ((-0.2661239 * t - 0.2343589) * t + 0.8776956) * t + 0.179910
    else:
        x = ((-3.0258469 * t + 2.1070379) * t + 0.2226347) * t + 0.240390
    if t > 1e3 / 2222.0:
        y = ((-1.1063814 * x - 1.34811020) * x + 2.18555832) * x - 0.20219683
    elif t > 0.25:
        y = ((-0.9549476 * x - 1.37418593) * x + 2.09137015) * x - 0.16748867
    else:
        y = ((3.0817580 * x - 5.87338670) * x + 3.75112997) * x - 0.37001483
    big_x, big_z = x / y, (1.0 - x - y) / y
    red = 3.2404542 * big_x - 1.5371385 - 0.4985314 * big_z
    green = -0.9692660 * big_x + 1.8760108 + 0.0415560 * big_z
    blue = 0.0556434 * big_x - 0.2040259 + 1.0572252 * big_z
    return red, green, max(blue, 0.0)


def light_colour(mired: float) -> Vec3:
    """Linear RGB of light of a colour temperature given as 10^6 / kelvin, of luminance 1 whatever the temperature.

    Seen by a camera that shows `NEUTRAL_MIRED` as (1, 1, 1). Black bodies from 1667 to 25000 K, clipped to that.
    """
    red, green, blue = (c / n for c, n in zip(_planckian(mired), _planckian(NEUTRAL_MIRED), strict=True))
    luminance = (LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue) / sum(LUMINANCE)
    return red / luminance, green / luminance, blue / luminance


@dataclass(frozen=True, kw_only=True)
class Light:
    """A light from far away.

    Attributes:
        direction: in which it shines, world frame.
        colour: linear RGB intensity at the neutral temperature; a surface facing it sends back 1 / pi of it.
        temperature: mired (10^6 / kelvin).
        level: stops: its intensity is doubled by each.
    """

    direction: Vec3
    colour: Vec3 = (1.0, 1.0, 1.0)
    temperature: Wave = Wave(mean=NEUTRAL_MIRED)
    level: Wave = Wave()

    def colour_at(self, step: int) -> list[float]:
        """Linear RGB intensity at a control step."""
        gain = 2.0 ** self.level.at(step)
        warm = light_colour(self.temperature.at(step))
        return [c * w * gain for c, w in zip(self.colour, warm, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Surface:
    """What light does on a thing: linear RGB base colour, roughness and metallic in [0, 1]."""

    colour: Vec3
    roughness: float = 0.7
    metallic: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Distractor:
    """A thing on the table that is only seen: nothing touches it.

    Attributes:
        shape: one of `SHAPES`; a cylinder stands upright.
        half_size: half extents, m; of a ball and a cylinder the first entry is the radius, the last half the height.
        position: of its middle, m.
        yaw: about the vertical, rad.
        surface: its look.
    """

    shape: str
    half_size: Vec3
    position: Vec3
    yaw: float
    surface: Surface

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"distractor: shape={self.shape!r}, expected one of {', '.join(SHAPES)}")
        if min(self.half_size) <= 0.0:
            raise ValueError(f"distractor: half_size={self.half_size}, expected positive half extents")


@dataclass(frozen=True, kw_only=True)
class CameraView:
    """Where a camera stands (`eye`), what it looks at (`target`), m, and its vertical field of view, rad.

    With `arm` both are in the tool frame of that arm (0 left, 1 right), and the camera moves with its hand.
    """

    eye: Vec3
    target: Vec3
    fov: float
    arm: int | None = None

    def __post_init__(self) -> None:
        if self.arm not in (None, 0, 1):
            raise ValueError(f"camera: arm={self.arm}, expected 0, 1 or none")


def camera_views() -> dict[str, CameraView]:
    """The named viewpoints: `front` and `top` see the whole workspace, the wrists' what a hand is about to grasp.

    `video` is for people. Those that stand still look along +x, so that the left arm is on the left of the picture.
    """
    wrist = CameraView(eye=(-0.12, 0.0, 0.09), target=(0.01, 0.0, -0.03), fov=1.2)
    return {
        "front": CameraView(eye=(-0.88, 0.0, 0.62), target=(0.02, 0.0, 0.09), fov=0.82),
        "top": CameraView(eye=(-0.001, 0.0, 1.35), target=(0.0, 0.0, 0.0), fov=0.80),
        "left": CameraView(eye=(-0.50, 0.75, 0.60), target=(0.0, 0.05, 0.05), fov=0.85),
        "right": CameraView(eye=(-0.50, -0.75, 0.60), target=(0.0, -0.05, 0.05), fov=0.85),
        "left_wrist": replace(wrist, arm=0),
        "right_wrist": replace(wrist, arm=1),
        "video": CameraView(eye=(-1.32, 0.0, 0.85), target=(0.05, 0.0, 0.20), fov=0.84),
    }


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """What a camera makes of the light.

    Attributes:
        seed: of the noise.
        shot: standard deviation of the photon noise at full scale (linear light 1); it grows with the root of light.
        read: standard deviation of the noise that is there in the dark, linear light.
        exposure: stops.
        red: white balance, stops of red against green.
        blue: likewise of blue.
    """

    seed: int
    shot: float
    read: float
    exposure: Wave = Wave()
    red: Wave = Wave()
    blue: Wave = Wave()

    def __post_init__(self) -> None:
        if self.shot < 0.0 or self.read < 0.0 or self.seed < 0:
            raise ValueError(f"sensor: seed={self.seed}, shot={self.shot}, read={self.read}, expected none negative")

    def gains_at(self, step: int) -> Vec3:
        """Factors on linear red, green and blue at a control step."""
        exposure = self.exposure.at(step)
        return 2.0 ** (exposure + self.red.at(step)), 2.0**exposure, 2.0 ** (exposure + self.blue.at(step))


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """How a scene looks.

    Attributes:
        ambient: linear RGB.
        lights: at most three.
        table: None: of the scene's `table_colour`.
        floor, wall: around the table.
        surfaces: of objects and goals, by name; those not named have their own colour and the usual finish.
        cameras: the named viewpoints.
        sway: displacement of every camera along x, y and z of the world, m, a wrist's too; empty: none.
        sensor: None: frames stay as they are rendered.
        distractors: things that are only seen.
    """

    ambient: Vec3 = (0.35, 0.35, 0.36)
    lights: tuple[Light, ...] = (
        Light(direction=(-0.6, 0.25, -1.0), colour=(0.9, 0.88, 0.84)),
        Light(direction=(0.4, -0.5, -0.8), colour=(0.35, 0.37, 0.42)),
    )
    table: Surface | None = None
    floor: Surface = Surface(colour=(0.33, 0.35, 0.38), roughness=0.95)
    wall: Surface = Surface(colour=(0.62, 0.66, 0.70), roughness=0.95)
    surfaces: Mapping[str, Surface] = field(default_factory=dict)
    cameras: Mapping[str, CameraView] = field(default_factory=camera_views)
    sway: tuple[Wave, ...] = ()
    sensor: Sensor | None = None
    distractors: tuple[Distractor, ...] = ()

    def __post_init__(self) -> None:
        if len(self.lights) > 3:  # what SAPIEN's shaders have room for
            raise ValueError(f"appearance: {len(self.lights)} lights, expected at most 3")
        if len(self.sway) not in (0, 3):
            raise ValueError(f"appearance: sway along {len(self.sway)} axes, expected 0 or 3")
        missing = sorted(set(camera_views()) - set(self.cameras))
        if missing:
            raise ValueError(f"appearance: no camera {', '.join(missing)}")
