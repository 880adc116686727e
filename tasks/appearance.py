"""The stage `visual`: a random look for a scene, from the ranges of training or from those beside them.

Takes a generator and what stands on the table, hands on an `Appearance`. Colours stay near their names, and what is
added to the table lies off the objects, the goals and the ways between them; physics does not know that it is there.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace

import numpy as np

from envs.appearance import (
    SHAPES,
    Appearance,
    CameraView,
    Distractor,
    Light,
    Sensor,
    Surface,
    Wave,
    camera_views,
    light_colour,
)
from envs.scene import GoalSpec, ObjectSpec, SceneSpec, Vec3

Interval = tuple[float, float]

PERIODS = (60.0, 400.0)  # control steps, of all that drifts within an episode
TEMPERATURE_DRIFT = 4.0  # mired
LEVEL_DRIFT, EXPOSURE_DRIFT, BALANCE_DRIFT = 0.2, 0.35, 0.08  # stops
SWAY = 0.003  # m
TINT, SHADE = (0.9, 1.1), (0.85, 1.1)  # of what has a colour with a name: factor per channel, on all
ROOM_TINT, ROOM_SHADE = (0.88, 1.12), (0.55, 1.2)  # of table, floor and wall
MAX_DISTRACTORS, TRIES = 4, 64
MUTED, DULL = (0.25, 0.55), (0.12, 0.45)  # saturation and value of distractors, which no colour word fits
CLEARANCE = 0.05  # m, of distractors from all that stands or moves low above the table
TABLE_ROOM = (0.36, 0.60)  # m, half extents of where distractors may lie
TOOL_START, TOOL_ROOM = 0.28, 0.08  # m: the y at which a tool starts, and how much room it needs there


@dataclass(frozen=True, kw_only=True)
class Span:
    """The intervals of training, and those beside them that the held-out side `scenes` draws from."""

    train: tuple[Interval, ...]
    heldout: tuple[Interval, ...]

    def draw(self, rng: np.random.Generator, *, heldout: bool) -> float:
        """Uniform over one of the side's intervals, each as likely; one draw of the generator."""
        intervals = self.heldout if heldout else self.train
        which, inside = divmod(float(rng.random()) * len(intervals), 1.0)
        low, high = intervals[int(which)]
        return low + (high - low) * inside


TEMPERATURE = Span(train=((150.0, 280.0),), heldout=((105.0, 140.0), (290.0, 330.0)))  # mired; training: 3 570-6 670 K
ROUGHNESS = Span(train=((0.45, 0.95),), heldout=((0.25, 0.4),))
METALLIC = Span(train=((0.0, 0.3),), heldout=((0.4, 0.7),))
ROOM_ROUGHNESS = Span(train=((0.65, 0.95),), heldout=((0.5, 0.6),))  # of what is so large that its glare would blind
ROOM_METALLIC = Span(train=((0.0, 0.08),), heldout=((0.12, 0.2),))
AZIMUTH = Span(train=((-0.14, 0.14),), heldout=((-0.28, -0.18), (0.18, 0.28)))  # rad, about what a camera looks at
HEIGHT = Span(train=((-0.05, 0.05),), heldout=((-0.10, -0.06), (0.06, 0.10)))  # m
NEAR = 0.15  # of these metres for a wrist's camera, which stands that much closer to what it sees
ZOOM = Span(train=((0.95, 1.06),), heldout=((0.88, 0.93), (1.08, 1.14)))  # factor on a field of view
HUE = Span(train=((65.0, 110.0), (290.0, 340.0)), heldout=((145.0, 215.0),))  # degrees, of distractors


def draw_appearance(rng: np.random.Generator, spec: SceneSpec, *, heldout: bool) -> Appearance:
    """A look for the scene `spec`; with `heldout`, from ranges that no other look is drawn from."""
    look, plain = _Look(rng, heldout=heldout), Appearance()
    ambient, lights = look.lights()
    colours = {o.name: o.colour for o in spec.objects} | {g.name: g.colour for g in spec.goals}
    return Appearance(
        ambient=ambient,
        lights=lights,
        table=look.room(spec.table_colour),
        floor=look.room(plain.floor.colour),
        wall=look.room(plain.wall.colour),
        surfaces={name: look.surface(colour) for name, colour in colours.items()},
        cameras={name: look.view(view) for name, view in camera_views().items()},
        sway=(look.wave(0.0, SWAY), look.wave(0.0, SWAY), look.wave(0.0, SWAY)),
        sensor=look.sensor(lights[0]),
        distractors=look.distractors(spec),
    )


class _Look:
    """Draws of one look, all from one side."""

    def __init__(self, rng: np.random.Generator, *, heldout: bool) -> None:
        self._rng, self._heldout = rng, heldout

    def of(self, span: Span) -> float:
        return span.draw(self._rng, heldout=self._heldout)

    def wave(self, mean: float, swing: float) -> Wave:
        """Three sinusoids about `mean` whose amplitudes add up to between half of `swing` and all of it."""
        amplitudes = self._rng.dirichlet(np.ones(3)) * swing * self._rng.uniform(0.5, 1.0)
        periods = PERIODS[0] * (PERIODS[1] / PERIODS[0]) ** self._rng.random(3)
        phases = self._rng.uniform(0.0, 2.0 * np.pi, size=3)
        return Wave(mean=mean, terms=tuple(_vec3(term) for term in np.stack([amplitudes, periods, phases], axis=1)))

    def surface(self, colour: Vec3) -> Surface:
        """A colour that keeps its name, with a random finish."""
        return Surface(colour=self._near(colour, TINT, SHADE), roughness=self.of(ROUGHNESS), metallic=self.of(METALLIC))

    def room(self, colour: Vec3) -> Surface:
        """What table, floor or wall look like; `colour` is where their colours lie about."""
        near = self._near(colour, ROOM_TINT, ROOM_SHADE)
        return Surface(colour=near, roughness=self.of(ROOM_ROUGHNESS), metallic=self.of(ROOM_METALLIC))

    def _near(self, colour: Vec3, tint: Interval, shade: Interval) -> Vec3:
        rgb = np.asarray(colour) * self._rng.uniform(*tint, size=3) * self._rng.uniform(*shade)
        return _vec3(np.clip(rgb, 0.0, 1.0))

    def lights(self) -> tuple[Vec3, tuple[Light, Light]]:
        """Ambient light, and a key and a fill light from other sides, that make the table about as bright as ever."""
        rng = self._rng
        level, ambient, fill = rng.uniform(0.6, 0.85), rng.uniform(0.3, 0.6), rng.uniform(0.15, 0.4)
        azimuth, direct = rng.uniform(-np.pi, np.pi), level * (1.0 - ambient)
        opposite = azimuth + np.pi + rng.uniform(-1.0, 1.0)
        key = self._light(azimuth, np.deg2rad(rng.uniform(40.0, 75.0)), direct * (1.0 - fill))
        other = self._light(opposite, np.deg2rad(rng.uniform(35.0, 70.0)), direct * fill)
        return _vec3(level * ambient * np.asarray(light_colour(key.temperature.mean))), (key, other)

    def _light(self, azimuth: float, elevation: float, share: float) -> Light:
        """A light that gives a level white surface this share of its full brightness."""
        flat = np.cos(elevation)
        strength = np.pi * share / np.sin(elevation)  # a surface sends back 1 / pi of what falls on it
        return Light(
            direction=_vec3([-flat * np.cos(azimuth), -flat * np.sin(azimuth), -np.sin(elevation)]),
            colour=_vec3(np.full(3, strength)),
            temperature=self.wave(self.of(TEMPERATURE), TEMPERATURE_DRIFT),
            level=self.wave(0.0, LEVEL_DRIFT),
        )

    def view(self, plain: CameraView) -> CameraView:
        """The camera swung about what it looks at, higher or lower, and looking a little aside."""
        turn, target = self.of(AZIMUTH), np.asarray(plain.target)
        near = 1.0 if plain.arm is None else NEAR
        x, y, z = np.asarray(plain.eye) - target
        swung = [np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y, z + near * self.of(HEIGHT)]
        aside = near * self._rng.uniform(-0.02, 0.02, size=3)
        return replace(plain, eye=_vec3(target + swung), target=_vec3(target + aside), fov=plain.fov * self.of(ZOOM))

    def sensor(self, key: Light) -> Sensor:
        """A noisy sensor whose white balance has followed the colour of the key light some of the way."""
        rng = self._rng
        red, green, blue = light_colour(key.temperature.mean)
        adapted = rng.uniform(0.4, 0.9)
        return Sensor(
            seed=int(rng.integers(2**32)),
            shot=float(rng.uniform(0.005, 0.03)),
            read=float(rng.uniform(0.0005, 0.002)),
            exposure=self.wave(float(rng.uniform(-0.25, 0.25)), EXPOSURE_DRIFT),
            red=self.wave(float(adapted * np.log2(green / red)), BALANCE_DRIFT),
            blue=self.wave(float(adapted * np.log2(green / blue)), BALANCE_DRIFT),
        )

    def distractors(self, spec: SceneSpec) -> tuple[Distractor, ...]:
        """Up to `MAX_DISTRACTORS`, fewer where the table is full."""
        placed: list[Distractor] = []
        for _ in range(int(self._rng.integers(MAX_DISTRACTORS + 1))):
            shape, half = SHAPES[int(self._rng.integers(len(SHAPES)))], self._rng.uniform(0.012, 0.032, size=3)
            if shape != "box":
                half = half[[0, 0, 0 if shape == "ball" else 2]]
            colour = colorsys.hsv_to_rgb(self.of(HUE) / 360.0, self._rng.uniform(*MUTED), self._rng.uniform(*DULL))
            surface = Surface(colour=colour, roughness=self.of(ROUGHNESS), metallic=self.of(METALLIC))
            yaw, places = self._rng.uniform(-np.pi, np.pi), self._rng.uniform(-1.0, 1.0, size=(TRIES, 2)) * TABLE_ROOM
            radius = float(np.hypot(half[0], half[1]))
            free = _room(places, spec) > CLEARANCE + radius
            for other in placed:
                gap = np.hypot(*(places - other.position[:2]).T)
                free &= gap > radius + float(np.hypot(*other.half_size[:2])) + 0.02
            if free.any():
                x, y = places[int(np.argmax(free))]
                placed.append(
                    Distractor(
                        shape=shape,
                        half_size=_vec3(half),
                        position=_vec3([x, y, half[2]]),
                        yaw=float(yaw),
                        surface=surface,
                    )
                )
        return tuple(placed)


def _room(places: np.ndarray, spec: SceneSpec) -> np.ndarray:
    """f64[N]: how far places f64[N, 2] on the table lie from all objects and goals, and from the ways between them.

    A way is a straight line between two things, or from a tool's start or an arm's base to a thing, as wide as the
    wider of its ends.
    """
    things = [(np.asarray(o.pose[:2]), _object_radius(o)) for o in spec.objects]
    things += [(np.asarray(g.pose[:2]), _goal_radius(g)) for g in spec.goals]
    starts = [(np.array([0.0, side * TOOL_START]), TOOL_ROOM) for side in (1.0, -1.0)]
    bases = [(np.array([0.0, side * spec.base_distance]), TOOL_ROOM) for side in (1.0, -1.0)]
    ways = [(a, b) for a in (*things, *starts) for b in things]
    ways += list(zip(bases, starts, strict=True))
    ways += [(base, thing) for thing in things for base in bases if base[0][1] * thing[0][1] > 0.0]
    room = np.full(len(places), np.inf)
    for (start, start_radius), (end, end_radius) in ways:
        along = end - start
        share = np.clip((places - start) @ along / max(float(along @ along), 1e-12), 0.0, 1.0)
        away = np.linalg.norm(places - start - share[:, None] * along, axis=1)
        room = np.minimum(room, away - max(start_radius, end_radius))
    return room


def _object_radius(spec: ObjectSpec) -> float:
    """Of a disc about the object's frame that holds it, its base, and the way it slides, m."""
    reach = max(float(np.linalg.norm(np.abs(p.position) + p.half_size)) for p in (*spec.parts, *spec.base))
    slides = spec.joint is not None and spec.joint.kind == "slide"
    return reach + (max(np.abs(spec.joint.limits)) if slides and spec.joint is not None else 0.0)


def _goal_radius(spec: GoalSpec) -> float:
    """Of a disc about the goal that holds its marker, m."""
    return float(np.hypot(*spec.marker_half_size[:2]))


def _vec3(values: np.ndarray | list[float]) -> Vec3:
    x, y, z = (float(value) for value in values)
    return (x, y, z)
