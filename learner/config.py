"""Settings of the learner: what the data look like, the model, its memory, and training.

Owns the frozen dataclasses that a launcher fills in, their validation, and the named presets. Takes plain values,
hands on validated objects; every error is a `ValueError` that names the key, the value and what was expected.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from learner.flow import Grid


def _at_least(section: str, owner: object, **lowest: float) -> None:
    for name, low in lowest.items():
        value = getattr(owner, name)
        if value < low:
            raise ValueError(f"{section}.{name}={value}: expected at least {low}")


def _fraction(section: str, owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{section}.{name}={value}: expected a number in [0, 1]")


def _one_of(section: str, owner: object, name: str, allowed: tuple[str, ...]) -> None:
    value = getattr(owner, name)
    if value not in allowed:
        raise ValueError(f"{section}.{name}={value!r}: expected one of {', '.join(allowed)}")


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What the data look like; saved with a checkpoint and compared when it is loaded.

    Attributes:
        tokens: L, latent tokens per frame.
        channels: C, channels per token.
        proprio: P.
        chunk: N, actions per chunk.
        tau: control steps between frames; at most `chunk`.
        text_dim: length of a text embedding.
        control: which half of the unified action is predicted: `joint` targets, or `eef` tool poses, which whoever
            executes them turns into joint targets by inverse kinematics.
        encoder_id: name and weights hash of the encoder that made the tokens.
        text_encoder_id: the same for the text encoder.
    """

    tokens: int
    channels: int
    proprio: int = 30
    chunk: int = 16
    tau: int = 8
    text_dim: int = 384
    control: str = "joint"
    encoder_id: str = ""
    text_encoder_id: str = ""

    def __post_init__(self) -> None:
        _at_least("data", self, tokens=1, channels=1, proprio=1, chunk=1, tau=1, text_dim=1)
        _one_of("data", self, "control", ("joint", "eef"))
        if self.chunk < self.tau:
            raise ValueError(f"data.chunk={self.chunk}: expected at least data.tau={self.tau}")


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """How flow matching is parameterised, trained and sampled.

    Attributes:
        predict: `clean` (the network outputs the data point, velocity = (x - x_s) / (1 - s)) or `velocity` (as in
            the paper). Both are trained on the velocity error; `clean` needs no room for the noise in the network.
        floor: lower limit of 1 - s where `clean` divides by it, in training.
        noise_bias: training times are s = 1 - u^(1 / noise_bias) with u uniform: 1 is the paper's uniform law, above 1
            leans towards noise. On real pick-and-place, 3 with floor 0.5 cut the held-out error of 60 CPU seconds of
            training from 0.027 to 0.019 rad against 1.5 with 0.2: accuracy is won where little of the answer shows.
        video_steps: solver steps from s = 0 to `video_stop` for a frame.
        video_stop: flow time at which the next frame is handed to the action stage; below 1 it keeps that much noise,
            which is what noise augmentation showed the action stage in training (`condition.noise_low`).
        action_steps: solver steps from s = 0 to `action_stop` for an action chunk.
        action_stop: from here to 1 a chunk takes one step.
        solver: `euler` or `midpoint`.
        video_guidance, action_guidance: classifier-free guidance, the weight of the instruction at sampling; needs
            `condition.text_drop`. 1 is none and costs nothing; any other value doubles the rows of its stage.
    """

    predict: str = "clean"
    floor: float = 0.5
    noise_bias: float = 3.0
    video_steps: int = 4
    video_stop: float = 1.0
    action_steps: int = 6
    action_stop: float = 1.0
    solver: str = "euler"
    video_guidance: float = 1.0
    action_guidance: float = 1.0

    def __post_init__(self) -> None:
        _one_of("flow", self, "predict", ("clean", "velocity"))
        _one_of("flow", self, "solver", ("euler", "midpoint"))
        _at_least("flow", self, video_steps=1, action_steps=1, noise_bias=0.1, floor=1e-3)
        _at_least("flow", self, video_guidance=0.0, action_guidance=0.0)
        _fraction("flow", self, "floor", "video_stop", "action_stop")
        for name in ("video_stop", "action_stop"):
            if getattr(self, name) == 0.0:
                raise ValueError(f"flow.{name}=0.0: expected more than 0, else the sample stays noise")

    @property
    def video_grid(self) -> Grid:
        """Of the next frame's flow."""
        return Grid(steps=self.video_steps, stop=self.video_stop, solver=self.solver)

    @property
    def action_grid(self) -> Grid:
        """Of the chunk's flow."""
        return Grid(steps=self.action_steps, stop=self.action_stop, solver=self.solver)


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """The memory between frames: what it is, where it is read, and how it learns.

    Attributes:
        kind: `ttt`, the dual-state TTT-MLP (arXiv 2604.16484, section on test-time training), whose state never grows;
            `kv`, a cache of all frames' keys and values; `window`, of the last `window` frames'; or `none`.
        layers: indices of the blocks before which a memory is read; empty for none.
        dim: width of keys, values and queries; the inner MLP of `ttt` expands it 4x.
        heads: attention heads (`kv`, `window`).
        window: frames that `window` keeps, the present one included.
        lr: `ttt`: inner learning rate (eta).
        decay: `ttt`: share of the distance to the learned initial state that survives a frame. 1 is the paper's rule;
            below 1 a memory trained on short windows meets at frame 10 000 what it met in training.
        rule: `ttt`: where inner gradients are taken: `initial` (at the learned initial state: training and inference
            agree exactly, and training runs in the dual form) or `online` (at the current state, the paper's rule;
            slower).
        alpha: initial value of the residual gate's parameter.
        context_frames: frames after which a long-term state starts anew, so that it never holds more than training
            showed it; 0: never. None: what launchers fill in, the frames of a training window (`for_windows`).
    """

    kind: str = "ttt"
    layers: tuple[int, ...] = (1,)
    dim: int = 64
    heads: int = 2
    window: int = 4
    lr: float = 0.25
    decay: float = 0.7
    rule: str = "initial"
    alpha: float = 0.1
    context_frames: int | None = None

    def __post_init__(self) -> None:
        _one_of("memory", self, "kind", ("ttt", "kv", "window", "none"))
        _at_least("memory", self, dim=1, heads=1, window=1, lr=0.0)
        if self.context_frames is not None:
            _at_least("memory", self, context_frames=0)
        if self.kind in ("kv", "window") and self.dim % (2 * self.heads):
            raise ValueError(
                f"memory.dim={self.dim}: expected a multiple of 2 * memory.heads={2 * self.heads} "
                f"for memory.kind={self.kind}"
            )
        _fraction("memory", self, "decay")
        _one_of("memory", self, "rule", ("initial", "online"))
        if len(set(self.layers)) != len(self.layers) or any(layer < 0 for layer in self.layers):
            raise ValueError(f"memory.layers={self.layers}: expected distinct block indices from 0")


@dataclass(frozen=True, kw_only=True)
class ConditionConfig:
    """What the action stage is shown of the next frame, in training and when acting.

    Attributes:
        text_drop: probability that a window's instruction is left out, for guidance at sampling.
        drop: probability that the next frame is replaced by the learned `missing` vector.
        noise_prob: probability that the true next frame is noised (the paper's augmentation: 0.5).
        noise_low: its level s_aug is uniform in [noise_low, 1] (the paper: 0.5).
        history_noise_prob: the same probability for the features that the memory is written with (docs/equations.md).
        frame_noise_prob: the same for the present frame (0: precision of the present is worth more than robustness).
        imagined: fraction of windows that are shown the model's own one-step imagination instead of the truth.
        imagined_after: training progress in [0, 1] from which `imagined` applies.
        level: the noise level reported to the action stage for a frame that was imagined to the end.
        use: whether acting imagines the next frame at all; without, the `missing` vector is shown.
        change: show the next frame as its change from the present one, so that what stays where it is takes no room.
    """

    text_drop: float = 0.0
    drop: float = 0.3
    noise_prob: float = 0.5
    noise_low: float = 0.5
    history_noise_prob: float = 0.5
    frame_noise_prob: float = 0.0
    imagined: float = 0.0
    imagined_after: float = 0.2
    level: float = 1.0
    use: bool = True
    change: bool = True

    def __post_init__(self) -> None:
        names = ("text_drop", "drop", "noise_prob", "noise_low", "history_noise_prob", "frame_noise_prob", "imagined")
        _fraction("condition", self, *names, "imagined_after", "level")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model: which one, how large, and how it is trained on a batch.

    Attributes:
        kind: `clwm` (causal latent world model) or `flow_policy` (one network, no world model, no memory).
        width: D, model width. `depth`: blocks. `heads`: attention heads (clwm). `expand`: hidden width / width.
        frame_mode: `packed` (all tokens of a frame become `frame_tokens` model tokens by one linear map: pose tokens)
            or, for image patches, `grouped` (each L / `frame_tokens` consecutive ones become one model token, by a map
            of their own: a row of patches, say) or `token` (one model token per latent token).
        frame_tokens: model tokens per frame, of all cameras together; not in mode `token`.
        patch_width: image patches: if positive, width of a small MLP that all patches share and that each goes through
            before any of these maps, so that those may be few and wide.
        components: image patches: if positive, only so many principal components of the token channels are seen and
            imagined (`learner.statistics`).
        action_tokens: model tokens per action chunk.
        action_draws: M, independent (noise, time) draws per chunk that share one context.
        video_weight: weight of the video loss beside the action loss.
        video_residual: predict the next frame as a change of the present one.
        normaliser_batches: the normaliser's statistics are frozen after this many training batches.
    """

    kind: str = "clwm"
    width: int = 192
    depth: int = 3
    heads: int = 3
    expand: int = 4
    frame_mode: str = "packed"
    frame_tokens: int = 1
    patch_width: int = 0
    components: int = 0
    action_tokens: int = 2
    action_draws: int = 1
    video_weight: float = 0.5
    video_residual: bool = True
    normaliser_batches: int = 50
    flow: FlowConfig = field(default_factory=FlowConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    condition: ConditionConfig = field(default_factory=ConditionConfig)

    def __post_init__(self) -> None:
        _one_of("model", self, "kind", ("clwm", "flow_policy"))
        _one_of("model", self, "frame_mode", ("packed", "grouped", "token"))
        positive = ("width", "depth", "heads", "expand", "frame_tokens", "action_tokens", "action_draws")
        _at_least("model", self, **dict.fromkeys((*positive, "normaliser_batches"), 1))
        _at_least("model", self, video_weight=0.0, patch_width=0, components=0)
        if self.kind == "clwm" and self.width % self.heads:
            raise ValueError(f"model.heads={self.heads}: expected a divisor of model.width={self.width}")
        if self.kind == "clwm" and any(layer >= self.depth for layer in self.memory.layers):
            raise ValueError(f"memory.layers={self.memory.layers}: expected indices below model.depth={self.depth}")
        stop, low = self.flow.video_stop, self.condition.noise_low
        if stop < 1.0 and (stop < low or not self.condition.noise_prob):
            raise ValueError(
                f"flow.video_stop={stop}: expected at least condition.noise_low={low} with condition.noise_prob "
                "above 0, else the action stage meets noise that training never showed it"
            )

        if self.guided and not self.condition.text_drop:
            raise ValueError(
                f"flow.video_guidance={self.flow.video_guidance}, flow.action_guidance={self.flow.action_guidance}: "
                "expected 1 with condition.text_drop=0, since training never left the instruction out"
            )

    def for_windows(self, frames: int) -> ModelConfig:
        """The same, its memory's context those `frames` that a training window has, unless that was said."""
        if self.memory.context_frames is not None:
            return self
        return replace(self, memory=replace(self.memory, context_frames=frames))

    def channels(self, data: DataSpec) -> int:
        """C_m, channels of a token as the model sees and imagines it."""
        return self.components or data.channels

    @property
    def guided(self) -> bool:
        """Whether either stage is guided, and sequences are kept told and free."""
        return not self.flow.video_guidance == self.flow.action_guidance == 1.0

    @property
    def shown_level(self) -> float:
        """The noise level reported to the action stage for an imagined frame."""
        return self.condition.level if self.flow.video_stop == 1.0 else self.flow.video_stop


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimisation.

    Attributes:
        lr: peak learning rate. `warmup`: share of training with a linear rise. `lr_end`: final share of `lr`, reached
            by a cosine over progress in [0, 1].
        weight_decay: AdamW, on matrices only. `beta1`, `beta2`: its averages.
        clip: largest gradient norm.
        ema: final decay of the weights' moving average; it starts at (1 + n) / (10 + n) after n updates.
        accumulate: micro-batches per step, whose gradients are summed; the step is the same as that of the whole batch.
        bf16: run the forward pass under bfloat16 autocast.
        recompute: keep no activations inside blocks, compute them again in the backward pass: less memory, more time.
        compile: compile the blocks (`torch.compile`); the first step takes minutes.
        noise: where training noise is drawn: `device`, where the model is; or `cpu`, slower on a GPU, but the same
            numbers on every device, so that loss curves of two devices can be compared.
        seed: of the training noise.
    """

    lr: float = 2e-3
    warmup: float = 0.02
    lr_end: float = 0.02
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    ema: float = 0.999
    accumulate: int = 1
    bf16: bool = False
    recompute: bool = False
    compile: bool = False
    noise: str = "device"
    seed: int = 0

    def __post_init__(self) -> None:
        _fraction("train", self, "warmup", "lr_end", "beta1", "beta2", "ema")
        _at_least("train", self, weight_decay=0.0, accumulate=1)
        _one_of("train", self, "noise", ("device", "cpu"))
        for name in ("lr", "clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"train.{name}={getattr(self, name)}: expected a positive number")


def preset(name: str, kind: str = "clwm") -> ModelConfig:
    """The named model size, for either kind.

    `tiny` is for tests, `laptop` (about 2 M parameters) for two CPU cores, `base` (about 30 M) for one GPU, `large`
    (over 300 M) for more.

    Raises:
        ValueError: for an unknown name or kind.
    """
    sizes: dict[tuple[str, str], dict[str, Any]] = {
        ("clwm", "tiny"): {"width": 64, "depth": 2, "heads": 2},
        ("clwm", "laptop"): {"width": 192, "depth": 3, "heads": 3},
        ("clwm", "base"): {"width": 512, "depth": 9, "heads": 8, "frame_tokens": 4, "action_tokens": 3},
        ("clwm", "large"): {"width": 1024, "depth": 24, "heads": 16, "frame_tokens": 4, "action_tokens": 3},
        ("flow_policy", "tiny"): {"width": 128, "depth": 2, "expand": 2},
        ("flow_policy", "laptop"): {"width": 512, "depth": 4, "expand": 2},
        ("flow_policy", "base"): {"width": 1152, "depth": 6, "expand": 2},
        ("flow_policy", "large"): {"width": 3072, "depth": 8, "expand": 2},
    }
    if (kind, name) not in sizes:
        known = ", ".join(sorted({size for _, size in sizes}))
        raise ValueError(f"model.preset={name!r} for model.kind={kind!r}: expected one of {known} (clwm, flow_policy)")
    memories = {
        "tiny": MemoryConfig(dim=16),
        "laptop": MemoryConfig(dim=48),
        "base": MemoryConfig(layers=(1, 5), dim=128),
        "large": MemoryConfig(layers=(1, 9, 17), dim=256),
    }
    return ModelConfig(kind=kind, memory=memories[name], **sizes[kind, name])
