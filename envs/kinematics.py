"""Forward and inverse kinematics of one Panda, on pinocchio, in the arm's base frame.

The inverse picks, of all joint vectors that reach a pose, the one nearest to a neutral posture. So it
is a smooth function of the pose alone, which is what makes the experts built on it easy to clone.
"""

from __future__ import annotations

import numpy as np
import pinocchio as pin

from envs.panda import HOME_QPOS, TCP_LINK, TOOL_IN_TCP, panda_urdf


class PandaKinematics:
    """Kinematics of the seven arm joints up to the tool point.

    Attributes:
        lower: f64[7], joint limits, radians.
        upper: f64[7].
    """

    def __init__(self, neutral: tuple[float, ...] = HOME_QPOS) -> None:
        full = pin.buildModelFromUrdf(str(panda_urdf()))
        fingers = [full.getJointId(n) for n in ("panda_finger_joint1", "panda_finger_joint2")]
        self._model = pin.buildReducedModel(full, fingers, pin.neutral(full))
        tcp = self._model.frames[self._model.getFrameId(TCP_LINK)]
        turn = pin.SE3(pin.Quaternion(*TOOL_IN_TCP).matrix(), np.zeros(3))
        tool = pin.Frame("tool", tcp.parentJoint, tcp.placement * turn, pin.FrameType.OP_FRAME)
        self._frame = self._model.addFrame(tool)
        self._data = self._model.createData()
        self._neutral = np.asarray(neutral, dtype=np.float64)
        self.lower = np.array(self._model.lowerPositionLimit)
        self.upper = np.array(self._model.upperPositionLimit)

    def forward(self, q: np.ndarray) -> np.ndarray:
        """Pose f64[7] (position, wxyz with qw >= 0) of the tool frame (see `envs.panda.Arm`) at `q` f64[7]."""
        pose = self._forward_se3(q)
        x, y, z, w = pin.Quaternion(pose.rotation).coeffs()
        quat = np.array([w, x, y, z])
        return np.concatenate([pose.translation, quat if w >= 0.0 else -quat])

    def forward_many(self, q: np.ndarray) -> np.ndarray:
        """`forward` row by row: f64[N, 7] -> f64[N, 7]."""
        return np.stack([self.forward(row) for row in q])

    def _forward_se3(self, q: np.ndarray) -> pin.SE3:
        pin.forwardKinematics(self._model, self._data, np.asarray(q, dtype=np.float64))
        return pin.updateFramePlacement(self._model, self._data, self._frame)

    def inverse(self, pose: np.ndarray, seed: np.ndarray, *, iterations: int = 100) -> np.ndarray | None:
        """Joint angles f64[7] that reach `pose` f64[7] and lie nearest to the neutral posture.

        Damped Gauss-Newton on the pose error with the pull to the neutral posture projected into the
        null space. `seed` f64[7] is where to start: it decides speed, not (away from limits) the result.
        Returns None where the pose is out of reach (error above 0.1 mm or 0.1 mrad) or outside the limits.
        """
        w, x, y, z = pose[3:]
        target = pin.SE3(pin.Quaternion(w, x, y, z).matrix(), np.asarray(pose[:3], dtype=np.float64))
        q = np.array(seed, dtype=np.float64)
        damping = 1e-8 * np.eye(6)
        for _ in range(iterations):
            pin.computeJointJacobians(self._model, self._data, q)
            here = pin.updateFramePlacement(self._model, self._data, self._frame)
            error = pin.log6(here.actInv(target)).vector
            jacobian = pin.getFrameJacobian(self._model, self._data, self._frame, pin.LOCAL)
            pull = self._neutral - q
            solved = np.linalg.solve(jacobian @ jacobian.T + damping, error - jacobian @ pull)
            step = jacobian.T @ solved + pull
            size = float(np.abs(step).max())
            q = np.clip(q + step * min(1.0, 0.5 / max(size, 1e-12)), self.lower, self.upper)
            if size < 1e-5:
                break
        final = pin.log6(self._forward_se3(q).actInv(target)).vector
        return q if float(np.abs(final).max()) < 1e-4 else None
