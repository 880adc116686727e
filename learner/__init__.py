"""The learner: models, their training step, checkpoints and policy runtimes; no simulator, no Ray, no MLflow."""

from learner.batch import Frame, TensorBatch, prepare_batch
from learner.build import build_model
from learner.checkpoint import (
    CheckpointInfo,
    from_pretrained,
    list_checkpoints,
    load_model,
    load_state,
    read_info,
    save_checkpoint,
)
from learner.clwm import CLWM
from learner.config import (
    ConditionConfig,
    DataSpec,
    FlowConfig,
    MemoryConfig,
    ModelConfig,
    TrainConfig,
    preset,
)
from learner.flow_policy import FlowPolicy
from learner.heldout import HeldoutError, heldout_error
from learner.interface import WorldActionModel
from learner.parallel import Ranks
from learner.runtime import PolicyRuntime
from learner.train_step import TrainState, learning_rate

__all__ = [
    "CLWM",
    "CheckpointInfo",
    "ConditionConfig",
    "DataSpec",
    "FlowConfig",
    "FlowPolicy",
    "Frame",
    "HeldoutError",
    "MemoryConfig",
    "ModelConfig",
    "PolicyRuntime",
    "Ranks",
    "TensorBatch",
    "TrainConfig",
    "TrainState",
    "WorldActionModel",
    "build_model",
    "from_pretrained",
    "heldout_error",
    "learning_rate",
    "list_checkpoints",
    "load_model",
    "load_state",
    "prepare_batch",
    "preset",
    "read_info",
    "save_checkpoint",
]
